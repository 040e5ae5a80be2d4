"""What a record is to a reader of frames, by its headers alone."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from s2frames.dedupe import DEDUPE_SEQ, MAX_WRITER_ID_BYTES, RESERVED_HEADERS, WRITER_ID
from s2frames.framing import FRAME_BYTES, FRAME_RECORDS
from s2frames.records import Header, SequencedRecord, is_command

__all__ = ["NO_WRITER", "UNNUMBERED", "ClassifiedRecord", "RecordKind", "classify", "find_problem"]


class RecordKind(enum.Enum):
    """The part a record plays."""

    #: The first record of a frame.
    HEAD = enum.auto()
    #: A further record of a frame; without any header it may also belong to none.
    CHUNK = enum.auto()
    #: A command to the service.
    COMMAND = enum.auto()
    #: A record with headers of its own only.
    FOREIGN = enum.auto()
    #: A record whose reserved headers make no sense.
    BAD = enum.auto()


#: The lane of numbered records without a writer id. (A writer id is never empty.)
NO_WRITER = b""

#: The lane of records without dedupe headers.
UNNUMBERED = None

#: Kind, sequence number, timestamp, declared records and bytes (0 unless it is a head), dedupe
#: sequence (-1 in the lane without numbers), lane, headers that are not reserved (all of them for
#: COMMAND and BAD), body. A tuple, since one is made for every record.
ClassifiedRecord: TypeAlias = tuple[
    RecordKind, int, int, int, int, int, bytes | None, tuple[Header, ...], bytes | memoryview
]


def classify(records: Iterable[SequencedRecord]) -> Iterator[ClassifiedRecord]:
    """Each record with the part it plays."""
    for record in records:
        body = bytes(record.body)
        yield classify_headers(record.seq_num, record.timestamp, record.headers, body)


def classify_headers(
    seq_num: int, timestamp: int, headers: tuple[Header, ...], body: bytes | memoryview
) -> ClassifiedRecord:
    """The part that a record with these headers plays."""
    if not headers:
        return RecordKind.CHUNK, seq_num, timestamp, 0, 0, -1, UNNUMBERED, headers, body
    if is_command(headers):
        return RecordKind.COMMAND, seq_num, timestamp, 0, 0, -1, UNNUMBERED, headers, body
    reserved = _reserved_values(headers)
    if not reserved:
        return RecordKind.FOREIGN, seq_num, timestamp, 0, 0, -1, UNNUMBERED, headers, body
    if find_problem(headers) is not None:
        return RecordKind.BAD, seq_num, timestamp, 0, 0, -1, UNNUMBERED, headers, body
    is_head = FRAME_RECORDS in reserved
    num_records = int.from_bytes(reserved[FRAME_RECORDS], "big") if is_head else 0
    num_bytes = int.from_bytes(reserved[FRAME_BYTES], "big") if is_head else 0
    dedupe_seq, lane = -1, UNNUMBERED
    if DEDUPE_SEQ in reserved:
        dedupe_seq = int.from_bytes(reserved[DEDUPE_SEQ], "big")
        lane = reserved.get(WRITER_ID, NO_WRITER)
    own = tuple(header for header in headers if header[0] not in RESERVED_HEADERS)
    kind = RecordKind.HEAD if is_head else RecordKind.CHUNK
    return kind, seq_num, timestamp, num_records, num_bytes, dedupe_seq, lane, own, body


def find_problem(headers: Sequence[Header]) -> str | None:
    """What is wrong with the reserved headers among `headers`; None when they make sense."""
    reserved = _reserved_values(headers)
    for name in (FRAME_RECORDS, FRAME_BYTES, DEDUPE_SEQ):
        if name in reserved and len(reserved[name]) != 8:
            return f"{name.decode()} has {len(reserved[name])} bytes instead of 8"
    if (FRAME_RECORDS in reserved) != (FRAME_BYTES in reserved):
        return "one of _frame_records and _frame_bytes is missing"
    if FRAME_RECORDS in reserved and not any(reserved[FRAME_RECORDS]):
        return "_frame_records declares no record"
    if FRAME_BYTES in reserved and not any(reserved[FRAME_BYTES]):
        return "_frame_bytes declares no byte"
    if WRITER_ID in reserved:
        return _find_writer_problem(reserved[WRITER_ID], DEDUPE_SEQ in reserved)
    return None


def _find_writer_problem(writer_id: bytes, numbered: bool) -> str | None:
    if not numbered:
        return "_writer_id comes without _dedupe_seq"
    if not 1 <= len(writer_id) <= MAX_WRITER_ID_BYTES:
        return f"_writer_id has {len(writer_id)} bytes; 1 to {MAX_WRITER_ID_BYTES} are allowed"
    try:
        writer_id.decode()
    except UnicodeDecodeError:
        return "_writer_id is not UTF-8"
    return None


def _reserved_values(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """Reserved headers by name. As in the npm package, the last frame header and the first dedupe
    header of a name count."""
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (FRAME_RECORDS, FRAME_BYTES):
            values[name] = value
        elif name in (DEDUPE_SEQ, WRITER_ID):
            values.setdefault(name, value)
    return values
