from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.codecs import BYTES, JSON, TEXT, Codec
from s2frames.errors import (
    CodecError,
    FrameLost,
    LocalProtocolError,
    TransportError,
)
from s2frames.events import (
    CaughtUp,
    CommandReceived,
    DropReason,
    DuplicateDropped,
    FrameDropped,
    FrameReceived,
    GapDetected,
    RecordReceived,
    SequenceGapDetected,
    WriterForgotten,
)
from s2frames.inbox import Inbox, ReceivedMessage
from s2frames.read import ReadEvent
from s2frames.records import SequencedRecord, StreamPosition
from s2frames.session import Retrying, SessionEnded


def received(payload: bytes, start: int = 3) -> FrameReceived:
    return FrameReceived(payload, start, start + 2, 99, "w", ((b"k", b"v"),))


def dropped(reason: DropReason) -> FrameDropped:
    return FrameDropped(reason, "w", 7, 100, "it was cut short")


# Messages


def test_a_message_and_where_it_is() -> None:
    message = Inbox(JSON).take(received(b'{"a":[1]}'))
    assert message == ReceivedMessage({"a": [1]}, 3, 5, 99, "w", ((b"k", b"v"),))


@pytest.mark.parametrize(
    ("codec", "payload", "expected"),
    [(JSON, b"null", None), (TEXT, "é".encode(), "é"), (BYTES, b"\0", b"\0"), (JSON, b"0", 0)],
)
def test_codecs(codec: Codec[Any], payload: bytes, expected: object) -> None:
    message = Inbox(codec).take(received(payload))
    # A message may be None; what holds it is not.
    assert message is not None
    assert message.message == expected


@given(st.binary(min_size=1))
def test_bytes_come_as_they_are(payload: bytes) -> None:
    message = Inbox(BYTES).take(received(payload))
    assert message is not None
    assert message.message == payload


OTHERS: list[ReadEvent] = [
    DuplicateDropped("w", 3, 1),
    CommandReceived(3, 9, b"fence", b"t"),
    RecordReceived(SequencedRecord(3, 9)),
    GapDetected(0, 5, is_loss=False),
    SequenceGapDetected("w", 3, 5, 9),
    WriterForgotten("w", 3),
    CaughtUp(StreamPosition(3, 9)),
    Retrying(TransportError("lost"), 1, 0.1),
    SessionEnded(None),
]


@pytest.mark.parametrize("on_corrupt", ["raise", "skip"])
@pytest.mark.parametrize("event", OTHERS, ids=lambda event: type(event).__name__)
def test_events_without_a_message(event: ReadEvent, on_corrupt: Any) -> None:
    assert Inbox(BYTES, on_corrupt).take(event) is None


# Losses

LOSSES = set(DropReason) - {DropReason.INCOMPLETE, DropReason.ORPHAN}


@pytest.mark.parametrize("reason", DropReason)
def test_a_lost_message(reason: DropReason) -> None:
    event = dropped(reason)
    assert Inbox(BYTES, "skip").take(event) is None
    for inbox in (Inbox(BYTES), Inbox(BYTES, "raise")):
        if reason not in LOSSES:
            assert inbox.take(event) is None
            continue
        with pytest.raises(
            FrameLost, match=f"frame at 7 of writer 'w' is lost .{reason.value}"
        ) as caught:
            inbox.take(event)
        assert caught.value.event is event
        # The next event may be taken.
        assert inbox.take(received(b"x")) is not None


@pytest.mark.parametrize("expected", [0, 1, 3, 2**64 - 2])
def test_records_that_were_removed(expected: int) -> None:
    event = GapDetected(expected, expected + 1)
    assert Inbox(BYTES, "skip").take(event) is None
    inbox = Inbox(BYTES)
    words = f"^records {expected} to {expected} were removed from the stream"
    with pytest.raises(FrameLost, match=words) as caught:
        inbox.take(event)
    assert caught.value.event is event
    assert inbox.take(received(b"x")) is not None


@pytest.mark.parametrize("on_corrupt", ["raise", "skip"])
def test_who_starts_at_0_takes_what_there_is(on_corrupt: Any) -> None:
    assert Inbox(BYTES, on_corrupt).take(GapDetected(0, 2**63, is_loss=False)) is None


# Listeners


def test_listeners() -> None:
    retries: list[Retrying] = []
    tails: list[StreamPosition] = []
    inbox = Inbox(BYTES, on_retry=retries.append, on_caught_up=tails.append)
    again = Retrying(TransportError("lost"), 2, 0.5)
    told: list[ReadEvent] = [
        again,
        CaughtUp(StreamPosition(3, 9)),
        again,
        CaughtUp(StreamPosition(4, 9)),
    ]
    for event in told:
        assert inbox.take(event) is None
    assert retries == [again, again]
    assert tails == [StreamPosition(3, 9), StreamPosition(4, 9)]
    # Of nothing else are they told.
    for event in OTHERS:
        if not isinstance(event, (Retrying, CaughtUp)):
            inbox.take(event)
    inbox.take(received(b"x"))
    assert (len(retries), len(tails)) == (2, 2)


@pytest.mark.parametrize("on_corrupt", ["", "RAISE", "ignore", None, True, 1, [], b"raise"])
def test_other_ways_to_treat_losses_are_refused(on_corrupt: Any) -> None:
    with pytest.raises(LocalProtocolError, match="'raise' or 'skip', not"):
        Inbox(BYTES, on_corrupt)


# Errors


def test_a_message_that_cannot_be_decoded() -> None:
    inbox = Inbox(JSON)
    with pytest.raises(
        CodecError, match=r"^the message at 3: the codec JSON cannot decode"
    ) as caught:
        inbox.take(received(b"{hunter2"))
    error = caught.value
    assert (error.start, error.end, error.payload) == (3, 5, b"{hunter2")
    assert isinstance(error.__cause__, ValueError)
    assert "hunter2" not in str(error)
    # The next one can be taken.
    message = inbox.take(received(b"1", 5))
    assert message is not None
    assert (message.message, message.start) == (1, 5)


def test_a_losses_setting_does_not_hide_codec_errors() -> None:
    with pytest.raises(CodecError):
        Inbox(TEXT, "skip").take(received(b"\xff"))


def test_the_codecs_own_exception_is_the_cause() -> None:
    def decode(_payload: bytes) -> str:
        raise KeyError("hunter2")

    with pytest.raises(CodecError) as caught:
        Inbox(Codec(str.encode, decode, name="mine")).take(received(b"x"))
    assert isinstance(caught.value.__cause__, KeyError)
    assert "mine" in str(caught.value)
    assert "KeyError" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("on_corrupt", ["raise", "skip"])
def test_the_error_that_ended_the_session(on_corrupt: Any) -> None:
    error = TransportError("lost")
    with pytest.raises(TransportError) as caught:
        Inbox(BYTES, on_corrupt).take(SessionEnded(error))
    assert caught.value is error
