"""What an append session takes from its user: messages to encode, and who waits for which."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

from attrs import define

from s2frames.append import AppendEvent, AppendProtocol
from s2frames.codecs import Codec, check_codec
from s2frames.errors import Ending, LocalProtocolError, S2FramesError
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
        # What `take` was given and did not come to.
        self._events: deque[AppendEvent] = deque()
        self._ending = Ending()

    @property
    def num_accepted(self) -> int:
        """How many messages were accepted."""
        return self._protocol.accepted_messages

    @property
    def is_end_told(self) -> bool:
        """Whether somebody was told of the error that ended the session."""
        return self._ending.is_told

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
        return self._protocol.send(self._codec.encode(message), headers, timestamp, now=now)

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
                note(range(frame, frame + 1))
        else:
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
        frame = self.put(message, headers, timestamp, now=now)
        ticket = Ticket(frame, on_settled, self._ending)
        self._tickets.append(ticket)
        return ticket

    def check(self) -> None:
        """Raise the error that ended the session, if one did."""
        self._ending.check()

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
            # Also what was cut off while it was taken.
            self._note_all(self._protocol.events)
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
        """Take what happened in the session, in events that were received from it.

        When `on_retry` raises, or Ctrl-C does, what comes after that is taken the next time.
        """
        self._events.extend(events)
        self._take_from(self._events)

    def take_received(self) -> None:
        """Take what happened in the session, out of its own events. As `take`."""
        self._take_from(self._events)
        self._take_from(self._protocol.events)

    def _take_from(self, events: deque[AppendEvent]) -> None:
        self._note_all(events)
        while events:
            if self._on_retry is None:
                events.popleft()
            else:
                # Once it is called, it was told, whatever it raises.
                self._on_retry(_take_retrying(events))
            self._note_all(events)

    def _note_all(self, events: deque[AppendEvent]) -> None:
        """Note all up to the next that `on_retry` is to be told of.

        Each is there until all of it is noted. Cut off in that, it is noted once more, which
        changes nothing.
        """
        while events and not isinstance(events[0], Retrying):
            self._note(events[0])
            events.popleft()

    def _note(self, event: FramesDurable | SessionEnded) -> None:
        if isinstance(event, FramesDurable):
            self._note_durable(event)
        elif event.error is not None:
            self._ending.error = event.error
            while self._tickets:
                self._tickets[0].settle(None)
                self._tickets.popleft()

    def _note_durable(self, event: FramesDurable) -> None:
        frames = range(event.first_frame, event.first_frame + event.num_frames)
        for frame in self._awaited:
            if frame in frames:
                self._awaited[frame] = event.appended(frame)
        while self._tickets and self._tickets[0].frame < frames.stop:
            ticket = self._tickets[0]
            ticket.settle(event.appended(ticket.frame))
            self._tickets.popleft()
        for listener in self._listeners:
            listener.note(event)


class Listener(Generic[T]):
    """A series of messages put into an outbox, and what became of them."""

    def __init__(self, outbox: Outbox[T], on_durable: Callable[[Appended], None] | None) -> None:
        self._outbox = outbox
        self._on_durable = on_durable
        # The messages that are not durable, in order, as ranges of numbers.
        self._frames: deque[range] = deque()
        # What `on_durable` was not told yet, with the messages' numbers.
        self._news: deque[tuple[int, Appended]] = deque()
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
            frames = self._frames[0]
            self._note_frames(event, range(frames.start, min(frames.stop, end)))
            if frames.stop > end:
                self._frames[0] = range(end, frames.stop)
            else:
                self._frames.popleft()

    def _note_frames(self, event: FramesDurable, frames: range) -> None:
        first = event.appended(frames[0]) if self.appended is None else self.appended
        self.appended = Appended(first.start, event.appended(frames[-1]).end)
        is_noted = bool(self._news) and self._news[-1][0] == frames[-1]
        if self._on_durable is not None and not is_noted:
            self._news.extend([(frame, event.appended(frame)) for frame in frames])

    def tell(self) -> None:
        """Tell `on_durable` the news, in order. When it raises it hears no more."""
        while self._news and self._on_durable is not None:
            num_left = len(self._news)
            try:
                self._on_durable(self._news.popleft()[1])
            except BaseException:
                # Cut off before the call, it was not told.
                if len(self._news) < num_left:
                    self._on_durable = None
                raise


@define(eq=False)
class Ticket:
    """A message that was accepted, and what became of it."""

    frame: int
    _on_settled: Callable[[Ticket], None]
    _ending: Ending
    _appended: Appended | None = None

    def result(self) -> Appended:
        """Where the message is. Raises the error that ended the session before it was durable."""
        if self._appended is not None:
            return self._appended
        self._ending.check()
        raise LocalProtocolError(f"message {self.frame} is not settled")

    def settle(self, appended: Appended | None) -> None:
        """It is known where it is, or, by the session's ending, that nobody will tell."""
        self._appended = appended
        self._on_settled(self)


def _take_retrying(events: deque[AppendEvent]) -> Retrying:
    return cast("Retrying", events.popleft())
