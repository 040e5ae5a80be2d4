"""What a read session hands its user: decoded messages, and errors for what cannot be one."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from attrs import define

from s2frames.codecs import Codec
from s2frames.errors import CodecError, FrameLost, LocalProtocolError
from s2frames.events import FrameDropped, FrameReceived
from s2frames.read import ReadEvent
from s2frames.records import Header
from s2frames.session import SessionEnded

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
    """

    def __init__(self, codec: Codec[T], on_corrupt: OnCorrupt = "raise") -> None:
        if on_corrupt not in ("raise", "skip"):
            raise LocalProtocolError(f"on_corrupt must be 'raise' or 'skip', not {on_corrupt!r}")
        self._codec = codec
        self._on_corrupt = on_corrupt

    def take(self, event: ReadEvent) -> ReceivedMessage[T] | None:
        """The message in an event, or None when there is none in it.

        Raises `FrameLost` for a lost message (unless those are skipped), `CodecError` for one that
        cannot be decoded, and the error that ended the session. After the first two the next event
        may be taken.
        """
        if isinstance(event, FrameReceived):
            return self._decode(event)
        if isinstance(event, FrameDropped):
            if event.reason.is_loss and self._on_corrupt == "raise":
                raise FrameLost(event)
        elif isinstance(event, SessionEnded) and event.error is not None:
            raise event.error
        return None

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
