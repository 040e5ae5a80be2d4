"""Cancelled at any moment: not only where the caller waits, but between any two steps of any task.

A step is what a task does from one checkpoint to the next one. All tasks count: the session's, the
connection's and the server's, so that the moment falls between any two things that follow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from s2frames import LocalProtocolError, S2FramesError
from s2frames.errors import Outcome
from s2frames.retry import Retry
from s2frames_trio import AppendSession, Stream
from trio_adapter.host import Host, numbers, opened, read_all
from trio_adapter.scripts import prepared, scripted

# Fewer would mean that the count does not see what happens; one run takes some hundred.
_FEWEST_STEPS = 60
_FEWEST_STEPS_OF_READING = 5


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope after the n-th step of all tasks together, counted from 1."""

    def __init__(self, number: int, scope: trio.CancelScope) -> None:
        self._number = number
        self._scope = scope
        self.seen = 0

    def after_task_step(self, _task: trio.lowlevel.Task) -> None:
        """A task has come to a checkpoint."""
        self.seen += 1
        if self.seen == self._number:
            self._scope.cancel()

    def __enter__(self) -> CancelAtStep:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)


async def append_some(session: AppendSession[bytes]) -> None:
    async with session:
        await session.append_many(numbers(3))


async def use(stream: Stream) -> None:
    """Append, read, and call."""
    await append_some(stream.append_session())
    assert (await read_all(stream))[-3:] == numbers(3)
    await stream.check_tail()


# The calling task


async def keep(_host: Host, _nursery: trio.Nursery) -> None:
    """The connection is there."""


async def cut(host: Host, _nursery: trio.Nursery) -> None:
    """Another connection has to be made."""
    await host.peers[-1].stream.aclose()
    await trio.testing.wait_all_tasks_blocked()


async def block(host: Host, nursery: trio.Nursery) -> None:
    """The connection has no room, and has again when somebody waits for it."""
    await host.peers[-1].change_settings(max_concurrent_streams=0)
    await trio.testing.wait_all_tasks_blocked()

    async def unblock() -> None:
        # A session waits for more messages before it sends the first one, but not so long.
        await trio.sleep(1)
        await host.peers[-1].change_settings(max_concurrent_streams=100)

    nursery.start_soon(unblock)


@pytest.mark.parametrize("prepare", [keep, cut, block])
async def test_a_task_that_is_cancelled_leaves_nothing(
    prepare: Callable[[Host, trio.Nursery], Awaitable[None]],
) -> None:
    number, goes_on = 1, True
    while goes_on:
        host = Host()
        async with opened(host) as (_, stream), trio.open_nursery() as nursery:
            await trio.testing.wait_all_tasks_blocked()
            tasks = trio.lowlevel.current_statistics().tasks_living
            await prepare(host, nursery)
            with trio.CancelScope() as scope, CancelAtStep(number, scope) as steps:
                await use(stream)
            goes_on = scope.cancelled_caught
            await _check_the_rest(host, stream, tasks)
            assert len(host.peers) == (2 if prepare is cut else 1), number
        number += 1
    assert steps.seen >= _FEWEST_STEPS


async def _check_the_rest(host: Host, stream: Stream, tasks: int) -> None:
    """No request is open at the peer, one connection is there and serves, and no other task is."""
    await trio.testing.wait_all_tasks_blocked()
    assert host.num_open == 0
    assert all(peer.h2.open_inbound_streams == 0 for peer in host.peers)
    tail = await stream.check_tail()
    assert await read_all(stream) == numbers(3)[: tail.seq_num]
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == tasks


# How the messages are iterated over, and what of an item is compared.
FORMS: dict[str, tuple[Callable[[Any], AsyncIterator[Any]], Callable[[Any], list[bytes]]]] = {
    "messages": (aiter, lambda item: [item]),
    "frames": (lambda session: aiter(session.frames()), lambda item: [item.message]),
    "batches": (lambda session: aiter(session.batches()), list),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit", [None, 2, 3])
async def test_reading_goes_on_exactly_after_it_was_cancelled(form: str, limit: int | None) -> None:
    iterate, messages_of = FORMS[form]
    number, goes_on = 1, True
    while goes_on:
        got: list[bytes] = []
        # An attempt that is counted ends the session.
        once = Retry(max_attempts=1)
        async with opened(Host()) as (_, stream):
            for message in numbers(3):
                async with stream.append_session() as session:
                    await session.append(message)
            async with stream.read_session(limit=limit, retry=once) as messages:
                items = iterate(messages)
                with trio.CancelScope() as scope, CancelAtStep(number, scope) as steps:
                    async for item in items:
                        got += messages_of(item)
                goes_on = scope.cancelled_caught
                async with stream.read_session(start=messages.checkpoint()) as others:
                    assert got + [message async for message in others] == numbers(3), number
                async for item in items:
                    got += messages_of(item)
        assert got == numbers(3)[:limit], number
        number += 1
    assert steps.seen >= _FEWEST_STEPS_OF_READING


# The client


class User:
    """A task that outlives its client, and how it ended."""

    def __init__(self) -> None:
        self.session: AppendSession[bytes] | None = None
        self.error: S2FramesError | None = None
        self.is_done = trio.Event()

    async def run(self, stream: Stream) -> None:
        self.session = stream.append_session()
        try:
            await append_some(self.session)
            await read_all(stream)
            await stream.check_tail()
        except S2FramesError as error:
            self.error = error
        self.is_done.set()


async def test_a_client_that_is_closed_takes_everything_along() -> None:
    number, goes_on = 1, True
    while goes_on:
        host, user = await prepared(), User()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                async with scripted(host) as stream:
                    with trio.CancelScope() as scope, CancelAtStep(number, scope) as steps:
                        nursery.start_soon(user.run, stream)
                        await user.is_done.wait()
                goes_on = scope.cancelled_caught
        await _check_what_is_durable(host, user)
        number += 1
    assert user.error is None
    assert steps.seen >= _FEWEST_STEPS


async def _check_what_is_durable(host: Host, user: User) -> None:
    """What the user was told holds."""
    async with scripted(host) as stream:
        stored = await read_all(stream)
    assert stored == numbers(3)[: len(stored)]
    assert user.session is not None
    assert user.session.durable_messages <= len(stored)
    if user.error is not None:
        assert isinstance(user.error, LocalProtocolError), user.error
        assert "client is closed" in str(user.error)
        if user.error.outcome is Outcome.NOT_APPLIED:
            assert user.error.durable_messages == len(stored)
