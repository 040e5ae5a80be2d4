from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

from httpx_adapter.gates import AsyncGate, AsyncLosing
from s2frames import Appended, LocalProtocolError, Outcome, SeqNumMismatch, TransportError
from s2frames.retry import Retry
from s2frames.session import Retrying
from s2frames_httpx import AsyncAppendSession, AsyncClient, AsyncEmbeddedTransport, AsyncStream
from s2frames_httpx.embedded import EMBEDDED_SETTINGS
from scenes import ASYNC_FLAVOURS, ASYNC_SCENES, Flavour, World

every_scene = pytest.mark.parametrize("s2", ASYNC_SCENES, indirect=True, ids=str)
on_both = pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True, ids=str)
Call = Callable[[], Coroutine[Any, Any, object]]

# Seconds, where no time passes but while all tasks wait.
PATIENCE = 1.0


class Service:
    """An embedded service with an empty stream, and a gate before it."""

    def __init__(self) -> None:
        self.inner = AsyncEmbeddedTransport()
        self.gate = AsyncGate(self.inner)

    async def make(self) -> Service:
        async with AsyncClient(EMBEDDED_SETTINGS, transport=self.inner) as client:
            await client.create_basin("test-basin")
            await client.stream("test-basin", "room/1").create()
        return self

    @property
    def gated(self) -> AsyncStream:
        client = AsyncClient(EMBEDDED_SETTINGS, transport=self.gate)
        return client.stream("test-basin", "room/1")

    async def read_all(self) -> list[bytes]:
        client = AsyncClient(EMBEDDED_SETTINGS, transport=self.inner)
        async with client.stream("test-basin", "room/1").read_session() as messages:
            return [message async for message in messages]


# Many tasks


@every_scene
async def test_many_tasks_share_a_session(s2: World) -> None:
    where: dict[bytes, Appended] = {}
    async with s2.stream.append_session() as session:

        async def write(task: int) -> None:
            for n in range(10):
                message = b"%d/%d" % (task, n)
                where[message] = await session.append(message)

        async with anyio.create_task_group() as group:
            for task in range(30):
                group.start_soon(write, task)
        assert session.durable_messages == 300
    async with s2.stream.read_session() as messages:
        read = {
            frame.message: Appended(frame.start, frame.end) async for frame in messages.frames()
        }
    assert read == where
    for task in range(30):
        starts = [where[b"%d/%d" % (task, n)].start for n in range(10)]
        assert starts == sorted(starts)


@every_scene
async def test_append_many_and_append_at_the_same_time(s2: World) -> None:
    told: dict[str, list[Appended]] = {"a": [], "b": []}

    async def messages(name: str) -> AsyncIterator[bytes]:
        for n in range(50):
            yield f"{name}{n}".encode() * 20_000
            await anyio.lowlevel.checkpoint()

    async with s2.stream.append_session() as session:

        async def write(name: str) -> None:
            appended = await session.append_many(messages(name), told[name].append)
            assert appended == Appended(told[name][0].start, told[name][-1].end)

        async with anyio.create_task_group() as group:
            group.start_soon(write, "a")
            group.start_soon(write, "b")
            group.start_soon(session.append, b"alone")
            group.start_soon(session.flush)
    async with s2.stream.read_session() as received:
        read = {
            frame.message: Appended(frame.start, frame.end) async for frame in received.frames()
        }
    assert len(read) == 101
    for name, appended in told.items():
        assert appended == [read[f"{name}{n}".encode() * 20_000] for n in range(50)]


# Cancelling


async def start(group: anyio.abc.TaskGroup, call: Call) -> anyio.CancelScope:
    """Start a call in a task of its own; gives what cancels it."""

    async def run(*, task_status: TaskStatus[anyio.CancelScope]) -> None:
        with anyio.CancelScope() as scope:
            task_status.started(scope)
            await call()

    scope: anyio.CancelScope = await group.start(run)
    return scope


