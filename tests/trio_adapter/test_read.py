"""Read sessions: their time, and one task at a time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from s2frames import LocalProtocolError
from s2frames.errors import TransportError
from s2frames.retry import Retry
from s2frames.system.process import THIS_PROCESS
from s2frames_trio import ReadSession
from trio_adapter.host import Host, numbers, opened


async def test_a_follower_notices_that_its_peer_has_died() -> None:
    host = Host()
    async with opened(host, retry=Retry(max_attempts=1)) as (_, stream):
        async with stream.append_session() as session:
            await session.append(b"a")
        async with stream.read_session(follow=True) as messages:
            assert await anext(aiter(messages)) == b"a"
            host.is_mute = True
            start = trio.current_time()
            with pytest.raises(TransportError, match="no sign of life"):
                await anext(aiter(messages))
            assert trio.current_time() - start == pytest.approx(20, abs=1)


async def poll(messages: ReadSession[bytes], host: Host, seconds: float) -> None:
    """Wait for a message that never comes, a second at a time."""
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        with trio.move_on_after(1):
            await anext(messages)
        await host.pump()


async def test_a_silence_counts_though_it_is_waited_for_a_second_at_a_time() -> None:
    host = Host()
    async with opened(host, retry=Retry(max_attempts=1)) as (_, stream):
        async with stream.append_session() as session:
            await session.append(b"a")
        async with stream.read_session(follow=True) as messages:
            assert await anext(messages) == b"a"
            # Heartbeats come in between.
            await poll(messages, host, seconds=100)
            host.is_mute = True
            start = trio.current_time()
            with pytest.raises(TransportError, match="no sign of life"):
                await poll(messages, host, seconds=100)
            assert 5 <= trio.current_time() - start <= 21


async def test_a_read_session_belongs_to_one_task() -> None:
    async with (
        opened(Host()) as (_, stream),
        stream.read_session(follow=True) as messages,
        trio.open_nursery() as nursery,
    ):

        async def take() -> None:
            with pytest.raises(StopAsyncIteration):
                await anext(aiter(messages))

        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LocalProtocolError, match="one task at a time"):
            await anext(aiter(messages))
        # Closing it wakes who waits.
        await messages.close()


async def test_batches_hold_every_message_once() -> None:
    async with opened(Host()) as (_, stream):
        async with stream.append_session() as session:
            await session.append_many(numbers(2500))
        async with stream.read_session() as messages:
            batches = [batch async for batch in messages.batches()]
        assert all(batches)
        assert [message for batch in batches for message in batch] == numbers(2500)


async def test_a_session_that_has_its_messages_holds_no_request() -> None:
    host = Host()
    async with opened(host) as (_, stream):
        async with stream.append_session() as session:
            await session.append_many(numbers(5))
        async with stream.read_session(limit=2, follow=True) as messages:
            iterator = aiter(messages)
            assert [await anext(iterator), await anext(iterator)] == numbers(2)
            await trio.testing.wait_all_tasks_blocked()
            assert host.num_open == 0


async def test_a_copy_of_a_session_leaves_the_request_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host()
    async with opened(host) as (_, stream):
        async with stream.append_session() as session:
            await session.append(b"a")
        reading = stream.read_session(follow=True)
        async with reading as messages:
            assert await anext(aiter(messages)) == b"a"
            with monkeypatch.context() as patch:
                patch.setattr(THIS_PROCESS, "number", -1)
                await reading.close()
            await trio.testing.wait_all_tasks_blocked()
            assert host.num_open == 1
        await trio.testing.wait_all_tasks_blocked()
        assert host.num_open == 0
