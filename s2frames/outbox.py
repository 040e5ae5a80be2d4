"""What an append session takes from its user: messages to encode, and who waits for which."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from attrs import define

from s2frames.append import AppendEvent, AppendProtocol
from s2frames.codecs import Codec, check_codec
from s2frames.errors import LocalProtocolError, S2FramesError
from s2frames.events import Appended, FramesDurable
from s2frames.records import Header
from s2frames.session import Retrying, SessionEnded

__all__ = ["Outbox", "Ticket"]

T = TypeVar("T")


class Outbox(Generic[T]):
    """Encodes messages for an `AppendProtocol`, and remembers where those that are awaited went.

    Args:
        protocol: the session.
        codec: how a message becomes a payload.
        on_retry: told of each attempt that failed and is followed by another.
    """

    def __init__(
        self,
        protocol: AppendProtocol,
        codec: Codec[T],
        *,
        on_retry: Callable[[Retrying], None] | None = None,
    ) -> None:
        self._protocol = protocol
        check_codec(codec)
        self._codec = codec
        self._on_retry = on_retry
        self._awaited: dict[int, Appended | None] = {}
        self._listeners: list[Listener[T]] = []
        # What is not settled, in the order of the messages.
        self._tickets: deque[Ticket] = deque()
        # What happened and was not taken yet.
        self._events: deque[AppendEvent] = deque()
        self._error: S2FramesError | None = None
        self._num_accepted = 0

    @property
    def num_accepted(self) -> int:
        """How many messages were accepted."""
        return self._num_accepted

    def put(
        self,
        message: T,
        headers: Iterable[Header] = (),
        timestamp: int | None = None,
        *,
        now: float,
    ) -> int:
        """Accept a message; returns its number.

        Raises `CodecError`, what `FrameWriter.send` raises, and the error that ended the session.
        """
        self.check()
        frame = self._protocol.send(self._codec.encode(message), headers, timestamp, now=now)
        self._num_accepted += 1
        return frame

    def put_many(self, messages: Iterable[T], *, now: float, note: Callable[[range], None]) -> None:
        """Accept messages; `note` is told the numbers of those that are accepted.

        Raises as `put`, for the first message that cannot be sent; those before it are accepted.
        """
        self.check()
        payloads: list[bytes] = []
        try:
            payloads.extend(map(self._codec.encode, messages))
        finally:
            # Also what was encoded before the codec failed.
            self._send_many(payloads, now, note)

    def _send_many(self, payloads: list[bytes], now: float, note: Callable[[range], None]) -> None:
        try:
            frames = self._protocol.send_many(payloads, now=now)
        except S2FramesError:
            # One of them cannot be sent: those before it can.
            for payload in payloads:
                frame = self._protocol.send(payload, now=now)
                self._num_accepted += 1
                note(range(frame, frame + 1))
        else:
            self._num_accepted += len(frames)
            note(frames)

    def submit(
        self,
        message: T,
        headers: Iterable[Header] = (),
        timestamp: int | None = None,
        *,
        now: float,
        on_settled: Callable[[Ticket], None],
    ) -> Ticket:
        """Accept a message; `on_settled` is told when it is known what became of it. As `put`."""
        ticket = Ticket(self.put(message, headers, timestamp, now=now), on_settled)
        self._tickets.append(ticket)
        return ticket

    def check(self) -> None:
        """Raise the error that ended the session, if one did."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def watching(self, frame: int) -> Iterator[None]:
        """Remember where message number `frame` goes, for `result`, inside the block."""
        self._awaited[frame] = None
        try:
            yield
        finally:
            del self._awaited[frame]

    @contextmanager
    def listening(self, on_durable: Callable[[Appended], None] | None) -> Iterator[Listener[T]]:
        """Put messages as one series, inside the block.

        However the block is left, `on_durable` is told of everything that is durable by then.
        """
        listener = Listener(self, on_durable)
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
            listener.tell()

    def result(self, frame: int) -> Appended | None:
        """Where a watched message is, or None until it is durable.

        Raises the error that ended the session before it was.
        """
        appended = self._awaited[frame]
        if appended is None:
            self.check()
        return appended

    def take(self, events: Iterable[AppendEvent]) -> None:
        """Take what happened in the session.

        When `on_retry` raises, what comes after that is taken the next time.
        """
        self._events.extend(events)
        while self._events:
            event = self._events.popleft()
            if isinstance(event, FramesDurable):
                self._note(event)
            elif isinstance(event, SessionEnded):
                self._error = event.error
                while self._tickets:
                    self._tickets.popleft().settle(None, event.error)
            elif self._on_retry is not None:
                self._on_retry(event)

    def _note(self, event: FramesDurable) -> None:
        frames = range(event.first_frame, event.first_frame + event.num_frames)
        for frame in self._awaited:
            if frame in frames:
                self._awaited[frame] = event.appended(frame)
        while self._tickets and self._tickets[0].frame < frames.stop:
            ticket = self._tickets.popleft()
            ticket.settle(event.appended(ticket.frame), None)
        for listener in self._listeners:
            listener.note(event)


