from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import SocketStream
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

from embedded.host import BASIN, RECORDS, Host, make_host
from s2_bodies import bodies, encode_batch
from s2frames.embedded import Exchange, Service, StoreError
from s2frames.embedded.catalog import Access
from s2frames.embedded.serving import serving
from s2frames.errors import LocalProtocolError
from s2frames.s2s import Message, MessageDecoder, Terminal

each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])
each_version = pytest.mark.parametrize("http2", [False, True])

# Seconds; a hang becomes a failure.
PATIENCE = 60


def serve(backend: str, host: Host, client: Callable[[str], Awaitable[None]]) -> None:
    """Serve to this client; both must end."""

    async def main() -> None:
        with anyio.fail_after(PATIENCE):
            async with serving(host.service) as url:
                await client(url)

    anyio.run(main, backend=backend)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def connect(url: str) -> SocketStream:
    return await anyio.connect_tcp("127.0.0.1", port_of(url))


async def until(condition: Callable[[], bool]) -> None:
    """Give the other tasks their turns until something is so."""
    while not condition():
        await anyio.lowlevel.checkpoint()


async def until_closed(stream: SocketStream) -> None:
    """Receive until the other side ends the connection."""
    try:
        while True:
            await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return


def followers(host: Host) -> int:
    stream = host.service._catalog.open_stream((BASIN, "room/1"), Access.READ, host.now)
    return len(stream._followers)


