from __future__ import annotations

import gc
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.events
import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from h2.stream import H2Stream
from hpack.struct import NeverIndexedHeaderTuple
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from s2frames import LocalProtocolError, Outcome, RemoteProtocolError, S2FramesError, TransportError
from s2frames.errors import ConnectError
from s2frames.http import Request
from s2frames.system.process import THIS_PROCESS
from s2frames.writes import MAX_WRITE_BYTES
from s2frames_trio import h2_connection
from s2frames_trio.connect import Origin
from s2frames_trio.connection_state import ConnectionState
from s2frames_trio.flood import FLOOD_FRAMES
from s2frames_trio.h2_connection import (
    IDLE_SECONDS,
    PING_SECONDS,
    PONG_SECONDS,
    Http2Connection,
)
from s2frames_trio.h2_setup import CONNECTION_WINDOW, MAX_FRAME_BYTES
from s2frames_trio.h2_stream import Http2Stream
from s2frames_trio.pool import open_pool
from s2frames_trio.receive_window import STREAM_WINDOW
from trio_adapter.peers import (
    HEADERS,
    DeafTransport,
    Peer,
    cancelled_at,
    connected,
    deaf_transports,
    open_peer,
    open_stream,
)


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


def state_of(connection: Http2Connection) -> ConnectionState:
    """Where a connection is now, whatever it was before."""
    return connection.state


async def failure_of(stream: Http2Stream) -> S2FramesError:
    """What broke a stream."""
    try:
        while await stream.receive_data() is not None:
            """It had arrived before."""
    except S2FramesError as error:
        return error
    raise AssertionError("nothing broke it")


def headers_frame(number: int, block: bytes, *flags: str) -> HeadersFrame:
    return HeadersFrame(number, data=block, flags=flags)


# What is said at first


async def test_the_first_frames() -> None:
    async with connected() as (_, peer):
        await peer.receive()
        settings = peer.h2.remote_settings
        assert settings.initial_window_size == STREAM_WINDOW == 2**19
        assert settings.max_frame_size == MAX_FRAME_BYTES == 2**20
        assert settings.enable_push == 0
        assert peer.h2.outbound_flow_control_window == CONNECTION_WINDOW == 64 * 2**20
        assert peer.settings_acks() == 1


async def test_a_large_frame_may_come_at_once() -> None:
    async with connected() as (connection, peer):
        stream = connection.open_stream(HEADERS)
        # The peer acknowledges nothing before.
        await peer.send(
            headers_frame(1, b"\x88", "END_HEADERS"), DataFrame(1, data=bytes(STREAM_WINDOW))
        )
        assert await stream.receive_data() == bytes(STREAM_WINDOW)


async def test_a_frame_beyond_the_limit() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.send(DataFrame(number, data=bytes(MAX_FRAME_BYTES + 1)))
        assert isinstance(await failure_of(stream), RemoteProtocolError)
    await peer.serve()
    assert peer.goaways() == [ErrorCodes.FRAME_SIZE_ERROR]


async def test_opening_waits_for_the_settings() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        connection = Http2Connection(ours, "http://peer")
        nursery.start_soon(connection.run)
        with trio.move_on_after(5) as scope:
            await connection.wait_open()
        assert scope.cancelled_caught
        assert not connection.has_room
        with pytest.raises(LocalProtocolError, match="room"):
            connection.open_stream(HEADERS)
        await open_peer(theirs)
        await connection.wait_open()
        assert connection.has_room
        connection.close()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1, not HTTP/2"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP/2"),
        (b"\x00" * 9, "does not speak HTTP/2"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "speaks TLS: use https"),
        (b"\x16\x03\x01\x02\x00" + b"\x00" * 90, "speaks TLS: use https"),
        (PingFrame(0).serialize(), "does not speak HTTP/2"),
        (b"", "closed the connection"),
        (b"\x00\x00", "closed the connection inside a frame"),
    ],
)
async def test_a_peer_of_another_kind(said: bytes, words: str) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        connection = Http2Connection(ours, "http://peer")
        nursery.start_soon(connection.run)
        await theirs.send_all(said)
        await theirs.send_eof()
        with pytest.raises(ConnectError, match=words) as raised:
            await connection.wait_open()
        assert "http://peer" in str(raised.value)


async def test_a_connection_that_is_closed_before_it_runs() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    connection = Http2Connection(ours, "http://peer")
    connection.close()
    await connection.run()
    with pytest.raises(ConnectError, match="closed"):
        await connection.wait_open()


# Windows


@pytest.mark.parametrize("window", [0, 1, 16_384, 100_000])
async def test_a_body_larger_than_the_streams_window(window: int) -> None:
    body = bytes(range(256)) * 1000
    async with connected(initial_window_size=window) as (connection, peer):
        stream, number = await open_stream(connection, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_data, [body])
            sent = window
            while True:
                await settled()
                if sent or window:
                    await peer.receive()
                assert peer.data_of(number) == body[:sent]
                if sent >= len(body):
                    break
                peer.h2.increment_flow_control_window(60_000, number)
                await peer.flush()
                sent = min(sent + 60_000, len(body))
    assert connection.num_streams == 0


async def test_a_body_larger_than_the_connections_window() -> None:
    async with connected(connection_window=65_535) as (connection, peer):
        streams = [connection.open_stream(HEADERS) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.send_data, [bytes(40_000)])
            await settled()
            await peer.receive()
            sizes = [len(peer.data_of(stream.stream_id)) for stream in streams]
            assert sum(sizes) == 65_535
            peer.h2.increment_flow_control_window(120_000 - 65_535)
            await peer.flush()
            await settled()
            await peer.receive()
        assert [len(peer.data_of(stream.stream_id)) for stream in streams] == [40_000] * 3


