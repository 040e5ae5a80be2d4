"""Sockets of every flavour of httpx: names, addresses, TLS, time."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from contextlib import suppress
from math import inf
from typing import Any

import httpx
import pytest
import trustme

from httpx_adapter.wires import deaf_address, fetch, in_tls, request_of, resolving_to, soon
from s2frames import Endpoints, Retry, Settings
from s2frames.errors import CertificateError, ConnectError, S2FramesError, TransportError
from s2frames_httpx import async_network, channel, network
from s2frames_httpx.library import httpcore
from s2frames_httpx.link import Link
from s2frames_httpx.network import Stream
from s2frames_httpx.patience import Patience
from scenes import Flavour, open_client
from scripted_server import Connection, answer, content_length, scripted_server

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="its full queues are silent")

ONCE = Retry(max_attempts=1)


def at(url: str, **changes: Any) -> Settings:
    return Settings(endpoints=Endpoints.at(url), retry=ONCE, **changes)


def echo(connection: Connection) -> None:
    while True:
        head = connection.receive_head()
        connection.send(answer("200 OK", connection.receive_exactly(content_length(head))))


# Sockets


async def test_each_receive_is_acked_quickly_and_sends_are_not_held_back(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    acked: list[bool] = []

    def quick_acks(tcp: socket.socket) -> Any:
        return lambda: acked.append(bool(tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))

    monkeypatch.setattr(channel, "quick_acks", quick_acks)
    with scripted_server(echo) as server:
        async with open_client(flavour, at(server.url)) as client:
            for n in range(1, 4):
                await fetch(client, server.url)
                assert acked[-1:] == [True]
                assert len(acked) >= n


async def test_large_bodies_both_ways(flavour: Flavour) -> None:
    content = bytes(range(256)) * 20_000
    with scripted_server(echo) as server:
        async with open_client(flavour, at(server.url)) as client:
            for _ in range(2):
                assert (await fetch(client, server.url, content)).content == content
        assert server.connections == 1


# Names and addresses


async def test_a_refused_address_is_followed_by_the_next_at_once(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "ATTEMPT_DELAY", 1000)
    monkeypatch.setattr(async_network, "ATTEMPT_DELAY", 1000)
    with socket.socket() as nobody, scripted_server(echo) as server:
        nobody.bind(("127.0.0.1", 0))
        port = int(server.url.rsplit(":", 1)[1])
        both = resolving_to(nobody.getsockname(), ("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", both)
        url = f"http://two.localhost:{port}"
        async with open_client(flavour, at(url, connect_timeout=1000)) as client:
            assert (await fetch(client, url)).status_code == 200


@on_linux
async def test_an_address_that_says_nothing_is_overtaken(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deaf_address() as deaf, scripted_server(echo) as server:
        port = int(server.url.rsplit(":", 1)[1])
        both = resolving_to(deaf, ("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", both)
        url = f"http://two.localhost:{port}"
        async with open_client(flavour, at(url, connect_timeout=1000)) as client:
            assert (await fetch(client, url)).status_code == 200


@on_linux
async def test_a_refusal_lets_the_next_one_begin_while_others_wait(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.socket.connect

    def begin(tcp: socket.socket, address: Any) -> None:
        # From the second attempt on nothing begins by time.
        for module in (network, async_network):
            monkeypatch.setattr(module, "ATTEMPT_DELAY", 1000)
        connect(tcp, address)

    for module in (network, async_network):
        monkeypatch.setattr(module, "ATTEMPT_DELAY", 0.01)
    with deaf_address() as deaf, socket.socket() as nobody, scripted_server(echo) as server:
        nobody.bind(("127.0.0.1", 0))
        port = int(server.url.rsplit(":", 1)[1])
        three = resolving_to(deaf, nobody.getsockname(), ("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", three)
        monkeypatch.setattr(socket.socket, "connect", begin)
        url = f"http://three.localhost:{port}"
        async with open_client(flavour, at(url, connect_timeout=1000)) as client:
            assert (await fetch(client, url)).status_code == 200


async def test_where_all_refuse_the_first_refusal_is_told(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        both = resolving_to(one.getsockname(), two.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", both)
        async with open_client(flavour, at("http://two.localhost:1")) as client:
            with pytest.raises(ConnectError, match="refused"):
                await client.basin_config("test-basin")


@on_linux
def test_none_is_waited_for_that_begins_as_the_network_is_closed() -> None:
    # It says nothing for longer than this test may take.
    with deaf_address() as (host, port):
        closed = network.Network(1000)
        closed.close()
        with pytest.raises(httpcore.ConnectError, match="the transport is closed"):
            closed.connect_tcp(host, port)
        assert closed._links == set()


@on_linux
async def test_an_attempt_has_its_time(flavour: Flavour) -> None:
    with deaf_address() as (host, port):
        settings = at(f"http://{host}:{port}", connect_timeout=0.05)
        async with open_client(flavour, settings) as client:
            with pytest.raises(ConnectError, match="connecting took too long"):
                await client.basin_config("test-basin")


async def test_resolving_is_part_of_it(flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def getaddrinfo(*_args: Any, flags: int = 0, **_options: Any) -> list[Any]:
        if flags:
            raise socket.gaierror
        assert go_on.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        settings = at("http://slow.localhost", connect_timeout=0.05)
        async with open_client(flavour, settings) as client:
            with pytest.raises(ConnectError, match="resolving the host name took too long"):
                await client.basin_config("test-basin")
    finally:
        go_on.set()


async def test_a_name_that_nobody_has(flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_args: Any, **_options: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with open_client(flavour, at("http://nobody.localhost")) as client:
        with pytest.raises(ConnectError, match="Name or service not known"):
            await client.basin_config("test-basin")


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def serving(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def https(url: str) -> str:
    return url.replace("http://127.0.0.1", "https://localhost")


@pytest.fixture(autouse=True)
def one_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers here have an IPv4 address alone."""
    getaddrinfo = socket.getaddrinfo

    def of_ipv4(host: str, port: int, **options: Any) -> Any:
        return getaddrinfo(host, port, **{**options, "family": socket.AF_INET})

    monkeypatch.setattr(socket, "getaddrinfo", of_ipv4)


