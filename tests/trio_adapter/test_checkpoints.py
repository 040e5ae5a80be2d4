"""Every call that is awaited is a checkpoint: others get their turn, and a cancelled task ends.

Also where nothing has to be waited for. What promises less says so, and is tested for that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
import trio.testing
from h2.events import RequestReceived

from s2frames.http import Request
from s2frames_trio import AppendSession, Client, Stream, open_client, open_embedded_client
from s2frames_trio.append import _SUBMITS_PER_TURN
from s2frames_trio.pool import open_pool
from trio_adapter.host import Host, numbers, opened, read_all
from trio_adapter.peers import Peer, dialer

# Whatever hangs, ends.
pytestmark = pytest.mark.timeout(60)

# Calls


CALLS: dict[str, Callable[[Client, Stream], Awaitable[object]]] = {
    "create_basin": lambda client, _: client.create_basin("another-basin"),
    "ensure_basin": lambda client, _: client.ensure_basin("test-basin"),
    "basin_config": lambda client, _: client.basin_config("test-basin"),
    "delete_basin": lambda client, _: client.delete_basin("test-basin"),
    "ensure": lambda _, stream: stream.ensure(),
    "config": lambda _, stream: stream.config(),
    "check_tail": lambda _, stream: stream.check_tail(),
    "fence": lambda _, stream: stream.fence("token"),
    "trim": lambda _, stream: stream.trim(0),
    "fencing_token": lambda _, stream: stream.fencing_token(),
    "recover_writer": lambda _, stream: stream.recover_writer("w", may_be_new=True),
    "delete": lambda _, stream: stream.delete(),
    "list_basins": lambda client, _: anext(aiter(client.list_basins())),
}


@pytest.mark.parametrize("name", CALLS)
async def test_control_calls(name: str) -> None:
    async with opened(Host()) as (client, stream):
        with trio.testing.assert_checkpoints():
            await CALLS[name](client, stream)


# Append sessions


@asynccontextmanager
async def appending() -> AsyncIterator[AppendSession[bytes]]:
    async with opened(Host()) as (_, stream), stream.append_session() as session:
        await session.append(b"first")
        await trio.testing.wait_all_tasks_blocked()
        yield session


async def test_entering_and_leaving_an_append_session() -> None:
    async with opened(Host()) as (_, stream):
        session = stream.append_session()
        with trio.testing.assert_checkpoints():
            await session.__aenter__()
        with trio.testing.assert_checkpoints():
            await session.__aexit__(None, None, None)


async def empty() -> AsyncIterator[bytes]:
    for message in numbers(0):
        yield message


APPENDING: dict[str, Callable[[AppendSession[bytes]], Awaitable[object]]] = {
    "append": lambda session: session.append(b"x"),
    "append_many": lambda session: session.append_many(numbers(3)),
    "append_many of nothing": lambda session: session.append_many([]),
    "append_many of no async one": lambda session: session.append_many(empty()),
    "flush": lambda session: session.flush(),
    "close": lambda session: session.close(),
}


@pytest.mark.parametrize("name", APPENDING)
async def test_calls_of_an_append_session(name: str) -> None:
    async with appending() as session:
        with trio.testing.assert_checkpoints():
            await APPENDING[name](session)


async def test_calls_of_an_append_session_that_is_over() -> None:
    async with appending() as session:
        await session.close()
        for name in ("close", "flush"):
            with trio.testing.assert_checkpoints():
                await APPENDING[name](session)


async def test_closing_an_append_session_that_was_never_entered() -> None:
    async with opened(Host()) as (_, stream):
        with trio.testing.assert_checkpoints():
            await stream.append_session().close()


async def test_a_ticket_whether_it_is_settled_or_not() -> None:
    async with appending() as session:
        ticket = await session.submit(b"x")
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await ticket


async def test_submitting_gives_others_a_turn_now_and_then() -> None:
    async with appending() as session, trio.open_nursery() as nursery:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        nursery.start_soon(count)
        for n in range(5 * _SUBMITS_PER_TURN):
            await session.submit(b"%d" % n)
        assert turns >= 5
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("num_before", [0, 1, _SUBMITS_PER_TURN - 2, _SUBMITS_PER_TURN - 1])
async def test_submitting_in_a_cancelled_scope_accepts_nothing(num_before: int) -> None:
    """Though there is room."""
    async with opened(Host()) as (_, stream):
        async with stream.append_session(linger=60) as session:
            for n in range(num_before):
                await session.submit(b"%d" % n)
            with trio.CancelScope() as scope:
                scope.cancel()
                await session.submit(b"cancelled")
            assert scope.cancelled_caught
            with trio.CancelScope() as scope:
                scope.cancel()
                await session.append(b"cancelled")
            assert scope.cancelled_caught
            with trio.CancelScope() as scope:
                scope.cancel()
                await session.append_many([b"cancelled"])
            assert scope.cancelled_caught
        assert session.durable_messages == num_before
        assert await read_all(stream) == numbers(num_before)


# Read sessions


async def test_a_read_session() -> None:
    async with opened(Host()) as (_, stream):
        async with stream.append_session() as session:
            await session.append_many(numbers(3))
        reading = stream.read_session()
        with trio.testing.assert_checkpoints():
            messages = await reading.__aenter__()
        with trio.testing.assert_checkpoints():
            assert await anext(messages) == b"0"
        # It came with the first one.
        with trio.testing.assert_no_checkpoints():
            assert await anext(messages) == b"1"
        assert [message async for message in messages] == [b"2"]
        with trio.testing.assert_checkpoints():
            await messages.close()
        with trio.testing.assert_checkpoints():
            await messages.__aexit__(None, None, None)


async def test_reading_much_gives_others_their_turn() -> None:
    async with opened(Host()) as (_, stream):
        async with stream.append_session() as session:
            await session.append_many([bytes(100_000)] * 40)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with stream.read_session() as messages, trio.open_nursery() as nursery:
            nursery.start_soon(count)
            assert len([message async for message in messages]) == 40
            # Bytes never come without one, and so many do not come at once.
            assert turns >= 10
            nursery.cancel_scope.cancel()


# Connections


async def answer(peer: Peer) -> None:
    """Answer each request with one byte and more to come."""
    while await peer.receive():
        events, peer.events = peer.events, []
        for event in events:
            if isinstance(event, RequestReceived):
                await peer.answer(event.stream_id)
                await peer.data(event.stream_id, b"x")


async def test_a_stream_of_a_connection() -> None:
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, answer)
        async with open_pool(connect_with=connect) as pool:
            for _ in range(2):
                # First with a connection to make, then with one that is there.
                with trio.testing.assert_checkpoints():
                    stream = await pool.open_stream(Request("POST", "http://peer/"))
            await trio.testing.wait_all_tasks_blocked()
            # All of it is there.
            with trio.testing.assert_checkpoints():
                await stream.receive_response()
            with trio.testing.assert_checkpoints():
                assert await stream.receive_data() == b"x"
            with trio.testing.assert_checkpoints():
                assert await stream.send_data([b"x"])
            with trio.testing.assert_checkpoints():
                assert await stream.send_data([])
            with trio.testing.assert_checkpoints():
                assert await stream.end_data()
            with trio.testing.assert_checkpoints():
                await stream.aclose()


# Clients


@pytest.mark.usefixtures("real_clock")
@pytest.mark.parametrize("opening", [open_client, open_embedded_client])
async def test_a_client(opening: Callable[[], AbstractAsyncContextManager[Client]]) -> None:
    with trio.testing.assert_checkpoints():
        async with opening():
            """It is entered and left."""


@pytest.mark.usefixtures("real_clock")
async def test_others_have_their_turn_while_the_embedded_service_answers() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with open_embedded_client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await client.create_basin("test-basin")
        stream = client.stream("test-basin", "room/1")
        await stream.create()
        for _ in range(10):
            before = turns
            await stream.check_tail()
            assert turns > before + 1
        before = turns
        async with stream.append_session() as session:
            await session.append_many([bytes(100_000)] * 40)
        # One for each batch at least, of a megabyte.
        assert turns > before + 4
        before = turns
        assert len(await read_all(stream)) == 40
        assert turns > before + 4
        nursery.cancel_scope.cancel()
