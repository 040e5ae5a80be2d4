"""`FrameReader`: records in, events out.

Rules of this file:

- A lane a writer. Only what is delivered advances a lane: a frame that is dropped leaves it as it
  was before the frame's head, so that a later whole copy is delivered.
- A record is handled in two steps. First the way is cleared (`_clear_way`): gaps, frames that are
  abandoned, superseded or in the way of a limit, each with an event of its own. Then it is taken
  (`_take`): one change of state, at most one event. State changes just before an event is handed
  out, so that a checkpoint is as of the last event taken.
- A lane is in `_open` while it has an open frame, else in `_idle`; both dicts are ordered by the
  lanes' last records, the oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import cast

from attrs import define, field

from s2frames.checkpoint import Checkpoint, LaneCheckpoint, check_checkpoint, lane_writer_id
from s2frames.checks import as_bytes, check_int, check_type
from s2frames.classify import UNNUMBERED, ClassifiedRecord, RecordKind, classify, find_problem
from s2frames.errors import LocalProtocolError, RemoteProtocolError
from s2frames.events import (
    CaughtUp,
    CommandReceived,
    DropReason,
    DuplicateDropped,
    FrameDropped,
    FrameReceived,
    FramesReceived,
    GapDetected,
    ReaderEvent,
    RecordReceived,
    WriterForgotten,
)
from s2frames.framed_wire import BatchScanner, Run
from s2frames.framing import DEFAULT_MAX_FRAME_BYTES
from s2frames.open_frame import OpenFrame, pinned_bytes
from s2frames.records import SequencedRecord, StreamPosition, as_sequenced
from s2frames.u64 import U64_MAX

__all__ = [
    "DEFAULT_ABANDON_AFTER",
    "DEFAULT_MAX_BUFFERED_BYTES",
    "DEFAULT_MAX_WRITERS",
    "FrameReader",
    "ReaderStats",
]

#: Writers remembered.
DEFAULT_MAX_WRITERS = 4096

#: Bytes of open frames held, over all writers: room for two of the largest and some.
DEFAULT_MAX_BUFFERED_BYTES = 256 * 1024 * 1024

#: Milliseconds of record timestamps after which a silent writer's open frame is given up.
DEFAULT_ABANDON_AFTER = 10 * 60 * 1000

_HEAD, _CHUNK = RecordKind.HEAD, RecordKind.CHUNK

# No dedupe sequence: one was not given, or nothing was delivered yet.
_NO_SEQ = -1

# No sequence number is expected yet.
_ANYWHERE = -1

# Beyond the sequence number of every record: the tail comes after the last one, and is a u64 too.
_NOWHERE = U64_MAX


@define(eq=False)
class _Lane:
    """What is known of one writer."""

    key: bytes | None
    writer_id: str | None
    #: The last dedupe sequence delivered.
    delivered: int = _NO_SEQ
    #: The last dedupe sequence accepted, in the open frame too.
    accepted: int = _NO_SEQ
    frame: OpenFrame | None = None


@define
class ReaderStats:
    """What a reader has seen so far."""

    records: int = 0
    frames: int = 0
    duplicates: int = 0
    commands: int = 0
    #: Records that belong to no frame.
    other_records: int = 0
    #: Places where records are missing from the stream.
    gaps: int = 0
    #: Places where a writer's numbering skips records between two frames.
    sequence_gaps: int = 0
    #: Writers whose numbering was forgotten to make room.
    writers_forgotten: int = 0
    dropped: dict[DropReason, int] = field(factory=lambda: dict.fromkeys(DropReason, 0))


class FrameReader:
    """Puts messages together again: each once, whole, and in its writer's order.

    Args:
        start: the sequence number that should come first; None accepts any.
        end: take nothing from this sequence number on.
        dedupe: drop the repeats of retried appends.
        max_frame_bytes: the largest payload.
        max_writers: writers remembered; the one longest silent is forgotten first.
        max_buffered_bytes: bytes of open frames held, not below `max_frame_bytes`.
        abandon_after: milliseconds of record timestamps after which the open frame of a silent
            writer is given up.
    """

    def __init__(
        self,
        *,
        start: int | None = None,
        end: int | None = None,
        dedupe: bool = True,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        max_writers: int = DEFAULT_MAX_WRITERS,
        max_buffered_bytes: int | None = None,
        abandon_after: int = DEFAULT_ABANDON_AFTER,
    ) -> None:
        check_type("dedupe", dedupe, bool)
        check_int("max_frame_bytes", max_frame_bytes, 1)
        check_int("max_writers", max_writers, 1)
        check_int("abandon_after", abandon_after, 1)
        if max_buffered_bytes is None:
            max_buffered_bytes = max(DEFAULT_MAX_BUFFERED_BYTES, max_frame_bytes)
        check_int("max_buffered_bytes", max_buffered_bytes, 1)
        if max_buffered_bytes < max_frame_bytes:
            raise LocalProtocolError(
                f"max_buffered_bytes ({max_buffered_bytes}) must not be below "
                f"max_frame_bytes ({max_frame_bytes})"
            )
        if start is not None:
            check_int("start", start)
        if end is not None:
            check_int("end", end)
        self._dedupe = dedupe
        self._max_frame_bytes = max_frame_bytes
        self._max_writers = max_writers
        self._max_buffered_bytes = max_buffered_bytes
        self._abandon_after = abandon_after
        self._scanner = BatchScanner()
        self._idle: dict[bytes | None, _Lane] = {}
        self._open: dict[bytes | None, _Lane] = {}
        # The lane that was last put at the end of `_idle`.
        self._latest: _Lane | None = None
        self._buffered_bytes = 0
        # The next sequence number not yet looked at.
        self._next_seq = _ANYWHERE if start is None else start
        self._is_bounded = end is not None
        # The first sequence number that is not taken.
        self._end = _NOWHERE if end is None else end
        # Below this one, records were accounted for by the reader that this one goes on from.
        self._replay_until = 0
        # Lanes whose open frame must be read once more, by its head.
        self._awaited: dict[int, _Lane] = {}
        self._caught_up: StreamPosition | None = None
        self._is_iterated = False
        self._takes_runs = False
        self._is_closed = False
        #: Counters, for people.
        self.stats = ReaderStats()

    @classmethod
    def resume(
        cls,
        checkpoint: Checkpoint,
        *,
        end: int | None = None,
        dedupe: bool = True,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        max_writers: int = DEFAULT_MAX_WRITERS,
        max_buffered_bytes: int | None = None,
        abandon_after: int = DEFAULT_ABANDON_AFTER,
    ) -> FrameReader:
        """A reader that goes on from `checkpoint`: give it the records from `read_from` on."""
        check_checkpoint(checkpoint)
        reader = cls(
            start=checkpoint.read_from,
            end=end,
            dedupe=dedupe,
            max_frame_bytes=max_frame_bytes,
            max_writers=max_writers,
            max_buffered_bytes=max_buffered_bytes,
            abandon_after=abandon_after,
        )
        reader._replay_until = checkpoint.seen_through
        for known in checkpoint.lanes:
            last = _NO_SEQ if known.last_dedupe_seq is None else known.last_dedupe_seq
            lane = _Lane(known.lane, lane_writer_id(known.lane), last, last)
            if known.head is None:
                reader._idle[known.lane] = lane
            else:
                lane.frame = OpenFrame.awaited(known.head)
                reader._open[known.lane] = lane
                reader._awaited[known.head] = lane
        return reader

    @property
    def next_seq_num(self) -> int | None:
        """The sequence number of the next record to receive; None when any may come."""
        return None if self._next_seq == _ANYWHERE else self._next_seq

    @property
    def has_reached_end(self) -> bool:
        """Whether everything below `end` was taken."""
        return self._is_bounded and self._next_seq >= self._end

    @property
    def buffered_bytes(self) -> int:
        """Bytes of memory that open frames hold."""
        return self._buffered_bytes

    @property
    def caught_up(self) -> StreamPosition | None:
        """The tail, while everything up to it has been read and as far as is known."""
        return self._caught_up

    def checkpoint(self) -> Checkpoint:
        """Where to go on, as of the last event taken.

        Raises `LocalProtocolError` before the first record when no `start` was given.
        """
        if self._next_seq == _ANYWHERE:
            raise LocalProtocolError("there is no checkpoint before the first record")
        lanes = tuple(
            LaneCheckpoint(
                lane.key,
                None if lane.delivered == _NO_SEQ else lane.delivered,
                None if lane.frame is None else lane.frame.head,
            )
            for lane in (*self._idle.values(), *self._open.values())
        )
        seen_through = max(self._next_seq, self._replay_until)
        heads = [lane.head for lane in lanes if lane.head is not None]
        return Checkpoint(min(heads, default=seen_through), seen_through, lanes)

    def receive_records(self, records: Iterable[SequencedRecord]) -> Iterator[ReaderEvent]:
        """Take records in stream order; yields what they amount to.

        The reader advances as the iterator is consumed, which must be to its end before more is
        received. Raises `RemoteProtocolError` when sequence numbers go back.
        """
        if not isinstance(records, Iterable):
            raise LocalProtocolError(f"records are an iterable, not {type(records).__name__}")
        self._enter()
        return cast(
            "Iterator[ReaderEvent]",
            self._events(classify(map(as_sequenced, records)), self._end_records),
        )

    def receive_batch(self, data: bytes) -> Iterator[ReaderEvent]:
        """Take an encoded `ReadBatch`; otherwise as `receive_records`, and tells of the tail.

        Raises `RemoteProtocolError` when `data` is no such message.
        """
        data = as_bytes("a ReadBatch", data)
        self._enter()
        events = self._events(
            self._scanner.scan_runs(data), partial(self._end_batch, self._next_seq)
        )
        return cast("Iterator[ReaderEvent]", events)

    def receive_batch_at_once(self, data: bytes) -> Iterator[ReaderEvent | FramesReceived]:
        """As `receive_batch`, with messages that look alike together: for speed."""
        data = as_bytes("a ReadBatch", data)
        self._enter()
        self._takes_runs = True
        return self._events(self._scanner.scan_runs(data), partial(self._end_batch, self._next_seq))

    def receive_eof(self) -> Iterator[ReaderEvent]:
        """No more records come: tells which frames are incomplete.

        It does not move the checkpoint: the rest of those frames may be appended later.
        """
        self._enter()
        self._is_closed = True
        return self._incomplete_frames()

    def connection_lost(self) -> None:
        """The stream is read anew from `next_seq_num`; whether it is caught up is unknown."""
        self._caught_up = None
        self._is_iterated = False

    # Iterating

    def _enter(self) -> None:
        if self._is_closed:
            raise LocalProtocolError("the reader was told that no more records come")
        if self._is_iterated:
            raise LocalProtocolError(
                "take all events of the records received before, then receive more"
            )
        self._is_iterated = True
        self._takes_runs = False

    def _end_records(self) -> Iterator[ReaderEvent]:
        self._is_iterated = False
        return iter(())

    def _end_batch(self, before: int) -> Iterator[ReaderEvent]:
        """What the tail of a batch tells; `before` is where the reader was when the batch came."""
        tail = self._scanner.tail
        if tail is not None and self._next_seq == before:
            # A batch without records says where the reader is: nothing survives below.
            yield from self._skip(tail.seq_num)
        was_caught_up = self._caught_up
        self._caught_up = tail if tail is not None and tail.seq_num == self._next_seq else None
        self._is_iterated = False
        if self._caught_up is not None and self._caught_up != was_caught_up:
            yield CaughtUp(self._caught_up)

    def _incomplete_frames(self) -> Iterator[ReaderEvent]:
        for lane in self._by_head():
            self.stats.dropped[DropReason.INCOMPLETE] += 1
            yield _describe_drop(lane, DropReason.INCOMPLETE, "reading ended before the frame did")

    def _events(
        self,
        records: Iterable[ClassifiedRecord | Run],
        end: Callable[[], Iterator[ReaderEvent]],
    ) -> Iterator[ReaderEvent | FramesReceived]:
        # One generator for all of it: every level more is passed through for every message.
        try:
            for record in self._singly(records):
                if type(record) is Run:
                    lane = self._begin_run(record)
                    seq_num, dedupe_seq = record.seq_num, record.dedupe_seq
                    timestamp, writer_id, stats = record.timestamp, lane.writer_id, self.stats
                    if self._takes_runs:
                        count = len(record.bodies)
                        lane.delivered = lane.accepted = dedupe_seq + count - 1
                        self._next_seq = seq_num + count
                        stats.records += count
                        stats.frames += count
                        yield FramesReceived(record.bodies, seq_num, timestamp, writer_id)
                        continue
                    for body in record.bodies:
                        lane.delivered = lane.accepted = dedupe_seq
                        dedupe_seq += 1
                        start = seq_num
                        self._next_seq = seq_num = start + 1
                        stats.records += 1
                        stats.frames += 1
                        yield FrameReceived(body, start, seq_num, timestamp, writer_id, ())
                    continue
                seq_num = record[1]
                if seq_num >= self._end:
                    yield from self._stop(seq_num)
                    return
                if seq_num < self._replay_until:
                    yield from self._replay(record)
                    continue
                if seq_num != self._next_seq or self._open or len(self._idle) >= self._max_writers:
                    yield from self._clear_way(record)
                event = self._take_head(record) if record[0] is _HEAD else self._take_other(record)
                if event is not None:
                    yield event
        except Exception:
            # The records before it were taken; reading may go on after them.
            self._is_iterated = False
            raise
        yield from end()

    def _singly(
        self, records: Iterable[ClassifiedRecord | Run]
    ) -> Iterator[ClassifiedRecord | Run]:
        """The records one by one, but for runs in which every record is a frame to be delivered."""
        for item in records:
            if type(item) is not Run:
                yield item if self._dedupe else _without_number(item)
            elif self._is_plain(item):
                yield item
            elif self._dedupe:
                yield from item.records()
            else:
                yield from map(_without_number, item.records())

    def _is_plain(self, run: Run) -> bool:
        """Whether nothing has to be done about the run's records but to deliver them."""
        lane = self._idle.get(run.writer_id)
        return (
            self._dedupe
            and run.seq_num == self._next_seq
            and run.seq_num >= self._replay_until
            and run.seq_num + len(run.bodies) <= self._end
            and not self._open
            and len(self._idle) < self._max_writers
            and len(run.bodies[0]) <= self._max_frame_bytes
            and (lane is None or run.dedupe_seq > lane.accepted)
        )

    def _begin_run(self, run: Run) -> _Lane:
        """The lane of a run; the rest of its records is like the first."""
        lane = self._idle.get(run.writer_id)
        if lane is None:
            lane = _Lane(run.writer_id, lane_writer_id(run.writer_id))
        elif run.dedupe_seq > lane.accepted + 1:
            self.stats.sequence_gaps += 1
        if lane is not self._latest:
            self._touch_idle(lane)
        return lane

    def _stop(self, seq_num: int) -> Iterator[ReaderEvent]:
        """A record that is not to be taken: nothing more comes before `end`."""
        if seq_num >= _NOWHERE:
            raise RemoteProtocolError(f"no record has the sequence number {seq_num} (2^64 - 1)")
        self._caught_up = None
        yield from self._skip(seq_num)
        self._is_iterated = False

    def _replay(self, record: ClassifiedRecord) -> Iterator[ReaderEvent]:
        """A record that was accounted for: only open frames need it once more."""
        kind, seq_num, _, _, _, _, key, _, _ = record
        yield from self._jump(seq_num)
        awaited = self._awaited.get(seq_num)
        if awaited is not None and not _can_reopen(awaited, record):
            raise LocalProtocolError(
                "the checkpoint is not one of this stream: "
                f"no frame of its writer starts at {seq_num}"
            )
        lane = self._open.get(key) if kind in (_HEAD, _CHUNK) else None
        if lane is None or lane.frame is None or lane.frame.head > seq_num:
            self._next_seq = seq_num + 1
            return
        yield from self._clear_way(record)
        if awaited is not None and awaited.frame is not None:
            self._close_frame(awaited, awaited.frame)
        event = self._take_head(record) if kind is _HEAD else self._take_other(record)
        if event is not None and not isinstance(event, DuplicateDropped):
            yield event

    # Clearing the way

    def _clear_way(self, record: ClassifiedRecord) -> Iterator[ReaderEvent]:
        kind, seq_num, timestamp, _, _, dedupe_seq, key, _, body = record
        yield from self._jump(seq_num)
        in_lane = kind is _HEAD or kind is _CHUNK
        lane = self._open.get(key) if in_lane else None
        if lane is not None and lane.frame is not None:
            self._touch_open(lane, timestamp)
        yield from self._abandon(timestamp)
        if lane is None:
            if kind is _HEAD and key is not UNNUMBERED and key not in self._idle:
                yield from self._forget_for_one_more()
        elif not _NO_SEQ < dedupe_seq <= lane.accepted:
            yield from self._supersede(lane, kind, seq_num, dedupe_seq)
        if in_lane and self._is_kept(record):
            yield from self._make_room(self._open.get(key), body)

    def _is_kept(self, record: ClassifiedRecord) -> bool:
        """Whether an open frame will hold the record's body."""
        kind, _, _, num_records, num_bytes, dedupe_seq, key, _, body = record
        lane = self._find(key)
        if lane is not None and _NO_SEQ < dedupe_seq <= lane.accepted:
            return False
        if kind is _HEAD:
            return num_records > 1 and len(body) <= num_bytes <= self._max_frame_bytes
        return lane is not None and lane.frame is not None

    def _jump(self, seq_num: int) -> Iterator[ReaderEvent]:
        """Account for what lies between the last record and `seq_num`."""
        expected = self._next_seq
        if seq_num == expected:
            return
        if expected == _ANYWHERE:
            self._next_seq = seq_num
            return
        if seq_num < expected:
            raise RemoteProtocolError(f"record {seq_num} came where {expected} was next")
        for lane in self._by_head():
            if lane.frame is not None and lane.frame.head < seq_num:
                detail = f"records {expected} to {seq_num - 1} are no longer in the stream"
                yield self._drop(lane, DropReason.TRIMMED, detail)
        self._next_seq = seq_num
        self.stats.gaps += 1
        yield GapDetected(expected, seq_num)

    def _skip(self, seq_num: int) -> Iterator[ReaderEvent]:
        """Nothing is to be taken before `seq_num`, nor from `end` on."""
        target = min(seq_num, self._end)
        if target > self._next_seq:
            yield from self._jump(target)

    def _by_head(self) -> list[_Lane]:
        """The lanes with an open frame, in the order of their heads."""
        lanes = [(lane.frame.head, lane) for lane in self._open.values() if lane.frame]
        return [lane for _, lane in sorted(lanes, key=lambda pair: pair[0])]

    def _abandon(self, timestamp: int) -> Iterator[ReaderEvent]:
        """Give up the frames whose writers fell silent."""
        while self._open:
            lane = next(iter(self._open.values()))
            frame = lane.frame
            if frame is None or frame.is_awaited:
                return
            silence = timestamp - frame.last_timestamp
            if silence <= self._abandon_after:
                return
            yield self._drop(lane, DropReason.INCOMPLETE, f"its writer was silent for {silence} ms")

    def _forget_for_one_more(self) -> Iterator[ReaderEvent]:
        """Forget lanes until one more fits; idle ones before open ones, the oldest first.

        The lane without numbers does not count: between frames nothing is remembered of it.
        """
        while len(self._idle) + len(self._open) - (UNNUMBERED in self._open) >= self._max_writers:
            if not self._idle:
                lane = next(lane for lane in self._open.values() if lane.key is not UNNUMBERED)
                detail = f"more than {self._max_writers} writers (max_writers) have open frames"
                yield self._drop(lane, DropReason.EVICTED, detail)
                continue
            lane = self._idle.pop(next(iter(self._idle)))
            self._latest = None
            last = None if lane.delivered == _NO_SEQ else lane.delivered
            self.stats.writers_forgotten += 1
            yield WriterForgotten(lane.writer_id, last)

    def _supersede(
        self, lane: _Lane, kind: RecordKind, seq_num: int, dedupe_seq: int
    ) -> Iterator[ReaderEvent]:
        """Drop the lane's open frame when a new record shows that it cannot be completed."""
        if lane.frame is None or lane.frame.is_awaited:
            return
        if dedupe_seq > lane.accepted + 1:
            detail = f"dedupe sequence {dedupe_seq} came after {lane.accepted}"
            yield self._drop(lane, DropReason.SEQUENCE_GAP, detail)
        elif kind is _HEAD:
            detail = f"its writer began another frame at {seq_num}"
            yield self._drop(lane, DropReason.INCOMPLETE, detail)

    def _make_room(self, lane: _Lane | None, body: bytes | memoryview) -> Iterator[ReaderEvent]:
        """Drop other lanes' frames, the one longest silent first, until `body` fits."""
        while self._buffered_bytes + pinned_bytes(body) > self._max_buffered_bytes:
            victim = next(
                (other for other in self._open.values() if other is not lane and _holds(other)),
                None,
            )
            if victim is None:
                break
            detail = f"open frames exceed {self._max_buffered_bytes} bytes (max_buffered_bytes)"
            yield self._drop(victim, DropReason.EVICTED, detail)
        else:
            return
        if lane is not None and lane.frame is not None:
            # Alone, a frame fits as soon as it holds nothing but its payload.
            self._buffered_bytes -= lane.frame.pinned
            lane.frame.compact()
            self._buffered_bytes += lane.frame.pinned

    # Taking

    def _take_other(self, record: ClassifiedRecord) -> ReaderEvent | None:
        kind, seq_num, timestamp, _, _, _, _, headers, body = record
        self._next_seq = seq_num + 1
        self.stats.records += 1
        if kind is _CHUNK:
            return self._take_chunk(record)
        body = bytes(body)
        if kind is RecordKind.COMMAND:
            self.stats.commands += 1
            return CommandReceived(seq_num, timestamp, headers[0][1], body)
        if kind is RecordKind.BAD:
            problem = find_problem(headers) or ""
            return self._drop_record(DropReason.BAD_HEADER, None, seq_num, body, problem)
        self.stats.other_records += 1
        return RecordReceived(SequencedRecord(seq_num, timestamp, headers, body))

    def _take_head(self, record: ClassifiedRecord) -> ReaderEvent | None:
        # Runs for every message: what most of them are comes without a call that can be spared.
        _, seq_num, timestamp, num_records, num_bytes, dedupe_seq, key, headers, body = record
        self._next_seq = seq_num + 1
        self.stats.records += 1
        lane = self._idle.get(key)
        if lane is None:
            lane = self._open.get(key) or _Lane(key, lane_writer_id(key))
        if _NO_SEQ < dedupe_seq <= lane.accepted:
            return self._drop_repeat(lane, seq_num, dedupe_seq)
        if num_records != 1 or len(body) != num_bytes or num_bytes > self._max_frame_bytes:
            return self._take_long_head(lane, record)
        if dedupe_seq != _NO_SEQ:
            if dedupe_seq > lane.accepted + 1 and lane.accepted != _NO_SEQ:
                self.stats.sequence_gaps += 1
            lane.delivered = lane.accepted = dedupe_seq
            if lane is not self._latest:
                self._touch_idle(lane)
        self.stats.frames += 1
        # A frame of one record may come as a view; the payload outlives the batch.
        payload = body if type(body) is bytes else bytes(body)
        return FrameReceived(payload, seq_num, seq_num + 1, timestamp, lane.writer_id, headers)

    def _take_long_head(self, lane: _Lane, record: ClassifiedRecord) -> FrameDropped | None:
        """A head whose frame goes on after it, or cannot be."""
        _, seq_num, timestamp, num_records, num_bytes, dedupe_seq, _, headers, body = record
        size = len(body)
        if num_bytes > self._max_frame_bytes:
            detail = f"it declares {num_bytes} bytes; {self._max_frame_bytes} are allowed"
            return self._drop_record(DropReason.TOO_LARGE, lane.writer_id, seq_num, body, detail)
        if size > num_bytes or (num_records == 1 and size < num_bytes):
            reason = DropReason.OVERFLOW if size > num_bytes else DropReason.LENGTH_MISMATCH
            detail = f"{size} bytes arrived and it declares {num_bytes}"
            return self._drop_record(reason, lane.writer_id, seq_num, body, detail)
        if dedupe_seq > lane.accepted + 1 and lane.accepted != _NO_SEQ:
            self.stats.sequence_gaps += 1
        frame = OpenFrame.opened(seq_num, timestamp, num_records, num_bytes, headers, body)
        self._open_frame(lane, frame, dedupe_seq)
        return None

    def _take_chunk(self, record: ClassifiedRecord) -> ReaderEvent | None:
        _, seq_num, timestamp, _, _, dedupe_seq, key, headers, body = record
        lane = self._find(key)
        if lane is not None and _NO_SEQ < dedupe_seq <= lane.accepted:
            return self._drop_repeat(lane, seq_num, dedupe_seq)
        if lane is None or lane.frame is None:
            if key is UNNUMBERED:
                self.stats.other_records += 1
                return RecordReceived(SequencedRecord(seq_num, timestamp, headers, bytes(body)))
            detail = "the start of its frame was not read, or was dropped"
            writer_id = lane_writer_id(key)
            return self._drop_record(DropReason.ORPHAN, writer_id, seq_num, body, detail)
        frame = lane.frame
        if frame.received_bytes + len(body) > frame.num_bytes:
            detail = f"more than the {frame.num_bytes} bytes arrived that it declares"
            return self._drop(lane, DropReason.OVERFLOW, detail)
        self._buffered_bytes -= frame.pinned
        frame.add(body)
        self._buffered_bytes += frame.pinned
        lane.accepted = dedupe_seq
        if frame.received_records < frame.num_records:
            return None
        if frame.received_bytes < frame.num_bytes:
            detail = f"{frame.received_bytes} bytes arrived and it declares {frame.num_bytes}"
            return self._drop(lane, DropReason.LENGTH_MISMATCH, detail)
        return self._deliver(lane, frame, seq_num, dedupe_seq)

    def _deliver(
        self, lane: _Lane, frame: OpenFrame, last_seq_num: int, dedupe_seq: int
    ) -> FrameReceived:
        payload = frame.payload()
        self._close_frame(lane, frame)
        self._advance(lane, dedupe_seq)
        self.stats.frames += 1
        return FrameReceived(
            payload, frame.head, last_seq_num + 1, frame.timestamp, lane.writer_id, frame.headers
        )

    # Lanes

    def _find(self, key: bytes | None) -> _Lane | None:
        lane = self._idle.get(key)
        return self._open.get(key) if lane is None and self._open else lane

    def _advance(self, lane: _Lane, dedupe_seq: int) -> None:
        """Everything of the lane up to `dedupe_seq` is delivered."""
        if dedupe_seq != _NO_SEQ:
            lane.delivered = lane.accepted = dedupe_seq
            self._touch_idle(lane)

    def _touch_idle(self, lane: _Lane) -> None:
        self._latest = lane
        self._idle.pop(lane.key, None)
        self._idle[lane.key] = lane

    def _touch_open(self, lane: _Lane, timestamp: int) -> None:
        if lane.frame is not None:
            lane.frame.last_timestamp = timestamp
        self._open[lane.key] = self._open.pop(lane.key)

    def _open_frame(self, lane: _Lane, frame: OpenFrame, dedupe_seq: int) -> None:
        self._idle.pop(lane.key, None)
        self._open.pop(lane.key, None)
        self._open[lane.key] = lane
        self._latest = None
        self._buffered_bytes += frame.pinned
        lane.frame = frame
        lane.accepted = dedupe_seq

    def _close_frame(self, lane: _Lane, frame: OpenFrame) -> None:
        """Take the lane out of `_open`, as it was before the frame's head."""
        lane.frame = None
        lane.accepted = lane.delivered
        self._buffered_bytes -= frame.pinned
        self._awaited.pop(frame.head, None)
        del self._open[lane.key]
        if lane.delivered != _NO_SEQ:
            self._idle[lane.key] = lane
            self._latest = lane

    # Dropping

    def _drop(self, lane: _Lane, reason: DropReason, detail: str) -> FrameDropped:
        """Give up the lane's open frame."""
        event = _describe_drop(lane, reason, detail)
        if lane.frame is not None:
            self._close_frame(lane, lane.frame)
        self.stats.dropped[reason] += 1
        return event

    def _drop_record(
        self,
        reason: DropReason,
        writer_id: str | None,
        seq_num: int,
        body: bytes | memoryview,
        detail: str,
    ) -> FrameDropped:
        self.stats.dropped[reason] += 1
        return FrameDropped(reason, writer_id, seq_num, len(body), detail)

    def _drop_repeat(self, lane: _Lane, seq_num: int, dedupe_seq: int) -> DuplicateDropped:
        self.stats.duplicates += 1
        if lane.frame is None:
            self._touch_idle(lane)
        return DuplicateDropped(lane.writer_id, seq_num, dedupe_seq)


def _can_reopen(awaited: _Lane, record: ClassifiedRecord) -> bool:
    """Whether `record` can be the head that a checkpoint names."""
    kind, _, _, num_records, _, dedupe_seq, key, _, _ = record
    is_repeat = _NO_SEQ < dedupe_seq <= awaited.accepted
    return kind is _HEAD and key == awaited.key and num_records > 1 and not is_repeat


def _holds(lane: _Lane) -> bool:
    """Whether dropping the lane's frame frees memory: one to be read once more holds none yet."""
    return lane.frame is not None and not lane.frame.is_awaited


def _without_number(record: ClassifiedRecord) -> ClassifiedRecord:
    kind, seq_num, timestamp, num_records, num_bytes, _, key, headers, body = record
    return kind, seq_num, timestamp, num_records, num_bytes, _NO_SEQ, key, headers, body


def _describe_drop(lane: _Lane, reason: DropReason, detail: str) -> FrameDropped:
    frame = lane.frame
    head, received = (frame.head, frame.received_bytes) if frame else (0, 0)
    return FrameDropped(reason, lane.writer_id, head, received, detail)
