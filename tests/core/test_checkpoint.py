from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from frames import chunk, cut, encode, frame, head, payloads, place, read, read_batches, soups
from s2frames.checkpoint import Checkpoint, LaneCheckpoint, lane_writer_id
from s2frames.classify import NO_WRITER
from s2frames.errors import LocalProtocolError, RemoteProtocolError
from s2frames.events import (
    DropReason,
    DuplicateDropped,
    FrameDropped,
    FrameReceived,
    GapDetected,
    ReaderEvent,
)
from s2frames.reader import FrameReader
from s2frames.records import Record, SequencedRecord, fence
from s2frames.u64 import U64_MAX

LIMITS: list[dict[str, Any]] = [
    {"max_frame_bytes": 40, "max_reread": 9},
    {"max_frame_bytes": 9, "max_buffered_bytes": 9, "max_reread": 4},
    {"max_frame_bytes": 40, "max_writers": 1},
    {"max_frame_bytes": 40, "max_writers": 2, "max_reread": 1},
    {"max_frame_bytes": 9, "max_buffered_bytes": 9, "max_writers": 2},
    {"max_frame_bytes": 40, "dedupe": False},
]

# Stopping and going on


def stop_after(
    reader: FrameReader, records: list[SequencedRecord], num_events: int
) -> tuple[list[ReaderEvent], Checkpoint]:
    """Read up to an event, and no further; the checkpoint goes through JSON."""
    events = reader.receive_records(records)
    taken = [next(events) for _ in range(num_events)]
    return taken, Checkpoint.from_json(reader.checkpoint().to_json())


def surviving(records: list[SequencedRecord], start: int) -> list[SequencedRecord]:
    return [record for record in records if record.seq_num >= start]


def without_expected(events: list[ReaderEvent]) -> list[ReaderEvent]:
    """A reader stopped between the events of a gap finds the gap from where it goes on."""
    return [GapDetected(-1, e.actual) if isinstance(e, GapDetected) else e for e in events]


@settings(max_examples=60)
@given(soups(), st.sampled_from(LIMITS), st.integers(1, 9))
def test_stopping_after_any_event_changes_nothing(
    records: list[SequencedRecord], limits: dict[str, Any], size: int
) -> None:
    start = records[0].seq_num if records else 0
    whole = read(FrameReader(start=start, **limits), records)
    for stop in range(len(whole) + 1):
        first, checkpoint = stop_after(FrameReader(start=start, **limits), records, stop)
        assert first == whole[:stop]
        rest = surviving(records, checkpoint.read_from)
        expected = without_expected(whole[stop:])
        events = read(FrameReader.resume(checkpoint, **limits), rest)
        assert without_expected(events) == expected
        events = read_batches(FrameReader.resume(checkpoint, **limits), cut(rest, size))
        assert without_expected(events) == expected


@settings(max_examples=60)
@given(soups(), st.sampled_from(LIMITS), st.lists(st.integers(0, 4), max_size=12))
def test_stopping_again_and_again_changes_nothing(
    records: list[SequencedRecord], limits: dict[str, Any], stops: list[int]
) -> None:
    start = records[0].seq_num if records else 0
    whole = read(FrameReader(start=start, **limits), records)
    checkpoint = FrameReader(start=start).checkpoint()
    events: list[ReaderEvent] = []
    for stop in [*stops, len(whole)]:
        reader = FrameReader.resume(checkpoint, **limits)
        rest = surviving(records, checkpoint.read_from)
        number = min(stop, len(whole) - len(events))
        taken, checkpoint = stop_after(reader, rest, number)
        events += taken
    assert without_expected(events) == without_expected(whole)


