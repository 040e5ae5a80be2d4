"""What an append session does when an attempt fails."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from drive import TARGET, Client, World, random_cut
from frames import make_ack, numbered, place
from s2frames.append import AppendProtocol, AppendState
from s2frames.chunking import MAX_CHUNK_BODY_BYTES
from s2frames.errors import (
    CertificateError,
    ConnectError,
    FencingTokenMismatch,
    LocalProtocolError,
    Outcome,
    RemoteProtocolError,
    S2FramesError,
    SeqNumMismatch,
    ServiceError,
    TransportError,
    WriterConflict,
)
from s2frames.events import DuplicateDropped, FrameReceived, FramesDurable
from s2frames.read import ReadProtocol
from s2frames.records import MAX_BATCH_BYTES, Record, SequencedRecord, fence, trim
from s2frames.retry import Retry
from s2frames.s2s import encode_message, encode_terminal
from s2frames.session import (
    Action,
    CloseRequest,
    EndData,
    OpenRequest,
    Retrying,
    SendData,
    SessionEnded,
)
from s2frames.settings import AppendSettings, ReadSettings
from s2frames.wire import ReadBatch, decode_append_input, encode_append_ack, encode_read_batch
from s2frames.writer_state import WriterState

SESSION = {"content-type": "s2s/proto"}
PROTOBUF = {"content-type": "application/protobuf"}
JSON = {"content-type": "application/json"}

# Fills a batch.
BIG = bytes(MAX_CHUNK_BODY_BYTES)

# The delays are those without chance: 0.1, 0.2, 0.4, 0.8 and then 1 second.
DELAYS = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def make(**options: Any) -> AppendProtocol:
    return AppendProtocol(TARGET, AppendSettings(**options), random=lambda: 0.0)


def lost() -> TransportError:
    return TransportError("the cable was cut")


def refused() -> ConnectError:
    return ConnectError("connection refused")


def acks(*sizes: int, start: int = 0, advice: bool = False) -> bytes:
    """The acks of batches of so many records; the last one with the wish for a reconnect."""
    answer = b""
    for i, size in enumerate(sizes, 1):
        message = bytearray(b"".join(encode_message(encode_append_ack(make_ack(start, size)))))
        if advice and i == len(sizes):
            message[3] |= 0x10
        answer += message
        start += size
    return answer


def terminal(status: int, code: str) -> bytes:
    return encode_terminal(status, json.dumps({"code": code, "message": "no"}).encode())


def mismatch(expected: int) -> bytes:
    return encode_terminal(412, b'{"seq_num_mismatch":%d}' % expected)


def fenced(token: str) -> bytes:
    return encode_terminal(412, b'{"fencing_token_mismatch":"%s"}' % token.encode())


def buffers(actions: list[Action]) -> list[bytes]:
    return [part for action in actions if isinstance(action, SendData) for part in action.data]


def wires(actions: list[Action]) -> list[bytes]:
    """The batches that a session sends: every other buffer."""
    return buffers(actions)[1::2]


def matches(actions: list[Action]) -> list[int | None]:
    return [decode_append_input(wire).match_seq_num for wire in wires(actions)]


def opening(actions: list[Action]) -> OpenRequest:
    (action,) = [action for action in actions if isinstance(action, OpenRequest)]
    return action


class Line:
    """A session whose peer and transport are the test."""

    def __init__(self, *payloads: bytes, **options: Any) -> None:
        self.machine = make(**options)
        self.now = 0.0
        self.events: list[Any] = []
        self.sent: list[Action] = []
        if payloads:
            self.machine.send_many(list(payloads), now=0.0)
            self.machine.flush()
            self.push()

    @property
    def request(self) -> int:
        operation = self.machine._operation
        return self.machine._request_id if operation is None else operation._request_id

    @property
    def state(self) -> AppendState:
        return self.machine.state

    def push(self) -> list[Action]:
        """Do what is asked; the transport takes all."""
        self.sent = self.machine.data_to_send(self.now)
        for action in self.sent:
            if isinstance(action, SendData):
                size = sum(map(len, action.data))
                self.machine.bytes_accepted(action.request_id, size, self.now)
        self.take()
        return self.sent

    def take(self) -> None:
        self.events += self.machine.events_received()

    def answer(self, data: bytes = b"", *, ends: bool = False) -> list[Action]:
        """The service answers in a session; gives what the machine does then."""
        number = self.request
        self.machine.receive_response(number, 200, SESSION, self.now)
        return self.more(data, ends=ends)

    def more(self, data: bytes, *, ends: bool = False) -> list[Action]:
        number = self.request
        self.machine.receive_data(number, data, self.now)
        if ends:
            self.machine.receive_eof(number, self.now)
        return self.push()

    def reply(
        self, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> list[Action]:
        """The service answers without a session."""
        number = self.request
        self.machine.receive_response(number, status, headers or JSON, self.now)
        self.machine.receive_data(number, body, self.now)
        self.machine.receive_eof(number, self.now)
        return self.push()

    def lose(self, error: S2FramesError | None = None) -> list[Action]:
        self.machine.connection_lost(self.request, error or lost(), self.now)
        return self.push()

    def wait(self) -> list[Action]:
        """The time comes that the machine waits for."""
        wait = self.machine.next_timeout()
        assert wait is not None
        self.now = max(self.now, wait)
        self.machine.handle_timeout(self.now)
        return self.push()

    def retry(self, error: S2FramesError | None = None) -> list[Action]:
        """The connection is lost and the next attempt begins."""
        self.lose(error)
        assert self.state is AppendState.WAITING
        return self.wait()

    def retry_preparing(self) -> None:
        """The same, while it asks for the tail."""
        self.lose()
        assert self.state is AppendState.PREPARING
        self.wait()
        assert opening(self.sent).request.url.endswith("/records/tail")

    @property
    def durable(self) -> list[int]:
        durable = [event for event in self.events if isinstance(event, FramesDurable)]
        return [n for e in durable for n in range(e.first_frame, e.first_frame + e.num_frames)]

    @property
    def places(self) -> list[tuple[int, int]]:
        durable = [event for event in self.events if isinstance(event, FramesDurable)]
        return [(a.start, a.end) for event in durable for a in event.all_appended()]

    @property
    def retries(self) -> list[Retrying]:
        return [event for event in self.events if isinstance(event, Retrying)]

    @property
    def error(self) -> S2FramesError:
        """The error that ended the session."""
        last = self.events[-1]
        assert isinstance(last, SessionEnded)
        assert last.error is not None
        assert self.state is AppendState.FAILED
        assert self.machine.next_timeout() is None
        with pytest.raises(LocalProtocolError, match="closed"):
            self.machine.send(b"late", now=self.now)
        return last.error


# What is sent again


MESSAGES = [b"a", BIG, bytes(2_500_000), b"b" * 9, b"c"]


@pytest.mark.parametrize("num_acked", [0, 1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"match_seq_num": 3}, {"burst_batches": 9}])
def test_what_is_unacked_is_sent_again_byte_for_byte_and_in_order(
    num_acked: int, options: dict[str, Any]
) -> None:
    line = Line(**options)
    line.machine.send(b"first", ((b"k", b"v"),), 77, now=0.0)
    line.machine.send_many(MESSAGES, now=0.0)
    line.machine.flush()
    sent = wires(line.push())
    sizes = [len(decode_append_input(wire).records) for wire in sent]
    assert len(sizes) > 3
    line.answer(acks(*sizes[:num_acked], start=3))
    for attempt in (1, 2, 3):
        # Nothing that was accepted meanwhile comes before it.
        line.machine.send(b"late", now=line.now)
        is_in_doubt = options.get("burst_batches") and (attempt > 1 or not num_acked)
        again = wires(line.retry())
        known = sent[num_acked:][: 1 if is_in_doubt else None]
        assert again[: len(known)] == known
        # They are the very same objects: nothing was copied to be kept.
        assert all(new is old for new, old in zip(again, known, strict=False))
        sent += again[len(known) :]


def test_an_append_of_one_batch_is_sent_again_as_it_was() -> None:
    line = Line(BIG, b"b", burst_batches=1)
    (sent,) = buffers(line.sent)
    (again,) = buffers(line.retry())
    assert again is sent
    line.reply(200, encode_append_ack(make_ack(0, 1)), PROTOBUF)
    assert line.durable == [0]
    assert buffers(line.sent) != [sent]


# A body that was cut on the way, while the way back is whole, is a bad frame.
@pytest.mark.parametrize(("status", "code"), [(500, "other"), (400, "bad_frame")])
def test_acks_before_a_terminal_message_are_not_sent_again(status: int, code: str) -> None:
    line = Line(BIG, BIG, BIG)
    sent = wires(line.sent)
    line.answer(acks(1, 1) + terminal(status, code))
    assert line.state is AppendState.WAITING
    assert line.durable == [0, 1]
    assert wires(line.wait()) == sent[2:]


@pytest.mark.parametrize("burst_batches", [None, 1, 3])
@pytest.mark.parametrize("is_answered", [True, False])
def test_a_clean_end_with_unacked_batches_is_a_loss(
    burst_batches: int | None, is_answered: bool
) -> None:
    line = Line(BIG, BIG, burst_batches=burst_batches)
    if is_answered:
        line.machine.receive_response(1, 200, PROTOBUF if burst_batches == 1 else SESSION, 0.0)
    line.machine.receive_eof(1, 0.0)
    line.push()
    if burst_batches == 1 and is_answered:
        assert isinstance(line.error, RemoteProtocolError)
        return
    (event,) = line.events
    assert isinstance(event, Retrying)
    assert type(event.error) is TransportError
    assert "unacked" in str(event.error)
    assert wires(line.wait()) or burst_batches == 1


@pytest.mark.parametrize("cut", range(1, len(acks(1))))
def test_an_end_inside_an_ack_is_a_loss(cut: int) -> None:
    line = Line(BIG, BIG)
    line.answer(acks(1) + acks(1, start=1)[:cut], ends=True)
    assert line.durable == [0]
    assert type(line.retries[0].error) is TransportError


def test_a_session_with_nothing_unacked_loses_nothing() -> None:
    # However short its patience, and however long nothing is sent.
    line = Line(b"a", retry=Retry(max_attempts=1))
    line.answer(acks(1))
    line.lose()
    assert (line.state, line.retries) == (AppendState.IDLE, [])
    assert line.sent == [CloseRequest(1)]
    assert line.machine.next_timeout() is None
    line.now = 1000.0
    line.machine.send(b"b", now=line.now)
    action = opening(line.push())
    assert (action.request_id, action.on_new_connection) == (2, True)
    line.answer(acks(1, start=1))
    line.more(b"", ends=True)
    line.machine.close()
    line.push()
    assert line.events[-1] == SessionEnded(None)
    assert line.durable == [0, 1]


def test_the_patience_for_a_failure_does_not_begin_with_an_idle_loss() -> None:
    line = Line(b"a")
    line.answer(acks(1))
    line.lose()
    line.now = 1000.0
    line.machine.send(b"b", now=line.now)
    line.push()
    line.lose()
    assert line.retries[-1].attempts == 1
    assert line.state is AppendState.WAITING


# Bursts


@pytest.mark.parametrize("error", [lost(), refused()])
def test_after_a_burst_without_an_answer_one_batch_goes_alone(error: S2FramesError) -> None:
    line = Line(BIG, BIG, BIG, burst_batches=3)
    sent = wires(line.sent)
    for _ in range(2):
        assert wires(line.retry(error)) == sent[:1]
        assert EndData(line.request) in line.sent
    assert wires(line.answer(acks(1), ends=True)) == sent[1:]


def test_an_answer_without_an_ack_is_none() -> None:
    line = Line(BIG, BIG, burst_batches=3)
    sent = wires(line.sent)
    line.answer()
    assert wires(line.retry()) == sent[:1]


@pytest.mark.parametrize("body", [acks(1), terminal(503, "unavailable")])
def test_after_a_burst_with_an_answer_everything_goes_again(body: bytes) -> None:
    line = Line(BIG, BIG, BIG, burst_batches=3)
    sent = wires(line.sent)
    line.answer(body)
    if line.state is not AppendState.WAITING:
        line.lose()
    assert wires(line.wait()) == sent[len(line.durable) :]


def test_each_burst_has_its_own_answer() -> None:
    line = Line(BIG, BIG, BIG, burst_batches=3)
    sent = wires(line.sent)
    line.answer(acks(1))
    assert wires(line.retry()) == sent[1:]
    # The ack was for the burst before.
    assert wires(line.retry()) == sent[1:2]


def test_after_an_error_in_place_of_a_burst_everything_goes_again() -> None:
    line = Line(BIG, BIG, BIG, burst_batches=3)
    sent = wires(line.sent)
    line.reply(503, b"<html>")
    assert wires(line.wait()) == sent


def test_a_duplex_session_sends_everything_again() -> None:
    line = Line(BIG, BIG, BIG)
    sent = wires(line.sent)
    assert wires(line.retry()) == sent


# How long to keep trying


def failures_until_the_end(line: Line, fail: Callable[[Line], object]) -> list[float]:
    """When each attempt failed, the last one included."""
    failed_at = []
    while line.state is not AppendState.FAILED:
        fail(line)
        failed_at.append(line.now)
        if line.state is AppendState.WAITING:
            line.wait()
    return failed_at


def test_a_session_keeps_trying_for_a_minute() -> None:
    line = Line(b"a")
    line.answer(acks(1))
    line.machine.send(b"b", now=0.0)
    line.push()
    failed_at = failures_until_the_end(line, lambda line: line.lose())
    gaps = [after - before for before, after in itertools.pairwise(failed_at)]
    assert gaps[:6] == pytest.approx(DELAYS)
    assert set(map(round, gaps[4:])) == {1}
    assert 59 <= failed_at[-1] <= 60
    error = line.error
    assert error.attempts == len(failed_at)
    assert [event.attempts for event in line.retries] == list(range(1, len(failed_at)))
    assert [event.delay for event in line.retries] == pytest.approx(gaps)
    assert (error.outcome, error.durable_messages) == (Outcome.UNKNOWN, 1)
    assert str(error) == (
        f"the cable was cut; tried {len(failed_at)} times; 1 message durable, more may be"
    )


def test_a_wrong_address_is_told_after_three_seconds() -> None:
    line = Line(b"a")
    failed_at = failures_until_the_end(line, lambda line: line.lose(refused()))
    assert 2 <= failed_at[-1] <= 3
    assert line.error.outcome is Outcome.NOT_APPLIED
    assert str(line.error).endswith("; 0 messages durable")


@pytest.mark.parametrize("answer", [b"", acks(2)])
def test_a_right_address_is_given_a_minute(answer: bytes) -> None:
    line = Line(b"a", b"b")
    line.answer(answer)
    line.machine.send(b"c", now=0.0)
    line.machine.flush()
    line.push()
    line.lose()
    line.wait()
    failed_at = failures_until_the_end(line, lambda line: line.lose(refused()))
    assert 58 <= failed_at[-1] <= 60


def test_an_address_that_told_the_tail_is_right() -> None:
    line = Line(b"a", exclusive=True)
    line.reply(200, b'{"tail":{"seq_num":4,"timestamp":0}}')
    assert matches(line.sent) == [4]
    failed_at = failures_until_the_end(line, lambda line: line.lose(refused()))
    assert 58 <= failed_at[-1] <= 60


@pytest.mark.parametrize("max_attempts", [1, 2, 5])
def test_attempts_may_be_bounded(max_attempts: int) -> None:
    line = Line(b"a", retry=Retry(max_attempts=max_attempts))
    assert len(failures_until_the_end(line, lambda line: line.lose())) == max_attempts
    assert line.error.attempts == max_attempts


def test_an_ack_renews_the_patience() -> None:
    line = Line(*[BIG] * 40, retry=Retry(max_attempts=2), max_inflight_batches=2)
    for number in range(38):
        line.now += 50
        line.answer(acks(1, start=number))
        line.lose()
        assert line.retries[-1].attempts == 1
        line.wait()
    line.lose()
    assert line.error.attempts == 2
    assert line.error.durable_messages == 38


def test_a_head_of_an_answer_renews_nothing() -> None:
    line = Line(b"a", retry=Retry(max_attempts=2))
    for _ in range(2):
        line.answer()
        line.lose()
        if line.state is AppendState.WAITING:
            line.wait()
    assert line.error.attempts == 2


def test_the_service_may_ask_for_a_longer_wait() -> None:
    line = Line(b"a")
    body = b'{"code":"rate_limited","message":"no"}'
    line.reply(429, body, {**JSON, "retry-after-ms": "2500"})
    assert line.retries[0].delay == 2.5
    assert line.machine.next_timeout() == 2.5
    line.wait()
    # A shorter wait than its own is none.
    line.reply(429, body, {**JSON, "retry-after-ms": "1"})
    assert line.retries[1].delay == 0.2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"code":"bad_query","message":"no"}'),
        (403, b'{"code":"permission_denied","message":"no"}'),
        (404, b'{"code":"stream_not_found","message":"no"}'),
        (409, b'{"code":"stream_deletion_pending","message":"no"}'),
        (412, b'{"seq_num_mismatch":1}'),
        (412, b'{"fencing_token_mismatch":"x"}'),
        (422, b'{"code":"invalid","message":"no"}'),
        (501, b'{"code":"not_implemented","message":"no"}'),
    ],
)
@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_does_not_pass_is_not_tried_again(status: int, body: bytes, is_terminal: bool) -> None:
    line = Line(b"a", fencing_token="t")
    if is_terminal:
        line.answer(encode_terminal(status, body))
    else:
        line.reply(status, body)
    assert line.retries == []
    assert (line.error.attempts, line.error.durable_messages) == (1, 0)
    expected = Outcome.NOT_APPLIED if status < 500 else Outcome.UNKNOWN
    assert line.error.outcome is expected


def test_a_certificate_is_not_tried_again() -> None:
    line = Line(b"a")
    line.lose(CertificateError("expired"))
    assert line.error.outcome is Outcome.NOT_APPLIED


def test_an_earlier_attempt_leaves_the_doubt_that_a_refusal_does_not() -> None:
    line = Line(b"a", b"b")
    line.retry()
    line.reply(404, b'{"code":"stream_not_found","message":"no"}')
    assert line.error.outcome is Outcome.UNKNOWN
    assert line.error.attempts == 2


def test_a_doubt_ends_with_the_ack_of_the_last_batch_that_was_in_doubt() -> None:
    line = Line(BIG)
    line.retry()
    line.machine.send_many([BIG] * 2, now=line.now)
    line.push()
    line.answer(acks(1) + terminal(404, "stream_not_found"))
    # Two batches are unacked, and neither was sent before.
    assert line.error.outcome is Outcome.NOT_APPLIED


@pytest.mark.parametrize("num_acked", [0, 1])
def test_a_doubt_lasts_until_the_last_batch_that_was_in_doubt_is_acked(num_acked: int) -> None:
    line = Line(BIG, BIG)
    line.retry()
    line.answer(acks(*[1] * num_acked) + terminal(404, "stream_not_found"))
    assert line.error.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("error", [refused(), ServiceError(429, "rate_limited", "no")])
def test_what_has_no_effect_leaves_no_doubt(error: S2FramesError) -> None:
    line = Line(b"a")
    line.retry(error)
    line.answer(terminal(404, "stream_not_found"))
    assert line.error.outcome is Outcome.NOT_APPLIED


# Without dedupe


UNSAFE = [
    lost(),
    ServiceError(500, "other", "no"),
    ServiceError(503, "unavailable", "no"),
    ServiceError(504, "upstream_timeout", "no"),
]
SAFE = [
    refused(),
    ServiceError(409, "transaction_conflict", "no"),
    ServiceError(429, "rate_limited", "no"),
    ServiceError(502, "hot_server", "no"),
    ServiceError(503, "server_draining", "no"),
]


@pytest.mark.parametrize("burst_batches", [None, 1, 3])
@pytest.mark.parametrize("error", [*UNSAFE, *SAFE], ids=str)
def test_without_dedupe_only_what_had_no_effect_is_tried_again(
    error: S2FramesError, burst_batches: int | None
) -> None:
    line = Line(BIG, BIG, dedupe=False, burst_batches=burst_batches)
    line.lose(error)
    if error in SAFE:
        assert line.state is AppendState.WAITING
    else:
        assert line.error.outcome is Outcome.UNKNOWN
        assert line.error.attempts == 1


@pytest.mark.parametrize("error", [*UNSAFE, *SAFE], ids=str)
def test_duplicates_may_be_allowed(error: S2FramesError) -> None:
    line = Line(BIG, BIG, dedupe=False, allow_duplicates=True)
    sent = wires(line.sent)
    assert wires(line.retry(error)) == sent


def test_without_dedupe_a_session_with_nothing_unacked_goes_on() -> None:
    line = Line(b"a", dedupe=False)
    line.answer(acks(1))
    line.lose()
    line.machine.send(b"b", now=0.0)
    line.push()
    line.answer(acks(1, start=1))
    assert line.durable == [0, 1]


def test_without_dedupe_acks_before_a_safe_terminal_are_not_sent_again() -> None:
    line = Line(BIG, BIG, BIG, dedupe=False)
    sent = wires(line.sent)
    line.answer(acks(1) + terminal(429, "rate_limited"))
    assert wires(line.wait()) == sent[1:]


# The service wishes another connection


def test_the_advice_is_followed_when_everything_sent_is_acked() -> None:
    line = Line(BIG, BIG, BIG)
    line.machine.send(b"late", now=0.0)
    line.machine.flush()
    # Nothing more goes over the old connection.
    assert line.answer(acks(1, advice=True)) == [EndData(1)]
    assert line.push() == []
    assert line.machine.next_timeout() == pytest.approx(5.0, abs=0.02)
    line.more(acks(1, start=1))
    assert line.sent == []
    actions = line.more(acks(1, start=2))
    assert actions[0] == CloseRequest(1)
    assert opening(actions).on_new_connection
    assert line.durable == [0, 1, 2]
    assert line.retries == []
    line.answer(acks(1, start=3))
    assert line.durable == [0, 1, 2, 3]


def test_the_advice_with_the_last_ack_is_followed_at_once() -> None:
    line = Line(b"a")
    assert line.answer(acks(1, advice=True)) == [CloseRequest(1)]
    assert line.state is AppendState.IDLE
    assert line.machine.next_timeout() is None
    line.machine.send(b"b", now=1.0)
    assert opening(line.push()).on_new_connection


def test_the_advice_in_a_burst() -> None:
    line = Line(BIG, BIG, BIG, burst_batches=2)
    line.answer(acks(1, advice=True))
    assert line.sent == []
    actions = line.more(acks(1, start=1))
    assert actions[0] == CloseRequest(1)
    assert opening(actions).on_new_connection
    line.answer(acks(1, start=2), ends=True)
    line.machine.send(b"b", now=1.0)
    assert not opening(line.push()).on_new_connection


def test_the_advice_is_followed_at_most_once_a_minute() -> None:
    line = Line(b"a", linger=0)
    line.answer(acks(1, advice=True))
    for number, now in enumerate((59.0, 59.9, 60.0, 119.9, 120.0), 1):
        line.now = now
        line.machine.send(b"b", now=now)
        line.push()
        is_open = line.machine._response.kind.name == "SESSION"
        advice = acks(1, start=number, advice=True)
        line.more(advice) if is_open else line.answer(advice)
        is_followed = now in (60.0, 120.0)
        assert (line.state is AppendState.IDLE) == is_followed


def test_the_advice_costs_nothing() -> None:
    line = Line(BIG, BIG, retry=Retry(max_attempts=1))
    line.answer(acks(1, advice=True))
    line.more(acks(1, start=1))
    assert line.state is AppendState.IDLE
    assert line.machine._budget.attempts == 1


def test_an_end_with_unacked_batches_after_the_advice_is_a_loss() -> None:
    line = Line(BIG, BIG)
    sent = wires(line.sent)
    line.answer(acks(1, advice=True))
    line.more(b"", ends=True)
    assert line.retries[-1].attempts == 1
    assert wires(line.wait()) == sent[1:]


def test_the_advice_while_closing_ends_the_session() -> None:
    line = Line(b"a")
    line.machine.close()
    line.push()
    assert line.answer(acks(1, advice=True)) == [CloseRequest(1)]
    assert line.events[-1] == SessionEnded(None)


def test_a_server_that_is_draining_costs_nothing() -> None:
    line = Line(b"a", retry=Retry(max_attempts=1))
    line.answer(terminal(503, "server_draining"))
    assert line.retries[-1].delay == 0.1
    assert opening(line.wait()).on_new_connection
    line.answer(terminal(503, "server_draining"))
    assert line.error.outcome is Outcome.NOT_APPLIED


def test_every_attempt_after_a_failure_is_on_a_new_connection() -> None:
    line = Line(b"a")
    assert not opening(line.sent).on_new_connection
    assert opening(line.retry()).on_new_connection
    line.answer(acks(1))


def test_so_is_every_attempt_of_what_a_session_asks_by_itself() -> None:
    line = Line(b"a", exclusive=True)
    assert not opening(line.sent).on_new_connection
    # Nothing comes of it.
    line.wait()
    assert opening(line.wait()).on_new_connection
    line.reply(200, TAIL % 7)
    # That one has answered.
    assert not opening(line.sent).on_new_connection


def test_a_question_leaves_no_connection_that_has_answered() -> None:
    line = Exclusive()
    line.retry()
    line.answer(mismatch(6))
    # The refusal came over the new one.
    assert not opening(line.sent).on_new_connection


def test_a_session_leaves_the_connection_that_its_last_question_failed_on() -> None:
    line = Exclusive()
    line.retry()
    line.answer(mismatch(6))
    line.wait()
    assert opening(line.wait()).on_new_connection


# While it waits


def test_what_is_accepted_while_it_waits_is_sent_after_it() -> None:
    line = Line(b"a")
    (sent,) = wires(line.sent)
    line.lose()
    line.machine.send(b"b", now=0.0)
    line.machine.flush()
    assert line.push() == []
    assert line.machine.is_due(0.0)
    assert not line.machine.is_drained
    again = wires(line.wait())
    assert again[0] is sent
    bodies = [record.body for wire in again for record in decode_append_input(wire).records]
    assert bodies == [b"a", b"b"]


def test_what_is_unacked_is_due_only_when_it_is_to_be_sent_again() -> None:
    line = Line(b"a")
    assert not line.machine.is_due(1e9)
    line.lose()
    assert line.machine.is_due(0.0)
    line.wait()
    assert not line.machine.is_due(1e9)


def test_it_waits_as_long_as_it_says() -> None:
    line = Line(b"a")
    line.lose()
    assert line.machine.next_timeout() == 0.1
    line.machine.handle_timeout(0.09)
    assert line.push() == []
    assert line.state is AppendState.WAITING
    line.now = 0.1
    line.machine.handle_timeout(0.1)
    assert opening(line.push()).request_id == 2


@pytest.mark.parametrize("is_answered", [True, False])
def test_an_interruption_is_a_loss_like_any_other(is_answered: bool) -> None:
    line = Line(b"a")
    if is_answered:
        line.answer()
    line.retry(TransportError("the append was interrupted"))
    line.answer(acks(1))
    line.machine.close()
    line.push()
    line.more(b"", ends=True)
    assert line.events[-1] == SessionEnded(None)


def test_closing_while_it_waits_sends_everything_first() -> None:
    line = Line(b"a")
    line.lose()
    line.machine.close()
    assert line.push() == []
    line.wait()
    line.answer(acks(1), ends=True)
    assert line.events[-1] == SessionEnded(None)


def test_aborting_while_it_waits() -> None:
    line = Line(b"a")
    line.lose()
    line.machine.abort()
    assert line.push() == []
    line.take()
    assert line.error.outcome is Outcome.UNKNOWN


# An exclusive writer


TAIL = b'{"tail":{"seq_num":%d,"timestamp":0}}'
OTHER = b'{"code":"other","message":"no"}'


def landed(*batches: bytes, start: int, timestamp: int = 9) -> list[SequencedRecord]:
    """The records of these batches, as they stand in the stream."""
    records = [record for wire in batches for record in decode_append_input(wire).records]
    return place([evolve(record, timestamp=timestamp) for record in records], start)


def read_answer(*records: SequencedRecord) -> bytes:
    return b"".join(
        b"".join(encode_message(encode_read_batch(ReadBatch([record])))) for record in records
    )


class Exclusive(Line):
    """An exclusive session that has sent two batches of one record and a third one of two."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"match_seq_num": 5, **options})
        self.machine.send_many([BIG, BIG[1:], b"c", b"d"], now=0.0)
        self.machine.flush()
        self.batches = wires(self.push())

    def stand(self, *records: SequencedRecord, expected: int | None = None) -> list[Action]:
        """Lose the connection; the resend is refused, and these records are read back."""
        self.retry()
        self.answer(mismatch(expected or records[-1].seq_num + 1))
        assert self.state is AppendState.RECONCILING
        return self.answer(read_answer(*records), ends=True)

    def query(self) -> str:
        return opening(self.sent).request.url.partition("?")[2]


