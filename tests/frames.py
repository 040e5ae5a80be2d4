"""Framed streams built by hand, and hypothesis strategies for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from attrs import define, evolve, field
from hypothesis import strategies as st

from s2frames.dedupe import DEDUPE_SEQ, WRITER_ID
from s2frames.events import FrameDropped, FrameReceived, ReaderEvent
from s2frames.framing import FRAME_BYTES, FRAME_RECORDS, make_frame_headers
from s2frames.reader import FrameReader
from s2frames.records import (
    AppendAck,
    Header,
    Record,
    SequencedRecord,
    StreamPosition,
    fence,
    trim,
)
from s2frames.u64 import encode_u64
from s2frames.wire import ReadBatch, decode_append_input, encode_read_batch

# Records, one at a time


def numbered(seq: int | None, writer: str | None) -> tuple[Header, ...]:
    """The dedupe headers of a record; none without `seq`."""
    if seq is None:
        return ()
    writer_headers = () if writer is None else ((WRITER_ID, writer.encode()),)
    return ((DEDUPE_SEQ, encode_u64(seq)), *writer_headers)


def head(
    body: bytes = b"",
    *,
    records: int = 1,
    size: int | None = None,
    seq: int | None = None,
    writer: str | None = None,
    own: tuple[Header, ...] = (),
    timestamp: int | None = None,
) -> Record:
    """A frame's first record; it declares the size of its body unless told otherwise."""
    declared = make_frame_headers(len(body) if size is None else size, records)
    return Record(body, (*declared, *numbered(seq, writer), *own), timestamp)


def chunk(
    body: bytes = b"",
    *,
    seq: int | None = None,
    writer: str | None = None,
    timestamp: int | None = None,
) -> Record:
    """A frame's further record."""
    return Record(body, numbered(seq, writer), timestamp)


def frame(
    bodies: Sequence[bytes], *, seq: int | None = None, writer: str | None = None
) -> list[Record]:
    """A whole frame, a record a body."""
    sequences: Iterable[int | None] = [None] * len(bodies) if seq is None else count(seq)
    first, *further = zip(bodies, sequences, strict=False)
    size = sum(map(len, bodies))
    return [
        head(first[0], records=len(bodies), size=size, seq=first[1], writer=writer),
        *(chunk(body, seq=number, writer=writer) for body, number in further),
    ]


# Streams


def place(
    records: Iterable[Record],
    start: int = 0,
    at: Iterable[int] | None = None,
    timestamp: int = 0,
) -> list[SequencedRecord]:
    """The records as read: from `start` on, or with the sequence numbers in `at`.

    Those without a timestamp of their own get `timestamp`.
    """
    numbers = count(start) if at is None else at
    placed = zip(numbers, records, strict=False)
    return [
        SequencedRecord(n, timestamp if r.timestamp is None else r.timestamp, r.headers, r.body)
        for n, r in placed
    ]


@define
class Log:
    """A stream in memory."""

    records: list[SequencedRecord] = field(factory=list)

    @property
    def tail(self) -> StreamPosition:
        last = self.records[-1].timestamp if self.records else 0
        return StreamPosition(len(self.records), last)

    def append(self, records: Iterable[Record]) -> AppendAck:
        start = StreamPosition(len(self.records), 0)
        self.records += place(records, len(self.records))
        return AppendAck(start, self.tail, self.tail)

    def append_wire(self, wire: bytes) -> AppendAck:
        return self.append(decode_append_input(wire).records)


def make_ack(start: int, num_records: int, tail: int | None = None) -> AppendAck:
    end = start + num_records
    return AppendAck(
        StreamPosition(start, 0),
        StreamPosition(end, 0),
        StreamPosition(end if tail is None else tail, 0),
    )


# Reading


def read(reader: FrameReader, records: Iterable[SequencedRecord]) -> list[ReaderEvent]:
    return list(reader.receive_records(records))


def encode(
    records: Sequence[SequencedRecord], tail: int | None = None, timestamp: int = 0
) -> bytes:
    position = None if tail is None else StreamPosition(tail, timestamp)
    return encode_read_batch(ReadBatch(records, position))


def cut(records: Sequence[SequencedRecord], size: int) -> list[bytes]:
    """The records as encoded batches of `size` records."""
    return [encode(records[at : at + size]) for at in range(0, len(records), size)]


def read_batches(reader: FrameReader, batches: Iterable[bytes]) -> list[ReaderEvent]:
    return [event for batch in batches for event in reader.receive_batch(batch)]


def frames_in(events: Iterable[ReaderEvent]) -> list[FrameReceived]:
    return [event for event in events if isinstance(event, FrameReceived)]


def payloads(events: Iterable[ReaderEvent]) -> list[bytes]:
    return [received.payload for received in frames_in(events)]


# Strategies

#: Writer ids from the shortest to the longest, in ASCII and not.
writer_ids: st.SearchStrategy[str] = st.one_of(
    st.sampled_from(["w", "w1-AbCdEfGhI", "\0", "é" * 128, "a" * 256, "𝄞" * 64]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64),
)