class H2:
    """An HTTP/2 client that does nothing of its own accord."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        # What is wrong is for the service to find out.
        self.h2 = H2Connection(
            H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self.h2.initiate_connection()
        self._decoders: dict[int, MessageDecoder] = {}
        self.statuses: dict[int, int] = {}
        self.ended: set[int] = set()

    async def open(self, method: str, path: str | bytes, content_type: str = "s2s/proto") -> int:
        stream_id = self.h2.get_next_available_stream_id()
        headers: list[Any] = [(":method", method), (":scheme", "http"), (":path", path)]
        headers += [(":authority", "test"), ("s2-basin", BASIN), ("content-type", content_type)]
        self.h2.send_headers(stream_id, headers)
        self._decoders[stream_id] = MessageDecoder()
        await self.flush()
        return stream_id

    async def send(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(stream_id, data, end_stream=end)
        await self.flush()

    async def flush(self) -> None:
        await self._stream.send(self.h2.data_to_send())

    async def receive(self) -> None:
        for event in self.h2.receive_data(await self._stream.receive()):
            if isinstance(event, ResponseReceived):
                self.statuses[event.stream_id] = int(dict(event.headers)[b":status"])
            elif isinstance(event, DataReceived):
                self._decoders[event.stream_id].receive_data(event.data)
            elif isinstance(event, StreamEnded | StreamReset):
                self.ended.add(event.stream_id)
        await self.flush()

    async def message(self, stream_id: int) -> Message | Terminal:
        while (message := self._decoders[stream_id].next_message()) is None:
            await self.receive()
        return message

    async def end(self, stream_id: int) -> None:
        while stream_id not in self.ended:
            await self.receive()

    async def append(self) -> None:
        """A session of one batch, from beginning to end."""
        stream_id = await self.open("POST", RECORDS)
        await self.send(stream_id, encode_batch(bodies("a")), end=True)
        assert isinstance(await self.message(stream_id), Message)
        await self.end(stream_id)


@each_backend
@each_version
def test_requests(backend: str, http2: bool) -> None:
    async def client(url: str) -> None:
        async with httpx.AsyncClient(
            http1=not http2, http2=http2, headers={"s2-basin": BASIN}
        ) as http:
            for n in range(3):
                answer = await http.post(f"{url}{RECORDS}", json={"records": [{"body": "x"}]})
                assert answer.json()["start"]["seq_num"] == n
            answer = await http.get(f"{url}{RECORDS}?seq_num=0&count=2")
            assert [r["seq_num"] for r in answer.json()["records"]] == [0, 1]
            if not http2:
                # Answered long before it is complete. Over HTTP/2 httpx does not look in time.
                answer = await http.post(f"{url}/v1/nothing", content=bytes(5_000_000))
                assert (answer.status_code, answer.text) == (404, "no such path")
            assert (await http.head(f"{url}/health")).status_code == 405

    serve(backend, make_host(), client)


@each_backend
def test_an_append_session_is_a_conversation(backend: str) -> None:
    async def client(url: str) -> None:
        async with await connect(url) as stream:
            h2 = H2(stream)
            session = await h2.open("POST", RECORDS)
            for _ in range(3):
                await h2.send(session, encode_batch(bodies("a")))
                assert isinstance(await h2.message(session), Message)
            await h2.send(session, b"", end=True)
            await h2.end(session)

    serve(backend, make_host(), client)


@each_backend
def test_batches_after_the_one_that_fails(backend: str) -> None:
    async def client(url: str) -> None:
        async with await connect(url) as stream:
            h2 = H2(stream)
            session = await h2.open("POST", RECORDS)
            await h2.send(session, encode_batch(bodies("a"), 7))
            terminal = await h2.message(session)
            assert isinstance(terminal, Terminal)
            assert terminal.status == 412
            await h2.end(session)
            # More than the service lets a client send without taking it in.
            for _ in range(20):
                while h2.h2.local_flow_control_window(session) < 16_000:
                    await h2.receive()
                await h2.send(session, bytes(16_000))
            await h2.append()

    serve(backend, make_host(), client)


@each_backend
@pytest.mark.parametrize(
    ("method", "path"), [("GET", b"/\xff"), ("G\u00cbT", "/health"), ("G3T", "/health")]
)
def test_heads_that_make_no_sense(backend: str, method: str, path: str | bytes) -> None:
    async def client(url: str) -> None:
        async with await connect(url) as stream:
            h2 = H2(stream)
            await h2.end(await h2.open(method, path))
            await h2.append()

    serve(backend, make_host(), client)


@each_backend
def test_priorities_without_end(backend: str) -> None:
    async def client(url: str) -> None:
        async with await connect(url) as stream:
            h2 = H2(stream)
            for n in range(1001, 5001, 2):
                h2.h2.prioritize(n, weight=3)
            await h2.flush()
            await h2.append()

    serve(backend, make_host(), client)


@each_backend
@pytest.mark.parametrize("garbage", [b"\0\1\2\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" * 9])
def test_garbage_costs_its_connection_only(backend: str, garbage: bytes) -> None:
    async def client(url: str) -> None:
        async with await connect(url) as stream:
            await stream.send(garbage)
            await until_closed(stream)
        async with await connect(url) as stream:
            await H2(stream).append()

    serve(backend, make_host(), client)


@each_backend
def test_a_connection_that_fails_costs_nobody_else(
    backend: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = make_host()
    good_open = Service.open

    def open_or_fail(self: Service, method: str, target: str, *rest: Any) -> Exchange:
        if target == "/v1/fail":
            raise ZeroDivisionError
        return good_open(self, method, target, *rest)

    monkeypatch.setattr(Service, "open", open_or_fail)

    async def client(url: str) -> None:
        async with httpx.AsyncClient(base_url=url) as http:
            async with http.stream("GET", "/v1/basins") as before:
                # It may be told so, or not.
                with suppress(httpx.TransportError):
                    assert (await http.get("/v1/fail")).status_code == 500
                assert (await before.aread()).startswith(b"{")
            assert (await http.get("/v1/basins")).status_code == 200

    serve(backend, host, client)
    (record,) = caplog.records
    assert record.name == "s2frames.embedded.serving"
    assert "ZeroDivisionError" in caplog.text


@each_backend
def test_a_store_that_fails_ends_the_service(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host()

    def fail(*_args: object) -> Exchange:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Service, "open", fail)

    async def client(url: str) -> None:
        async with httpx.AsyncClient(base_url=url) as http:
            with suppress(httpx.TransportError):
                await http.get("/v1/basins")
        await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        serve(backend, host, client)
    assert caught.value.subgroup(StoreError) is not None
    assert caught.value.split(StoreError)[1] is None


@each_backend
def test_a_reader_that_takes_nothing_holds_nobody_up(backend: str) -> None:
    host = make_host()
    for _ in range(5):
        host.append_ok(*bodies("x" * 1_000_000))

    async def client(url: str) -> None:
        async with await connect(url) as stream:
            h2 = H2(stream)
            h2.h2.increment_flow_control_window(1_000_000)
            await h2.open("GET", f"{RECORDS}?seq_num=0")
            for _ in range(3):
                await h2.append()
        await until(lambda: followers(host) == 0)

    serve(backend, host, client)


@each_backend
@each_version
def test_leaving_the_block_waits_for_nobody(backend: str, http2: bool) -> None:
    host = make_host()
    for _ in range(20):
        host.append_ok(*bodies("x" * 1_000_000))
    left: list[SocketStream] = []

    async def client(url: str) -> None:
        stream = await connect(url)
        left.append(stream)
        if http2:
            h2 = H2(stream)
            h2.h2.increment_flow_control_window(2**30)
            await h2.open("GET", f"{RECORDS}?seq_num=0")
        else:
            head = f"GET {RECORDS}?seq_num=0 HTTP/1.1\r\nhost: x\r\ns2-basin: {BASIN}\r\n"
            await stream.send(f"{head}content-type: s2s/proto\r\n\r\n".encode())
        await until(lambda: followers(host) == 1)

    async def main() -> None:
        with anyio.fail_after(PATIENCE):
            async with serving(host.service) as url:
                await client(url)
            assert followers(host) == 0
            await left[0].aclose()

    anyio.run(main, backend=backend)


@each_backend
def test_a_cut_upload_keeps_what_was_whole(backend: str) -> None:
    host = make_host()

    def tail() -> int:
        seq_num: int = host.send("GET", f"{RECORDS}/tail").json["tail"]["seq_num"]
        return seq_num

    async def client(url: str) -> None:
        async with await connect(url) as stream:
            h2 = H2(stream)
            session = await h2.open("POST", RECORDS)
            batch = encode_batch(bodies("a"))
            await h2.send(session, batch * 2 + batch[:4])
            await until(lambda: tail() == 2)
        async with await connect(url) as stream:
            await H2(stream).append()
        assert tail() == 3

    serve(backend, host, client)


@each_backend
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])  # noqa: S104  # refused
def test_other_machines_are_kept_out(backend: str, host: str) -> None:
    async def main() -> None:
        async with serving(Host().service, host):
            raise AssertionError("it must not come to this")

    with pytest.raises(LocalProtocolError, match="no loopback address"):
        anyio.run(main, backend=backend)


@each_backend
def test_ports(backend: str) -> None:
    async def main() -> None:
        async with serving(Host().service) as url, await connect(url):
            with pytest.raises(OSError, match="in use"):
                async with serving(Host().service, port=port_of(url)):
                    raise AssertionError("it must not come to this")
        # It can be had again at once.
        async with serving(Host().service, port=port_of(url)) as again:
            assert again == url
        with socket.socket() as refused, pytest.raises(ConnectionRefusedError):
            refused.connect(("127.0.0.1", port_of(url)))

    anyio.run(main, backend=backend)


@each_backend
def test_what_is_raised_in_the_block_comes_out_of_it(backend: str) -> None:
    async def main() -> None:
        async with serving(Host().service):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        anyio.run(main, backend=backend)
