"""What must hold, whatever goes wrong: checked against the records that the service stored.

The oracle shares no code with the library beyond the store: it takes records apart by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field

from s2frames.embedded.store import MemoryStore, StreamKey, StreamState
from s2frames.events import Appended
from s2frames.records import SequencedRecord

__all__ = ["Broken", "Delivery", "Oracle", "RecordingStore"]


class Broken(AssertionError):
    """An invariant does not hold."""


class RecordingStore(MemoryStore):
    """A store that also keeps what was trimmed, for looking back. Meant for one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[SequencedRecord] = []

    def append(
        self, key: StreamKey, records: Sequence[SequencedRecord], state: StreamState
    ) -> None:
        """See `Store.append`."""
        super().append(key, records, state)
        self.history += records


@define(eq=False)
class _Frame:
    """A frame as the stream holds it: of each record, where its first copy is."""

    first_seq: int
    num_records: int
    num_bytes: int
    places: list[int] = field(factory=list)
    body: bytearray = field(factory=bytearray)


@define(eq=False)
class Lane:
    """What one writer meant to send, and what of it is in the stream."""

    writer_id: str
    #: No record of it may be there twice.
    is_exclusive: bool
    #: The payloads that it accepted, in order.
    sent: list[bytes] = field(factory=list)
    #: Its records in the stream without their repeats; the index is the dedupe sequence.
    records: list[SequencedRecord] = field(factory=list)
    #: The dedupe sequences of its records and of their repeats, by where they are.
    places: dict[int, int] = field(factory=dict)
    #: Its whole frames in the stream.
    frames: list[_Frame] = field(factory=list)
    #: The frames' indices by the dedupe sequences of their first records.
    heads: dict[int, int] = field(factory=dict)
    #: How many of its messages were said to be durable.
    durable: int = 0
    #: Its next frame may begin though the last one is not whole: it went on after a crash.
    may_supersede: bool = False
    #: It was said that none of the messages from this one on is or gets into the stream.
    ends_at: int | None = None
    _open: _Frame | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its last frame in the stream is whole."""
        return self._open is None

    def add(self, record: SequencedRecord, headers: Mapping[bytes, bytes]) -> None:
        """Take a record of the stream."""
        seq = int.from_bytes(headers[b"_dedupe_seq"], "big")
        self.places[record.seq_num] = seq
        if seq < len(self.records):
            self._check_repeat(record, self.records[seq])
            return
        if seq > len(self.records):
            raise Broken(
                f"{self.writer_id}: record {seq} is in the stream and {len(self.records)} is not"
            )
        self.records.append(record)
        if b"_frame_records" in headers:
            self._begin(seq, headers)
        self._extend(record)

    def _check_repeat(self, record: SequencedRecord, first: SequencedRecord) -> None:
        if self.is_exclusive:
            raise Broken(f"{self.writer_id} is exclusive: {record.seq_num} repeats {first.seq_num}")
        if (record.headers, record.body) != (first.headers, first.body):
            raise Broken(f"{self.writer_id}: {record.seq_num} has other bytes than {first.seq_num}")

    def _begin(self, seq: int, headers: Mapping[bytes, bytes]) -> None:
        if self._open is not None and not self.may_supersede:
            raise Broken(f"{self.writer_id}: a frame begins at {seq} inside another one")
        self._open = _Frame(
            seq,
            int.from_bytes(headers[b"_frame_records"], "big"),
            int.from_bytes(headers[b"_frame_bytes"], "big"),
        )

    def _extend(self, record: SequencedRecord) -> None:
        frame = self._open
        if frame is None:
            raise Broken(f"{self.writer_id}: {record.seq_num} belongs to no frame")
        frame.places.append(record.seq_num)
        frame.body += record.body
        if len(frame.places) == frame.num_records:
            self._open = None
            self._complete(frame)

    def _complete(self, frame: _Frame) -> None:
        index = len(self.frames)
        if len(frame.body) != frame.num_bytes or index >= len(self.sent):
            raise Broken(f"{self.writer_id}: frame {index} was not sent so")
        if frame.body != self.sent[index]:
            raise Broken(
                f"{self.writer_id}: frame {index} is {bytes(frame.body[:20])!r}, "
                f"and {self.sent[index][:20]!r} was sent"
            )
        if self.ends_at is not None and index >= self.ends_at:
            raise Broken(f"{self.writer_id}: message {index} is there, and was said not to be")
        frame.body.clear()
        self.heads[frame.first_seq] = index
        self.frames.append(frame)


@define(eq=False)
class PlainLane:
    """The messages of sessions without dedupe, one record each."""

    may_repeat: bool
    #: Of each payload: its session and its number there.
    sent: dict[bytes, tuple[int, int]] = field(factory=dict)
    #: Of each session: how many of its messages are in the stream.
    landed: dict[int, int] = field(factory=dict)
    places: dict[bytes, int] = field(factory=dict)
    #: Of each session: none of its messages from this one on may be there.
    ends_at: dict[int, int] = field(factory=dict)

    def add(self, record: SequencedRecord) -> None:
        """Take a record of the stream."""
        payload = bytes(record.body)
        if payload not in self.sent:
            raise Broken(f"{record.seq_num} was sent by nobody")
        if payload in self.places:
            if not self.may_repeat:
                raise Broken(f"{record.seq_num} repeats {self.places[payload]} without dedupe")
            return
        self.places[payload] = record.seq_num
        session, number = self.sent[payload]
        if number != self.landed.get(session, 0):
            raise Broken(f"message {number} of session {session} came out of its order")
        self.landed[session] = number + 1
        if number >= self.ends_at.get(session, number + 1):
            raise Broken(f"message {number} of session {session} was said not to be appended")


@define(eq=False)
class Delivery:
    """What one reader, over all its lives, has delivered and told."""

    name: str
    #: Of each writer: how many of its messages were looked at.
    progress: dict[str | None, int] = field(factory=dict)
    #: Ranges of records that were said to be gone.
    gaps: list[tuple[int, int]] = field(factory=list)
    #: Where the frames start that were said to be lost, or the copies of them that were read.
    lost: list[int] = field(factory=list)
    plain: dict[bytes, int] = field(factory=dict)

    def copy(self) -> Delivery:
        """The same, to go back to."""
        return Delivery(
            self.name, dict(self.progress), list(self.gaps), list(self.lost), dict(self.plain)
        )

    def explains(self, lane: Lane, frame: _Frame) -> bool:
        """Whether a missing frame is accounted for."""
        numbers = range(frame.first_seq, frame.first_seq + frame.num_records)
        return any(lane.places.get(place) in numbers for place in self.lost) or any(
            start <= place < end for place in frame.places for start, end in self.gaps
        )


@define(eq=False)
class Oracle:
    """Watches the stream, and what writers and readers say of it."""

    store: RecordingStore
    lanes: dict[str, Lane] = field(factory=dict)
    plain: PlainLane = field(factory=lambda: PlainLane(may_repeat=False))
    #: Of each whole message: who wrote it. Each is unlike every other.
    writers: dict[bytes, str] = field(factory=dict)
    _seen: int = 0

    def check(self) -> None:
        """Look at what was appended since the last time."""
        history = self.store.history
        while self._seen < len(history):
            self._look_at(history[self._seen])
            self._seen += 1

    def _look_at(self, record: SequencedRecord) -> None:
        if record.seq_num != self._seen:
            raise Broken(f"record {self._seen} has the sequence number {record.seq_num}")
        headers = dict(record.headers)
        if b"" in headers:
            return
        if b"_writer_id" in headers:
            writer_id = headers[b"_writer_id"].decode()
            if writer_id not in self.lanes:
                raise Broken(f"{record.seq_num} is of {writer_id}, whom nobody knows")
            self._look_at_frame(self.lanes[writer_id], record, headers)
        else:
            self.plain.add(record)

    def _look_at_frame(
        self, lane: Lane, record: SequencedRecord, headers: Mapping[bytes, bytes]
    ) -> None:
        count = len(lane.frames)
        lane.add(record, headers)
        if len(lane.frames) > count:
            payload = lane.sent[count]
            if payload in self.writers:
                raise Broken(f"{payload[:20]!r} is there of {self.writers[payload]} and anew")
            self.writers[payload] = lane.writer_id

    # Writers

    def open_lane(self, writer_id: str, *, is_exclusive: bool = False) -> Lane:
        """The lane of a writer that begins or goes on."""
        lane = self.lanes.get(writer_id)
        if lane is None:
            lane = self.lanes[writer_id] = Lane(writer_id, is_exclusive)
        lane.ends_at = None
        return lane

    def note_durable(self, lane: Lane, index: int, appended: Appended) -> None:
        """A session said that message `index` is durable, and where."""
        self.check()
        if index != lane.durable:
            raise Broken(f"{lane.writer_id}: {index} became durable, and {lane.durable} was next")
        if index >= len(lane.frames):
            raise Broken(
                f"{lane.writer_id}: message {index} is said to be durable and is not there"
            )
        lane.durable = index + 1
        first = self.store.history[appended.start]
        last = self.store.history[appended.end - 1]
        frame = lane.frames[index]
        if self._place_of(first) != (lane.writer_id, frame.first_seq):
            raise Broken(f"{lane.writer_id}: message {index} does not start at {appended.start}")
        if self._place_of(last) != (lane.writer_id, frame.first_seq + frame.num_records - 1):
            raise Broken(f"{lane.writer_id}: message {index} does not end at {appended.end}")

    def note_plain_durable(self, payload: bytes, appended: Appended) -> None:
        """A session without dedupe said that a message is durable, and where."""
        self.check()
        record = self.store.history[appended.start]
        if appended.end != appended.start + 1 or record.body != payload:
            raise Broken(f"{payload[:20]!r} is not at {appended.start}")

    def note_not_applied(self, lane: Lane) -> None:
        """A session said that nothing but its durable messages is in the stream, or will be."""
        self.check()
        if len(lane.frames) > lane.durable:
            raise Broken(
                f"{lane.writer_id}: not applied, it said, but message {lane.durable} is there"
            )
        lane.ends_at = lane.durable

    def note_plain_not_applied(self, session: int, durable: int) -> None:
        """The same of a session without dedupe."""
        self.check()
        if self.plain.landed.get(session, 0) > durable:
            raise Broken(f"session {session}: not applied, it said, but message {durable} is there")
        self.plain.ends_at[session] = durable

    def _place_of(self, record: SequencedRecord) -> tuple[str, int]:
        headers = dict(record.headers)
        seq = int.from_bytes(headers[b"_dedupe_seq"], "big")
        return headers[b"_writer_id"].decode(), seq

    # Readers

    def note_given_up(self, delivery: Delivery, writer_id: str | None, start: int) -> None:
        """A reader said that the frame at `start` was lost, for it had given it up: once each."""
        self.check()
        lane = self.lanes.get(writer_id or "")
        if lane is None or b"_frame_records" not in dict(self.store.history[start].headers):
            raise Broken(f"{delivery.name}: no frame of {writer_id} starts at {start}")
        if lane.places.get(start) is None or start in delivery.lost:
            raise Broken(f"{delivery.name}: the frame at {start} of {writer_id} is lost again")
        delivery.lost.append(start)

    def note_delivered(
        self, delivery: Delivery, writer_id: str | None, payload: bytes, start: int, end: int
    ) -> None:
        """A reader delivered a message."""
        self.check()
        if writer_id is None:
            self._note_plain_delivered(delivery, payload, start, end)
            return
        lane = self.lanes[writer_id]
        author, seq = self._place_of(self.store.history[start])
        index = lane.heads.get(seq)
        if index is None or author != writer_id:
            raise Broken(f"{delivery.name}: no message of {writer_id} starts at {start}")
        if index < delivery.progress.get(writer_id, 0):
            raise Broken(f"{delivery.name}: the message at {start} again")
        for missing in range(delivery.progress.get(writer_id, 0), index):
            self._check_missing(delivery, lane, missing)
        frame = lane.frames[index]
        last = (writer_id, frame.first_seq + frame.num_records - 1)
        if payload != lane.sent[index] or self._place_of(self.store.history[end - 1]) != last:
            raise Broken(f"{delivery.name}: the message at {start} is not as it was sent")
        delivery.progress[writer_id] = index + 1

    def _note_plain_delivered(
        self, delivery: Delivery, payload: bytes, start: int, end: int
    ) -> None:
        if end != start + 1 or self.store.history[start].body != payload:
            raise Broken(f"{delivery.name}: {payload[:20]!r} is not at {start}")
        if payload in delivery.plain and not self.plain.may_repeat:
            raise Broken(f"{delivery.name}: {payload[:20]!r} twice")
        if start <= delivery.plain.get(payload, -1):
            raise Broken(f"{delivery.name}: the record at {start} twice")
        delivery.plain[payload] = start

    def _check_missing(self, delivery: Delivery, lane: Lane, index: int) -> None:
        if not delivery.explains(lane, lane.frames[index]):
            raise Broken(
                f"{delivery.name}: message {index} of {lane.writer_id} at "
                f"{lane.frames[index].places} is missing without a word"
            )

    def note_reached_tail(self, delivery: Delivery) -> None:
        """A reader that began at 0 is at the tail: nothing is missing."""
        self.check()
        for lane in self.lanes.values():
            for index in range(delivery.progress.get(lane.writer_id, 0), len(lane.frames)):
                self._check_missing(delivery, lane, index)
        for payload, place in self.plain.places.items():
            is_gone = any(start <= place < end for start, end in delivery.gaps)
            if payload not in delivery.plain and not is_gone:
                raise Broken(f"{delivery.name}: the plain record at {place} is missing")

    def note_latest(self, payloads: Sequence[bytes], count: int) -> None:
        """A reader of the last `count` messages got these, when the stream was at rest.

        Where records were repeated or trimmed, it depends on how far back it looked which copy
        counts: then only how many there are is checked, and that none comes twice.
        """
        self.check()
        whole = self._in_order_of_completion()
        num_records = sum(len(lane.records) for lane in self.lanes.values()) + len(
            self.plain.places
        )
        if len(set(payloads)) != len(payloads) and not self.plain.may_repeat:
            raise Broken(f"the last {count} messages have one twice")
        if len(payloads) > count:
            raise Broken(f"{len(payloads)} messages are not the last {count}")
        if num_records == len(self.store.history) and list(payloads) != whole[-count:]:
            raise Broken(
                f"the last {count} messages are not {[bytes(p[:20]) for p in payloads]}, but "
                f"{[bytes(p[:20]) for p in whole[-count:]]}"
            )

    def _in_order_of_completion(self) -> list[bytes]:
        places = {place: payload for payload, place in self.plain.places.items()}
        for lane in self.lanes.values():
            places |= {
                frame.places[-1]: payload
                for frame, payload in zip(lane.frames, lane.sent, strict=False)
            }
        return [places[place] for place in sorted(places)]
