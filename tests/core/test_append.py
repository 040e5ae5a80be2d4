from __future__ import annotations

import json
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drive import TARGET, Client, World, random_cut
from frames import make_ack, numbered
from s2frames.append import (
    TRANSITIONS,
    AppendEvent,
    AppendInput,
    AppendProtocol,
    AppendState,
)
from s2frames.chunking import MAX_CHUNK_BODY_BYTES
from s2frames.compression import Compression
from s2frames.errors import (
    FencingTokenMismatch,
    FrameSizeError,
    LocalProtocolError,
    Outcome,
    RemoteProtocolError,
    S2FramesError,
    SeqNumMismatch,
    ServiceError,
    TransportError,
)
from s2frames.events import FrameReceived, FramesDurable
from s2frames.framing import make_frame_headers
from s2frames.pace import MIN_RATE
from s2frames.read import ReadProtocol
from s2frames.records import MAX_BATCH_BYTES, Record
from s2frames.retry import Retry, is_retryable
from s2frames.s2s import MessageDecoder, encode_message, encode_terminal
from s2frames.session import (
    Action,
    CloseRequest,
    EndData,
    OpenRequest,
    Retrying,
    SendData,
    SessionEnded,
)
from s2frames.settings import AppendSettings, Endpoints, ReadSettings, Settings
from s2frames.target import StreamTarget
from s2frames.wire import AppendInput as WireInput
from s2frames.wire import decode_append_input, encode_append_ack, encode_append_input

SESSION = {"content-type": "s2s/proto"}
PROTOBUF = {"content-type": "application/protobuf"}
JSON = {"content-type": "application/json"}

# One of these fills a batch; of the others two do not fit one.
BIG = bytes(MAX_CHUNK_BODY_BYTES)
LARGE = bytes(700_000)

SECRET = "token-hunter2"


def make(target: StreamTarget = TARGET, **options: Any) -> AppendProtocol:
    return AppendProtocol(target, AppendSettings(**options), random=lambda: 0.5)


def message(body: bytes) -> bytes:
    return b"".join(encode_message(body))


def acks(*sizes: int, start: int = 0) -> bytes:
    """The acks of batches of so many records, one after the other."""
    messages = []
    for size in sizes:
        messages.append(message(encode_append_ack(make_ack(start, size))))
        start += size
    return b"".join(messages)


def error_body(code: str, text: str = "no") -> bytes:
    return json.dumps({"code": code, "message": text}).encode()


def body_of(actions: Iterable[Action]) -> bytes:
    return b"".join(b"".join(a.data) for a in actions if isinstance(a, SendData))


def batches_in(actions: Iterable[Action]) -> list[list[bytes]]:
    """The bodies of the records in each batch that was sent."""
    decoder = MessageDecoder()
    decoder.receive_data(body_of(actions))
    batches = []
    while (received := decoder.next_message()) is not None:
        batch = decode_append_input(received.body)
        batches.append([record.body for record in batch.records])
    decoder.receive_eof()
    return batches


def kinds(actions: Iterable[Action]) -> list[type[Action]]:
    return [type(action) for action in actions]


def about(deadline: float) -> Any:
    """A deadline to which a few bytes add next to nothing."""
    return pytest.approx(deadline, abs=0.02)


def accept_all(machine: AppendProtocol, actions: Sequence[Action], now: float = 0.0) -> None:
    """The transport took all of it."""
    for action in actions:
        if isinstance(action, SendData):
            machine.bytes_accepted(action.request_id, sum(map(len, action.data)), now)


def opened(*payloads: bytes, **options: Any) -> AppendProtocol:
    """A session that has sent payloads."""
    machine = make(**options)
    machine.send_many(list(payloads or (b"a",)), now=0.0)
    accept_all(machine, machine.data_to_send(0.0))
    return machine


def streaming(*payloads: bytes, **options: Any) -> AppendProtocol:
    """A session whose answer has begun."""
    machine = opened(*payloads, **options)
    machine.receive_response(1, 200, SESSION, 0.0)
    return machine


def closed() -> AppendProtocol:
    machine = make()
    machine.close()
    machine.data_to_send(0.0)
    return machine


def aborted() -> AppendProtocol:
    machine = make()
    machine.abort()
    return machine


def error_in(machine: AppendProtocol) -> S2FramesError:
    """The error that ended the session, which must be the last event."""
    last = machine.events_received()[-1]
    assert isinstance(last, SessionEnded)
    assert last.error is not None
    assert machine.state is AppendState.FAILED
    return last.error


def durable(events: Iterable[AppendEvent]) -> list[int]:
    """The numbers of the messages that became durable."""
    return [
        number
        for event in events
        if isinstance(event, FramesDurable)
        for number in range(event.first_frame, event.first_frame + event.num_frames)
    ]


# States

ENDED = (AppendState.CLOSED, AppendState.FAILED)


