from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme
from attrs import define, field

from s2frames_httpx.channel import TcpChannel, TlsChannel
from s2frames_httpx.link import open_socket


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection; the first does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener, open_socket(socket.AF_INET) as tcp:
        tcp.setblocking(True)
        tcp.connect(listener.getsockname())
        tcp.setblocking(False)
        peer, _ = listener.accept()
        with peer:
            yield tcp, peer


def test_bytes_over_a_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    tcp, peer = pair
    channel = TcpChannel(tcp)
    assert channel.receive(10) is None
    assert channel.send(memoryview(b"abc")) == 3
    assert channel.flush()
    assert peer.recv(10) == b"abc"
    peer.sendall(b"defg")
    peer.shutdown(socket.SHUT_WR)
    tcp.setblocking(True)
    assert [channel.receive(3), channel.receive(3), channel.receive(3)] == [b"def", b"g", b""]
    assert not channel.has_received


def test_a_socket_that_takes_no_more(pair: tuple[socket.socket, socket.socket]) -> None:
    channel = TcpChannel(pair[0])
    block = memoryview(bytes(1 << 20))
    while channel.send(block):
        """The peer reads nothing."""
    assert channel.send(block) == 0


# TLS


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The client's and the server's."""
    authority = trustme.CA()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("peer").configure_cert(server)
    return client, server


@define
class Below:
    """A channel to a server in this thread. It takes so many bytes at a time, if told."""

    #: What was sent to the server, and what is received from it.
    sent: bytearray = field(factory=bytearray)
    received: bytearray = field(factory=bytearray)
    room: int | None = None
    has_ended: bool = False

    def receive(self, max_bytes: int) -> bytes | None:
        if not self.received:
            return b"" if self.has_ended else None
        data = bytes(self.received[:max_bytes])
        del self.received[:max_bytes]
        return data

    def send(self, data: memoryview) -> int:
        size = len(data) if self.room is None else min(self.room, len(data))
        self.sent += data[:size]
        if self.room is not None:
            self.room -= size
        return size

    def flush(self) -> bool:
        return True

    @property
    def has_received(self) -> bool:
        return bool(self.received)


class Server:
    """The other side of TLS."""

    def __init__(self, below: Below, context: ssl.SSLContext) -> None:
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.got = bytearray()

    def turn(self, data: bytes = b"") -> None:
        """Take what was sent to it, and answer."""
        self._incoming.write(bytes(self._below.sent))
        self._below.sent.clear()
        try:
            self._tls.do_handshake()
            if data:
                self._tls.write(data)
            while True:
                self.got += self._tls.read(65536)
        except ssl.SSLWantReadError:
            """That was all."""
        self._below.received += self._outgoing.read()


def shaken(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> tuple[TlsChannel, Below, Server]:
    client, server_context = contexts
    below = Below()
    channel, server = TlsChannel(below, client, "peer"), Server(below, server_context)
    while not channel.shake_hands():
        server.turn()
    server.turn()
    return channel, below, server


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def test_a_handshake_waits_for_the_peer(contexts: Contexts) -> None:
    below = Below()
    channel = TlsChannel(below, contexts[0], "peer")
    assert not channel.shake_hands()
    assert not channel.shake_hands()
    assert below.sent.startswith(b"\x16\x03")


def test_a_handshake_waits_for_room(contexts: Contexts) -> None:
    below = Below(room=10)
    channel, server = TlsChannel(below, contexts[0], "peer"), Server(below, contexts[1])
    assert not channel.shake_hands()
    assert not channel.flush()
    assert len(below.sent) == 10
    below.room = None
    while not channel.shake_hands():
        server.turn()
    assert channel.tls.version() is not None


def test_both_directions(contexts: Contexts) -> None:
    channel, _, server = shaken(contexts)
    data = os.urandom(300_000)
    left = memoryview(data)
    while left:
        left = left[channel.send(left) :]
    server.turn(data[::-1])
    assert server.got == data
    received = bytearray()
    while (piece := channel.receive(100_000)) is not None:
        assert 0 < len(piece) <= 100_000
        received += piece
    assert received == data[::-1]
    assert not channel.has_received


def test_all_records_of_one_receive_are_handed_out_together(contexts: Contexts) -> None:
    channel, _, server = shaken(contexts)
    for letter in (b"a", b"b", b"c"):
        server.turn(letter)
    assert channel.receive(2) == b"ab"
    assert channel.has_received
    assert channel.receive(2) == b"c"
    assert channel.receive(2) is None


def test_no_more_is_encrypted_than_can_be_sent(contexts: Contexts) -> None:
    channel, below, server = shaken(contexts)
    below.room = 1000
    data = memoryview(os.urandom(200_000))
    taken = channel.send(data)
    assert taken == 64 * 1024
    assert not channel.flush()
    assert channel.send(data[taken:]) == 0
    below.room = None
    assert channel.flush()
    server.turn()
    assert server.got == data[:taken]


def test_the_end_below_is_the_end(contexts: Contexts) -> None:
    channel, below, server = shaken(contexts)
    server.turn(b"last")
    below.has_ended = True
    assert [channel.receive(9), channel.receive(9), channel.receive(9)] == [b"last", b"", b""]


def test_a_record_that_is_none_is_told_after_what_was_good(contexts: Contexts) -> None:
    channel, below, server = shaken(contexts)
    server.turn(b"good")
    below.received += b"\x17\x03\x03\x00\x20" + bytes(32)
    assert channel.receive(9) == b"good"
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            channel.receive(9)


def test_a_certificate_that_is_not_trusted(contexts: Contexts) -> None:
    below = Below()
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    channel, server = TlsChannel(below, stranger, "peer"), Server(below, contexts[1])
    assert not channel.shake_hands()
    server.turn()
    with pytest.raises(ssl.SSLCertVerificationError):
        channel.shake_hands()


def test_tls_in_tls(contexts: Contexts) -> None:
    """As through a proxy that is spoken to in TLS itself."""
    outer, _, outer_server = shaken(contexts)
    inside = Below()
    inner, inner_server = TlsChannel(outer, contexts[0], "peer"), Server(inside, contexts[1])

    def turn(data: bytes = b"") -> None:
        outer_server.turn()
        inside.sent += outer_server.got
        outer_server.got.clear()
        inner_server.turn(data)
        outer_server.turn(bytes(inside.received))
        inside.received.clear()

    while not inner.shake_hands():
        turn()
    assert inner.send(memoryview(b"hello")) == 5
    turn(b"olleh")
    assert inner_server.got == b"hello"
    assert inner.receive(10) == b"olleh"
