"""Append sessions for trio."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar

import trio
from attrs import define, field

from s2frames.append import AppendProtocol
from s2frames.errors import LocalProtocolError
from s2frames.events import Appended
from s2frames.outbox import Listener, Outbox, Ticket
from s2frames.records import Header
from s2frames.writer_state import Pending
from s2frames_trio.duplex import Duplex
from s2frames_trio.pool import Pool

__all__ = ["AppendSession", "AppendTicket"]

T = TypeVar("T")

# Between two waits no other task runs; so many messages are encoded in about a millisecond.
_MESSAGES_PER_TURN = 500

# The same for large ones, as far as their size is known before they are encoded.
_BYTES_PER_TURN = 1024 * 1024

# After so many messages that were accepted without a wait, other tasks get a turn.
_SUBMITS_PER_TURN = 50


@define(eq=False)
class AppendTicket:
    """A message that was accepted. Awaiting it waits until it is durable.

    Gives its place in the stream, or raises the error that ended the session before. Cancelling
    the wait drops only the wait.
    """

    _settled: trio.Event = field(factory=trio.Event, repr=False)
    _ticket: Ticket | None = field(default=None, repr=False)

    def __await__(self) -> Generator[Any, Any, Appended]:
        return self._wait().__await__()

    async def _wait(self) -> Appended:
        await self._settled.wait()
        if self._ticket is None:
            raise AssertionError("a ticket is settled with what it is for")
        return self._ticket.result()

    def settle(self, ticket: Ticket) -> None:
        """What became of the message is known."""
        self._ticket = ticket
        self._settled.set()


class AppendSession(Generic[T]):
    """Appends messages to a stream. Use it in an `async with` block.

    Leaving the block waits until everything is durable; leaving it by an exception sends nothing
    more. Tasks may share a session: what they append goes out in the order in which it was
    accepted. A lost connection is made anew and what was not acked is sent again, as long as
    `retry` says; after the error in which that ends every call raises it.
    """

    def __init__(self, pool: Pool, protocol: AppendProtocol, outbox: Outbox[T]) -> None:
        self._pool = pool
        self._protocol = protocol
        self._outbox = outbox
        self._duplex = Duplex(pool, protocol, self._take_events)
        self._is_started = False
        self._num_submitted = 0
        self._progress = trio.lowlevel.ParkingLot()
        # Held by the task whose message is next: first come, first served.
        self._turn = trio.StrictFIFOLock()
        # What a callback of the user's raised, which ended the session.
        self._failure: Exception | None = None

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

        Cancelled before that, nothing of it is sent.
        """
        self._num_submitted += 1
        has_room = not (self._protocol.is_full or self._turn.locked())
        if has_room and self._is_started and self._num_submitted % _SUBMITS_PER_TURN:
            await trio.lowlevel.checkpoint_if_cancelled()
            return self._accept(message, headers, timestamp)
        async with self._turn:
            await self._wait_for_room()
            return self._accept(message, headers, timestamp)

    def _accept(self, message: T, headers: Iterable[Header], timestamp: int | None) -> AppendTicket:
        ticket = AppendTicket()
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
        `on_durable` is told of each message, in order, when it is durable. When a message cannot be
        sent, those before it are accepted.
        """
        self._check()
        with self._outbox.listening(on_durable) as listener:
            if isinstance(messages, AsyncIterable):
                async for message in messages:
                    await self._put_many(listener, [message])
                    listener.tell()
            else:
                await self._put_all(listener, messages)
            listener.tell()
            while not listener.is_durable:
                self._check()
                await self._progress.park()
                listener.tell()
            return listener.appended

    async def _put_all(self, listener: Listener[T], messages: Iterable[T]) -> None:
        some: list[T] = []
        size = 0
        try:
            for message in messages:
                some.append(message)
                if isinstance(message, bytes):
                    size += len(message)
                if len(some) == _MESSAGES_PER_TURN or size >= _BYTES_PER_TURN:
                    taken, some, size = some, [], 0
                    await self._put_many(listener, taken)
                    listener.tell()
        finally:
            if some:
                await self._put_many(listener, some)

    async def _put_many(self, listener: Listener[T], messages: list[T]) -> None:
        async with self._turn:
            await self._wait_for_room()
            try:
                listener.put_many(messages, now=trio.current_time())
            finally:
                self._duplex.wake()

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
        self._protocol.close()
        if self._is_started:
            self._duplex.wake()
            await self._duplex.finished.wait()
        self._check_failure()

    async def __aenter__(self) -> AppendSession[T]:
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
        try:
            if kind is None:
                await self.close()
        finally:
            self._protocol.abort()
            self._duplex.abort()
            with trio.CancelScope(shield=True):
                await self._duplex.finished.wait()

    def _check(self) -> None:
        if not self._is_started:
            raise LocalProtocolError(
                "append inside a block: async with stream.append_session(...) as session"
            )
        self._check_failure()

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._outbox.check()

    async def _wait_for_room(self) -> None:
        self._check()
        await trio.lowlevel.checkpoint()
        while self._protocol.is_full:
            self._check()
            await self._progress.park()

    def _take_events(self) -> None:
        try:
            self._outbox.take(self._protocol.events_received())
        except Exception as error:  # noqa: BLE001  # raised by the calls of this session
            self._fail(error)
        if self._progress:
            self._progress.unpark_all()

    def _fail(self, error: Exception) -> None:
        """`on_retry` raised: there is nobody here to raise it to."""
        self._failure = error
        self._protocol.abort(f"on_retry raised {error!r}")
        self._outbox.take(self._protocol.events_received())
