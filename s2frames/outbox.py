"""What an append session takes from its user: messages to encode, and who waits for which."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from s2frames.append import AppendEvent, AppendProtocol
from s2frames.codecs import Codec
from s2frames.errors import S2FramesError
from s2frames.events import Appended, FramesDurable
from s2frames.records import Header
from s2frames.session import Retrying, SessionEnded

__all__ = ["Outbox"]

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
        self._codec = codec
        self._on_retry = on_retry
        self._awaited: dict[int, Appended | None] = {}
        self._listeners: list[Listener[T]] = []
        self._error: S2FramesError | None = None

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
        """Put messages as one series, inside the block."""
        listener = Listener(self, on_durable)
        self._listeners.append(listener)
        try:
            yield listener
        finally:
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
        """Take what happened in the session."""
        for event in events:
            if isinstance(event, FramesDurable):
                self._note(event)
            elif isinstance(event, SessionEnded):
                self._error = event.error
            elif self._on_retry is not None:
                self._on_retry(event)

    def _note(self, event: FramesDurable) -> None:
        frames = range(event.first_frame, event.first_frame + event.num_frames)
        for frame in self._awaited:
            if frame in frames:
                self._awaited[frame] = event.appended(frame)
        for listener in self._listeners:
            listener.note(event, frames)


class Listener(Generic[T]):
    """A series of messages put into an outbox, and what became of them."""

    def __init__(self, outbox: Outbox[T], on_durable: Callable[[Appended], None] | None) -> None:
        self._outbox = outbox
        self._on_durable = on_durable
        self._frames: set[int] = set()
        # What `on_durable` was not told yet.
        self._news: deque[Appended] = deque()
        #: Where the first message starts and the last durable one ends; None before there is one.
        self.appended: Appended | None = None

    def put(self, message: T, *, now: float) -> None:
        """Accept a message. As `Outbox.put`."""
        self._frames.add(self._outbox.put(message, now=now))

    @property
    def is_durable(self) -> bool:
        """Whether all messages put so far are durable."""
        return not self._frames

    def note(self, event: FramesDurable, frames: range) -> None:
        """Take the news that `frames` are durable."""
        for frame in frames:
            if frame not in self._frames:
                continue
            self._frames.remove(frame)
            appended = event.appended(frame)
            start = appended.start if self.appended is None else self.appended.start
            self.appended = Appended(start, appended.end)
            if self._on_durable is not None:
                self._news.append(appended)

    def tell(self) -> None:
        """Tell `on_durable` the news, in order. What is left when it raises is told next time."""
        while self._news and self._on_durable is not None:
            self._on_durable(self._news.popleft())
