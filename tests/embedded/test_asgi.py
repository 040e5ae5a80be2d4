from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from math import inf
from typing import Any

import anyio
import pytest

from embedded.host import BASIN, RECORDS, Host, make_host
from s2_bodies import bodies, encode_batch, messages_in
from s2frames.embedded import asgi
from s2frames.embedded.asgi import make_app
from s2frames.embedded.catalog import Access
from s2frames.s2s import Terminal

each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])
S2S = (b"Content-Type", b"s2s/proto")


def followers(host: Host) -> int:
    """How many follow the stream."""
    stream = host.service._catalog.open_stream((BASIN, "room/1"), Access.READ, host.now)
    return len(stream._followers)


class Request:
    """A request, as an ASGI server gives it to the app. Sending waits until the test takes it."""

    def __init__(
        self, host: Host, method: str, target: str, *headers: tuple[bytes, bytes], version: str
    ) -> None:
        path, _, query = target.encode().partition(b"?")
        self.scope = {
            "type": "http",
            "http_version": version,
            "method": method,
            "path": "not used",
            "raw_path": path,
            "query_string": query,
            "headers": [(b"S2-Basin", BASIN.encode()), *headers],
        }
        self._app = make_app(host.service)
        self._has_begun = False
        self._to_app, self._received = anyio.create_memory_object_stream[dict[str, Any]](inf)
        self._sent, self._from_app = anyio.create_memory_object_stream[dict[str, Any]](0)

    async def run(self) -> None:
        with self._received, self._sent:
            await self._app(self.scope, self._received.receive, self._send)

    async def _send(self, message: dict[str, Any]) -> None:
        # Before anything is waited for: servers check at once, too.
        assert self._has_begun == (message["type"] == "http.response.body")
        self._has_begun = True
        await self._sent.send(message)

    async def put(self, body: bytes = b"", *, more: bool = False) -> None:
        await self._to_app.send({"type": "http.request", "body": body, "more_body": more})

    async def leave(self) -> None:
        await self._to_app.send({"type": "http.disconnect"})

    async def take(self) -> dict[str, Any]:
        return await self._from_app.receive()

    async def take_body(self) -> bytes:
        message = await self.take()
        assert (message["type"], message["more_body"]) == ("http.response.body", True)
        body = message["body"]
        assert isinstance(body, bytes)
        return body

    async def take_rest(self) -> bytes:
        """The rest of the answer, which must end."""
        pieces: list[bytes] = []
        async for message in self._from_app:
            pieces.append(message["body"])
            if not message["more_body"]:
                return b"".join(pieces)
        raise AssertionError("the answer did not end")

    def close(self) -> None:
        self._to_app.close()
        self._from_app.close()


Play = Callable[[Request], Awaitable[None]]


def play(
    backend: str,
    host: Host,
    method: str,
    target: str,
    *headers: tuple[bytes, bytes],
    client: Play,
    version: str = "2",
) -> None:
    """Run the app on one request with this client; both must end."""

    async def main() -> None:
        request = Request(host, method, target, *headers, version=version)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(request.run)
            try:
                await client(request)
            except AssertionError:
                tasks.cancel_scope.cancel()
                raise
        request.close()

    anyio.run(main, backend=backend)


@each_backend
def test_acks_go_out_while_the_body_comes_in(backend: str) -> None:
    host = make_host()

    async def client(request: Request) -> None:
        start = await request.take()
        assert (start["type"], start["status"]) == ("http.response.start", 200)
        assert (b"content-type", b"s2s/proto") in start["headers"]
        for _ in range(3):
            await request.put(encode_batch(bodies("a")), more=True)
            assert len(messages_in(await request.take_body())) == 1
        await request.put()
        assert await request.take_rest() == b""

    play(backend, host, "POST", RECORDS, S2S, client=client)


@each_backend
def test_a_cut_upload_keeps_what_was_whole(backend: str) -> None:
    host = make_host()

    async def client(request: Request) -> None:
        await request.take()
        batch = encode_batch(bodies("a"))
        await request.put(batch + batch[:5], more=True)
        assert len(messages_in(await request.take_body())) == 1
        await request.leave()

    play(backend, host, "POST", RECORDS, S2S, client=client)
    assert host.send("GET", f"{RECORDS}/tail").json["tail"]["seq_num"] == 1


@each_backend
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_who_leaves_before_the_answer_gets_none(backend: str, version: str) -> None:
    host = make_host()

    async def client(request: Request) -> None:
        # Both at once: the app may look at the one when the other has happened, too.
        await request.put(b"{", more=True)
        await request.leave()
        with pytest.raises(anyio.EndOfStream):
            await request.take()

    json_body = (b"content-type", b"application/json")
    # trio runs tasks in an order by chance.
    for _ in range(20):
        play(backend, host, "POST", RECORDS, json_body, client=client, version=version)