@settings(max_examples=50)
@given(soups(), st.sampled_from(LIMITS), st.integers(0, 40))
def test_stopping_after_any_record_changes_nothing(
    records: list[SequencedRecord], limits: dict[str, Any], number: int
) -> None:
    # Also inside what the reader that goes on reads once more.
    start = records[0].seq_num if records else 0
    whole = read(FrameReader(start=start, **limits), records)
    reader = FrameReader(start=start, **limits)
    events = read(reader, records[:number])
    checkpoint = reader.checkpoint()
    again = surviving(records, checkpoint.read_from)
    for end in range(len(again) + 1):
        second = FrameReader.resume(checkpoint, **limits)
        more = read(second, again[:end])
        last = second.checkpoint()
        assert last.read_from >= checkpoint.read_from
        assert last.seen_through >= checkpoint.seen_through
        third = FrameReader.resume(last, **limits)
        rest = read(third, surviving(records, last.read_from))
        assert events + more + rest == whole


def test_a_checkpoint_says_where_the_oldest_open_frame_starts() -> None:
    reader = FrameReader(start=2)
    records = [
        head(b"x", seq=0, writer="x"),
        head(b"y", seq=4, writer="y"),
        head(b"x", records=2, size=2, seq=1, writer="x"),
        head(b"u", records=2, size=2),
        head(b"z", seq=3, writer="z"),
        head(b"n", records=2, size=2, seq=7),
        head(b"y", seq=4, writer="y"),
    ]
    read(reader, place(records, 2))
    assert reader.checkpoint() == Checkpoint(
        4,
        9,
        (
            LaneCheckpoint(b"z", 3, None),
            LaneCheckpoint(b"y", 4, None),
            LaneCheckpoint(b"x", 0, 4, seen=1),
            LaneCheckpoint(None, None, 5),
            LaneCheckpoint(NO_WRITER, None, 7, seen=7),
        ),
    )


def test_records_that_were_accounted_for_are_silent() -> None:
    first, second = frame([b"a", b"b"], seq=0, writer="a")
    records = [
        first,
        head(b"x", seq=0, writer="x"),
        head(b"u"),
        fence("t"),
        first,
        Record(b"", ((b"own", b""),)),
        chunk(b"", seq=9, writer="orphan"),
        head(b"", size=0),
        second,
    ]
    reader = FrameReader()
    assert len(read(reader, place(records[:8]))) == 7
    resumed = FrameReader.resume(reader.checkpoint())
    assert resumed.next_seq_num == 0
    assert read(resumed, place(records)) == [FrameReceived(b"ab", 0, 9, 0, "a", ())]


def test_repeats_are_known_after_going_on() -> None:
    first, second = frame([b"a", b"b"], seq=1, writer="a")
    earlier = head(b"e", seq=0, writer="a")
    records = place([earlier, first, earlier, first, second, second])
    reader = FrameReader()
    assert len(read(reader, records[:2])) == 1
    resumed = FrameReader.resume(reader.checkpoint())
    assert read(resumed, records[1:]) == [
        DuplicateDropped("a", 2, 0),
        DuplicateDropped("a", 3, 1),
        FrameReceived(b"ab", 1, 5, 0, "a", ()),
        DuplicateDropped("a", 5, 1 + 1),
    ]


def test_what_was_trimmed_meanwhile_is_told() -> None:
    records = place(
        [
            head(b"a", records=2, size=2, seq=0, writer="a"),
            head(b"b", records=2, size=2, seq=0, writer="b"),
            head(b"x", seq=0, writer="x"),
            chunk(b"b", seq=1, writer="b"),
            chunk(b"a", seq=1, writer="a"),
        ]
    )
    reader = FrameReader()
    read(reader, records[:3])
    resumed = FrameReader.resume(reader.checkpoint())
    events = read(resumed, records[1:])
    assert isinstance(events[0], FrameDropped)
    assert (events[0].reason, events[0].writer_id) == (DropReason.TRIMMED, "a")
    # The record that is missing was accounted for before: of it nothing is lost but the frame.
    assert events[1] == FrameReceived(b"bb", 1, 4, 0, "b", ())
    assert isinstance(events[2], FrameDropped)
    assert (events[2].reason, events[2].start) == (DropReason.ORPHAN, 4)
    assert len(events) == 3
    assert resumed.stats.gaps == 0


