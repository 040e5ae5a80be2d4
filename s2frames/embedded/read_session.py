"""The life of a read: catch up with the tail, then follow it, until a limit is reached.

Nothing is fetched before it is asked for, so a slow reader costs no memory. One that falls more
than a batch behind while it follows catches up from the store again, as in the server's
`lite/src/backend/read.rs`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from s2frames.embedded.append_rules import MAX_HEADERS
from s2frames.embedded.read_request import ReadRequest, StartFrom
from s2frames.embedded.stream import Stream
from s2frames.errors import RangeNotSatisfiable
from s2frames.records import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    SequencedRecord,
    metered_bytes,
)
from s2frames.wire import ReadBatch

__all__ = ["ReadSession"]

# Seconds between two heartbeats: at random, so that many readers spread.
_HEARTBEAT_MIN, _HEARTBEAT_MAX = 5.0, 15.0


class _State(enum.Enum):
    CATCHING_UP = enum.auto()
    FOLLOWING = enum.auto()
    ENDED = enum.auto()


class _Stop(enum.Enum):
    """Why a batch has no more records."""

    #: There are no more.
    EXHAUSTED = enum.auto()
    #: It is full.
    FULL = enum.auto()
    #: The read's own limits allow no more.
    LIMIT = enum.auto()


class ReadSession:
    """A read of one stream, as batches.

    Raises `RangeNotSatisfiable` when it is made and starts beyond the tail, or at the tail though
    it must not follow; but not when its limits allow nothing.
    """

    def __init__(self, stream: Stream, request: ReadRequest, random: Callable[[], float]) -> None:
        self._stream = stream
        self._request = request
        self._random = random
        self._count, self._bytes = request.count, request.bytes
        self._state = _State.CATCHING_UP
        #: Where the tail was when the session last looked.
        self._tail = stream.tail
        # A read of nothing starts nowhere, and so never at a wrong place.
        self._next = 0 if request.is_empty else _find_start(stream, request)
        self._wait_deadline: float | None = None
        self._heartbeat_at = 0.0
        self._heartbeat_due = False
        self._end_at_limit()
        self._end_at_tail()

    @property
    def ended(self) -> bool:
        """Whether there are no more batches."""
        return self._state is _State.ENDED

    def next_batch(self, now: float) -> ReadBatch | None:
        """The next records; or no record and a tail, a heartbeat; or None for now.

        Raises `ServiceError` 404 when the stream was deleted.
        """
        if self.ended:
            return None
        self._stream.check_exists()
        batch = None
        while batch is None and self._state is _State.CATCHING_UP:
            batch = self._catch_up(now) if self._next < self._tail.seq_num else self._turn(now)
            self._end_at_tail()
        if batch is None and self._state is _State.FOLLOWING:
            batch = self._follow(now)
        return batch

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do."""
        if self._state is not _State.FOLLOWING or self._has_more():
            return None
        if self._wait_deadline is None:
            return self._heartbeat_at
        return min(self._heartbeat_at, self._wait_deadline)

    def handle_timeout(self, now: float) -> None:
        """End after too long a wait, or make a heartbeat due."""
        if self._state is not _State.FOLLOWING or self._has_more():
            return
        if self._is_wait_over(now):
            self._state = _State.ENDED
        elif now >= self._heartbeat_at:
            self._heartbeat_due = True
            self._schedule_heartbeat(now)

    def _catch_up(self, now: float) -> ReadBatch | None:
        """Records from the store, below the tail as it was."""
        records, size, stop = self._take(self._tail.seq_num)
        if stop is _Stop.LIMIT:
            self._state = _State.ENDED
        if not records:
            self._next = self._tail.seq_num  # all of them were trimmed
            return None
        self._deliver(records, size, now)
        return ReadBatch(records)

    def _turn(self, now: float) -> ReadBatch | None:
        """At the tail as it was: end, go on catching up, or follow, with a heartbeat at once."""
        if self._stream.tail.seq_num > self._tail.seq_num:
            self._tail = self._stream.tail
            return None
        if self._wait_deadline is None:
            self._arm_wait(now)
        if self._is_wait_over(now):
            self._state = _State.ENDED
            return None
        self._state = _State.FOLLOWING
        self._schedule_heartbeat(now)
        return ReadBatch((), self._tail)

    def _follow(self, now: float) -> ReadBatch | None:
        """Records appended since, with the tail if they reach it; or a heartbeat if it is due."""
        if not self._has_more():
            is_due, self._heartbeat_due = self._heartbeat_due, False
            return ReadBatch((), self._tail) if is_due else None
        self._tail = self._stream.tail
        self._schedule_heartbeat(now)
        records, size, stop = self._take(self._tail.seq_num)
        if stop is _Stop.LIMIT:
            self._state = _State.ENDED
            if not records:
                return None
        elif stop is _Stop.FULL:
            self._state = _State.CATCHING_UP
        elif not records:
            self._next = self._tail.seq_num  # appended and trimmed: tell where the tail is now
            return ReadBatch((), self._tail)
        self._deliver(records, size, now)
        return ReadBatch(records, None if stop is _Stop.FULL else self._tail)

    def _take(self, end: int) -> tuple[list[SequencedRecord], int, _Stop]:
        """The records from the next one to below `end` that fit one batch and the limits, and
        their metered bytes."""
        records: list[SequencedRecord] = []
        size = headers = 0
        for record in self._stream.read(self._next, end):
            metered = metered_bytes(record.headers, len(record.body))
            headers += len(record.headers)
            if self._denies(record, len(records) + 1, size + metered):
                return records, size, _Stop.LIMIT
            if (
                len(records) == MAX_BATCH_RECORDS
                or size + metered > MAX_BATCH_BYTES
                or headers > MAX_HEADERS
            ):
                return records, size, _Stop.FULL
            records.append(record)
            size += metered
        return records, size, _Stop.EXHAUSTED

    def _denies(self, record: SequencedRecord, count: int, size: int) -> bool:
        too_much = count > self._count or size > self._bytes
        return too_much or record.timestamp >= self._request.until

    def _deliver(self, records: list[SequencedRecord], size: int, now: float) -> None:
        self._next = records[-1].seq_num + 1
        self._count -= len(records)
        self._bytes -= size
        # Only records start the wait anew, heartbeats do not.
        self._arm_wait(now)
        self._end_at_limit()

    def _end_at_limit(self) -> None:
        if self._count <= 0 or self._bytes <= 0:
            self._state = _State.ENDED

    def _end_at_tail(self) -> None:
        """End as soon as it is known that nothing comes, so that a host need not ask again."""
        if self._next >= self._tail.seq_num and not self._request.may_follow:
            self._state = _State.ENDED

    def _has_more(self) -> bool:
        return self._stream.tail.seq_num > self._next

    def _arm_wait(self, now: float) -> None:
        wait = self._request.wait
        self._wait_deadline = None if wait is None else now + wait

    def _is_wait_over(self, now: float) -> bool:
        return self._wait_deadline is not None and now >= self._wait_deadline

    def _schedule_heartbeat(self, now: float) -> None:
        span = _HEARTBEAT_MAX - _HEARTBEAT_MIN
        self._heartbeat_at = now + _HEARTBEAT_MIN + span * self._random()


def _find_start(stream: Stream, request: ReadRequest) -> int:
    """The sequence number at which a read starts. Raises `RangeNotSatisfiable`."""
    tail = stream.tail
    start = request.start
    if request.start_from is StartFrom.TAIL_OFFSET:
        start = max(0, tail.seq_num - start)
    if request.start_from is StartFrom.TIMESTAMP:
        is_beyond = start > tail.timestamp
        found = stream.find_timestamp(start)
        start = tail.seq_num if found is None else found
    else:
        is_beyond = start > tail.seq_num
        start = min(start, tail.seq_num)
    if is_beyond and not request.clamp:
        raise RangeNotSatisfiable(tail)
    if start == tail.seq_num and not request.may_follow:
        raise RangeNotSatisfiable(tail)
    return start
