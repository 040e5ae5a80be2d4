"""`AppendProtocol`: an append session's whole life, without I/O.

Messages go in, requests to make and bytes to send come out, answers go in, durable messages come
out. See `session` for how an adapter drives it.

The table below is all there is to know of states. A session that loses its connection ends; there
is one place where it could go on instead, the entries for `LOST`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from s2frames.dedupe import make_writer_id
from s2frames.errors import (
    LocalProtocolError,
    Outcome,
    RemoteProtocolError,
    S2FramesError,
    TransportError,
)
from s2frames.events import FramesDurable
from s2frames.http import Request
from s2frames.records import Header
from s2frames.s2s import encode_message
from s2frames.session import (
    PROTOBUF_CONTENT_TYPE,
    SESSION_CONTENT_TYPE,
    Action,
    Answer,
    CloseRequest,
    EndData,
    OpenRequest,
    Response,
    SendData,
    SessionEnded,
    is_definite,
)
from s2frames.settings import AppendSettings
from s2frames.target import StreamTarget
from s2frames.wire import decode_append_ack
from s2frames.writer import Batch, FrameWriter

__all__ = ["AppendEvent", "AppendProtocol", "AppendState"]

AppendEvent = FramesDurable | SessionEnded


class AppendState(enum.Enum):
    """Where a session is."""

    #: No request is open.
    IDLE = enum.auto()
    #: A request is open and its answer has not begun.
    OPENING = enum.auto()
    #: The answer is arriving.
    STREAMING = enum.auto()
    #: Everything is durable and the session was closed.
    CLOSED = enum.auto()
    #: An error ended the session.
    FAILED = enum.auto()


class AppendInput(enum.Enum):
    """What can happen to a session."""

    #: There is something to send.
    SEND = enum.auto()
    #: The answer has begun.
    ANSWER = enum.auto()
    #: The answer is complete, and with it every ack.
    DONE = enum.auto()
    #: The connection is lost: it broke, went silent, or ended with batches unacked.
    LOST = enum.auto()
    #: The service refused, or broke the protocol.
    REFUSED = enum.auto()
    #: Nothing more will be sent, and everything is durable.
    FINISHED = enum.auto()


_S, _I = AppendState, AppendInput

TRANSITIONS: Mapping[tuple[AppendState, AppendInput], AppendState] = {
    (_S.IDLE, _I.SEND): _S.OPENING,
    (_S.IDLE, _I.FINISHED): _S.CLOSED,
    (_S.IDLE, _I.REFUSED): _S.FAILED,
    (_S.OPENING, _I.ANSWER): _S.STREAMING,
    (_S.OPENING, _I.LOST): _S.FAILED,
    (_S.OPENING, _I.REFUSED): _S.FAILED,
    (_S.STREAMING, _I.DONE): _S.IDLE,
    (_S.STREAMING, _I.LOST): _S.FAILED,
    (_S.STREAMING, _I.REFUSED): _S.FAILED,
}

_ENDED = (AppendState.CLOSED, AppendState.FAILED)


class AppendProtocol:
    """Appends messages to a stream, in order, and tells when they are durable.

    Args:
        target: the stream.
        settings: how to append.
        random: floats from 0 up to, not including, 1; for the writer id.
    """

    def __init__(
        self, target: StreamTarget, settings: AppendSettings, *, random: Callable[[], float]
    ) -> None:
        self._target = target
        self._settings = settings
        self._compression = target.settings.compression
        self._writer_id = settings.writer_id
        if settings.dedupe and self._writer_id is None:
            self._writer_id = make_writer_id(random)
        # A burst is all that is in flight.
        window = settings.max_inflight_batches
        if settings.burst_batches is not None:
            window = min(window, settings.burst_batches)
        self._writer = FrameWriter(
            self._writer_id,
            first_dedupe_seq=settings.first_dedupe_seq or 0,
            max_frame_bytes=settings.max_frame_bytes,
            match_seq_num=settings.match_seq_num,
            fencing_token=settings.fencing_token,
            max_inflight_batches=window,
            max_inflight_bytes=settings.max_inflight_bytes,
        )
        self._state = AppendState.IDLE
        self._is_closing = False
        self._is_flushing = False
        self._durable_messages = 0
        self._events: deque[AppendEvent] = deque()
        self._actions: list[Action] = []
        # When the oldest message that is not in a batch was accepted.
        self._waiting_since: float | None = None
        # The request that is open: its number, its answer, and whether its body is complete.
        self._request_id = 0
        self._response = Response(SESSION_CONTENT_TYPE)
        self._body_is_complete = False
        # Bytes of its body given out and taken by the transport, and where each unacked batch ends.
        self._sent_bytes = 0
        self._accepted_bytes = 0
        self._batch_ends: deque[int] = deque()
        self._deadline: float | None = None

    @property
    def state(self) -> AppendState:
        """Where the session is."""
        return self._state

    @property
    def writer_id(self) -> str | None:
        """Who writes, as readers see it; None without dedupe."""
        return self._writer_id

    @property
    def durable_messages(self) -> int:
        """How many messages are durable."""
        return self._durable_messages

    @property
    def is_full(self) -> bool:
        """Whether enough messages wait: take no more before some are durable."""
        return self._writer.queued_bytes >= self._settings.max_inflight_bytes

    def is_due(self, now: float) -> bool:
        """Whether to send what waits: it is much, or the oldest of it has waited for `linger`."""
        linger = self._linger_deadline()
        return self.is_full or (linger is not None and now >= linger)

    @property
    def is_drained(self) -> bool:
        """Whether everything accepted is durable and no request is open."""
        is_at_rest = self._state in (AppendState.IDLE, AppendState.CLOSED)
        return self._writer.is_idle and is_at_rest

    # Messages in

    def send(
        self,
        payload: bytes,
        headers: Iterable[Header] = (),
        timestamp: int | None = None,
        *,
        now: float,
    ) -> int:
        """Accept a payload; returns its number. Raises as `FrameWriter.send` does."""
        self._check_open()
        frame = self._writer.send(payload, headers, timestamp)
        self._note_waiting(now)
        return frame

    def send_many(self, payloads: Iterable[bytes], *, now: float) -> range:
        """Accept payloads, all or none; returns their numbers. As `FrameWriter.send_many`."""
        self._check_open()
        frames = self._writer.send_many(payloads)
        self._note_waiting(now)
        return frames

    def flush(self) -> None:
        """Hold nothing back that was accepted so far."""
        self._is_flushing = True

    def close(self) -> None:
        """Accept nothing more; the session ends when everything is durable. Idempotent."""
        self._is_closing = True
        self._is_flushing = True

    def abort(self) -> None:
        """End now: send nothing more and close the open request. Idempotent."""
        if self._state not in _ENDED:
            self._fail(AppendInput.REFUSED, LocalProtocolError("the session was aborted"))

    def _check_open(self) -> None:
        if self._state in _ENDED or self._is_closing:
            raise LocalProtocolError("the append session is closed")

    def _note_waiting(self, now: float) -> None:
        if self._waiting_since is None:
            self._waiting_since = now

    # What the adapter is to do

    def data_to_send(self, now: float) -> list[Action]:
        """What to do next, in this order."""
        if self._state is AppendState.IDLE and not self._writer.is_idle:
            self._open_request()
        if self._state in (AppendState.OPENING, AppendState.STREAMING):
            self._send_batches(now)
        if self._state is AppendState.IDLE and self._is_closing:
            self._move(AppendInput.FINISHED)
            self._events.append(SessionEnded(None))
        actions, self._actions = self._actions, []
        return actions

    def events_received(self) -> list[AppendEvent]:
        """What has happened since the last call."""
        events = list(self._events)
        self._events.clear()
        return events

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, on the clock of `now`."""
        linger = self._linger_deadline()
        if self._deadline is None or linger is None:
            return linger if self._deadline is None else self._deadline
        return min(self._deadline, linger)

    def handle_timeout(self, now: float) -> None:
        """Act on a deadline, if one has passed."""
        if self._deadline is not None and now >= self._deadline:
            timeout = self._target.settings.request_timeout
            self._fail(
                AppendInput.LOST, TransportError(f"no ack came within {timeout:g} s of sending")
            )
            return
        linger = self._linger_deadline()
        if linger is not None and now >= linger:
            self._is_flushing = True

    def _linger_deadline(self) -> float | None:
        if self._waiting_since is None or self._is_flushing or self._body_is_complete:
            return None
        return self._waiting_since + self._settings.linger

    def _open_request(self) -> None:
        self._move(AppendInput.SEND)
        self._request_id += 1
        self._body_is_complete = False
        self._sent_bytes = self._accepted_bytes = 0
        content_type = PROTOBUF_CONTENT_TYPE if self._is_unary else SESSION_CONTENT_TYPE
        self._response = Response(content_type)
        accept_encoding = "identity" if self._is_unary else self._compression.accept_encoding
        headers = self._target.headers(
            content_type=content_type, accept=content_type, accept_encoding=accept_encoding
        )
        request = Request("POST", self._target.records_url, headers)
        self._actions.append(OpenRequest(self._request_id, request))

    @property
    def _is_unary(self) -> bool:
        return self._settings.burst_batches == 1

    def _send_batches(self, now: float) -> None:
        if self._body_is_complete:
            return
        # Once its body is complete a burst takes no more, so that nothing is held back from it.
        is_burst = self._settings.burst_batches is not None
        batches = self._writer.batches_to_send(flush=self._is_flushing or is_burst)
        if not self._writer.queued_bytes:
            self._waiting_since = None
            self._is_flushing = self._is_closing
        elif batches:
            self._waiting_since = now
        for batch in batches:
            self._send_batch(batch)
        if is_burst or (self._is_closing and self._writer.is_cut):
            self._body_is_complete = True
            self._actions.append(EndData(self._request_id))
            # No byte follows that could start the wait for the end of the answer.
            self._arm_ack_deadline(now, only_if_unarmed=True)

    def _send_batch(self, batch: Batch) -> None:
        wire = batch.wire
        data = [wire] if self._is_unary else encode_message(wire, self._compression)
        self._sent_bytes += sum(map(len, data))
        self._batch_ends.append(self._sent_bytes)
        self._actions.append(SendData(self._request_id, data))

    # What happened

    def bytes_accepted(self, request_id: int, num_bytes: int, now: float) -> None:
        """The transport took `num_bytes` more of the request's body."""
        if self._is_current(request_id):
            self._accepted_bytes += num_bytes
            self._arm_ack_deadline(now, only_if_unarmed=True)

    def receive_response(
        self, request_id: int, status: int, headers: Mapping[str, str], now: float
    ) -> None:
        """The answer to a request has begun. Header names are in lower case."""
        if self._is_current(request_id):
            self._guard(lambda: self._begin_answer(status, headers, now))

    def receive_data(self, request_id: int, data: bytes, now: float) -> None:
        """Bytes of the answer, cut anywhere."""
        if self._is_current(request_id):
            self._guard(lambda: self._receive_acks(data, now))

    def receive_eof(self, request_id: int, now: float) -> None:
        """The answer is complete."""
        if self._is_current(request_id):
            self._guard(lambda: self._finish_answer(now))

    def connection_lost(self, request_id: int, error: S2FramesError, now: float) -> None:
        """The request came to nothing: `error` says why."""
        if self._is_current(request_id):
            self._fail(AppendInput.LOST, error)

    def _is_current(self, request_id: int) -> bool:
        open_states = (AppendState.OPENING, AppendState.STREAMING)
        return request_id == self._request_id and self._state in open_states

    def _guard(self, step: Callable[[], None]) -> None:
        """Take a step; an error it raises ends the session."""
        try:
            step()
        except S2FramesError as error:
            self._fail(AppendInput.REFUSED, error)

    def _begin_answer(self, status: int, headers: Mapping[str, str], now: float) -> None:
        self._move(AppendInput.ANSWER)
        self._response.receive_head(status, headers)
        if self._response.kind is Answer.ERROR:
            # The service may never take the rest of the body; what it says is awaited all the same.
            self._deadline = now + self._target.settings.request_timeout

    def _receive_acks(self, data: bytes, now: float) -> None:
        self._response.receive_data(data)
        if self._response.kind is not Answer.SESSION:
            return
        while (message := self._response.next_message()) is not None:
            self._receive_ack(message.body, now)

    def _receive_ack(self, body: bytes, now: float) -> None:
        event = self._writer.receive_ack(decode_append_ack(body))
        self._batch_ends.popleft()
        self._durable_messages += event.num_frames
        self._events.append(event)
        self._arm_ack_deadline(now, only_if_unarmed=False)

    def _finish_answer(self, now: float) -> None:
        self._response.receive_eof()
        if self._response.kind is Answer.WHOLE:
            self._receive_ack(self._response.whole_body(), now)
        if self._batch_ends or not self._body_is_complete:
            unacked = len(self._batch_ends)
            self._fail(
                AppendInput.LOST,
                TransportError(f"the service ended the session with {unacked} batches unacked"),
            )
            return
        self._deadline = None
        self._body_is_complete = False
        self._move(AppendInput.DONE)

    def _arm_ack_deadline(self, now: float, *, only_if_unarmed: bool) -> None:
        """Time the oldest batch from when all of it was sent, or the one before it was acked.

        Of a burst nothing is read before all of it was sent, so that it is timed from then on. When
        everything is acked, the end of the answer is timed.
        """
        if only_if_unarmed and self._deadline is not None:
            return
        oldest_end = self._batch_ends[0] if self._batch_ends else self._sent_bytes
        end = self._sent_bytes if self._settings.burst_batches is not None else oldest_end
        is_awaited = bool(self._batch_ends) or self._body_is_complete
        is_sent = self._accepted_bytes >= end
        timeout = self._target.settings.request_timeout
        self._deadline = now + timeout if is_sent and is_awaited else None

    # States

    def _move(self, happened: AppendInput) -> None:
        try:
            self._state = TRANSITIONS[self._state, happened]
        except KeyError:
            raise RemoteProtocolError(
                f"{happened.name} cannot happen while the session is {self._state.name}"
            ) from None

    def _fail(self, happened: AppendInput, error: S2FramesError) -> None:
        if self._state in (AppendState.OPENING, AppendState.STREAMING):
            self._actions.append(CloseRequest(self._request_id))
        self._move(happened)
        self._deadline = self._waiting_since = None
        # An adapter that knows that nothing was sent says so.
        if is_definite(error) or not self._batch_ends:
            error.outcome = Outcome.NOT_APPLIED
        elif error.outcome is None:
            error.outcome = Outcome.UNKNOWN
        error.durable_messages = self._durable_messages
        self._events.append(SessionEnded(error))
