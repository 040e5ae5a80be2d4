from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from random import Random
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from drive import TARGET, World, random_cut
from frames import chunk, frame, head
from reading import (
    JSON,
    LOST,
    ONCE,
    SESSION,
    A,
    B,
    C,
    advised,
    answer,
    append,
    batch,
    error_in,
    events_of,
    heartbeat,
    make,
    opened_by,
    opening,
    payloads,
    query_of,
    read_to_the_end,
    reading,
    singly,
)
from s2frames.append import AppendProtocol, AppendState
from s2frames.checkpoint import Checkpoint, LaneCheckpoint
from s2frames.compression import Compression
from s2frames.errors import (
    CertificateError,
    ConnectError,
    LocalProtocolError,
    RangeNotSatisfiable,
    RemoteProtocolError,
    ServiceError,
    TransportError,
)
from s2frames.events import (
    CaughtUp,
    CommandReceived,
    DropReason,
    DuplicateDropped,
    FrameDropped,
    FrameReceived,
    FramesReceived,
    GapDetected,
    ReaderEvent,
)
from s2frames.read import (
    TRANSITIONS,
    ReadEvent,
    ReadInput,
    ReadProtocol,
    ReadState,
)
from s2frames.records import Record, StreamPosition, fence
from s2frames.s2s import encode_terminal
from s2frames.session import Action, CloseRequest, OpenRequest, Retrying, SessionEnded
from s2frames.settings import LIVENESS_TIMEOUT, AppendSettings, Endpoints, Settings
from s2frames.target import StreamTarget
from s2frames.u64 import U64_MAX

SECRET = "token-hunter2"


def draining() -> ReadProtocol:
    machine = reading(batch(A))
    machine.receive_eof(1, 0.0)
    return machine


def preparing() -> ReadProtocol:
    """A session that searches for the last message."""
    machine = make(last=1)
    machine.data_to_send(0.0)
    return machine


def waiting() -> ReadProtocol:
    """A session whose first attempt has failed."""
    machine = opening()
    machine.connection_lost(1, TransportError("lost"), 0.0)
    assert [type(event) for event in machine.events_received()] == [Retrying]
    return machine


def ended() -> ReadProtocol:
    machine = make()
    machine.close()
    return machine


def failed() -> ReadProtocol:
    machine = reading(encode_terminal(500, b"{}"), retry=ONCE)
    list(machine.events_received())
    machine.data_to_send(0.0)
    return machine


# States

OVER = (ReadState.ENDED, ReadState.FAILED)

# Where time or somebody else has to do the next step.
WAITS_FOR_SOMETHING = (
    ReadState.PREPARING,
    ReadState.OPENING,
    ReadState.READING,
    ReadState.WAITING,
)


@pytest.mark.parametrize("happened", ReadInput)
@pytest.mark.parametrize("state", ReadState)
def test_what_is_not_in_the_table_is_a_protocol_error(
    state: ReadState, happened: ReadInput
) -> None:
    machine = make()
    machine._state = state
    if (state, happened) in TRANSITIONS:
        machine._move(happened)
        assert machine.state is TRANSITIONS[state, happened]
        return
    with pytest.raises(RemoteProtocolError, match=f"{happened.name} .* {state.name}"):
        machine._move(happened)
    assert machine.state is state


def test_the_table_leaves_nothing_out() -> None:
    assert {state for state, _ in TRANSITIONS} == set(ReadState) - set(OVER)
    assert set(TRANSITIONS.values()) == set(ReadState)
    assert {happened for _, happened in TRANSITIONS} == set(ReadInput)


STATES: dict[ReadState, Callable[[], ReadProtocol]] = {
    ReadState.IDLE: make,
    ReadState.PREPARING: preparing,
    ReadState.OPENING: opening,
    ReadState.READING: reading,
    ReadState.DRAINING: draining,
    ReadState.WAITING: waiting,
    ReadState.ENDED: ended,
    ReadState.FAILED: failed,
}

STIMULI: dict[str, Callable[[ReadProtocol], object]] = {
    "start": lambda m: m.data_to_send(1.0),
    "close": lambda m: m.close(),
    "take": events_of,
    "wait": lambda m: m.start_waiting(1.0),
    "answer": lambda m: m.receive_response(1, 200, SESSION, 1.0),
    "refusal": lambda m: m.receive_response(1, 404, JSON, 1.0),
    "page": lambda m: m.receive_response(1, 200, {"content-type": "text/html"}, 1.0),
    "data": lambda m: m.receive_data(1, batch(A), 1.0),
    "end": lambda m: m.receive_eof(1, 1.0),
    "loss": lambda m: m.connection_lost(1, LOST, 1.0),
    "taken": lambda m: m.bytes_accepted(1, 9, 1.0),
    "early": lambda m: m.handle_timeout(0.09),
    "late": lambda m: m.handle_timeout(1e9),
}

# Where a stimulus leads, if it leads anywhere.
REACTIONS: dict[ReadState, dict[str, ReadState]] = {
    ReadState.IDLE: {"start": ReadState.OPENING, "close": ReadState.ENDED},
    ReadState.PREPARING: {"close": ReadState.ENDED},
    ReadState.OPENING: {
        "answer": ReadState.READING,
        "refusal": ReadState.READING,
        "page": ReadState.FAILED,
        **dict.fromkeys(["end", "loss", "late"], ReadState.DRAINING),
        "close": ReadState.ENDED,
    },
    ReadState.READING: {
        **dict.fromkeys(["answer", "refusal", "page"], ReadState.FAILED),
        **dict.fromkeys(["end", "loss", "late"], ReadState.DRAINING),
        "close": ReadState.ENDED,
    },
    ReadState.DRAINING: {"take": ReadState.ENDED, "close": ReadState.ENDED},
    ReadState.WAITING: {"late": ReadState.IDLE, "close": ReadState.ENDED},
    ReadState.ENDED: {},
    ReadState.FAILED: {},
}


