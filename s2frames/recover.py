"""Going on as the same writer after a crash: what the stream holds of it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from s2frames.checks import check_int, check_type
from s2frames.classify import ClassifiedRecord, RecordKind, classify
from s2frames.commands import append_batch
from s2frames.dedupe import MAX_DEDUPE_SEQ, check_writer_id
from s2frames.errors import (
    RemoteProtocolError,
    SeqNumMismatch,
    WriterExhausted,
    WriterNotFound,
)
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


def recover_writer(
    target: StreamTarget, writer_id: str, search_from: int = 0, *, may_be_new: bool = False
) -> Plan[WriterState]:
    """Where an exclusive writer goes on, by its records from `search_from` on.

    First a barrier is appended, so that batches of the writer that are still on their way fail.
    Then the stream is read up to it. A writer of which a stream that was never trimmed holds
    nothing begins at 0.

    With `may_be_new` a writer of which no record is found is taken for a new one also where records
    were trimmed, or are before `search_from`. It goes on at the sequence number of its next record:
    no number of a writer that began at 0 was ever above that of its record, so that readers who
    remember a writer of this id drop nothing. Whether such a writer's last message got in whole is
    then nothing that anybody knows; the state says that it did.

    Raises `LocalProtocolError` at once for a bad argument. Ends in `WriterNotFound` when the
    writer's last message does not begin in what was read, and it cannot be a new writer; in
    `RemoteProtocolError` when a record of the writer has a number above the last one there is; in
    `WriterExhausted` when the writer has used that one; in `SeqNumMismatch` when others append all
    the time.
    """
    check_type("target", target, StreamTarget)
    check_writer_id(writer_id)
    check_int("search_from", search_from)
    check_type("may_be_new", may_be_new, bool)
    return _recover(target, writer_id, search_from, may_be_new)


def _recover(
    target: StreamTarget, writer_id: str, search_from: int, may_be_new: bool
) -> Plan[WriterState]:
    end = yield from _append_barrier(target)
    search = _Search(writer_id, search_from)
    yield from read_range(target, search_from, end, search.take)
    return WriterState(
        writer_id=writer_id,
        next_dedupe_seq=_next_number(search, search_from, end, may_be_new),
        is_exclusive=True,
        match_seq_num=end,
        last_frame_is_whole=search.highest == search.delivered,
    )


def _next_number(search: _Search, search_from: int, end: int, may_be_new: bool) -> int:
    """The dedupe sequence that the writer goes on with."""
    if search.highest >= MAX_DEDUPE_SEQ:
        raise WriterExhausted(
            f"the dedupe sequences of writer {search.writer_id!r} are used up: "
            f"record {search.highest_at} has the last one, {MAX_DEDUPE_SEQ} (2^53 - 1); "
            "use another writer id"
        )
    # The barrier is the last record: if it did not come, it was trimmed, and all before it.
    is_complete = search.next_seq_num >= end
    if is_complete and search.highest == _NONE:
        if search_from == 0 and not search.has_gap:
            return 0
        # No stream is so long that its sequence numbers pass the last dedupe sequence.
        if may_be_new and end <= MAX_DEDUPE_SEQ:
            return end
    if not (is_complete and search.is_last_head_known):
        raise WriterNotFound(_describe(search, search_from, end))
    return search.highest + 1


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


def _describe(search: _Search, search_from: int, end: int) -> str:
    """What was searched in vain, and what to do about it."""
    where = f"records {search_from} to {end - 1}" if search_from < end else f"record {search_from}"
    is_cut_off = search.next_seq_num < end
    gap = "; some of them were trimmed" if search.has_gap or is_cut_off else ""
    if search.highest == _NONE:
        what = f"no record of writer {search.writer_id!r} was found in {where}{gap}"
        advice = ["pass may_be_new=True if it may be a new writer"]
    else:
        what = f"the last message of writer {search.writer_id!r} does not begin in {where}{gap}"
        advice = ["use another writer id"]
    if search_from:
        advice.insert(0, "search from further back (search_from)")
    if is_cut_off:
        # Somebody trims up to the tail while it is read.
        advice = ["try again"]
    return f"{what}: {', or '.join(advice)}"


@define(eq=False)
class _Search:
    """What the records of one writer add up to, without their bodies.

    The rules are those of a lane of `FrameReader`: what is up to the last number accepted is a
    repeat, and a frame that cannot be completed leaves the lane as it was before the frame.
    """

    writer_id: str
    #: The sequence number of the next record.
    next_seq_num: int
    #: Whether records are missing.
    has_gap: bool = False
    #: The highest dedupe sequence, that of the last record delivered, and of the last one accepted.
    highest: int = _NONE
    delivered: int = _NONE
    #: The sequence number of the record with the highest dedupe sequence.
    highest_at: int = 0
    _accepted: int = _NONE
    # The highest frame of which the first record came: its dedupe sequences, the end exclusive.
    _last_head: int = _NONE
    _last_end: int = _NONE
    # The frame that is open: records and bytes that it still needs.
    _records_left: int = 0
    _bytes_left: int = 0
    _lane: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._lane = self.writer_id.encode()

    @property
    def is_last_head_known(self) -> bool:
        """Whether the frame with the highest dedupe sequence began here."""
        return self._last_head <= self.highest < self._last_end

    def take(self, records: Sequence[SequencedRecord]) -> bool:
        """Take the next records. Raises `RemoteProtocolError` for a number above the last one."""
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
        kind, seq_num, _, num_records, num_bytes, dedupe_seq, _, _, body = record
        if dedupe_seq > MAX_DEDUPE_SEQ:
            raise RemoteProtocolError(
                f"record {seq_num} of writer {self.writer_id!r} has the dedupe sequence "
                f"{dedupe_seq}, above the last one, {MAX_DEDUPE_SEQ} (2^53 - 1): nothing can go on "
                "after it; use another writer id"
            )
        if dedupe_seq > self.highest:
            self.highest, self.highest_at = dedupe_seq, seq_num
        if dedupe_seq <= self._accepted:
            return
        if kind is RecordKind.HEAD:
            # Whatever frame was open, this one is now.
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
