"""What arrives on a connection, cut into HTTP/2 frames, for h2.

h2 has a buffer of its own, which this one replaces, for four reasons. h2 formats `repr(frame)` of
every frame for a log that nobody reads, which for DATA is the whole body in hex: 180 MiB/s became
990 without. h2's buffer copies a body three times, this one once. h2 handles all that it has before
it tells of any of it, so that an error hides what came before; here it gets one frame at a time.
And h2 takes 64 CONTINUATION frames of any size before it looks at the header block in them.
"""

from __future__ import annotations

from collections import deque
from struct import Struct

from h2.exceptions import DenialOfServiceError, FrameDataMissingError, ProtocolError
from h2.frame_buffer import FrameBuffer as H2FrameBuffer
from h2.settings import SettingCodes
from hyperframe.exceptions import HyperframeError, InvalidPaddingError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PriorityFrame,
    PushPromiseFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

__all__ = ["MAX_HEADER_BYTES", "FrameBuffer"]

#: Bytes of the largest header block that is taken, encoded or decoded. h2's default for decoded
#: ones; S2's headers are a few hundred bytes.
MAX_HEADER_BYTES = 64 * 1024

# The header of a frame, and where its type is (RFC 9113, 4.1).
_HEADER_BYTES = 9
_TYPE_OFFSET = 3

# How TLS's alerts and handshakes begin (RFC 8446, 5.1): all that a client hears which speaks none.
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
_TLS_BYTES = 2

# Length in 24 bits, type, flags, and a stream in 31 bits.
_HEADER = Struct(">HBBBL")
_MAX_STREAM_ID = 2**31 - 1

# Of a WINDOW_UPDATE: its increment, in 31 bits.
_INCREMENT_BYTES = 4
_MAX_INCREMENT = 2**31 - 1

# Those that mean something to h2.
_SETTINGS = frozenset(map(int, SettingCodes))

# Pieces that are so small together are joined as they arrive.
_SMALL_BYTES = 4096


class FrameBuffer(H2FrameBuffer):
    """Bytes in by `add_data`, frames out by `cut`; iterating gives h2 the frame cut last."""

    def __init__(self) -> None:
        super().__init__(server=False)
        self._bytes = _ByteQueue()
        self._frame: Frame | None = None
        #: The stream of the frame that was looked at last; 0 for the connection's own.
        self.stream_id = 0
        self._is_first = True
        # The frames of a header block that is not complete.
        self._block: list[HeadersFrame | PushPromiseFrame | ContinuationFrame] = []
        self._block_bytes = 0

    def add_data(self, data: bytes | bytearray) -> None:  # type: ignore[override]  # fewer types
        """Store what arrived."""
        if data:
            self._bytes.append(data)

    @property
    def is_inside_frame(self) -> bool:
        """Whether part of a frame has arrived, or a part of the frames of a header block."""
        return bool(len(self._bytes) or self._block)

    @property
    def begun_stream_id(self) -> int:
        """The stream of which part of a frame has arrived; 0 when there is none."""
        if self._is_first or self._block or len(self._bytes) < _HEADER_BYTES:
            return 0
        stream_id: int = _HEADER.unpack(self._bytes.peek(_HEADER_BYTES))[-1] & _MAX_STREAM_ID
        return stream_id

    def cut(self) -> Frame | None:
        """The next frame, which h2 is then to take; None until it is complete.

        Raises h2's `ProtocolError` for what is no frame that may come now.
        """
        if self._is_first and len(self._bytes) >= _TLS_BYTES:
            _check_for_tls(self._bytes.peek(_TLS_BYTES))
        while len(self._bytes) >= _HEADER_BYTES:
            header = self._bytes.peek(_HEADER_BYTES)
            frame, length = self._parse_header(header)
            if len(self._bytes) < _HEADER_BYTES + length:
                return None
            self._bytes.skip(_HEADER_BYTES)
            _parse_body(frame, self._bytes.take(length))
            joined = self._join_header_block(frame)
            if joined is not None:
                self._frame = joined
                return joined
        return None

    def peek_data(self) -> tuple[int, int] | None:
        """The stream and length of the next frame, if it is DATA without flags, all of it here.

        For who can do without h2: of such a frame `take_data` then gives the body, and `cut`
        nothing. hyperframe makes seven objects of a header, which takes longer than all the rest.
        """
        if self._is_first or self._block or len(self._bytes) < _HEADER_BYTES:
            return None
        header = self._bytes.peek(_HEADER_BYTES)
        high, low, kind, flags, stream_id = _HEADER.unpack(header)
        length = high << 8 | low
        if kind != DataFrame.type or flags or length > self.max_frame_size:
            return None
        if len(self._bytes) < _HEADER_BYTES + length:
            return None
        return stream_id & _MAX_STREAM_ID, length

    def take_data(self, length: int) -> bytes:
        """The body of the frame that `peek_data` has found."""
        self._bytes.skip(_HEADER_BYTES)
        return self._bytes.take(length)

    def __iter__(self) -> FrameBuffer:
        return self

    def __next__(self) -> Frame:
        frame, self._frame = self._frame, None
        if frame is None:
            raise StopIteration
        return frame

    def _parse_header(self, header: bytes) -> tuple[Frame, int]:
        if self._is_first:
            _check_first(header)
        self.stream_id = _HEADER.unpack(header)[-1] & _MAX_STREAM_ID
        try:
            frame, length = Frame.parse_frame_header(memoryview(header))
        except HyperframeError as error:
            raise ProtocolError(f"a frame with an invalid header: {error}") from error
        self._is_first = False
        self._validate_frame_length(length)
        self._check_header_block(frame, length)
        return frame, length

    def _check_header_block(self, frame: Frame, length: int) -> None:
        is_part = isinstance(frame, HeadersFrame | PushPromiseFrame | ContinuationFrame)
        if is_part and self._block_bytes + length > MAX_HEADER_BYTES:
            raise DenialOfServiceError(f"a header block of more than {MAX_HEADER_BYTES} bytes")
        if not self._block:
            return
        is_next = isinstance(frame, ContinuationFrame)
        if not is_next or frame.stream_id != self._block[0].stream_id:
            raise ProtocolError(f"a {type(frame).__name__} inside a header block")

    def _join_header_block(self, frame: Frame) -> Frame | None:
        """`frame`, or the one that all frames of its header block make; None while some lack."""
        if not isinstance(frame, HeadersFrame | PushPromiseFrame | ContinuationFrame):
            return frame
        if isinstance(frame, ContinuationFrame) and not self._block:
            return frame
        # A CONTINUATION may be empty: it counts all the same, so that they end some time.
        self._block_bytes += len(frame.data) + _HEADER_BYTES
        self._block.append(frame)
        if "END_HEADERS" not in frame.flags:
            return None
        first, parts = self._block[0], [part.data for part in self._block]
        self._block, self._block_bytes = [], 0
        first.flags.add("END_HEADERS")
        first.data = b"".join(parts)
        return first


