"""What a peer must not do on a stream, and what it costs: one table, of RFC 9113.

A breach of one stream breaks that stream alone. Only what leaves both sides with different ideas of
what they share, the cut of the frames, the header tables, the connection's window, ends the
connection with all its streams. h2 ends it for nearly all of them; so it is not asked.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

__all__ = [
    "MAX_WINDOW",
    "Breach",
    "BreachError",
    "Place",
    "Scope",
    "check_data",
    "check_end",
    "check_priority",
    "check_trailers",
    "check_window_update",
    "expected_length",
    "is_taken",
    "join_fields",
]

#: Bytes of the largest window (RFC 9113, 6.9.1).
MAX_WINDOW = 2**31 - 1

# Names are tokens in lower case; values have no control characters, and no blank at either end
# (RFC 9113, 8.2.1).
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"(?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?")

# They are the connection's and not the answer's (RFC 9113, 8.2.2).
_CONNECTION_FIELDS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)

# Answers that have no body, whatever length they give (RFC 9110, 8.6).
_STATUSES_WITHOUT_BODY = (204, 304)

# Digits of the longest length that is read: 2**63 - 1 has as many.
_LENGTH_DIGITS = 19

# Bytes of a PRIORITY frame's body (RFC 9113, 6.3).
_PRIORITY_BYTES = 5


class Scope(enum.Enum):
    """What a breach ends."""

    STREAM = enum.auto()
    CONNECTION = enum.auto()


_STREAM, _CONNECTION = Scope.STREAM, Scope.CONNECTION
_CODES = ErrorCodes


class Breach(enum.Enum):
    """What a peer must not do: what it ends, with which code, where it is written, in words."""

    # An answer is a head, then its body, then perhaps trailers; malformed, it breaks its stream.
    DATA_BEFORE_HEAD = _STREAM, _CODES.PROTOCOL_ERROR, "8.1", "DATA before the head of the answer"
    MALFORMED_HEAD = _STREAM, _CODES.PROTOCOL_ERROR, "8.1.1", "a malformed head"
    INTERIM_THAT_ENDS = _STREAM, _CODES.PROTOCOL_ERROR, "8.1", "an interim head ends the stream"
    TRAILERS_THAT_DO_NOT_END = (
        *(_STREAM, _CODES.PROTOCOL_ERROR, "8.1"),
        "a second head, or trailers, without END_STREAM",
    )
    MALFORMED_TRAILERS = _STREAM, _CODES.PROTOCOL_ERROR, "8.1", "malformed trailers"
    BODY_TOO_LONG = (
        *(_STREAM, _CODES.PROTOCOL_ERROR, "8.1.1"),
        "the body is longer than its content-length",
    )
    BODY_TOO_SHORT = (
        *(_STREAM, _CODES.PROTOCOL_ERROR, "8.1.1"),
        "the body is shorter than its content-length",
    )
    AFTER_THE_END = _STREAM, _CODES.STREAM_CLOSED, "5.1", "more of an answer after its end"
    # Windows
    STREAM_WINDOW_EXCEEDED = (
        *(_STREAM, _CODES.FLOW_CONTROL_ERROR, "6.9.1"),
        "more DATA than the stream's window allows",
    )
    NO_INCREMENT = _STREAM, _CODES.PROTOCOL_ERROR, "6.9", "a WINDOW_UPDATE of 0"
    STREAM_WINDOW_OVERFLOW = (
        *(_STREAM, _CODES.FLOW_CONTROL_ERROR, "6.9.1"),
        "a WINDOW_UPDATE beyond the largest window",
    )
    PRIORITY_OF_ANOTHER_SIZE = (
        *(_STREAM, _CODES.FRAME_SIZE_ERROR, "6.3"),
        "a PRIORITY frame that has not 5 bytes",
    )
    # What both sides share
    CONNECTION_WINDOW_EXCEEDED = (
        *(_CONNECTION, _CODES.FLOW_CONTROL_ERROR, "6.9.1"),
        "more DATA than the connection's window allows",
    )
    NO_CONNECTION_INCREMENT = (
        *(_CONNECTION, _CODES.PROTOCOL_ERROR, "6.9"),
        "a WINDOW_UPDATE of 0 for the connection",
    )
    CONNECTION_WINDOW_OVERFLOW = (
        *(_CONNECTION, _CODES.FLOW_CONTROL_ERROR, "6.9.1"),
        "a WINDOW_UPDATE beyond the largest window, for the connection",
    )
    UNREADABLE_HEADERS = _CONNECTION, _CODES.COMPRESSION_ERROR, "4.3", "an undecodable header block"
    # The table is then as unknown as after an undecodable one.
    TOO_MANY_HEADERS = _CONNECTION, _CODES.ENHANCE_YOUR_CALM, "10.5.1", "too large a header list"
    OF_NO_STREAM = _CONNECTION, _CODES.PROTOCOL_ERROR, "5.1", "a frame on a stream that is not open"
    PUSH = _CONNECTION, _CODES.PROTOCOL_ERROR, "8.4", "a push, which it was told not to"
    NAKED_CONTINUATION = (
        *(_CONNECTION, _CODES.PROTOCOL_ERROR, "6.10"),
        "a CONTINUATION of no header block",
    )

    def __init__(self, scope: Scope, code: ErrorCodes, section: str, words: str) -> None:
        self.scope = scope
        self.code = code
        self.section = section
        self.words = words


class BreachError(ProtocolError):
    """The peer broke a rule."""

    def __init__(self, breach: Breach, detail: str = "") -> None:
        super().__init__(f"{breach.words}: {detail}" if detail else breach.words)
        self.breach = breach
        self.error_code = breach.code


class Place(enum.Enum):
    """How far the peer is with what it says on a stream."""

    #: The stream was never opened by us, or is the peer's to open, which it must not.
    NOT_OPEN = enum.auto()
    BEFORE_HEAD = enum.auto()
    IN_BODY = enum.auto()
    #: It has ended its side, and we have not.
    AFTER_END = enum.auto()
    #: The stream is over, be it by a reset. What comes is late, no matter how late: nothing of a
    #: stream need be remembered for it.
    OVER = enum.auto()


_BREACHES: Mapping[tuple[Place, type[Frame]], Breach] = {
    (Place.BEFORE_HEAD, DataFrame): Breach.DATA_BEFORE_HEAD,
    (Place.AFTER_END, DataFrame): Breach.AFTER_THE_END,
    (Place.AFTER_END, HeadersFrame): Breach.AFTER_THE_END,
    **{
        (Place.NOT_OPEN, kind): Breach.OF_NO_STREAM
        for kind in (DataFrame, HeadersFrame, RstStreamFrame, WindowUpdateFrame)
    },
    **{(place, PushPromiseFrame): Breach.PUSH for place in Place},
    **{(place, ContinuationFrame): Breach.NAKED_CONTINUATION for place in Place},
}


def is_taken(frame: Frame, place: Place) -> bool:
    """Whether a frame on a stream says something; else it comes too late and is passed over.

    Raises `BreachError` where it must not come.
    """
    breach = _BREACHES.get((place, type(frame)))
    if breach is not None:
        raise BreachError(breach)
    return place not in (Place.NOT_OPEN, Place.OVER)


# Heads and trailers


def join_fields(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The fields of a head, ":status" among them, by name; repeated ones are joined by commas.

    Raises `BreachError` for what is no head.
    """
    fields: dict[str, str] = {}
    for name_bytes, value_bytes in headers:
        is_status = name_bytes == b":status" and not fields
        if not is_status:
            _check_field(name_bytes, value_bytes, Breach.MALFORMED_HEAD)
        name, value = name_bytes.decode("latin-1"), value_bytes.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    status = fields.get(":status", "")
    if not (status.isascii() and status.isdigit() and len(status) == 3):
        raise BreachError(Breach.MALFORMED_HEAD, f"the status {status[:20]!r}")
    if status == "101":
        raise BreachError(Breach.MALFORMED_HEAD, "the status 101, which HTTP/2 does not have")
    return fields


