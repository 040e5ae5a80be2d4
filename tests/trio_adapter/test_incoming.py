from __future__ import annotations

from typing import Any

import h2.events
import pytest
from h2.exceptions import ProtocolError
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from s2frames_trio.flood import FLOOD_FRAMES, FloodError
from s2frames_trio.frame_buffer import FrameBuffer
from s2frames_trio.h2_setup import make_h2
from s2frames_trio.incoming import (
    AnswerEnded,
    DataReceived,
    Event,
    HeadReceived,
    Incoming,
    StreamBroken,
)
from s2frames_trio.stream_rules import Breach, BreachError
from trio_adapter.peers import HEADERS

FIRST = SettingsFrame(0).serialize()
HEAD = HeadersFrame(1, data=b"\x88", flags=["END_HEADERS"])


class _SlowFrameBuffer(FrameBuffer):
    """All frames go through h2."""

    def peek_data(self) -> None:
        return None


def make_incoming(frames: FrameBuffer | None = None) -> Incoming:
    frames = frames or FrameBuffer()
    connection = make_h2(frames)
    connection.send_headers(1, HEADERS)
    incoming = Incoming(connection, frames)
    assert [type(e) for e in incoming.receive(FIRST, 0)] == [h2.events.RemoteSettingsChanged]
    connection.data_to_send()
    return incoming


def incoming_block(*fields: tuple[bytes, bytes]) -> bytes:
    return Encoder().encode(fields)


def wire(*frames: Frame) -> bytes:
    return b"".join(frame.serialize() for frame in frames)


def test_events_come_before_the_error_behind_them() -> None:
    incoming = make_incoming()
    events = incoming.receive(wire(HEAD, DataFrame(1, data=b"x"), DataFrame(9)), 0)
    assert isinstance(next(events), HeadReceived)
    assert isinstance(next(events), DataReceived)
    assert not incoming.is_broken
    with pytest.raises(ProtocolError):
        next(events)
    assert incoming.is_broken


def test_goaway_comes_as_a_frame_and_ends_nothing() -> None:
    incoming = make_incoming()
    goaway = GoAwayFrame(0, last_stream_id=1, error_code=2, additional_data=b"why")
    first, *rest = incoming.receive(wire(goaway, HEAD, DataFrame(1, data=b"x")), 0)
    assert isinstance(first, GoAwayFrame)
    assert (first.last_stream_id, first.error_code) == (1, 2)
    assert [type(event) for event in rest] == [HeadReceived, DataReceived]
    incoming._h2.send_data(1, b"it may still be sent")


@pytest.mark.parametrize(
    "breach",
    [
        wire(DataFrame(9)),
        wire(SettingsFrame(0, settings={4: 2**31})),
        b"\xff" * 9,
        wire(HeadersFrame(1, data=b"\xff" * 9, flags=["END_HEADERS"])),
        wire(HeadersFrame(1), PingFrame(0)),
    ],
)
def test_one_goaway_is_ready_after_a_breach(breach: bytes) -> None:
    incoming = make_incoming()
    with pytest.raises(ProtocolError):
        list(incoming.receive(breach, 0))
    assert incoming.is_broken
    frame, length = Frame.parse_frame_header(memoryview(incoming._h2.data_to_send()[:9]))
    assert isinstance(frame, GoAwayFrame)
    assert length == 8
    assert incoming._h2.data_to_send() == b""


def test_interim_answers_are_counted() -> None:
    incoming = make_incoming()
    interim = wire(HeadersFrame(1, data=b"\x08\x03103", flags=["END_HEADERS"]))
    for _ in range(FLOOD_FRAMES - 1):
        assert list(incoming.receive(interim, 0)) == []
    with pytest.raises(FloodError):
        list(incoming.receive(interim, 0))
    assert incoming.is_broken
    # The frame that was one too many is no worse than the others.
    assert incoming.guilty_stream_id == 0


def test_where_the_peer_is() -> None:
    incoming = make_incoming()
    assert incoming.place == ""
    assert list(incoming.receive(b"\x00", 0)) == []
    assert incoming.place == " inside a frame"