def test_an_exclusive_session_starts_at_the_tail() -> None:
    line = Line(b"a", b"b", exclusive=True)
    action = opening(line.sent)
    assert action.request.method == "GET"
    assert action.request.url.endswith("/records/tail")
    assert line.state is AppendState.PREPARING
    # It is tried again like everything else.
    line.retry_preparing()
    line.machine.send(BIG, now=line.now)
    line.reply(200, TAIL % 7)
    assert matches(line.sent) == [7, 9]
    line.answer(acks(2, 1, start=7))
    assert line.durable == [0, 1, 2]
    line.machine.send(b"d", now=line.now)
    assert matches(line.push()) == [10]


def test_a_session_with_a_place_does_not_ask_for_the_tail() -> None:
    assert matches(Line(b"a", match_seq_num=3).sent) == [3]
    state = WriterState(writer_id="w", next_dedupe_seq=4, match_seq_num=6)
    assert matches(Line(b"a", resume=state).sent) == [6]
    assert matches(Line(b"a", resume=state, exclusive=True).sent) == [6]


def test_a_resumed_session_may_start_at_the_tail() -> None:
    state = WriterState(writer_id="w", next_dedupe_seq=4)
    line = Line(b"a", resume=state, exclusive=True)
    line.reply(200, TAIL % 2)
    (record,) = decode_append_input(wires(line.sent)[0]).records
    assert matches(line.sent) == [2]
    assert record.headers[2:] == numbered(4, "w")


