"""Session machines and operations, answered by a hostile service."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from attrs import frozen

from hostile import corpus
from hostile.mutate import Mutator, split
from s2frames import rest
from s2frames.append import AppendProtocol
from s2frames.commands import fence_stream, probe_fencing_token, trim_stream
from s2frames.errors import LocalProtocolError, S2FramesError, TransportError
from s2frames.events import FramesReceived
from s2frames.last import find_last
from s2frames.operation import Operation, Plan, read_range
from s2frames.read import ReadProtocol
from s2frames.reader import FrameReader
from s2frames.recover import recover_writer
from s2frames.rest_plans import call_plan
from s2frames.retry import Retry
from s2frames.session import Action, CloseRequest, OpenRequest, Retrying, SendData, SessionEnded
from s2frames.settings import AppendSettings, Endpoints, ReadSettings, Settings
from s2frames.target import StreamTarget

__all__ = ["Answer", "feed_append", "feed_operation", "feed_read", "make_answers"]

_RETRY = Retry(max_attempts=2, max_seconds=30.0, min_delay=0.1, max_delay=0.1)
_SETTINGS = Settings(endpoints=Endpoints.at("http://localhost"), retry=_RETRY)
_TARGET = StreamTarget(_SETTINGS, "test-basin", "room/1")

# Turns of a machine. Each answer takes a few, and each attempt without one two.
_MAX_TURNS = 2000

Machine = AppendProtocol | ReadProtocol | Operation[Any]


@frozen
class Answer:
    """What the service says to one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    #: Whether the answer is complete; else the connection breaks.
    is_complete: bool


def make_answers(mutator: Mutator) -> tuple[list[Answer], int]:
    """Up to four answers. To requests after them there is none."""
    answers = [_make_answer(mutator) for _ in range(mutator.random.randint(1, 4))]
    return answers, sum(len(answer.body) for answer in answers)


def _make_answer(mutator: Mutator) -> Answer:
    random = mutator.random
    status = 200 if random.random() < 0.8 else random.choice(corpus.STATUSES)
    kind = random.choice(("s2s/proto", "s2s/proto", "application/protobuf", "application/json"))
    if status != 200:
        body = mutator.maybe(random.choice(corpus.ERROR_BODIES))
    elif kind == "s2s/proto":
        body = corpus.session(mutator, random.choice((corpus.READ_BATCHES, corpus.ACKS)))
    elif kind == "application/json":
        body = mutator.maybe(random.choice(corpus.JSON_ANSWERS))
    else:
        body = mutator.maybe(random.choice(corpus.ACKS))
    if random.random() < 0.1:
        kind = random.choice(("", "S2S/Proto; x=y", "text/html", "\xff"))
    return Answer(status, {"content-type": kind}, body, random.random() < 0.8)


def feed_read(answers: Sequence[Answer], random: Random) -> None:
    """A read session, with any options."""
    options: dict[str, Any] = random.choice(
        (
            {},
            {"follow": True},
            {"wait": 3},
            {"last": 3, "max_scan_bytes": 5000},
            {"timestamp": 5, "until": 2**41},
            {"start": 3, "end": 40, "limit": 5},
            {"dedupe": False},
        )
    )
    settings = ReadSettings(max_frame_bytes=500, max_buffered_bytes=1000, max_writers=3, **options)
    machine = ReadProtocol(_TARGET, settings, random=random.random)
    events = drive(machine, answers, random)
    assert sum(isinstance(event, SessionEnded) for event in events) == 1
    assert isinstance(events[-1], SessionEnded)
    _check_words(events)


def feed_append(answers: Sequence[Answer], random: Random) -> None:
    """An append session, with any options: what is not durable is still there in the end."""
    options: dict[str, Any] = random.choice(
        (
            {},
            {"burst_batches": 3},
            {"burst_batches": 1},
            {"dedupe": False},
            {"exclusive": True},
            {"match_seq_num": 0, "fencing_token": "token"},
        )
    )
    machine = AppendProtocol(_TARGET, AppendSettings(**options), random=random.random)
    # One record, a frame of two, and one more.
    payloads = [b"message   0", bytes(1_100_000), b"last"]
    machine.send_many(payloads, now=0.0)
    machine.close()
    _check_words(drive(machine, answers, random))
    left = [message.payload for message in machine.pending().messages]
    assert left == payloads[machine.durable_messages :]