@on_both
@pytest.mark.usefixtures("flavour")
async def test_cancelling_one_who_waits_drops_only_the_wait() -> None:
    service = await Service().make()
    session = service.gated.append_session()
    async with anyio.create_task_group() as group:
        await start(group, lambda: session.append(b"driver"))
        await service.gate.reached.wait()
        waiting = await start(group, lambda: session.append(b"waiting"))
        await anyio.wait_all_tasks_blocked()
        waiting.cancel()
        await anyio.wait_all_tasks_blocked()
        service.gate.opened.set()
    # It was accepted, and goes out with what comes next.
    assert await session.append(b"next") == Appended(2, 3)
    await session.close()
    assert await service.read_all() == [b"driver", b"waiting", b"next"]


@on_both
@pytest.mark.usefixtures("flavour")
async def test_when_the_one_who_drives_is_cancelled_the_next_takes_over() -> None:
    service = await Service().make()
    session = service.gated.append_session()
    results: list[object] = []

    async def note(call: Call) -> None:
        results.append(await call())

    async with anyio.create_task_group() as group:
        driving = await start(group, lambda: session.append(b"driver"))
        await service.gate.reached.wait()
        group.start_soon(note, lambda: session.append(b"waiting"))
        group.start_soon(note, lambda: session.append_many([b"many"]))
        group.start_soon(note, session.flush)
        await anyio.wait_all_tasks_blocked()
        driving.cancel()
        service.gate.opened.set()
    assert len(results) == 3
    # What was accepted stays accepted.
    await session.append(b"late")
    await session.close()
    first, *others, last = await service.read_all()
    assert (first, set(others), last) == (b"driver", {b"waiting", b"many"}, b"late")
    assert session.durable_messages == 4


@on_both
@pytest.mark.usefixtures("flavour")
async def test_cancelling_the_one_who_drives_ends_what_must_not_be_sent_twice() -> None:
    service = await Service().make()
    session = service.gated.append_session(dedupe=False)
    errors: list[TransportError] = []

    async def fail(call: Call) -> None:
        with pytest.raises(TransportError, match="the append was interrupted") as raised:
            await call()
        errors.append(raised.value)

    async with anyio.create_task_group() as group:
        driving = await start(group, lambda: session.append(b"driver"))
        await service.gate.reached.wait()
        group.start_soon(fail, lambda: session.append(b"waiting"))
        group.start_soon(fail, lambda: session.append_many([b"many"]))
        group.start_soon(fail, session.flush)
        await anyio.wait_all_tasks_blocked()
        driving.cancel()
    await fail(lambda: session.append(b"late"))
    await fail(session.close)
    assert [error.outcome for error in errors] == [Outcome.UNKNOWN] * 5
    assert await service.read_all() == []


@on_both
@pytest.mark.usefixtures("flavour")
async def test_another_takes_over_between_two_attempts() -> None:
    service = await Service().make()
    losing = AsyncLosing(service.inner, {0})
    client = AsyncClient(EMBEDDED_SETTINGS, transport=losing)
    is_waiting = anyio.Event()

    def note(_event: Retrying) -> None:
        is_waiting.set()

    session = client.stream("test-basin", "room/1").append_session(on_retry=note)
    async with anyio.create_task_group() as group:
        driving = await start(group, lambda: session.append(b"driver"))
        await is_waiting.wait()
        # The driver sleeps by now.
        group.start_soon(session.append, b"waiting")
        await anyio.wait_all_tasks_blocked()
        driving.cancel()
    await session.close()
    # The first attempt had landed, and readers drop the repeat.
    assert await service.read_all() == [b"driver", b"waiting"]
    # The attempt after it carried one batch only, so that its answer could be read.
    assert (session.durable_messages, losing.num_requests) == (2, 3)


@on_both
@pytest.mark.usefixtures("flavour")
async def test_a_timeout_around_the_block_gives_the_session_up() -> None:
    service = await Service().make()
    with anyio.CancelScope() as scope:
        async with service.gated.append_session() as session, anyio.create_task_group() as group:
            group.start_soon(session.append, b"a")
            await service.gate.reached.wait()
            scope.cancel()
    assert scope.cancelled_caught
    service.gate.opened.set()
    with pytest.raises((LocalProtocolError, TransportError)):
        await session.append(b"b")
    assert await service.read_all() == []


