"""Where the adapters' tests play: a flavour of client, and a place where the service is.

A test is an async function that takes the fixture `s2`, a `World`. It runs in every scene, on the
synchronous client too: `Blocking` makes that one look asynchronous, and since it never waits for
an event loop, no loop is needed to run it.
"""

from __future__ import annotations

import enum
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from itertools import count
from typing import Any, TypeAlias, cast

import anyio
import httpx
import pytest
from attrs import define, evolve, field, frozen

import s2frames_trio
from httpx_adapter.gates import AsyncLosing, Losing
from live_service import live_service, served_service
from s2_lite import find_binary, s2_lite
from s2frames.errors import S2FramesError
from s2frames.settings import Endpoints, Settings
from s2frames_httpx import (
    AsyncAppendSession,
    AsyncClient,
    AsyncEmbeddedTransport,
    AsyncStream,
    Client,
    EmbeddedTransport,
)
from s2frames_httpx.embedded import EMBEDDED_SETTINGS
from virtual_time import clock_options

__all__ = [
    "ASYNC_FLAVOURS",
    "ASYNC_SCENES",
    "EMBEDDED_SCENES",
    "EVERY_FLAVOUR",
    "EVERY_SCENE",
    "FLAVOURS",
    "HTTPX_EMBEDDED_SCENES",
    "PLACES",
    "SCENES",
    "SYNC_SCENES",
    "Flavour",
    "Place",
    "Scene",
    "World",
    "every_flavour",
    "flavour",
    "in_block",
    "lite_url",
    "no_certificates",
    "open_client",
    "pytest_pyfunc_call",
    "run",
    "s2",
    "s2_everywhere",
    "together",
    "virtual_time",
]

_Step: TypeAlias = Callable[[], Awaitable[object]]

# The synchronous client as an asynchronous one

# What a client, a stream and the sessions do at once, and what gives another of them.
_AT_ONCE = frozenset(("target", "settings", "http", "stats", "caught_up", "checkpoint"))
_AT_ONCE |= {"writer_id", "durable_messages", "pending"}
_GIVES_ANOTHER = frozenset(("stream", "append_session", "read_session", "frames", "batches"))
_LISTS = frozenset(("list_basins", "list_streams"))


class Blocking:
    """A synchronous object that looks asynchronous: what is awaited has happened already."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __repr__(self) -> str:
        return repr(self._wrapped)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        if name in _AT_ONCE:
            return attribute
        if name in _GIVES_ANOTHER:
            return lambda *args, **options: Blocking(attribute(*args, **options))
        if name in _LISTS:
            return lambda *args, **options: _iterate(attribute(*args, **options))
        return _awaitable(attribute)

    async def __aenter__(self) -> Blocking:
        return Blocking(self._wrapped.__enter__())

    async def __aexit__(self, *error: Any) -> None:
        self._wrapped.__exit__(*error)

    def __aiter__(self) -> AsyncIterator[Any]:
        return _BlockingIterator(iter(self._wrapped))


class _BlockingIterator:
    """A plain iterator that looks asynchronous. (A generator would end at the first error.)"""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            raise StopAsyncIteration from None


def _iterate(iterator: Iterator[Any]) -> AsyncIterator[Any]:
    return _BlockingIterator(iterator)


def _awaitable(method: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(*args: Any, **options: Any) -> Any:
        return method(*args, **options)

    return call


# Flavours and places


class Flavour(enum.Enum):
    """A kind of client."""

    SYNC = "sync"
    ASYNCIO = "asyncio"
    TRIO = "trio"
    HTTP2 = "trio, HTTP/2"

    @property
    def is_async(self) -> bool:
        return self is not Flavour.SYNC

    @property
    def uses_httpx(self) -> bool:
        """Whether it sends bursts over HTTP/1.1, through transports that a test may replace."""
        return self is not Flavour.HTTP2

    @property
    def backend(self) -> str:
        """What runs it, if it is asynchronous."""
        return "asyncio" if self is Flavour.ASYNCIO else "trio"


class Place(enum.Enum):
    """Where the service is."""

    EMBEDDED = "in process"
    SOCKET = "socket"
    LITE = "s2 lite"


@frozen
class Scene:
    """A flavour in a place."""

    flavour: Flavour
    place: Place

    def __str__(self) -> str:
        return f"{self.flavour.value}, {self.place.value}"


PLACES = [place for place in Place if place is not Place.LITE or find_binary()]
EVERY_FLAVOUR = list(Flavour)
EVERY_SCENE = [Scene(kind, place) for place in PLACES for kind in Flavour]
EMBEDDED_SCENES = [scene for scene in EVERY_SCENE if scene.place is Place.EMBEDDED]

# Of httpx alone.
FLAVOURS = [kind for kind in Flavour if kind.uses_httpx]
SCENES = [scene for scene in EVERY_SCENE if scene.flavour.uses_httpx]
HTTPX_EMBEDDED_SCENES = [scene for scene in SCENES if scene.place is Place.EMBEDDED]
ASYNC_FLAVOURS = [kind for kind in FLAVOURS if kind.is_async]
ASYNC_SCENES = [scene for scene in SCENES if scene.flavour.is_async]
SYNC_SCENES = [scene for scene in SCENES if not scene.flavour.is_async]


def run(
    how: Flavour, main: Callable[[], Coroutine[Any, Any, object]], *, in_virtual_time: bool = False
) -> None:
    """Run `main` as that flavour's users would."""
    if how.is_async:
        options = clock_options(how.backend) if in_virtual_time else None
        anyio.run(main, backend=how.backend, backend_options=options)
        return
    coroutine = main()
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("what a synchronous client does cannot wait for an event loop")


