"""What arrives on a connection, as events.

What frames on a stream mean is decided here, by `stream_rules`: h2 would end the connection, and
with it all other streams, for nearly everything that a peer does wrong on one. It keeps the states
and windows of streams, and does by itself what SETTINGS and PING ask for. GOAWAY comes as the frame
it is: h2 would take the connection for closed with it, though streams that the peer accepted go on
(RFC 9113, 6.8).

What is shared is kept up whatever becomes of a stream: each header block is decoded, and all DATA
counts in the connection's window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import h2.connection
import h2.events
from attrs import define, field
from h2.connection import ConnectionState
from h2.exceptions import ProtocolError
from h2.stream import H2Stream, StreamInputs, StreamState
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from s2frames_trio.flood import FloodError, FloodGuard
from s2frames_trio.frame_buffer import FrameBuffer
from s2frames_trio.h2_stream import Response
from s2frames_trio.stream_rules import (
    Breach,
    BreachError,
    Place,
    Scope,
    check_data,
    check_end,
    check_priority,
    check_trailers,
    check_window_update,
    expected_length,
    is_taken,
)

__all__ = [
    "AnswerEnded",
    "DataReceived",
    "Event",
    "HeadReceived",
    "Incoming",
    "StreamBroken",
]

# In which a stream takes DATA (RFC 9113, 5.1).
_RECEIVING = (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL)

_Headers: TypeAlias = "list[tuple[bytes, bytes]]"


@define(eq=False)
class HeadReceived:
    """The head of an answer; interim ones are passed over."""

    stream_id: int
    response: Response


@define(eq=False)
class DataReceived:
    """Part of an answer's body, or DATA that is nobody's but counts in the connection's window."""

    stream_id: int
    data: bytes = field(repr=False)
    #: Bytes that it takes of the windows: those of `data`, and padding.
    size: int


@define(eq=False)
class AnswerEnded:
    """An answer is complete."""

    stream_id: int


@define(eq=False)
class StreamBroken:
    """The peer broke a rule on a stream, which is over with it, and reset where the peer's was."""

    stream_id: int
    error: BreachError


Event: TypeAlias = (
    HeadReceived | DataReceived | AnswerEnded | StreamBroken | h2.events.Event | GoAwayFrame
)