@pytest.mark.parametrize("happened", AppendInput)
@pytest.mark.parametrize("state", AppendState)
def test_what_is_not_in_the_table_is_a_protocol_error(
    state: AppendState, happened: AppendInput
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
    assert {state for state, _ in TRANSITIONS} == set(AppendState) - set(ENDED)
    assert set(TRANSITIONS.values()) == set(AppendState)
    assert {happened for _, happened in TRANSITIONS} == set(AppendInput)


LOST = TransportError("the cable was cut")


def preparing(**options: Any) -> AppendProtocol:
    """A session that has asked for the tail."""
    machine = make(exclusive=True, **options)
    machine.send(b"a", now=0.0)
    machine.data_to_send(0.0)
    return machine


def waiting(*payloads: bytes, **options: Any) -> AppendProtocol:
    """A session whose first attempt has failed with everything sent."""
    machine = opened(*payloads, **options)
    machine.connection_lost(1, TransportError("the cable was cut"), 0.0)
    return machine


def repeating(*payloads: bytes, **options: Any) -> AppendProtocol:
    """A session that has sent everything again."""
    machine = waiting(*payloads, **options)
    machine.handle_timeout(0.25)
    accept_all(machine, machine.data_to_send(0.25), 0.25)
    return machine


def reconciling(*payloads: bytes, expected: int = 1, **options: Any) -> AppendProtocol:
    """A session that has asked what stands where its batches were to be."""
    machine = repeating(*payloads, match_seq_num=0, **options)
    machine.receive_response(2, 412, JSON, 0.5)
    machine.receive_data(2, b'{"seq_num_mismatch":%d}' % expected, 0.5)
    machine.receive_eof(2, 0.5)
    machine.data_to_send(0.5)
    return machine


STATES: dict[AppendState, Callable[[], AppendProtocol]] = {
    AppendState.IDLE: lambda: make(burst_batches=2),
    AppendState.PREPARING: lambda: preparing(burst_batches=2),
    AppendState.OPENING: lambda: opened(burst_batches=2),
    AppendState.STREAMING: lambda: streaming(burst_batches=2),
    AppendState.WAITING: lambda: waiting(burst_batches=2),
    AppendState.RECONCILING: lambda: reconciling(burst_batches=2),
    AppendState.CLOSED: closed,
    AppendState.FAILED: aborted,
}


def request_id(machine: AppendProtocol) -> int:
    """The number of the request that is open, or was last."""
    operation = machine._operation
    return machine._request_id if operation is None else operation._request_id


def append(machine: AppendProtocol) -> None:
    machine.send(b"b", now=1.0)
    machine.data_to_send(1.0)


def close(machine: AppendProtocol) -> None:
    machine.close()
    machine.data_to_send(1.0)


STIMULI: dict[str, Callable[[AppendProtocol, int], object]] = {
    "append": lambda m, _: append(m),
    "close": lambda m, _: close(m),
    "abort": lambda m, _: m.abort(),
    "flush": lambda m, _: m.flush(),
    "wait": lambda m, _: m.start_waiting(1.0),
    "bytes": lambda m, n: m.bytes_accepted(n, 1, 1.0),
    "answer": lambda m, n: m.receive_response(n, 200, SESSION, 1.0),
    "refusal": lambda m, n: m.receive_response(n, 404, JSON, 1.0),
    "page": lambda m, n: m.receive_response(n, 200, {"content-type": "text/html"}, 1.0),
    "ack": lambda m, n: m.receive_data(n, acks(1), 1.0),
    "wrong ack": lambda m, n: m.receive_data(n, acks(2), 1.0),
    "terminal": lambda m, n: m.receive_data(n, encode_terminal(500, error_body("other")), 1.0),
    "condition": lambda m, n: m.receive_data(
        n, encode_terminal(412, b'{"seq_num_mismatch":7}'), 1.0
    ),
    "end": lambda m, n: m.receive_eof(n, 1.0),
    "loss": lambda m, n: m.connection_lost(n, LOST, 1.0),
    "early": lambda m, _: m.handle_timeout(0.0),
    "late": lambda m, _: m.handle_timeout(1e9),
}

# Where a stimulus leads, if it leads anywhere.
REACTIONS: dict[AppendState, dict[str, AppendState]] = {
    AppendState.IDLE: {
        "append": AppendState.OPENING,
        "close": AppendState.CLOSED,
        "abort": AppendState.FAILED,
    },
    # What befalls a request that is no append is its operation's business.
    AppendState.PREPARING: {"abort": AppendState.FAILED},
    AppendState.OPENING: {
        "answer": AppendState.STREAMING,
        "refusal": AppendState.STREAMING,
        **dict.fromkeys(["end", "loss", "late"], AppendState.WAITING),
        **dict.fromkeys(["page", "abort"], AppendState.FAILED),
    },
    AppendState.STREAMING: {
        **dict.fromkeys(["terminal", "end", "loss", "late"], AppendState.WAITING),
        **dict.fromkeys(
            ["answer", "refusal", "page", "wrong ack", "condition", "abort"], AppendState.FAILED
        ),
    },
    AppendState.WAITING: {"late": AppendState.IDLE, "abort": AppendState.FAILED},
    AppendState.RECONCILING: {"page": AppendState.FAILED, "abort": AppendState.FAILED},
    AppendState.CLOSED: {},
    AppendState.FAILED: {},
}


@pytest.mark.parametrize("name", STIMULI)
@pytest.mark.parametrize("state", AppendState)
def test_what_happens_in_each_state(state: AppendState, name: str) -> None:
    machine = STATES[state]()
    assert machine.state is state
    if name == "append" and state in ENDED:
        with pytest.raises(LocalProtocolError, match="closed"):
            STIMULI[name](machine, 1)
    else:
        STIMULI[name](machine, request_id(machine))
    assert machine.state is REACTIONS[state].get(name, state)


@pytest.mark.parametrize("make_machine", [closed, aborted])
def test_a_session_that_ended_says_nothing_more(make_machine: Callable[[], Any]) -> None:
    machine = make_machine()
    assert isinstance(machine.events_received()[-1], SessionEnded)
    for name, stimulus in STIMULI.items():
        if name != "append":
            stimulus(machine, 1)
        assert machine.events_received() == []
        assert machine.data_to_send(2.0) == []
        assert machine.next_timeout() is None
    with pytest.raises(LocalProtocolError, match="closed"):
        machine.send(b"b", now=2.0)
    with pytest.raises(LocalProtocolError, match="closed"):
        machine.send_many([], now=2.0)


# Any calls

request_ids = st.integers(-1, 4)
times = st.floats(0, 100) | st.just(float("inf"))
statuses = st.sampled_from([100, 200, 204, 301, 400, 404, 412, 416, 500, 503, 999])
pieces = st.sampled_from(
    [
        acks(1),
        acks(1, 1),
        acks(1)[:9],
        acks(1)[9:],
        acks(1, start=1),
        acks(3),
        b"",
        b"<html>",
        b"\0\0\0\0",
        encode_terminal(412, b'{"seq_num_mismatch":5}'),
        encode_terminal(500, b""),
        b"\xff" * 9,
    ]
) | st.binary(max_size=12)
answer_headers = st.sampled_from([{}, SESSION, PROTOBUF, JSON, {"content-type": ""}])

CALLS: dict[str, st.SearchStrategy[tuple[Any, ...]]] = {
    "send": st.tuples(st.sampled_from([b"", b"a", BIG, "text", None, bytearray(b"b")])),
    "send_many": st.tuples(
        st.lists(st.sampled_from([b"", b"a", b"b"])) | st.just([BIG] * 3) | st.just([1])
    ),
    "flush": st.just(()),
    "close": st.just(()),
    "abort": st.just(()),
    "data_to_send": st.tuples(times),
    "events_received": st.just(()),
    "next_timeout": st.just(()),
    "handle_timeout": st.tuples(times),
    "bytes_accepted": st.tuples(request_ids, st.integers(0, 2_000_000), times),
    "receive_response": st.tuples(request_ids, statuses, answer_headers, times),
    "receive_data": st.tuples(request_ids, pieces, times),
    "receive_eof": st.tuples(request_ids, times),
    "connection_lost": st.tuples(request_ids, st.builds(TransportError, st.just("lost")), times),
    "start_waiting": st.tuples(times),
    "pending": st.just(()),
}

# What a session does again and again comes more often than what ends it.
_OFTEN = ["send", "data_to_send", "receive_response", "receive_data", "bytes_accepted"]
calls = st.lists(
    st.sampled_from([*CALLS, *_OFTEN, *_OFTEN]).flatmap(
        lambda name: st.tuples(st.just(name), CALLS[name])
    ),
    max_size=30,
)


def check_order(actions: Iterable[Action]) -> None:
    """Requests come one at a time, and a request's bytes after its head and before its end."""
    current, is_complete = 0, True
    for action in actions:
        if isinstance(action, OpenRequest):
            assert action.request_id == current + 1
            current, is_complete = action.request_id, False
            continue
        assert action.request_id == current
        assert isinstance(action, CloseRequest) or not is_complete
        is_complete = not isinstance(action, SendData)


@settings(max_examples=300)
@given(
    calls,
    st.sampled_from([None, 1, 2]),
    st.sampled_from([{}, {"exclusive": True}, {"match_seq_num": 4}, {"dedupe": False}]),
)
def test_whatever_is_called_only_our_errors_escape(
    made: list[tuple[str, tuple[Any, ...]]], burst_batches: int | None, options: dict[str, Any]
) -> None:
    machine = make(burst_batches=burst_batches, **options)
    actions: list[Action] = []
    events: list[AppendEvent] = []
    for name, arguments in made:
        had_ended = machine.state in ENDED
        state = machine.state
        keywords = {"now": 1.0} if name.startswith("send") else {}
        try:
            returned = getattr(machine, name)(*arguments, **keywords)
        except S2FramesError:
            # Only what the user passes is refused; what the peer sends ends the session.
            assert name in ("send", "send_many")
            continue
        finally:
            assert isinstance(machine.state, AppendState)
        if had_ended:
            assert machine.state is state
        if name == "data_to_send":
            actions += returned
            # Whatever is to come has its time.
            is_outstanding = not machine._writer.is_idle and machine.state not in ENDED
            assert machine.next_timeout() is not None or not is_outstanding
        if name == "events_received":
            events += returned
    actions += machine.data_to_send(200.0)
    check_order(actions)
    events += machine.events_received()
    assert len(durable(events)) == machine.durable_messages
    endings = [i for i, event in enumerate(events) if isinstance(event, SessionEnded)]
    assert endings == ([len(events) - 1] if machine.state in ENDED else [])


# Requests


def request_of(machine: AppendProtocol) -> OpenRequest:
    machine.send(b"a", now=0.0)
    action = machine.data_to_send(0.0)[0]
    assert isinstance(action, OpenRequest)
    return action


def target_with(stream: str = "s", key: bytes | None = None, **options: Any) -> StreamTarget:
    return StreamTarget(Settings(**options), "my-basin", stream, key)


LITE = Endpoints.at("http://localhost:8080/")


@pytest.mark.parametrize(
    ("endpoints", "stream", "url"),
    [
        (Endpoints(), "s", "https://my-basin.b.s2.dev/v1/streams/s/records"),
        (LITE, "s", "http://localhost:8080/v1/streams/s/records"),
        (LITE, "a/b ?#%", "http://localhost:8080/v1/streams/a%2Fb%20%3F%23%25/records"),
    ],
)
def test_where_a_session_goes(endpoints: Endpoints, stream: str, url: str) -> None:
    action = request_of(make(target_with(stream, endpoints=endpoints)))
    assert (action.request_id, action.request.method, action.request.url) == (1, "POST", url)
    assert action.request.body == b""


@pytest.mark.parametrize(
    ("compression", "accepted"),
    [(Compression.NONE, "identity"), (Compression.GZIP, "gzip"), (Compression.ZSTD, "zstd")],
)
@pytest.mark.parametrize("burst_batches", [None, 2])
def test_headers_of_a_session(
    compression: Compression, accepted: str, burst_batches: int | None
) -> None:
    target = target_with(compression=compression)
    assert request_of(make(target, burst_batches=burst_batches)).request.headers == {
        "content-type": "s2s/proto",
        "accept": "s2s/proto",
        "accept-encoding": accepted,
    }


@pytest.mark.parametrize("compression", Compression)
def test_headers_of_an_append_of_one_batch(compression: Compression) -> None:
    target = target_with(compression=compression)
    assert request_of(make(target, burst_batches=1)).request.headers == {
        "content-type": "application/protobuf",
        "accept": "application/protobuf",
        "accept-encoding": "identity",
    }


@pytest.mark.parametrize("burst_batches", [None, 1])
def test_headers_that_say_who_and_where(burst_batches: int | None) -> None:
    key = bytes(range(32))
    target = target_with(key=key, endpoints=LITE, access_token=SECRET)
    machine = make(target, burst_batches=burst_batches)
    headers = request_of(machine).request.headers
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert headers["s2-basin"] == "my-basin"
    assert headers["s2-encryption-key"] == b64encode(key).decode()


def test_a_basin_in_the_host_needs_no_header() -> None:
    assert "s2-basin" not in request_of(make(target_with())).request.headers


def test_secrets_are_never_shown() -> None:
    key = b"0123456789abcdef" * 2
    target = target_with(key=key, access_token=SECRET)
    machine = make(target)
    machine.send(b"payload-hunter3", now=0.0)
    shown = repr(machine.data_to_send(0.0)) + repr(machine) + repr(target)
    for secret in (SECRET, b64encode(key).decode(), "0123456789abcdef", "payload-hunter3"):
        assert secret not in shown
    assert "OpenRequest" in shown
    assert "[secret]" in shown


# Bytes


def test_the_bytes_of_a_session() -> None:
    machine = make(writer_id="w", first_dedupe_seq=3, match_seq_num=7, fencing_token="t")
    machine.send(b"hi", ((b"k", b"v"),), 9, now=0.0)
    machine.close()
    actions = machine.data_to_send(0.0)
    assert kinds(actions) == [OpenRequest, SendData, EndData]
    record = Record(b"hi", (*make_frame_headers(2, 1), *numbered(3, "w"), (b"k", b"v")), 9)
    wire = encode_append_input(WireInput([record], 7, "t"))
    assert body_of(actions) == (len(wire) + 1).to_bytes(3, "big") + b"\0" + wire


def test_the_bytes_of_an_append_of_one_batch() -> None:
    machine = make(dedupe=False, burst_batches=1)
    machine.send(b"hi", now=0.0)
    actions = machine.data_to_send(0.0)
    assert kinds(actions) == [OpenRequest, SendData, EndData]
    record = Record(b"hi", make_frame_headers(2, 1))
    assert body_of(actions) == encode_append_input(WireInput([record]))


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_a_session_is_compressed_and_one_batch_is_not(compression: Compression) -> None:
    target = target_with(compression=compression)
    machine = make(target)
    machine.send(BIG, now=0.0)
    actions = machine.data_to_send(0.0)
    assert len(body_of(actions)) < len(BIG) / 100
    assert batches_in(actions) == [[BIG]]
    machine = make(target, burst_batches=1)
    machine.send(BIG, now=0.0)
    assert BIG in body_of(machine.data_to_send(0.0))


def test_writer_ids_are_drawn_and_kept() -> None:
    numbers = iter([0.0, 0.999] * 6)
    drawn = AppendProtocol(TARGET, AppendSettings(), random=lambda: next(numbers))
    assert drawn.writer_id == "a_" * 6
    assert make(dedupe=False).writer_id is None
    assert make(writer_id="me", first_dedupe_seq=5).writer_id == "me"


def test_a_writer_goes_on_at_its_number() -> None:
    machine = make(writer_id="me", first_dedupe_seq=5)
    machine.send(b"a", now=0.0)
    wire = body_of(machine.data_to_send(0.0))[4:]
    (record,) = decode_append_input(wire).records
    assert record.headers[2:] == ((b"_dedupe_seq", bytes(7) + b"\5"), (b"_writer_id", b"me"))


# Bursts


def test_a_burst_is_a_request_with_so_many_batches() -> None:
    machine = make(burst_batches=3)
    machine.send_many([BIG] * 5, now=0.0)
    actions = machine.data_to_send(0.0)
    assert kinds(actions) == [OpenRequest, SendData, SendData, SendData, EndData]
    machine.receive_response(1, 200, SESSION, 0.0)
    machine.receive_data(1, acks(1, 1, 1), 0.0)
    # The answer may hold more: nothing is sent before its end.
    assert machine.data_to_send(0.0) == []
    machine.receive_eof(1, 0.0)
    assert machine.state is AppendState.IDLE
    assert not machine.is_drained
    actions = machine.data_to_send(0.0)
    assert kinds(actions) == [OpenRequest, SendData, SendData, EndData]
    assert {action.request_id for action in actions} == {2}
    machine.receive_response(2, 200, SESSION, 0.0)
    machine.receive_data(2, acks(1, 1, start=3), 0.0)
    machine.receive_eof(2, 0.0)
    assert machine.is_drained
    assert durable(machine.events_received()) == [0, 1, 2, 3, 4]
    assert machine.data_to_send(0.0) == []
    machine.close()
    assert machine.data_to_send(0.0) == []
    assert machine.events_received() == [SessionEnded(None)]


def test_a_burst_holds_nothing_back() -> None:
    machine = make(burst_batches=4)
    machine.send_many([LARGE, b"a"], now=0.0)
    assert batches_in(machine.data_to_send(0.0)) == [[LARGE, b"a"]]
    machine = make(burst_batches=4)
    machine.send_many([LARGE, LARGE, b"a"], now=0.0)
    assert batches_in(machine.data_to_send(0.0)) == [[LARGE], [LARGE, b"a"]]


def test_what_is_sent_during_a_burst_goes_into_the_next() -> None:
    machine = streaming(burst_batches=3)
    machine.send(b"b", now=1.0)
    machine.flush()
    assert machine.data_to_send(1.0) == []
    # No linger: its time comes with the end of the answer, for which there is a deadline.
    assert machine.next_timeout() == about(5.0)
    machine.receive_data(1, acks(1), 2.0)
    machine.receive_eof(1, 2.0)
    assert batches_in(machine.data_to_send(2.0)) == [[b"b"]]


def test_one_batch_a_request() -> None:
    machine = make(burst_batches=1)
    machine.send_many([BIG, BIG], now=0.0)
    for number in (1, 2):
        actions = machine.data_to_send(0.0)
        assert kinds(actions) == [OpenRequest, SendData, EndData]
        machine.receive_response(number, 200, PROTOBUF, 0.0)
        answer = encode_append_ack(make_ack(number, 1))
        for i in range(len(answer)):
            machine.receive_data(number, answer[i : i + 1], 0.0)
            assert machine.events_received() == []
        machine.receive_eof(number, 0.0)
        assert durable(machine.events_received()) == [number - 1]
    assert machine.is_drained


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (SESSION, acks(1)),
        (JSON, b"{}"),
        (PROTOBUF, b""),
        (PROTOBUF, encode_append_ack(make_ack(0, 1))[:-1]),
        (PROTOBUF, encode_append_ack(make_ack(0, 2))),
        (PROTOBUF, encode_append_ack(make_ack(0, 1)) + bytes(1_000_000)),
    ],
)
def test_an_answer_that_is_no_ack_of_the_batch(headers: dict[str, str], body: bytes) -> None:
    machine = opened(burst_batches=1)
    machine.receive_response(1, 200, headers, 0.0)
    machine.receive_data(1, body, 0.0)
    machine.receive_eof(1, 0.0)
    error = error_in(machine)
    assert isinstance(error, RemoteProtocolError)
    assert error.outcome is Outcome.UNKNOWN


