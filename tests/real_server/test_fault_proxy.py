"""The proxy harms connections as planned, and no others."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from random import Random

import pytest
import trio
from attrs import define, field

from real_server.fault_proxy import (
    Direction,
    Fault,
    FaultPlan,
    FaultProxy,
    draw_plan,
    proxies_in_thread,
)

UP, DOWN = Direction.UP, Direction.DOWN
BYTES = bytes(range(256))
# More than the proxy takes at once.
MANY = Random(1).randbytes(200_000)
directions = pytest.mark.parametrize("direction", list(Direction), ids=lambda way: way.name)
# None of it, some of it, all of it.
places = pytest.mark.parametrize("after_bytes", [0, 100, len(BYTES)])


@define(eq=False)
class Clock:
    """A wait that ends when it is told."""

    waits: list[float] = field(factory=list)
    _is_waiting: trio.Event = field(factory=trio.Event)
    _may_end: trio.Event = field(factory=trio.Event)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._is_waiting.set()
        await self._may_end.wait()

    async def until_asked(self) -> None:
        await self._is_waiting.wait()

    def end(self) -> None:
        self._may_end.set()


@define(eq=False)
class Ends:
    """The two ends of a connection through the proxy."""

    client: trio.SocketStream
    server: trio.SocketStream

    def source(self, direction: Direction) -> trio.SocketStream:
        return self.client if direction is UP else self.server

    def target(self, direction: Direction) -> trio.SocketStream:
        return self.server if direction is UP else self.client


def opposite(direction: Direction) -> Direction:
    return DOWN if direction is UP else UP


async def take(stream: trio.SocketStream, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        assert piece, f"the stream ended after {len(data)} of {size} bytes"
        data += piece
    return data


async def take_all(stream: trio.SocketStream) -> bytes:
    """All bytes up to the end."""
    return b"".join([piece async for piece in stream])


def run(
    plan: FaultPlan, use: Callable[[FaultProxy, Ends], Awaitable[None]], clock: Clock | None = None
) -> None:
    """Use one connection with that plan."""

    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        sleep = (Clock() if clock is None else clock).sleep
        proxy = FaultProxy(port, lambda: plan, sleep)
        async with listener, trio.open_nursery() as nursery:
            proxy_port = await nursery.start(proxy.serve)
            async with (
                await trio.open_tcp_stream("127.0.0.1", proxy_port) as client,
                await listener.accept() as server,
            ):
                await use(proxy, Ends(client, server))
            nursery.cancel_scope.cancel()

    trio.run(main)


@directions
def test_without_a_fault_all_bytes_and_the_end_arrive(direction: Direction) -> None:
    async def use(proxy: FaultProxy, ends: Ends) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.source(direction).send_all, MANY)
            assert await take(ends.target(direction), len(MANY)) == MANY
        await ends.source(direction).send_eof()
        assert await ends.target(direction).receive_some() == b""
        # The other way is still open.
        await ends.target(direction).send_all(BYTES)
        assert await take(ends.source(direction), len(BYTES)) == BYTES
        assert not proxy.injected

    run(FaultPlan(), use)


@directions
@places
def test_a_cut_ends_both_directions_at_its_byte(direction: Direction, after_bytes: int) -> None:
    async def use(proxy: FaultProxy, ends: Ends) -> None:
        if after_bytes:
            await ends.source(direction).send_all(BYTES)
        assert await take_all(ends.target(direction)) == BYTES[:after_bytes]
        assert proxy.injected == {Fault.CUT: 1}

    run(FaultPlan(direction=direction, fault=Fault.CUT, after_bytes=after_bytes), use)


@directions
@places
def test_a_reset_breaks_both_directions_at_its_byte(direction: Direction, after_bytes: int) -> None:
    async def use(proxy: FaultProxy, ends: Ends) -> None:
        if after_bytes:
            await ends.source(direction).send_all(BYTES)
            assert await take(ends.target(direction), after_bytes) == BYTES[:after_bytes]
        for end in (ends.client, ends.server):
            with pytest.raises(trio.BrokenResourceError) as caught:
                await end.receive_some()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert proxy.injected == {Fault.RESET: 1}

    run(FaultPlan(direction=direction, fault=Fault.RESET, after_bytes=after_bytes), use)


@directions
@places
def test_a_half_close_ends_one_direction_at_its_byte(
    direction: Direction, after_bytes: int
) -> None:
    async def use(proxy: FaultProxy, ends: Ends) -> None:
        source, target = ends.source(direction), ends.target(direction)
        await source.send_all(BYTES)
        assert await take_all(target) == BYTES[:after_bytes]
        # What follows is taken and lost; a sender that nobody reads from would block.
        await source.send_all(MANY * 50)
        await target.send_all(BYTES)
        await target.send_eof()
        assert await take_all(source) == BYTES
        assert proxy.injected == {Fault.HALF_CLOSE: 1}

    plan = FaultPlan(direction=direction, fault=Fault.HALF_CLOSE, after_bytes=after_bytes)
    run(plan, use)


@directions
@places
def test_a_stall_holds_what_comes_after_its_byte(direction: Direction, after_bytes: int) -> None:
    clock = Clock()

    async def use(proxy: FaultProxy, ends: Ends) -> None:
        source, target = ends.source(direction), ends.target(direction)
        await source.send_all(BYTES)
        assert await take(target, after_bytes) == BYTES[:after_bytes]
        await clock.until_asked()
        assert clock.waits == [7.0]
        # Nothing is on its way: what is sent now the other way arrives first.
        await target.send_all(b"pong")
        assert await take(source, 4) == b"pong"
        with pytest.raises(BlockingIOError):
            receive_nowait(target)
        clock.end()
        assert await take(target, len(BYTES) - after_bytes) == BYTES[after_bytes:]
        assert proxy.injected == {Fault.STALL: 1}

    plan = FaultPlan(direction=direction, fault=Fault.STALL, after_bytes=after_bytes, stall=7.0)
    run(plan, use, clock)


def test_what_a_stall_holds_arrives_though_the_client_is_gone() -> None:
    clock = Clock()

    async def use(proxy: FaultProxy, ends: Ends) -> None:
        await ends.client.send_all(BYTES)
        await ends.client.aclose()
        await clock.until_asked()
        clock.end()
        assert await take_all(ends.server) == BYTES
        assert proxy.injected == {Fault.STALL: 1}

    run(FaultPlan(direction=UP, fault=Fault.STALL, after_bytes=10, stall=1.0), use, clock)


@directions
@pytest.mark.parametrize(
    ("plan", "fault", "seconds"),
    [
        (FaultPlan(delay=3.0), Fault.DELAY, 3.0),
        (FaultPlan(bytes_per_second=64.0), Fault.SLOW, len(BYTES) / 64),
    ],
)
def test_a_piece_comes_later(
    direction: Direction, plan: FaultPlan, fault: Fault, seconds: float
) -> None:
    clock = Clock()

    async def use(proxy: FaultProxy, ends: Ends) -> None:
        source, target = ends.source(direction), ends.target(direction)
        await target.send_all(b"pong")
        assert await take(source, 4) == b"pong"
        assert clock.waits == []
        await source.send_all(BYTES)
        await clock.until_asked()
        with pytest.raises(BlockingIOError):
            receive_nowait(target)
        clock.end()
        assert await take(target, len(BYTES)) == BYTES
        assert clock.waits == [seconds]
        await source.send_all(BYTES)
        assert await take(target, len(BYTES)) == BYTES
        # Counted once a connection.
        assert proxy.injected == {fault: 1}

    changed = FaultPlan(
        direction=direction, delay=plan.delay, bytes_per_second=plan.bytes_per_second
    )
    run(changed, use, clock)


def test_a_plan_whose_byte_never_comes_does_no_harm() -> None:
    async def use(proxy: FaultProxy, ends: Ends) -> None:
        await ends.client.send_all(BYTES)
        await ends.client.send_eof()
        assert await take_all(ends.server) == BYTES
        assert not proxy.injected

    run(FaultPlan(direction=UP, fault=Fault.CUT, after_bytes=len(BYTES) + 1), use)


def test_in_a_thread_each_connection_has_its_own_plan() -> None:
    plans = iter([FaultPlan(direction=UP, fault=Fault.CUT), FaultPlan()])
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        proxy = FaultProxy(listener.getsockname()[1], lambda: next(plans))
        with proxies_in_thread([proxy]) as (port,):
            with socket.create_connection(("127.0.0.1", port)) as first:
                assert first.recv(1) == b""
            with socket.create_connection(("127.0.0.1", port)) as second:
                listener.accept()[0].close()
                server, _ = listener.accept()
                with server:
                    second.sendall(b"ping")
                    assert server.recv(4) == b"ping"
        assert proxy.injected == {Fault.CUT: 1}


def test_where_nobody_listens_the_client_is_reset() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    with (
        proxies_in_thread([FaultProxy(port, FaultPlan)]) as (proxy_port,),
        socket.create_connection(("127.0.0.1", proxy_port)) as client,
        pytest.raises(ConnectionResetError),
    ):
        client.recv(1)


@directions
def test_plans_are_drawn_from_the_seed_alone_and_hold_every_fault(direction: Direction) -> None:
    first, second = Random(5), Random(5)
    plans = [draw_plan(first, direction) for _ in range(300)]
    assert plans == [draw_plan(second, direction) for _ in range(300)]
    # Where there are acks or requests alone, few bytes come.
    assert max(plan.after_bytes for plan in plans if plan.direction is direction) > 2**22
    assert max(plan.after_bytes for plan in plans if plan.direction is not direction) < 2**11
    drawn = {(plan.direction, plan.fault) for plan in plans if plan.fault}
    breaks = set(Fault) - {Fault.DELAY, Fault.SLOW}
    assert drawn == {(direction, fault) for direction in Direction for fault in breaks}
    assert any(plan.delay for plan in plans)
    assert any(plan.bytes_per_second for plan in plans)


def receive_nowait(stream: trio.SocketStream) -> bytes:
    """What is there, without waiting."""
    with socket.fromfd(stream.socket.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
        same.setblocking(False)
        return same.recv(1)
