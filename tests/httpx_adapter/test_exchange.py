from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from attrs import define, field

from httpx_adapter.machine import ScriptedMachine, opening
from s2frames import LocalProtocolError
from s2frames.session import CloseRequest
from s2frames_httpx.answers import Answers
from s2frames_httpx.closing import Closing
from s2frames_httpx.exchange import Exchange


@define(eq=False)
class Answering(httpx.BaseTransport):
    """Gives one answer after the other; an exception is raised."""

    bodies: list[Any]
    num_closed: int = 0
    bodies_sent: list[bytes] = field(factory=list)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        self.bodies_sent.append(b"".join(request.stream))
        body = self.bodies.pop(0)
        if isinstance(body, BaseException):
            raise body
        return httpx.Response(200, stream=AnswerBody(self, body))


@define(eq=False)
class AnswerBody(httpx.SyncByteStream):
    """Pieces of an answer; an exception is raised in its turn."""

    owner: Answering
    pieces: list[bytes | BaseException]

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def close(self) -> None:
        self.owner.num_closed += 1


def exchange_of(machine: ScriptedMachine, answers: Answering) -> Exchange:
    return Exchange(Answers(httpx.Client(transport=answers)), machine)


def test_a_request_and_its_answer() -> None:
    machine = ScriptedMachine([opening(1, b"body")])
    answers = Answering([[b"a", b"b"]])
    exchange = exchange_of(machine, answers)
    for _ in range(4):
        exchange.step()
    assert answers.bodies_sent == [b"body"]
    assert machine.told == [
        (1, "accepted", 4),
        "waiting",
        (1, 200, None),
        "waiting",
        (1, b"a"),
        "waiting",
        (1, b"b"),
        "waiting",
        (1, "eof"),
    ]
    assert (exchange.is_open, answers.num_closed) == (False, 1)


def test_what_is_asked_comes_before_the_next_bytes() -> None:
    machine = ScriptedMachine([opening(1)])
    answers = Answering([[b"a", b"never taken"], [b"c"]])
    exchange = exchange_of(machine, answers)
    exchange.step()
    exchange.step()
    assert exchange.is_open
    machine.actions = [[CloseRequest(1), *opening(2)]]
    exchange.step()
    assert answers.num_closed == 1
    exchange.step()
    assert [what for what in machine.told if what != "waiting"] == [
        (1, 200, None),
        (1, b"a"),
        (2, 200, None),
        (2, b"c"),
    ]


@pytest.mark.parametrize(
    "bodies", [[httpx.ConnectError("no")], [[httpx.ReadError("no")]], [[b"a", UnicodeError()]]]
)
def test_a_failure_is_told_and_the_answer_closed(bodies: list[Any]) -> None:
    machine = ScriptedMachine([opening(1)])
    has_no_answer = isinstance(bodies[0], Exception)
    answers = Answering(bodies)
    exchange = exchange_of(machine, answers)
    while (1, "lost") not in machine.told:
        exchange.step()
    assert not exchange.is_open
    assert answers.num_closed == (0 if has_no_answer else 1)
    assert len(machine.errors) == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
@pytest.mark.parametrize("is_inside", [True, False])
def test_an_interruption_passes_and_is_told(kind: type[BaseException], is_inside: bool) -> None:
    machine = ScriptedMachine([opening(1), [], opening(2)])
    answers = Answering([[kind()] if is_inside else kind(), [b"a"]])
    exchange = exchange_of(machine, answers)
    if is_inside:
        exchange.step()
    else:
        machine.actions.remove([])
    with pytest.raises(kind):
        exchange.step()
    assert not exchange.is_open
    assert machine.told[-1] == "interrupted"
    assert machine.errors == []
    exchange.step()
    exchange.step()
    assert machine.told[-1] == (2, b"a")


def test_without_anything_open_it_sleeps_until_the_machines_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = ScriptedMachine([], timeout=time.monotonic() + 3600)
    exchange = exchange_of(machine, Answering([]))
    slept: list[float] = []

    def wait(_closing: Closing, seconds: float) -> None:
        slept.append(seconds)
        machine.timeout = 0.0

    monkeypatch.setattr(Closing, "wait", wait)
    exchange.step()
    assert slept == [pytest.approx(3600, abs=60)]
    assert machine.told == ["timeout"]
    # There is nothing to wait for any more.
    exchange.step()
    assert len(slept) == 1


def test_control_c_while_it_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = ScriptedMachine([], timeout=time.monotonic() + 3600)
    exchange = exchange_of(machine, Answering([]))

    def interrupt(_closing: Closing, _seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Closing, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        exchange.step()


def test_a_closed_client_is_told_at_once() -> None:
    machine = ScriptedMachine([opening(1)])
    http = httpx.Client(transport=Answering([]))
    http.close()
    exchange = Exchange(Answers(http), machine)
    exchange.step()
    assert [str(error) for error in machine.errors] == ["the client is closed"]
    assert isinstance(machine.errors[0], LocalProtocolError)


def test_closing_is_idempotent() -> None:
    machine = ScriptedMachine([opening(1)])
    answers = Answering([[b"a"]])
    exchange = exchange_of(machine, answers)
    exchange.close()
    exchange.step()
    exchange.close()
    exchange.close()
    assert (exchange.is_open, answers.num_closed) == (False, 1)
