from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import islice
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from frames import (
    chunk,
    cut,
    encode,
    frame,
    frames_in,
    head,
    interleaved,
    lane_frames,
    own_headers,
    payloads,
    place,
    read,
    read_batches,
    resent,
    small_bodies,
    soups,
    stray_records,
    timed,
    without_details,
    writer_ids,
)
from framing_vectors import VECTORS, headers
from reader_model import Model
from s2frames.checkpoint import Checkpoint, LaneCheckpoint
from s2frames.dedupe import DEDUPE_SEQ, WRITER_ID
from s2frames.errors import LocalProtocolError, RemoteProtocolError
from s2frames.events import (
    CaughtUp,
    CommandReceived,
    DropReason,
    DuplicateDropped,
    FrameDropped,
    FrameReceived,
    FramesReceived,
    GapDetected,
    ReaderEvent,
    RecordReceived,
    SequenceGapDetected,
    WriterForgotten,
)
from s2frames.framing import (
    DEFAULT_MAX_FRAME_BYTES,
    FRAME_BYTES,
    FRAME_RECORDS,
    FrameAssembler,
)
from s2frames.reader import (
    DEFAULT_MAX_BUFFERED_BYTES,
    DEFAULT_MAX_REREAD,
    DEFAULT_MAX_WRITERS,
    FrameReader,
)
from s2frames.records import Header, Record, SequencedRecord, StreamPosition, fence, trim
from s2frames.u64 import U64_MAX, encode_u64
from s2frames.writer import FrameWriter
from strategies import u64s

KIB, MIB = 1024, 1024 * 1024


def dropped(events: Sequence[ReaderEvent]) -> list[tuple[DropReason, str | None, int, int]]:
    drops = [event for event in events if isinstance(event, FrameDropped)]
    return [(drop.reason, drop.writer_id, drop.start, drop.num_bytes) for drop in drops]


# Round trips


@st.composite
def written(draw: st.DrawFn) -> tuple[list[list[Record]], list[tuple[Any, ...]]]:
    """What a writer appends, batch by batch, and what each frame must come out as."""
    writer_id = draw(st.none() | writer_ids)
    writer = FrameWriter(
        writer_id,
        first_dedupe_seq=draw(st.integers(0, 3)),
        chunk_size=draw(st.sampled_from([1, 2, 3, 7, 100, 1_048_576])),
    )
    frames = draw(
        st.lists(
            st.tuples(
                st.integers(1, 60) | st.integers(990, 1010),
                own_headers,
                st.none() | st.integers(0, 10**13),
            ),
            min_size=1,
            max_size=5,
        )
    )
    expected = []
    for i, (size, own, timestamp) in enumerate(frames):
        payload = bytes((i + at) % 256 for at in range(size))
        assert writer.send(payload, own, timestamp) == i
        expected.append((payload, timestamp or 0, writer_id, own))
    batches = writer.batches_to_send(flush=True)
    return [list(batch.records) for batch in batches], expected


def as_expected(received: FrameReceived) -> tuple[Any, ...]:
    return received.payload, received.timestamp, received.writer_id, received.headers


@given(written(), st.sampled_from([0, 1, 126, 127, 128, 16_383]), st.integers(1, 1000))
def test_what_was_written_is_read(
    batches_and_frames: tuple[list[list[Record]], list[tuple[Any, ...]]], start: int, size: int
) -> None:
    batches, expected = batches_and_frames
    records = place([record for batch in batches for record in batch], start)
    events = read(FrameReader(start=start), records)
    assert [as_expected(received) for received in frames_in(events)] == expected
    assert len(events) == len(expected)
    assert events == read_batches(FrameReader(start=start), cut(records, size))
    assert events == read_batches(FrameReader(start=start), [encode(records)])


@given(st.data())
def test_each_message_is_delivered_once_in_its_writers_order(data: st.DataObject) -> None:
    lanes, expected = [], {}
    for writer_id in ("a", "é" * 128, "a" * 256):
        writer = FrameWriter(writer_id, chunk_size=3)
        sent = [
            f"{writer_id[0]}{len(writer_id)}-{i}".encode()
            for i in range(data.draw(st.integers(1, 4)))
        ]
        writer.send_many(sent)
        batches = writer.batches_to_send(flush=True)
        lanes.append(data.draw(resent([record for batch in batches for record in batch.records])))
        expected[writer_id] = sent
    records = place(data.draw(interleaved(lanes)))
    events = read(FrameReader(), records)
    for writer_id, sent in expected.items():
        mine = [event for event in frames_in(events) if event.writer_id == writer_id]
        assert payloads(mine) == sent
    assert {type(event) for event in events} <= {FrameReceived, DuplicateDropped}
    num_records = len(records)
    repeats = sum(isinstance(event, DuplicateDropped) for event in events)
    assert num_records - repeats == sum(-(-len(p) // 3) for s in expected.values() for p in s)


@settings(max_examples=50)
@given(st.lists(st.lists(small_bodies, min_size=1, max_size=4), min_size=2, max_size=3), st.data())
def test_without_dedupe_repeats_are_frames(
    written: list[list[list[bytes]]], data: st.DataObject
) -> None:
    lanes = []
    for i, bodies in enumerate(written):
        records: list[Record] = []
        for parts in bodies:
            records += frame(parts, seq=len(records), writer=f"w{i}")
        lanes.append(records * 2)
    events = read(FrameReader(dedupe=False), place(data.draw(interleaved(lanes))))
    for i, bodies in enumerate(written):
        mine = [event for event in frames_in(events) if event.writer_id == f"w{i}"]
        assert payloads(mine) == [b"".join(parts) for parts in bodies] * 2
    assert {type(event) for event in events} == {FrameReceived}


def test_a_frame_says_where_it_is() -> None:
    records = [
        head(b"ab", records=3, size=6, seq=0, writer="a", own=((b"k", b"v"),), timestamp=11),
        head(b"x", seq=0, writer="b", timestamp=12),
        chunk(b"cd", seq=1, writer="a", timestamp=13),
        fence("t"),
        chunk(b"ef", seq=2, writer="a", timestamp=14),
    ]
    assert frames_in(read(FrameReader(), place(records, 40))) == [
        FrameReceived(b"x", 41, 42, 12, "b", ()),
        FrameReceived(b"abcdef", 40, 45, 11, "a", ((b"k", b"v"),)),
    ]


# Against the model


def compare_with_model(records: list[SequencedRecord], events: list[ReaderEvent]) -> Model:
    model = Model(max_frame_bytes=40, max_reread=9)
    model.read(records)
    assert list(without_details(events)) == model.events
    return model


def make_reader() -> FrameReader:
    return FrameReader(max_frame_bytes=40, max_reread=9)


@given(soups(max_pause=60))
def test_reader_equals_the_model(records: list[SequencedRecord]) -> None:
    reader = make_reader()
    events = read(reader, records)
    model = compare_with_model(records, events)
    # Nothing is dropped in silence: each record is in a frame, in an event, or in an open frame.
    still_open = [record.seq_num for lane in model.open.values() for record in lane]
    assert sorted(model.accounted + still_open) == [record.seq_num for record in records]
    assert dropped(list(reader.receive_eof())) == [
        (DropReason.INCOMPLETE, lane.writer_id, opened[0].seq_num, sum(len(r.body) for r in opened))
        for lane, opened in sorted(model.open.items(), key=lambda item: item[1][0].seq_num)
    ]


@given(st.lists(stray_records(), max_size=30).flatmap(timed))
def test_reader_equals_the_model_on_strays(records: list[SequencedRecord]) -> None:
    compare_with_model(records, read(make_reader(), records))


@settings(max_examples=50)
@given(soups(), st.integers(1, 7))
def test_batches_and_records_give_the_same_events(
    records: list[SequencedRecord], size: int
) -> None:
    assert read_batches(make_reader(), cut(records, size)) == read(make_reader(), records)


@settings(max_examples=50)
@given(soups())
def test_stats_count_the_events(records: list[SequencedRecord]) -> None:
    reader = make_reader()
    events = read(reader, records)
    stats = reader.stats
    assert stats.records == len(records)
    counts = {FrameReceived: stats.frames, DuplicateDropped: stats.duplicates}
    counts |= {CommandReceived: stats.commands, RecordReceived: stats.other_records}
    counts |= {GapDetected: stats.gaps, SequenceGapDetected: stats.sequence_gaps}
    counts |= {FrameDropped: sum(stats.dropped.values())}
    for kind, number in counts.items():
        assert number == sum(isinstance(event, kind) for event in events)
    for reason in DropReason:
        assert stats.dropped[reason] == [drop[0] for drop in dropped(events)].count(reason)


# Reasons to drop


@pytest.mark.parametrize(
    ("records", "drops"),
    [
        pytest.param(
            [head(b"abc", size=2, seq=0, writer="a")],
            [(DropReason.OVERFLOW, "a", 0, 3)],
            id="overflow of one record",
        ),
        pytest.param(
            [head(b"abc", records=2, size=2, seq=0, writer="a")],
            [(DropReason.OVERFLOW, "a", 0, 3)],
            id="overflow by the head",
        ),
        pytest.param(
            [
                head(b"ab", records=3, size=3, seq=0, writer="a"),
                chunk(b"cd", seq=1, writer="a"),
                chunk(b"", seq=2, writer="a"),
            ],
            [(DropReason.OVERFLOW, "a", 0, 2), (DropReason.ORPHAN, "a", 2, 0)],
            id="overflow by a chunk",
        ),
        pytest.param(
            [head(b"a", size=2, seq=0, writer="a")],
            [(DropReason.LENGTH_MISMATCH, "a", 0, 1)],
            id="one record too short",
        ),
        pytest.param(
            [head(b"a", records=2, size=3), chunk(b"b")],
            [(DropReason.LENGTH_MISMATCH, None, 0, 2)],
            id="records too short",
        ),
        pytest.param(
            [Record(b"abc", ((WRITER_ID, b"a"),))],
            [(DropReason.BAD_HEADER, None, 0, 3)],
            id="writer without number",
        ),
        pytest.param(
            [head(b"x", size=41, records=2)],
            [(DropReason.TOO_LARGE, None, 0, 1)],
            id="one byte over max_frame_bytes",
        ),
        pytest.param(
            [head(b"a", records=2, size=2, seq=0, writer="a"), chunk(b"b", seq=2, writer="a")],
            [(DropReason.SEQUENCE_GAP, "a", 0, 1), (DropReason.ORPHAN, "a", 1, 1)],
            id="chunk missing",
        ),
        pytest.param(
            [head(b"a", records=2, size=2, seq=0, writer="a"), head(b"b", seq=2, writer="a")],
            [(DropReason.SEQUENCE_GAP, "a", 0, 1)],
            id="end missing",
        ),
        pytest.param(
            [head(b"a", records=2, size=2, seq=0, writer="a"), head(b"b", seq=1, writer="a")],
            [(DropReason.INCOMPLETE, "a", 0, 1)],
            id="superseded",
        ),
        pytest.param(
            [head(b"a", records=2, size=2), head(b"b")],
            [(DropReason.INCOMPLETE, None, 0, 1)],
            id="superseded in the lane without numbers",
        ),
        pytest.param(
            [head(b"a", records=2, size=2), *[fence("t")] * 10],
            [(DropReason.INCOMPLETE, None, 0, 1)],
            id="given up",
        ),
        pytest.param(
            [
                head(b"a", records=2, size=2, seq=0, writer="a"),
                *[fence("t")] * 10,
                chunk(b"bcd", seq=1, writer="a"),
            ],
            [(DropReason.INCOMPLETE, "a", 0, 1), (DropReason.GIVEN_UP, "a", 0, 3)],
            id="given up and gone on with",
        ),
        pytest.param(
            [chunk(b"ab", seq=0, writer="a"), chunk(b"c", seq=1)],
            [(DropReason.ORPHAN, "a", 0, 2), (DropReason.ORPHAN, None, 1, 1)],
            id="no head",
        ),
    ],
)
def test_reasons(records: list[Record], drops: list[tuple[Any, ...]]) -> None:
    assert dropped(read(make_reader(), place(records))) == drops


def test_a_gap_drops_every_open_frame_in_order_of_heads() -> None:
    opened = [
        head(b"a", records=2, size=2, seq=0, writer="a"),
        head(b"bb", records=2, size=3, seq=0, writer="b"),
        chunk(b"", seq=1, writer="c"),
        head(b"ccc", records=2, size=4),
        chunk(b"", seq=0, writer="a"),
        head(b"x", seq=0, writer="d"),
    ]
    reader = make_reader()
    read(reader, place(opened[:5]))
    events = read(reader, place(opened[5:], 9))
    assert dropped(events) == [
        (DropReason.TRIMMED, "a", 0, 1),
        (DropReason.TRIMMED, "b", 1, 2),
        (DropReason.TRIMMED, None, 3, 3),
    ]
    assert events[3:] == [GapDetected(5, 9), FrameReceived(b"x", 9, 10, 0, "d", ())]
    assert reader.buffered_bytes == 0


def test_details_name_value_and_limit() -> None:
    [event] = read(make_reader(), place([head(b"x", size=4141)]))
    assert isinstance(event, FrameDropped)
    assert "4141" in event.detail
    assert "40" in event.detail


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        (((FRAME_RECORDS, b"1"), (FRAME_BYTES, encode_u64(1))), "_frame_records has 1 bytes"),
        (((FRAME_RECORDS, encode_u64(1)), (FRAME_BYTES, b"")), "_frame_bytes has 0 bytes"),
        (((FRAME_RECORDS, encode_u64(0)), (FRAME_BYTES, encode_u64(1))), "no record"),
        (((FRAME_RECORDS, encode_u64(1)), (FRAME_BYTES, encode_u64(0))), "no byte"),
        (((FRAME_RECORDS, encode_u64(1)),), "missing"),
        (((FRAME_BYTES, encode_u64(1)),), "missing"),
        (((DEDUPE_SEQ, b"123456789"),), "_dedupe_seq has 9 bytes"),
        (((WRITER_ID, b"a"),), "without _dedupe_seq"),
    ],
)
def test_a_bad_header_costs_one_record_and_says_why(bad: tuple[Header, ...], detail: str) -> None:
    records = [
        head(b"a", records=2, size=2, seq=1, writer="a"),
        Record(b"zz", bad),
        chunk(b"b", seq=2, writer="a"),
    ]
    drop, received = read(FrameReader(), place(records))
    assert isinstance(drop, FrameDropped)
    assert (drop.reason, drop.start, drop.num_bytes) == (DropReason.BAD_HEADER, 1, 2)
    assert detail in drop.detail
    assert payloads([received]) == [b"ab"]