@define(eq=False)
class Incoming:
    """Bytes in, events out. What has to be answered is then in h2's `data_to_send`."""

    _h2: h2.connection.H2Connection
    _frames: FrameBuffer
    _flood: FloodGuard = field(factory=FloodGuard)
    #: Whether the peer broke the protocol: the GOAWAY that says so is ready to be sent.
    is_broken: bool = False
    #: The stream of the frame that it was broken with; 0 if that was on none.
    guilty_stream_id: int = 0
    #: Frames that were made ready because the peer's ask for them. Whoever sends them sets it to 0.
    num_answers: int = 0

    @property
    def place(self) -> str:
        """Where the peer is with what it says, for messages."""
        return " inside a frame" if self._frames.is_inside_frame else ""

    @property
    def begun_stream_id(self) -> int:
        """The stream of which part of a frame has arrived; 0 when there is none."""
        return self._frames.begun_stream_id

    def receive(self, data: bytes | bytearray, now: float) -> Iterator[Event]:
        """Take bytes; gives the events of each frame before the next frame is looked at.

        Raises h2's `ProtocolError` for what ends the connection.
        """
        self._frames.max_frame_size = self._h2.max_inbound_frame_size
        self._frames.add_data(data)
        try:
            self._check_open()
            while True:
                if (event := self._receive_plain_data()) is not None:
                    yield event
                elif (frame := self._frames.cut()) is not None:
                    yield from self._receive_frame(frame, now)
                else:
                    return
        except ProtocolError as error:
            if not isinstance(error, FloodError):
                self.guilty_stream_id = self._frames.stream_id
            if not self.is_broken:
                self._h2.close_connection(error.error_code)
                self.is_broken = True
            raise

    def _check_open(self) -> None:
        if self._h2.state_machine.state is ConnectionState.CLOSED:
            raise ProtocolError("the connection was closed before")

    def _receive_frame(self, frame: Frame, now: float) -> list[Event]:
        self._flood.see(frame, now)
        if isinstance(frame, GoAwayFrame):
            return [frame]
        if isinstance(frame, SettingsFrame | PingFrame):
            self.num_answers += "ACK" not in frame.flags
            return self._pass_to_h2()
        if not frame.stream_id:
            self._receive_for_all(frame)
            return []
        if isinstance(frame, DataFrame):
            return self._receive_data(frame)
        # Whatever comes of the stream: later blocks build on this one.
        headers = self._decode(frame) if isinstance(frame, HeadersFrame) else []
        try:
            if not is_taken(frame, self._place_on(frame.stream_id)):
                return []
            if isinstance(frame, HeadersFrame):
                return self._receive_headers(frame, headers, now)
            return self._receive_on_stream(frame)
        except BreachError as error:
            return [self._break_stream(frame, error)]

    def _pass_to_h2(self) -> list[Event]:
        """It takes the frame from the buffer."""
        try:
            return [*self._h2.receive_data(b"")]
        except ProtocolError:
            # It has its GOAWAY ready.
            self.is_broken = True
            raise

    def _receive_for_all(self, frame: Frame) -> None:
        # The others are unknown frames.
        if isinstance(frame, WindowUpdateFrame):
            window = self._h2.outbound_flow_control_window
            check_window_update(frame.window_increment, window, Scope.CONNECTION)
            self._h2.outbound_flow_control_window += frame.window_increment

    def _receive_on_stream(self, frame: Frame) -> list[Event]:
        """Take what is neither head nor body. Unknown frames say nothing."""
        stream = self._h2.streams[frame.stream_id]
        if isinstance(frame, RstStreamFrame):
            return self._pass_to_h2()
        if isinstance(frame, WindowUpdateFrame):
            window = stream.outbound_flow_control_window
            check_window_update(frame.window_increment, window, Scope.STREAM)
            stream.outbound_flow_control_window += frame.window_increment
        elif isinstance(frame, PriorityFrame):
            check_priority(frame)
        return []

    def _place_on(self, stream_id: int) -> Place:
        stream = self._h2.streams.get(stream_id)
        if stream is None or stream.closed:
            is_ours = stream_id % 2 and stream_id <= self._h2.highest_outbound_stream_id
            return Place.OVER if is_ours else Place.NOT_OPEN
        if stream.state_machine.state not in _RECEIVING:
            return Place.AFTER_END
        return Place.IN_BODY if stream.state_machine.headers_received else Place.BEFORE_HEAD

    # Heads and trailers

    def _decode(self, frame: HeadersFrame) -> _Headers:
        try:
            return [*self._h2.decoder.decode(frame.data, raw=True)]
        except OversizedHeaderListError as error:
            raise BreachError(Breach.TOO_MANY_HEADERS, str(error)) from error
        except HPACKError as error:
            # Its words quote the block.
            raise BreachError(Breach.UNREADABLE_HEADERS, type(error).__name__) from error

    def _receive_headers(self, frame: HeadersFrame, headers: _Headers, now: float) -> list[Event]:
        stream = self._h2.streams[frame.stream_id]
        ends = "END_STREAM" in frame.flags
        events: list[Event] = []
        if stream.state_machine.headers_received:
            check_trailers(headers, ends=ends)
        else:
            response = Response.parse(headers)
            if response.is_interim:
                if ends:
                    raise BreachError(Breach.INTERIM_THAT_ENDS)
                self._flood.count(now)
                return []
            # Counted here, and not by h2, which ends the connection for a wrong one.
            stream._expected_content_length = expected_length(response.status, response.headers)
            stream.state_machine.process_input(StreamInputs.RECV_HEADERS)
            events.append(HeadReceived(frame.stream_id, response))
        if ends:
            try:
                events.append(self._end_answer(stream))
            except BreachError as error:
                # The head was sound.
                return [*events, self._break_stream(frame, error)]
        return events

    # Bodies

    def _receive_plain_data(self) -> DataReceived | None:
        """What the next frame is, if it is nothing but a part of a body.

        Most frames are. They come here without being made objects, which takes five times as long
        as all else.
        """
        found = self._frames.peek_data()
        if found is None:
            return None
        stream_id, size = found
        stream = self._h2.streams.get(stream_id)
        if stream is None or not self._is_plain(stream, size):
            return None
        self._h2._inbound_flow_control_window_manager.window_consumed(size)
        return self._take_data(stream, self._frames.take_data(size), size)

    def _is_plain(self, stream: H2Stream, size: int) -> bool:
        """Whether so much DATA may come there; all else is looked at more closely."""
        expected = stream._expected_content_length
        # Frames without a body may be a flood.
        return (
            0 < size <= stream.inbound_flow_control_window
            and size <= self._h2.inbound_flow_control_window
            and (expected is None or size <= expected - stream._actual_content_length)
            and stream.state_machine.state in _RECEIVING
            and stream.state_machine.headers_received is True
        )

    def _take_data(self, stream: H2Stream, data: bytes, size: int) -> DataReceived:
        stream._inbound_window_manager.window_consumed(size)
        stream._actual_content_length += len(data)
        return DataReceived(stream.stream_id, data, size)

    def _receive_data(self, frame: DataFrame) -> list[Event]:
        place, size = self._place_on(frame.stream_id), frame.flow_controlled_length
        if place is not Place.NOT_OPEN:
            self._count_for_all(size)
        nothing = DataReceived(frame.stream_id, b"", size)
        try:
            if not is_taken(frame, place):
                return [nothing]
            stream = self._h2.streams[frame.stream_id]
            window = stream.inbound_flow_control_window
            check_data(size, len(frame.data), window=window, left=_bytes_left(stream))
        except BreachError as error:
            return [self._break_stream(frame, error), nothing]
        events: list[Event] = [self._take_data(stream, frame.data, size)]
        if "END_STREAM" in frame.flags:
            try:
                events.append(self._end_answer(stream))
            except BreachError as error:
                # What came before was sound.
                events.append(self._break_stream(frame, error))
        return events

    def _count_for_all(self, size: int) -> None:
        window = self._h2.inbound_flow_control_window
        if size > window:
            raise BreachError(Breach.CONNECTION_WINDOW_EXCEEDED, f"{size} bytes of {window}")
        self._h2._inbound_flow_control_window_manager.window_consumed(size)

    # Ends

    def _end_answer(self, stream: H2Stream) -> AnswerEnded:
        check_end(_bytes_left(stream))
        stream.state_machine.process_input(StreamInputs.RECV_END_STREAM)
        return AnswerEnded(stream.stream_id)

    def _break_stream(self, frame: Frame, error: BreachError) -> StreamBroken:
        """End the stream of a frame, if nothing more than that is broken."""
        if error.breach.scope is not Scope.STREAM:
            raise error
        stream = self._h2.streams[frame.stream_id]
        is_end = "END_STREAM" in frame.flags and stream.state_machine.state in _RECEIVING
        if is_end:
            stream.state_machine.process_input(StreamInputs.RECV_END_STREAM)
        # When both sides have ended it, there is nothing left to reset.
        if not stream.closed:
            self._h2.reset_stream(frame.stream_id, error.error_code)
            self.num_answers += 1
        return StreamBroken(frame.stream_id, error)


def _bytes_left(stream: H2Stream) -> int | None:
    """What is missing of a body whose length is known."""
    expected = stream._expected_content_length
    return None if expected is None else expected - stream._actual_content_length
