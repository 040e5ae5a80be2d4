from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from attrs import define, field

from httpx_adapter.machine import ScriptedMachine, opening
from live_service import live_service
from s2frames import Endpoints, LocalProtocolError, Settings
from s2frames.operation import read_range
from s2frames.session import CloseRequest
from s2frames_httpx import AsyncClient
from s2frames_httpx.async_exchange import AsyncExchange, close_answer
from s2frames_httpx.closing import AsyncClosing
from scenes import ASYNC_FLAVOURS

pytestmark = [
    pytest.mark.usefixtures("flavour"),
    pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True, ids=str),
]


@define(eq=False)
class Answers(httpx.AsyncBaseTransport):
    """Gives one answer after the other; an exception is raised, an event awaited."""

    bodies: list[Any]
    num_closed: int = 0
    bodies_sent: list[bytes] = field(factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self.bodies_sent.append(b"".join([piece async for piece in request.stream]))
        body = self.bodies.pop(0)
        if isinstance(body, BaseException):
            raise body
        if isinstance(body, anyio.Event):
            await body.wait()
        return httpx.Response(200, stream=AnswerBody(self, body))


@define(eq=False)
class AnswerBody(httpx.AsyncByteStream):
    """Pieces of an answer; an exception is raised in its turn, an event awaited."""

    owner: Answers
    pieces: list[bytes | BaseException | anyio.Event]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self.pieces:
            raise StopAsyncIteration
        piece = self.pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        if isinstance(piece, anyio.Event):
            await piece.wait()
            return b"at last"
        return piece

    async def aclose(self) -> None:
        self.owner.num_closed += 1
        self.pieces.clear()


def exchange_of(machine: ScriptedMachine, answers: Answers) -> AsyncExchange:
    return AsyncExchange(httpx.AsyncClient(transport=answers), AsyncClosing(), machine)


async def cancel_while_it_waits(exchange: AsyncExchange) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(exchange.step)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


async def test_a_request_and_its_answer() -> None:
    machine = ScriptedMachine([opening(1, b"body")])
    answers = Answers([[b"a", b"b"]])
    exchange = exchange_of(machine, answers)
    for _ in range(4):
        await exchange.step()
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


async def test_what_is_asked_comes_before_the_next_bytes() -> None:
    machine = ScriptedMachine([opening(1)])
    answers = Answers([[b"a", b"never taken"], [b"c"]])
    exchange = exchange_of(machine, answers)
    await exchange.step()
    await exchange.step()
    assert exchange.is_open
    machine.actions = [[CloseRequest(1), *opening(2)]]
    await exchange.step()
    assert answers.num_closed == 1
    await exchange.step()
    assert [what for what in machine.told if what != "waiting"] == [
        (1, 200, None),
        (1, b"a"),
        (2, 200, None),
        (2, b"c"),
    ]
    await exchange.close()


@pytest.mark.parametrize("is_inside", [True, False])
async def test_a_failure_is_told_and_the_answer_closed(is_inside: bool) -> None:
    machine = ScriptedMachine([opening(1)])
    failure = httpx.ReadError("no")
    answers = Answers([[b"a", failure] if is_inside else failure])
    exchange = exchange_of(machine, answers)
    while (1, "lost") not in machine.told:
        await exchange.step()
    assert not exchange.is_open
    assert answers.num_closed == is_inside
    assert len(machine.errors) == 1


@pytest.mark.parametrize("is_inside", [True, False])
async def test_a_cancellation_is_told_and_another_task_goes_on(is_inside: bool) -> None:
    machine = ScriptedMachine([opening(1)])
    answers = Answers([[anyio.Event()] if is_inside else anyio.Event(), [b"a"]])
    exchange = exchange_of(machine, answers)
    if is_inside:
        await exchange.step()
    await cancel_while_it_waits(exchange)
    assert not exchange.is_open
    assert answers.num_closed == is_inside
    assert machine.told[-1] == "interrupted"
    assert machine.errors == []
    machine.actions = [opening(2)]
    await exchange.step()
    await exchange.step()
    assert machine.told[-1] == (2, b"a")
    await exchange.close()


# Sleeping


async def test_it_sleeps_until_the_machines_time() -> None:
    machine = ScriptedMachine([], timeout=anyio.current_time())
    exchange = exchange_of(machine, Answers([]))
    await exchange.step()
    assert machine.told == ["timeout"]
    # There is nothing to wait for any more.
    await exchange.step()


async def test_a_task_that_sleeps_can_be_cancelled() -> None:
    machine = ScriptedMachine([], timeout=anyio.current_time() + 3600)
    exchange = exchange_of(machine, Answers([]))
    await cancel_while_it_waits(exchange)
    # The next one sleeps as well.
    await cancel_while_it_waits(exchange)
    assert "timeout" not in machine.told


async def test_closing_wakes_who_sleeps() -> None:
    machine = ScriptedMachine([], timeout=anyio.current_time() + 3600)
    exchange = exchange_of(machine, Answers([]))
    async with anyio.create_task_group() as group:
        group.start_soon(exchange.step)
        await anyio.wait_all_tasks_blocked()
        await exchange.close()
    assert machine.told == []


async def test_where_nothing_happens_other_tasks_run() -> None:
    exchange = exchange_of(ScriptedMachine([]), Answers([]))
    has_run = anyio.Event()

    async def other() -> None:
        has_run.set()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        while not has_run.is_set():
            await exchange.step()


# Closing


async def test_a_closed_client_is_told_at_once() -> None:
    machine = ScriptedMachine([opening(1)])
    http = httpx.AsyncClient(transport=Answers([]))
    await http.aclose()
    await AsyncExchange(http, AsyncClosing(), machine).step()
    assert [str(error) for error in machine.errors] == ["the client is closed"]
    assert isinstance(machine.errors[0], LocalProtocolError)


async def test_closing_is_idempotent() -> None:
    machine = ScriptedMachine([opening(1)])
    answers = Answers([[b"a"]])
    exchange = exchange_of(machine, answers)
    await exchange.close()
    await exchange.step()
    await exchange.close()
    await exchange.close()
    assert (exchange.is_open, answers.num_closed) == (False, 1)


@pytest.mark.parametrize("is_embedded", [True, False], ids=["in process", "socket"])
async def test_an_answer_that_is_left_early_leaves_nothing_to_warn_of(is_embedded: bool) -> None:
    with live_service() as url:
        settings = Settings(endpoints=Endpoints.at(url))
        client = AsyncClient.embedded() if is_embedded else AsyncClient(settings)
        async with client:
            await client.create_basin("test-basin")
            stream = client.stream("test-basin", "room/1")
            await stream.create()
            async with stream.append_session() as session:
                await session.append_many([b"x" * 100_000] * 50)
            for _ in range(5):
                plan = read_range(stream.target, 0, 50, lambda _records: False)
                assert 0 < await client.run(plan) <= 50
            assert (await stream.check_tail()).seq_num == 50


async def test_a_client_keeps_nothing_of_the_steps_that_are_over() -> None:
    closing = AsyncClosing()
    machine = ScriptedMachine([opening(1)])
    failing = ScriptedMachine([opening(1)])
    http = httpx.AsyncClient(transport=Answers([[b"a"], httpx.ReadError("no")]))
    exchange = AsyncExchange(http, closing, machine)
    for _ in range(3):
        await exchange.step()
    await AsyncExchange(http, closing, failing).step()
    assert not closing.is_watched


# Leaving an answer


class NestedBody(httpx.AsyncByteStream):
    """A body of three pieces, in a generator inside another one as httpx has them."""

    def __init__(self) -> None:
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self.pieces():
            yield piece

    async def pieces(self) -> AsyncIterator[bytes]:
        for n in range(3):
            if self.is_closed:
                raise httpx.ReadError("closed")
            yield b"%d" % n

    async def aclose(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_an_answer_may_be_left_anywhere(number: int) -> None:
    body = NestedBody()
    response = httpx.Response(200, stream=body)
    chunks = response.aiter_raw()
    received = [await anext(chunks) for _ in range(number)]
    await close_answer(response, chunks)
    assert received == [b"0", b"1", b"2"][:number]
    assert body.is_closed


async def test_an_answer_is_closed_in_a_cancelled_task() -> None:
    body = NestedBody()
    response = httpx.Response(200, stream=body)
    chunks = response.aiter_raw()
    await anext(chunks)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await close_answer(response, chunks)
    assert body.is_closed