class Listener(Generic[T]):
    """A series of messages put into an outbox, and what became of them."""

    def __init__(self, outbox: Outbox[T], on_durable: Callable[[Appended], None] | None) -> None:
        self._outbox = outbox
        self._on_durable = on_durable
        # The messages that are not durable, in order, as ranges of numbers.
        self._frames: deque[range] = deque()
        # What `on_durable` was not told yet.
        self._news: deque[Appended] = deque()
        #: Where the first message starts and the last durable one ends; None before there is one.
        self.appended: Appended | None = None

    def put(self, message: T, *, now: float) -> None:
        """Accept a message. As `Outbox.put`."""
        frame = self._outbox.put(message, now=now)
        self._frames.append(range(frame, frame + 1))

    def put_many(self, messages: Iterable[T], *, now: float) -> None:
        """Accept messages. When one cannot be sent it raises, and those before it are accepted."""
        self._outbox.put_many(messages, now=now, note=self._frames.append)

    @property
    def is_durable(self) -> bool:
        """Whether all messages put so far are durable."""
        return not self._frames

    def note(self, event: FramesDurable) -> None:
        """Take the news that frames are durable."""
        end = event.first_frame + event.num_frames
        while self._frames and self._frames[0].start < end:
            frames = self._frames.popleft()
            if frames.stop > end:
                self._frames.appendleft(range(end, frames.stop))
                frames = range(frames.start, end)
            self._note_frames(event, frames)

    def _note_frames(self, event: FramesDurable, frames: range) -> None:
        last = event.appended(frames[-1])
        if self.appended is None:
            self.appended = event.appended(frames[0])
        self.appended = Appended(self.appended.start, last.end)
        if self._on_durable is not None:
            self._news.extend(event.appended(frame) for frame in frames)

    def tell(self) -> None:
        """Tell `on_durable` the news, in order. When it raises it hears no more."""
        while self._news and self._on_durable is not None:
            on_durable, self._on_durable = self._on_durable, None
            on_durable(self._news.popleft())
            self._on_durable = on_durable


@define(eq=False)
class Ticket:
    """A message that was accepted, and what became of it."""

    frame: int
    _on_settled: Callable[[Ticket], None]
    _appended: Appended | None = None
    _error: S2FramesError | None = None

    def result(self) -> Appended:
        """Where the message is. Raises the error that ended the session before it was durable."""
        if self._error is not None:
            raise self._error
        if self._appended is None:
            raise LocalProtocolError(f"message {self.frame} is not settled")
        return self._appended

    def settle(self, appended: Appended | None, error: S2FramesError | None) -> None:
        """What became of it is known."""
        self._appended, self._error = appended, error
        self._on_settled(self)
