from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, product
from typing import Any, TypeVar

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from embedded.host import Host, make_host
from frames import frame, place
from interruption import Interruption, Lines, sampled
from run_operation import SETTINGS, TARGET, Fault, answered, lost, refused, run, serve
from s2frames import commands as commands_module
from s2frames import last as last_module
from s2frames import operation as operation_module
from s2frames import recover as recover_module
from s2frames.commands import fence_stream, probe_fencing_token
from s2frames.error_bodies import parse_error
from s2frames.errors import (
    CertificateError,
    ConnectError,
    LocalProtocolError,
    Outcome,
    RangeNotSatisfiable,
    RemoteProtocolError,
    S2FramesError,
    SeqNumMismatch,
    ServiceError,
    TransportError,
)
from s2frames.http import Request
from s2frames.last import find_last
from s2frames.operation import (
    TRANSITIONS,
    Effect,
    Operation,
    OperationInput,
    OperationState,
    Plan,
    ask,
    read_range,
)
from s2frames.reader import FrameReader
from s2frames.records import Record, SequencedRecord, StreamPosition, fence
from s2frames.recover import recover_writer
from s2frames.rest import MAX_ANSWER_BYTES, Call, check_tail
from s2frames.retry import Retry
from s2frames.s2s import encode_message, encode_terminal
from s2frames.session import (
    Action,
    CloseRequest,
    EndData,
    OpenRequest,
    Retrying,
    transition,
)
from s2frames.settings import LIVENESS_TIMEOUT, Settings
from s2frames.wire import ReadBatch, encode_read_batch

T = TypeVar("T")

_S, _I = OperationState, OperationInput

# Seconds for a request until its answer begins: to connect, and to be answered.
TIMEOUT = SETTINGS.request_timeout
DEADLINE = SETTINGS.connect_timeout + SETTINGS.request_timeout

SESSION = {"content-type": "s2s/proto"}
NOT_FOUND = b'{"code":"stream_not_found","message":"no such stream"}'
UNAVAILABLE = b'{"code":"unavailable","message":"later"}'

#: Answers with whatever the body is.
ECHO: Call[bytes] = Call(Request("GET", "http://localhost/echo"), lambda answer: answer.body)


def operation_of(plan: Plan[Any], **arguments: Any) -> Operation[Any]:
    return Operation(plan, SETTINGS, random=lambda: 0.0, **arguments)


def nothing() -> Plan[str]:
    yield from ()
    return "done"


def batch(records: Sequence[SequencedRecord], tail: int | None = None) -> bytes:
    position = None if tail is None else StreamPosition(tail, 0)
    return b"".join(encode_message(encode_read_batch(ReadBatch(records, position))))


@define
class Taken:
    """What a read gave, and how often it was asked to take some."""

    seq_nums: list[int] = field(factory=list)
    calls: int = 0
    #: Enough, when there are so many.
    enough: int = 1 << 30

    def take(self, records: Sequence[SequencedRecord]) -> bool:
        self.calls += 1
        self.seq_nums += [record.seq_num for record in records]
        return len(self.seq_nums) < self.enough


def reading(start: int, end: int, taken: Taken | None = None) -> Plan[int]:
    return read_range(TARGET, start, end, (taken or Taken()).take)


def started(plan: Plan[Any], **arguments: Any) -> Operation[Any]:
    """An operation whose first request, number 1, is open since time 0."""
    operation = operation_of(plan, **arguments)
    actions = operation.data_to_send(0.0)
    assert [type(action) for action in actions] == [OpenRequest, EndData]
    assert operation.state is _S.OPENING
    return operation


def error_of(operation: Operation[Any]) -> S2FramesError:
    with pytest.raises(S2FramesError) as caught:
        operation.result()
    return caught.value


# Plans


def test_a_plan_without_a_step() -> None:
    operation = operation_of(nothing())
    assert operation.state is _S.IDLE
    assert operation.data_to_send(0.0) == []
    assert operation.is_over
    assert operation.result() == "done"
    assert operation.next_timeout() is None


def test_a_plan_that_fails_at_once() -> None:
    def plan() -> Plan[None]:
        yield from ()
        raise LocalProtocolError("no")

    operation = operation_of(plan())
    operation.data_to_send(0.0)
    with pytest.raises(LocalProtocolError, match="no"):
        operation.result()


def test_there_is_no_result_before_the_end() -> None:
    for operation in (operation_of(nothing()), started(ask(ECHO))):
        with pytest.raises(LocalProtocolError, match="the operation is not over"):
            operation.result()


def test_a_step_gives_what_the_call_answers() -> None:
    host = make_host()
    host.append_ok(Record(b"a"), Record(b"b"))
    call = check_tail(TARGET.settings, TARGET.basin, TARGET.stream)
    assert run(ask(call), host).result() == StreamPosition(2, 10**9)


def test_steps_follow_each_other() -> None:
    host = make_host()
    host.append_ok(Record(b"a"), Record(b"b"))
    taken = Taken()

    def plan() -> Plan[tuple[int, int]]:
        tail = yield from ask(check_tail(TARGET.settings, TARGET.basin, TARGET.stream))
        end = yield from reading(0, tail.seq_num, taken)
        return tail.seq_num, end

    done = run(plan(), host)
    assert done.result() == (2, 2)
    assert taken.seq_nums == [0, 1]
    assert [r.url.rpartition("/")[2] for r in done.requests] == [
        "tail",
        "records?seq_num=0&count=2",
    ]


def test_a_plan_may_catch_an_error_and_go_on() -> None:
    def plan() -> Plan[bytes]:
        with pytest.raises(ServiceError, match="no such stream"):
            yield from ask(ECHO)
        return (yield from ask(ECHO))

    done = run(plan(), make_host(), [answered(404, NOT_FOUND), answered(200, b"two")])
    assert done.result() == b"two"
    assert done.events == []


def test_a_plan_may_raise_an_error_of_its_own() -> None:
    def plan() -> Plan[None]:
        yield from ask(ECHO)
        raise LocalProtocolError("the echo is wrong")

    done = run(plan(), make_host(), [answered(200)])
    with pytest.raises(LocalProtocolError, match="the echo is wrong"):
        done.result()


def test_what_is_no_error_of_ours_is_a_bug_and_passes() -> None:
    def plan() -> Plan[None]:
        yield from ask(ECHO)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(plan(), make_host(), [answered(200)])


def test_request_ids_may_come_from_elsewhere() -> None:
    ids: Iterator[int] = count(7)
    operation = operation_of(ask(ECHO), request_ids=ids)
    assert operation.data_to_send(0.0) == [OpenRequest(7, ECHO.request), EndData(7)]
    assert next(ids) == 8


# States

Do = Callable[[Operation[Any], int], object]

