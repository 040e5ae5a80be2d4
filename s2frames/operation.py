"""`Operation`: some requests, one after the other, with a result at the end.

A plan says which: a generator that yields one step after the other, is sent what came of each, or
is thrown the error that it ended in, and returns the result. Trying again is not its business. A
plan is plain code without I/O::

    def plan(target: StreamTarget) -> Plan[int]:
        tail = yield from ask(check_tail(target.settings, target.basin, target.stream))
        return tail.seq_num

An operation asks of an adapter what a session does; see `session`.

A plan is carried on exactly or not at all. What interrupts an operation while the plan's own code
runs, or before what came of it is noted, ends it: nobody knows how far that code came. A request
that is cut off is made again, unless it may have had an effect that it must not have twice.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen

from s2frames.checks import check_callable, check_type
from s2frames.errors import (
    LocalProtocolError,
    Outcome,
    RangeNotSatisfiable,
    RemoteProtocolError,
    S2FramesError,
    ServiceError,
    TransportError,
    copied,
)
from s2frames.pace import MIN_RATE, answer_deadline
from s2frames.records import SequencedRecord
from s2frames.rest import MAX_ANSWER_BYTES, Call
from s2frames.retry import Retry, RetryBudget, is_definite, is_effect_free, is_retryable
from s2frames.session import (
    Action,
    Answer,
    CloseRequest,
    EndData,
    OpenRequest,
    Response,
    Retrying,
    leaves_connection,
    transition,
)
from s2frames.settings import LIVENESS_TIMEOUT, Settings
from s2frames.target import SESSION_CONTENT_TYPE, StreamTarget
from s2frames.wire import decode_read_batch

__all__ = ["Effect", "Operation", "OperationState", "Plan", "Step", "ask", "read_range"]

_T = TypeVar("_T")


class Effect(enum.Enum):
    """What doing a call twice amounts to."""

    #: It changes nothing.
    NONE = enum.auto()
    #: As doing it once.
    IDEMPOTENT = enum.auto()
    #: More than doing it once: it is tried again only where it cannot have had any effect.
    ONCE = enum.auto()


@frozen
class _Ask:
    """A call, whose answer is taken whole."""

    call: Call[Any]
    effect: Effect


@frozen
class _ReadRange:
    """Records, as they arrive."""

    target: StreamTarget
    start: int
    end: int
    take: Callable[[Sequence[SequencedRecord]], bool]


Step = _Ask | _ReadRange
Plan = Generator[Step, Any, _T]


def ask(call: Call[_T], effect: Effect = Effect.NONE) -> Plan[_T]:
    """A step: make a call. Gives what it answers; raises the error that it ends in."""
    result: _T = yield _Ask(call, effect)
    return result


def read_range(
    target: StreamTarget, start: int, end: int, take: Callable[[Sequence[SequencedRecord]], bool]
) -> Plan[int]:
    """A step: read the records from `start` up to, not including, `end`.

    `take` gets them in order, each once, some at a time, and says whether to go on. Gives the
    sequence number after the last one taken: below `end` when there are no more.
    """
    result: int = yield _ReadRange(target, start, end, take)
    return result


class OperationState(enum.Enum):
    """Where an operation is."""

    #: No request is open.
    IDLE = enum.auto()
    #: A request is open and its answer has not begun.
    OPENING = enum.auto()
    #: The answer is arriving.
    RECEIVING = enum.auto()
    #: The last attempt failed; the next one has to wait.
    WAITING = enum.auto()
    #: There is a result, or an error instead.
    OVER = enum.auto()


class OperationInput(enum.Enum):
    """What can happen to an operation."""

    #: A step begins or begins anew.
    OPEN = enum.auto()
    #: The answer has begun.
    ANSWER = enum.auto()
    #: The step is done, well or badly.
    DONE = enum.auto()
    #: The attempt failed and there will be another.
    RETRY = enum.auto()
    #: It is time for another attempt.
    TIME = enum.auto()
    #: The attempt was cut off, by nobody's fault; the step begins anew.
    INTERRUPTED = enum.auto()
    #: The plan has no more steps.
    FINISHED = enum.auto()
    #: Nobody wants it any more, or nobody knows where the plan is.
    GIVEN_UP = enum.auto()


_S, _I = OperationState, OperationInput

TRANSITIONS: Mapping[tuple[OperationState, OperationInput], OperationState] = {
    (_S.IDLE, _I.OPEN): _S.OPENING,
    (_S.IDLE, _I.DONE): _S.IDLE,
    (_S.IDLE, _I.FINISHED): _S.OVER,
    (_S.IDLE, _I.GIVEN_UP): _S.OVER,
    (_S.OPENING, _I.ANSWER): _S.RECEIVING,
    (_S.OPENING, _I.DONE): _S.IDLE,
    (_S.OPENING, _I.RETRY): _S.WAITING,
    (_S.OPENING, _I.INTERRUPTED): _S.IDLE,
    (_S.OPENING, _I.GIVEN_UP): _S.OVER,
    (_S.RECEIVING, _I.DONE): _S.IDLE,
    (_S.RECEIVING, _I.RETRY): _S.WAITING,
    (_S.RECEIVING, _I.INTERRUPTED): _S.IDLE,
    (_S.RECEIVING, _I.GIVEN_UP): _S.OVER,
    (_S.WAITING, _I.TIME): _S.IDLE,
    (_S.WAITING, _I.GIVEN_UP): _S.OVER,
}

_OPEN = (OperationState.OPENING, OperationState.RECEIVING)


@define(eq=False)
class _Attempt:
    """One try of a step: its request, and the answer as far as it is there."""

    step: Step
    status: int = 0
    headers: Mapping[str, str] = field(factory=dict)
    body: bytearray = field(factory=bytearray)
    response: Response = field(factory=lambda: Response(SESSION_CONTENT_TYPE))
    #: When the answer began, and bytes of it.
    answered_at: float = 0.0
    num_bytes: int = 0
    #: The last record of the answer.
    last_seq_num: int = -1

    @property
    def is_refused(self) -> bool:
        """Whether the head of the answer says that it is an error."""
        if isinstance(self.step, _ReadRange):
            return self.response.kind is Answer.ERROR
        return self.status != 0 and not 200 <= self.status <= 299


class Operation(Generic[_T]):
    """Carries out a plan.

    Args:
        plan: the steps.
        settings: how long things may take, and how long to keep trying.
        random: floats from 0 up to, not including, 1; for the delays.
        retry: how long to keep trying, if not as `settings` say.
        request_ids: where the numbers of requests come from.
        on_new_connection: whether what was asked before leaves its connection.
    """

    def __init__(
        self,
        plan: Plan[_T],
        settings: Settings,
        *,
        random: Callable[[], float],
        retry: Retry | None = None,
        request_ids: Iterator[int] | None = None,
        on_new_connection: bool = False,
    ) -> None:
        check_type("plan", plan, Generator)
        check_type("settings", settings, Settings)
        check_callable("random", random)
        self._plan = plan
        self._settings = settings
        self._request_ids = count(1) if request_ids is None else request_ids
        self._budget = RetryBudget(settings.retry if retry is None else retry, random)
        self._state = OperationState.IDLE
        self._actions: list[Action] = []
        self._events: list[Retrying] = []
        self._request_id = 0
        self._attempt: _Attempt | None = None
        # The step under way; None before the first one.
        self._step: Step | None = None
        # The next record to read in the step, and whether an attempt at it may have had an effect.
        self._position = 0
        self._is_in_doubt = False
        # Whether a step before it may have had one.
        self._has_acted = False
        # From when the plan's code runs until what came of it is noted.
        self._is_in_plan = False
        self._deadline: float | None = None
        self._needs_new_connection = on_new_connection
        self._result: _T | None = None
        self._error: S2FramesError | None = None

    @property
    def state(self) -> OperationState:
        """Where the operation is."""
        return self._state

    @property
    def is_over(self) -> bool:
        """Whether there is a result, or an error instead."""
        return self._state is OperationState.OVER

    @property
    def needs_new_connection(self) -> bool:
        """Whether what is asked next leaves the last connection, which has not answered since."""
        return self._needs_new_connection

    def result(self) -> _T:
        """What the plan returned. Raises the error that it ended in."""
        if not self.is_over:
            raise LocalProtocolError("the operation is not over")
        if self._error is not None:
            raise copied(self._error)
        return self._result  # type: ignore[return-value]  # over without an error

    # What the adapter is to do

    def data_to_send(self, now: float) -> list[Action]:
        """What to do next, in this order."""
        if self._step is None and self._state is OperationState.IDLE:
            self._resume_plan(lambda: self._plan.send(None))
        while self._state is OperationState.IDLE and self._step is not None:
            self._begin(self._step, now)
        actions, self._actions = self._actions, []
        return actions

    def events_received(self) -> list[Retrying]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, on the clock of `now`."""
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        """Act on a deadline, if one has passed."""
        if self._deadline is None or now < self._deadline:
            return
        if self._state is OperationState.WAITING:
            self._move(OperationInput.TIME)
            self._deadline = None
        else:
            self._lose_answer(TransportError("the service did not answer in time"), now)

    def start_waiting(self, now: float) -> None:
        """The adapter waits for bytes from now on."""
        attempt = self._attempt
        if attempt is not None and attempt.response.kind is Answer.SESSION:
            self._deadline = now + LIVENESS_TIMEOUT

    def _wait_for_more(self, attempt: _Attempt, now: float) -> None:
        """A part of an answer has come that is taken whole: another one follows."""
        self._deadline = answer_deadline(
            attempt.answered_at, attempt.num_bytes, now, self._settings.request_timeout
        )

    def _begin(self, step: Step, now: float) -> None:
        if isinstance(step, _ReadRange) and self._position >= step.end:
            self._finish_step(self._position)
            return
        self._move(OperationInput.OPEN)
        self._request_id = next(self._request_ids)
        self._attempt = _Attempt(step)
        if isinstance(step, _Ask):
            request = step.call.request
        else:
            query = {"seq_num": self._position, "count": step.end - self._position}
            request = step.target.read_request(query)
        opening = OpenRequest(self._request_id, request, self._needs_new_connection)
        self._actions += (opening, EndData(self._request_id))
        settings = self._settings
        crossing = len(request.body) / MIN_RATE
        self._deadline = now + settings.connect_timeout + crossing + settings.request_timeout

    def abort(self) -> list[Action]:
        """Be over: what is still to be done, which is to close the request that is open.

        The result is an error that says so, unless there was one before. Idempotent.
        """
        if not self.is_over:
            self._give_up(LocalProtocolError("the operation was aborted"))
        actions, self._actions = self._actions, []
        return actions

    # What happened

    def bytes_accepted(
        self, request_id: int, num_bytes: int, now: float, *, behind: float | None = None
    ) -> None:
        """The transport took the request, or some of it.

        Of its own bytes is nothing to note: all are there when it is opened.
        """
        if behind and self._current(request_id) and self._state is OperationState.OPENING:
            due = now + behind + self._settings.request_timeout
            self._deadline = max(self._deadline or due, due)

    def receive_response(
        self, request_id: int, status: int, headers: Mapping[str, str], now: float
    ) -> None:
        """The answer to a request has begun. Header names are in lower case."""
        attempt = self._current(request_id)
        if attempt is None:
            return
        self._budget.note_answer()
        self._needs_new_connection = False
        attempt.answered_at = now
        self._wait_for_more(attempt, now)
        self._guard(lambda: self._begin_answer(attempt, status, headers), now)

    def receive_data(self, request_id: int, data: bytes, now: float) -> None:
        """Bytes of the answer, cut anywhere."""
        attempt = self._current(request_id)
        if attempt is None:
            return
        step = attempt.step
        attempt.num_bytes += len(data)
        self._wait_for_more(attempt, now)
        if isinstance(step, _Ask):
            attempt.body += data
            if len(attempt.body) > MAX_ANSWER_BYTES:
                self._guard(lambda: self._finish_call(step, attempt), now)
            return
        attempt.response.receive_data(data)
        self.start_waiting(now)
        self._guard(lambda: self._take_records(step, attempt), now)

    def bytes_arriving(self, request_id: int, num_bytes: int, now: float) -> None:
        """Bytes of the answer have come which cannot be handed over yet."""
        attempt = self._current(request_id)
        if attempt is not None and self._state is OperationState.RECEIVING:
            attempt.num_bytes += num_bytes
            self._wait_for_more(attempt, now)
            self.start_waiting(now)

    def receive_eof(self, request_id: int, now: float) -> None:
        """The answer is complete."""
        attempt = self._current(request_id)
        if attempt is None:
            return
        if self._state is OperationState.OPENING:
            self._fail_attempt(
                TransportError.broken_off("the connection ended without an answer"), now
            )
        else:
            self._guard(lambda: self._finish_answer(attempt), now)

    def connection_lost(self, request_id: int, error: S2FramesError, now: float) -> None:
        """The request came to nothing: `error` says why.

        The status of an error stands, however much of its body came.
        """
        if self._current(request_id) is not None:
            self._lose_answer(error, now)

    def interrupted(self, now: float) -> None:
        """What was under way was cut off: inside the operation, or while its wishes were done.

        Nothing of it is the service's fault. The request that is open is closed, and its step
        begins anew, at once and as if never tried; of a range it is the rest. The operation is over
        instead, with a `LocalProtocolError`, where the plan's own code was cut off, and where doing
        the call twice would be more than doing it once.
        """
        if self.is_over:
            return
        if self._is_in_plan or (self._is_open and self._effect is Effect.ONCE):
            self._give_up(LocalProtocolError("the operation was interrupted"))
        else:
            self._begin_anew()
        # The wish to close it may have been lost with the call that was cut off.
        closing = CloseRequest(self._request_id)
        if self._request_id and closing not in self._actions:
            self._actions.append(closing)

    def _begin_anew(self) -> None:
        """Let the step begin again, if it has; a delay before it stays."""
        self._withdraw()
        if self._is_open:
            self._is_in_doubt = True
            self._close_attempt()
            self._move(OperationInput.INTERRUPTED)
        elif self._state is OperationState.IDLE:
            self._deadline = None

    @property
    def _is_open(self) -> bool:
        return self._state in _OPEN

    @property
    def _effect(self) -> Effect:
        """What doing the step under way twice amounts to."""
        return self._step.effect if isinstance(self._step, _Ask) else Effect.NONE

    def _current(self, request_id: int) -> _Attempt | None:
        is_current = request_id == self._request_id and self._is_open
        return self._attempt if is_current else None

    def _guard(self, step: Callable[[], None], now: float) -> None:
        try:
            step()
        except S2FramesError as error:
            self._fail_attempt(error, now)

    def _begin_answer(self, attempt: _Attempt, status: int, headers: Mapping[str, str]) -> None:
        self._move(OperationInput.ANSWER)
        attempt.status, attempt.headers = status, headers
        if isinstance(attempt.step, _ReadRange):
            attempt.response.receive_head(status, headers)

    def _finish_answer(self, attempt: _Attempt) -> None:
        if isinstance(attempt.step, _Ask):
            self._finish_call(attempt.step, attempt)
        else:
            self._finish_read(attempt)

    def _finish_call(self, step: _Ask, attempt: _Attempt) -> None:
        answer = step.call.parse(attempt.status, attempt.headers, bytes(attempt.body))
        self._finish_step(answer)

    def _take_records(self, step: _ReadRange, attempt: _Attempt) -> None:
        while (message := attempt.response.next_message()) is not None:
            records = decode_read_batch(message.body).records
            _check_order(records, attempt)
            # What comes again after a break was taken; the server may read beyond a gap.
            wanted = [r for r in records if self._position <= r.seq_num < step.end]
            self._budget.note_progress()
            goes_on = attempt.last_seq_num + 1 < step.end
            self._is_in_plan = True
            if wanted:
                self._position = wanted[-1].seq_num + 1
                goes_on = step.take(wanted) and goes_on
            if not goes_on:
                self._finish_step(self._position)
                return
            self._is_in_plan = False

    def _finish_read(self, attempt: _Attempt) -> None:
        try:
            attempt.response.receive_eof()
        except RangeNotSatisfiable as error:
            # The range begins at the tail, so that there is nothing to read.
            if error.tail.seq_num != self._position:
                raise
        self._finish_step(self._position)

    # Steps

    def _finish_step(self, result: object) -> None:
        """The step gave `result`: go on with the next one."""
        self._is_in_plan = True
        self._has_acted = self._has_acted or self._effect is not Effect.NONE
        if self._state is not OperationState.IDLE:
            self._budget.note_progress()
        self._close_attempt()
        self._move(OperationInput.DONE)
        self._resume_plan(lambda: self._plan.send(result))

    def _lose_answer(self, error: S2FramesError, now: float) -> None:
        """The rest of the answer will not come, because of `error`."""
        attempt = self._attempt
        if attempt is None or not attempt.is_refused:
            self._fail_attempt(error, now)
            return
        try:
            self._finish_answer(attempt)
        except ServiceError as refusal:
            refusal.is_incomplete = True
            refusal.__cause__ = error
            self._fail_attempt(refusal, now)

    def _fail_attempt(self, error: S2FramesError, now: float) -> None:
        """The attempt ended in `error`: try again, or tell the plan."""
        error.attempts = self._budget.attempts
        # What the plan's own code raises is no failed attempt.
        may_repeat = self._may_repeat(error) and not self._is_in_plan
        delay = self._budget.next_delay(error, now) if may_repeat else None
        self._is_in_doubt = self._is_in_doubt or not is_definite(error)
        self._needs_new_connection = leaves_connection(error)
        self._close_attempt()
        if delay is None:
            self._fail_step(error)
            return
        self._events.append(Retrying(error, error.attempts, delay))
        # Nobody waits without a deadline, wherever this is cut off.
        self._deadline = now + delay
        self._move(OperationInput.RETRY)

    def _fail_step(self, error: S2FramesError) -> None:
        """The step ended in `error`: tell the plan."""
        self._is_in_plan = True
        if self._effect is not Effect.NONE:
            self._has_acted = self._has_acted or self._is_in_doubt
            error.outcome = Outcome.UNKNOWN if self._is_in_doubt else Outcome.NOT_APPLIED
        if isinstance(error, ServiceError):
            # It was answered: a plan that goes on begins to count anew.
            self._budget.note_progress()
        self._move(OperationInput.DONE)
        self._resume_plan(lambda: self._plan.throw(error))

    def _give_up(self, error: LocalProtocolError) -> None:
        """The operation ends here, wherever the plan is."""
        is_effect_under_way = self._is_open or self._is_in_plan or self._is_in_doubt
        has_effect = self._effect is not Effect.NONE
        if self._has_acted or (has_effect and is_effect_under_way):
            error.outcome = Outcome.UNKNOWN
        elif has_effect:
            error.outcome = Outcome.NOT_APPLIED
        self._withdraw()
        self._close_attempt()
        self._error = error
        self._move(OperationInput.GIVEN_UP)
        self._plan.close()

    def _withdraw(self) -> None:
        """Open nothing that was not opened yet; what was may still have to be closed."""
        self._actions = [a for a in self._actions if isinstance(a, CloseRequest)]

    def _may_repeat(self, error: S2FramesError) -> bool:
        is_once = self._effect is Effect.ONCE
        return is_retryable(error) and (is_effect_free(error) or not is_once)

    def _close_attempt(self) -> None:
        if self._is_open:
            self._actions.append(CloseRequest(self._request_id))
        self._attempt = None
        self._deadline = None

    def _resume_plan(self, resume: Callable[[], Step]) -> None:
        self._is_in_plan = True
        self._is_in_doubt = False
        try:
            self._step = resume()
        except StopIteration as stop:
            self._result = stop.value
            self._move(OperationInput.FINISHED)
        except S2FramesError as error:
            self._error = error
            self._move(OperationInput.FINISHED)
        else:
            if isinstance(self._step, _ReadRange):
                self._position = self._step.start
        self._is_in_plan = False

    def _move(self, happened: OperationInput) -> None:
        self._state = transition(TRANSITIONS, self._state, happened)


def _check_order(records: Sequence[SequencedRecord], attempt: _Attempt) -> None:
    """Raise `RemoteProtocolError` when an answer's sequence numbers go back."""
    for record in records:
        if record.seq_num <= attempt.last_seq_num:
            raise RemoteProtocolError(
                f"record {record.seq_num} came after record {attempt.last_seq_num}"
            )
        attempt.last_seq_num = record.seq_num
