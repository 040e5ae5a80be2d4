"""The embedded service on a port of this machine: HTTP/1.1, and HTTP/2 with prior knowledge.

hypercorn's protocols do the HTTP; the sockets are kept here. hypercorn's own servers would not do:
on trio, one client that reads nothing keeps them from ending, and one that sends on after its
answer ends them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from ipaddress import ip_address
from math import inf
from typing import Any, cast

from s2frames.embedded.asgi import App, make_app
from s2frames.embedded.service import Service
from s2frames.embedded.store import StoreError
from s2frames.errors import LocalProtocolError
from s2frames.interrupts import plain_interrupts
from s2frames.quiet_hpack import quieten

try:
    import anyio
    import h11
    from anyio.abc import SocketAttribute, SocketStream, TaskGroup
    from h2.errors import ErrorCodes
    from h2.events import DataReceived, PriorityUpdated, RequestReceived
    from h2.events import Event as H2Event
    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.config import Config
    from hypercorn.events import Closed, Event, RawData
    from hypercorn.protocol.events import Body
    from hypercorn.protocol.h2 import H2Protocol
    from hypercorn.protocol.h11 import H2ProtocolAssumedError, H11Protocol
    from hypercorn.typing import ConnectionState
except ImportError as error:
    raise ImportError(
        "s2frames.embedded.serving needs an extra: pip install 's2frames[serve]'"
    ) from error

__all__ = ["serving"]

_LOGGER = logging.getLogger(__name__)

# As much as is read from a socket at once.
_READ_BYTES = 64 * 1024


@asynccontextmanager
async def serving(service: Service, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve on loopback while the block runs, on asyncio or trio; gives the URL.

    Leaving the block cuts all connections at once: a client sees that its answer is incomplete. A
    connection that fails in an unforeseen way is cut and logged, and the others go on.

    Args:
        service: the service, for this loop alone.
        host: a loopback address, or localhost.
        port: 0 takes one that is free.

    Raises `LocalProtocolError` for another host, and `OSError` if the port cannot be had. When the
    store fails, the block is cancelled, and `StoreError` raised in an exception group.
    """
    _check_loopback(host)
    listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
    app = make_app(service)
    failure: BaseException | None = None
    with plain_interrupts():
        async with listener, anyio.create_task_group() as tasks:

            async def handle(stream: SocketStream) -> None:
                try:
                    await _Connection(app, stream).run()
                except* StoreError:
                    # Nothing can be served any more.
                    raise
                except* Exception:
                    _LOGGER.exception("a connection failed")

            tasks.start_soon(listener.serve, handle)
            name = f"[{host}]" if ":" in host else host
            local_port = listener.extra_attributes[SocketAttribute.local_port]
            try:
                yield f"http://{name}:{local_port()}"
            except BaseException as error:  # noqa: BLE001  # raised below, not as part of a group
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _check_loopback(host: str) -> None:
    try:
        is_loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        # A name, for who knows which address.
        is_loopback = False
    if not is_loopback:
        raise LocalProtocolError(
            f"the embedded service is for this machine alone: {host!r} is no loopback address"
        )


class _Event:
    """An event as hypercorn wants them."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    async def set(self) -> None:
        self._event.set()

    async def clear(self) -> None:
        self._event = anyio.Event()

    async def wait(self) -> None:
        await self._event.wait()

    def is_set(self) -> bool:
        return self._event.is_set()


class _Context:
    """What hypercorn's protocols ask of the server around them."""

    event_class = _Event

    def __init__(self) -> None:
        # Never set: connections end by being cancelled.
        self.terminated = _Event()

    async def mark_request(self) -> None:
        """Requests are not counted."""


def _config() -> Config:
    config = Config()
    config.errorlog = None
    config.include_server_header = False
    # As many streams as hyper, the server's HTTP library, allows by default.
    config.h2_max_concurrent_streams = 200
    # Over HTTP/2 the limit would end the streams that are under way.
    config.keep_alive_max_requests = sys.maxsize
    return config


