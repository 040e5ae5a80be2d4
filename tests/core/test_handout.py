from __future__ import annotations

from typing import Any, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drive import TARGET
from frames import chunk, encode, frame, head, place
from s2frames.codecs import BYTES, JSON, TEXT, Codec
from s2frames.errors import (
    CodecError,
    FrameLost,
    LocalProtocolError,
    S2FramesError,
    TransportError,
)
from s2frames.events import (
    CaughtUp,
    CommandReceived,
    DropReason,
    DuplicateDropped,
    FrameDropped,
    FrameReceived,
    FramesReceived,
    GapDetected,
    RecordReceived,
    SequenceGapDetected,
    WriterForgotten,
)
from s2frames.handout import Handout
from s2frames.inbox import Inbox, ReceivedMessage
from s2frames.read import ReadEvent, ReadProtocol
from s2frames.records import Record, SequencedRecord, StreamPosition
from s2frames.retry import Retry
from s2frames.s2s import encode_message
from s2frames.session import Retrying, SessionEnded
from s2frames.settings import ReadSettings

T = TypeVar("T")


class Offered:
    """A session that offers these events, and no others."""

    def __init__(self, *events: ReadEvent | FramesReceived) -> None:
        self.events = list(events)

    def next_event(self) -> ReadEvent | None:
        if self.events and isinstance(self.events[0], FramesReceived):
            self.split_event()
        return cast("ReadEvent", self.events[0]) if self.events else None

    def event_taken(self) -> None:
        self.events_taken(1)

    def next_events(self) -> list[ReadEvent | FramesReceived]:
        return self.events

    def events_taken(self, count: int) -> None:
        assert count <= len(self.events)
        del self.events[:count]

    def split_event(self) -> None:
        first = self.events[0]
        assert isinstance(first, FramesReceived)
        self.events[:1] = first.singly()


def make(
    codec: Codec[T], *events: ReadEvent | FramesReceived, on_corrupt: Any = "raise", **options: Any
) -> tuple[Handout[T], Offered]:
    """What hands out the messages of a session that offers `events`."""
    offered = Offered(*events)
    inbox = Inbox(codec, on_corrupt, **options)
    return Handout(cast("ReadProtocol", offered), inbox), offered


def take(handout: Handout[T]) -> ReceivedMessage[T] | None:
    """The next message, if there is one."""
    return handout.hand_out_received() if handout.fetch() else None


def received(payload: bytes, start: int = 3) -> FrameReceived:
    return FrameReceived(payload, start, start + 2, 99, "w", ((b"k", b"v"),))


def dropped(reason: DropReason) -> FrameDropped:
    return FrameDropped(reason, "w", 7, 100, "it was cut short")


# Messages


def test_a_message_and_where_it_is() -> None:
    handout, _ = make(JSON, received(b'{"a":[1]}'))
    assert take(handout) == ReceivedMessage({"a": [1]}, 3, 5, 99, "w", ((b"k", b"v"),))


@pytest.mark.parametrize(
    ("codec", "payload", "expected"),
    [(JSON, b"null", None), (TEXT, "é".encode(), "é"), (BYTES, b"\0", b"\0"), (JSON, b"0", 0)],
)
def test_codecs(codec: Codec[Any], payload: bytes, expected: object) -> None:
    handout, _ = make(codec, received(payload))
    # A message may be None; that it is there says `fetch`.
    assert handout.fetch()
    assert handout.hand_out() == expected
    assert not handout.fetch()


@given(st.binary(min_size=1))
def test_bytes_come_as_they_are(payload: bytes) -> None:
    message = take(make(BYTES, received(payload))[0])
    assert message is not None
    assert message.message == payload


def test_a_message_is_offered_until_it_is_handed_out() -> None:
    decoded: list[bytes] = []

    def decode(payload: bytes) -> bytes:
        decoded.append(payload)
        return payload

    codec = Codec(bytes, decode)
    handout, offered = make(codec, received(b"a"), received(b"b", 5))
    assert handout.fetch()
    assert handout.fetch()
    assert decoded == [b"a"]
    assert len(offered.events) == 2
    assert handout.hand_out() == b"a"
    assert len(offered.events) == 1
    assert handout.fetch()
    assert handout.hand_out() == b"b"
    assert not handout.fetch()


def test_nothing_is_handed_out_that_was_not_fetched() -> None:
    handout, offered = make(BYTES, received(b"a"))
    with pytest.raises(LocalProtocolError, match=r"^no message was fetched$"):
        handout.hand_out_received()
    assert len(offered.events) == 1


class Cut(BaseException):
    """What a signal may raise."""


