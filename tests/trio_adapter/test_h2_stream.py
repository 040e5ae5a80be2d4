from __future__ import annotations

import h2.events
import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from s2frames import LocalProtocolError, RemoteProtocolError, TransportError
from s2frames_trio.h2_stream import Http2Stream, Response
from s2frames_trio.receive_window import GRANTS, MAX_STREAM_WINDOW, STREAM_WINDOW
from trio_adapter.peers import HEADERS, Peer, connected, open_stream


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_request_and_its_answer() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        assert await stream.send_data([b"ab", b"", memoryview(b"cd"), bytearray(b"e")])
        assert await stream.end_data()
        await peer.next(h2.events.StreamEnded)
        assert peer.data_of(number) == b"abcde"
        await peer.answer(number, "201")
        await peer.data(number, b"one")
        await peer.data(number, b"", end=True)
        response = await stream.receive_response()
        assert (response.status, response.headers) == (201, {})
        assert await stream.receive_data() == b"one"
        assert await stream.receive_data() is None
        assert await stream.receive_data() is None
        assert connection.num_streams == 0
        stream.reset()
        await trio.testing.wait_all_tasks_blocked()
    await peer.serve()
    assert peer.resets() == {}


async def test_a_request_without_body() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer, end=True)
        await peer.next(h2.events.StreamEnded)
        with pytest.raises(LocalProtocolError, match="complete"):
            await stream.send_data([b"x"])
        await peer.answer(number, "204", end=True)
        assert (await stream.receive_response()).status == 204
        assert await stream.receive_data() is None
        assert connection.num_streams == 0


async def test_sending_and_receiving_at_the_same_time() -> None:
    rounds = 50
    async with connected(trio.testing.lockstep_stream_pair) as (connection, peer):
        stream = connection.open_stream(HEADERS)
        received: list[bytes] = []

        async def send() -> None:
            for number in range(rounds):
                assert await stream.send_data([b"%d," % number])
            assert await stream.end_data()

        async def receive() -> None:
            while (data := await stream.receive_data()) is not None:
                received.append(data)

        async def echo() -> None:
            await peer.answer((await peer.next(h2.events.RequestReceived)).stream_id)
            while True:
                event = await peer.next(h2.events.Event)
                if isinstance(event, h2.events.DataReceived):
                    await peer.data(stream.stream_id, event.data)
                elif isinstance(event, h2.events.StreamEnded):
                    await peer.data(stream.stream_id, b"", end=True)
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            nursery.start_soon(echo)
        assert b"".join(received) == b"".join(b"%d," % number for number in range(rounds))
        assert connection.num_streams == 0


async def test_only_one_task_sends() -> None:
    async with connected(initial_window_size=1) as (connection, peer):
        stream, _ = await open_stream(connection, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_data, [b"abc"])
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(LocalProtocolError, match="another task"):
                await stream.send_data([b"x"])
            with pytest.raises(LocalProtocolError, match="another task"):
                await stream.end_data()
            stream.reset()


async def test_after_its_end_a_body_takes_no_more() -> None:
    async with connected() as (connection, peer):
        stream, _ = await open_stream(connection, peer)
        assert await stream.end_data()
        with pytest.raises(LocalProtocolError, match="complete"):
            await stream.send_data([b"x"])
        with pytest.raises(LocalProtocolError, match="complete"):
            await stream.end_data()