class _Connection:
    """One connection: bytes between a socket and the protocol that it speaks."""

    def __init__(self, app: App, stream: SocketStream) -> None:
        self._app = ASGIWrapper(cast("Any", app))
        self._stream = stream
        self._send_lock = anyio.Lock()
        self._protocol: H11Protocol | H2Protocol

    async def run(self) -> None:
        async with self._stream, anyio.create_task_group() as self._tasks:
            self._protocol = self._make(_H11)
            await self._receive()
            await self._protocol.handle(Closed())

    async def _receive(self) -> None:
        while True:
            try:
                data = await self._stream.receive(_READ_BYTES)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return
            try:
                await self._protocol.handle(RawData(data))
            except H2ProtocolAssumedError as error:
                self._protocol = self._make(_H2)
                await self._protocol.initiate()
                await self._protocol.handle(RawData(error.data))

    def _make(self, protocol: type[H11Protocol | H2Protocol]) -> H11Protocol | H2Protocol:
        tasks: Any = _Tasks(self._tasks)
        context: Any = _Context()
        state = ConnectionState({})
        return protocol(self._app, _config(), context, tasks, state, False, None, None, self._send)

    async def _send(self, event: Event) -> None:
        try:
            if isinstance(event, RawData):
                async with self._send_lock:
                    await self._stream.send(event.data)
            elif isinstance(event, Closed):
                await self._stream.aclose()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            # Nobody is there to answer any more.
            self._tasks.cancel_scope.cancel()


async def _ignore(_size: int) -> None:
    """Nobody waits for the body to be taken."""


class _Tasks:
    """A task group as hypercorn wants it: it starts the app for each request."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        #: Of the next request: what is told that so many bytes of its body were taken in.
        self.on_taken: Callable[[int], Awaitable[None]] = _ignore
        #: Of the next request: pieces of its body that wait before `put` does.
        self.max_waiting: float = 0

    def spawn(self, task: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self._tasks.start_soon(task, *args)

    async def spawn_app(
        self, app: Any, _config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        waiting, received = anyio.create_memory_object_stream[Any](self.max_waiting)
        on_taken = self.on_taken

        async def receive() -> Any:
            message = await received.receive()
            await on_taken(len(message.get("body", b"")))
            return message

        async def run() -> None:
            try:
                with waiting, received:
                    await app(scope, receive, send, None, None)
            finally:
                # By now whoever has more for the app is told that it is gone, and does not wait.
                await send(None)

        async def put(message: Any) -> None:
            try:
                await waiting.send(message)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                """The app has answered and is not interested in more."""

        self._tasks.start_soon(run)
        return put


class _H11(H11Protocol):
    """HTTP/1.1 without upgrades: those who want HTTP/2 know that it is there."""

    async def _check_protocol(self, event: h11.Request) -> None:
        if (event.method, event.target, event.http_version) == (b"PRI", b"*", b"2.0"):
            preface = b"PRI * HTTP/2.0\r\n\r\n"
            raise H2ProtocolAssumedError(preface + self.connection.trailing_data[0])


class _H2(H2Protocol):
    """HTTP/2 in which no stream holds up another one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # The client may live in this process: what it keeps secret stays out of its log.
        quieten(self.connection)

    async def handle(self, event: Event) -> None:
        await super().handle(event)
        if isinstance(event, Closed):
            # Nobody sends any more: who waits for that waits in vain.
            for buffer in self.stream_buffers.values():
                await buffer.close()

    async def _handle_events(self, events: list[H2Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived):
                await self._receive_body(event)
            elif not isinstance(event, PriorityUpdated):
                # Priorities are advice, and hypercorn fails when there is too much of it.
                await super()._handle_events([event])
        await self._flush()

    async def _receive_body(self, event: DataReceived) -> None:
        """Hand on a piece of a body; the client may send as much again when it was taken in."""
        stream = self.streams.get(event.stream_id)
        at_once = event.flow_controlled_length
        if stream is not None:
            at_once -= len(event.data)
            await stream.handle(Body(event.stream_id, event.data))
        # A piece that came after the answer is dropped.
        self._acknowledge(event.stream_id, at_once)

    def _acknowledge(self, stream_id: int, num_bytes: int) -> None:
        if num_bytes:
            self.connection.acknowledge_received_data(num_bytes, stream_id)

    async def _create_stream(self, request: RequestReceived) -> None:
        head = dict(request.headers)
        method, path = head.get(b":method", b""), head.get(b":path", b"")
        if not method.isalpha() or method == b"CONNECT" or not path or not path.isascii():
            # hypercorn takes for granted that there is a path, and that it is ASCII.
            self.connection.reset_stream(request.stream_id, ErrorCodes.PROTOCOL_ERROR)
            return

        async def on_taken(size: int) -> None:
            self._acknowledge(request.stream_id, size)
            await self._flush()

        tasks: Any = self.task_group
        tasks.on_taken, tasks.max_waiting = on_taken, inf
        await super()._create_stream(request)