INPUTS: dict[str, Do] = {
    "response": lambda o, n: o.receive_response(n, 200, SESSION, 1.0),
    "data": lambda o, n: o.receive_data(n, batch(place([Record()], 3)), 1.0),
    "eof": lambda o, n: o.receive_eof(n, 1.0),
    "lost": lambda o, n: o.connection_lost(n, TransportError("lost"), 1.0),
    "refusal": lambda o, n: o.connection_lost(n, CertificateError("no"), 1.0),
    "accepted": lambda o, n: o.bytes_accepted(n, 5, 1.0),
    "early": lambda o, _n: o.handle_timeout(0.05),
    "late": lambda o, _n: o.handle_timeout(1000.0),
    "waiting": lambda o, _n: o.start_waiting(1.0),
    "send": lambda o, _n: o.data_to_send(1.0),
    "interrupted": lambda o, _n: o.interrupted(1.0),
    "abort": lambda o, _n: o.abort(),
}

# What an input leads to; where it does not stand, nothing happens.
AFTER: dict[tuple[OperationState, str], OperationState] = {
    (_S.IDLE, "send"): _S.OPENING,
    (_S.OPENING, "response"): _S.RECEIVING,
    (_S.OPENING, "eof"): _S.WAITING,
    (_S.OPENING, "lost"): _S.WAITING,
    (_S.OPENING, "refusal"): _S.OVER,
    (_S.OPENING, "late"): _S.WAITING,
    # An answer begins once.
    (_S.RECEIVING, "response"): _S.OVER,
    (_S.RECEIVING, "eof"): _S.OVER,
    (_S.RECEIVING, "lost"): _S.WAITING,
    (_S.RECEIVING, "refusal"): _S.OVER,
    (_S.RECEIVING, "late"): _S.WAITING,
    (_S.WAITING, "late"): _S.IDLE,
    (_S.OPENING, "interrupted"): _S.IDLE,
    (_S.RECEIVING, "interrupted"): _S.IDLE,
    **{(state, "abort"): _S.OVER for state in _S},
}


def in_state(state: OperationState) -> Operation[Any]:
    """An operation that reads records 3 to 5, in `state`; its request is number 1."""
    if state is _S.IDLE:
        return operation_of(reading(3, 6))
    operation = started(reading(3, 6))
    if state is _S.RECEIVING:
        operation.receive_response(1, 200, SESSION, 0.0)
    elif state is _S.WAITING:
        operation.connection_lost(1, TransportError("lost"), 0.0)
    elif state is _S.OVER:
        operation.connection_lost(1, CertificateError("no"), 0.0)
    return operation


@pytest.mark.parametrize(("state", "name"), list(product(_S, INPUTS)))
def test_every_input_in_every_state(state: OperationState, name: str) -> None:
    operation = in_state(state)
    assert operation.state is state
    INPUTS[name](operation, 1)
    assert operation.state is AFTER.get((state, name), state)


@pytest.mark.parametrize(
    ("state", "name", "number"),
    list(product(_S, ["response", "data", "eof", "lost", "refusal", "accepted"], [0, 2])),
)
def test_what_concerns_other_requests_is_ignored(
    state: OperationState, name: str, number: int
) -> None:
    operation = in_state(state)
    deadline = operation.next_timeout()
    INPUTS[name](operation, number)
    assert operation.state is state
    assert operation.next_timeout() == deadline


@pytest.mark.parametrize(("state", "happened"), list(product(_S, _I)))
def test_the_table_is_closed(state: OperationState, happened: OperationInput) -> None:
    if (state, happened) in TRANSITIONS:
        assert transition(TRANSITIONS, state, happened) is TRANSITIONS[state, happened]
    else:
        with pytest.raises(RemoteProtocolError, match=f"{happened.name} cannot happen"):
            transition(TRANSITIONS, state, happened)


@given(st.lists(st.tuples(st.sampled_from(sorted(INPUTS)), st.integers(1, 3))))
def test_no_order_of_inputs_breaks_it(inputs: list[tuple[str, int]]) -> None:
    operation = operation_of(reading(3, 6))
    for name, number in inputs:
        INPUTS[name](operation, number)
        waits = operation.state in (_S.OPENING, _S.RECEIVING, _S.WAITING)
        assert (operation.next_timeout() is not None) is waits


def test_a_request_is_closed_when_its_step_is_done() -> None:
    operation = started(ask(ECHO))
    operation.receive_response(1, 200, {}, 0.0)
    operation.receive_eof(1, 0.0)
    assert operation.data_to_send(0.0) == [CloseRequest(1)]
    assert operation.data_to_send(0.0) == []


def test_one_request_is_open_at_a_time() -> None:
    operation = started(ask(ECHO))
    assert operation.data_to_send(5.0) == []
    operation.connection_lost(1, TransportError("lost"), 5.0)
    assert operation.data_to_send(5.0) == [CloseRequest(1)]
    operation.handle_timeout(5.1)
    again = OpenRequest(2, ECHO.request, on_new_connection=True)
    assert operation.data_to_send(5.1) == [again, EndData(2)]


# Giving up


@pytest.mark.parametrize("state", list(_S))
def test_an_aborted_operation_is_over_for_good(state: OperationState) -> None:
    operation = in_state(state)
    operation.data_to_send(0.05) if state in (_S.WAITING, _S.OVER) else None
    is_open = state in (_S.OPENING, _S.RECEIVING)
    assert operation.abort() == ([CloseRequest(1)] if is_open else [])
    assert operation.is_over
    for now in (0.05, 1000.0):
        assert operation.next_timeout() is None
        operation.handle_timeout(now)
        assert operation.data_to_send(now) == []
    for do in INPUTS.values():
        do(operation, 1)
    assert operation.abort() == []
    error = error_of(operation)
    if state is _S.OVER:
        assert isinstance(error, CertificateError)
    else:
        assert isinstance(error, LocalProtocolError)
        assert str(error) == "the operation was aborted"
    assert error.outcome is None


def test_what_was_to_be_closed_is_closed_by_an_abort() -> None:
    operation = in_state(_S.WAITING)
    assert operation.abort() == [CloseRequest(1)]
    assert operation.data_to_send(1.0) == []


def test_an_aborted_plan_is_closed() -> None:
    told: list[str] = []

    def plan() -> Plan[bytes]:
        try:
            return (yield from ask(ECHO))
        finally:
            told.append("closed")

    started(plan()).abort()
    assert told == ["closed"]


def test_an_operation_that_is_over_keeps_its_result() -> None:
    operation = started(ask(ECHO))
    operation.receive_response(1, 200, {}, 0.0)
    operation.receive_data(1, b"x", 0.0)
    operation.receive_eof(1, 0.0)
    operation.interrupted(0.0)
    assert operation.abort() == [CloseRequest(1)]
    assert operation.result() == b"x"


def acted(effect: Effect, until: str) -> Operation[Any]:
    """An operation whose call has an effect, as far as `until` says."""
    operation = operation_of(ask(ECHO, effect))
    if until == "not begun":
        return operation
    operation.data_to_send(0.0)
    if until in ("refused", "tried again"):
        operation.connection_lost(1, ConnectError("refused"), 0.0)
    elif until == "lost":
        operation.connection_lost(1, TransportError("lost"), 0.0)
    elif until == "answered":
        operation.receive_response(1, 200, {}, 0.0)
    if until == "tried again":
        operation.handle_timeout(1.0)
    return operation


