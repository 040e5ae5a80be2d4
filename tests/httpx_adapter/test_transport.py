"""Requests over the network, in every flavour of httpx."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trustme

from httpx_adapter.wires import OK, deaf_address, fetch, in_tls, request_of, wait_for
from live_service import refused_url
from s2frames import Endpoints, LocalProtocolError, Retry, ServiceError, Settings
from s2frames.errors import ConnectError
from s2frames_httpx import Client
from s2frames_httpx.library import httpcore
from scenes import Flavour, open_client, together
from scripted_server import Connection, answer, chunked, head, scripted_server

ONCE = Retry(max_attempts=1)

CLOSED = r"^the client is closed"

# More than all buffers between two sockets of this machine.
LARGE = bytes(32_000_000)


def at(url: str, **changes: Any) -> Settings:
    return Settings(endpoints=Endpoints.at(url), retry=ONCE, **changes)


def serve(connection: Connection) -> None:
    while True:
        connection.receive_request()
        connection.send(OK)


async def test_connections_are_used_again(flavour: Flavour) -> None:
    """Fails too when httpcore keeps elsewhere what came behind an answer."""
    with scripted_server(serve) as server:
        async with open_client(flavour, at(server.url)) as client:
            for _ in range(3):
                assert (await fetch(client, server.url)).content == b"{}"
        assert server.connections == 1


# Answers while the request is being written


@pytest.mark.parametrize("status", ["403 Forbidden", "413 Content Too Large"])
async def test_a_refusal_is_read_though_the_request_is_not(flavour: Flavour, status: str) -> None:
    done = threading.Event()

    def script(connection: Connection) -> None:
        connection.receive_head()
        connection.send(answer(status, b'{"message":"no"}'))
        assert done.wait(60)

    with scripted_server(script) as server:
        # Were it waited for, this would be a time-out.
        async with open_client(flavour, at(server.url, request_timeout=1000)) as client:
            response = await fetch(client, server.url, LARGE)
            assert (response.status_code, response.content) == (
                int(status[:3]),
                b'{"message":"no"}',
            )
            # What is left of the request is not for the next one.
            done.set()
            await fetch(client, server.url)
        assert server.connections == 2


@pytest.mark.parametrize("body", [b"", b'{"message":"no"}'])
async def test_a_refusal_is_read_though_the_connection_broke(flavour: Flavour, body: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.receive_head()
        connection.send(answer("403 Forbidden", body))
        # A reset: what was received and not read is lost, and the client's next write fails.
        linger = struct.pack("ii", 1, 0)
        connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    with scripted_server(script) as server:
        async with open_client(flavour, at(server.url)) as client:
            response = await fetch(client, server.url, LARGE)
            assert (response.status_code, response.content) == (403, body)


async def test_a_refused_session_says_why(flavour: Flavour) -> None:
    done = threading.Event()

    def script(connection: Connection) -> None:
        connection.receive_head()
        connection.send(answer("403 Forbidden", b'{"code":"permission_denied","message":"no"}'))
        assert done.wait(60)

    with scripted_server(script) as server:
        async with open_client(flavour, at(server.url, request_timeout=1000)) as client:
            session = client.stream("test-basin", "s").append_session()
            with pytest.raises(ServiceError, match="permission_denied"):
                await session.append(LARGE[:20_000_000])
        done.set()


async def test_an_answer_that_has_begun_is_read_when_the_peer_takes_no_more(
    flavour: Flavour,
) -> None:
    done = threading.Event()

    def script(connection: Connection) -> None:
        connection.receive_head()
        connection.send(OK)
        assert done.wait(60)

    with scripted_server(script) as server:
        async with open_client(flavour, at(server.url, request_timeout=0.2)) as client:
            assert (await fetch(client, server.url, LARGE)).status_code == 200
        done.set()


# Bytes behind an answer


@pytest.mark.parametrize(
    "first",
    [
        answer("200 OK", b"right"),
        head("200 OK", "transfer-encoding: chunked") + chunked(b"right") + b"0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
async def test_what_comes_behind_an_answer_is_no_answer(flavour: Flavour, first: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(first + answer("200 OK", b"wrong"))
        while True:
            connection.receive_request()
            connection.send(first)

    with scripted_server(script) as server:
        async with open_client(flavour, at(server.url)) as client:
            got = [(await fetch(client, server.url)).content for _ in range(3)]
        assert got == [b"right"] * 3
        assert server.connections == 3


async def test_what_comes_later_is_none_either(flavour: Flavour) -> None:
    has_come = threading.Event()

    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(answer("200 OK", b"right"))
        connection.send(answer("200 OK", b"wrong"))
        has_come.set()
        connection.wait_until_closed()

    with scripted_server(script) as server:
        async with open_client(flavour, at(server.url)) as client:
            for _ in range(2):
                has_come.clear()
                assert (await fetch(client, server.url)).content == b"right"
                await wait_for(flavour, has_come)
        assert server.connections == 2


# Closing


def silent_after_request(connection: Connection, reached: threading.Event) -> None:
    connection.receive_request()
    reached.set()
    connection.wait_until_closed()


def silent_after_head(connection: Connection, reached: threading.Event) -> None:
    connection.receive_request()
    connection.send(head("200 OK", "content-type: s2s/proto", "transfer-encoding: chunked"))
    reached.set()
    connection.wait_until_closed()


@pytest.mark.parametrize("script", [silent_after_request, silent_after_head])
async def test_closing_the_client_wakes_who_waits_for_an_answer(
    flavour: Flavour, script: Callable[[Connection, threading.Event], None]
) -> None:
    reached = threading.Event()
    with scripted_server(lambda connection: script(connection, reached)) as server:
        client = await open_client(flavour, at(server.url, request_timeout=1000)).__aenter__()

        async def follow() -> None:
            stream = client.stream("test-basin", "s")
            async with stream.read_session(follow=True) as messages:
                with pytest.raises(LocalProtocolError, match=CLOSED):
                    await anext(aiter(messages))

        async def close() -> None:
            await wait_for(flavour, reached)
            await client.close()
            await client.close()

        await together(flavour, follow, close)


async def test_closing_the_client_wakes_who_sends(flavour: Flavour) -> None:
    reached, done = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        connection.receive_exactly(100_000)
        reached.set()
        assert done.wait(60)

    with scripted_server(script) as server:
        client = await open_client(flavour, at(server.url, request_timeout=1000)).__aenter__()

        async def send() -> None:
            with pytest.raises(httpx.TransportError, match=CLOSED):
                await fetch(client, server.url, LARGE)

        async def close() -> None:
            await wait_for(flavour, reached)
            await client.close()

        await together(flavour, send, close)
        done.set()


async def test_closing_the_client_wakes_who_resolves(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, done = threading.Event(), threading.Event()

    def getaddrinfo(*_args: Any, flags: int = 0, **_options: Any) -> list[Any]:
        if flags:
            raise socket.gaierror
        reached.set()
        assert done.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    await closed_while_connecting(flavour, "http://slow.localhost", reached)
    done.set()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it has the time that connecting has")
async def test_closing_the_client_wakes_who_connects(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = threading.Event()
    connect = socket.socket.connect

    def tell(tcp: socket.socket, address: Any) -> None:
        try:
            connect(tcp, address)
        finally:
            reached.set()

    with deaf_address() as (host, port):
        monkeypatch.setattr(socket.socket, "connect", tell)
        await closed_while_connecting(flavour, f"http://{host}:{port}", reached)


async def closed_while_connecting(flavour: Flavour, url: str, reached: threading.Event) -> None:
    client = await open_client(flavour, at(url, connect_timeout=1000)).__aenter__()

    async def call() -> None:
        with pytest.raises(LocalProtocolError, match=CLOSED):
            await client.basin_config("test-basin")

    async def close() -> None:
        await wait_for(flavour, reached)
        await client.close()

    await together(flavour, call, close)


# What is forgotten


class Circle:
    """What only the garbage collector finds."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.me = self