# Duplex


def test_a_duplex_request_stays_open_until_close() -> None:
    machine = streaming()
    machine.receive_data(1, acks(1), 0.0)
    assert not machine.is_drained
    machine.send(b"b", now=1.0)
    actions = machine.data_to_send(1.0)
    assert kinds(actions) == [SendData]
    machine.close()
    assert kinds(machine.data_to_send(1.0)) == [EndData]
    accept_all(machine, actions, 1.0)
    machine.receive_data(1, acks(1, start=1), 1.0)
    assert SessionEnded(None) not in machine._events
    machine.receive_eof(1, 1.0)
    machine.data_to_send(1.0)
    assert machine.state is AppendState.CLOSED
    assert machine.is_drained
    events = machine.events_received()
    assert durable(events) == [0, 1]
    assert events[-1] == SessionEnded(None)


def test_close_sends_what_waits_before_it_ends() -> None:
    machine = make(max_inflight_batches=1)
    machine.send_many([BIG] * 3, now=0.0)
    machine.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        machine.send(b"x", now=0.0)
    actions = machine.data_to_send(0.0)
    machine.receive_response(1, 200, SESSION, 0.0)
    for number in range(3):
        assert (EndData in kinds(actions)) is (number == 2)
        machine.receive_data(1, acks(1, start=number), 0.0)
        actions = machine.data_to_send(0.0)
    machine.receive_eof(1, 0.0)
    machine.close()
    machine.data_to_send(0.0)
    machine.close()
    assert machine.data_to_send(0.0) == []
    events = machine.events_received()
    assert durable(events) == [0, 1, 2]
    assert events.count(SessionEnded(None)) == 1


