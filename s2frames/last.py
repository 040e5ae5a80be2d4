"""Where the last messages of a stream are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from attrs import define, field, frozen

from s2frames.checks import check_int
from s2frames.classify import RecordKind, classify
from s2frames.errors import ScanLimitExceeded
from s2frames.events import FrameReceived, GapDetected
from s2frames.operation import Plan, ask, read_range
from s2frames.reader import FrameReader
from s2frames.records import SequencedRecord, StreamPosition
from s2frames.rest import check_tail
from s2frames.target import StreamTarget

__all__ = ["LastFrames", "find_last"]

# A first look covers this many records, or twice as many as messages are wanted. Most messages are
# one record; each further look goes four times as far back, so that all the looks before the last
# one together read less than half as much.
_MIN_SPAN = 16
_GROWTH = 4

# Where a chunk of unknown origin was last seen: nowhere.
_NOWHERE = -1


@frozen
class LastFrames:
    """The frames that complete last before the tail."""

    #: Where to read them from: the first record of the first of them, or the tail if there is none.
    read_from: int
    #: The sequence numbers of their first records.
    starts: frozenset[int]
    #: The tail that they come before.
    tail: StreamPosition


def find_last(
    target: StreamTarget,
    count: int,
    max_scan_bytes: int,
    make_reader: Callable[[int], FrameReader],
) -> Plan[LastFrames]:
    """The `count` frames that complete last before the tail as it is now; all if there are fewer.

    Looks at the stream's last records, and further back until it is enough, at `max_scan_bytes`
    metered bytes each time. `make_reader` gives a reader that starts at a sequence number. Of a
    frame's repeats the first one that was looked at counts.

    Raises `LocalProtocolError` at once for a number below 1. Ends in `ScanLimitExceeded` when the
    frames do not lie in the last `max_scan_bytes`.
    """
    check_int("last", count, 1)
    check_int("max_scan_bytes", max_scan_bytes, 1)
    return _find(target, count, max_scan_bytes, make_reader)


def _find(
    target: StreamTarget,
    count: int,
    max_scan_bytes: int,
    make_reader: Callable[[int], FrameReader],
) -> Plan[LastFrames]:
    tail = yield from ask(check_tail(target.settings, target.basin, target.stream))
    end = tail.seq_num
    if not end:
        return LastFrames(end, frozenset(), tail)
    # The most records that are known to fit, the fewest that do not, and the frames found in those.
    fitting, too_many, found = 0, end + 1, 0
    span = max(_MIN_SPAN, 2 * count)
    while fitting < (span := min(span, too_many - 1)):
        scan = _Scan(make_reader(end - span), count, max_scan_bytes, span == end)
        position = yield from read_range(target, end - span, end, scan.take)
        if scan.is_over_limit:
            too_many = span
            span = (fitting + span) // 2
            continue
        if position < end:
            scan.note_trimmed()
        if scan.is_enough:
            starts = frozenset(start for start, _ in scan.frames)
            return LastFrames(min(starts, default=end), starts, tail)
        fitting, found = span, scan.num_certain
        span = _GROWTH * span if too_many > end else (span + too_many) // 2
    raise ScanLimitExceeded(found, count, max_scan_bytes)


@define(eq=False)
class _Scan:
    """One look at the stream, from some record up to the tail. Keeps positions only."""

    _reader: FrameReader
    _count: int
    _max_bytes: int
    # Whether there is nothing further back.
    _has_beginning: bool
    _num_bytes: int = 0
    #: Start and end of the frames that completed last, in that order.
    frames: deque[tuple[int, int]] = field(factory=deque)
    # The lanes that had a frame's first record; no later chunk of theirs belongs to one before.
    _known_lanes: set[bytes | None] = field(factory=set)
    # The last chunk whose frame may begin further back.
    _last_unknown: int = _NOWHERE

    @property
    def is_over_limit(self) -> bool:
        """Whether more bytes came than may be looked at."""
        return self._num_bytes > self._max_bytes

    @property
    def num_certain(self) -> int:
        """How many of the frames are among the last ones, whatever lies further back."""
        return sum(end > self._last_unknown for _, end in self.frames)

    @property
    def is_enough(self) -> bool:
        """Whether these are the frames that are wanted, or all that there are."""
        return self._has_beginning or self.num_certain == self._count

    def note_trimmed(self) -> None:
        """What should have come next is gone, and all before: streams are trimmed in front."""
        self.frames.clear()
        self._has_beginning = True

    def take(self, records: Sequence[SequencedRecord]) -> bool:
        """Take the next records; tells whether to go on."""
        self._num_bytes += sum(record.metered_bytes for record in records)
        if self.is_over_limit:
            return False
        self._note_unknown(records)
        for event in self._reader.receive_records(records):
            if isinstance(event, FrameReceived):
                self.frames.append((event.start, event.end))
                if len(self.frames) > self._count:
                    self.frames.popleft()
            elif isinstance(event, GapDetected):
                self.note_trimmed()
        return True

    def _note_unknown(self, records: Sequence[SequencedRecord]) -> None:
        for kind, seq_num, _, _, _, _, lane, _, _ in classify(records):
            if kind is RecordKind.HEAD:
                self._known_lanes.add(lane)
            elif kind is RecordKind.CHUNK and lane not in self._known_lanes:
                self._last_unknown = seq_num
