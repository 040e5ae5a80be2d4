"""What arrives on a connection, as h2's events.

GOAWAY alone comes as the frame it is. h2 would take the connection for closed with it, though
streams that the peer accepted go on (RFC 9113, 6.8).

Most of what arrives is DATA that changes nothing but two windows. It does not go through h2, which
takes five times as long for it as all else here; the windows are counted down as h2 does. Whatever
h2 would look at twice is left to it.
"""

from __future__ import annotations

from collections.abc import Iterator

import h2.connection
from attrs import define, field
from h2.connection import ConnectionState
from h2.events import DataReceived, Event, InformationalResponseReceived
from h2.exceptions import ProtocolError
from h2.stream import H2Stream, StreamState
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame

from s2frames_trio.flood import FloodGuard
from s2frames_trio.frame_buffer import FrameBuffer

__all__ = ["Incoming"]

# In which a stream takes DATA (RFC 9113, 5.1).
_RECEIVING = (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL)


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
            while True:
                if (event := self._receive_data()) is not None:
                    yield event
                elif (frame := self._frames.cut()) is not None:
                    yield from self._receive_frame(frame, now)
                else:
                    return
        except ProtocolError as error:
            if not self.is_broken:
                self._h2.close_connection(error.error_code)
                self.is_broken = True
            raise

    def _receive_data(self) -> DataReceived | None:
        """What the next frame is, if h2 would say nothing else of it."""
        found = self._frames.peek_data()
        if found is None:
            return None
        stream_id, size = found
        stream = self._h2.streams.get(stream_id)
        if stream is None or not self._is_plain(stream, size):
            return None
        self._h2._inbound_flow_control_window_manager.window_consumed(size)
        stream._inbound_window_manager.window_consumed(size)
        stream._actual_content_length += size
        return DataReceived(
            stream_id=stream_id, data=self._frames.take_data(size), flow_controlled_length=size
        )

    def _is_plain(self, stream: H2Stream, size: int) -> bool:
        """Whether so much DATA is allowed there, and announced by no content-length."""
        # Frames without a body may be a flood.
        return (
            0 < size <= stream.inbound_flow_control_window
            and size <= self._h2.inbound_flow_control_window
            and stream._expected_content_length is None
            and stream.state_machine.state in _RECEIVING
            and stream.state_machine.headers_received is True
            and self._h2.state_machine.state is ConnectionState.CLIENT_OPEN
        )

    def _receive_frame(self, frame: Frame, now: float) -> list[Event] | list[GoAwayFrame]:
        self._flood.see(frame, now)
        if isinstance(frame, GoAwayFrame):
            return [frame]
        if isinstance(frame, HeadersFrame):
            self._forget_if_closed(frame.stream_id)
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

    def _forget_if_closed(self, stream_id: int) -> None:
        """Let h2 answer as it does on streams that are long over.

        While it still knows one that we have reset, a 1xx answer there is an error of the
        connection to it; but that was on its way.
        """
        stream = self._h2.streams.get(stream_id)
        if stream is not None and stream.closed:
            # Counting them makes it forget those that are closed.
            _ = self._h2.open_outbound_streams