@pytest.mark.parametrize(
    ("first", "gaps"),
    [(1, []), (7, []), (8, []), (9, [GapDetected(8, 9)]), (20, [GapDetected(8, 20)])],
)
def test_only_what_had_not_been_looked_at_is_missing(first: int, gaps: list[GapDetected]) -> None:
    opened = head(b"a", records=2, size=2, seq=0, writer="a")
    others = [head(b"%d" % i, seq=i, writer="b") for i in range(40)]
    reader = FrameReader(start=0)
    assert len(read(reader, place([opened, *others[:7]]))) == 7
    stored = Checkpoint.from_json(reader.checkpoint().to_json())
    assert (stored.read_from, stored.seen_through) == (0, 8)
    rest = place(others[first - 1 :], first)
    for resumed, events in (
        (later := FrameReader.resume(stored), read(later, rest)),
        (later := FrameReader.resume(stored), read_batches(later, cut(rest, 3))),
    ):
        dropped = events.pop(0)
        assert isinstance(dropped, FrameDropped)
        assert (dropped.reason, dropped.start) == (DropReason.TRIMMED, 0)
        assert dropped.detail == f"records 0 to {first - 1} are no longer in the stream"
        assert [event for event in events if isinstance(event, GapDetected)] == gaps
        assert resumed.stats.gaps == len(gaps)
        assert payloads(events) == [b"%d" % i for i in range(max(first - 1, 7), 40)]


def test_a_heartbeat_beyond_the_open_frame_is_a_gap() -> None:
    reader = FrameReader()
    read(reader, place([head(b"a", records=2, size=2, seq=0, writer="a"), fence("t")]))
    resumed = FrameReader.resume(reader.checkpoint())
    drop, gap, _ = resumed.receive_batch(encode([], 9))
    assert isinstance(drop, FrameDropped)
    assert drop.reason is DropReason.TRIMMED
    # The first two had been looked at.
    assert gap == GapDetected(2, 9)
    assert resumed.checkpoint() == Checkpoint(9, 9, (LaneCheckpoint(b"a", None, None, seen=0),))


def test_lowered_limits_drop_with_an_event() -> None:
    whole = place(
        [
            *frame([b"a" * 8, b"a" * 8], seq=0, writer="a")[:1],
            *frame([b"b" * 8, b"b" * 8], seq=0, writer="b"),
        ]
    )
    reader = FrameReader()
    read(reader, whole[:2])
    checkpoint = reader.checkpoint()
    smaller = FrameReader.resume(checkpoint, max_frame_bytes=15)
    assert [e.reason for e in read(smaller, whole) if isinstance(e, FrameDropped)] == [
        DropReason.TOO_LARGE,
        DropReason.TOO_LARGE,
        DropReason.ORPHAN,
    ]
    assert smaller.buffered_bytes == 0
    assert all(lane.head is None for lane in smaller.checkpoint().lanes)
    # The frame that is yet to be read once more holds nothing, so that dropping it helps nobody.
    tight = FrameReader.resume(checkpoint, max_frame_bytes=16, max_buffered_bytes=16)
    events = read(tight, whole)
    assert [e.writer_id for e in events if isinstance(e, FrameDropped)] == ["a"]
    assert payloads(events) == [b"b" * 16]


def test_a_frame_yet_to_be_read_once_more_is_evicted_for_nobody() -> None:
    ours = head(b"a", records=3, size=16, seq=0, writer="a", own=((b"k", b"v" * 20),))
    theirs = frame([b"b" * 8, b"b" * 8], seq=0, writer="b")
    records = place([ours, chunk(b"", seq=1, writer="a"), *theirs[:1]])
    reader = FrameReader()
    read(reader, records)
    resumed = FrameReader.resume(reader.checkpoint(), max_frame_bytes=16, max_buffered_bytes=16)
    assert read(resumed, records[:1]) == []
    assert resumed.buffered_bytes > 16
    assert read(resumed, records[1:2]) == []
    assert set(resumed.checkpoint().lanes) == set(reader.checkpoint().lanes)


