"""`FrameWriter`: payloads in, batches out, acks in, durable ranges out.

Payloads wait in a queue. Batches are cut from it as the window of unacked batches allows, are
appended in the order in which they were cut, and are acked in that order. A batch keeps its bytes,
so that sending it again sends the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

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
    #: How many frames of more than one record end in this batch.
    num_long_frames: int = 0

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
        self.wire = b"".join((records, encode_conditions(seq_num, self.fencing_token)))
        self.match_seq_num = seq_num


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


class FrameWriter:
    """Turns messages' payloads into batches of records, and acks into durable ranges.

    Every method either does all it says or raises before anything changed.

    Args:
        writer_id: who writes, 1 to 256 UTF-8 bytes; None leaves the dedupe headers out. A new
            writer needs a new id (`make_writer_id`): under an id that was used before, readers
            drop what starts over at 0 as repeats.
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
        self._frames_accepted = 0
        # What the next record that is cut gets.
        self._next_cut_seq = first_dedupe_seq
        self._next_cut_frame = 0
        self._next_match = match_seq_num
        # Cut and not yet acked: those to send again come before those to cut.
        self._resend: deque[Batch] = deque()
        self._inflight: deque[Batch] = deque()
        self._inflight_bytes = 0
        # Frames of several records that are cut, in part or whole, and not all acked.
        self._long_frames: deque[_Frame] = deque()
        # What was acked: the end, and where a frame that goes on started.
        self._acked_end = 0
        self._open_frame_start: int | None = None

    @property
    def next_frame(self) -> int:
        """The number that the next payload gets."""
        return self._frames_accepted

    @property
    def next_dedupe_seq(self) -> int:
        """The dedupe sequence that the next payload's first record gets."""
        return self._next_cut_seq + self._queued_records

    @property
    def queued_bytes(self) -> int:
        """Metered bytes accepted and not yet cut into batches."""
        return self._queued_bytes

    @property
    def inflight_bytes(self) -> int:
        """Metered bytes handed out by `batches_to_send` and not acked."""
        return self._inflight_bytes

    @property
    def unacked_batches(self) -> int:
        """Batches cut and not acked, those that wait to be sent again included."""
        return len(self._inflight) + len(self._resend)

    @property
    def is_cut(self) -> bool:
        """Whether everything accepted was handed out by `batches_to_send`."""
        return not (self._queue or self._resend)

    @property
    def is_idle(self) -> bool:
        """Whether everything accepted is durable."""
        return not (self._queue or self._inflight or self._resend)

    def send(
        self, payload: bytes, headers: Iterable[Header] = (), timestamp: int | None = None
    ) -> int:
        """Accept a payload; returns its number.

        `bytes` are kept, not copied; a bytearray or memoryview is copied. `headers` go on the
        first record, `timestamp` (milliseconds) on every one.

        Raises `FrameSizeError` for an empty payload or one over `max_frame_bytes`,
        `LocalProtocolError` for anything else that cannot be sent.
        """
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
        return self._frames_accepted - 1

    def send_many(self, payloads: Iterable[bytes]) -> range:
        """Accept payloads, all or none of them; returns their numbers. See `send`."""
        if not isinstance(payloads, Iterable):
            raise LocalProtocolError(f"payloads are an iterable, not {type(payloads).__name__}")
        checked = payloads if isinstance(payloads, list) else list(payloads)
        if not set(map(type, checked)) <= {bytes}:
            checked = [self._check_payload(payload) for payload in checked]
        sizes = list(map(len, checked))
        first = self._frames_accepted
        if not sizes:
            return range(first, first)
        if min(sizes) == 0 or max(sizes) > self._max_frame_bytes:
            for payload in checked:
                self._check_payload(payload)
        if max(sizes) > self._chunk_bytes:
            return self._send_mixed(checked)
        self._check_numbers(len(sizes))
        self._queue.extend(checked)
        self._queued_records += len(sizes)
        self._queued_bytes += self._encoder.head_overhead * len(sizes) + sum(sizes)
        self._frames_accepted += len(sizes)
        return range(first, self._frames_accepted)

    def batches_to_send(
        self, *, flush: bool = False, max_batches: int | None = None
    ) -> list[Batch]:
        """The batches to append now, in this order, as many as the window and `max_batches` allow.

        A batch that is not full is held back while others are unacked, unless `flush`.
        """
        if max_batches is not None:
            check_int("max_batches", max_batches)
        batches: list[Batch] = []
        while len(batches) != max_batches and (batch := self._next_batch(flush)) is not None:
            self._inflight.append(batch)
            self._inflight_bytes += batch.metered_bytes
            batches.append(batch)
        return batches

    def receive_ack(self, ack: AppendAck) -> FramesDurable:
        """Take the ack for the oldest unacked batch; tells which frames are durable with it.

        Raises `RemoteProtocolError` when the ack cannot be that batch's.
        """
        check_type("ack", ack, AppendAck)
        self._check_ack(ack)
        batch = self._inflight.popleft()
        self._inflight_bytes -= batch.metered_bytes
        return self._settle(batch, ack)

    def _settle(self, batch: Batch, ack: AppendAck) -> FramesDurable:
        """The oldest unacked batch is in the stream."""
        for _ in range(batch.num_long_frames):
            self._long_frames.popleft()
        origin = ack.start.seq_num
        self._acked_end = ack.end.seq_num
        first_start = origin if self._open_frame_start is None else self._open_frame_start
        ends = batch.frame_ends
        event = FramesDurable(batch.first_frame, len(ends), ack, first_start, ends)
        # A batch that ends inside a frame holds nothing but records of that frame.
        self._open_frame_start = first_start if batch.ends_inside_frame else None
        return event

    def connection_lost(self) -> None:
        """Forget what was sent: everything unacked is to be sent again, the same and in order."""
        self._inflight.extend(self._resend)
        self._resend, self._inflight = self._inflight, deque()
        self._inflight_bytes = 0

    # Settling what is in doubt

    def match_from(self, seq_num: int) -> None:
        """Condition all that is not under way on its place, the first of it on `seq_num`.

        Raises `LocalProtocolError` while batches are under way, and when the numbers do not fit.
        """
        check_int("match_seq_num", seq_num, 0, U64_MAX)
        if self._inflight:
            raise LocalProtocolError(
                f"{len(self._inflight)} batches are under way: their places cannot be changed"
            )
        num_records = sum(batch.num_records for batch in self._resend)
        if seq_num + num_records + self._queued_records > U64_MAX:
            raise LocalProtocolError(
                f"sequence numbers end at {U64_MAX}: from {seq_num} on "
                f"{num_records + self._queued_records} records do not fit"
            )
        for batch in self._resend:
            if batch.match_seq_num != seq_num:
                batch.match_at(seq_num)
            seq_num += batch.num_records
        self._next_match = seq_num

    def reconcile(self) -> Reconciliation:
        """Compare what stands in the stream with what is to be sent again.

        For a writer with `match_seq_num`, after `connection_lost`, when the service says that the
        place of the first unacked batch is taken. Raises `LocalProtocolError` at any other time.
        """
        is_exclusive = self._next_match is not None and self._writer_id is not None
        if self._writer_id is None or not is_exclusive or not self._resend or self._inflight:
            raise LocalProtocolError(
                "only a writer with writer_id and match_seq_num that lost its connection, and "
                "has something to send again, can be reconciled with the stream"
            )
        return Reconciliation(self, self._writer_id)

    @property
    def next_unacked_seq_num(self) -> int:
        """Where the first record that is not acked is to be; 0 without `match_seq_num`."""
        unacked = self._inflight or self._resend
        return (unacked[0].match_seq_num if unacked else self._next_match) or 0

    @property
    def next_unacked_dedupe_seq(self) -> int:
        """The dedupe sequence of the first record that is not acked."""
        unacked = self._inflight or self._resend
        return unacked[0].first_dedupe_seq if unacked else self._next_cut_seq

    @property
    def is_inside_frame(self) -> bool:
        """Whether the last acked record belongs to a frame that goes on."""
        return self._open_frame_start is not None

    def oldest_unacked_records(self) -> Sequence[Record]:
        """The records of the first batch to send again; none when there is none."""
        return self._resend[0].records if self._resend else ()

    def receive_landed(self, ack: AppendAck) -> FramesDurable:
        """The first batch to send again stands in the stream where `ack` says.

        Raises `RemoteProtocolError` when it cannot stand there.
        """
        if not self._resend or self._inflight:
            raise LocalProtocolError("no batch is to be sent again, or others are under way")
        self._check_span(ack, self._resend[0])
        return self._settle(self._resend.popleft(), ack)

    def pending(self) -> list[PendingMessage]:
        """What was accepted and is not known to be durable, in order.

        Without dedupe the sequences count records all the same.
        """
        return [*self._pending_cut(), *self._pending_queued()]

    def _pending_cut(self) -> Iterator[PendingMessage]:
        """Of the batches that are cut, the frame that goes on after them included."""
        long_frames = iter(self._long_frames)
        if self._open_frame_start is not None:
            yield next(long_frames).pending()
        for batch in (*self._inflight, *self._resend):
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
        self._queue.append(item)
        self._queued_records += num_records
        self._queued_bytes += metered
        self._frames_accepted += 1

    def _send_mixed(self, payloads: Sequence[bytes]) -> range:
        frames = [self._plan(payload, (), None) for payload in payloads]
        self._check_numbers(sum(frame.num_records for frame in frames))
        first = self._frames_accepted
        for frame in frames:
            single = frame.num_records == 1
            self._enqueue(
                frame.payload if single else frame, frame.num_records, frame.metered_bytes
            )
        return range(first, self._frames_accepted)

    # Cutting

    def _next_batch(self, flush: bool) -> Batch | None:
        if self._resend:
            return self._resend.popleft() if self._has_room(self._resend[0].metered_bytes) else None
        if not self._queue or not self._has_room(min(self._queued_bytes, MAX_BATCH_BYTES)):
            return None
        if flush or not self._inflight or self._can_fill_batch():
            return self._cut_batch()
        return None

    def _has_room(self, metered: int) -> bool:
        return not self._inflight or (
            len(self._inflight) < self._max_inflight_batches
            and self._inflight_bytes + metered <= self._max_inflight_bytes
        )

    def _can_fill_batch(self) -> bool:
        return self._queued_records >= MAX_BATCH_RECORDS or self._queued_bytes >= MAX_BATCH_BYTES

    def _cut_batch(self) -> Batch:
        parts: list[bytes | memoryview] = []
        ends: list[int] = []
        count = metered = num_long_frames = 0
        first_seq = self._next_cut_seq
        while self._queue and count < MAX_BATCH_RECORDS:
            item = self._queue[0]
            if type(item) is bytes:
                taken, taken_bytes = self._cut_small(parts, count, metered)
                ends.extend(range(count + 1, count + taken + 1))
            elif isinstance(item, _Frame):
                taken, taken_bytes = self._cut_frame(item, parts, count, metered)
                if item.cut_records == item.num_records:
                    self._queue.popleft()
                    ends.append(count + taken)
                    num_long_frames += item.num_records > 1
            if not taken:
                break
            count += taken
            metered += taken_bytes
        batch = self._finish_batch(parts, ends, count, metered)
        batch.first_dedupe_seq = first_seq
        batch.num_long_frames = num_long_frames
        return batch

    def _cut_small(
        self, parts: list[bytes | memoryview], count: int, metered: int
    ) -> tuple[int, int]:
        """Add small payloads from the queue; returns how many and their metered bytes."""
        queue = self._queue
        encode_seq = self._encoder.encode_seq
        single = self._encoder.single
        overhead = self._encoder.head_overhead
        first_seq = seq = self._next_cut_seq
        last_seq = first_seq + MAX_BATCH_RECORDS - count
        left = room = MAX_BATCH_BYTES - metered
        while queue and seq < last_seq:
            payload = queue[0]
            if type(payload) is not bytes:
                break
            left -= overhead + len(payload)
            if left < 0:
                left += overhead + len(payload)
                break
            before, after = single(len(payload))
            parts += (before, encode_seq(seq), after, payload)
            seq += 1
            queue.popleft()
        self._next_cut_seq = seq
        return seq - first_seq, room - left

    def _cut_frame(
        self, frame: _Frame, parts: list[bytes | memoryview], count: int, metered: int
    ) -> tuple[int, int]:
        """Add records of a frame; returns how many and their metered bytes.

        A frame that fits a batch waits for one that it fits whole; one that does not starts in a
        batch of its own.
        """
        if not frame.cut_records and count:
            fits = (
                count + frame.num_records <= MAX_BATCH_RECORDS
                and metered + frame.metered_bytes <= MAX_BATCH_BYTES
            )
            if not fits:
                return 0, 0
        if not frame.cut_records and frame.num_records > 1:
            frame.first_dedupe_seq = self._next_cut_seq
            self._long_frames.append(frame)
        taken = taken_bytes = 0
        while frame.cut_records < frame.num_records and count + taken < MAX_BATCH_RECORDS:
            size = self._metered_record(frame)
            if metered + taken_bytes + size > MAX_BATCH_BYTES:
                break
            self._encode_record(frame, parts)
            frame.cut_records += 1
            self._next_cut_seq += 1
            taken += 1
            taken_bytes += size
        return taken, taken_bytes

    def _metered_record(self, frame: _Frame) -> int:
        size = len(frame.body(frame.cut_records))
        if frame.cut_records:
            return self._encoder.chunk_overhead + size
        own = metered_bytes(frame.headers, 0) - metered_bytes((), 0)
        return self._encoder.head_overhead + own + size

    def _encode_record(self, frame: _Frame, parts: list[bytes | memoryview]) -> None:
        body = frame.body(frame.cut_records)
        if frame.cut_records:
            before, after = self._encoder.chunk(len(body), frame.timestamp)
        else:
            before, after = self._encoder.head(
                len(frame.payload), frame.num_records, len(body), frame.headers, frame.timestamp
            )
        parts += (before, self._encoder.encode_seq(self._next_cut_seq), after, body)

    def _finish_batch(
        self, parts: list[bytes | memoryview], ends: list[int], count: int, metered: int
    ) -> Batch:
        match = self._next_match
        parts.append(encode_conditions(match, self._fencing_token))
        wire = b"".join(parts)
        batch = Batch(
            num_records=count,
            metered_bytes=metered,
            match_seq_num=match,
            fencing_token=self._fencing_token,
            wire=wire,
            first_frame=self._next_cut_frame,
            frame_ends=ends,
            ends_inside_frame=not ends or ends[-1] != count,
        )
        self._next_cut_frame += len(ends)
        self._queued_records -= count
        self._queued_bytes -= metered
        if match is not None:
            self._next_match = match + count
        return batch

    # Acks

    def _check_ack(self, ack: AppendAck) -> None:
        start, end = ack.start.seq_num, ack.end.seq_num
        if not self._inflight:
            raise RemoteProtocolError(f"an ack for {start} to {end}, and no batch is unacked")
        batch = self._inflight[0]
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