def test_a_dropped_frame_does_not_advance_its_lane() -> None:
    whole = frame([b"a", b"b", b"c"], seq=0, writer="a")
    records = [
        *whole[:2],
        head(b"x", records=9, size=1, seq=7, writer="a"),
        chunk(b"y", seq=8, writer="a"),
        *whole,
        *whole,
    ]
    events = read(FrameReader(), place(records))
    assert [drop[0] for drop in dropped(events)] == [DropReason.SEQUENCE_GAP, DropReason.OVERFLOW]
    assert payloads(events) == [b"abc"]
    assert sum(isinstance(event, DuplicateDropped) for event in events) == 3


def test_orphans_do_not_advance_their_lane() -> None:
    whole = frame([b"a", b"b", b"c"], seq=4, writer="a")
    events = read(FrameReader(), place([*whole[1:], *whole, *whole[1:]]))
    assert [drop[0] for drop in dropped(events)] == [DropReason.ORPHAN] * 2
    assert payloads(events) == [b"abc"]


# A writer's numbering


def jumps(events: Sequence[ReaderEvent]) -> list[tuple[str | None, int, int, int]]:
    found = [event for event in events if isinstance(event, SequenceGapDetected)]
    return [(jump.writer_id, jump.seq_num, jump.expected, jump.actual) for jump in found]


def numbered(*sequences: int, writer: str | None = "a") -> list[Record]:
    """Messages of one record with these numbers."""
    return [head(b"%d" % seq, seq=seq, writer=writer) for seq in sequences]


@pytest.mark.parametrize("writer", ["a", None])
def test_a_jump_between_frames_is_told_and_passed_over(writer: str | None) -> None:
    reader = FrameReader()
    events = read(reader, place(numbered(0, 1, 5, 6, 5, 8, writer=writer)))
    assert jumps(events) == [(writer, 2, 2, 5), (writer, 5, 7, 8)]
    assert payloads(events) == [b"0", b"1", b"5", b"6", b"8"]
    # It comes before what it is found by.
    assert [type(event) for event in events[2:4]] == [SequenceGapDetected, FrameReceived]
    assert reader.stats.sequence_gaps == 2


@pytest.mark.parametrize("first", [0, 5])
def test_where_a_lane_begins_is_no_gap(first: int) -> None:
    reader = FrameReader()
    events = read(reader, place(numbered(first, first + 1)))
    assert payloads(events) == [b"%d" % first, b"%d" % (first + 1)]
    assert jumps(events) == []
    assert reader.stats.sequence_gaps == 0


FIRST, SECOND = head(b"abc", records=2, size=6, seq=0, writer="a"), chunk(b"d", seq=1, writer="a")


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        pytest.param([FIRST, chunk(b"def", seq=1, writer="a")], None, id="whole"),
        pytest.param([FIRST, SECOND], DropReason.LENGTH_MISMATCH, id="too short"),
        pytest.param(
            [FIRST, chunk(b"defg", seq=1, writer="a")], DropReason.OVERFLOW, id="too long"
        ),
        pytest.param(
            [*numbered(0), head(b"", size=41, seq=1, writer="a")],
            DropReason.TOO_LARGE,
            id="too large",
        ),
        pytest.param(
            [FIRST, head(b"x", size=2, seq=1, writer="a")], DropReason.LENGTH_MISMATCH, id="another"
        ),
        pytest.param([FIRST, *[fence("")] * 10, SECOND], DropReason.GIVEN_UP, id="given up"),
        pytest.param([*numbered(0), chunk(b"", seq=1, writer="a")], DropReason.ORPHAN, id="orphan"),
    ],
)
def test_a_jump_is_told_whatever_became_of_the_record_before(
    before: list[Record], reason: DropReason | None
) -> None:
    for following in (*numbered(5), chunk(b"", seq=5, writer="a")):
        reader = make_reader()
        events = read(reader, place([*before, following]))
        assert jumps(events) == [("a", len(before), 2, 5)]
        assert reader.stats.sequence_gaps == 1
        if reason is not None:
            assert reason in [drop[0] for drop in dropped(events)]
        # The next number is no jump, nor are those that were looked at.
        more = [chunk(b"", seq=6, writer="a"), *numbered(2, 7)]
        assert jumps(read(reader, place(more, len(before) + 1))) == []


def test_a_jump_inside_a_frame_is_told_before_what_is_lost_by_it() -> None:
    records = [FIRST, chunk(b"def", seq=3, writer="a"), chunk(b"", seq=4, writer="a")]
    assert list(without_details(read(FrameReader(), place(records)))) == [
        SequenceGapDetected("a", 1, 1, 3),
        FrameDropped(DropReason.SEQUENCE_GAP, "a", 0, 3, ""),
        FrameDropped(DropReason.ORPHAN, "a", 1, 3, ""),
        FrameDropped(DropReason.ORPHAN, "a", 2, 0, ""),
    ]


def test_a_jump_is_known_after_going_on() -> None:
    """What was looked at last is in the checkpoint, also where it was lost."""
    reader = make_reader()
    assert jumps(read(reader, place([*numbered(0), head(b"", size=41, seq=1, writer="a")]))) == []
    stored = Checkpoint.from_json(reader.checkpoint().to_json())
    assert stored.lanes == (LaneCheckpoint(b"a", 0, None, seen=1),)
    for seq, found in ((2, []), (3, [("a", 2, 2, 3)])):
        resumed = FrameReader.resume(stored)
        assert jumps(read(resumed, place(numbered(seq), 2))) == found


def test_a_jump_is_told_once_wherever_reading_is_interrupted() -> None:
    records = place([FIRST, chunk(b"def", seq=3, writer="a")])
    reader = FrameReader(start=0)
    events = reader.receive_records(records)
    assert jumps([next(events)]) == [("a", 1, 1, 3)]
    resumed = FrameReader.resume(reader.checkpoint())
    rest = read(resumed, records)
    assert [drop[0] for drop in dropped(rest)] == [DropReason.SEQUENCE_GAP, DropReason.ORPHAN]
    assert jumps(rest) == []


# What does not break a frame


