"""One HTTP/2 connection: many long streams, each in both directions at once, over one transport.

Three tasks, and no other touches the transport. The reader never waits for a write: what it has to
answer it leaves to the writer, whose `_flush` is the one place that sends. So a peer that reads
only once it is read from is no deadlock, and cancelling a request never leaves half a frame behind.
The third task watches: a silent peer, an idle connection.

h2 keeps the protocol's state; `FrameBuffer` and `Outgoing` carry the bytes of bodies past it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import h2.connection
import h2.events
import trio
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame

from s2frames.errors import ConnectError, LocalProtocolError, S2FramesError, TransportError
from s2frames.home import Home
from s2frames.system.process import THIS_PROCESS
from s2frames.writes import Writes
from s2frames_trio.connection_state import TRANSITIONS, ConnectionInput, ConnectionState
from s2frames_trio.frame_buffer import FrameBuffer
from s2frames_trio.h2_setup import CONNECTION_WINDOW, bound_encoder, make_h2
from s2frames_trio.h2_stream import Http2Stream
from s2frames_trio.incoming import (
    AnswerEnded,
    DataReceived,
    HeadReceived,
    Incoming,
    StreamBroken,
)
from s2frames_trio.interrupts import protected
from s2frames_trio.mapping import (
    FOREIGN_ERRORS,
    another,
    breach_error,
    code_name,
    reset_error,
    to_our_error,
    unprocessed_error,
)
from s2frames_trio.outgoing import Outgoing, Upload
from s2frames_trio.quick_ack import quick_acks
from s2frames_trio.receive_window import Grants, ReceiveWindow

__all__ = [
    "IDLE_SECONDS",
    "PING_SECONDS",
    "PONG_SECONDS",
    "Http2Connection",
]

#: Seconds without a byte from the peer after which it is asked for a sign of life, and seconds in
#: which one must come once the question can have crossed the line: together the 20 s after which a
#: session counts its connection as dead.
PING_SECONDS = 10.0
PONG_SECONDS = 10.0

#: Seconds without a stream after which a connection is closed; the Rust client's value.
IDLE_SECONDS = 90.0

# Stream ids that are left when a connection takes no new streams: those in flight use none.
_LAST_STREAM_ID = 2**31 - 1 - 2 * 1000

# Bytes of one receive. A large frame takes few, and small ones come many at once.
_RECEIVE_BYTES = 256 * 1024

# Bytes that arrive before the peer is told that it may send as many more. The rest of the window
# lasts meanwhile.
_CREDIT_BYTES = CONNECTION_WINDOW // 4

# Answers (to PING, SETTINGS and breaches) that wait while the peer does not read; nghttp2's number.
# More is a peer that only asks.
_MAX_UNSENT_ANSWERS = 1000

# Bytes of frames, without those of bodies, that wait while the peer does not read: with more there
# is no room for another stream. It is a thousand requests, with a token of 1 kB.
_MAX_UNSENT_BYTES = 1024 * 1024

# Seconds and bytes in which what has arrived is read when nothing can be written any more: an
# answer may say why, and Linux holds up to 6 MiB of it for a socket (tcp_rmem).
_LAST_SECONDS = 1.0
_LAST_BYTES = 8 * 1024 * 1024

# Seconds in which the last words, GOAWAY and TLS's goodbye, must be sent.
_GOODBYE_SECONDS = 1.0

_PING_DATA = b"s2frames"

_NOTHING: Mapping[int, S2FramesError] = {}
# Said of a peer that leaves before it has said anything that is HTTP/2.
_DOUBT = " at once; is it HTTP/2 that is spoken there, and http or https as the URL has it?"


class Http2Connection:
    """A client's side of a connection. Start `run` in a nursery, then wait for `wait_open`.

    Args:
        transport: connected, with TLS done; closed when `run` ends.
        where: the origin, for messages.
        number: what its streams call it by.
        on_change: called when there may be room for a stream again, and when it is over.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        where: str,
        *,
        number: int = 0,
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        self.number = number
        self._home = Home("a connection", THIS_PROCESS)
        #: How often it was left by those who use it since it last answered anything.
        self.times_left = 0
        self._transport = transport
        self._where = where
        self._on_change = on_change
        self._state = ConnectionState.OPENING
        self._error: S2FramesError | None = None
        self._opened = trio.Event()
        self._streams: dict[int, Http2Stream] = {}
        frames = FrameBuffer()
        self._h2 = make_h2(frames)
        self._incoming = Incoming(self._h2, frames)
        self._outgoing = Outgoing(self._h2)
        self._grants = Grants()
        # Bytes of bodies that have arrived since the peer was last told to go on.
        self._arrived_bytes = 0
        self._quick_ack = quick_acks(transport)
        # Frames of h2's that wait to be sent.
        self._answers = bytearray()
        # What ended the writing, and bytes that are still read after it.
        self._write_error: BaseException | None = None
        self._last_bytes = _LAST_BYTES
        self._has_work = trio.lowlevel.ParkingLot()
        # Whether a write has begun and not ended: the transport may hold half a frame.
        self._is_writing = False
        self._writes = Writes()
        # The window that the peer gives, and what is missing of it.
        self._full_window = self._unclaimed = 0
        # What the peer said when it sent us away.
        self._farewell = ""
        self._scope = trio.CancelScope()
        self._heard_at = self._idle_since = trio.current_time()
        self._handlers: dict[type, Callable[[Any], None]] = {
            h2.events.RemoteSettingsChanged: self._receive_settings,
            HeadReceived: self._receive_head,
            DataReceived: self._receive_chunk,
            AnswerEnded: self._receive_end,
            StreamBroken: self._receive_breach,
            h2.events.StreamReset: self._receive_reset,
            GoAwayFrame: self._receive_goaway,
        }

    # What a pool asks

    @property
    def state(self) -> ConnectionState:
        """Where the connection is."""
        return self._state

    @property
    def num_streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def max_streams(self) -> int:
        """How many the peer allows; that may change at any time."""
        return self._h2.remote_settings.max_concurrent_streams

    @property
    def has_room(self) -> bool:
        """Whether a stream can be opened now."""
        is_open = self._state is ConnectionState.OPEN
        return is_open and self.num_streams < self.max_streams and not self._is_backed_up

    @property
    def _is_backed_up(self) -> bool:
        """Whether as much waits to be sent as may."""
        return len(self._answers) >= _MAX_UNSENT_BYTES

    async def wait_open(self) -> None:
        """Wait for the peer's SETTINGS. Raises what ended the connection before."""
        await self._opened.wait()
        if self._state is ConnectionState.LOST and self._error is not None:
            raise another(self._error)

    def open_stream(
        self, headers: Iterable[tuple[str, str] | tuple[bytes, bytes]], *, end: bool = False
    ) -> Http2Stream:
        """Begin a request; with `end` it has no body. Raises unless `has_room`."""
        if not self.has_room:
            raise LocalProtocolError(f"the connection to {self._where} has no room for a stream")
        stream_id = self._h2.get_next_available_stream_id()
        try:
            self._h2.send_headers(stream_id, headers, end_stream=end)
        except ProtocolError:
            # Some of them may be in the table that later headers refer to, unknown to the peer.
            self.leave()
            raise
        stream = Http2Stream(stream_id, self.number, self, ReceiveWindow(self._grants))
        stream.note_sent_end(is_ended=end)
        self._streams[stream_id] = stream
        if stream_id >= _LAST_STREAM_ID:
            self.leave()
        self._wake_writer()
        return stream

    def leave(self) -> None:
        """Take no new streams, and end with the last one. Idempotent."""
        if self._state is not ConnectionState.LOST:
            self._state = TRANSITIONS[self._state, ConnectionInput.LEAVE]
            self._end_if_left()

    def close(self, error: S2FramesError | None = None) -> None:
        """End now: what is open fails with `error`. Idempotent."""
        kind = TransportError if self._opened.is_set() else ConnectError
        self._lose(error or kind(f"the connection to {self._where} was closed"))

    # What a stream asks

    def seconds_behind(self, num_bytes: int) -> float:
        """In how many seconds all that was written is across, but for `num_bytes` of the stream."""
        return self._writes.seconds_behind(num_bytes, trio.current_time())

    def send(self, upload: Upload) -> None:
        """Put an upload in line."""
        self._outgoing.add(upload)
        self._wake_writer()

    def credit(self, stream_id: int, num_bytes: int) -> None:
        """Let the peer send so many bytes more on a stream that is open."""
        if stream_id in self._streams and not self._is_over(stream_id):
            self._h2.increment_flow_control_window(num_bytes, stream_id)
            self._wake_writer()

    def reset(self, stream_id: int) -> None:
        """End a stream at once; nothing happens if it is over."""
        self._outgoing.drop(stream_id)
        if stream_id in self._streams:
            if not self._is_over(stream_id):
                self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
            self._release(stream_id)
            self._wake_writer()

    def _is_over(self, stream_id: int) -> bool:
        """Whether both sides have ended a stream, by all that was received: h2 is told first."""
        stream = self._h2.streams.get(stream_id)
        return stream is None or stream.closed

    # Its life

    async def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                if self._state is ConnectionState.LOST:
                    nursery.cancel_scope.cancel()
                for task in (self._read, self._write, self._watch):
                    nursery.start_soon(self._guard, task)
        finally:
            self.close()
            # In a copy of the process there is nothing to say: the connection is the original's.
            if self._home.is_here:
                await self._say_goodbye()

    @protected
    async def _guard(self, task: Callable[[], Any]) -> None:
        try:
            await task()
        except FOREIGN_ERRORS as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        is_connecting = not self._opened.is_set()
        ours = to_our_error(error, self._where, is_connecting=is_connecting)
        if isinstance(error, ProtocolError):
            guilty = {self._incoming.guilty_stream_id: breach_error(error, self._where)}
            self._lose(ours, guilty)
        else:
            self._lose(ours)

    def _lose(
        self, error: S2FramesError, of_streams: Mapping[int, S2FramesError] = _NOTHING
    ) -> None:
        """End with `error`, which is also that of all streams that have none of their own."""
        if self._state is ConnectionState.LOST:
            return
        self._state = TRANSITIONS[self._state, ConnectionInput.LOSE]
        self._error = error
        streams, self._streams = self._streams, {}
        for stream_id, stream in streams.items():
            self._outgoing.drop(stream_id)
            stream.fail(of_streams.get(stream_id) or another(error))
        self._opened.set()
        self._scope.cancel()
        self._on_change()

    async def _say_goodbye(self) -> None:
        """Send GOAWAY, unless it would follow half a frame, and close the transport."""
        with trio.move_on_after(_GOODBYE_SECONDS, shield=True):
            try:
                if not self._is_writing:
                    if not self._incoming.is_broken:
                        self._h2.close_connection()
                    await self._transport.send_all(self._take_answers())
                await self._transport.aclose()
            except FOREIGN_ERRORS:
                """The peer is gone, or never listened: there is nobody to tell."""
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._transport)

    def _release(self, stream_id: int) -> None:
        """A stream is over: another one may take its place."""
        del self._streams[stream_id]
        # Frames that come late need nothing of it.
        self._h2.streams.pop(stream_id, None)
        if not self._streams:
            self._idle_since = trio.current_time()
        self._end_if_left()
        self._on_change()

    def _end_if_left(self) -> None:
        if self._state is ConnectionState.LEAVING and not self._streams:
            self.close()

    # Writing

    def _wake_writer(self) -> None:
        self._answers += self._h2.data_to_send()
        if self._has_work and (self._answers or self._outgoing.is_waiting):
            self._has_work.unpark_all()

    async def _write(self) -> None:
        try:
            while True:
                if not await self._flush():
                    await self._has_work.park()
        except FOREIGN_ERRORS as error:
            await self._await_last_words(error)
            raise

    async def _await_last_words(self, error: BaseException) -> None:
        """Nothing can be written any more: let what has arrived be read."""
        self._write_error = error
        if self._opened.is_set():
            # With the last answer there is nothing left to wait for.
            self.leave()
            self._on_change()
        for stream_id, stream in list(self._streams.items()):
            self._outgoing.drop(stream_id)
            stream.stop_sending()
        await trio.sleep(_LAST_SECONDS)

    async def _flush(self) -> bool:
        """Send what waits, one write of it; False when nothing does."""
        had_no_room = self._is_backed_up
        answers = self._take_answers()
        unclaimed = self._note_claims()
        frames, complete = self._outgoing.cut(self._writes.size)
        body_bytes = self._note_claims() - unclaimed
        for upload in complete:
            if upload.ends_stream:
                self._note_end_sent(upload.stream_id)
        if had_no_room:
            # Not before all is cut: the head of a new stream is in the next write.
            self._on_change()
        data = b"".join((answers, *frames))
        if data:
            self._is_writing = True
            self._writes.begin(trio.current_time(), body_bytes=body_bytes, unclaimed=unclaimed)
            await self._transport.send_all(data)
            self._writes.end(len(data), trio.current_time())
            self._is_writing = False
            self._outgoing.note_written(trio.current_time())
        for upload in complete:
            upload.settle(is_sent=True)
        return bool(data or complete)

    def _note_claims(self) -> int:
        """Bytes of bodies for which the peer has not given room again: it may not have them yet."""
        window = self._h2.outbound_flow_control_window
        if window > self._full_window:
            # It gave more room than there was, which says nothing of what has arrived.
            self._full_window = window + self._unclaimed
        self._unclaimed = self._full_window - window
        return self._unclaimed

    def _take_answers(self) -> bytes:
        data = bytes(self._answers) + self._h2.data_to_send()
        self._answers.clear()
        self._incoming.num_answers = 0
        return data

    def _note_end_sent(self, stream_id: int) -> None:
        """The request is complete; so is the stream, if the answer is."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.is_complete:
            self._release(stream_id)

    # Reading

    async def _read(self) -> None:
        while True:
            data = await self._transport.receive_some(_RECEIVE_BYTES)
            self._quick_ack()
            if self._state is ConnectionState.LOST:
                return
            if not data:
                doubt = "" if self._opened.is_set() else _DOUBT
                raise trio.BrokenResourceError(
                    f"the peer closed the connection{self._incoming.place}{self._farewell}{doubt}"
                )
            self._heard_at = trio.current_time()
            self._receive(data)
            self._tell_begun(len(data))
            self._wake_writer()
            self._check_answers()
            self._check_last_bytes(len(data))

    def _tell_begun(self, num_bytes: int) -> None:
        """Of what has come, part of a frame is kept: who waits for that is to know.

        A frame may be as large as a batch, for which the slowest line takes a minute.
        """
        stream = self._streams.get(self._incoming.begun_stream_id)
        if stream is not None:
            stream.on_arriving(num_bytes)

    def _receive(self, data: bytes | bytearray) -> None:
        for event in self._incoming.receive(data, self._heard_at):
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(event)
            if self._state is ConnectionState.LOST:
                return

    def _check_answers(self) -> None:
        if self._incoming.num_answers > _MAX_UNSENT_ANSWERS:
            raise trio.BrokenResourceError(
                f"the peer asks without reading: {self._incoming.num_answers} answers wait"
            )

    def _check_last_bytes(self, num_bytes: int) -> None:
        if self._write_error is not None:
            self._last_bytes -= num_bytes
            if self._last_bytes <= 0:
                raise self._write_error

    def _receive_settings(self, _event: h2.events.RemoteSettingsChanged) -> None:
        if self._write_error is not None:
            # It will never be of use.
            return
        bound_encoder(self._h2)
        self._state = TRANSITIONS[self._state, ConnectionInput.SETTINGS]
        self._opened.set()
        self._on_change()

    def _receive_head(self, event: HeadReceived) -> None:
        self.times_left = 0
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.receive_head(event.response)

    def _receive_chunk(self, event: DataReceived) -> None:
        self._credit_connection(event.size)
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        if event.data:
            stream.receive_chunk(event.data)
        # Padding is nobody's to take.
        stream.note_taken(event.size - len(event.data))

    def _credit_connection(self, num_bytes: int) -> None:
        """On arrival: only a stream's own window waits for the one who takes its bytes."""
        self._arrived_bytes += num_bytes
        if self._arrived_bytes >= _CREDIT_BYTES:
            self._h2.increment_flow_control_window(self._arrived_bytes)
            self._arrived_bytes = 0

    def _receive_end(self, event: AnswerEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.receive_end()
        self._outgoing.drop(event.stream_id)
        if self._h2.streams[event.stream_id].closed:
            self._release(event.stream_id)

    def _receive_breach(self, event: StreamBroken) -> None:
        self._end_stream(event.stream_id, breach_error(event.error, self._where))

    def _receive_reset(self, event: h2.events.StreamReset) -> None:
        self._end_stream(event.stream_id, reset_error(event, self._where))

    def _end_stream(self, stream_id: int, error: S2FramesError) -> None:
        """A stream is over by what the peer said."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            # First, so that nothing of it is in line when it is gone.
            stream.fail(error)
            self._outgoing.drop(stream_id)
            self._release(stream_id)

    def _receive_goaway(self, frame: GoAwayFrame) -> None:
        """Go on with the streams that the peer accepted; it did nothing for the others."""
        self._farewell = f" after GOAWAY ({code_name(frame.error_code)})"
        # First, or the place of a stream that fails would go to a new one.
        self.leave()
        for stream_id in list(self._streams):
            if stream_id > frame.last_stream_id:
                self._end_stream(stream_id, unprocessed_error(frame, self._where))

    # Watching

    async def _watch(self) -> None:
        while True:
            await trio.sleep_until(min(self._heard_at + PING_SECONDS, self._retires_at))
            now = trio.current_time()
            if now >= self._retires_at:
                self.close()
            elif now >= self._heard_at + PING_SECONDS:
                await self._ping()

    @property
    def _retires_at(self) -> float:
        return float("inf") if self._streams else self._idle_since + IDLE_SECONDS

    async def _ping(self) -> None:
        asked_at = trio.current_time()
        self._h2.ping(_PING_DATA)
        self._writes.ask(asked_at, self._note_claims())
        self._wake_writer()
        while (due := self._writes.answered_from + PONG_SECONDS) > trio.current_time():
            # What was written before it may take long to cross the line.
            await trio.sleep_until(due)
            if self._heard_at >= asked_at:
                return
        silence = trio.current_time() - self._heard_at
        raise trio.TooSlowError(
            f"the peer was silent{self._incoming.place} for {silence:.0f} s, and deaf to a PING"
        )