# Another stream


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(head(b"b", records=2, size=2, seq=0, writer="b"), id="another writer"),
        pytest.param(head(b"b", records=2, size=2, seq=0), id="no writer"),
        pytest.param(head(b"b", records=2, size=2), id="no number"),
        pytest.param(head(b"a", seq=3, writer="a"), id="a frame of one record"),
        pytest.param(head(b"a", records=2, size=2, seq=2, writer="a"), id="delivered before"),
        pytest.param(chunk(b"a", seq=3, writer="a"), id="no head"),
        pytest.param(fence("token"), id="a command"),
        pytest.param(Record(b"x"), id="a bare record"),
        pytest.param(Record(b"x", ((b"own", b""),)), id="a record of another kind"),
        pytest.param(Record(b"x", ((b"_writer_id", b"a"),)), id="a bad record"),
    ],
)
def test_a_checkpoint_of_another_stream_is_refused(record: Record) -> None:
    reader = FrameReader()
    ours = [head(b"a", seq=2, writer="a"), head(b"a", records=2, size=2, seq=3, writer="a")]
    read(reader, place(ours, 4))
    resumed = FrameReader.resume(reader.checkpoint())
    with pytest.raises(LocalProtocolError, match=r"not one of this stream.* 5"):
        read(resumed, place([record], 5))
    assert resumed.checkpoint() == reader.checkpoint()
    # With the right records it goes on all the same.
    events = read(resumed, place([ours[1], chunk(b"b", seq=4, writer="a")], 5))
    assert payloads(events) == [b"ab"]


def test_records_from_below_read_from_are_refused() -> None:
    resumed = FrameReader.resume(Checkpoint(7, 7))
    with pytest.raises(RemoteProtocolError, match="6 came where 7"):
        read(resumed, place([head(b"x")], 6))


# JSON

lane_names = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=64).map(str.encode),
    st.binary(max_size=64),
)


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    names = draw(st.lists(lane_names, unique=True, max_size=5))
    seen_through = draw(st.integers(len(names), U64_MAX))
    heads = draw(
        st.lists(
            st.integers(0, seen_through - 1), unique=True, min_size=len(names), max_size=len(names)
        )
        if names
        else st.just([])
    )
    lanes = tuple(
        LaneCheckpoint(
            name,
            draw(st.none() | st.integers(0, U64_MAX)),
            draw(st.sampled_from([None, at])),
        )
        for name, at in zip(names, heads, strict=True)
    )
    open_heads = [lane.head for lane in lanes if lane.head is not None]
    read_from = min(open_heads, default=seen_through)
    is_begun = bool(lanes) or draw(st.booleans())
    basin, stream = draw(st.sampled_from([(None, None), ("my-basin", "chat/42"), ("b" * 8, "é")]))
    return Checkpoint(read_from, seen_through, lanes, is_begun=is_begun, basin=basin, stream=stream)


@st.composite
def checkpoints_of_more(draw: st.DrawFn) -> Checkpoint:
    """With what was seen last and what was given up."""
    checkpoint = draw(checkpoints())
    heads = {lane.head for lane in checkpoint.lanes}
    lanes: list[LaneCheckpoint] = []
    for lane in checkpoint.lanes:
        given_up = draw(st.none() | st.integers(0, checkpoint.seen_through - 1))
        if given_up in heads or lane.head is not None:
            given_up = None
        heads.add(given_up)
        seen = draw(st.none() | st.integers(0, U64_MAX))
        lanes.append(evolve(lane, seen=seen, given_up=given_up))
    return evolve(checkpoint, lanes=tuple(lanes))


@given(checkpoints())
def test_a_reader_goes_on_from_what_json_gives(checkpoint: Checkpoint) -> None:
    stored = Checkpoint.from_json(checkpoint.to_json())
    assert FrameReader.resume(stored).checkpoint().seen_through == checkpoint.seen_through
    assert FrameReader.resume(stored).checkpoint().read_from == checkpoint.read_from
    assert set(FrameReader.resume(stored).checkpoint().lanes) == set(checkpoint.lanes)


@given(checkpoints_of_more())
def test_json_round_trip(checkpoint: Checkpoint) -> None:
    text = checkpoint.to_json()
    assert text.isascii()
    assert Checkpoint.from_json(text) == checkpoint
    assert Checkpoint.from_json(text.encode()) == checkpoint


