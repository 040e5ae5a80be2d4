from __future__ import annotations

import h2.events
import pytest
from h2.exceptions import DenialOfServiceError, ProtocolError
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from s2frames_trio.flood import FLOOD_FRAMES
from s2frames_trio.frame_buffer import FrameBuffer
from s2frames_trio.h2_setup import make_h2
from s2frames_trio.incoming import Incoming
from trio_adapter.peers import HEADERS

FIRST = SettingsFrame(0).serialize()
HEAD = HeadersFrame(1, data=b"\x88", flags=["END_HEADERS"])


def make_incoming() -> Incoming:
    frames = FrameBuffer()
    connection = make_h2(frames)
    connection.send_headers(1, HEADERS)
    incoming = Incoming(connection, frames)
    assert [type(e) for e in incoming.receive(FIRST, 0)] == [h2.events.RemoteSettingsChanged]
    connection.data_to_send()
    return incoming


def wire(*frames: Frame) -> bytes:
    return b"".join(frame.serialize() for frame in frames)


def test_events_come_before_the_error_behind_them() -> None:
    incoming = make_incoming()
    events = incoming.receive(wire(HEAD, DataFrame(1, data=b"x"), DataFrame(9)), 0)
    assert isinstance(next(events), h2.events.ResponseReceived)
    assert isinstance(next(events), h2.events.DataReceived)
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
    assert [type(event) for event in rest] == [
        h2.events.ResponseReceived,
        h2.events.DataReceived,
    ]
    incoming._h2.send_data(1, b"it may still be sent")


@pytest.mark.parametrize(
    "breach",
    [
        wire(DataFrame(9)),
        wire(DataFrame(1, data=b"before the head")),
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
        assert len(list(incoming.receive(interim, 0))) == 1
    with pytest.raises(DenialOfServiceError):
        list(incoming.receive(interim, 0))
    assert incoming.is_broken


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
