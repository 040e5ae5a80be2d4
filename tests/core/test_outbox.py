from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drive import TARGET
from frames import make_ack
from interruption import Interruption
from s2frames.append import AppendProtocol, AppendState
from s2frames.codecs import BYTES, JSON, TEXT, Codec
from s2frames.errors import (
    CodecError,
    FrameSizeError,
    LocalProtocolError,
    Outcome,
    S2FramesError,
    SeqNumMismatch,
    TransportError,
)
from s2frames.events import Appended, FramesDurable
from s2frames.outbox import Listener, Outbox, Ticket
from s2frames.retry import Retry
from s2frames.s2s import MessageDecoder, encode_message, encode_terminal
from s2frames.session import Retrying, SendData, SessionEnded
from s2frames.settings import AppendSettings
from s2frames.wire import decode_append_input, encode_append_ack

SESSION = {"content-type": "s2s/proto"}


class Line:
    """An append session, its outbox, and the service's end of it."""

    def __init__(self, codec: Codec[Any] = TEXT, **options: Any) -> None:
        self.protocol = AppendProtocol(TARGET, AppendSettings(**options), random=lambda: 0.5)
        self.outbox = Outbox(self.protocol, codec)
        self._decoder = MessageDecoder()
        self._tail = 0
        self._is_open = False

    def sent(self) -> list[int]:
        """Let out what waits; returns how many records each batch has."""
        self.protocol.flush()
        for action in self.protocol.data_to_send(0.0):
            if isinstance(action, SendData):
                self._decoder.receive_data(b"".join(action.data))
        batches = []
        while (message := self._decoder.next_message()) is not None:
            batches.append(len(decode_append_input(message.body).records))
        if batches and not self._is_open:
            self._is_open = True
            self.protocol.receive_response(1, 200, SESSION, 0.0)
        return batches

    def ack(self, num_records: int) -> None:
        """Answer a batch."""
        ack = encode_append_ack(make_ack(self._tail, num_records))
        self._tail += num_records
        self.protocol.receive_data(1, b"".join(encode_message(ack)), 0.0)

    def take(self) -> None:
        self.outbox.take(self.protocol.events_received())

    def deliver(self) -> None:
        """Make everything durable."""
        for num_records in self.sent():
            self.ack(num_records)
        self.take()


def put_all(listener: Listener[Any], messages: list[Any]) -> None:
    """Put messages as an adapter does that gathers them."""
    listener.draw_from(iter(messages))
    assert not listener.put_next(now=0.0, max_messages=100, max_bytes=10**9)


# Put


def test_messages_are_numbered_and_encoded() -> None:
    line = Line(JSON)
    assert line.outbox.put({"a": 1}, now=0.0) == 0
    assert line.outbox.put([], ((b"k", b"v"),), 7, now=0.0) == 1
    (action,) = [a for a in line.protocol.data_to_send(0.0) if isinstance(a, SendData)]
    first, second = decode_append_input(b"".join(action.data)[4:]).records
    assert (first.body, second.body) == (b'{"a":1}', b"[]")
    assert second.headers[-1] == (b"k", b"v")
    assert second.timestamp == 7


@pytest.mark.parametrize(
    ("codec", "message", "error"),
    [
        (JSON, object(), CodecError),
        (TEXT, 7, CodecError),
        (TEXT, "", FrameSizeError),
        (BYTES, bytes(11), FrameSizeError),
        (Codec(lambda _: bytes(-1), bytes), "x", CodecError),
    ],
)
def test_a_message_that_is_refused_leaves_the_session_as_it_was(
    codec: Codec[Any], message: object, error: type[S2FramesError]
) -> None:
    line = Line(codec, max_frame_bytes=10)
    with line.outbox.listening(None) as listener:
        with pytest.raises(error):
            listener.put(message, now=0.0)
        assert listener.is_durable
    with pytest.raises(error):
        line.outbox.put(message, now=0.0)
    assert line.protocol.is_drained
    assert line.sent() == []