@pytest.mark.parametrize(
    "stranger",
    [
        fence("token"),
        fence(""),
        trim(0),
        Record(b"x", ((b"own", b"1"),)),
        Record(b"x", ((b"", b"1"), (b"own", b"1"))),
        Record(b"x", ((WRITER_ID, b"w"),)),
        head(b"x", seq=0, writer="b"),
        head(b"x", seq=0),
        chunk(b"x", seq=0, writer="b"),
    ],
)
@pytest.mark.parametrize("seq", [None, 0])
def test_strangers_do_not_break_a_frame(stranger: Record, seq: int | None) -> None:
    first, second, third = frame([b"a", b"b", b"c"], seq=seq, writer=None if seq is None else "a")
    records = [first, stranger, second, stranger, third]
    assert b"abc" in payloads(read(FrameReader(), place(records)))


def test_commands_and_other_records_are_reported() -> None:
    records = [fence("tok"), trim(7), Record(b"x", ((b"own", b"1"),), 5), Record(b"bare")]
    assert read(FrameReader(), place(records, 3)) == [
        CommandReceived(3, 0, b"fence", b"tok"),
        CommandReceived(4, 0, b"trim", encode_u64(7)),
        RecordReceived(SequencedRecord(5, 5, ((b"own", b"1"),), b"x")),
        RecordReceived(SequencedRecord(6, 0, (), b"bare")),
    ]


def test_a_record_without_headers_is_a_chunk_of_an_open_frame_without_numbers() -> None:
    numbered = head(b"n", records=2, size=2, seq=0, writer="a")
    events = read(FrameReader(), place([numbered, head(b"a", records=2, size=2), Record(b"b")]))
    assert payloads(events) == [b"ab"]
    events = read(FrameReader(), place([numbered, Record(b"b")]))
    assert events == [RecordReceived(SequencedRecord(1, 0, (), b"b"))]


@given(
    st.lists(
        st.builds(head, st.binary(max_size=4), records=st.integers(1, 3), size=st.integers(1, 6))
        | st.builds(Record, st.binary(max_size=4)),
        max_size=30,
    )
)
def test_without_numbers_frames_are_those_of_the_npm_package(records: list[Record]) -> None:
    assembler = FrameAssembler()
    frames = [assembler.push(record) for record in records]
    expected = [frame.payload for frame in frames if frame is not None]
    assert payloads(read(FrameReader(), place(records))) == expected


@pytest.mark.parametrize("case", VECTORS["decode"], ids=lambda case: str(case["name"]))
def test_vectors_of_the_npm_package(case: dict[str, Any]) -> None:
    limit = case["max_frame_bytes"]
    reader = FrameReader() if limit is None else FrameReader(max_frame_bytes=limit)
    records = [
        Record(bytes.fromhex(pushed["body"]), headers(pushed["headers"]))
        for pushed in case["records"]
    ]
    assert [payload.hex() for payload in payloads(read(reader, place(records)))] == [
        completed["payload"]
        for expected in case["expected"]
        for completed in expected.get("frames", [])
    ]


def test_numbers_without_a_writer_have_a_lane_of_their_own() -> None:
    records = [
        head(b"a", seq=5),
        head(b"b", seq=5, writer="b"),
        head(b"c"),
        head(b"d", seq=5),
        head(b"e", seq=5, writer="b"),
        head(b"f"),
        head(b"g", seq=6),
    ]
    assert payloads(read(FrameReader(), place(records))) == [b"a", b"b", b"c", b"f", b"g"]


def test_interleaved_writers_do_not_reset_each_other() -> None:
    a, b = frame([b"a"], seq=0, writer="a"), frame([b"b"], seq=0, writer="b")
    assert payloads(read(FrameReader(), place([*a, *b, *a, *b, *a]))) == [b"a", b"b"]


@pytest.mark.parametrize("seq", [2**53 - 1, 2**53, U64_MAX])
def test_numbers_up_to_the_largest(seq: int) -> None:
    records = [head(b"a", seq=seq, writer="a"), head(b"b", seq=seq, writer="a")]
    assert payloads(read(FrameReader(), place(records))) == [b"a"]


# Frames that are given up: those that would be read again from too far back

OTHERS_RECORD = fence("t")


def silence(count: int) -> list[Record]:
    """Records of nobody's."""
    return [OTHERS_RECORD] * count


def fates(events: Sequence[ReaderEvent]) -> list[object]:
    """What became of frames: a payload or a reason each."""
    return [
        event.payload if isinstance(event, FrameReceived) else event.reason
        for event in events
        if isinstance(event, (FrameReceived, FrameDropped))
    ]


INCOMPLETE, GIVEN_UP, ORPHAN = DropReason.INCOMPLETE, DropReason.GIVEN_UP, DropReason.ORPHAN


@pytest.mark.parametrize(("count", "drops"), [(9, 0), (10, 1)])
def test_a_frame_is_given_up_when_another_record_comes_more_than_max_reread_after_its_head(
    count: int, drops: int
) -> None:
    first, second = frame([b"a", b"b"], seq=0, writer="a")
    reader = make_reader()
    events = read(reader, place([first, *silence(count)]))
    assert dropped(events) == [(INCOMPLETE, "a", 0, 1)] * drops
    assert reader.checkpoint().read_from == (count + 1 if drops else 0)
    rest = read(reader, place([second], count + 1))
    assert fates(rest) == [GIVEN_UP if drops else b"ab"]


def test_a_drop_says_how_far_back_the_frame_began_and_what_is_allowed() -> None:
    records = [head(b"a", records=2, size=2, seq=0, writer="a"), *silence(10)]
    [event] = [e for e in read(make_reader(), place(records, 5)) if isinstance(e, FrameDropped)]
    assert event.detail == "it began 10 records before, and 9 (max_reread) are read again at most"


def test_a_record_of_its_own_does_not_give_a_frame_up() -> None:
    # Also not a repeat: its writer is at it.
    first, second, third = frame([b"a", b"b", b"c"], seq=0, writer="a")
    for number in range(10, 13):
        own = [first, *silence(9), *[first] * (number - 10), second, first, third]
        assert fates(read(make_reader(), place(own))) == [b"abc"]
    # That of another does, and also one of the writer's that is a chunk no more.
    assert fates(read(make_reader(), place([first, *silence(9), second, *silence(1)]))) == [
        INCOMPLETE
    ]


@pytest.mark.parametrize("timestamps", [[0, 0, 2**62, 0, 0], [2**63, 0, 1, 2**64 - 1, 5]])
def test_timestamps_give_up_no_frame(timestamps: list[int]) -> None:
    """They are of whichever clock a writer or the service has."""
    first, second, third = frame([b"a", b"b", b"c"], seq=0, writer="a")
    foreign = Record(b"", ((b"k", b""),))
    placed = [
        SequencedRecord(i, timestamp, record.headers, record.body)
        for i, (timestamp, record) in enumerate(
            zip(timestamps, [first, foreign, second, foreign, third], strict=True)
        )
    ]
    assert fates(read(make_reader(), placed)) == [b"abc"]
    assert fates(read_batches(FrameReader(), cut(placed, 2))) == [b"abc"]


def test_the_oldest_frames_are_given_up_in_the_order_of_their_heads() -> None:
    opened = [
        head(b"c", records=2, size=2, seq=0, writer="c"),
        head(b"a", records=2, size=2),
        head(b"b", records=2, size=2, seq=0, writer="b"),
        head(b"", records=3, size=2, seq=1, writer="c"),
    ]
    reader = make_reader()
    events = read(reader, place([*opened, *silence(12)]))
    given_up = [(event.start, event.writer_id) for event in events if type(event) is FrameDropped]
    assert given_up == [(0, "c"), (1, None), (2, "b"), (3, "c")]
    # One by one, each as soon as it is too far back.
    ends = [i for i, event in enumerate(events) if type(event) is FrameDropped]
    assert ends == [0, 8, 10, 12]
    assert reader.checkpoint().read_from == 16
    assert reader.buffered_bytes == 0


def test_frames_that_are_too_far_back_at_once_are_given_up_by_one_record() -> None:
    a, b = (frame([b"1", b"2", b"3"], seq=0, writer=writer) for writer in "ab")
    reader = make_reader()
    # The first one is left alone as long as it goes on, and the second is not due by then.
    assert read(reader, place([a[0], b[0], *silence(8), a[1]]))[8:] == []
    events = read(reader, place(silence(1), 11))
    assert dropped(events) == [(INCOMPLETE, "a", 0, 2), (INCOMPLETE, "b", 1, 1)]
    assert isinstance(events[2], CommandReceived)


def test_what_is_given_up_by_a_record_of_a_lane_that_goes_on() -> None:
    a, b = frame([b"a", b"a"], seq=0, writer="a"), frame([b"b", b"b"], seq=0, writer="b")
    records = [a[0], b[0], *silence(8), b[1], a[1]]
    assert fates(read(make_reader(), place(records))) == [INCOMPLETE, b"bb", GIVEN_UP]


def test_a_frame_that_was_given_up_pins_neither_memory_nor_the_checkpoint() -> None:
    reader = make_reader()
    read(reader, place([head(b"a", records=2, size=2), *silence(9)]))
    assert reader.checkpoint().read_from == 0
    assert reader.buffered_bytes == 1
    read(reader, place(silence(1), 10))
    assert reader.checkpoint().read_from == 11
    assert reader.buffered_bytes == 0


@pytest.mark.parametrize("goes_on", [True, False], ids=["resumed", "the same"])
@pytest.mark.parametrize("options", [{}, {"dedupe": False}], ids=str)
@pytest.mark.parametrize("lane", [(0, "a"), (0, None), (None, None)], ids=str)
def test_what_follows_a_frame_that_was_given_up(
    lane: tuple[int | None, str | None], options: dict[str, Any], goes_on: bool
) -> None:
    """If its writer goes on with it, that is a loss, once; a frame from its head on is none."""
    seq, writer = lane
    whole = frame([b"a", b"b", b"c", b"d"], seq=seq, writer=writer)
    another = head(b"x", seq=None if seq is None else 2, writer=writer)
    is_counted = seq is not None and not options

    def fates_of(*more: Record) -> list[object]:
        reader = FrameReader(max_reread=9, **options)
        assert fates(read(reader, place([*whole[:2], *silence(9)]))) == [INCOMPLETE]
        checkpoint = reader.checkpoint()
        assert checkpoint.read_from == 11
        assert [known.given_up for known in checkpoint.lanes] == [0]
        if goes_on:
            stored = Checkpoint.from_json(checkpoint.to_json())
            assert stored == checkpoint
            reader = FrameReader.resume(stored, max_reread=9, **options)
        events = read(reader, place(more, 11))
        assert {event.writer_id for event in events if type(event) is FrameDropped} <= {writer}
        assert reader.stats.dropped[GIVEN_UP] == fates(events).count(GIVEN_UP)
        return fates(events)

    # Bare records are no chunks where there are no numbers.
    rest = [] if seq is None else [ORPHAN]
    assert fates_of(*whole[2:]) == [GIVEN_UP, *rest]
    assert fates_of(*silence(30), *whole[2:], *whole[2:3]) == [GIVEN_UP, *rest, *rest]
    # A whole copy, and what comes after it.
    assert fates_of(*whole) == [b"abcd"]
    assert fates_of(*whole, another) == ([b"abcd"] if is_counted else [b"abcd", b"x"])
    # Another frame, though it may be one that does not come to its end.
    assert fates_of(another) == [b"x"]
    assert fates_of(another, whole[3]) == [b"x", *rest]
    assert fates_of(head(b"xy", size=1, seq=another_seq(seq), writer=writer), whole[3]) == [
        DropReason.OVERFLOW,
        *rest,
    ]
    # The repeat of what had arrived proves nothing: it was sent before.
    if is_counted:
        assert fates_of(whole[1], whole[1]) == [ORPHAN, ORPHAN]
        assert fates_of(whole[1], whole[2]) == [ORPHAN, GIVEN_UP]