def test_closing_an_unused_session_makes_no_request() -> None:
    machine = make()
    machine.close()
    assert machine.data_to_send(0.0) == []
    assert machine.events_received() == [SessionEnded(None)]
    assert machine.is_drained


# Linger


def test_a_message_goes_at_once_when_nothing_is_in_flight() -> None:
    machine = make(linger=10)
    machine.send(b"a", now=0.0)
    assert batches_in(machine.data_to_send(0.0)) == [[b"a"]]
    assert machine._linger_deadline() is None


def lingering() -> AppendProtocol:
    machine = make(linger=0.25)
    machine.send(b"a", now=0.0)
    accept_all(machine, machine.data_to_send(0.0))
    machine.receive_response(1, 200, SESSION, 0.0)
    for payload, now in ((b"b", 1.0), (b"c", 1.125)):
        machine.send(payload, now=now)
        assert machine.data_to_send(now) == []
        assert machine.next_timeout() == 1.25
    return machine


def test_messages_linger_until_the_oldest_has_waited_long_enough() -> None:
    machine = lingering()
    machine.handle_timeout(1.2)
    assert machine.data_to_send(1.2) == []
    machine.handle_timeout(1.25)
    assert batches_in(machine.data_to_send(1.25)) == [[b"b", b"c"]]
    assert machine.next_timeout() == about(5.0)
    machine.send(b"d", now=2.0)
    assert machine.data_to_send(2.0) == []
    assert machine.next_timeout() == 2.25


def test_messages_linger_until_flush() -> None:
    machine = lingering()
    machine.flush()
    assert machine.next_timeout() == about(5.0)
    assert batches_in(machine.data_to_send(1.2)) == [[b"b", b"c"]]
    machine.send(b"d", now=2.0)
    assert machine.data_to_send(2.0) == []


def test_messages_linger_until_nothing_is_in_flight() -> None:
    machine = lingering()
    machine.receive_data(1, acks(1), 1.2)
    assert batches_in(machine.data_to_send(1.2)) == [[b"b", b"c"]]


def test_messages_linger_until_a_batch_is_full() -> None:
    machine = lingering()
    machine.send_many([b"d"] * 997, now=1.2)
    assert machine.data_to_send(1.2) == []
    machine.send_many([b"e"] * 2, now=1.2)
    assert [len(batch) for batch in batches_in(machine.data_to_send(1.2))] == [1000]
    # What is left lingers on its own account.
    assert machine.next_timeout() == 1.45


def test_messages_linger_until_close() -> None:
    machine = lingering()
    machine.close()
    assert machine.next_timeout() == about(5.0)
    actions = machine.data_to_send(1.2)
    assert batches_in(actions) == [[b"b", b"c"]]
    assert actions[-1] == EndData(1)


def test_without_linger_a_message_waits_for_the_next_timeout() -> None:
    machine = make(linger=0)
    machine.send(b"a", now=0.0)
    machine.data_to_send(0.0)
    machine.send(b"b", now=1.0)
    assert machine.next_timeout() == 1.0
    machine.handle_timeout(1.0)
    assert batches_in(machine.data_to_send(1.0)) == [[b"b"]]


def test_the_nearer_of_two_deadlines_counts() -> None:
    machine = opened(linger=3)
    assert machine.next_timeout() == about(5.0)
    machine.send(b"b", now=1.0)
    machine.data_to_send(1.0)
    assert machine.next_timeout() == 4.0
    machine.handle_timeout(4.0)
    machine.data_to_send(4.0)
    assert machine.next_timeout() == about(5.0)


# Window


def test_the_window_bounds_batches() -> None:
    machine = make(max_inflight_batches=2)
    machine.send_many([BIG] * 4, now=0.0)
    assert len(batches_in(machine.data_to_send(0.0))) == 2
    machine.flush()
    assert machine.data_to_send(0.0) == []
    machine.receive_response(1, 200, SESSION, 0.0)
    machine.receive_data(1, acks(1), 0.0)
    assert len(batches_in(machine.data_to_send(0.0))) == 1


def test_the_window_bounds_bytes() -> None:
    machine = make(max_inflight_bytes=2 * MAX_BATCH_BYTES)
    machine.send_many([BIG] * 9, now=0.0)
    assert len(batches_in(machine.data_to_send(0.0))) == 2
    machine.receive_response(1, 200, SESSION, 0.0)
    machine.receive_data(1, acks(1), 0.0)
    assert len(batches_in(machine.data_to_send(0.0))) == 1


def test_a_session_is_full_when_as_much_waits_as_may_be_in_flight() -> None:
    machine = make(max_inflight_bytes=MAX_BATCH_BYTES, max_inflight_batches=1)
    machine.send(LARGE, now=0.0)
    machine.data_to_send(0.0)
    assert not machine.is_full
    machine.send(LARGE, now=0.0)
    assert not machine.is_full
    machine.send(LARGE, now=0.0)
    assert machine.is_full
    machine.receive_response(1, 200, SESSION, 0.0)
    machine.receive_data(1, acks(1), 0.0)
    machine.data_to_send(0.0)
    assert not machine.is_full


def test_a_message_that_is_refused_changes_nothing() -> None:
    machine = make(max_frame_bytes=3)
    with pytest.raises(FrameSizeError, match="max_frame_bytes"):
        machine.send(b"abcd", now=0.0)
    with pytest.raises(FrameSizeError):
        machine.send_many([b"a", b""], now=0.0)
    with pytest.raises(LocalProtocolError, match="reserved"):
        machine.send(b"a", ((b"_writer_id", b"x"),), now=0.0)
    assert machine.is_drained
    assert machine.data_to_send(0.0) == []
    assert machine.next_timeout() is None
    assert machine.send(b"abc", now=0.0) == 0
    assert machine.send_many([b"a", b"b"], now=0.0) == range(1, 3)


# Acks


def cuts(size: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(size + 1) for j in range(i, size + 1))


def test_acks_cut_at_any_two_bytes() -> None:
    answer = acks(1, 1)
    for i, j in cuts(len(answer)):
        machine = streaming(BIG, BIG)
        for piece in (answer[:i], answer[i:j], answer[j:]):
            machine.receive_data(1, piece, 0.0)
        assert durable(machine.events_received()) == [0, 1]
        assert machine.durable_messages == 2


def test_where_durable_messages_are() -> None:
    machine = make()
    machine.send_many([b"a", bytes(2_000_000), b"b"], now=0.0)
    machine.flush()
    batches = batches_in(machine.data_to_send(0.0))
    assert [len(batch) for batch in batches] == [1, 1, 2]
    machine.receive_response(1, 200, SESSION, 0.0)
    # Others append too: the batches are not next to each other.
    for start, batch in zip((10, 20, 30), batches, strict=True):
        machine.receive_data(1, acks(len(batch), start=start), 0.0)
    events = [event for event in machine.events_received() if isinstance(event, FramesDurable)]
    places = [(a.start, a.end) for event in events for a in event.all_appended()]
    assert places == [(10, 11), (20, 31), (31, 32)]


