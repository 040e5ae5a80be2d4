from __future__ import annotations

from typing import Any

import h2.connection
import pytest
from h2.exceptions import DenialOfServiceError, FrameTooLargeError, ProtocolError
from h2.frame_buffer import FrameBuffer as H2FrameBuffer
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from s2frames_trio.frame_buffer import MAX_HEADER_BYTES, FrameBuffer
from s2frames_trio.h2_setup import MAX_FRAME_BYTES, make_h2

FIRST = SettingsFrame(0, settings={4: 1000}).serialize()

FRAMES: list[Frame] = [
    DataFrame(1, data=b"abc"),
    DataFrame(1, data=b""),
    DataFrame(1, data=b"abc", pad_length=7, flags=["PADDED"]),
    DataFrame(3, data=bytes(range(256)) * 20, flags=["END_STREAM"]),
    HeadersFrame(1, data=b"\x88", flags=["END_HEADERS"]),
    HeadersFrame(1, data=b"\x88", flags=["END_HEADERS", "PRIORITY"], depends_on=3),
    PingFrame(0, opaque_data=b"12345678"),
    WindowUpdateFrame(1, window_increment=9),
    SettingsFrame(0, flags=["ACK"]),
]


def make_buffer() -> FrameBuffer:
    buffer = FrameBuffer()
    buffer.max_frame_size = MAX_FRAME_BYTES
    return buffer


def cut_all(buffer: FrameBuffer) -> list[Frame]:
    frames = []
    while (frame := buffer.cut()) is not None:
        # h2 gets that frame, once.
        assert list(buffer) == [frame]
        assert list(buffer) == []
        frames.append(frame)
    return frames


def facts(frame: Frame) -> Any:
    data = getattr(frame, "data", None)
    return type(frame), frame.stream_id, set(frame.flags), data, frame.body_len


def whole(frame: Frame) -> Any:
    data = frame.serialize()
    parsed, _ = Frame.parse_frame_header(memoryview(data[:9]))
    parsed.parse_body(memoryview(data[9:]))
    return facts(parsed)


@given(
    frames=st.lists(st.sampled_from(FRAMES), max_size=8),
    sizes=st.lists(st.integers(1, 40), min_size=1),
)
def test_frames_cut_anywhere(frames: list[Frame], sizes: list[int]) -> None:
    buffer = make_buffer()
    data = FIRST + b"".join(frame.serialize() for frame in frames)
    cut: list[Frame] = []
    start = turn = 0
    while start < len(data):
        size = sizes[turn % len(sizes)]
        buffer.add_data(data[start : start + size])
        start, turn = start + size, turn + 1
        cut += cut_all(buffer)
    assert not buffer.is_inside_frame
    assert [facts(frame) for frame in cut[1:]] == [whole(frame) for frame in frames]


def test_a_part_of_a_frame() -> None:
    buffer = make_buffer()
    assert not buffer.is_inside_frame
    buffer.add_data(FIRST[:5])
    assert buffer.cut() is None
    assert buffer.is_inside_frame
    buffer.add_data(FIRST[5:])
    assert isinstance(buffer.cut(), SettingsFrame)
    buffer.add_data(HeadersFrame(1, data=b"x").serialize())
    assert buffer.cut() is None
    assert buffer.is_inside_frame


def test_whose_frame_has_begun() -> None:
    buffer = make_buffer()
    data = DataFrame(7, data=b"12345").serialize()
    buffer.add_data(FIRST[:9])
    assert buffer.begun_stream_id == 0
    buffer.add_data(FIRST[9:])
    assert isinstance(buffer.cut(), SettingsFrame)
    for byte in data[:8]:
        buffer.add_data(bytes([byte]))
        assert buffer.begun_stream_id == 0
    buffer.add_data(data[8:10])
    assert buffer.begun_stream_id == 7
    buffer.add_data(data[10:])
    assert isinstance(buffer.cut(), DataFrame)
    assert buffer.begun_stream_id == 0
    # Of a header block there is more to come.
    block = HeadersFrame(9, data=b"x").serialize() + ContinuationFrame(9, data=b"yz").serialize()
    buffer.add_data(block[:-1])
    assert buffer.cut() is None
    assert buffer.begun_stream_id == 0


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=6))
def test_header_blocks_are_joined(sizes: list[int]) -> None:
    parts = [bytes([index]) * size for index, size in enumerate(sizes)]
    frames: list[Frame] = [
        (ContinuationFrame if index else HeadersFrame)(1, data=part)
        for index, part in enumerate(parts)
    ]
    frames[-1].flags.add("END_HEADERS")
    buffer = make_buffer()
    buffer.add_data(FIRST + b"".join(frame.serialize() for frame in frames))
    _, joined = cut_all(buffer)
    assert isinstance(joined, HeadersFrame)
    assert joined.data == b"".join(parts)
    assert "END_HEADERS" in joined.flags
    buffer.add_data(PingFrame(0).serialize())
    assert isinstance(buffer.cut(), PingFrame)


