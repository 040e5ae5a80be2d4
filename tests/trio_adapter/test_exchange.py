"""Requests that are complete when they are sent."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from hyperframe.frame import PingFrame

from s2frames.errors import TransportError
from s2frames.retry import Retry
from s2frames_trio import Client, Stream
from s2frames_trio.pool import open_pool
from trio_adapter.host import Host, numbers, opened, read_all
from trio_adapter.peers import Peer, dialer
from trio_adapter.scripts import prepared, scripted

# Whatever hangs, ends.
pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("window", [0, 10])
async def test_a_call_whose_body_is_not_taken(window: int) -> None:
    async with opened(Host(), retry=Retry(max_attempts=1)) as (client, _):
        limited = Host()
        async with trio.open_nursery() as nursery:
            connect, _ = dialer(nursery, limited.serve, initial_window_size=window)
            async with open_pool(connect_with=connect) as pool:
                with pytest.raises(TransportError, match="in time"), trio.fail_after(60):
                    await Client(client.settings, pool).create_basin("another-basin")
            nursery.cancel_scope.cancel()


async def test_an_interrupted_call_leaves_no_stream() -> None:
    host = Host()
    async with opened(host) as (_, stream):
        host.is_mute = True
        with trio.move_on_after(1) as scope:
            await stream.check_tail()
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert host.num_open == 0
        host.is_mute = False
        assert (await stream.check_tail()).seq_num == 0
        assert len(host.peers) == 1


async def test_an_interrupted_read_goes_on() -> None:
    host = Host()
    async with opened(host) as (_, stream):
        async with stream.append_session() as session:
            await session.append_many(numbers(3))
        async with stream.read_session() as messages:
            host.is_mute = True
            with trio.move_on_after(1) as scope:
                await anext(aiter(messages))
            assert scope.cancelled_caught
            host.is_mute = False
            await host.pump()
            assert [message async for message in messages] == numbers(3)


async def pings_only(_host: Host, peer: Peer) -> None:
    """Take everything, be alive, and answer nothing."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.serve)
        while not peer.is_eof:
            with contextlib.suppress(trio.BrokenResourceError):
                await peer.send(PingFrame(0, b"12345678"))
            await trio.sleep(5)


async def call(stream: Stream) -> None:
    assert (await stream.check_tail()).seq_num == 0


async def read(stream: Stream) -> None:
    assert await read_all(stream) == []


async def read_last(stream: Stream) -> None:
    async with stream.read_session(last=3) as messages:
        assert [message async for message in messages] == []


async def append(stream: Stream) -> None:
    async with stream.append_session() as session:
        await session.append(b"a")


async def append_exclusively(stream: Stream) -> None:
    async with stream.append_session(exclusive=True) as session:
        await session.append(b"a")


@pytest.mark.parametrize("ask", [call, read, read_last, append, append_exclusively])
async def test_a_connection_that_answers_nothing_is_left_by_everybody(
    ask: Callable[[Stream], Awaitable[None]],
) -> None:
    host = await prepared()
    async with scripted(host, pings_only) as stream:
        start = trio.current_time()
        await ask(stream)
        # One attempt's time, to connect and to be answered, and a little of the session's own.
        assert trio.current_time() - start < 9
        start = trio.current_time()
        # Nobody else falls for it.
        await stream.check_tail()
        assert trio.current_time() == start
        assert len(host.peers) == 1