def check_trailers(headers: Iterable[tuple[bytes, bytes]], *, ends: bool) -> None:
    """Raise `BreachError` for what cannot follow a body."""
    if not ends:
        raise BreachError(Breach.TRAILERS_THAT_DO_NOT_END)
    for name, value in headers:
        _check_field(name, value, Breach.MALFORMED_TRAILERS)


def _check_field(name: bytes, value: bytes, breach: Breach) -> None:
    is_sound = _NAME.fullmatch(name) and _VALUE.fullmatch(value)
    if not is_sound or name in _CONNECTION_FIELDS:
        raise BreachError(breach, f"the header {name[:50]!r} has an invalid name or value")


def expected_length(status: int, headers: Mapping[str, str]) -> int | None:
    """Bytes that the body must have; None if the head does not say. Raises `BreachError`."""
    if status in _STATUSES_WITHOUT_BODY:
        return 0
    value = headers.get("content-length")
    if value is None:
        return None
    # The same one may have been repeated on the way (RFC 9110, 8.6).
    lengths = {part.strip(" \t") for part in value.split(",")}
    length = lengths.pop()
    is_number = length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS
    if lengths or not is_number:
        raise BreachError(Breach.MALFORMED_HEAD, f"the content-length {value[:50]!r}")
    return int(length)


# Bodies and windows


def check_data(size: int, num_bytes: int, *, window: int, left: int | None) -> None:
    """Raise `BreachError` for DATA that must not come.

    Args:
        size: of the frame, with its padding.
        num_bytes: of the body in it.
        window: what the stream's window allows.
        left: of the body, if that is known.
    """
    if size > window:
        raise BreachError(Breach.STREAM_WINDOW_EXCEEDED, f"{size} bytes of {max(0, window)}")
    if left is not None and num_bytes > left:
        raise BreachError(Breach.BODY_TOO_LONG, f"by {num_bytes - left} bytes")


def check_end(left: int | None) -> None:
    """Raise `BreachError` when a body ends, so many bytes before its end if that is known."""
    if left:
        raise BreachError(Breach.BODY_TOO_SHORT, f"by {left} bytes")


def check_window_update(increment: int, window: int, scope: Scope) -> None:
    """Raise `BreachError` for an increment that a window cannot have."""
    is_stream = scope is Scope.STREAM
    if not increment:
        raise BreachError(Breach.NO_INCREMENT if is_stream else Breach.NO_CONNECTION_INCREMENT)
    if window + increment > MAX_WINDOW:
        raise BreachError(
            Breach.STREAM_WINDOW_OVERFLOW if is_stream else Breach.CONNECTION_WINDOW_OVERFLOW
        )


def check_priority(frame: PriorityFrame) -> None:
    """Raise `BreachError` for a PRIORITY frame of the wrong size. It says nothing to us."""
    if frame.body_len != _PRIORITY_BYTES:
        raise BreachError(Breach.PRIORITY_OF_ANOTHER_SIZE)