async def test_a_window_that_shrinks_below_zero() -> None:
    async with connected(initial_window_size=1000) as (connection, peer):
        stream, number = await open_stream(connection, peer)
        assert await stream.send_data([bytes(600)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_data, [b"x" * 500])
            await settled()
            # 1000 were sent, and the window is to be 100: it is -900.
            await peer.change_settings(initial_window_size=100)
            await settled()
            await peer.receive()
            assert len(peer.data_of(number)) == 1000
            peer.h2.increment_flow_control_window(900, number)
            await peer.flush()
            await settled()
            assert len(peer.data_of(number)) == 1000
            peer.h2.increment_flow_control_window(30, number)
            await peer.flush()
            await settled()
            await peer.receive()
            assert len(peer.data_of(number)) == 1030
            await peer.change_settings(initial_window_size=1000)
            await settled()
            await peer.receive()
        assert len(peer.data_of(number)) == 1100


async def test_a_window_that_grows_in_flight() -> None:
    async with connected(initial_window_size=0) as (connection, peer):
        stream, number = await open_stream(connection, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_data, [b"abc"])
            await settled()
            assert peer.data_of(number) == b""
            await peer.change_settings(initial_window_size=3)
            await settled()
            await peer.receive()
        assert peer.data_of(number) == b"abc"


async def test_a_peer_that_lives_but_never_opens_the_window() -> None:
    async with connected(initial_window_size=10) as (connection, peer):
        stuck, number = await open_stream(connection, peer)
        other, _ = await open_stream(connection, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve)
            start = trio.current_time()
            # The deadline is the caller's: the connection is as good as ever.
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(600):
                    await stuck.send_data([bytes(2**20)])
            assert trio.current_time() == start + 600
            assert not connection._outgoing.is_waiting
            assert connection.num_streams == 1
            assert await other.send_data([b"x"])
            await settled()
            assert peer.resets() == {number: ErrorCodes.CANCEL}
            assert len(peer.data_of(number)) == 10
            assert connection._h2.open_outbound_streams == 1
            connection.close()


async def test_the_end_of_a_body_needs_no_window() -> None:
    async with connected(initial_window_size=0) as (connection, peer):
        stream, _ = await open_stream(connection, peer)
        assert await stream.end_data()
        await peer.next(h2.events.StreamEnded)


async def test_frames_are_as_large_as_the_peer_allows() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        # As many as make writes as large.
        assert await stream.send_data([bytes(100_000)])
        await peer.receive()
        peer.frames.clear()
        assert await stream.send_data([b"a" * 10, b"b" * 40_000])
        await peer.receive()
        sizes = [len(frame.data) for frame in peer.frames if isinstance(frame, DataFrame)]
        assert sizes == [16_384, 16_384, 40_010 - 2 * 16_384]
        await peer.change_settings(max_frame_size=50_000)
        await settled()
        await peer.receive()
        peer.frames.clear()
        assert await stream.send_data([b"c" * 60_000])
        await peer.receive()
        assert [len(f.data) for f in peer.frames if isinstance(f, DataFrame)] == [50_000, 10_000]
        assert len(peer.data_of(number)) == 60_000


async def test_a_window_update_that_overflows_breaks_its_stream_alone() -> None:
    async with connected() as (connection, peer):
        broken, number = await open_stream(connection, peer)
        whole, other = await open_stream(connection, peer)
        await peer.send(WindowUpdateFrame(number, window_increment=2**31 - 1))
        assert isinstance(await failure_of(broken), RemoteProtocolError)
        await peer.answer(other)
        assert (await whole.receive_response()).status == 200
        assert connection.num_streams == 1


async def test_padding_is_credited() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        # More than the windows, if nobody told the peer that padding is gone.
        for _ in range(8):
            await settled()
            await peer.receive()
            for _ in range(1_000):
                peer.h2.send_data(number, b"x", pad_length=255)
            await peer.flush()
        await settled()
        assert peer.window_updates(number) >= STREAM_WINDOW // 2
        assert connection._arrived_bytes == 257 * 1_000 * 8
        assert connection.num_streams == 1
        stream.reset()


async def test_a_peer_that_sends_more_than_it_may() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        frames = [DataFrame(number, data=bytes(2**16))] * (STREAM_WINDOW // 2**16)
        await peer.send(*frames)
        await settled()
        assert connection.num_streams == 1
        await peer.send(DataFrame(number, data=b"x"))
        # Whoever took something meanwhile would have allowed more.
        await settled()
        assert isinstance(await failure_of(stream), RemoteProtocolError)
    await peer.serve()
    assert peer.resets() == {number: ErrorCodes.FLOW_CONTROL_ERROR}


async def test_data_on_a_stream_that_was_reset_is_credited() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        stream.reset()
        # The peer has not seen the reset yet.
        for _ in range(40):
            await peer.send(DataFrame(number, data=bytes(2**20)))
            await settled()
        await settled()
        other = connection.open_stream(HEADERS)
        await settled()
        await peer.receive()
        assert peer.window_updates(0) >= CONNECTION_WINDOW - 65_535 + CONNECTION_WINDOW // 2
        await peer.answer(other.stream_id)
        assert (await other.receive_response()).status == 200


# Fairness


async def test_a_bulk_upload_does_not_starve_the_others() -> None:
    async with connected(trio.testing.lockstep_stream_pair) as (connection, peer):
        bulk = connection.open_stream(HEADERS)
        small = [connection.open_stream(HEADERS) for _ in range(5)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bulk.send_data, [bytes(10 * 2**20)])
            await settled()
            for stream in small:
                nursery.start_soon(stream.send_data, [b"small"])
            while not all(peer.data_of(stream.stream_id) == b"small" for stream in small):
                await peer.receive()
            assert len(peer.data_of(bulk.stream_id)) < 2**20
            for stream in (bulk, *small):
                stream.reset()
            nursery.start_soon(peer.serve)
            await settled()
            connection.close()


async def test_a_small_upload_waits_for_one_turn() -> None:
    async with connected(trio.testing.lockstep_stream_pair) as (connection, peer):
        bulk, small = connection.open_stream(HEADERS), connection.open_stream(HEADERS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bulk.send_data, [bytes(10 * 2**20)])
            await settled()
            while len(peer.data_of(bulk.stream_id)) < 2**20:
                await peer.receive()
            before = len(peer.data_of(bulk.stream_id))
            nursery.start_soon(small.send_data, [b"small"])
            while not peer.data_of(small.stream_id):
                await peer.receive()
            # The write that is under way, and its turn in the next one.
            assert len(peer.data_of(bulk.stream_id)) <= before + 2 * MAX_WRITE_BYTES
            for stream in (bulk, small):
                stream.reset()
            nursery.start_soon(peer.serve)
            await settled()
            connection.close()


async def test_a_follower_hears_at_once_of_what_comes_during_a_bulk_upload() -> None:
    async with connected(trio.testing.lockstep_stream_pair) as (connection, peer):
        bulk, _ = await open_stream(connection, peer)
        follower, number = await open_stream(connection, peer)
        peer.h2.send_headers(number, [(":status", "200")])
        await peer.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bulk.send_data, [bytes(10 * 2**20)])
            for count in range(100):
                # One receive of the upload a record of the follower's.
                await peer.receive()
                before = len(peer.data_of(bulk.stream_id))
                record = b"record %d" % count
                await peer.data(number, record)
                assert await follower.receive_data() == record
                assert len(peer.data_of(bulk.stream_id)) == before
            assert peer.data_of(bulk.stream_id)
            bulk.reset()
            nursery.start_soon(peer.serve)
            await settled()
            connection.close()


async def test_bulk_uploads_share_the_line() -> None:
    async with connected(trio.testing.lockstep_stream_pair) as (connection, peer):
        streams = [connection.open_stream(HEADERS) for _ in range(4)]
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.send_data, [bytes(4 * 2**20)])
            sizes = [0]
            while sum(sizes) < 6 * 2**20:
                await peer.receive()
                sizes = [len(peer.data_of(stream.stream_id)) for stream in streams]
            # A turn each, and what one write holds.
            assert max(sizes) - min(sizes) <= 256 * 1024
            nursery.start_soon(peer.serve)
            for stream in streams:
                stream.reset()
            await settled()
            connection.close()