@pytest.mark.parametrize("name", STIMULI)
@pytest.mark.parametrize("state", ReadState)
def test_what_happens_in_each_state(state: ReadState, name: str) -> None:
    machine = STATES[state]()
    assert machine.state is state
    STIMULI[name](machine)
    expected = REACTIONS[state].get(name, state)
    assert machine.state is expected
    if expected in WAITS_FOR_SOMETHING:
        assert machine.next_timeout() is not None
    elif expected is not ReadState.IDLE:
        assert machine.next_timeout() is None


@pytest.mark.parametrize("make_machine", [ended, failed])
def test_a_session_that_ended_says_nothing_more(
    make_machine: Callable[[], ReadProtocol],
) -> None:
    machine = make_machine()
    for stimulus in STIMULI.values():
        stimulus(machine)
        assert events_of(machine) == []
        assert machine.data_to_send(2.0) == []
        assert machine.next_timeout() is None
        assert machine.is_over


# Any calls

# Of a request: the one that was made last, mostly, or another one.
requests = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])
times = st.floats(0, 100) | st.just(float("inf"))
statuses = st.sampled_from([100, 200, 200, 200, 204, 301, 404, 416, 500, 503, 999])
TAIL = b'{"tail":{"seq_num":7,"timestamp":99}}'
pieces = st.sampled_from(
    [
        batch(A),
        batch(B, 1),
        batch(C, 2, tail=3),
        advised(batch(A)),
        advised(heartbeat(3)),
        batch(frame([b"a", b"b"]))[:9],
        batch(frame([b"a", b"b"]), 5),
        batch([head(b"a", records=2, size=2)], 7, tail=8),
        heartbeat(3),
        TAIL,
        b"",
        b"<html>",
        b"\0\0\0\0",
        encode_terminal(416, b'{"tail":{"seq_num":1,"timestamp":2}}'),
        encode_terminal(500, b""),
        encode_terminal(503, b'{"code":"server_draining","message":""}'),
        b"\xff" * 9,
    ]
) | st.binary(max_size=12)
answer_headers = st.sampled_from([{}, SESSION, SESSION, SESSION, JSON, {"content-type": ""}])
losses = st.sampled_from([TransportError, ConnectError, CertificateError]).map(lambda e: e("lost"))

CALLS: dict[str, st.SearchStrategy[tuple[Any, ...]]] = {
    "close": st.just(()),
    "data_to_send": st.tuples(times),
    "events_received": st.just(()),
    "next_timeout": st.just(()),
    "handle_timeout": st.tuples(times),
    "start_waiting": st.tuples(times),
    "bytes_accepted": st.tuples(requests, st.integers(0, 9), times),
    "receive_response": st.tuples(requests, statuses, answer_headers, times),
    "receive_data": st.tuples(requests, pieces, times),
    "receive_eof": st.tuples(requests, times),
    "connection_lost": st.tuples(requests, losses, times),
}
_OF_A_REQUEST = {
    "bytes_accepted",
    "receive_response",
    "receive_data",
    "receive_eof",
    "connection_lost",
}
_OFTEN = ["data_to_send", "receive_response", "receive_data", "events_received", "handle_timeout"]
calls = st.lists(
    st.sampled_from([*(name for name in CALLS if name != "close"), *_OFTEN, *_OFTEN]).flatmap(
        lambda name: st.tuples(st.just(name), CALLS[name])
    ),
    max_size=40,
)
starts = st.sampled_from([{}, {"start": 3}, {"timestamp": 0}, {"last": 1}, {"last": 2}])
ends = st.sampled_from([{}, {"follow": True}, {"wait": 1}, {"wait": 30}])
more_options = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.integers(1, 3),
        "end": st.integers(0, 6),
        "until": st.integers(0, 6),
        "dedupe": st.booleans(),
    },
)


@define(eq=False)
class Puppet:
    """A session, and what came out of it."""

    machine: ReadProtocol
    events: list[ReadEvent] = field(factory=list)
    #: The requests that are open.
    open: set[int] = field(factory=set)
    last_request: int = 0

    def call(self, name: str, arguments: tuple[Any, ...], taken: int) -> None:
        if name in _OF_A_REQUEST:
            arguments = (self.last_request + arguments[0], *arguments[1:])
        returned = getattr(self.machine, name)(*arguments)
        if name == "events_received":
            self.events += islice(returned, taken)
        elif name == "data_to_send":
            self.do(returned)
        elif name in ("receive_eof", "connection_lost"):
            self.open.discard(arguments[0])

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, OpenRequest):
                assert not self.open, "two requests at once"
                assert action.request_id > self.last_request
                self.last_request = action.request_id
                self.open.add(action.request_id)
            elif isinstance(action, CloseRequest):
                self.open.discard(action.request_id)

    def settle(self, now: float) -> None:
        """Do all that can be done without anybody else."""
        while True:
            state = self.machine.state
            actions = self.machine.data_to_send(now)
            self.do(actions)
            events = events_of(self.machine)
            self.events += events
            if not actions and not events and self.machine.state is state:
                return


@settings(max_examples=400)
@given(calls, starts, ends, more_options, st.integers(0, 3), st.booleans())
def test_whatever_is_called_no_error_escapes_and_no_deadline_is_missing(
    made: list[tuple[str, tuple[Any, ...]]],
    start: dict[str, Any],
    end: dict[str, Any],
    more: dict[str, Any],
    taken: int,
    settles: bool,
) -> None:
    puppet = Puppet(make(**start, **end, **more))
    machine = puppet.machine
    # All that the user could get wrong was checked when the settings were made.
    for name, arguments in made:
        had_ended, state = machine.is_over, machine.state
        puppet.call(name, arguments, taken)
        assert isinstance(machine.state, ReadState)
        assert not had_ended or machine.state is state
        if machine.state in (ReadState.OPENING, ReadState.READING, ReadState.WAITING):
            assert machine.next_timeout() is not None
        if settles:
            puppet.settle(1.0)
            assert machine.is_over or machine.next_timeout() is not None
    puppet.settle(1.0)
    assert machine.is_over or machine.next_timeout() is not None
    assert puppet.open == set() or not machine.is_over
    endings = [i for i, e in enumerate(puppet.events) if isinstance(e, SessionEnded)]
    assert endings == ([len(puppet.events) - 1] if machine.is_over else [])
    assert len(payloads(puppet.events)) <= more.get("limit", len(puppet.events))
    end_at = more.get("end", U64_MAX)
    assert all(e.end <= end_at for e in puppet.events if isinstance(e, FrameReceived))
    machine.close()
    puppet.settle(1.0)
    assert machine.is_over
    assert puppet.open == set()
    assert machine.next_timeout() is None