def test_a_tail_that_leaves_no_room() -> None:
    line = Line(b"a", exclusive=True)
    line.reply(200, TAIL % (2**64 - 1))
    assert isinstance(line.error, LocalProtocolError)
    assert line.error.outcome is Outcome.NOT_APPLIED


def test_a_tail_that_is_not_told() -> None:
    line = Line(b"a", exclusive=True)
    line.reply(404, b'{"code":"stream_not_found","message":"no"}')
    assert isinstance(line.error, ServiceError)
    assert (line.error.outcome, line.error.durable_messages) == (Outcome.NOT_APPLIED, 0)
    pending = line.machine.pending()
    assert [m.payload for m in pending.messages] == [b"a"]
    assert pending.state is not None


@pytest.mark.parametrize("answer", [mismatch(6), mismatch(0), fenced("x")])
def test_a_condition_that_fails_without_a_doubt_is_final(answer: bytes) -> None:
    line = Exclusive(fencing_token="t")
    line.answer(answer)
    assert isinstance(line.error, SeqNumMismatch | FencingTokenMismatch)
    assert (line.error.outcome, line.error.attempts) == (Outcome.NOT_APPLIED, 1)
    assert [a for a in line.sent if isinstance(a, OpenRequest)] == []


def test_a_loss_that_had_no_effect_leaves_no_doubt() -> None:
    line = Exclusive()
    line.retry(refused())
    line.answer(mismatch(6))
    assert isinstance(line.error, SeqNumMismatch)
    assert line.error.outcome is Outcome.NOT_APPLIED


