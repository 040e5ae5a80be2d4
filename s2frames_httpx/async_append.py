"""Append sessions for asyncio and trio."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Generic, TypeVar

import anyio
import httpx

from s2frames.append import AppendProtocol, AppendState
from s2frames.drawing import drawing, drawing_async
from s2frames.events import Appended
from s2frames.home import Home
from s2frames.outbox import Listener, Outbox
from s2frames.records import Header
from s2frames.system.process import THIS_PROCESS
from s2frames.writer_state import Pending
from s2frames_httpx.async_exchange import AsyncExchange
from s2frames_httpx.clock import running_clock
from s2frames_httpx.closing import AsyncClosing

__all__ = ["AsyncAppendSession"]

T = TypeVar("T")

# Between two waits no other task runs; so many messages are encoded in a few milliseconds.
_MESSAGES_PER_TURN = 1000


class AsyncAppendSession(Generic[T]):
    """Appends messages to a stream. Use it in an `async with` block.

    Leaving the block waits until everything is durable; leaving it by an exception sends nothing
    more. Tasks may share a session: what they append meanwhile goes out together. There is no
    background task: of those who wait one drives, and when it is done or cancelled the next takes
    over. A lost connection is made anew and what was not acked is sent again, as long as `retry`
    says; after the error in which that ends every call raises it. Cancelling a call drops only the
    wait: what it had accepted becomes durable with the calls that follow. A session belongs to the
    process that made it: after a fork make another one.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        closing: AsyncClosing,
        protocol: AppendProtocol,
        outbox: Outbox[T],
    ) -> None:
        self._protocol = protocol
        self._outbox = outbox
        self._home = Home("an append session", THIS_PROCESS)
        self._exchange = AsyncExchange(http, closing, protocol, self._home)
        # Held by the task that drives.
        self._driving = anyio.Lock()

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

    async def append(
        self, message: T, headers: Iterable[Header] = (), timestamp: int | None = None
    ) -> Appended:
        """Append one message; it is durable when this returns.

        `headers` are (name, value) pairs of bytes, `timestamp` milliseconds since the Unix epoch.
        """
        await self._wait_for_room()
        frame = self._outbox.put(message, headers, timestamp, now=anyio.current_time())
        with self._outbox.watching(frame):
            while (appended := self._outbox.result(frame)) is None:
                await self._take_turn(lambda: self._outbox.result(frame) is not None)
        return appended

    async def append_many(
        self,
        messages: Iterable[T] | AsyncIterable[T],
        on_durable: Callable[[Appended], None] | None = None,
    ) -> Appended | None:
        """Append messages, many at a time, in bounded memory; all are durable when this returns.

        Returns where the first one starts and the last one ends, None when there are none.
        `on_durable` is told of each message, in order, when it is durable. What waits goes out when
        it is enough for a burst, or has waited for `linger` when the next message comes: an
        iterable that pauses keeps its last messages until it goes on.

        Nothing is drawn that is not accepted, but for a message that cannot be sent, which raises,
        and one that comes out of an async iterable when the session has failed meanwhile. Whatever
        ends the call (the iterable or `on_durable` raising, a cancellation), the error comes out as
        it is, and what was drawn before becomes durable with the next call in the block. A
        generator is closed by then, as no `for` would do.
        """
        if isinstance(messages, AsyncIterable):
            return await self._append_awaited(messages, on_durable)
        clock = running_clock()
        with drawing(messages) as source, self._outbox.listening(on_durable) as listener:
            await self._wait_for_room()
            listener.check_source(source)
            for num_messages, listener.drawn in enumerate(source, 1):
                listener.put_drawn(now=clock())
                if self._protocol.is_due(clock()) or num_messages % _MESSAGES_PER_TURN == 0:
                    await self._send_due(listener, clock)
                    listener.check_source(source)
            return await self._wait_until_durable(listener)

    async def _append_awaited(
        self, messages: AsyncIterable[T], on_durable: Callable[[Appended], None] | None
    ) -> Appended | None:
        clock = running_clock()
        async with drawing_async(messages) as source:
            with self._outbox.listening(on_durable) as listener:
                await self._wait_for_room()
                listener.check_source(source)
                async for listener.drawn in source:
                    listener.put_drawn(now=clock())
                    if self._protocol.is_due(clock()):
                        await self._send_due(listener, clock)
                    listener.check_source(source)
                return await self._wait_until_durable(listener)

    async def _wait_for_room(self) -> None:
        """Wait until a message may be accepted. Raises what ended the session."""
        self._home.check()
        await self._drive(lambda: not self._protocol.is_full)

    async def _send_due(self, listener: Listener[T], clock: Callable[[], float]) -> None:
        """Send what is to be sent before another message is drawn; let other tasks run."""
        await anyio.lowlevel.checkpoint()
        while self._protocol.is_due(clock()):
            await self._take_turn(lambda: not self._protocol.is_due(clock()))
            listener.tell()

    async def _wait_until_durable(self, listener: Listener[T]) -> Appended | None:
        while not listener.is_durable:
            await self._take_turn(lambda: listener.is_durable)
            listener.tell()
        return listener.appended

    async def flush(self) -> None:
        """Wait until everything accepted is durable."""
        self._home.check()
        await self._drive(lambda: self._protocol.is_drained)

    async def close(self) -> None:
        """Wait until everything is durable and end the session. Idempotent."""
        self._home.check()
        self._protocol.close()
        await self._drive(lambda: self._protocol.state is AppendState.CLOSED)

    async def __aenter__(self) -> AsyncAppendSession[T]:
        return self

    async def __aexit__(
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
                await self.close()
        finally:
            self._protocol.abort()
            await self._exchange.close()

    async def _drive(self, is_done: Callable[[], bool]) -> None:
        """Run bursts, or let another task do so, until `is_done`. Raises what ends the session.

        Whatever there is to do, other tasks get a turn, and a cancelled one ends here.
        """
        await anyio.lowlevel.checkpoint()
        self._outbox.check()
        while not is_done():
            await self._take_turn(is_done)

    async def _take_turn(self, is_done: Callable[[], bool]) -> None:
        """Run a burst, once no other task does, unless there is no need any more."""
        async with self._driving:
            if not is_done():
                self._outbox.check()
                await self._run_burst()

    async def _run_burst(self) -> None:
        """Send what the session has to send, and take the answer to all of it."""
        is_under_way = True
        while is_under_way:
            try:
                await self._exchange.step()
            finally:
                self._outbox.take_received()
            is_under_way = self._exchange.is_open