def test_json_has_a_version_and_is_readable() -> None:
    lanes = (
        LaneCheckpoint("é".encode(), 7, None, 8, 2),
        LaneCheckpoint(NO_WRITER, None, 3),
        LaneCheckpoint(b"\xff\x00", 0, None),
        LaneCheckpoint(None, None, 4),
    )
    checkpoint = Checkpoint(3, 9, lanes, basin="my-basin", stream="chat/42")
    assert json.loads(checkpoint.to_json()) == {
        "s2frames_checkpoint": 2,
        "basin": "my-basin",
        "stream": "chat/42",
        "begun": True,
        "read_from": 3,
        "seen_through": 9,
        "lanes": [
            ["é", 7, None, 8, 2],
            [NO_WRITER.decode(), None, 3, None, None],
            [{"hex": "ff00"}, 0, None, None, None],
            [None, None, 4, None, None],
        ],
    }


def test_format_1_is_still_read() -> None:
    text = json.dumps(
        {
            "s2frames_checkpoint": 1,
            "read_from": 3,
            "seen_through": 9,
            "lanes": [["é", 7, None], ["", None, 3], [None, None, 4]],
        }
    )
    lanes = (
        LaneCheckpoint("é".encode(), 7, None),
        LaneCheckpoint(NO_WRITER, None, 3),
        LaneCheckpoint(None, None, 4),
    )
    checkpoint = Checkpoint.from_json(text)
    assert checkpoint == Checkpoint(3, 9, lanes, is_begun=True, basin=None, stream=None)
    assert Checkpoint.from_json(checkpoint.to_json()) == checkpoint


@pytest.mark.parametrize(("seen_through", "is_begun"), [(0, False), (1, True)])
def test_in_format_1_the_place_says_whether_anything_was_seen(
    seen_through: int, is_begun: bool
) -> None:
    text = json.dumps(
        {
            "s2frames_checkpoint": 1,
            "read_from": seen_through,
            "seen_through": seen_through,
            "lanes": [],
        }
    )
    assert Checkpoint.from_json(text).is_begun is is_begun


GOOD: dict[str, Any] = {
    "s2frames_checkpoint": 2,
    "basin": None,
    "stream": None,
    "begun": True,
    "read_from": 3,
    "seen_through": 9,
}


def with_lanes(*lanes: Any, **changes: Any) -> str:
    """JSON text; of a lane the first three are given at least."""
    padded = [
        [*lane, *[None] * (5 - len(lane))] if isinstance(lane, list) and len(lane) > 2 else lane
        for lane in lanes
    ]
    return json.dumps({**GOOD, "lanes": padded, **changes})


def of_stream(basin: Any, stream: Any) -> str:
    return with_lanes(["a", 0, 3], basin=basin, stream=stream)


