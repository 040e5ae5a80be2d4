"""Numbering records so that a reader can drop the repeats of a retried append.

Every record of a writer carries `_dedupe_seq`, counting up by one, and `_writer_id`. `DedupeFilter`
is the single-writer rule of npm's `@s2-dev/streamstore-patterns`; `FrameReader` keeps one window a
writer instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from string import ascii_letters, digits

from attrs import evolve

from s2frames.brief import brief
from s2frames.checks import check_callable, check_int, check_type
from s2frames.errors import LocalProtocolError
from s2frames.framing import FRAME_BYTES, FRAME_RECORDS, decode_u64_header
from s2frames.records import Header, Record, as_headers
from s2frames.u64 import encode_u64

__all__ = [
    "DEDUPE_SEQ",
    "LEGACY_WRITER_ID",
    "MAX_DEDUPE_SEQ",
    "MAX_WRITER_ID_BYTES",
    "RESERVED_HEADERS",
    "WRITER_ID",
    "DedupeFilter",
    "check_writer_id",
    "extract_dedupe_seq",
    "inject_dedupe_headers",
    "make_writer_id",
    "read_dedupe_headers",
]

#: Header on every record of a writer: its dedupe sequence.
DEDUPE_SEQ = b"_dedupe_seq"

#: Header on every record of a writer: who it is.
WRITER_ID = b"_writer_id"

#: Names that users' own headers cannot have.
RESERVED_HEADERS = frozenset((FRAME_RECORDS, FRAME_BYTES, DEDUPE_SEQ, WRITER_ID))

#: The last dedupe sequence: above it the npm package's numbers lose precision.
MAX_DEDUPE_SEQ = 2**53 - 1

#: Longest writer id that is written. Generous: those the npm package makes have 12 bytes.
MAX_WRITER_ID_BYTES = 256

# 64 characters, 12 of them: 72 bits, as in the npm package.
_WRITER_ID_ALPHABET = ascii_letters + digits + "-_"
_WRITER_ID_CHARS = 12

#: What the npm package calls a writer that sent no id.
LEGACY_WRITER_ID = "__legacy__"


def make_writer_id(random: Callable[[], float]) -> str:
    """A new writer id of 12 characters. `random` gives floats from 0 up to, not including, 1."""
    check_callable("random", random)
    drawn = [random() for _ in range(_WRITER_ID_CHARS)]
    if not all(isinstance(number, (int, float)) and 0 <= number < 1 for number in drawn):
        raise LocalProtocolError("random must give floats from 0 up to, not including, 1")
    alphabet = _WRITER_ID_ALPHABET
    return "".join(alphabet[int(number * len(alphabet))] for number in drawn)


def check_writer_id(writer_id: str) -> str:
    """`writer_id`, if it has 1 to 256 UTF-8 bytes; else a `LocalProtocolError`.

    `"__legacy__"` is refused: readers take it for no writer id.
    """
    try:
        size = len(writer_id.encode())
    except (AttributeError, UnicodeEncodeError):
        raise LocalProtocolError(f"a writer id is a str in UTF-8, not {brief(writer_id)}") from None
    if not 1 <= size <= MAX_WRITER_ID_BYTES:
        raise LocalProtocolError(
            f"a writer id has 1 to {MAX_WRITER_ID_BYTES} UTF-8 bytes, not {size}"
        )
    if writer_id == LEGACY_WRITER_ID:
        raise LocalProtocolError(
            f"{LEGACY_WRITER_ID!r} is what readers call a writer without an id: take another one"
        )
    return writer_id


def inject_dedupe_headers(records: list[Record], writer_id: str, start_seq: int) -> int:
    """Number `records` in place from `start_seq`; returns the sequence after the last one.

    Raises `LocalProtocolError`, before any record is replaced, when one already carries a dedupe
    header, when the numbers would pass `MAX_DEDUPE_SEQ`, and for what is no record.
    """
    writer = check_writer_id(writer_id).encode()
    check_type("records", records, list)
    # The last record's number must not be beyond the last one.
    check_int("start_seq", start_seq, 0, MAX_DEDUPE_SEQ + 1 - len(records))
    for record in records:
        check_type("a record", record, Record)
        for name, _ in record.headers:
            if name in (DEDUPE_SEQ, WRITER_ID):
                raise LocalProtocolError(f"a record already carries the reserved header {name!r}")
    for i, record in enumerate(records):
        added = ((DEDUPE_SEQ, encode_u64(start_seq + i)), (WRITER_ID, writer))
        records[i] = evolve(record, headers=record.headers + added)
    return start_seq + len(records)


def extract_dedupe_seq(headers: Sequence[Header]) -> tuple[str, int] | None:
    """The writer id and dedupe sequence in `headers`; None when there is no sequence.

    As in the npm package a sequence without a writer id is that of `"__legacy__"`, a byte order
    mark before a writer id is left out, and what is no UTF-8 in it becomes U+FFFD. Which of
    repeated headers count, and what is raised, says `read_dedupe_headers`.
    """
    seq, writer = read_dedupe_headers(as_headers(headers))
    if seq is None:
        return None
    return (LEGACY_WRITER_ID if writer is None else _decode_writer_id(writer)), seq


def read_dedupe_headers(headers: Sequence[Header]) -> tuple[int | None, bytes | None]:
    """The dedupe sequence and the writer id in `headers`, each None where it is missing.

    The first of each counts. But as in the npm package a sequence of 0 or an empty writer id gives
    way to a later one, until both are known. Raises `RemoteProtocolError` when a sequence that is
    looked at is not eight bytes.
    """
    seq: int | None = None
    writer: bytes | None = None
    for name, value in headers:
        if name == DEDUPE_SEQ and not seq:
            seq = decode_u64_header(name, value)
        elif name == WRITER_ID and (writer is None or writer in _EMPTY_WRITER_IDS):
            writer = value
        else:
            continue
        if seq is not None and writer is not None:
            break
    return seq, writer


# The second is a byte order mark alone.
_EMPTY_WRITER_IDS = (b"", b"\xef\xbb\xbf")


def _decode_writer_id(writer: bytes) -> str:
    return bytes(writer).decode("utf-8-sig", errors="replace")


class DedupeFilter:
    """Drops the repeats of one active writer; a new writer id restarts the window."""

    def __init__(self) -> None:
        self._writer_id: str | None = None
        self._last_seq = -1

    def should_accept(self, headers: Sequence[Header]) -> bool:
        """Whether a record with these headers is new. Records without a sequence always are."""
        extracted = extract_dedupe_seq(headers)
        if extracted is None:
            return True
        writer_id, seq = extracted
        if writer_id == self._writer_id and seq <= self._last_seq:
            return False
        self._writer_id, self._last_seq = writer_id, seq
        return True