def test_acks_before_a_terminal_message_count() -> None:
    machine = streaming(BIG, BIG, BIG)
    terminal = encode_terminal(412, b'{"seq_num_mismatch":9}')
    machine.receive_data(1, acks(1, 1) + terminal, 0.0)
    events = machine.events_received()
    assert durable(events) == [0, 1]
    last = events[-1]
    assert isinstance(last, SessionEnded)
    assert isinstance(last.error, SeqNumMismatch)
    assert last.error.durable_messages == 2
    assert last.error.expected == 9


# Failures


def answer_whole(status: int, body: bytes, step: int = 1) -> AppendProtocol:
    """A session that was answered with an error before it began."""
    machine = opened()
    machine.receive_response(1, status, JSON, 0.0)
    for at in range(0, len(body), step):
        machine.receive_data(1, body[at : at + step], 0.0)
        assert machine.events_received() == []
    machine.receive_eof(1, 0.0)
    return machine


def terminal_with(status: int, body: bytes) -> AppendProtocol:
    machine = streaming()
    machine.receive_data(1, encode_terminal(status, body), 0.0)
    return machine


@pytest.mark.parametrize("burst_batches", [None, 1, 2])
def test_a_refusal_before_the_session_cut_at_any_byte(burst_batches: int | None) -> None:
    body = error_body("stream_not_found", "no such stream")
    for i in range(len(body) + 1):
        machine = opened(burst_batches=burst_batches)
        machine.receive_response(1, 404, JSON, 0.0)
        machine.receive_data(1, body[:i], 0.0)
        machine.receive_data(1, body[i:], 0.0)
        machine.receive_eof(1, 0.0)
        error = error_in(machine)
        assert isinstance(error, ServiceError)
        assert (error.status, error.code) == (404, "stream_not_found")
        assert (error.outcome, error.durable_messages) == (Outcome.NOT_APPLIED, 0)


@pytest.mark.parametrize("answered", [answer_whole, terminal_with])
def test_conditions_that_do_not_hold(
    answered: Callable[[int, bytes], AppendProtocol],
) -> None:
    error = error_in(answered(412, b'{"seq_num_mismatch":7}'))
    assert isinstance(error, SeqNumMismatch)
    assert error.expected == 7
    assert error.outcome is Outcome.NOT_APPLIED
    error = error_in(answered(412, b'{"fencing_token_mismatch":"other"}'))
    assert isinstance(error, FencingTokenMismatch)
    assert error.expected == "other"
    assert error.outcome is Outcome.NOT_APPLIED


def test_of_a_huge_error_a_bounded_part_is_kept() -> None:
    machine = opened()
    machine.receive_response(1, 500, {"content-type": "text/html"}, 0.0)
    for _ in range(100):
        machine.receive_data(1, bytes(100_000), 0.0)
        assert len(machine._response.whole_body()) <= 64 * 1024
    machine.receive_eof(1, 0.0)
    retrying = machine.events_received()[-1]
    assert isinstance(retrying, Retrying)
    assert isinstance(retrying.error, ServiceError)
    assert len(str(retrying.error)) < 10_000


PAGE = b"<html><body>It works!</body></html>"


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "", "s2s/protox"])
def test_an_answer_of_another_type(content_type: str) -> None:
    machine = opened()
    machine.receive_response(1, 200, {"content-type": content_type}, 0.0)
    error = error_in(machine)
    assert isinstance(error, RemoteProtocolError)
    assert "s2s/proto" in str(error)
    assert error.outcome is Outcome.UNKNOWN
    assert machine.data_to_send(0.0) == [CloseRequest(1)]
    machine.receive_data(1, PAGE, 0.0)
    machine.receive_eof(1, 0.0)
    assert machine.events_received() == []


@pytest.mark.parametrize(
    "content_type", ["s2s/proto", "S2S/Proto", "s2s/proto; charset=utf-8", None]
)
def test_an_answer_of_the_right_type(content_type: str | None) -> None:
    machine = opened()
    headers = {} if content_type is None else {"content-type": content_type}
    machine.receive_response(1, 200, headers, 0.0)
    machine.receive_data(1, acks(1), 0.0)
    assert durable(machine.events_received()) == [0]


ONCE = Retry(max_attempts=1)

# What ends an attempt in which one of two batches is acked: the error, and what it says when there
# is no other attempt.
FAILURES: list[tuple[str, Callable[[AppendProtocol], None], type[S2FramesError], Outcome]] = []


def failure(error: type[S2FramesError], outcome: Outcome) -> Callable[[Any], Any]:
    def add(provoke: Callable[[AppendProtocol], None]) -> Callable[[AppendProtocol], None]:
        FAILURES.append((provoke.__name__, provoke, error, outcome))
        return provoke

    return add


@failure(TransportError, Outcome.UNKNOWN)
def clean_end(machine: AppendProtocol) -> None:
    machine.receive_eof(1, 1.0)


@failure(TransportError, Outcome.UNKNOWN)
def end_inside_a_message(machine: AppendProtocol) -> None:
    machine.receive_data(1, acks(1, start=1)[:-1], 1.0)
    machine.receive_eof(1, 1.0)


@failure(TransportError, Outcome.UNKNOWN)
def loss(machine: AppendProtocol) -> None:
    machine.connection_lost(1, TransportError("the cable was cut"), 1.0)


@failure(TransportError, Outcome.UNKNOWN)
def silence(machine: AppendProtocol) -> None:
    machine.handle_timeout(100.0)


@failure(LocalProtocolError, Outcome.UNKNOWN)
def abort(machine: AppendProtocol) -> None:
    machine.abort()


@failure(RemoteProtocolError, Outcome.UNKNOWN)
def garbage(machine: AppendProtocol) -> None:
    machine.receive_data(1, b"\xff" * 100, 1.0)


@failure(RemoteProtocolError, Outcome.UNKNOWN)
def message_without_length(machine: AppendProtocol) -> None:
    machine.receive_data(1, bytes(4), 1.0)


@failure(RemoteProtocolError, Outcome.UNKNOWN)
def page(machine: AppendProtocol) -> None:
    machine.receive_data(1, b"\0\0\x24\0" + PAGE, 1.0)


@failure(RemoteProtocolError, Outcome.UNKNOWN)
def empty_ack(machine: AppendProtocol) -> None:
    machine.receive_data(1, message(b""), 1.0)


@failure(RemoteProtocolError, Outcome.UNKNOWN)
def ack_of_too_many(machine: AppendProtocol) -> None:
    machine.receive_data(1, acks(2, start=1), 1.0)


@failure(RemoteProtocolError, Outcome.UNKNOWN)
def ack_again(machine: AppendProtocol) -> None:
    machine.receive_data(1, acks(1, start=0), 1.0)


@failure(RemoteProtocolError, Outcome.UNKNOWN)
def ack_that_goes_back(machine: AppendProtocol) -> None:
    ack = encode_append_ack(make_ack(1, 1, tail=1))
    machine.receive_data(1, message(ack), 1.0)


@failure(RemoteProtocolError, Outcome.UNKNOWN)
def second_answer(machine: AppendProtocol) -> None:
    machine.receive_response(1, 200, SESSION, 1.0)


@failure(RemoteProtocolError, Outcome.UNKNOWN)
def terminal_without_status(machine: AppendProtocol) -> None:
    machine.receive_data(1, b"\0\0\x02\x80\0", 1.0)


def terminal_failure(status: int, code: str, outcome: Outcome) -> None:
    def provoke(machine: AppendProtocol) -> None:
        machine.receive_data(1, encode_terminal(status, error_body(code)), 1.0)

    FAILURES.append((f"terminal {status} {code}", provoke, ServiceError, outcome))


