from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any

import anyio
import httpx
import pytest
import trio
import trio.testing
from attrs import define

from httpx_adapter.gates import AsyncCounter
from s2frames import Settings
from s2frames.errors import ConnectError
from s2frames.retry import Retry
from s2frames_httpx import AsyncClient, AsyncEmbeddedTransport
from s2frames_httpx.clock import ServiceClock, for_system, running_clock
from s2frames_httpx.embedded import EMBEDDED_SETTINGS
from scenes import ASYNC_FLAVOURS


@pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True, ids=str)
@pytest.mark.usefixtures("flavour")
async def test_it_is_the_clock_of_the_loop() -> None:
    clock = running_clock()
    assert anyio.current_time() <= clock() <= anyio.current_time()


def test_a_loop_that_only_hosts_trio_is_not_asked() -> None:
    clocks: list[object] = []
    done: asyncio.Future[None]

    async def look() -> None:
        clocks.append(running_clock())

    async def host() -> None:
        nonlocal done
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            look,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=lambda _outcome: done.set_result(None),
        )
        await done

    asyncio.run(host())
    assert clocks == [trio.current_time]


# Far less than this takes.
SECONDS = 20.0


def refuse(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


async def ask(client: AsyncClient) -> None:
    await client.stream("test-basin", "room/1").check_tail()


async def read(client: AsyncClient) -> None:
    async with client.stream("test-basin", "room/1").read_session() as messages:
        await anext(messages)


async def append(client: AsyncClient) -> None:
    async with client.stream("test-basin", "room/1").append_session(linger=1) as session:
        await session.append_many([b"a"])


@pytest.mark.parametrize("use", [ask, read, append])
def test_a_client_waits_and_counts_on_one_clock(use: Callable[[AsyncClient], Any]) -> None:
    async def main() -> float:
        # Counted on the system's clock, `SECONDS` would be as many real ones, and here far more.
        settings = Settings(
            endpoints=EMBEDDED_SETTINGS.endpoints, retry=Retry(connect_seconds=SECONDS)
        )
        async with AsyncClient(settings, transport=httpx.MockTransport(refuse)) as client:
            began = trio.current_time()
            with pytest.raises(ConnectError):
                await use(client)
            return trio.current_time() - began

    took = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert SECONDS / 2 < took < SECONDS + 2


def test_messages_that_have_waited_for_linger_go_out() -> None:
    counter: AsyncCounter

    async def messages() -> AsyncIterator[bytes]:
        yield b"a"
        await trio.sleep(60)
        # The first one has waited for long enough, and takes this one along.
        yield b"b"
        yield b"c"

    async def main() -> None:
        nonlocal counter
        counter = AsyncCounter(AsyncEmbeddedTransport())
        async with AsyncClient(EMBEDDED_SETTINGS, transport=counter) as client:
            await client.create_basin("test-basin")
            stream = client.stream("test-basin", "room/1")
            await stream.create()
            counter.requests.clear()
            async with stream.append_session(linger=30) as session:
                await session.append_many(messages())
                assert session.durable_messages == 3

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(counter.requests) == 2


# The time of a service


@define
class Clocks:
    """The system's time, and the clock that waits go by."""

    wall: float = 1000.0
    waiting: float = 5.0

    def time(self) -> float:
        return self.wall

    def read(self) -> float:
        return self.waiting


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()
    monkeypatch.setattr("s2frames_httpx.clock.time", made)
    return made


def test_a_services_time_is_the_systems(clocks: Clocks) -> None:
    clock = ServiceClock(clocks.read)
    assert clock.now() == 1000
    clocks.wall, clocks.waiting = 1003, 8
    assert clock.now() == 1003
    # The system slept, and was set forward.
    clocks.wall = 5000
    assert clock.now() == 5000


def test_a_services_time_goes_on_when_the_systems_is_set_back(clocks: Clocks) -> None:
    clock = ServiceClock(clocks.read)
    clock.now()
    clocks.wall = 10
    assert clock.now() == 1000
    clocks.wall, clocks.waiting = 17, 12
    assert clock.now() == 1007
    # It has caught up.
    clocks.wall = 2000
    assert clock.now() == 2000


def test_a_services_time_never_goes_back_with_another_loop(clocks: Clocks) -> None:
    clock = ServiceClock(clocks.read)
    clocks.waiting = 50
    assert clock.now() == 1000
    clocks.waiting = 90
    assert clock.now() == 1040
    clocks.waiting = 0
    assert clock.now() == 1040
    clocks.waiting = 1
    assert clock.now() == 1041


def test_a_follower_in_process_waits_on_the_clock_of_a_test() -> None:
    async def main() -> float:
        async with AsyncClient.embedded() as client:
            await client.create_basin("test-basin")
            stream = client.stream("test-basin", "room/1")
            await stream.create()
            began = trio.current_time()
            async with stream.read_session(wait=5) as messages:
                assert [message async for message in messages] == []
            return trio.current_time() - began

    took = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert took == pytest.approx(5, abs=1)


def test_what_the_system_cannot_wait_for_at_a_time_is_cut() -> None:
    assert list(map(for_system, (-1.0, 0.0, 2.5, 1e7, inf))) == [0.0, 0.0, 2.5, 1e6, 1e6]