_PLANS: Sequence[Callable[[Random], Plan[Any]]] = (
    lambda _: call_plan(rest.check_tail(_SETTINGS, "test-basin", "room/1")),
    lambda _: call_plan(rest.list_streams(_SETTINGS, "test-basin")),
    lambda _: call_plan(rest.delete_stream(_SETTINGS, "test-basin", "room/1")),
    lambda _: call_plan(rest.create_stream(_SETTINGS, "test-basin", "room/1", request_token="t")),
    lambda _: fence_stream(_TARGET, "new", expect="token", trim=3),
    lambda _: fence_stream(_TARGET, "new"),
    lambda _: trim_stream(_TARGET, 5),
    lambda random: probe_fencing_token(_TARGET, random.random),
    lambda _: recover_writer(_TARGET, "left", 0),
    lambda _: find_last(_TARGET, 3, 5000, lambda start: FrameReader(start=start)),
    lambda _: read_range(_TARGET, 0, 50, lambda records: len(records) < 7),
)


def feed_operation(answers: Sequence[Answer], random: Random) -> None:
    """A call, a command, a search."""
    machine = Operation(random.choice(_PLANS)(random), _SETTINGS, random=random.random)
    _check_words(drive(machine, answers, random))
    try:
        machine.result()
    except LocalProtocolError:
        raise AssertionError("the service is at fault, not the caller") from None
    except S2FramesError as error:
        str(error).encode()


def drive(machine: Machine, answers: Sequence[Answer], random: Random) -> list[Any]:
    """Let the machine ask until it is over; its events."""
    now, left, events = 0.0, list(answers), list[Any]()
    for _ in range(_MAX_TURNS):
        opened = _opened(machine, machine.data_to_send(now), now)
        events += machine.events_received()
        if opened is not None:
            _answer(machine, opened, left.pop(0) if left else None, random, now, events)
        elif machine.is_over:
            return events
        else:
            deadline = machine.next_timeout()
            assert deadline is not None or machine.data_to_send(now), "this is a hang"
            now = now if deadline is None else max(now, deadline)
            machine.handle_timeout(now)
    raise AssertionError("this goes on for ever")


def _opened(machine: Machine, actions: Sequence[Action], now: float) -> int | None:
    """The request that is open after `actions`; the transport takes everything."""
    number: int | None = None
    for action in actions:
        if isinstance(action, OpenRequest):
            number = action.request_id
        elif isinstance(action, SendData):
            number = action.request_id
            machine.bytes_accepted(number, sum(map(len, action.data)), now)
        elif isinstance(action, CloseRequest) and action.request_id == number:
            number = None
    return number


def _answer(
    machine: Machine,
    number: int,
    answer: Answer | None,
    random: Random,
    now: float,
    events: list[Any],
) -> None:
    if answer is None:
        machine.connection_lost(number, TransportError("nobody is there"), now)
        return
    machine.receive_response(number, answer.status, answer.headers, now)
    for piece in split(random, answer.body):
        events += _take(machine, random)
        if machine.is_over:
            return
        machine.receive_data(number, piece, now)
    events += _take(machine, random)
    if answer.is_complete:
        machine.receive_eof(number, now)
    else:
        machine.connection_lost(number, TransportError("the connection broke"), now)
    events += _take(machine, random)


def _take(machine: Machine, random: Random) -> list[Any]:
    """The events, taken one by one or many at once."""
    if not isinstance(machine, ReadProtocol) or random.random() < 0.5:
        return list(machine.events_received())
    events: list[Any] = []
    while some := machine.events_at_once():
        for event in some:
            events.extend(event.singly() if isinstance(event, FramesReceived) else [event])
    return events


def _check_words(events: Sequence[Any]) -> None:
    """Every error is one of ours, and can be printed."""
    for event in events:
        if isinstance(event, SessionEnded | Retrying) and event.error is not None:
            assert isinstance(event.error, S2FramesError)
            str(event.error).encode()