def another_seq(seq: int | None) -> int | None:
    return None if seq is None else 2


def test_a_jump_after_a_frame_that_was_given_up_is_a_loss_too() -> None:
    whole = frame([b"a", b"b", b"c"], seq=0, writer="a")
    events = read(make_reader(), place([whole[0], *silence(10), whole[2]]))
    assert list(without_details(events[-2:])) == [
        SequenceGapDetected("a", 11, 1, 2),
        FrameDropped(GIVEN_UP, "a", 0, 1, ""),
    ]


def test_a_loss_says_where_its_writer_went_on() -> None:
    first, second = frame([b"a", b"bcd"], seq=0, writer="a")
    *_, drop = read(make_reader(), place([first, *silence(10), second], 5))
    detail = "its writer went on with it at 16, after it had been given up"
    assert drop == FrameDropped(GIVEN_UP, "a", 5, 3, detail)


def test_a_head_that_is_dropped_begins_another_frame_all_the_same() -> None:
    first, second = frame([b"a", b"b"], seq=0, writer="a")
    large = head(b"", records=2, size=41, seq=1, writer="a")
    records = [first, *silence(10), large, chunk(b"", seq=2, writer="a"), second]
    assert fates(read(make_reader(), place(records))) == [
        INCOMPLETE,
        DropReason.TOO_LARGE,
        ORPHAN,
        ORPHAN,
    ]


def test_a_frame_that_was_dropped_for_another_reason_was_not_given_up() -> None:
    first, _, third = frame([b"a", b"b", b"c"], seq=0, writer="a")
    reader = make_reader()
    read(reader, place([first]))
    events = read(reader, place([*silence(1), chunk(b"b", seq=1, writer="a"), third], 5))
    assert fates(events) == [DropReason.TRIMMED, ORPHAN, ORPHAN]
    # Neither is one that was given up once and has begun anew.
    reader = make_reader()
    read(reader, place([first, *silence(10), first]))
    assert [lane.given_up for lane in reader.checkpoint().lanes] == [None]
    assert fates(read(reader, place([third], 12))) == [DropReason.SEQUENCE_GAP, ORPHAN]


def test_what_was_given_up_without_a_writer_is_not_remembered_for_ever() -> None:
    first, second = frame([b"a", b"b"])
    for following in (head(b"x"), second):
        reader = make_reader()
        read(reader, place([first, *silence(10)]))
        assert reader.checkpoint().lanes == (LaneCheckpoint(None, None, None, given_up=0),)
        read(reader, place([following], 11))
        assert reader.checkpoint().lanes == ()


def test_the_lane_without_numbers_is_no_writer_when_its_frame_was_given_up() -> None:
    records = [head(b"a", records=2, size=2), *silence(10), *numbered(0), *numbered(0, writer="b")]
    reader = FrameReader(max_reread=9, max_writers=1)
    events = read(reader, place(records))
    forgotten = [event for event in events if isinstance(event, WriterForgotten)]
    assert forgotten == [WriterForgotten("a", 0)]
    assert {lane.lane for lane in reader.checkpoint().lanes} == {None, b"b"}


def test_a_lowered_max_reread_gives_up_what_is_read_again() -> None:
    whole = frame([b"a", b"b", b"c"], seq=0, writer="a")
    records = place([*whole[:1], *silence(2), whole[1], *silence(4), whole[2], *whole])
    reader = FrameReader(start=0)
    read(reader, records[:5])
    later = FrameReader.resume(reader.checkpoint(), max_reread=3)
    assert fates(read(later, records)) == [INCOMPLETE, GIVEN_UP, b"abc"]
    # The same as if it had been so from the beginning.
    assert fates(read(FrameReader(start=0, max_reread=3), records)) == [
        INCOMPLETE,
        GIVEN_UP,
        b"abc",
    ]


# Limits on writers


def test_the_writer_longest_silent_is_forgotten_and_its_repeats_pass() -> None:
    def of(writer: str, seq: int) -> Record:
        return head(writer.encode(), seq=seq, writer=writer)

    reader = FrameReader(max_writers=2)
    records = [of("a", 0), of("b", 3), of("a", 1), of("c", 0), of("a", 1), of("b", 3)]
    assert list(read(reader, place(records)))[3:] == [
        WriterForgotten("b", 3),
        FrameReceived(b"c", 3, 4, 0, "c", ()),
        DuplicateDropped("a", 4, 1),
        WriterForgotten("c", 0),
        FrameReceived(b"b", 5, 6, 0, "b", ()),
    ]
    assert reader.stats.writers_forgotten == 2


def test_idle_writers_are_forgotten_before_open_frames_are_dropped() -> None:
    records = [
        head(b"a", records=2, size=2, seq=0, writer="a"),
        head(b"b", seq=0, writer="b"),
        head(b"c", records=2, size=2, seq=0, writer="c"),
        head(b"d", records=2, size=2, seq=0, writer="d"),
        chunk(b"", seq=1, writer="c"),
    ]
    events = read(FrameReader(max_writers=2), place(records))
    assert events[1] == WriterForgotten("b", 0)
    assert dropped(events)[0] == (DropReason.EVICTED, "a", 0, 1)
    assert "2" in next(event.detail for event in events if isinstance(event, FrameDropped))


def test_a_writer_whose_frame_was_evicted_is_forgotten_next() -> None:
    records = [
        head(b"a", seq=0, writer="a"),
        head(b"a", records=2, size=2, seq=1, writer="a"),
        head(b"b", seq=0, writer="b"),
        head(b"a", seq=0, writer="a"),
    ]
    events = read(FrameReader(max_writers=1), place(records))
    assert dropped(events) == [(DropReason.EVICTED, "a", 1, 1)]
    assert [event for event in events if isinstance(event, WriterForgotten)] == [
        WriterForgotten("a", 0),
        WriterForgotten("b", 0),
    ]
    assert payloads(events) == [b"a", b"b", b"a"]


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(head(b"x", size=41, seq=0, writer="b"), id="too large"),
        pytest.param(head(b"x", size=41, records=2, seq=0, writer="b"), id="too large, and open"),
        pytest.param(head(b"xy", size=1, seq=0, writer="b"), id="more than declared"),
        pytest.param(head(b"xy", size=1, records=2, seq=0, writer="b"), id="more, and open"),
        pytest.param(head(b"x", size=2, seq=0, writer="b"), id="less than declared"),
    ],
)
@pytest.mark.parametrize("is_open", [False, True])
def test_a_head_that_begins_no_frame_makes_nobody_forgotten(record: Record, is_open: bool) -> None:
    reader = FrameReader(max_writers=1, max_frame_bytes=40)
    first, second = frame([b"a", b"a"], seq=0, writer="a")
    known = first if is_open else head(b"a", seq=0, writer="a")
    events = read(reader, place([known, record, known, second]))
    assert not [event for event in events if isinstance(event, WriterForgotten)]
    assert reader.stats.writers_forgotten == 0
    assert [type(event) for event in events if type(event) is DuplicateDropped]
    assert payloads(events) == [b"aa" if is_open else b"a"]
    assert DropReason.EVICTED not in fates(events)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(head(b"x" * 40, seq=0, writer="b"), id="one record"),
        pytest.param(head(b"x" * 40, records=2, seq=0, writer="b"), id="the first of several"),
        pytest.param(head(b"x", records=2, size=40, seq=0, writer="b"), id="the rest comes"),
    ],
)
def test_a_head_that_begins_a_frame_makes_the_one_before_forgotten(record: Record) -> None:
    reader = FrameReader(max_writers=1, max_frame_bytes=40)
    events = read(reader, place([head(b"a", seq=0, writer="a"), record]))
    assert events[1] == WriterForgotten("a", 0)
    assert [lane.lane for lane in reader.checkpoint().lanes] == [b"b"]


def test_a_writer_whose_frame_was_lost_is_forgotten_in_its_turn() -> None:
    opened = head(b"a", records=2, size=2, seq=0, writer="a")
    reader = FrameReader(max_writers=2)
    too_long = chunk(b"abc", seq=1, writer="a")
    read(reader, place([opened, *numbered(0, writer="b"), too_long, *numbered(1, writer="b")]))
    assert [lane.lane for lane in reader.checkpoint().lanes] == [b"a", b"b"]
    assert read(reader, place(numbered(0, writer="c"), 4))[0] == WriterForgotten("a", None)


def test_the_lane_without_numbers_is_no_writer() -> None:
    records = [
        head(b"u", records=2, size=2),
        head(b"a", records=2, size=2, seq=0, writer="a"),
        head(b"b", records=2, size=2, seq=0, writer="b"),
        Record(b"u"),
        chunk(b"b", seq=1, writer="b"),
    ]
    events = read(FrameReader(max_writers=1), place(records))
    assert dropped(events) == [(DropReason.EVICTED, "a", 1, 1)]
    assert payloads(events) == [b"uu", b"bb"]


def test_records_that_are_not_remembered_forget_no_writer() -> None:
    known = head(b"a", seq=0, writer="a")
    strays = [
        chunk(b"x", seq=9, writer="b"),
        Record(b"x"),
        head(b"x"),
        Record(b"x", ((WRITER_ID, b"w"),)),
        fence("t"),
    ]
    events = read(FrameReader(max_writers=1), place([known, *strays, known]))
    assert not any(isinstance(event, WriterForgotten) for event in events)
    assert isinstance(events[-1], DuplicateDropped)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=40))
