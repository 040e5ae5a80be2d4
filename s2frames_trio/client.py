"""`open_client`: S2 for trio, over HTTP/2."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, Unpack, overload

from s2frames.append import AppendProtocol
from s2frames.async_calls import AsyncClientCalls, AsyncStreamCalls
from s2frames.codecs import BYTES, Codec
from s2frames.handout import Handout
from s2frames.inbox import Inbox, OnCorrupt
from s2frames.operation import Operation, Plan
from s2frames.options import AppendOptions, ReadOptions
from s2frames.outbox import Outbox
from s2frames.read import ReadProtocol
from s2frames.records import StreamPosition
from s2frames.session import Retrying
from s2frames.settings import AppendSettings, ReadSettings, Settings
from s2frames.target import StreamTarget
from s2frames_trio.append import AppendSession
from s2frames_trio.exchange import Exchange
from s2frames_trio.interrupts import whole_block
from s2frames_trio.pool import Pool, open_pool
from s2frames_trio.read import ReadSession

__all__ = ["Client", "Stream", "open_client"]

T = TypeVar("T")

# For writer ids, which must never meet: the system's source.
_random = random.SystemRandom().random


@whole_block
@asynccontextmanager
async def open_client(
    settings: Settings | None = None, *, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[Client]:
    """A client for as long as the block lasts; leaving it closes every connection.

    `settings` say where the service is, and who asks: `Settings.from_env(os.environ)` reads
    S2_ACCESS_TOKEN, S2_ACCOUNT_ENDPOINT and S2_BASIN_ENDPOINT. `ssl_context` replaces the system's
    certificates; it is changed to offer HTTP/2 alone (ALPN `h2`). An https endpoint must speak
    HTTP/2, an http one too, from the first byte on.

    What is raised in the block comes out as it is, Ctrl-C always as a plain `KeyboardInterrupt`, be
    it that it finds a task of the client.
    """
    settings = Settings() if settings is None else settings
    async with open_pool(
        connect_timeout=settings.connect_timeout,
        # Sooner than a session gives up: this error says what was in the way.
        open_timeout=settings.connect_timeout + settings.request_timeout / 2,
        ssl_context=ssl_context,
    ) as pool:
        yield Client(settings, pool)


class Client(AsyncClientCalls):
    """S2 for trio. Tasks may share one. Made by `open_client`."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        super().__init__(settings, _random)
        self._pool = pool

    def stream(self, basin: str, name: str, *, encryption_key: bytes | None = None) -> Stream:
        """The stream `name` of `basin`. No request is made."""
        return Stream(self, self._pool, StreamTarget(self.settings, basin, name, encryption_key))

    async def run(self, plan: Plan[T]) -> T:
        """Carry out a plan of requests; see `s2frames.operation`."""
        operation = Operation(plan, self.settings, random=_random)
        exchange = Exchange(self._pool, operation)
        try:
            while not operation.is_over:
                await exchange.step()
        finally:
            exchange.close()
        return operation.result()


class Stream(AsyncStreamCalls):
    """A stream of messages. Made by `Client.stream`."""

    def __init__(self, client: Client, pool: Pool, target: StreamTarget) -> None:
        super().__init__(client, target)
        self._pool = pool

    @overload
    def append_session(
        self,
        *,
        codec: Codec[T],
        on_retry: Callable[[Retrying], None] | None = None,
        **options: Unpack[AppendOptions],
    ) -> AppendSession[T]: ...

    @overload
    def append_session(
        self,
        *,
        on_retry: Callable[[Retrying], None] | None = None,
        **options: Unpack[AppendOptions],
    ) -> AppendSession[bytes]: ...

    def append_session(
        self,
        *,
        codec: Codec[Any] = BYTES,
        on_retry: Callable[[Retrying], None] | None = None,
        **options: Unpack[AppendOptions],
    ) -> AppendSession[Any]:
        """A session to append messages with. Options: `AppendSettings`.

        Nothing is sent before the first message. `on_retry` is told of each attempt that failed
        and is followed by another.
        """
        protocol = AppendProtocol(self._target, AppendSettings(**options), random=_random)
        return AppendSession(self._pool, protocol, Outbox(protocol, codec, on_retry=on_retry))

    @overload
    def read_session(
        self,
        *,
        codec: Codec[T],
        on_corrupt: OnCorrupt = "raise",
        on_retry: Callable[[Retrying], None] | None = None,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
        **options: Unpack[ReadOptions],
    ) -> ReadSession[T]: ...

    @overload
    def read_session(
        self,
        *,
        on_corrupt: OnCorrupt = "raise",
        on_retry: Callable[[Retrying], None] | None = None,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
        **options: Unpack[ReadOptions],
    ) -> ReadSession[bytes]: ...

    def read_session(
        self,
        *,
        codec: Codec[Any] = BYTES,
        on_corrupt: OnCorrupt = "raise",
        on_retry: Callable[[Retrying], None] | None = None,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
        **options: Unpack[ReadOptions],
    ) -> ReadSession[Any]:
        """The messages of the stream, from `start` to the tail or on. Options: `ReadSettings`.

        `on_corrupt` says whether a message that is lost is an error. `on_retry` is told of each
        attempt that failed and is followed by another, `on_caught_up` of the tail when everything
        up to it was handed out. Nothing is sent before the first message is asked for.
        """
        protocol = ReadProtocol(self._target, ReadSettings(**options), random=_random)
        inbox = Inbox(codec, on_corrupt, on_retry=on_retry, on_caught_up=on_caught_up)
        return ReadSession(self._pool, protocol, Handout(protocol, inbox))
