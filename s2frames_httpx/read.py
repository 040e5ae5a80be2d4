"""Read sessions for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

from s2frames.alone import Alone
from s2frames.checkpoint import Checkpoint
from s2frames.handout import Handout
from s2frames.home import Home
from s2frames.inbox import ReceivedMessage
from s2frames.items import Items
from s2frames.read import ReadProtocol
from s2frames.reader import ReaderStats
from s2frames.records import StreamPosition
from s2frames.system.process import THIS_PROCESS
from s2frames_httpx.answers import Answers
from s2frames_httpx.exchange import Exchange

__all__ = ["ReadSession"]

T = TypeVar("T")


class ReadSession(Generic[T]):
    """The messages of a stream: iterate over it, bare or in a `with` block.

    In a `with` block it is closed when the block is left. Bare, it is closed at its end; one that
    is left before that is closed with the client's next request, or with the client. A lost
    connection is made anew, and reading goes on at the next record, as long as `retry` says. After
    a `FrameLost`, a `CodecError` or a KeyboardInterrupt iteration may go on. A session belongs to
    one thread at a time, and to the process that made it: after a fork make another one.
    """

    def __init__(self, answers: Answers, protocol: ReadProtocol, handout: Handout[T]) -> None:
        self._protocol = protocol
        self._handout = handout
        self._home = Home("a read session", THIS_PROCESS)
        self._exchange = Exchange(answers, protocol, self._home)
        self._alone = Alone(
            "a read session belongs to one thread at a time, and this one is in use", self._home
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
        return Items(self._fetch_one, self._handout.hand_out_received)

    def batches(self) -> Iterator[list[T]]:
        """The messages many at a time, as they arrive: for speed. No list is empty.

        Checkpoints are as of the last message of the list handed out last.
        """
        return Items(self._fetch_many, self._handout.hand_out_many)

    def close(self) -> None:
        """Stop reading. Idempotent.

        After a fork it closes nothing in the copy of the process: the connection is the original's.
        """
        if self._home.is_here:
            self._alone.run(self._close)

    def _close(self) -> None:
        self._protocol.close()
        self._exchange.close()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self._fetch_one()
        return self._handout.hand_out()

    def __enter__(self) -> ReadSession[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is GeneratorExit:
            # A generator around the block is left, perhaps by the collector: as in `__del__`.
            self._exchange.forget()
        else:
            self.close()

    def __del__(self) -> None:
        # A loop that was left with `break` forgets its session without closing it. The collector
        # comes anywhere, in whatever lock its thread holds: nothing is closed here.
        self._exchange.forget()

    def _fetch_one(self) -> None:
        self._fetch(self._handout.fetch)

    def _fetch_many(self) -> None:
        self._fetch(self._handout.fetch_many)

    def _fetch(self, fetch: Callable[[], bool]) -> None:
        """Have something ready to be handed out: the caller does that, as the last thing."""
        turn = object()
        try:
            try:
                self._alone.begin(turn)
                while not fetch():
                    if self._protocol.is_over:
                        raise StopIteration
                    self._exchange.step()
            finally:
                if self._protocol.is_over or self._protocol.has_last:
                    self._exchange.close()
                self._alone.end(turn)
        finally:
            self._alone.end(turn)