def test_headers_that_are_refused() -> None:
    line = Line()
    with pytest.raises(LocalProtocolError, match="reserved"):
        line.outbox.put("a", ((b"_writer_id", b""),), now=0.0)
    assert line.outbox.put("a", now=0.0) == 0


# Watching


def test_where_a_watched_message_went() -> None:
    line = Line()
    for _ in range(3):
        line.outbox.put("x", now=0.0)
    frame = line.outbox.put("watched", now=0.0)
    with line.outbox.watching(frame):
        assert line.outbox.result(frame) is None
        line.outbox.take([])
        assert line.outbox.result(frame) is None
        line.deliver()
        assert line.outbox.result(frame) == Appended(3, 4)
        line.outbox.put("another", now=0.0)
        line.deliver()
        assert line.outbox.result(frame) == Appended(3, 4)


def test_several_messages_are_watched_at_once() -> None:
    line = Line()
    first, _, third = (line.outbox.put("x", now=0.0) for _ in range(3))
    with line.outbox.watching(third), line.outbox.watching(first):
        line.deliver()
        assert line.outbox.result(first) == Appended(0, 1)
        assert line.outbox.result(third) == Appended(2, 3)


@pytest.mark.parametrize("is_error", [False, True])
def test_what_is_no_longer_watched_is_forgotten(is_error: bool) -> None:
    line = Line()
    frame = line.outbox.put("x", now=0.0)
    if is_error:
        with pytest.raises(ZeroDivisionError), line.outbox.watching(frame):
            _ = 1 / 0
    else:
        with line.outbox.watching(frame):
            pass
    assert line.outbox._awaited == {}
    line.deliver()
    assert line.outbox._awaited == {}
    assert line.protocol.durable_messages == 1


# Errors


def test_the_error_that_ended_the_session_comes_out_everywhere() -> None:
    line = Line()
    first = line.outbox.put("first", now=0.0)
    with line.outbox.watching(first):
        (count,) = line.sent()
        second = line.outbox.put("second", now=0.0)
        with line.outbox.watching(second), line.outbox.listening(None) as listener:
            line.ack(count)
            terminal = encode_terminal(412, b'{"seq_num_mismatch":5}')
            line.protocol.receive_data(1, terminal, 0.0)
            line.outbox.check()
            line.take()
            # What was durable stays durable.
            assert line.outbox.result(first) == Appended(0, 1)
            raising: list[Callable[[], object]] = [
                lambda: line.outbox.result(second),
                lambda: line.outbox.put("third", now=0.0),
                lambda: listener.put("third", now=0.0),
                line.outbox.check,
            ]
            for call in raising:
                with pytest.raises(SeqNumMismatch) as caught:
                    call()
                assert caught.value.expected == 5
                assert caught.value.outcome is Outcome.NOT_APPLIED
                assert caught.value.durable_messages == 1


def test_each_call_raises_an_error_of_its_own_and_somebody_was_told() -> None:
    line = Line(retry=Retry(max_attempts=1))
    settled: list[Ticket] = []
    ticket = line.outbox.submit("a", now=0.0, on_settled=settled.append)
    watched = line.outbox.put("b", now=0.0)
    line.sent()
    line.protocol.connection_lost(1, TransportError("lost"), 0.0)
    with line.outbox.watching(watched):
        line.take()
        assert settled == [ticket]
        assert line.outbox.leave(None)
        calls: list[Callable[[], object]] = [
            ticket.result,
            lambda: line.outbox.result(watched),
            line.outbox.check,
            lambda: line.outbox.put("c", now=0.0),
            lambda: line.outbox.put_payloads([b"c"], now=0.0),
            lambda: line.outbox.put_payloads([b"c", b"d"], now=0.0),
            line.outbox.check_open,
            lambda: line.outbox.submit("c", now=0.0, on_settled=settled.append),
        ]
        raised = []
        for call in (*calls, *calls):
            with pytest.raises(
                TransportError, match=r"^lost; 0 messages durable, more may be$"
            ) as caught:
                call()
            raised.append(caught.value)
            assert not line.outbox.leave(None)
    assert len({id(error) for error in raised}) == len(raised)


