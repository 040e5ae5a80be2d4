"""Read sessions for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

import httpx

from s2frames.checkpoint import Checkpoint
from s2frames.inbox import Inbox, ReceivedMessage
from s2frames.read import ReadProtocol
from s2frames.reader import ReaderStats
from s2frames.records import StreamPosition
from s2frames_httpx.alone import Alone
from s2frames_httpx.exchange import Exchange

__all__ = ["ReadSession"]

T = TypeVar("T")


class ReadSession(Generic[T]):
    """The messages of a stream: iterate over it, bare or in a `with` block.

    Bare, it is closed when the loop is left; in a `with` block, when the block is. A lost
    connection is made anew, and reading goes on at the next record, as long as `retry` says. After
    a `FrameLost`, a `CodecError` or a KeyboardInterrupt iteration may go on. A session belongs to
    one thread at a time.
    """

    def __init__(self, http: httpx.Client, protocol: ReadProtocol, inbox: Inbox[T]) -> None:
        self._protocol = protocol
        self._inbox = inbox
        self._exchange = Exchange(http, protocol, "the read")
        self._alone = Alone(
            "a read session belongs to one thread at a time, and this one is in use"
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

    def frames(self) -> Iterator[ReceivedMessage[T]]:
        """The messages with their positions, timestamps, writers and headers."""
        return _Messages(self._next)

    def batches(self) -> Iterator[list[T]]:
        """The messages many at a time, as they arrive: for speed. No list is empty.

        Checkpoints are as of the last message of the list handed out last.
        """
        return _Batches(self._next_batch)

    def close(self) -> None:
        """Stop reading. Idempotent."""
        with self._alone:
            self._protocol.close()
            self._exchange.close()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self._next().message

    def __enter__(self) -> ReadSession[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A loop that was left with `break` forgets its session without closing it.
        self._exchange.close()

    def _next(self) -> ReceivedMessage[T]:
        with self._alone:
            return self._take_next()

    def _next_batch(self) -> list[T]:
        with self._alone:
            while True:
                events = [] if self._inbox.has_left else self._protocol.events_at_once()
                if self._protocol.is_over:
                    self._exchange.close()
                if messages := self._inbox.take_all(events):
                    return messages
                if not (events or self._inbox.has_left):
                    if self._protocol.is_over:
                        raise StopIteration
                    self._exchange.step()

    def _take_next(self) -> ReceivedMessage[T]:
        protocol = self._protocol
        while True:
            for event in protocol.events_received():
                if protocol.is_over:
                    self._exchange.close()
                message = self._inbox.take(event)
                if message is not None:
                    return message
            if protocol.is_over:
                raise StopIteration
            self._exchange.step()


class _Batches(Generic[T]):
    """The messages of a session, many at a time."""

    def __init__(self, take_next: Callable[[], list[T]]) -> None:
        self._take_next = take_next

    def __iter__(self) -> Iterator[list[T]]:
        return self

    def __next__(self) -> list[T]:
        return self._take_next()


class _Messages(Generic[T]):
    """The messages of a session with all that is known of each."""

    def __init__(self, take_next: Callable[[], ReceivedMessage[T]]) -> None:
        self._take_next = take_next

    def __iter__(self) -> Iterator[ReceivedMessage[T]]:
        return self

    def __next__(self) -> ReceivedMessage[T]:
        return self._take_next()
