"""Every coroutine of a client lets other tasks run, also where there is nothing to wait for.

What has arrived of a stream, or of a list, is handed out without a pause: one for each message
would take most of the time. A cancellation is noticed before each message all the same, and other
tasks run whenever bytes come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import pytest
import trio.testing

from s2frames import rest
from s2frames.operation import Plan
from s2frames.rest_plans import call_plan
from s2frames_httpx import AsyncClient, AsyncStream
from scenes import ASYNC_FLAVOURS, Flavour

T = TypeVar("T")

pytestmark = [
    pytest.mark.usefixtures("flavour"),
    pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True, ids=str),
]

Use = Callable[[AsyncClient, AsyncStream], Awaitable[object]]


async def letting_others_run(flavour: Flavour, use: Callable[[], Awaitable[T]]) -> T:
    """Check that what is ready meanwhile runs, and that a cancellation would be noticed."""
    if flavour is Flavour.TRIO:
        with trio.testing.assert_checkpoints():
            return await use()
    has_run: list[None] = []
    asyncio.get_running_loop().call_soon(has_run.append, None)
    given = await use()
    assert has_run
    with anyio.CancelScope() as scope:
        scope.cancel()
        await use()
    assert scope.cancelled_caught
    return given


async def filled(client: AsyncClient) -> AsyncStream:
    """A stream with three messages."""
    await client.create_basin("test-basin")
    stream = client.stream("test-basin", "room/1")
    await stream.create()
    async with stream.append_session() as session:
        await session.append_many([b"0", b"1", b"2"])
    return stream


def nothing() -> Plan[int]:
    """A plan that asks for nothing."""
    yield from ()
    return 7


def check_tail(stream: AsyncStream) -> Plan[Any]:
    target = stream.target
    return call_plan(rest.check_tail(target.settings, target.basin, target.stream))


CALLS: dict[str, Use] = {
    "run": lambda client, stream: client.run(check_tail(stream)),
    "run nothing": lambda client, _: client.run(nothing()),
    "ensure_basin": lambda client, _: client.ensure_basin("test-basin"),
    "basin_config": lambda client, _: client.basin_config("test-basin"),
    "list_basins": lambda client, _: anext(aiter(client.list_basins())),
    "list_streams": lambda client, _: anext(aiter(client.list_streams("test-basin"))),
    "ensure": lambda _, stream: stream.ensure(),
    "config": lambda _, stream: stream.config(),
    "check_tail": lambda _, stream: stream.check_tail(),
    "fence": lambda _, stream: stream.fence("t"),
    "trim": lambda _, stream: stream.trim(0),
    "fencing_token": lambda _, stream: stream.fencing_token(),
}


@pytest.mark.parametrize("call", CALLS)
async def test_calls(flavour: Flavour, call: str) -> None:
    async with AsyncClient.embedded() as client:
        stream = await filled(client)
        await letting_others_run(flavour, lambda: CALLS[call](client, stream))


async def test_closing_a_client(flavour: Flavour) -> None:
    client = AsyncClient.embedded()
    for _ in range(2):
        await letting_others_run(flavour, client.close)


async def test_appending(flavour: Flavour) -> None:
    async with AsyncClient.embedded() as client:
        stream = await filled(client)
        async with stream.append_session() as session:
            uses: list[Callable[[], Awaitable[object]]] = [
                lambda: session.append(b"x"),
                lambda: session.append_many([]),
                lambda: session.append_many([b"x"]),
                # There is nothing to wait for.
                session.flush,
                session.close,
                session.close,
            ]
            for use in uses:
                await letting_others_run(flavour, use)


async def test_reading(flavour: Flavour) -> None:
    async with AsyncClient.embedded() as client:
        stream = await filled(client)
        session = stream.read_session()
        async with session as messages:
            # On asyncio the second call of it was cancelled.
            assert await letting_others_run(flavour, lambda: anext(messages)) == b"0"
        for _ in range(2):
            await letting_others_run(flavour, session.close)


@pytest.mark.parametrize("form", ["messages", "frames", "batches"])
async def test_a_cancellation_is_noticed_before_every_message(form: str) -> None:
    async with AsyncClient.embedded() as client:
        stream = await filled(client)
        async with stream.read_session() as messages:
            items: Any = messages if form == "messages" else getattr(messages, form)()
            for number in range(1 if form == "batches" else 3):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await anext(items)
                assert scope.cancelled_caught, number
                await anext(items)
            assert messages.checkpoint().seen_through == 3


async def test_a_loop_of_appends_in_process_lets_other_tasks_run() -> None:
    turns: list[int] = []
    num_appended = 0

    async def other() -> None:
        while num_appended < 20:
            turns.append(num_appended)
            await anyio.lowlevel.checkpoint()

    async with AsyncClient.embedded() as client:
        stream = await filled(client)
        async with anyio.create_task_group() as group, stream.append_session() as session:
            group.start_soon(other)
            for _ in range(20):
                await session.append(b"x")
                num_appended += 1
    # In each of them.
    assert set(turns) == set(range(20))


async def test_a_loop_of_reads_in_process_lets_other_tasks_run() -> None:
    turns: list[int] = []
    num_read = 0

    async def other() -> None:
        while num_read < 20:
            turns.append(num_read)
            await anyio.lowlevel.checkpoint()

    async with AsyncClient.embedded() as client:
        stream = await filled(client)
        async with anyio.create_task_group() as group:
            group.start_soon(other)
            for _ in range(20):
                async with stream.read_session() as messages:
                    assert [message async for message in messages] == [b"0", b"1", b"2"]
                num_read += 1
    assert set(turns) == set(range(20))