@pytest.mark.parametrize("number", range(6))
def test_whoever_hears_of_the_end_first_was_told(number: int) -> None:
    line = Line(retry=Retry(max_attempts=1))
    ticket = line.outbox.submit("a", now=0.0, on_settled=lambda _: None)
    with line.outbox.watching(0), line.outbox.listening(None) as listener:
        line.sent()
        line.protocol.connection_lost(1, TransportError("lost"), 0.0)
        line.take()
        calls: list[Callable[[], object]] = [
            ticket.result,
            lambda: line.outbox.result(0),
            line.outbox.check,
            lambda: line.outbox.put("c", now=0.0),
            lambda: listener.put("c", now=0.0),
            lambda: put_all(listener, ["c"]),
        ]
        assert line.outbox.leave(None)
        with pytest.raises(TransportError, match=r"^lost; 0 messages durable, more may be$"):
            calls[number]()
        assert not line.outbox.leave(None)


def test_a_session_that_ended_well_takes_nothing_more() -> None:
    line = Line()
    line.protocol.close()
    line.protocol.data_to_send(0.0)
    line.take()
    line.outbox.check()
    with pytest.raises(LocalProtocolError, match="closed"):
        line.outbox.put("x", now=0.0)


# Listening


def test_a_series_is_told_of_in_order() -> None:
    line = Line(BYTES)
    heard: list[Appended] = []
    line.outbox.put(b"before", now=0.0)
    with line.outbox.listening(heard.append) as listener:
        assert listener.appended is None
        assert listener.is_durable
        for size in (1, 2_000_000, 1):
            listener.put(bytes(size), now=0.0)
            line.outbox.put(b"in between", now=0.0)
        assert not listener.is_durable
        line.deliver()
        assert listener.is_durable
        assert heard == []
        listener.tell()
    assert heard == [Appended(1, 2), Appended(3, 5), Appended(6, 7)]
    assert listener.appended == Appended(1, 7)
    # Afterwards nobody listens.
    line.outbox.put(b"after", now=0.0)
    line.deliver()
    assert len(heard) == 3


def test_a_series_becomes_durable_bit_by_bit() -> None:
    line = Line(BYTES)
    heard: list[Appended] = []
    with line.outbox.listening(heard.append) as listener:
        for _ in range(2):
            listener.put(bytes(700_000), now=0.0)
        counts = line.sent()
        assert counts == [1, 1]
        line.ack(1)
        line.take()
        listener.tell()
        assert heard == [Appended(0, 1)]
        assert listener.appended == Appended(0, 1)
        assert not listener.is_durable
        line.ack(1)
        line.take()
        assert listener.is_durable
    assert listener.appended == Appended(0, 2)


def test_a_series_of_none() -> None:
    line = Line()
    with line.outbox.listening(None) as listener:
        line.outbox.put("other", now=0.0)
        line.deliver()
        assert listener.is_durable
    assert listener.appended is None


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), max_size=30))
def test_everyone_hears_of_their_own(plan: list[tuple[int, int]]) -> None:
    line = Line()
    heard: dict[int, list[Appended]] = {0: [], 1: [], 2: []}
    put: dict[int, list[int]] = {0: [], 1: [], 2: []}
    with (
        line.outbox.listening(heard[0].append) as first,
        line.outbox.listening(heard[1].append) as second,
        line.outbox.listening(heard[2].append) as third,
    ):
        for who, num_times in plan:
            for _ in range(num_times):
                put[who].append(line.protocol.durable_messages + line_waiting(line))
                (first, second, third)[who].put("x", now=0.0)
            if num_times == 3:
                line.deliver()
        line.deliver()
        for listener in (first, second, third):
            assert listener.is_durable
            listener.tell()
    for who, places in heard.items():
        assert places == [Appended(at, at + 1) for at in put[who]]