# Requests


CHECKPOINT = Checkpoint(5, 9, (LaneCheckpoint(b"w", 3, 5),))


@pytest.mark.parametrize(
    ("chosen", "query"),
    [
        ({}, {"seq_num": "0", "wait": "0"}),
        ({"start": 7}, {"seq_num": "7", "wait": "0"}),
        ({"start": U64_MAX}, {"seq_num": str(U64_MAX), "wait": "0"}),
        ({"timestamp": 0}, {"timestamp": "0", "wait": "0"}),
        ({"timestamp": 1234}, {"timestamp": "1234", "wait": "0"}),
        ({"start": CHECKPOINT}, {"seq_num": "5", "wait": "0"}),
        ({"start": Checkpoint(9, 9)}, {"seq_num": "9", "wait": "0"}),
        ({"follow": True}, {"seq_num": "0"}),
        ({"follow": True, "start": 7}, {"seq_num": "7"}),
        ({"follow": True, "timestamp": 5}, {"timestamp": "5"}),
        # The service counts records, not messages.
        ({"limit": 3}, {"seq_num": "0", "wait": "0"}),
        ({"follow": True, "limit": 3}, {"seq_num": "0"}),
        ({"end": 9}, {"seq_num": "0", "wait": "0", "count": "9"}),
        ({"start": 7, "end": 9}, {"seq_num": "7", "wait": "0", "count": "2"}),
        ({"start": CHECKPOINT, "end": 9}, {"seq_num": "5", "wait": "0", "count": "4"}),
        # How many records there are before the end is not known.
        ({"timestamp": 5, "end": 9}, {"timestamp": "5", "wait": "0"}),
        # A session with a count would end at the tail.
        ({"follow": True, "end": 9}, {"seq_num": "0"}),
        ({"until": 0}, {"seq_num": "0", "until": "0", "wait": "0"}),
        ({"until": 5, "end": 9}, {"seq_num": "0", "until": "5", "wait": "0", "count": "9"}),
        ({"timestamp": 3, "until": 5}, {"timestamp": "3", "until": "5", "wait": "0"}),
        # One that is bounded follows only if it may wait.
        ({"follow": True, "until": 5}, {"seq_num": "0", "until": "5", "wait": str(2**31 - 1)}),
        ({"wait": 1}, {"seq_num": "0", "wait": "1"}),
        ({"wait": 2**31 - 1}, {"seq_num": "0", "wait": str(2**31 - 1)}),
        ({"wait": 3, "until": 5}, {"seq_num": "0", "until": "5", "wait": "3"}),
        ({"wait": 3, "end": 9}, {"seq_num": "0", "wait": "3"}),
    ],
)
def test_what_is_asked_for(chosen: dict[str, Any], query: dict[str, str]) -> None:
    assert query_of(opened_by(make(**chosen))) == query


@pytest.mark.parametrize(
    ("compression", "accepted"),
    [(Compression.NONE, "identity"), (Compression.GZIP, "gzip"), (Compression.ZSTD, "zstd")],
)
def test_the_request(compression: Compression, accepted: str) -> None:
    config = Settings(
        endpoints=Endpoints.at("http://localhost:8080"),
        access_token=SECRET,
        compression=compression,
    )
    opened = opened_by(make(StreamTarget(config, "my-basin", "a/b", bytes(32))))
    assert opened.request_id == 1
    assert opened.request.method == "GET"
    assert urlsplit(opened.request.url).path == "/v1/streams/a%2Fb/records"
    assert opened.request.headers == {
        "authorization": f"Bearer {SECRET}",
        "s2-basin": "my-basin",
        "s2-encryption-key": "A" * 43 + "=",
        # The service tells a session by the content type, though there is no content.
        "content-type": "s2s/proto",
        "accept": "s2s/proto",
        "accept-encoding": accepted,
    }
    assert SECRET not in repr(opened)
    assert "A" * 43 not in repr(opened)


def test_there_is_one_request() -> None:
    machine = opening()
    assert machine.data_to_send(1.0) == []
    machine.receive_response(1, 200, SESSION, 0.0)
    assert machine.data_to_send(1.0) == []


# Events


def cut_twice(data: bytes) -> list[list[bytes]]:
    size = len(data)
    return [[data[:i], data[i:j], data[j:]] for i in range(size + 1) for j in range(i, size + 1)]


def test_an_answer_cut_at_any_two_bytes() -> None:
    answer = batch([*A, *frame([b"b", b"c"])]) + heartbeat(3)
    expected = [
        FrameReceived(b"a", 0, 1, 0, None, ()),
        FrameReceived(b"bc", 1, 3, 0, None, ()),
        CaughtUp(StreamPosition(3, 0)),
    ]
    for pieces_ in cut_twice(answer):
        machine = reading(*pieces_, follow=True)
        assert events_of(machine) == expected
        machine = reading(follow=True)
        events = []
        for piece in pieces_:
            machine.receive_data(1, piece, 0.0)
            events += events_of(machine)
        assert events == expected


def test_a_session_that_ends_at_the_tail() -> None:
    machine = reading(batch(A), batch(B, 1))
    assert payloads(events_of(machine)) == [b"a", b"b"]
    machine.receive_eof(1, 0.0)
    assert not machine.is_over
    assert events_of(machine) == [SessionEnded(None)]
    assert machine.state is ReadState.ENDED
    assert events_of(machine) == []
    assert machine.data_to_send(0.0) == []


def test_what_arrived_and_the_end_come_in_one_go() -> None:
    machine = reading(batch(A), batch(B, 1))
    machine.receive_eof(1, 0.0)
    events = events_of(machine)
    assert payloads(events) == [b"a", b"b"]
    assert events[-1] == SessionEnded(None)
    assert len(events) == 3


