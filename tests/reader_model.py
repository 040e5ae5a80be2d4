"""What a `FrameReader` must make of a stream: a slow account of it, a list of records a lane.

It knows no limit on memory or writers, and looks at headers through `framing` and `dedupe`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from attrs import define, field, frozen

from s2frames.dedupe import RESERVED_HEADERS, read_dedupe_headers
from s2frames.errors import RemoteProtocolError
from s2frames.events import (
    CommandReceived,
    DropReason,
    DuplicateDropped,
    FrameDropped,
    FrameReceived,
    GapDetected,
    ReaderEvent,
    RecordReceived,
    SequenceGapDetected,
)
from s2frames.framing import FRAME_BYTES, FRAME_RECORDS, FrameMeta, parse_frame_headers
from s2frames.records import Header, SequencedRecord


@frozen
class Lane:
    """Whose records: how events call the writer, and what tells it from all others."""

    writer_id: str | None
    key: bytes | None


@define
class Parsed:
    """A record that has its place in a lane."""

    lane: Lane
    seq: int
    meta: FrameMeta | None


def parse(headers: Sequence[Header]) -> Parsed | None:
    """The record's place, or None when its headers make no sense."""
    names = [name for name, _ in headers]
    try:
        meta = parse_frame_headers(headers)
        seq, writer = read_dedupe_headers(headers)
    except RemoteProtocolError:
        return None
    if (FRAME_RECORDS in names) != (FRAME_BYTES in names) or (
        meta and not meta.bytes * meta.records
    ):
        return None
    if seq is None:
        return Parsed(Lane(None, None), -1, meta) if writer is None else None
    if writer is None or writer == b"__legacy__":
        return Parsed(Lane(None, b"__legacy__"), seq, meta)
    if len(writer) > 256:
        writer = writer[:256] + b"~" + sha256(writer).hexdigest().encode()
    return Parsed(Lane(writer.decode(errors="replace"), writer), seq, meta)