def raw_frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return b"".join(
        (len(body).to_bytes(3, "big"), bytes((kind, flags)), stream.to_bytes(4, "big"), body)
    )


# Frames of every kind there is, some that there are not, on streams that are and are not open.
ANY_FRAME = st.builds(
    raw_frame,
    st.integers(0, 12),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 2**31 + 1]),
    st.binary(max_size=40) | st.sampled_from([b"\x88", b"\x00" * 4, b"\x00" * 8, b"\x08\x03200"]),
)


@given(st.lists(ANY_FRAME | st.binary(max_size=20) | st.just(HEAD.serialize()), max_size=12))
def test_any_bytes_are_events_or_a_protocol_error(pieces: list[bytes]) -> None:
    incoming = make_incoming()
    try:
        for piece in pieces:
            list(incoming.receive(piece, 0))
    except ProtocolError:
        assert incoming.is_broken


def facts(event: Event) -> Any:
    data = event.data if isinstance(event, DataReceived) else None
    breach = event.error.breach if isinstance(event, StreamBroken) else None
    return type(event), getattr(event, "stream_id", None), data, breach


def outcome(incoming: Incoming, pieces: list[bytes]) -> Any:
    """All that can be seen of what came of some bytes."""
    events, error = [], None
    try:
        for piece in pieces:
            events += [facts(event) for event in incoming.receive(piece, 0)]
    except ProtocolError as raised:
        error = (type(raised), raised.error_code)
    connection = incoming._h2
    streams = {
        number: (stream.inbound_flow_control_window, stream._actual_content_length)
        for number, stream in connection.streams.items()
    }
    window = connection.inbound_flow_control_window
    return events, error, streams, window, connection.data_to_send(), incoming.place


DATA = st.builds(
    raw_frame,
    st.just(0),
    st.sampled_from([0, 0, 0, 1, 8, 64]),
    st.sampled_from([1, 1, 1, 3, 2**31 + 1]),
    st.binary(max_size=40),
)
HEADS = st.sampled_from(
    [
        HEAD.serialize(),
        # With a content-length of 10; a reset; a first head of an interim answer.
        HeadersFrame(1, data=b"\x88\x5c\x0210", flags=["END_HEADERS"]).serialize(),
        HeadersFrame(1, data=b"\x88").serialize(),
        HeadersFrame(1, data=b"\x08\x03103", flags=["END_HEADERS"]).serialize(),
        RstStreamFrame(1).serialize(),
    ]
)


@given(
    # One head in front makes all that follows more likely to be let in.
    frames=st.lists(DATA | HEADS, max_size=12).map(lambda rest: [HEAD.serialize(), *rest])
    | st.lists(DATA | HEADS | ANY_FRAME, max_size=12),
    size=st.integers(1, 200),
    window=st.integers(0, 100),
    what=st.sampled_from(["open", "ended", "reset", "closed"]),
)
def test_data_past_h2_makes_no_difference(
    frames: list[bytes], size: int, window: int, what: str
) -> None:
    outcomes = []
    for buffer in (FrameBuffer(), _SlowFrameBuffer()):
        incoming = make_incoming(buffer)
        stream = incoming._h2.streams[1]
        stream._inbound_window_manager.current_window_size = window
        if what == "ended":
            incoming._h2.end_stream(1)
        elif what == "reset":
            incoming._h2.reset_stream(1)
        elif what == "closed":
            incoming._h2.close_connection()
        data = b"".join(frames)
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        outcomes.append(outcome(incoming, pieces))
    assert outcomes[0] == outcomes[1]