def tell_tail(machine: ReadProtocol, tail: int) -> None:
    """The session asks for the tail; answer that."""
    opened = opened_by(machine)
    assert opened.request.url.endswith("/records/tail")
    number = opened.request_id
    body = b'{"tail":{"seq_num":%d,"timestamp":0}}' % tail
    machine.receive_response(number, 200, JSON, 0.0)
    machine.receive_data(number, body, 0.0)
    machine.receive_eof(number, 0.0)


def empty_answer(machine: ReadProtocol) -> list[ReadEvent]:
    """The session asks, and nothing comes."""
    machine.receive_eof(answer(machine).request_id, 0.0)
    return events_of(machine)


@pytest.mark.parametrize("start", [0, 7])
def test_nothing_came_because_there_is_nothing(start: int) -> None:
    machine = make(start=start)
    assert empty_answer(machine) == []
    assert machine.state is ReadState.PREPARING
    tell_tail(machine, start)
    assert not any(isinstance(action, OpenRequest) for action in machine.data_to_send(0.0))
    assert events_of(machine) == [SessionEnded(None)]


@pytest.mark.parametrize(("end", "seen"), [(None, 9), (8, 8), (20, 9)])
def test_nothing_came_because_it_was_trimmed(end: int | None, seen: int) -> None:
    machine = make(start=3, end=end)
    assert empty_answer(machine) == []
    tell_tail(machine, 9)
    # It may have come since, so it is asked for once more.
    events = empty_answer(machine)
    assert events[0] == GapDetected(3, seen)
    assert events[-1] == SessionEnded(None)
    assert machine.stats.gaps == 1
    assert machine.checkpoint().read_from == seen


def test_nothing_came_because_it_was_not_there_yet() -> None:
    machine = make(start=3)
    assert empty_answer(machine) == []
    tell_tail(machine, 4)
    opened = answer(machine, batch(A, 3))
    machine.receive_eof(opened.request_id, 0.0)
    events = events_of(machine)
    assert payloads(events) == [b"a"]
    assert events[-1] == SessionEnded(None)
    assert machine.stats.gaps == 0


@pytest.mark.parametrize("options", [{"until": 9}, {"wait": 1}])
def test_nothing_came_where_that_says_nothing_of_the_tail(options: dict[str, Any]) -> None:
    assert empty_answer(make(**options)) == [SessionEnded(None)]


def test_the_tail_cannot_be_asked_for() -> None:
    machine = make(start=3)
    assert empty_answer(machine) == []
    number = opened_by(machine).request_id
    machine.receive_response(number, 404, JSON, 0.0)
    machine.receive_eof(number, 0.0)
    assert isinstance(error_in(machine), ServiceError)


def test_heartbeats_tell_of_the_tail_once() -> None:
    machine = reading(batch(A), heartbeat(1), heartbeat(1), follow=True)
    assert events_of(machine)[1:] == [CaughtUp(StreamPosition(1, 0))]
    assert machine.caught_up == StreamPosition(1, 0)
    machine.receive_data(1, batch(B, 1), 0.0)
    assert payloads(events_of(machine)) == [b"b"]
    assert machine.caught_up is None
    machine.receive_data(1, batch(C, 2, tail=3), 0.0)
    assert events_of(machine)[-1] == CaughtUp(StreamPosition(3, 0))


def test_all_else_that_a_stream_holds() -> None:
    machine = reading(batch([fence("t"), *A]), batch(B, 9))
    events = events_of(machine)
    assert events[0] == CommandReceived(0, 0, b"fence", b"t")
    assert GapDetected(2, 9) in events
    assert payloads(events) == [b"a", b"b"]
    stats = machine.stats
    assert (stats.records, stats.frames, stats.commands, stats.gaps) == (3, 2, 1, 1)


def test_repeats_are_dropped_unless_they_are_wanted() -> None:
    repeated = [head(b"a", seq=0, writer="w")] * 2
    assert payloads(events_of(reading(batch(repeated)))) == [b"a"]
    assert payloads(events_of(reading(batch(repeated), dedupe=False))) == [b"a", b"a"]


def test_settings_reach_the_reader() -> None:
    machine = reading(batch([head(b"abc"), *A]), max_frame_bytes=2)
    dropped, *_ = events_of(machine)
    assert isinstance(dropped, FrameDropped)
    assert dropped.reason is DropReason.TOO_LARGE


@pytest.mark.parametrize("start", [0, CHECKPOINT])
@pytest.mark.parametrize("name", ["max_frame_bytes", "max_writers", "max_buffered_bytes"])
def test_limits_reach_the_reader(start: int | Checkpoint, name: str) -> None:
    chosen: dict[str, Any] = {"start": start, name: 0}
    with pytest.raises(LocalProtocolError, match=name):
        make(**chosen)


@pytest.mark.parametrize("dedupe", [True, False])
def test_a_reader_that_goes_on_drops_repeats_unless_they_are_wanted(dedupe: bool) -> None:
    start = Checkpoint(1, 1, (LaneCheckpoint(b"w", 0, None),))
    machine = reading(batch([head(b"a", seq=0, writer="w")], 1), start=start, dedupe=dedupe)
    assert payloads(events_of(machine)) == ([] if dedupe else [b"a"])


def test_the_first_record_is_missing() -> None:
    assert events_of(reading(batch(A, 5), start=3))[0] == GapDetected(3, 5)
    # By time, any record may be the first.
    machine = reading(batch(A, 5), timestamp=7)
    assert payloads(events_of(machine)) == [b"a"]
    assert machine.stats.gaps == 0


def test_there_is_no_checkpoint_by_time_before_the_first_record() -> None:
    machine = reading(batch(A, 5), timestamp=7)
    with pytest.raises(LocalProtocolError, match="no checkpoint"):
        machine.checkpoint()
    events_of(machine)
    assert machine.checkpoint().read_from == 6


# A consumer that stops


