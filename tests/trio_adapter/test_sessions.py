"""Sessions over scripted connections: what goes wrong on the way, at every place and time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes

from s2frames.records import MAX_BATCH_RECORDS
from s2frames.s2s import encode_terminal
from s2frames.session import Retrying
from s2frames_trio import Stream
from trio_adapter.host import Host, numbers, opened, read_all
from trio_adapter.peers import Peer, cancelled_at

# Losing

Spoil = Callable[[Peer, int], Awaitable[bool]]


async def cut(peer: Peer, _stream_id: int) -> bool:
    await peer.stream.aclose()
    return True


async def reset(peer: Peer, stream_id: int) -> bool:
    peer.h2.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
    await peer.flush()
    return True


async def refuse(peer: Peer, stream_id: int) -> bool:
    peer.h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
    await peer.flush()
    return True


async def say_goodbye(peer: Peer, _stream_id: int) -> bool:
    peer.h2.close_connection()
    await peer.flush()
    await peer.stream.aclose()
    return True


async def end_with_an_error(peer: Peer, stream_id: int) -> bool:
    if not peer.h2.streams[stream_id].state_machine.headers_sent:
        peer.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "s2s/proto")])
    body = b'{"code":"unavailable","message":"come back later"}'
    peer.h2.send_data(stream_id, encode_terminal(503, body), end_stream=True)
    await peer.flush()
    return True


every_loss = pytest.mark.parametrize("spoil", [cut, reset, refuse, say_goodbye, end_with_an_error])


def some(spoil: Spoil, places: set[int]) -> Spoil:
    """Spoil the answers at these places alone, counted from 0."""
    seen = 0

    async def spoil_some(peer: Peer, stream_id: int) -> bool:
        nonlocal seen
        seen += 1
        return seen - 1 in places and await spoil(peer, stream_id)

    return spoil_some


@every_loss
@pytest.mark.parametrize("exclusive", [False, True])
async def test_an_append_session_survives(spoil: Spoil, exclusive: bool) -> None:
    if exclusive and spoil in (refuse, end_with_an_error):
        # They say that nothing was done, which here is a lie: such a writer cannot know.
        spoil = reset
    host = Host()
    told: list[Retrying] = []
    async with opened(host) as (_, stream):
        # A tail check, and what it is that is appended.
        await stream.check_tail()
        host.spoil = some(spoil, {1, 2, 5} if exclusive else {0, 1, 4})
        async with stream.append_session(exclusive=exclusive, on_retry=told.append) as session:
            assert (await session.append(b"first")).start >= 0
            await session.append_many(numbers(4 * MAX_BATCH_RECORDS))
        host.spoil = None
        async with stream.read_session() as messages:
            assert [m async for m in messages] == [b"first", *numbers(4 * MAX_BATCH_RECORDS)]
            assert not exclusive or messages.stats.duplicates == 0
    assert told


@every_loss
async def test_a_read_session_survives(spoil: Spoil) -> None:
    host = Host()
    messages = [b"%d" % n * 1000 for n in range(3000)]
    async with opened(host) as (_, stream):
        async with stream.append_session() as session:
            await session.append_many(messages)
        told: list[Retrying] = []
        host.spoil = some(spoil, {0, 1, 3})
        async with stream.read_session(on_retry=told.append) as reading:
            assert [message async for message in reading] == messages
    assert len(told) >= 2


@pytest.mark.parametrize("spoil", [cut, reset, refuse, say_goodbye])
async def test_a_call_survives(spoil: Spoil) -> None:
    host = Host()
    async with opened(host) as (_, stream):
        host.spoil = some(spoil, {0, 1})
        assert (await stream.check_tail()).seq_num == 0


# Many


async def test_fifty_sessions_where_two_fit_a_connection() -> None:
    host = Host()
    async with opened(host, limits={"max_concurrent_streams": 2}) as (client, _):

        async def work(n: int) -> None:
            stream = client.stream("test-basin", f"room/{n}")
            await stream.ensure()
            async with stream.append_session() as session:
                await session.append_many(numbers(50))
                await trio.sleep(1)
                await session.append(b"last")
            assert await read_all(stream) == [*numbers(50), b"last"]

        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(work, n)
    assert 25 <= len(host.peers) <= 60
    assert host.num_open == 0


# Cancelling


async def append_some(stream: Stream) -> None:
    async with stream.append_session() as session:
        await session.append(b"a")
        await session.append_many(numbers(3))
        await (await session.submit(b"b"))
        await session.flush()


async def read_some(stream: Stream) -> None:
    async with stream.read_session() as messages:
        assert len([message async for message in messages]) == 20


async def call(stream: Stream) -> None:
    await stream.check_tail()
    await stream.fencing_token()


@pytest.mark.parametrize("is_warm", [False, True])
@pytest.mark.parametrize("work", [append_some, read_some, call])
async def test_cancelled_anywhere_nothing_is_left(
    work: Callable[[Stream], Awaitable[None]], is_warm: bool
) -> None:
    number, goes_on = 1, True
    while goes_on:
        host = Host()
        async with opened(host) as (client, stream):
            async with stream.append_session() as session:
                await session.append_many(numbers(20))
            if not is_warm:
                # The work makes a connection of its own.
                await host.peers[-1].stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
            tasks = _num_tasks()
            goes_on = await cancelled_at(number, partial(work, stream))
            await trio.testing.wait_all_tasks_blocked()
            if is_warm:
                assert _num_tasks() == tasks
            assert host.num_open == 0
            tail = await client.stream("test-basin", "room/1").check_tail()
            assert 20 <= tail.seq_num <= 25
            assert len(host.peers) == (1 if is_warm else 2)
        number += 1
    assert number > 3


def _num_tasks() -> int:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    tasks, waiting = 0, [root]
    while waiting:
        task = waiting.pop()
        tasks += 1
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return tasks