def line_waiting(line: Line) -> int:
    """How many messages of one record are not durable yet."""
    writer = line.protocol._writer
    return writer.next_frame - line.protocol.durable_messages


class Deaf:
    """An `on_durable` that raises the first time."""

    def __init__(self) -> None:
        self.heard: list[Appended] = []
        self._has_raised = False

    def __call__(self, appended: Appended) -> None:
        if not self._has_raised:
            self._has_raised = True
            raise ZeroDivisionError
        self.heard.append(appended)


def test_a_listener_that_raises_hides_nothing_from_the_others() -> None:
    line = Line(retry=Retry(max_attempts=1))
    heard: list[Appended] = []
    deaf = Deaf()
    with (
        line.outbox.listening(deaf) as first,
        line.outbox.listening(heard.append) as second,
    ):
        for listener in (first, second, first):
            listener.put("x", now=0.0)
        (count,) = line.sent()
        line.ack(count)
        line.outbox.put("more", now=0.0)
        line.sent()
        line.protocol.connection_lost(1, TransportError("lost"), 0.0)
        line.take()
        with pytest.raises(ZeroDivisionError):
            first.tell()
        # The others hear of theirs, and how the session ended is known.
        second.tell()
        with pytest.raises(TransportError):
            line.outbox.check()
        # The one that raised hears no more.
        first.tell()
    assert heard == [Appended(1, 2)]
    assert deaf.heard == []


def test_what_is_durable_is_told_when_the_series_fails() -> None:
    line = Line(retry=Retry(max_attempts=1))
    heard: list[Appended] = []

    def put_some() -> None:
        with line.outbox.listening(heard.append) as listener:
            listener.put("x", now=0.0)
            (count,) = line.sent()
            line.ack(count)
            listener.put("y", now=0.0)
            line.sent()
            line.protocol.connection_lost(1, TransportError("lost"), 0.0)
            line.take()
            line.outbox.check()

    with pytest.raises(TransportError, match="lost"):
        put_some()
    assert heard == [Appended(0, 1)]


def test_news_comes_after_the_bookkeeping() -> None:
    line = Line()
    frame = line.outbox.put("x", now=0.0)
    seen: list[object] = []
    with (
        line.outbox.watching(frame),
        line.outbox.listening(lambda _: seen.append(line.outbox.result(frame))) as listener,
    ):
        listener.put("y", now=0.0)
        line.deliver()
        listener.tell()
    assert seen == [Appended(0, 1)]


def test_each_attempt_that_failed_is_told() -> None:
    line = Line()
    told: list[Retrying] = []
    outbox = Outbox(line.protocol, TEXT, on_retry=told.append)
    again = Retrying(TransportError("lost"), 1, 0.1)
    event = FramesDurable(0, 1, make_ack(0, 1), 0, [1])
    with outbox.watching(0):
        outbox.take([again, event, again])
        assert told == [again, again]
        assert outbox.result(0) == Appended(0, 1)
    outbox.check()
    # Nobody has to listen, and it is no error.
    line.outbox.take([again])
    line.outbox.check()


def test_events_are_taken_as_they_are() -> None:
    line = Line()
    line.outbox.put("x", now=0.0)
    line.deliver()
    line.protocol.close()
    line.protocol.data_to_send(0.0)
    line.protocol.receive_eof(1, 0.0)
    line.protocol.data_to_send(0.0)
    assert line.protocol.state is AppendState.CLOSED
    event = FramesDurable(0, 1, make_ack(0, 1), 0, [1])
    with line.outbox.watching(0):
        line.outbox.take(taken for taken in (event, SessionEnded(None)))
        assert line.outbox.result(0) == Appended(0, 1)