def test_what_is_left_is_in_the_next_iterator() -> None:
    machine = reading(batch([*A, *B, *C]), batch([head(b"d")], 3))
    for number, expected in enumerate([b"a", b"b", b"c", b"d"]):
        event = next(machine.events_received())
        assert isinstance(event, FrameReceived)
        assert event.payload == expected
        assert machine.checkpoint().read_from == number + 1
        # More may arrive in between.
        machine.receive_data(1, batch([head(b"x")], 4 + number), 0.0)
    assert payloads(events_of(machine)) == [b"x"] * 4


@pytest.mark.parametrize("ends", [True, False])
def test_what_is_left_when_the_answer_is_over(ends: bool) -> None:
    machine = reading(batch([*A, *B]), batch(C, 2), retry=ONCE)
    assert payloads([next(machine.events_received())]) == [b"a"]
    if ends:
        machine.receive_eof(1, 0.0)
    else:
        machine.connection_lost(1, LOST, 0.0)
    assert payloads([next(machine.events_received())]) == [b"b"]
    assert machine.state is ReadState.DRAINING
    assert machine.checkpoint().read_from == 2
    *events, last = events_of(machine)
    assert payloads(events) == [b"c"]
    assert last == SessionEnded(None if ends else LOST)


@pytest.mark.parametrize("taken", range(4))
def test_a_reader_goes_on_from_a_checkpoint(taken: int) -> None:
    records = [
        *frame([b"a", b"a"], seq=0, writer="v"),
        head(b"b", records=2, size=2, seq=0, writer="w"),
        *frame([b"c", b"c"], seq=2, writer="v"),
        chunk(b"b", seq=1, writer="w"),
    ]
    machine = reading(batch(records))
    iterator = machine.events_received()
    got = payloads([next(iterator) for _ in range(taken)])
    checkpoint = Checkpoint.from_json(machine.checkpoint().to_json())
    later = make(start=checkpoint)
    left = batch(records[checkpoint.read_from :], checkpoint.read_from)
    assert query_of(answer(later, left))["seq_num"] == str(checkpoint.read_from)
    assert got + payloads(events_of(later)) == [b"aa", b"cc", b"bb"]


def test_a_checkpoint_names_its_stream() -> None:
    checkpoint = reading(batch(A, 5), start=5).checkpoint()
    assert (checkpoint.basin, checkpoint.stream) == (TARGET.basin, TARGET.stream)
    make(start=Checkpoint.from_json(checkpoint.to_json()))


@pytest.mark.parametrize(
    ("basin", "stream"), [("other-basin", TARGET.stream), (TARGET.basin, "other/stream")]
)
def test_a_checkpoint_that_names_another_stream_is_refused_at_once(basin: str, stream: str) -> None:
    checkpoint = evolve(CHECKPOINT, basin=basin, stream=stream)
    with pytest.raises(LocalProtocolError) as error:
        make(start=checkpoint)
    assert str(error.value) == (
        f"the checkpoint is of the stream {stream!r} of the basin {basin!r}, "
        f"not of the stream {TARGET.stream!r} of the basin {TARGET.basin!r}"
    )


def test_records_that_cannot_be_those_of_a_checkpoint() -> None:
    machine = reading(batch(A, 5), start=CHECKPOINT)
    error = error_in(machine)
    assert isinstance(error, LocalProtocolError)
    assert "checkpoint" in str(error)


# Limits


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("follow", [False, True])
def test_a_limit_closes_the_request_after_so_many_messages(limit: int, follow: bool) -> None:
    answer = batch([fence("t"), *A, *B]), batch([*C, head(b"d")], 3), b"\xff" * 9
    machine = reading(*answer, limit=limit, follow=follow)
    iterator = machine.events_received()
    seen: list[bytes] = []
    while len(seen) < limit:
        assert machine.data_to_send(0.0) == []
        assert not machine.is_over
        seen += payloads([next(iterator)])
    assert seen == [b"a", b"b", b"c"][:limit]
    assert machine.is_over
    assert machine.data_to_send(0.0) == [CloseRequest(1)]
    assert machine.next_timeout() is None
    assert list(iterator) == [SessionEnded(None)]
    machine.receive_data(1, batch(A, 9), 1.0)
    machine.receive_eof(1, 1.0)
    assert events_of(machine) == []
    # Go on after exactly these.
    assert machine.checkpoint().read_from == 1 + limit


@pytest.mark.parametrize("over", ["end", "loss", "late"])
def test_a_limit_that_is_reached_when_the_answer_is_over(over: str) -> None:
    machine = reading(batch([*A, *B]), limit=1)
    STIMULI[over](machine)
    machine.data_to_send(0.0)
    events = events_of(machine)
    assert payloads(events) == [b"a"]
    assert events[-1] == SessionEnded(None)
    assert machine.data_to_send(0.0) == []


def test_fewer_messages_than_the_limit() -> None:
    machine = reading(batch(A), limit=2)
    machine.receive_eof(1, 0.0)
    events = events_of(machine)
    assert payloads(events) == [b"a"]
    assert events[-1] == SessionEnded(None)


def test_a_limit_counts_messages_only() -> None:
    records = [fence("t"), head(b"a", records=2, size=2), head(b"b"), Record(b"raw"), *C]
    machine = reading(batch(records), limit=2)
    assert payloads(events_of(machine)) == [b"b", b"c"]


# How sessions fail


def test_what_arrived_comes_before_the_loss_of_the_connection() -> None:
    machine = reading(batch([*A, *B]), batch(C, 2)[:-1], retry=ONCE)
    machine.connection_lost(1, LOST, 0.0)
    assert machine.next_timeout() is None
    assert not machine.is_over
    events = events_of(machine)
    assert payloads(events) == [b"a", b"b"]
    assert events[-1] == SessionEnded(LOST)
    assert machine.state is ReadState.FAILED
    assert machine.checkpoint().read_from == 2


def test_a_connection_that_is_lost_before_the_answer() -> None:
    machine = opening(retry=ONCE)
    machine.connection_lost(1, LOST, 0.0)
    assert error_in(machine) is LOST
    machine = reading(retry=ONCE)
    machine.connection_lost(1, LOST, 0.0)
    assert error_in(machine) is LOST


def test_an_answer_that_ends_before_it_begins() -> None:
    machine = opening(retry=ONCE)
    machine.receive_eof(1, 0.0)
    error = error_in(machine)
    assert isinstance(error, TransportError)
    assert "without an answer" in str(error)
    assert machine.data_to_send(0.0) == []


