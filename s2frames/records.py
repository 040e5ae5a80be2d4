"""Records as S2 stores them, their positions, their size, and the service's limits.

Limits and sizes are those of the open-source server (s2 lite, `common/src/caps.rs` and
`common/src/record/metering.rs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import evolve, field, frozen

from s2frames.brief import brief
from s2frames.checks import as_bytes, check_int, check_type
from s2frames.errors import LocalProtocolError
from s2frames.u64 import U64_MAX, encode_u64, is_u64

__all__ = [
    "MAX_BATCH_BYTES",
    "MAX_BATCH_RECORDS",
    "MAX_FENCING_TOKEN_BYTES",
    "MAX_RECORD_BYTES",
    "AppendAck",
    "Header",
    "Record",
    "SequencedRecord",
    "StreamPosition",
    "as_headers",
    "as_sequenced",
    "check_basin_name",
    "check_fencing_token",
    "check_headers",
    "check_stream_name",
    "check_timestamp",
    "fence",
    "is_command",
    "metered_bytes",
    "trim",
]

#: One header: name and value.
Header = tuple[bytes, bytes]

#: Metered bytes of the largest record.
MAX_RECORD_BYTES = 1_048_576

#: Records in the largest batch.
MAX_BATCH_RECORDS = 1000

#: Metered bytes of the largest batch.
MAX_BATCH_BYTES = 1_048_576

#: UTF-8 bytes of the longest fencing token.
MAX_FENCING_TOKEN_BYTES = 36

_BASIN_NAME_BYTES = range(8, 49)
_STREAM_NAME_BYTES = range(1, 513)
_BASIN_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


@frozen
class StreamPosition:
    """A place in a stream."""

    seq_num: int
    #: Milliseconds since the Unix epoch, unless the stream's writers keep another time.
    timestamp: int


@frozen
class AppendAck:
    """What S2 answers to an append: the batch is durable."""

    #: The first record's position.
    start: StreamPosition
    #: The sequence number after the last record, and the last record's timestamp.
    end: StreamPosition
    #: The sequence number after the stream's last durable record, and that record's timestamp.
    tail: StreamPosition


def _as_body(value: object) -> bytes:
    return as_bytes("a record's body", value)


def as_headers(value: Iterable[Header]) -> tuple[Header, ...]:
    """`value` as a tuple, if it is of tuples (name, value) of bytes.

    Raises `LocalProtocolError` for anything else.
    """
    try:
        headers = tuple(value)
    except TypeError:
        raise LocalProtocolError(
            f"headers are (name, value) tuples of bytes, not {type(value).__name__}"
        ) from None
    for header in headers:
        if (
            not isinstance(header, tuple)
            or len(header) != 2
            or not all(isinstance(part, bytes) for part in header)
        ):
            raise LocalProtocolError(
                f"a header is a tuple (name, value) of bytes, not {brief(header)}"
            )
    return headers


def check_timestamp(value: int | None) -> int | None:
    """`value`, if a record can have this timestamp; else a `LocalProtocolError`."""
    if value is not None and not is_u64(value):
        raise LocalProtocolError(f"a timestamp is an int from 0 to {U64_MAX}, not {brief(value)}")
    return value


@frozen
class Record:
    """A record to append."""

    body: bytes = field(default=b"", converter=_as_body)
    headers: tuple[Header, ...] = field(default=(), converter=as_headers)
    #: Milliseconds since the Unix epoch; None lets the service choose.
    timestamp: int | None = field(default=None, converter=check_timestamp)

    @property
    def metered_bytes(self) -> int:
        """The size that S2 counts."""
        return metered_bytes(self.headers, len(self.body))


@frozen
class SequencedRecord:
    """A record as read from a stream."""

    seq_num: int
    timestamp: int
    headers: tuple[Header, ...] = ()
    body: bytes | memoryview = b""

    @property
    def metered_bytes(self) -> int:
        """The size that S2 counts."""
        return metered_bytes(self.headers, len(self.body))


def as_sequenced(record: SequencedRecord) -> SequencedRecord:
    """`record`, its headers a tuple, if all of it is what it must be; else a `LocalProtocolError`.

    For records that others made: those that come from the service are checked when decoded.
    """
    check_type("a record that was read", record, SequencedRecord)
    check_int("seq_num", record.seq_num)
    check_int("timestamp", record.timestamp)
    headers = as_headers(record.headers)
    if not isinstance(record.body, (bytes, memoryview)):
        return evolve(record, headers=headers, body=_as_body(record.body))
    return record if headers is record.headers else evolve(record, headers=headers)


def metered_bytes(headers: Sequence[Header], body_bytes: int) -> int:
    """The size that S2 counts for a record: 8 + 2 a header + names + values + body.

    Raises `LocalProtocolError` for headers that are none, and for a size that is no number.
    """
    try:
        return 8 + 2 * len(headers) + sum(len(n) + len(v) for n, v in headers) + body_bytes
    except (TypeError, ValueError):
        as_headers(headers)
        check_int("body_bytes", body_bytes)
        raise


def is_command(headers: Sequence[Header]) -> bool:
    """Whether a record with these headers is a command: one header, with an empty name."""
    return len(headers) == 1 and not headers[0][0]


def fence(token: str) -> Record:
    """A command record that sets the stream's fencing token; "" clears it.

    Raises `LocalProtocolError` for a token over 36 UTF-8 bytes: it could never be matched again.
    """
    return Record(check_fencing_token(token).encode(), ((b"", b"fence"),))


def trim(before: int) -> Record:
    """A command record that removes the records below sequence number `before`.

    The service removes them some time later, and never the trim record itself.
    """
    return Record(encode_u64(before), ((b"", b"trim"),))


def check_fencing_token(token: str) -> str:
    """`token`, if the service can take it; else a `LocalProtocolError`."""
    size = len(_encode_text("a fencing token", token))
    if size > MAX_FENCING_TOKEN_BYTES:
        raise LocalProtocolError(
            f"a fencing token has at most {MAX_FENCING_TOKEN_BYTES} UTF-8 bytes, not {size}"
        )
    return token


def check_basin_name(name: str) -> str:
    """`name`, if a basin can have it (8 to 48 of a-z, 0-9 and -); else a `LocalProtocolError`."""
    size = len(_encode_text("a basin name", name))
    if size not in _BASIN_NAME_BYTES:
        raise LocalProtocolError(f"a basin name has 8 to 48 characters, not {size}: {name!r}")
    if not _BASIN_NAME_CHARS.issuperset(name) or name[0] == "-" or name[-1] == "-":
        raise LocalProtocolError(
            "a basin name has lowercase letters, digits and hyphens, and begins and ends with "
            f"a letter or digit: {name!r}"
        )
    return name


def check_stream_name(name: str) -> str:
    """`name`, if a stream can have it (1 to 512 UTF-8 bytes, no NUL).

    Raises `LocalProtocolError` for anything else.
    """
    size = len(_encode_text("a stream name", name))
    if size not in _STREAM_NAME_BYTES:
        raise LocalProtocolError(f"a stream name has 1 to 512 UTF-8 bytes, not {size}")
    if name in (".", ".."):
        raise LocalProtocolError(f"a stream cannot be named {name!r}")
    if "\0" in name:
        raise LocalProtocolError(f"a stream name has no NUL character: {name!r}")
    return name


def check_headers(headers: Iterable[Header], reserved: frozenset[bytes]) -> tuple[Header, ...]:
    """A user's `headers` as a tuple, if a record can have them beside the `reserved` ones.

    Raises `LocalProtocolError` for an empty or reserved name and for anything but bytes.
    """
    checked = as_headers(headers)
    for name, _ in checked:
        if not name:
            raise LocalProtocolError("a header name must not be empty (that marks S2's commands)")
        if name in reserved:
            raise LocalProtocolError(
                f"the header name {name!r} is reserved: " + ", ".join(map(repr, sorted(reserved)))
            )
    return checked


def _encode_text(what: str, text: str) -> bytes:
    if not isinstance(text, str):
        raise LocalProtocolError(f"{what} is a str, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError(f"{what} must encode as UTF-8: {text!r}") from None
