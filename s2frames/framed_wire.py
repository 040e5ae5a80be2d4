"""Framed records straight to and from protobuf: the hot path, without an object a record.

Between the records of one writer only the dedupe sequence, the declared length and the body
change, so that the bytes around them are prepared once. `RecordEncoder` equals `wire` after
`framing` and `dedupe`; `BatchScanner` equals `classify` after `wire`. Property tests hold them to
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from struct import Struct
from typing import Any, final

from attrs import define

from s2frames.classify import ClassifiedRecord, RecordKind, classify_headers
from s2frames.dedupe import DEDUPE_SEQ, MAX_WRITER_ID_BYTES, WRITER_ID
from s2frames.errors import RemoteProtocolError
from s2frames.framing import make_frame_headers
from s2frames.records import Header, StreamPosition, metered_bytes
from s2frames.wire import (
    decode_position,
    decode_sequenced_record,
    decode_varint,
    encode_header_field,
    encode_varint,
    skip_unknown_field,
)

__all__ = ["BatchScanner", "RecordEncoder", "Run"]

_EIGHT_BYTES = bytes(8)

# Prepared bytes are kept for this many payload sizes; a workload with more sizes than that gains
# little from them.
_MAX_PREPARED = 4096

# Fields of AppendRecord.
_APPEND_TIMESTAMP, _APPEND_HEADER, _APPEND_BODY = b"\x08", b"\x12", b"\x1a"


class RecordEncoder:
    """Encodes the records of one writer as `AppendInput.records` fields.

    Between the prefix and the suffix of a record goes ``encode_seq(dedupe_seq)``, and after the
    suffix its body.
    """

    def __init__(self, writer_id: str | None) -> None:
        self._writer_headers: tuple[Header, ...] = ()
        #: The bytes for a dedupe sequence; none without a writer id.
        self.encode_seq: Callable[[int], bytes] = _no_bytes
        if writer_id is not None:
            self._writer_headers = ((DEDUPE_SEQ, _EIGHT_BYTES), (WRITER_ID, writer_id.encode()))
            self.encode_seq = Struct(">Q").pack
        frame_headers = make_frame_headers(1, 1)
        #: Metered bytes of a further record without its body, and of a first one without own
        #: headers.
        self.chunk_overhead = metered_bytes(self._writer_headers, 0)
        self.head_overhead = metered_bytes(frame_headers + self._writer_headers, 0)
        self._prepared: dict[int, tuple[bytes, bytes]] = {}

    def single(self, size: int) -> tuple[bytes, bytes]:
        """Prefix and suffix of the only record of a frame of `size` bytes without own headers."""
        prepared = self._prepared.get(size)
        if prepared is None:
            if len(self._prepared) >= _MAX_PREPARED:
                self._prepared.clear()
            prepared = self.head(size, 1, size, (), None)
            self._prepared[size] = prepared
        return prepared

    def head(
        self,
        frame_bytes: int,
        frame_records: int,
        body_bytes: int,
        own_headers: tuple[Header, ...],
        timestamp: int | None,
    ) -> tuple[bytes, bytes]:
        """Prefix and suffix of a frame's first record."""
        declared = make_frame_headers(frame_bytes, frame_records)
        return self._around(declared, own_headers, timestamp, body_bytes)

    def chunk(self, body_bytes: int, timestamp: int | None) -> tuple[bytes, bytes]:
        """Prefix and suffix of a frame's further record."""
        return self._around((), (), timestamp, body_bytes)

    def _around(
        self,
        declared: tuple[Header, ...],
        own_headers: tuple[Header, ...],
        timestamp: int | None,
        body_bytes: int,
    ) -> tuple[bytes, bytes]:
        before = b"" if timestamp is None else _APPEND_TIMESTAMP + encode_varint(timestamp)
        before += _encode_headers(declared + self._writer_headers[:1])
        if self._writer_headers:
            before = before[: -len(_EIGHT_BYTES)]
        after = _encode_headers(self._writer_headers[1:] + own_headers)
        if body_bytes:
            after += _APPEND_BODY + encode_varint(body_bytes)
        seq_bytes = len(self.encode_seq(0))
        length = encode_varint(len(before) + seq_bytes + len(after) + body_bytes)
        return b"".join((b"\x0a", length, before)), after


