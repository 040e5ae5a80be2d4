"""Ctrl-C, as the signal that it is: a plain `KeyboardInterrupt` in the user's task, wherever it
finds the process, and a client that is usable or closed."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import s2frames_trio
from interruption import Lines, Place, is_exit_of_scope, sampled
from s2frames import Endpoints, LocalProtocolError, Settings
from s2frames.embedded import Exchange, Service
from s2frames.http import Request
from s2frames_trio import Client, Stream, open_client, open_embedded_client
from s2frames_trio.h2_connection import Http2Connection
from s2frames_trio.interrupts import passing_interrupts_on
from s2frames_trio.pool import Pool, open_pool
from trio_adapter.host import FAST, Host, numbers, opened, read_all
from trio_adapter.peers import dialer, open_peer
from trio_adapter.scripts import prepared

ADAPTER = f"{Path(s2frames_trio.__file__).parent}/"
CONTEXTS = str(contextlib.__file__)
DIALS_OF_TRIO = str(sys.modules["trio._highlevel_open_tcp_stream"].__file__)

REQUEST = Request("GET", "http://peer/")

# Whatever hangs, ends.
pytestmark = pytest.mark.timeout(60)


class Signal(Lines):
    """Sends SIGINT at the `k`-th line, counted from 1, or the next where Python would do it."""

    def __init__(self, k: int, directories: Sequence[str]) -> None:
        super().__init__(directories, spared=())
        self._k = k
        self.is_sent = False

    def _reach(self, place: Place) -> None:
        super()._reach(place)
        if len(self.places) >= self._k and not is_exit_of_scope(place):
            self._stop()
            self.is_sent = True
            signal.raise_signal(signal.SIGINT)


async def use(stream: Stream) -> None:
    """Append, read, and call."""
    async with stream.append_session() as session:
        await session.append_many(numbers(3))
    await read_all(stream)
    await stream.check_tail()


class Told:
    """How a piece of work was interrupted."""

    def __init__(self) -> None:
        self.interrupt: KeyboardInterrupt | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as interrupt:
            self.interrupt = interrupt


async def use_interrupted(lines: Lines) -> Told:
    """Use a client until the signal comes, and then again."""
    told, host = Told(), await prepared()
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, host.serve)
        settings = Settings(endpoints=Endpoints.at("http://peer"), retry=FAST)
        async with open_pool(connect_with=connect) as pool:
            stream = Client(settings, pool).stream("test-basin", "room/1")
            with told.listening():
                with lines:
                    await use(stream)
                # One that found a task of the client comes when this one waits.
                await trio.lowlevel.checkpoint()
            with trio.fail_after(60):
                await use(stream)
                stored = await read_all(stream)
        # Of the append that was interrupted, the beginning may be there.
        assert stored[-3:] == numbers(3)
        assert stored[:-3] == numbers(3)[: len(stored) - 3]
    assert host.num_open == 0
    return told


# Which of the lines: together all, in tests that are short.
@pytest.mark.parametrize("part", range(6))
async def test_a_client_in_use_is_interrupted_anywhere(part: int) -> None:
    seen = Lines((ADAPTER,), spared=())
    assert (await use_interrupted(seen)).interrupt is None
    names = {name for name, _ in seen.places}
    # Every kind of task ran.
    assert names >= {f"s2frames_trio/{n}.py" for n in ("pool", "duplex", "h2_connection", "read")}
    num_sent = 0
    for k in list(sampled(seen.places, with_last=False))[part::6]:
        sent = Signal(k, (ADAPTER,))
        told = await use_interrupted(sent)
        assert (told.interrupt is not None) is sent.is_sent, sent.places[-1]
        num_sent += sent.is_sent
    assert num_sent > 80


@pytest.mark.parametrize("name", ["open_stream", "send", "credit", "reset"])
async def test_what_a_task_of_the_user_asks_of_a_connection_is_not_cut_off(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, found = getattr(Http2Connection, name), list[bool]()

    def look(connection: Http2Connection, *args: Any, **options: Any) -> Any:
        found.append(trio.lowlevel.currently_ki_protected())
        return original(connection, *args, **options)

    async with opened(Host()) as (_, stream):
        async with stream.append_session() as session:
            # More than a window.
            await session.append_many([bytes(2**20)] * 4)
        monkeypatch.setattr(Http2Connection, name, look)
        assert len(await read_all(stream)) == 4
        await stream.fence("token")
    assert found
    assert all(found)


async def enter_and_leave(lines: Lines, told: Told) -> None:
    """Have a client in a block, traced from before it to after it."""
    host = Host()
    pools: list[Pool] = []
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, host.serve)
        with told.listening():
            with lines:
                async with open_pool(connect_with=connect) as pool:
                    pools.append(pool)
                    await pool.open_stream(REQUEST)
            await trio.lowlevel.checkpoint()
        for closed in pools:
            with pytest.raises(LocalProtocolError, match="closed"):
                await closed.open_stream(REQUEST)
    # The peers' tasks have ended, so their connections have.
    assert host.num_open == 0


async def test_entering_and_leaving_are_interrupted_anywhere() -> None:
    seen, told = Lines((ADAPTER, CONTEXTS), spared=()), Told()
    await enter_and_leave(seen, told)
    assert told.interrupt is None
    num_sent = 0
    for k in sampled(seen.places):
        sent, told = Signal(k, (ADAPTER, CONTEXTS)), Told()
        await enter_and_leave(sent, told)
        assert (told.interrupt is not None) is sent.is_sent, sent.places[-1]
        num_sent += sent.is_sent
    assert num_sent > 200


# A socket that trio's code was cut off with is closed by Python.
@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.usefixtures("real_clock")
async def test_a_dial_is_interrupted_anywhere() -> None:
    """Trio makes connections in tasks of its own, which it does not protect."""
    async with trio.open_nursery() as nursery:
        host = Host()

        async def serve(stream: trio.SocketStream) -> None:
            await host.serve(await open_peer(stream))

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        request = Request("GET", f"http://127.0.0.1:{listener.socket.getsockname()[1]}/")

        async def dial(lines: Lines) -> Told:
            told = Told()
            async with open_pool() as pool:
                with told.listening():
                    with lines:
                        await pool.open_stream(request)
                    await trio.lowlevel.checkpoint()
                with trio.fail_after(30):
                    await pool.open_stream(request)
            return told

        seen = Lines((DIALS_OF_TRIO,), spared=())
        assert (await dial(seen)).interrupt is None
        assert len(seen.places) > 30
        for k in range(1, len(seen.places) + 1):
            sent = Signal(k, (DIALS_OF_TRIO,))
            told = await dial(sent)
            assert (told.interrupt is not None) is sent.is_sent, sent.places[-1]
        nursery.cancel_scope.cancel()


class Interrupting(Service):
    """A service in which the signal comes with the first request."""

    is_sent = False

    def open(self, *args: Any, **options: Any) -> Exchange:
        if not self.is_sent:
            self.is_sent = True
            signal.raise_signal(signal.SIGINT)
        return super().open(*args, **options)


@pytest.mark.usefixtures("real_clock")
async def test_an_interrupt_in_the_embedded_service_is_plain() -> None:
    service = Interrupting(random=lambda: 0.5)
    with pytest.raises(KeyboardInterrupt):
        async with open_embedded_client(service) as client:
            await client.create_basin("test-basin")
    with pytest.raises(LocalProtocolError, match="closed"):
        await client.create_basin("test-basin")


# What is raised in the block


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        KeyboardInterrupt(),
        ExceptionGroup("mine", [ValueError("a")]),
        BaseExceptionGroup("mine", [KeyboardInterrupt(), ValueError("a")]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.usefixtures("real_clock")
async def test_what_is_raised_in_the_block_comes_out_as_it_is(error: BaseException) -> None:
    for opening in (open_client, open_embedded_client):

        async def work() -> None:
            async with opening():  # noqa: B023  # it is called at once
                raise error

        with pytest.raises(type(error)) as raised:
            await work()
        assert raised.value is error


@pytest.mark.usefixtures("real_clock")
async def test_a_cancelled_block_is_cancelled() -> None:
    for opening in (open_client, open_embedded_client):
        with trio.CancelScope() as scope:
            async with opening():
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught


@pytest.mark.parametrize(
    "error", [KeyError("a bug"), ExceptionGroup("bugs", [KeyError("a bug")]), KeyboardInterrupt()]
)
def test_what_is_no_interrupt_in_a_group_is_not_passed_on(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, passing_interrupts_on():
        raise error
    assert raised.value is error