# Reading and writing do not wait for each other


async def test_a_peer_that_reads_only_once_it_is_read_from() -> None:
    async with connected(trio.testing.lockstep_stream_pair) as (connection, peer):
        stream, number = await open_stream(connection, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_data, [bytes(2**20)])
            await settled()
            # The client's write waits for this peer to read; it takes all this nevertheless.
            peer.h2.send_headers(number, [(":status", "200")])
            await peer.flush()
            for _ in range(30):
                await peer.data(number, bytes(16_384))
                await peer.send(PingFrame(0))
            received = 0
            while received < 30 * 16_384:
                received += len(await stream.receive_data() or b"")
            while len(peer.data_of(number)) < 2**20:
                await peer.receive()
        nursery_done = connection.num_streams
        assert nursery_done == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve)
            stream.reset()
            await settled()
            connection.close()


# Being sent away


async def test_a_peer_that_leaves() -> None:
    async with connected() as (connection, peer):
        old, number = await open_stream(connection, peer)
        new, _ = await open_stream(connection, peer)
        await peer.answer(number)
        await peer.send(GoAwayFrame(0, last_stream_id=number))
        error = await failure_of(new)
        assert isinstance(error, ConnectError)
        assert error.outcome is Outcome.NOT_APPLIED
        assert "NO_ERROR" in str(error)
        assert await new.send_data([b"x"]) is False
        # The other one goes on, both ways.
        assert state_of(connection) is ConnectionState.LEAVING
        assert not connection.has_room
        assert await old.send_data([b"abc"])
        assert await old.end_data()
        await peer.next(h2.events.StreamEnded)
        await peer.data(number, b"whole", end=True)
        assert await old.receive_data() == b"whole"
        assert await old.receive_data() is None
        # It was the last one.
        assert state_of(connection) is ConnectionState.LOST
    await peer.serve()
    assert peer.is_eof
    assert peer.goaways() == [ErrorCodes.NO_ERROR]


async def test_a_peer_that_leaves_in_two_steps() -> None:
    async with connected() as (connection, peer):
        streams = [(await open_stream(connection, peer))[0] for _ in range(2)]
        await peer.send(GoAwayFrame(0, last_stream_id=2**31 - 1), PingFrame(0))
        await settled()
        assert connection.num_streams == 2
        assert not connection.has_room
        await peer.send(GoAwayFrame(0, last_stream_id=1))
        assert isinstance(await failure_of(streams[1]), ConnectError)
        await peer.answer(1, end=True)
        assert (await streams[0].receive_response()).status == 200
        streams[0].reset()
        assert state_of(connection) is ConnectionState.LOST


