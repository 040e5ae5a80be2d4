"""A TCP proxy that harms the connections through it, each by a plan that is drawn for it."""

from __future__ import annotations

import enum
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from random import Random

import trio
from attrs import define, field, frozen

__all__ = ["Direction", "Fault", "FaultPlan", "FaultProxy", "draw_plan", "proxies_in_thread"]

# As much as is taken from a socket at once.
_PIECE_BYTES = 64 * 1024

# Linger for 0 seconds: closing drops what was not sent, and sends RST.
_RESET = struct.pack("ii", 1, 0)


class Fault(enum.Enum):
    """A kind of harm."""

    #: Each piece of the direction comes later.
    DELAY = "delay"
    #: The direction carries so many bytes a second.
    SLOW = "slow"
    #: Both directions end in order, at a byte of one of them.
    CUT = "cut"
    #: Nothing more comes in the direction for a while; then all of it does.
    STALL = "stall"
    #: Both directions break, by RST.
    RESET = "reset"
    #: The direction ends in order, and what was to follow is lost; the other one goes on.
    HALF_CLOSE = "half-close"


class Direction(enum.Enum):
    """Which way bytes go."""

    UP = "to the server"
    DOWN = "to the client"


_BREAKS = (Fault.CUT, Fault.STALL, Fault.RESET, Fault.HALF_CLOSE)


@frozen(kw_only=True)
class FaultPlan:
    """What befalls a connection. By default nothing."""

    #: The direction in which everything here happens.
    direction: Direction = Direction.DOWN
    #: CUT, STALL, RESET or HALF_CLOSE, after so many bytes of the direction.
    fault: Fault | None = None
    after_bytes: int = 0
    #: Seconds of the stall.
    stall: float = 0.0
    #: Seconds by which each piece comes later.
    delay: float = 0.0
    bytes_per_second: float | None = None


def draw_plan(random: Random, messages_go: Direction) -> FaultPlan:
    """A plan by chance, for a connection whose messages go in that direction, and requests or acks
    in the other.
    """
    is_delayed, is_slow = random.random() < 0.2, random.random() < 0.2
    direction = random.choice(list(Direction))
    # Exponents of 2, so that every size is as likely as its double.
    if direction is not messages_go:
        # At some ack or request: the first ack comes after some hundred bytes of headers.
        least, most = 6, 11
    elif random.random() < 0.75:
        least, most = 0, 17
    else:
        # Lets a large message through.
        least, most = 20, 23
    return FaultPlan(
        direction=direction,
        fault=random.choice(_BREAKS),
        after_bytes=int(2 ** random.uniform(least, most)) - 1,
        stall=2 ** random.uniform(-4, 0.5),
        delay=random.uniform(0.001, 0.02) if is_delayed else 0.0,
        bytes_per_second=2 ** random.uniform(21, 25) if is_slow else None,
    )


@define(eq=False)
class FaultProxy:
    """Forwards connections to a port of this machine.

    Args:
        server_port: where to.
        draw: gives the plan of each connection, in the order in which they are made.
        sleep: waits so many seconds.
    """

    _server_port: int
    _draw: Callable[[], FaultPlan]
    _sleep: Callable[[float], Awaitable[object]] = trio.sleep
    #: The faults that happened. A plan whose byte never came did no harm.
    injected: Counter[Fault] = field(factory=Counter, init=False)

    async def serve(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until it is cancelled; starts with the port of the proxy."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._forward, listeners)
            task_status.started(port)

    async def _forward(self, client: trio.SocketStream) -> None:
        plan = self._draw()
        async with client:
            try:
                server = await trio.open_tcp_stream("127.0.0.1", self._server_port)
            except OSError:
                # Nobody is there: the client learns it as it would without the proxy.
                _reset(client)
                return
            async with server:
                await _Connection(self, plan, client, server).run()

    async def wait(self, seconds: float) -> None:
        """Wait, as the proxy does."""
        await self._sleep(seconds)


@define(eq=False)
class _Connection:
    """One connection through the proxy."""

    _proxy: FaultProxy
    _plan: FaultPlan
    _client: trio.SocketStream
    _server: trio.SocketStream
    _scope: trio.CancelScope = field(factory=trio.CancelScope)
    # Faults are counted once a connection.
    _suffered: set[Fault] = field(factory=set)

    async def run(self) -> None:
        """Forward both ways, until both have ended."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, Direction.UP, self._client, self._server)
                nursery.start_soon(self._pump, Direction.DOWN, self._server, self._client)

    async def _pump(
        self, direction: Direction, source: trio.SocketStream, target: trio.SocketStream
    ) -> None:
        plan = self._plan if direction is self._plan.direction else FaultPlan()
        try:
            if await self._carry(plan, source, target):
                await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # One side is gone. The other direction may have bytes left all the same.
            return

    async def _carry(
        self, plan: FaultPlan, source: trio.SocketStream, target: trio.SocketStream
    ) -> bool:
        """Forward one direction; whether its end is to be forwarded too."""
        left = plan.after_bytes
        is_to_come = plan.fault is not None
        while True:
            if is_to_come and not left:
                is_to_come = False
                if not await self._harm(plan, source, target):
                    return False
            piece = await source.receive_some(_PIECE_BYTES)
            if not piece:
                return True
            if is_to_come and len(piece) > left:
                await self._send(plan, piece[:left], target)
                piece, left, is_to_come = piece[left:], 0, False
                if not await self._harm(plan, source, target):
                    return False
            await self._send(plan, piece, target)
            left -= len(piece)

    async def _send(self, plan: FaultPlan, piece: bytes, target: trio.SocketStream) -> None:
        if not piece:
            return
        if plan.delay:
            self._note(Fault.DELAY)
            await self._proxy.wait(plan.delay)
        if plan.bytes_per_second is not None:
            self._note(Fault.SLOW)
            await self._proxy.wait(len(piece) / plan.bytes_per_second)
        await target.send_all(piece)

    async def _harm(
        self, plan: FaultPlan, source: trio.SocketStream, target: trio.SocketStream
    ) -> bool:
        """What befalls the connection at its byte; whether the direction goes on."""
        if plan.fault is None:
            return True
        self._note(plan.fault)
        if plan.fault is Fault.STALL:
            await self._proxy.wait(plan.stall)
            return True
        if plan.fault is Fault.HALF_CLOSE:
            await target.send_eof()
            while await source.receive_some(_PIECE_BYTES):
                pass
            return False
        if plan.fault is Fault.RESET:
            _reset(self._client)
            _reset(self._server)
        self._scope.cancel()
        return False

    def _note(self, fault: Fault) -> None:
        if fault not in self._suffered:
            self._suffered.add(fault)
            self._proxy.injected[fault] += 1


def _reset(stream: trio.SocketStream) -> None:
    """Break a connection when it is closed."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


@contextmanager
def proxies_in_thread(proxies: Sequence[FaultProxy]) -> Iterator[list[int]]:
    """Run proxies in a thread, for clients that block theirs; gives their ports."""
    started: Future[tuple[list[int], Callable[[], object]]] = Future()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            ports = [await nursery.start(proxy.serve) for proxy in proxies]
            token = trio.lowlevel.current_trio_token()
            started.set_result((ports, lambda: token.run_sync_soon(nursery.cancel_scope.cancel)))
            await trio.sleep_forever()

    def run() -> None:
        try:
            trio.run(serve)
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="fault proxies", daemon=True)
    thread.start()
    try:
        ports, stop = started.result()
        try:
            yield ports
        finally:
            stop()
    finally:
        thread.join()