async def test_tls(flavour: Flavour, trusting: ssl.SSLContext, serving: ssl.SSLContext) -> None:
    content = bytes(range(256)) * 8_000
    with scripted_server(in_tls(serving, echo)) as server:
        url = https(server.url)
        async with open_client(flavour, at(url), ssl_context=trusting) as client:
            for _ in range(2):
                assert (await fetch(client, url, content)).content == content
        assert server.connections == 1


async def test_a_certificate_that_is_not_trusted(flavour: Flavour, serving: ssl.SSLContext) -> None:
    with scripted_server(in_tls(serving, echo)) as server:
        async with open_client(flavour, at(https(server.url))) as client:
            with pytest.raises(CertificateError, match="is not to be trusted"):
                await client.basin_config("test-basin")


async def test_a_certificate_that_is_wanted(
    flavour: Flavour,
    authority: trustme.CA,
    trusting: ssl.SSLContext,
    serving: ssl.SSLContext,
) -> None:
    """With TLS 1.3 the client hears of it after its own handshake, when it reads."""
    serving.minimum_version = ssl.TLSVersion.TLSv1_3
    authority.configure_trust(serving)
    serving.verify_mode = ssl.CERT_REQUIRED
    with scripted_server(in_tls(serving, echo)) as server:
        url = https(server.url)
        async with open_client(flavour, at(url), ssl_context=trusting) as client:
            stream = client.stream("test-basin", "s")
            session = stream.append_session(retry=ONCE)
            async with stream.read_session(retry=ONCE) as messages:
                calls = (
                    stream.check_tail,
                    lambda: session.append(b"x" * 1_000_000),
                    lambda: anext(aiter(messages)),
                )
                for call in calls:
                    with pytest.raises(CertificateError, match="wants a client certificate"):
                        await call()