#: Headers that a user may set.
own_headers: st.SearchStrategy[tuple[Header, ...]] = st.lists(
    st.tuples(
        st.sampled_from([b"type", b"\xff", b"_frame_record", b"k" * 200]), st.binary(max_size=20)
    ),
    max_size=3,
).map(tuple)


@st.composite
def resent(draw: st.DrawFn, records: Sequence[Record]) -> list[Record]:
    """The records with repeats: again and again a part is sent once more, also cut short."""
    sent: list[Record] = []
    at = 0
    while at < len(records):
        end = draw(st.integers(at + 1, len(records)))
        sent += records[at:end]
        at = end
        if draw(st.integers(0, 2)) == 0:
            start = draw(st.integers(0, at))
            sent += records[start : draw(st.integers(start, at))]
            # The sender goes on from there, so that everything comes again up to `at`.
            sent += records[start:at]
    return sent


@st.composite
def interleaved(draw: st.DrawFn, lanes: Sequence[Sequence[Record]]) -> list[Record]:
    """The lanes' records in one order that keeps each lane's own."""
    left = [iter(lane) for lane in lanes]
    turns = [i for i, lane in enumerate(lanes) for _ in lane]
    return [next(left[turn]) for turn in draw(st.permutations(turns))]


small_bodies = st.lists(st.binary(max_size=4), min_size=1, max_size=4).filter(any)


@st.composite
def lane_frames(
    draw: st.DrawFn, writer: str | None, is_numbered: bool, max_frames: int = 4
) -> list[Record]:
    """Frames of one writer, one after the other, with repeats when they are numbered."""
    records: list[Record] = []
    for bodies in draw(st.lists(small_bodies, max_size=max_frames)):
        records += frame(bodies, seq=len(records) if is_numbered else None, writer=writer)
    return draw(resent(records)) if is_numbered else records


lanes: st.SearchStrategy[tuple[str | None, int | None]] = st.sampled_from(
    [(None, None), (None, 0), ("a", 0), ("é", 0)]
)

_numbers = st.one_of(
    st.integers(0, 6).map(encode_u64), st.binary(max_size=9), st.just(encode_u64(2**60))
)

#: Headers that make no sense, and some that do.
strange_headers: st.SearchStrategy[tuple[Header, ...]] = st.lists(
    st.tuples(
        st.sampled_from([FRAME_RECORDS, FRAME_BYTES, DEDUPE_SEQ, WRITER_ID, b"", b"own"]),
        st.one_of(_numbers, st.sampled_from([b"", b"a", b"\xff", b"w" * 257])),
    ),
    max_size=6,
).map(tuple)


@st.composite
def stray_records(draw: st.DrawFn) -> Record:
    """A record out of nowhere: some would fit a frame, some never."""
    writer, number = draw(lanes)
    seq = None if number is None else draw(st.integers(0, 9))
    body = draw(st.binary(max_size=4))
    drawn: Record = draw(
        st.one_of(
            st.just(chunk(body, seq=seq, writer=writer)),
            st.builds(
                lambda records, size, own: head(
                    body, records=records, size=size, seq=seq, writer=writer, own=own
                ),
                st.integers(1, 3),
                st.sampled_from([1, 2, 3, 5, 40, 2**60]),
                own_headers,
            ),
            st.sampled_from([fence("token"), trim(3), Record(b"x", ((b"own", b"1"),))]),
            st.builds(Record, st.just(body), strange_headers),
        )
    )
    return drawn


@st.composite
def soups(
    draw: st.DrawFn, *, gaps: bool = True, max_strays: int = 6, max_pause: int = 30
) -> list[SequencedRecord]:
    """A stream of everything: writers at once, repeats, strays, gaps, and time that jumps."""
    parts = [
        draw(lane_frames(None, is_numbered=False)),
        draw(lane_frames(None, is_numbered=True)),
        draw(lane_frames("a", is_numbered=True)),
        draw(lane_frames("é", is_numbered=True)),
        draw(st.lists(stray_records(), max_size=max_strays)),
    ]
    return draw(timed(draw(interleaved(parts)), gaps=gaps, max_pause=max_pause))


@st.composite
def timed(
    draw: st.DrawFn, records: Sequence[Record], *, gaps: bool = True, max_pause: int = 30
) -> list[SequencedRecord]:
    """The records in a stream: mostly one after the other, sometimes with a gap or a pause."""
    seq_num, timestamp = draw(st.sampled_from([0, 1, 126, 16_380])), draw(st.integers(0, 200))
    places = st.integers(0, 60)
    skipped = draw(st.dictionaries(places, st.integers(1, 4), max_size=2 if gaps else 0))
    pauses = draw(st.dictionaries(places, st.sampled_from([1, max_pause]), max_size=6))
    placed = []
    for i, record in enumerate(records):
        seq_num += skipped.get(i, 0)
        timestamp += pauses.get(i, 0)
        placed.append(SequencedRecord(seq_num, timestamp, record.headers, record.body))
        seq_num += 1
    return placed


def without_details(events: Iterable[ReaderEvent]) -> Iterator[ReaderEvent]:
    """The events, their words for people left out."""
    for event in events:
        yield evolve(event, detail="") if isinstance(event, FrameDropped) else event