def test_no_more_writers_are_known_than_allowed(steps: list[tuple[int, int]]) -> None:
    reader = FrameReader(max_writers=3)
    for i, (writer, kind) in enumerate(steps):
        record = (
            head(b"a", records=2, size=2, seq=i, writer=str(writer))
            if kind == 0
            else chunk(b"a", seq=i, writer=str(writer))
            if kind == 1
            else head(b"a", seq=i, writer=str(writer))
        )
        read(reader, place([record], i))
        assert len(reader.checkpoint().lanes) <= 3


# Limits on memory


def test_max_buffered_bytes_evicts_the_frame_longest_silent() -> None:
    reader = FrameReader(max_frame_bytes=10, max_buffered_bytes=10)
    records = [
        head(b"aaaa", records=3, size=10, seq=0, writer="a"),
        head(b"bbbb", records=3, size=10, seq=0, writer="b"),
        chunk(b"a", seq=1, writer="a"),
        chunk(b"bb", seq=1, writer="b"),
        head(b"c", seq=0, writer="c"),
        chunk(b"bbbb", seq=2, writer="b"),
    ]
    events = read(reader, place(records[:3]))
    assert (events, reader.buffered_bytes) == ([], 9)
    events = read(reader, place(records[3:], 3))
    assert dropped(events) == [(DropReason.EVICTED, "a", 0, 5)]
    assert payloads(events) == [b"c", b"bbbbbbbbbb"]
    assert reader.buffered_bytes == 0


@pytest.mark.parametrize(("size", "drops"), [(5, 0), (6, 1), (10, 1)])
def test_a_head_that_brings_all_its_bytes_takes_room_while_it_is_open(
    size: int, drops: int
) -> None:
    reader = FrameReader(max_frame_bytes=10, max_buffered_bytes=10)
    others = frame([b"aaaaa", b"a"], seq=0, writer="a")
    whole = head(b"b" * size, records=2, size=size, seq=0, writer="b")
    events = read(reader, place([others[0], whole]))
    assert dropped(events) == [(DropReason.EVICTED, "a", 0, 5)] * drops
    assert reader.buffered_bytes == size + (0 if drops else 5)
    events = read(reader, place([chunk(b"", seq=1, writer="b"), others[1]], 2))
    assert fates(events) == [b"b" * size, DropReason.ORPHAN if drops else b"aaaaaa"]
    assert reader.buffered_bytes == 0


KEPT_BY_NOBODY = [
    pytest.param(chunk(b"x" * 9, seq=7, writer="b"), id="orphan"),
    pytest.param(head(b"x" * 9, seq=1, writer="b"), id="whole frame"),
    pytest.param(head(b"x" * 9, size=10, seq=1, writer="b"), id="too short"),
    pytest.param(head(b"x" * 9, records=2, size=10, seq=0, writer="b"), id="repeated head"),
    pytest.param(head(b"aaaa", records=3, size=10, seq=0, writer="a"), id="repeat of its own"),
    pytest.param(head(b"x" * 9, records=2, size=11, seq=1, writer="b"), id="too large"),
    pytest.param(head(b"x" * 9, records=2, size=8, seq=1, writer="b"), id="overflow"),
    pytest.param(Record(b"x" * 9), id="no headers"),
    pytest.param(Record(b"x" * 9, ((b"k", b""),)), id="foreign"),
    pytest.param(Record(b"x" * 9, ((WRITER_ID, b"k"),)), id="bad"),
    pytest.param(fence("x" * 9), id="command"),
]


@pytest.mark.parametrize("record", KEPT_BY_NOBODY)
def test_a_record_that_is_not_kept_evicts_nothing(record: Record) -> None:
    reader = FrameReader(max_frame_bytes=10, max_buffered_bytes=10)
    read(reader, place([head(b"b", seq=0, writer="b")]))
    read(reader, place([head(b"aaaa", records=3, size=10, seq=0, writer="a")], 1))
    events = read(reader, place([record], 2))
    assert not [drop for drop in dropped(events) if drop[0] is DropReason.EVICTED]
    rest = [chunk(b"aaa", seq=1, writer="a"), chunk(b"aaa", seq=2, writer="a")]
    assert payloads(read(reader, place(rest, 3))) == [b"a" * 10]


@pytest.mark.parametrize(
    "record",
    [
        Record(b"x" * 9, ((b"k", b""),)),
        Record(b"x" * 9, ((WRITER_ID, b"k"),)),
        fence("x" * 9),
    ],
    ids=["foreign", "bad", "command"],
)
def test_nor_does_one_that_is_in_no_lane_beside_a_frame_without_numbers(record: Record) -> None:
    reader = FrameReader(max_frame_bytes=10, max_buffered_bytes=10)
    a, bare = frame([b"aa", b"a"], seq=0, writer="a"), frame([b"bb", b"b"])
    events = read(reader, place([a[0], bare[0], record, a[1], bare[1]]))
    assert payloads(events) == [b"aaa", b"bbb"]
    assert DropReason.EVICTED not in fates(events)


@settings(max_examples=50)
@given(soups(gaps=False), st.integers(40, 60))
def test_buffered_bytes_stay_below_the_limit_and_return_to_zero(
    records: list[SequencedRecord], limit: int
) -> None:
    reader = FrameReader(max_frame_bytes=40, max_buffered_bytes=limit)
    for record in records:
        read(reader, [record])
        # An open frame may hold own headers beside its payload: one record beyond the limit.
        assert 0 <= reader.buffered_bytes <= limit + 3 * 400
    last = records[-1].seq_num + 1 if records else 0
    # A gap is the end of every open frame.
    read(reader, place([Record(b"", ((b"k", b""),))], last + 1))
    assert reader.buffered_bytes == 0
    assert [lane for lane in reader.checkpoint().lanes if lane.head is not None] == []


def test_frames_of_many_writers_are_bounded_together() -> None:
    reader = FrameReader(max_frame_bytes=1000, max_buffered_bytes=5000)
    records = [head(bytes(900), records=2, size=1000, seq=0, writer=str(i)) for i in range(100)]
    events = read(reader, place(records))
    assert reader.buffered_bytes <= 5000
    assert [drop[1] for drop in dropped(events)] == [str(i) for i in range(95)]


# Memory, measured


def peak_of(work: Callable[[], object]) -> tuple[int, int]:
    """Bytes allocated at most, and those kept, while `work` ran."""
    tracemalloc.start()
    try:
        kept = work()
        current, peak = tracemalloc.get_traced_memory()
        del kept
    finally:
        tracemalloc.stop()
    return peak, current


@pytest.mark.parametrize("seq", [None, 0])
@pytest.mark.parametrize(
    ("num_records", "num_bytes"), [(2**60, 2**60), (2**60, 40), (2, 40), (U64_MAX, U64_MAX)]
)
def test_what_a_head_declares_allocates_nothing(
    seq: int | None, num_records: int, num_bytes: int
) -> None:
    declared = head(b"x", records=num_records, size=num_bytes, seq=seq)
    batch = encode(place([declared]))
    # The limit is raised so that the declared size passes where it can.
    reader = FrameReader(max_frame_bytes=2**62)
    peak, _ = peak_of(lambda: list(reader.receive_batch(batch)))
    assert peak < 20 * KIB


def test_many_small_chunks_cost_little() -> None:
    count = 20_000
    parts = place([head(b"x", records=count + 1, size=count + 1), *([Record(b"y")] * count)])
    reader = FrameReader()
    read(reader, parts[:10])
    _, kept = peak_of(lambda: read(reader, parts[10:-1]))
    assert kept < 2 * count
    assert reader.buffered_bytes == count
    assert payloads(read(reader, parts[-1:])) == [b"x" + b"y" * count]


def test_many_empty_chunks_cost_nothing() -> None:
    count = 20_000
    parts = place([head(b"x", records=count + 1, size=1), *([Record(b"")] * count)])
    reader = FrameReader()
    read(reader, parts[:10])
    _, kept = peak_of(lambda: read(reader, parts[10:-1]))
    assert kept < KIB
    assert payloads(read(reader, parts[-1:])) == [b"x"]


def test_a_small_chunk_does_not_keep_its_batch() -> None:
    def receive() -> FrameReader:
        reader = FrameReader()
        small = head(b"x" * 1000, records=2, size=2000, seq=0, writer="a")
        filler = head(bytes(500 * KIB), seq=0, writer="b")
        list(reader.receive_batch(encode(place([small, filler]))))
        # Until then all of it may be wanted again.
        assert reader.can_rewind
        reader.forget_batch()
        assert not reader.can_rewind
        return reader

    _, kept = peak_of(receive)
    assert kept < 20 * KIB


def test_a_received_payload_does_not_keep_its_batch() -> None:
    def receive() -> list[ReaderEvent]:
        small, large = head(b"x" * 1000, seq=0, writer="a"), head(bytes(MIB), seq=1, writer="a")
        return read_batches(FrameReader(), [encode(place([small, large]))])[:1]

    _, kept = peak_of(receive)
    assert kept < 20 * KIB


def test_payloads_are_bytes_however_they_come() -> None:
    for size in (1, 64 * KIB, MIB - 100):
        records = place(frame([bytes(size), bytes(size)], seq=0, writer="a"))
        records += place([head(bytes(size), seq=2, writer="a")], 2)
        views = [SequencedRecord(r.seq_num, 0, r.headers, memoryview(r.body)) for r in records]
        for events in (
            read_batches(FrameReader(), cut(records, 1)),
            read_batches(FrameReader(), cut(records, 3)),
            read(FrameReader(), views),
        ):
            assert [type(payload) for payload in payloads(events)] == [bytes] * 2
            assert payloads(events) == [bytes(2 * size), bytes(size)]


def test_large_chunks_fill_the_limit_to_the_last_byte() -> None:
    # Each view keeps its whole batch alive, which is more than the limit allows in sum.
    parts = [*(bytes([i]) * 100_000 for i in range(5)), b"z"]
    records = place(frame(parts, seq=0, writer="a"))
    reader = FrameReader(max_frame_bytes=500_001, max_buffered_bytes=500_001)
    events = []
    for batch in cut(records, 1):
        events += list(reader.receive_batch(batch))
        assert reader.buffered_bytes <= 500_001
    assert payloads(events) == [b"".join(parts)]
    assert reader.buffered_bytes == 0