REFUSED: dict[str, tuple[list[Frame], type[Exception], str]] = {
    "too large": ([DataFrame(1, data=bytes(MAX_FRAME_BYTES + 1))], FrameTooLargeError, "1048577"),
    "data of stream 0": ([], ProtocolError, "invalid header"),
    "ping of 7 bytes": ([], ProtocolError, "PingFrame with an invalid body"),
    "padding": ([], ProtocolError, "DataFrame with an invalid padding"),
    "large block": (
        [HeadersFrame(1, data=bytes(MAX_HEADER_BYTES + 1))],
        DenialOfServiceError,
        "more than 65536",
    ),
    "large promise": (
        [PushPromiseFrame(1, 2, data=bytes(MAX_HEADER_BYTES + 1))],
        DenialOfServiceError,
        "more than 65536",
    ),
    "interrupted": ([HeadersFrame(1), PingFrame(0)], ProtocolError, "PingFrame inside a header"),
    "another stream": (
        [HeadersFrame(1), ContinuationFrame(3)],
        ProtocolError,
        "ContinuationFrame inside",
    ),
    "twice": ([HeadersFrame(1), HeadersFrame(1)], ProtocolError, "HeadersFrame inside"),
}
RAW = {
    "data of stream 0": DataFrame(1, data=b"x").serialize().replace(b"\0\1x", b"\0\0x"),
    "ping of 7 bytes": b"\x00\x00\x07\x06\x00\x00\x00\x00\x00" + bytes(7),
    "padding": b"\x00\x00\x02\x00\x08\x00\x00\x00\x01\x09x",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    frames, kind, words = REFUSED[name]
    buffer = make_buffer()
    buffer.add_data(FIRST)
    assert len(cut_all(buffer)) == 1
    buffer.add_data(b"".join(frame.serialize() for frame in frames) + RAW.get(name, b""))
    with pytest.raises(kind, match=words):
        cut_all(buffer)


def raw_frame(kind: int, stream_id: int, body: bytes) -> bytes:
    return b"".join((len(body).to_bytes(3, "big"), bytes((kind, 0)), stream_id.to_bytes(4), body))


def test_what_breaks_only_its_stream_is_no_wrong_frame() -> None:
    buffer = make_buffer()
    increments = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]
    updates = [raw_frame(8, 1, increment.to_bytes(4, "big")) for increment in increments]
    priorities = [raw_frame(2, 1, bytes(size)) for size in (0, 4, 5, 6)]
    buffer.add_data(FIRST + b"".join(updates + priorities))
    cut = cut_all(buffer)[1:]
    # The bit before an increment means nothing.
    assert [f.window_increment for f in cut if isinstance(f, WindowUpdateFrame)] == [
        *(0, 1, 2**31 - 1, 0, 2**31 - 1)
    ]
    assert [f.body_len for f in cut if isinstance(f, PriorityFrame)] == [0, 4, 5, 6]


def test_which_stream_a_wrong_frame_is_on() -> None:
    buffer = make_buffer()
    assert buffer.stream_id == 0
    buffer.add_data(FIRST + DataFrame(5, data=b"x").serialize())
    cut_all(buffer)
    assert buffer.stream_id == 5
    buffer.add_data(raw_frame(3, 7, bytes(3)))
    with pytest.raises(ProtocolError, match="RstStreamFrame"):
        buffer.cut()
    assert buffer.stream_id == 7


