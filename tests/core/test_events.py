from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from frames import make_ack
from s2frames import events
from s2frames.errors import FrameLost, LocalProtocolError
from s2frames.events import (
    Appended,
    CaughtUp,
    CommandReceived,
    DropReason,
    DuplicateDropped,
    FrameDropped,
    FrameReceived,
    FramesDurable,
    GapDetected,
    ReaderEvent,
    RecordReceived,
    SequenceGapDetected,
    WriterForgotten,
)
from s2frames.records import SequencedRecord, StreamPosition

EVENTS: list[Any] = [
    FrameReceived(b"p", 1, 2, 3, "w", ()),
    FrameDropped(DropReason.ORPHAN, "w", 1, 2, "detail"),
    DuplicateDropped("w", 1, 2),
    CommandReceived(1, 2, b"fence", b"t"),
    RecordReceived(SequencedRecord(1, 2)),
    GapDetected(1, 2, is_loss=False),
    SequenceGapDetected("w", 1, 2, 3),
    WriterForgotten("w", 1),
    CaughtUp(StreamPosition(1, 2)),
]


def test_the_union_is_closed() -> None:
    assert set(get_args(ReaderEvent)) == {type(event) for event in EVENTS}
    assert {event.__name__ for event in get_args(ReaderEvent)} <= set(events.__all__)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_values(event: Any) -> None:
    fields = {name: getattr(event, name) for name in type(event).__slots__ if name[0] != "_"}
    assert type(event)(**fields) == event
    for name in fields:
        assert type(event)(**{**fields, name: object()}) != event


@pytest.mark.parametrize(
    "event",
    [event for event in EVENTS if not isinstance(event, FrameReceived)] + [Appended(1, 2)],
    ids=lambda event: type(event).__name__,
)
def test_events_that_are_rare_are_frozen(event: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(event, type(event).__slots__[0], None)


# Reasons


@pytest.mark.parametrize(
    ("reason", "is_loss"),
    [
        (DropReason.OVERFLOW, True),
        (DropReason.LENGTH_MISMATCH, True),
        (DropReason.BAD_HEADER, True),
        (DropReason.TOO_LARGE, True),
        (DropReason.EVICTED, True),
        (DropReason.TRIMMED, True),
        (DropReason.SEQUENCE_GAP, True),
        (DropReason.INCOMPLETE, False),
        (DropReason.GIVEN_UP, True),
        (DropReason.ORPHAN, False),
    ],
)
def test_is_loss(reason: DropReason, is_loss: bool) -> None:
    assert reason.is_loss is is_loss


def test_every_reason_is_judged() -> None:
    assert len(DropReason) == 10


@pytest.mark.parametrize(
    ("writer_id", "words"),
    [
        ("wé", "the frame at 7 of writer 'wé' is lost (overflow): 9 bytes of 8"),
        (None, "the frame at 7 is lost (overflow): 9 bytes of 8"),
    ],
)
def test_describe(writer_id: str | None, words: str) -> None:
    drop = FrameDropped(DropReason.OVERFLOW, writer_id, 7, 9, "9 bytes of 8")
    assert drop.describe() == words
    assert str(FrameLost(drop)) == words


def test_describe_a_gap() -> None:
    gap = GapDetected(3, 7)
    words = "records 3 to 6 were removed from the stream before they were read"
    assert gap.is_loss
    assert gap.describe() == words
    assert str(FrameLost(gap)) == words


@pytest.mark.parametrize(
    ("writer_id", "words"),
    [
        ("wé", "the record at 7 of writer 'wé' has the dedupe sequence 5, and 3 was next"),
        (None, "the record at 7 has the dedupe sequence 5, and 3 was next"),
        ("\n\x1b", r"the record at 7 of writer '\n\x1b' has the dedupe sequence 5, and 3 was next"),
    ],
)
def test_describe_a_jump(writer_id: str | None, words: str) -> None:
    assert SequenceGapDetected(writer_id, 7, 3, 5).describe() == words


def test_describe_takes_one_line_whatever_a_writer_is_called() -> None:
    drop = FrameDropped(DropReason.OVERFLOW, "a\nb\x1b[2J", 7, 9, "detail")
    assert "\n" not in drop.describe()
    assert "\x1b" not in drop.describe()


# Durable frames


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=9),
    st.integers(0, 9),
    st.integers(10, 99),
    st.integers(0, 99),
)
def test_ranges_join(sizes: list[int], first_start: int, origin: int, first_frame: int) -> None:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    ack = make_ack(origin, ends[-1])
    event = FramesDurable(first_frame, len(ends), ack, first_start, ends)
    ranges = event.all_appended()
    assert ranges[0].start == first_start
    assert [appended.end for appended in ranges] == [origin + end for end in ends]
    for before, after in pairwise(ranges):
        assert after.start == before.end
    assert ranges == [event.appended(first_frame + i) for i in range(len(sizes))]


@pytest.mark.parametrize("frame", [-1, 0, 4, 7, 100])
def test_a_frame_that_is_none_of_these_is_refused(frame: int) -> None:
    event = FramesDurable(5, 2, make_ack(0, 2), 0, range(1, 3))
    with pytest.raises(LocalProtocolError, match=f"frame {frame} .*2 frames from 5"):
        event.appended(frame)


def test_no_frame_may_become_durable() -> None:
    event = FramesDurable(5, 0, make_ack(0, 2), 0, ())
    assert event.all_appended() == []
    with pytest.raises(LocalProtocolError, match=r"frame 5 .*0 frames"):
        event.appended(5)