def test_a_second_answer() -> None:
    machine = reading(batch(A))
    machine.receive_response(1, 200, SESSION, 0.0)
    assert isinstance(error_in(machine), RemoteProtocolError)


@pytest.mark.parametrize("follow", [False, True])
def test_an_answer_that_ends_inside_a_message(follow: bool) -> None:
    whole = batch(A)
    for size in range(1, len(whole)):
        machine = reading(whole, batch(B, 1)[:size], follow=follow, retry=ONCE)
        machine.receive_eof(1, 0.0)
        *events, last = events_of(machine)
        assert payloads(events) == [b"a"]
        assert isinstance(last, SessionEnded)
        assert isinstance(last.error, TransportError)
        assert "inside a message" in str(last.error)


def test_a_follower_whose_session_the_service_ends() -> None:
    machine = reading(batch(A), follow=True, retry=ONCE)
    machine.receive_eof(1, 0.0)
    *events, last = events_of(machine)
    assert payloads(events) == [b"a"]
    assert isinstance(last, SessionEnded)
    assert isinstance(last.error, TransportError)
    assert machine.state is ReadState.FAILED


BAD_ANSWERS: list[tuple[str, bytes]] = [
    ("no length", bytes(4)),
    ("too long", b"\xff" * 9),
    ("garbage", b"\0\0\x05\0\xff\xff\xff\xff"),
    ("a page", b"\0\0\x0e\0<html></html>"),
    ("bad compression", b"\0\0\x02\x60x"),
    ("back in the stream", batch(A, 0)),
    ("terminal without status", b"\0\0\x02\x80x"),
]


@pytest.mark.parametrize("bad", [b for _, b in BAD_ANSWERS], ids=[n for n, _ in BAD_ANSWERS])
def test_an_answer_that_makes_no_sense(bad: bytes) -> None:
    machine = reading(batch([*A, *B]), bad)
    iterator = machine.events_received()
    assert payloads([next(iterator), next(iterator)]) == [b"a", b"b"]
    (last,) = iterator
    assert isinstance(last, SessionEnded)
    assert isinstance(last.error, RemoteProtocolError)
    assert machine.state is ReadState.FAILED
    assert machine.data_to_send(0.0) == [CloseRequest(1)]
    assert machine.next_timeout() is None


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "", "s2s/protox"])
def test_an_answer_of_another_type(content_type: str) -> None:
    machine = opening()
    machine.receive_response(1, 200, {"content-type": content_type}, 0.0)
    assert isinstance(error_in(machine), RemoteProtocolError)
    assert machine.data_to_send(0.0) == [CloseRequest(1)]


def refused(status: int, body: bytes) -> ReadProtocol:
    """A session that was answered with an error, byte by byte."""
    machine = opening(retry=ONCE)
    machine.receive_response(1, status, JSON, 0.0)
    for at in range(len(body)):
        machine.receive_data(1, body[at : at + 1], 0.0)
        assert events_of(machine) == []
    machine.receive_eof(1, 0.0)
    return machine


def terminated(status: int, body: bytes) -> ReadProtocol:
    """A session that ended with an error."""
    machine = reading(batch(A), encode_terminal(status, body), retry=ONCE)
    assert payloads([next(machine.events_received())]) == [b"a"]
    return machine


@pytest.mark.parametrize("answered", [refused, terminated])
def test_a_start_beyond_the_tail(answered: Callable[[int, bytes], ReadProtocol]) -> None:
    error = error_in(answered(416, TAIL))
    assert isinstance(error, RangeNotSatisfiable)
    assert error.tail == StreamPosition(7, 99)


@pytest.mark.parametrize("answered", [refused, terminated])
def test_errors_of_the_service(answered: Callable[[int, bytes], ReadProtocol]) -> None:
    body = json.dumps({"code": "stream_not_found", "message": "no such stream"}).encode()
    error = error_in(answered(404, body))
    assert isinstance(error, ServiceError)
    assert (error.status, error.code) == (404, "stream_not_found")
    error = error_in(answered(502, b"<html>Bad Gateway</html>"))
    assert isinstance(error, ServiceError)
    assert error.status == 502


def test_of_a_huge_error_a_bounded_part_is_kept() -> None:
    machine = opening(retry=ONCE)
    machine.receive_response(1, 500, {"content-type": "text/html"}, 0.0)
    for _ in range(100):
        machine.receive_data(1, bytes(100_000), 0.0)
        assert len(machine._response.whole_body()) <= 64 * 1024
    machine.receive_eof(1, 0.0)
    assert len(str(error_in(machine))) < 10_000


@pytest.mark.parametrize("request_id", [-1, 0, 2])
def test_what_concerns_another_request_is_ignored(request_id: int) -> None:
    machine = reading(batch(A))
    machine.receive_response(request_id, 404, JSON, 9.0)
    machine.receive_data(request_id, b"\xff" * 9, 9.0)
    machine.receive_eof(request_id, 9.0)
    machine.connection_lost(request_id, LOST, 9.0)
    assert machine.state is ReadState.READING
    assert machine.next_timeout() == LIVENESS_TIMEOUT
    assert payloads(events_of(machine)) == [b"a"]


# Incomplete frames


def test_at_the_end_incomplete_frames_are_told_and_the_checkpoint_stays() -> None:
    records = [
        head(b"a", records=2, size=2, seq=0, writer="v"),
        head(b"b", seq=0, writer="w"),
    ]
    machine = reading(batch(records))
    assert payloads(events_of(machine)) == [b"b"]
    before = machine.checkpoint()
    assert (before.read_from, before.seen_through) == (0, 2)
    machine.receive_eof(1, 0.0)
    dropped, last = events_of(machine)
    assert isinstance(dropped, FrameDropped)
    assert (dropped.reason, dropped.writer_id, dropped.start) == (DropReason.INCOMPLETE, "v", 0)
    assert last == SessionEnded(None)
    assert machine.checkpoint() == before
    # The rest comes later: with the checkpoint nothing is lost.
    later = reading(batch([*records, chunk(b"A", seq=1, writer="v")]), start=before)
    assert payloads(events_of(later)) == [b"aA"]


