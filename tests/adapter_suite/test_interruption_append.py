"""Ctrl-C at every line of a call that appends, with every adapter: the session goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
import trio

from interruption import SPARED, Interruption, Place, sampled
from s2frames import Appended
from s2frames.retry import Retry
from scenes import EMBEDDED_SCENES, Flavour, World

NEVER = 10**9

# What stalls or spins fails by this; and nothing but the lines that are cut off takes its time.
PATIENT: dict[str, Any] = {"request_timeout": 3600.0}

# Of the connections, that is. What is interrupted is the user's task.
_CONNECTIONS = ("/pool.py", "/h2_connection.py", "/h2_stream.py", "/h2_setup.py", "/duplex.py")


def interruption_at(k: int, flavour: Flavour) -> Interruption:
    """One in the task that makes it."""
    if flavour.uses_httpx:
        return Interruption(k)
    user = trio.lowlevel.current_task()

    def is_the_users() -> bool:
        is_deaf = trio.lowlevel.currently_ki_protected()
        return trio.lowlevel.current_task() is user and not is_deaf

    return Interruption(k, spared=(*SPARED, *_CONNECTIONS), only_if=is_the_users)


class Source:
    """An iterable that counts what is drawn from it, and is no generator."""

    def __init__(self, messages: list[bytes]) -> None:
        self._messages = iter(messages)
        self.num_drawn = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        message = next(self._messages)
        self.num_drawn += 1
        return message


class AsyncSource(Source):
    """The same, to be awaited."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None


class Play:
    """A session of which one call is cut off at the `k`-th line."""

    def __init__(self, s2: World, k: int, name: str) -> None:
        self._s2 = s2
        self._stream = s2.client.stream(s2.basin, name)
        self.interruption = interruption_at(k, s2.flavour)
        self.told: list[Appended] = []
        self.source = Source([b"b", b"c"])

    async def run(self, call: str) -> list[bytes]:
        """The messages that are read in the end."""
        await self._stream.create()
        # No attempt is counted for an interruption: one more would be the end.
        retry = Retry(max_attempts=1)
        async with self._stream.append_session(retry=retry, linger=0) as session:
            assert await session.append(b"a") == Appended(0, 1)
            if call == "append_many, async":
                self.source = AsyncSource([b"b", b"c"])
            with self.interruption:
                await self._call(session, call)
            if call == "close":
                await session.close()
                return await self._read()
            last = await session.append(b"z")
            num_durable = session.durable_messages
            await session.flush()
        assert session.durable_messages == num_durable
        assert session.pending().messages == ()
        messages = await self._read()
        assert len(messages) == num_durable, self.interruption.where
        assert last.start >= num_durable - 1
        return messages

    async def _call(self, session: Any, call: str) -> None:
        if call == "append":
            await session.append(b"b")
        elif call.startswith("append_many"):
            await session.append_many(self.source, self.told.append)
        elif call == "submit":
            await (await session.submit(b"b"))
        else:
            await getattr(session, call)()

    async def _read(self) -> list[bytes]:
        async with self._stream.read_session() as messages:
            return [message async for message in messages]


#: What may be read after each call.
FOUND: dict[str, list[list[bytes]]] = {
    "append": [[b"a", b"b", b"z"], [b"a", b"z"]],
    "append_many": [[b"a", b"b", b"c", b"z"], [b"a", b"b", b"z"], [b"a", b"z"]],
    "append_many, async": [
        [b"a", b"b", b"c", b"z"],
        [b"a", b"b", b"z"],
        [b"a", b"z"],
    ],
    "submit": [[b"a", b"b", b"z"], [b"a", b"z"]],
    "flush": [[b"a", b"z"]],
    "close": [[b"a"]],
}


CALLS = [
    pytest.param((scene, PATIENT), call, id=f"{call}, {scene}")
    for scene in EMBEDDED_SCENES
    for call in FOUND
    if call != "submit" or not scene.flavour.uses_httpx
    if call != "append_many, async" or scene.flavour.is_async
]


@pytest.mark.parametrize(("s2", "call"), CALLS, indirect=["s2"])
async def test_a_call_that_is_cut_off_at_any_line(s2: World, call: str) -> None:
    places: list[Place] = []
    for n in range(2):
        # What is done once for all is done by the first.
        play = Play(s2, NEVER, f"{call}/whole/{n}")
        assert await play.run(call) == FOUND[call][0]
        places = play.interruption.places
    assert len(places) > 3
    for k in sampled(places, with_last=False):
        play = Play(s2, k, f"{call}/{k}")
        messages = await play.run(call)
        where = play.interruption.where
        assert play.interruption.came_out or where is None, where
        assert messages in FOUND[call], where
        if call.startswith("append_many"):
            assert messages == [b"a", *[b"b", b"c"][: play.source.num_drawn], b"z"], where
        # Whoever was told was told of what is there, once and in order.
        assert play.told == sorted(set(play.told), key=lambda a: a.start), where
