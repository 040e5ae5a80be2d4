"""Read sessions for trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

import trio

from s2frames.checkpoint import Checkpoint
from s2frames.errors import LocalProtocolError
from s2frames.inbox import Inbox, ReceivedMessage
from s2frames.read import ReadEvent, ReadProtocol
from s2frames.reader import ReaderStats
from s2frames.records import StreamPosition
from s2frames_trio.exchange import Exchange
from s2frames_trio.pool import Pool

__all__ = ["ReadSession"]

T = TypeVar("T")


class ReadSession(Generic[T]):
    """The messages of a stream: iterate over it inside an `async with` block.

    Leaving the block closes it. A lost connection is made anew, and reading goes on at the next
    record, as long as `retry` says. After a `FrameLost`, a `CodecError` or a cancellation iteration
    may go on. A session belongs to one task at a time.
    """

    def __init__(self, pool: Pool, protocol: ReadProtocol, inbox: Inbox[T]) -> None:
        self._protocol = protocol
        self._inbox = inbox
        self._exchange = Exchange(pool, protocol, "the read")
        self._events: Iterator[ReadEvent] = iter(())
        self._is_entered = False
        self._is_in_use = False

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
        return _Messages(self._next)

    def batches(self) -> AsyncIterator[list[T]]:
        """The messages many at a time, as they arrive: for speed. No list is empty.

        Checkpoints are as of the last message of the list handed out last.
        """
        return _Batches(self._next_batch)

    async def close(self) -> None:
        """Stop reading. Idempotent."""
        self._protocol.close()
        self._exchange.close()
        await trio.lowlevel.checkpoint()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return (await self._next()).message

    async def __aenter__(self) -> ReadSession[T]:
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._protocol.close()
        self._exchange.close()

    async def _next(self) -> ReceivedMessage[T]:
        # What has arrived is handed out without a pause: one for each message would take most of
        # the time. Bytes never come without one.
        if (message := self._take(self._events)) is not None:
            return message
        self._begin_use()
        try:
            while True:
                self._events = self._protocol.events_received()
                if (message := self._take(self._events)) is not None:
                    return message
                await self._go_on()
        finally:
            self._is_in_use = False

    def _take(self, events: Iterator[ReadEvent]) -> ReceivedMessage[T] | None:
        """The next message that has arrived."""
        for event in events:
            if self._protocol.is_over:
                self._exchange.close()
            message = self._inbox.take(event)
            if message is not None:
                return message
        return None

    async def _next_batch(self) -> list[T]:
        self._begin_use()
        try:
            while True:
                events = [] if self._inbox.has_left else self._protocol.events_at_once()
                if self._protocol.is_over:
                    self._exchange.close()
                if messages := self._inbox.take_all(events):
                    return messages
                if not (events or self._inbox.has_left):
                    await self._go_on()
        finally:
            self._is_in_use = False

    async def _go_on(self) -> None:
        if self._protocol.is_over:
            self._exchange.close()
            raise StopAsyncIteration
        await self._exchange.step()

    def _begin_use(self) -> None:
        if not self._is_entered:
            raise LocalProtocolError(
                "read inside a block: async with stream.read_session(...) as messages"
            )
        if self._is_in_use:
            raise LocalProtocolError(
                "a read session belongs to one task at a time, and this one is in use"
            )
        self._is_in_use = True


class _Messages(Generic[T]):
    """The messages of a session with all that is known of each."""

    def __init__(self, take_next: Callable[[], Awaitable[ReceivedMessage[T]]]) -> None:
        self._take_next = take_next

    def __aiter__(self) -> AsyncIterator[ReceivedMessage[T]]:
        return self

    async def __anext__(self) -> ReceivedMessage[T]:
        return await self._take_next()


class _Batches(Generic[T]):
    """The messages of a session, many at a time."""

    def __init__(self, take_next: Callable[[], Awaitable[list[T]]]) -> None:
        self._take_next = take_next

    def __aiter__(self) -> AsyncIterator[list[T]]:
        return self

    async def __anext__(self) -> list[T]:
        return await self._take_next()