# Deadlines


def test_the_answer_must_begin_in_time() -> None:
    config = Settings(
        endpoints=Endpoints.at("http://localhost"), connect_timeout=2, request_timeout=4
    )
    machine = make(StreamTarget(config, TARGET.basin, TARGET.stream), retry=ONCE)
    assert machine.next_timeout() is None
    machine.data_to_send(10.0)
    assert machine.next_timeout() == 16.0
    machine.start_waiting(12.0)
    assert machine.next_timeout() == 16.0
    machine.handle_timeout(15.9)
    assert machine.state is ReadState.OPENING
    machine.handle_timeout(16.0)
    assert machine.data_to_send(16.0) == [CloseRequest(1)]
    error = error_in(machine)
    assert isinstance(error, TransportError)
    assert "answer" in str(error)


def test_a_part_that_cannot_be_handed_over_yet_is_a_sign_of_life() -> None:
    machine = opening(follow=True, retry=ONCE)
    machine.bytes_arriving(1, 10, 1.0)
    assert machine.state is ReadState.OPENING
    machine.receive_response(1, 200, SESSION, 1.0)
    machine.bytes_arriving(1, 10, 19.0)
    assert machine.next_timeout() == 39.0
    machine.bytes_arriving(2, 10, 30.0)
    assert machine.next_timeout() == 39.0


def test_an_answer_is_awaited_from_when_the_request_can_have_crossed() -> None:
    machine = opening(follow=True, retry=ONCE)
    usual = machine.next_timeout()
    machine.bytes_accepted(1, 0, 2.0, behind=0.0)
    machine.bytes_accepted(2, 0, 2.0, behind=30.0)
    assert machine.next_timeout() == usual
    machine.bytes_accepted(1, 0, 2.0, behind=30.0)
    assert machine.next_timeout() == 37.0
    machine.receive_response(1, 200, SESSION, 3.0)
    assert machine.next_timeout() == 23.0


def test_silence_ends_a_session_after_twenty_seconds() -> None:
    assert LIVENESS_TIMEOUT == 20
    machine = opening(follow=True, retry=ONCE)
    machine.receive_response(1, 200, SESSION, 1.0)
    assert machine.next_timeout() == 21.0
    machine.receive_data(1, batch(A)[:5], 20.0)
    # Any byte is a sign of life.
    assert machine.next_timeout() == 40.0
    machine.receive_data(1, batch(A)[5:], 39.0)
    assert machine.next_timeout() == 59.0
    machine.handle_timeout(58.9)
    assert machine.state is ReadState.READING
    machine.handle_timeout(59.0)
    assert machine.data_to_send(59.0) == [CloseRequest(1)]
    assert machine.next_timeout() is None
    # What had arrived is still handed out.
    *events, last = events_of(machine)
    assert payloads(events) == [b"a"]
    assert isinstance(last, SessionEnded)
    assert isinstance(last.error, TransportError)
    assert "sign of life" in str(last.error)
    # The answer may go on meanwhile.
    machine.receive_data(1, batch(B, 1), 60.0)
    machine.receive_eof(1, 60.0)
    assert events_of(machine) == []


def test_a_consumer_that_is_slow_is_no_silence() -> None:
    machine = opening(follow=True)
    machine.receive_response(1, 200, SESSION, 0.0)
    machine.receive_data(1, batch(A), 1.0)
    machine.start_waiting(1000.0)
    machine.handle_timeout(1000.0)
    assert machine.state is ReadState.READING
    assert machine.next_timeout() == 1020.0
    machine.start_waiting(1001.0)
    assert machine.next_timeout() == 1021.0


@pytest.mark.parametrize(
    "state", set(ReadState) - {ReadState.READING, ReadState.PREPARING}, ids=lambda s: s.name
)
def test_waiting_matters_only_while_reading(state: ReadState) -> None:
    machine = STATES[state]()
    before = machine.next_timeout()
    machine.start_waiting(500.0)
    assert machine.next_timeout() == before


# Close


@pytest.mark.parametrize("state", ReadState)
def test_close_at_any_time(state: ReadState) -> None:
    machine = STATES[state]()
    is_open = state in (ReadState.PREPARING, ReadState.OPENING, ReadState.READING)
    machine.close()
    machine.close()
    assert machine.is_over
    assert machine.data_to_send(1.0) == ([CloseRequest(1)] if is_open else [])
    assert machine.next_timeout() is None
    assert events_of(machine) == []


def test_close_while_events_are_being_taken() -> None:
    machine = reading(batch([*A, *B]), batch(C, 2))
    iterator = machine.events_received()
    assert payloads([next(iterator)]) == [b"a"]
    machine.close()
    assert list(iterator) == []
    assert machine.checkpoint().read_from == 1
    assert machine.data_to_send(0.0) == [CloseRequest(1)]


def test_close_when_the_connection_was_lost() -> None:
    machine = reading(batch(A))
    machine.connection_lost(1, LOST, 0.0)
    machine.close()
    assert events_of(machine) == []
    assert machine.data_to_send(0.0) == []


# Whole sessions

sizes = st.lists(st.integers(1, 40) | st.sampled_from([1_048_478, 2_200_000]), max_size=8)


def filled(random: Random, sizes_: list[int], writer: str = "w") -> tuple[World, list[bytes]]:
    """A world whose stream has messages of these sizes, and those."""
    world = World(random_cut(random))
    messages = [bytes([i + 1]) * size for i, size in enumerate(sizes_)]
    options_ = AppendSettings(writer_id=writer, first_dedupe_seq=0)
    machine = AppendProtocol(TARGET, options_, random=random.random)
    world.join_append(machine)
    machine.send_many(messages, now=world.now)
    machine.close()
    world.run(lambda: machine.state is AppendState.CLOSED)
    return world, messages