@pytest.mark.parametrize(
    "s2",
    [scene for scene in ASYNC_SCENES if "socket" in str(scene)],
    indirect=True,
    ids=str,
)
async def test_cancelling_while_a_large_message_is_sent(s2: World) -> None:
    large = b"x" * 20_000_000
    session = s2.stream.append_session()
    async with anyio.create_task_group() as group:
        sending = await start(group, lambda: session.append(large))
        await anyio.lowlevel.checkpoint()
        sending.cancel()
    await session.append(b"y")
    await session.close()
    async with s2.stream.read_session() as messages:
        assert [message async for message in messages] in ([large, b"y"], [b"y"])


# The queue


@on_both
@pytest.mark.usefixtures("flavour")
async def test_append_many_takes_no_more_than_its_window() -> None:
    service = await Service().make()
    taken: list[int] = []

    async def messages() -> AsyncIterator[bytes]:
        for n in range(20):
            taken.append(n)
            yield b"x" * 1_000_000

    session: AsyncAppendSession[bytes] = service.gated.append_session(max_inflight_bytes=2**21)
    async with anyio.create_task_group() as group:
        group.start_soon(session.append_many, messages())
        await service.gate.reached.wait()
        # The window, and the queue as much again; what fills it is one too many.
        assert len(taken) <= 6
        service.gate.opened.set()
    assert len(taken) == 20
    assert session.durable_messages == 20


@on_both
@pytest.mark.usefixtures("flavour")
async def test_a_session_of_a_closed_client_fails() -> None:
    service = await Service().make()
    client = AsyncClient(EMBEDDED_SETTINGS, transport=service.inner)
    session = client.stream("test-basin", "room/1").append_session()
    await session.append(b"a")
    await client.close()
    with pytest.raises(LocalProtocolError, match="client is closed"):
        await session.append(b"b")


# What is told to whom


@every_scene
async def test_a_callback_that_raises_is_its_own_task_s_error(s2: World) -> None:
    async with s2.stream.append_session() as session:
        results: list[object] = []

        def fail(_appended: Appended) -> None:
            raise KeyError("mine")

        async def write_many() -> None:
            with pytest.raises(KeyError, match="mine"):
                await session.append_many([b"a", b"b"], on_durable=fail)
            results.append("many")

        async def write(message: bytes) -> None:
            results.append(await session.append(message))

        async with anyio.create_task_group() as group:
            group.start_soon(write_many)
            for message in (b"c", b"d", b"e"):
                group.start_soon(write, message)
    assert len(results) == 4
    assert "many" in results
    assert session.durable_messages == 5


@on_both
@pytest.mark.usefixtures("flavour")
async def test_appends_wait_while_enough_messages_wait() -> None:
    service = await Service().make()
    session = service.gated.append_session(max_inflight_bytes=2**20, burst_batches=1)
    num_tasks, message = 12, bytes(400_000)
    async with anyio.create_task_group() as group:
        for _ in range(num_tasks):
            group.start_soon(session.append, message)
        await anyio.wait_all_tasks_blocked()
        # One batch is on its way; what waits behind it is bounded, whatever the number of tasks.
        assert session._protocol._writer.next_frame < num_tasks
        service.gate.opened.set()
    assert session.durable_messages == num_tasks
    await session.close()


# What a user of asyncio cancels with, and a user of anyio


async def cancel_natively(call: Call, reached: anyio.Event) -> None:
    task = asyncio.ensure_future(call())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_by_wait_for(call: Call, reached: anyio.Event) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(), PATIENCE)
    assert reached.is_set()


async def cancel_by_timeout(call: Call, reached: anyio.Event) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await call()
    assert reached.is_set()


async def cancel_by_scope(call: Call, reached: anyio.Event) -> None:
    async with anyio.create_task_group() as group:
        scope = await start(group, call)
        await reached.wait()
        scope.cancel()


WAYS: dict[str, Callable[[Call, anyio.Event], Coroutine[Any, Any, None]]] = {
    "task.cancel": cancel_natively,
    "wait_for": cancel_by_wait_for,
    "asyncio.timeout": cancel_by_timeout,
    "cancel scope": cancel_by_scope,
}
CANCELLED = [
    pytest.param(flavour, way, id=f"{flavour.value}, {way}")
    for flavour in ASYNC_FLAVOURS
    for way in WAYS
    if flavour is Flavour.ASYNCIO or way == "cancel scope"
]