async def test_a_peer_that_leaves_in_anger() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.send(
            GoAwayFrame(0, last_stream_id=number, error_code=ErrorCodes.ENHANCE_YOUR_CALM)
        )
        await peer.stream.aclose()
        error = await failure_of(stream)
        assert type(error) is TransportError
        assert error.outcome is None
        assert "ENHANCE_YOUR_CALM" in str(error)


async def test_each_stream_of_a_lost_connection_has_an_error_of_its_own() -> None:
    async with connected() as (connection, peer):
        streams = [(await open_stream(connection, peer))[0] for _ in range(3)]
        await peer.stream.aclose()
        errors = [await failure_of(stream) for stream in (*streams, *streams)]
        assert len({id(error) for error in errors}) == 6
        assert len({str(error) for error in errors}) == 1
        # What one session says of its attempts is not another one's.
        errors[0].attempts = 7
        assert (await failure_of(streams[1])).attempts is None


async def test_a_goaway_ends_a_connection_without_streams() -> None:
    async with connected() as (connection, peer):
        await peer.send(GoAwayFrame(0, last_stream_id=0, error_code=77))
        await settled()
        assert state_of(connection) is ConnectionState.LOST
    await peer.serve()
    assert peer.is_eof


@pytest.mark.parametrize(
    ("code", "kind", "outcome"),
    [
        (ErrorCodes.REFUSED_STREAM, ConnectError, Outcome.NOT_APPLIED),
        (ErrorCodes.INTERNAL_ERROR, TransportError, None),
        (ErrorCodes.NO_ERROR, TransportError, None),
        (4711, TransportError, None),
    ],
)
async def test_a_stream_that_the_peer_resets(
    code: int, kind: type[Exception], outcome: Outcome | None
) -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        other, other_number = await open_stream(connection, peer)
        await peer.send(RstStreamFrame(number, error_code=code))
        error = await failure_of(stream)
        assert type(error) is kind
        assert error.outcome is outcome
        assert connection.num_streams == 1
        await peer.answer(other_number)
        assert (await other.receive_response()).status == 200


# Ending


async def test_each_stream_has_an_error_of_its_own() -> None:
    async with connected() as (connection, peer):
        streams = [(await open_stream(connection, peer))[0] for _ in range(3)]
        await peer.stream.aclose()
        errors = [await failure_of(stream) for stream in streams]
        assert len(set(map(id, errors))) == 3
        assert len(set(map(str, errors))) == 1
        assert all(type(error) is TransportError for error in errors)
        assert connection.num_streams == 0


async def test_a_connection_that_breaks_inside_a_frame() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.send_bytes(DataFrame(number, data=bytes(100)).serialize()[:50])
        await peer.stream.aclose()
        assert "inside a frame" in str(await failure_of(stream))


async def test_a_closed_connection_says_goodbye() -> None:
    async with connected() as (connection, peer):
        stream, _ = await open_stream(connection, peer)
        connection.close()
        connection.close()
        assert "was closed" in str(await failure_of(stream))
    await peer.serve()
    assert peer.is_eof
    assert peer.rest == b""
    assert peer.goaways() == [ErrorCodes.NO_ERROR]


async def test_nothing_follows_half_a_frame() -> None:
    async with connected(trio.testing.lockstep_stream_pair) as (connection, peer):
        stream, _ = await open_stream(connection, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_data, [b"x" * 50_000])
            await settled()
            peer._cut(await peer.stream.receive_some(10_000))
            assert peer.rest
            connection.close()
        while data := await peer.stream.receive_some():
            peer._cut(data)
        assert peer.goaways() == []


async def test_goodbyes_are_short() -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    connection = Http2Connection(ours, "http://peer")
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await theirs.receive_some()
        await settled()
        # The peer reads nothing more.
        connection.close()
    assert trio.current_time() == start + 1


async def test_a_cancelled_connection_says_goodbye() -> None:
    async with connected() as (connection, peer):
        with trio.CancelScope() as scope:
            ours, theirs = trio.testing.memory_stream_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Http2Connection(ours, "http://other").run)
                other = await open_peer(theirs)
                await settled()
                scope.cancel()
        assert connection.has_room
    await other.serve()
    assert other.goaways() == [ErrorCodes.NO_ERROR]
    await peer.serve()


async def test_a_bug_is_not_taken_for_a_broken_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a bug")

    ours, theirs = trio.testing.memory_stream_pair()
    connection = Http2Connection(ours, "http://peer")
    monkeypatch.setattr(connection._incoming.__class__, "receive", fail)
    with pytest.RaisesGroup(pytest.RaisesGroup(KeyError)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            await open_peer(theirs)
    assert state_of(connection) is ConnectionState.LOST


# Silence


async def test_a_silent_peer_is_asked_for_a_sign_of_life() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve)
            await trio.sleep(1000)
            assert state_of(connection) is ConnectionState.OPEN
            pings = [frame for frame in peer.frames if isinstance(frame, PingFrame)]
            assert len(pings) >= 1000 / (PING_SECONDS + PONG_SECONDS) - 1
            stream.reset()
            nursery.cancel_scope.cancel()
    assert number == 1


async def test_a_deaf_peer_is_lost() -> None:
    async with connected() as (connection, peer):
        stream, _ = await open_stream(connection, peer)
        start = trio.current_time()
        error = await failure_of(stream)
        assert trio.current_time() == start + PING_SECONDS + PONG_SECONDS
        assert type(error) is TransportError
        assert "silent for 20 s" in str(error)


