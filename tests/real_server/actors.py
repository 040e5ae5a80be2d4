"""Those who append and follow while something breaks, and go on when a session gives up."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field

from real_server.ledger import Chain, Read, parse
from s2frames.checkpoint import Checkpoint
from s2frames.errors import S2FramesError
from s2frames.events import Appended
from s2frames.retry import is_retryable
from s2frames.settings import Endpoints, Settings
from s2frames.writer_state import Pending, WriterState
from s2frames_httpx import Client
from scenes import Flavour, open_client

__all__ = ["BASIN", "END", "Follower", "Writer", "append_end"]

BASIN = "test-basin"

#: The last message of each stream, after all writers are done. No message of a chain is so short.
END = b"end"

# As often a writer asks where it left off: far more than it takes, so that a run ends.
_MAX_RECOVERIES = 100

# Messages that a writer appends at once, at most.
_MAX_AT_ONCE = 12

# Messages that a follower reads in a session: up to 2 to the power of this, and every number is as
# likely as its double, so that repeats fall between two sessions, too.
_READ_EXPONENT = 6


def _say_nothing(_num: int) -> None:
    pass


def _always() -> bool:
    return True


@define(eq=False, kw_only=True)
class Writer:
    """Appends the messages of its chain, one session after the other."""

    flavour: Flavour
    settings: Settings
    stream_name: str
    chain: Chain
    random: Random
    #: Whether there is a message of this index.
    has_message: Callable[[int], bool]
    is_exclusive: bool = False
    #: Told how many more messages are durable.
    on_durable: Callable[[int], None] = _say_nothing
    #: Sessions, and those that gave up.
    sessions: int = 0
    given_up: int = 0
    # The next message to hand to the session, and the first one that this session got.
    _next: int = field(default=0, init=False)
    _first: int = field(default=0, init=False)
    # Of this session: how many messages it told to be durable.
    _told: int = field(default=0, init=False)
    # An `AsyncStream`, as each flavour has it.
    _stream: Any = field(default=None, init=False)

    async def run(self) -> None:
        """Append all messages."""
        async with open_client(self.flavour, self.settings) as client:
            self._stream = client.stream(BASIN, self.stream_name)
            state: WriterState | None = None
            while self.has_message(self._next):
                state = await self._run_session(state)

    async def _run_session(self, resume: WriterState | None) -> WriterState | None:
        """One session; gives the state to go on with, if it gave up."""
        session = self._stream.append_session(exclusive=self.is_exclusive, resume=resume)
        self.sessions += 1
        self._first, self._told = self._next, 0
        try:
            async with session:
                while self.has_message(self._next):
                    await self._append_some(session)
        except S2FramesError as error:
            if not is_retryable(error):
                raise
            self.given_up += 1
        durable = session.durable_messages
        assert self._told <= durable
        self.chain.acked.update(range(self._first, self._first + durable))
        pending = session.pending()
        self._next = self._first + durable
        self._check_pending(pending)
        return await self._go_on(pending, session.writer_id) if pending.messages else None

    async def _append_some(self, session: Any) -> None:
        messages = []
        for _ in range(self.random.randint(1, _MAX_AT_ONCE)):
            if self.has_message(self._next):
                messages.append(self.chain.message(self._next))
                self._next += 1
        if len(messages) == 1:
            self._note_durable(await session.append(messages[0]))
        elif hasattr(session, "submit") and self.random.random() < 0.5:
            for ticket in [await session.submit(message) for message in messages]:
                self._note_durable(await ticket)
        else:
            await session.append_many(messages, on_durable=self._note_durable)

    def _note_durable(self, appended: Appended) -> None:
        index = self._first + self._told
        self.chain.acked.add(index)
        self.chain.places[index] = (appended.start, appended.end)
        self._told += 1
        self.on_durable(1)

    def _check_pending(self, pending: Pending) -> None:
        payloads = [message.payload for message in pending.messages]
        indices = range(self._next, self._next + len(payloads))
        assert payloads == [self.chain.message(index) for index in indices]

    async def _go_on(self, pending: Pending, writer_id: str) -> WriterState | None:
        """After a session gave up: as the same writer, or as another without what is in doubt."""
        if self.is_exclusive:
            state = pending.state or await self._recover(writer_id)
            landed = len(pending.messages) - len(pending.after(state))
            self.chain.acked.update(range(self._next, self._next + landed))
            self._next += landed
            return state
        if self.random.random() < 0.5:
            # Not only what this session was handed: what one before it left in doubt may be more.
            num_sent = len(self.chain.digests)
            self.chain.abandoned.update(range(self._next, num_sent))
            self._next = num_sent
            return None
        return pending.state

    async def _recover(self, writer_id: str) -> WriterState:
        for _ in range(_MAX_RECOVERIES):
            try:
                state: WriterState = await self._stream.recover_writer(writer_id)
            except S2FramesError as error:
                if not is_retryable(error):
                    raise
            else:
                return state
        raise AssertionError(f"{writer_id} was not recovered in {_MAX_RECOVERIES} attempts")


@define(eq=False, kw_only=True)
class Follower:
    """Reads a stream to its end, one session after the other, each from a stored checkpoint."""

    flavour: Flavour
    settings: Settings
    stream_name: str
    random: Random
    #: Whether the end is still to come.
    goes_on: Callable[[], bool] = _always
    reads: list[Read] = field(factory=list)
    #: Sessions, and those that gave up.
    sessions: int = 0
    given_up: int = 0
    _is_over: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Follow until the end was read."""
        start: int | Checkpoint = 0
        async with open_client(self.flavour, self.settings) as client:
            stream = client.stream(BASIN, self.stream_name)
            while not self._is_over and self.goes_on():
                session: Any = stream.read_session(start=start, follow=True)
                self.sessions += 1
                try:
                    async with session:
                        await self._take_some(session)
                except S2FramesError as error:
                    if not is_retryable(error):
                        raise
                    self.given_up += 1
                start = Checkpoint.from_json(session.checkpoint().to_json())

    async def _take_some(self, session: Any) -> None:
        """Read until the end, or for a while."""
        left = int(2 ** self.random.uniform(0, _READ_EXPONENT))
        if self.random.random() < 0.5:
            await self._take_batches(session, left)
        else:
            await self._take_frames(session, left)

    async def _take_frames(self, session: Any, left: int) -> None:
        async for received in session.frames():
            self._note(received.message, (received.start, received.end))
            left -= 1
            if self._is_over or not left:
                return

    async def _take_batches(self, session: Any, left: int) -> None:
        async for messages in session.batches():
            for message in messages:
                self._note(message, None)
            left -= len(messages)
            if self._is_over or left <= 0:
                return

    def _note(self, message: bytes, place: tuple[int, int] | None) -> None:
        if message == END:
            self._is_over = True
        elif not self._is_over:
            self.reads.append(Read(parse(message), place))


def append_end(url: str, stream: str) -> None:
    """Append the last message, past the faults."""
    with (
        Client(Settings(endpoints=Endpoints.at(url))) as client,
        client.stream(BASIN, stream).append_session() as session,
    ):
        session.append(END)
