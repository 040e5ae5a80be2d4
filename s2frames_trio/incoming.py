"""What arrives on a connection, as h2's events.

GOAWAY alone comes as the frame it is. h2 would take the connection for closed with it, though
streams that the peer accepted go on (RFC 9113, 6.8).
"""

from __future__ import annotations

from collections.abc import Iterator

import h2.connection
from attrs import define, field
from h2.events import Event, InformationalResponseReceived
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame, GoAwayFrame

from s2frames_trio.flood import FloodGuard
from s2frames_trio.frame_buffer import FrameBuffer

__all__ = ["Incoming"]


@define(eq=False)
class Incoming:
    """Bytes in, events out. What has to be answered is then in h2's `data_to_send`."""

    _h2: h2.connection.H2Connection
    _frames: FrameBuffer
    _flood: FloodGuard = field(factory=FloodGuard)
    #: Whether the peer broke the protocol: the GOAWAY that says so is ready to be sent.
    is_broken: bool = False

    @property
    def place(self) -> str:
        """Where the peer is with what it says, for messages."""
        return " inside a frame" if self._frames.is_inside_frame else ""

    def receive(self, data: bytes | bytearray, now: float) -> Iterator[Event | GoAwayFrame]:
        """Take bytes; gives the events of each frame before the next frame is looked at.

        Raises h2's `ProtocolError` for what the protocol does not allow.
        """
        self._frames.max_frame_size = self._h2.max_inbound_frame_size
        self._frames.add_data(data)
        try:
            while (frame := self._frames.cut()) is not None:
                yield from self._receive_frame(frame, now)
        except ProtocolError as error:
            if not self.is_broken:
                self._h2.close_connection(error.error_code)
                self.is_broken = True
            raise

    def _receive_frame(self, frame: Frame, now: float) -> list[Event] | list[GoAwayFrame]:
        self._flood.see(frame, now)
        if isinstance(frame, GoAwayFrame):
            return [frame]
        try:
            # It takes the frame from the buffer.
            events = self._h2.receive_data(b"")
        except ProtocolError:
            # It has its GOAWAY ready.
            self.is_broken = True
            raise
        if any(isinstance(event, InformationalResponseReceived) for event in events):
            self._flood.count(now)
        return events
