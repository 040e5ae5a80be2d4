from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from s2frames.system.process import THIS_PROCESS
from s2frames.system.socket_options import UNSENT_BYTES
from s2frames_httpx.link import Link, check_connected, open_socket, stream_info


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tcp = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        with tcp, peer:
            yield tcp, peer


def test_sockets_do_not_block_and_send_at_once() -> None:
    with open_socket(socket.AF_INET) as tcp:
        assert tcp.gettimeout() == 0
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        bound = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        assert bound is None or tcp.getsockopt(socket.IPPROTO_TCP, bound) == UNSENT_BYTES


def test_one_that_rests_is_closed_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    links: set[Link] = set()
    link = Link(pair[0], links)
    assert links == {link}
    for _ in range(2):
        link.close()
    assert (pair[0].fileno(), links) == (-1, set())
    with pytest.raises(OSError, match="was closed"):
        link.enter()
    link.leave()


def test_one_that_another_thread_uses_is_shut_down_and_closed_by_that_one(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    link = Link(pair[0], set())
    entered = threading.Event()
    seen: list[tuple[bytes, bool]] = []

    def use() -> None:
        link.enter()
        try:
            entered.set()
            data = link.socket.recv(1)
            seen.append((data, link.socket.fileno() >= 0))
        finally:
            link.leave()

    thread = threading.Thread(target=use)
    thread.start()
    assert entered.wait(60)
    link.close()
    thread.join(60)
    assert seen == [(b"", True)]
    assert pair[0].fileno() == -1


def test_its_own_user_closes_it_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    link = Link(pair[0], set())
    link.enter()
    link.close()
    assert pair[0].fileno() == -1
    link.leave()


def test_in_a_child_process_only_the_descriptor_is_closed(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    tcp, peer = pair
    # As a fork has it.
    copy = tcp.dup()
    link = Link(copy, set())
    # Another thread, which is not in the child.
    link._user = -1
    monkeypatch.setattr(THIS_PROCESS, "number", -1)
    link.close()
    assert copy.fileno() == -1
    tcp.sendall(b"still here")
    assert peer.recv(20) == b"still here"


def test_an_attempt_that_failed_says_why() -> None:
    with socket.socket() as silent, open_socket(socket.AF_INET) as tcp:
        silent.bind(("127.0.0.1", 0))
        tcp.settimeout(60)
        with pytest.raises(ConnectionRefusedError):
            tcp.connect(silent.getsockname())
        check_connected(tcp)


def test_what_httpcore_asks_for(pair: tuple[socket.socket, socket.socket]) -> None:
    tcp, peer = pair
    tcp.setblocking(False)
    assert stream_info("socket", tcp, None, is_dirty=False) is tcp
    assert stream_info("ssl_object", tcp, None, is_dirty=False) is None
    assert stream_info("nonsense", tcp, None, is_dirty=False) is None
    assert not stream_info("is_readable", tcp, None, is_dirty=False)
    assert stream_info("is_readable", tcp, None, is_dirty=True)
    peer.close()
    tcp.settimeout(60)
    assert tcp.recv(1, socket.MSG_PEEK) == b""
    tcp.setblocking(False)
    assert stream_info("is_readable", tcp, None, is_dirty=False)
    tcp.close()
    assert stream_info("is_readable", tcp, None, is_dirty=False)
