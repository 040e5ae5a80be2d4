"""What the core tells its caller: closed unions of values, to end a driver in `assert_never`.

`FramesDurable` comes from a `FrameWriter`, `ReaderEvent` from a `FrameReader`. The two that are
made once a message or an ack are plain; the others are frozen.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from attrs import define, field, frozen

from s2frames.errors import LocalProtocolError
from s2frames.records import AppendAck, Header, SequencedRecord, StreamPosition

__all__ = [
    "Appended",
    "CaughtUp",
    "CommandReceived",
    "DropReason",
    "DuplicateDropped",
    "FrameDropped",
    "FrameReceived",
    "FramesDurable",
    "FramesReceived",
    "GapDetected",
    "ReaderEvent",
    "RecordReceived",
    "SequenceGapDetected",
    "WriterForgotten",
]


# Of a writer


@frozen
class Appended:
    """Where a durable message is in the stream."""

    #: Sequence number of its first record.
    start: int
    #: Sequence number after its last record. Other writers' records and repeats may lie in between.
    end: int


@define(eq=False)
class FramesDurable:
    """A batch is durable, and with it the frames that end in it: none, one or many."""

    #: The number of the first of them, as `FrameWriter.send` returned it.
    first_frame: int
    #: How many there are.
    num_frames: int
    ack: AppendAck
    # Where the first of them starts, and how many records into the batch each one ends.
    _first_start: int = field(repr=False)
    _ends: Sequence[int] = field(repr=False)

    def appended(self, frame: int) -> Appended:
        """Where frame number `frame` is. Raises `LocalProtocolError` if it is none of these."""
        index = frame - self.first_frame
        if not 0 <= index < self.num_frames:
            raise LocalProtocolError(
                f"frame {frame} did not become durable here, "
                f"but {self.num_frames} frames from {self.first_frame} on"
            )
        origin = self.ack.start.seq_num
        start = origin + self._ends[index - 1] if index else self._first_start
        return Appended(start, origin + self._ends[index])

    def all_appended(self) -> list[Appended]:
        """Where each of the frames is, in order."""
        return [self.appended(self.first_frame + i) for i in range(self.num_frames)]


# Of a reader


class DropReason(enum.Enum):
    """Why records were not delivered."""

    #: More bytes arrived than the frame declared.
    OVERFLOW = "overflow"
    #: The last record arrived and bytes are missing.
    LENGTH_MISMATCH = "length mismatch"
    #: A reserved header is garbled, or declares nothing.
    BAD_HEADER = "bad header"
    #: The frame declares more than `max_frame_bytes`.
    TOO_LARGE = "too large"
    #: Open frames exceeded `max_buffered_bytes` or `max_writers`.
    EVICTED = "evicted"
    #: Records of the open frame were removed from the stream before they were read.
    TRIMMED = "trimmed"
    #: The writer's numbering skips records inside the frame.
    SEQUENCE_GAP = "sequence gap"
    #: The frame was given up before its end came: its writer began another one, or it began too
    #: far back (`max_reread`). As far as is known, the message never became durable.
    INCOMPLETE = "incomplete"
    #: The frame had been given up, and its writer went on with it after all.
    GIVEN_UP = "given up"
    #: The start of the frame was not read, or was dropped.
    ORPHAN = "orphan"

    @property
    def is_loss(self) -> bool:
        """Whether a durable message may be lost; sessions raise for these by default."""
        return self not in (DropReason.INCOMPLETE, DropReason.ORPHAN)


@define(eq=True)
class FrameReceived:
    """A whole message's payload, for the first and only time."""

    payload: bytes
    #: Sequence number of its first record.
    start: int
    #: Sequence number after its last record.
    end: int
    #: The first record's timestamp.
    timestamp: int
    #: None when the records name no writer.
    writer_id: str | None
    #: The user's own headers on its first record.
    headers: tuple[Header, ...]


@define(eq=True)
class FramesReceived:
    """Messages of one record each that follow one another: `FrameReceived` many at a time."""

    payloads: Sequence[bytes]
    #: Sequence number of the first one's record; they count up by one.
    start: int
    #: The timestamp of all of them.
    timestamp: int
    writer_id: str | None

    def singly(self) -> list[FrameReceived]:
        """The same, one by one."""
        return [
            FrameReceived(payload, start, start + 1, self.timestamp, self.writer_id, ())
            for start, payload in enumerate(self.payloads, self.start)
        ]


@frozen
class FrameDropped:
    """Records that cannot become a message."""

    reason: DropReason
    writer_id: str | None
    #: Sequence number of the frame's first record, or of the record itself for an orphan.
    start: int
    #: Payload bytes that had arrived; of a frame that had been given up those of the record that
    #: went on with it.
    num_bytes: int
    #: What exactly was wrong.
    detail: str

    def describe(self) -> str:
        """One line for people."""
        writer = "" if self.writer_id is None else f" of writer {self.writer_id!r}"
        fate = "is lost" if self.reason.is_loss else "was passed over"
        return f"the frame at {self.start}{writer} {fate} ({self.reason.value}): {self.detail}"


@frozen
class DuplicateDropped:
    """A record that a retry appended once more."""

    writer_id: str | None
    seq_num: int
    dedupe_seq: int


@frozen
class CommandReceived:
    """A fence or trim command."""

    seq_num: int
    timestamp: int
    #: `b"fence"` or `b"trim"`.
    command: bytes
    #: The fencing token, or the trim point as eight bytes.
    payload: bytes


@frozen
class RecordReceived:
    """A record that belongs to no frame."""

    record: SequencedRecord


@frozen
class GapDetected:
    """Records are missing from the stream: they were trimmed before they were read."""

    #: The sequence number that should have come.
    expected: int
    #: The one that came.
    actual: int
    #: Whether messages may be lost with them. Nothing is where reading begins at 0, which means the
    #: first record there is, and nothing was seen of the stream before.
    is_loss: bool = True

    def describe(self) -> str:
        """One line for people."""
        return (
            f"records {self.expected} to {self.actual - 1} were removed from the stream before "
            "they were read"
        )


@frozen
class SequenceGapDetected:
    """A writer's numbering skips records: they never were in the stream, or were removed."""

    writer_id: str | None
    #: Sequence number of the record after the gap.
    seq_num: int
    #: The dedupe sequence that should have come.
    expected: int
    #: The one that came.
    actual: int

    def describe(self) -> str:
        """One line for people."""
        writer = "" if self.writer_id is None else f" of writer {self.writer_id!r}"
        return (
            f"the record at {self.seq_num}{writer} has the dedupe sequence {self.actual}, "
            f"and {self.expected} was next"
        )


@frozen
class WriterForgotten:
    """A writer's numbering was forgotten to make room (`max_writers`): its repeats would pass."""

    writer_id: str | None
    #: The last dedupe sequence delivered, or None.
    last_dedupe_seq: int | None


@frozen
class CaughtUp:
    """Everything up to the tail has been read."""

    tail: StreamPosition


ReaderEvent = (
    FrameReceived
    | FrameDropped
    | DuplicateDropped
    | CommandReceived
    | RecordReceived
    | GapDetected
    | SequenceGapDetected
    | WriterForgotten
    | CaughtUp
)