@pytest.mark.parametrize("expected", [0, 4, 5])
def test_a_stream_that_ends_before_the_batches_has_none_of_them(expected: int) -> None:
    line = Exclusive()
    line.retry()
    line.answer(mismatch(expected))
    assert isinstance(line.error, SeqNumMismatch)
    # The lost connection may still bring them in, when others have filled the places before.
    assert line.error.outcome is Outcome.UNKNOWN
    assert line.error.attempts == 2


@pytest.mark.parametrize("num_landed", [1, 2, 3])
def test_what_landed_is_durable_and_the_rest_is_sent(num_landed: int) -> None:
    line = Exclusive()
    records = landed(*line.batches[:num_landed], start=5)
    line.retry()
    assert wires(line.sent) == line.batches
    closed_and_read = line.answer(mismatch(5 + len(records)))
    assert closed_and_read[0] == CloseRequest(2)
    assert line.query() == f"seq_num=5&count={len(records)}"
    line.answer(read_answer(*records), ends=True)
    assert line.durable == list(range([1, 2, 4][num_landed - 1]))
    assert line.places == [(5 + n, 6 + n) for n in line.durable]
    if num_landed == 3:
        assert line.state is AppendState.IDLE
        line.machine.send(b"e", now=line.now)
        assert matches(line.push()) == [9]
        return
    # The rest has its place still: the very same bytes.
    assert all(a is b for a, b in zip(wires(line.sent), line.batches[num_landed:], strict=True))
    assert opening(line.sent).on_new_connection


