"""`FrameReader`: records in, events out.

Rules of this file:

- A lane a writer. Only what is delivered advances a lane: a frame that is dropped leaves it as it
  was before the frame's head, so that a later whole copy is delivered.
- A record is handled in two steps. First the way is cleared (`_clear_way`): gaps, frames that are
  given up, superseded or in the way of a limit, each with an event of its own. Then it is taken
  (`_take`): one change of state, at most one event. State changes just before an event is handed
  out, so that a checkpoint is as of the last event taken.
- A lane begins with a frame that is opened or delivered. It is in `_open` while it has an open
  frame, else in `_idle`; both dicts are ordered by the lanes' last records, the oldest first.
- A lane remembers the frame that was given up, and how far its numbers were looked at: a record
  that goes on with the frame proves that its writer lives, so that a durable message is lost.
- No clock is compared with another one: how long a writer was silent is counted in records.
- What a signal raises in the midst of a record leaves the reader torn. `_savepoint` is what it was
  when the batch began: from there the batch is taken again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from inspect import GEN_CLOSED, getgeneratorstate
from typing import TypeAlias, cast

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
    SequenceGapDetected,
    WriterForgotten,
)
from s2frames.framed_wire import BatchScanner, Run
from s2frames.framing import DEFAULT_MAX_FRAME_BYTES
from s2frames.open_frame import Arrived, OpenFrame, pinned_bytes
from s2frames.records import SequencedRecord, StreamPosition, as_sequenced
from s2frames.u64 import U64_MAX

__all__ = [
    "DEFAULT_MAX_BUFFERED_BYTES",
    "DEFAULT_MAX_REREAD",
    "DEFAULT_MAX_WRITERS",
    "FrameReader",
    "ReaderStats",
]

#: Writers remembered.
DEFAULT_MAX_WRITERS = 4096

#: Bytes of open frames held, over all writers: room for two of the largest and some.
DEFAULT_MAX_BUFFERED_BYTES = 256 * 1024 * 1024

#: Records that a checkpoint reaches back at most: some seconds of reading (400,000 small records a
#: second were measured), and more than others append while a writer waits for its connection.
DEFAULT_MAX_REREAD = 1_000_000

_HEAD, _CHUNK = RecordKind.HEAD, RecordKind.CHUNK

# No dedupe sequence: one was not given, or nothing was delivered yet.
_NO_SEQ = -1

# No sequence number is expected yet.
_ANYWHERE = -1

# Beyond the sequence number of every record: the tail comes after the last one, and is a u64 too.
_NOWHERE = U64_MAX

_Events: TypeAlias = Generator[ReaderEvent | FramesReceived, None, None]


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
    #: Places where a writer's numbering skips records.
    sequence_gaps: int = 0
    #: Writers whose numbering was forgotten to make room.
    writers_forgotten: int = 0
    dropped: dict[DropReason, int] = field(factory=lambda: dict.fromkeys(DropReason, 0))

    def copy(self) -> ReaderStats:
        """The same counts, to keep."""
        return ReaderStats(
            self.records,
            self.frames,
            self.duplicates,
            self.commands,
            self.other_records,
            self.gaps,
            self.sequence_gaps,
            self.writers_forgotten,
            dict(self.dropped),
        )


@define(eq=False)
class _Lane:
    """What is known of one writer."""

    key: bytes | None
    writer_id: str | None
    #: The last dedupe sequence delivered.
    delivered: int = _NO_SEQ
    #: The last dedupe sequence accepted, in the open frame too.
    accepted: int = _NO_SEQ
    #: The last dedupe sequence looked at, whatever became of its record.
    seen: int = _NO_SEQ
    frame: OpenFrame | None = None
    #: Where the frame starts that was given up last, until another one begins.
    given_up: int | None = None
    #: The number of the batch for which it was saved last.
    saved_for: int = 0
    #: What orders the idle lanes: the later it was put there, the higher.
    rank: int = 0


# A lane, whether it is idle, its numbers and its rank, what was given up, its frame, and what of
# that has arrived.
_SavedLane: TypeAlias = tuple[
    _Lane, bool, tuple[int, int, int, int], int | None, OpenFrame | None, Arrived | None
]


@define(eq=False)
class _Savepoint:
    """What a reader was when it began with a batch."""

    #: The batch.
    data: bytes
    open: dict[bytes | None, _Lane]
    latest: _Lane | None
    next_seq: int
    has_begun: bool
    buffered_bytes: int
    oldest_head: int
    awaited: dict[int, _Lane]
    caught_up: StreamPosition | None
    stats: ReaderStats
    #: Lanes that have changed since, each with what it was. All of them are not copied: there may
    #: be thousands, and a batch of one record.
    lanes: list[_SavedLane] = field(factory=list)

    def save(self, lane: _Lane, *, is_idle: bool) -> None:
        """The lane is about to change."""
        frame = lane.frame
        arrived = None if frame is None else frame.arrived
        numbers = (lane.delivered, lane.accepted, lane.seen, lane.rank)
        self.lanes.append((lane, is_idle, numbers, lane.given_up, frame, arrived))

    def restore_lanes(self, idle: dict[bytes | None, _Lane]) -> dict[bytes | None, _Lane]:
        """Give every lane back what it was; returns the idle ones, of those that are idle now."""
        kept = dict(idle)
        for lane, _, numbers, given_up, frame, arrived in self.lanes:
            kept.pop(lane.key, None)
            lane.delivered, lane.accepted, lane.seen, lane.rank = numbers
            lane.frame, lane.given_up = frame, given_up
            if frame is not None and arrived is not None:
                frame.go_back(arrived)
        kept.update((saved[0].key, saved[0]) for saved in self.lanes if saved[1])
        return dict(sorted(kept.items(), key=lambda item: item[1].rank))


class FrameReader:
    """Puts messages together again: each once, whole, and in its writer's order.

    Args:
        start: the sequence number that should come first; None accepts any.
        end: take nothing from this sequence number on.
        dedupe: drop the repeats of retried appends. Without, streams are for one writer at a time:
            the records of several, and repeats, would make a message of theirs together.
        max_frame_bytes: the largest payload.
        max_writers: writers remembered; the one longest silent is forgotten first.
        max_buffered_bytes: bytes of open frames held, not below `max_frame_bytes`.
        max_reread: records that a checkpoint reaches back at most, for the sake of frames that are
            open: one that began before is given up. If its writer goes on with it all the same,
            that is told as a loss.
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
        max_reread: int = DEFAULT_MAX_REREAD,
    ) -> None:
        check_type("dedupe", dedupe, bool)
        check_int("max_frame_bytes", max_frame_bytes, 1)
        check_int("max_writers", max_writers, 1)
        check_int("max_reread", max_reread, 1)
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
        self._max_reread = max_reread
        self._scanner = BatchScanner()
        self._idle: dict[bytes | None, _Lane] = {}
        self._open: dict[bytes | None, _Lane] = {}
        # The lane that was last put at the end of `_idle`, and the highest rank so far.
        self._latest: _Lane | None = None
        self._last_rank = 0
        self._buffered_bytes = 0
        # No open frame starts before it.
        self._oldest_head = 0
        # The next sequence number not yet looked at.
        self._next_seq = _ANYWHERE if start is None else start
        # Whether the stream was seen to begin at 0. Before, 0 means the first record there is.
        self._has_begun = False
        self._is_bounded = end is not None
        # The first sequence number that is not taken.
        self._end = _NOWHERE if end is None else end
        # Below this one, records were accounted for by the reader that this one goes on from.
        self._replay_until = 0
        # Lanes whose open frame must be read once more, by its head.
        self._awaited: dict[int, _Lane] = {}
        self._caught_up: StreamPosition | None = None
        # What was received last, until all of it is taken.
        self._iterating: _Events | None = None
        self._takes_runs = False
        # Batches so far, and what it was before the last one, until its events are done with.
        self._num_batches = 0
        self._savepoint: _Savepoint | None = None
        self._is_rewinding = False
        # What `receive_eof` tells of, as far as it is not taken; None before.
        self._last_events: Iterator[ReaderEvent] | None = None
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
        max_reread: int = DEFAULT_MAX_REREAD,
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
            max_reread=max_reread,
        )
        reader._replay_until = checkpoint.seen_through
        reader._has_begun = checkpoint.is_begun
        reader._oldest_head = checkpoint.read_from
        for known in checkpoint.lanes:
            last = _NO_SEQ if known.last_dedupe_seq is None else known.last_dedupe_seq
            seen = last if known.seen is None else known.seen
            lane = _Lane(known.lane, lane_writer_id(known.lane), last, last, seen)
            lane.given_up = known.given_up
            if known.head is None:
                reader._touch_idle(lane)
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

        Raises `LocalProtocolError` before the first record when no `start` was given, and when the
        reader is torn.
        """
        self._check_whole()
        if self._next_seq == _ANYWHERE:
            raise LocalProtocolError("there is no checkpoint before the first record")
        lanes = tuple(
            LaneCheckpoint(
                lane.key,
                None if lane.delivered == _NO_SEQ else lane.delivered,
                None if lane.frame is None else lane.frame.head,
                seen=None if lane.seen == lane.delivered else lane.seen,
                given_up=lane.given_up,
            )
            for lane in (*self._idle.values(), *self._open.values())
        )
        seen_through = max(self._next_seq, self._replay_until)
        heads = [lane.head for lane in lanes if lane.head is not None]
        read_from = min(heads, default=seen_through)
        is_begun = self._has_begun or seen_through > 0
        return Checkpoint(read_from, seen_through, lanes, is_begun=is_begun)

    def receive_records(self, records: Iterable[SequencedRecord]) -> Iterator[ReaderEvent]:
        """Take records in stream order; yields what they amount to.

        The reader advances as the iterator is consumed, which must be to its end before more is
        received. Raises `RemoteProtocolError` when sequence numbers go back.
        """
        if not isinstance(records, Iterable):
            raise LocalProtocolError(f"records are an iterable, not {type(records).__name__}")
        self._enter()
        self._savepoint = None
        self._iterating = self._events(classify(map(as_sequenced, records)), self._end_records)
        return cast("Iterator[ReaderEvent]", self._iterating)

    def receive_batch(self, data: bytes) -> Iterator[ReaderEvent]:
        """Take an encoded `ReadBatch`; otherwise as `receive_records`, and tells of the tail.

        Raises `RemoteProtocolError` when `data` is no such message.
        """
        data = as_bytes("a ReadBatch", data)
        self._enter()
        return cast("Iterator[ReaderEvent]", self._begin_batch(data, takes_runs=False))

    def receive_batch_at_once(self, data: bytes) -> Iterator[ReaderEvent | FramesReceived]:
        """As `receive_batch`, with messages that look alike together: for speed."""
        data = as_bytes("a ReadBatch", data)
        self._enter()
        return self._begin_batch(data, takes_runs=True)

    @property
    def is_torn(self) -> bool:
        """Whether something was raised in the midst of a record: Control-C, say.

        Or in `rewind`, or the iterator was closed before its end. Then only `rewind` goes on, or
        another reader, from an earlier checkpoint.
        """
        events = self._iterating
        is_cut_off = events is not None and getgeneratorstate(events) == GEN_CLOSED
        return is_cut_off or self._is_rewinding

    @property
    def can_rewind(self) -> bool:
        """Whether the last batch can be taken again: until `forget_batch`, or another batch.

        Forget each batch before another one is received. Then this tells, when that call itself was
        interrupted, whether to `rewind` or to make it once more.
        """
        return self._savepoint is not None

    def rewind(self, num_taken: int) -> Iterator[ReaderEvent]:
        """Take the last batch again, after an interruption: yields the same events one by one.

        Without the first `num_taken` of them, which have arrived where they were to; of
        `FramesReceived` every message counts. The reader is then as if nothing had happened.
        """
        saved = self._savepoint
        if saved is None:
            raise LocalProtocolError("there is no batch to take again")
        self._is_rewinding = True
        self._idle = saved.restore_lanes(self._idle)
        # What was saved is in use from now on: `_begin_batch` copies it before it changes.
        self._open, self._latest = saved.open, saved.latest
        self._next_seq, self._has_begun = saved.next_seq, saved.has_begun
        self._buffered_bytes, self._oldest_head = saved.buffered_bytes, saved.oldest_head
        self._awaited, self._caught_up = saved.awaited, saved.caught_up
        self.stats = saved.stats
        self._scanner = BatchScanner()
        self._last_events = None
        events = self._begin_batch(saved.data, takes_runs=False)
        for _ in range(num_taken):
            next(events, None)
        self._is_rewinding = False
        return cast("Iterator[ReaderEvent]", events)

    def forget_batch(self) -> None:
        """The events of the last batch have arrived where they were to: it is not needed again."""
        self._savepoint = None

    def receive_eof(self) -> Iterator[ReaderEvent]:
        """No more records come: tells which frames are incomplete.

        Once: called again, it goes on with what is not taken yet. It does not move the checkpoint:
        the rest of those frames may be appended later.
        """
        if self._last_events is None:
            self._check_at_rest()
            events = [
                _describe_drop(lane, DropReason.INCOMPLETE, "reading ended before the frame did")
                for lane in self._by_head()
            ]
            stats = self.stats.copy()
            stats.dropped[DropReason.INCOMPLETE] += len(events)
            # At once: whatever interrupts, they are counted and told of once.
            self._last_events, self.stats = iter(events), stats
        return self._last_events

    def connection_lost(self) -> None:
        """The stream is read anew from `next_seq_num`; whether it is caught up is unknown."""
        self._check_whole()
        self._caught_up = self._iterating = self._savepoint = None

    # Iterating

    def _enter(self) -> None:
        if self._last_events is not None:
            raise LocalProtocolError("the reader was told that no more records come")
        self._check_at_rest()
        self._takes_runs = False

    def _check_at_rest(self) -> None:
        self._check_whole()
        if self._iterating is not None:
            raise LocalProtocolError(
                "take all events of the records received before, then receive more"
            )

    def _check_whole(self) -> None:
        if self.is_torn:
            raise LocalProtocolError(
                "the reader was interrupted in the midst of a record: rewind it, or go on with "
                "another one from an earlier checkpoint"
            )

    def _begin_batch(self, data: bytes, *, takes_runs: bool) -> _Events:
        self._num_batches += 1
        self._savepoint = _Savepoint(
            data,
            dict(self._open),
            self._latest,
            self._next_seq,
            self._has_begun,
            self._buffered_bytes,
            self._oldest_head,
            dict(self._awaited),
            self._caught_up,
            self.stats.copy(),
        )
        self._takes_runs = takes_runs
        end = partial(self._end_batch, self._next_seq)
        self._iterating = self._events(self._scanner.scan_runs(data), end)
        return self._iterating

    def _save(self, lane: _Lane) -> None:
        """The lane is about to change, for the first time in this batch."""
        if self._savepoint is not None:
            self._savepoint.save(lane, is_idle=lane.key in self._idle)
        lane.saved_for = self._num_batches

    def _end_records(self) -> Iterator[ReaderEvent]:
        self._iterating = None
        return iter(())

    def _end_batch(self, before: int) -> Iterator[ReaderEvent]:
        """What the tail of a batch tells; `before` is where the reader was when the batch came."""
        tail = self._scanner.tail
        if tail is not None and self._next_seq == before:
            # A batch without records says where the reader is: nothing survives below.
            yield from self._skip(tail.seq_num)
        was_caught_up = self._caught_up
        is_there = tail is not None and tail.seq_num == self._next_seq
        self._has_begun = self._has_begun or is_there
        self._caught_up = tail if is_there else None
        if self._caught_up is not None and self._caught_up != was_caught_up:
            yield CaughtUp(self._caught_up)
        self._iterating = None

    def _events(
        self,
        records: Iterable[ClassifiedRecord | Run],
        end: Callable[[], Iterator[ReaderEvent]],
    ) -> _Events:
        # One generator for all of it: every level more is passed through for every message.
        try:
            for record in self._singly(records):
                if type(record) is Run:
                    lane = self._begin_run(record)
                    seq_num, dedupe_seq = record.seq_num, record.dedupe_seq
                    timestamp, writer_id, stats = record.timestamp, lane.writer_id, self.stats
                    if self._takes_runs:
                        count = len(record.bodies)
                        lane.delivered = lane.accepted = lane.seen = dedupe_seq + count - 1
                        self._next_seq = seq_num + count
                        stats.records += count
                        stats.frames += count
                        yield FramesReceived(record.bodies, seq_num, timestamp, writer_id)
                        continue
                    for body in record.bodies:
                        lane.delivered = lane.accepted = lane.seen = dedupe_seq
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
                known = self._idle.get(record[6])
                if (
                    seq_num != self._next_seq
                    or self._open
                    or len(self._idle) >= self._max_writers
                    or (known is not None and record[5] != known.seen + 1)
                ):
                    yield from self._clear_way(record)
                event = self._take_head(record) if record[0] is _HEAD else self._take_other(record)
                if event is not None:
                    yield event
        except Exception:
            # The records before it were taken; reading may go on after them.
            self._iterating = None; raise  # fmt: skip  # noqa: E702  # at once, or it is torn
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
            and (lane is None or (run.dedupe_seq == lane.seen + 1 and lane.given_up is None))
        )

    def _begin_run(self, run: Run) -> _Lane:
        """The lane of a run; the rest of its records is like the first."""
        lane = self._idle.get(run.writer_id)
        if lane is None:
            lane = _Lane(run.writer_id, lane_writer_id(run.writer_id))
        if lane.saved_for != self._num_batches:
            self._save(lane)
        if lane is not self._latest:
            self._touch_idle(lane)
        return lane

    def _stop(self, seq_num: int) -> Iterator[ReaderEvent]:
        """A record that is not to be taken: nothing more comes before `end`."""
        if seq_num >= _NOWHERE:
            raise RemoteProtocolError(f"no record has the sequence number {seq_num} (2^64 - 1)")
        self._caught_up = None
        yield from self._skip(seq_num)
        self._iterating = None

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
        kind, seq_num, _, _, _, dedupe_seq, key, _, body = record
        yield from self._jump(seq_num)
        in_lane = kind is _HEAD or kind is _CHUNK
        lane = self._find(key) if in_lane else None
        if lane is not None and lane.frame is not None:
            self._touch_open(lane)
        if self._open and seq_num - self._oldest_head > self._max_reread:
            yield from self._give_up(seq_num, lane)
        if not in_lane:
            return
        if lane is None:
            if kind is _HEAD and key is not UNNUMBERED and self._makes_frame(record):
                yield from self._forget_for_one_more()
        elif not _NO_SEQ < dedupe_seq <= lane.accepted:
            if lane.seen != _NO_SEQ and dedupe_seq > lane.seen + 1:
                yield self._skip_numbers(lane, seq_num, dedupe_seq)
            yield from self._supersede(lane, kind, seq_num, dedupe_seq)
        if self._is_kept(record):
            yield from self._make_room(self._open.get(key), body)

    def _skip_numbers(self, lane: _Lane, seq_num: int, dedupe_seq: int) -> SequenceGapDetected:
        """The writer's numbering goes on at `dedupe_seq`, above the next number."""
        if lane.saved_for != self._num_batches:
            self._save(lane)
        expected, lane.seen = lane.seen + 1, dedupe_seq - 1
        self.stats.sequence_gaps += 1
        return SequenceGapDetected(lane.writer_id, seq_num, expected, dedupe_seq)

    def _makes_frame(self, record: ClassifiedRecord) -> bool:
        """Whether a frame begins with the head, or is complete with it."""
        _, _, _, num_records, num_bytes, _, _, _, body = record
        is_short = num_records == 1 and len(body) < num_bytes
        return len(body) <= num_bytes <= self._max_frame_bytes and not is_short

    def _is_kept(self, record: ClassifiedRecord) -> bool:
        """Whether an open frame will hold the record's body."""
        kind, _, _, num_records, _, dedupe_seq, key, _, _ = record
        lane = self._find(key)
        if lane is not None and _NO_SEQ < dedupe_seq <= lane.accepted:
            return False
        if kind is _HEAD:
            return num_records > 1 and self._makes_frame(record)
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
        # Below, records were accounted for before: of those only open frames are missed.
        first_missed = max(expected, self._replay_until)
        is_loss = self._has_begun or expected > 0
        self._next_seq = seq_num
        if first_missed < seq_num:
            self.stats.gaps += 1
            yield GapDetected(first_missed, seq_num, is_loss)

    def _skip(self, seq_num: int) -> Iterator[ReaderEvent]:
        """Nothing is to be taken before `seq_num`, nor from `end` on."""
        target = min(seq_num, self._end)
        if target > self._next_seq:
            yield from self._jump(target)

    def _by_head(self) -> list[_Lane]:
        """The lanes with an open frame, in the order of their heads."""
        lanes = [(lane.frame.head, lane) for lane in self._open.values() if lane.frame]
        return [lane for _, lane in sorted(lanes, key=lambda pair: pair[0])]

    def _give_up(self, seq_num: int, going_on: _Lane | None) -> Iterator[ReaderEvent]:
        """Give up the frames that a checkpoint would reach back too far for.

        Not that of `going_on`, whose writer is at it.
        """
        for lane in self._by_head():
            frame = lane.frame
            if frame is None or frame.is_awaited or lane is going_on:
                continue
            distance = seq_num - frame.head
            if distance > self._max_reread:
                limit = f"{self._max_reread} (max_reread)"
                detail = f"it began {distance} records before, and {limit} are read again at most"
                yield self._drop(lane, DropReason.INCOMPLETE, detail, is_given_up=True)
        self._oldest_head = min(
            (lane.frame.head for lane in self._open.values() if lane.frame), default=seq_num
        )

    def _forget_for_one_more(self) -> Iterator[ReaderEvent]:
        """Forget lanes until one more fits; idle ones before open ones, the oldest first.

        The lane without numbers does not count: between frames nothing is remembered of it.
        """
        while self._num_writers() >= self._max_writers:
            key = next((key for key in self._idle if key is not UNNUMBERED), UNNUMBERED)
            if key is UNNUMBERED:
                lane = next(lane for lane in self._open.values() if lane.key is not UNNUMBERED)
                detail = f"more than {self._max_writers} writers (max_writers) have open frames"
                yield self._drop(lane, DropReason.EVICTED, detail)
                continue
            lane = self._idle[key]
            if lane.saved_for != self._num_batches:
                self._save(lane)
            del self._idle[key]
            self._latest = None
            last = None if lane.delivered == _NO_SEQ else lane.delivered
            self.stats.writers_forgotten += 1
            yield WriterForgotten(lane.writer_id, last)

    def _num_writers(self) -> int:
        num_unnumbered = (UNNUMBERED in self._idle) + (UNNUMBERED in self._open)
        return len(self._idle) + len(self._open) - num_unnumbered

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
            if lane.saved_for != self._num_batches:
                self._save(lane)
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
        if lane.saved_for != self._num_batches:
            self._save(lane)
        if dedupe_seq > lane.seen:
            lane.seen = dedupe_seq
        if lane.given_up is not None:
            self._forget_given_up(lane)
        if num_records != 1 or len(body) != num_bytes or num_bytes > self._max_frame_bytes:
            return self._take_long_head(lane, record)
        if dedupe_seq != _NO_SEQ:
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
        frame = OpenFrame.opened(seq_num, timestamp, num_records, num_bytes, headers, body)
        self._open_frame(lane, frame, dedupe_seq)
        return None

    def _take_chunk(self, record: ClassifiedRecord) -> ReaderEvent | None:
        _, seq_num, timestamp, _, _, dedupe_seq, key, headers, body = record
        lane = self._find(key)
        if lane is not None and _NO_SEQ < dedupe_seq <= lane.accepted:
            return self._drop_repeat(lane, seq_num, dedupe_seq)
        if lane is not None and lane.saved_for != self._num_batches:
            self._save(lane)
        if lane is None or lane.frame is None:
            if lane is not None and (event := self._take_late_chunk(lane, record)) is not None:
                return event
            if key is UNNUMBERED:
                self.stats.other_records += 1
                return RecordReceived(SequencedRecord(seq_num, timestamp, headers, bytes(body)))
            detail = "the start of its frame was not read, or was dropped"
            writer_id = lane_writer_id(key)
            return self._drop_record(DropReason.ORPHAN, writer_id, seq_num, body, detail)
        lane.seen = max(lane.seen, dedupe_seq)
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

    def _take_late_chunk(self, lane: _Lane, record: ClassifiedRecord) -> FrameDropped | None:
        """A chunk of a lane without an open frame; the event when it goes on with a lost one."""
        _, seq_num, _, _, _, dedupe_seq, _, _, body = record
        is_new = dedupe_seq == _NO_SEQ or dedupe_seq > lane.seen
        lane.seen = max(lane.seen, dedupe_seq)
        head = lane.given_up
        if head is None or not is_new:
            return None
        self._forget_given_up(lane)
        detail = f"its writer went on with it at {seq_num}, after it had been given up"
        return self._drop_record(DropReason.GIVEN_UP, lane.writer_id, head, body, detail)

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
        lane.rank = self._last_rank = self._last_rank + 1

    def _touch_open(self, lane: _Lane) -> None:
        self._open[lane.key] = self._open.pop(lane.key)

    def _open_frame(self, lane: _Lane, frame: OpenFrame, dedupe_seq: int) -> None:
        if not self._open:
            self._oldest_head = frame.head
        self._idle.pop(lane.key, None)
        self._open.pop(lane.key, None)
        self._open[lane.key] = lane
        self._latest = None
        self._buffered_bytes += frame.pinned
        lane.frame = frame
        lane.accepted = dedupe_seq

    def _close_frame(self, lane: _Lane, frame: OpenFrame) -> None:
        """Take the lane out of `_open`, as it was before the frame's head."""
        if lane.saved_for != self._num_batches:
            self._save(lane)
        lane.frame = None
        lane.accepted = lane.delivered
        self._buffered_bytes -= frame.pinned
        self._awaited.pop(frame.head, None)
        del self._open[lane.key]
        if lane.seen != _NO_SEQ or lane.given_up is not None:
            self._touch_idle(lane)

    def _forget_given_up(self, lane: _Lane) -> None:
        """What was given up is told of, or its writer has begun another frame."""
        lane.given_up = None
        if lane.seen == _NO_SEQ:
            # Without numbers nothing else is remembered between frames.
            self._idle.pop(lane.key, None)
            self._latest = None

    # Dropping

    def _drop(
        self, lane: _Lane, reason: DropReason, detail: str, *, is_given_up: bool = False
    ) -> FrameDropped:
        """Drop the lane's open frame; `is_given_up`: though its writer may go on with it."""
        event = _describe_drop(lane, reason, detail)
        if lane.frame is not None:
            if lane.saved_for != self._num_batches:
                self._save(lane)
            lane.given_up = lane.frame.head if is_given_up else None
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
            if lane.saved_for != self._num_batches:
                self._save(lane)
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
