"""What waits to be sent on a connection's streams, cut into DATA frames, each stream in its turn.

h2 would copy every body five times on its way. So the frames are made here, around views of the
buffers, and h2's two windows are counted down as h2 does. What changes a stream's state goes
through h2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from struct import Struct

import h2.connection
from attrs import define, field

__all__ = ["Outgoing", "Upload"]

# Bytes that one stream may put there before the next one has its turn, and so of the largest frame.
_TURN_BYTES = 64 * 1024

# Seconds after which those in line are told that it moves: they wait 5 s for that.
_TELLING_SECONDS = 1.0

# Length in 24 bits, type and flags 0, stream (RFC 9113, 4.1).
_FRAME_HEADER = Struct(">BHBBL")


@define(eq=False)
class Upload:
    """A part of a request's body, or its end, that is to be sent."""

    stream_id: int
    ends_stream: bool = False
    _views: deque[memoryview] = field(factory=deque)
    #: Bytes that are not cut yet.
    size: int = 0
    # Bytes that are cut and of which nobody was told that they are written.
    _unwritten: int = 0
    #: Told how many bytes were written, after each write that had some; and of none every second
    #: in which others had their turn.
    on_written: Callable[[int], object] = lambda num_bytes: num_bytes
    #: Told once, when all was sent or will never be: whether it was.
    on_settled: Callable[[bool], object] = lambda is_sent: is_sent
    is_settled: bool = False
    is_sent: bool = False

    @classmethod
    def of(cls, stream_id: int, buffers: Iterable[bytes | bytearray | memoryview]) -> Upload:
        """An upload of these bytes, which are not copied."""
        views = deque(view for view in map(_as_bytes, buffers) if view)
        return cls(stream_id, views=views, size=sum(map(len, views)))

    def take(self, size: int) -> list[memoryview]:
        """The next `size` bytes, which are about to be written."""
        self.size -= size
        self._unwritten += size
        taken = []
        while size:
            view = self._views.popleft()
            if len(view) > size:
                self._views.appendleft(view[size:])
                view = view[:size]
            taken.append(view)
            size -= len(view)
        return taken

    def note_written(self) -> None:
        """What was taken so far is written."""
        num_bytes, self._unwritten = self._unwritten, 0
        if num_bytes:
            self.on_written(num_bytes)

    def settle(self, *, is_sent: bool) -> None:
        """Tell what became of it. What was said first holds."""
        if not self.is_settled:
            self.is_settled, self.is_sent = True, is_sent
            self.on_settled(is_sent)


def _as_bytes(buffer: bytes | bytearray | memoryview) -> memoryview:
    return memoryview(buffer).cast("B")


@define(eq=False)
class Outgoing:
    """The uploads of a connection."""

    _h2: h2.connection.H2Connection
    _uploads: deque[Upload] = field(factory=deque)
    # Those of which the write under way has bytes.
    _in_write: list[Upload] = field(factory=list)
    # When those in line are next told that it moves.
    _tells_at: float = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether an upload is in line."""
        return bool(self._uploads)

    def add(self, upload: Upload) -> None:
        """Put an upload in line. A stream has one at a time."""
        self._uploads.append(upload)

    def drop(self, stream_id: int) -> None:
        """The stream is over: send no more of it."""
        for upload in [upload for upload in self._uploads if upload.stream_id == stream_id]:
            self._uploads.remove(upload)
            upload.settle(is_sent=False)

    def cut(self, room: int) -> tuple[list[bytes | memoryview], list[Upload]]:
        """Frames for one write of up to `room` bytes of bodies, as far as the windows allow.

        And the uploads they complete. When it is done, call `note_written`.
        """
        frames: list[bytes | memoryview] = []
        complete: list[Upload] = []
        blocked = 0  # streams in a row that had nothing to give
        while room and blocked < len(self._uploads):
            upload = self._uploads.popleft()
            size = self._cut_turn(upload, min(room, _TURN_BYTES), frames)
            if size:
                self._in_write.append(upload)
            room -= size
            blocked = 0 if size else blocked + 1
            if upload.size:
                self._uploads.append(upload)
                continue
            blocked = 0
            complete.append(upload)
            if upload.ends_stream:
                self._h2.end_stream(upload.stream_id)
                frames.append(self._h2.data_to_send())
        return frames, complete

    def note_written(self, now: float) -> None:
        """What was cut is written."""
        uploads, self._in_write = self._in_write, []
        for upload in uploads:
            upload.note_written()
        if self._uploads and now >= self._tells_at:
            self._tells_at = now + _TELLING_SECONDS
            self._tell_line()

    def _tell_line(self) -> None:
        """Tell those whose turn will come; for others it depends on their peer."""
        for upload in tuple(self._uploads):
            if upload.size and self._h2.streams[upload.stream_id].outbound_flow_control_window > 0:
                upload.on_written(0)

    def _cut_turn(self, upload: Upload, room: int, frames: list[bytes | memoryview]) -> int:
        """Frames for up to `room` bytes of an upload; returns how many they hold."""
        stream = self._h2.streams[upload.stream_id]
        # Either may be negative (RFC 9113, 6.9.2).
        windows = (stream.outbound_flow_control_window, self._h2.outbound_flow_control_window)
        size = max(0, min(room, upload.size, *windows))
        stream.outbound_flow_control_window -= size
        self._h2.outbound_flow_control_window -= size
        for start in range(0, size, self._h2.max_outbound_frame_size):
            length = min(size - start, self._h2.max_outbound_frame_size)
            frames.append(_FRAME_HEADER.pack(length >> 16, length & 0xFFFF, 0, 0, upload.stream_id))
            frames += upload.take(length)
        return size