def test_the_read_request_is_closed_before_the_next_one_opens() -> None:
    line = Exclusive()
    line.retry()
    line.answer(mismatch(6))
    number = line.request
    line.answer(read_answer(*landed(line.batches[0], start=5)))
    assert line.sent[0] == CloseRequest(number)
    assert opening(line.sent).request_id == number + 1


def test_trims_are_stepped_over_and_the_match_moves_on() -> None:
    line = Exclusive()
    trims = place([trim(0), trim(3)], 6)
    sent = line.stand(
        *landed(line.batches[0], start=5),
        *trims,
        *landed(line.batches[1], start=8),
        *place([trim(1)], 9),
    )
    assert line.durable == [0, 1]
    assert line.places == [(5, 6), (8, 9)]
    assert matches(sent) == [10]
    (new,) = wires(sent)
    assert decode_append_input(new).records == decode_append_input(line.batches[2]).records
    # It can no longer land where it was to be first.
    line.answer(mismatch(11))
    assert isinstance(line.error, SeqNumMismatch)
    assert line.error.outcome is Outcome.NOT_APPLIED


def test_a_trim_in_the_first_place() -> None:
    line = Exclusive()
    sent = line.stand(*place([trim(0)], 5))
    assert matches(sent) == [6, 7, 8]
    assert line.durable == []
    line.answer(acks(1, 1, 2, start=6))
    assert line.places == [(6, 7), (7, 8), (8, 9), (9, 10)]


def test_a_foreign_record_ends_the_session_after_our_prefix() -> None:
    line = Exclusive()
    line.stand(*landed(line.batches[0], start=5), *place([Record(b"foreign")], 6))
    error = line.error
    assert isinstance(error, SeqNumMismatch)
    assert error.expected == 7
    assert (error.outcome, error.durable_messages, error.attempts) == (Outcome.NOT_APPLIED, 1, 2)
    assert line.durable == [0]
    pending = line.machine.pending()
    assert [len(m.payload) for m in pending.messages] == [len(BIG) - 1, 1, 1]
    assert pending.state == WriterState(
        writer_id="aaaaaaaaaaaa", next_dedupe_seq=1, is_exclusive=True
    )


@pytest.mark.parametrize("command", [fence("x"), Record(b"", ((b"", b"trim"), (b"a", b"b")))])
def test_only_trims_are_stepped_over(command: Record) -> None:
    line = Exclusive()
    line.stand(*place([command], 5))
    assert isinstance(line.error, SeqNumMismatch)


@pytest.mark.parametrize("num_trims", [1, 2])
def test_trims_after_everything_landed_are_stepped_over(num_trims: int) -> None:
    line = Exclusive()
    line.stand(*landed(*line.batches, start=5), *place([trim(0)] * num_trims, 9))
    assert line.durable == [0, 1, 2, 3]
    line.machine.send(b"e", now=line.now)
    assert matches(line.push()) == [9 + num_trims]


@pytest.mark.parametrize("is_more", [True, False])
@pytest.mark.parametrize("record", [Record(b"x"), Record(b"x", numbered(3, "aaaaaaaaaaaa"))])
def test_somebody_else_after_everything_landed(record: Record, is_more: bool) -> None:
    line = Exclusive()
    line.retry()
    line.answer(mismatch(11))
    if is_more:
        line.machine.send(b"e", now=line.now)
    line.answer(read_answer(*landed(*line.batches, start=5), *place([record, trim(0)], 9)))
    assert line.durable == [0, 1, 2, 3]
    if is_more:
        assert isinstance(line.error, WriterConflict if record.headers else SeqNumMismatch)
        assert line.error.outcome is Outcome.NOT_APPLIED
        return
    # Nothing is left to send, so that it does not matter before there is.
    assert line.state is AppendState.IDLE
    line.machine.send(b"e", now=line.now)
    assert matches(line.push()) == [9]


@pytest.mark.parametrize("is_more", [True, False])
def test_a_trimmed_place_after_everything_landed(is_more: bool) -> None:
    line = Exclusive()
    line.retry()
    line.answer(mismatch(11))
    if is_more:
        line.machine.send(b"e", now=line.now)
    line.answer(read_answer(*landed(*line.batches, start=5)), ends=True)
    if is_more:
        assert isinstance(line.error, SeqNumMismatch)
        assert line.error.outcome is Outcome.NOT_APPLIED
    else:
        assert line.state is AppendState.IDLE


def other(record: SequencedRecord, **changes: Any) -> SequencedRecord:
    return evolve(record, **changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: other(r, body=bytes(len(r.body) - 1) + b"x"),
        lambda r: other(r, headers=(*r.headers, (b"own", b""))),
        lambda r: other(r, headers=r.headers[2:]),
        lambda r: other(r, headers=(*r.headers[:2], *numbered(9, "aaaaaaaaaaaa"))),
    ],
)
def test_other_bytes_under_our_id_are_a_conflict(change: Callable[[Any], Any]) -> None:
    line = Exclusive()
    line.stand(change(landed(line.batches[0], start=5)[0]))
    error = line.error
    assert isinstance(error, WriterConflict)
    assert "'aaaaaaaaaaaa'" in str(error)
    assert isinstance(error.__cause__, SeqNumMismatch)
    assert (error.outcome, error.attempts) == (Outcome.NOT_APPLIED, 2)


