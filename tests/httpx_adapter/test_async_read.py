from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from httpx_adapter.gates import AsyncCounter, AsyncGate, AsyncLosing
from live_service import live_service
from s2frames import Endpoints, LocalProtocolError, ServiceError, Settings, TransportError
from s2frames.retry import Retry
from s2frames.session import Retrying
from s2frames.settings import LIVENESS_TIMEOUT
from s2frames_httpx import AsyncClient, AsyncEmbeddedTransport, AsyncReadSession, AsyncStream
from s2frames_httpx.embedded import EMBEDDED_SETTINGS
from scenes import ASYNC_FLAVOURS
from scripted_server import Connection, head, scripted_server

MESSAGES = [b"%d" % n for n in range(5)]

pytestmark = [
    pytest.mark.usefixtures("flavour"),
    pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True, ids=str),
]


async def fill(client: AsyncClient) -> AsyncStream:
    """A stream with five messages."""
    await client.create_basin("test-basin")
    stream = client.stream("test-basin", "room/1")
    await stream.create()
    async with stream.append_session() as session:
        await session.append_many(MESSAGES)
    return stream


async def filled_service() -> AsyncEmbeddedTransport:
    """A service whose stream has five messages."""
    transport = AsyncEmbeddedTransport()
    async with AsyncClient(EMBEDDED_SETTINGS, transport=transport) as client:
        await fill(client)
    return transport


def stream_over(transport: httpx.AsyncBaseTransport) -> AsyncStream:
    return AsyncClient(EMBEDDED_SETTINGS, transport=transport).stream("test-basin", "room/1")


async def read_on(messages: AsyncReadSession[bytes], received: list[bytes]) -> None:
    """Read until the session ends."""
    async for message in messages:
        received += [message]


# Blocks


async def test_reading_outside_a_block_is_refused() -> None:
    counter = AsyncCounter(await filled_service())
    session = stream_over(counter).read_session()
    with pytest.raises(LocalProtocolError, match="async with"):
        await anext(session)
    with pytest.raises(LocalProtocolError, match="async with"):
        await anext(session.frames())
    async with session:
        assert await anext(session) == b"0"
        assert counter.num_open == 1
    assert counter.num_open == 0


async def leave_by_an_exception(session: AsyncReadSession[bytes]) -> None:
    async with session:
        await anext(session)
        raise KeyError("mine")


async def test_leaving_by_an_exception_closes_the_answer() -> None:
    counter = AsyncCounter(await filled_service())
    with pytest.raises(KeyError, match="mine"):
        await leave_by_an_exception(stream_over(counter).read_session(follow=True))
    assert counter.num_open == 0


async def test_the_end_closes_the_answer() -> None:
    counter = AsyncCounter(await filled_service())
    async with stream_over(counter).read_session(limit=2) as messages:
        assert [message async for message in messages] == MESSAGES[:2]
        assert counter.num_open == 0


# Cancelling


async def test_cancelling_a_read_that_begins() -> None:
    gate = AsyncGate(await filled_service())
    counter = AsyncCounter(gate)
    async with stream_over(counter).read_session() as messages:
        async with anyio.create_task_group() as group:
            group.start_soon(anext, messages)
            await gate.reached.wait()
            group.cancel_scope.cancel()
        assert counter.num_open == 0
        gate.opened.set()
        assert [message async for message in messages] == MESSAGES
    assert counter.num_open == 0


async def test_cancelling_a_read_at_the_tail() -> None:
    service = await filled_service()
    counter = AsyncCounter(service)
    received: list[bytes] = []
    async with stream_over(counter).read_session(follow=True) as messages:
        async with anyio.create_task_group() as group:
            group.start_soon(read_on, messages, received)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert received == MESSAGES
        assert counter.num_open == 0
        assert messages.checkpoint().seen_through == 5
        async with stream_over(service).append_session() as session:
            await session.append(b"5")
        # Nothing twice, nothing missed.
        assert await anext(messages) == b"5"


async def test_cancelling_between_two_attempts() -> None:
    losing = AsyncLosing(await filled_service(), {0})
    is_waiting = anyio.Event()
    patient = Retry(min_delay=3600, max_delay=3600, max_seconds=1e6, connect_seconds=1e6)

    def note(_event: Retrying) -> None:
        is_waiting.set()

    stream = stream_over(losing)
    async with stream.read_session(on_retry=note, retry=patient) as messages:
        async with anyio.create_task_group() as group:
            group.start_soon(anext, messages)
            await is_waiting.wait()
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        checkpoint = messages.checkpoint()
    assert (checkpoint.seen_through, losing.num_requests) == (0, 1)


async def test_closing_wakes_a_task_that_waits_for_another_attempt() -> None:
    losing = AsyncLosing(await filled_service(), {0})
    received: list[bytes] = []
    patient = Retry(min_delay=3600, max_delay=3600, max_seconds=1e6, connect_seconds=1e6)
    async with (
        anyio.create_task_group() as group,
        stream_over(losing).read_session(retry=patient) as messages,
    ):
        group.start_soon(read_on, messages, received)
        await anyio.wait_all_tasks_blocked()
        assert losing.num_requests == 1
    assert received == []