def _check_for_tls(begin: bytes) -> None:
    """A frame that begins like a TLS record is longer than a first frame may be."""
    if begin in _TLS_RECORDS:
        raise ProtocolError("it speaks TLS: use https")


def _check_first(header: bytes) -> None:
    """A server's first frame is SETTINGS (RFC 9113, 3.4)."""
    if header.startswith(b"HTTP/"):
        raise ProtocolError(
            "it speaks HTTP/1, not HTTP/2; the clients of s2frames_httpx speak HTTP/1"
        )
    if header[_TYPE_OFFSET] != SettingsFrame.type:
        raise ProtocolError("it does not speak HTTP/2")


def _parse_body(frame: Frame, body: bytes) -> None:
    if isinstance(frame, DataFrame):
        # Shadows the method: h2 asks every frame for its representation.
        frame._body_repr = _no_repr  # type: ignore[method-assign]
        if "PADDED" not in frame.flags:
            frame.data = body
            frame.body_len = len(body)
            return
    if isinstance(frame, WindowUpdateFrame) and len(body) == _INCREMENT_BYTES:
        # hyperframe refuses an increment of 0, which is an error of its stream alone.
        frame.window_increment = int.from_bytes(body, "big") & _MAX_INCREMENT
        frame.body_len = len(body)
        return
    if isinstance(frame, PriorityFrame):
        # So with one of a wrong size; and what it says is of no use.
        frame.body_len = len(body)
        return
    try:
        frame.parse_body(memoryview(body))
    except InvalidPaddingError as error:
        raise ProtocolError(f"a {type(frame).__name__} with an invalid padding") from error
    except HyperframeError as error:
        name = type(frame).__name__
        raise FrameDataMissingError(f"a {name} with an invalid body: {error}") from error
    if isinstance(frame, SettingsFrame):
        # h2 would keep the others, and look at every one again with each SETTINGS that follows:
        # they are to be ignored (RFC 9113, 6.5.2).
        frame.settings = {code: frame.settings[code] for code in frame.settings.keys() & _SETTINGS}


def _no_repr() -> str:
    return ""


class _ByteQueue:
    """Bytes in as they arrive, out as they are needed; each is copied once."""

    def __init__(self) -> None:
        self._chunks: deque[bytes | bytearray] = deque()
        self._offset = 0  # into the first chunk
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes | bytearray) -> None:
        # A peer that sends single bytes must not make us hold an object for each.
        if self._chunks and len(self._chunks[-1]) + len(data) <= _SMALL_BYTES:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        self._size += len(data)

    def peek(self, size: int) -> bytes:
        first = self._chunks[0]
        if len(first) - self._offset >= size:
            return bytes(first[self._offset : self._offset + size])
        head = self.take(size)
        if self._offset:
            self._chunks[0] = self._chunks[0][self._offset :]
            self._offset = 0
        self._chunks.appendleft(head)
        self._size += size
        return head

    def skip(self, size: int) -> None:
        """Drop `size` bytes that the first chunk holds, as after `peek`."""
        self._offset += size
        self._size -= size
        if self._offset == len(self._chunks[0]):
            self._chunks.popleft()
            self._offset = 0

    def take(self, size: int) -> bytes:
        parts: list[memoryview] = []
        while size:
            view = memoryview(self._chunks[0])[self._offset : self._offset + size]
            parts.append(view)
            self.skip(len(view))
            size -= len(view)
        return b"".join(parts)
