"""Lines of 20 kB/s: whatever crosses them is waited for, and a line that stops is noticed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes

from s2frames import Endpoints, Settings
from s2frames.errors import TransportError
from s2frames.pace import MIN_RATE
from s2frames.retry import Retry
from s2frames.session import Retrying
from s2frames_trio import Client, Stream
from s2frames_trio.connect import Origin
from s2frames_trio.connection_state import ConnectionState
from s2frames_trio.h2_connection import PING_SECONDS, PONG_SECONDS, Http2Connection
from s2frames_trio.h2_stream import Http2Stream
from s2frames_trio.pool import open_pool
from trio_adapter.host import Host
from trio_adapter.peers import HEADERS, Peer, open_peer
from trio_adapter.slow_streams import slow_pair

MEGABYTE = 1_000_000
SLOW = 20_000.0
FAST = 1e9


@asynccontextmanager
async def far_from(
    host: Host,
    *,
    up: float = FAST,
    down: float = FAST,
    buffer: int = 0,
    stops_at: float = inf,
    **changes: Any,
) -> AsyncIterator[tuple[Client, Stream]]:
    """A client of the host over such a line, and a stream that is there and empty."""
    settings = Settings(endpoints=Endpoints.at("http://peer"), **changes)
    async with trio.open_nursery() as nursery:

        async def connect(_origin: Origin, _deadline: float) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = slow_pair(nursery, up, down, buffer=buffer, stops_at=stops_at)
            peer = await open_peer(theirs)
            # The buffer is what bounds the bytes that are under way.
            peer.h2.increment_flow_control_window(2**28)
            await peer.flush()
            nursery.start_soon(host.serve, peer)
            return ours

        async with open_pool(connect_with=connect, connect_timeout=60, open_timeout=60) as pool:
            client = Client(settings, pool)
            await client.create_basin("test-basin")
            stream = client.stream("test-basin", "room/1")
            await stream.create()
            yield client, stream
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("buffer", [0, 100_000, 4_000_000])
@pytest.mark.parametrize("num_messages", [1, 3])
async def test_a_slow_upload_is_no_time_out(buffer: int, num_messages: int) -> None:
    host = Host()
    retries: list[Retrying] = []
    async with far_from(host, up=SLOW, buffer=buffer) as (_, stream):
        start, before = trio.current_time(), host.num_requests
        async with stream.append_session(on_retry=retries.append) as session:
            await session.append_many([bytes(MEGABYTE)] * num_messages)
        seconds = num_messages * MEGABYTE / SLOW
        assert trio.current_time() - start == pytest.approx(seconds, rel=0.02)
        assert (retries, host.num_requests) == ([], before + 1)
        assert len(host.peers) == 1


@pytest.mark.parametrize("buffer", [0, 100_000, 4_000_000])
async def test_a_message_behind_the_upload_of_another_session_is_no_time_out(buffer: int) -> None:
    host = Host()
    retries: list[Retrying] = []
    async with far_from(host, up=SLOW, buffer=buffer) as (client, stream):
        other = client.stream("test-basin", "room/2")
        await other.create()
        async with (
            stream.append_session(on_retry=retries.append) as bulk,
            other.append_session(on_retry=retries.append) as session,
        ):
            await bulk.submit(bytes(MEGABYTE))
            await trio.sleep(1)
            await session.append(b"small")
        assert (retries, len(host.peers)) == ([], 1)


@pytest.mark.parametrize("buffer", [100_000, 4_000_000])
async def test_a_request_behind_an_upload_is_no_time_out(buffer: int) -> None:
    host = Host()
    async with far_from(host, up=SLOW, buffer=buffer, retry=Retry(max_attempts=1)) as (
        client,
        stream,
    ):
        async with stream.append_session() as session:
            await session.submit(bytes(MEGABYTE))
            await trio.sleep(1)
            await client.stream("test-basin", "room/2").create()
            async with stream.read_session() as messages:
                assert [len(message) async for message in messages] in ([], [MEGABYTE])
        assert len(host.peers) == 1


@pytest.mark.parametrize("buffer", [0, 1_000_000])
async def test_many_sessions_share_a_slow_line(buffer: int) -> None:
    host = Host()
    retries: list[Retrying] = []

    async def append(stream: Stream) -> None:
        async with stream.append_session(on_retry=retries.append) as session:
            await session.append(bytes(100_000))

    async with far_from(host, up=SLOW, buffer=buffer) as (client, _):
        streams = [client.stream("test-basin", f"room/{number}") for number in range(2, 22)]
        for stream in streams:
            await stream.create()
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(append, stream)
        assert (retries, len(host.peers)) == ([], 1)
        assert trio.current_time() - start == pytest.approx(20 * 100_000 / SLOW, rel=0.02)


@pytest.mark.parametrize("buffer", [0, 4_000_000])
@pytest.mark.parametrize("frame_bytes", [16_384, 2**20])
async def test_slow_answers_are_no_time_outs(buffer: int, frame_bytes: int) -> None:
    host = Host(frame_bytes=frame_bytes)
    retries: list[Retrying] = []
    async with far_from(host, down=SLOW, buffer=buffer, retry=Retry(max_attempts=1)) as (
        client,
        stream,
    ):
        async with stream.append_session() as session:
            await session.append(bytes(MEGABYTE))
        async with stream.read_session(on_retry=retries.append) as messages:
            assert [len(message) async for message in messages] == [MEGABYTE]
        for number in range(500):
            await client.stream("test-basin", f"{number:0500}").create()
        start = trio.current_time()
        names = [info.name async for info in client.list_streams("test-basin")]
        assert len(names) == 501
        assert trio.current_time() - start > 12
    assert retries == []


async def test_what_is_read_back_while_appending_is_no_time_out() -> None:
    host = Host(frame_bytes=2**20)
    retries: list[Retrying] = []
    async with far_from(host, down=SLOW) as (_, stream):

        async def lose_one_ack(peer: Peer, stream_id: int) -> bool:
            host.spoil = None
            peer.h2.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
            await peer.flush()
            return True

        async with stream.append_session(exclusive=True, on_retry=retries.append) as session:
            await session.append(b"a")
            host.spoil = lose_one_ack
            start = trio.current_time()
            await session.append(bytes(MEGABYTE))
        assert trio.current_time() - start == pytest.approx(MEGABYTE / SLOW, rel=0.1)
    assert len(retries) == 1


async def append_one(stream: Stream) -> None:
    async with stream.append_session() as session:
        await session.append(bytes(MEGABYTE))


async def test_a_line_that_stops_is_noticed() -> None:
    host, buffer, retry = Host(), 100_000, Retry(max_attempts=1)
    async with far_from(host, up=SLOW, buffer=buffer, stops_at=20.0, retry=retry) as (_, stream):
        with pytest.raises(TransportError, match=r"took no bytes for|deaf to a PING"):
            await append_one(stream)
    # What was taken by then is unacked, and might be on its way.
    held = 20.0 * SLOW + buffer
    assert 25.0 < trio.current_time() <= 20.0 + 5.0 + held / MIN_RATE


# Signs of life


@asynccontextmanager
async def connected(
    up: float, buffer: int, *, answers: bool
) -> AsyncIterator[tuple[Http2Connection, Http2Stream, Peer]]:
    """A stream of a connection whose peer, if it says anything, only answers to PING."""
    async with trio.open_nursery() as nursery:
        ours, theirs = slow_pair(nursery, up, FAST, buffer=buffer)
        connection = Http2Connection(ours, "http://peer")
        nursery.start_soon(connection.run)
        peer = await open_peer(theirs)
        peer.h2.increment_flow_control_window(2**30)
        await peer.flush()
        await connection.wait_open()
        stream = connection.open_stream(HEADERS)
        await trio.testing.wait_all_tasks_blocked()
        if answers:
            nursery.start_soon(peer.serve)
        yield connection, stream, peer
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("buffer", [0, 100_000, MEGABYTE])
async def test_a_ping_behind_an_upload_has_its_time(buffer: int) -> None:
    async with connected(SLOW, buffer, answers=True) as (connection, stream, _):
        for _ in range(3):
            assert await stream.send_data([bytes(MEGABYTE)])
        await trio.sleep(100)
        assert connection.state is ConnectionState.OPEN


@pytest.mark.parametrize(
    ("up", "buffer", "claims", "seconds"),
    [
        # Each write takes a second.
        (SLOW, 0, False, 1.0),
        (SLOW, MEGABYTE, False, MEGABYTE / MIN_RATE - PING_SECONDS),
        # Nobody knows whether it has crossed, or it has.
        (FAST, 0, False, MEGABYTE / MIN_RATE - PING_SECONDS),
        (FAST, 0, True, 0.0),
    ],
)
async def test_a_deaf_peer_is_lost_when_its_answer_could_have_come(
    up: float, buffer: int, claims: bool, seconds: float
) -> None:
    async with connected(up, buffer, answers=False) as (_, stream, peer):
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_data, [bytes(MEGABYTE)])
            if claims:
                await trio.sleep(1)
                peer.h2.increment_flow_control_window(MEGABYTE)
                await peer.flush()
            with pytest.raises(TransportError, match="deaf to a PING"):
                await stream.receive_response()
        usual = PING_SECONDS + PONG_SECONDS
        assert trio.current_time() - start == pytest.approx(usual + seconds, abs=3)