def test_a_message_stays_when_its_codec_is_cut_off() -> None:
    attempts: list[bytes] = []

    def decode(payload: bytes) -> bytes:
        attempts.append(payload)
        if len(attempts) == 2:
            raise Cut
        return payload

    for many in (False, True):
        attempts.clear()
        handout, _ = make(Codec(bytes, decode), received(b"a"), received(b"b", 5))
        got: list[bytes] = []
        for _ in range(3):
            try:
                while handout.fetch_many() if many else handout.fetch():
                    got += handout.hand_out_many() if many else [handout.hand_out()]
            except Cut:
                assert got == ([] if many else [b"a"])
        assert got == [b"a", b"b"]


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
    for fetch in (Handout.fetch, Handout.fetch_many):
        handout, offered = make(BYTES, event, on_corrupt=on_corrupt)
        assert not fetch(handout)
        assert not offered.events


# Losses

LOSSES = set(DropReason) - {DropReason.INCOMPLETE, DropReason.ORPHAN}


@pytest.mark.parametrize("reason", DropReason)
def test_a_lost_message(reason: DropReason) -> None:
    event = dropped(reason)
    assert take(make(BYTES, event, on_corrupt="skip")[0]) is None
    handout, _ = make(BYTES, event, received(b"x"))
    if reason in LOSSES:
        with pytest.raises(
            FrameLost, match=f"frame at 7 of writer 'w' is lost .{reason.value}"
        ) as caught:
            take(handout)
        assert caught.value.event is event
    # The next event may be taken.
    assert take(handout) is not None


@pytest.mark.parametrize("expected", [0, 1, 3, 2**64 - 2])
def test_records_that_were_removed(expected: int) -> None:
    event = GapDetected(expected, expected + 1)
    assert take(make(BYTES, event, on_corrupt="skip")[0]) is None
    handout, _ = make(BYTES, event, received(b"x"))
    words = f"^records {expected} to {expected} were removed from the stream before they were read$"
    with pytest.raises(FrameLost, match=words) as caught:
        take(handout)
    assert caught.value.event is event
    assert take(handout) is not None


@pytest.mark.parametrize("on_corrupt", ["raise", "skip"])
def test_who_starts_at_0_takes_what_there_is(on_corrupt: Any) -> None:
    event = GapDetected(0, 2**63, is_loss=False)
    assert take(make(BYTES, event, on_corrupt=on_corrupt)[0]) is None


# Listeners


def test_listeners() -> None:
    retries: list[Retrying] = []
    tails: list[StreamPosition] = []
    again = Retrying(TransportError("lost"), 2, 0.5)
    told: list[ReadEvent] = [
        again,
        CaughtUp(StreamPosition(3, 9)),
        again,
        CaughtUp(StreamPosition(4, 9)),
    ]
    # Of nothing else are they told.
    others = [event for event in OTHERS if not isinstance(event, (Retrying, CaughtUp))]
    for fetch in (Handout.fetch, Handout.fetch_many):
        retries.clear()
        tails.clear()
        handout, _ = make(BYTES, *told, *others, on_retry=retries.append, on_caught_up=tails.append)
        assert not fetch(handout)
        assert retries == [again, again]
        assert tails == [StreamPosition(3, 9), StreamPosition(4, 9)]


@pytest.mark.parametrize("many", [False, True])
def test_a_listener_that_raises_was_told_and_costs_no_message(many: bool) -> None:
    told: list[object] = []

    def fail(event: object) -> None:
        told.append(event)
        raise Cut

    events: list[ReadEvent] = [
        received(b"a"),
        CaughtUp(StreamPosition(5, 9)),
        Retrying(TransportError("lost"), 1, 0.1),
        received(b"b", 5),
    ]
    handout, _ = make(BYTES, *events, on_retry=fail, on_caught_up=fail)
    met: list[object] = []
    for _ in range(5):
        try:
            while handout.fetch_many() if many else handout.fetch():
                met += handout.hand_out_many() if many else [handout.hand_out()]
        except Cut:
            met.append(Cut)
    # It hears of the tail when all before it was handed out.
    assert met == [b"a", Cut, Cut, b"b"]
    assert told == [StreamPosition(5, 9), events[2]]


@pytest.mark.parametrize("on_corrupt", ["", "RAISE", "ignore", None, True, 1, [], b"raise"])
def test_other_ways_to_treat_losses_are_refused(on_corrupt: Any) -> None:
    with pytest.raises(LocalProtocolError, match="'raise' or 'skip', not"):
        make(BYTES, on_corrupt=on_corrupt)


# Errors


def test_a_message_that_cannot_be_decoded() -> None:
    handout, _ = make(JSON, received(b"{hunter2"), received(b"1", 5))
    with pytest.raises(
        CodecError, match=r"^the message at 3: the codec JSON cannot decode"
    ) as caught:
        take(handout)
    error = caught.value
    assert (error.start, error.end, error.payload) == (3, 5, b"{hunter2")
    assert isinstance(error.__cause__, ValueError)
    assert "hunter2" not in str(error)
    # The next one can be taken.
    message = take(handout)
    assert message is not None
    assert (message.message, message.start) == (1, 5)


def test_a_losses_setting_does_not_hide_codec_errors() -> None:
    with pytest.raises(CodecError):
        take(make(TEXT, received(b"\xff"), on_corrupt="skip")[0])


