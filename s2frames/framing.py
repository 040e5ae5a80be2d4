"""One payload as one or more records: the frame headers, and putting frames together again.

The first record of a frame carries `_frame_records` and `_frame_bytes`; the others follow it.
`FrameAssembler` is the single-writer rule of npm's `@s2-dev/streamstore-patterns`, kept for
callers who have their own reading loop; `FrameReader` does all that it does and more.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from s2frames.checks import as_bytes, check_int, check_type
from s2frames.errors import FrameSizeError, LocalProtocolError, RemoteProtocolError
from s2frames.records import Header, Record, SequencedRecord, as_headers, as_sequenced
from s2frames.u64 import decode_u64, encode_u64

__all__ = [
    "DEFAULT_MAX_FRAME_BYTES",
    "FRAME_BYTES",
    "FRAME_RECORDS",
    "CompletedFrame",
    "FrameAssembler",
    "FrameMeta",
    "decode_u64_header",
    "frame_chunks_to_records",
    "make_frame_headers",
    "parse_frame_headers",
    "read_frame_headers",
]

#: Header on a frame's first record: how many records the frame has.
FRAME_RECORDS = b"_frame_records"

#: Header on a frame's first record: how many bytes its payload has.
FRAME_BYTES = b"_frame_bytes"

#: Largest payload unless told otherwise: 100 MiB, as in the npm package.
DEFAULT_MAX_FRAME_BYTES = 100 * 1024 * 1024


@frozen
class FrameMeta:
    """What a frame's first record declares."""

    bytes: int
    records: int


@frozen
class CompletedFrame:
    """A payload put together from its records."""

    payload: bytes
    meta: FrameMeta


def make_frame_headers(total_bytes: int, num_records: int) -> tuple[Header, Header]:
    """The headers of a frame's first record."""
    return (FRAME_RECORDS, encode_u64(num_records)), (FRAME_BYTES, encode_u64(total_bytes))


def parse_frame_headers(headers: Sequence[Header]) -> FrameMeta | None:
    """What `headers` declare, or None unless both frame headers are there.

    The last of each counts, as in the npm package. Raises `RemoteProtocolError` when any of them
    is not eight bytes.
    """
    num_records, total_bytes = read_frame_headers(as_headers(headers))
    if num_records is None or total_bytes is None:
        return None
    return FrameMeta(total_bytes, num_records)


def read_frame_headers(headers: Sequence[Header]) -> tuple[int | None, int | None]:
    """The declared records and bytes, each None where it is missing; as `parse_frame_headers`."""
    num_records = total_bytes = None
    for name, value in headers:
        if name == FRAME_BYTES:
            total_bytes = decode_u64_header(name, value)
        elif name == FRAME_RECORDS:
            num_records = decode_u64_header(name, value)
    return num_records, total_bytes


def decode_u64_header(name: bytes, value: bytes) -> int:
    """The number in a reserved header. Raises `RemoteProtocolError` when it is not eight bytes."""
    if len(value) != 8:
        raise RemoteProtocolError(f"{name.decode()} has {len(value)} bytes instead of 8")
    return decode_u64(value)


def frame_chunks_to_records(chunks: Sequence[bytes | bytearray | memoryview]) -> list[Record]:
    """One record a chunk; the first carries the frame headers. No chunk, no record.

    Raises `LocalProtocolError` for chunks that are no bytes.
    """
    if not isinstance(chunks, Sequence):
        raise LocalProtocolError(f"chunks are a sequence, not {type(chunks).__name__}")
    bodies = [as_bytes("a chunk", chunk) for chunk in chunks]
    if not bodies:
        return []
    headers = make_frame_headers(sum(map(len, bodies)), len(bodies))
    return [Record(body, () if i else headers) for i, body in enumerate(bodies)]


class FrameAssembler:
    """Puts the frames of one writer together, one record at a time.

    A new head drops the frame that was open; chunks before any head, and frames whose bodies do
    not add up to what they declared, are dropped. Memory grows with the bodies pushed, never with
    what a head declares.
    """

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        check_int("max_frame_bytes", max_frame_bytes, 1)
        self._max_frame_bytes = max_frame_bytes
        self._meta: FrameMeta | None = None
        self._body = bytearray()
        self._records = 0

    def push(self, record: Record | SequencedRecord) -> CompletedFrame | None:
        """Take one record; the frame it completes, if it does.

        Raises `FrameSizeError` when a head declares no bytes or more than `max_frame_bytes`; the
        assembler then waits for the next head. Raises `LocalProtocolError` for what is no record.
        """
        if isinstance(record, SequencedRecord):
            record = as_sequenced(record)
        else:
            check_type("record", record, Record)
        meta = parse_frame_headers(record.headers)
        if meta is not None:
            self._reset()
            if not 1 <= meta.bytes <= self._max_frame_bytes:
                raise FrameSizeError(
                    f"the frame declares {meta.bytes} bytes; "
                    f"1 to {self._max_frame_bytes} (max_frame_bytes) are allowed"
                )
            self._meta = meta
        if self._meta is None:
            return None
        self._body += record.body
        self._records += 1
        return self._finish(self._meta)

    def _finish(self, meta: FrameMeta) -> CompletedFrame | None:
        if len(self._body) > meta.bytes:
            self._reset()
            return None
        if self._records != meta.records:
            return None
        frame = CompletedFrame(bytes(self._body), meta) if len(self._body) == meta.bytes else None
        self._reset()
        return frame

    def _reset(self) -> None:
        self._meta = None
        self._body = bytearray()
        self._records = 0