@each_backend
@pytest.mark.parametrize("is_sending", [False, True])
def test_a_follower_that_leaves_is_forgotten(backend: str, is_sending: bool) -> None:
    host = make_host()

    async def client(request: Request) -> None:
        await request.put()
        await request.take()
        assert followers(host) == 1
        if not is_sending:
            # The heartbeat with which following begins.
            await request.take_body()
        await anyio.wait_all_tasks_blocked()
        await request.leave()

    play(backend, host, "GET", f"{RECORDS}?seq_num=0", S2S, client=client)
    assert followers(host) == 0


@each_backend
def test_followers_are_woken(backend: str) -> None:
    host = make_host()

    async def client(request: Request) -> None:
        await request.put()
        await request.take()
        await request.take_body()
        await anyio.wait_all_tasks_blocked()
        host.append_ok(*bodies("hello"))
        assert b"hello" in await request.take_body()
        await request.leave()

    play(backend, host, "GET", f"{RECORDS}?seq_num=0", S2S, client=client)


@each_backend
def test_heartbeats_come_when_they_are_due(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        """A clock in a hurry: each look is 20 seconds after the last one."""

        _looks = count(2_000_000, 20)

        def time(self) -> float:
            return next(self._looks)

    monkeypatch.setattr(asgi, "time", Clock())
    host = make_host()

    async def client(request: Request) -> None:
        await request.put()
        await request.take()
        for _ in range(3):
            assert len(messages_in(await request.take_body())) == 1
        await request.leave()

    play(backend, host, "GET", f"{RECORDS}?seq_num=0", S2S, client=client)


@each_backend
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_an_early_error(backend: str, version: str) -> None:
    host = make_host()

    async def client(request: Request) -> None:
        await request.put(b"part", more=True)
        start = await request.take()
        assert start["status"] == 404
        assert b"stream_not_found" in await request.take_body()
        if version == "1.1":
            # The end waits for the request's, however much that is.
            for _ in range(100):
                await request.put(bytes(1000), more=True)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.WouldBlock):
                request._from_app.receive_nowait()
            await request.put()
        assert await request.take_rest() == b""

    target = "/v1/streams/none/records"
    play(backend, host, "POST", target, S2S, client=client, version=version)


@each_backend
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_a_client_that_leaves_after_an_early_error(backend: str, version: str) -> None:
    async def client(request: Request) -> None:
        assert (await request.take())["status"] == 404
        await request.leave()

    target = "/v1/streams/none/records"
    play(backend, make_host(), "POST", target, S2S, client=client, version=version)


@each_backend
def test_a_batch_that_fails_ends_the_answer(backend: str) -> None:
    async def client(request: Request) -> None:
        await request.put(encode_batch(bodies("a"), 7) + b"and so on", more=True)
        assert (await request.take())["status"] == 200
        (terminal,) = messages_in(await request.take_rest())
        assert isinstance(terminal, Terminal)
        assert terminal.status == 412

    play(backend, make_host(), "POST", RECORDS, S2S, client=client)


@each_backend
def test_who_takes_no_acks_appends_no_more(backend: str) -> None:
    host = make_host()

    def tail() -> int:
        seq_num: int = host.send("GET", f"{RECORDS}/tail").json["tail"]["seq_num"]
        return seq_num

    async def client(request: Request) -> None:
        await request.take()
        for _ in range(100):
            await request.put(encode_batch(bodies("a")), more=True)
        await anyio.wait_all_tasks_blocked()
        assert tail() == 1
        await request.put()
        assert len(messages_in(await request.take_rest())) == 100
        assert tail() == 100

    play(backend, host, "POST", RECORDS, S2S, client=client)


@each_backend
def test_who_takes_no_records_costs_one_batch(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host()
    for _ in range(5):
        host.append_ok(*bodies("x" * 1_000_000))
    fetched: list[bytes] = []

    async def client(request: Request) -> None:
        await request.put()
        await request.take()
        await anyio.wait_all_tasks_blocked()
        before = len(fetched)
        assert len(await request.take_body()) <= asgi._PIECE_BYTES
        await anyio.wait_all_tasks_blocked()
        assert len(fetched) == before == 1
        await request.leave()

    store = host.service._catalog._store
    read = store.read

    def watched(*args: Any) -> Any:
        fetched.append(b"")
        return read(*args)

    monkeypatch.setattr(store, "read", watched)
    play(backend, host, "GET", f"{RECORDS}?seq_num=0", S2S, client=client)


@each_backend
def test_lifespan(backend: str) -> None:
    told = iter(["lifespan.startup", "lifespan.shutdown"])
    said: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(told)}

    async def send(message: dict[str, Any]) -> None:
        said.append(message["type"])

    anyio.run(make_app(Host().service), {"type": "lifespan"}, receive, send, backend=backend)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@each_backend
def test_websockets_are_refused(backend: str) -> None:
    said: list[str] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("there is nothing to receive")

    async def send(message: dict[str, Any]) -> None:
        said.append(message["type"])

    anyio.run(make_app(Host().service), {"type": "websocket"}, receive, send, backend=backend)
    assert said == ["websocket.close"]