async def test_cancelling_reads_over_sockets() -> None:
    with live_service() as url:
        async with AsyncClient(Settings(endpoints=Endpoints.at(url))) as client:
            stream = await fill(client)
            for _ in range(5):
                with anyio.CancelScope() as scope:
                    async with stream.read_session(follow=True) as messages:
                        async for message in messages:
                            if message == MESSAGES[-1]:
                                scope.cancel()
                assert scope.cancelled_caught
            async with stream.read_session() as messages:
                assert [message async for message in messages] == MESSAGES


async def test_a_cancelled_task_hands_out_nothing() -> None:
    async with stream_over(await filled_service()).read_session() as messages:
        assert await anext(messages) == b"0"
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(messages)
        assert await anext(messages) == b"1"


# Two tasks


async def test_two_tasks_on_one_session() -> None:
    gate = AsyncGate(await filled_service())
    received: list[bytes] = []
    async with stream_over(gate).read_session() as messages, anyio.create_task_group() as group:
        group.start_soon(read_on, messages, received)
        await gate.reached.wait()
        with pytest.raises(LocalProtocolError, match="one task at a time"):
            await anext(messages)
        gate.opened.set()
    assert received == MESSAGES


@pytest.mark.parametrize("is_embedded", [True, False], ids=["in process", "socket"])
async def test_closing_ends_the_loop_of_another_task(is_embedded: bool) -> None:
    received: list[bytes] = []
    with live_service() as url:
        options: dict[str, Any] = {"settings": Settings(endpoints=Endpoints.at(url))}
        if is_embedded:
            options = {"settings": EMBEDDED_SETTINGS, "transport": AsyncEmbeddedTransport()}
        async with AsyncClient(**options) as client:
            stream = await fill(client)
            all_read, is_over = anyio.Event(), anyio.Event()

            async def read() -> None:
                async for message in messages:
                    received.append(message)
                    if message == MESSAGES[-1]:
                        all_read.set()
                is_over.set()

            async with anyio.create_task_group() as group:
                messages = stream.read_session(follow=True)
                async with messages:
                    group.start_soon(read)
                    await all_read.wait()
                    await anyio.wait_all_tasks_blocked()
                await anyio.wait_all_tasks_blocked()
                # In process it ends at once, not only with the next heartbeat.
                assert is_over.is_set() or not is_embedded
            assert is_over.is_set()
    assert received == MESSAGES


# Deadlines, and a client that is gone


async def test_an_answer_may_be_silent_for_longer_than_its_head() -> None:
    counter = AsyncCounter(await filled_service())
    settings = Settings(endpoints=EMBEDDED_SETTINGS.endpoints, request_timeout=0.5)
    async with (
        AsyncClient(settings, transport=counter) as client,
        client.stream("test-basin", "room/1").read_session() as messages,
    ):
        assert [message async for message in messages] == MESSAGES
    assert counter.timeouts == [0.5]
    (request,) = counter.requests
    assert request.extensions["timeout"]["read"] == pytest.approx(LIVENESS_TIMEOUT, abs=0.5)


async def test_a_server_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2frames.read.LIVENESS_TIMEOUT", 0.2)

    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(head("200 OK", "content-type: s2s/proto", "transfer-encoding: chunked"))
        connection.wait_until_closed()

    with scripted_server(script) as server:
        settings = Settings(
            endpoints=Endpoints.at(server.url), request_timeout=0.2, retry=Retry(max_attempts=2)
        )
        async with AsyncClient(settings) as client:
            stream = client.stream("test-basin", "room/1")
            async with stream.read_session(follow=True) as messages:
                with pytest.raises(TransportError, match=r"no sign of life.*tried 2 times"):
                    await anext(messages)
        assert server.connections == 2


async def test_a_session_of_a_closed_client() -> None:
    client = AsyncClient(EMBEDDED_SETTINGS, transport=await filled_service())
    async with client.stream("test-basin", "room/1").read_session() as messages:
        await client.close()
        with pytest.raises(LocalProtocolError, match="client is closed"):
            await anext(messages)


# Errors that never end


class Dripping(httpx.AsyncByteStream):
    """The body of an answer that has no end; every byte of it takes a second of a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.is_closed = False

    def monotonic(self) -> float:
        return self.now

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.is_closed and self.now < 3600:
            self.now += 1
            yield b"x"

    async def aclose(self) -> None:
        self.is_closed = True


async def test_an_error_whose_body_drips_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    body = Dripping()
    monkeypatch.setattr("anyio.current_time", body.monotonic)
    answer = httpx.MockTransport(lambda _request: httpx.Response(503, stream=body))
    async with AsyncClient(EMBEDDED_SETTINGS, transport=answer) as client:
        stream = client.stream("test-basin", "room/1")
        with pytest.raises(ServiceError, match=r"status 503, .*; the answer broke off$") as caught:
            async with stream.read_session(retry=Retry(max_attempts=1)) as messages:
                await anext(aiter(messages))
    assert "no sign of life" in str(caught.value.__cause__)
    assert body.is_closed
    assert LIVENESS_TIMEOUT <= body.now < 2 * LIVENESS_TIMEOUT