@pytest.mark.parametrize(("flavour", "way"), CANCELLED, indirect=["flavour"])
@pytest.mark.parametrize("call", ["append", "append_many", "flush"])
@pytest.mark.usefixtures("flavour", "virtual_time")
async def test_what_was_accepted_by_a_call_that_is_cancelled_becomes_durable(
    way: str, call: str
) -> None:
    service = await Service().make()
    told: list[Retrying] = []
    # An attempt that was counted for a cancellation would be the end.
    session = service.gated.append_session(retry=Retry(max_attempts=1), on_retry=told.append)
    calls: dict[str, Call] = {
        "append": lambda: session.append(b"a"),
        "append_many": lambda: session.append_many([b"a"]),
        "flush": session.flush,
    }
    num_tries = 3 if call != "flush" else 1
    for _ in range(num_tries):
        service.gate.reached = anyio.Event()
        if call == "flush":
            session._outbox.put(b"a", now=0.0)
        await WAYS[way](calls[call], service.gate.reached)
    service.gate.opened.set()
    await session.append(b"z")
    await session.close()
    assert told == []
    assert await service.read_all() == [b"a"] * num_tries + [b"z"]


@on_both
@pytest.mark.usefixtures("flavour")
async def test_what_on_retry_raises_comes_out_of_the_call_that_drives_once() -> None:
    service = await Service().make()
    losing = AsyncLosing(service.inner, {0})
    client = AsyncClient(EMBEDDED_SETTINGS, transport=losing)
    results: list[object] = []

    def refuse(_retrying: Retrying) -> None:
        raise KeyError("mine")

    session = client.stream("test-basin", "room/1").append_session(on_retry=refuse)

    async def append(message: bytes) -> None:
        try:
            results.append(await session.append(message))
        except KeyError as error:
            results.append(str(error))

    async with anyio.create_task_group() as group:
        for message in (b"a", b"b", b"c"):
            group.start_soon(append, message)
    assert results.count("'mine'") == 1
    assert len(results) == 3
    await session.close()
    assert sorted(await service.read_all()) == [b"a", b"b", b"c"]


@on_both
@pytest.mark.usefixtures("flavour")
async def test_leaving_by_another_exception_notes_what_on_retry_raised() -> None:
    service = await Service().make()

    def refuse(_retrying: Retrying) -> None:
        raise KeyError("mine")

    async def leave() -> None:
        async with service.gated.append_session(on_retry=refuse) as session:
            session._outbox.take([Retrying(TransportError("lost"), 1, 0.0)])
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block") as raised:
        await leave()
    assert raised.value.__notes__ == ["on_retry has raised KeyError: \"'mine'\""]


@on_both
@pytest.mark.usefixtures("flavour")
async def test_leaving_after_the_end_was_told_raises_what_on_retry_raised() -> None:
    service = await Service().make()

    def refuse(_retrying: Retrying) -> None:
        raise KeyError("mine")

    async def leave() -> None:
        async with service.gated.append_session(on_retry=refuse) as session:
            session._protocol.abort()
            session._outbox.take_received()
            with pytest.raises(LocalProtocolError, match="aborted"):
                await session.flush()
            session._outbox.take([Retrying(TransportError("lost"), 1, 0.0)])

    with pytest.raises(KeyError, match=r"^'mine'$"):
        await leave()


# A session that fails while it is used: nobody spins or waits


def refusing(service: Service) -> AsyncAppendSession[bytes]:
    """A session that the service refuses at its first request."""
    client = AsyncClient(EMBEDDED_SETTINGS, transport=service.inner)
    stream = client.stream("test-basin", "room/1")
    return stream.append_session(match_seq_num=7, max_inflight_bytes=2**20)


@on_both
@pytest.mark.timeout(60)
@pytest.mark.usefixtures("flavour")
@pytest.mark.parametrize("is_async", [False, True])
async def test_append_many_onto_a_stream_that_refuses_while_it_is_still_putting(
    is_async: bool,
) -> None:
    num_drawn = 0

    def messages() -> Iterator[bytes]:
        nonlocal num_drawn
        while True:
            num_drawn += 1
            yield bytes(300_000)

    async def messages_async() -> AsyncIterator[bytes]:
        for message in messages():
            yield message

    session = refusing(await Service().make())
    with pytest.raises(SeqNumMismatch):
        await session.append_many(messages_async() if is_async else messages())
    # No more than what fills the session.
    assert num_drawn == 4