def test_what_was_accepted_is_counted() -> None:
    line = Line(max_frame_bytes=3)
    line.outbox.put("a", now=0.0)
    with pytest.raises(FrameSizeError):
        line.outbox.put("long", now=0.0)
    line.outbox.put_payloads([b"b", b"c"], now=0.0)
    with pytest.raises(FrameSizeError):
        line.outbox.put_payloads([b"d", b"long", b"e"], now=0.0)
    assert line.outbox.num_accepted == 4


# What `on_retry` raises


def refusing(told: list[Retrying]) -> Callable[[Retrying], None]:
    def refuse(retrying: Retrying) -> None:
        told.append(retrying)
        raise KeyError(len(told))

    return refuse


LOST = TransportError("lost")


def test_what_follows_an_error_of_on_retry_is_noted_all_the_same() -> None:
    line = Line()
    told: list[Retrying] = []
    outbox = Outbox(line.protocol, TEXT, on_retry=refusing(told))
    ticket = outbox.submit("x", now=0.0, on_settled=lambda _: None)
    event = FramesDurable(0, 1, make_ack(0, 1), 0, [1])
    outbox.take([Retrying(LOST, 1, 0.0), event])
    assert outbox.has_raised
    assert ticket.result() == Appended(0, 1)
    with pytest.raises(KeyError, match=r"^1$"):
        outbox.check()
    assert not outbox.has_raised
    outbox.check()


def test_on_retry_is_not_called_while_what_it_raised_is_still_to_come_out() -> None:
    told: list[Retrying] = []
    outbox = Outbox(Line().protocol, TEXT, on_retry=refusing(told))
    again = [Retrying(LOST, number, 0.0) for number in range(3)]
    outbox.take(again)
    assert told == again[:1]
    for number in (1, 2, 3):
        outbox.take([])
        assert told == again[:number]
        with pytest.raises(KeyError, match=rf"^{number}$") as raised:
            outbox.check_callbacks()
        # As it is: the callback's own frame is in it.
        assert raised.traceback[-1].name == "refuse"
    outbox.take([])
    outbox.check()


def test_the_end_of_the_session_comes_before_what_on_retry_raised_and_has_a_note_of_it() -> None:
    outbox = Outbox(Line().protocol, TEXT, on_retry=refusing([]))
    outbox.take([Retrying(LOST, 1, 0.0), SessionEnded(LOST)])
    with pytest.raises(TransportError, match="lost") as raised:
        outbox.check()
    assert raised.value.__notes__ == ["on_retry has raised KeyError: '1'"]
    with pytest.raises(TransportError, match="lost") as raised:
        outbox.check()
    assert not hasattr(raised.value, "__notes__")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_comes_out_first(kind: type[BaseException]) -> None:
    error = kind("mine")

    def refuse(_retrying: Retrying) -> None:
        raise error

    outbox = Outbox(Line().protocol, TEXT, on_retry=refuse)
    outbox.take([Retrying(LOST, 1, 0.0), SessionEnded(LOST)])
    with pytest.raises(kind) as raised:
        outbox.check()
    assert raised.value is error
    with pytest.raises(TransportError, match="lost"):
        outbox.check()


def test_what_comes_out_instead_has_a_note() -> None:
    outbox = Outbox(Line().protocol, TEXT, on_retry=refusing([]))
    outbox.take([Retrying(LOST, 1, 0.0)])
    assert outbox.leave(None)
    error = ValueError("of the block")
    assert not outbox.leave(error)
    assert error.__notes__ == ["on_retry has raised KeyError: '1'"]
    outbox.check()


def test_messages_that_were_drawn_are_accepted_whatever_on_retry_raised() -> None:
    outbox = Outbox(Line().protocol, TEXT, on_retry=refusing([]))
    outbox.take([Retrying(LOST, 1, 0.0)])
    with outbox.listening(None) as listener:
        listener.drawn = "a"
        listener.put_drawn(now=0.0)
    assert outbox.num_accepted == 1
    with pytest.raises(KeyError):
        outbox.put("b", now=0.0)