DAMAGED = [
    ("", "JSON"),
    ("{", "JSON"),
    (with_lanes(["a", 0, 3])[:-1], "JSON"),
    (b"\xff\xfe\xfd", "JSON"),
    (b"\x80", "JSON"),
    ("[" * 100_000, "JSON"),
    ("9" * 10_000, "JSON"),
    (None, "JSON"),
    (7, "JSON"),
    ("null", "object"),
    ("[]", "object"),
    ('"s2frames_checkpoint"', "object"),
    ("{}", "s2frames_checkpoint"),
    (json.dumps({**GOOD, "s2frames_checkpoint": 3}), "format 3; .* reads formats 1 and 2"),
    (json.dumps({**GOOD, "s2frames_checkpoint": 0}), "format 0"),
    (json.dumps({**GOOD, "s2frames_checkpoint": "1"}), "format '1'"),
    (json.dumps({**GOOD, "s2frames_checkpoint": None}), "format None"),
    (json.dumps({**GOOD, "s2frames_checkpoint": True}), "format True"),
    (json.dumps({**GOOD, "s2frames_checkpoint": 1.0}), "format 1.0"),
    (json.dumps(GOOD), "lanes"),
    (json.dumps({**GOOD, "lanes": {}}), "lanes"),
    (json.dumps({**GOOD, "lanes": "aaa"}), "lanes"),
    (with_lanes(["a", 0, 3], read_from=None), "read_from is None"),
    (with_lanes(["a", 0, 3], read_from="3"), "read_from is '3'"),
    (with_lanes(["a", 0, 3], read_from=3.0), "read_from is 3.0"),
    (with_lanes(["a", 0, 3], read_from=-1), "read_from is -1"),
    (with_lanes(["a", 0, 3], read_from=True), "read_from is True"),
    (with_lanes(["a", 0, 3], read_from=2**64), f"read_from is {2**64}"),
    (with_lanes(["a", 0, 3], seen_through=float("nan")), "seen_through is nan"),
    (with_lanes(["a", 0, 3], seen_through=float("inf")), "seen_through is inf"),
    (with_lanes(["a", 0, 3], seen_through=[]), r"seen_through is \[\]"),
    (with_lanes(None), "a lane is None"),
    (with_lanes("abc"), "a lane is 'abc'"),
    (with_lanes(["a", 0]), "a lane is"),
    (with_lanes(["a", 0, 3, None, None, None]), "a lane is"),
    (with_lanes(["a", 0, 3], s2frames_checkpoint=1), "a lane is"),
    (with_lanes([7, 0, 3]), "a writer is 7"),
    (with_lanes([["a"], 0, 3]), "a writer is"),
    (with_lanes([{"a": 1}, 0, 3]), "a writer is"),
    (with_lanes(["\ud800", 0, 3]), "a writer is"),
    (with_lanes(["a" * 322, 0, 3]), "too long"),
    (with_lanes([{"hex": "0g"}, 0, 3]), "a writer is"),
    (with_lanes([{"hex": 7}, 0, 3]), "a writer is"),
    (with_lanes([{"hex": "00", "more": 1}, 0, 3]), "a writer is"),
    (with_lanes([{"hex": "aa" * 322}, 0, 3]), "too long"),
    (with_lanes(["a", "0", 3]), "a dedupe sequence is '0'"),
    (with_lanes(["a", -1, 3]), "a dedupe sequence is -1"),
    (with_lanes(["a", 0, 2**64]), f"a head is {2**64}"),
    (with_lanes(["a", 0, 3.5]), "a head is 3.5"),
    (with_lanes(["a", 0, False]), "a head is False"),
    (with_lanes(["a", 0, 4]), "read_from"),
    (with_lanes(["a", 0, None]), "read_from"),
    (with_lanes(["a", 0, 2]), "read_from"),
    (with_lanes(["a", 0, 3], ["b", 0, 9]), "a head is not below"),
    (with_lanes(["a", 0, 3], read_from=3, seen_through=3), "a head is not below"),
    (with_lanes(["a", 0, 3], ["a", 0, None]), "twice"),
    (with_lanes(["a", 0, 3], ["b", 0, 3]), "twice"),
    (with_lanes([None, None, 3], [None, None, 4]), "twice"),
    (with_lanes(["a", 0, 3], [{"hex": "61"}, 0, None]), "twice"),
    (with_lanes(["a", 0, 3], ["b", 0, None, 0, 3]), "twice"),
    (with_lanes(["a", 0, 3], ["b", 0, None, 0, 4], ["c", 0, None, 0, 4]), "twice"),
    (with_lanes(["a", 0, 3, -1]), "a dedupe sequence is -1"),
    (with_lanes(["a", 0, 3, True]), "a dedupe sequence is True"),
    (with_lanes(["a", 0, 3], ["b", 0, None, 0, 2**64]), f"a head is {2**64}"),
    (with_lanes(["a", 0, 3], ["b", 0, None, 0, 9]), "a head is not below"),
    (with_lanes(["a", 0, 3, 0, 4]), "open and one that was given up"),
    (with_lanes(["a", 0, 3], begun=None), "begun is None"),
    (with_lanes(["a", 0, 3], begun=1), "begun is 1"),
    (with_lanes(["a", 0, 3], begun=False), "nothing was seen"),
    (of_stream("my-basin", None), "its stream is 'my-basin' / None"),
    (of_stream(None, "chat/42"), "its stream is None / 'chat/42'"),
    (of_stream("my", "chat/42"), "its stream is 'my' / 'chat/42'"),
    (of_stream("my-basin", ""), "its stream is"),
    (of_stream(["my-basin"], "chat/42"), "its stream is"),
    (of_stream("my-basin", "\ud800"), "its stream is"),
]