async def test_a_peer_that_stalls_inside_a_frame() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        await peer.send_bytes(DataFrame(number, data=bytes(100)).serialize()[:50])
        assert "silent inside a frame" in str(await failure_of(stream))


async def test_an_idle_connection_is_closed() -> None:
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.serve)
        await trio.sleep(IDLE_SECONDS - 1)
        stream = connection.open_stream(HEADERS)
        await trio.sleep(2 * IDLE_SECONDS)
        assert state_of(connection) is ConnectionState.OPEN
        stream.reset()
        await trio.sleep(IDLE_SECONDS - 1)
        assert state_of(connection) is ConnectionState.OPEN
        # It may be waiting for a sign of life just then.
        await trio.sleep(1 + PONG_SECONDS)
        assert state_of(connection) is ConnectionState.LOST
    assert peer.goaways() == [ErrorCodes.NO_ERROR]


# Limits of streams


async def test_the_peers_limit_of_streams_may_change() -> None:
    async with connected(max_concurrent_streams=3) as (connection, peer):
        streams = [(await open_stream(connection, peer))[0] for _ in range(3)]
        assert not connection.has_room
        await peer.change_settings(max_concurrent_streams=5)
        await settled()
        assert connection.has_room
        await peer.change_settings(max_concurrent_streams=2)
        await settled()
        assert connection.max_streams == 2
        # What is open goes on, and what is missing to the limit must end first.
        for left in (2, 1):
            assert not connection.has_room
            streams[left].reset()
        assert connection.has_room
        assert connection.num_streams == 1


async def test_stream_ids_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_connection, "_LAST_STREAM_ID", 5)
    async with connected() as (connection, peer):
        streams = [(await open_stream(connection, peer))[0] for _ in range(3)]
        assert state_of(connection) is ConnectionState.LEAVING
        with pytest.raises(LocalProtocolError, match="room"):
            connection.open_stream(HEADERS)
        for stream in streams:
            assert state_of(connection) is ConnectionState.LEAVING
            stream.reset()
        assert state_of(connection) is ConnectionState.LOST


def test_enough_stream_ids_are_left() -> None:
    assert h2_connection._LAST_STREAM_ID < 2**31 - 1
    assert h2_connection._LAST_STREAM_ID % 2 == 1


async def test_no_stream_is_left_behind() -> None:
    async with connected() as (connection, peer):
        for _ in range(200):
            stream, number = await open_stream(connection, peer)
            assert await stream.end_data()
            await peer.answer(number, end=True)
            await stream.receive_response()
        assert connection.num_streams == 0
        assert connection._h2.open_outbound_streams == 0
        assert not connection._outgoing.is_waiting


async def test_nothing_is_remembered_of_streams_that_are_over() -> None:
    async with connected(max_concurrent_streams=10) as (connection, peer):
        peer.h2.config.validate_inbound_headers = peer.h2.config.validate_outbound_headers = False
        ways = ("answered", "answered at once", "reset", "reset by the peer", "broken")
        for _ in range(2_200):
            for way in ways:
                stream, number = await open_stream(connection, peer, end=way == "answered")
                if way.startswith("answered"):
                    await peer.answer(number, end=True)
                    await stream.receive_response()
                elif way == "reset by the peer":
                    peer.h2.reset_stream(number)
                    await peer.flush()
                elif way == "broken":
                    await peer.send(DataFrame(number, data=b"x"))
                if way.startswith("reset by") or way == "broken":
                    await failure_of(stream)
                stream.reset()
                # Late, and of one that is long over.
                await peer.send(DataFrame(number, data=b"late"), RstStreamFrame(1))
            peer.frames.clear()
        await settled()
        assert connection._h2.highest_outbound_stream_id > 2 * 11_000 - 2
        assert state_of(connection) is ConnectionState.OPEN
        assert connection._h2.streams == {}
        assert connection._h2._closed_streams == {}
        assert connection.num_streams == 0
        gc.collect()
        kept = [kept for kept in gc.get_objects() if isinstance(kept, H2Stream | Http2Stream)]
        assert len([stream for stream in kept if isinstance(stream, Http2Stream)]) <= 1
        assert len([s for s in kept if isinstance(s, H2Stream) and s.state_machine.client]) == 0
        await check_usable(connection, peer)


# Floods


FLOODS: dict[str, Frame] = {
    "settings": SettingsFrame(0, settings={4: 70_000}),
    "ping": PingFrame(0),
    "ping answers": PingFrame(0, flags=["ACK"]),
    "priority": PriorityFrame(1, depends_on=3),
    "empty data": DataFrame(1),
    "unknown": ExtensionFrame(0xFA, 0),
    "goaway": GoAwayFrame(0, last_stream_id=2**31 - 1),
    # The status 103, as a literal that is not to be indexed.
    "interim": headers_frame(1, b"\x08\x03103", "END_HEADERS"),
}


@pytest.mark.parametrize("frame", FLOODS.values(), ids=FLOODS)
async def test_a_flood_of_frames_that_say_nothing(frame: Frame) -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        assert number == 1
        if isinstance(frame, DataFrame):
            await peer.answer(1)
        # SETTINGS and the answer to ours came at first.
        await peer.send(*[frame] * (FLOOD_FRAMES - 2))
        await settled()
        assert connection.num_streams == 1
        await peer.send(frame)
        error = await failure_of(stream)
        assert type(error) is TransportError
        assert "say nothing" in str(error)
    await peer.stream.aclose()