@pytest.mark.parametrize(
    ("effect", "until", "outcome"),
    [
        (Effect.NONE, "asked", None),
        (Effect.NONE, "lost", None),
        (Effect.IDEMPOTENT, "not begun", None),
        (Effect.IDEMPOTENT, "asked", Outcome.UNKNOWN),
        (Effect.IDEMPOTENT, "answered", Outcome.UNKNOWN),
        (Effect.IDEMPOTENT, "refused", Outcome.NOT_APPLIED),
        (Effect.IDEMPOTENT, "tried again", Outcome.NOT_APPLIED),
        (Effect.IDEMPOTENT, "lost", Outcome.UNKNOWN),
        (Effect.ONCE, "asked", Outcome.UNKNOWN),
        (Effect.ONCE, "answered", Outcome.UNKNOWN),
        (Effect.ONCE, "refused", Outcome.NOT_APPLIED),
        (Effect.ONCE, "tried again", Outcome.NOT_APPLIED),
    ],
)
def test_what_an_abort_says_of_the_effect(
    effect: Effect, until: str, outcome: Outcome | None
) -> None:
    operation = acted(effect, until)
    operation.abort()
    assert error_of(operation).outcome is outcome


@pytest.mark.parametrize(
    ("first", "outcome"),
    [
        (answered(200), Outcome.UNKNOWN),
        (answered(403, b"no"), Outcome.NOT_APPLIED),
    ],
)
@pytest.mark.parametrize("is_lost", [False, True])
def test_an_abort_remembers_what_earlier_steps_did(
    first: Fault, outcome: Outcome, is_lost: bool
) -> None:
    def plan() -> Plan[None]:
        with suppress(ServiceError):
            yield from ask(ECHO, Effect.IDEMPOTENT)
        yield from ask(ECHO, Effect.IDEMPOTENT)

    operation = started(plan())
    if is_lost:
        operation.connection_lost(1, TransportError("lost"), 0.0)
        operation.handle_timeout(1.0)
        operation.data_to_send(1.0)
    number = 2 if is_lost else 1
    operation.receive_response(number, first.status or 0, {}, 1.0)
    operation.receive_eof(number, 1.0)
    operation.abort()
    assert error_of(operation).outcome is (Outcome.UNKNOWN if is_lost else outcome)


# What interrupts


def test_a_call_that_is_cut_off_is_made_again_at_once() -> None:
    for effect in (Effect.NONE, Effect.IDEMPOTENT):
        operation = started(ask(ECHO, effect), retry=Retry(max_attempts=1))
        operation.receive_response(1, 200, {}, 0.5)
        operation.receive_data(1, b"half of", 0.5)
        operation.interrupted(1.0)
        assert operation.next_timeout() is None
        again = [CloseRequest(1), OpenRequest(2, ECHO.request), EndData(2)]
        assert operation.data_to_send(1.0) == again
        assert operation.next_timeout() == 1.0 + DEADLINE
        assert operation.events_received() == []
        operation.receive_response(2, 200, {}, 1.0)
        operation.receive_data(2, b"whole", 1.0)
        operation.receive_eof(2, 1.0)
        assert operation.result() == b"whole"


def test_a_range_that_is_cut_off_goes_on_behind_what_was_taken() -> None:
    taken = Taken()
    operation = started(reading(0, 5, taken))
    operation.receive_response(1, 200, SESSION, 0.0)
    operation.receive_data(1, batch(place([Record()] * 2)), 0.0)
    operation.receive_data(1, batch(place([Record()] * 3, 2))[:-1], 0.0)
    operation.interrupted(1.0)
    close, opening, _ = operation.data_to_send(1.0)
    assert close == CloseRequest(1)
    assert isinstance(opening, OpenRequest)
    assert opening.request.url.endswith("?seq_num=2&count=3")
    operation.receive_response(2, 200, SESSION, 1.0)
    operation.receive_data(2, batch(place([Record()] * 3, 2)), 1.0)
    assert operation.result() == 5
    assert taken.seq_nums == [0, 1, 2, 3, 4]


def test_a_call_that_must_not_be_made_twice_is_not_made_again() -> None:
    operation = started(ask(ECHO, Effect.ONCE))
    operation.interrupted(1.0)
    error = error_of(operation)
    assert isinstance(error, LocalProtocolError)
    assert str(error) == "the operation was interrupted"
    assert error.outcome is Outcome.UNKNOWN
    assert operation.data_to_send(1.0) == [CloseRequest(1)]
    assert operation.next_timeout() is None


def test_a_delay_that_is_cut_off_lasts_as_long_as_before() -> None:
    for effect in Effect:
        operation = acted(effect, "refused")
        operation.interrupted(0.05)
        assert operation.state is _S.WAITING
        assert operation.next_timeout() == 0.1
        assert operation.data_to_send(0.05) == [CloseRequest(1)]
        operation.handle_timeout(0.1)
        again = OpenRequest(2, ECHO.request, on_new_connection=True)
        assert operation.data_to_send(0.1)[0] == again


def test_an_effect_that_was_cut_off_is_in_doubt() -> None:
    operation = started(ask(ECHO, Effect.IDEMPOTENT))
    operation.interrupted(0.0)
    operation.data_to_send(0.0)
    operation.receive_response(2, 403, {}, 0.0)
    operation.receive_eof(2, 0.0)
    assert error_of(operation).outcome is Outcome.UNKNOWN


def test_a_plan_whose_own_code_is_cut_off_is_over() -> None:
    def take(_records: Sequence[SequencedRecord]) -> bool:
        raise KeyboardInterrupt

    operation = started(read_range(TARGET, 0, 5, take))
    operation.receive_response(1, 200, SESSION, 0.0)
    with pytest.raises(KeyboardInterrupt):
        operation.receive_data(1, batch(place([Record()])), 0.0)
    operation.interrupted(0.0)
    error = error_of(operation)
    assert str(error) == "the operation was interrupted"
    assert error.outcome is None
    assert operation.data_to_send(0.0) == [CloseRequest(1)]


# What is cut off in other modules is cut off in the line here that called it.
TRACED = [
    module.__file__ or ""
    for module in (operation_module, recover_module, last_module, commands_module)
]