def test_the_same_bytes_of_another_writer_are_foreign() -> None:
    line = Exclusive()
    record = landed(line.batches[0], start=5)[0]
    line.stand(other(record, headers=(*record.headers[:3], (b"_writer_id", b"other"))))
    assert isinstance(line.error, SeqNumMismatch)


@pytest.mark.parametrize("is_followed", [True, False])
def test_a_part_of_a_batch_is_a_conflict(is_followed: bool) -> None:
    line = Exclusive()
    records = landed(*line.batches, start=5)[:3]
    line.stand(*records, *(place([Record(b"x")], 8) if is_followed else ()))
    assert isinstance(line.error, WriterConflict)
    assert line.durable == [0, 1]


def test_a_trim_inside_a_batch_is_a_conflict() -> None:
    line = Exclusive()
    line.stand(*landed(*line.batches, start=5)[:3], *place([trim(0)], 8))
    assert isinstance(line.error, WriterConflict)


@pytest.mark.parametrize(
    "gap",
    [
        lambda records: records[1:],
        lambda records: records[:1] + records[2:],
        lambda records: records[:1],
        lambda records: records[:0],
    ],
)
def test_what_was_trimmed_leaves_the_outcome_open(gap: Callable[[Any], Any]) -> None:
    line = Exclusive()
    line.stand(*gap(landed(*line.batches, start=5)), expected=9)
    error = line.error
    assert isinstance(error, SeqNumMismatch)
    assert error.outcome is Outcome.UNKNOWN
    assert line.machine.pending().state is None
    assert len(line.machine.pending().messages) == 4 - len(line.durable)


def test_a_trimmed_place_of_what_was_never_in_doubt_leaves_nothing_open() -> None:
    line = Line(BIG, match_seq_num=5)
    (batch,) = wires(line.sent)
    line.lose()
    line.machine.send(BIG, now=line.now)
    line.wait()
    line.answer(mismatch(7))
    line.answer(read_answer(*landed(batch, start=5)), ends=True)
    assert isinstance(line.error, SeqNumMismatch)
    assert (line.error.outcome, line.error.durable_messages) == (Outcome.NOT_APPLIED, 1)


def test_an_old_connection_that_still_drains() -> None:
    line = Exclusive()
    batches = [
        landed(wire, start=start) for wire, start in zip(line.batches, (5, 6, 7), strict=True)
    ]
    line.retry()
    # Between each answer and the next request the old connection brings in one more.
    for number, records in enumerate(batches):
        assert wires(line.sent) == line.batches[number:]
        line.answer(mismatch(records[-1].seq_num + 1))
        assert line.state is AppendState.RECONCILING
        line.answer(read_answer(*records), ends=True)
    assert line.places == [(5, 6), (6, 7), (7, 8), (8, 9)]
    assert line.state is AppendState.IDLE
    assert line.retries[1:] == []
    # Now nothing is in doubt.
    line.machine.send(b"e", now=line.now)
    line.push()
    line.answer(mismatch(10))
    assert line.error.outcome is Outcome.NOT_APPLIED


def test_a_batch_that_was_never_on_a_lost_connection_is_not_looked_for() -> None:
    line = Exclusive()
    line.retry()
    line.answer(acks(1, 1, 2, start=5))
    line.machine.send(b"e", now=line.now)
    line.push()
    line.more(mismatch(10))
    assert isinstance(line.error, SeqNumMismatch)
    assert line.error.durable_messages == 4


def test_losses_during_the_reading_back_are_tried_again() -> None:
    line = Exclusive()
    records = landed(*line.batches, start=5)
    line.retry()
    line.answer(mismatch(9))
    line.lose()
    assert line.sent == [CloseRequest(3)]
    assert line.wait() != []
    line.answer(read_answer(*records[:2]))
    # What was found is durable at once.
    assert line.durable == [0, 1]
    line.lose()
    line.wait()
    assert line.query() == "seq_num=7&count=2"
    line.reply(500, OTHER)
    line.wait()
    # A batch is compared over the losses.
    line.answer(read_answer(records[2]))
    line.lose()
    line.wait()
    assert line.query() == "seq_num=8&count=1"
    line.answer(read_answer(records[3]), ends=True)
    assert line.durable == [0, 1, 2, 3]
    assert line.state is AppendState.IDLE
    assert len(line.retries) == 5


def test_reading_back_is_given_a_minute_also_when_nobody_is_there() -> None:
    line = Exclusive()
    line.retry()
    line.answer(mismatch(9))
    started = line.now
    while line.state is AppendState.RECONCILING:
        line.lose(refused())
        if line.state is AppendState.RECONCILING:
            line.wait()
    assert 59 <= line.now - started <= 60
    assert line.error.outcome is Outcome.UNKNOWN
    assert line.error.durable_messages == 0
    assert line.machine.pending().state is None


def test_what_was_found_before_reading_back_failed_is_known() -> None:
    line = Exclusive()
    line.retry()
    line.answer(mismatch(9))
    line.answer(read_answer(*landed(line.batches[0], start=5)))
    line.lose(ServiceError(403, "permission_denied", "no"))
    assert line.durable == [0]
    assert (line.error.outcome, line.error.durable_messages) == (Outcome.UNKNOWN, 1)


def test_what_is_accepted_while_it_reads_back_comes_after_what_landed() -> None:
    line = Exclusive()
    line.retry()
    line.answer(mismatch(7))
    line.machine.send_many([b"e", b"f"], now=line.now)
    line.machine.flush()
    assert line.push() == []
    line.answer(read_answer(*landed(*line.batches[:2], start=5)), ends=True)
    assert matches(line.sent) == [7, 9]
    assert wires(line.sent)[0] is line.batches[2]
    line.answer(acks(2, 2, start=7))
    assert line.places == [(n, n + 1) for n in range(5, 11)]


def test_aborting_while_it_reads_back() -> None:
    line = Exclusive()
    line.retry()
    line.answer(mismatch(9))
    number = line.request
    line.machine.abort()
    assert line.push() == [CloseRequest(number)]
    assert line.error.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("burst_batches", [1, 2, 9])
def test_bursts_reconcile_too(burst_batches: int) -> None:
    line = Line(match_seq_num=5, burst_batches=burst_batches)
    line.machine.send_many([BIG, b"c"], now=0.0)
    line.push()
    sent = buffers(line.sent)[-1 if burst_batches == 1 else 1]
    line.retry()
    if burst_batches == 1:
        line.reply(412, b'{"seq_num_mismatch":6}')
    else:
        line.answer(mismatch(6))
    line.answer(read_answer(*landed(sent, start=5)), ends=True)
    assert line.durable == [0]
    assert decode_append_input(buffers(line.sent)[-1]).match_seq_num == 6


# A fencing token may hide what landed


def fenced_off(num_landed: int, *, is_closing: bool = False) -> Line:
    """An exclusive session that was fenced off after so many batches."""
    line = Exclusive(fencing_token="t")
    line.machine.close() if is_closing else None
    line.retry()
    line.answer(fenced("x"))
    assert line.state is AppendState.RECONCILING
    assert opening(line.sent).request.url.endswith("/records/tail")
    records = landed(*line.batches[:num_landed], start=5)
    end = 5 + len(records)
    line.reply(200, TAIL % (end + 1))
    assert line.query() == f"seq_num=5&count={len(records) + 1}"
    line.answer(read_answer(*records, *place([fence("x")], end)), ends=True)
    return line


