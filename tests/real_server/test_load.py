"""Many sessions at once, and many one after the other: nothing is lost, doubled or left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from attrs import define, field, frozen

from real_server.places import needs_lite
from s2_lite import s2_lite
from s2frames.config import BasinConfig
from s2frames.settings import Endpoints, Settings
from scenes import Flavour, open_client, run

pytestmark = needs_lite

# Streams that each client opens and closes; `nox -s load` has 10000.
_NUM_STREAMS = int(os.environ.get("S2FRAMES_LOAD_STREAMS", "500"))

# Opened and closed before anything is counted: connections are made, caches are filled.
_NUM_FIRST = 100

# Of each session.
_NUM_MESSAGES = 4

_BASIN = "test-basin"

# On trio httpx's client does what it does on asyncio.
_KINDS = [Flavour.HTTP2, Flavour.SYNC, Flavour.ASYNCIO]

# Streams that are open at the same time, where there can be more than one.
_NUM_AT_ONCE = 10

# Objects of a type that come and go: h2 lets go of streams that are closed when it opens the next
# one, and each stream of the service takes two.
_SLACK_OBJECTS = 2 * _NUM_AT_ONCE

# Bytes that come and go: trio sweeps out cancelled deadlines when there are more than 1000, of at
# most some 130 bytes each.
_SLACK_BYTES = 200_000

# For each stream: nothing is kept of one that is over.
_MAX_BYTES_LEFT = 10

# Where open files are listed: of this process, on Linux and macOS.
_OPEN_FILES = Path("/dev/fd")


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    """A server of its own: it is not to be slowed down by what other tests keep."""
    with s2_lite() as url:
        yield url


@asynccontextmanager
async def client_of(kind: Flavour, url: str) -> AsyncIterator[Any]:
    """A client, and a basin whose streams make themselves."""
    # Longer than any crowd takes: an append that is repeated would leave a repeat.
    settings = Settings(endpoints=Endpoints.at(url), request_timeout=60.0)
    async with open_client(kind, settings) as client:
        config = BasinConfig(create_stream_on_append=True, create_stream_on_read=True)
        await client.ensure_basin(_BASIN, config)
        yield client


# Many at once


@define(eq=False)
class Crowd:
    """Sessions that are all open before any of them goes on."""

    size: int
    _num_here: int = 0
    _all_here: anyio.Event = field(factory=anyio.Event)

    async def gather(self) -> None:
        """Wait until all others are here, too."""
        self._num_here += 1
        if self._num_here == self.size:
            self._all_here.set()
        await self._all_here.wait()


async def append_and_follow(stream: Any, name: str, crowd: Crowd) -> None:
    """Append some messages, and follow them meanwhile."""
    expected = [f"{name}, message {i}".encode() for i in range(_NUM_MESSAGES)]
    received = []
    async with (
        stream.append_session() as session,
        stream.read_session(follow=True) as messages,
    ):
        await session.append(expected[0])
        received.append(await anext(messages))
        await crowd.gather()
        await session.append_many(expected[1:])
        while len(received) < _NUM_MESSAGES:
            received.append(await anext(messages))
    assert received == expected
    # Each is one record: nothing came twice, nor anything else.
    assert (await stream.check_tail()).seq_num == _NUM_MESSAGES


@pytest.mark.parametrize(
    ("kind", "num_sessions"), [(Flavour.HTTP2, 1000), (Flavour.ASYNCIO, 200)], ids=str
)
def test_each_of_many_sessions_gets_its_own(
    kind: Flavour, num_sessions: int, server_url: str
) -> None:
    num_done = 0

    async def work(client: Any, name: str, crowd: Crowd) -> None:
        nonlocal num_done
        await append_and_follow(client.stream(_BASIN, name), name, crowd)
        num_done += 1

    async def main() -> None:
        crowd = Crowd(num_sessions)
        async with client_of(kind, server_url) as client, anyio.create_task_group() as tasks:
            for i in range(num_sessions):
                tasks.start_soon(work, client, f"crowd/{kind.value}/{i}", crowd)

    run(kind, main)
    assert num_done == num_sessions


# Many one after the other


@frozen
class Census:
    """What this process holds."""

    open_files: int
    #: Tasks of the event loop, if there is one, and threads.
    tasks: int
    #: Objects of the packages that could keep a session, by type.
    objects: Counter[str] = field(repr=False)
    traced_bytes: int

    @classmethod
    def take(cls, kind: Flavour) -> Census:
        """Count."""
        # Twice: what a finalizer lets go of is found by the next one.
        gc.collect()
        gc.collect()
        return cls(
            # The folder is open, too, while it is listed: each time.
            len(list(_OPEN_FILES.iterdir())),
            _count_tasks(kind) + threading.active_count(),
            Counter(map(_name_of_type, gc.get_objects())) & _EVERYTHING_OF_OURS,
            tracemalloc.get_traced_memory()[0],
        )


class _Ours(Counter[str]):
    """As many as there are, of each type of certain packages; of others none."""

    def __missing__(self, name: str) -> int:
        return sys.maxsize if name.startswith(_OURS) else 0


_OURS = ("s2frames", "h2.", "httpx.", "httpcore.", "h11.")
_EVERYTHING_OF_OURS = _Ours()


def _name_of_type(thing: object) -> str:
    kind = type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def _count_tasks(kind: Flavour) -> int:
    if not kind.is_async:
        return 0
    if kind.backend == "trio":
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


class _LeftByError(Exception):
    """Ends a block."""


def one_and_an_error() -> Iterator[bytes]:
    yield b"on its way"
    raise _LeftByError


async def open_and_close(client: Any, index: int) -> None:
    """A stream's sessions: some closed as they should be, some left early or by an exception."""
    stream = client.stream(_BASIN, f"{index % 20}")
    with suppress(_LeftByError):
        async with stream.append_session() as session:
            appended = await session.append(b"some message")
            if index % 3 == 0:
                await session.append_many(one_and_an_error())
    with suppress(_LeftByError):
        async with stream.read_session(start=appended.start, follow=True) as messages:
            assert await anext(aiter(messages)) == b"some message"
            if index % 2:
                raise _LeftByError