@define
class Adapter:
    """Drives an operation, and can take it up again wherever it was cut off."""

    operation: Operation[Any]
    host: Host
    faults: list[Fault]
    retries: list[Retrying] = field(factory=list)
    #: Closed by the operation alone.
    open: OpenRequest | None = None
    _coming: list[Do] = field(factory=list)

    def drive(self) -> None:
        operation, host = self.operation, self.host
        while not operation.is_over:
            self.do(operation.data_to_send(host.now))
            self.retries += operation.events_received()
            if self.open is not None:
                self._coming.pop(0)(operation, self.open.request_id)
            elif (deadline := operation.next_timeout()) is not None:
                host.now = max(host.now, deadline)
                operation.handle_timeout(host.now)
            else:
                assert operation.state in (_S.IDLE, _S.OVER), "nobody waits for anything"

    def do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, OpenRequest):
                assert self.open is None, "two requests are open at once"
                self.open, self._coming = action, untraced(partial(self._answer, action))
            elif self.open is not None and action == CloseRequest(self.open.request_id):
                self.open = None

    def go_on(self) -> None:
        """What drove the operation was cut off."""
        self.operation.interrupted(self.host.now)
        actions = self.operation.data_to_send(self.host.now)
        assert sum(isinstance(action, OpenRequest) for action in actions) <= 1
        self.do(actions)
        self.drive()
        self.do(self.operation.data_to_send(self.host.now))
        assert self.open is None

    def _answer(self, action: OpenRequest) -> list[Do]:
        """What comes of a request, one after the other."""
        fault = self.faults.pop(0) if self.faults else Fault()
        status, headers, body = fault.status or 0, fault.headers, fault.body
        if fault.is_sent:
            status, headers, body = serve(self.host, action.request)
        if fault.keep is not None:
            body = body[: max(fault.keep, 0)]
        now, error = self.host.now, fault.error
        coming: list[Do] = []
        if fault.keep != -1:
            coming.append(lambda o, n: o.receive_response(n, status, headers, now))
        pieces = [body[at : at + 900] for at in range(0, len(body), 900)]
        coming += [partial(_receive_data, piece, now) for piece in pieces]
        if error is None:
            return [*coming, lambda o, n: o.receive_eof(n, now)]
        return [*coming, lambda o, n: o.connection_lost(n, error, now)]


def _receive_data(data: bytes, now: float, operation: Operation[Any], number: int) -> None:
    operation.receive_data(number, data, now)


