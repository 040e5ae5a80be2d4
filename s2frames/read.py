"""`ReadProtocol`: a read session's whole life, without I/O.

Requests to make come out, answers go in, messages and all else that the stream holds come out. See
`session` for how an adapter drives it.

The table below is all there is to know of states. What fails and may pass is tried again: what had
arrived is handed out, then the session goes on at the record after it, with what is left of its
limits.

What is on its way to the user stands here and nowhere else: an event is offered (`next_event`,
`next_events`) until it is said to be taken (`event_taken`, `events_taken`). Whatever is raised in
between, by a codec, a callback, a signal or a cancellation, leaves it offered. So:

- What moves an event, or says that it is taken, is one line without a call: no signal comes in
  between.
- Any other call that was cut off is noticed by the next one (`_is_cut_off`), which mends the
  session: it gives up the open request and goes on after what is taken. So does `interrupted`, for
  an adapter that was cut off. The service is not to blame for it, and no attempt is counted.
- A checkpoint is as of what is taken.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from math import ceil
from typing import Any, ParamSpec, TypeAlias, TypeVar

from attrs import evolve

from s2frames.checkpoint import Checkpoint, check_stream
from s2frames.checks import check_callable, check_type
from s2frames.errors import RangeNotSatisfiable, S2FramesError, TransportError
from s2frames.events import FrameReceived, FramesReceived, ReaderEvent
from s2frames.last import LastFrames, find_last
from s2frames.mending import Mendable, whole
from s2frames.operation import Operation, Plan, ask
from s2frames.reader import FrameReader, ReaderStats
from s2frames.records import StreamPosition
from s2frames.rest import check_tail
from s2frames.retry import RetryBudget, is_retryable
from s2frames.session import (
    Action,
    Answer,
    CloseRequest,
    EndData,
    OpenRequest,
    Response,
    Retrying,
    SessionEnded,
    transition,
)
from s2frames.settings import LIVENESS_TIMEOUT, MAX_WAIT, ReadSettings
from s2frames.target import SESSION_CONTENT_TYPE, StreamTarget
from s2frames.wire import ReadBatch, encode_read_batch

__all__ = ["ReadEvent", "ReadProtocol", "ReadState"]

ReadEvent = ReaderEvent | Retrying | SessionEnded

#: What `next_events` gives: messages that look alike come together.
ReadEvents: TypeAlias = Sequence[ReadEvent | FramesReceived]

T = TypeVar("T")
P = ParamSpec("P")


class ReadState(enum.Enum):
    """Where a session is."""

    #: No request is open.
    IDLE = enum.auto()
    #: It searches for the last messages, or asks where the tail is.
    PREPARING = enum.auto()
    #: A request is open and its answer has not begun.
    OPENING = enum.auto()
    #: The answer is arriving.
    READING = enum.auto()
    #: The answer is over; events may be left to take.
    DRAINING = enum.auto()
    #: The last attempt failed; the next one has to wait.
    WAITING = enum.auto()
    #: The session ended as it should.
    ENDED = enum.auto()
    #: An error ended the session.
    FAILED = enum.auto()


class ReadInput(enum.Enum):
    """What can happen to a session."""

    #: Something must be known first: where the last messages are, or the tail.
    PREPARE = enum.auto()
    #: It is known.
    PREPARED = enum.auto()
    #: A request is made.
    START = enum.auto()
    #: The answer has begun.
    ANSWER = enum.auto()
    #: The answer is complete, or there is nothing left to ask for.
    DONE = enum.auto()
    #: The connection is lost: it broke or went silent.
    LOST = enum.auto()
    #: Another request goes on from here at once.
    LEAVE = enum.auto()
    #: The attempt failed and there will be another.
    RETRY = enum.auto()
    #: It is time for another attempt.
    TIME = enum.auto()
    #: There will be no other attempt.
    REFUSED = enum.auto()
    #: All that was asked for was taken, or the user stops.
    FINISHED = enum.auto()
    #: What was under way was interrupted on this side.
    CUT_OFF = enum.auto()


_S, _I = ReadState, ReadInput

TRANSITIONS: Mapping[tuple[ReadState, ReadInput], ReadState] = {
    (_S.IDLE, _I.PREPARE): _S.PREPARING,
    (_S.IDLE, _I.START): _S.OPENING,
    (_S.IDLE, _I.DONE): _S.DRAINING,
    (_S.IDLE, _I.FINISHED): _S.ENDED,
    (_S.PREPARING, _I.PREPARED): _S.IDLE,
    (_S.PREPARING, _I.REFUSED): _S.FAILED,
    (_S.PREPARING, _I.FINISHED): _S.ENDED,
    (_S.OPENING, _I.ANSWER): _S.READING,
    (_S.OPENING, _I.LOST): _S.DRAINING,
    (_S.OPENING, _I.FINISHED): _S.ENDED,
    (_S.READING, _I.DONE): _S.DRAINING,
    (_S.READING, _I.LOST): _S.DRAINING,
    (_S.READING, _I.LEAVE): _S.IDLE,
    (_S.READING, _I.RETRY): _S.WAITING,
    (_S.READING, _I.REFUSED): _S.FAILED,
    (_S.READING, _I.FINISHED): _S.ENDED,
    (_S.DRAINING, _I.PREPARE): _S.PREPARING,
    (_S.DRAINING, _I.LEAVE): _S.IDLE,
    (_S.DRAINING, _I.RETRY): _S.WAITING,
    (_S.DRAINING, _I.REFUSED): _S.FAILED,
    (_S.DRAINING, _I.FINISHED): _S.ENDED,
    (_S.WAITING, _I.TIME): _S.IDLE,
    (_S.WAITING, _I.FINISHED): _S.ENDED,
    (_S.IDLE, _I.CUT_OFF): _S.DRAINING,
    (_S.PREPARING, _I.CUT_OFF): _S.DRAINING,
    (_S.OPENING, _I.CUT_OFF): _S.DRAINING,
    (_S.READING, _I.CUT_OFF): _S.DRAINING,
    (_S.DRAINING, _I.CUT_OFF): _S.DRAINING,
    (_S.WAITING, _I.CUT_OFF): _S.DRAINING,
}

_OPEN = (ReadState.OPENING, ReadState.READING)
_OVER = (ReadState.ENDED, ReadState.FAILED)


class ReadProtocol(Mendable):
    """Reads the messages of a stream.

    Args:
        target: the stream.
        settings: what to read, and how.
        random: floats from 0 up to, not including, 1; for the delays.

    Raises `LocalProtocolError` when `settings.start` is a checkpoint of another stream.
    """

    def __init__(
        self, target: StreamTarget, settings: ReadSettings, *, random: Callable[[], float]
    ) -> None:
        check_type("target", target, StreamTarget)
        check_type("settings", settings, ReadSettings)
        check_callable("random", random)
        if isinstance(settings.start, Checkpoint):
            check_stream(settings.start, target.basin, target.stream)
        self._target = target
        self._settings = settings
        self._random = random
        self._retry = target.settings.retry if settings.retry is None else settings.retry
        self._budget = RetryBudget(self._retry, random)
        self._end = settings.end
        self._reader = self._make_reader()
        self._state = ReadState.IDLE
        self._request_ids = count(1)
        self._request_id = 0
        self._response = Response(SESSION_CONTENT_TYPE)
        # The last time that was told, and until when something must have happened.
        self._now = 0.0
        self._deadline: float | None = None
        self._retry_at: float | None = None
        # What is offered: one event, or several.
        self._event: ReadEvent | None = None
        self._events: ReadEvents = ()
        # How many events of the batch are taken, and how many messages of the session.
        self._num_taken = 0
        self._num_messages = 0
        # Since when the session has been at the tail without a record: `wait` is counted from then.
        self._quiet_since: float | None = None
        # The same as it was when the request was made, which asked for what was left of `wait`.
        self._quiet_before: float | None = None
        self._actions: list[Action] = []
        # Events of the batch that is being taken apart, and where the reader was before it.
        self._batch: Iterator[ReadEvent | FramesReceived] = iter(())
        self._batch_start: int | None = None
        # What the batch ended in, while what came before is offered.
        self._batch_error: S2FramesError | None = None
        # Whether messages that look alike are taken together.
        self._is_at_once = False
        # Why the connection was lost, and how the session ended: to be told in their turn.
        self._loss: S2FramesError | None = None
        self._ended: SessionEnded | None = None
        self._is_end_offered = False
        # Whether the answer was given up because something was cut off.
        self._is_given_up = False
        # Whether the service wishes another connection, and whether the next request needs one.
        self._is_leaving = False
        self._needs_new_connection = False
        # Requests that are no reads of the session, and what is done with what comes of them.
        self._operation: Operation[Any] | None = None
        self._use_result: Callable[[Any], None] = self._note_tail
        # The last messages.
        self._must_search = settings.last is not None
        self._found: LastFrames | None = None
        # Where the last request began, and the tail, once an answer without records made it asked.
        self._asked_from: int | None = None
        self._tail: StreamPosition | None = None

    @property
    def state(self) -> ReadState:
        """Where the session is."""
        return self._state

    @property
    def is_over(self) -> bool:
        """Whether the session has ended; how is the last event."""
        return self._state in _OVER

    @property
    def has_last(self) -> bool:
        """Whether the message that is offered is the last one that was asked for."""
        limit = self._settings.limit
        return limit is not None and self._num_messages + (self._event is not None) >= limit

    @property
    def stats(self) -> ReaderStats:
        """Counters, for people."""
        return self._reader.stats

    @property
    def caught_up(self) -> StreamPosition | None:
        """The tail, while everything up to it is taken as far as is known."""
        self._go_back()
        return self._reader.caught_up

    def checkpoint(self) -> Checkpoint:
        """Where to go on, as of the last event taken. Raises as `FrameReader.checkpoint`."""
        self._go_back()
        target = self._target
        return evolve(self._reader.checkpoint(), basin=target.basin, stream=target.stream)

    @whole
    def close(self) -> None:
        """Stop reading; nothing more is offered. Idempotent."""
        if self._is_ahead:
            # For the checkpoint.
            self._rewind()
        if self._state not in _OVER:
            self._finish(ReadInput.FINISHED, None)
        self._is_end_offered = True
        self._batch = iter(())
        self._event, self._events = None, ()

    # What is on its way to the user

    def next_event(self) -> ReadEvent | None:
        """What the stream holds next, or None until more arrives: the same until `event_taken`."""
        if self._event is None or self._is_cut_off:
            self._offer_one()
        return self._event

    def event_taken(self) -> None:
        """What `next_event` gave is where it was to go."""
        is_message = type(self._event) is FrameReceived
        self._event, self._num_taken, self._num_messages = (
            None,
            self._num_taken + 1,
            self._num_messages + is_message,
        )

    def next_events(self) -> ReadEvents:
        """As `next_event`, many at a time: the same until `events_taken`. Empty: nothing arrived.

        Messages that look alike come together.
        """
        if self._is_cut_off:
            self._mend()
        if self._reader.is_torn:
            self._go_back()
        is_one_by_one = self._settings.limit is not None or self._found is not None
        if not (is_one_by_one or self._events or self._event is not None):
            self._offer_many()
        if self._events:
            return self._events
        event = self.next_event() if is_one_by_one else self._event
        return () if event is None else (event,)

    def events_taken(self, count: int) -> None:
        """The first `count` of what `next_events` gave are where they were to go."""
        left = self._events[count:]
        num_messages, num_others = _count(self._events[:count] or (self._event,))
        num_taken = num_messages + num_others
        self._event, self._events, self._num_taken, self._num_messages = (
            None,
            left,
            self._num_taken + num_taken,
            self._num_messages + num_messages,
        )

    def split_event(self) -> None:
        """Offer the messages of the first event of `next_events` one by one."""
        first, *others = self._events
        if isinstance(first, FramesReceived):
            self._events = [*first.singly(), *others]

    def events_received(self) -> Iterator[ReadEvent]:
        """What the stream holds, as far as it has arrived; each event is taken as it is given.

        What is left is in the next iterator.
        """
        while (event := self.next_event()) is not None:
            self.event_taken()
            if self._has_all:
                self._stop()
            yield event

    def events_at_once(self) -> ReadEvents:
        """As `events_received`, many at a time; empty when nothing has arrived.

        Messages that look alike come together. All of it is taken: checkpoints are as of the last
        one.
        """
        events = self.next_events()
        if events:
            self.events_taken(len(events))
        return events

    def _offer_one(self) -> None:
        if self._is_cut_off:
            self._mend()
        if self._events:
            # One by one from now on.
            self._go_back()
        self._is_at_once = False
        while self._event is None:
            if self._has_all:
                self._stop()
            try:
                # Straight to where it is offered, never by way of a variable. None of it is many.
                for self._event in self._batch:  # type: ignore[assignment]  # noqa: B020
                    break
                else:
                    if not self._next_batch():
                        return
            except S2FramesError as error:
                self._fail_batch(error)
            if self._found is not None and not self._is_wanted(self._event):
                self.event_taken()

    def _offer_many(self) -> None:
        self._is_at_once = True
        events: list[ReadEvent | FramesReceived] = []
        self._events = events
        while not events and self._event is None:
            try:
                # What comes before an error, or an interruption, stays.
                events.extend(self._batch)
                if not events and not self._next_batch():
                    return
            except S2FramesError as error:
                self._fail_batch(error)

    @property
    def _has_all(self) -> bool:
        """Whether as many messages as were asked for are taken."""
        limit = self._settings.limit
        return limit is not None and self._num_messages >= limit and self._state not in _OVER

    @whole
    def _stop(self) -> None:
        """Nothing more is wanted."""
        self._batch = iter(())
        self._finish(ReadInput.FINISHED, None)

    @property
    def _is_ahead(self) -> bool:
        """Whether the reader is beyond what is taken."""
        is_offered = self._event is not None or bool(self._events)
        return (is_offered or self._reader.is_torn) and self._reader.can_rewind

    def _go_back(self) -> None:
        """Make what is offered not arrived yet, so that the reader is as of what is taken."""
        if self._is_cut_off:
            self._mend()
        if self._is_ahead:
            self._is_cut_off = True
            self._rewind()
            self._is_cut_off = False

    def _rewind(self) -> None:
        self._batch = self._reader.rewind(self._num_taken)
        self._event, self._events, self._batch_error = None, (), None

    def _mend(self) -> None:
        """Go on from what is taken: a call was cut off, or what the adapter did for it."""
        self._is_cut_off = True
        if self._reader.can_rewind:
            self._rewind()
            if self._ended is not None:
                # For the checkpoint only: what is left of the batch is not wanted.
                self._batch = iter(())
        if self._ended is not None:
            self._tidy()
        else:
            self._begin_anew()
        self._is_cut_off = False

    def _begin_anew(self) -> None:
        """Give up the request that is open; another one follows when everything is taken."""
        self._must_search = self._settings.last is not None and self._found is None
        self._close_all()
        self._response = Response(SESSION_CONTENT_TYPE)
        self._loss = None
        if self._state is not ReadState.WAITING or self._retry_at is None:
            self._retry_at = None
            self._is_given_up = True
            self._move(ReadInput.CUT_OFF)

    def _close_all(self) -> None:
        """Close what is open; what had been asked for and was not done yet is not to be done."""
        operation, self._operation = self._operation, None
        self._actions = [CloseRequest(self._request_id)] if self._request_id else []
        self._actions += operation.abort() if operation is not None else []
        self._deadline = None

    # What the adapter is to do

    @whole
    def data_to_send(self, now: float) -> list[Action]:
        """What to do next, in this order."""
        self._now = now
        if self._state is ReadState.IDLE and self._must_search:
            self._begin_search()
        if self._operation is not None:
            self._actions += self._operation.data_to_send(now)
            self._follow_operation()
        if self._state is ReadState.IDLE:
            self._open_request()
        actions, self._actions = self._actions, []
        return actions

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, on the clock of `now`."""
        if self._operation is not None:
            return self._operation.next_timeout()
        return self._deadline if self._retry_at is None else self._retry_at

    @whole
    def handle_timeout(self, now: float) -> None:
        """Act on a deadline, if it has passed."""
        self._now = now
        if self._operation is not None:
            self._operation.handle_timeout(now)
            self._follow_operation()
        elif self._retry_at is not None:
            if now >= self._retry_at:
                self._retry_at = None
                self._move(ReadInput.TIME)
        elif self._deadline is not None and now >= self._deadline:
            what = "answer" if self._state is ReadState.OPENING else "sign of life"
            self._actions.append(CloseRequest(self._request_id))
            self._lose(TransportError(f"no {what} came from the service in time"))

    def interrupted(self, now: float) -> None:
        """What the adapter did was cut off: the request that is open is given up, at no charge."""
        self._now = now
        operation = self._operation
        if self._is_cut_off or self._state in _OPEN:
            self._mend()
        elif operation is not None:
            operation.interrupted(now)
            if operation.is_over:
                self._mend()

    def bytes_accepted(
        self, request_id: int, num_bytes: int, now: float, *, behind: float | None = None
    ) -> None:
        """The transport took the request."""
        if self._operation is not None:
            self._operation.bytes_accepted(request_id, num_bytes, now, behind=behind)
        elif behind and request_id == self._request_id and self._state is ReadState.OPENING:
            due = now + behind + self._target.settings.request_timeout
            self._deadline = max(self._deadline or due, due)

    def _open_request(self) -> None:
        if self._is_used_up():
            self._move(ReadInput.DONE)
            return
        self._move(ReadInput.START)
        self._quiet_before = self._quiet_since
        self._request_id = next(self._request_ids)
        self._response = Response(SESSION_CONTENT_TYPE)
        self._asked_from = self._reader.next_seq_num
        request = self._target.read_request(self._query())
        self._actions += (
            OpenRequest(self._request_id, request, self._needs_new_connection),
            EndData(self._request_id),
        )
        self._is_leaving = self._needs_new_connection = False
        settings = self._target.settings
        self._deadline = self._now + settings.connect_timeout + settings.request_timeout

    def _query(self) -> dict[str, int]:
        settings, start = self._settings, self._reader.next_seq_num
        query: dict[str, int] = {}
        if start is not None:
            query["seq_num"] = start
        elif settings.timestamp is not None:
            query["timestamp"] = settings.timestamp
        if settings.until is not None:
            query["until"] = settings.until
        if settings.wait is not None:
            # At least once after a loss the tail must be seen: no time at all asks for just that.
            query["wait"] = max(0, ceil(self._wait_left()))
        elif not settings.follow:
            # Waiting for nothing ends the session at the tail, also when it starts there.
            query["wait"] = 0
            if self._end is not None and start is not None:
                query["count"] = self._end - start
        elif settings.until is not None:
            # A session that is bounded follows only if it may wait.
            query["wait"] = MAX_WAIT
        return query

    def _wait_left(self) -> float:
        """Seconds without a record after which the session ends."""
        quiet = 0.0 if self._quiet_since is None else self._now - self._quiet_since
        return (self._settings.wait or 0) - quiet

    def _is_used_up(self) -> bool:
        """Whether there is nothing more to ask for: the service would refuse to be asked."""
        start = self._reader.next_seq_num
        ends = [self._end, None if self._tail is None else self._tail.seq_num]
        return start is not None and any(end is not None and start >= end for end in ends)

    # The last messages

    def _begin_search(self) -> None:
        """Find out where the last messages are."""
        self._must_search = False
        plan = find_last(
            self._target,
            self._settings.last or 1,
            self._settings.max_scan_bytes,
            self._make_reader,
        )
        self._operate(plan, self._start_with)

    def _start_with(self, found: LastFrames) -> None:
        if not self._settings.follow and self._settings.wait is None:
            tail = found.tail.seq_num
            self._end = tail if self._end is None else min(self._end, tail)
        self._reader = self._make_reader(found.read_from)
        # Last: until then the search is to be begun anew when it is cut off.
        self._found = found

    def _is_wanted(self, event: ReadEvent | None) -> bool:
        """Whether the event is to be told: of the messages before the tail only the last are."""
        found = self._found
        if found is None or not isinstance(event, FrameReceived):
            return True
        return event.end > found.tail.seq_num or event.start in found.starts

    # Where nothing came

    def _must_ask_for_tail(self) -> bool:
        """Whether an answer without records leaves open if there are none.

        A stream that was trimmed to nothing answers like one that is read from its tail. And where
        a session that began at a time is to go on, only the tail tells.
        """
        settings = self._settings
        is_bounded_by_tail = not settings.follow and settings.wait is settings.until is None
        is_empty = self._reader.next_seq_num == self._asked_from
        return is_bounded_by_tail and self._tail is None and is_empty

    def _ask_for_tail(self) -> None:
        target = self._target
        self._operate(
            ask(check_tail(target.settings, target.basin, target.stream)), self._note_tail
        )

    def _note_tail(self, tail: StreamPosition) -> None:
        # What is below the tail may have come since: it is asked for once more.
        self._tail = tail

    def _is_below_tail(self) -> bool:
        """Whether records are missing up to the tail that was asked for."""
        start = self._reader.next_seq_num
        return self._tail is not None and start is not None and start < self._tail.seq_num

    # Requests that are no reads of the session

    def _operate(self, plan: Plan[T], use: Callable[[T], None]) -> None:
        """Carry out a plan; the session goes on with what comes of it."""
        self._move(ReadInput.PREPARE)
        self._use_result = use
        self._operation = Operation(
            plan,
            self._target.settings,
            random=self._random,
            retry=self._retry,
            request_ids=self._request_ids,
            on_new_connection=self._needs_new_connection,
        )

    def _follow_operation(self) -> None:
        """Go on when the operation is over."""
        operation = self._operation
        if operation is None or not operation.is_over:
            return
        self._operation = None
        self._needs_new_connection = operation.needs_new_connection
        self._actions += operation.data_to_send(self._now)
        # What it has to tell comes before what the session has.
        self._batch = iter(operation.events_received())
        try:
            self._use_result(operation.result())
        except S2FramesError as error:
            self._finish(ReadInput.REFUSED, error)
            return
        self._budget.note_answer()
        self._move(ReadInput.PREPARED)

    # What happened

    @whole
    def receive_response(
        self, request_id: int, status: int, headers: Mapping[str, str], now: float
    ) -> None:
        """The answer to a request has begun. Header names are in lower case."""
        self._now = now
        if self._operation is not None:
            self._operation.receive_response(request_id, status, headers, now)
        elif self._is_current(request_id):
            self._budget.note_answer()
            try:
                self._begin_answer(status, headers)
            except S2FramesError as error:
                error.attempts = self._budget.attempts
                self._finish(ReadInput.REFUSED, error)

    def _begin_answer(self, status: int, headers: Mapping[str, str]) -> None:
        self._move(ReadInput.ANSWER)
        self.start_waiting(self._now)
        self._response.receive_head(status, headers)

    @whole
    def receive_data(self, request_id: int, data: bytes, now: float) -> None:
        """Bytes of the answer, cut anywhere. Take the events before receiving more."""
        self._now = now
        if self._operation is not None:
            self._operation.receive_data(request_id, data, now)
            self._follow_operation()
        elif self._is_current(request_id):
            self._response.receive_data(data)
            self.start_waiting(now)

    def bytes_arriving(self, request_id: int, num_bytes: int, now: float) -> None:
        """Bytes of the answer have come which cannot be handed over yet."""
        if self._operation is not None:
            self._operation.bytes_arriving(request_id, num_bytes, now)
        elif self._is_current(request_id):
            self.start_waiting(now)

    def start_waiting(self, now: float) -> None:
        """The adapter waits for bytes from now on; before, it was busy with the last ones.

        The body of an error has the time that its head gave it, however it trickles.
        """
        if self._operation is not None:
            self._operation.start_waiting(now)
        elif self._state is ReadState.READING and self._response.kind is not Answer.ERROR:
            self._deadline = now + LIVENESS_TIMEOUT

    @whole
    def receive_eof(self, request_id: int, now: float) -> None:
        """The answer is complete."""
        self._now = now
        if self._operation is not None:
            self._operation.receive_eof(request_id, now)
            self._follow_operation()
        elif not self._is_current(request_id):
            return
        elif self._state is ReadState.OPENING:
            self._lose(TransportError.broken_off("the connection ended without an answer"))
        else:
            self._deadline = None
            self._move(ReadInput.DONE)

    @whole
    def connection_lost(self, request_id: int, error: S2FramesError, now: float) -> None:
        """The request came to nothing: `error` says why. What had arrived is still handed out."""
        self._now = now
        if self._operation is not None:
            self._operation.connection_lost(request_id, error, now)
            self._follow_operation()
        elif self._is_current(request_id):
            self._lose(error)

    def _is_current(self, request_id: int) -> bool:
        return request_id == self._request_id and self._state in _OPEN

    # Events

    @whole
    def _next_batch(self) -> bool:
        """Begin with the next thing to take events from; False when nothing has arrived."""
        if self._reader.is_torn:
            self._rewind()
            return True
        self._reader.forget_batch()
        if self._state in _OVER:
            return self._offer_end()
        if self._batch_error is not None:
            raise self._batch_error
        if self._operation is not None:
            events = self._operation.events_received()
            self._batch = iter(events)
            return bool(events)
        self._note_batch()
        if self._reader.has_reached_end and self._state in (*_OPEN, ReadState.DRAINING):
            self._close_books()
            return True
        if self._is_leaving and self._state is ReadState.READING:
            self._leave()
            return False
        if self._response.kind is Answer.SESSION:
            message = self._response.next_message()
            if message is not None:
                self._budget.note_progress()
                self._is_leaving = message.reconnect_advised and self._budget.may_reconnect(
                    self._now
                )
                self._batch_start = self._reader.next_seq_num
                self._begin_batch(message.body)
                return True
        if self._state is not ReadState.DRAINING:
            return False
        return self._end_answer()

    def _offer_end(self) -> bool:
        if self._is_end_offered:
            return False
        self._event, self._is_end_offered = self._ended, True
        return True

    def _begin_batch(self, batch: bytes) -> None:
        receive = self._reader.receive_batch_at_once if self._is_at_once else None
        self._num_taken = 0
        self._batch = (receive or self._reader.receive_batch)(batch)

    def _note_batch(self) -> None:
        """Count `wait` from the first time at the tail, and then from the last record.

        What the service sends to show that it is alive changes nothing.
        """
        has_advanced = self._reader.next_seq_num != self._batch_start
        is_first = self._quiet_since is None and self._reader.caught_up is not None
        if is_first or (has_advanced and self._quiet_since is not None):
            self._quiet_since = self._now
        self._batch_start = self._reader.next_seq_num

    def _leave(self) -> None:
        """Go on with another request; what of this one's answer was not taken comes again."""
        self._is_given_up = False
        self._needs_new_connection = True
        self._forget_answer()
        self._move(ReadInput.LEAVE)

    def _end_answer(self) -> bool:
        """Everything that arrived is taken: whether there is more to tell now."""
        if self._is_given_up:
            self._leave()
            return False
        if self._loss is not None:
            raise self._loss
        try:
            self._response.receive_eof()
        except RangeNotSatisfiable as error:
            return self._start_at_tail(error)
        if self._settings.follow and self._settings.until is None:
            raise TransportError("the service ended a session that follows the stream")
        if self._has_time_left():
            self._leave()
            return False
        if self._must_ask_for_tail():
            self._forget_answer()
            self._ask_for_tail()
            return False
        if self._tail is not None and self._reader.next_seq_num is None:
            self._reader = self._make_reader(self._tail.seq_num)
        if self._is_below_tail():
            self._begin_batch(encode_read_batch(ReadBatch((), self._tail)))
        else:
            self._close_books()
        return True

    def _start_at_tail(self, refusal: RangeNotSatisfiable) -> bool:
        """The session starts where nothing is yet: at the tail, or at a later time."""
        tail, start = refusal.tail.seq_num, self._reader.next_seq_num
        if start is None:
            self._reader = self._make_reader(tail)
        elif start != tail:
            raise refusal
        if start is None and (self._settings.follow or self._settings.wait is not None):
            self._leave()
            return False
        # A bounded session that starts at the tail is over before it begins.
        self._close_books()
        return True

    def _has_time_left(self) -> bool:
        """Whether the service waited too little.

        After a loss it is asked to wait for what is left of `wait`. It counts that from the last
        record, from which on there is all of `wait` again. It counts whole seconds.
        """
        before = self._quiet_before
        return before is not None and self._quiet_since != before and self._wait_left() >= 1

    def _close_books(self) -> None:
        """Tell of what is incomplete, and end."""
        self._batch = self._reader.receive_eof()
        self._finish(ReadInput.FINISHED, None)

    # When an attempt fails

    def _lose(self, error: S2FramesError) -> None:
        self._deadline = None
        self._loss = self._response.why_failed(error)
        self._move(ReadInput.LOST)

    @whole
    def _fail_batch(self, error: S2FramesError) -> None:
        """The attempt ended in `error`: try again, or end. First, what came before is taken."""
        if self._events:
            self._batch_error = error
            return
        self._batch_error = None
        error.attempts = self._budget.attempts
        delay = self._budget.next_delay(error, self._now) if is_retryable(error) else None
        if delay is None:
            self._finish(ReadInput.REFUSED, error)
            return
        self._needs_new_connection = True
        self._forget_answer()
        self._move(ReadInput.RETRY)
        self._retry_at = self._now + delay
        self._event = Retrying(error, error.attempts, delay)

    def _forget_answer(self) -> None:
        """The rest of the answer will not be taken, and another one will follow."""
        if self._state in _OPEN:
            self._actions.append(CloseRequest(self._request_id))
        self._response = Response(SESSION_CONTENT_TYPE)
        self._batch = iter(())
        self._loss = None
        self._deadline = None
        self._reader.connection_lost()

    def _finish(self, happened: ReadInput, error: S2FramesError | None) -> None:
        is_open = self._state in _OPEN
        self._ended = SessionEnded(error)
        if is_open:
            self._actions.append(CloseRequest(self._request_id))
        if self._operation is not None:
            self._actions += self._operation.abort()
            self._operation = None
        self._move(happened)
        self._deadline = self._retry_at = None

    def _tidy(self) -> None:
        """End what was about to end."""
        error = None if self._ended is None else self._ended.error
        self._close_all()
        self._retry_at = None
        if self._state not in _OVER:
            self._move(ReadInput.FINISHED if error is None else ReadInput.REFUSED)

    def _move(self, happened: ReadInput) -> None:
        self._state = transition(TRANSITIONS, self._state, happened)

    def _make_reader(self, start: int | None = None) -> FrameReader:
        """A reader for `start`, or for where the settings say."""
        settings = self._settings
        if isinstance(settings.start, Checkpoint):
            return FrameReader.resume(
                settings.start,
                end=self._end,
                dedupe=settings.dedupe,
                max_frame_bytes=settings.max_frame_bytes,
                max_writers=settings.max_writers,
                max_buffered_bytes=settings.max_buffered_bytes,
                max_reread=settings.max_reread,
            )
        starts_elsewhere = settings.timestamp is not None or settings.last is not None
        if start is None and not starts_elsewhere:
            start = settings.start
        return FrameReader(
            start=start,
            end=self._end,
            dedupe=settings.dedupe,
            max_frame_bytes=settings.max_frame_bytes,
            max_writers=settings.max_writers,
            max_buffered_bytes=settings.max_buffered_bytes,
            max_reread=settings.max_reread,
        )


def _count(events: Sequence[object]) -> tuple[int, int]:
    """How many messages are among the events, and how many others."""
    num_messages = num_others = 0
    for event in events:
        if isinstance(event, FramesReceived):
            num_messages += len(event.payloads)
        elif isinstance(event, FrameReceived):
            num_messages += 1
        else:
            num_others += 1
    return num_messages, num_others
