"""What an append session takes from its user: messages to encode, and who waits for which."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import length_hint
from typing import Any, Final, Generic, TypeVar, cast

from attrs import define

from s2frames.append import AppendEvent, AppendProtocol
from s2frames.callback import Callback, add_note_of
from s2frames.checks import check_callable
from s2frames.codecs import Codec, check_codec
from s2frames.errors import Ending, LocalProtocolError, S2FramesError
from s2frames.events import Appended, FramesDurable
from s2frames.records import Header
from s2frames.session import Retrying, SessionEnded

__all__ = ["Listener", "Outbox", "Ticket"]

T = TypeVar("T")

# In place of a message.
_NOTHING: Final[Any] = object()


class Outbox(Generic[T]):
    """Encodes messages for an `AppendProtocol`, and remembers where those that are awaited went.

    Args:
        protocol: the session.
        codec: how a message becomes a payload.
        on_retry: told of each attempt that failed and is followed by another. What it raises comes
            out of `check` and `check_callbacks`; see `s2frames.callback`.
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
        self._on_retry: Callback[Retrying] = Callback("on_retry", on_retry)
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
    def max_frame_bytes(self) -> int:
        """The largest payload."""
        return self._protocol.max_frame_bytes

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

    def put_payload(self, payload: bytes, *, now: float) -> int:
        """Accept a payload; returns its number. As `put_payloads`."""
        if self._ending.error is not None:
            self._ending.check()
        return self._protocol.send(payload, now=now)

    def put_payloads(self, payloads: list[bytes], *, now: float) -> None:
        """Accept payloads: all of them, or those before the first one that cannot be sent.

        What a callback has raised is left to others: the payloads are of messages that were drawn.
        """
        self._ending.check()
        try:
            self._protocol.send_many(payloads, now=now)
        except S2FramesError:
            for payload in payloads:
                self._protocol.send(payload, now=now)

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
        """Raise what a callback has raised, once, or the error that ended the session.

        With both the session's error is raised, with a note of the other, unless that is no
        `Exception`.
        """
        if self._ending.error is None or self._on_retry.is_urgent:
            self._on_retry.check()
        try:
            self._ending.check()
        except S2FramesError as error:
            self._on_retry.leave_to(error)
            raise

    def check_callbacks(self) -> None:
        """Raise what a callback has raised, once."""
        self._on_retry.check()

    def check_open(self) -> None:
        """Raise unless messages are accepted: as `check`, and when the session is closed."""
        self.check()
        self._protocol.check_open()

    @property
    def has_raised(self) -> bool:
        """Whether a callback has raised what nobody was told of: who waits is to be woken."""
        return self._on_retry.has_raised

    def leave(self, error: BaseException | None) -> bool:
        """The session's block is left, by `error` or not: whether to wait for what was accepted.

        Raises what a callback has raised, or notes it on `error`.
        """
        if error is not None:
            self._on_retry.leave_to(error)
        elif self._ending.is_told:
            self._on_retry.check()
        else:
            return True
        return False

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

        However the block is left, what was drawn is accepted, and `on_durable` is told of
        everything that is durable by then. What it raises then is noted on what the block is left
        by, if that is an exception.
        """
        listener = Listener(self, self._codec, on_durable)
        self._listeners.append(listener)
        try:
            yield listener
        except BaseException as error:
            if not isinstance(error, Exception):
                listener.accept_drawn(error)
            self._leave(listener)
            listener.tell_behind(error)
            raise
        self._leave(listener)
        listener.tell()

    def _leave(self, listener: Listener[T]) -> None:
        # Also what was cut off while it was taken.
        self._note_all(self._protocol.events)
        self._listeners.remove(listener)

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

        When Ctrl-C cuts it off, what comes after that is taken the next time.
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
            self._on_retry.take_first(cast("deque[Retrying]", events))
            self._on_retry.tell()
            self._note_all(events)
        self._on_retry.tell()

    def _note_all(self, events: deque[AppendEvent]) -> None:
        """Note all up to the next that `on_retry` is to be told.

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
    """A series of messages put into an outbox, and what became of them.

    A message is drawn and accepted in one go. Ctrl-C may come between the two: what was drawn is
    kept, from the very moment on, until it is accepted, so that `accept_drawn` can do the rest.
    """

    def __init__(
        self, outbox: Outbox[T], codec: Codec[T], on_durable: Callable[[Appended], None] | None
    ) -> None:
        if on_durable is not None:
            check_callable("on_durable", on_durable)
        self._outbox = outbox
        self._codec = codec
        self._on_durable = on_durable
        #: The message that was drawn: `for listener.drawn in messages`. `put_drawn` is to follow.
        self.drawn: T = _NOTHING
        # What number it gets, once that is certain.
        self._next_frame: int | None = None
        # Where messages are drawn from to be gathered, as they are and counted from 1.
        self._source: Iterator[T] = iter(())
        self._counted: Iterator[tuple[int, T]] = iter(())
        # The one gathered last, and its number; the payloads that are not accepted yet, and how
        # many messages were drawn before them.
        self._gathered: T = _NOTHING
        self._num_gathered = 0
        self._payloads: list[bytes] = []
        self._num_before = 0
        # What number the first of the payloads gets, while they are being accepted.
        self._first_frame: int | None = None
        # The messages that are not durable, in order, as ranges of numbers.
        self._frames: deque[range] = deque()
        # What `on_durable` was not told yet, with the messages' numbers.
        self._news: deque[tuple[int, Appended]] = deque()
        #: Where the first message starts and the last durable one ends; None before there is one.
        self.appended: Appended | None = None

    # One by one

    def put(self, message: T, *, now: float) -> None:
        """Accept a message. As `Outbox.put`."""
        frame = self._outbox.put(message, now=now)
        self._frames.append(range(frame, frame + 1))

    def check_source(self, messages: Iterator[T] | AsyncIterator[T]) -> None:
        """Raise what would be raised if a message was drawn and put; but not if there is none.

        To be called before one is drawn, whenever others may have put something meanwhile.
        """
        self._next_frame = None
        if length_hint(messages, 1):
            self._outbox.check_open()

    def put_drawn(self, *, now: float) -> None:
        """Accept the message that was `drawn`. When it cannot be sent it is given up.

        Raises as `Outbox.put`, but not what a callback has raised.
        """
        # Runs for every message.
        try:
            if self._next_frame is None:
                self._next_frame = self._outbox.num_accepted
            frame = self._outbox.put_payload(self._codec.encode(self.drawn), now=now)
        except Exception:
            self.drawn = _NOTHING
            raise
        self._frames.append(range(frame, frame + 1))
        self._next_frame, self.drawn = frame + 1, _NOTHING

    # Many at a time

    def draw_from(self, messages: Iterator[T]) -> None:
        """Say where `put_next` draws from."""
        self._source, self._counted = messages, enumerate(messages, 1)

    def put_next(self, *, now: float, max_messages: int, max_bytes: int) -> bool:
        """Draw messages and accept them; returns whether there may be more.

        It goes on until there are so many, or so many bytes of payloads. When one cannot be sent
        it raises, and those before it are accepted; none after it is drawn. So it is when drawing
        raises. A session that accepts nothing draws nothing.
        """
        self.check_source(self._source)
        try:
            has_more = self._gather(max_messages, max_bytes)
        except Exception:
            self._accept(now)
            # What cannot be encoded is told of.
            self._num_before = self._num_gathered
            raise
        self._accept(now)
        return has_more

    def _gather(self, max_messages: int, max_bytes: int) -> bool:
        encode, messages, payloads = self._codec.encode, self._counted, self._payloads
        most = self._outbox.max_frame_bytes
        size = 0
        # Drawn is kept: a signal comes between lines.
        for self._num_gathered, self._gathered in messages:
            payload = encode(self._gathered)
            payloads.append(payload)
            size += len(payload)
            # What is too large is refused, and nothing may have been drawn after it.
            if len(payloads) == max_messages or size >= max_bytes or len(payload) > most:
                return True
        return False

    def _accept(self, now: float) -> None:
        """Accept the payloads."""
        if not self._payloads:
            return
        self._first_frame = self._outbox.num_accepted
        try:
            self._outbox.put_payloads(self._payloads, now=now)
        except S2FramesError:
            self._note_accepted()
            # The first of the others is told of, and it was the last one drawn.
            self._payloads, self._num_before = [], self._num_gathered
            raise
        self._note_accepted()

    def _note_accepted(self) -> None:
        """Note which payloads are accepted, if that was under way. It may be done twice."""
        first = self._first_frame
        if first is None:
            return
        frames = self._accepted_since(first, len(self._payloads))
        rest, num_before = self._payloads[len(frames) :], self._num_before + len(frames)
        self._first_frame, self._payloads, self._num_before = None, rest, num_before

    def _accepted_since(self, first: int, most: int) -> range:
        """Note the messages from `first` on that are accepted, `most` of them."""
        frames = range(first, min(self._outbox.num_accepted, first + most))
        if frames and not (self._frames and self._frames[-1].stop > first):
            self._frames.append(frames)
        return frames

    # Cut off

    def accept_drawn(self, error: BaseException) -> None:
        """Accept what was drawn and cut off by `error` on its way. It is not cut off again.

        It is as if it waited since the clock began. Should the session not accept it any more,
        `error` gets a note.
        """
        try:
            if self.drawn is not _NOTHING:
                first = self._next_frame
                if first is None or not self._accepted_since(first, 1):
                    self.put_drawn(now=0.0)
                return
            self._note_accepted()
            if self._num_gathered - self._num_before > len(self._payloads):
                self._payloads.append(self._codec.encode(self._gathered))
            self._accept(0.0)
        except S2FramesError as refusal:
            error.add_note(f"a message was drawn and not accepted: {refusal}")

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

    def tell_behind(self, error: BaseException) -> None:
        """As `tell`, while `error` is on its way out."""
        try:
            self.tell()
        except Exception as raised:  # noqa: BLE001  # it stands in the other one
            add_note_of(error, "on_durable", raised)


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
