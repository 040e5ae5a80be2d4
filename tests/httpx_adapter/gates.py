"""Transports that let a test decide when, whether and how an answer comes."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Container, Iterator

import anyio
import httpx
from attrs import define, field

__all__ = [
    "LOST",
    "AsyncCounter",
    "AsyncGate",
    "AsyncLosing",
    "Counter",
    "Gate",
    "Losing",
    "Recorder",
]

#: What is said of an answer that was lost on its way from the embedded service.
LOST = "the connection broke: http://embedded.localhost: the answer is lost"


@define(eq=False)
class Gate(httpx.BaseTransport):
    """Holds requests back until it is opened."""

    inner: httpx.BaseTransport
    #: Whether a request has come, and whether requests may pass.
    reached: threading.Event = field(factory=threading.Event)
    opened: threading.Event = field(factory=threading.Event)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.reached.set()
        self.opened.wait()
        return self.inner.handle_request(request)


@define(eq=False)
class AsyncGate(httpx.AsyncBaseTransport):
    """Holds requests back until it is opened."""

    inner: httpx.AsyncBaseTransport
    reached: anyio.Event = field(factory=anyio.Event)
    opened: anyio.Event = field(factory=anyio.Event)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.reached.set()
        await self.opened.wait()
        return await self.inner.handle_async_request(request)


@define(eq=False)
class Recorder(httpx.BaseTransport):
    """Keeps the requests that pass; `before` sees each first, and may raise."""

    inner: httpx.BaseTransport
    before: Callable[[httpx.Request], object] = id
    requests: list[httpx.Request] = field(factory=list)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.before(request)
        self.requests.append(request)
        return self.inner.handle_request(request)


@define(eq=False)
class Counter(httpx.BaseTransport):
    """Counts the answers that were given and are not closed."""

    inner: httpx.BaseTransport
    num_open: int = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self.inner.handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _Counted(self, response.stream)
        self.num_open += 1
        return response


@define(eq=False)
class _Counted(httpx.SyncByteStream):
    counter: Counter
    inner: httpx.SyncByteStream

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.inner)

    def close(self) -> None:
        self.inner.close()
        self.counter.num_open -= 1


@define(eq=False)
class AsyncCounter(httpx.AsyncBaseTransport):
    """Counts the answers that were given and are not closed."""

    inner: httpx.AsyncBaseTransport
    num_open: int = 0
    #: How long the next bytes may take, when each request came.
    timeouts: list[float] = field(factory=list)
    requests: list[httpx.Request] = field(factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.timeouts.append(request.extensions["timeout"]["read"])
        response = await self.inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _AsyncCounted(self, response.stream)
        self.num_open += 1
        return response


@define(eq=False)
class _AsyncCounted(httpx.AsyncByteStream):
    counter: AsyncCounter
    inner: httpx.AsyncByteStream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self.inner)

    async def aclose(self) -> None:
        self.counter.num_open -= 1
        await self.inner.aclose()


@define(eq=False)
class Losing(httpx.BaseTransport):
    """Loses the answers to some requests, by number, after they took effect.

    With `keep_bytes` so much of each of these answers arrives.
    """

    inner: httpx.BaseTransport
    lost: Container[int]
    keep_bytes: int | None = None
    num_requests: int = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        number, self.num_requests = self.num_requests, self.num_requests + 1
        response = self.inner.handle_request(request)
        if number in self.lost:
            assert isinstance(response.stream, httpx.SyncByteStream)
            body = b"".join(response.stream)
            response.stream.close()
            if self.keep_bytes is None:
                raise httpx.ReadError("the answer is lost")
            response.stream = _Cut(body[: self.keep_bytes])
        return response


@define(eq=False)
class AsyncLosing(httpx.AsyncBaseTransport):
    """As `Losing`."""

    inner: httpx.AsyncBaseTransport
    lost: Container[int]
    keep_bytes: int | None = None
    num_requests: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        number, self.num_requests = self.num_requests, self.num_requests + 1
        response = await self.inner.handle_async_request(request)
        if number in self.lost:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            body = b"".join([piece async for piece in response.stream])
            await response.stream.aclose()
            if self.keep_bytes is None:
                raise httpx.ReadError("the answer is lost")
            response.stream = _Cut(body[: self.keep_bytes])
        return response


@define(eq=False)
class _Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The beginning of an answer."""

    body: bytes

    def __iter__(self) -> Iterator[bytes]:
        yield self.body
        raise httpx.ReadError("the answer is lost")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body
        raise httpx.ReadError("the answer is lost")
