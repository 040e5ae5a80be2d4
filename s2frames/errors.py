"""Every error s2frames raises. Any other exception out of the core is a bug.

The type says who is at fault::

    S2FramesError
    ├── LocalProtocolError          the caller misused the library
    ├── FrameSizeError              a payload or frame is outside the size limits
    ├── CodecError                  a codec could not encode or decode a message
    ├── RemoteProtocolError         the peer sent something the protocol does not allow
    ├── TransportError              the connection could not be made, broke or went silent
    ├── ServiceError                S2 answered with an error: status, code, message
    │   ├── AppendConditionFailed   412: a condition of the append did not hold
    │   │   ├── SeqNumMismatch
    │   │   └── FencingTokenMismatch
    │   └── RangeNotSatisfiable     416: the read starts beyond the tail
    ├── FrameLost                   the stream holds a frame that cannot be delivered
    └── WriterConflict              two writers use one writer id
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s2frames.events import FrameDropped
    from s2frames.records import StreamPosition

__all__ = [
    "AppendConditionFailed",
    "CodecError",
    "FencingTokenMismatch",
    "FrameLost",
    "FrameSizeError",
    "LocalProtocolError",
    "Outcome",
    "RangeNotSatisfiable",
    "RemoteProtocolError",
    "S2FramesError",
    "SeqNumMismatch",
    "ServiceError",
    "TransportError",
    "WriterConflict",
]


class Outcome(enum.Enum):
    """What became of the messages that are not known to be durable when a session failed."""

    #: None of them was appended, and none will be.
    NOT_APPLIED = "not_applied"
    #: Some may have been, or may still be.
    UNKNOWN = "unknown"


class S2FramesError(Exception):
    """Base of every error of s2frames.

    On an error that ended an append session, `outcome` tells what became of the messages that are
    not known to be durable, and `durable_messages` how many are.
    """

    outcome: Outcome | None = None
    durable_messages: int | None = None


class LocalProtocolError(S2FramesError):
    """The library was misused: a bad argument, or a call at the wrong time."""


class FrameSizeError(S2FramesError):
    """A payload is empty or larger than allowed, or a frame declares such a size."""


class CodecError(S2FramesError):
    """A codec raised while it encoded or decoded a message.

    The codec's own exception is the ``__cause__``. When decoding, ``start`` and ``end`` are the
    sequence numbers of the frame's records (end exclusive) and ``payload`` its bytes.
    """

    def __init__(
        self,
        message: str,
        *,
        start: int | None = None,
        end: int | None = None,
        payload: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.start = start
        self.end = end
        self.payload = payload


class RemoteProtocolError(S2FramesError):
    """The peer broke the protocol: truncated, garbled or contradictory bytes."""


class TransportError(S2FramesError):
    """The connection could not be made, broke, or stayed silent past its deadline."""


class ServiceError(S2FramesError):
    """S2 answered with an error.

    ``status`` is the HTTP status, ``code`` S2's error code (None where it sends none), ``message``
    its words.
    """

    # No error here calls `Exception.__init__`: it would replace the arguments that copying and
    # pickling need.
    def __init__(self, status: int, code: str | None, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message

    def __str__(self) -> str:
        if self.code is None:
            return self.message
        return f"{self.message} ({self.code}, status {self.status})"


class AppendConditionFailed(ServiceError):
    """A condition (match_seq_num, fencing_token) did not hold: that batch was not appended."""

    def __init__(self, message: str) -> None:
        super().__init__(412, None, message)


class SeqNumMismatch(AppendConditionFailed):
    """The append was conditioned on another sequence number than the next one.

    ``expected`` is the sequence number that the service would have assigned.
    """

    def __init__(self, expected: int) -> None:
        super().__init__(f"match_seq_num does not hold: the next sequence number is {expected}")
        self.expected = expected


class FencingTokenMismatch(AppendConditionFailed):
    """The append carried another fencing token than the stream's.

    ``expected`` is the token that the stream has.
    """

    def __init__(self, expected: str) -> None:
        super().__init__(f"fencing_token does not hold: the stream's token is {expected!r}")
        self.expected = expected


class RangeNotSatisfiable(ServiceError):
    """The read starts beyond the tail. ``tail`` is the position after the last record."""

    def __init__(self, tail: StreamPosition) -> None:
        super().__init__(
            416,
            None,
            f"the read starts beyond the tail, which is at sequence number {tail.seq_num}",
        )
        self.tail = tail


class FrameLost(S2FramesError):
    """A frame in the stream is corrupt or incomplete and cannot be delivered.

    ``event`` is the :class:`~s2frames.FrameDropped` that says which frame and why. Reading may go
    on; with ``on_corrupt="skip"`` such frames are counted and passed over.
    """

    def __init__(self, event: FrameDropped) -> None:
        self.event = event

    def __str__(self) -> str:
        return self.event.describe()


class WriterConflict(S2FramesError):
    """The stream holds other bytes under this writer's id and sequence: two share the id."""
