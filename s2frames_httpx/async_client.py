"""`AsyncClient`: S2 for asyncio and trio."""

from __future__ import annotations

import os
import random
import ssl
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload

import anyio
import httpx

from s2frames.append import AppendProtocol
from s2frames.async_calls import AsyncClientCalls, AsyncStreamCalls
from s2frames.codecs import BYTES, Codec
from s2frames.handout import Handout
from s2frames.inbox import Inbox, OnCorrupt
from s2frames.operation import Operation, Plan
from s2frames.options import ReadOptions
from s2frames.outbox import Outbox
from s2frames.read import ReadProtocol
from s2frames.records import StreamPosition
from s2frames.session import Retrying
from s2frames.settings import ReadSettings, Settings
from s2frames.target import StreamTarget
from s2frames_httpx.async_append import AsyncAppendSession
from s2frames_httpx.async_exchange import AsyncExchange
from s2frames_httpx.async_read import AsyncReadSession
from s2frames_httpx.async_transport import AsyncTransport
from s2frames_httpx.burst import BurstOptions, burst_settings
from s2frames_httpx.closing import AsyncClosing
from s2frames_httpx.embedded import EMBEDDED_SETTINGS, AsyncEmbeddedTransport
from s2frames_httpx.mapping import client_options
from s2frames_httpx.reach import Reach, check_own_transport

__all__ = ["AsyncClient", "AsyncStream"]

T = TypeVar("T")

# For writer ids and tokens, which must never meet: the system's source.
_random = random.SystemRandom().random


class AsyncClient(AsyncClientCalls):
    """S2 for asyncio and trio. Tasks may share one; use it in an `async with` block, or close it.

    It may be used in one event loop after the other.

    Args:
        settings: where the service is, and who asks.
        ssl_context: whom to trust, instead of the system's certificates or what SSL_CERT_FILE and
            SSL_CERT_DIR say. It is changed to offer HTTP/1.1 alone.
        proxy: a proxy for every request, instead of what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and
            NO_PROXY say; its URL may hold a name and a password.
        transport: another way to send requests than over the network. It must allow any number of
            connections: each session has one for as long as it lasts.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: httpx.Proxy | httpx.URL | str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(Settings() if settings is None else settings, _random)
        if transport is None:
            transport = AsyncTransport(Reach.make(self.settings, ssl_context, proxy))
        else:
            check_own_transport(transport, httpx.AsyncBaseTransport, ssl_context, proxy)
        #: The client underneath.
        self.http = httpx.AsyncClient(transport=transport, **client_options(self.settings))
        self._closing = AsyncClosing()

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: httpx.Proxy | httpx.URL | str | None = None,
        **changes: Any,
    ) -> AsyncClient:
        """A client as S2_ACCESS_TOKEN, S2_ACCOUNT_ENDPOINT and S2_BASIN_ENDPOINT say.

        `changes` are arguments of `Settings`.
        """
        settings = Settings.from_env(os.environ if environ is None else environ, **changes)
        return cls(settings, ssl_context=ssl_context, proxy=proxy)

    @classmethod
    def embedded(cls) -> AsyncClient:
        """A client with a service of its own, in memory, for trying and for tests."""
        return cls(EMBEDDED_SETTINGS, transport=AsyncEmbeddedTransport())

    def stream(self, basin: str, name: str, *, encryption_key: bytes | None = None) -> AsyncStream:
        """The stream `name` of `basin`. No request is made."""
        target = StreamTarget(self.settings, basin, name, encryption_key)
        return AsyncStream(self, self._closing, target)

    async def run(self, plan: Plan[T]) -> T:
        """Carry out a plan of requests; see `s2frames.operation`."""
        operation = Operation(plan, self.settings, random=_random)
        exchange = AsyncExchange(self.http, self._closing, operation)
        try:
            while not operation.is_over:
                await exchange.step()
        finally:
            await exchange.close()
        return operation.result()

    async def close(self) -> None:
        """Close every connection. Idempotent.

        Sessions and calls that are under way in other tasks end in an error that says so.
        """
        await self._close()
        await anyio.lowlevel.checkpoint()

    async def _close(self) -> None:
        self._closing.set()
        await self.http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()


class AsyncStream(AsyncStreamCalls):
    """A stream of messages. Made by `AsyncClient.stream`."""

    def __init__(self, client: AsyncClient, closing: AsyncClosing, target: StreamTarget) -> None:
        super().__init__(client, target)
        self._http = client.http
        self._closing = closing

    @overload
    def append_session(
        self,
        *,
        codec: Codec[T],
        on_retry: Callable[[Retrying], None] | None = None,
        **options: Unpack[BurstOptions],
    ) -> AsyncAppendSession[T]: ...

    @overload
    def append_session(
        self,
        *,
        on_retry: Callable[[Retrying], None] | None = None,
        **options: Unpack[BurstOptions],
    ) -> AsyncAppendSession[bytes]: ...

    def append_session(
        self,
        *,
        codec: Codec[Any] = BYTES,
        on_retry: Callable[[Retrying], None] | None = None,
        **options: Unpack[BurstOptions],
    ) -> AsyncAppendSession[Any]:
        """A session to append messages with. Options: `AppendSettings`, and `burst_batches`.

        Nothing is sent before the first message. `on_retry` is told of each attempt that failed
        and is followed by another.
        """
        protocol = AppendProtocol(self._target, burst_settings(options), random=_random)
        outbox = Outbox(protocol, codec, on_retry=on_retry)
        return AsyncAppendSession(self._http, self._closing, protocol, outbox)

    @overload
    def read_session(
        self,
        *,
        codec: Codec[T],
        on_corrupt: OnCorrupt = "raise",
        on_retry: Callable[[Retrying], None] | None = None,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
        **options: Unpack[ReadOptions],
    ) -> AsyncReadSession[T]: ...

    @overload
    def read_session(
        self,
        *,
        on_corrupt: OnCorrupt = "raise",
        on_retry: Callable[[Retrying], None] | None = None,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
        **options: Unpack[ReadOptions],
    ) -> AsyncReadSession[bytes]: ...

    def read_session(
        self,
        *,
        codec: Codec[Any] = BYTES,
        on_corrupt: OnCorrupt = "raise",
        on_retry: Callable[[Retrying], None] | None = None,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
        **options: Unpack[ReadOptions],
    ) -> AsyncReadSession[Any]:
        """The messages of the stream, from `start` to the tail or on. Options: `ReadSettings`.

        `on_corrupt` says whether a message that is lost is an error. `on_retry` is told of each
        attempt that failed and is followed by another, `on_caught_up` of the tail when everything
        up to it was handed out. Nothing is sent before the first message is asked for.
        """
        protocol = ReadProtocol(self._target, ReadSettings(**options), random=_random)
        inbox = Inbox(codec, on_corrupt, on_retry=on_retry, on_caught_up=on_caught_up)
        return AsyncReadSession(self._http, self._closing, protocol, Handout(protocol, inbox))