terminal_failure(400, "bad_frame", Outcome.NOT_APPLIED)
terminal_failure(404, "stream_not_found", Outcome.NOT_APPLIED)
terminal_failure(408, "request_timeout", Outcome.UNKNOWN)
terminal_failure(422, "invalid", Outcome.NOT_APPLIED)
terminal_failure(499, "client_hangup", Outcome.UNKNOWN)
terminal_failure(500, "storage", Outcome.UNKNOWN)
terminal_failure(502, "hot_server", Outcome.NOT_APPLIED)
terminal_failure(503, "server_draining", Outcome.NOT_APPLIED)
terminal_failure(503, "unavailable", Outcome.UNKNOWN)


@pytest.mark.parametrize(
    ("provoke", "kind", "outcome"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES]
)
def test_failures(
    provoke: Callable[[AppendProtocol], None], kind: type[S2FramesError], outcome: Outcome
) -> None:
    machine = streaming(BIG, BIG, retry=ONCE)
    # The service may once be left for nothing.
    machine._budget.may_reconnect(0.0)
    machine.receive_data(1, acks(1), 0.0)
    provoke(machine)
    error = error_in(machine)
    assert type(error) is kind
    assert error.outcome is outcome
    assert error.durable_messages == machine.durable_messages == 1
    assert error.attempts in (None, 1)
    more = ", more may be" if outcome is Outcome.UNKNOWN else ""
    assert str(error).endswith(f"; 1 message durable{more}")
    assert not machine.is_drained
    # The request is closed, nothing is sent, nothing is waited for, nothing is accepted.
    machine.flush()
    assert machine.data_to_send(2.0) == [CloseRequest(1)]
    assert machine.data_to_send(2.0) == []
    assert machine.next_timeout() is None
    with pytest.raises(LocalProtocolError, match="closed"):
        machine.send(b"x", now=2.0)
    machine.close()
    machine.abort()
    assert machine.data_to_send(2.0) == []
    assert machine.events_received() == []


@pytest.mark.parametrize(
    ("provoke", "kind"), [f[1:3] for f in FAILURES], ids=[f[0] for f in FAILURES]
)
def test_failures_that_may_pass(
    provoke: Callable[[AppendProtocol], None], kind: type[S2FramesError]
) -> None:
    machine = streaming(BIG, BIG)
    machine.receive_data(1, acks(1), 0.0)
    machine.events_received()
    provoke(machine)
    (event,) = machine.events_received()
    assert isinstance(event, Retrying | SessionEnded)
    assert type(event.error) is kind
    assert isinstance(event, Retrying) == is_retryable(event.error)
    is_waiting = isinstance(event, Retrying)
    assert machine.state is (AppendState.WAITING if is_waiting else AppendState.FAILED)
    assert machine.data_to_send(2.0) == [CloseRequest(1)]


@pytest.mark.parametrize("provoke", [abort, garbage])
def test_when_everything_was_durable_nothing_is_in_doubt(
    provoke: Callable[[AppendProtocol], None],
) -> None:
    machine = streaming(BIG, BIG)
    machine.receive_data(1, acks(1, 1), 0.0)
    provoke(machine)
    error = error_in(machine)
    assert (error.outcome, error.durable_messages) == (Outcome.NOT_APPLIED, 2)


def test_what_was_not_sent_was_not_applied() -> None:
    machine = make()
    machine.send(b"a", now=0.0)
    machine.abort()
    error = error_in(machine)
    assert (error.outcome, error.durable_messages) == (Outcome.NOT_APPLIED, 0)
    assert machine.data_to_send(0.0) == []


@pytest.mark.parametrize("state", AppendState)
def test_abort_sends_nothing_more(state: AppendState) -> None:
    machine = STATES[state]()
    if state not in ENDED:
        machine.send(b"late", now=0.0)
    number = request_id(machine)
    machine.abort()
    machine.abort()
    machine.close()
    is_at_rest = state in (AppendState.IDLE, AppendState.WAITING, *ENDED)
    closed_before = [CloseRequest(1)] if state is AppendState.WAITING else []
    last = [] if is_at_rest else [CloseRequest(number)]
    assert machine.data_to_send(9.0) == closed_before + last
    assert machine.next_timeout() is None
    assert machine.state in ENDED


def test_a_failure_in_a_later_request() -> None:
    machine = streaming(burst_batches=1)
    assert machine.state is AppendState.FAILED  # a session's answer to a single append
    machine = make(burst_batches=2, retry=ONCE)
    for number in (1, 2):
        machine.send(b"a", now=0.0)
        machine.data_to_send(0.0)
        machine.receive_response(number, 200, SESSION, 0.0)
        if number == 1:
            machine.receive_data(1, acks(1), 0.0)
            machine.receive_eof(1, 0.0)
    machine.connection_lost(2, TransportError("lost"), 0.0)
    error = error_in(machine)
    assert (error.outcome, error.durable_messages) == (Outcome.UNKNOWN, 1)
    assert machine.data_to_send(0.0) == [CloseRequest(2)]


@pytest.mark.parametrize("name", ["answer", "page", "ack", "terminal", "end", "loss", "bytes"])
def test_what_concerns_an_old_request_is_ignored(name: str) -> None:
    machine = streaming(burst_batches=2)
    machine.receive_data(1, acks(1), 0.0)
    machine.receive_eof(1, 0.0)
    STIMULI[name](machine, 1)
    assert machine.is_drained
    machine.send(b"b", now=0.0)
    actions = machine.data_to_send(0.0)
    machine.events_received()
    STIMULI[name](machine, 1)
    assert machine.state is AppendState.OPENING
    assert machine.events_received() == []
    accept_all(machine, actions, 10.0)
    assert machine.next_timeout() == about(15.0)


# Deadlines


def sizes_of(actions: Iterable[Action]) -> list[int]:
    return [sum(map(len, a.data)) for a in actions if isinstance(a, SendData)]


def why_it_waits(machine: AppendProtocol) -> S2FramesError:
    """The error for which the session tries again, which must be the last event."""
    last = machine.events_received()[-1]
    assert isinstance(last, Retrying)
    assert machine.state is AppendState.WAITING
    return last.error


def test_an_ack_is_due_when_its_batch_can_have_crossed_the_line() -> None:
    machine = make()
    machine.send_many([BIG, BIG], now=0.0)
    first, second = sizes_of(machine.data_to_send(0.0))
    machine.bytes_accepted(1, first - 1, 4.0)
    machine.bytes_accepted(1, 1, 8.0)
    due = 4.0 + first / MIN_RATE + 5.0
    assert machine.next_timeout() == due
    # The second batch does not give the first one more time.
    machine.bytes_accepted(1, second, 12.0)
    assert machine.next_timeout() == due
    machine.handle_timeout(due - 0.1)
    assert machine.state is AppendState.OPENING
    machine.handle_timeout(due)
    error = why_it_waits(machine)
    assert isinstance(error, TransportError)
    assert str(error) == "no ack came within 66.5 s of sending"


def test_an_ack_of_what_took_long_to_be_taken_is_due_a_while_after_that() -> None:
    machine = make()
    machine.send(BIG, now=0.0)
    (size,) = sizes_of(machine.data_to_send(0.0))
    machine.bytes_accepted(1, size - 1, 1.0)
    machine.bytes_accepted(1, 1, 80.0)
    assert machine.next_timeout() == 85.0
    machine.handle_timeout(85.0)
    assert str(why_it_waits(machine)) == "no ack came within 5 s of sending"