def _encode_headers(headers: tuple[Header, ...]) -> bytes:
    return b"".join(encode_header_field(_APPEND_HEADER, name, value) for name, value in headers)


def _no_bytes(_seq: int) -> bytes:
    return b""


# Tags of ReadBatch and of SequencedRecord.
_RECORDS_TAG, _TAIL_TAG = 0x0A, 0x12
_SEQ_NUM_TAG, _TIMESTAMP_TAG, _HEADERS_TAG, _BODY_TAG = b"\x08", b"\x10", b"\x1a", b"\x22"

# Layouts are for records whose length takes at most two bytes; reading a longer one costs more for
# its body than for all the rest.
_LENGTH_BYTES = 2
_KEY_BYTES = 1 + _LENGTH_BYTES
_MAX_LAYOUT_BYTES = 1 << 7 * _LENGTH_BYTES

# Layouts and writers of layouts that a scanner remembers; a writer takes about half a kilobyte.
_MAX_LEARNED = 16 * 1024

# Records that look alike are read at one go from this many on; below, the setting up costs more.
# It begins with some and goes on with four times as many, so that what is read in vain stays in
# proportion. After that was for nothing so many records, at most, are read one by one.
_MIN_RUN = 8
_FIRST_RUN = 16
_LONGEST_RUN = 1024
_MAX_SKIPPED = 128

# A body is passed on as a view when it is big and nearly all of the batch that it keeps alive.
_MIN_VIEW_BYTES = 64 * 1024
_MAX_VIEW_WASTE = 1 / 64


@final
@define(eq=False)
class Run:
    """Frames of one record each that follow one another: of one writer, one size and one time."""

    #: Sequence number and dedupe sequence of the first one; they count up by one.
    seq_num: int
    dedupe_seq: int
    timestamp: int
    writer_id: bytes
    bodies: Sequence[bytes]

    def records(self) -> Iterator[ClassifiedRecord]:
        """The same, record by record."""
        head, timestamp, writer_id = RecordKind.HEAD, self.timestamp, self.writer_id
        for i, body in enumerate(self.bodies):
            seq_num, dedupe_seq = self.seq_num + i, self.dedupe_seq + i
            yield head, seq_num, timestamp, 1, len(body), dedupe_seq, writer_id, (), body


class _Layout:
    """Where everything is in an encoded frame of one record.

    In records of one length only the sequence numbers, the timestamp, the writer id and the body
    differ, and none of them moves.
    """

    def __init__(
        self, num_bytes: int, seq_field: bytes, timestamp_field: bytes, writer_id: bytes
    ) -> None:
        self._body_field = _BODY_TAG + encode_varint(num_bytes)
        #: What must stand before the dedupe sequence.
        self.declared = _encode_read_headers(
            *make_frame_headers(num_bytes, 1), (DEDUPE_SEQ, _EIGHT_BYTES)
        )[: -len(_EIGHT_BYTES)]
        #: Known writers, by what stands between the dedupe sequence and the body.
        self.writers: dict[bytes, bytes] = {}
        self.learn_writer(writer_id)
        constant = (seq_field, timestamp_field, self.declared)
        sizes = [*map(len, constant), *map(len, self.writers), num_bytes]
        self.format = ">{}s{}s{}sQ{}s{}s".format(*sizes)
        struct = Struct(self.format)
        #: Reads the field of the sequence number, that of the timestamp, what must be `declared`,
        #: the dedupe sequence, the key of `writers`, and the body.
        self.unpack_from = struct.unpack_from
        #: How far into the record's field that is: its tag and length come before.
        self.offset = 1 + len(encode_varint(struct.size))
        #: Bytes of the whole field.
        self.size = self.offset + struct.size
        #: Reads field after field: tag and length first, then as `unpack_from`, but the timestamp
        #: and what follows it in one.
        constant_bytes = len(timestamp_field) + len(self.declared)
        sizes = [self.offset, len(seq_field), constant_bytes, *sizes[3:]]
        self.iter_unpack = Struct(">{}s{}s{}sQ{}s{}s".format(*sizes)).iter_unpack

    def learn_writer(self, writer_id: bytes) -> None:
        writer_field = _encode_read_headers((WRITER_ID, writer_id))
        self.writers[writer_field + self._body_field] = writer_id


def _encode_read_headers(*headers: Header) -> bytes:
    return b"".join(encode_header_field(_HEADERS_TAG, name, value) for name, value in headers)