async def test_slow_pings_are_no_flood() -> None:
    async with connected() as (connection, peer):
        stream, _ = await open_stream(connection, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve)
            for _ in range(3 * FLOOD_FRAMES):
                await peer.send(PingFrame(0))
                await trio.sleep(0.05)
            assert connection.num_streams == 1
            stream.reset()
            nursery.cancel_scope.cancel()


async def send_pings(peer: Peer, count: int) -> None:
    for _ in range(count):
        await peer.send(PingFrame(0))


async def test_a_peer_that_asks_without_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_connection, "_MAX_UNSENT_ANSWERS", 500)
    async with connected(trio.testing.lockstep_stream_pair) as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        with pytest.raises(trio.BrokenResourceError):
            await send_pings(peer, FLOOD_FRAMES - 2)
        assert "without reading" in str(await failure_of(stream))


BOMBS: dict[str, list[Frame]] = {
    "one frame": [headers_frame(1, bytes(70_000))],
    "continuations": [
        headers_frame(1, bytes(16_000)),
        *[ContinuationFrame(1, data=bytes(16_000)) for _ in range(5)],
    ],
    "empty continuations": [headers_frame(1, b""), *[ContinuationFrame(1)] * 10_000],
    # A header of 4000 bytes put into the table, and then named again and again.
    "table": [
        headers_frame(1, b"\x88\x40\x01a\x7f\xa1\x1e" + b"x" * 4000 + b"\xbe" * 100, "END_HEADERS"),
    ],
}


@pytest.mark.parametrize("frames", BOMBS.values(), ids=BOMBS)
async def test_headers_are_bounded(frames: list[Frame]) -> None:
    async with connected() as (connection, peer):
        stream, _ = await open_stream(connection, peer)
        await peer.send(*frames)
        assert isinstance(await failure_of(stream), RemoteProtocolError)
    await peer.serve()
    assert peer.goaways() == [ErrorCodes.ENHANCE_YOUR_CALM]


# What `stream_rules` does not know, since it is no whole frame, or on no stream.
BREACHES: dict[str, list[Frame]] = {
    "interrupted headers": [headers_frame(1, b""), PingFrame(0)],
    "interrupted by another": [headers_frame(1, b""), ContinuationFrame(3)],
    "window of zero": [SettingsFrame(0, settings={4: 2**31})],
    "frame size": [SettingsFrame(0, settings={5: 1})],
}


@pytest.mark.parametrize("frames", BREACHES.values(), ids=BREACHES)
async def test_a_peer_that_breaks_the_protocol(frames: list[Frame]) -> None:
    async with connected() as (connection, peer):
        stream, _ = await open_stream(connection, peer)
        await peer.send(*frames)
        error = await failure_of(stream)
        # It is no stream's fault: each may go on over another connection.
        assert type(error) is TransportError
        assert re.search("broke HTTP/2: http://peer", str(error))
        assert state_of(connection) is ConnectionState.LOST
    await peer.serve()
    assert len(peer.goaways()) == 1
    assert peer.goaways() != [ErrorCodes.NO_ERROR]


async def test_an_error_hides_nothing_that_came_before() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.send(
            headers_frame(number, b"\x88", "END_HEADERS"),
            DataFrame(number, data=b"ack"),
            DataFrame(9, data=b"x"),
        )
        assert (await stream.receive_response()).status == 200
        assert await stream.receive_data() == b"ack"
        assert type(await failure_of(stream)) is TransportError


async def test_what_is_remembered_of_sent_headers_is_bounded() -> None:
    async with connected(header_table_size=2**30) as (connection, peer):
        for number in range(200):
            headers = [*HEADERS, (f"x-{number}", "y" * 100)]
            connection.open_stream(headers).reset()
        assert connection._h2.encoder.header_table_size == 4096
        # It is told the size it offered, and then the one that is used.
        peer.h2.decoder.max_allowed_table_size = 2**30
        await peer.receive()
        assert peer.h2.decoder.header_table_size == 4096


# Cancelling


async def exchange(connection: Http2Connection) -> None:
    """Everything a user may wait for, on one stream."""
    async with connection.open_stream(HEADERS) as stream:
        assert await stream.send_data([b"abc", b"def"])
        assert (await stream.receive_response()).status == 200
        assert await stream.receive_data() == b"abcdef"
        assert await stream.send_data([bytes(100_000)])
        assert await stream.end_data()
        assert await stream.receive_data() == b"done"
        assert await stream.receive_data() is None
        await stream.aclose()


async def answer_exchanges(peer: Peer) -> None:
    bodies: dict[int, int] = {}
    while await peer.receive():
        for event in peer.events:
            if isinstance(event, h2.events.DataReceived):
                number = event.stream_id
                peer.h2.acknowledge_received_data(event.flow_controlled_length, number)
                before = bodies.get(number, 0)
                bodies[number] = before + len(event.data)
                if before < 6 <= bodies[number]:
                    peer.h2.send_headers(number, [(":status", "200")])
                    peer.h2.send_data(number, b"abcdef")
            # The reset may have come with the end.
            elif isinstance(event, h2.events.StreamEnded) and event.stream_id not in peer.resets():
                peer.h2.send_data(event.stream_id, b"done", end_stream=True)
        peer.events.clear()
        await peer.flush()