def test_a_slow_line_is_no_time_out() -> None:
    machine = make()
    machine.send(BIG, now=0.0)
    (size,) = sizes_of(machine.data_to_send(0.0))
    now = 7.9
    for _ in range(200):
        machine.handle_timeout(now)
        machine.bytes_accepted(1, size // 200 if now > 8 else 1, now)
        now = (machine.next_timeout() or 0.0) - 0.1
    assert machine.state is AppendState.OPENING


def test_what_the_transport_holds_gives_it_time_to_take_more() -> None:
    machine = make()
    machine.send(BIG, now=0.0)
    (size,) = sizes_of(machine.data_to_send(0.0))
    machine.bytes_accepted(1, size - 1, 1.0)
    due = 1.0 + (size - 1) / MIN_RATE + 5.0
    assert machine.next_timeout() == due
    machine.handle_timeout(due)
    assert str(why_it_waits(machine)) == "the connection took no bytes for 70.5 s"


def test_what_was_seen_of_the_line_makes_deadlines_short_until_an_attempt_fails() -> None:
    machine = make()
    machine.send_many([BIG, BIG], now=0.0)
    first, second = sizes_of(machine.data_to_send(0.0))
    machine.bytes_accepted(1, first, 0.5)
    machine.receive_response(1, 200, SESSION, 1.0)
    machine.receive_data(1, acks(1), 1.0)
    machine.bytes_accepted(1, second, 2.0)
    # It may have become four times as slow.
    due = machine.next_timeout() or 0.0
    assert due == about(2.0 + 4.0 + 5.0)
    machine.handle_timeout(due)
    why_it_waits(machine)
    later = machine.next_timeout() or 0.0
    machine.handle_timeout(later)
    assert sizes_of(machine.data_to_send(later)) == [second]
    machine.bytes_accepted(2, second, later)
    assert machine.next_timeout() == later + second / MIN_RATE + 5.0


def test_a_transport_that_takes_nothing_is_given_time_to_connect_as_well() -> None:
    machine = make()
    machine.send(b"a", now=1.0)
    machine.data_to_send(1.0)
    machine.bytes_accepted(1, 0, 2.0)
    assert machine.next_timeout() == 9.0
    machine.handle_timeout(8.9)
    assert machine.state is AppendState.OPENING
    machine.handle_timeout(9.0)
    assert str(why_it_waits(machine)) == "the connection took no bytes for 8 s"


def test_a_transport_that_takes_no_more_stalls() -> None:
    machine = make(linger=1)
    machine.send(BIG, now=0.0)
    (size,) = sizes_of(machine.data_to_send(0.0))
    machine.bytes_accepted(1, 1, 2.0)
    machine.bytes_accepted(1, 0, 3.0)
    # Nor does what is sent meanwhile give it more time.
    machine.send(BIG, now=4.0)
    assert sizes_of(machine.data_to_send(4.0)) == [size]
    due = machine.next_timeout() or 0.0
    assert due == about(7.0)
    machine.handle_timeout(due)
    assert str(why_it_waits(machine)) == "the connection took no bytes for 5 s"


def test_what_is_sent_after_a_pause_must_be_taken_in_time() -> None:
    machine = streaming()
    machine.receive_data(1, acks(1), 1.0)
    assert machine.next_timeout() is None
    machine.send(b"b", now=100.0)
    (size,) = sizes_of(machine.data_to_send(100.0))
    assert machine.next_timeout() == 105.0
    machine.bytes_accepted(1, size, 103.0)
    assert machine.next_timeout() == 103.0 + size / MIN_RATE + 5.0
    machine.receive_data(1, acks(1, start=1), 104.0)
    assert machine.next_timeout() is None


def test_each_ack_starts_the_wait_for_the_next() -> None:
    machine = make()
    machine.send_many([BIG] * 3, now=0.0)
    first, second, third = sizes_of(machine.data_to_send(0.0))
    machine.receive_response(1, 200, SESSION, 0.0)
    machine.bytes_accepted(1, first + second + 1, 10.0)
    assert machine.next_timeout() == 10.0 + first / MIN_RATE + 5.0
    machine.receive_data(1, acks(1), 110.0)
    # The second batch was sent, and its acks are progress of the third one, too.
    rate = machine._pace.rate
    assert machine.next_timeout() == 110.0 + second / rate + 5.0
    machine.bytes_accepted(1, 1, 112.0)
    assert machine.next_timeout() == 110.0 + second / rate + 5.0
    machine.receive_data(1, acks(1, start=1), 160.0)
    # The third batch is still being sent: a slow line is no time-out.
    assert machine.next_timeout() == about(165.0)
    machine.bytes_accepted(1, third - 3, 164.0)
    rate = machine._pace.rate
    assert machine.next_timeout() == 164.0 + (third - 1) / rate + 5.0
    machine.bytes_accepted(1, 1, 165.0)
    assert machine.next_timeout() == 160.0 + third / rate + 5.0
    machine.receive_data(1, acks(1, start=2), 170.0)
    # Everything is acked and the request stays open: nothing is awaited.
    assert machine.next_timeout() is None


def test_half_an_ack_is_none() -> None:
    machine = streaming()
    machine.receive_data(1, acks(1)[:-1], 4.0)
    assert machine.next_timeout() == about(5.0)


def test_a_burst_is_timed_when_all_of_it_was_sent() -> None:
    machine = make(burst_batches=2)
    machine.send_many([BIG, BIG], now=0.0)
    first, second = sizes_of(machine.data_to_send(0.0))
    machine.bytes_accepted(1, first, 1.0)
    assert machine._deadline is None
    machine.bytes_accepted(1, second - 1, 5.0)
    assert machine._deadline is None
    assert machine.next_timeout() == 5.0 + (first + second - 1) / MIN_RATE + 5.0
    machine.bytes_accepted(1, 1, 9.0)
    assert machine.next_timeout() == 1.0 + first / MIN_RATE + 5.0
    machine.receive_response(1, 200, SESSION, 12.0)
    assert machine.next_timeout() == 1.0 + first / MIN_RATE + 5.0
    machine.receive_data(1, acks(1), 13.0)
    rate = machine._pace.rate
    assert machine.next_timeout() == 13.0 + second / rate + 5.0
    machine.receive_data(1, acks(1, start=1), 15.0)
    # The end of the answer is awaited too, but nothing depends on it.
    assert machine.next_timeout() == 20.0
    machine.events_received()
    machine.handle_timeout(20.0)
    assert machine.is_drained
    assert machine.data_to_send(20.0) == [CloseRequest(1)]
    assert machine.events_received() == []


def test_acks_that_come_while_a_burst_is_sent_start_no_wait() -> None:
    machine = make(burst_batches=2)
    machine.send_many([BIG, BIG], now=0.0)
    first, second = sizes_of(machine.data_to_send(0.0))
    machine.bytes_accepted(1, first, 3.0)
    machine.receive_response(1, 200, SESSION, 3.0)
    machine.receive_data(1, acks(1), 3.0)
    assert machine._deadline is None
    machine.bytes_accepted(1, second, 7.0)
    assert machine.next_timeout() == 7.0 + second / machine._pace.rate + 5.0


def test_others_on_the_same_connection_have_their_turn_and_their_time() -> None:
    machine = make()
    machine.send(BIG, now=0.0)
    (size,) = sizes_of(machine.data_to_send(0.0))
    # It has opened, and waits for its turn.
    machine.bytes_accepted(1, 0, 7.0, behind=0.0)
    assert machine.next_timeout() == 12.0
    machine.bytes_accepted(1, 0, 11.0, behind=30.0)
    assert machine.next_timeout() == 11.0 + 30.0 + 5.0
    assert machine.held_bytes == 0
    machine.bytes_accepted(1, size, 20.0, behind=200.0)
    assert machine.held_bytes == size
    assert machine.next_timeout() == 20.0 + 200.0 + 5.0
    machine.receive_response(1, 200, SESSION, 100.0)
    machine.receive_data(1, acks(1), 100.0)
    assert machine.next_timeout() is None


def test_an_ack_is_progress_of_what_the_transport_does_not_take_yet() -> None:
    machine = make()
    machine.send_many([BIG, BIG], now=0.0)
    first, _ = sizes_of(machine.data_to_send(0.0))
    machine.receive_response(1, 200, SESSION, 0.0)
    machine.bytes_accepted(1, first + 1, 1.0)
    machine.receive_data(1, acks(1), 60.0)
    assert machine.next_timeout() == about(65.0)


@pytest.mark.parametrize("is_acked_first", [True, False])
def test_after_close_the_end_of_the_answer_is_awaited_for_a_while(is_acked_first: bool) -> None:
    machine = streaming()
    if is_acked_first:
        machine.receive_data(1, acks(1), 1.0)
    machine.close()
    assert machine.data_to_send(2.0) == [EndData(1)]
    if not is_acked_first:
        machine.receive_data(1, acks(1), 2.0)
    assert machine.next_timeout() == 7.0
    machine.handle_timeout(7.0)
    assert machine.data_to_send(7.0) == [CloseRequest(1)]
    assert machine.events_received()[-1] == SessionEnded(None)


@pytest.mark.parametrize("burst_batches", [None, 1, 2])
def test_an_error_whose_body_never_ends(burst_batches: int | None) -> None:
    machine = make(burst_batches=burst_batches)
    machine.send_many([BIG, BIG], now=0.0)
    machine.data_to_send(0.0)
    machine.bytes_accepted(1, 10, 0.0)
    machine.receive_response(1, 404, JSON, 3.0)
    machine.receive_data(1, b"{", 3.0)
    # Nothing more is sent to who has answered.
    machine.send(b"c", now=3.0)
    machine.flush()
    assert machine.data_to_send(3.0) == []
    assert machine.next_timeout() == 8.0
    machine.handle_timeout(8.0)
    ended = machine.events_received()[-1]
    assert isinstance(ended, SessionEnded)
    error = ended.error
    assert isinstance(error, ServiceError)
    assert (error.status, error.code, error.outcome) == (404, None, Outcome.NOT_APPLIED)
    assert str(error) == (
        "status 404, not in S2's words: '{'; the answer broke off; 0 messages durable"
    )
    assert isinstance(error.__cause__, TransportError)
    assert str(error.__cause__) == "no ack came within 5 s of sending"


@pytest.mark.parametrize("status", [400, 409, 412, 416])
def test_an_error_of_which_only_the_body_could_say_what_it_is(status: int) -> None:
    machine = opened(b"a")
    machine.receive_response(1, status, JSON, 0.0)
    machine.receive_data(1, b'{"code":', 0.0)
    machine.connection_lost(1, TransportError("it broke"), 0.0)
    error = why_it_waits(machine)
    assert type(error) is ServiceError
    assert (error.status, error.is_incomplete) == (status, True)
    assert str(error.__cause__) == "it broke"


def test_an_error_whose_body_came_before_the_connection_broke() -> None:
    machine = opened(b"a")
    machine.receive_response(1, 409, JSON, 0.0)
    machine.receive_data(1, error_body("stream_deletion_pending"), 0.0)
    machine.connection_lost(1, TransportError("it broke"), 0.0)
    ended = machine.events_received()[-1]
    assert isinstance(ended, SessionEnded)
    assert isinstance(ended.error, ServiceError)
    assert ended.error.code == "stream_deletion_pending"


def test_deadlines_end_with_the_request() -> None:
    machine = streaming(burst_batches=1)
    machine = opened(burst_batches=1)
    machine.receive_response(1, 200, PROTOBUF, 1.0)
    assert machine.next_timeout() == about(5.0)
    machine.receive_data(1, encode_append_ack(make_ack(0, 1)), 1.0)
    machine.receive_eof(1, 1.0)
    assert machine.next_timeout() is None
    machine.handle_timeout(1e9)
    assert machine.is_drained


# Whole sessions


def payload_of(writer: int, number: int, size: int) -> bytes:
    """A payload that is like no other."""
    label = b"%d/%d/" % (writer, number)
    return (label + Random(size).randbytes(min(size, 1000)) * (1 + size // 1000))[: max(size, 5)]


sizes = st.integers(1, 60) | st.sampled_from([5, 999, 1025, 1_048_477, 1_048_478, 2_200_000])
modes = st.sampled_from([None, 1, 2, 5])
writers = st.lists(st.tuples(modes, st.lists(sizes, max_size=6)), max_size=3)


class Writer:
    """An append session, and what it is to append."""

    def __init__(
        self,
        world: World,
        target: StreamTarget,
        random: Callable[[], float],
        burst_batches: int | None,
        payloads: list[bytes],
    ) -> None:
        self._world = world
        self.machine = AppendProtocol(
            target,
            AppendSettings(burst_batches=burst_batches, max_inflight_bytes=MAX_BATCH_BYTES),
            random=random,
        )
        self.client: Client[AppendProtocol] = world.join_append(
            self.machine, reads_while_sending=burst_batches is None
        )
        self.payloads = payloads
        self._left = deque(payloads)

    def feed(self, count: int) -> None:
        """Accept some messages, or close when there are no more."""
        for _ in range(count):
            if not self._left:
                self.machine.close()
            elif not self.machine.is_full:
                self.machine.send(self._left.popleft(), now=self._world.now)

    @property
    def is_closed(self) -> bool:
        return self.machine.state is AppendState.CLOSED

    def places(self) -> list[tuple[int, int]]:
        events = [event for event in self.client.events if isinstance(event, FramesDurable)]
        return [(a.start, a.end) for event in events for a in event.all_appended()]


def received(client: Client[ReadProtocol]) -> list[FrameReceived]:
    return [event for event in client.events if isinstance(event, FrameReceived)]


BUSY = [(None, [5, 2_200_000, 5]), (2, [1_048_478, 5, 5]), (1, [5, 5])]


@settings(max_examples=60)
@example(Random(1), Compression.GZIP, BUSY)
@given(st.randoms(use_true_random=True), st.sampled_from(Compression), writers)
def test_what_is_durable_is_read_once_in_order_and_whole(
    random: Random, compression: Compression, plans: list[tuple[int | None, list[int]]]
) -> None:
    world = World(random_cut(random))
    target = StreamTarget(
        Settings(endpoints=Endpoints.at("http://localhost"), compression=compression),
        TARGET.basin,
        TARGET.stream,
    )
    follower = world.join_read(
        ReadProtocol(target, ReadSettings(follow=True), random=random.random)
    )
    joined = [
        Writer(
            world,
            target,
            random.random,
            mode,
            [payload_of(i, j, size) for j, size in enumerate(message_sizes)],
        )
        for i, (mode, message_sizes) in enumerate(plans)
    ]
    while not all(writer.is_closed for writer in joined):
        random.choice([writer for writer in joined if not writer.is_closed]).feed(2)
        world.turn()
    everything = sum(len(writer.payloads) for writer in joined)
    world.run(lambda: len(received(follower)) == everything)
    late = world.join_read(ReadProtocol(target, ReadSettings(), random=random.random))
    world.run(lambda: late.machine.is_over)
    assert late.events[-1] == SessionEnded(None)
    assert received(late) == received(follower)
    for i, writer in enumerate(joined):
        assert writer.client.events[-1] == SessionEnded(None)
        frames = [f for f in received(late) if f.payload.startswith(b"%d/" % i)]
        assert [f.payload for f in frames] == writer.payloads
        assert [(f.start, f.end) for f in frames] == writer.places()
        assert {f.writer_id for f in frames} <= {writer.machine.writer_id}


@settings(max_examples=30)
@given(st.randoms(use_true_random=True), modes, st.integers(0, 3))
def test_a_condition_that_stops_holding_keeps_what_came_before(
    random: Random, burst_batches: int | None, num_before: int
) -> None:
    world = World(random_cut(random))
    before = make()
    world.join_append(before)
    before.send_many([b"x"] * num_before, now=world.now)
    before.close()
    world.run(lambda: before.state is AppendState.CLOSED)
    machine = make(match_seq_num=2, burst_batches=burst_batches)
    client = world.join_append(machine, reads_while_sending=burst_batches is None)
    machine.send_many([BIG] * 4, now=world.now)
    machine.close()
    world.run(lambda: machine.state in ENDED)
    last = client.events[-1]
    assert isinstance(last, SessionEnded)
    if num_before == 2:
        assert last.error is None
        assert machine.durable_messages == 4
        return
    assert isinstance(last.error, SeqNumMismatch)
    assert last.error.expected == num_before
    assert (last.error.outcome, last.error.durable_messages) == (Outcome.NOT_APPLIED, 0)


@pytest.mark.parametrize("burst_batches", [None, 1, 2])
def test_a_stream_that_is_not_there(burst_batches: int | None) -> None:
    world = World()
    target = StreamTarget(TARGET.settings, TARGET.basin, "nowhere")
    machine = make(target, burst_batches=burst_batches)
    client = world.join_append(machine)
    machine.send_many([BIG] * 3, now=world.now)
    world.run(lambda: machine.state in ENDED)
    last = client.events[-1]
    assert isinstance(last, SessionEnded)
    assert isinstance(last.error, ServiceError)
    assert last.error.code == "stream_not_found"
    assert last.error.outcome is Outcome.NOT_APPLIED


def test_actions_are_a_closed_union() -> None:
    assert set(get_args(Action)) == {OpenRequest, SendData, EndData, CloseRequest}
    assert set(get_args(AppendEvent)) == {FramesDurable, Retrying, SessionEnded}
