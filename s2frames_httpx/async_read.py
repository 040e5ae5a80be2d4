"""Read sessions for asyncio and trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Generic, TypeVar

import anyio
import httpx

from s2frames.alone import Alone
from s2frames.checkpoint import Checkpoint
from s2frames.errors import LocalProtocolError
from s2frames.handout import Handout
from s2frames.home import Home
from s2frames.inbox import ReceivedMessage
from s2frames.items import AsyncItems
from s2frames.read import ReadProtocol
from s2frames.reader import ReaderStats
from s2frames.records import StreamPosition
from s2frames.system.process import THIS_PROCESS
from s2frames_httpx.async_exchange import AsyncExchange
from s2frames_httpx.closing import AsyncClosing

__all__ = ["AsyncReadSession"]

T = TypeVar("T")


class AsyncReadSession(Generic[T]):
    """The messages of a stream: iterate over it inside an `async with` block.

    Leaving the block closes it. A lost connection is made anew, and reading goes on at the next
    record, as long as `retry` says. After a `FrameLost`, a `CodecError` or a cancellation iteration
    may go on. A session belongs to one task at a time, and to the process that made it: after a
    fork make another one.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        closing: AsyncClosing,
        protocol: ReadProtocol,
        handout: Handout[T],
    ) -> None:
        self._protocol = protocol
        self._handout = handout
        self._home = Home("a read session", THIS_PROCESS)
        self._exchange = AsyncExchange(http, closing, protocol, self._home)
        self._is_entered = False
        self._alone = Alone(
            "a read session belongs to one task at a time, and this one is in use", self._home
        )

    @property
    def stats(self) -> ReaderStats:
        """Counters of what was read so far."""
        return self._protocol.stats

    @property
    def caught_up(self) -> StreamPosition | None:
        """The tail, while everything up to it was handed out as far as is known."""
        return self._protocol.caught_up

    def checkpoint(self) -> Checkpoint:
        """Where to go on, as of the last message handed out."""
        return self._protocol.checkpoint()

    def frames(self) -> AsyncIterator[ReceivedMessage[T]]:
        """The messages with their positions, timestamps, writers and headers."""
        return AsyncItems(self._fetch_one, self._handout.hand_out_received)

    def batches(self) -> AsyncIterator[list[T]]:
        """The messages many at a time, as they arrive: for speed. No list is empty.

        Checkpoints are as of the last message of the list handed out last.
        """
        return AsyncItems(self._fetch_many, self._handout.hand_out_many)

    async def close(self) -> None:
        """Stop reading. Idempotent.

        After a fork it closes nothing in the copy of the process: the connection is the original's.
        """
        await self._close()
        if self._home.is_here:
            await anyio.lowlevel.checkpoint()

    async def _close(self) -> None:
        self._protocol.close()
        await self._exchange.close()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        await self._fetch_one()
        return self._handout.hand_out()

    async def __aenter__(self) -> AsyncReadSession[T]:
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def _fetch_one(self) -> None:
        await self._fetch(self._handout.fetch)

    async def _fetch_many(self) -> None:
        await self._fetch(self._handout.fetch_many)

    async def _fetch(self, fetch: Callable[[], bool]) -> None:
        """Have something ready to be handed out: the caller does that, and waits for nothing more.

        What has arrived is handed out before anything is waited for.
        """
        if not self._is_entered:
            raise LocalProtocolError(
                "read inside a block: async with stream.read_session(...) as messages"
            )
        turn = object()
        try:
            try:
                self._alone.begin(turn)
                await anyio.lowlevel.checkpoint_if_cancelled()
                while not fetch():
                    if self._protocol.is_over:
                        await self._exchange.close()
                        raise StopAsyncIteration
                    await self._exchange.step()
            finally:
                self._alone.end(turn)
        finally:
            self._alone.end(turn)