async def cancel_everywhere(transports: object) -> int:
    """Cancel an exchange at each of its checkpoints in turn; how many they are."""
    async with connected(transports, initial_window_size=30_000) as (connection, peer):  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_exchanges, peer)
            number = 1
            while await cancelled_at(number, lambda: exchange(connection)):
                number += 1
                assert connection.num_streams == 0
                assert connection.has_room
                assert not connection._outgoing.is_waiting
                # The connection is as good as new.
                await exchange(connection)
            await settled()
            nursery.cancel_scope.cancel()
        assert len(peer.resets()) <= number
        # What was on its way to a stream that was reset is passed over.
        assert set(peer.resets().values()) == {ErrorCodes.CANCEL}
        return number


@pytest.mark.parametrize(
    "transports", [trio.testing.memory_stream_pair, trio.testing.lockstep_stream_pair]
)
async def test_cancelled_anywhere_a_stream_is_reset(transports: object) -> None:
    assert await cancel_everywhere(transports) > 7


# What one stream's peculiarities do to the others: nothing


async def check_usable(connection: Http2Connection, peer: Peer) -> None:
    """The connection takes requests, and both sides' header tables agree."""
    assert state_of(connection) is ConnectionState.OPEN
    stream, number = await open_stream(connection, peer, end=True)
    await peer.answer(number, end=True)
    assert (await stream.receive_response()).status == 200
    assert await stream.receive_data() is None


@pytest.mark.parametrize("status", ["100", "103", "200"])
async def test_a_head_that_crosses_a_reset(status: str) -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer, end=True)
        stream.reset()
        # h2 itself would not send it once the reset is here.
        block = peer.h2.encoder.encode([(":status", status), ("x-new", "for the table")])
        await peer.send(headers_frame(number, block, "END_HEADERS"))
        await settled()
        await peer.receive()
        await check_usable(connection, peer)


async def test_a_bad_status_that_ends_its_stream() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer, end=True)
        block = peer.h2.encoder.encode([(":status", "abc")])
        await peer.send(headers_frame(number, block, "END_HEADERS", "END_STREAM"))
        with pytest.raises(RemoteProtocolError, match="status"):
            await stream.receive_response()
        assert connection.num_streams == 0
        await peer.receive()
        assert not peer.resets()