def open_client(
    how: Flavour,
    settings: Settings | None = None,
    transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None = None,
    **options: Any,
) -> AbstractAsyncContextManager[AsyncClient]:
    """A client of that flavour, in a block; it is typed as httpx's asynchronous one.

    `options` are further arguments of it.
    """
    if not how.uses_httpx:
        assert transport is None
        client = s2frames_trio.open_client(settings, **options)
        return cast("AbstractAsyncContextManager[AsyncClient]", client)
    if how.is_async:
        assert not isinstance(transport, httpx.BaseTransport)
        return AsyncClient(settings, transport=transport, **options)
    assert not isinstance(transport, httpx.AsyncBaseTransport)
    return cast("AsyncClient", Blocking(Client(settings, transport=transport, **options)))


@asynccontextmanager
async def in_block(
    session: AsyncAppendSession[Any],
) -> AsyncIterator[AsyncAppendSession[Any]]:
    """A session in its block. It may end in an error that the test looks at itself."""
    await session.__aenter__()
    try:
        yield session
    finally:
        with suppress(S2FramesError):
            await session.__aexit__(None, None, None)


async def together(how: Flavour, *steps: _Step) -> None:
    """Do all of it at the same time: in tasks, or in threads."""
    if how.is_async:
        async with anyio.create_task_group() as group:
            for step in steps:
                group.start_soon(_discard, step)
        return
    errors: list[BaseException] = []
    threads = [
        # One that hangs is a failure, and does not keep the process.
        threading.Thread(target=_run_in_thread, args=(step, errors), daemon=True)
        for step in steps
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


async def _discard(step: _Step) -> None:
    await step()


def _run_in_thread(step: _Step, errors: list[BaseException]) -> None:
    try:
        run(Flavour.SYNC, lambda: _discard(step))
    except BaseException as error:  # noqa: BLE001  # raised where the threads are joined
        errors.append(error)


# The world of a test

_numbers = count()


@define
class World:
    """A client of some flavour, and an empty stream in a basin of its own."""

    scene: Scene
    settings: Settings
    transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None = None
    #: Arguments of `Settings`.
    changes: dict[str, Any] = field(factory=dict)
    basin: str = field(factory=lambda: f"test-basin-{next(_numbers)}")
    client: AsyncClient = field(init=False)
    stream: AsyncStream = field(init=False)

    @property
    def flavour(self) -> Flavour:
        return self.scene.flavour

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the client and make the stream."""
        async with self._first_client() as self.client:
            # A service in this process that has no transport is where its client says.
            self.settings = self.client.settings
            await self.client.create_basin(self.basin)
            self.stream = self.client.stream(self.basin, "room/1")
            await self.stream.create()
            yield

    def _first_client(self) -> AbstractAsyncContextManager[AsyncClient]:
        if self.scene.place is not Place.EMBEDDED or self.flavour.uses_httpx:
            return self.another_client()
        client = s2frames_trio.open_embedded_client(**self.changes)
        return cast("AbstractAsyncContextManager[AsyncClient]", client)

    def another_client(self) -> AbstractAsyncContextManager[AsyncClient]:
        """One more client of the same service."""
        return open_client(self.flavour, self.settings, self.transport)

    def losing_client(
        self, lost: Container[int], keep_bytes: int | None = None, **changes: Any
    ) -> AbstractAsyncContextManager[AsyncClient]:
        """A client that loses the answers to some requests, by number, after they took effect.

        With `keep_bytes` so much of each of these arrives. Only for httpx, and the service in this
        process.
        """
        settings = evolve(self.settings, **changes)
        if isinstance(self.transport, httpx.BaseTransport):
            return open_client(self.flavour, settings, Losing(self.transport, lost, keep_bytes))
        assert self.transport is not None
        return open_client(self.flavour, settings, AsyncLosing(self.transport, lost, keep_bytes))

    async def together(self, *steps: _Step) -> None:
        """Do all of it at the same time: in tasks, or in threads."""
        await together(self.flavour, *steps)


@contextmanager
def world(scene: Scene, lite: Callable[[], str], **changes: Any) -> Iterator[World]:
    """A world for that scene; `changes` are arguments of `Settings`."""
    if scene.place is Place.EMBEDDED:
        settings = Settings(endpoints=EMBEDDED_SETTINGS.endpoints, **changes)
        is_async = scene.flavour.is_async
        transport = AsyncEmbeddedTransport() if is_async else EmbeddedTransport()
        yield World(scene, settings, transport if scene.flavour.uses_httpx else None, changes)
    elif scene.place is Place.SOCKET:
        with live_service() if scene.flavour.uses_httpx else served_service() as url:
            yield World(scene, Settings(endpoints=Endpoints.at(url), **changes))
    else:
        yield World(scene, Settings(endpoints=Endpoints.at(lite()), **changes))


# What a conftest takes from here


@pytest.fixture(params=FLAVOURS, ids=lambda kind: str(kind.value))
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """A kind of client, for tests that have a server of their own, which speaks HTTP/1.1."""
    chosen: Flavour = request.param
    return chosen


#: For tests whose server, if there is one, speaks HTTP/2 too.
every_flavour = pytest.mark.parametrize(
    "flavour", EVERY_FLAVOUR, indirect=True, ids=lambda kind: str(kind.value)
)


@pytest.fixture
def virtual_time() -> None:
    """For tests with time-outs and without sockets: time passes when all tasks wait."""


@pytest.fixture(scope="session", autouse=True)
def no_certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test here speaks TLS: spare each client the time to load the system's certificates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield


@pytest.fixture(scope="session")
def lite_url() -> Iterator[str]:
    """The URL of an `s2 lite` for all tests."""
    with s2_lite() as url:
        yield url


@pytest.fixture(params=SCENES, ids=str)
def s2(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world for the scene that is the parameter: a scene, or a scene and more settings."""
    with _world_for(request) as made:
        yield made


@pytest.fixture(params=EVERY_SCENE, ids=str)
def s2_everywhere(request: pytest.FixtureRequest) -> Iterator[World]:
    """As `s2`, by default with every adapter."""
    with _world_for(request) as made:
        yield made


@contextmanager
def _world_for(request: pytest.FixtureRequest) -> Iterator[World]:
    scene, changes = request.param if isinstance(request.param, tuple) else (request.param, {})
    with world(scene, lambda: str(request.getfixturevalue("lite_url")), **changes) as made:
        yield made


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run async tests: as the flavour of their `s2` says, or of their `flavour`."""
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    names = inspect.signature(function).parameters
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    place = arguments.get("s2")
    if not isinstance(place, World):
        how = cast("Flavour", pyfuncitem.funcargs["flavour"])
        is_virtual = "virtual_time" in pyfuncitem.fixturenames
        run(how, lambda: function(**arguments), in_virtual_time=is_virtual)
        return True

    async def main() -> None:
        async with place.open():
            await function(**arguments)

    run(place.flavour, main)
    return True