async def test_a_server_without_tls(flavour: Flavour, trusting: ssl.SSLContext) -> None:
    def script(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.wait_until_closed()

    with scripted_server(script) as server:
        url = https(server.url)
        async with open_client(flavour, at(url), ssl_context=trusting) as client:
            with pytest.raises(ConnectError, match="no TLS is spoken there"):
                await client.basin_config("test-basin")


async def test_a_server_that_leaves_in_the_handshake(
    flavour: Flavour, trusting: ssl.SSLContext
) -> None:
    with scripted_server(lambda connection: connection.skip(100)) as server:
        url = https(server.url)
        async with open_client(flavour, at(url), ssl_context=trusting) as client:
            with pytest.raises(ConnectError):
                await client.basin_config("test-basin")


async def test_a_handshake_has_its_time(flavour: Flavour, trusting: ssl.SSLContext) -> None:
    with scripted_server(Connection.wait_until_closed) as server:
        settings = at(https(server.url), connect_timeout=0.05)
        async with open_client(flavour, settings, ssl_context=trusting) as client:
            with pytest.raises(ConnectError, match="handshake took too long"):
                await client.basin_config("test-basin")


async def test_garbage_in_mid_session(
    flavour: Flavour, trusting: ssl.SSLContext, serving: ssl.SSLContext
) -> None:
    def script(connection: Connection) -> None:
        raw = connection._socket
        # The descriptor goes on under TLS.
        beneath = raw.dup()

        def answer_and_break(secured: Connection) -> None:
            secured.receive_request()
            secured.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
            beneath.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            secured.wait_until_closed()

        with beneath:
            in_tls(serving, answer_and_break)(connection)

    with scripted_server(script) as server:
        url = https(server.url)
        async with open_client(flavour, at(url), ssl_context=trusting) as client:
            with pytest.raises(TransportError, match="TLS failed") as raised:
                await client.basin_config("test-basin")
    assert type(raised.value) is TransportError


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
async def test_a_host_that_no_name_can_be(flavour: Flavour, host: str) -> None:
    async with open_client(flavour, at(f"http://{host}")) as client:
        with pytest.raises(S2FramesError, match="URL cannot be used"):
            await client.basin_config("test-basin")


# Time


@pytest.mark.parametrize("seconds", [1e7, 1e10, inf])
async def test_there_may_be_more_time_than_the_system_can_wait(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(answer("200 OK", b'{"basins": [], "has_more": false}'))

    with scripted_server(script) as server:
        port = int(server.url.rsplit(":", 1)[1])
        monkeypatch.setattr(socket, "getaddrinfo", resolving_to(("127.0.0.1", port)))
        settings = at(
            f"http://name.localhost:{port}", connect_timeout=seconds, request_timeout=seconds
        )
        async with open_client(flavour, settings) as client:
            await client.basin_config("test-basin")


async def test_an_answer_has_its_time(flavour: Flavour) -> None:
    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.wait_until_closed()

    with scripted_server(script) as server:
        settings = at(server.url, request_timeout=0.05, connect_timeout=0.5)
        async with open_client(flavour, settings) as client:
            with pytest.raises(TransportError, match="did not answer in time"):
                await client.basin_config("test-basin")


async def test_a_line_that_takes_nothing_has_its_time(flavour: Flavour) -> None:
    go_on = threading.Event()

    def script(_connection: Connection) -> None:
        assert go_on.wait(60)

    with scripted_server(script) as server:
        settings = at(server.url, request_timeout=0.1)
        async with open_client(flavour, settings) as client:
            with pytest.raises(httpx.WriteTimeout):
                await fetch(client, server.url, bytes(32_000_000))
        go_on.set()


async def test_who_knows_better_is_asked_before_each_wait(flavour: Flavour) -> None:
    """The longest time that a write may take counts where nobody knows better."""
    done = threading.Event()

    def script(_connection: Connection) -> None:
        assert done.wait(60)

    with scripted_server(script) as server:
        async with open_client(flavour, at(server.url)) as client:
            request = request_of(client, server.url, bytes(32_000_000))
            lefts = iter((0.05, 0.0))
            patience = Patience(1000.0, lambda: next(lefts, 0.0))
            request.extensions["timeout"]["write"] = patience
            with pytest.raises(httpx.WriteTimeout):
                await soon(client.http.send(request))
        done.set()


def test_a_handshake_whose_bytes_nobody_takes_waits_for_that_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel.TlsChannel, "shake_hands", lambda _channel: False)
    monkeypatch.setattr(channel.TlsChannel, "flush", lambda _channel: False)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        with suppress(BlockingIOError):
            while ours.send(bytes(100_000)):
                """Until it is full."""
        theirs.send(b"an answer")
        stream = Stream(Link(ours, set()), channel.TcpChannel(ours), 60)
        with pytest.raises(httpcore.ConnectTimeout):
            stream.start_tls(ssl.create_default_context(), "example.com", 0.0)