@pytest.mark.parametrize("name", ["on_retry", "on_durable"])
def test_a_callback_that_cannot_be_called(name: str) -> None:
    line = Line()
    nothing: Any = "print"

    def begin() -> None:
        if name == "on_retry":
            Outbox(line.protocol, TEXT, on_retry=nothing)
        else:
            with line.outbox.listening(nothing):
                pytest.fail("it began")

    with pytest.raises(LocalProtocolError, match=rf"^{name} must be a callable, not str$"):
        begin()


# Tickets


def test_tickets_are_settled_in_order_with_their_places() -> None:
    line = Line()
    settled: list[Ticket] = []
    tickets = [line.outbox.submit("x", now=0.0, on_settled=settled.append) for _ in range(3)]
    line.outbox.put("in between", now=0.0)
    tickets.append(line.outbox.submit("y", ((b"k", b"v"),), 7, now=0.0, on_settled=settled.append))
    for ticket in tickets:
        with pytest.raises(LocalProtocolError, match=rf"^message {ticket.frame} is not settled$"):
            ticket.result()
    line.deliver()
    assert settled == tickets
    assert [ticket.frame for ticket in tickets] == [0, 1, 2, 4]
    assert [ticket.result().start for ticket in tickets] == [0, 1, 2, 4]


def test_what_is_settled_stays_so_when_the_session_ends() -> None:
    line = Line(retry=Retry(max_attempts=1))
    first = line.outbox.submit("x", now=0.0, on_settled=lambda _: None)
    line.deliver()
    second = line.outbox.submit("y", now=0.0, on_settled=lambda _: None)
    line.sent()
    line.protocol.connection_lost(1, TransportError("lost"), 0.0)
    line.take()
    assert first.result() == Appended(0, 1)
    with pytest.raises(TransportError, match=r"^lost; 1 message durable, more may be$"):
        second.result()


def test_a_message_that_is_refused_gets_no_ticket() -> None:
    line = Line()
    settled: list[Ticket] = []
    with pytest.raises(FrameSizeError):
        line.outbox.submit("", now=0.0, on_settled=settled.append)
    assert line.outbox.submit("x", now=0.0, on_settled=settled.append).frame == 0
    line.deliver()
    assert len(settled) == 1


# Put many


def test_of_many_those_before_one_that_cannot_be_sent_are_accepted() -> None:
    line = Line(TEXT, max_frame_bytes=3)
    for bad, error in (("long", FrameSizeError), (7, CodecError)):
        told: list[Appended] = []
        before = line.outbox.num_accepted
        left = iter(["a", "b", bad, "c"])
        with line.outbox.listening(told.append) as listener:
            listener.draw_from(left)
            with pytest.raises(error):
                listener.put_next(now=0.0, max_messages=10, max_bytes=100)
            # It was drawn and told of, and nothing behind it was drawn.
            assert list(left) == ["c"]
            line.deliver()
        assert [appended.start for appended in told] == [before, before + 1]
    assert line.outbox.num_accepted == 4


# Events of the session


def lose(protocol: AppendProtocol, request_id: int) -> None:
    protocol.flush()
    protocol.data_to_send(0.0)
    protocol.connection_lost(request_id, TransportError("lost"), 0.0)
    protocol.handle_timeout(protocol.next_timeout() or 0.0)


def test_what_on_retry_raises_comes_once_and_the_rest_is_still_to_come() -> None:
    told: list[Retrying] = []
    protocol = AppendProtocol(TARGET, AppendSettings(), random=lambda: 0.5)
    outbox = Outbox(protocol, TEXT, on_retry=refusing(told))
    ticket = outbox.submit("x", now=0.0, on_settled=lambda _: None)
    lose(protocol, 1)
    lose(protocol, 2)
    protocol.data_to_send(0.0)
    protocol.receive_response(3, 200, SESSION, 0.0)
    protocol.receive_data(3, b"".join(encode_message(encode_append_ack(make_ack(0, 1)))), 0.0)
    for number in (1, 2):
        outbox.take_received()
        with pytest.raises(KeyError, match=rf"^{number}$"):
            outbox.check()
    outbox.take_received()
    outbox.check()
    assert [retrying.attempts for retrying in told] == [1, 2]
    assert ticket.result() == Appended(0, 1)
    assert not protocol.events


