"""`AppendProtocol`: an append session's whole life, without I/O.

Messages go in, requests to make and bytes to send come out, answers go in, durable messages come
out. See `session` for how an adapter drives it.

The table below is all there is to know of states. What fails and may pass is tried again: all that
is unacked is sent once more, the same bytes in the same order. Where every batch is conditioned on
its place and the service says that the place is taken, the session first reads back what landed.

Ctrl-C can cut a method off between any two of its lines. Whoever calls next, or says `interrupted`,
finds that it was: the request that was open is given up, and all that is unacked is sent once more.
For that every change of state comes last, after all that it stands for, and what was found out is
kept where it can be taken again.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any, ParamSpec, TypeVar

from attrs import evolve

from s2frames.checks import check_callable, check_type
from s2frames.dedupe import make_writer_id
from s2frames.errors import (
    AppendConditionFailed,
    FencingTokenMismatch,
    LocalProtocolError,
    Outcome,
    S2FramesError,
    SeqNumMismatch,
    ServiceError,
    TransportError,
    WriterConflict,
)
from s2frames.events import FramesDurable
from s2frames.mending import Mendable, whole
from s2frames.operation import Operation, ask
from s2frames.pace import Pace
from s2frames.read_back import read_back
from s2frames.reconcile import Finding, Reconciliation
from s2frames.records import Header
from s2frames.rest import check_tail
from s2frames.retry import Retry, RetryBudget, is_definite, is_effect_free, is_retryable
from s2frames.s2s import Message, encode_message
from s2frames.session import (
    Action,
    Answer,
    CloseRequest,
    EndData,
    OpenRequest,
    Response,
    Retrying,
    SendData,
    SessionEnded,
    transition,
)
from s2frames.settings import AppendSettings
from s2frames.target import PROTOBUF_CONTENT_TYPE, SESSION_CONTENT_TYPE, StreamTarget
from s2frames.wire import decode_append_ack
from s2frames.writer import Batch, FrameWriter
from s2frames.writer_state import Pending, WriterState

__all__ = ["AppendEvent", "AppendProtocol", "AppendState"]

AppendEvent = FramesDurable | Retrying | SessionEnded


class AppendState(enum.Enum):
    """Where a session is."""

    #: No request is open.
    IDLE = enum.auto()
    #: It asks where the tail is, to start there.
    PREPARING = enum.auto()
    #: An append is open and its answer has not begun.
    OPENING = enum.auto()
    #: The answer is arriving.
    STREAMING = enum.auto()
    #: The last attempt failed; the next one has to wait.
    WAITING = enum.auto()
    #: It reads back what landed of its batches.
    RECONCILING = enum.auto()
    #: Everything is durable and the session was closed.
    CLOSED = enum.auto()
    #: An error ended the session.
    FAILED = enum.auto()


class AppendInput(enum.Enum):
    """What can happen to a session."""

    #: There is something to send, and the place for it is not known.
    PREPARE = enum.auto()
    #: There is something to send.
    SEND = enum.auto()
    #: The answer has begun.
    ANSWER = enum.auto()
    #: What was under way is done: every batch of the request is acked, or what was asked is known.
    DONE = enum.auto()
    #: The attempt failed and there will be another.
    RETRY = enum.auto()
    #: It is time for another attempt.
    TIME = enum.auto()
    #: What was under way was cut off.
    INTERRUPTED = enum.auto()
    #: The service says that a place is taken that may be so by our own batch.
    RECONCILE = enum.auto()
    #: There will be no other attempt.
    REFUSED = enum.auto()
    #: Nothing more will be sent, and everything is durable.
    FINISHED = enum.auto()


_S, _I = AppendState, AppendInput

TRANSITIONS: Mapping[tuple[AppendState, AppendInput], AppendState] = {
    (_S.IDLE, _I.PREPARE): _S.PREPARING,
    (_S.IDLE, _I.SEND): _S.OPENING,
    (_S.IDLE, _I.FINISHED): _S.CLOSED,
    (_S.IDLE, _I.REFUSED): _S.FAILED,
    (_S.PREPARING, _I.DONE): _S.IDLE,
    (_S.PREPARING, _I.INTERRUPTED): _S.IDLE,
    (_S.PREPARING, _I.REFUSED): _S.FAILED,
    (_S.OPENING, _I.ANSWER): _S.STREAMING,
    (_S.OPENING, _I.RETRY): _S.WAITING,
    (_S.OPENING, _I.INTERRUPTED): _S.IDLE,
    (_S.OPENING, _I.REFUSED): _S.FAILED,
    (_S.STREAMING, _I.DONE): _S.IDLE,
    (_S.STREAMING, _I.RETRY): _S.WAITING,
    (_S.STREAMING, _I.RECONCILE): _S.RECONCILING,
    (_S.STREAMING, _I.INTERRUPTED): _S.IDLE,
    (_S.STREAMING, _I.REFUSED): _S.FAILED,
    (_S.WAITING, _I.TIME): _S.IDLE,
    (_S.WAITING, _I.INTERRUPTED): _S.IDLE,
    (_S.WAITING, _I.REFUSED): _S.FAILED,
    (_S.RECONCILING, _I.DONE): _S.IDLE,
    (_S.RECONCILING, _I.INTERRUPTED): _S.IDLE,
    (_S.RECONCILING, _I.REFUSED): _S.FAILED,
}

_APPENDING = (AppendState.OPENING, AppendState.STREAMING)
_ASKING = (AppendState.PREPARING, AppendState.RECONCILING)
_ENDED = (AppendState.CLOSED, AppendState.FAILED)

_P = ParamSpec("_P")
_T = TypeVar("_T")


class AppendProtocol(Mendable):
    """Appends messages to a stream, in order, and tells when they are durable.

    Args:
        target: the stream.
        settings: how to append.
        random: floats from 0 up to, not including, 1; for the writer id and the delays.
    """

    def __init__(
        self, target: StreamTarget, settings: AppendSettings, *, random: Callable[[], float]
    ) -> None:
        check_type("target", target, StreamTarget)
        check_type("settings", settings, AppendSettings)
        check_callable("random", random)
        self._target = target
        self._settings = settings
        self._random = random
        self._compression = target.settings.compression
        self._retry = target.settings.retry if settings.retry is None else settings.retry
        self._budget = RetryBudget(self._retry, random)
        self._writer_id = settings.writer_id
        first_dedupe_seq = settings.first_dedupe_seq or 0
        if settings.resume is not None:
            self._writer_id = settings.resume.writer_id
            first_dedupe_seq = settings.resume.next_dedupe_seq
        if settings.dedupe and self._writer_id is None:
            self._writer_id = make_writer_id(random)
        # A burst is all that is in flight.
        window = settings.max_inflight_batches
        if settings.burst_batches is not None:
            window = min(window, settings.burst_batches)
        self._writer = FrameWriter(
            self._writer_id,
            first_dedupe_seq=first_dedupe_seq,
            max_frame_bytes=settings.max_frame_bytes,
            match_seq_num=settings.first_match_seq_num,
            fencing_token=settings.fencing_token,
            max_inflight_batches=window,
            max_inflight_bytes=settings.max_inflight_bytes,
        )
        self._state = AppendState.IDLE
        self._is_closing = False
        self._is_flushing = False
        self._durable_messages = 0
        self._events: deque[AppendEvent] = deque()
        # Up to where in the stream it was told what is durable; and how the session ended, until
        # that was told.
        self._told_end = 0
        self._ending: SessionEnded | None = None
        self._actions: list[Action] = []
        # When the oldest message that is not in a batch was accepted, if there is one.
        self._waiting_since: float | None = None
        # The request that is open: its number, its answer, and whether its body is complete.
        self._request_ids = count(1)
        self._request_id = 0
        self._response = Response(SESSION_CONTENT_TYPE)
        self._body_is_complete = False
        # How far its body is, and where in it each unacked batch ends.
        self._pace = Pace()
        self._batch_ends: deque[int] = deque()
        # When the oldest batch must be acked, when the transport must have taken more bytes, and
        # how many seconds they have for it.
        self._deadline: float | None = None
        self._stall_deadline: float | None = None
        self._ack_seconds = self._stall_seconds = 0.0
        # When the next attempt is due.
        self._retry_at: float | None = None
        # Below which dedupe sequence a connection that was lost may have brought in what is not
        # acked, or may still do so.
        self._doubt_end = 0
        # Below which dedupe sequence the writer's last session left that open.
        self._in_doubt_until = 0 if settings.resume is None else settings.resume.in_doubt_until
        # Whether the request that is open had an ack, and whether the next burst carries one batch
        # only, so that its answer can be read.
        self._is_acked = False
        self._carries_one = False
        # Whether the service wishes another connection, and whether the next request needs one.
        self._is_leaving = False
        self._needs_new_connection = False
        # Where the next batch is to be is not known yet.
        self._must_prepare = settings.is_exclusive and settings.first_match_seq_num is None
        # Requests that are no appends: for the tail, or to read back what landed.
        self._operation: Operation[Any] | None = None
        # What was refused for what may be the session's own doing, while that is found out.
        self._dispute: tuple[AppendConditionFailed, Reconciliation] | None = None
        # Below which dedupe sequence the request that was refused had sent something.
        self._disputed_end = 0
        self._outcome = Outcome.NOT_APPLIED

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
    def accepted_messages(self) -> int:
        """How many messages were accepted."""
        return self._writer.next_frame

    @property
    def max_frame_bytes(self) -> int:
        """The largest payload that it accepts."""
        return self._settings.max_frame_bytes

    @property
    def is_full(self) -> bool:
        """Whether enough messages wait: take no more before some are durable."""
        return self._writer.queued_bytes >= self._settings.max_inflight_bytes

    def is_due(self, now: float) -> bool:
        """Whether to send what waits: it is much, was sent before, or has waited for `linger`."""
        is_to_be_sent_again = bool(self._writer.unacked_batches) and not self._batch_ends
        linger = self._linger_deadline()
        return self.is_full or is_to_be_sent_again or (linger is not None and now >= linger)

    @property
    def held_bytes(self) -> int:
        """How many bytes of the request may be on their way."""
        return self._pace.held_bytes

    @property
    def is_over(self) -> bool:
        """Whether the session has ended; how is the last event."""
        return self._state in _ENDED

    @property
    def is_durable(self) -> bool:
        """Whether everything accepted is durable."""
        return self._writer.is_idle

    @property
    def is_drained(self) -> bool:
        """Whether everything accepted is durable and no request is open."""
        is_at_rest = self._state in (AppendState.IDLE, AppendState.CLOSED)
        return self.is_durable and is_at_rest

    def pending(self) -> Pending:
        """What was accepted and is not known to be durable, and how to go on with it."""
        messages = tuple(self._writer.pending())
        if self._writer_id is None:
            return Pending(messages, None)
        if not self._settings.is_exclusive:
            # Sent again from the head on, with the same numbers: readers know what they have.
            end = self._writer.next_dedupe_seq
            start = messages[0].first_dedupe_seq if messages else end
            is_clear = self._state in _ENDED and self._outcome is Outcome.NOT_APPLIED
            in_doubt_until = 0 if is_clear else max(end, self._in_doubt_until)
            return Pending(
                messages,
                WriterState(
                    writer_id=self._writer_id,
                    next_dedupe_seq=start,
                    in_doubt_until=in_doubt_until if in_doubt_until > start else 0,
                ),
            )
        if self._state not in _ENDED or self._outcome is Outcome.UNKNOWN:
            return Pending(messages, None)
        state = WriterState(
            writer_id=self._writer_id,
            next_dedupe_seq=self._writer.next_unacked_dedupe_seq,
            is_exclusive=True,
            last_frame_is_whole=not self._writer.is_inside_frame,
        )
        return Pending(messages, state)

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
        self.check_open()
        if not self._writer.queued_bytes:
            self._waiting_since = now
        return self._writer.send(payload, headers, timestamp)

    def send_many(self, payloads: Iterable[bytes], *, now: float) -> range:
        """Accept payloads, all or none; returns their numbers. As `FrameWriter.send_many`."""
        self.check_open()
        if not self._writer.queued_bytes:
            self._waiting_since = now
        return self._writer.send_many(payloads)

    def flush(self) -> None:
        """Hold nothing back that was accepted so far."""
        self._is_flushing = True

    def close(self) -> None:
        """Accept nothing more; the session ends when everything is durable. Idempotent."""
        self._is_closing = self._is_flushing = True

    @whole
    def abort(self, why: str = "the session was aborted") -> None:
        """End now: send nothing more and close the open request. Idempotent."""
        if self._state not in _ENDED:
            self._end(LocalProtocolError(why))

    def check_open(self) -> None:
        """Raise `LocalProtocolError` when the session accepts nothing more."""
        if self._state in _ENDED or self._is_closing:
            raise LocalProtocolError("the append session is closed")

    # What the adapter is to do

    @whole
    def data_to_send(self, now: float) -> list[Action]:
        """What to do next, in this order."""
        if self._state is AppendState.IDLE and not self._writer.is_idle and self._must_prepare:
            self._prepare()
        if self._operation is not None:
            self._actions += self._operation.data_to_send(now)
            self._follow_operation()
        if self._state is AppendState.IDLE and not self._writer.is_idle:
            self._open_request(now)
        if self._state in _APPENDING:
            self._send_batches(now)
        if self._state is AppendState.IDLE and self._is_closing and self._writer.is_idle:
            self._ending = SessionEnded(None)
            self._move(AppendInput.FINISHED)
            self._tell_end()
        actions, self._actions = self._actions, []
        return actions

    @property
    def events(self) -> deque[AppendEvent]:
        """What has happened and was not taken: to be taken from the left, once it is dealt with."""
        if self._is_cut_off:
            self._mend()
        return self._events

    def events_received(self) -> list[AppendEvent]:
        """What has happened since the last call."""
        events = list(self.events)
        self._events.clear()
        return events

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, on the clock of `now`."""
        operation = None if self._operation is None else self._operation.next_timeout()
        waits = (
            self._deadline,
            self._stall_deadline,
            self._retry_at,
            operation,
            self._linger_deadline(),
        )
        return min((wait for wait in waits if wait is not None), default=None)

    @whole
    def handle_timeout(self, now: float) -> None:
        """Act on a deadline, if one has passed."""
        if self._operation is not None:
            self._operation.handle_timeout(now)
            self._follow_operation()
        elif self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._move(AppendInput.TIME)
        elif self._deadline is not None and now >= self._deadline:
            words = f"no ack came within {round(self._ack_seconds, 1):g} s of sending"
            self._fail_attempt(TransportError(words), now)
        elif self._stall_deadline is not None and now >= self._stall_deadline:
            words = f"the connection took no bytes for {round(self._stall_seconds, 1):g} s"
            self._fail_attempt(TransportError(words), now)
        linger = self._linger_deadline()
        if linger is not None and now >= linger:
            self._is_flushing = True

    @whole
    def start_waiting(self, now: float) -> None:
        """The adapter waits for bytes from now on."""
        if self._operation is not None:
            self._operation.start_waiting(now)

    def _linger_deadline(self) -> float | None:
        is_held_back = self._state is AppendState.IDLE or (
            self._state in _APPENDING and not self._body_is_complete
        )
        if self._waiting_since is None or self._is_flushing or not is_held_back:
            return None
        if not self._writer.queued_bytes:
            return None
        return self._waiting_since + self._settings.linger

    def _open_request(self, now: float) -> None:
        self._move(AppendInput.SEND)
        self._request_id = next(self._request_ids)
        self._body_is_complete = self._is_leaving = self._is_acked = False
        self._pace.begin()
        settings = self._target.settings
        self._stall_seconds = settings.connect_timeout + settings.request_timeout
        self._stall_deadline = now + self._stall_seconds
        if self._is_unary:
            self._response = Response(PROTOBUF_CONTENT_TYPE)
            request = self._target.unary_append_request()
        else:
            self._response = Response(SESSION_CONTENT_TYPE)
            request = self._target.append_request()
        self._actions.append(OpenRequest(self._request_id, request, self._needs_new_connection))
        self._needs_new_connection = False

    @property
    def _is_unary(self) -> bool:
        return self._settings.burst_batches == 1

    def _send_batches(self, now: float) -> None:
        if self._body_is_complete or self._response.kind is Answer.ERROR:
            return
        # Once its body is complete a burst takes no more, so that nothing is held back from it.
        is_burst = self._settings.burst_batches is not None
        if not self._is_leaving:
            self._cut_batches(now, is_burst)
        is_all_sent = self._is_closing and self._writer.is_cut
        if is_burst or is_all_sent or self._is_leaving:
            self._body_is_complete = True
            self._actions.append(EndData(self._request_id))
            # No byte may follow that could start the wait for the end of the answer.
            self._time_acks(now, only_if_untimed=True)

    def _cut_batches(self, now: float, is_burst: bool) -> None:
        batches = self._writer.batches_to_send(
            flush=self._is_flushing or is_burst,
            max_batches=1 if is_burst and self._carries_one else None,
        )
        if not self._writer.queued_bytes:
            self._waiting_since = None
            self._is_flushing = self._is_closing
        elif batches:
            self._waiting_since = now
        for batch in batches:
            self._send_batch(batch, now)
        if batches and self._stall_deadline is None:
            self._time_sending(now)

    def _send_batch(self, batch: Batch, now: float) -> None:
        wire = batch.wire
        data = [wire] if self._is_unary else encode_message(wire, self._compression)
        self._pace.give(sum(map(len, data)), now)
        self._batch_ends.append(self._pace.given)
        self._actions.append(SendData(self._request_id, data))

    # Requests that are no appends

    def _prepare(self) -> None:
        """Ask for the tail: that is where an exclusive writer starts."""
        self._move(AppendInput.PREPARE)
        target = self._target
        plan = ask(check_tail(target.settings, target.basin, target.stream))
        self._operation = self._operate(plan, self._retry)

    def _reconcile(self, refusal: AppendConditionFailed) -> None:
        """Read back what landed before the service refused."""
        self._disputed_end = self._writer.next_unsent_dedupe_seq
        self._rest_request(AppendInput.RECONCILE)
        self._writer.connection_lost()
        reconciliation = self._writer.reconcile()
        self._dispute = (refusal, reconciliation)
        # The service has answered before: its address is no wrong one.
        retry = evolve(self._retry, connect_seconds=self._retry.max_seconds)
        plan = read_back(self._target, reconciliation, refusal)
        self._operation = self._operate(plan, retry)

    def _operate(self, plan: Any, retry: Retry) -> Operation[Any]:
        return Operation(
            plan,
            self._target.settings,
            random=self._random,
            retry=retry,
            request_ids=self._request_ids,
            on_new_connection=self._needs_new_connection,
        )

    def _follow_operation(self) -> None:
        """Take what the operation has found, and go on when it is over."""
        operation = self._operation
        if operation is None:
            return
        self._events += operation.events_received()
        self._take_durable()
        if not operation.is_over:
            return
        self._operation = None
        self._needs_new_connection = operation.needs_new_connection
        # Its last request may still be open.
        self._actions += operation.abort()
        try:
            found = operation.result()
            if self._dispute is None:
                self._start_from(found.seq_num)
            else:
                self._settle(found, *self._dispute)
        except S2FramesError as error:
            self._end(error)

    def _start_from(self, tail: int) -> None:
        """The first record is to be at `tail`."""
        self._writer.match_from(tail)
        self._must_prepare = False
        self._budget.note_answer()
        self._move(AppendInput.DONE)

    def _settle(
        self, finding: Finding, refusal: AppendConditionFailed, reconciliation: Reconciliation
    ) -> None:
        """Go on after what landed, or end. Raises what the session ends with."""
        self._dispute = None
        is_fenced_off = isinstance(refusal, FencingTokenMismatch)
        # What is left can only land where its place is free and its fencing token is the stream's:
        # a lost connection may still bring it in. Where nothing stands any more nobody knows.
        is_dead = finding is not Finding.OURS or is_fenced_off or reconciliation.has_moved
        if is_dead and finding is not Finding.TRIMMED:
            self._doubt_end = 0
        if finding is Finding.CONFLICT:
            conflict = WriterConflict(
                f"the stream holds other records of writer {self._writer_id!r} where the next of "
                "this session were to be: somebody else appends as the same writer"
            )
            conflict.attempts = refusal.attempts
            raise conflict from refusal
        if finding is not Finding.OURS or (is_fenced_off and not self._writer.is_idle):
            raise refusal
        self._needs_new_connection = True
        self._move(AppendInput.DONE)

    # What happened

    @whole
    def bytes_accepted(
        self, request_id: int, num_bytes: int, now: float, *, behind: float | None = None
    ) -> None:
        """The transport took `num_bytes` more of the request's body."""
        if self._is_current(request_id):
            self._pace.take(num_bytes, now, behind or 0.0)
            if num_bytes or behind is not None:
                self._time_sending(now)
            self._time_acks(now, only_if_untimed=True)

    @whole
    def receive_response(
        self, request_id: int, status: int, headers: Mapping[str, str], now: float
    ) -> None:
        """The answer to a request has begun. Header names are in lower case."""
        if self._operation is not None:
            self._operation.receive_response(request_id, status, headers, now)
            self._follow_operation()
        elif self._is_current(request_id):
            self._guard(lambda: self._begin_answer(status, headers, now), now)

    @whole
    def receive_data(self, request_id: int, data: bytes, now: float) -> None:
        """Bytes of the answer, cut anywhere."""
        if self._operation is not None:
            self._operation.receive_data(request_id, data, now)
            self._follow_operation()
        elif self._is_current(request_id):
            self._guard(lambda: self._receive_acks(data, now), now)

    def bytes_arriving(self, request_id: int, num_bytes: int, now: float) -> None:
        """Bytes of the answer have come which cannot be handed over yet. Acks are small."""
        if self._operation is not None:
            self._operation.bytes_arriving(request_id, num_bytes, now)

    @whole
    def receive_eof(self, request_id: int, now: float) -> None:
        """The answer is complete."""
        if self._operation is not None:
            self._operation.receive_eof(request_id, now)
            self._follow_operation()
        elif self._is_current(request_id):
            self._guard(lambda: self._finish_answer(now), now)

    @whole
    def connection_lost(self, request_id: int, error: S2FramesError, now: float) -> None:
        """The request came to nothing: `error` says why."""
        if self._operation is not None:
            self._operation.connection_lost(request_id, error, now)
            self._follow_operation()
        elif self._is_current(request_id):
            self._fail_attempt(error, now)

    def interrupted(self, now: float) -> None:  # it waits for nothing
        """What was under way was cut off, in a call of the session or in what was done for it.

        The request that is open is given up and what is unacked is sent again, at once; no attempt
        is counted for it. Where that could double messages, the session ends: without dedupe, when
        something was under way.
        """
        self._mend()

    def _is_current(self, request_id: int) -> bool:
        return request_id == self._request_id and self._state in _APPENDING

    def _guard(self, step: Callable[[], None], now: float) -> None:
        """Take a step; an error it raises ends the attempt."""
        try:
            step()
        except S2FramesError as error:
            self._fail_attempt(error, now)

    def _begin_answer(self, status: int, headers: Mapping[str, str], now: float) -> None:
        self._move(AppendInput.ANSWER)
        self._budget.note_answer()
        self._response.receive_head(status, headers)
        if self._response.kind is Answer.ERROR:
            # The service may never take the rest of the body; what it says is awaited all the same.
            self._ack_seconds = self._target.settings.request_timeout
            self._deadline = now + self._ack_seconds
            self._stall_deadline = None

    def _receive_acks(self, data: bytes, now: float) -> None:
        self._response.receive_data(data)
        if self._response.kind is not Answer.SESSION:
            return
        while (message := self._response.next_message()) is not None:
            self._receive_message(message, now)
            if self._state not in _APPENDING:
                return

    def _receive_message(self, message: Message, now: float) -> None:
        if message.reconnect_advised and not self._is_leaving:
            self._is_leaving = self._budget.may_reconnect(now)
        self._receive_ack(message.body, now)
        if self._is_leaving and not self._batch_ends:
            self._leave_connection()

    def _receive_ack(self, body: bytes, now: float) -> None:
        self._writer.receive_ack(decode_append_ack(body))
        self._is_acked = True
        self._pace.ack(self._batch_ends[0], now)
        self._batch_ends.popleft()
        self._take_durable()
        self._time_sending(now)
        self._time_acks(now, only_if_untimed=False)

    def _take_durable(self) -> None:
        """Note what the writer knows to be durable, as far as it was not noted."""
        landed = () if self._dispute is None else self._dispute[1].landed
        while landed:
            self._note_durable(landed[0])
            landed.popleft()
        if self._writer.last_durable is not None:
            self._note_durable(self._writer.last_durable)

    def _note_durable(self, event: FramesDurable) -> None:
        if event.ack.end.seq_num <= self._told_end:
            return
        self._durable_messages = event.first_frame + event.num_frames
        self._budget.note_progress()
        self._carries_one = False
        if not self._is_last_event(event):
            self._events.append(event)
        self._told_end = event.ack.end.seq_num

    def _is_last_event(self, event: AppendEvent) -> bool:
        return bool(self._events) and self._events[-1] is event

    def _finish_answer(self, now: float) -> None:
        self._response.receive_eof()
        if self._response.kind is Answer.WHOLE:
            self._receive_ack(self._response.whole_body(), now)
        if self._batch_ends or not self._body_is_complete:
            unacked = len(self._batch_ends)
            raise TransportError(f"the service ended the session with {unacked} batches unacked")
        self._needs_new_connection = self._is_leaving
        self._untime()
        self._move(AppendInput.DONE)

    # Deadlines

    def _time_sending(self, now: float) -> None:
        """Give the transport time to take more bytes, as long as there are any: see `pace`."""
        held = self._pace.held_seconds(now)
        self._stall_seconds = held + self._target.settings.request_timeout
        self._stall_deadline = None if self._pace.is_taken else now + self._stall_seconds

    def _time_acks(self, now: float, *, only_if_untimed: bool) -> None:
        """Time the oldest batch, once all of it was sent: see `pace`.

        Of a burst nothing is read before all of it was sent, so that it is timed from then on. When
        everything is acked, the end of the answer is timed.
        """
        if only_if_untimed and self._deadline is not None:
            return
        given = self._pace.given
        oldest_end = self._batch_ends[0] if self._batch_ends else given
        end = given if self._settings.burst_batches is not None else oldest_end
        is_awaited = bool(self._batch_ends) or self._body_is_complete
        is_sent = self._pace.taken >= end
        crossing = self._pace.seconds_to_cross(oldest_end, now)
        self._ack_seconds = crossing + self._target.settings.request_timeout
        self._deadline = now + self._ack_seconds if is_sent and is_awaited else None

    def _untime(self) -> None:
        self._deadline = self._stall_deadline = self._retry_at = None

    # When an attempt fails

    def _fail_attempt(self, error: S2FramesError, now: float) -> None:
        """The attempt ended in `error`: find out what landed, try again, or end."""
        error = self._response.why_failed(error)
        error.attempts = self._budget.attempts
        if isinstance(error, AppendConditionFailed) and self._may_have_landed(error):
            self._reconcile(error)
            return
        if is_retryable(error) and not self._batch_ends:
            # Everything that was sent is acked, so that nothing has failed.
            self._leave_connection()
            return
        delay = self._budget.next_delay(error, now) if self._may_repeat(error) else None
        if delay is None:
            self._end(error)
            return
        self._note_doubt(error)
        self._carries_one = not (self._is_acked or isinstance(error, ServiceError))
        self._pace.forget()
        self._rest_request(AppendInput.RETRY)
        self._writer.connection_lost()
        self._needs_new_connection = True
        self._events.append(Retrying(error, error.attempts, delay))
        self._retry_at = now + delay

    def _note_doubt(self, error: S2FramesError) -> None:
        """What was sent and not acked may be in the stream, unless `error` says that it is not."""
        if not is_definite(error) and self._writer.inflight_batches:
            self._doubt_end = max(self._doubt_end, self._writer.next_unsent_dedupe_seq)

    @property
    def _is_in_doubt(self) -> bool:
        return self._writer.next_unacked_dedupe_seq < self._doubt_end

    def _may_have_landed(self, refusal: AppendConditionFailed) -> bool:
        """Whether the refusal may be for what this session itself brought in."""
        if not (self._is_in_doubt and self._settings.is_exclusive):
            return False
        if isinstance(refusal, SeqNumMismatch):
            return refusal.expected > self._writer.next_unacked_seq_num
        return True

    def _may_repeat(self, error: S2FramesError) -> bool:
        is_safe = self._settings.dedupe or self._settings.allow_duplicates
        return is_retryable(error) if is_safe else is_effect_free(error)

    def _leave_connection(self) -> None:
        """Everything that was sent is acked: the end of the answer need not be awaited."""
        self._needs_new_connection = True
        self._rest_request(AppendInput.DONE)

    def _rest_request(self, happened: AppendInput) -> None:
        """Leave the request that is open."""
        self._actions.append(CloseRequest(self._request_id))
        self._batch_ends.clear()
        self._untime()
        self._move(happened)

    def _end(self, error: S2FramesError) -> None:
        """The session is over, with this error."""
        if self._state in _APPENDING:
            self._actions.append(CloseRequest(self._request_id))
        if self._operation is not None:
            self._actions += self._operation.abort()
        self._note_doubt(error)
        is_in_doubt = (
            self._is_in_doubt or self._writer.next_unacked_dedupe_seq < self._in_doubt_until
        )
        self._outcome = Outcome.UNKNOWN if is_in_doubt else Outcome.NOT_APPLIED
        error.outcome = self._outcome
        error.durable_messages = self._durable_messages
        self._operation = self._dispute = None
        self._untime()
        self._waiting_since = None
        self._ending = SessionEnded(error)
        self._move(AppendInput.REFUSED)
        self._tell_end()

    def _tell_end(self) -> None:
        """The session is over: tell so, once."""
        if self._ending is not None and not self._is_last_event(self._ending):
            self._events.append(self._ending)
        self._ending = None

    # When something was cut off

    def _mend(self) -> None:
        """Go on from where it is certain what holds. Cut off in that, it is done again."""
        self._is_cut_off = True
        self._take_durable()
        is_waiting = self._state is AppendState.WAITING and self._retry_at is not None
        if self._state in _ENDED:
            self._tell_end()
        elif self._state is not AppendState.IDLE and not is_waiting:
            self._give_up()
        self._is_cut_off = False

    def _give_up(self) -> None:
        """Leave what is under way, and do it anew: what was sent of it may be in the stream."""
        error = TransportError("the append was interrupted")
        if self._writer.inflight_batches and not self._may_repeat(error):
            self._end(error)
            return
        self._note_doubt(error)
        if self._state is AppendState.RECONCILING:
            self._doubt_end = max(self._doubt_end, self._disputed_end)
        self._actions = self._closing()
        self._operation = self._dispute = None
        self._batch_ends.clear()
        self._untime()
        self._writer.connection_lost()
        self._needs_new_connection = True
        self._move(AppendInput.INTERRUPTED)

    def _closing(self) -> list[Action]:
        """How to close whatever may be open."""
        actions = list(self._actions)
        if self._operation is not None:
            actions += self._operation.abort()
        if self._state in _APPENDING:
            actions.append(CloseRequest(self._request_id))
        return [action for action in actions if isinstance(action, CloseRequest)]

    def _move(self, happened: AppendInput) -> None:
        self._state = transition(TRANSITIONS, self._state, happened)