@pytest.mark.parametrize("num_landed", [0, 1, 2])
def test_a_fence_ends_the_session_after_what_landed(num_landed: int) -> None:
    line = fenced_off(num_landed)
    error = line.error
    assert isinstance(error, FencingTokenMismatch)
    assert error.expected == "x"
    assert (error.outcome, error.durable_messages) == (Outcome.NOT_APPLIED, num_landed)
    assert line.durable == list(range(num_landed))


def test_a_fence_after_everything_landed_ends_a_session_that_closes_well() -> None:
    line = fenced_off(3, is_closing=True)
    assert line.events[-1] == SessionEnded(None)
    assert line.durable == [0, 1, 2, 3]


def test_a_fence_after_everything_landed_is_told_with_the_next_message() -> None:
    line = fenced_off(3)
    assert line.state is AppendState.IDLE
    line.machine.send(b"e", now=line.now)
    line.push()
    line.answer(fenced("x"))
    assert isinstance(line.error, FencingTokenMismatch)
    assert (line.error.outcome, line.error.durable_messages) == (Outcome.NOT_APPLIED, 4)


def test_a_fence_before_anything_landed_and_nothing_to_read() -> None:
    line = Exclusive(fencing_token="t")
    line.retry()
    line.answer(fenced("x"))
    line.reply(200, TAIL % 5)
    assert isinstance(line.error, FencingTokenMismatch)
    assert line.error.outcome is Outcome.NOT_APPLIED


def test_a_trim_between_our_batches_and_a_fence() -> None:
    line = Exclusive(fencing_token="t")
    line.retry()
    line.answer(fenced("x"))
    line.reply(200, TAIL % 7)
    line.answer(read_answer(*landed(line.batches[0], start=5), *place([trim(0)], 6)), ends=True)
    assert isinstance(line.error, FencingTokenMismatch)
    assert line.error.outcome is Outcome.NOT_APPLIED
    assert line.durable == [0]


def test_a_fence_and_a_trimmed_range() -> None:
    line = Exclusive(fencing_token="t")
    line.retry()
    line.answer(fenced("x"))
    line.reply(200, TAIL % 7)
    line.answer(b"", ends=True)
    assert isinstance(line.error, FencingTokenMismatch)
    assert line.error.outcome is Outcome.UNKNOWN


def test_a_writer_that_is_not_exclusive_cannot_tell_behind_a_fence() -> None:
    line = Line(b"a", fencing_token="t")
    line.retry()
    line.answer(fenced("x"))
    assert isinstance(line.error, FencingTokenMismatch)
    assert line.error.outcome is Outcome.UNKNOWN


# What is pending


def contents(line: Line) -> list[tuple[bytes, Any, int | None]]:
    return [(m.payload, m.headers, m.timestamp) for m in line.machine.pending().messages]


def spans(line: Line) -> list[tuple[int, int]]:
    return [(m.first_dedupe_seq, m.end_dedupe_seq) for m in line.machine.pending().messages]


LONG = bytes(2_500_000)
OWN = ((b"k", b"v"), (b"k", b""))


def mixed(**options: Any) -> Line:
    """A session that has sent all kinds of messages, in five batches."""
    line = Line(**{"writer_id": "w", "first_dedupe_seq": 10, **options})
    line.machine.send(b"a", OWN, 7, now=0.0)
    line.machine.send(LONG, OWN, 8, now=0.0)
    line.machine.send_many([b"b", BIG], now=0.0)
    line.machine.send(b"c", (), 9, now=0.0)
    line.machine.flush()
    sizes = [len(decode_append_input(wire).records) for wire in wires(line.push())]
    assert sizes == [1, 1, 1, 2, 1, 1]
    return line


ALL = [(b"a", OWN, 7), (LONG, OWN, 8), (b"b", (), None), (BIG, (), None), (b"c", (), 9)]
ALL_SPANS = [(10, 11), (11, 14), (14, 15), (15, 16), (16, 17)]


@pytest.mark.parametrize("phase", ["open", "waiting", "again", "failed", "later"])
@pytest.mark.parametrize(
    ("acked", "num_durable"),
    [([], 0), ([1], 1), ([1, 1], 1), ([1, 1, 1], 1), ([1, 1, 1, 2], 3), ([1, 1, 1, 2, 1, 1], 5)],
)
def test_what_is_pending_in_every_phase(phase: str, acked: list[int], num_durable: int) -> None:
    line = mixed()
    line.answer(acks(*acked))
    if phase == "later":
        line.machine.send_many([b"x", LONG, b"y"], now=0.0)
    elif phase != "open" and num_durable < 5:
        line.lose()
        if phase == "again":
            line.wait()
    if phase == "failed":
        line.machine.abort()
    more = [(b"x", (), None), (LONG, (), None), (b"y", (), None)] if phase == "later" else []
    assert contents(line) == ALL[num_durable:] + more
    more_spans = [(17, 18), (18, 21), (21, 22)] if phase == "later" else []
    expected = ALL_SPANS[num_durable:] + more_spans
    assert spans(line) == expected
    # The head of the frame that goes on is where to go on, though records of it are acked.
    first = expected[0][0] if expected else 17
    # All that was sent or may still be is in doubt.
    doubt = 22 if more else 17 if expected else 0
    assert line.machine.pending().state == WriterState(
        writer_id="w", next_dedupe_seq=first, in_doubt_until=doubt
    )
    # Looking changes nothing.
    assert spans(line) == expected


@pytest.mark.parametrize("num_acked", range(4))
@pytest.mark.parametrize("is_lost", [True, False])
def test_a_long_message_that_is_partly_acked_and_partly_cut(num_acked: int, is_lost: bool) -> None:
    line = Line(max_inflight_batches=2)
    line.machine.send_many([b"a", bytes(5_000_000), b"b"], now=0.0)
    line.push()
    assert len(wires(line.sent)) == 2
    line.answer()
    for number in range(num_acked):
        line.more(acks(1, start=number))
    if is_lost:
        line.lose()
    pending = line.machine.pending()
    assert [len(m.payload) for m in pending.messages] == [1, 5_000_000, 1][num_acked > 0 :]
    assert [m.first_dedupe_seq for m in pending.messages] == [0, 1, 6][num_acked > 0 :]
    assert pending.messages[-1].end_dedupe_seq == 7


def test_what_is_pending_without_dedupe() -> None:
    line = mixed(dedupe=False, writer_id=None, first_dedupe_seq=None)
    assert contents(line) == ALL
    assert line.machine.pending().state is None


def test_a_new_session_has_nothing_pending() -> None:
    pending = Line(writer_id="w", first_dedupe_seq=3).machine.pending()
    assert pending.messages == ()
    assert pending.state == WriterState(writer_id="w", next_dedupe_seq=3)


def test_where_an_exclusive_session_goes_on_is_known_when_it_is_over() -> None:
    line = Exclusive()
    assert line.machine.pending().state is None
    line.answer(acks(1, 1, 2, start=5))
    assert line.machine.pending().state is None
    line.machine.close()
    line.push()
    line.more(b"", ends=True)
    assert line.machine.pending().messages == ()
    state = line.machine.pending().state
    assert state == WriterState(writer_id="aaaaaaaaaaaa", next_dedupe_seq=4, is_exclusive=True)


def test_where_an_exclusive_session_goes_on_inside_a_message() -> None:
    line = Line(LONG, b"b", match_seq_num=0)
    line.answer(acks(1) + mismatch(7))
    assert line.error.outcome is Outcome.NOT_APPLIED
    pending = line.machine.pending()
    assert [len(m.payload) for m in pending.messages] == [len(LONG), 1]
    # What is in the stream of the first message will never be whole: it is sent as a new one.
    assert pending.state == WriterState(
        writer_id="aaaaaaaaaaaa",
        next_dedupe_seq=1,
        is_exclusive=True,
        last_frame_is_whole=False,
    )
    assert pending.after(pending.state) == pending.messages


