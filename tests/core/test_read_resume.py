"""Read sessions that lose their connection, and where they go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drive import EPOCH, Client, World, random_cut
from frames import chunk, frame, head
from reading import (
    JSON,
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
    numbered_world,
    opened_by,
    opening,
    outage,
    pass_time,
    payloads,
    query_of,
    read_to_the_end,
    reading,
    retry_in,
    singly,
    wait,
)
from s2frames.checkpoint import Checkpoint
from s2frames.errors import (
    CertificateError,
    ConnectError,
    LocalProtocolError,
    RangeNotSatisfiable,
    RemoteProtocolError,
    S2FramesError,
    ServiceError,
    TransportError,
)
from s2frames.events import CaughtUp, DropReason, FrameDropped, FramesReceived, GapDetected
from s2frames.read import ReadEvent, ReadProtocol, ReadState
from s2frames.records import Record, StreamPosition, trim
from s2frames.retry import Retry
from s2frames.s2s import encode_terminal
from s2frames.session import CloseRequest, Retrying, SessionEnded
from s2frames.settings import LIVENESS_TIMEOUT, Settings
from s2frames.target import StreamTarget


def lost() -> TransportError:
    return TransportError("lost")


def refused() -> ConnectError:
    return ConnectError("connection refused")


def body(code: str) -> bytes:
    return json.dumps({"code": code, "message": "no"}).encode()


# A stream of all kinds of frames, interleaved.
RECORDS_ = [
    *frame([b"a", b"a"], seq=0, writer="v"),
    head(b"b", records=3, size=3, seq=0, writer="w"),
    head(b"c", seq=2, writer="v"),
    chunk(b"b", seq=1, writer="w"),
    *frame([b"d", b"d"]),
    chunk(b"b", seq=2, writer="w"),
]
PAYLOADS = [b"aa", b"c", b"dd", b"bbb"]


def answer_from(start: int) -> bytes:
    """The rest of the stream, in messages of two records."""
    return b"".join(
        batch(RECORDS_[at : at + 2], at, tail=len(RECORDS_) if at + 2 >= len(RECORDS_) else None)
        for at in range(start, len(RECORDS_), 2)
    )


# Losses

BREAKS: dict[str, Callable[[ReadProtocol, int], object]] = {
    "broken": lambda m, number: m.connection_lost(number, lost(), 5.0),
    "ended": lambda m, number: m.receive_eof(number, 5.0),
    "silent": lambda m, _: m.handle_timeout(5.0 + LIVENESS_TIMEOUT),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_loss_after_any_byte_of_the_answer(name: str) -> None:
    whole = answer_from(0)
    for size in range(len(whole) + 1):
        machine = make(follow=True)
        machine.receive_data(answer(machine).request_id, whole[:size], 0.0)
        BREAKS[name](machine, 1)
        events = events_of(machine)
        again = events.pop()
        assert isinstance(again, Retrying)
        assert (again.attempts, again.delay) == (1, 0.1)
        now = wait(machine)
        assert now == pytest.approx(machine._now)
        closed = [a for a in machine.data_to_send(now - 1e-9) if isinstance(a, CloseRequest)]
        assert machine.state is ReadState.OPENING
        assert len(closed) == (name == "silent")
        taken = machine.checkpoint().seen_through
        machine.receive_response(2, 200, SESSION, now)
        machine.receive_data(2, answer_from(taken), now)
        events += events_of(machine)
        assert payloads(events) == PAYLOADS
        assert isinstance(events[-1], CaughtUp)
        assert machine.stats.gaps == machine.stats.duplicates == 0


@pytest.mark.parametrize("name", BREAKS)
def test_a_loss_after_any_byte_of_messages_that_come_together(name: str) -> None:
    messages = [head(b"%02d" % i, seq=i, writer="w", timestamp=7) for i in range(20)]
    first, second = batch(messages[:10]), batch(messages[10:], 10)
    whole = first + second
    for size in range(len(whole) + 1):
        machine = make(follow=True)
        machine.receive_data(answer(machine).request_id, whole[:size], 0.0)
        BREAKS[name](machine, 1)
        events, again = all_at_once(machine)
        assert isinstance(again, Retrying)
        taken = machine.checkpoint().seen_through
        assert taken == 10 * ((size >= len(first)) + (size == len(whole)))
        now = wait(machine)
        assert query_of(opened_by(machine, now))["seq_num"] == str(taken)
        machine.receive_response(2, 200, SESSION, now)
        machine.receive_data(2, batch(messages[taken:], taken) if taken < 20 else b"", now)
        while some := machine.events_at_once():
            assert any(isinstance(event, FramesReceived) for event in some)
            events += singly(some)
        assert payloads(events) == [b"%02d" % i for i in range(20)]


def all_at_once(machine: ReadProtocol) -> tuple[list[ReadEvent], ReadEvent]:
    """All events but the last, and the last."""
    events: list[ReadEvent] = []
    while some := machine.events_at_once():
        events += singly(some)
    return events[:-1], events[-1]


def test_the_next_request_goes_on_at_the_next_record_on_a_new_connection() -> None:
    machine = make(start=3, follow=True)
    first = answer(machine, batch([*A, *B], 3), batch(C, 5)[:-1])
    assert not first.on_new_connection
    assert query_of(first) == {"seq_num": "3"}
    machine.connection_lost(1, lost(), 0.0)
    assert payloads(events_of(machine)) == [b"a", b"b"]
    second = opened_by(machine, wait(machine))
    assert second.on_new_connection
    assert second.request_id == 2
    assert query_of(second) == {"seq_num": "5"}


def test_what_had_arrived_is_handed_out_first_and_taken_slowly() -> None:
    machine = reading(batch([*A, *B]), batch(C, 2), follow=True)
    machine.connection_lost(1, lost(), 0.0)
    seen = []
    for _ in range(3):
        assert machine.data_to_send(0.0) == []
        assert machine.next_timeout() is None
        seen += payloads([next(machine.events_received())])
    assert seen == [b"a", b"b", b"c"]
    assert isinstance(next(machine.events_received()), Retrying)
    assert machine.next_timeout() == 0.1


def test_the_delay_counts_from_when_the_loss_is_told() -> None:
    machine = reading(follow=True)
    machine.connection_lost(1, lost(), 7.0)
    assert retry_in(machine).delay == 0.1
    assert machine.next_timeout() == 7.1
    machine.handle_timeout(7.0999)
    assert machine.state is ReadState.WAITING
    assert machine.data_to_send(7.0999) == []
    machine.start_waiting(7.0999)
    assert machine.next_timeout() == 7.1
    machine.handle_timeout(7.1)
    assert query_of(opened_by(machine, 7.1)) == {"seq_num": "0"}


def test_what_comes_of_a_request_that_is_over_is_ignored() -> None:
    machine = reading(batch(A), follow=True)
    machine.connection_lost(1, lost(), 0.0)
    events_of(machine)
    answer(machine, now=wait(machine))
    machine.receive_response(1, 404, JSON, 0.0)
    machine.receive_data(1, batch([head(b"x")], 1), 0.0)
    machine.receive_eof(1, 0.0)
    machine.connection_lost(1, lost(), 0.0)
    assert machine.state is ReadState.READING
    machine.receive_data(2, batch(B, 1), 0.0)
    assert payloads(events_of(machine)) == [b"b"]


def test_being_caught_up_is_unknown_after_a_loss() -> None:
    machine = reading(batch(A, tail=1), follow=True)
    events_of(machine)
    assert machine.caught_up == StreamPosition(1, 0)
    machine.connection_lost(1, lost(), 0.0)
    events_of(machine)
    assert machine.caught_up is None
    answer(machine, heartbeat(1), now=wait(machine))
    assert events_of(machine) == [CaughtUp(StreamPosition(1, 0))]


def test_a_follower_whose_answer_ends_goes_on() -> None:
    machine = reading(batch(A), follow=True)
    machine.receive_eof(1, 0.0)
    *events, again = events_of(machine)
    assert payloads(events) == [b"a"]
    assert isinstance(again, Retrying)
    assert isinstance(again.error, TransportError)
    assert query_of(opened_by(machine, wait(machine)))["seq_num"] == "1"


def test_a_session_whose_answer_ends_before_it_begins() -> None:
    machine = opening(follow=True)
    machine.receive_eof(1, 0.0)
    again = retry_in(machine)
    assert "without an answer" in str(again.error)
    assert query_of(opened_by(machine, wait(machine)))["seq_num"] == "0"


def test_an_answer_that_comes_too_late() -> None:
    machine = make(follow=True)
    opened_by(machine)
    deadline = machine.next_timeout()
    assert deadline == 8.0
    machine.handle_timeout(deadline)
    assert machine.data_to_send(deadline) == [CloseRequest(1)]
    assert "no answer" in str(retry_in(machine).error)


# What may pass, and what does not

PASSING = [
    (408, "request_timeout"),
    (429, "rate_limited"),
    (500, "storage"),
    (502, "hot_server"),
    (503, "unavailable"),
    (504, "upstream_timeout"),
    (502, "<html>"),
]
LASTING = [(400, "bad_query"), (401, "authn"), (403, "quota_exhausted"), (404, "stream_not_found")]


@pytest.mark.parametrize(("status", "code"), PASSING)
@pytest.mark.parametrize("is_terminal", [False, True])
def test_errors_that_may_pass(status: int, code: str, is_terminal: bool) -> None:
    machine = make(follow=True)
    if is_terminal:
        answer(machine, batch(A), encode_terminal(status, body(code)))
    else:
        opened_by(machine)
        machine.receive_response(1, status, JSON, 0.0)
        machine.receive_data(1, body(code), 0.0)
        machine.receive_eof(1, 0.0)
    again = retry_in(machine)
    assert isinstance(again.error, ServiceError)
    assert again.error.status == status
    assert machine.data_to_send(0.0) == ([CloseRequest(1)] if is_terminal else [])
    expected = "1" if is_terminal else "0"
    assert query_of(opened_by(machine, wait(machine)))["seq_num"] == expected


@pytest.mark.parametrize(("status", "code"), LASTING)
@pytest.mark.parametrize("is_terminal", [False, True])
def test_errors_that_do_not_pass(status: int, code: str, is_terminal: bool) -> None:
    machine = make(follow=True)
    if is_terminal:
        answer(machine, batch(A), encode_terminal(status, body(code)))
    else:
        opened_by(machine)
        machine.receive_response(1, status, JSON, 0.0)
        machine.receive_data(1, body(code), 0.0)
        machine.receive_eof(1, 0.0)
    error = error_in(machine)
    assert isinstance(error, ServiceError)
    assert (error.status, error.attempts) == (status, 1)
    assert machine.data_to_send(0.0) == ([CloseRequest(1)] if is_terminal else [])
    assert machine.next_timeout() is None


def test_messages_before_a_terminal_are_handed_out() -> None:
    machine = reading(batch([*A, *B]), encode_terminal(503, body("unavailable")), follow=True)
    *events, again = events_of(machine)
    assert payloads(events) == [b"a", b"b"]
    assert isinstance(again, Retrying)


@pytest.mark.parametrize(
    "error",
    [
        CertificateError("self-signed"),
        LocalProtocolError("the client is closed"),
        RemoteProtocolError("garbage"),
    ],
)
def test_losses_that_are_final(error: S2FramesError) -> None:
    machine = reading(batch(A), follow=True)
    machine.connection_lost(1, error, 0.0)
    assert error_in(machine) is error
    assert error.attempts == 1


def test_an_answer_that_makes_no_sense_is_final_however_often_it_was_tried() -> None:
    machine = opening(follow=True)
    machine.connection_lost(1, lost(), 0.0)
    events_of(machine)
    opened_by(machine, wait(machine))
    machine.receive_response(2, 200, {"content-type": "text/html"}, 1.0)
    error = error_in(machine)
    assert isinstance(error, RemoteProtocolError)
    assert error.attempts == 2
    assert str(error).endswith("; tried 2 times")


# How long it tries


def test_it_goes_on_trying_for_a_minute() -> None:
    machine = reading(follow=True)
    machine.connection_lost(1, lost(), 0.0)
    events_of(machine)
    times = outage(machine, lost, wait(machine))
    assert times[:5] == pytest.approx([0.1, 0.3, 0.7, 1.5, 2.5])
    assert 59 <= times[-1] <= 60


def test_the_error_in_the_end_says_how_often_it_was_tried() -> None:
    machine = make(follow=True, retry=Retry(max_attempts=4))
    errors = iter([lost(), lost(), lost(), last := lost()])
    opened_by(machine)
    machine.connection_lost(1, next(errors), 0.0)
    for attempt in range(1, 4):
        assert retry_in(machine).attempts == attempt
        opened = opened_by(machine, wait(machine))
        machine.connection_lost(opened.request_id, next(errors), 0.0)
    assert error_in(machine) is last
    assert last.attempts == 4
    assert str(last) == "lost; tried 4 times"


def test_a_place_where_nobody_ever_answered_is_given_three_seconds() -> None:
    times = outage(make(follow=True), refused)
    assert times == pytest.approx([0.0, 0.1, 0.3, 0.7, 1.5, 2.5])


def test_where_somebody_answered_a_refused_connection_is_given_a_minute() -> None:
    machine = opening(follow=True)
    # Also a refusal is an answer.
    machine.receive_response(1, 503, JSON, 0.0)
    machine.connection_lost(1, refused(), 0.0)
    events_of(machine)
    assert outage(machine, refused, wait(machine))[-1] >= 59


@pytest.mark.parametrize("sign", [heartbeat(1), batch(B, 1)])
def test_any_message_begins_the_count_anew(sign: bytes) -> None:
    machine = make(follow=True, retry=Retry(max_attempts=3))
    now = 0.0
    answer(machine, batch(A))
    for _ in range(2):
        machine.connection_lost(machine._request_id, lost(), now)
        assert retry_in(machine).attempts in (1, 2)
        now = wait(machine)
        opened_by(machine, now)
    machine.receive_response(3, 200, SESSION, now)
    machine.receive_data(3, sign, now)
    machine.connection_lost(3, lost(), now)
    assert retry_in(machine).attempts == 1


def test_an_answer_without_a_message_is_no_progress() -> None:
    machine = make(follow=True, retry=Retry(max_attempts=3))
    now = 0.0
    for number in (1, 2, 3):
        answer(machine, now=now)
        machine.receive_eof(number, now)
        if number < 3:
            assert retry_in(machine).attempts == number
            now = wait(machine)
    assert error_in(machine).attempts == 3


def test_the_clients_retry_counts_unless_the_session_has_its_own() -> None:
    config = Settings(retry=Retry(max_attempts=2, min_delay=0.5))
    target = StreamTarget(config, "my-basin", "s")
    assert outage(make(target), lost) == [0.0, 0.5]
    assert outage(make(target, retry=ONCE), lost) == [0.0]


def test_the_wait_that_the_service_asks_for() -> None:
    machine = opening(follow=True)
    machine.receive_response(1, 429, {"retry-after-ms": "2500"}, 1.0)
    machine.receive_data(1, body("rate_limited"), 1.0)
    machine.receive_eof(1, 1.0)
    assert retry_in(machine).delay == 2.5
    assert machine.next_timeout() == 3.5


def test_a_server_that_is_leaving_costs_nothing_once_a_minute() -> None:
    machine = make(follow=True, retry=Retry(max_attempts=2))
    now = 0.0
    attempts = []
    for _ in range(3):
        answer(machine, encode_terminal(503, body("server_draining")), now=now)
        last = events_of(machine)[-1]
        if isinstance(last, Retrying):
            attempts.append(last.attempts)
            assert machine.data_to_send(now) == [CloseRequest(len(attempts))]
            now = wait(machine)
    # The first one is free, the others are attempts like any other.
    assert attempts == [1, 1]
    assert machine.state is ReadState.FAILED


# The wish for another connection


def test_the_wish_for_another_connection() -> None:
    machine = make(follow=True)
    answer(machine, advised(batch([*A, *B])), batch(C, 2))
    assert payloads(events_of(machine)) == [b"a", b"b"]
    assert machine.state is ReadState.IDLE
    closed, opened, _ = machine.data_to_send(1.0)
    assert closed == CloseRequest(1)
    assert opened.request_id == 2
    assert opened.on_new_connection  # type: ignore[union-attr]  # it is an OpenRequest
    assert query_of(opened) == {"seq_num": "2"}  # type: ignore[arg-type]  # as above
    # What had come after it comes again.
    machine.receive_response(2, 200, SESSION, 1.0)
    machine.receive_data(2, batch(C, 2), 1.0)
    assert payloads(events_of(machine)) == [b"c"]


def test_the_wish_is_followed_only_when_the_message_was_taken() -> None:
    machine = reading(advised(batch([*A, *B])), follow=True)
    iterator = machine.events_received()
    assert payloads([next(iterator)]) == [b"a"]
    assert machine.data_to_send(0.0) == []
    assert machine.state is ReadState.READING
    assert payloads(iterator) == [b"b"]
    assert machine.data_to_send(0.0)[0] == CloseRequest(1)


def test_the_wish_is_followed_at_most_once_a_minute() -> None:
    machine = make(follow=True)
    follows = []
    for number, now in enumerate([0.0, 1.0, 59.9, 60.0, 61.0, 120.0]):
        if machine.state is ReadState.IDLE:
            actions = machine.data_to_send(now)
            machine.receive_response(actions[-1].request_id, 200, SESSION, now)
        machine.receive_data(machine._request_id, advised(batch([head(b"x")], number)), now)
        assert payloads(events_of(machine)) == [b"x"]
        follows.append(machine.state is ReadState.IDLE)
    assert follows == [True, False, False, True, False, True]


def test_the_wish_is_free() -> None:
    machine = make(follow=True, retry=ONCE)
    answer(machine, advised(heartbeat(0)))
    assert events_of(machine) == [CaughtUp(StreamPosition(0, 0))]
    assert [type(a).__name__ for a in machine.data_to_send(1.0)] == [
        "CloseRequest",
        "OpenRequest",
        "EndData",
    ]


@pytest.mark.parametrize("over", ["broken", "ended"])
@pytest.mark.parametrize("last", [heartbeat(0), batch(A)])
def test_a_wish_when_the_answer_is_over_already(over: str, last: bytes) -> None:
    machine = reading(advised(last), follow=True)
    BREAKS[over](machine, 1)
    # All of it in one go: nobody would come for the rest.
    events = events_of(machine)
    assert isinstance(events[-1], Retrying)
    assert machine.state is ReadState.WAITING


def test_a_wish_with_the_last_message_of_a_session_that_ends() -> None:
    machine = reading(advised(batch(A)))
    machine.receive_eof(1, 0.0)
    assert events_of(machine)[-1] == SessionEnded(None)
    machine = reading(advised(batch(A)), limit=1)
    assert events_of(machine)[-1] == SessionEnded(None)
    assert machine.data_to_send(0.0) == [CloseRequest(1)]


# Where it goes on: a start by time


def test_a_start_by_time_is_asked_for_again_until_something_came() -> None:
    machine = reading(timestamp=7, follow=True)
    machine.connection_lost(1, lost(), 0.0)
    events_of(machine)
    assert query_of(opened_by(machine, wait(machine))) == {"timestamp": "7"}


@pytest.mark.parametrize(
    ("came", "goes_on"), [(heartbeat(9), "9"), (batch(A, 5), "6"), (batch(A, 5, tail=6), "6")]
)
def test_a_start_by_time_goes_on_by_number(came: bytes, goes_on: str) -> None:
    machine = reading(came, timestamp=7, follow=True)
    machine.connection_lost(1, lost(), 0.0)
    events_of(machine)
    # With the time again, what came in between would be missed or come twice.
    assert query_of(opened_by(machine, wait(machine))) == {"seq_num": goes_on}
    assert machine.stats.gaps == 0


def test_a_start_by_time_at_the_tail_of_a_service() -> None:
    world = World()
    append(world, *A)
    later = int(world.now * 1000)
    client = world.join_read(make(timestamp=later, follow=True))
    pass_time(client, 1.0)
    assert payloads(client.events) == [b"a"]
    client.lose(lost())
    # One that comes meanwhile is not missed.
    append(world, *B)
    pass_time(client, 1.0)
    assert payloads(client.events) == [b"a", b"b"]


# Limits that are reduced


def test_the_count_is_reduced_by_what_came() -> None:
    machine = make(start=3, end=9)
    first = answer(machine, batch([*A, *B], 3))
    assert query_of(first) == {"seq_num": "3", "wait": "0", "count": "6"}
    machine.connection_lost(1, lost(), 0.0)
    events_of(machine)
    second = answer(machine, batch([*C, *A, *B, *C], 5), now=wait(machine))
    assert query_of(second) == {"seq_num": "5", "wait": "0", "count": "4"}
    assert events_of(machine)[-1] == SessionEnded(None)


def test_the_count_is_reduced_by_gaps_too() -> None:
    machine = reading(batch(A), batch(B, 6), end=9)
    machine.connection_lost(1, lost(), 0.0)
    events_of(machine)
    assert query_of(opened_by(machine, wait(machine)))["count"] == "2"


@pytest.mark.parametrize("over", BREAKS)
def test_a_loss_when_the_end_was_reached_is_none(over: str) -> None:
    machine = reading(batch([*A, *B]), end=2, follow=True)
    BREAKS[over](machine, 1)
    events = events_of(machine)
    assert payloads(events) == [b"a", b"b"]
    assert events[-1] == SessionEnded(None)


def test_the_limit_goes_on_after_a_loss() -> None:
    machine = reading(batch([*A, *B]), limit=3)
    machine.connection_lost(1, lost(), 0.0)
    events_of(machine)
    answer(machine, batch([*C, *A], 2), now=wait(machine))
    events = events_of(machine)
    assert payloads(events) == [b"c"]
    assert events[-1] == SessionEnded(None)


# Ends

END_CASES = [
    # start, end, what is read
    (0, 0, []),
    (2, 2, []),
    (3, 2, []),
    (0, 1, [b"0"]),
    (1, 3, [b"1", b"2"]),
    (0, 5, [b"0", b"1", b"2", b"3", b"4"]),
    (0, 9, [b"0", b"1", b"2", b"3", b"4"]),
    (5, 9, []),
    (0, 2**64 - 1, [b"0", b"1", b"2", b"3", b"4"]),
]


@pytest.mark.parametrize(("start", "end", "expected"), END_CASES)
def test_an_end(start: int, end: int, expected: list[bytes]) -> None:
    client = read_to_the_end(numbered_world(), make(start=start, end=end))
    assert payloads(client.events) == expected
    assert client.events[-1] == SessionEnded(None)
    # Nothing is asked where nothing can come.
    assert len(client.requests) == (start < end)
    assert client.machine.checkpoint().read_from == start + len(expected)


@pytest.mark.parametrize(("start", "end", "expected"), END_CASES)
@pytest.mark.parametrize("more", [{"follow": True}, {"wait": 3}])
def test_an_end_that_is_waited_for(
    start: int, end: int, expected: list[bytes], more: dict[str, Any]
) -> None:
    world = numbered_world()
    client = world.join_read(make(start=start, end=end, **more))
    pass_time(client, 2.0)
    assert payloads(client.events) == expected
    reaches = end <= 5 or start >= end
    assert client.machine.is_over is reaches
    append(world, *(head(b"%d" % i) for i in range(5, 12)))
    pass_time(client, 2.0)
    wanted = [b"%d" % i for i in range(start, min(end, 12))]
    assert payloads(client.events) == wanted
    assert client.machine.is_over is (end <= 12)


def test_an_end_inside_a_frame_tells_that_it_is_incomplete() -> None:
    machine = reading(batch(frame([b"a", b"b", b"c"])), end=2)
    dropped, last = events_of(machine)
    assert isinstance(dropped, FrameDropped)
    assert dropped.reason is DropReason.INCOMPLETE
    assert last == SessionEnded(None)
    assert machine.checkpoint().read_from == 0


@pytest.mark.parametrize("taken", range(4))
def test_an_end_at_which_the_books_are_closed_bit_by_bit(taken: int) -> None:
    # Nothing is left to ask for, and one frame is open.
    resumed = Checkpoint.from_json(
        '{"s2frames_checkpoint":1,"read_from":5,"seen_through":9,"lanes":[["w",3,5],["v",1,6]]}'
    )
    machine = make(start=resumed, end=5)
    events: list[ReadEvent] = []
    for _ in range(4):
        assert machine.data_to_send(0.0) == []
        events += islice(machine.events_received(), 1 + taken)
    assert [type(event) for event in events] == [FrameDropped, FrameDropped, SessionEnded]
    assert events[-1] == SessionEnded(None)


def test_an_end_by_number_across_gaps() -> None:
    machine = reading(batch(A), batch(B, 7), start=0, end=5)
    events = events_of(machine)
    assert payloads(events) == [b"a"]
    # Nothing is told of what lies beyond the end.
    assert events[1:] == [GapDetected(1, 5), SessionEnded(None)]
    assert machine.checkpoint().read_from == 5


def test_an_end_by_number_with_a_start_by_time() -> None:
    machine = reading(batch([*A, *B, *C], 3), timestamp=7, end=4)
    events = events_of(machine)
    assert payloads(events) == [b"a"]
    assert events[-1] == SessionEnded(None)
    machine = reading(batch(A, 9), timestamp=7, end=4)
    assert events_of(machine) == [SessionEnded(None)]


def timed_world() -> World:
    """A stream with one message a second, from 0 s to 4 s after the epoch of Unix."""
    world = World()
    append(world, *(head(b"%d" % i, timestamp=i * 1000) for i in range(5)))
    return world


@pytest.mark.parametrize("more", [{}, {"follow": True}, {"wait": 60}])
@pytest.mark.parametrize(("until", "count"), [(0, 0), (1, 1), (1000, 1), (1001, 2), (4000, 4)])
def test_until(more: dict[str, Any], until: int, count: int) -> None:
    world = timed_world()
    client = world.join_read(make(until=until, **more))
    pass_time(client, 1.0)
    assert payloads(client.events) == [b"%d" % i for i in range(count)]
    assert client.events[-1] == SessionEnded(None)


def test_until_a_time_that_has_not_come() -> None:
    world = timed_world()
    later = int(EPOCH * 1000) + 100_000
    client = read_to_the_end(world, make(until=later))
    assert payloads(client.events) == [b"0", b"1", b"2", b"3", b"4"]
    world = timed_world()
    follower = world.join_read(make(until=later, follow=True))
    pass_time(follower, 50.0)
    assert not follower.machine.is_over
    follower.lose(lost())
    append(world, head(b"5"))
    pass_time(follower, 51.0)
    assert not follower.machine.is_over
    append(world, head(b"6"))
    pass_time(follower, 1.0)
    assert payloads(follower.events)[5:] == [b"5"]
    assert follower.events[-1] == SessionEnded(None)


# At the tail

TAIL = b'{"tail":{"seq_num":7,"timestamp":99}}'


def answer_416(machine: ReadProtocol, now: float = 0.0) -> None:
    number = opened_by(machine, now).request_id
    machine.receive_response(number, 416, JSON, now)
    machine.receive_data(number, TAIL, now)
    machine.receive_eof(number, now)


@pytest.mark.parametrize("more", [{}, {"end": 9}, {"until": 5}])
def test_a_start_at_the_tail_ends_quietly(more: dict[str, Any]) -> None:
    machine = make(start=7, **more)
    answer_416(machine)
    assert events_of(machine) == [SessionEnded(None)]
    assert machine.checkpoint().read_from == 7


@pytest.mark.parametrize("options", [{"start": 8}, {"start": 8, "follow": True}, {"start": 6}])
def test_a_start_beyond_the_tail_is_an_error(options: dict[str, Any]) -> None:
    machine = make(**options)
    answer_416(machine)
    error = error_in(machine)
    assert isinstance(error, RangeNotSatisfiable)
    assert error.tail == StreamPosition(7, 99)


def test_a_loss_at_the_tail_of_a_session_that_ends_there() -> None:
    machine = reading(batch([*A] * 7), until=5)
    machine.connection_lost(1, lost(), 0.0)
    assert len(payloads(events_of(machine))) == 7
    answer_416(machine, wait(machine))
    assert events_of(machine) == [SessionEnded(None)]


def test_a_stream_that_became_shorter() -> None:
    """A service that keeps nothing was restarted."""
    machine = reading(batch([*A] * 9), follow=True)
    machine.connection_lost(1, lost(), 0.0)
    events_of(machine)
    answer_416(machine, wait(machine))
    assert isinstance(error_in(machine), RangeNotSatisfiable)


# Waiting


def test_wait_ends_a_session_so_many_seconds_after_the_last_record() -> None:
    world = numbered_world()
    client = read_to_the_end(world, make(wait=30))
    assert payloads(client.events) == [b"0", b"1", b"2", b"3", b"4"]
    assert client.events[-1] == SessionEnded(None)
    # There were heartbeats meanwhile.
    assert world.now == EPOCH + 30
    assert len(client.requests) == 1


def test_a_record_starts_the_wait_anew() -> None:
    world = numbered_world()
    client = world.join_read(make(wait=30))
    pass_time(client, 20)
    append(world, *A)
    world.run(lambda: client.machine.is_over)
    assert payloads(client.events)[-1] == b"a"
    assert world.now == EPOCH + 50


@pytest.mark.parametrize("every", [1, 7, 12.5, 29])
def test_losses_do_not_extend_the_wait(every: float) -> None:
    world = numbered_world()
    client = world.join_read(make(wait=30))
    while not client.machine.is_over:
        pass_time(client, every)
        client.lose(lost())
        while client.step():
            pass
        assert world.now < EPOCH + 100
    assert client.events[-1] == SessionEnded(None)
    last = client.requests[-1]
    assert "wait=" in last.url
    # It is over at the first loss or end of an answer after 30 s; fractions are rounded up.
    assert world.now <= EPOCH + 30 + max(1.5, every)


def test_what_is_left_of_the_wait_is_asked_for_in_whole_seconds() -> None:
    machine = reading(heartbeat(0), wait=30)
    events_of(machine)
    machine.receive_data(1, heartbeat(0), 11.0)
    events_of(machine)
    machine.connection_lost(1, lost(), 11.5)
    events_of(machine)
    # 18.4 seconds are left.
    assert query_of(opened_by(machine, wait(machine)))["wait"] == "19"


def test_before_the_tail_there_is_all_of_the_wait() -> None:
    machine = reading(batch(A), wait=30)
    machine.connection_lost(1, lost(), 25.0)
    events_of(machine)
    assert query_of(opened_by(machine, wait(machine)))["wait"] == "30"


# The wait is over before, just when, and after the connection was lost.
@pytest.mark.parametrize("lost_at", [1.5, 1.95, 2.0, 2.5])
@pytest.mark.parametrize("goes_on", [False, True])
def test_a_wait_that_ran_out_while_there_was_no_connection(lost_at: float, goes_on: bool) -> None:
    machine = reading(batch(A, tail=1), wait=2)
    events_of(machine)
    machine.connection_lost(1, lost(), lost_at)
    assert retry_in(machine).delay == 0.1
    again = lost_at + 0.1
    machine.handle_timeout(again)
    # Whether nothing came meanwhile only the service knows.
    query = query_of(answer(machine, batch(B, 1, tail=2) if goes_on else heartbeat(1), now=again))
    assert query == {"seq_num": "1", "wait": "1" if again < 2 else "0"}
    if goes_on:
        assert payloads(events_of(machine)) == [b"b"]
        machine.receive_eof(2, again)
        events_of(machine)
        # From a record on there is all of it.
        assert query_of(opened_by(machine, again)) == {"seq_num": "2", "wait": "2"}
        return
    machine.receive_eof(2, again)
    assert events_of(machine)[-1] == SessionEnded(None)
    assert machine.stats.frames == 1


def test_a_wait_that_is_over_when_the_service_says_that_nothing_came() -> None:
    # Asked to wait for nothing at the tail, it answers so.
    machine = reading(batch(A, tail=1), wait=2)
    events_of(machine)
    machine.connection_lost(1, lost(), 2.5)
    events_of(machine)
    machine.handle_timeout(2.6)
    machine.data_to_send(2.6)
    machine.receive_response(2, 416, JSON, 2.6)
    machine.receive_data(2, b'{"tail":{"seq_num":1,"timestamp":5}}', 2.6)
    machine.receive_eof(2, 2.6)
    assert events_of(machine) == [SessionEnded(None)]


def test_a_wait_does_not_end_well_without_a_connection() -> None:
    machine = reading(batch(A, tail=1), wait=2, retry=Retry(max_attempts=2))
    events_of(machine)
    machine.connection_lost(1, lost(), 1.95)
    events_of(machine)
    machine.handle_timeout(2.05)
    machine.data_to_send(2.05)
    error = lost()
    machine.connection_lost(2, error, 2.1)
    assert events_of(machine) == [SessionEnded(error)]


@pytest.mark.parametrize("lost_at", [5, 20, 29])
@pytest.mark.parametrize("comes_after", [0, 1])
def test_a_record_after_a_loss_starts_the_whole_wait_anew(lost_at: int, comes_after: int) -> None:
    world = numbered_world()
    client = world.join_read(make(wait=30))
    pass_time(client, lost_at)
    client.lose(lost())
    pass_time(client, comes_after)
    append(world, *A)
    came_at = world.now
    world.run(lambda: client.machine.is_over)
    assert payloads(client.events)[-1] == b"a"
    assert client.events[-1] == SessionEnded(None)
    # The service was asked to wait for the rest only, and counts that from the record.
    assert came_at + 30 - 1 <= world.now <= came_at + 30 + 1.2


def test_a_service_that_does_not_wait_is_not_asked_again() -> None:
    machine = reading(heartbeat(0), wait=30)
    events_of(machine)
    machine.connection_lost(1, lost(), 10.0)
    events_of(machine)
    answer(machine, heartbeat(0), now=wait(machine))
    machine.receive_eof(2, 10.2)
    events = events_of(machine)
    assert events[-1] == SessionEnded(None)


# A time beyond the last record


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("options", [{}, {"end": 9}, {"until": 10**15}, {"limit": 4}], ids=str)
def test_a_time_beyond_the_last_record_ends_at_the_tail(
    count: int, options: dict[str, Any]
) -> None:
    world = numbered_world(count)
    machine = make(timestamp=10**14, **options)
    client = read_to_the_end(world, machine)
    assert client.events == [SessionEnded(None)]
    assert machine.checkpoint().read_from == machine.checkpoint().seen_through == count
    append(world, *A)
    assert payloads(read_to_the_end(world, make(start=machine.checkpoint())).events) == [b"a"]


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("options", [{"follow": True, "limit": 2}, {"wait": 3}], ids=str)
def test_a_time_beyond_the_last_record_follows_from_the_tail_on(
    count: int, options: dict[str, Any]
) -> None:
    world = numbered_world(count)
    client = world.join_read(make(timestamp=10**14, **options))
    pass_time(client, 1.0)
    assert payloads(client.events) == []
    assert not client.machine.is_over
    # As from the tail: also what is of an earlier time.
    append(world, *A)
    pass_time(client, 1.0)
    append(world, *B)
    world.run(lambda: client.machine.is_over)
    assert payloads(client.events) == [b"a", b"b"]
    assert client.events[-1] == SessionEnded(None)


@pytest.mark.parametrize("timestamp", [0, 5])
def test_a_time_on_an_empty_stream_leaves_a_checkpoint(timestamp: int) -> None:
    world = World()
    machine = make(timestamp=timestamp)
    assert read_to_the_end(world, machine).events == [SessionEnded(None)]
    append(world, *A)
    checkpoint = machine.checkpoint()
    assert (checkpoint.read_from, checkpoint.seen_through) == (0, 0)
    assert payloads(read_to_the_end(world, make(start=checkpoint)).events) == [b"a"]


# Trimmed streams


def resumed_after_trim(before: int, **more: Any) -> tuple[World, ReadProtocol]:
    """A session that goes on at 2 in a stream of 5 messages and one command."""
    world = numbered_world()
    first = read_to_the_end(world, make(limit=2))
    append(world, trim(before))
    return world, make(start=first.machine.checkpoint(), **more)


def test_a_stream_that_was_trimmed_below_a_checkpoint() -> None:
    world, machine = resumed_after_trim(4)
    client = read_to_the_end(world, machine)
    gap = client.events[0]
    assert gap == GapDetected(2, 4)
    assert payloads(client.events) == [b"4"]
    assert isinstance(gap, GapDetected)
    assert gap.is_loss
    assert machine.stats.gaps == 1


def test_a_stream_that_was_trimmed_up_to_the_checkpoint_has_no_gap() -> None:
    world, machine = resumed_after_trim(2)
    client = read_to_the_end(world, machine)
    assert machine.stats.gaps == 0
    assert payloads(client.events) == [b"2", b"3", b"4"]


def test_who_starts_at_0_wants_the_first_there_is() -> None:
    world = numbered_world()
    append(world, trim(3))
    client = read_to_the_end(world, make())
    assert client.events[0] == GapDetected(0, 3, is_loss=False)
    assert client.machine.checkpoint().is_begun
    assert payloads(client.events) == [b"3", b"4"]


def test_a_follower_of_a_stream_of_which_nothing_is_left() -> None:
    world, machine = resumed_after_trim(2**64 - 1, follow=True)
    client = world.join_read(machine)
    pass_time(client, 1.0)
    assert client.events[0] == GapDetected(2, 6)
    assert isinstance(client.events[1], CaughtUp)


def test_a_frame_that_was_trimmed_while_the_connection_was_lost() -> None:
    world = World()
    append(world, *frame([b"a", b"b", b"c", b"d"], seq=0, writer="w")[:2])
    client = world.join_read(make(follow=True))
    pass_time(client, 1.0)
    append(world, chunk(b"c", seq=2, writer="w"), chunk(b"d", seq=3, writer="w"), trim(3))
    client.lose(lost())
    pass_time(client, 1.0)
    dropped, gap, orphan = [
        event for event in client.events if isinstance(event, (FrameDropped, GapDetected))
    ]
    assert isinstance(dropped, FrameDropped)
    assert (dropped.reason, dropped.start) == (DropReason.TRIMMED, 0)
    assert gap == GapDetected(2, 3)
    assert isinstance(orphan, FrameDropped)
    assert (orphan.reason, orphan.start) == (DropReason.ORPHAN, 3)


# Whole sessions

sizes = st.lists(st.integers(1, 40) | st.sampled_from([1_048_478]), max_size=6)
sessions = st.sampled_from(
    [{}, {"follow": True}, {"limit": 2}, {"end": 3}, {"end": 3, "follow": True}, {"wait": 5}]
)


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=True), sizes, sessions, st.lists(st.integers(0, 30), max_size=6))
def test_whatever_is_lost_a_session_hands_out_the_same(
    random: Random, sizes_: list[int], chosen: dict[str, Any], losses: list[int]
) -> None:
    world = World(random_cut(random))
    messages = [bytes([i + 1]) * size for i, size in enumerate(sizes_)]
    put(world, messages)
    client = world.join_read(make(**chosen))
    lose_again_and_again(client, losses)
    machine = client.machine
    never_ends = "follow" in chosen and len(ends_of(messages)) == sum(
        end <= chosen.get("end", end) for end in ends_of(messages)
    )
    if never_ends:
        world.run(lambda: machine.caught_up is not None or machine.is_over)
    else:
        world.run(lambda: machine.is_over)
        assert client.events[-1] == SessionEnded(None)
    ends = ends_of(messages)
    whole = [m for m, end in zip(messages, ends, strict=True) if end <= chosen.get("end", end)]
    assert payloads(client.events) == whole[: chosen.get("limit", len(whole))]
    assert client.events.count(SessionEnded(None)) <= 1


def put(world: World, messages: list[bytes]) -> None:
    """Append the messages, in records of at most 1 MB."""
    for i, message in enumerate(messages):
        bodies = [message[at : at + 1_000_000] for at in range(0, len(message), 1_000_000)]
        for record in frame(bodies, seq=100 * i, writer="w"):
            append(world, record)


def lose_again_and_again(client: Client[ReadProtocol], losses: list[int]) -> None:
    """Lose the connection after so many turns each."""
    machine = client.machine
    for turns in losses:
        for _ in range(turns):
            if not machine.is_over and machine.caught_up is None:
                client.world.turn()
        if not machine.is_over:
            client.lose(lost())
            while client.step():
                pass


def ends_of(messages: list[bytes]) -> list[int]:
    """The sequence numbers after each message."""
    ends, at = [], 0
    for message in messages:
        at += 1 if len(message) <= 1_000_000 else 2
        ends.append(at)
    return ends


def test_other_records_are_told_once() -> None:
    world = World()
    append(world, Record(b"x", ((b"own", b"1"),)), *A)
    client = world.join_read(make(follow=True))
    pass_time(client, 1.0)
    client.lose(lost())
    pass_time(client, 1.0)
    assert client.machine.stats.other_records == 1
