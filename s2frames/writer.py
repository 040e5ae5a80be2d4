"""`FrameWriter`: payloads in, batches out, acks in, durable ranges out.

Payloads wait in a queue. Batches are cut from it as the window of unacked batches allows, are
appended in the order in which they were cut, and are acked in that order. A batch keeps its bytes,
so that sending it again sends the same.

Ctrl-C can cut a method off between any two of its lines. What is to change is therefore known in
full before anything does, and says what holds afterwards, not by how much: the next call carries it
out again, from its beginning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import cast

from attrs import define, field

from s2frames.checks import check_int, check_type
from s2frames.chunking import MAX_CHUNK_BODY_BYTES
from s2frames.dedupe import MAX_DEDUPE_SEQ, RESERVED_HEADERS, check_writer_id
from s2frames.errors import FrameSizeError, LocalProtocolError, RemoteProtocolError
from s2frames.events import FramesDurable
from s2frames.framed_wire import RecordEncoder
from s2frames.framing import DEFAULT_MAX_FRAME_BYTES, parse_frame_headers
from s2frames.reconcile import Reconciliation
from s2frames.records import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    MAX_RECORD_BYTES,
    AppendAck,
    Header,
    Record,
    check_fencing_token,
    check_headers,
    check_timestamp,
    metered_bytes,
)
from s2frames.u64 import U64_MAX
from s2frames.wire import decode_append_input, encode_conditions
from s2frames.writer_state import PendingMessage

__all__ = ["DEFAULT_MAX_INFLIGHT_BATCHES", "DEFAULT_MAX_INFLIGHT_BYTES", "Batch", "FrameWriter"]

#: Unacked batches. Measured: 16 beat 5 on small messages, 8 were enough for large ones.
DEFAULT_MAX_INFLIGHT_BATCHES = 16

#: Metered bytes of unacked batches: 16 of the largest.
DEFAULT_MAX_INFLIGHT_BYTES = 16 * MAX_BATCH_BYTES


@define(eq=False)
class Batch:
    """Records to append together: all of them or none."""

    num_records: int
    metered_bytes: int
    match_seq_num: int | None
    fencing_token: str | None
    #: The encoded `AppendInput`.
    wire: bytes = field(repr=False)
    #: The number of the first frame that ends in this batch.
    first_frame: int
    #: How many records into the batch each frame that ends in it does.
    frame_ends: Sequence[int] = field(repr=False)
    #: Whether the last record belongs to a frame that goes on in the next batch.
    ends_inside_frame: bool
    #: The dedupe sequence of the first record.
    first_dedupe_seq: int = 0
    # The frames of more than one record that it holds records of.
    _long_frames: Sequence[_Frame] = field(default=(), repr=False)

    @property
    def records(self) -> Sequence[Record]:
        """The records themselves, for appending them through another client.

        Append serially and in order: parallel appends break the proof against duplicates.
        """
        return decode_append_input(self.wire).records

    def match_at(self, seq_num: int) -> None:
        """Condition the batch on another place."""
        conditions = encode_conditions(self.match_seq_num, self.fencing_token)
        records = memoryview(self.wire)[: len(self.wire) - len(conditions)]
        wire = b"".join((records, encode_conditions(seq_num, self.fencing_token)))
        # At once: the one says how long the other's end is.
        self.wire, self.match_seq_num = wire, seq_num

    def long_frames_begun(self) -> Iterator[_Frame]:
        """The frames of more than one record whose first record is in this batch."""
        return (f for f in self._long_frames if f.first_dedupe_seq >= self.first_dedupe_seq)

    @property
    def frame_continued(self) -> _Frame:
        """The frame of which it holds further records from its first one on."""
        return self._long_frames[0]


@define(eq=False)
class _Frame:
    """A queued frame that is more than a small payload, and how much of it was cut off already."""

    payload: bytes
    headers: tuple[Header, ...]
    timestamp: int | None
    # Body bytes of the first record and of every further one but the last.
    head_bytes: int
    chunk_bytes: int
    num_records: int
    metered_bytes: int
    # Set once the batch that holds them is there.
    cut_records: int = 0
    # The dedupe sequence of the first record, once it is cut.
    first_dedupe_seq: int = 0

    def body(self, index: int) -> memoryview:
        start = self.head_bytes + (index - 1) * self.chunk_bytes if index else 0
        end = self.head_bytes + index * self.chunk_bytes
        return memoryview(self.payload)[start:end]

    def pending(self) -> PendingMessage:
        first = self.first_dedupe_seq
        return PendingMessage(
            self.payload, self.headers, self.timestamp, first, first + self.num_records
        )


@define(eq=False)
class _Cut:
    """A batch in the making."""

    #: The dedupe sequence of the next record.
    seq: int
    parts: list[bytes | memoryview] = field(factory=list)
    #: How many records into the batch each frame that ends in it does.
    ends: list[int] = field(factory=list)
    num_records: int = 0
    metered_bytes: int = 0
    #: How many items of the queue it holds to their end, and records of the one after them.
    num_items: int = 0
    open_records: int = 0
    long_frames: list[_Frame] = field(factory=list)


def _accepting() -> None:
    """What is being changed while payloads are put into the queue: its numbers."""


class FrameWriter:
    """Turns messages' payloads into batches of records, and acks into durable ranges.

    Every method either does all it says or raises before anything changed. One that was cut off by
    Ctrl-C did all of it or nothing. Batches that were handed out and did not arrive so are handed
    out again after `connection_lost`.

    Args:
        writer_id: who writes, 1 to 256 UTF-8 bytes; None leaves the dedupe headers out. A new
            writer needs a new id (`make_writer_id`): under an id that was used before, readers
            drop what starts over at 0 as repeats. Without headers a stream is for one writer at a
            time: parts of two messages may be put together unnoticed.
        first_dedupe_seq: the dedupe sequence of the first record.
        chunk_size: body bytes of a record at most; less where the headers need the room.
        max_frame_bytes: the largest payload.
        match_seq_num: the sequence number that the first record must get; counted on from there.
        fencing_token: the token that the stream must have.
        max_inflight_batches: unacked batches at most.
        max_inflight_bytes: metered bytes of unacked batches at most, 1 MiB or more.
    """

    def __init__(
        self,
        writer_id: str | None,
        *,
        first_dedupe_seq: int = 0,
        chunk_size: int = MAX_CHUNK_BODY_BYTES,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        match_seq_num: int | None = None,
        fencing_token: str | None = None,
        max_inflight_batches: int = DEFAULT_MAX_INFLIGHT_BATCHES,
        max_inflight_bytes: int = DEFAULT_MAX_INFLIGHT_BYTES,
    ) -> None:
        check_int("first_dedupe_seq", first_dedupe_seq, 0, MAX_DEDUPE_SEQ)
        check_int("chunk_size", chunk_size, 1, MAX_RECORD_BYTES)
        check_int("max_frame_bytes", max_frame_bytes, 1, U64_MAX)
        check_int("max_inflight_batches", max_inflight_batches, 1, U64_MAX)
        check_int("max_inflight_bytes", max_inflight_bytes, MAX_BATCH_BYTES, U64_MAX)
        if match_seq_num is not None:
            check_int("match_seq_num", match_seq_num, 0, U64_MAX)
        if fencing_token is not None:
            check_fencing_token(fencing_token)
        if writer_id is not None:
            check_writer_id(writer_id)
        self._encoder = RecordEncoder(writer_id)
        # Body bytes of a record; a payload up to this size without own headers takes one record.
        self._chunk_bytes = min(chunk_size, MAX_RECORD_BYTES - self._encoder.head_overhead)
        self._max_frame_bytes = max_frame_bytes
        self._fencing_token = fencing_token
        self._max_inflight_batches = max_inflight_batches
        self._max_inflight_bytes = max_inflight_bytes
        self._writer_id = writer_id

        # Accepted and not yet cut: a `bytes` is a frame of one record without own headers.
        self._queue: deque[bytes | _Frame] = deque()
        self._queued_records = 0
        self._queued_bytes = 0
        # What the next record that is cut gets.
        self._next_cut_seq = first_dedupe_seq
        self._next_cut_frame = 0
        self._next_match = match_seq_num
        # Cut and not yet acked, in order; so many of them, from the oldest on, are under way.
        self._unacked: deque[Batch] = deque()
        self._num_inflight = 0
        self._inflight_bytes = 0
        # What was acked: the end, and where a frame that goes on started.
        self._acked_end = 0
        self._open_frame_start: int | None = None
        self._last_durable: FramesDurable | None = None
        # What is being changed. Left here when it was cut off, to be done again; see `_carry_out`.
        self._change: Callable[[], None] | None = None

    @property
    def next_frame(self) -> int:
        """The number that the next payload gets."""
        self._mend()
        return self._next_cut_frame + len(self._queue)

    @property
    def next_dedupe_seq(self) -> int:
        """The dedupe sequence that the next payload's first record gets."""
        if self._change is not None:
            self._mend()
        return self._next_cut_seq + self._queued_records

    @property
    def queued_bytes(self) -> int:
        """Metered bytes accepted and not yet cut into batches."""
        if self._change is not None:
            self._mend()
        return self._queued_bytes

    @property
    def inflight_bytes(self) -> int:
        """Metered bytes handed out by `batches_to_send` and not acked."""
        self._mend()
        return self._inflight_bytes

    @property
    def inflight_batches(self) -> int:
        """Batches handed out by `batches_to_send` and not acked."""
        self._mend()
        return self._num_inflight

    @property
    def unacked_batches(self) -> int:
        """Batches cut and not acked, those that wait to be sent again included."""
        self._mend()
        return len(self._unacked)

    @property
    def is_cut(self) -> bool:
        """Whether everything accepted was handed out by `batches_to_send`."""
        self._mend()
        return not self._queue and self._num_inflight == len(self._unacked)

    @property
    def is_idle(self) -> bool:
        """Whether everything accepted is durable."""
        self._mend()
        return not (self._queue or self._unacked)

    @property
    def last_durable(self) -> FramesDurable | None:
        """What `receive_ack` or `receive_landed` told last: it may have been cut off as it did."""
        self._mend()
        return self._last_durable

    def send(
        self, payload: bytes, headers: Iterable[Header] = (), timestamp: int | None = None
    ) -> int:
        """Accept a payload; returns its number.

        `bytes` are kept, not copied; a bytearray or memoryview is copied. `headers` go on the
        first record, `timestamp` (milliseconds) on every one.

        Raises `FrameSizeError` for an empty payload or one over `max_frame_bytes`,
        `LocalProtocolError` for anything else that cannot be sent.
        """
        if self._change is not None:
            self._mend()
        payload = self._check_payload(payload)
        own_headers = check_headers(headers, RESERVED_HEADERS)
        check_timestamp(timestamp)
        if not own_headers and timestamp is None and len(payload) <= self._chunk_bytes:
            self._check_numbers(1)
            self._enqueue(payload, 1, self._encoder.head_overhead + len(payload))
        else:
            frame = self._plan(payload, own_headers, timestamp)
            self._check_numbers(frame.num_records)
            self._enqueue(frame, frame.num_records, frame.metered_bytes)
        return self._next_cut_frame + len(self._queue) - 1

    def send_many(self, payloads: Iterable[bytes]) -> range:
        """Accept payloads, all or none of them; returns their numbers. See `send`."""
        if not isinstance(payloads, Iterable):
            raise LocalProtocolError(f"payloads are an iterable, not {type(payloads).__name__}")
        self._mend()
        checked = payloads if isinstance(payloads, list) else list(payloads)
        if not set(map(type, checked)) <= {bytes}:
            checked = [self._check_payload(payload) for payload in checked]
        sizes = list(map(len, checked))
        if not sizes:
            return range(self.next_frame, self.next_frame)
        if min(sizes) == 0 or max(sizes) > self._max_frame_bytes:
            for payload in checked:
                self._check_payload(payload)
        if max(sizes) > self._chunk_bytes:
            return self._send_mixed(checked)
        self._check_numbers(len(sizes))
        metered = self._encoder.head_overhead * len(sizes) + sum(sizes)
        return self._enqueue_many(checked, len(sizes), metered)

    def batches_to_send(
        self, *, flush: bool = False, max_batches: int | None = None
    ) -> list[Batch]:
        """The batches to append now, in this order, as many as the window and `max_batches` allow.

        A batch that is not full is held back while others are unacked, unless `flush`.
        """
        if max_batches is not None:
            check_int("max_batches", max_batches)
        self._mend()
        batches: list[Batch] = []
        num_inflight, size = self._num_inflight, self._inflight_bytes
        while len(batches) != max_batches:
            batch = self._next_batch(num_inflight + len(batches), size, flush)
            if batch is None:
                break
            size += batch.metered_bytes
            batches.append(batch)
        self._num_inflight, self._inflight_bytes = num_inflight + len(batches), size
        return batches

    def receive_ack(self, ack: AppendAck) -> FramesDurable:
        """Take the ack for the oldest unacked batch; tells which frames are durable with it.

        Raises `RemoteProtocolError` when the ack cannot be that batch's.
        """
        check_type("ack", ack, AppendAck)
        self._mend()
        self._check_ack(ack)
        batch = self._unacked[0]
        left = self._num_inflight - 1, self._inflight_bytes - batch.metered_bytes
        return self._settle(batch, ack, left)

    def _settle(self, batch: Batch, ack: AppendAck, left: tuple[int, int]) -> FramesDurable:
        """The oldest unacked batch is in the stream; what is under way is `left`."""
        origin = ack.start.seq_num
        first_start = origin if self._open_frame_start is None else self._open_frame_start
        ends = batch.frame_ends
        event = FramesDurable(batch.first_frame, len(ends), ack, first_start, ends)
        # A batch that ends inside a frame holds nothing but records of that frame.
        open_start = first_start if batch.ends_inside_frame else None
        self._carry_out(partial(self._drop_acked, batch, event, open_start, left))
        return event

    def connection_lost(self) -> None:
        """Forget what was sent: everything unacked is to be sent again, the same and in order."""
        self._mend()
        self._num_inflight, self._inflight_bytes = 0, 0

    # Changing

    def _carry_out(self, change: Callable[[], None]) -> None:
        """Do something that leaves the same behind when it is done again after it was cut off."""
        self._change = change
        self._mend()

    def _mend(self) -> None:
        """Carry out what was to change, or what was cut off in doing so."""
        if self._change is not None:
            if self._change is _accepting:
                self._count_queue()
            else:
                self._change()
            self._change = None

    def _count_queue(self) -> None:
        """Count what is queued: the queue is what was accepted, whatever its numbers say."""
        overhead = self._encoder.head_overhead
        num_records = metered = 0
        for item in self._queue:
            if isinstance(item, _Frame):
                num_records += item.num_records - item.cut_records
                metered += self._metered_rest(item)
            else:
                num_records += 1
                metered += overhead + len(item)
        self._queued_records, self._queued_bytes = num_records, metered

    def _metered_rest(self, frame: _Frame) -> int:
        cut = sum(self._metered_record(frame, index) for index in range(frame.cut_records))
        return frame.metered_bytes - cut

    def _drop_cut(
        self, batch: Batch, num_left: int, open_records: int, queued: tuple[int, int]
    ) -> None:
        """`batch` is there: the queue goes on after it, with so many items."""
        drop = self._queue.popleft
        for _ in range(len(self._queue) - num_left):
            drop()
        if open_records:
            batch.frame_continued.cut_records = open_records
        if not self._unacked or self._unacked[-1] is not batch:
            self._unacked.append(batch)
        self._queued_records, self._queued_bytes = queued
        self._next_cut_seq = batch.first_dedupe_seq + batch.num_records
        self._next_cut_frame = batch.first_frame + len(batch.frame_ends)
        if batch.match_seq_num is not None:
            self._next_match = batch.match_seq_num + batch.num_records

    def _drop_acked(
        self, batch: Batch, event: FramesDurable, open_start: int | None, left: tuple[int, int]
    ) -> None:
        """`batch` is durable, which `event` tells."""
        if self._unacked and self._unacked[0] is batch:
            self._unacked.popleft()
        self._num_inflight, self._inflight_bytes = left
        self._acked_end = event.ack.end.seq_num
        self._open_frame_start = open_start
        self._last_durable = event

    # Settling what is in doubt

    def match_from(self, seq_num: int) -> None:
        """Condition all that is not under way on its place, the first of it on `seq_num`.

        Raises `LocalProtocolError` while batches are under way, and when the numbers do not fit.
        """
        check_int("match_seq_num", seq_num, 0, U64_MAX)
        self._mend()
        if self._num_inflight:
            raise LocalProtocolError(
                f"{self._num_inflight} batches are under way: their places cannot be changed"
            )
        num_records = sum(batch.num_records for batch in self._unacked)
        if seq_num + num_records + self._queued_records > U64_MAX:
            raise LocalProtocolError(
                f"sequence numbers end at {U64_MAX}: from {seq_num} on "
                f"{num_records + self._queued_records} records do not fit"
            )
        self._carry_out(partial(self._match_all, seq_num))

    def _match_all(self, seq_num: int) -> None:
        for batch in self._unacked:
            if batch.match_seq_num != seq_num:
                batch.match_at(seq_num)
            seq_num += batch.num_records
        self._next_match = seq_num

    def reconcile(self) -> Reconciliation:
        """Compare what stands in the stream with what is to be sent again.

        For a writer with `match_seq_num`, after `connection_lost`, when the service says that the
        place of the first unacked batch is taken. Raises `LocalProtocolError` at any other time.
        """
        self._mend()
        is_exclusive = self._next_match is not None and self._writer_id is not None
        has_lost = bool(self._unacked) and not self._num_inflight
        if self._writer_id is None or not is_exclusive or not has_lost:
            raise LocalProtocolError(
                "only a writer with writer_id and match_seq_num that lost its connection, and "
                "has something to send again, can be reconciled with the stream"
            )
        return Reconciliation(self, self._writer_id)

    @property
    def next_unacked_seq_num(self) -> int:
        """Where the first record that is not acked is to be; 0 without `match_seq_num`."""
        self._mend()
        return (self._unacked[0].match_seq_num if self._unacked else self._next_match) or 0

    @property
    def next_unacked_dedupe_seq(self) -> int:
        """The dedupe sequence of the first record that is not acked."""
        self._mend()
        return self._unacked[0].first_dedupe_seq if self._unacked else self._next_cut_seq

    @property
    def next_unsent_dedupe_seq(self) -> int:
        """The dedupe sequence of the first record that is not under way."""
        self._mend()
        unsent = next(islice(self._unacked, self._num_inflight, None), None)
        return self._next_cut_seq if unsent is None else unsent.first_dedupe_seq

    @property
    def is_inside_frame(self) -> bool:
        """Whether the last acked record belongs to a frame that goes on."""
        self._mend()
        return self._open_frame_start is not None

    def oldest_unacked_records(self) -> Sequence[Record]:
        """The records of the first batch to send again; none when there is none."""
        self._mend()
        return () if self._num_inflight or not self._unacked else self._unacked[0].records

    def receive_landed(self, ack: AppendAck) -> FramesDurable:
        """The first batch to send again stands in the stream where `ack` says.

        Raises `RemoteProtocolError` when it cannot stand there.
        """
        self._mend()
        if not self._unacked or self._num_inflight:
            raise LocalProtocolError("no batch is to be sent again, or others are under way")
        self._check_span(ack, self._unacked[0])
        return self._settle(self._unacked[0], ack, (0, 0))

    def pending(self) -> list[PendingMessage]:
        """What was accepted and is not known to be durable, in order.

        Without dedupe the sequences count records all the same.
        """
        self._mend()
        return [*self._pending_cut(), *self._pending_queued()]

    def _pending_cut(self) -> Iterator[PendingMessage]:
        """Of the batches that are cut, the frame that goes on after them included."""
        if self._open_frame_start is not None:
            yield self._open_frame().pending()
        for batch in self._unacked:
            long_frames = batch.long_frames_begun()
            for dedupe_seq, record in enumerate(batch.records, batch.first_dedupe_seq):
                declared = parse_frame_headers(record.headers)
                if declared is None:
                    continue
                if declared.records > 1:
                    yield next(long_frames).pending()
                else:
                    own = tuple(h for h in record.headers if h[0] not in RESERVED_HEADERS)
                    yield PendingMessage(
                        record.body, own, record.timestamp, dedupe_seq, dedupe_seq + 1
                    )

    def _open_frame(self) -> _Frame:
        """The frame whose beginning is acked and whose end is not."""
        if self._unacked:
            return self._unacked[0].frame_continued
        return cast("_Frame", self._queue[0])

    def _pending_queued(self) -> Iterator[PendingMessage]:
        """Of the frames of which nothing is cut."""
        seq = self._next_cut_seq
        for item in self._queue:
            if not isinstance(item, _Frame):
                yield PendingMessage(item, (), None, seq, seq + 1)
                seq += 1
                continue
            if not item.cut_records:
                item.first_dedupe_seq = seq
                yield item.pending()
            seq += item.num_records - item.cut_records

    # Accepting

    def _check_payload(self, payload: bytes) -> bytes:
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            raise LocalProtocolError(
                f"a payload is bytes, bytearray or memoryview, not {type(payload).__name__}"
            )
        payload = bytes(payload)
        if not 1 <= len(payload) <= self._max_frame_bytes:
            raise FrameSizeError(
                f"a payload has 1 to {self._max_frame_bytes} bytes (max_frame_bytes), "
                f"not {len(payload)}"
            )
        return payload

    def _check_numbers(self, num_records: int) -> None:
        match = self._next_match
        if match is not None and match + self._queued_records + num_records > U64_MAX:
            raise LocalProtocolError(
                f"sequence numbers end at {U64_MAX}, and the next is "
                f"{match + self._queued_records}: {num_records} more records do not fit"
            )
        if self._writer_id is not None and self.next_dedupe_seq + num_records > MAX_DEDUPE_SEQ + 1:
            raise LocalProtocolError(
                f"dedupe sequences end at {MAX_DEDUPE_SEQ}, and the next is "
                f"{self.next_dedupe_seq}: {num_records} more records need another writer id"
            )

    def _plan(self, payload: bytes, headers: tuple[Header, ...], timestamp: int | None) -> _Frame:
        """Divide a payload among records."""
        overhead = self._encoder.head_overhead + metered_bytes(headers, 0) - metered_bytes((), 0)
        room = MAX_RECORD_BYTES - overhead
        if room < 1:
            raise LocalProtocolError(
                f"the headers take {overhead} bytes of the first record's {MAX_RECORD_BYTES} "
                "and leave no room for the payload"
            )
        chunk_bytes = self._chunk_bytes
        head_bytes = min(room, chunk_bytes)
        further = max(0, -(-(len(payload) - head_bytes) // chunk_bytes))
        metered = overhead + further * self._encoder.chunk_overhead + len(payload)
        return _Frame(payload, headers, timestamp, head_bytes, chunk_bytes, 1 + further, metered)

    def _enqueue(self, item: bytes | _Frame, num_records: int, metered: int) -> None:
        self._change = _accepting
        self._queue.append(item)
        self._queued_records += num_records
        self._queued_bytes += metered
        self._change = None

    def _enqueue_many(
        self, items: Sequence[bytes | _Frame], num_records: int, metered: int
    ) -> range:
        first = self.next_frame
        self._change = _accepting
        self._queue.extend(items)
        self._queued_records += num_records
        self._queued_bytes += metered
        self._change = None
        return range(first, first + len(items))

    def _send_mixed(self, payloads: Sequence[bytes]) -> range:
        frames = [self._plan(payload, (), None) for payload in payloads]
        num_records = sum(frame.num_records for frame in frames)
        self._check_numbers(num_records)
        items = [frame.payload if frame.num_records == 1 else frame for frame in frames]
        return self._enqueue_many(items, num_records, sum(frame.metered_bytes for frame in frames))

    # Cutting

    def _next_batch(self, num_inflight: int, inflight_bytes: int, flush: bool) -> Batch | None:
        """The batch to send after those that are under way, if the window has room for it."""
        unsent = next(islice(self._unacked, num_inflight, None), None)
        if unsent is None and not self._queue:
            return None
        metered = min(self._queued_bytes, MAX_BATCH_BYTES)
        if unsent is not None:
            metered = unsent.metered_bytes
        has_room = not num_inflight or (
            num_inflight < self._max_inflight_batches
            and inflight_bytes + metered <= self._max_inflight_bytes
        )
        if not has_room:
            return None
        if unsent is not None:
            return unsent
        return self._cut_batch() if flush or not num_inflight or self._can_fill_batch() else None

    def _can_fill_batch(self) -> bool:
        return self._queued_records >= MAX_BATCH_RECORDS or self._queued_bytes >= MAX_BATCH_BYTES

    def _cut_batch(self) -> Batch:
        cut = _Cut(self._next_cut_seq)
        items = iter(self._queue)
        frame = self._cut_small(cut, items)
        while frame is not None and self._cut_frame(cut, frame):
            frame = self._cut_small(cut, items)
        return self._finish_batch(cut)

    def _cut_small(self, cut: _Cut, items: Iterator[bytes | _Frame]) -> _Frame | None:
        """Add small payloads as long as there is room; gives what comes next if it is a frame."""
        parts = cut.parts
        encode_seq = self._encoder.encode_seq
        single = self._encoder.single
        overhead = self._encoder.head_overhead
        first_seq = seq = cut.seq
        last_seq = first_seq + MAX_BATCH_RECORDS - cut.num_records
        left = room = MAX_BATCH_BYTES - cut.metered_bytes
        frame = None
        for item in items:
            if seq == last_seq:
                break
            if type(item) is not bytes:
                frame = cast("_Frame", item)
                break
            size = len(item)
            if left < overhead + size:
                break
            left -= overhead + size
            before, after = single(size)
            parts += (before, encode_seq(seq), after, item)
            seq += 1
        taken = seq - first_seq
        cut.ends.extend(range(cut.num_records + 1, cut.num_records + taken + 1))
        cut.seq = seq
        cut.num_records += taken
        cut.num_items += taken
        cut.metered_bytes += room - left
        return frame

    def _cut_frame(self, cut: _Cut, frame: _Frame) -> bool:
        """Add records of a frame; tells whether all that were left are in.

        A frame that fits a batch waits for one that it fits whole; one that does not starts in a
        batch of its own.
        """
        index = frame.cut_records
        if not index and cut.num_records:
            fits = (
                cut.num_records + frame.num_records <= MAX_BATCH_RECORDS
                and cut.metered_bytes + frame.metered_bytes <= MAX_BATCH_BYTES
            )
            if not fits:
                return False
        if not index:
            frame.first_dedupe_seq = cut.seq
        if frame.num_records > 1:
            cut.long_frames.append(frame)
        while index < frame.num_records and cut.num_records < MAX_BATCH_RECORDS:
            size = self._metered_record(frame, index)
            if cut.metered_bytes + size > MAX_BATCH_BYTES:
                break
            self._encode_record(frame, index, cut)
            index += 1
            cut.num_records += 1
            cut.metered_bytes += size
        if index < frame.num_records:
            cut.open_records = index
            return False
        cut.ends.append(cut.num_records)
        cut.num_items += 1
        return True

    def _metered_record(self, frame: _Frame, index: int) -> int:
        size = len(frame.body(index))
        if index:
            return self._encoder.chunk_overhead + size
        own = metered_bytes(frame.headers, 0) - metered_bytes((), 0)
        return self._encoder.head_overhead + own + size

    def _encode_record(self, frame: _Frame, index: int, cut: _Cut) -> None:
        body = frame.body(index)
        if index:
            before, after = self._encoder.chunk(len(body), frame.timestamp)
        else:
            before, after = self._encoder.head(
                len(frame.payload), frame.num_records, len(body), frame.headers, frame.timestamp
            )
        cut.parts += (before, self._encoder.encode_seq(cut.seq), after, body)
        cut.seq += 1

    def _finish_batch(self, cut: _Cut) -> Batch:
        match = self._next_match
        cut.parts.append(encode_conditions(match, self._fencing_token))
        wire = b"".join(cut.parts)
        batch = Batch(
            num_records=cut.num_records,
            metered_bytes=cut.metered_bytes,
            match_seq_num=match,
            fencing_token=self._fencing_token,
            wire=wire,
            first_frame=self._next_cut_frame,
            frame_ends=cut.ends,
            ends_inside_frame=not cut.ends or cut.ends[-1] != cut.num_records,
            first_dedupe_seq=self._next_cut_seq,
            long_frames=cut.long_frames,
        )
        num_left = len(self._queue) - cut.num_items
        queued = self._queued_records - cut.num_records, self._queued_bytes - cut.metered_bytes
        self._carry_out(partial(self._drop_cut, batch, num_left, cut.open_records, queued))
        return batch

    # Acks

    def _check_ack(self, ack: AppendAck) -> None:
        start, end = ack.start.seq_num, ack.end.seq_num
        if not self._num_inflight:
            raise RemoteProtocolError(f"an ack for {start} to {end}, and no batch is unacked")
        batch = self._unacked[0]
        self._check_span(ack, batch)
        if batch.match_seq_num is not None and start != batch.match_seq_num:
            raise RemoteProtocolError(
                f"an ack that starts at {start} for a batch conditioned on {batch.match_seq_num}"
            )
        if ack.tail.seq_num < end:
            raise RemoteProtocolError(
                f"an ack that ends at {end}, beyond its tail {ack.tail.seq_num}"
            )

    def _check_span(self, ack: AppendAck, batch: Batch) -> None:
        start, end = ack.start.seq_num, ack.end.seq_num
        if end - start != batch.num_records:
            raise RemoteProtocolError(
                f"an ack for {end - start} records, and the batch has {batch.num_records}"
            )
        if start < self._acked_end:
            raise RemoteProtocolError(
                f"an ack that starts at {start}, and the one before ended at {self._acked_end}"
            )
