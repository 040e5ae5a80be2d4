"""The embedded service in process: transports that take a request to it without a socket."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import AsyncIterator, Iterator

import anyio
import httpx

from s2frames.embedded import Exchange, ResponseHead, Service
from s2frames.errors import TransportError
from s2frames.settings import Endpoints, Settings
from s2frames_httpx.clock import ServiceClock, for_system
from s2frames_httpx.closing import CLOSING, Closing

__all__ = ["EMBEDDED_SETTINGS", "AsyncEmbeddedTransport", "EmbeddedTransport"]

#: How to address the embedded service. Nothing is ever sent to this host.
EMBEDDED_SETTINGS = Settings(endpoints=Endpoints.at("http://embedded.localhost"))

# Only spreads heartbeats.
_random = random.random


class EmbeddedTransport(httpx.BaseTransport):
    """Takes requests to a service in this process.

    Threads may share one, and so may clients: that is how they share the service.

    Args:
        service: the service, for this transport alone; by default a new one, in memory.
    """

    def __init__(self, service: Service | None = None) -> None:
        self._service = Service(random=_random) if service is None else service
        # Guards the service and its clock, and wakes those who wait for output.
        self._changed = threading.Condition()
        self._clock = ServiceClock(time.monotonic)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        closing: Closing | None = request.extensions.get(CLOSING)
        if closing is not None:
            closing.wake_by(self._wake_all)
        with self._changed:
            exchange = self._service.open(
                request.method, _target(request), _headers(request), self._clock.now(), self._wake
            )
        body = _Body(exchange, self._changed, self._clock, closing)
        try:
            head = self._send(request, exchange, closing)
        except BaseException:
            body.close()
            raise
        return httpx.Response(head.status, headers=list(head.headers), stream=body)

    def _send(
        self, request: httpx.Request, exchange: Exchange, closing: Closing | None
    ) -> ResponseHead:
        for data in _sync_stream(request):
            with self._changed:
                exchange.receive_data(data, self._clock.now())
        with self._changed:
            exchange.receive_eof(self._clock.now())
            while exchange.response is None:
                _wait(self._changed, exchange, self._clock, closing)
            return exchange.response

    def _wake(self) -> None:
        # Called from inside the service, with the lock held.
        self._changed.notify_all()

    def _wake_all(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _wait(
    changed: threading.Condition, exchange: Exchange, clock: ServiceClock, closing: Closing | None
) -> None:
    """Wait until something happened or the exchange's time has come. The lock is held."""
    if closing is not None and closing.is_set:
        raise httpx.ReadError("the client is closed")
    deadline = exchange.next_timeout()
    changed.wait(None if deadline is None else for_system(deadline - clock.now()))
    exchange.handle_timeout(clock.now())


class _Body(httpx.SyncByteStream):
    """The body of an answer, as far as the service has it."""

    def __init__(
        self,
        exchange: Exchange,
        changed: threading.Condition,
        clock: ServiceClock,
        closing: Closing | None,
    ) -> None:
        self._exchange = exchange
        self._changed = changed
        self._clock = clock
        self._closing = closing

    def __iter__(self) -> Iterator[bytes]:
        while (data := self._next()) is not None:
            yield data

    def _next(self) -> bytes | None:
        with self._changed:
            self._exchange.handle_timeout(self._clock.now())
            while not (data := self._exchange.data_to_send()):
                if self._exchange.finished:
                    return None
                _wait(self._changed, self._exchange, self._clock, self._closing)
        return b"".join(data)

    def close(self) -> None:
        with self._changed:
            self._exchange.connection_lost(self._clock.now())


class AsyncEmbeddedTransport(httpx.AsyncBaseTransport):
    """Takes requests to a service in this process, on asyncio and trio.

    It belongs to one loop. Clients may share one: that is how they share the service.

    Args:
        service: the service, for this transport alone; by default a new one, in memory.
    """

    def __init__(self, service: Service | None = None) -> None:
        self._service = Service(random=_random) if service is None else service
        self._clock = ServiceClock(anyio.current_time)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        clock = self._clock
        bell = _Bell(clock)
        exchange = self._service.open(
            request.method, _target(request), _headers(request), clock.now(), bell.ring
        )
        try:
            async for data in _async_stream(request):
                exchange.receive_data(data, clock.now())
            exchange.receive_eof(clock.now())
            while (head := exchange.response) is None:
                await bell.wait(exchange)
            # Without it a loop of requests would starve the other tasks.
            await anyio.lowlevel.checkpoint()
        except BaseException:
            exchange.connection_lost(clock.now())
            raise
        return httpx.Response(
            head.status, headers=list(head.headers), stream=_AsyncBody(exchange, clock, bell)
        )


class _Bell:
    """Wakes the one task that waits for an exchange's output."""

    def __init__(self, clock: ServiceClock) -> None:
        self._clock = clock
        self._event = anyio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, exchange: Exchange) -> None:
        deadline = exchange.next_timeout()
        delay = float("inf") if deadline is None else max(0.0, deadline - self._clock.now())
        with anyio.move_on_after(delay):
            await self._event.wait()
        self._event = anyio.Event()
        exchange.handle_timeout(self._clock.now())


class _AsyncBody(httpx.AsyncByteStream):
    """The body of an answer, as far as the service has it."""

    def __init__(self, exchange: Exchange, clock: ServiceClock, bell: _Bell) -> None:
        self._exchange = exchange
        self._clock = clock
        self._bell = bell

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await anyio.lowlevel.checkpoint()
            self._exchange.handle_timeout(self._clock.now())
            while not (data := self._exchange.data_to_send()):
                if self._exchange.finished:
                    return
                await self._bell.wait(self._exchange)
            yield b"".join(data)

    async def aclose(self) -> None:
        self._exchange.connection_lost(self._clock.now())
        self._bell.ring()


def _target(request: httpx.Request) -> str:
    return request.url.raw_path.decode("ascii")


def _headers(request: httpx.Request) -> list[tuple[str, str]]:
    return list(request.headers.multi_items())


def _sync_stream(request: httpx.Request) -> httpx.SyncByteStream:
    if not isinstance(request.stream, httpx.SyncByteStream):
        raise TransportError("an asynchronous request cannot go to this transport")
    return request.stream


def _async_stream(request: httpx.Request) -> httpx.AsyncByteStream:
    if not isinstance(request.stream, httpx.AsyncByteStream):
        raise TransportError("a synchronous request cannot go to this transport")
    return request.stream