def test_remembered_writers_take_little_memory() -> None:
    reader = FrameReader(max_writers=100)
    records = place([head(b"x", seq=0, writer=f"{i:0>256}") for i in range(2000)])
    read(reader, records[:1])

    def receive() -> None:
        for _ in reader.receive_records(records[1:]):
            pass

    _, kept = peak_of(receive)
    assert kept < 100 * KIB


# The iterator


def test_state_advances_as_events_are_taken() -> None:
    reader = FrameReader(start=0)
    records = place([head(bytes([65 + i]), seq=i, writer="a") for i in range(3)])
    events = reader.receive_records(records)
    assert reader.checkpoint() == Checkpoint(0, 0, is_begun=False)
    for i in range(3):
        next(events)
        lane = LaneCheckpoint(b"a", i, None)
        assert reader.checkpoint() == Checkpoint(i + 1, i + 1, (lane,))
        assert reader.next_seq_num == i + 1
        assert reader.stats.frames == i + 1
    assert list(events) == []


def begin_records(reader: FrameReader) -> Iterator[ReaderEvent]:
    return reader.receive_records(place([head(b"a"), head(b"b")]))


def begin_batch(reader: FrameReader) -> Iterator[ReaderEvent]:
    return reader.receive_batch(encode(place([head(b"a"), head(b"b")]), 2))


@pytest.mark.parametrize("begin", [begin_records, begin_batch])
@pytest.mark.parametrize("taken", [0, 1, 2])
@pytest.mark.parametrize(
    "more",
    [
        lambda reader: reader.receive_records(place([head(b"c")], 2)),
        lambda reader: reader.receive_batch(encode(place([head(b"c")], 2))),
        lambda reader: reader.receive_eof(),
    ],
    ids=["records", "batch", "eof"],
)
def test_nothing_is_received_before_all_events_were_taken(
    begin: Callable[[FrameReader], Iterator[ReaderEvent]],
    taken: int,
    more: Callable[[FrameReader], Iterator[ReaderEvent]],
) -> None:
    reader = FrameReader(start=0)
    events = begin(reader)
    for _ in range(taken):
        next(events)
    with pytest.raises(LocalProtocolError, match="take all events"):
        list(more(reader))
    assert reader.next_seq_num == taken
    rest = list(events)
    assert payloads(rest) == [b"a", b"b"][taken:]
    assert payloads(list(more(reader))) in ([b"c"], [])


def test_a_lost_connection_discards_what_was_not_taken() -> None:
    reader = FrameReader(start=0)
    records = place([head(b"a"), head(b"b")])
    next(reader.receive_records(records))
    reader.connection_lost()
    assert reader.next_seq_num == 1
    assert payloads(read(reader, records[1:])) == [b"b"]


def test_sequence_numbers_that_go_back_are_refused_and_the_reader_goes_on() -> None:
    reader = FrameReader()
    read(reader, place(frame([b"a", b"b"], seq=0, writer="a")[:1], 5))
    before = reader.checkpoint()
    for seq_num in (5, 4, 0):
        with pytest.raises(RemoteProtocolError, match=f"record {seq_num} came where 6 was next"):
            read(reader, place([head(b"x")], seq_num))
        assert reader.checkpoint() == before
    events = read(reader, place([chunk(b"b", seq=1, writer="a")], 6))
    assert payloads(events) == [b"ab"]


def test_numbers_that_go_back_inside_a_batch_are_found_after_the_records_before() -> None:
    reader = FrameReader()
    events = reader.receive_records(place([head(b"a"), head(b"b"), head(b"c")], at=[7, 8, 8]))
    assert payloads([next(events), next(events)]) == [b"a", b"b"]
    with pytest.raises(RemoteProtocolError, match="record 8 came where 9"):
        next(events)
    assert payloads(read(reader, place([head(b"d")], 9))) == [b"d"]


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("options", [{}, {"end": U64_MAX}], ids=str)
def test_the_last_sequence_number_is_no_records(count: int, options: dict[str, Any]) -> None:
    """The tail after it would be no u64, so that no checkpoint could say where to go on."""
    records = [head(b"x", seq=n, writer="w") for n in range(20 + count)]
    start = U64_MAX - len(records) + 1
    reader = FrameReader(**options)
    assert len(payloads(reader.receive_batch(encode(place(records[:20], start))))) == 20
    rest = reader.receive_batch(encode(place(records[20:], start + 20)))
    assert len(payloads(islice(rest, count - 1))) == count - 1
    with pytest.raises(RemoteProtocolError, match=f"sequence number {U64_MAX}"):
        next(rest)
    assert reader.next_seq_num == U64_MAX
    assert Checkpoint.from_json(reader.checkpoint().to_json()) == reader.checkpoint()


def test_a_garbled_batch_is_refused_and_the_reader_goes_on() -> None:
    reader = FrameReader()
    batch = encode(place([head(b"a"), head(b"b")]))
    events: list[ReaderEvent] = []
    with pytest.raises(RemoteProtocolError):
        events.extend(reader.receive_batch(batch[:-1]))
    assert payloads(events) == [b"a"]
    assert reader.next_seq_num == 1
    assert payloads(read_batches(reader, [encode(place([head(b"b")], 1))])) == [b"b"]


# The end of the books


def test_eof_tells_of_incomplete_frames_and_leaves_the_checkpoint() -> None:
    reader = FrameReader()
    read(
        reader,
        place(
            [
                head(b"bb", records=2, size=9, seq=3, writer="b"),
                head(b"a", records=3, size=9),
                chunk(b"a"),
                head(b"x", seq=0, writer="x"),
                fence("t"),
            ]
        ),
    )
    before = reader.checkpoint()
    buffered = reader.buffered_bytes
    events = list(reader.receive_eof())
    assert dropped(events) == [
        (DropReason.INCOMPLETE, "b", 0, 2),
        (DropReason.INCOMPLETE, None, 1, 2),
    ]
    assert reader.checkpoint() == before
    assert reader.buffered_bytes == buffered
    assert before.read_from == 0


@pytest.mark.parametrize("is_consumed", [True, False])
def test_nothing_is_received_after_eof(is_consumed: bool) -> None:
    reader = FrameReader()
    read(reader, place([head(b"a", records=2, size=2)]))
    end = reader.receive_eof()
    if is_consumed:
        assert len(list(end)) == 1
    with pytest.raises(LocalProtocolError, match="no more records"):
        list(reader.receive_records(place([chunk(b"b")], 1)))
    with pytest.raises(LocalProtocolError, match="no more records"):
        list(reader.receive_batch(b""))
    with pytest.raises(LocalProtocolError, match="no more records"):
        list(reader.receive_batch_at_once(b""))
    # Once is enough, but no error: an end may be told twice.
    assert len(list(reader.receive_eof())) == (0 if is_consumed else 1)
    assert list(reader.receive_eof()) == []
    assert reader.stats.dropped[DropReason.INCOMPLETE] == 1


def test_eof_with_nothing_open_says_nothing() -> None:
    reader = FrameReader()
    read(reader, place([head(b"a")]))
    assert list(reader.receive_eof()) == []


# The tail


def test_caught_up_comes_once_and_again_when_something_changed() -> None:
    reader = FrameReader(start=0)
    batch = place([head(b"a"), head(b"b")])
    at_two, later = StreamPosition(2, 0), StreamPosition(2, 9)
    assert read_batches(reader, [encode(batch[:1], 2)])[1:] == []
    assert reader.caught_up is None
    assert read_batches(reader, [encode(batch[1:], 2)])[1:] == [CaughtUp(at_two)]
    assert reader.caught_up == at_two
    assert read_batches(reader, [encode([], 2)] * 2) == []
    assert read_batches(reader, [encode([], 2, 9)]) == [CaughtUp(later)]
    assert len(read_batches(reader, [encode(place([head(b"c")], 2))])) == 1
    assert reader.caught_up is None
    assert read_batches(reader, [encode([], 3)]) == [CaughtUp(StreamPosition(3, 0))]
    reader.connection_lost()
    assert reader.caught_up is None
    assert read_batches(reader, [encode([], 3)]) == [CaughtUp(StreamPosition(3, 0))]


def test_caught_up_ends_when_the_tail_moves_on() -> None:
    reader = FrameReader(start=0)
    read_batches(reader, [encode(place([head(b"a")]), 1)])
    assert len(read_batches(reader, [encode(place([head(b"b")], 1), 5)])) == 1
    assert reader.caught_up is None


def test_a_heartbeat_jumps_over_a_trimmed_region() -> None:
    reader = FrameReader(start=0)
    read(reader, place([head(b"a", records=2, size=2, seq=0, writer="a")]))
    events = read_batches(reader, [encode([], 9)])
    assert dropped(events[:1]) == [(DropReason.TRIMMED, "a", 0, 1)]
    assert events[1:] == [GapDetected(1, 9), CaughtUp(StreamPosition(9, 0))]
    assert reader.checkpoint() == Checkpoint(9, 9, (LaneCheckpoint(b"a", None, None, seen=0),))
    assert payloads(read(reader, place([head(b"b")], 9))) == [b"b"]


def test_a_heartbeat_is_no_gap_where_reading_begins_anywhere() -> None:
    reader = FrameReader()
    assert read_batches(reader, [encode([], 9)]) == [CaughtUp(StreamPosition(9, 0))]
    assert reader.next_seq_num == 9


def lost(events: Sequence[ReaderEvent]) -> list[tuple[int, int, bool]]:
    found = [event for event in events if isinstance(event, GapDetected)]
    return [(gap.expected, gap.actual, gap.is_loss) for gap in found]


def resumed(reader: FrameReader) -> FrameReader:
    return FrameReader.resume(Checkpoint.from_json(reader.checkpoint().to_json()))