@settings(max_examples=40)
@given(st.randoms(use_true_random=True), sizes, st.integers(1, 9))
def test_a_limit_and_then_the_rest(random: Random, sizes_: list[int], limit: int) -> None:
    world, messages = filled(random, sizes_)
    first = read_to_the_end(world, make(limit=limit))
    assert payloads(first.events) == messages[:limit]
    assert first.events[-1] == SessionEnded(None)
    rest = read_to_the_end(world, make(start=first.machine.checkpoint()))
    assert payloads(rest.events) == messages[limit:]
    assert rest.events[-1] == SessionEnded(None)


@settings(max_examples=40)
@given(st.randoms(use_true_random=True), sizes.filter(bool), st.data())
def test_a_connection_that_is_cut_anywhere(
    random: Random, sizes_: list[int], data: st.DataObject
) -> None:
    world, messages = filled(random, sizes_)
    client = world.join_read(make(follow=True, retry=ONCE))
    got: list[bytes] = []
    for turns in data.draw(st.lists(st.integers(0, 12), max_size=3)):
        for _ in range(1 + turns):
            world.turn()
        error = TransportError("cut")
        client.lose(error)
        client.step()
        assert client.events[-1] == SessionEnded(error)
        got += payloads(client.events)
        checkpoint = client.machine.checkpoint()
        client = world.join_read(make(follow=True, start=checkpoint, retry=ONCE))
    # Read to the end, and see that nothing came twice.
    final = client.machine
    world.run(lambda: final.caught_up is not None)
    assert got + payloads(client.events) == messages


def test_a_start_beyond_the_tail_of_the_service() -> None:
    world, _ = filled(Random(1), [3])
    client = read_to_the_end(world, make(start=2))
    last = client.events[-1]
    assert isinstance(last, SessionEnded)
    assert isinstance(last.error, RangeNotSatisfiable)
    assert last.error.tail.seq_num == 1


@pytest.mark.parametrize("size", [[], [1]])
def test_a_start_at_the_tail_is_no_error(size: list[int]) -> None:
    world, messages = filled(Random(1), size)
    client = read_to_the_end(world, make(start=len(messages)))
    assert client.events == [SessionEnded(None)]


def test_a_follower_lives_on_heartbeats() -> None:
    world, _ = filled(Random(1), [3])
    follower = world.join_read(make(follow=True))
    start = world.now
    world.run(lambda: world.now > start + 300)
    assert follower.machine.state is ReadState.READING
    assert [type(event) for event in follower.events] == [FrameReceived, CaughtUp]


def test_events_are_a_closed_union() -> None:
    assert set(get_args(ReadEvent)) == {*get_args(ReaderEvent), Retrying, SessionEnded}


def test_an_error_that_never_ends_has_the_time_that_its_head_gave_it() -> None:
    machine = opening(retry=ONCE)
    machine.receive_response(1, 503, {}, 1.0)
    for now in (5.0, 15.0, 20.9):
        machine.receive_data(1, b"x" * 1000, now)
        machine.start_waiting(now)
        assert machine.next_timeout() == 1.0 + LIVENESS_TIMEOUT
    machine.handle_timeout(1.0 + LIVENESS_TIMEOUT)
    assert CloseRequest(1) in machine.data_to_send(21.0)
    error = error_in(machine)
    assert isinstance(error, ServiceError)
    assert (error.status, error.is_incomplete) == (503, True)
    assert str(error.__cause__) == "no sign of life came from the service in time"


@pytest.mark.parametrize("status", [403, 404, 500])
def test_the_status_of_an_error_that_breaks_off_is_kept(status: int) -> None:
    machine = opening(retry=ONCE)
    machine.receive_response(1, status, {}, 1.0)
    machine.receive_data(1, b"{", 1.0)
    machine.connection_lost(1, LOST, 2.0)
    error = error_in(machine)
    assert isinstance(error, ServiceError)
    assert (error.status, error.__cause__) == (status, LOST)


# Many events at a time


def test_messages_that_look_alike_come_together() -> None:
    messages = [head(b"%03d" % i, seq=i, writer="w", timestamp=7) for i in range(100)]
    machine = reading(batch(messages[:20], 5), batch(messages[20:], 25), start=5)
    kinds: list[type] = []
    events: list[ReadEvent] = []
    while some := machine.events_at_once():
        kinds += map(type, some)
        events += singly(some)
    assert FramesReceived in kinds
    assert len(kinds) < 20
    assert payloads(events) == [b"%03d" % i for i in range(100)]
    # One by one from here on, and as if all had come so.
    machine.receive_data(1, batch([head(b"x", seq=100, writer="w")], 105), 0.0)
    machine.receive_data(1, batch([head(b"x", seq=99, writer="w")], 106), 0.0)
    assert [type(event) for event in events_of(machine)] == [FrameReceived, DuplicateDropped]
    assert machine.stats.frames == 101


@pytest.mark.parametrize("options", [{}, {"follow": True}, {"limit": 2}, {"end": 3}], ids=str)
@pytest.mark.parametrize("ends", ["eof", "loss", "refusal", "open"])
def test_events_at_once_are_the_events(options: dict[str, Any], ends: str) -> None:
    def feed() -> ReadProtocol:
        machine = reading(batch([*A, *frame([b"x", b"y"]), *B]), batch(C, 4), **options)
        if ends == "eof":
            machine.receive_eof(1, 0.0)
        elif ends == "loss":
            machine.connection_lost(1, LOST, 0.0)
        elif ends == "refusal":
            machine.receive_data(1, encode_terminal(404, b"{}"), 0.0)
        return machine

    at_once: list[ReadEvent] = []
    machine = feed()
    while events := machine.events_at_once():
        at_once += singly(events)
    other = feed()
    assert list(map(str, at_once)) == list(map(str, events_of(other)))
    assert machine.state is other.state
    assert machine.checkpoint() == other.checkpoint()
    assert machine.next_timeout() == other.next_timeout()


def test_events_at_once_of_the_last_messages() -> None:
    world = World()
    append(world, *frame([b"a"]), *frame([b"b"]), *frame([b"c"]))
    client = world.join_read(make(last=2))
    client.machine.events_received = lambda: iter(singly(client.machine.events_at_once()))  # type: ignore[method-assign]
    world.run(lambda: client.machine.is_over)
    assert payloads(client.events) == [b"b", b"c"]