@define
class Model:
    """The events of a stream, and which records each accounts for."""

    max_frame_bytes: int
    max_reread: int
    delivered: dict[Lane, int] = field(factory=dict)
    open: dict[Lane, list[SequencedRecord]] = field(factory=dict)
    metas: dict[Lane, FrameMeta] = field(factory=dict)
    events: list[ReaderEvent] = field(factory=list)
    accounted: list[int] = field(factory=list)
    # By lane, the last number accepted in the open frame.
    accepted: dict[Lane, int] = field(factory=dict)
    # By lane, the last number looked at, since its first frame was opened or delivered.
    seen: dict[Lane, int] = field(factory=dict)
    # By lane, where the frame starts that was given up.
    given_up: dict[Lane, int] = field(factory=dict)

    def read(self, records: Iterable[SequencedRecord]) -> None:
        expected = None
        for record in records:
            if expected is not None and record.seq_num != expected:
                for lane in self.by_head():
                    self.drop(lane, DropReason.TRIMMED)
                self.events.append(GapDetected(expected, record.seq_num))
            expected = record.seq_num + 1
            self.read_one(record)

    def by_head(self) -> list[Lane]:
        return sorted(self.open, key=lambda lane: self.open[lane][0].seq_num)

    def read_one(self, record: SequencedRecord) -> None:
        names = {name for name, _ in record.headers}
        in_frames = bool(names & RESERVED_HEADERS) or not names
        parsed = parse(record.headers) if in_frames else None
        for lane in self.by_head():
            is_its_own = parsed is not None and parsed.lane == lane
            start = self.open[lane][0].seq_num
            if record.seq_num - start > self.max_reread and not is_its_own:
                self.drop(lane, DropReason.INCOMPLETE)
                self.given_up[lane] = start
        if len(record.headers) == 1 and not record.headers[0][0]:
            self.account(
                CommandReceived(
                    record.seq_num, record.timestamp, record.headers[0][1], bytes(record.body)
                ),
                record,
            )
        elif not in_frames:
            self.account(RecordReceived(record), record)
        elif parsed is None:
            self.drop_record(DropReason.BAD_HEADER, None, record)
        elif parsed.seq >= 0 and parsed.seq <= self.last(parsed.lane):
            repeat = DuplicateDropped(parsed.lane.writer_id, record.seq_num, parsed.seq)
            self.account(repeat, record)
        else:
            self.read_new(record, parsed)

    def last(self, lane: Lane) -> int:
        known = self.accepted if lane in self.open else self.delivered
        return known.get(lane, -1)

    def read_new(self, record: SequencedRecord, parsed: Parsed) -> None:
        lane, seq, meta = parsed.lane, parsed.seq, parsed.meta
        seen = self.seen.get(lane, seq)
        if seq > seen + 1:
            self.events.append(SequenceGapDetected(lane.writer_id, record.seq_num, seen + 1, seq))
        if lane in self.seen:
            self.seen[lane] = max(seen, seq)
        if lane in self.open and seq >= 0 and seq != self.accepted[lane] + 1:
            self.drop(lane, DropReason.SEQUENCE_GAP)
        if meta is not None:
            self.given_up.pop(lane, None)
            if lane in self.open:
                self.drop(lane, DropReason.INCOMPLETE)
            if meta.bytes > self.max_frame_bytes:
                self.drop_record(DropReason.TOO_LARGE, lane, record)
                return
            self.open[lane], self.metas[lane] = [], meta
        elif lane not in self.open:
            if lane in self.given_up and (seq < 0 or seq > seen):
                start = self.given_up.pop(lane)
                event = FrameDropped(
                    DropReason.GIVEN_UP, lane.writer_id, start, len(record.body), ""
                )
                self.account(event, record)
            elif lane.key is None:
                self.account(RecordReceived(record), record)
            else:
                self.drop_record(DropReason.ORPHAN, lane, record)
            return
        self.add(record, lane, seq)

    def add(self, record: SequencedRecord, lane: Lane, seq: int) -> None:
        records, meta = self.open[lane], self.metas[lane]
        payload = b"".join(bytes(r.body) for r in [*records, record])
        whole = len(records) + 1 == meta.records
        reason = None
        if len(payload) > meta.bytes:
            reason = DropReason.OVERFLOW
        elif whole and len(payload) < meta.bytes:
            reason = DropReason.LENGTH_MISMATCH
        if reason is None:
            records.append(record)
            self.accepted[lane] = seq
            if seq >= 0:
                self.seen[lane] = max(self.seen.get(lane, seq), seq)
            if whole:
                self.deliver(lane, payload, seq)
        elif records:
            # Bytes that overflow are no longer counted as arrived; the last record's are.
            arrived = [*records, record] if reason is DropReason.LENGTH_MISMATCH else records
            self.accounted.append(record.seq_num)
            self.drop(lane, reason, sum(len(r.body) for r in arrived))
        else:
            self.close(lane)
            self.drop_record(reason, lane, record)

    def deliver(self, lane: Lane, payload: bytes, seq: int) -> None:
        records = self.open[lane]
        first, last = records[0], records[-1]
        own = tuple(header for header in first.headers if header[0] not in RESERVED_HEADERS)
        self.events.append(
            FrameReceived(
                payload, first.seq_num, last.seq_num + 1, first.timestamp, lane.writer_id, own
            )
        )
        self.accounted += [record.seq_num for record in records]
        self.close(lane)
        if lane.key is not None:
            self.delivered[lane] = seq

    def drop(self, lane: Lane, reason: DropReason, num_bytes: int | None = None) -> None:
        records = self.open[lane]
        arrived = sum(len(record.body) for record in records) if num_bytes is None else num_bytes
        self.events.append(FrameDropped(reason, lane.writer_id, records[0].seq_num, arrived, ""))
        self.accounted += [record.seq_num for record in records]
        self.close(lane)

    def drop_record(self, reason: DropReason, lane: Lane | None, record: SequencedRecord) -> None:
        writer_id = lane.writer_id if lane else None
        self.account(FrameDropped(reason, writer_id, record.seq_num, len(record.body), ""), record)

    def account(self, event: ReaderEvent, record: SequencedRecord) -> None:
        self.events.append(event)
        self.accounted.append(record.seq_num)

    def close(self, lane: Lane) -> None:
        for known in (self.open, self.metas, self.accepted):
            known.pop(lane, None)
