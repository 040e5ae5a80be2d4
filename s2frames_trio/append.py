"""Append sessions for trio."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar

import trio
from attrs import define, field

from s2frames.append import AppendProtocol
from s2frames.drawing import drawing, drawing_async
from s2frames.errors import LocalProtocolError
from s2frames.events import Appended
from s2frames.home import Home
from s2frames.outbox import Listener, Outbox, Ticket
from s2frames.records import Header
from s2frames.system.process import THIS_PROCESS
from s2frames.writer_state import Pending
from s2frames_trio.duplex import Duplex
from s2frames_trio.pool import Pool

__all__ = ["AppendSession", "AppendTicket"]

T = TypeVar("T")

# Between two waits no other task runs; so many messages are encoded in about a millisecond.
_MESSAGES_PER_TURN = 500

# The same for large ones, as far as their size is known before they are encoded.
_BYTES_PER_TURN = 1024 * 1024

# How long a task that was told to end may take. It is a turn or two.
_SECONDS_TO_FINISH = 1.0

# After so many messages that were accepted without a wait, other tasks get a turn.
_SUBMITS_PER_TURN = 50


@define(eq=False)
class AppendTicket:
    """A message that was accepted. Awaiting it waits until it is durable.

    Gives its place in the stream, or raises the error that ended the session before. Cancelling
    the wait drops only the wait.
    """

    _outbox: Outbox[Any] = field(repr=False)
    _home: Home = field(repr=False)
    # Of the session: who waits for a ticket.
    _waiting: dict[object, AppendTicket] = field(repr=False)
    _settled: trio.Event = field(factory=trio.Event, repr=False)
    _ticket: Ticket | None = field(default=None, repr=False)

    def __await__(self) -> Generator[Any, Any, Appended]:
        return self._wait().__await__()

    async def _wait(self) -> Appended:
        # In a copy of the process nothing can be waited for.
        if self._ticket is not None and self._home.is_here:
            await trio.lowlevel.checkpoint()
        while self._ticket is None:
            self._home.check()
            self._outbox.check_callbacks()
            key = object()
            self._waiting[key] = self
            try:
                await self._settled.wait()
            finally:
                del self._waiting[key]
        self._outbox.check_callbacks()
        return self._ticket.result()

    def wake(self) -> None:
        """There is something to raise for who waits."""
        settled, self._settled = self._settled, trio.Event()
        settled.set()

    def settle(self, ticket: Ticket) -> None:
        """What became of the message is known."""
        self._ticket = ticket
        self._settled.set()


class AppendSession(Generic[T]):
    """Appends messages to a stream. Use it in an `async with` block.

    Leaving the block waits until everything is durable; leaving it by an exception sends nothing
    more. Tasks may share a session: what they append goes out in the order in which it was
    accepted. A lost connection is made anew and what was not acked is sent again, as long as
    `retry` says; after the error in which that ends every call raises it. A session belongs to the
    process that made it: after a fork make another one.
    """

    def __init__(self, pool: Pool, protocol: AppendProtocol, outbox: Outbox[T]) -> None:
        self._pool = pool
        self._protocol = protocol
        self._outbox = outbox
        self._home = Home("an append session", THIS_PROCESS)
        self._duplex = Duplex(pool, protocol, self._take_events)
        self._is_started = False
        self._num_submitted = 0
        self._progress = trio.lowlevel.ParkingLot()
        # Held by the task that waits for room first: first come, first served.
        self._turn = trio.StrictFIFOLock()
        self._waiting: dict[object, AppendTicket] = {}

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
        return await (await self.submit(message, headers, timestamp))

    async def submit(
        self, message: T, headers: Iterable[Header] = (), timestamp: int | None = None
    ) -> AppendTicket:
        """Accept a message; returns as soon as there is room for it. Await the ticket for the rest.

        Cancelled before that, nothing of it is sent. While there is room, other tasks have their
        turn with one call out of 50 only: it would cost more than all else.
        """
        home = self._home
        # Without a call: this runs for every message.
        if home.process.number != home.number:
            home.check()
        self._num_submitted += 1
        has_room = not (self._protocol.is_full or self._turn.locked())
        if has_room and self._is_started and self._num_submitted % _SUBMITS_PER_TURN:
            await trio.lowlevel.checkpoint_if_cancelled()
            return self._accept(message, headers, timestamp)
        await self._wait_for_room()
        return self._accept(message, headers, timestamp)

    def _accept(self, message: T, headers: Iterable[Header], timestamp: int | None) -> AppendTicket:
        ticket = AppendTicket(self._outbox, self._home, self._waiting)
        self._outbox.submit(
            message, headers, timestamp, now=trio.current_time(), on_settled=ticket.settle
        )
        self._duplex.wake()
        return ticket

    async def append_many(
        self,
        messages: Iterable[T] | AsyncIterable[T],
        on_durable: Callable[[Appended], None] | None = None,
    ) -> Appended | None:
        """Append messages, many at a time, in bounded memory; all are durable when this returns.

        Returns where the first one starts and the last one ends, None when there are none.
        `on_durable` is told of each message, in order, when it is durable.

        Nothing is drawn that is not accepted, but for a message that cannot be sent, which raises,
        and one that comes out of an async iterable when the session has failed meanwhile. Whatever
        ends the call (the iterable or `on_durable` raising, a cancellation), the error comes out as
        it is, and what was drawn before becomes durable. A generator is closed by then, as no `for`
        would do.
        """
        try:
            if isinstance(messages, AsyncIterable):
                return await self._append_awaited(messages, on_durable)
            return await self._append_drawn(messages, on_durable)
        finally:
            # Also for what was drawn and cut off.
            self._duplex.wake()

    async def _append_drawn(
        self, messages: Iterable[T], on_durable: Callable[[Appended], None] | None
    ) -> Appended | None:
        with drawing(messages) as source, self._outbox.listening(on_durable) as listener:
            listener.draw_from(source)
            has_more = True
            while has_more:
                await self._wait_for_room()
                has_more = listener.put_next(
                    now=trio.current_time(),
                    max_messages=_MESSAGES_PER_TURN,
                    max_bytes=_BYTES_PER_TURN,
                )
                self._duplex.wake()
                listener.tell()
            return await self._wait_until_durable(listener)

    async def _append_awaited(
        self, messages: AsyncIterable[T], on_durable: Callable[[Appended], None] | None
    ) -> Appended | None:
        async with drawing_async(messages) as source:
            with self._outbox.listening(on_durable) as listener:
                await self._wait_for_room()
                listener.check_source(source)
                async for listener.drawn in source:
                    listener.put_drawn(now=trio.current_time())
                    self._duplex.wake()
                    listener.tell()
                    await self._wait_for_room()
                    listener.check_source(source)
                return await self._wait_until_durable(listener)

    async def _wait_until_durable(self, listener: Listener[T]) -> Appended | None:
        listener.tell()
        while not listener.is_durable:
            self._check()
            await self._progress.park()
            listener.tell()
        return listener.appended

    async def flush(self) -> None:
        """Wait until everything accepted so far is durable."""
        self._check()
        num_accepted = self._outbox.num_accepted
        self._protocol.flush()
        self._duplex.wake()
        await trio.lowlevel.checkpoint()
        while self._protocol.durable_messages < num_accepted:
            self._check()
            await self._progress.park()

    async def close(self) -> None:
        """Wait until everything is durable and end the session. Idempotent."""
        self._home.check()
        self._protocol.close()
        if self._is_started:
            self._duplex.wake()
            while not self._duplex.finished.is_set():
                self._outbox.check_callbacks()
                await self._progress.park()
        await trio.lowlevel.checkpoint()
        self._outbox.check()

    async def __aenter__(self) -> AppendSession[T]:
        self._home.check()
        if self._is_started:
            raise LocalProtocolError("a session is entered once")
        # Not once the task is started: cancelled here, nobody would leave the block.
        await trio.lowlevel.checkpoint()
        self._pool.start_soon(self._duplex.run)
        self._is_started = True
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
            self._duplex.abort()
            # It is about to: but for one that was itself cut off, at its first or last line.
            with trio.move_on_after(_SECONDS_TO_FINISH, shield=True):
                await self._duplex.finished.wait()

    def _check(self) -> None:
        self._home.check()
        if not self._is_started:
            raise LocalProtocolError(
                "append inside a block: async with stream.append_session(...) as session"
            )
        self._outbox.check()

    # A signal comes where it waits, or when the turn is given back.
    @trio.lowlevel.enable_ki_protection
    async def _wait_for_room(self) -> None:
        """Wait until there is room for a message, first come, first served.

        The caller accepts one, or some, at once: whoever is next does not look before.
        """
        self._check()
        async with self._turn:
            await trio.lowlevel.checkpoint()
            while self._protocol.is_full:
                self._check()
                await self._progress.park()

    def _take_events(self) -> None:
        self._outbox.take_received()
        if self._outbox.has_raised:
            for ticket in tuple(self._waiting.values()):
                ticket.wake()
        if self._progress:
            self._progress.unpark_all()
