"""Append sessions on their connections: both directions at once, and their time."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hyperframe.frame import GoAwayFrame, HeadersFrame

from s2frames import Outcome
from s2frames.errors import ConnectError, TransportError
from s2frames.retry import Retry
from s2frames_trio import Stream
from s2frames_trio.pool import DEFAULT_OPEN_TIMEOUT
from trio_adapter.host import Host, opened


async def test_acks_are_taken_while_a_send_is_blocked() -> None:
    host = Host()
    async with (
        opened(host, request_timeout=3600.0) as (_, stream),
        stream.append_session(linger=0) as session,
    ):
        host.is_mute = True
        first = await session.submit(b"first")
        await trio.testing.wait_all_tasks_blocked()
        host.takes_more = False
        blocked = [await session.submit(b"x" * 1_000_000) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        # The window is used up, and the first message becomes durable all the same.
        host.is_mute = False
        await host.pump()
        with trio.fail_after(60):
            assert (await first).start == 0
        assert session.durable_messages == 1
        host.takes_more = True
        peer = host.peers[-1]
        peer.h2.increment_flow_control_window(2**24)
        peer.h2.increment_flow_control_window(2**24, max(peer.h2.streams))
        await peer.flush()
        assert [(await ticket).start for ticket in blocked] == [1, 2, 3]


async def test_what_is_not_full_waits_for_linger_or_flush_while_others_are_unacked() -> None:
    host = Host()
    async with (
        opened(host, request_timeout=3600.0) as (_, stream),
        stream.append_session(linger=50) as session,
    ):
        host.is_mute = True
        await session.submit(b"goes at once")
        await trio.sleep(1)
        peer = host.peers[-1]
        stream_id = max(peer.h2.streams)
        sizes = [len(peer.data_of(stream_id))]
        await session.submit(b"waits")
        for seconds in (49, 2):
            await trio.sleep(seconds)
            sizes.append(len(peer.data_of(stream_id)))
        assert sizes[0] == sizes[1] < sizes[2]
        await session.submit(b"is flushed")
        with trio.move_on_after(1):
            await session.flush()
        assert len(peer.data_of(stream_id)) > sizes[2]
        host.is_mute = False
        await host.pump()


async def test_goaway_in_the_middle_lets_the_session_end_on_its_connection() -> None:
    host = Host()
    async with opened(host) as (_, stream), stream.append_session() as session:
        await session.append(b"a")
        peer = host.peers[-1]
        # The frame alone: h2 itself would take nothing more.
        await peer.send(GoAwayFrame(last_stream_id=max(peer.h2.streams)))
        await session.append(b"b")
        assert len(host.peers) == 1
        # Everything else goes to another one.
        await stream.check_tail()
        assert len(host.peers) == 2


async def test_an_ack_that_does_not_come() -> None:
    host = Host()

    async def append_in_vain(stream: Stream) -> None:
        async with stream.append_session() as session:
            await session.append(b"warm")
            host.is_mute = True
            await session.append(b"a")

    async with opened(host, retry=Retry(max_attempts=1)) as (_, stream):
        start = trio.current_time()
        with pytest.raises(TransportError, match="no ack came within 5 s") as raised:
            await append_in_vain(stream)
        assert trio.current_time() - start == pytest.approx(5, abs=0.1)
    assert raised.value.outcome is Outcome.UNKNOWN


async def test_a_request_that_is_given_up_is_reset() -> None:
    host = Host()
    async with opened(host, retry=Retry(max_attempts=2)) as (_, stream):
        host.is_mute = True
        with pytest.raises(TransportError, match="no ack came within 5 s"):
            async with stream.append_session() as session:
                await session.append(b"a")
        await trio.testing.wait_all_tasks_blocked()
        asked = [f.stream_id for p in host.peers for f in p.frames if isinstance(f, HeadersFrame)]
        reset = [stream_id for peer in host.peers for stream_id in peer.resets()]
        # The second attempt took the place of the first; calls came before.
        assert (len(reset), reset) == (2, asked[-2:])


async def test_a_window_that_stays_closed() -> None:
    host = Host()
    async with opened(host, retry=Retry(max_attempts=1)) as (_, stream):
        host.takes_more = False
        with pytest.raises(TransportError, match=r"took no bytes for 9.1 s"):
            async with stream.append_session() as session:
                await session.append(b"x" * 2_000_000)


async def test_a_session_is_one_task() -> None:
    host = Host()
    async with opened(host) as (_, stream):
        before = trio.lowlevel.current_statistics().tasks_living
        async with stream.append_session() as session:
            await session.append(b"a")
            assert trio.lowlevel.current_statistics().tasks_living == before + 1
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_a_session_that_finds_no_room() -> None:
    host = Host()
    # The session itself would wait for 15 s.
    async with opened(host, connect_timeout=10.0, retry=Retry(max_attempts=1)) as (_, stream):
        for peer in host.peers:
            await peer.change_settings(max_concurrent_streams=0)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        with pytest.raises(ConnectError, match="no room") as raised:
            async with stream.append_session() as session:
                await session.append(b"a")
        assert trio.current_time() - start == pytest.approx(DEFAULT_OPEN_TIMEOUT, abs=0.1)
        assert raised.value.outcome is Outcome.NOT_APPLIED


async def test_an_abort_while_a_stream_is_awaited_leaves_nothing() -> None:
    host = Host()
    async with opened(host) as (_, stream):
        for peer in host.peers:
            await peer.change_settings(max_concurrent_streams=0)
        await trio.testing.wait_all_tasks_blocked()

        async def leave() -> None:
            async with stream.append_session() as session:
                await session.submit(b"a")
                await trio.testing.wait_all_tasks_blocked()
                raise KeyError

        start = trio.current_time()
        with pytest.raises(KeyError):
            await leave()
        assert trio.current_time() == start
        for peer in host.peers:
            await peer.change_settings(max_concurrent_streams=10)
        await trio.testing.wait_all_tasks_blocked()
        assert host.num_open == 0
        await stream.check_tail()


async def test_acks_put_the_deadline_off() -> None:
    host = Host()
    async with opened(host, retry=Retry(max_attempts=1)) as (_, stream):
        async with stream.append_session() as session:
            # Longer than any one deadline in all, and never idle for as long as one.
            for _ in range(6):
                host.is_mute = True
                ticket = await session.submit(b"a")
                await trio.sleep(4)
                host.is_mute = False
                await host.pump()
                await ticket
        # Basin, stream, session: it never began anew.
        assert host.num_requests == 3