async def test_an_answer_that_was_forgotten_is_closed_by_the_next_call(flavour: Flavour) -> None:
    left = threading.Event()

    def script(connection: Connection) -> None:
        if b"/follow" not in connection.receive_request():
            connection.send(OK)
            return
        connection.send(head("200 OK", "transfer-encoding: chunked") + chunked(b"x"))
        connection.wait_until_closed()
        left.set()

    with scripted_server(script) as server:
        async with open_client(flavour, at(server.url)) as client:
            await forget(client, f"{server.url}/follow")
            gc.collect()
            assert not left.is_set()
            await fetch(client, server.url)
            await wait_for(flavour, left)


async def forget(client: Any, url: str) -> None:
    """Begin to read an answer, and leave it to the collector."""
    transport, request = client.http._transport, request_of(client, url)
    if isinstance(transport, httpx.AsyncBaseTransport):
        response = await transport.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        assert await anext(aiter(response.stream)) == b"x"
    else:
        response = transport.handle_request(request)
        assert next(iter(response.stream)) == b"x"
    Circle(response)


async def test_no_lock_is_taken_where_the_collector_runs(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """httpcore makes connections under its lock: collected there, the thread would hang."""

    def script(connection: Connection) -> None:
        if b"/follow" in connection.receive_request():
            connection.send(head("200 OK", "transfer-encoding: chunked") + chunked(b"x"))
            connection.wait_until_closed()
        else:
            connection.send(OK)

    with scripted_server(script) as server:
        async with open_client(flavour, at(server.url)) as client:
            await forget(client, f"{server.url}/follow")
            for kind in (httpcore.ConnectionPool, httpcore.AsyncConnectionPool):
                make = kind.create_connection

                def collect(pool: Any, origin: Any, make: Any = make) -> Any:
                    gc.collect()
                    return make(pool, origin)

                monkeypatch.setattr(kind, "create_connection", collect)
            assert (await fetch(client, server.url)).status_code == 200


# Fork


FORKED = """
import os, sys
from s2frames import Endpoints, Settings
from s2frames.errors import ConnectError
from s2frames_httpx import Client

client = Client(Settings(endpoints=Endpoints.at(sys.argv[1])))
url = sys.argv[1]
with client.http.stream("GET", url + "/parent") as response:
    pieces = response.iter_raw()
    assert next(pieces) == b"x"
    pid = os.fork()
    if pid == 0:
        assert client.http.get(url + "/child").content == b"{}"
        try:
            next(pieces)
        except Exception as error:
            print(error, flush=True)
        response.close()
        client.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    client.http.get(url + "/go-on")
    assert b"".join(pieces) == b"yz"
client.close()
print("the parent went on", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_after_a_fork_each_process_has_connections_of_its_own() -> None:
    go_on = threading.Event()
    received: dict[str, bytes] = {}

    def script(connection: Connection) -> None:
        request = connection.receive_request()
        name = request.split()[1].decode()
        received[name] = request
        if name == "/parent":
            connection.send(head("200 OK", "transfer-encoding: chunked") + chunked(b"x"))
            assert go_on.wait(60)
            connection.send(chunked(b"y", b"z") + b"0\r\n\r\n")
        else:
            connection.send(OK)
            if name == "/go-on":
                go_on.set()
        # Nobody says anything more on it.
        connection.wait_until_closed()

    with scripted_server(script) as server:
        done = subprocess.run(
            [sys.executable, "-c", FORKED, server.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        assert done.stdout.splitlines() == [
            "the connection belongs to the process that was forked",
            "the parent went on",
        ]
        assert server.connections == 3
    assert sorted(received) == ["/child", "/go-on", "/parent"]


def test_threads_share_the_pool_that_one_of_them_makes() -> None:
    with scripted_server(serve) as server, Client(at(server.url)) as client:
        start = threading.Barrier(8)
        statuses: list[int] = []

        def call() -> None:
            start.wait(60)
            statuses.append(client.http.get(server.url).status_code)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert statuses == [200] * 8


# Proxies


async def test_a_request_goes_through_the_proxy_that_is_given(flavour: Flavour) -> None:
    seen: list[bytes] = []

    def script(connection: Connection) -> None:
        seen.append(connection.receive_request())
        connection.send(OK)

    with scripted_server(script) as server:
        proxy = server.url.replace("http://", "http://name:pass-word@")
        async with open_client(flavour, at("http://example.com"), proxy=proxy) as client:
            assert (await fetch(client, "http://example.com/v1/basins")).content == b"{}"
    assert seen[0].startswith(b"GET http://example.com/v1/basins HTTP/1.1\r\n")
    assert b"\r\nproxy-authorization: basic " in seen[0].lower()


async def test_a_proxy_of_the_environment(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(OK)

    for name in ("http_proxy", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with scripted_server(script) as server:
        monkeypatch.setenv("http_proxy", server.url)
        async with open_client(flavour, at("http://example.com")) as client:
            monkeypatch.delenv("http_proxy")
            assert (await fetch(client, "http://example.com")).content == b"{}"
        assert server.connections == 1


async def test_a_proxy_that_is_dead_is_named(flavour: Flavour) -> None:
    with refused_url() as url:
        proxy = url.replace("http://", "http://name:pass-word@")
        async with open_client(flavour, at("http://example.com"), proxy=proxy) as client:
            with pytest.raises(ConnectError, match=f"through the proxy {url}: .*refused") as raised:
                await client.basin_config("test-basin")
    assert "pass-word" not in "".join(traceback.format_exception(raised.value))


async def test_a_proxy_that_refuses_is_named(flavour: Flavour) -> None:
    seen: list[bytes] = []

    def script(connection: Connection) -> None:
        seen.append(connection.receive_request())
        connection.send(answer("407 Proxy Authentication Required", b""))

    with scripted_server(script) as server:
        async with open_client(flavour, at("https://example.com"), proxy=server.url) as client:
            words = f"the proxy refuses: https://example.com: through the proxy {server.url}: 407"
            with pytest.raises(ConnectError, match=words):
                await client.basin_config("test-basin")
    assert seen[0].startswith(b"CONNECT example.com:443 HTTP/1.1\r\n")


async def test_tls_through_a_proxy(flavour: Flavour) -> None:
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("example.com").configure_cert(serving)
    authority.configure_trust(trusting)

    def script(connection: Connection) -> None:
        assert connection.receive_head().startswith(b"CONNECT example.com:443 ")
        connection.send(head("200 OK"))
        in_tls(serving, serve)(connection)

    with scripted_server(script) as server:
        async with open_client(
            flavour, at("https://example.com"), proxy=server.url, ssl_context=trusting
        ) as client:
            for _ in range(2):
                assert (await fetch(client, "https://example.com")).content == b"{}"
        assert server.connections == 1


async def test_no_tunnel_is_kept_whose_tls_has_failed(flavour: Flavour) -> None:
    def script(connection: Connection) -> None:
        connection.receive_head()
        connection.send(head("200 OK"))
        connection.receive_exactly(5)
        connection.send(b"this is no TLS")
        connection.wait_until_closed()

    with scripted_server(script) as server:
        settings = at("https://example.com")
        async with open_client(flavour, settings, proxy=server.url) as client:
            for _ in range(3):
                with pytest.raises(ConnectError):
                    await client.basin_config("test-basin")
            transport: Any = client.http._transport
            (pool,) = transport._pools.values()
            assert len(pool.core.connections) == 1


async def test_a_proxy_in_tls_is_trusted_as_the_service_is(flavour: Flavour) -> None:
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1", "example.com").configure_cert(serving)
    authority.configure_trust(trusting)
    with scripted_server(in_tls(serving, serve)) as server:
        proxy = server.url.replace("http://", "https://")
        async with open_client(
            flavour, at("http://example.com"), proxy=proxy, ssl_context=trusting
        ) as client:
            assert (await fetch(client, "http://example.com")).content == b"{}"


async def test_an_ipv6_address_through_a_proxy(flavour: Flavour) -> None:
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("2001:db8::1").configure_cert(serving)
    authority.configure_trust(trusting)

    def script(connection: Connection) -> None:
        asked = connection.receive_head().lower()
        assert asked.startswith(b"connect [2001:db8::1]:443 ")
        assert b"\r\nhost: [2001:db8::1]:443\r\n" in asked
        connection.send(head("200 OK"))
        in_tls(serving, serve)(connection)

    with scripted_server(script) as server:
        url = "https://[2001:db8::1]"
        async with open_client(flavour, at(url), proxy=server.url, ssl_context=trusting) as client:
            assert (await fetch(client, url)).content == b"{}"


async def test_a_plain_ipv6_address_through_a_proxy(flavour: Flavour) -> None:
    def script(connection: Connection) -> None:
        asked = connection.receive_request()
        assert asked.startswith(b"GET http://[2001:db8::1]:8080/v1/basins HTTP/1.1\r\n")
        connection.send(OK)

    with scripted_server(script) as server:
        url = "http://[2001:db8::1]:8080"
        async with open_client(flavour, at(url), proxy=server.url) as client:
            assert (await fetch(client, f"{url}/v1/basins")).content == b"{}"


async def test_a_proxy_that_says_nothing_is_named(flavour: Flavour) -> None:
    with scripted_server(Connection.wait_until_closed) as server:
        settings = at("https://example.com", request_timeout=0.1, connect_timeout=0.5)
        async with open_client(flavour, settings, proxy=server.url) as client:
            words = f"cannot connect: https://example.com: through the proxy {server.url}: it did"
            with pytest.raises(ConnectError, match=words):
                await client.basin_config("test-basin")


async def test_a_proxy_that_leaves_is_named(flavour: Flavour) -> None:
    def script(connection: Connection) -> None:
        connection.receive_head()

    with scripted_server(script) as server:
        async with open_client(flavour, at("https://example.com"), proxy=server.url) as client:
            words = (
                f"cannot connect: https://example.com: through the proxy {server.url}: it closed"
            )
            with pytest.raises(ConnectError, match=words):
                await client.basin_config("test-basin")
