"""What is asynchronous alone: tasks, cancellation, checkpoints."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from httpx_adapter.wires import deaf_address, resolving_to, wait_for
from s2frames_httpx import async_network
from s2frames_httpx.async_network import AsyncNetwork
from s2frames_httpx.library import httpcore
from scenes import ASYNC_FLAVOURS, Flavour
from scripted_server import Connection, ScriptedServer, scripted_server

pytestmark = pytest.mark.parametrize(
    "flavour", ASYNC_FLAVOURS, indirect=True, ids=lambda kind: str(kind.value)
)

Step = Callable[[httpcore.AsyncNetworkStream], Coroutine[Any, Any, object]]


def port_of(server: ScriptedServer) -> int:
    return int(server.url.rsplit(":", 1)[1])


async def reading(stream: httpcore.AsyncNetworkStream) -> bytes:
    return await stream.read(100, 60)


async def writing(stream: httpcore.AsyncNetworkStream) -> None:
    await stream.write(bytes(32_000_000), 60)


@pytest.mark.parametrize("step", [reading, writing])
async def test_a_task_that_waits_can_be_cancelled(flavour: Flavour, step: Step) -> None:
    done = threading.Event()

    def script(connection: Connection) -> None:
        assert done.wait(60)
        connection.wait_until_closed()

    assert flavour.is_async
    with scripted_server(script) as server:
        network = AsyncNetwork(60)
        stream = await network.connect_tcp("127.0.0.1", port_of(server))
        async with anyio.create_task_group() as group:
            group.start_soon(step, stream)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        await stream.aclose()
        done.set()


@pytest.mark.parametrize("step", [reading, writing])
@pytest.mark.parametrize("closes_all", [True, False])
async def test_another_task_may_close_it(flavour: Flavour, step: Step, closes_all: bool) -> None:
    done = threading.Event()
    assert flavour.is_async

    async def fail(stream: httpcore.AsyncNetworkStream) -> None:
        with pytest.raises(httpcore.NetworkError, match="connection was closed"):
            await step(stream)

    def script(connection: Connection) -> None:
        assert done.wait(60)
        connection.wait_until_closed()

    with scripted_server(script) as server:
        network = AsyncNetwork(60)
        stream = await network.connect_tcp("127.0.0.1", port_of(server))
        async with anyio.create_task_group() as group:
            group.start_soon(fail, stream)
            await anyio.wait_all_tasks_blocked()
            if closes_all:
                network.close()
            else:
                await stream.aclose()
        await fail(stream)
        await stream.aclose()
        done.set()


async def test_other_tasks_run_where_nothing_has_to_be_waited_for(flavour: Flavour) -> None:
    has_sent = threading.Event()

    def script(connection: Connection) -> None:
        connection.send(bytes(1000))
        has_sent.set()
        connection.wait_until_closed()

    with scripted_server(script) as server:
        network = AsyncNetwork(60)
        stream = await network.connect_tcp("127.0.0.1", port_of(server))
        await wait_for(flavour, has_sent)
        for step in (lambda: stream.write(b"x", 60), lambda: stream.read(1, 60)):
            has_run = anyio.Event()
            async with anyio.create_task_group() as group:
                group.start_soon(_set, has_run)
                for _ in range(1000):
                    if has_run.is_set():
                        break
                    await step()
                assert has_run.is_set()
        await stream.aclose()


async def _set(event: anyio.Event) -> None:
    event.set()


@pytest.mark.parametrize("step", [reading, writing])
async def test_what_is_cancelled_before_it_begins_does_nothing(
    flavour: Flavour, step: Step
) -> None:
    assert flavour.is_async
    received: list[bytes] = []

    def script(connection: Connection) -> None:
        connection.send(b"x")
        received.append(connection._socket.recv(10))

    with scripted_server(script) as server:
        network = AsyncNetwork(60)
        stream = await network.connect_tcp("127.0.0.1", port_of(server))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await step(stream)
        assert scope.cancelled_caught
        assert await stream.read(1, 60) == b"x"
        await stream.aclose()
    assert received == [b""]


async def test_an_attempt_that_is_cancelled_leaves_no_socket(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warnings of sockets that are left are errors here."""
    assert flavour.is_async
    with deaf_address() as deaf:
        monkeypatch.setattr(socket, "getaddrinfo", resolving_to(deaf, deaf))
        network = AsyncNetwork(60)
        async with anyio.create_task_group() as group:
            group.start_soon(network.connect_tcp, "two.localhost", 1)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert network._sockets == set()


async def test_of_two_connections_made_in_the_same_moment_one_is_closed(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flavour.is_async
    are_ready = anyio.Event()

    async def wait_writable(_tcp: socket.socket) -> None:
        await are_ready.wait()

    async def connect() -> None:
        stream = await network.connect_tcp("two.localhost", 1)
        assert network._sockets == {stream.get_extra_info("socket")}
        await stream.aclose()

    network = AsyncNetwork(10)
    monkeypatch.setattr(anyio, "wait_writable", wait_writable)
    monkeypatch.setattr(async_network, "ATTEMPT_DELAY", 0.0)
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        addresses = resolving_to(one.getsockname(), other.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        async with anyio.create_task_group() as group:
            group.start_soon(connect)
            while len(network._sockets) < 2:
                await anyio.wait_all_tasks_blocked()
            await anyio.wait_all_tasks_blocked()
            are_ready.set()


async def test_resolving_that_is_cancelled_is_left_to_its_thread(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flavour.is_async
    go_on, is_over = threading.Event(), threading.Event()

    def getaddrinfo(*_args: Any, flags: int = 0, **_options: Any) -> list[Any]:
        if flags:
            raise socket.gaierror
        assert go_on.wait(60)
        is_over.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    network = AsyncNetwork(60)
    async with anyio.create_task_group() as group:
        group.start_soon(network.connect_tcp, "slow.localhost", 1)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert not is_over.is_set()
    go_on.set()
    await wait_for(flavour, is_over)


class Interrupted(BaseException):
    """As Ctrl-C; that one ends asyncio's loop at once."""


async def test_what_interrupts_an_attempt_comes_out_as_it_is(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flavour.is_async
    errors = iter((Interrupted,))

    def connect(_tcp: socket.socket, _address: object) -> None:
        raise next(errors, BlockingIOError)

    monkeypatch.setattr(socket, "getaddrinfo", resolving_to(("127.0.0.1", 1), ("127.0.0.1", 2)))
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(Interrupted):
        await AsyncNetwork(60).connect_tcp("two.localhost", 1)
