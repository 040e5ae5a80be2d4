"""Append sessions for threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Generic, TypeVar

from s2frames.alone import Alone
from s2frames.append import AppendProtocol, AppendState
from s2frames.drawing import drawing
from s2frames.events import Appended
from s2frames.home import Home
from s2frames.outbox import Outbox
from s2frames.records import Header
from s2frames.system.process import THIS_PROCESS
from s2frames.writer_state import Pending
from s2frames_httpx.answers import Answers
from s2frames_httpx.exchange import Exchange

__all__ = ["AppendSession"]

T = TypeVar("T")


class AppendSession(Generic[T]):
    """Appends messages to a stream. Use it in a `with` block.

    Leaving the block waits until everything is durable; leaving it by an exception sends nothing
    more. A session belongs to one thread at a time, and to the process that made it: after a fork
    make another one. A lost connection is made anew and what was not acked is sent again, as long
    as `retry` says; after the error in which that ends every call raises it. After a
    KeyboardInterrupt the session may go on: what was accepted becomes durable with the calls that
    follow.
    """

    def __init__(self, answers: Answers, protocol: AppendProtocol, outbox: Outbox[T]) -> None:
        self._protocol = protocol
        self._outbox = outbox
        self._home = Home("an append session", THIS_PROCESS)
        self._exchange = Exchange(answers, protocol, self._home)
        self._alone = Alone(
            "an append session belongs to one thread at a time, and this one is in use", self._home
        )

    @property
    def writer_id(self) -> str | None:
        """Who writes, as readers see it; None without dedupe."""
        return self._protocol.writer_id

    @property
    def durable_messages(self) -> int:
        """How many messages of this session are durable."""
        return self._protocol.durable_messages

    def pending(self) -> Pending:
        """What was accepted and is not known to be durable, to go on with in another session."""
        self._home.check()
        return self._protocol.pending()

    def append(
        self, message: T, headers: Iterable[Header] = (), timestamp: int | None = None
    ) -> Appended:
        """Append one message; it is durable when this returns.

        `headers` are (name, value) pairs of bytes, `timestamp` milliseconds since the Unix epoch.
        """
        return self._alone.run(lambda: self._append(message, headers, timestamp))

    def append_many(
        self, messages: Iterable[T], on_durable: Callable[[Appended], None] | None = None
    ) -> Appended | None:
        """Append messages, many at a time, in bounded memory; all are durable when this returns.

        Returns where the first one starts and the last one ends, None when there are none.
        `on_durable` is told of each message, in order, when it is durable. What waits goes out when
        it is enough for a burst, or has waited for `linger` when the next message comes: an
        iterable that pauses keeps its last messages until it goes on.

        Nothing is drawn that is not accepted, but for a message that cannot be sent, which raises.
        Whatever ends the call (the iterable or `on_durable` raising, Ctrl-C), the error comes out
        as it is, and what was drawn before becomes durable with the next call in the block. A
        generator is closed by then, as no `for` would do.
        """
        return self._alone.run(lambda: self._append_many(messages, on_durable))

    def flush(self) -> None:
        """Wait until everything accepted is durable."""
        self._alone.run(self._drain)

    def close(self) -> None:
        """Wait until everything is durable and end the session. Idempotent."""
        self._alone.run(self._close)

    def __enter__(self) -> AppendSession[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._home.is_here:
            # What it has accepted is the original's to send.
            return
        try:
            if self._outbox.leave(error):
                self.close()
        finally:
            self._protocol.abort()
            self._leave(kind)

    def _leave(self, kind: type[BaseException] | None) -> None:
        if kind is GeneratorExit:
            # A generator around the block is left, perhaps by the collector, in whatever lock its
            # thread holds: nothing is closed here.
            self._exchange.forget()
        else:
            self._exchange.close()

    def _append(self, message: T, headers: Iterable[Header], timestamp: int | None) -> Appended:
        frame = self._outbox.put(message, headers, timestamp, now=time.monotonic())
        with self._outbox.watching(frame):
            while (appended := self._outbox.result(frame)) is None:
                self._run_burst()
        return appended

    def _append_many(
        self, messages: Iterable[T], on_durable: Callable[[Appended], None] | None
    ) -> Appended | None:
        with drawing(messages) as source, self._outbox.listening(on_durable) as listener:
            listener.check_source(source)
            for listener.drawn in source:
                listener.put_drawn(now=time.monotonic())
                while self._protocol.is_due(time.monotonic()):
                    self._run_burst()
                    self._outbox.check()
                    listener.tell()
            while not listener.is_durable:
                self._run_burst()
                self._outbox.check()
                listener.tell()
            return listener.appended

    def _close(self) -> None:
        self._protocol.close()
        while self._protocol.state is not AppendState.CLOSED:
            self._outbox.check()
            self._run_burst()

    def _drain(self) -> None:
        self._outbox.check()
        while not self._protocol.is_drained:
            self._run_burst()
            self._outbox.check()

    def _run_burst(self) -> None:
        """Send what the session has to send, and take the answer to all of it."""
        is_under_way = True
        while is_under_way:
            try:
                self._exchange.step()
            finally:
                self._outbox.take_received()
            is_under_way = self._exchange.is_open
