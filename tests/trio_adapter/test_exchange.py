"""Requests that are complete when they are sent."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from s2frames.errors import TransportError
from s2frames.retry import Retry
from s2frames_trio import Client
from s2frames_trio.pool import open_pool
from trio_adapter.host import Host, numbers, opened
from trio_adapter.peers import dialer


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