CALLS: dict[str, Callable[[AsyncAppendSession[bytes]], Coroutine[Any, Any, object]]] = {
    "append": lambda session: session.append(b"a"),
    "append_many": lambda session: session.append_many([b"a"]),
    "append_many, async": lambda session: session.append_many(one_message()),
    "flush": lambda session: session.flush(),
    "close": lambda session: session.close(),
}


async def one_message() -> AsyncIterator[bytes]:
    yield b"a"


@on_both
@pytest.mark.timeout(60)
@pytest.mark.usefixtures("flavour")
@pytest.mark.parametrize("call", list(CALLS))
async def test_a_stream_that_refuses_ends_every_call(call: str) -> None:
    session = refusing(await Service().make())
    session._outbox.put(b"before", now=0.0)
    for again in (call, *CALLS):
        with pytest.raises(SeqNumMismatch):
            await CALLS[again](session)


@on_both
@pytest.mark.timeout(60)
@pytest.mark.usefixtures("flavour")
@pytest.mark.parametrize("call", list(CALLS))
async def test_what_on_retry_raised_before_comes_out_of_any_call(call: str) -> None:
    service = await Service().make()

    def refuse(_retrying: Retrying) -> None:
        raise KeyError("mine")

    service.gate.opened.set()
    session = service.gated.append_session(on_retry=refuse)
    session._outbox.take([Retrying(TransportError("lost"), 1, 0.0)])
    with pytest.raises(KeyError, match=r"^'mine'$"):
        await CALLS[call](session)
    await session.close()
    assert await service.read_all() == []


@on_both
@pytest.mark.timeout(60)
@pytest.mark.usefixtures("flavour")
async def test_a_session_that_failed_while_a_message_was_awaited_draws_no_more() -> None:
    session = refusing(await Service().make())
    num_drawn = 0

    async def messages() -> AsyncIterator[bytes]:
        nonlocal num_drawn
        while True:
            num_drawn += 1
            with pytest.raises(SeqNumMismatch):
                # Another task, say.
                await session.append(b"other")
            yield b"a"

    with pytest.raises(SeqNumMismatch):
        await session.append_many(messages())
    assert num_drawn == 1


@on_both
@pytest.mark.timeout(60)
@pytest.mark.usefixtures("flavour")
@pytest.mark.parametrize("call", list(CALLS))
async def test_every_call_is_a_checkpoint(call: str) -> None:
    service = await Service().make()
    service.gate.opened.set()
    session = service.gated.append_session()
    for again in (CALLS[call], lambda session: session.append_many([])):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await again(session)
        assert scope.cancelled_caught
    await session.close()
    assert await service.read_all() == []


@on_both
@pytest.mark.timeout(60)
@pytest.mark.usefixtures("flavour")
@pytest.mark.parametrize("is_async", [False, True])
async def test_nothing_is_drawn_once_the_first_message_was_refused(is_async: bool) -> None:
    num_drawn = 0

    def messages() -> Iterator[bytes]:
        nonlocal num_drawn
        for _ in range(100):
            num_drawn += 1
            yield b"a"

    async def messages_async() -> AsyncIterator[bytes]:
        for message in messages():
            yield message

    service = await Service().make()
    client = AsyncClient(EMBEDDED_SETTINGS, transport=service.inner)
    stream = client.stream("test-basin", "room/1")
    session = stream.append_session(match_seq_num=7, linger=0)
    with pytest.raises(SeqNumMismatch):
        await session.append_many(messages_async() if is_async else messages())
    assert num_drawn == 1


@on_both
@pytest.mark.timeout(60)
@pytest.mark.usefixtures("flavour")
async def test_on_durable_is_told_request_by_request_when_all_is_put() -> None:
    service = await Service().make()
    losing = AsyncLosing(service.inner, set())
    client = AsyncClient(EMBEDDED_SETTINGS, transport=losing)
    stream = client.stream("test-basin", "room/1")
    session = stream.append_session(burst_batches=1, linger=3600)
    told: list[int] = []
    await session.append_many(
        [bytes(700_000)] * 3, on_durable=lambda _: told.append(losing.num_requests)
    )
    assert told == [1, 2, 3]