def test_plain_data_does_not_go_through_h2(monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = make_incoming()
    list(incoming.receive(HEAD.serialize(), 0))
    monkeypatch.setattr(incoming._h2, "receive_data", None)
    (event,) = incoming.receive(wire(DataFrame(1, data=b"abc")), 0)
    assert facts(event) == (DataReceived, 1, b"abc", None)


def test_plain_data_is_made_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = make_incoming()
    # With a length that is known, too.
    list(incoming.receive(wire(HeadersFrame(1, data=b"\x88\x5c\x0210", flags=["END_HEADERS"])), 0))
    monkeypatch.setattr(FrameBuffer, "cut", lambda _: None)
    (event,) = incoming.receive(wire(DataFrame(1, data=b"x" * 10)), 0)
    assert facts(event) == (DataReceived, 1, b"x" * 10, None)


def test_data_beyond_the_streams_window() -> None:
    incoming = make_incoming()
    connection = incoming._h2
    connection.streams[1]._inbound_window_manager.current_window_size = 5
    list(incoming.receive(wire(HEAD, DataFrame(1, data=b"abcde")), 0))
    window = connection.inbound_flow_control_window
    broken, rest = incoming.receive(wire(DataFrame(1, data=b"f")), 0)
    assert facts(broken) == (StreamBroken, 1, None, Breach.STREAM_WINDOW_EXCEEDED)
    # It counts in the connection's window, and is to be credited there.
    assert connection.inbound_flow_control_window == window - 1
    assert isinstance(rest, DataReceived)
    assert (rest.data, rest.size) == (b"", 1)
    assert not incoming.is_broken


def test_data_beyond_the_connections_window() -> None:
    incoming = make_incoming()
    incoming._h2._inbound_flow_control_window_manager.current_window_size = 5
    list(incoming.receive(wire(HEAD, DataFrame(1, data=b"abcde")), 0))
    with pytest.raises(BreachError) as raised:
        list(incoming.receive(wire(DataFrame(1, data=b"f")), 0))
    assert raised.value.breach is Breach.CONNECTION_WINDOW_EXCEEDED
    assert incoming.is_broken
    assert incoming.guilty_stream_id == 1


def test_answers_are_counted_and_nothing_else_is() -> None:
    incoming = make_incoming()
    # Those to the first SETTINGS.
    assert incoming.num_answers == 1
    incoming.num_answers = 0
    ours = [PingFrame(0, flags=["ACK"]), SettingsFrame(0, flags=["ACK"]), HEAD, DataFrame(1, b"x")]
    list(incoming.receive(wire(*ours), 0))
    incoming._h2.ping(b"s2frames")
    assert incoming.num_answers == 0
    asking = [PingFrame(0), SettingsFrame(0), HeadersFrame(1, data=b"\x88", flags=["END_HEADERS"])]
    for count, frame in enumerate(asking, 1):
        list(incoming.receive(wire(frame), 0))
        assert incoming.num_answers == count


def test_data_after_the_connection_was_closed() -> None:
    incoming = make_incoming()
    list(incoming.receive(HEAD.serialize(), 0))
    incoming._h2.close_connection()
    with pytest.raises(ProtocolError):
        list(incoming.receive(wire(DataFrame(1, data=b"abc")), 0))


def test_more_data_than_was_announced() -> None:
    incoming = make_incoming()
    head = HeadersFrame(1, data=b"\x88\x5c\x0210", flags=["END_HEADERS"])
    list(incoming.receive(head.serialize(), 0))
    (event,) = incoming.receive(wire(DataFrame(1, data=b"x" * 10)), 0)
    assert facts(event) == (DataReceived, 1, b"x" * 10, None)
    broken, _ = incoming.receive(wire(DataFrame(1, data=b"x")), 0)
    assert facts(broken) == (StreamBroken, 1, None, Breach.BODY_TOO_LONG)


@pytest.mark.parametrize("padding", [0, 3])
def test_the_end_of_a_body_of_known_length(padding: int) -> None:
    incoming = make_incoming()
    head = HeadersFrame(1, data=b"\x88\x5c\x0210", flags=["END_HEADERS"])
    last = DataFrame(1, b"y" * 4, pad_length=padding, flags=["PADDED", "END_STREAM"])
    events = list(incoming.receive(wire(head, DataFrame(1, b"x" * 6), last), 0))
    assert [type(event) for event in events[1:]] == [DataReceived, DataReceived, AnswerEnded]


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_an_answer_that_has_no_body_whatever_its_length_says(status: bytes) -> None:
    incoming = make_incoming()
    block = incoming_block((b":status", status), (b"content-length", b"10"))
    head = HeadersFrame(1, data=block, flags=["END_HEADERS", "END_STREAM"])
    events = list(incoming.receive(wire(head), 0))
    assert [type(event) for event in events] == [HeadReceived, AnswerEnded]
