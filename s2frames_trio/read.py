"""Read sessions for trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Generic, TypeVar

import trio

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
from s2frames_trio.exchange import Exchange
from s2frames_trio.interrupts import protected
from s2frames_trio.pool import Pool

__all__ = ["ReadSession"]

T = TypeVar("T")


class ReadSession(Generic[T]):
    """The messages of a stream: iterate over it inside an `async with` block.

    Leaving the block closes it. A lost connection is made anew, and reading goes on at the next
    record, as long as `retry` says. After a `FrameLost`, a `CodecError` or a cancellation iteration
    may go on. A session belongs to one task at a time, and to the process that made it: after a
    fork make another one.

    A message that has arrived is handed out without a checkpoint: other tasks have their turn, and
    a cancellation is noticed, with each piece of the answer that is waited for.
    """

    def __init__(self, pool: Pool, protocol: ReadProtocol, handout: Handout[T]) -> None:
        self._protocol = protocol
        self._handout = handout
        self._home = Home("a read session", THIS_PROCESS)
        self._exchange = Exchange(pool, protocol, self._home)
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
        self._protocol.close()
        self._exchange.close()
        if self._home.is_here:
            await trio.lowlevel.checkpoint()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        home = self._home
        # Without a call: this runs for every message.
        if home.process.number != home.number:
            home.check()
        if not self._handout.fetch():
            await self._fetch_one()
        elif self._protocol.has_last:
            self._exchange.close()
        return self._handout.hand_out()

    async def __aenter__(self) -> ReadSession[T]:
        await trio.lowlevel.checkpoint()
        self._is_entered = True
        return self

    @protected
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._protocol.close()
        self._exchange.close()
        if kind is None and self._home.is_here:
            await trio.lowlevel.checkpoint()

    async def _fetch_one(self) -> None:
        await self._fetch(self._handout.fetch)

    async def _fetch_many(self) -> None:
        await self._fetch(self._handout.fetch_many)

    async def _fetch(self, fetch: Callable[[], bool]) -> None:
        """Have something ready to be handed out: the caller does that, and waits for nothing more.

        What has arrived is handed out without a pause: one for each message would take most of the
        time. Bytes never come without one.
        """
        if not self._is_entered:
            raise LocalProtocolError(
                "read inside a block: async with stream.read_session(...) as messages"
            )
        turn = object()
        try:
            try:
                self._alone.begin(turn)
                while not fetch():
                    if self._protocol.is_over:
                        raise StopAsyncIteration
                    await self._exchange.step()
            finally:
                if self._protocol.is_over or self._protocol.has_last:
                    self._exchange.close()
                self._alone.end(turn)
        finally:
            self._alone.end(turn)
