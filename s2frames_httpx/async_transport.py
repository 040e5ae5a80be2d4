"""`AsyncTransport`: HTTP/1.1 over sockets of our own, for asyncio and trio.

A request goes from httpx through httpcore's pool to an `AsyncStream` of `AsyncNetwork`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from typing import cast

import anyio
import anyio.lowlevel
import httpx
from attrs import field, frozen

from s2frames.system.process import THIS_PROCESS
from s2frames_httpx.async_network import AsyncNetwork, AsyncStream
from s2frames_httpx.library import httpcore
from s2frames_httpx.mapping import client_closed
from s2frames_httpx.open_answers import OpenAnswers
from s2frames_httpx.reach import Reach
from s2frames_httpx.translation import (
    CORE_ERRORS,
    has_bytes_left,
    pool_options,
    stream_below,
    to_core_request,
    to_httpx_error,
)
from s2frames_httpx.tunnel import num_tls

__all__ = ["AsyncTransport"]


@frozen(eq=False)
class _Pool:
    """The connections in one event loop, to one scheme, through one proxy or none."""

    network: AsyncNetwork
    core: httpcore.AsyncConnectionPool
    proxy: httpx.Proxy | None
    pid: int
    answers: OpenAnswers[_Answer] = field(factory=OpenAnswers)


class AsyncTransport(httpx.AsyncBaseTransport):
    """Takes requests over the network. Tasks may share one.

    Closing it wakes whoever waits, and ends what they do in `ClientClosed`. In another event loop,
    or in another process after a fork, it makes connections of its own; what the loop before has
    open it lets go of, in silence. It belongs to one loop at a time.

    Args:
        reach: whom to trust, and which proxy to take.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._pools: dict[tuple[str, httpx.Proxy | None], _Pool] = {}
        self._left: list[_Pool] = []
        self._home: tuple[int, object] | None = None
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and receive the head of its answer."""
        if self._is_closed:
            raise client_closed()
        pool = self._pool_for(request.url)
        await _close_forgotten(pool)
        await _close_dead(pool)
        try:
            response = await pool.core.handle_async_request(to_core_request(request, pool.proxy))
        except CORE_ERRORS as error:
            raise self.translate(error, pool.proxy) from error
        try:
            return self._hand_out(pool, response)
        except BaseException:
            # A signal may raise anywhere; nobody else has the answer yet.
            await response.aclose()
            raise

    async def aclose(self) -> None:
        """Close every connection, and wake who waits. Idempotent; any task may."""
        self._is_closed = True
        self._move()
        for pool in tuple(self._pools.values()):
            pool.network.close()
            await _close_forgotten(pool)
            await pool.core.aclose()

    def _hand_out(self, pool: _Pool, response: httpcore.Response) -> httpx.Response:
        answer = _Answer(self, pool, response)
        body = _Body(answer)
        pool.answers.add(answer, body)
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=body,
            extensions=response.extensions,
        )

    def translate(self, error: Exception, proxy: httpx.Proxy | None) -> httpx.TransportError:
        """What httpx calls an error of httpcore's."""
        return to_httpx_error(error, proxy, is_closed=self._is_closed)

    def _pool_for(self, url: httpx.URL) -> _Pool:
        self._move()
        proxy = self._reach.proxies.choose(url)
        key = url.scheme, proxy
        if key not in self._pools:
            network = AsyncNetwork(self._reach.connect_timeout, num_tls(url, proxy))
            options = pool_options(self._reach.ssl_context, proxy)
            core = httpcore.AsyncConnectionPool(network_backend=network, **options)
            self._pools[key] = _Pool(network, core, proxy, THIS_PROCESS.number)
        return self._pools[key]

    def _move(self) -> None:
        """Forget what belongs to another loop, or to the process that this one is a fork of.

        Nothing is awaited: it would have to be in that loop.
        """
        home = (THIS_PROCESS.number, anyio.lowlevel.current_token())
        if home != self._home:
            left, self._pools, self._home = self._pools, {}, home
            for pool in left.values():
                pool.network.forget()
            # A generator that is collected speaks to its loop: after a fork, to the parent's.
            self._left += [pool for pool in left.values() if pool.answers.has_any]


async def _close_forgotten(pool: _Pool) -> None:
    while (answer := pool.answers.take_forgotten()) is not None:
        # Nothing here waits for anybody.
        with anyio.CancelScope(shield=True):
            await answer.close()


async def _close_dead(pool: _Pool) -> None:
    """Let the pool drop the tunnels that have failed."""
    for connection in [] if pool.proxy is None else pool.core.connections:
        stream = stream_below(connection)
        if isinstance(stream, AsyncStream) and stream.is_closed:
            with anyio.CancelScope(shield=True):
                await connection.aclose()


class _Answer:
    """The body of an answer, for its one owner."""

    def __init__(self, transport: AsyncTransport, pool: _Pool, response: httpcore.Response) -> None:
        self._transport = transport
        self._pool = pool
        self._response = response
        self._pieces = aiter(cast("AsyncIterable[bytes]", response.stream))
        self._has_begun = self._has_ended = False

    async def receive(self) -> bytes | None:
        """The next bytes; None at the end."""
        self._has_begun = True
        if self._is_inherited:
            raise httpx.ReadError("the connection belongs to the process that was forked")
        try:
            data = await anext(self._pieces, None)
        except CORE_ERRORS as error:
            raise self._transport.translate(error, self._pool.proxy) from error
        self._has_ended = data is None
        return data

    async def close(self) -> None:
        """Give the connection back, if the next request can have it; else close it."""
        if self._is_inherited:
            self._pool.network.forget()
        else:
            await self._close()
        # Not before: whoever is interrupted here leaves it to the next call.
        self._pool.answers.discard(self)

    async def _close(self) -> None:
        if not self._has_ended or has_bytes_left(self._response.stream):
            # The pool takes a connection that is closed for one that its peer has left.
            await self._response.extensions["network_stream"].aclose()
        await self._response.aclose()
        if self._has_begun and not self._has_ended:
            await self._end_generators()

    async def _end_generators(self) -> None:
        """Let httpcore's generators run to their ends: left where they wait, trio warns of them.

        Those of a closed answer end when they are asked for more; that is a RuntimeError where
        another task is at it, which ends them then.
        """
        with suppress(*CORE_ERRORS, RuntimeError):
            async for _ in self._pieces:
                """What had arrived already is of no interest."""

    @property
    def _is_inherited(self) -> bool:
        return self._pool.pid != THIS_PROCESS.number


class _Body(httpx.AsyncByteStream, AsyncIterator[bytes]):
    """What httpx has of an answer, and may forget."""

    def __init__(self, answer: _Answer) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self._answer.receive()
        if data is None:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        await self._answer.close()
