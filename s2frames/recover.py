"""Going on as the same writer after a crash: what the stream holds of it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from s2frames.checks import check_int
from s2frames.classify import ClassifiedRecord, RecordKind, classify
from s2frames.commands import append_batch
from s2frames.dedupe import check_writer_id
from s2frames.errors import SeqNumMismatch, WriterNotFound
from s2frames.operation import Effect, Plan, ask, read_range
from s2frames.records import SequencedRecord, trim
from s2frames.rest import check_tail
from s2frames.target import StreamTarget
from s2frames.wire import AppendInput
from s2frames.writer_state import WriterState

__all__ = ["recover_writer"]

# So often the barrier gives way to other writers' records; then the stream is too busy.
_MAX_BARRIERS = 16

# No dedupe sequence.
_NONE = -1


def recover_writer(target: StreamTarget, writer_id: str, search_from: int = 0) -> Plan[WriterState]:
    """Where an exclusive writer goes on, by its records from `search_from` on.

    First a barrier is appended, so that batches of the writer that are still on their way fail.
    Then the stream is read up to it.

    Raises `LocalProtocolError` at once for a bad argument. Ends in `WriterNotFound` when the
    writer's last message does not begin in what was read, unless that was all that the stream ever
    held; in `SeqNumMismatch` when others append all the time.
    """
    check_writer_id(writer_id)
    check_int("search_from", search_from)
    return _recover(target, writer_id, search_from)


def _recover(target: StreamTarget, writer_id: str, search_from: int) -> Plan[WriterState]:
    end = yield from _append_barrier(target)
    search = _Search(writer_id.encode(), search_from)
    yield from read_range(target, search_from, end, search.take)
    # The barrier is the last record: if it did not come, it was trimmed, and all before it.
    is_complete = search.next_seq_num >= end
    is_new = search.highest == _NONE and search_from == 0 and not search.has_gap
    if not is_complete or not (is_new or search.is_last_head_known):
        raise WriterNotFound(_describe(writer_id, search, search_from, end))
    return WriterState(
        writer_id=writer_id,
        next_dedupe_seq=search.highest + 1,
        is_exclusive=True,
        match_seq_num=end,
        last_frame_is_whole=search.highest == search.delivered,
    )


def _append_barrier(target: StreamTarget) -> Plan[int]:
    """Append a record that changes nothing but the tail; gives the sequence number after it."""
    tail = yield from ask(check_tail(target.settings, target.basin, target.stream))
    match = tail.seq_num
    for attempts_left in reversed(range(_MAX_BARRIERS)):
        batch = AppendInput([trim(0)], match_seq_num=match)
        try:
            ack = yield from ask(append_batch(target, batch), Effect.IDEMPOTENT)
        except SeqNumMismatch as error:
            # Somebody else's record is there, or a barrier of ours whose ack was lost. Another one
            # does no harm.
            if not attempts_left:
                raise
            match = error.expected
        else:
            break
    return ack.end.seq_num


def _describe(writer_id: str, search: _Search, search_from: int, end: int) -> str:
    where = f"records {search_from} to {end - 1}" if search_from < end else f"record {search_from}"
    gap = "; some of them were trimmed" if search.has_gap or search.next_seq_num < end else ""
    if search.highest == _NONE:
        return f"no record of writer {writer_id!r} was found in {where}{gap}"
    return f"the last message of writer {writer_id!r} does not begin in {where}{gap}"


@define(eq=False)
class _Search:
    """What the records of one writer add up to, without their bodies.

    The rules are those of a lane of `FrameReader`: what is up to the last number accepted is a
    repeat, and a frame that cannot be completed leaves the lane as it was before the frame.
    """

    _lane: bytes
    #: The sequence number of the next record.
    next_seq_num: int
    #: Whether records are missing.
    has_gap: bool = False
    #: The highest dedupe sequence, that of the last record delivered, and of the last one accepted.
    highest: int = _NONE
    delivered: int = _NONE
    _accepted: int = _NONE
    # The highest frame of which the first record came: its dedupe sequences, the end exclusive.
    _last_head: int = _NONE
    _last_end: int = _NONE
    # The frame that is open: records and bytes that it still needs.
    _records_left: int = 0
    _bytes_left: int = 0

    @property
    def is_last_head_known(self) -> bool:
        """Whether the frame with the highest dedupe sequence began here."""
        return self._last_head <= self.highest < self._last_end

    def take(self, records: Sequence[SequencedRecord]) -> bool:
        """Take the next records."""
        for record in classify(records):
            kind, seq_num, lane = record[0], record[1], record[6]
            if seq_num != self.next_seq_num:
                self._forget_frames()
            self.next_seq_num = seq_num + 1
            if lane == self._lane and kind in (RecordKind.HEAD, RecordKind.CHUNK):
                self._take(record)
        return True

    def _forget_frames(self) -> None:
        """Records are missing: which frames began there is unknown."""
        self.has_gap = True
        self.delivered = self._accepted = self._last_head = self._last_end = _NONE
        self._records_left = 0

    def _take(self, record: ClassifiedRecord) -> None:
        kind, _, _, num_records, num_bytes, dedupe_seq, _, _, body = record
        self.highest = max(self.highest, dedupe_seq)
        if dedupe_seq <= self._accepted:
            return
        if kind is RecordKind.HEAD:
            self._drop_frame()
            if dedupe_seq > self._last_head:
                self._last_head, self._last_end = dedupe_seq, dedupe_seq + num_records
            self._records_left, self._bytes_left = num_records, num_bytes
        elif dedupe_seq != self._accepted + 1:
            self._drop_frame()
        if self._records_left:
            self._add(dedupe_seq, len(body))

    def _add(self, dedupe_seq: int, size: int) -> None:
        """The next record of the open frame."""
        self._accepted = dedupe_seq
        self._records_left -= 1
        self._bytes_left -= size
        if self._bytes_left < 0 or (self._bytes_left and not self._records_left):
            self._drop_frame()
        elif not self._records_left:
            self.delivered = dedupe_seq

    def _drop_frame(self) -> None:
        self._records_left = 0
        self._accepted = self.delivered
