"""What a record is to a reader of frames, by its headers alone."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import TypeAlias

from s2frames.dedupe import (
    LEGACY_WRITER_ID,
    MAX_WRITER_ID_BYTES,
    RESERVED_HEADERS,
    read_dedupe_headers,
)
from s2frames.errors import RemoteProtocolError
from s2frames.framing import read_frame_headers
from s2frames.records import Header, SequencedRecord, is_command

__all__ = [
    "MAX_LANE_BYTES",
    "NO_WRITER",
    "UNNUMBERED",
    "ClassifiedRecord",
    "RecordKind",
    "classify",
    "find_problem",
    "lane_of",
]


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


#: The lane of numbered records without a writer id; as in the npm package, also of the writer whose
#: id is that.
NO_WRITER = LEGACY_WRITER_ID.encode()

#: The lane of records without dedupe headers.
UNNUMBERED = None

#: Bytes of the longest lane: what a reader remembers of each writer is bounded.
MAX_LANE_BYTES = MAX_WRITER_ID_BYTES + 1 + 64

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
    own = tuple(header for header in headers if header[0] not in RESERVED_HEADERS)
    if len(own) == len(headers):
        return RecordKind.FOREIGN, seq_num, timestamp, 0, 0, -1, UNNUMBERED, headers, body
    try:
        num_records, num_bytes, dedupe_seq, lane = _read_reserved(headers)
    except RemoteProtocolError:
        return RecordKind.BAD, seq_num, timestamp, 0, 0, -1, UNNUMBERED, headers, body
    kind = RecordKind.HEAD if num_records else RecordKind.CHUNK
    return kind, seq_num, timestamp, num_records, num_bytes, dedupe_seq, lane, own, body


def find_problem(headers: Sequence[Header]) -> str | None:
    """What is wrong with the reserved headers among `headers`; None when they make sense."""
    try:
        _read_reserved(headers)
    except RemoteProtocolError as error:
        return str(error)
    return None


def lane_of(writer_id: bytes) -> bytes:
    """The lane of a writer: its id, whatever that is; one that is too long is cut and hashed."""
    if len(writer_id) <= MAX_WRITER_ID_BYTES:
        return writer_id
    # Longer than every id that is not cut, so that no other writer has it.
    return writer_id[:MAX_WRITER_ID_BYTES] + b"~" + sha256(writer_id).hexdigest().encode()


def _read_reserved(headers: Sequence[Header]) -> tuple[int, int, int, bytes | None]:
    """Declared records and bytes (0 if there are none), dedupe sequence and lane.

    Raises `RemoteProtocolError` when that makes no sense.
    """
    num_records, num_bytes = read_frame_headers(headers)
    dedupe_seq, writer_id = read_dedupe_headers(headers)
    if (num_records is None) != (num_bytes is None):
        raise RemoteProtocolError("one of _frame_records and _frame_bytes is missing")
    if num_records == 0:
        raise RemoteProtocolError("_frame_records declares no record")
    if num_bytes == 0:
        raise RemoteProtocolError("_frame_bytes declares no byte")
    if dedupe_seq is None:
        if writer_id is not None:
            raise RemoteProtocolError("_writer_id comes without _dedupe_seq")
        return num_records or 0, num_bytes or 0, -1, UNNUMBERED
    lane = NO_WRITER if writer_id is None else lane_of(writer_id)
    return num_records or 0, num_bytes or 0, dedupe_seq, lane