async def test_padding_of_the_last_bytes() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer, end=True)
        await peer.answer(number)
        # One byte short of what is credited: the padding makes it more.
        await peer.send(DataFrame(number, data=bytes(STREAM_WINDOW // 2 - 1)))
        assert len(await stream.receive_data() or b"") == STREAM_WINDOW // 2 - 1
        last = DataFrame(number, data=b"end", pad_length=10, flags=["PADDED", "END_STREAM"])
        await peer.send(last)
        assert await stream.receive_data() == b"end"
        assert await stream.receive_data() is None
        assert state_of(connection) is ConnectionState.OPEN
        assert connection.num_streams == 0


async def test_an_end_that_is_written_when_the_answer_is_complete_and_the_connection_lost() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        connection = Http2Connection(ours, "http://peer")
        nursery.start_soon(connection.run)
        peer = await open_peer(theirs)
        await connection.wait_open()
        stream, number = await open_stream(connection, peer)
        await settled()
        # From now on nothing that is written arrives.
        ours.send_stream.send_all_hook = trio.sleep_forever
        results: list[bool] = []

        async def end() -> None:
            results.append(await stream.end_data())

        nursery.start_soon(end)
        await settled()
        await peer.answer(number)
        await peer.data(number, b"whole", end=True)
        await settled()
        await theirs.send_stream.aclose()
        await settled()
        assert results == [False]
        assert (await stream.receive_response()).status == 200
        assert await stream.receive_data() == b"whole"
        assert await stream.receive_data() is None
        nursery.cancel_scope.cancel()


# When nothing can be written any more, what has arrived is read


@asynccontextmanager
async def turned_deaf() -> AsyncIterator[tuple[Http2Connection, Peer, list[Http2Stream]]]:
    """A connection to which nothing can be written, and streams that do not know it yet."""
    async with connected(deaf_transports) as (connection, peer):
        streams = [(await open_stream(connection, peer))[0] for _ in range(2)]
        transport = connection._transport
        assert isinstance(transport, DeafTransport)
        transport.hears_bytes = 0
        yield connection, peer, streams


async def test_an_answer_that_has_arrived_is_read_when_writing_fails() -> None:
    async with turned_deaf() as (connection, peer, (stream, other)):
        start = trio.current_time()
        # Nobody is kept waiting: it is for the answer to say why.
        assert await stream.send_data([bytes(300_000)]) is False
        assert await other.end_data() is False
        assert not connection.has_room
        await trio.sleep(0.9)
        await peer.answer(stream.stream_id, "403")
        await peer.data(stream.stream_id, b"no", end=True)
        assert (await stream.receive_response()).status == 403
        assert await stream.receive_data() == b"no"
        assert await stream.receive_data() is None
        # The other one waits no longer than it takes for what is on its way.
        error = await failure_of(other)
        assert type(error) is TransportError
        assert "nobody takes it" in str(error)
        assert trio.current_time() == start + 1
        assert state_of(connection) is ConnectionState.LOST


async def test_nothing_is_waited_for_when_all_is_answered() -> None:
    async with turned_deaf() as (connection, peer, (stream, other)):
        other.reset()
        await settled()
        start = trio.current_time()
        await peer.answer(stream.stream_id, "403", end=True)
        assert (await stream.receive_response()).status == 403
        stream.reset()
        await settled()
        assert state_of(connection) is ConnectionState.LOST
        assert trio.current_time() == start


async def test_a_peer_that_only_talks_is_left_for_what_could_not_be_written() -> None:
    async with turned_deaf() as (connection, peer, (stream, _)):
        connection._last_bytes = 100_000
        await peer.answer(stream.stream_id)
        start = trio.current_time()
        assert await stream.send_data([b"x"]) is False
        transport = connection._transport
        assert isinstance(transport, DeafTransport)
        transport.received_bytes = 0
        while state_of(connection) is ConnectionState.LEAVING:
            await peer.data(stream.stream_id, bytes(16_000))
            await settled()
        assert "nobody takes it" in str(await failure_of(stream))
        assert 100_000 <= transport.received_bytes < 120_000
        assert trio.current_time() == start


async def test_what_ends_the_reading_is_the_better_reason() -> None:
    async with turned_deaf() as (_, peer, (stream, _other)):
        assert await stream.send_data([b"x"]) is False
        await peer.send(GoAwayFrame(0, last_stream_id=99, error_code=ErrorCodes.INTERNAL_ERROR))
        await peer.stream.aclose()
        assert "after GOAWAY (INTERNAL_ERROR)" in str(await failure_of(stream))


async def test_what_is_said_to_a_first_write_that_fails() -> None:
    ours, theirs = deaf_transports()
    ours.hears_bytes = 0
    async with trio.open_nursery() as nursery:
        connection = Http2Connection(ours, "http://peer")
        nursery.start_soon(connection.run)
        await settled()
        await theirs.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ConnectError, match="HTTP/1, not HTTP/2"):
            await connection.wait_open()


async def test_a_connection_that_cannot_be_written_to_never_opens() -> None:
    ours, theirs = deaf_transports()
    ours.hears_bytes = 0
    async with trio.open_nursery() as nursery:
        connection = Http2Connection(ours, "http://peer")
        nursery.start_soon(connection.run)
        await settled()
        await open_peer(theirs)
        await settled()
        assert not connection.has_room
        start = trio.current_time()
        with pytest.raises(ConnectError, match="nobody takes it"):
            await connection.wait_open()
        assert trio.current_time() == start + 1


# Frames of our own


# The last one takes its room each time.
LONG_HEADERS: list[Any] = [*HEADERS, NeverIndexedHeaderTuple("x", "y" * 1000)]


async def test_our_own_frames_never_count_against_the_peer() -> None:
    async with connected(trio.testing.lockstep_stream_pair, max_concurrent_streams=10_000) as (
        connection,
        peer,
    ):
        follower, number = await open_stream(connection, peer)
        # Requests that nobody wants any more, while the peer does not read.
        while connection.has_room:
            connection.open_stream(LONG_HEADERS).reset()
        await peer.answer(number)
        assert (await follower.receive_response()).status == 200
        await peer.send(PingFrame(0), WindowUpdateFrame(0, window_increment=1))
        await settled()
        assert state_of(connection) is ConnectionState.OPEN
        connection.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve)


async def test_what_waits_to_be_sent_is_bounded() -> None:
    async with connected(trio.testing.lockstep_stream_pair, max_concurrent_streams=10_000) as (
        connection,
        peer,
    ):
        changes: list[bool] = []
        connection._on_change = lambda: changes.append(connection.has_room)
        while connection.has_room:
            connection.open_stream(LONG_HEADERS).reset()
        assert 2**20 <= len(connection._answers) < 2**20 + 2000
        with pytest.raises(LocalProtocolError, match="room"):
            connection.open_stream(HEADERS)
        changes.clear()
        # As soon as the peer reads, there is room again, and whoever waits for it is told.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve)
            await settled()
            assert connection.has_room
            assert changes == [True]
            connection.close()


async def test_a_copy_of_a_connection_is_not_the_processs_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connected() as (connection, peer):
        monkeypatch.setattr(THIS_PROCESS, "number", -1)
        connection.close()
        await settled()
        with trio.move_on_after(60) as waiting:
            await peer.serve()
    assert waiting.cancelled_caught
    assert peer.goaways() == []
    assert not peer.is_eof


async def test_a_request_waits_while_as_much_waits_to_be_sent_as_may() -> None:
    peers: list[Peer] = []

    async def begin(stream: trio.abc.Stream) -> None:
        peers.append(await open_peer(stream, max_concurrent_streams=10_000))

    async with trio.open_nursery() as nursery:

        async def connect(_origin: Origin, _deadline: float) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = trio.testing.lockstep_stream_pair()
            nursery.start_soon(begin, theirs)
            return ours

        # Its value is sent each time.
        request = Request("GET", "http://peer/", {"authorization": "x" * 1000})
        async with open_pool(connect_with=connect) as pool:
            (await pool.open_stream(request)).reset()
            for _ in range(1300):
                pool.begin_stream(request, on_settled=lambda: None).cancel()
            with trio.move_on_after(1) as scope:
                await pool.open_stream(request)
            assert scope.cancelled_caught
            nursery.start_soon(peers[0].serve)
            (await pool.open_stream(request)).reset()
            assert len(peers) == 1


async def test_unknown_settings_are_not_kept() -> None:
    async with connected() as (connection, peer):
        known = len(connection._h2.remote_settings)
        codes = range(100, 60_000)
        body = b"".join(code.to_bytes(2, "big") + bytes(4) for code in [*codes, 3])
        header = len(body).to_bytes(3, "big") + bytes([SettingsFrame.type]) + bytes(5)
        await peer.send_bytes(header + body)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.max_streams == 0
        assert len(connection._h2.remote_settings) == known
