"""A client that is closed while its sessions and calls wait: they hear of it, and at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field

from s2frames import LocalProtocolError
from s2frames.retry import Retry
from s2frames.session import Retrying
from s2frames_httpx import AsyncStream
from scenes import HTTPX_EMBEDDED_SCENES, SCENES, Flavour, Place, World

in_reach = pytest.mark.parametrize(
    "s2", [scene for scene in SCENES if scene.place is not Place.LITE], indirect=True, ids=str
)
embedded = pytest.mark.parametrize("s2", HTTPX_EMBEDDED_SCENES, indirect=True, ids=str)

# No test waits for so long.
HOUR = 3600.0


@define
class Signal:
    """Something has happened, in another task or thread."""

    flavour: Flavour
    _event: threading.Event = field(factory=threading.Event)

    def set(self, *_what: object) -> None:
        self._event.set()

    async def wait(self) -> None:
        if not self.flavour.is_async:
            assert self._event.wait(30)
        while not self._event.is_set():
            await anyio.lowlevel.checkpoint()


async def ending(use: Callable[[], Awaitable[object]], told: list[str]) -> None:
    """Note the error in which it ends."""
    with pytest.raises(LocalProtocolError) as caught:
        await use()
    told.append(str(caught.value))


@in_reach
async def test_a_follower_and_a_writer_hear_that_their_client_is_closed(s2: World) -> None:
    told: list[str] = []
    follows, writes = Signal(s2.flavour), Signal(s2.flavour)
    async with s2.another_client() as client:
        stream = client.stream(s2.basin, "room/1")

        async def follow() -> None:
            async with stream.read_session(follow=True, on_caught_up=follows.set) as reading:
                async for _message in reading:
                    """Until the client is closed."""

        async def write() -> None:
            async with stream.append_session() as session:
                while True:
                    await session.append(b"x")
                    writes.set()

        async def close() -> None:
            await follows.wait()
            await writes.wait()
            await client.close()

        await s2.together(lambda: ending(follow, told), lambda: ending(write, told), close)
    # The writer's says how many messages are durable, and none says that it was tried again.
    assert len(told) == 2
    for words in told:
        assert re.fullmatch(
            r"the client is closed(; \d+ messages? durable(, more may be)?)?", words
        )
    # Others are not concerned.
    await s2.stream.check_tail()


@embedded
async def test_a_follower_in_process_need_not_wait_for_a_heartbeat(
    s2: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2frames.embedded.read_session._HEARTBEAT_MIN", HOUR)
    monkeypatch.setattr("s2frames.embedded.read_session._HEARTBEAT_MAX", HOUR)
    monkeypatch.setattr("s2frames.read.LIVENESS_TIMEOUT", HOUR)
    told: list[str] = []
    follows = Signal(s2.flavour)
    async with s2.another_client() as client:
        stream = client.stream(s2.basin, "room/1")

        async def follow() -> None:
            async with stream.read_session(follow=True, on_caught_up=follows.set) as reading:
                await anext(aiter(reading))

        async def close() -> None:
            await follows.wait()
            await client.close()

        await s2.together(lambda: ending(follow, told), close)
    assert told == ["the client is closed"]


async def read(stream: AsyncStream, on_retry: Callable[[Retrying], None]) -> None:
    async with stream.read_session(on_retry=on_retry) as reading:
        await anext(aiter(reading))


async def append(stream: AsyncStream, on_retry: Callable[[Retrying], None]) -> None:
    async with stream.append_session(on_retry=on_retry) as session:
        await session.append(b"x")


@embedded
@pytest.mark.parametrize("use", [read, append])
async def test_who_waits_for_another_attempt_hears_it_too(s2: World, use: Any) -> None:
    told: list[str] = []
    fails = Signal(s2.flavour)
    patient = Retry(min_delay=HOUR, max_delay=HOUR, max_seconds=1e6, connect_seconds=1e6)
    async with s2.losing_client(range(100), retry=patient) as client:

        async def close() -> None:
            await fails.wait()
            await client.close()

        stream = client.stream(s2.basin, "room/1")
        await s2.together(lambda: ending(lambda: use(stream, fails.set), told), close)
    # One attempt has failed, and there was no other.
    assert [words.partition("; 0 messages")[0] for words in told] == [
        "the client is closed; tried 2 times"
    ]
