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

__all__ = ["WRITE_BYTES", "Outgoing", "Upload"]

#: Bytes of bodies in one write to the socket. Larger ones gain nothing.
WRITE_BYTES = 256 * 1024

# Bytes that one stream may put there before the next one has its turn, and so of the largest frame.
_TURN_BYTES = 64 * 1024

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
        """The next `size` bytes."""
        self.size -= size
        taken = []
        while size:
            view = self._views.popleft()
            if len(view) > size:
                self._views.appendleft(view[size:])
                view = view[:size]
            taken.append(view)
            size -= len(view)
        return taken

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

    def cut(self) -> tuple[list[bytes | memoryview], list[Upload]]:
        """Frames for one write, as far as the windows allow, and the uploads they complete."""
        frames: list[bytes | memoryview] = []
        complete: list[Upload] = []
        room = WRITE_BYTES
        blocked = 0  # streams in a row that had nothing to give
        while room and blocked < len(self._uploads):
            upload = self._uploads.popleft()
            size = self._cut_turn(upload, min(room, _TURN_BYTES), frames)
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
