from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme
from h2.events import RequestReceived, StreamEnded

from s2frames import Endpoints, LocalProtocolError, S2FramesError, Settings
from s2frames.errors import CertificateError, ConnectError
from s2frames.http import Request
from s2frames.system.socket_options import UNSENT_BYTES
from s2frames_trio import open_client
from s2frames_trio.connect import Origin, check_context, connect, connecting
from s2frames_trio.pool import open_pool
from trio_adapter.peers import open_peer

# Whatever hangs, ends.
pytestmark = pytest.mark.timeout(60)

Handler = Callable[[trio.SocketStream], Awaitable[object]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, host: str, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host).configure_cert(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """A port on which each connection is handled so."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handler, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def tls_handler(context: ssl.SSLContext) -> Handler:
    async def handle(tcp: trio.SocketStream) -> None:
        tls = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
        try:
            await tls.do_handshake()
            await tls.send_all(b"hello")
            await tls.receive_some()
        except trio.BrokenResourceError:
            """The client did not like it."""

    return handle


async def silent(_tcp: trio.SocketStream) -> None:
    await trio.sleep_forever()


def in_time() -> float:
    return trio.current_time() + 60


# Origins


@pytest.mark.parametrize(
    ("url", "host", "port", "text"),
    [
        ("http://example.com", "example.com", 80, "http://example.com"),
        ("https://Example.com/a?b", "example.com", 443, "https://example.com"),
        ("http://example.com:443/", "example.com", 443, "http://example.com:443"),
        ("https://[::1]:8443/x", "::1", 8443, "https://[::1]:8443"),
        ("http://user:secret@host/", "host", 80, "http://host"),
    ],
)
def test_the_origin_of_a_url(url: str, host: str, port: int, text: str) -> None:
    origin = Origin.of(url)
    assert (origin.host, origin.port, str(origin)) == (host, port, text)


@pytest.mark.parametrize(
    "url", ["", "example.com", "ftp://example.com", "http://", "http://a:b/", "http://a:99999/"]
)
def test_urls_without_an_origin(url: str) -> None:
    with pytest.raises(LocalProtocolError, match="URL"):
        Origin.of(url)


# Deadlines and errors of a step


async def step(origin: Origin, deadline: float, error: Exception | None = None) -> None:
    with connecting(origin, "knocking", deadline):
        if error is not None:
            raise error
        await trio.sleep_forever()


async def test_a_step_that_takes_too_long() -> None:
    origin = Origin.of("http://example.com")
    deadline = trio.current_time() + 3
    with pytest.raises(ConnectError, match=r"http://example\.com: knocking took too long"):
        await step(origin, deadline)
    assert trio.current_time() == deadline


async def test_an_error_of_a_step() -> None:
    origin = Origin.of("http://example.com")
    with pytest.raises(ConnectError, match="refused"):
        await step(origin, 10, ConnectionRefusedError("no"))
    with pytest.raises(KeyError):
        await step(origin, 10, KeyError("a bug"))


# Plain


@pytest.mark.usefixtures("real_clock")
async def test_plain_connections() -> None:
    async def greet(tcp: trio.SocketStream) -> None:
        await tcp.send_all(b"hello")

    async with listening(greet) as port:
        stream = await connect(Origin("http", "localhost", port), in_time())
        assert isinstance(stream, trio.SocketStream)
        assert stream.getsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY)
        async with stream:
            assert await stream.receive_some() == b"hello"


@pytest.mark.usefixtures("real_clock")
async def test_a_port_where_nobody_listens() -> None:
    async with listening(silent) as port:
        """It is given up again."""
    with pytest.raises(ConnectError, match=rf"refused: http://127.0.0.1:{port}"):
        await connect(Origin("http", "127.0.0.1", port), in_time())


@pytest.mark.usefixtures("real_clock")
async def test_a_host_that_is_not_known() -> None:
    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: object, **__: object) -> list[object]:  # type: ignore[override]
            raise trio.socket.gaierror(-2, "Name or service not known")

        async def getnameinfo(self, *_: object) -> tuple[str, str]:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Resolver())
    with pytest.raises(ConnectError, match=r"cannot be resolved: http://nowhere\.example"):
        await connect(Origin.of("http://nowhere.example"), in_time())


class _NoAnswer(trio.abc.HostnameResolver):
    """Whoever it asks says nothing."""

    async def getaddrinfo(self, *_: object, **__: object) -> list[object]:  # type: ignore[override]
        await trio.sleep_forever()
        raise AssertionError("it sleeps forever")

    async def getnameinfo(self, *_: object) -> tuple[str, str]:
        raise NotImplementedError


async def test_a_name_that_is_not_answered() -> None:
    trio.socket.set_custom_hostname_resolver(_NoAnswer())
    async with open_pool(connect_timeout=3, open_timeout=60) as pool:
        start = trio.current_time()
        with pytest.raises(
            ConnectError, match=r"http://nowhere\.example: reaching it took too long"
        ):
            await pool.open_stream(Request("GET", "http://nowhere.example/"))
        assert trio.current_time() == start + 3


async def test_the_systems_resolver_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()

    def resolve(*arguments: Any) -> list[Any]:
        # First it is asked whether the host is an address.
        if arguments[-1] & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        is_over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    try:
        start = trio.current_time()
        with pytest.raises(ConnectError, match="reaching it took too long"):
            await connect(Origin.of("http://nowhere.example"), start + 3)
        # Its thread still waits.
        assert trio.current_time() == start + 3
    finally:
        is_over.set()


@pytest.mark.usefixtures("real_clock")
async def test_a_host_name_that_is_none() -> None:
    with pytest.raises(LocalProtocolError, match="URL cannot be used"):
        await connect(Origin.of("http://a..b"), in_time())


# TLS


@pytest.mark.usefixtures("real_clock")
async def test_tls(authority: trustme.CA) -> None:
    handler = tls_handler(server_context(authority, "localhost", "h2", "http/1.1"))
    async with listening(handler) as port:
        stream = await connect(
            Origin("https", "localhost", port), in_time(), client_context(authority)
        )
        async with stream:
            assert await stream.receive_some() == b"hello"


@pytest.mark.usefixtures("real_clock")
@pytest.mark.parametrize("is_named_wrongly", [False, True])
async def test_certificates_that_are_not_trusted(
    authority: trustme.CA, is_named_wrongly: bool
) -> None:
    host = "elsewhere.example" if is_named_wrongly else "localhost"
    handler = tls_handler(server_context(authority, host, "h2"))
    context = client_context(authority) if is_named_wrongly else None
    async with listening(handler) as port:
        with pytest.raises(CertificateError, match="not to be trusted: https://localhost"):
            await connect(Origin("https", "localhost", port), in_time(), context)


@pytest.mark.usefixtures("real_clock")
@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
async def test_a_server_without_http_2(authority: trustme.CA, protocols: tuple[str, ...]) -> None:
    handler = tls_handler(server_context(authority, "localhost", *protocols))
    async with listening(handler) as port:
        with pytest.raises(ConnectError, match=r"https://localhost:\d+: it does not speak HTTP/2"):
            await connect(Origin("https", "localhost", port), in_time(), client_context(authority))


@pytest.mark.usefixtures("real_clock")
async def test_a_server_without_tls(authority: trustme.CA) -> None:
    async def answer(tcp: trio.SocketStream) -> None:
        await tcp.receive_some()
        await tcp.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(answer) as port:
        with pytest.raises(ConnectError, match="no TLS is spoken there; is it an address for http"):
            await connect(Origin("https", "localhost", port), in_time(), client_context(authority))


@pytest.mark.usefixtures("real_clock")
async def test_a_server_that_leaves_in_the_handshake(authority: trustme.CA) -> None:
    async def leave(tcp: trio.SocketStream) -> None:
        await tcp.receive_some()

    async with listening(leave) as port:
        with pytest.raises(ConnectError, match="closed in the TLS handshake"):
            await connect(Origin("https", "localhost", port), in_time(), client_context(authority))


def talking_handler(context: ssl.SSLContext) -> Handler:
    """A server that says what it does not like, and lets the client be the first to leave."""

    async def handle(tcp: trio.SocketStream) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        is_done = False
        while data := await tcp.receive_some():
            incoming.write(data)
            with contextlib.suppress(ssl.SSLError):
                if not is_done:
                    tls.do_handshake()
                    is_done = True
            await tcp.send_all(outgoing.read())

    return handle


@pytest.mark.usefixtures("real_clock")
async def test_a_server_with_other_versions_of_tls(authority: trustme.CA) -> None:
    context = server_context(authority, "localhost", "h2")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    ours = client_context(authority)
    ours.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(talking_handler(context)) as port:
        with pytest.raises(ConnectError, match="it speaks other versions of TLS"):
            await connect(Origin("https", "localhost", port), in_time(), ours)


@pytest.mark.usefixtures("real_clock")
@pytest.mark.parametrize(
    ("has_one", "words"),
    [(False, "wants a client certificate"), (True, "refuses the client certificate")],
)
async def test_a_client_certificate_that_is_wanted(
    authority: trustme.CA, has_one: bool, words: str
) -> None:
    context = server_context(authority, "localhost", "h2")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    ours = client_context(authority)
    if has_one:
        # Of somebody unknown.
        trustme.CA().issue_cert("client").configure_cert(ours)
    async with listening(talking_handler(context)) as port:
        endpoints = Endpoints.at(f"https://localhost:{port}")
        settings = Settings(endpoints=endpoints, connect_timeout=60)
        async with open_client(settings, ssl_context=ours) as client:
            # It comes after the handshake, and is not tried again.
            with pytest.raises(CertificateError, match=words) as raised:
                await client.ensure_basin("test-basin")
            assert raised.value.attempts == 1


def old_context(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = version
    return context


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "for servers"),
        *((old_context(ssl.TLSVersion(number)), "at most TLSv1") for number in (0x301, 0x302)),
    ],
)
async def test_contexts_that_http_2_cannot_use(context: ssl.SSLContext, words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        async with open_pool(ssl_context=context):
            """It is said before anything is done."""


def test_contexts_that_http_2_can_use() -> None:
    newest = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    newest.minimum_version = ssl.TLSVersion.TLSv1_3
    for context in (ssl.create_default_context(), old_context(ssl.TLSVersion.TLSv1_2), newest):
        check_context(context)


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the system has no such bound")
@pytest.mark.usefixtures("real_clock")
async def test_the_kernel_holds_little_that_is_not_sent() -> None:
    async with listening(silent) as port:
        stream = await connect(Origin("http", "127.0.0.1", port), in_time())
        async with stream:
            assert isinstance(stream, trio.SocketStream)
            option = socket.TCP_NOTSENT_LOWAT
            assert stream.socket.getsockopt(socket.IPPROTO_TCP, option) == UNSENT_BYTES


async def test_a_tls_handshake_that_stalls(authority: trustme.CA) -> None:
    async with listening(silent) as port:
        with pytest.raises(ConnectError, match="the TLS handshake took too long"):
            # Long enough for the mock clock, which moves once everybody waits.
            await connect(
                Origin("https", "127.0.0.1", port),
                trio.current_time() + 10**9,
                client_context(authority),
            )


# All the way


@pytest.mark.usefixtures("real_clock")
async def test_a_server_that_speaks_http_1() -> None:
    async def answer(tcp: trio.SocketStream) -> None:
        await tcp.receive_some()
        await tcp.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(answer) as port, open_pool(connect_timeout=60, open_timeout=60) as pool:
        with pytest.raises(ConnectError, match="HTTP/1, not HTTP/2; the clients of s2frames_httpx"):
            await pool.open_stream(Request("GET", f"http://127.0.0.1:{port}/"))


@pytest.mark.usefixtures("real_clock")
async def test_http_to_a_port_for_tls() -> None:
    async def complain(tcp: trio.SocketStream) -> None:
        await tcp.receive_some()
        # An alert: fatal, protocol_version.
        await tcp.send_all(b"\x15\x03\x01\x00\x02\x02\x46")
        await tcp.receive_some()

    async with listening(complain) as port, open_pool(connect_timeout=60, open_timeout=60) as pool:
        with pytest.raises(ConnectError, match="it speaks TLS: use https"):
            await pool.open_stream(Request("GET", f"http://127.0.0.1:{port}/"))


@pytest.mark.usefixtures("real_clock")
async def test_a_server_that_leaves_at_once() -> None:
    async def leave(tcp: trio.SocketStream) -> None:
        await tcp.receive_some()

    async with listening(leave) as port, open_pool(connect_timeout=60, open_timeout=60) as pool:
        with pytest.raises(ConnectError, match="closed the connection at once; is it HTTP/2"):
            await pool.open_stream(Request("GET", f"http://127.0.0.1:{port}/"))


@pytest.mark.usefixtures("real_clock")
async def test_a_request_over_tls(authority: trustme.CA) -> None:
    context = server_context(authority, "localhost", "h2")

    async def serve(tcp: trio.SocketStream) -> None:
        tls = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
        await tls.do_handshake()
        peer = await open_peer(tls)
        event = await peer.next(RequestReceived)
        await peer.next(StreamEnded)
        assert peer.data_of(event.stream_id) == bytes(60_000)
        await peer.answer(event.stream_id)
        await peer.data(event.stream_id, b"whole", end=True)
        await peer.serve()
        assert peer.goaways() == [0]

    pool_of_tests = open_pool(
        connect_timeout=60, open_timeout=60, ssl_context=client_context(authority)
    )
    async with listening(serve) as port, pool_of_tests as pool:
        for after in range(2):
            url = f"https://localhost:{port}/"
            async with await pool.open_stream(Request("POST", url), after=after) as stream:
                assert stream.connection_number == after + 1
                assert await stream.send_data([bytes(60_000)])
                assert await stream.end_data()
                assert (await stream.receive_response()).status == 200
                assert await stream.receive_data() == b"whole"
                assert await stream.receive_data() is None


async def test_an_http_2_handshake_that_stalls() -> None:
    # The mock clock moves once everybody waits, be it for a socket. Before either deadline comes
    # that of a PING.
    patient = open_pool(connect_timeout=10**6, open_timeout=10**9)
    async with listening(silent) as port, patient as pool:
        with pytest.raises(ConnectError, match=r"silent for 20 s"):
            await pool.open_stream(Request("GET", f"http://127.0.0.1:{port}/"))


# Ways not to get there, which harm nobody who is there already


class _NoNames(trio.abc.HostnameResolver):
    """Knows one name."""

    async def getaddrinfo(self, host: object, *rest: Any, **more: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if host == b"localhost":
            return socket.getaddrinfo("127.0.0.1", *rest, **more)
        raise trio.socket.gaierror(-2, "Name or service not known")

    async def getnameinfo(self, *_: object) -> tuple[str, str]:
        raise NotImplementedError


@asynccontextmanager
async def faulty(fault: str, authority: trustme.CA) -> AsyncIterator[str]:
    """Where a server is that cannot be used."""
    contexts = {
        "alpn": server_context(authority, "localhost", "http/1.1"),
        "certificate": server_context(trustme.CA(), "localhost", "h2"),
    }
    if fault == "name":
        yield "nowhere.example"
    elif fault == "port":
        async with listening(silent) as port:
            """It is given up again."""
        yield f"localhost:{port}"
    else:
        async with listening(tls_handler(contexts[fault])) as port:
            yield f"localhost:{port}"


@pytest.mark.usefixtures("real_clock")
@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("alpn", ConnectError, "does not speak HTTP/2"),
        ("certificate", CertificateError, "not to be trusted"),
        ("name", ConnectError, "cannot be resolved"),
        ("port", ConnectError, "refused"),
    ],
)
async def test_a_server_that_cannot_be_used_harms_no_other(
    authority: trustme.CA, fault: str, kind: type[S2FramesError], words: str
) -> None:
    trio.socket.set_custom_hostname_resolver(_NoNames())
    context = server_context(authority, "localhost", "h2")
    is_over = trio.Event()

    async def serve(tcp: trio.SocketStream) -> None:
        tls = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
        await tls.do_handshake()
        peer = await open_peer(tls)
        event = await peer.next(RequestReceived)
        await is_over.wait()
        await peer.answer(event.stream_id, "204", end=True)
        await peer.serve()

    patient = open_pool(connect_timeout=60, open_timeout=60, ssl_context=client_context(authority))
    async with faulty(fault, authority) as where, listening(serve) as port, patient as pool:
        follower = await pool.open_stream(Request("GET", f"https://localhost:{port}/"))
        with pytest.raises(kind, match=words) as raised:
            await pool.open_stream(Request("GET", f"https://{where}/"))
        assert type(raised.value) is kind
        assert f"https://{where}" in str(raised.value)
        is_over.set()
        assert (await follower.receive_response()).status == 204