@pytest.mark.parametrize("goes_on", [False, True], ids=["the same", "resumed"])
@pytest.mark.parametrize("as_tail", [False, True], ids=["record", "tail"])
def test_a_gap_at_0_is_a_loss_once_the_stream_was_seen_to_begin_there(
    goes_on: bool, as_tail: bool
) -> None:
    def go_on(reader: FrameReader) -> list[tuple[int, int, bool]]:
        if goes_on:
            reader = resumed(reader)
        reader.connection_lost()
        following = [encode([], 100)] if as_tail else [encode(place([head(b"a")], 100))]
        return lost(read_batches(reader, following))

    # 0 means the first record there is, as long as nothing was seen.
    assert go_on(FrameReader(start=0)) == [(0, 100, False)]
    reader = FrameReader(start=0)
    assert read_batches(reader, [encode([])]) == []
    assert not reader.checkpoint().is_begun
    assert go_on(reader) == [(0, 100, False)]
    # The tail was there, and what was appended since is gone.
    reader = FrameReader(start=0)
    assert read_batches(reader, [encode([], 0)]) == [CaughtUp(StreamPosition(0, 0))]
    assert reader.checkpoint().is_begun
    assert go_on(reader) == [(0, 100, True)]
    # A batch that tells nothing changes nothing.
    reader = FrameReader(start=0)
    assert len(read_batches(reader, [encode([], 0), encode([])])) == 1
    assert go_on(reader) == [(0, 100, True)]
    # So was a record, or what was missing before it.
    reader = FrameReader(start=0)
    read(reader, place([head(b"a")]))
    assert go_on(reader) == [(1, 100, True)]
    reader = FrameReader(start=0)
    assert lost(read(reader, place([head(b"a")], 3))) == [(0, 3, False)]
    assert go_on(reader) == [(4, 100, True)]
    # Any other number means the record itself.
    assert go_on(FrameReader(start=1)) == [(1, 100, True)]


def test_a_gap_that_is_no_loss_is_counted_too() -> None:
    reader = FrameReader(start=0)
    read(reader, place([head(b"a")], 3))
    assert reader.stats.gaps == 1


@pytest.mark.parametrize("data", [b"", encode([])])
def test_a_batch_of_nothing_changes_nothing(data: bytes) -> None:
    reader = FrameReader()
    assert read_batches(reader, [data]) == []
    assert reader.next_seq_num is None


def test_reading_may_begin_anywhere_or_where_it_is_told() -> None:
    records = place([head(b"a")], 7)
    assert len(read(FrameReader(), records)) == 1
    assert read(FrameReader(start=5), records)[0] == GapDetected(5, 7)
    assert read(FrameReader(start=7), records)[0] != GapDetected(5, 7)
    with pytest.raises(RemoteProtocolError):
        read(FrameReader(start=8), records)


def test_no_checkpoint_before_the_first_record() -> None:
    reader = FrameReader()
    with pytest.raises(LocalProtocolError, match="first record"):
        reader.checkpoint()
    assert FrameReader(start=3).checkpoint() == Checkpoint(3, 3)


# The end of what is wanted


def truncated(records: list[SequencedRecord], end: int) -> list[SequencedRecord]:
    return [record for record in records if record.seq_num < end]


def up_to(events: list[ReaderEvent], records: list[SequencedRecord], end: int) -> list[ReaderEvent]:
    """The events of the records below `end`, and of what lies between them and the end."""
    reader = FrameReader(end=end)
    kept = truncated(records, end)
    list(reader.receive_records(kept))
    first_left = next((r.seq_num for r in records if r.seq_num >= end), None)
    expected = reader.next_seq_num
    if first_left is None or expected is None or expected == end:
        return events
    # A gap goes through the end: up to there it is told.
    return [*events, *read(reader, place([Record(b"", ((b"own", b""),))], end))]


@given(soups(), st.integers(0, 40), st.integers(1, 5), st.booleans())
def test_what_lies_beyond_the_end_is_not_there(
    records: list[SequencedRecord], offset: int, size: int, as_batches: bool
) -> None:
    end = (records[0].seq_num if records else 0) + offset
    reader = FrameReader(end=end)
    events: list[ReaderEvent] = []
    for at in range(0, len(records), size):
        part = records[at : at + size]
        events += reader.receive_batch(encode(part)) if as_batches else read(reader, part)
        following = reader.next_seq_num
        assert reader.has_reached_end is (following is not None and following >= end)
    model = Model(DEFAULT_MAX_FRAME_BYTES, DEFAULT_MAX_REREAD)
    model.read(truncated(records, end))
    expected = up_to(model.events, records, end)
    assert list(without_details(events)) == list(without_details(expected))
    if records and records[-1].seq_num >= end:
        assert reader.has_reached_end
        assert reader.checkpoint().seen_through == max(end, 0)
    assert reader.stats.records == len(truncated(records, end))


@given(soups(gaps=False), st.integers(0, 40), st.integers(0, 40))
def test_a_reader_that_goes_on_from_a_checkpoint_stops_at_the_end_too(
    records: list[SequencedRecord], stop: int, offset: int
) -> None:
    whole = FrameReader()
    everything = read(whole, records)
    first = FrameReader(start=records[0].seq_num if records else 0)
    taken = list(islice(first.receive_records(records), stop))
    first.connection_lost()
    checkpoint = first.checkpoint()
    end = checkpoint.read_from + offset
    later = FrameReader.resume(checkpoint, end=end)
    left = [record for record in records if record.seq_num >= checkpoint.read_from]
    events = taken + read(later, left)
    assert payloads(events) == [
        received.payload
        for i, received in enumerate(frames_in(everything))
        if i < len(frames_in(taken)) or received.end <= end
    ]
    if left and left[-1].seq_num >= end:
        assert later.has_reached_end
    assert later.checkpoint().seen_through == max(checkpoint.seen_through, later.next_seq_num or 0)


def test_an_end_is_not_passed_by_a_heartbeat() -> None:
    reader = FrameReader(start=3, end=5)
    assert not reader.has_reached_end
    assert read_batches(reader, [encode([], tail=9)]) == [GapDetected(3, 5)]
    assert reader.has_reached_end
    assert reader.checkpoint() == Checkpoint(5, 5)
    assert reader.caught_up is None
    assert read_batches(reader, [encode([], tail=9)]) == []


def test_an_end_at_the_tail_is_caught_up() -> None:
    reader = FrameReader(start=0, end=1)
    events = read_batches(reader, [encode(place([head(b"a")]), tail=1)])
    assert events[1:] == [CaughtUp(StreamPosition(1, 0))]
    assert reader.has_reached_end
    # One record more, and it is not.
    assert read(reader, place([head(b"b")], 1)) == []
    assert reader.caught_up is None
    assert reader.stats.records == 1


@pytest.mark.parametrize("end", [0, 3, 9])
def test_an_end_at_or_before_the_start(end: int) -> None:
    reader = FrameReader(start=9, end=end)
    assert reader.has_reached_end
    for _ in range(2):
        assert read(reader, place([head(b"a")], 9)) == []
        assert read_batches(reader, [encode(place([head(b"a")], 10), tail=11)]) == []
    assert reader.checkpoint() == Checkpoint(9, 9)
    assert reader.stats.gaps == reader.stats.records == 0


def test_an_end_is_reached_by_the_last_record_before_it() -> None:
    reader = FrameReader(end=2)
    assert not reader.has_reached_end
    read(reader, place([head(b"a")]))
    assert not reader.has_reached_end
    read(reader, place([head(b"b")], 1))
    assert reader.has_reached_end
    assert not FrameReader(start=2**64 - 1).has_reached_end


def test_an_end_goes_through_open_frames() -> None:
    records = frame([b"a", b"b", b"c"], seq=0, writer="w")
    reader = FrameReader(end=2)
    assert read(reader, place(records)) == []
    assert reader.checkpoint() == Checkpoint(0, 2, (LaneCheckpoint(b"w", None, 0, seen=1),))
    (dropped,) = reader.receive_eof()
    assert isinstance(dropped, FrameDropped)
    assert dropped.reason is DropReason.INCOMPLETE
    later = FrameReader.resume(reader.checkpoint())
    assert payloads(read(later, place(records))) == [b"abc"]


# Arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_frame_bytes": 0}, "max_frame_bytes .* not 0"),
        ({"max_frame_bytes": -1}, "max_frame_bytes .* not -1"),
        ({"max_frame_bytes": 1.5}, "max_frame_bytes .* not 1.5"),
        ({"max_writers": 0}, "max_writers .* not 0"),
        ({"max_writers": "9"}, "max_writers .* not '9'"),
        ({"max_reread": 0}, "max_reread .* not 0"),
        ({"max_reread": None}, "max_reread .* not None"),
        ({"end": -1}, "end must be an int"),
        ({"end": 2**64}, "end must be an int"),
        ({"start": -1}, "start .* not -1"),
        ({"start": "0"}, "start .* not '0'"),
        ({"start": 1.0}, "start .* not 1.0"),
        ({"max_buffered_bytes": "9"}, "max_buffered_bytes .* not '9'"),
        ({"max_buffered_bytes": 2.5e9}, "max_buffered_bytes .* not 2"),
        ({"max_buffered_bytes": 1024}, r"max_buffered_bytes \(1024\).*max_frame_bytes"),
        (
            {"max_buffered_bytes": DEFAULT_MAX_FRAME_BYTES - 1},
            rf"max_buffered_bytes .*max_frame_bytes \({DEFAULT_MAX_FRAME_BYTES}\)",
        ),
        ({"max_frame_bytes": True}, "max_frame_bytes .* not True"),
    ],
)
def test_refuses_arguments(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named):
        FrameReader(**arguments)


def test_defaults() -> None:
    assert DEFAULT_MAX_WRITERS == 4096
    assert DEFAULT_MAX_REREAD == 1_000_000
    assert DEFAULT_MAX_BUFFERED_BYTES >= 2 * DEFAULT_MAX_FRAME_BYTES


def test_the_least_that_is_allowed() -> None:
    reader = FrameReader(
        start=0, max_frame_bytes=1, max_writers=1, max_buffered_bytes=1, max_reread=1
    )
    assert payloads(read(reader, place([head(b"a"), head(b"bb"), head(b"c")]))) == [b"a", b"c"]
    # With no word on buffers there is room for the largest frame.
    FrameReader(max_frame_bytes=2**40)


# Hostile bytes


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    reader = make_reader()
    try:
        events = list(reader.receive_batch(data))
    except RemoteProtocolError:
        return
    assert all(isinstance(event, ReaderEvent) for event in events)


@settings(max_examples=50)
@given(soups(), st.data())
def test_mutated_batches_raise_nothing_else(
    records: list[SequencedRecord], data: st.DataObject
) -> None:
    batch = bytearray(encode(records, 40))
    for _ in range(data.draw(st.integers(1, 4))):
        if batch:
            batch[data.draw(st.integers(0, len(batch) - 1))] = data.draw(st.integers(0, 255))
    reader = make_reader()
    events: list[ReaderEvent] = []
    try:
        events.extend(reader.receive_batch(bytes(batch)))
    except RemoteProtocolError:
        reader.connection_lost()
    assert all(isinstance(event, ReaderEvent) for event in events)
    if reader.next_seq_num is not None and reader.next_seq_num < U64_MAX - 1:
        # Whatever came, a reader goes on and can be resumed.
        following = place([head(b"x", seq=U64_MAX, writer="new")], reader.next_seq_num)
        assert payloads(read(reader, following)) == [b"x"]
        Checkpoint.from_json(reader.checkpoint().to_json())


