"""`Transport`: HTTP/1.1 over sockets of our own, for threads.

A request goes from httpx through httpcore's pool to a `Stream` of `Network`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import httpx
from attrs import field, frozen

from s2frames.system.process import THIS_PROCESS
from s2frames_httpx.library import httpcore
from s2frames_httpx.mapping import client_closed
from s2frames_httpx.network import Network, Stream
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

__all__ = ["Transport"]


@frozen(eq=False)
class _Pool:
    """The connections of one process, to one scheme, through one proxy or none."""

    network: Network
    core: httpcore.ConnectionPool
    proxy: httpx.Proxy | None
    pid: int
    answers: OpenAnswers[_Answer] = field(factory=OpenAnswers)


class Transport(httpx.BaseTransport):
    """Takes requests over the network. Threads may share one.

    Closing it wakes whoever waits, and ends what they do in `ClientClosed`. After a fork the child
    makes connections of its own; what the parent has open it lets go of, in silence.

    Args:
        reach: whom to trust, and which proxy to take.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._pools: dict[tuple[str, httpx.Proxy | None], _Pool] = {}
        self._inherited: list[_Pool] = []
        self._pid = THIS_PROCESS.number
        self._is_closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and receive the head of its answer."""
        pool = self._pool_for(request.url)
        if self._is_closed:
            raise client_closed()
        _close_forgotten(pool)
        _close_dead(pool)
        try:
            response = pool.core.handle_request(to_core_request(request, pool.proxy))
        except CORE_ERRORS as error:
            raise self.translate(error, pool.proxy) from error
        try:
            return self._hand_out(pool, response)
        except BaseException:
            # A signal may raise anywhere; nobody else has the answer yet.
            response.close()
            raise

    def close(self) -> None:
        """Close every connection, and wake who waits. Idempotent; any thread may."""
        self._is_closed = True
        self._let_go_after_fork()
        for pool in tuple(self._pools.values()):
            pool.network.close()
            _close_forgotten(pool)
            pool.core.close()

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
        self._let_go_after_fork()
        proxy = self._reach.proxies.choose(url)
        key = url.scheme, proxy
        # Threads that make one at the same time use the one that is kept.
        return self._pools.get(key) or self._pools.setdefault(key, self._make_pool(url, proxy))

    def _make_pool(self, url: httpx.URL, proxy: httpx.Proxy | None) -> _Pool:
        network = Network(self._reach.connect_timeout, num_tls(url, proxy))
        options = pool_options(self._reach.ssl_context, proxy)
        core = httpcore.ConnectionPool(network_backend=network, **options)
        return _Pool(network, core, proxy, self._pid)

    def _let_go_after_fork(self) -> None:
        """Forget what belongs to the process that this one is a fork of.

        The pool is not asked: another thread may have had its lock.
        """
        pid = THIS_PROCESS.number
        if pid != self._pid:
            inherited, self._pools, self._pid = self._pools, {}, pid
            # Not even collected: that closes what is open through the pool.
            self._inherited += inherited.values()
            for pool in inherited.values():
                pool.network.forget()


def _close_forgotten(pool: _Pool) -> None:
    while (answer := pool.answers.take_forgotten()) is not None:
        answer.close()


def _close_dead(pool: _Pool) -> None:
    """Let the pool drop the tunnels that have failed."""
    for connection in [] if pool.proxy is None else pool.core.connections:
        stream = stream_below(connection)
        if isinstance(stream, Stream) and stream.is_closed:
            connection.close()


class _Answer:
    """The body of an answer, for its one owner."""

    def __init__(self, transport: Transport, pool: _Pool, response: httpcore.Response) -> None:
        self._transport = transport
        self._pool = pool
        self._response = response
        self._pieces = iter(cast("Iterable[bytes]", response.stream))
        self._has_ended = False

    def receive(self) -> bytes | None:
        """The next bytes; None at the end."""
        if self._is_inherited:
            raise httpx.ReadError("the connection belongs to the process that was forked")
        try:
            data = next(self._pieces, None)
        except CORE_ERRORS as error:
            raise self._transport.translate(error, self._pool.proxy) from error
        self._has_ended = data is None
        return data

    def close(self) -> None:
        """Give the connection back, if the next request can have it; else close it."""
        stream = self._response.stream
        if self._is_inherited or not self._has_ended or has_bytes_left(stream):
            # The pool takes a connection that is closed for one that its peer has left.
            self._response.extensions["network_stream"].close()
        if not self._is_inherited:
            # The pool of another process may be locked by a thread that is not here.
            self._response.close()
        # Not before: whoever is interrupted here leaves it to the next call.
        self._pool.answers.discard(self)

    @property
    def _is_inherited(self) -> bool:
        return self._pool.pid != THIS_PROCESS.number


class _Body(httpx.SyncByteStream, Iterator[bytes]):
    """What httpx has of an answer, and may forget."""

    def __init__(self, answer: _Answer) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data = self._answer.receive()
        if data is None:
            raise StopIteration
        return data

    def close(self) -> None:
        self._answer.close()