def test_a_large_frame_is_refused_before_it_arrives() -> None:
    buffer = make_buffer()
    buffer.add_data(FIRST)
    buffer.cut()
    buffer.add_data(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")
    with pytest.raises(FrameTooLargeError):
        buffer.cut()


def test_empty_continuations_end_some_time() -> None:
    buffer = make_buffer()
    buffer.add_data(FIRST + HeadersFrame(1).serialize())
    assert len(cut_all(buffer)) == 1
    buffer.add_data(ContinuationFrame(1).serialize() * 10_000)
    with pytest.raises(DenialOfServiceError):
        buffer.cut()


@given(data=st.binary(max_size=200), follows=st.booleans())
def test_any_bytes_are_frames_or_a_protocol_error(data: bytes, follows: bool) -> None:
    buffer = make_buffer()
    buffer.add_data((FIRST if follows else b"") + data)
    try:
        cut_all(buffer)
    except ProtocolError:
        """It is no HTTP/2."""


# What of h2 all this rests on


class Loud(DataFrame):
    """DATA that counts how often its body was put into words."""

    spoken = 0

    def serialize_body(self) -> bytes:
        Loud.spoken += 1
        return super().serialize_body()

    def _body_repr(self) -> str:
        Loud.spoken += 1
        return super()._body_repr()


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> type[Loud]:
    monkeypatch.setitem(Frame.parse_frame_header.__globals__["FRAMES"], DataFrame.type, Loud)
    monkeypatch.setattr(Loud, "spoken", 0)
    return Loud


def receive_body(connection: h2.connection.H2Connection) -> None:
    """Let h2 receive 500 kB of DATA as they come."""
    connection._frame_dispatch_table[Loud] = connection._receive_data_frame
    connection.send_headers(
        1, [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    )
    buffer = connection.incoming_buffer
    data = FIRST + HeadersFrame(1, data=b"\x88", flags=["END_HEADERS"]).serialize()
    data += b"\x07\xa1\x20\x00\x00\x00\x00\x00\x01" + bytes(500_000)
    connection.incoming_buffer.max_frame_size = MAX_FRAME_BYTES
    if not isinstance(buffer, FrameBuffer):
        connection.receive_data(data)
        return
    buffer.add_data(data)
    while buffer.cut() is not None:
        connection.receive_data(b"")


def test_h2_puts_no_body_into_words(loud: type[Loud]) -> None:
    receive_body(make_h2(FrameBuffer()))
    assert loud.spoken == 0


def test_h2_would_put_every_body_into_words(loud: type[Loud]) -> None:
    """When this fails, h2 has changed: `_body_repr` is shadowed for nothing."""
    connection = make_h2(FrameBuffer())
    plain = H2FrameBuffer(server=False)
    connection.incoming_buffer = plain
    receive_body(connection)
    assert loud.spoken > 0


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (DataFrame(1, data=b"abc"), (1, 3)),
        (DataFrame(2**31 - 1, data=b""), (2**31 - 1, 0)),
        (DataFrame(1, data=bytes(70_000)), (1, 70_000)),
        (DataFrame(1, data=b"abc", flags=["END_STREAM"]), None),
        (DataFrame(1, data=b"abc", pad_length=1, flags=["PADDED"]), None),
        (PingFrame(0, opaque_data=b"12345678"), None),
    ],
)
def test_plain_data_is_found(frame: Frame, found: tuple[int, int] | None) -> None:
    buffer = make_buffer()
    buffer.add_data(FIRST)
    # Not before SETTINGS.
    assert buffer.peek_data() is None
    cut_all(buffer)
    data = frame.serialize()
    for part in (data[:5], data[5:-1]):
        buffer.add_data(part)
        assert buffer.peek_data() is None
    buffer.add_data(data[-1:])
    # It takes nothing away.
    assert buffer.peek_data() == buffer.peek_data() == found
    if found is not None:
        assert buffer.take_data(found[1]) == data[9:]
        assert not buffer.is_inside_frame
    else:
        assert [type(cut) for cut in cut_all(buffer)] == [type(frame)]


def test_plain_data_that_must_not_come_is_not_found() -> None:
    buffer = make_buffer()
    buffer.add_data(DataFrame(1, data=b"x").serialize())
    assert buffer.peek_data() is None
    buffer = make_buffer()
    buffer.add_data(FIRST + HeadersFrame(1, data=b"\x88").serialize())
    cut_all(buffer)
    buffer.add_data(DataFrame(1, data=b"inside a header block").serialize())
    assert buffer.peek_data() is None
    buffer = make_buffer()
    buffer.add_data(FIRST)
    cut_all(buffer)
    buffer.max_frame_size = 16_384
    buffer.add_data(DataFrame(1, data=bytes(16_385)).serialize())
    assert buffer.peek_data() is None