@given(
    st.lists(
        st.builds(
            SequencedRecord,
            st.just(0),
            u64s,
            st.lists(
                st.tuples(
                    st.sampled_from([FRAME_RECORDS, FRAME_BYTES, DEDUPE_SEQ, WRITER_ID, b"", b"k"]),
                    st.binary(max_size=9) | u64s.map(encode_u64),
                ),
                max_size=6,
            ).map(tuple),
            st.binary(max_size=9),
        ),
        max_size=12,
    )
)
def test_any_headers_make_events(records: list[SequencedRecord]) -> None:
    placed = [
        SequencedRecord(i, record.timestamp, record.headers, record.body)
        for i, record in enumerate(records)
    ]
    events = read(make_reader(), placed)
    assert all(isinstance(event, ReaderEvent) for event in events)
    assert read_batches(make_reader(), [encode(placed)]) == events


@settings(max_examples=50)
@given(lane_frames("a", is_numbered=True, max_frames=6))
def test_every_prefix_of_a_stream_gives_a_prefix_of_its_messages(records: list[Record]) -> None:
    whole = payloads(read(FrameReader(), place(records)))
    for end in range(len(records)):
        part = payloads(read(FrameReader(), place(records[:end])))
        assert part == whole[: len(part)]


# Runs: records that look alike are taken together, and it must not show


def similar(count: int, *, seq: int = 0, writer: str = "w", size: int = 6) -> list[Record]:
    """Messages of one record that look alike."""
    return [head(b"%0*d" % (size, i), seq=seq + i, writer=writer) for i in range(count)]


def step_by_step(events: Iterator[ReaderEvent], reader: FrameReader) -> list[object]:
    """Each event, and where the reader is then."""
    seen: list[object] = []
    for event in events:
        seen += (event, reader.checkpoint(), deepcopy(reader.stats))
    return seen


def check_runs(records: Sequence[Record], first: int, **options: Any) -> None:
    """A reader makes of an encoded batch what it makes of its records one by one."""
    placed = place(records, first, timestamp=77)
    at_once, singly = (FrameReader(**options) for _ in range(2))
    # The first batch teaches the scanner what the records look like.
    for part in (placed[:20], placed[20:]):
        batch = encode(part)
        found = step_by_step(at_once.receive_batch(batch), at_once)
        assert found == step_by_step(singly.receive_records(part), singly)
    assert at_once.stats == singly.stats
    assert at_once.checkpoint() == singly.checkpoint()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"start": 1},
        {"start": 5},
        {"end": 70},
        {"end": 25},
        {"dedupe": False},
        {"max_writers": 1},
        {"max_frame_bytes": 5},
    ],
    ids=str,
)
def test_a_run_is_read_like_its_records(options: dict[str, Any]) -> None:
    check_runs(similar(100), 5, **options)


@pytest.mark.parametrize(
    ("options", "is_together"),
    [
        ({}, True),
        ({"end": 105}, True),
        ({"end": 104}, False),
        ({"max_frame_bytes": 6}, True),
        ({"max_frame_bytes": 5}, False),
        ({"max_writers": 2}, True),
        ({"max_writers": 1}, False),
        ({"dedupe": False}, False),
    ],
    ids=str,
)
def test_what_can_be_is_taken_together(options: dict[str, Any], is_together: bool) -> None:
    records = place(similar(100), 5, timestamp=77)
    reader = FrameReader(start=5, **options)
    list(reader.receive_batch_at_once(encode(records[:84])))
    events = list(reader.receive_batch_at_once(encode(records[84:])))
    kinds = {type(event) for event in events}
    assert (kinds == {FramesReceived}) is is_together
    assert is_together or FramesReceived not in kinds


@pytest.mark.parametrize("at_once", [False, True])
def test_a_gap_before_a_run_is_told(at_once: bool) -> None:
    reader = FrameReader(start=5)
    receive = reader.receive_batch_at_once if at_once else reader.receive_batch
    list(receive(encode(place(similar(20), 5, timestamp=77))))
    following = encode(place(similar(30, seq=20), 40, timestamp=77))
    gap, *_ = receive(following)
    assert gap == GapDetected(25, 40)
    assert (reader.stats.gaps, reader.stats.frames) == (1, 50)
    # Nor may its first record lie behind.
    with pytest.raises(RemoteProtocolError, match="record 40 came where 70 was next"):
        list(receive(following))


OTHERS: dict[str, list[Record]] = {
    "repeats": similar(30, seq=40),
    "a gap": similar(30, seq=200),
    "another writer": similar(30, writer="v"),
    "an open frame": frame([b"1", b"2", b"3"], seq=100, writer="w")[:2],
    "another's open frame": frame([b"1", b"2", b"3"], seq=0, writer="v")[:2],
    "a command": [trim(0)],
    "a plain record": [Record(b"plain")],
    "another size": similar(30, seq=100, size=7),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("options", [{}, {"dedupe": False}, {"max_writers": 1}], ids=str)
def test_a_run_beside_something_else(other: list[Record], options: dict[str, Any]) -> None:
    check_runs([*similar(60), *other, *similar(60, seq=60), *similar(60, seq=300)], 5, **options)


@pytest.mark.parametrize("taken", range(0, 101, 7))
def test_a_checkpoint_inside_a_run(taken: int) -> None:
    records = place(similar(100), 5, timestamp=77)
    reader = FrameReader(start=5)
    events = reader.receive_batch(encode(records))
    for _ in range(taken):
        next(events)
    resumed = FrameReader.resume(reader.checkpoint())
    assert resumed.next_seq_num == 5 + taken
    rest = payloads(resumed.receive_batch(encode(records[taken:])))
    assert rest == [record.body for record in records[taken:]]
    # What a retry appends once more is known.
    again = place(similar(100), 105, timestamp=77)
    assert payloads(resumed.receive_batch(encode(again))) == []
    assert resumed.stats.duplicates == 100


def test_a_run_of_records_that_were_accounted_for_is_silent() -> None:
    """Of a writer that was forgotten, for the sake of a frame that then is not read back."""
    opened = head(b"o", records=2, size=2, seq=0, writer="o")
    records = place([opened, *similar(60, writer="v"), *similar(3, writer="w")], timestamp=77)
    reader = FrameReader(start=0, max_writers=2)
    events = read_batches(reader, [encode(records[:20]), encode(records[20:])])
    assert WriterForgotten("v", 59) in events
    stored = Checkpoint.from_json(reader.checkpoint().to_json())
    assert (stored.read_from, stored.seen_through) == (0, 64)
    assert b"v" not in [lane.lane for lane in stored.lanes]
    # What is left of the stream begins after the head; the second half of it looks alike.
    left = [*records[5:], *place(similar(40, seq=60, writer="v"), 64, timestamp=77)]
    for at_once in (False, True):
        later = FrameReader.resume(stored, max_writers=2)
        receive = later.receive_batch_at_once if at_once else later.receive_batch
        found: list[Any] = []
        for batch in (encode(left[:30]), encode(left[30:])):
            for event in receive(batch):
                found += event.singly() if isinstance(event, FramesReceived) else [event]
        assert dropped(found) == [(DropReason.TRIMMED, "o", 0, 0)]
        assert payloads(found) == [record.body for record in left[59:]]
        assert later.stats.frames == 40
        assert lost(found) == []


@pytest.mark.parametrize("taken", range(0, 61, 12))
def test_a_run_across_seen_through_is_taken_from_there_on(taken: int) -> None:
    records = place([*similar(20), *similar(60, seq=20)], timestamp=77)
    # By hand: of the writer nothing is known, so that only the place says what was taken.
    stored = Checkpoint(20 + taken, 20 + taken)
    late = FrameReader.resume(evolve(stored, read_from=0, lanes=(LaneCheckpoint(None, None, 0),)))
    late_events = read_batches(late, [encode(records[1:20]), encode(records[20:])])
    assert payloads(late_events) == [record.body for record in records[20 + taken :]]


@pytest.mark.parametrize("first", [30, 5, 0])
def test_a_run_after_a_frame_that_was_lost(first: int) -> None:
    """It may go on after the frame, or be numbered as the frame was."""
    lost_frame = [
        head(b"x", records=40, size=40, seq=0, writer="w"),
        *(chunk(b"x", seq=seq, writer="w") for seq in range(1, 30)),
    ]
    taught = similar(20, writer="v")
    records = place([*taught, *lost_frame], timestamp=77)
    following = place([*similar(20, seq=first), chunk(b"x", seq=29, writer="w")], 60, timestamp=77)
    last = place([*similar(1, seq=max(first + 20, 30)), *similar(1, seq=99)], 81, timestamp=77)
    results = []
    for batches in ([encode(part) for part in (records, following, last)], None):
        reader = FrameReader(start=0)
        parts = (records, following, last)
        results.append(
            [event for part in parts for event in reader.receive_records(part)]
            if batches is None
            else read_batches(reader, batches)
        )
        assert reader.checkpoint().lanes[-1] == LaneCheckpoint(b"w", 99, None)
        assert reader.stats.frames == 42
    events = results[0]
    assert events == results[1]
    # The gap took the frame; what was looked at in it is no jump, whatever the run's numbers are.
    assert fates(events[20:])[0] is DropReason.TRIMMED
    assert [(jump[2], jump[3]) for jump in jumps(events)] == [(max(first + 20, 30) + 1, 99)]


def test_a_run_begins_another_frame_after_one_that_was_given_up() -> None:
    opened = head(b"x", records=9, size=9, seq=20, writer="w")
    records = place([*similar(20), opened, *silence(10)], timestamp=77)
    # So many are one run, with nothing behind.
    following = place(similar(16, seq=21), 31, timestamp=77)
    for at_once in (False, True):
        reader = FrameReader(start=0, max_reread=9)
        assert fates(read_batches(reader, [encode(records)]))[20:] == [INCOMPLETE]
        receive = reader.receive_batch_at_once if at_once else reader.receive_batch
        list(receive(encode(following)))
        assert reader.stats.frames == 36
        assert [lane.given_up for lane in reader.checkpoint().lanes] == [None]
        assert fates(read(reader, place([chunk(b"x", seq=37, writer="w")], 47))) == [ORPHAN]