@pytest.mark.parametrize("end", [False, True])
async def test_an_answer_that_comes_early_is_not_lost(end: bool) -> None:
    async with connected(initial_window_size=4) as (connection, peer):
        stream, number = await open_stream(connection, peer)
        outcome: list[bool] = []

        async def send() -> None:
            outcome.append(await stream.send_data([b"x" * 100]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            await peer.answer(number, "404")
            await peer.data(number, b"no such stream", end=True)
            if end:
                # Servers ask so to be spared the rest (RFC 9113, 8.1).
                peer.h2.reset_stream(number, ErrorCodes.NO_ERROR)
                await peer.flush()
        assert outcome == [False]
        assert await stream.send_data([b"more"]) is False
        assert (await stream.receive_response()).status == 404
        assert await stream.receive_data() == b"no such stream"
        assert await stream.receive_data() is None
        stream.reset()
        await trio.testing.wait_all_tasks_blocked()
        assert connection.num_streams == 0
    await peer.serve()
    assert peer.resets() == ({} if end else {number: ErrorCodes.CANCEL})


async def test_what_arrived_before_a_failure_is_handed_out_first() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        await peer.data(number, b"ack")
        peer.h2.reset_stream(number, ErrorCodes.INTERNAL_ERROR)
        await peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert await stream.send_data([b"x"]) is False
        assert (await stream.receive_response()).status == 200
        assert await stream.receive_data() == b"ack"
        for _ in range(2):
            with pytest.raises(TransportError, match="INTERNAL_ERROR"):
                await stream.receive_data()


async def test_small_pieces_are_joined() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        for _ in range(10_000):
            peer.h2.send_data(number, b"x")
        await peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        pieces = [await stream.receive_data() for _ in range(3)]
        assert "x" * 9 not in repr(stream)
        assert [len(piece or b"") for piece in pieces] == [4096, 4096, 10_000 - 2 * 4096]


async def test_a_reader_that_does_not_take_holds_the_peer_back() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        while (window := peer.h2.local_flow_control_window(number)) > 0:
            await peer.data(number, bytes(min(window, peer.h2.max_outbound_frame_size)))
        await trio.testing.wait_all_tasks_blocked()
        assert sum(map(len, stream._chunks)) == STREAM_WINDOW
        assert peer.window_updates(number) == 0
        taken = 0
        while taken < STREAM_WINDOW // 2:
            await settled()
            assert peer.window_updates(number) == 0
            taken += len(await stream.receive_data() or b"")
        await peer.next(h2.events.WindowUpdated)
        # The first time it grows by nothing: nobody knows yet how fast the peer is.
        assert peer.window_updates(number) == taken


async def test_cancelling_a_receiver_drops_only_the_wait() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        with trio.move_on_after(1) as scope:
            await stream.receive_response()
        assert scope.cancelled_caught
        await peer.answer(number)
        with trio.move_on_after(1) as scope:
            await stream.receive_data()
        assert scope.cancelled_caught
        await peer.data(number, b"late")
        assert await stream.receive_data() == b"late"
        assert peer.resets() == {}


async def test_cancelling_a_sender_resets_the_stream() -> None:
    async with connected(initial_window_size=2) as (connection, peer):
        stream, number = await open_stream(connection, peer)
        with trio.move_on_after(1) as scope:
            await stream.send_data([b"abc"])
        assert scope.cancelled_caught
        event = await peer.next(h2.events.StreamReset)
        assert (event.stream_id, event.error_code) == (number, ErrorCodes.CANCEL)
        assert peer.data_of(number) == b"ab"
        assert connection.num_streams == 0
        with pytest.raises(LocalProtocolError, match="closed"):
            await stream.receive_data()
        another, _ = await open_stream(connection, peer)
        assert await another.send_data([b"z"])


@pytest.mark.parametrize("way", ["reset", "aclose", "block"])
async def test_a_stream_that_is_left_is_reset(way: str) -> None:
    async with connected() as (connection, peer):
        stream, _ = await open_stream(connection, peer)
        if way == "reset":
            stream.reset()
        elif way == "aclose":
            await stream.aclose()
        else:
            async with stream as same:
                assert same is stream
        stream.reset()
        assert (await peer.next(h2.events.StreamReset)).error_code == ErrorCodes.CANCEL
        for call in (stream.receive_response, stream.receive_data, stream.end_data):
            with pytest.raises(LocalProtocolError, match="closed"):
                await call()


async def test_a_reset_wakes_those_who_wait() -> None:
    async with connected(initial_window_size=0) as (connection, peer):
        stream, _ = await open_stream(connection, peer)

        async def receive() -> None:
            with pytest.raises(LocalProtocolError, match="closed"):
                await stream.receive_data()

        async def send() -> None:
            assert await stream.send_data([b"x"]) is False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            stream.reset()


async def fill(peer: Peer, number: int) -> int:
    """Send as much as the stream's window allows; how much that was."""
    sent = 0
    while peer.h2.local_flow_control_window(number) == 0:
        await peer.next(h2.events.WindowUpdated)
    while size := peer.h2.local_flow_control_window(number):
        size = min(size, peer.h2.max_outbound_frame_size)
        await peer.data(number, bytes(size))
        sent += size
    return sent


async def grow(peer: Peer, stream: Http2Stream) -> None:
    """Take what the peer sends, as fast as it can, until the window grows no more."""
    size = 0
    while size < stream._window.size:
        size = stream._window.size
        for _ in range(3):
            await fill(peer, stream.stream_id)
            await settled()
            while stream._chunks:
                await stream.receive_data()
            await settled()
            await peer.receive()


async def test_the_window_of_a_fast_reader_grows() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        await grow(peer, stream)
        assert stream._window.size == MAX_STREAM_WINDOW
        # It takes no more: the peer can be ahead by so much, and not by a byte more.
        await fill(peer, number)
        assert peer.h2.local_flow_control_window(number) == 0
        await settled()
        assert 2 * stream._buffered_bytes > MAX_STREAM_WINDOW
        assert stream._buffered_bytes <= MAX_STREAM_WINDOW


@pytest.mark.parametrize("pause", [1.0, 5.0])
async def test_the_window_of_a_slow_stream_stays(pause: float) -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        for _ in range(20):
            await fill(peer, number)
            await settled()
            while stream._chunks:
                await stream.receive_data()
            await trio.sleep(pause)
            await peer.receive()
        assert stream._window.size == STREAM_WINDOW


@pytest.mark.parametrize("idle", [1, 4, 50])
async def test_readers_that_take_nothing_hold_nobody_back(idle: int) -> None:
    async with connected() as (connection, peer):
        held = 0
        for _ in range(idle):
            stream, number = await open_stream(connection, peer)
            await peer.answer(number)
            # Each was fast for a while, which is when it is granted most.
            if idle <= 4:
                await grow(peer, stream)
            await fill(peer, number)
            await settled()
            held += stream._buffered_bytes
        assert held <= GRANTS + idle * STREAM_WINDOW
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        received = 0
        while received < 200 * 2**20:
            assert await fill(peer, number)
            await settled()
            while stream._chunks:
                received += len(await stream.receive_data() or b"")
            await settled()
        assert connection._grants.left >= 0


@pytest.mark.parametrize("is_ahead", [False, True])
@pytest.mark.parametrize("way", ["reset", "reset by the peer", "end", "lost"])
async def test_a_stream_that_ends_gives_its_grant_back(way: str, is_ahead: bool) -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        await peer.answer(number)
        await grow(peer, stream)
        if is_ahead:
            await fill(peer, number)
        assert connection._grants.left == GRANTS - MAX_STREAM_WINDOW + STREAM_WINDOW
        if way == "reset":
            stream.reset()
        elif way == "lost":
            connection.close()
        elif way == "end":
            peer.h2.end_stream(number)
            await peer.flush()
        else:
            peer.h2.reset_stream(number)
            await peer.flush()
        await settled()
        if way != "reset" and is_ahead:
            # What is still to be taken is held.
            assert connection._grants.left < GRANTS
            while stream._chunks:
                await stream.receive_data()
        assert connection._grants.left == GRANTS
        stream.reset()
        assert connection._grants.left == GRANTS


async def test_what_nobody_takes_is_credited_to_the_connection() -> None:
    async with connected() as (connection, peer):
        for _ in range(300):
            stream, number = await open_stream(connection, peer)
            await peer.answer(number)
            await fill(peer, number)
            await settled()
            stream.reset()
            await peer.next(h2.events.StreamReset)
        assert peer.window_updates(0) > 100 * 2**20


@pytest.mark.parametrize(
    "header",
    [
        (b"Upper", b""),
        (b"", b""),
        (b":path", b"/"),
        (b"a b", b""),
        (b"a", b"b\0"),
        (b"a", b"b\r\n"),
    ],
)
def test_a_header_that_is_none(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ProtocolError, match="invalid name or value"):
        Response.parse([(b":status", b"200"), header])


@pytest.mark.parametrize("status", [b"", b"2000", b"20", b"abc", "²00".encode()])
def test_a_status_that_is_none(status: bytes) -> None:
    with pytest.raises(ProtocolError, match="status"):
        Response.parse([(b":status", status)])


def test_the_head_of_an_answer() -> None:
    head = Response.parse([(b":status", b"200"), (b"a", b"1"), (b"b", b"\xff"), (b"a", b"2")])
    assert (head.status, head.headers) == (200, {"a": "1, 2", "b": "\xff"})
    assert "\xff" not in repr(head)


async def test_a_bad_status_breaks_its_stream_alone() -> None:
    async with connected() as (connection, peer):
        peer.h2.config.validate_outbound_headers = False
        broken, number = await open_stream(connection, peer)
        whole, other = await open_stream(connection, peer)
        await peer.answer(number, "2x0")
        with pytest.raises(RemoteProtocolError, match="status"):
            await broken.receive_response()
        await peer.answer(other)
        assert (await whole.receive_response()).status == 200


async def test_sending_without_a_wait() -> None:
    async with connected(initial_window_size=3) as (connection, peer):
        stream, number = await open_stream(connection, peer)
        told: list[bool] = []
        stream.begin_data([b"ab", b"cd"], told.append)
        with pytest.raises(LocalProtocolError, match="another task"):
            stream.begin_end(told.append)
        await settled()
        # It is sent when the window has let all of it pass.
        assert told == []
        peer.h2.increment_flow_control_window(10, number)
        await peer.flush()
        await settled()
        assert told == [True]
        stream.begin_end(told.append)
        await peer.next(h2.events.StreamEnded)
        assert told == [True, True]
        assert peer.data_of(number) == b"abcd"
        with pytest.raises(LocalProtocolError, match="complete"):
            stream.begin_data([b"x"], told.append)


@pytest.mark.parametrize("way", ["reset", "reset by the peer", "end", "lost"])
async def test_what_is_not_sent_is_told_once(way: str) -> None:
    async with connected(initial_window_size=1) as (connection, peer):
        stream, number = await open_stream(connection, peer)
        told: list[bool] = []
        stream.begin_data([b"abc"], told.append)
        await settled()
        if way == "reset":
            stream.reset()
        elif way == "lost":
            connection.close()
        elif way == "end":
            await peer.answer(number, end=True)
        else:
            peer.h2.reset_stream(number)
            await peer.flush()
        await settled()
        assert told == [False]
        if way != "reset":
            stream.begin_data([b"more"], told.append)
            assert told == [False, False]
        stream.reset()
        await settled()
        assert told.count(False) == len(told) < 3


@pytest.mark.parametrize("way", ["head", "data", "end", "reset", "lost"])
async def test_news_are_told(way: str) -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        if way in ("data", "end"):
            await peer.answer(number)
            await settled()
            assert (stream.has_response, stream.has_data) == (True, False)
            assert stream.take_response().status == 200
        else:
            assert not stream.has_response
        told: list[bool] = []
        stream.on_news = lambda: told.append(stream.has_data)
        if way == "head":
            await peer.answer(number)
        elif way == "data":
            await peer.data(number, b"abc")
        elif way == "end":
            await peer.data(number, b"", end=True)
        elif way == "reset":
            peer.h2.reset_stream(number)
            await peer.flush()
        else:
            connection.close()
        await settled()
        # By then there is something to take.
        assert told
        assert told[-1] is (way != "head")
        assert stream.has_response
        if way in ("data", "end"):
            assert stream.take_data() == (b"abc" if way == "data" else None)
        elif way != "head":
            with pytest.raises(TransportError):
                stream.take_response()