class BatchScanner:
    """Takes encoded `ReadBatch` messages apart, record by record.

    A record laid out like an earlier one of its length is read at one go. Any other goes through
    `wire`, and its layout is remembered.
    """

    def __init__(self) -> None:
        #: The tail that the batch scanned last came with. Set when its last record was taken.
        self.tail: StreamPosition | None = None
        # By the first bytes of a record's field: its tag and length.
        self._layouts: dict[bytes, _Layout] = {}
        self._num_learned = 0
        # What most likely comes next: the following sequence number, the same timestamp.
        self._seq_num = 0
        self._next_seq_field = 0
        self._timestamp = 0
        self._timestamp_field = b""

    def scan(self, data: bytes) -> Iterator[ClassifiedRecord]:
        """Each record of the batch with the part it plays.

        A body is `bytes`, or a view of `data` when it is big and most of it. Raises
        `RemoteProtocolError`.
        """
        for item in self.scan_runs(data):
            if isinstance(item, Run):
                yield from item.records()
            else:
                yield item

    def scan_runs(self, data: bytes) -> Iterator[ClassifiedRecord | Run]:
        """As `scan`, with records that look alike together."""
        self.tail = tail = None
        at, size = 0, len(data)
        window, in_vain, skipped = _FIRST_RUN, 0, 0
        while at < size:
            layout = self._layouts.get(data[at : at + _KEY_BYTES])
            if layout is not None and at + layout.size <= size:
                if skipped:
                    skipped -= 1
                elif at + _MIN_RUN * layout.size <= size:
                    count = min((size - at) // layout.size, window)
                    run = self._read_run(layout, data, at, count)
                    if run is not None:
                        at += len(run.bodies) * layout.size
                        is_whole = len(run.bodies) == window
                        window = min(4 * window, _LONGEST_RUN) if is_whole else _FIRST_RUN
                        in_vain = 0
                        yield run
                        continue
                    window = _FIRST_RUN
                    in_vain = skipped = min(2 * in_vain + 1, _MAX_SKIPPED)
                record = self._read_at_one_go(layout, data, at + layout.offset)
                if record is not None:
                    at += layout.size
                    yield record
                    continue
            tag, start = decode_varint(data, at, size)
            if tag == _RECORDS_TAG:
                start, end = _delimit(data, start, size)
                record = self._read_any(data, at, start, end)
                at = end
                yield record
            elif tag == _TAIL_TAG:
                start, at = _delimit(data, start, size)
                tail = decode_position(data, start, at)
            else:
                at = skip_unknown_field(data, at, size, known=(1, 2))
        self.tail = tail

    def _read_run(self, layout: _Layout, data: bytes, at: int, count: int) -> Run | None:
        """Of `count` records from `at` on the first ones that look alike, if there are enough."""
        first = self._read_at_one_go(layout, data, at + layout.offset)
        if first is None:
            return None
        _, seq_num, timestamp, _, _, dedupe_seq, writer_id, _, _ = first
        region = memoryview(data)[at : at + count * layout.size]
        keys, seqs, constants, numbers, writers, bodies = zip(
            *layout.iter_unpack(region), strict=True
        )
        count = min(
            _count_alike(keys, repeat(keys[0], count)),
            _count_alike(constants, repeat(constants[0], count)),
            _count_alike(writers, repeat(writers[0], count)),
            _count_alike(numbers, range(dedupe_seq, dedupe_seq + count)),
            _count_alike(seqs, _seq_fields(seq_num, count)),
        )
        if count < _MIN_RUN or not writer_id:
            return None
        self._seq_num = seq_num + count - 1
        self._next_seq_field = int.from_bytes(seqs[count - 1], "little") + 0x100
        return Run(seq_num, dedupe_seq, timestamp, writer_id, bodies[:count])

    def _read_at_one_go(self, layout: _Layout, data: bytes, at: int) -> ClassifiedRecord | None:
        seq_field, timestamp_field, declared, dedupe_seq, writer, body = layout.unpack_from(
            data, at
        )
        writer_id = layout.writers.get(writer)
        if writer_id is None or declared != layout.declared:
            return None
        if timestamp_field != self._timestamp_field:
            timestamp = _decode_field(_TIMESTAMP_TAG, timestamp_field)
            if timestamp is None:
                return None
            self._timestamp, self._timestamp_field = timestamp, timestamp_field
        # A varint counts up like a number, but where its seven lowest bits turn to zero. A field
        # that is longer than the last one, by zeros, is the same number and no varint like it.
        number = int.from_bytes(seq_field, "little")
        if number == self._next_seq_field and number & 0x7F00 and seq_field[-1]:
            seq_num: int | None = self._seq_num + 1
        else:
            seq_num = _decode_field(_SEQ_NUM_TAG, seq_field)
        if seq_num is None:
            return None
        self._seq_num, self._next_seq_field = seq_num, number + 0x100
        return (
            RecordKind.HEAD,
            seq_num,
            self._timestamp,
            1,
            len(body),
            dedupe_seq,
            writer_id,
            (),
            body,
        )

    def _read_any(self, data: bytes, at: int, start: int, end: int) -> ClassifiedRecord:
        seq_num, timestamp, headers, body, body_end = decode_sequenced_record(data, start, end)
        record = classify_headers(seq_num, timestamp, headers, _cut_body(data, body, body_end))
        _, _, _, num_records, num_bytes, _, lane, own_headers, _ = record
        if num_records == 1 and num_bytes == body_end - body and lane and not own_headers:
            self._learn_layout(record, data, at, end)
        return record

    def _learn_layout(self, record: ClassifiedRecord, data: bytes, at: int, end: int) -> None:
        """Remember the layout of the record between `at` and `end`, if it is the usual one."""
        _, seq_num, timestamp, _, num_bytes, _, writer_id, _, _ = record
        if end - at >= _MAX_LAYOUT_BYTES or not writer_id or len(writer_id) > MAX_WRITER_ID_BYTES:
            return
        seq_field = _SEQ_NUM_TAG + encode_varint(seq_num)
        timestamp_field = _TIMESTAMP_TAG + encode_varint(timestamp)
        layout = _Layout(num_bytes, seq_field, timestamp_field, writer_id)
        if at + layout.size != end:
            return
        if self._read_at_one_go(layout, data, at + layout.offset) != record:
            return
        if self._num_learned >= _MAX_LEARNED:
            self._layouts.clear()
            self._num_learned = 0
        self._num_learned += 1
        key = data[at : at + _KEY_BYTES]
        known = self._layouts.get(key)
        if known is not None and known.format == layout.format:
            known.learn_writer(writer_id)
        else:
            self._layouts[key] = layout


def _count_alike(found: tuple[Any, ...], expected: Iterable[Any]) -> int:
    """How many of the first ones are as expected."""
    wanted = tuple(expected)
    if found == wanted:
        return len(found)
    return next(i for i, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1])


