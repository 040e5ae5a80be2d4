from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
from attrs import define, field

from s2frames.system.process import THIS_PROCESS
from s2frames_httpx.answers import Answers

URL = "http://test.localhost"


@define(eq=False)
class Answering(httpx.BaseTransport):
    """Answers everything with two pieces; `during` is called while a thread is in here."""

    during: Callable[[], object] = list
    num_closed: int = 0
    failure: Exception | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.during()
        if self.failure is not None:
            raise self.failure
        return httpx.Response(200, request=request, stream=Body(self))


@define(eq=False)
class Body(httpx.SyncByteStream):
    owner: Answering
    pieces: list[bytes] = field(factory=lambda: [b"a", b"b"])

    def __iter__(self) -> Iterator[bytes]:
        while self.pieces:
            self.owner.during()
            yield self.pieces.pop(0)

    def close(self) -> None:
        self.owner.during()
        self.owner.num_closed += 1


def request() -> httpx.Request:
    return httpx.Request("GET", URL)


@pytest.fixture
def transport() -> Answering:
    return Answering()


@pytest.fixture
def answers(transport: Answering) -> Answers:
    return Answers(httpx.Client(transport=transport))


def open_answer(answers: Answers) -> int:
    number = answers.add_reader()
    assert answers.open(number, request()).status_code == 200
    assert answers.is_open(number)
    return number


def test_an_answer_is_received_and_closed(answers: Answers, transport: Answering) -> None:
    number = open_answer(answers)
    assert str(answers.request(number).url) == URL
    assert [answers.receive(number) for _ in range(3)] == [b"a", b"b", None]
    answers.close(number)
    answers.close(number)
    assert not answers.is_open(number)
    assert transport.num_closed == 1


def test_readers_have_answers_of_their_own(answers: Answers, transport: Answering) -> None:
    first, second = open_answer(answers), open_answer(answers)
    assert [answers.receive(first), answers.receive(second), answers.receive(first)] == [
        b"a",
        b"a",
        b"b",
    ]
    answers.close(first)
    assert answers.is_open(second)
    assert transport.num_closed == 1


def test_what_is_forgotten_is_closed_before_the_next_request(
    answers: Answers, transport: Answering
) -> None:
    numbers = [open_answer(answers) for _ in range(3)]
    for number in numbers[:2]:
        answers.forget(number)
    assert transport.num_closed == 0
    last = open_answer(answers)
    assert transport.num_closed == 2
    assert [answers.is_open(number) for number in (*numbers, last)] == [False, False, True, True]


def test_a_reader_may_be_forgotten_twice_and_without_an_answer(
    answers: Answers, transport: Answering
) -> None:
    number = open_answer(answers)
    for forgotten in (number, answers.add_reader(), number):
        answers.forget(forgotten)
    answers.close_forgotten()
    answers.close_forgotten()
    assert transport.num_closed == 1


@pytest.mark.parametrize("what", ["open", "receive", "close"])
def test_what_the_collector_closes_while_its_thread_is_in_the_client_is_put_aside(
    answers: Answers, transport: Answering, what: str
) -> None:
    left, other = open_answer(answers), open_answer(answers)
    seen: list[bool] = []

    def collect() -> None:
        answers.close(left)
        answers.close_forgotten()
        seen.append(answers.is_open(left))

    transport.during = collect
    if what == "open":
        answers.open(answers.add_reader(), request())
    elif what == "receive":
        answers.receive(other)
    else:
        answers.close(other)
    transport.during = list
    assert seen == [True]
    # Out of it again, closing closes.
    answers.close_forgotten()
    assert not answers.is_open(left)


def test_another_thread_closes_at_once(answers: Answers, transport: Answering) -> None:
    number = open_answer(answers)

    def close_in_another_thread() -> None:
        transport.during = list
        thread = threading.Thread(target=answers.close, args=(number,), daemon=True)
        thread.start()
        thread.join()

    transport.during = close_in_another_thread
    open_answer(answers)
    assert not answers.is_open(number)


@pytest.mark.parametrize("failure", [RuntimeError("whatever"), httpx.ReadError("no")])
def test_an_error_while_the_client_is_open_is_as_it_is(
    answers: Answers, transport: Answering, failure: Exception
) -> None:
    transport.failure = failure
    with pytest.raises(type(failure), match=str(failure)):
        answers.open(answers.add_reader(), request())
    # The thread is out of the client.
    transport.failure = None
    answers.close(open_answer(answers))
    assert transport.num_closed == 1


@pytest.mark.parametrize("failure", [RuntimeError("whatever"), httpx.ReadError("no")])
def test_an_error_that_closing_the_client_makes_is_one_of_httpx(
    answers: Answers, transport: Answering, failure: Exception
) -> None:
    transport.failure = failure
    transport.during = answers.closing.set
    with pytest.raises(httpx.CloseError, match="the client is closed") as caught:
        answers.open(answers.add_reader(), request())
    assert caught.value.__cause__ is failure
    assert answers.is_closed


def test_closing_the_client_underneath_counts(answers: Answers) -> None:
    assert not answers.is_closed
    answers.http.close()
    assert answers.is_closed


def test_in_a_copy_of_the_process_nothing_of_the_originals_is_closed(
    answers: Answers, transport: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = open_answer(answers)
    answers.forget(number)
    monkeypatch.setattr(THIS_PROCESS, "number", -1)
    answers.close(number)
    own = open_answer(answers)
    assert transport.num_closed == 0
    answers.close(own)
    assert transport.num_closed == 1
    # Dropped, it would be closed.
    assert answers.is_open(number)