def untraced(work: Callable[[], T]) -> T:
    """What a service does is no line of ours."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        return work()
    finally:
        sys.settrace(tracer)


def tell(seen: list[int], records: Sequence[SequencedRecord]) -> bool:
    seen.extend(record.seq_num for record in records)
    return len(seen) < 30


def adapter_for(name: str, faults: Sequence[Fault], seen: list[int]) -> Adapter:
    host = make_host()
    for seq in range(0, 40, 4):
        host.append_ok(*frame([b"x" * 9] * 4, seq=seq, writer="w"))
    plans: dict[str, Callable[[], Plan[Any]]] = {
        "range": lambda: read_range(TARGET, 3, 40, lambda records: tell(seen, records)),
        "recover": lambda: recover_writer(TARGET, "w"),
        "last": lambda: find_last(TARGET, 9, 1 << 20, lambda start: FrameReader(start=start)),
        "fence": lambda: fence_stream(TARGET, "t"),
        "conditioned fence": lambda: fence_stream(TARGET, "t", expect=""),
        "token": lambda: probe_fencing_token(TARGET, lambda: 0.5),
    }
    return Adapter(operation_of(plans[name]()), host, list(faults))


def outcome_of(operation: Operation[Any]) -> tuple[Any, S2FramesError | None]:
    """The result, or the error instead."""
    try:
        return operation.result(), None
    except S2FramesError as error:
        return None, error


def num_fences(host: Host) -> int:
    found: list[SequencedRecord] = []

    def take(records: Sequence[SequencedRecord]) -> bool:
        found.extend(records)
        return True

    run(read_range(TARGET, 40, 1 << 63, take), host)
    return sum(record.headers == fence("t").headers for record in found)


@pytest.mark.parametrize("name", ["range", "recover", "last", "token"])
@pytest.mark.parametrize(
    "faults", [[], [lost(), lost(200)], [answered(503, UNAVAILABLE)]], ids=["", "lost", "busy"]
)
def test_interrupted_at_any_line(name: str, faults: Sequence[Fault]) -> None:
    seen: list[int] = []
    whole = adapter_for(name, faults, seen)
    with Lines(TRACED) as lines:
        whole.drive()
    expected, expected_seen = whole.operation.result(), list(seen)
    num_over = 0
    for k in sampled(lines.places, repeats=2):
        seen.clear()
        adapter = adapter_for(name, faults, seen)
        with Interruption(k, TRACED) as interruption:
            adapter.drive()
        assert interruption.where is not None
        adapter.go_on()
        # What was cut off was no attempt that failed.
        assert all(isinstance(r.error, (TransportError, ServiceError)) for r in adapter.retries)
        assert len(adapter.retries) <= len(whole.retries), interruption.where
        result, error = outcome_of(adapter.operation)
        if error is not None:
            assert isinstance(error, LocalProtocolError), interruption.where
            assert str(error) == "the operation was interrupted", interruption.where
            num_over += 1
            continue
        if name == "recover":
            # Each barrier, if there were two, takes a place.
            result = evolve(result, match_seq_num=expected.match_seq_num)
        assert result == expected, interruption.where
        assert seen == expected_seen, interruption.where
    assert num_over > 0


@pytest.mark.parametrize("name", ["fence", "conditioned fence"])
@pytest.mark.parametrize("faults", [[], [refused()], [lost()], [answered(403, b"no")]])
def test_an_effect_interrupted_at_any_line(name: str, faults: Sequence[Fault]) -> None:
    whole = adapter_for(name, faults, [])
    with Lines(TRACED) as lines:
        whole.drive()
    for k in sampled(lines.places, repeats=2):
        adapter = adapter_for(name, faults, [])
        with Interruption(k, TRACED) as interruption:
            adapter.drive()
        adapter.go_on()
        fences = num_fences(adapter.host)
        assert name != "fence" or fences <= 1, interruption.where
        _, error = outcome_of(adapter.operation)
        if error is None:
            assert fences == 1, interruption.where
        elif error.outcome is not Outcome.UNKNOWN:
            assert fences == 0, interruption.where


# Deadlines


@pytest.mark.parametrize("plan", [lambda: ask(ECHO), lambda: reading(0, 5)])
def test_an_answer_that_does_not_begin(plan: Callable[[], Plan[Any]]) -> None:
    operation = started(plan())
    assert operation.next_timeout() == DEADLINE
    operation.handle_timeout(DEADLINE - 0.001)
    assert operation.next_timeout() == DEADLINE
    operation.handle_timeout(DEADLINE)
    assert operation.state is _S.WAITING
    [event] = operation.events_received()
    assert str(event.error) == "the service did not answer in time"
    assert operation.events_received() == []


@pytest.mark.parametrize("status", [200, 404])
def test_an_answer_that_comes_slowly_is_waited_for(status: int) -> None:
    operation = started(ask(ECHO))
    operation.receive_response(1, status, {}, 6.0)
    assert operation.next_timeout() == 6.0 + TIMEOUT
    for now in range(7, 60):
        operation.receive_data(1, bytes(20_000), float(now))
        operation.start_waiting(float(now))
        assert operation.next_timeout() == now + TIMEOUT
    operation.handle_timeout(59.0 + TIMEOUT)
    assert operation.state is (_S.WAITING if status == 200 else _S.OVER)


def test_an_answer_that_drips() -> None:
    operation = started(ask(ECHO))
    operation.receive_response(1, 200, {}, 6.0)
    for now in range(7, 11):
        operation.receive_data(1, b"x", float(now))
        assert operation.next_timeout() == pytest.approx(6.0 + TIMEOUT, abs=0.01)
    operation.handle_timeout(6.01 + TIMEOUT)
    [event] = operation.events_received()
    assert str(event.error) == "the service did not answer in time"


def test_an_answer_is_awaited_from_when_the_request_can_have_crossed() -> None:
    operation = started(ask(ECHO))
    operation.bytes_accepted(1, 0, 1.0, behind=0.0)
    operation.bytes_accepted(1, 0, 1.0)
    assert operation.next_timeout() == DEADLINE
    operation.bytes_accepted(2, 0, 2.0, behind=30.0)
    assert operation.next_timeout() == DEADLINE
    operation.bytes_accepted(1, 0, 2.0, behind=30.0)
    assert operation.next_timeout() == 32.0 + TIMEOUT
    operation.receive_response(1, 200, {}, 20.0)
    operation.bytes_accepted(1, 0, 20.0, behind=30.0)
    assert operation.next_timeout() == 20.0 + TIMEOUT


def test_a_part_that_cannot_be_handed_over_yet_gives_the_rest_its_time() -> None:
    operation = started(ask(ECHO))
    operation.bytes_arriving(1, 20_000, 1.0)
    assert operation.next_timeout() == DEADLINE
    operation.receive_response(1, 200, {}, 6.0)
    for now in range(7, 60):
        operation.bytes_arriving(1, 20_000, float(now))
        assert operation.next_timeout() == now + TIMEOUT
    operation.bytes_arriving(2, 20_000, 70.0)
    assert operation.next_timeout() == 59 + TIMEOUT
    operation = started(reading(0, 5))
    operation.receive_response(1, 200, SESSION, 1.0)
    operation.bytes_arriving(1, 20_000, 7.0)
    assert operation.next_timeout() == 7.0 + LIVENESS_TIMEOUT


def test_a_large_request_has_the_time_to_cross_a_slow_line() -> None:
    call = evolve(ECHO, request=evolve(ECHO.request, body=bytes(160_000)))
    operation = started(ask(call))
    assert operation.next_timeout() == DEADLINE + 10.0


def test_a_read_may_last_while_something_comes() -> None:
    operation = started(reading(0, 5))
    operation.receive_response(1, 200, SESSION, 1.0)
    assert operation.next_timeout() == 1.0 + TIMEOUT
    operation.receive_data(1, batch(place([Record()])), 7.0)
    assert operation.next_timeout() == 7.0 + LIVENESS_TIMEOUT
    operation.start_waiting(9.0)
    assert operation.next_timeout() == 9.0 + LIVENESS_TIMEOUT
    operation.handle_timeout(9.0 + LIVENESS_TIMEOUT)
    assert operation.state is _S.WAITING


def test_the_body_of_an_error_has_to_come_in_time() -> None:
    operation = started(reading(0, 5))
    operation.receive_response(1, 404, {}, 1.0)
    operation.receive_data(1, b"x", 5.0)
    operation.start_waiting(5.0)
    assert operation.next_timeout() == pytest.approx(1.0 + TIMEOUT, abs=0.01)


def test_a_deadline_is_that_of_its_request() -> None:
    settings = Settings(endpoints=SETTINGS.endpoints, connect_timeout=1.0, request_timeout=2.5)
    operation = Operation(ask(ECHO), settings, random=lambda: 0.0)
    assert operation.next_timeout() is None
    operation.data_to_send(10.0)
    assert operation.next_timeout() == 13.5
    operation.connection_lost(1, TransportError("lost"), 11.0)
    assert operation.next_timeout() == 11.1
    operation.handle_timeout(11.1)
    assert operation.next_timeout() is None
    operation.data_to_send(12.0)
    assert operation.next_timeout() == 15.5


# Trying again


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lost(), "the connection broke"),
        (lost(3), "the connection broke"),
        (refused(), "connection refused"),
        (answered(503, UNAVAILABLE), "later"),
        (answered(429, b"slow down"), "status 429"),
        (answered(500, b"<html>"), "status 500"),
        (answered(504), "status 504"),
    ],
)
def test_what_may_pass_is_tried_again(fault: Fault, words: str) -> None:
    host = make_host()
    host.append_ok(Record())
    tail = check_tail(TARGET.settings, TARGET.basin, TARGET.stream)
    done = run(ask(tail), host, [fault, fault])
    assert done.result().seq_num == 1
    assert [event.attempts for event in done.events] == [1, 2]
    assert [event.delay for event in done.events] == [0.1, 0.2]
    assert done.ended_at - done.started_at == pytest.approx(0.3)
    assert all(words in str(event.error) for event in done.events)


@pytest.mark.parametrize(
    "fault",
    [
        answered(400, b'{"code":"bad_query","message":"no"}'),
        answered(401, b'{"code":"authn","message":"no"}'),
        answered(403, b"forbidden"),
        answered(404, NOT_FOUND),
        answered(412, b'{"seq_num_mismatch":3}'),
        answered(416, b'{"tail":{"seq_num":3,"timestamp":0}}'),
        answered(501),
        answered(302),
        Fault(is_sent=False, keep=-1, error=CertificateError("who is this")),
        Fault(is_sent=False, keep=-1, error=LocalProtocolError("a bad request")),
        Fault(is_sent=False, keep=-1, error=RemoteProtocolError("no HTTP")),
    ],
)
@pytest.mark.parametrize("effect", list(Effect))
def test_what_does_not_pass_is_final(fault: Fault, effect: Effect) -> None:
    done = run(ask(ECHO, effect), make_host(), [fault])
    error = error_of(done.operation)
    assert error.attempts == 1
    assert len(done.requests) == 1
    assert done.events == []


def test_it_gives_up_in_the_end() -> None:
    done = run(ask(ECHO), make_host(), [lost()] * 63)
    error = error_of(done.operation)
    assert error.attempts == 63
    assert "tried 63 times" in str(error)
    assert 59.0 < done.ended_at - done.started_at <= 60.0


def test_an_address_where_nobody_is_is_told_soon() -> None:
    done = run(ask(ECHO), make_host(), [refused()] * 6)
    assert isinstance(error_of(done.operation), ConnectError)
    assert done.ended_at - done.started_at <= 3.0


@pytest.mark.parametrize(
    "first",
    [
        answered(200),
        answered(503, UNAVAILABLE),
        answered(404, NOT_FOUND),
        Fault(is_sent=False, status=200, keep=0, error=TransportError("broke")),
    ],
)
def test_a_service_that_has_answered_once_is_waited_for(first: Fault) -> None:
    def plan() -> Plan[bytes]:
        with suppress(ServiceError):
            yield from ask(ECHO)
        return (yield from ask(ECHO))

    is_tried_again = first.status == 503 or first.error is not None
    answers = [answered(200, b"there")] * (2 if is_tried_again else 1)
    done = run(plan(), make_host(), [first, *[refused()] * 20, *answers])
    assert done.result() == b"there"


def test_a_range_without_records_is_no_answer() -> None:
    def plan() -> Plan[bytes]:
        assert (yield from reading(5, 5)) == 5
        return (yield from ask(ECHO))

    done = run(plan(), make_host(), [refused()] * 6)
    assert isinstance(error_of(done.operation), ConnectError)


def test_the_service_says_how_long_to_wait() -> None:
    slow = answered(429, b'{"code":"rate_limited","message":"slow"}', retry_after_ms="2500")
    for plan in (ask(ECHO), reading(0, 1)):
        operation = started(plan)
        operation.receive_response(1, 429, slow.headers, 1.0)
        operation.receive_data(1, slow.body, 1.0)
        operation.receive_eof(1, 1.0)
        assert operation.next_timeout() == 3.5


def test_how_often_may_be_told() -> None:
    done = run(ask(ECHO), make_host(), [lost(), lost()], retry=Retry(max_attempts=2))
    assert error_of(done.operation).attempts == 2
    settings = Settings(endpoints=SETTINGS.endpoints, retry=Retry(max_attempts=3))
    again = run(ask(ECHO), make_host(), [lost()] * 3, settings=settings)
    assert error_of(again.operation).attempts == 3


def test_each_step_has_its_own_attempts() -> None:
    def plan() -> Plan[None]:
        for _ in range(3):
            yield from ask(ECHO)

    faults = [lost(), answered(200), lost(), answered(200), lost(), answered(404, NOT_FOUND)]
    done = run(plan(), make_host(), faults, retry=Retry(max_attempts=2))
    assert error_of(done.operation).attempts == 2
    assert [event.attempts for event in done.events] == [1, 1, 1]


def test_a_refusal_that_the_plan_takes_begins_the_count_anew() -> None:
    def plan() -> Plan[bytes]:
        with pytest.raises(ServiceError):
            yield from ask(ECHO)
        return (yield from ask(ECHO))

    faults = [lost(), answered(404, NOT_FOUND), lost(), answered(200, b"x")]
    done = run(plan(), make_host(), faults, retry=Retry(max_attempts=2))
    assert done.result() == b"x"


def test_events_tell_of_each_retry() -> None:
    error = TransportError("lost")
    operation = started(ask(ECHO))
    operation.connection_lost(1, error, 1.0)
    assert operation.events_received() == [Retrying(error, 1, 0.1)]


# Which connection


def opened(operation: Operation[Any], now: float) -> OpenRequest:
    (action,) = [a for a in operation.data_to_send(now) if isinstance(a, OpenRequest)]
    return action


def time_out(operation: Operation[Any]) -> None:
    operation.handle_timeout(DEADLINE)


def lose(operation: Operation[Any]) -> None:
    operation.connection_lost(1, TransportError("lost"), DEADLINE)


def refuse_for_now(operation: Operation[Any]) -> None:
    operation.receive_response(1, 503, {}, DEADLINE)
    operation.receive_data(1, UNAVAILABLE, DEADLINE)
    operation.receive_eof(1, DEADLINE)


@pytest.mark.parametrize("fail", [time_out, lose, refuse_for_now])
def test_what_is_tried_again_leaves_its_connection(fail: Callable[[Operation[Any]], None]) -> None:
    def plan() -> Plan[None]:
        yield from ask(ECHO)
        yield from ask(ECHO)

    operation = operation_of(plan())
    assert not opened(operation, 0.0).on_new_connection
    fail(operation)
    operation.handle_timeout(DEADLINE + 1)
    assert operation.needs_new_connection
    assert opened(operation, DEADLINE + 1).on_new_connection
    # That one answers, and is as good as any other.
    operation.receive_response(2, 200, {}, DEADLINE + 1)
    operation.receive_eof(2, DEADLINE + 1)
    assert not operation.needs_new_connection
    assert not opened(operation, DEADLINE + 1).on_new_connection


def test_so_does_what_a_plan_asks_after_an_error_without_an_answer() -> None:
    def plan(error: S2FramesError) -> Plan[None]:
        with suppress(type(error)):
            yield from ask(ECHO)
        yield from ask(ECHO)

    silent = operation_of(plan(TransportError("lost")), retry=Retry(max_attempts=1))
    assert not opened(silent, 0.0).on_new_connection
    time_out(silent)
    assert opened(silent, DEADLINE).on_new_connection

    told = operation_of(plan(ServiceError(404, None, "")), retry=Retry(max_attempts=1))
    opened(told, 0.0)
    told.receive_response(1, 404, {}, 0.0)
    told.receive_eof(1, 0.0)
    # Another connection would say the same.
    assert not opened(told, 0.0).on_new_connection


def test_who_begins_an_operation_may_be_leaving_a_connection() -> None:
    operation = operation_of(ask(ECHO), on_new_connection=True)
    assert opened(operation, 0.0).on_new_connection
    operation.receive_response(1, 200, {}, 0.0)
    assert not operation.needs_new_connection


# Errors whose body does not come to its end

PLANS: list[Callable[[], Plan[Any]]] = [lambda: ask(ECHO), lambda: reading(0, 5)]


def cut(operation: Operation[Any], how: str) -> None:
    """The rest of the answer to request 1 does not come."""
    if how == "stalls":
        operation.handle_timeout(operation.next_timeout() or 0.0)
    else:
        operation.connection_lost(1, TransportError("the connection broke"), 1.0)


@pytest.mark.parametrize("how", ["stalls", "breaks"])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("status", [302, 401, 403, 404, 413, 501])
@pytest.mark.parametrize("body", [b"", NOT_FOUND[:20]])
def test_the_status_of_an_error_stands_without_its_body(
    status: int, body: bytes, plan: Callable[[], Plan[Any]], how: str
) -> None:
    operation = started(plan())
    operation.receive_response(1, status, {}, 0.0)
    operation.receive_data(1, body, 0.0)
    cut(operation, how)
    error = error_of(operation)
    assert isinstance(error, ServiceError)
    assert (error.status, error.code, error.is_incomplete) == (status, None, True)
    assert str(error) == f"{parse_error(status, body)}; the answer broke off"
    assert isinstance(error.__cause__, TransportError)
    assert operation.data_to_send(0.0) == [CloseRequest(1)]


@pytest.mark.parametrize("how", ["stalls", "breaks"])
@pytest.mark.parametrize("plan", PLANS)
def test_the_whole_body_of_an_error_needs_no_end(plan: Callable[[], Plan[Any]], how: str) -> None:
    operation = started(plan())
    operation.receive_response(1, 400, {}, 0.0)
    operation.receive_data(1, b'{"code":"bad_query","message":"no"}', 0.0)
    cut(operation, how)
    assert str(error_of(operation)) == "no (bad_query, status 400)"


@pytest.mark.parametrize("plan", PLANS)
def test_an_error_that_may_pass_is_tried_again_after_what_its_head_asks(
    plan: Callable[[], Plan[Any]],
) -> None:
    operation = started(plan())
    operation.receive_response(1, 429, {"retry-after-ms": "2500"}, 0.0)
    cut(operation, "breaks")
    [event] = operation.events_received()
    assert isinstance(event.error, ServiceError)
    assert event.error.status == 429
    assert operation.next_timeout() == 3.5


@pytest.mark.parametrize("how", ["stalls", "breaks"])
@pytest.mark.parametrize("effect", list(Effect))
@pytest.mark.parametrize("status", [400, 409, 412, 416])
def test_what_only_the_body_of_an_error_says_is_asked_again(
    status: int, effect: Effect, how: str
) -> None:
    operation = started(ask(ECHO, effect), retry=Retry(max_attempts=2))
    for number in (1, 2):
        operation.receive_response(number, status, {}, 0.0)
        if number == 1:
            cut(operation, how)
            assert operation.state is _S.WAITING
            operation.handle_timeout(100.0)
            operation.data_to_send(100.0)
        else:
            operation.connection_lost(number, TransportError("the connection broke"), 100.0)
    error = error_of(operation)
    assert isinstance(error, ServiceError)
    assert (error.status, error.attempts) == (status, 2)
    # Nothing was done, whatever it was.
    assert error.outcome is (None if effect is Effect.NONE else Outcome.NOT_APPLIED)


def test_a_condition_that_does_not_hold_is_told_in_the_end() -> None:
    mismatch = b'{"seq_num_mismatch":3}'
    faults = [
        Fault(is_sent=False, status=412, body=mismatch, keep=9, error=TransportError("broke")),
        answered(412, mismatch),
    ]
    done = run(ask(ECHO, Effect.IDEMPOTENT), make_host(), faults)
    error = error_of(done.operation)
    assert isinstance(error, SeqNumMismatch)
    assert (error.expected, error.outcome) == (3, Outcome.NOT_APPLIED)


@pytest.mark.parametrize("keep", [0, 20, 100])
def test_a_read_at_the_tail_whose_refusal_breaks_off(keep: int) -> None:
    body = b'{"tail":{"seq_num":5,"timestamp":0}}'
    broken = Fault(is_sent=False, status=416, body=body, keep=keep, error=TransportError("broke"))
    done = run(reading(5, 9), stream_of(5), [broken])
    assert done.result() == 5
    assert len(done.requests) == (1 if keep == 100 else 2)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("status", [200, 204, 299])
def test_a_success_whose_body_breaks_off_is_tried_again(
    status: int, plan: Callable[[], Plan[Any]]
) -> None:
    if status != 200 and plan is PLANS[1]:
        return
    operation = started(plan())
    operation.receive_response(1, status, SESSION, 0.0)
    operation.connection_lost(1, TransportError("the connection broke"), 0.0)
    [event] = operation.events_received()
    assert str(event.error) == "the connection broke"


# Effects


@pytest.mark.parametrize(
    ("effect", "faults", "num_requests", "outcome"),
    [
        (Effect.NONE, [answered(404, NOT_FOUND)], 1, None),
        (Effect.NONE, [lost(), answered(404, NOT_FOUND)], 2, None),
        (Effect.IDEMPOTENT, [answered(404, NOT_FOUND)], 1, Outcome.NOT_APPLIED),
        (Effect.IDEMPOTENT, [lost(), answered(404, NOT_FOUND)], 2, Outcome.UNKNOWN),
        (Effect.IDEMPOTENT, [refused(), answered(404, NOT_FOUND)], 2, Outcome.NOT_APPLIED),
        (Effect.IDEMPOTENT, [answered(503, UNAVAILABLE), answered(403)], 2, Outcome.UNKNOWN),
        (Effect.ONCE, [lost()], 1, Outcome.UNKNOWN),
        (Effect.ONCE, [answered(503, UNAVAILABLE)], 1, Outcome.UNKNOWN),
        (Effect.ONCE, [answered(500)], 1, Outcome.UNKNOWN),
        (Effect.ONCE, [answered(408)], 1, Outcome.UNKNOWN),
        (Effect.ONCE, [refused(), lost()], 2, Outcome.UNKNOWN),
        (Effect.ONCE, [refused(), answered(403)], 2, Outcome.NOT_APPLIED),
        (Effect.ONCE, [refused()] * 6, 6, Outcome.NOT_APPLIED),
        (
            Effect.ONCE,
            [
                answered(409, b'{"code":"transaction_conflict","message":"busy"}'),
                answered(502, b'{"code":"hot_server","message":"busy"}'),
                answered(404, NOT_FOUND),
            ],
            3,
            Outcome.NOT_APPLIED,
        ),
        (
            Effect.ONCE,
            [Fault(is_sent=False, keep=-1, error=CertificateError("who is this"))],
            1,
            Outcome.NOT_APPLIED,
        ),
        # An answer that cannot be read may be that of a success.
        (Effect.ONCE, [answered(200, bytes(MAX_ANSWER_BYTES + 1))], 1, Outcome.UNKNOWN),
    ],
)
def test_what_an_error_says_of_the_effect(
    effect: Effect, faults: list[Fault], num_requests: int, outcome: Outcome | None
) -> None:
    done = run(ask(ECHO, effect), make_host(), faults)
    error = error_of(done.operation)
    assert error.outcome is outcome
    assert len(done.requests) == num_requests


def test_doubt_is_about_one_step() -> None:
    def plan() -> Plan[None]:
        yield from ask(ECHO, Effect.IDEMPOTENT)
        yield from ask(ECHO, Effect.IDEMPOTENT)

    done = run(plan(), make_host(), [lost(), answered(200), answered(403)])
    assert error_of(done.operation).outcome is Outcome.NOT_APPLIED


# Answers to calls


@pytest.mark.parametrize("status", [200, 404])
def test_an_answer_that_is_too_large_is_not_held(status: int) -> None:
    operation = started(ask(ECHO))
    operation.receive_response(1, status, {}, 0.0)
    piece = bytes(1 << 20)
    for _ in range(MAX_ANSWER_BYTES // len(piece)):
        operation.receive_data(1, piece, 0.0)
    assert not operation.is_over
    operation.receive_data(1, b"x", 0.0)
    assert isinstance(error_of(operation), RemoteProtocolError)
    assert operation.data_to_send(0.0) == [CloseRequest(1)]


@pytest.mark.parametrize("plan", [lambda: ask(ECHO), lambda: reading(0, 5)])
def test_an_end_without_an_answer(plan: Callable[[], Plan[Any]]) -> None:
    operation = started(plan())
    operation.receive_eof(1, 0.0)
    [event] = operation.events_received()
    assert str(event.error) == "the connection ended without an answer"


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_an_answer_in_pieces(piece: int) -> None:
    done = run(ask(ECHO), make_host(), [answered(200, b"some bytes")], piece=piece)
    assert done.result() == b"some bytes"


# Reading


def stream_of(num_records: int, size: int = 10) -> Host:
    host = make_host()
    for at in range(0, num_records, 500):
        host.append_ok(*[Record(bytes(size))] * min(500, num_records - at))
    return host


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, 5, range(5)), (2, 4, range(2, 4)), (4, 9, range(4, 5)), (0, 1 << 63, range(5))],
)
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_range_is_read(start: int, end: int, expected: range, piece: int) -> None:
    taken = Taken()
    done = run(reading(start, end, taken), stream_of(5), piece=piece)
    assert done.result() == expected.stop
    assert taken.seq_nums == list(expected)


@pytest.mark.parametrize(("start", "end"), [(3, 3), (7, 3)])
def test_an_empty_range_takes_no_request(start: int, end: int) -> None:
    done = run(reading(start, end), make_host())
    assert done.result() == start
    assert done.requests == []


def test_a_range_at_the_tail_is_empty() -> None:
    taken = Taken()
    done = run(reading(5, 9, taken), stream_of(5))
    assert done.result() == 5
    assert taken.calls == 0


def test_a_range_beyond_the_tail() -> None:
    done = run(reading(6, 9), stream_of(5))
    with pytest.raises(RangeNotSatisfiable) as caught:
        done.result()
    assert caught.value.tail.seq_num == 5


def test_it_stops_when_there_is_enough() -> None:
    taken = Taken(enough=1)
    done = run(reading(0, 3000, taken), stream_of(3000))
    assert done.result() == len(taken.seq_nums) < 3000
    assert taken.calls == 1


@pytest.mark.parametrize("keep", [0, 4, 5, 10_000, 20_000])
def test_a_read_goes_on_where_it_broke(keep: int) -> None:
    taken = Taken()
    done = run(reading(0, 3000, taken), stream_of(3000), [lost(keep), lost(), lost(keep)])
    assert done.result() == 3000
    assert taken.seq_nums == list(range(3000))


def test_a_read_that_broke_at_the_tail_is_at_its_end() -> None:
    taken = Taken()
    records = place([Record()] * 5)
    broken = Fault(
        is_sent=False, status=200, body=batch(records), keep=1 << 20, error=TransportError("broke")
    )
    done = run(reading(0, 9, taken), stream_of(5), [broken])
    assert done.result() == 5
    assert taken.seq_nums == [0, 1, 2, 3, 4]
    assert done.requests[1].url.endswith("?seq_num=5&count=4")


def test_progress_begins_the_count_anew() -> None:
    pieces = [
        Fault(
            is_sent=False,
            status=200,
            body=batch(place([Record()], i)),
            keep=1 << 20,
            error=TransportError("broke"),
        )
        for i in range(20)
    ]
    done = run(reading(0, 21), stream_of(21), pieces, retry=Retry(max_attempts=2))
    assert done.result() == 21
    assert {event.attempts for event in done.events} == {1}


def test_what_comes_again_is_taken_once() -> None:
    taken = Taken()
    first = Fault(
        is_sent=False,
        status=200,
        body=batch(place([Record()] * 3)),
        keep=1 << 20,
        error=TransportError("broke"),
    )
    again = answered(200, batch(place([Record()] * 2)) + batch(place([Record()] * 3, 2)))
    assert run(reading(0, 5, taken), make_host(), [first, again]).result() == 5
    assert taken.seq_nums == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "messages",
    [[[1, 0]], [[0, 0]], [[0, 1], [1]], [[0, 2], [1]], [[9], [0]]],
)
def test_sequence_numbers_that_go_back(messages: list[list[int]]) -> None:
    body = b"".join(batch([SequencedRecord(n, 0) for n in numbers]) for numbers in messages)
    done = run(reading(0, 20), make_host(), [answered(200, body)])
    with pytest.raises(RemoteProtocolError, match=r"record \d came after record \d"):
        done.result()


@pytest.mark.parametrize(
    ("messages", "taken_numbers", "end"),
    [
        # Trimmed in front, in the middle, at the end, as a whole.
        ([[3, 4, 5]], [3, 4, 5], 6),
        ([[0, 4, 5]], [0, 4, 5], 6),
        ([[0], [4, 5]], [0, 4, 5], 6),
        ([[0, 1, 6, 7]], [0, 1], 2),
        ([[0, 1], [6, 7]], [0, 1], 2),
        ([[6, 7]], [], 0),
        # The server reads beyond the end, since it counts records.
        ([[3, 4, 5, 6, 7, 8]], [3, 4, 5], 6),
        # Messages without records.
        ([[], [0, 1, 2], [], [3, 4, 5]], [0, 1, 2, 3, 4, 5], 6),
    ],
)
def test_records_that_are_missing(
    messages: list[list[int]], taken_numbers: list[int], end: int
) -> None:
    taken = Taken()
    operation = started(reading(0, 6, taken))
    operation.receive_response(1, 200, SESSION, 0.0)
    for numbers in messages:
        assert not operation.is_over
        operation.receive_data(1, batch([SequencedRecord(n, 0) for n in numbers], 9), 0.0)
    # It is over as soon as nothing more can come, whatever the server still sends.
    assert operation.is_over
    operation.receive_data(1, batch(place([Record()], 2)), 0.0)
    assert operation.result() == end
    assert taken.seq_nums == taken_numbers


def test_an_answer_that_ends_inside_a_message_is_continued() -> None:
    taken = Taken()
    body = batch(place([Record()] * 2)) + batch(place([Record()] * 3, 2))[:-1]
    done = run(reading(0, 5, taken), stream_of(5), [answered(200, body)])
    assert done.result() == 5
    assert taken.seq_nums == [0, 1, 2, 3, 4]
    assert "ended inside a message" in str(done.events[0].error)


def test_an_error_after_some_records() -> None:
    taken = Taken()
    body = batch(place([Record()])) + encode_terminal(503, UNAVAILABLE)
    done = run(reading(0, 5, taken), stream_of(5), [answered(200, body)])
    assert done.result() == 5
    assert taken.seq_nums == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answered(404, NOT_FOUND), ServiceError),
        (answered(200, encode_terminal(404, NOT_FOUND)), ServiceError),
        (answered(200, b"\0\0\0\0"), RemoteProtocolError),
        (answered(200, b"<html>"), RemoteProtocolError),
        (answered(200, b"".join(encode_message(b"\xff"))), RemoteProtocolError),
        (answered(200, b"", content_type="text/html"), RemoteProtocolError),
        (answered(416, b'{"tail":{"seq_num":4,"timestamp":0}}'), RangeNotSatisfiable),
        (answered(416, b"?"), ServiceError),
    ],
)
def test_answers_that_end_a_read(answer: Fault, error: type[S2FramesError]) -> None:
    done = run(reading(0, 5), stream_of(5), [answer])
    assert isinstance(error_of(done.operation), error)
    assert len(done.requests) == 1


@pytest.mark.parametrize("kind", [RemoteProtocolError, TransportError])
def test_an_error_of_who_takes_the_records_is_the_plans(kind: type[S2FramesError]) -> None:
    def take(_records: Sequence[SequencedRecord]) -> bool:
        raise kind("these make no sense")

    def plan() -> Plan[str]:
        with pytest.raises(kind, match=r"^these make no sense$"):
            yield from read_range(TARGET, 0, 5, take)
        return "caught"

    done = run(plan(), stream_of(5))
    assert done.result() == "caught"
    assert len(done.requests) == 1


@given(st.binary(max_size=60), st.sampled_from([200, 404, 416, 500]), st.integers(1, 60))
def test_garbage_gives_our_errors_only(data: bytes, status: int, piece: int) -> None:
    for plan in (ask(check_tail(TARGET.settings, TARGET.basin, TARGET.stream)), reading(0, 5)):
        faults = [answered(status, data)]
        done: Any = run(plan, stream_of(5), faults, piece=piece, retry=Retry(max_attempts=1))
        with suppress(S2FramesError):
            done.result()