@pytest.mark.parametrize(("text", "named"), DAMAGED, ids=range(len(DAMAGED)))
def test_what_is_no_checkpoint_is_refused(text: Any, named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named):
        Checkpoint.from_json(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda huge: json.dumps({**GOOD, "s2frames_checkpoint": huge}),
        lambda huge: json.dumps({**GOOD, "read_from": huge}),
        with_lanes,
        lambda huge: with_lanes([huge, 0, 3]),
        lambda huge: with_lanes(["a", huge, 3]),
    ],
)
@pytest.mark.parametrize("huge", ["x" * 10**6, [0] * 10**6, {"x" * 10**6: 1}])
def test_a_huge_value_makes_no_huge_message(make: Any, huge: Any) -> None:
    with pytest.raises(LocalProtocolError) as error:
        Checkpoint.from_json(make(huge))
    assert len(str(error.value)) < 1000


def test_deep_nesting_of_any_depth_is_refused() -> None:
    for depth in range(1, 1100):
        text = f'{{"s2frames_checkpoint":{"[" * depth}{"]" * depth}}}'
        with pytest.raises(LocalProtocolError, match=r"JSON text|format \["):
            Checkpoint.from_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["s2frames_checkpoint", "read_from", "seen_through", "lanes"]),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_checkpoint_or_refused(value: Any) -> None:
    for candidate in (value, {**GOOD, "lanes": value}, {**GOOD, "lanes": [], "read_from": value}):
        try:
            checkpoint = Checkpoint.from_json(json.dumps(candidate))
        except LocalProtocolError:
            continue
        assert Checkpoint.from_json(checkpoint.to_json()) == checkpoint


@given(checkpoints(), st.data())
def test_damaged_text_is_a_checkpoint_or_refused(
    checkpoint: Checkpoint, data: st.DataObject
) -> None:
    text = bytearray(checkpoint.to_json().encode())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        damaged = Checkpoint.from_json(bytes(text))
    except LocalProtocolError:
        return
    FrameReader.resume(damaged)


MADE_BY_HAND = [
    (None, "the checkpoint must be a Checkpoint, not NoneType"),
    (5, "the checkpoint must be a Checkpoint, not int"),
    (Checkpoint(5, 3), "read_from is not where it must be"),
    (Checkpoint("5", 5), "read_from is '5'"),  # type: ignore[arg-type]
    (Checkpoint(5, 5, None), "lanes is None"),  # type: ignore[arg-type]
    (Checkpoint(5, 5, (b"w",)), "a lane is b'w'"),  # type: ignore[arg-type]
    (Checkpoint(5, 5, (LaneCheckpoint("w", 0, None),)), "a writer is 'w'"),  # type: ignore[arg-type]
    (Checkpoint(5, 5, (LaneCheckpoint(b"w", True, None),)), "a dedupe sequence is True"),
    (Checkpoint(5, 5, basin="my-basin"), "its stream is 'my-basin' / None"),
]


@pytest.mark.parametrize(("checkpoint", "named"), MADE_BY_HAND, ids=range(len(MADE_BY_HAND)))
def test_what_no_reader_can_have_made_is_refused(checkpoint: Any, named: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"{named}$"):
        FrameReader.resume(checkpoint)


@pytest.mark.parametrize(
    ("lane", "writer_id"),
    [(None, None), (NO_WRITER, None), (b"w", "w"), ("é".encode(), "é"), (b"a\xff", "a\ufffd")],
)
def test_lane_writer_id(lane: bytes | None, writer_id: str | None) -> None:
    assert lane_writer_id(lane) == writer_id