def test_without_on_retry_attempts_that_failed_are_passed_over() -> None:
    line = Line()
    line.outbox.put("x", now=0.0)
    lose(line.protocol, 1)
    line.outbox.take_received()
    assert not line.protocol.events


class Busy:
    """Everything an adapter does with an outbox, for the news of one batch and an end."""

    def __init__(self) -> None:
        self.line = Line(retry=Retry(max_attempts=2))
        self.told: list[Appended] = []
        self.settled: list[Ticket] = []
        self.retries: list[Retrying] = []
        self.line.outbox = Outbox(self.line.protocol, TEXT, on_retry=self.retries.append)
        self.outbox = self.line.outbox

    def live(self, interruption: Interruption) -> None:
        with self.outbox.watching(3), self.outbox.listening(self.told.append) as listener:
            ticket = self.outbox.submit("0", now=0.0, on_settled=self.settled.append)
            listener.put("1", now=0.0)
            put_all(listener, ["2"])
            self.outbox.put("3", now=0.0)
            (count,) = self.line.sent()
            self.line.ack(count)
            listener.put("4", now=0.0)
            last = self.outbox.submit("5", now=0.0, on_settled=self.settled.append)
            for request_id in (1, 2):
                lose(self.line.protocol, request_id)
            with interruption:
                self.outbox.take_received()
                listener.tell()
            self.outbox.take_received()
            listener.tell()
            assert self.outbox.result(3) == Appended(3, 4)
            assert listener.appended == Appended(1, 3)
        assert ticket.result() == Appended(0, 1)
        with pytest.raises(TransportError, match=r"^lost; tried 2 times; 4 messages durable"):
            last.result()


def test_no_news_is_lost_or_told_twice_when_taking_it_is_cut_off_at_any_line() -> None:
    for k in count(1):
        busy = Busy()
        interruption = Interruption(k)
        busy.live(interruption)
        where = interruption.where
        assert busy.told == [Appended(1, 2), Appended(2, 3)], where
        assert [ticket.frame for ticket in dict.fromkeys(busy.settled)] == [0, 5], where
        assert [retrying.attempts for retrying in busy.retries] == [1], where
        if where is None:
            break
    assert k > 50


def test_news_is_told_when_the_series_is_left_by_what_cut_taking_it_off() -> None:
    for k in count(1):
        line = Line()
        told: list[Appended] = []
        interruption = Interruption(k)
        with suppress(KeyboardInterrupt), line.outbox.listening(told.append) as listener:
            listener.put("x", now=0.0)
            listener.put("y", now=0.0)
            (number,) = line.sent()
            line.ack(number)
            with interruption:
                line.outbox.take_received()
            raise KeyboardInterrupt
        assert told == [Appended(0, 1), Appended(1, 2)], interruption.where
        if interruption.where is None:
            break
    assert k > 20


# What is drawn


class Source:
    """An iterator that counts what was drawn from it, and is no generator."""

    def __init__(self, messages: Iterable[Any]) -> None:
        self._messages = iter(messages)
        self.num_drawn = 0

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> Any:
        message = next(self._messages)
        self.num_drawn += 1
        return message


@pytest.mark.parametrize("most", [1, 3, 100])
def test_as_many_are_drawn_as_are_accepted(most: int) -> None:
    line = Line()
    source = Source("abcde")
    with line.outbox.listening(None) as listener:
        listener.draw_from(source)
        while listener.put_next(now=0.0, max_messages=most, max_bytes=100):
            assert source.num_drawn == line.outbox.num_accepted == min(5, source.num_drawn)
        assert source.num_drawn == line.outbox.num_accepted == 5
        line.deliver()
        assert listener.appended == Appended(0, 5)


