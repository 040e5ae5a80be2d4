"""What a read session's events are to its user: messages, errors, and what callbacks are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Literal, TypeVar, cast

from attrs import define

from s2frames.codecs import BYTES, Codec, check_codec
from s2frames.errors import CodecError, FrameLost, LocalProtocolError, S2FramesError
from s2frames.events import (
    CaughtUp,
    FrameDropped,
    FrameReceived,
    GapDetected,
)
from s2frames.read import ReadEvent
from s2frames.records import Header, StreamPosition
from s2frames.session import Retrying, SessionEnded

__all__ = ["Inbox", "OnCorrupt", "ReceivedMessage"]

T = TypeVar("T")

#: What to do about a message that is lost: raise `FrameLost`, or count it and go on.
OnCorrupt = Literal["raise", "skip"]


@define
class ReceivedMessage(Generic[T]):
    """A message, and where it is in the stream."""

    message: T
    #: Sequence number of its first record.
    start: int
    #: Sequence number after its last record.
    end: int
    #: The first record's timestamp.
    timestamp: int
    #: Who wrote it, if the records say so.
    writer_id: str | None
    #: The headers that its writer gave it.
    headers: tuple[Header, ...]


class Inbox(Generic[T]):
    """Turns the events of a read session into messages.

    Args:
        codec: how a payload becomes a message.
        on_corrupt: whether a lost message is an error.
        on_retry: told of each attempt that failed and is followed by another.
        on_caught_up: told of the tail each time when everything up to it was handed out.
    """

    def __init__(
        self,
        codec: Codec[T],
        on_corrupt: OnCorrupt = "raise",
        *,
        on_retry: Callable[[Retrying], None] | None = None,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
    ) -> None:
        if on_corrupt not in ("raise", "skip"):
            raise LocalProtocolError(f"on_corrupt must be 'raise' or 'skip', not {on_corrupt!r}")
        check_codec(codec)
        self._codec = codec
        self._on_corrupt = on_corrupt
        self._on_retry = on_retry
        self._on_caught_up = on_caught_up

    def take(self, event: ReadEvent) -> ReceivedMessage[T] | None:
        """The message in an event, or None when there is none in it.

        Raises `FrameLost` for what is lost (unless that is skipped), `CodecError` for a message
        that cannot be decoded, and the error that ended the session. After the first two the next
        event may be taken.
        """
        if isinstance(event, FrameReceived):
            return self.describe(event, self.decode(event))
        error = self.error_for(event)
        if error is not None:
            raise error
        self.tell(event)
        return None

    def describe(self, frame: FrameReceived, message: T) -> ReceivedMessage[T]:
        """The frame's message, with all that is known of it."""
        return ReceivedMessage(
            message, frame.start, frame.end, frame.timestamp, frame.writer_id, frame.headers
        )

    def decode(self, frame: FrameReceived) -> T:
        """The frame's message. Raises `CodecError`, which says where the message is."""
        try:
            return self._codec.decode(frame.payload)
        except CodecError as error:
            raise CodecError(
                f"the message at {frame.start}: {error}",
                start=frame.start,
                end=frame.end,
                payload=frame.payload,
            ) from error.__cause__

    def decode_many(self, payloads: Sequence[bytes]) -> Iterable[T]:
        """The messages in the payloads. Raises `CodecError` for any of them."""
        if self._codec is BYTES:
            return cast("Sequence[T]", payloads)
        return list(map(self._codec.decode, payloads))

    def error_for(self, event: ReadEvent) -> S2FramesError | None:
        """The error that an event without a message is to the user, if it is one."""
        if isinstance(event, (FrameDropped, GapDetected)):
            is_error = self._on_corrupt == "raise" and _is_loss(event)
            return FrameLost(event) if is_error else None
        return event.error if isinstance(event, SessionEnded) else None

    def tell(self, event: ReadEvent) -> None:
        """Call the callback that is to be told of the event, if there is one."""
        if isinstance(event, Retrying) and self._on_retry is not None:
            self._on_retry(event)
        elif isinstance(event, CaughtUp) and self._on_caught_up is not None:
            self._on_caught_up(event.tail)

    def is_silent(self, event: ReadEvent) -> bool:
        """Whether the user hears nothing of an event without a message."""
        if isinstance(event, Retrying):
            return self._on_retry is None
        if isinstance(event, CaughtUp):
            return self._on_caught_up is None
        return self.error_for(event) is None


def _is_loss(event: FrameDropped | GapDetected) -> bool:
    return event.reason.is_loss if isinstance(event, FrameDropped) else event.is_loss