def test_the_codecs_own_exception_is_the_cause() -> None:
    def decode(_payload: bytes) -> str:
        raise KeyError("hunter2")

    with pytest.raises(CodecError) as caught:
        take(make(Codec(str.encode, decode, name="mine"), received(b"x"))[0])
    assert isinstance(caught.value.__cause__, KeyError)
    assert "mine" in str(caught.value)
    assert "KeyError" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("on_corrupt", ["raise", "skip"])
def test_the_error_that_ended_the_session(on_corrupt: Any) -> None:
    error = TransportError("lost")
    with pytest.raises(TransportError) as caught:
        take(make(BYTES, SessionEnded(error), on_corrupt=on_corrupt)[0])
    assert caught.value is error


# With a session


def take_all(handout: Handout[Any], *, many: bool = False) -> list[object]:
    """Messages and the types of errors, as a consumer meets them that goes on after each."""
    met: list[object] = []
    while True:
        try:
            if not (handout.fetch_many() if many else handout.fetch()):
                return met
            met += handout.hand_out_many() if many else [handout.hand_out()]
        except S2FramesError as error:
            met.append(type(error))


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    ("on_corrupt", "expected"),
    [
        ("raise", ["one", CodecError, FrameLost, "four", TransportError]),
        ("skip", ["one", CodecError, "four", TransportError]),
    ],
)
def test_iteration_goes_on_after_errors(
    many: bool, on_corrupt: Any, expected: list[object]
) -> None:
    records: list[Record] = [
        *frame([b"o", b"ne"], seq=0, writer="w"),
        head(b"\xff", seq=2, writer="w"),
        head(b"th", records=2, size=3, seq=3, writer="w"),
        chunk(b"reeee", seq=4, writer="w"),
        head(b"four", seq=5, writer="w"),
    ]
    protocol = ReadProtocol(TARGET, ReadSettings(retry=Retry(max_attempts=1)), random=lambda: 0.0)
    protocol.data_to_send(0.0)
    protocol.receive_response(1, 200, {"content-type": "s2s/proto"}, 0.0)
    protocol.receive_data(1, b"".join(encode_message(encode(place(records)))), 0.0)
    protocol.connection_lost(1, TransportError("lost"), 0.0)
    assert take_all(Handout(protocol, Inbox(TEXT, on_corrupt)), many=many) == expected
    assert protocol.stats.dropped[DropReason.OVERFLOW] == 1
    assert protocol.checkpoint().read_from == 6


# Many at a time


def test_many_messages_at_a_time() -> None:
    silent = [event for event in OTHERS if not isinstance(event, SessionEnded)]
    handout, offered = make(TEXT, received(b"a"), *silent, received(b"b", 5), silent[0])
    assert handout.fetch_many()
    assert len(offered.events) == 3 + len(silent)
    assert handout.hand_out_many() == ["a", "b"]
    assert offered.events == []
    assert not handout.fetch_many()


def test_what_comes_before_an_error_is_handed_out_first() -> None:
    lost = dropped(DropReason.OVERFLOW)
    events: list[ReadEvent] = [received(b"a"), lost, received(b"b"), received(b"\xff", 7)]
    handout, offered = make(TEXT, *events, received(b"c"))
    assert handout.fetch_many()
    assert handout.hand_out_many() == ["a"]
    with pytest.raises(FrameLost):
        handout.fetch_many()
    assert handout.fetch_many()
    assert handout.hand_out_many() == ["b"]
    with pytest.raises(CodecError, match="the message at 7") as caught:
        handout.fetch_many()
    assert caught.value.payload == b"\xff"
    offered.events.append(received(b"d"))
    assert handout.fetch_many()
    assert handout.hand_out_many() == ["c", "d"]


@given(
    st.lists(
        st.sampled_from(
            [
                received(b"a"),
                received(b"\xff"),
                dropped(DropReason.OVERFLOW),
                dropped(DropReason.ORPHAN),
                FramesReceived([b"x", b"y"], 3, 9, "w"),
                FramesReceived([b"x", b"\xff", b"\xfe", b"y"], 3, 9, None),
                CaughtUp(StreamPosition(5, 0)),
                SessionEnded(TransportError("lost")),
            ]
        )
    ),
    st.data(),
)
def test_all_at_a_time_is_as_one_by_one(
    events: list[ReadEvent | FramesReceived], data: st.DataObject
) -> None:
    singly: list[object] = []
    tails: list[object] = []
    handout, _ = make(TEXT, *events, on_caught_up=tails.append)
    singly = take_all(handout)
    at_once: list[object] = []
    handout, offered = make(TEXT, on_caught_up=tails.append)
    while events:
        count = data.draw(st.integers(1, len(events)))
        offered.events += events[:count]
        events = events[count:]
        at_once += take_all(handout, many=data.draw(st.booleans()))
    assert at_once == singly
    assert len(tails) % 2 == 0


def test_bytes_that_came_together() -> None:
    handout, _ = make(BYTES, FramesReceived([b"a", b"b"], 3, 9, "w"), received(b"c", 5))
    assert handout.fetch_many()
    assert handout.hand_out_many() == [b"a", b"b", b"c"]
