"""Reading, with every adapter and in every place."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from s2frames import (
    BYTES,
    JSON,
    TEXT,
    Checkpoint,
    Codec,
    CodecError,
    Compression,
    FrameLost,
    LocalProtocolError,
    RangeNotSatisfiable,
    ReceivedMessage,
    Record,
    StreamPosition,
    make_frame_headers,
)
from s2frames.errors import ScanLimitExceeded
from s2frames.events import DropReason, FrameDropped, GapDetected
from s2frames.http import Request
from s2frames.rest import Call
from s2frames.wire import AppendInput, decode_append_ack, encode_append_input
from scenes import EMBEDDED_SCENES, EVERY_SCENE, World


async def append(s2: World, *messages: bytes, **options: Any) -> None:
    async with s2.stream.append_session(**options) as session:
        await session.append_many(messages)


async def append_records(s2: World, *records: Record) -> None:
    """Append records as they are."""
    target = s2.stream.target
    headers = target.headers(content_type="application/protobuf", accept="application/protobuf")
    body = encode_append_input(AppendInput(records))
    request = Request("POST", target.records_url, headers, body)
    await s2.client.call(Call(request, lambda answer: decode_append_ack(answer.body)))


async def read_all(s2: World, codec: Codec[Any] = BYTES, **options: Any) -> list[Any]:
    async with s2.stream.read_session(codec=codec, **options) as messages:
        return [message async for message in messages]


# Where to start, where to end


async def test_an_empty_stream_has_no_messages(s2: World) -> None:
    async with s2.stream.read_session() as messages:
        assert [message async for message in messages] == []
        checkpoint = messages.checkpoint()
        assert (checkpoint.read_from, checkpoint.seen_through, checkpoint.lanes) == (0, 0, ())
        # An ended session stays ended.
        assert [message async for message in messages] == []


async def test_start(s2: World) -> None:
    await append(s2, b"a", b"b", b"c")
    assert await read_all(s2, start=1) == [b"b", b"c"]
    assert await read_all(s2, start=3) == []


async def test_a_start_beyond_the_tail(s2: World) -> None:
    await append(s2, b"a")
    with pytest.raises(RangeNotSatisfiable) as raised:
        await read_all(s2, start=5)
    assert raised.value.tail.seq_num == 1


async def test_a_start_inside_a_message_reads_on_from_the_next(s2: World) -> None:
    await append(s2, b"a" * 2_500_000, b"b")
    assert await read_all(s2, start=1) == [b"b"]


async def test_timestamp(s2: World) -> None:
    async with s2.stream.append_session() as session:
        for n in range(4):
            await session.append(b"%d" % n, timestamp=1000 * n + 1000)
    assert await read_all(s2, timestamp=2500) == [b"2", b"3"]
    assert await read_all(s2, timestamp=1000) == [b"0", b"1", b"2", b"3"]
    # Beyond the last record it is as from the tail on.
    beyond: list[dict[str, Any]] = [{}, {"wait": 1}, {"limit": 3}, {"end": 9}, {"until": 10_000}]
    for options in beyond:
        assert await read_all(s2, timestamp=9000, **options) == []


@pytest.mark.parametrize("limit", [1, 3, 4, 5])
async def test_limit(s2: World, limit: int) -> None:
    messages = [b"a", b"b" * 1_100_000, b"c", b"d"]
    await append(s2, *messages)
    async with s2.stream.read_session(limit=limit) as received:
        assert [message async for message in received] == messages[:limit]
        assert received.stats.frames == min(limit, 4)


@pytest.mark.parametrize("last", [1, 2, 3, 5, 6, 100])
async def test_the_last_messages(s2: World, last: int) -> None:
    messages = [b"a", b"b" * 2_100_000, b"c", b"d" * 1_100_000, b"e"]
    await append(s2, *messages)
    assert await read_all(s2, last=last) == messages[-last:]


async def test_the_last_of_an_empty_stream(s2: World) -> None:
    assert await read_all(s2, last=3) == []


async def test_the_last_messages_and_what_follows(s2: World) -> None:
    await append(s2, b"a", b"b", b"c")
    async with s2.stream.read_session(last=2, follow=True, limit=3) as messages:
        iterator = aiter(messages)
        assert [await anext(iterator), await anext(iterator)] == [b"b", b"c"]
        await append(s2, b"d")
        assert await anext(iterator) == b"d"


async def test_the_last_messages_may_lie_too_far_back(s2: World) -> None:
    await append(s2, b"a", *[b"x" * 1000] * 100)
    with pytest.raises(ScanLimitExceeded) as raised:
        await read_all(s2, last=101, max_scan_bytes=20_000)
    assert 0 < raised.value.found < 101


async def test_end(s2: World) -> None:
    await append(s2, b"a", b"b" * 1_100_000, b"c", b"d")
    assert await read_all(s2, end=0) == []
    assert await read_all(s2, end=1) == [b"a"]
    # A message that goes on beyond it is not complete.
    assert await read_all(s2, end=2) == [b"a"]
    assert await read_all(s2, end=4) == [b"a", b"b" * 1_100_000, b"c"]
    assert await read_all(s2, start=3, end=4) == [b"c"]
    assert await read_all(s2, end=99) == [b"a", b"b" * 1_100_000, b"c", b"d"]
    assert await read_all(s2, end=4, follow=True) == [b"a", b"b" * 1_100_000, b"c"]


async def test_until(s2: World) -> None:
    async with s2.stream.append_session() as session:
        for n in range(4):
            await session.append(b"%d" % n, timestamp=1000 * n + 1000)
    assert await read_all(s2, until=3000) == [b"0", b"1"]
    assert await read_all(s2, until=1000) == []
    assert await read_all(s2, until=9000) == [b"0", b"1", b"2", b"3"]
    assert await read_all(s2, timestamp=2000, until=4000) == [b"1", b"2"]
    assert await read_all(s2, until=3000, follow=True) == [b"0", b"1"]


async def test_wait_ends_where_nothing_comes(s2: World) -> None:
    await append(s2, b"a")
    async with s2.stream.read_session(wait=1) as messages:
        iterator = aiter(messages)
        assert await anext(iterator) == b"a"
        await append(s2, b"b")
        assert await anext(iterator) == b"b"
        assert [message async for message in iterator] == []


async def test_frames_tell_where_messages_are(s2: World) -> None:
    await append(s2, b"a", b"b" * 1_100_000, writer_id="alice", first_dedupe_seq=0)
    async with s2.stream.read_session() as messages:
        first, second = [frame async for frame in messages.frames()]
    assert first == ReceivedMessage(b"a", 0, 1, first.timestamp, "alice", ())
    assert (second.start, second.end, second.writer_id) == (1, 3, "alice")
    assert 0 < first.timestamp <= second.timestamp


async def test_stats(s2: World) -> None:
    await append(s2, b"a", b"b" * 1_100_000, dedupe=True)
    await append_records(s2, Record(b"mine", ((b"kind", b"foreign"),)))
    async with s2.stream.read_session() as messages:
        assert (messages.stats.records, messages.stats.frames) == (0, 0)
        assert len([message async for message in messages]) == 2
        assert (messages.stats.records, messages.stats.frames) == (4, 2)
        assert messages.stats.other_records == 1


@pytest.mark.parametrize(
    "options",
    [
        {"start": -1},
        {"start": 2**64},
        {"start": "0"},
        {"start": None},
        {"timestamp": -1},
        {"timestamp": 1, "start": 1},
        {"timestamp": 1, "start": Checkpoint(0, 0)},
        {"limit": 0},
        {"on_corrupt": "ignore"},
        {"max_frame_bytes": 0},
        {"max_writers": 0},
        {"max_frame_bytes": 10, "max_buffered_bytes": 9},
        {"last": 0},
        {"last": 1, "start": 1},
        {"last": 1, "timestamp": 1},
        {"wait": -1},
        {"wait": 1, "follow": True},
        {"until": -1},
        {"end": -1},
        {"end": 2**64},
        {"max_scan_bytes": 0},
        {"retry": 3},
    ],
)
@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_bad_options(s2: World, options: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        s2.stream.read_session(**options)


# Following


async def test_follow_goes_on_at_the_tail(s2: World) -> None:
    await append(s2, b"0")
    received = []
    async with (
        s2.stream.append_session() as session,
        s2.stream.read_session(follow=True, limit=5) as messages,
    ):
        async for message in messages:
            received.append(message)
            if len(received) < 5:
                await session.append(b"%d" % len(received))
    assert received == [b"0", b"1", b"2", b"3", b"4"]


async def test_follow_while_another_writes(s2: World) -> None:
    number = 300

    async def write() -> None:
        async with s2.another_client() as client:
            session = client.stream(s2.basin, "room/1").append_session()
            async with session:
                for n in range(0, number, 10):
                    await session.append_many([b"%d" % m for m in range(n, n + 10)])

    received: list[bytes] = []

    async def read() -> None:
        async with s2.stream.read_session(follow=True, limit=number) as messages:
            received.extend([message async for message in messages])

    await s2.together(read, write)
    assert received == [b"%d" % n for n in range(number)]


async def test_caught_up_tells_the_tail(s2: World) -> None:
    await append(s2, b"a", b"b")
    async with (
        s2.stream.append_session() as session,
        s2.stream.read_session(follow=True) as messages,
    ):
        iterator = aiter(messages)
        assert messages.caught_up is None
        assert [await anext(iterator), await anext(iterator)] == [b"a", b"b"]
        await session.append(b"c")
        assert await anext(iterator) == b"c"
        tail = messages.caught_up
    # What is known of the tail comes with the records, after them, or not yet.
    assert tail is None or tail.seq_num in (2, 3)


async def test_who_asks_is_told_when_all_was_read(s2: World) -> None:
    await append(s2, b"a", b"b")
    told: list[StreamPosition] = []
    async with s2.stream.read_session(wait=1, on_caught_up=told.append) as messages:
        seen = [len(told) async for _message in messages]
    assert {position.seq_num for position in told} == {2}
    assert seen == [0, 0]


# Leaving


async def test_leaving_a_loop_early_leaves_the_rest_unread(s2: World) -> None:
    await append(s2, *(b"%d" % n * 1000 for n in range(3000)))
    async with s2.stream.read_session() as messages:
        async for message in messages:
            assert message == b"0" * 1000
            break
        # The session goes on where the loop was left.
        assert await anext(aiter(messages)) == b"1" * 1000
    assert [message async for message in messages] == []


async def test_close_is_idempotent(s2: World) -> None:
    await append(s2, b"a", b"b")
    async with s2.stream.read_session(follow=True) as messages:
        assert await anext(aiter(messages)) == b"a"
        await messages.close()
        await messages.close()
        assert [message async for message in messages] == []


async def test_a_session_that_is_not_used(s2: World) -> None:
    async with s2.stream.read_session() as messages:
        await messages.close()
    assert messages.stats.records == 0


# Going on


async def test_a_checkpoint_is_as_of_the_last_message_handed_out(s2: World) -> None:
    expected = [b"%d" % n for n in range(20)] + [b"x" * 2_500_000, b"last"]
    await append(s2, *expected)
    received: list[bytes] = []
    start: int | Checkpoint = 0
    while len(received) < len(expected):
        async with s2.stream.read_session(start=start) as messages:
            received.append(await anext(aiter(messages)))
            start = Checkpoint.from_json(messages.checkpoint().to_json())
    assert received == expected
    assert await read_all(s2, start=start) == []


async def test_a_checkpoint_of_another_stream_is_refused(s2: World) -> None:
    await append(s2, b"a")
    async with s2.stream.read_session() as messages:
        checkpoint = messages.checkpoint()
    target = s2.stream.target
    assert (checkpoint.basin, checkpoint.stream) == (target.basin, target.stream)
    other = evolve(checkpoint, stream="another")
    named = f"'another' of the basin '{target.basin}', not of the stream '{target.stream}' of"
    with pytest.raises(LocalProtocolError, match=named):
        await read_all(s2, start=other)
    with pytest.raises(LocalProtocolError, match=named):
        await s2.stream.trim(other)
    with pytest.raises(LocalProtocolError, match=named):
        await s2.stream.fence("token", trim=other)
    assert await read_all(s2, start=checkpoint) == [b"a"]


async def test_a_checkpoint_inside_interleaved_messages(s2: World) -> None:
    """The open message of one writer is neither lost nor repeated."""
    long, short = b"x" * 30, b"short"

    def numbered(body: bytes, seq: int, writer: bytes, *frame: tuple[bytes, bytes]) -> Record:
        own = ((b"_dedupe_seq", seq.to_bytes(8, "big")), (b"_writer_id", writer))
        return Record(body, (*frame, *own))

    first = numbered(long[:10], 0, b"a", *make_frame_headers(30, 3))
    rest = [numbered(long[:10], seq, b"a") for seq in (1, 2)]
    other = numbered(short, 0, b"b", *make_frame_headers(5, 1))
    await append_records(s2, first, other, *rest)
    async with s2.stream.read_session() as messages:
        assert await anext(aiter(messages)) == short
        checkpoint = messages.checkpoint()
    assert (checkpoint.read_from, checkpoint.seen_through) == (0, 2)
    assert await read_all(s2, start=checkpoint) == [long]


# What cannot be delivered

# A frame that declares more bytes than it has, and one that is whole.
BROKEN = Record(b"x", make_frame_headers(2, 1))
WHOLE = Record(b"ok", make_frame_headers(2, 1))


async def test_a_lost_message_is_an_error_and_iteration_goes_on(s2: World) -> None:
    await append_records(s2, WHOLE, BROKEN, WHOLE)
    async with s2.stream.read_session() as messages:
        iterator = aiter(messages)
        assert await anext(iterator) == b"ok"
        with pytest.raises(FrameLost) as raised:
            await anext(iterator)
        event = raised.value.event
        assert isinstance(event, FrameDropped)
        assert (event.reason, event.start) == (DropReason.LENGTH_MISMATCH, 1)
        assert await anext(iterator) == b"ok"
        assert [message async for message in messages] == []


@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_records_that_were_trimmed_unread_are_an_error(s2: World) -> None:
    await append(s2, b"a", b"b", b"c", b"d")
    await s2.stream.trim(3)
    async with s2.stream.read_session(start=1) as messages:
        iterator = aiter(messages)
        with pytest.raises(FrameLost, match="records 1 to 2 were removed") as raised:
            await anext(iterator)
        assert raised.value.event == GapDetected(1, 3)
        assert await anext(iterator) == b"d"
    assert await read_all(s2, start=1, on_corrupt="skip") == [b"d"]
    # From the beginning means from the first there is.
    assert await read_all(s2) == [b"d"]


async def test_lost_messages_can_be_skipped(s2: World) -> None:
    await append_records(s2, BROKEN, WHOLE, BROKEN)
    async with s2.stream.read_session(on_corrupt="skip") as messages:
        assert [message async for message in messages] == [b"ok"]
        assert messages.stats.dropped[DropReason.LENGTH_MISMATCH] == 2


async def test_a_message_that_is_too_large_is_lost(s2: World) -> None:
    await append(s2, b"x" * 101, b"y")
    async with s2.stream.read_session(max_frame_bytes=100) as messages:
        iterator = aiter(messages)
        with pytest.raises(FrameLost) as raised:
            await anext(iterator)
        event = raised.value.event
        assert isinstance(event, FrameDropped)
        assert event.reason is DropReason.TOO_LARGE
        assert await anext(iterator) == b"y"


@pytest.mark.parametrize("on_corrupt", ["raise", "skip"])
async def test_a_message_that_cannot_be_decoded(s2: World, on_corrupt: Any) -> None:
    await append(s2, b"1", b"{", b"3")
    async with s2.stream.read_session(codec=JSON, on_corrupt=on_corrupt) as messages:
        iterator = aiter(messages)
        assert await anext(iterator) == 1
        with pytest.raises(CodecError, match="message at 1") as raised:
            await anext(iterator)
        error = raised.value
        assert (error.start, error.end, error.payload) == (1, 2, b"{")
        assert isinstance(error.__cause__, ValueError)
        assert await anext(iterator) == 3


# Compression


@pytest.mark.parametrize(
    "s2",
    [(scene, {"compression": how}) for scene in EVERY_SCENE for how in Compression],
    indirect=True,
    ids=lambda value: f"{value[0]}, {value[1]['compression'].name}",
)
async def test_compression(s2: World) -> None:
    messages = ["short", "long " * 1_000_000, "a" * 5000]
    async with s2.stream.append_session(codec=TEXT) as session:
        await session.append_many(messages)
    assert await read_all(s2, TEXT) == messages
    assert s2.client.settings.compression is s2.settings.compression
