"""What a read session hands its user: decoded messages, and errors for what cannot be one."""

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
    FramesReceived,
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
    """Turns a read session's events into messages.

    Args:
        codec: how a payload becomes a message.
        on_corrupt: whether a lost message is an error.
        on_retry: told of each attempt that failed and is followed by another.
        on_caught_up: told of the tail each time when everything up to it was taken.
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
        # Events of `take_all` that come after one that raised.
        self._left: Sequence[ReadEvent | FramesReceived] = ()

    def take(self, event: ReadEvent) -> ReceivedMessage[T] | None:
        """The message in an event, or None when there is none in it.

        Raises `FrameLost` for what is lost (unless that is skipped), `CodecError` for a message
        that cannot be decoded, and the error that ended the session. After the first two the next
        event may be taken.
        """
        if isinstance(event, FrameReceived):
            return self._decode(event)
        if isinstance(event, (FrameDropped, GapDetected)):
            if self._on_corrupt == "raise" and _is_loss(event):
                raise FrameLost(event)
        elif isinstance(event, Retrying):
            if self._on_retry is not None:
                self._on_retry(event)
        elif isinstance(event, CaughtUp):
            if self._on_caught_up is not None:
                self._on_caught_up(event.tail)
        elif isinstance(event, SessionEnded) and event.error is not None:
            raise event.error
        return None

    @property
    def has_left(self) -> bool:
        """Whether `take_all` has events left from before."""
        return bool(self._left)

    def take_all(self, events: Sequence[ReadEvent | FramesReceived]) -> list[T]:
        """The messages in the events, and in those left from before.

        Raises as `take`, for the first event if it must; a later one that must is left for the next
        call, with those behind it.
        """
        events = [*self._left, *events]
        self._left = ()
        messages: list[T] = []
        decode = self._codec.decode
        for index, event in enumerate(events):
            try:
                if type(event) is FramesReceived:
                    # One failure is the failure of all, and they are gone through singly below.
                    messages += self._decode_all(event.payloads)
                elif type(event) is FrameReceived:
                    messages.append(decode(event.payload))
                else:
                    self.take(cast("ReadEvent", event))
            except S2FramesError:
                if type(event) is FramesReceived:
                    self._left = [*event.singly(), *events[index + 1 :]]
                    return messages or self.take_all([])
                if messages:
                    self._left = events[index:]
                    return messages
                self._left = events[index + 1 :]
                if type(event) is FrameReceived:
                    # Again, for the error that says where it is.
                    self._decode(event)
                raise
        return messages

    def _decode_all(self, payloads: Sequence[bytes]) -> Iterable[T]:
        if self._codec is BYTES:
            return cast("Sequence[T]", payloads)
        return list(map(self._codec.decode, payloads))

    def _decode(self, frame: FrameReceived) -> ReceivedMessage[T]:
        try:
            message = self._codec.decode(frame.payload)
        except CodecError as error:
            raise CodecError(
                f"the message at {frame.start}: {error}",
                start=frame.start,
                end=frame.end,
                payload=frame.payload,
            ) from error.__cause__
        return ReceivedMessage(
            message, frame.start, frame.end, frame.timestamp, frame.writer_id, frame.headers
        )


def _is_loss(event: FrameDropped | GapDetected) -> bool:
    if isinstance(event, FrameDropped):
        return event.reason.is_loss
    # Who starts at 0 wants the first there is.
    return event.expected > 0
