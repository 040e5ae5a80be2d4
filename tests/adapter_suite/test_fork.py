"""A session that was made before a fork is the original's alone, with every adapter."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from forking import at_once, error_of, hear, in_copy, may_fork
from s2frames import LocalProtocolError, rest
from s2frames.operation import Plan
from s2frames.records import StreamPosition
from s2frames.rest_plans import call_plan
from s2frames.session import Retrying
from scenes import EVERY_SCENE, Flavour, Place, World

SCENES = [scene for scene in EVERY_SCENE if scene.place is not Place.LITE]

HTTP2_SCENES = [scene for scene in SCENES if scene.flavour is Flavour.HTTP2]

pytestmark = may_fork

everywhere = pytest.mark.parametrize("s2", SCENES, indirect=True, ids=str)


def refusal(call: Callable[[], Awaitable[object]]) -> str:
    """What a call says that is refused before it waits."""
    try:
        given = at_once(call())
    except LocalProtocolError as error:
        return str(error)
    return f"it gave {given!r}"


def refused(what: str) -> str:
    return f"{what} belongs to the process that made it, {os.getpid()}, and this is a copy of that"


async def read_all(s2: World) -> tuple[list[bytes], int]:
    async with s2.stream.read_session() as reading:
        return [message async for message in reading], reading.stats.duplicates


@everywhere
async def test_an_append_session_is_refused_in_a_copy_and_goes_on_here(s2: World) -> None:
    retries: list[Retrying] = []
    async with s2.stream.append_session(on_retry=retries.append) as session:
        await session.append(b"a")
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "append": lambda: session.append(b"x"),
            "append_many": lambda: session.append_many([b"x"]),
            "flush": session.flush,
            "close": session.close,
        }
        if s2.flavour is Flavour.HTTP2:
            calls["submit"] = lambda: session.submit(b"x")  # type: ignore[attr-defined]  # trio's
        for name, call in calls.items():
            said = in_copy(lambda call=call: refusal(call))  # type: ignore[misc]  # of this round
            assert said.startswith(refused("an append session")), name
        assert in_copy(session.pending).startswith("LocalProtocolError: an append session")
        assert in_copy(lambda: session.durable_messages) == "1"
        await session.append(b"b")
    assert (await read_all(s2), retries) == (([b"a", b"b"], 0), [])


def messages_of(form: str, item: Any) -> list[bytes]:
    return {"messages": [item], "batches": item}.get(form) or [item.message]


@everywhere
@pytest.mark.parametrize("form", ["messages", "frames", "batches"])
async def test_a_read_session_is_refused_in_a_copy_and_goes_on_here(s2: World, form: str) -> None:
    retries: list[Retrying] = []
    async with s2.stream.append_session() as session:
        await session.append_many([b"a", b"b"])
        async with s2.stream.read_session(follow=True, on_retry=retries.append) as reading:
            items = aiter(reading if form == "messages" else getattr(reading, form)())
            first = await anext(items)
            # Of what has arrived, too, nothing is handed out twice.
            said = in_copy(lambda: refusal(lambda: anext(items)))
            assert said.startswith(refused("a read session"))
            # That is where a copy may go on with a session of its own.
            assert in_copy(reading.checkpoint) == str(reading.checkpoint())
            await session.append(b"c")
            got = [first, await anext(items)]
            if form != "batches":
                got.append(await anext(items))
    assert [message for item in got for message in messages_of(form, item)] == [b"a", b"b", b"c"]
    assert retries == []


def leave(*sessions: Any) -> str:
    """Leave the blocks of sessions, close them, and forget them."""
    for session in sessions:
        at_once(session.__aexit__(None, None, None))
        at_once(session.__aexit__(KeyError, KeyError(), None))
        if hasattr(session, "checkpoint"):
            at_once(session.close())
    del sessions, session
    gc.collect()
    return "left"


@everywhere
async def test_leaving_blocks_in_a_copy_touches_nothing_of_the_originals(s2: World) -> None:
    retries: list[Retrying] = []
    async with s2.stream.append_session(on_retry=retries.append) as session:
        await session.append(b"a")
        async with s2.stream.read_session(follow=True, on_retry=retries.append) as reading:
            messages = aiter(reading)
            assert await anext(messages) == b"a"
            assert in_copy(lambda: leave(session, reading)) == "left"
            await session.append(b"b")
            assert await anext(messages) == b"b"
    assert (await read_all(s2), retries) == (([b"a", b"b"], 0), [])


@pytest.mark.parametrize("s2", HTTP2_SCENES, indirect=True, ids=str)
async def test_a_ticket_is_the_originals_to_wait_for(s2: World) -> None:
    appending: Any = s2.stream.append_session()
    async with appending as session:
        ticket = await session.submit(b"a")
        said = in_copy(lambda: refusal(lambda: ticket))
        assert said.startswith(refused("an append session"))
        assert (await ticket).start == 0
        assert in_copy(lambda: at_once(ticket)) == str(await ticket)


@everywhere
async def test_a_call_under_way_ends_in_a_copy_and_goes_on_here(s2: World) -> None:
    target = s2.stream.target
    check_tail = rest.check_tail(target.settings, target.basin, target.stream)
    reader, writer = os.pipe()
    pids: list[int] = []

    def forks() -> Plan[StreamPosition]:
        yield from call_plan(check_tail)
        pids.append(os.fork())
        return (yield from call_plan(check_tail))

    try:
        assert (await s2.client.run(forks())).seq_num == 0
    except BaseException as error:
        if pids == [0]:
            os.write(writer, error_of(error).encode())
            os._exit(0)
        raise
    if pids == [0]:
        os._exit(1)
    said = hear(pids[0], reader, writer)
    assert said.startswith(f"LocalProtocolError: {refused('a call')}")