def test_no_more_is_drawn_than_the_bytes_that_are_asked_for() -> None:
    line = Line()
    source = Source(["aaaa"] * 10)
    with line.outbox.listening(None) as listener:
        listener.draw_from(source)
        assert listener.put_next(now=0.0, max_messages=100, max_bytes=9)
    assert source.num_drawn == line.outbox.num_accepted == 3


@pytest.mark.parametrize("end", ["closed", "failed"])
def test_a_session_that_accepts_nothing_draws_nothing(end: str) -> None:
    line = Line()
    if end == "closed":
        line.protocol.close()
    else:
        line.outbox.take([SessionEnded(LOST)])
    source = Source("a")
    error = LocalProtocolError if end == "closed" else TransportError
    with line.outbox.listening(None) as listener:
        listener.draw_from(source)
        with pytest.raises(error, match=end if end == "closed" else "lost"):
            listener.put_next(now=0.0, max_messages=1, max_bytes=1)
        assert source.num_drawn == 0
        # There is nothing to be drawn, so that there is nothing to refuse.
        listener.draw_from(iter([]))
        assert not listener.put_next(now=0.0, max_messages=1, max_bytes=1)


def draw_cut_off(interruption: Interruption, most: int) -> tuple[Line, Source]:
    """Draw some messages, cut off; the codec's lines are among those that are."""
    line = Line()
    source = Source("abcde")
    told: list[Appended] = []
    with suppress(KeyboardInterrupt), line.outbox.listening(told.append) as listener:
        listener.draw_from(source)
        with interruption:
            while listener.put_next(now=0.0, max_messages=most, max_bytes=100):
                """There are more."""
        if interruption.where is not None:
            raise KeyboardInterrupt
    before = line.outbox.num_accepted
    line.deliver()
    assert line.protocol.durable_messages == before
    return line, source


@pytest.mark.parametrize("most", [1, 2, 100])
def test_what_was_drawn_is_accepted_once_wherever_it_is_cut_off(most: int) -> None:
    for k in count(1):
        interruption = Interruption(k)
        line, source = draw_cut_off(interruption, most)
        where = interruption.where
        assert line.outbox.num_accepted == source.num_drawn, where
        if where is None:
            break
    assert source.num_drawn == 5
    assert k > 50


def test_what_was_drawn_singly_is_accepted_once_wherever_it_is_cut_off() -> None:
    for k in count(1):
        line = Line()
        interruption = Interruption(k)
        with suppress(KeyboardInterrupt), line.outbox.listening(None) as listener:
            listener.drawn = "a"
            with interruption:
                listener.put_drawn(now=0.0)
            if interruption.where is not None:
                raise KeyboardInterrupt
        where = interruption.where
        assert line.outbox.num_accepted == 1, where
        if where is None:
            break
    assert k > 20


def leave_by(
    error: BaseException, line: Line, on_durable: Callable[[Appended], None] | None, event: object
) -> None:
    """Leave a series by an error while a message is on its way, or after one is durable."""
    with line.outbox.listening(on_durable) as listener:
        if isinstance(event, SessionEnded):
            listener.drawn = "a"
            line.outbox.take([event])
        else:
            listener.put("a", now=0.0)
            line.deliver()
        raise error


def test_what_was_drawn_and_cannot_be_accepted_any_more_is_noted() -> None:
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        leave_by(error, Line(), None, SessionEnded(LOST))
    assert error.__notes__ == ["a message was drawn and not accepted: lost"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_what_on_durable_raises_behind_an_error_is_noted_on_it(kind: type[BaseException]) -> None:
    def refuse(_appended: Appended) -> None:
        raise KeyError("mine")

    error = kind("of the block")
    with pytest.raises(kind) as raised:
        leave_by(error, Line(), refuse, None)
    assert raised.value is error
    assert error.__notes__ == ["on_durable has raised KeyError: \"'mine'\""]
