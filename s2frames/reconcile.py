"""Reading back what landed of an exclusive writer's batches, after an ack was lost.

Every batch of an exclusive writer is conditioned on its place, so that it lands there or never.
When the service says that the place is taken, either the batch is there already, because its ack
was lost, or somebody else's record is. The stream tells which.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from s2frames.dedupe import WRITER_ID
from s2frames.events import FramesDurable
from s2frames.records import AppendAck, Record, SequencedRecord, StreamPosition

if TYPE_CHECKING:
    from s2frames.writer import FrameWriter

__all__ = ["Finding", "Reconciliation"]

_TRIM_HEADERS = ((b"", b"trim"),)


class Finding(enum.Enum):
    """What stands where the unacked batches were to be."""

    #: They do, as far as was read, and maybe trim commands before them.
    OURS = enum.auto()
    #: Somebody else's record.
    FOREIGN = enum.auto()
    #: A record with our writer id that is not the one that belongs there.
    CONFLICT = enum.auto()
    #: Nothing any more: it was trimmed.
    TRIMMED = enum.auto()


class Reconciliation:
    """Compares records of the stream with a writer's unacked batches, one after the other.

    A batch has landed when all its records stand there, headers and bodies alike. A trim command
    between batches is stepped over. Made by `FrameWriter.reconcile`.

    Args:
        writer: an exclusive writer that has a batch to send again, and none under way.
        writer_id: its id.
    """

    def __init__(self, writer: FrameWriter, writer_id: str) -> None:
        self._writer = writer
        self._writer_header = (WRITER_ID, writer_id.encode())
        #: What was found so far.
        self.finding = Finding.OURS
        #: The sequence number of the next record to take.
        self.next_seq_num = writer.next_unacked_seq_num
        #: Whether what is left to send has another place than before.
        self.has_moved = False
        # The batch that is being compared, and how many of its records were found.
        self._records: Sequence[Record] = ()
        self._num_found = 0
        self._start = StreamPosition(0, 0)
        #: What has turned out to be durable and was not taken, from the left, by then.
        self.landed: deque[FramesDurable] = deque()

    def durable(self) -> list[FramesDurable]:
        """What has turned out to be durable since the last call."""
        durable = list(self.landed)
        self.landed.clear()
        return durable

    def take(self, records: Sequence[SequencedRecord]) -> bool:
        """Take the next records; tells whether there is more to compare."""
        for record in records:
            finding = self._compare(record)
            if finding is not Finding.OURS:
                # With nothing left to send, what comes next is not this session's business.
                self.finding = Finding.OURS if self._writer.is_idle else finding
                return False
            self.next_seq_num += 1
        return True

    def finish(self, end: int) -> None:
        """No more records come; there should have been all below `end`, unless nothing is left.

        If all of them were accounted for, what is left to send goes on after them.
        """
        if self.finding is not Finding.OURS:
            return
        if self.next_seq_num < end and not self._writer.is_idle:
            self.finding = Finding.TRIMMED
        elif self._num_found:
            # A batch is appended as a whole: somebody else appended the part that stands there.
            self.finding = Finding.CONFLICT
        else:
            self.has_moved = self.next_seq_num != self._writer.next_unacked_seq_num
            self._writer.match_from(self.next_seq_num)

    def _compare(self, record: SequencedRecord) -> Finding:
        if record.seq_num != self.next_seq_num:
            return Finding.TRIMMED
        if not self._num_found:
            if record.headers == _TRIM_HEADERS:
                return Finding.OURS
            self._records = self._writer.oldest_unacked_records()
            self._start = StreamPosition(record.seq_num, record.timestamp)
        if not (self._records and _is_same(self._records[self._num_found], record)):
            is_ours = self._num_found or self._writer_header in record.headers
            return Finding.CONFLICT if is_ours else Finding.FOREIGN
        self._num_found += 1
        if self._num_found == len(self._records):
            self._land(StreamPosition(record.seq_num + 1, record.timestamp))
        return Finding.OURS

    def _land(self, end: StreamPosition) -> None:
        """All of the batch is there: take it as acked."""
        self._records, self._num_found = (), 0
        self.landed.append(self._writer.receive_landed(AppendAck(self._start, end, end)))


def _is_same(record: Record, found: SequencedRecord) -> bool:
    return tuple(record.headers) == tuple(found.headers) and record.body == found.body