async def open_and_close_many(kind: Flavour, client: Any, num_streams: int) -> None:
    """So many streams, some at once."""
    numbers = iter(range(num_streams))

    async def work() -> None:
        for index in numbers:
            await open_and_close(client, index)

    if not kind.is_async:
        await work()
        return
    async with anyio.create_task_group() as tasks:
        for _ in range(_NUM_AT_ONCE):
            tasks.start_soon(work)


@pytest.fixture
def traced() -> Iterator[None]:
    """Python's memory is counted."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.skipif(not _OPEN_FILES.exists(), reason="open files are not listed here")
@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: str(kind.value))
@pytest.mark.usefixtures("traced")
def test_streams_that_were_closed_leave_nothing(kind: Flavour, server_url: str) -> None:
    taken: list[Census] = []

    async def main() -> None:
        async with client_of(kind, server_url) as client:
            await open_and_close_many(kind, client, _NUM_FIRST)
            taken.append(Census.take(kind))
            await open_and_close_many(kind, client, _NUM_STREAMS)
            taken.append(Census.take(kind))

    run(kind, main)
    before, after = taken
    # Shown where the test fails, and by pytest's `-rP`.
    sys.stdout.write(f"{before}\n{after}\n")
    assert after.open_files <= before.open_files
    assert after.tasks <= before.tasks
    grown = after.objects - before.objects
    assert not {name for name, count in grown.items() if count > _SLACK_OBJECTS}
    most = _SLACK_BYTES + _NUM_STREAMS * _MAX_BYTES_LEFT
    assert after.traced_bytes - before.traced_bytes < most


@pytest.mark.usefixtures("traced")
def test_what_is_left_is_seen() -> None:
    before = Census.take(Flavour.SYNC)
    stopped = threading.Event()
    with socket.socket():
        kept = [Settings(), bytes(1_000_000)]
        thread = threading.Thread(target=stopped.wait)
        thread.start()
        after = Census.take(Flavour.SYNC)
        stopped.set()
        thread.join()
    assert kept
    assert after.open_files == before.open_files + 1
    assert after.tasks == before.tasks + 1
    assert (after.objects - before.objects)["s2frames.settings.Settings"] == 1
    assert after.traced_bytes - before.traced_bytes > 1_000_000
