"""Every error s2frames raises. Any other exception out of the core is a bug.

The type says who is at fault::

    S2FramesError
    ├── LocalProtocolError          the caller misused the library
    ├── FrameSizeError              a payload or frame is outside the size limits
    ├── CodecError                  a codec could not encode or decode a message
    ├── RemoteProtocolError         the peer sent something the protocol does not allow
    ├── TransportError              the connection could not be made, broke or went silent
    │   └── ConnectError            it could not be made: nothing was sent
    │       └── CertificateError    one side could not prove to the other who it is
    ├── ServiceError                S2 answered with an error: status, code, message
    │   ├── AppendConditionFailed   412: a condition of the append did not hold
    │   │   ├── SeqNumMismatch
    │   │   └── FencingTokenMismatch
    │   └── RangeNotSatisfiable     416: the read starts beyond the tail
    ├── FrameLost                   messages of the stream cannot be delivered
    ├── WriterConflict              two writers use one writer id
    ├── WriterExhausted             a writer has no dedupe sequence left
    ├── WriterNotFound              the records of a writer were not found
    └── ScanLimitExceeded           the last messages were not found within `max_scan_bytes`
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s2frames.events import FrameDropped, GapDetected
    from s2frames.records import StreamPosition

__all__ = [
    "AppendConditionFailed",
    "CertificateError",
    "CodecError",
    "ConnectError",
    "Ending",
    "FencingTokenMismatch",
    "FrameLost",
    "FrameSizeError",
    "LocalProtocolError",
    "Outcome",
    "RangeNotSatisfiable",
    "RemoteProtocolError",
    "S2FramesError",
    "ScanLimitExceeded",
    "SeqNumMismatch",
    "ServiceError",
    "TransportError",
    "WriterConflict",
    "WriterExhausted",
    "WriterNotFound",
    "copied",
]


class Outcome(enum.Enum):
    """What became of the messages that are not known to be durable when a session failed."""

    #: None of them was appended, and none will be.
    NOT_APPLIED = "not_applied"
    #: Some may have been, or may still be.
    UNKNOWN = "unknown"


class S2FramesError(Exception):
    """Base of every error of s2frames.

    On an error that ended a session or a call, `attempts` tells how often it was tried since
    something last went well. Where something was to be appended, `outcome` tells what became of
    what is not known to be durable, and `durable_messages` how many messages are. All of it is in
    the error's text too.
    """

    outcome: Outcome | None = None
    durable_messages: int | None = None
    attempts: int | None = None

    def __str__(self) -> str:
        parts = [self._words()]
        if self.attempts is not None and self.attempts > 1:
            parts.append(f"tried {self.attempts} times")
        if self.durable_messages is not None:
            noun = "message" if self.durable_messages == 1 else "messages"
            more = ", more may be" if self.outcome is Outcome.UNKNOWN else ""
            parts.append(f"{self.durable_messages} {noun} durable{more}")
        return "; ".join(parts)

    def _words(self) -> str:
        """What went wrong, without what became of the rest."""
        return super().__str__()


def copied(error: S2FramesError) -> S2FramesError:
    """The same error once more: type, arguments, attributes and cause, and no traceback.

    An error that is kept is raised as a copy each time. Raised itself, it would get longer with
    each traceback, and who catches it would share it with others.
    """
    kind = type(error)
    copy: S2FramesError = kind.__new__(kind, *error.args)
    vars(copy).update(vars(error))
    copy.__cause__ = error.__cause__
    copy.__context__ = error.__context__
    copy.__suppress_context__ = error.__suppress_context__
    return copy


class Ending:
    """The error that something has ended in, if it has, for all who ask."""

    def __init__(self) -> None:
        #: The error itself. To be raised, it is copied.
        self.error: S2FramesError | None = None
        #: Whether anybody was told of it.
        self.is_told = False

    def check(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            self.is_told = True
            raise copied(self.error)


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
    """The connection could not be made, broke, or stayed silent past its deadline.

    ``was_broken_off`` tells that it was the other end, or something on the way, that ended it.
    """

    was_broken_off: bool = False

    @classmethod
    def broken_off(cls, message: str) -> TransportError:
        """The error of a connection that was ended, but not on this side."""
        error = cls(message)
        error.was_broken_off = True
        return error


class ConnectError(TransportError):
    """The connection could not be made: no byte of the request was sent."""


class CertificateError(ConnectError):
    """The peer's certificate is not to be trusted, or the peer wants another one of the client.

    It is not tried again.
    """


class ServiceError(S2FramesError):
    """S2 answered with an error.

    ``status`` is the HTTP status, ``code`` S2's error code (None where it sends none), ``message``
    its words, ``retry_after`` the seconds that S2 asks to wait before another try, if it does.
    ``is_incomplete`` tells that the answer broke off: code, words and details may be missing.
    """

    retry_after: float | None = None
    is_incomplete: bool = False

    # No error here calls `Exception.__init__`: it would replace the arguments that copying and
    # pickling need.
    def __init__(self, status: int, code: str | None, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message

    def _words(self) -> str:
        if self.code is None:
            return self.message + ("; the answer broke off" if self.is_incomplete else "")
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
    """Messages of the stream cannot be delivered.

    ``event`` says why: a :class:`~s2frames.FrameDropped` that a frame is corrupt or incomplete, a
    :class:`~s2frames.GapDetected` that records were removed before they were read. Reading may go
    on; with ``on_corrupt="skip"`` such places are counted and passed over.
    """

    def __init__(self, event: FrameDropped | GapDetected) -> None:
        self.event = event

    def _words(self) -> str:
        return self.event.describe()


class WriterConflict(S2FramesError):
    """The stream holds other bytes under this writer's id and sequence: two share the id."""


class WriterExhausted(S2FramesError):
    """A writer has used its last dedupe sequence: another writer id is needed to go on."""


class WriterNotFound(S2FramesError):
    """The stream holds no record of this writer where it was searched for, but may elsewhere."""


class ScanLimitExceeded(S2FramesError):
    """Fewer messages than asked for lie in the last ``max_scan_bytes`` of the stream.

    ``found`` is how many do.
    """

    def __init__(self, found: int, wanted: int, max_scan_bytes: int) -> None:
        self.found = found
        self.wanted = wanted
        self.max_scan_bytes = max_scan_bytes

    def _words(self) -> str:
        return (
            f"only {self.found} of the last {self.wanted} messages lie in the stream's last "
            f"{self.max_scan_bytes} bytes (max_scan_bytes)"
        )