def test_where_an_exclusive_session_goes_on_is_unknown_after_a_loss() -> None:
    line = Line(BIG, match_seq_num=0, retry=Retry(max_attempts=1))
    line.lose()
    assert line.error.outcome is Outcome.UNKNOWN
    assert line.machine.pending().state is None
    assert len(line.machine.pending().messages) == 1


# Whole sessions under faults


def join(world: World, **options: Any) -> Client[AppendProtocol]:
    machine = AppendProtocol(TARGET, AppendSettings(**options), random=Random(1).random)
    return world.join_append(machine, reads_while_sending="burst_batches" not in options)


def read_events(world: World) -> list[Any]:
    reader = world.join_read(ReadProtocol(TARGET, ReadSettings(), random=Random(2).random))
    world.run(lambda: reader.machine.is_over)
    assert reader.events[-1] == SessionEnded(None)
    return reader.events


def payloads_in(events: list[Any]) -> list[bytes]:
    return [event.payload for event in events if isinstance(event, FrameReceived)]


def places_in(client: Client[AppendProtocol]) -> list[tuple[int, int]]:
    events = [event for event in client.events if isinstance(event, FramesDurable)]
    return [(a.start, a.end) for event in events for a in event.all_appended()]


sizes = st.lists(st.sampled_from([5, 60, 700_000, 1_048_478, 2_200_000]), min_size=1, max_size=6)
bursts = st.sampled_from([{}, {"burst_batches": 1}, {"burst_batches": 2}, {"burst_batches": 5}])


def distinct(number: int, size: int) -> bytes:
    return b"%d/" % number + bytes(size)


@settings(max_examples=80)
@given(
    st.randoms(use_true_random=True),
    sizes,
    bursts,
    st.booleans(),
    st.sampled_from([0.02, 0.2]),
    st.booleans(),
)
def test_nothing_is_lost_or_doubled_however_often_the_connection_breaks(
    random: Random,
    message_sizes: list[int],
    options: dict[str, Any],
    exclusive: bool,
    rate: float,
    is_trimmed: bool,
) -> None:
    world = World(random_cut(random))
    client = join(
        world,
        exclusive=exclusive,
        max_inflight_bytes=MAX_BATCH_BYTES,
        retry=Retry(max_seconds=600),
        **options,
    )
    machine = client.machine
    messages = [distinct(n, size) for n, size in enumerate(message_sizes)]
    machine.send_many(messages, now=world.now)
    machine.close()
    num_losses = 0
    while machine.state is not AppendState.CLOSED:
        world.turn()
        assert machine.state is not AppendState.FAILED, client.events
        if num_losses < 30 and random.random() < rate:
            num_losses += 1
            is_in_doubt = bool(machine._batch_ends)
            client.lose(lost(), drains=is_in_doubt and random.random() < 0.5)
            if is_trimmed and exclusive and is_in_doubt and random.random() < 0.3:
                world.append(trim(0))
    assert client.events[-1] == SessionEnded(None)
    events = read_events(world)
    assert payloads_in(events) == messages
    frames = [event for event in events if isinstance(event, FrameReceived)]
    if exclusive:
        assert [(f.start, f.end) for f in frames] == places_in(client)
        assert not any(isinstance(event, DuplicateDropped) for event in events)
    assert machine.durable_messages == len(messages)


@settings(max_examples=60)
@given(st.randoms(use_true_random=True), sizes, bursts, st.integers(0, 60))
def test_a_session_that_goes_on_for_another_doubles_nothing(
    random: Random, message_sizes: list[int], options: dict[str, Any], num_turns: int
) -> None:
    world = World(random_cut(random))
    first = join(world, max_inflight_bytes=MAX_BATCH_BYTES, linger=0, **options)
    for n, size in enumerate(message_sizes):
        first.machine.send(distinct(n, size), ((b"n", b"%d" % n),), now=world.now)
    for _ in range(num_turns):
        if first.machine.durable_messages < len(message_sizes):
            world.turn()
    first.machine.abort()
    first.step()
    pending = first.machine.pending()
    assert len(pending.messages) == len(message_sizes) - first.machine.durable_messages
    second = join(world, resume=pending.state, max_inflight_bytes=MAX_BATCH_BYTES, **options)
    for m in pending.messages:
        second.machine.send(m.payload, m.headers, m.timestamp, now=world.now)
    second.machine.send(b"more", now=world.now)
    second.machine.close()
    world.run(lambda: second.machine.state is AppendState.CLOSED)
    events = read_events(world)
    expected = [distinct(n, size) for n, size in enumerate(message_sizes)]
    assert payloads_in(events) == [*expected, b"more"]
    own = [event.headers for event in events if isinstance(event, FrameReceived)]
    assert [header for headers in own for header in headers] == [
        (b"n", b"%d" % n) for n in range(len(expected))
    ]


@settings(max_examples=30)
@given(st.randoms(use_true_random=True), bursts, st.integers(1, 40), st.booleans())
def test_an_exclusive_session_ends_when_somebody_else_appends(
    random: Random, options: dict[str, Any], num_turns: int, is_lost: bool
) -> None:
    world = World(random_cut(random))
    client = join(world, exclusive=True, max_inflight_bytes=MAX_BATCH_BYTES, **options)
    machine = client.machine
    messages = [distinct(n, 1_000_000) for n in range(6)]
    machine.send_many(messages, now=world.now)
    machine.close()
    for _ in range(num_turns):
        if machine.state is not AppendState.CLOSED:
            world.turn()
    if is_lost:
        client.lose(lost())
    world.append(Record(b"foreign"))
    world.run(lambda: machine.state in (AppendState.CLOSED, AppendState.FAILED))
    client.step()
    received = payloads_in(read_events(world))
    assert received == messages[: machine.durable_messages]
    error = client.events[-1].error
    if error is None:
        assert received == messages
        return
    assert isinstance(error, SeqNumMismatch)
    assert error.outcome is Outcome.NOT_APPLIED
    assert [m.payload for m in machine.pending().messages] == messages[len(received) :]


def test_a_doubt_goes_on_in_the_next_session() -> None:
    line = Line(b"a", b"b", retry=Retry(max_attempts=1))
    line.lose()
    assert line.error.outcome is Outcome.UNKNOWN
    state = line.machine.pending().state
    assert state is not None
    assert state.in_doubt_until == 2
    # The next one is refused at once; what the first one sent may be there all the same.
    again = Line(b"a", b"b", resume=state)
    again.reply(404, b"{}")
    assert again.error.outcome is Outcome.UNKNOWN
    assert again.machine.pending().state == state


def test_a_doubt_ends_with_the_messages_that_it_was_about() -> None:
    state = WriterState(writer_id="w", next_dedupe_seq=0, in_doubt_until=1)
    line = Line(b"a", resume=state)
    line.answer(acks(1))
    line.machine.send(b"b", now=0.0)
    line.push()
    line.more(fenced("other"))
    assert line.error.outcome is Outcome.NOT_APPLIED


def test_an_attempt_may_take_longer_than_a_session_keeps_trying() -> None:
    line = Line()
    line.machine.send(BIG, now=0.0)
    actions = line.machine.data_to_send(0.0)
    size = sum(map(len, buffers(actions)))
    for second in range(1, 201):
        line.now = float(second)
        line.machine.handle_timeout(line.now)
        line.machine.bytes_accepted(1, size // 200, line.now)
    line.machine.connection_lost(1, lost(), line.now)
    # The time for trying again begins with the first failure.
    assert line.state is AppendState.WAITING
    assert [type(event) for event in line.machine.events_received()] == [Retrying]