# The first two bytes of the field of a number that has more: the tag, and its seven lowest bits.
_SEQ_FIELD_STARTS = tuple(_SEQ_NUM_TAG + bytes((0x80 | bits,)) for bits in range(0x80))


def _seq_fields(first: int, count: int) -> list[bytes]:
    """The fields of so many sequence numbers."""
    fields: list[bytes] = []
    end = first + count
    while first < end:
        # Up to where the seven lowest bits turn to zero the rest stays the same.
        stop = min(end, (first | 0x7F) + 1)
        if first < 0x80:
            fields += [_SEQ_NUM_TAG + bytes((number,)) for number in range(first, stop)]
        else:
            rest = encode_varint(first >> 7)
            low = first & 0x7F
            fields += [start + rest for start in _SEQ_FIELD_STARTS[low : low + stop - first]]
        first = stop
    return fields


def _delimit(data: bytes, at: int, size: int) -> tuple[int, int]:
    """Where the bytes of a length-delimited field start and end; its length is at `at`."""
    length, start = decode_varint(data, at, size)
    if start + length > size:
        raise RemoteProtocolError("a protobuf message ends inside a field")
    return start, start + length


def _decode_field(tag: bytes, field: bytes) -> int | None:
    """The number in a varint field, or None if `field` is not just that, as short as can be."""
    if field[:1] != tag or not 0 < field[-1] < 0x80:
        return None
    value, end = decode_varint(field, 1, len(field))
    return value if end == len(field) else None


def _cut_body(data: bytes, start: int, end: int) -> bytes | memoryview:
    size = end - start
    if size >= _MIN_VIEW_BYTES and len(data) - size <= len(data) * _MAX_VIEW_WASTE:
        return memoryview(data)[start:end]
    return data[start:end]
