from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

from frames import cut, encode, frame, head, numbered, soups, strange_headers, writer_ids
from frames import place as place_at
from s2frames.chunking import chunk_bytes
from s2frames.classify import ClassifiedRecord, RecordKind, classify
from s2frames.dedupe import DEDUPE_SEQ, WRITER_ID, inject_dedupe_headers
from s2frames.errors import RemoteProtocolError
from s2frames.framed_wire import BatchScanner, RecordEncoder, Run
from s2frames.framing import frame_chunks_to_records, make_frame_headers
from s2frames.records import Record, SequencedRecord, StreamPosition, metered_bytes
from s2frames.u64 import U64_MAX, encode_u64
from s2frames.wire import (
    AppendInput,
    decode_read_batch,
    encode_append_input,
    encode_bytes_field,
    encode_header_field,
    encode_varint,
)
from strategies import headers as any_headers
from strategies import u64s


def place(
    records: Iterable[Record], start: int = 0, at: Iterable[int] | None = None
) -> list[SequencedRecord]:
    """The records as read. They have a timestamp: without one no layout is learned."""
    return place_at(records, start, at, timestamp=1_700_000_000_000)


# Scanning

Scanned = tuple[list[ClassifiedRecord], bool, StreamPosition | None]


def plain(data: bytes) -> Scanned:
    """The records by the plain path, whether the bytes are no batch, and the tail."""
    try:
        batch = decode_read_batch(data)
    except RemoteProtocolError:
        return [], True, None
    return list(classify(batch.records)), False, batch.tail


def scan(scanner: BatchScanner, data: bytes) -> Scanned:
    records: list[ClassifiedRecord] = []
    try:
        records.extend(scanner.scan(data))
    except RemoteProtocolError:
        return records, True, scanner.tail
    return records, False, scanner.tail


def compare(batches: Iterable[bytes], scanner: BatchScanner | None = None) -> None:
    """One scanner, fed with the batches, makes of each what the plain path makes of it."""
    scanner = scanner or BatchScanner()
    for data in batches:
        expected, is_refused, tail = plain(data)
        records, was_refused, scanned_tail = scan(scanner, data)
        assert (was_refused, scanned_tail) == (is_refused, tail)
        if not is_refused:
            assert records == expected
            assert all(type(record[6]) in (bytes, type(None)) for record in records)
            # Equal also as to what a body is, but where one is passed on as a view.
            small = [record[8] for record in records if len(record[8]) < 64 * 1024]
            assert {type(body) for body in small} <= {bytes}


singles = st.builds(
    head, st.binary(min_size=1, max_size=4), seq=u64s, writer=st.sampled_from(["a", "b", "é"])
)


@st.composite
def alike(draw: st.DrawFn) -> list[SequencedRecord]:
    """Frames of one record each, as a busy stream holds them: most laid out alike."""
    start = draw(st.sampled_from([0, 1, 120, 16_376, 2**21 - 4, 2**63 - 4, U64_MAX - 20]))
    time = draw(st.sampled_from([0, 5, 127, 128, 10**12]))
    records = []
    for i, record in enumerate(draw(st.lists(singles, max_size=16))):
        time += draw(st.sampled_from([0, 0, 0, 1]))
        records.append(SequencedRecord(start + i, time, record.headers, record.body))
    return records


@given(alike(), st.integers(1, 20))
def test_frames_of_one_record(records: list[SequencedRecord], size: int) -> None:
    compare(cut(records, size) * 2)


@settings(max_examples=50)
@given(soups(), st.integers(1, 20))
def test_streams_of_everything(records: list[SequencedRecord], size: int) -> None:
    compare(cut(records, size))


@pytest.mark.parametrize("first", [0, 1, 100, 127, 128, 16_383, 16_384, 2**21 - 1, 2**28, 2**63])
def test_sequence_numbers_that_grow_by_a_byte(first: int) -> None:
    bodies = [head(b"x", seq=i, writer="a") for i in range(300)]
    # A record of every number, of every second, and of some out of order.
    compare([encode(place(bodies, first))])
    compare([encode(place(bodies, at=range(first, first + 600, 2)))])
    compare([encode(place(bodies[:5], at=[first, first + 1, first, first, first + 2]))] * 2)
    compare([encode(place([body], first + i)) for i, body in enumerate(bodies)])


@pytest.mark.parametrize("size", [1, 2, 55, 56, 57, 127, 128, 129, 16_200, 16_384, 70_000])
def test_bodies_about_where_lengths_grow(size: int) -> None:
    for around in range(-3, 4):
        bodies = [head(bytes([i]) * max(1, size + around), seq=i, writer="a") for i in range(4)]
        compare(cut(place(bodies, 126), 3))


def test_writers_of_one_length_share_a_layout() -> None:
    bodies = [head(b"x", seq=i, writer=writer) for i, writer in enumerate(["a", "b", "c"] * 3)]
    compare([encode(place(bodies, 1))])


@pytest.mark.parametrize(
    "writer_id",
    [
        *(b"w" * size for size in (0, 1, 255, 256, 257, 321, 9000)),
        b"__legacy__",
        b"\xff",
        b"\xef\xbb\xbf",
    ],
    ids=lambda writer_id: f"{len(writer_id)}-{writer_id[:1].hex()}",
)
def test_writer_ids_of_every_kind(writer_id: bytes) -> None:
    records = [
        SequencedRecord(
            200 + i,
            7,
            (
                *make_frame_headers(1, 1),
                (DEDUPE_SEQ, encode_u64(i)),
                (WRITER_ID, writer_id),
            ),
            b"x",
        )
        for i in range(40)
    ]
    compare([encode(records)] * 2)
    compare([encode([record]) for record in records])


def test_layouts_of_one_length_take_turns() -> None:
    # A longer number beside a shorter body: the same length, everything elsewhere.
    pairs = [(b"xx", 100), (b"x", 200), (b"xx", 101), (b"x", 201), (b"xx", 102), (b"xx", 103)]
    records = [
        place([head(body, seq=i, writer="a")], seq_num)[0]
        for i, (body, seq_num) in enumerate(pairs)
    ]
    assert len({len(encode([record])) for record in records}) == 1
    compare([encode(records)] * 2)
    compare([encode([record]) for record in records])


# Bytes that no good peer sends


def record_field(*fields: bytes) -> bytes:
    return encode_bytes_field(b"\x0a", b"".join(fields))


HEADERS = b"".join(
    encode_header_field(b"\x1a", name, value)
    for name, value in (*make_frame_headers(1, 1), *numbered(0, "a"))
)
BODY = b"\x22\x01x"
KNOWN = record_field(b"\x08\x05", b"\x10\x07", HEADERS, BODY)


def pieces(value: int) -> list[bytes]:
    """A number as a varint, and the same with bytes that add nothing."""
    canonical = encode_varint(value)
    longer = canonical[:-1] + bytes([canonical[-1] | 0x80])
    return [canonical, longer + b"\x00", longer + b"\x80\x00"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(record_field(b"\x08" + seq, b"\x10" + time, HEADERS, BODY), id=name)
        for (i, seq), (j, time) in product(
            enumerate(p for value in (0, 5, 6, 200) for p in pieces(value)),
            enumerate(p for value in (0, 7, 300) for p in pieces(value)),
        )
        for name in (f"{i}-{j}",)
    ],
)
def test_numbers_with_bytes_that_add_nothing(data: bytes) -> None:
    following = record_field(b"\x08\x06", b"\x10\x07", HEADERS, BODY)
    compare([KNOWN, data, KNOWN + data, data + following, data + data])


def test_a_padded_number_does_not_lend_its_successor_to_a_shorter_field() -> None:
    # Sequence number 1 in two bytes, then a record that is laid out as if its number took one
    # byte, whose first bytes are those of the padded successor.
    wide = record_field(b"\x08\xc8\x01", b"\x10\x07", HEADERS, BODY)
    padded = record_field(b"\x08\x81\x00", b"\x10\x07", HEADERS, BODY)
    cut_short = record_field(b"\x08\x82", b"\x10\x07", HEADERS, BODY)
    compare([KNOWN, wide, padded, cut_short])
    compare([KNOWN + wide + padded + cut_short])


@pytest.mark.parametrize("tag", [b"\x8a\x00", b"\x8a\x80\x00", b"\x8a" + b"\x80" * 8 + b"\x00"])
def test_a_padded_tag_is_a_tag(tag: bytes) -> None:
    content = KNOWN[2:]
    length = bytes([len(content)])
    compare([tag + length + content, KNOWN + tag + length + content + KNOWN])
    tail = b"\x92" + tag[1:] + b"\x02\x08\x09"
    compare([KNOWN + tail, tail + KNOWN])


@pytest.mark.parametrize(
    "extra",
    [
        b"\x18\x01",
        b"\x18\x81\x00",
        b"\x1d1234",
        b"\x1912345678",
        b"\x1a\x02ab",
        b"\xfa\x01\x00",
        b"\xfa\xff\xff\xff\x0f\x00",
        b"\x08\x01",
        b"\x09" + b"12345678",
        b"\x10\x01",
        b"\x02\x01",
        b"\x00\x01",
        b"\x0b",
        b"\x0c",
        b"\x1b\x1c",
        b"\x0f",
        b"\x80",
        b"\xff" * 10,
        b"\xff" * 11,
        b"\x0a",
        b"\x0a\xff",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\x00",
        b"\x12\x00",
        b"\x12\x04\x08\x01\x08\x02",
        b"\x12\x02\x0a\x00",
        b"\x12\x02\x08",
    ],
)
def test_fields_that_do_not_belong_there(extra: bytes) -> None:
    compare([KNOWN, extra, KNOWN + extra, extra + KNOWN, KNOWN + extra + KNOWN])
    inside = record_field(b"\x08\x05", b"\x10\x07", HEADERS, BODY, extra)
    before = record_field(extra, b"\x08\x05", b"\x10\x07", HEADERS, BODY)
    compare([KNOWN, inside, before, KNOWN + inside + KNOWN + before])


def test_a_number_does_not_lend_its_successor_where_a_byte_overflows() -> None:
    overflows = [(b"\x7f", b"\x80"), (b"\xff\x01", b"\x00\x02"), (b"\xff\x7f", b"\x00\x80")]
    for known, after in overflows:
        first, second = (
            record_field(b"\x08" + seq, b"\x10\x07", HEADERS, BODY) for seq in (known, after)
        )
        compare([first, first, second])
        compare([first + first + second])


def test_a_number_does_not_lend_its_successor_to_a_longer_field() -> None:
    # Number 5 in a layout of two bytes; then its successor and a zero where three bytes are: as a
    # little-endian number both are the same.
    wide, next_wide = (
        record_field(seq, b"\x10\x07", HEADERS, BODY) for seq in (b"\x08\xc8\x01", b"\x08\x06\x00")
    )
    compare([wide, wide, KNOWN, KNOWN, next_wide])
    compare([wide + wide + KNOWN + KNOWN + next_wide])


# Numbers of one, two and three bytes that follow one another, or turn into each other by a bit.
near_numbers = st.sampled_from([0, 4, 5, 6, 7, 126, 127, 128, 199, 200, 201, 16_383, 16_384])


@st.composite
def number_fields(draw: st.DrawFn, tag: bytes, numbers: st.SearchStrategy[int]) -> bytes:
    """The field of a number, as short as can be or not, or what only looks like one."""
    varint = encode_varint(draw(numbers))
    more = draw(st.sampled_from([b"", b"", b"\0", b"\0\0", b"\x80", b"\xff\x01"]))
    if more and draw(st.booleans()):
        varint = varint[:-1] + bytes([varint[-1] | 0x80])
    return tag + varint + more


@st.composite
def mutated_fields(draw: st.DrawFn) -> bytes:
    """A record like its neighbours, but for its number and some bytes of its fields."""
    seq = draw(number_fields(b"\x08", near_numbers))
    fields = [seq, b"\x10\x07", HEADERS, BODY]
    which = draw(st.sampled_from([None, None, None, 0, 1, 2, 3]))
    if which is not None:
        changed = bytearray(fields[which])
        at = draw(st.integers(0, len(changed) - 1))
        changed[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, changed[at] ^ 1, changed[at] ^ 0x80]))
        fields[which] = bytes(changed)
    return record_field(*fields)


# Of each length of a number, so that what follows is read at one go.
LEARNED = [
    record_field(b"\x08" + encode_varint(number), b"\x10\x07", HEADERS, BODY)
    for number in (5, 200, 16_384)
]


@settings(max_examples=1000)
@given(st.lists(mutated_fields(), min_size=1, max_size=12))
def test_mutated_fields_are_read_or_refused_as_by_the_plain_path(fields: list[bytes]) -> None:
    compare([*LEARNED, *fields])
    compare([b"".join(LEARNED), b"".join(fields)])


@settings(max_examples=150)
@given(
    near_numbers,
    st.integers(0, 20),
    st.integers(0, 40),
    st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF]),
)
def test_mutated_fields_in_a_run(first: int, which: int, at: int, mask: int) -> None:
    whole = [encode([record]) for record in run_of(20, first)]
    changed = bytearray(b"".join(whole))
    changed[(which * len(whole[0]) + at) % len(changed)] ^= mask
    compare([b"".join(whole), bytes(changed), *whole, bytes(changed)])


def test_a_longer_record_that_begins_like_a_known_one_is_read_to_its_end() -> None:
    # Lengths of three bytes that share their first two; the rest is another body, which counts.
    body = b"x" * 17_000
    [record] = place([head(body, seq=1, writer="a")], 5)
    content = encode([record])[4:]
    padding = b"\x22" + encode_varint(2**14 - 3) + bytes(2**14 - 3)
    longer = encode_bytes_field(b"\x0a", content + padding)
    assert longer[1:3] == encode([record])[1:3]
    compare([encode([record]), longer, longer + encode([record])])


LONG_NUMBERS = record_field(b"\x08\xac\x82\x05", b"\x10\x87\xd0\x95\xff\xbc\x31", HEADERS, BODY)


@pytest.mark.parametrize("known", [KNOWN, LONG_NUMBERS], ids=["short", "long"])
def test_every_byte_of_a_record_of_known_layout_may_be_another(known: bytes) -> None:
    scanner = BatchScanner()
    for at in range(len(known)):
        for flip in (0x01, 0x7F, 0x80, 0xFF):
            changed = bytearray(known)
            changed[at] ^= flip
            compare([known, bytes(changed), known + bytes(changed), bytes(changed) * 2], scanner)


def test_every_end_is_found() -> None:
    scanner = BatchScanner()
    whole = encode(place([head(b"xy", seq=i, writer="a") for i in range(3)], 9), 30, 7)
    for end in range(len(whole) + 1):
        compare([whole, whole[:end]], scanner)


@settings(max_examples=150)
@given(alike() | soups(), st.data())
def test_mutated_batches(records: list[SequencedRecord], data: st.DataObject) -> None:
    whole = encode(records, data.draw(st.none() | u64s))
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, max(0, len(changed) - 1)))
        with_bytes = data.draw(st.binary(max_size=2))
        changed[at : at + data.draw(st.integers(0, 2))] = with_bytes
    compare([whole, bytes(changed), whole + bytes(changed), bytes(changed)])


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
@example([b"\x0a" + bytes([len(KNOWN) - 2]) + b"\x00" * 3])
def test_random_bytes(batches: list[bytes]) -> None:
    compare([KNOWN, *batches, KNOWN + b"".join(batches)])


@given(
    st.lists(
        st.builds(
            SequencedRecord,
            u64s,
            u64s,
            st.one_of(any_headers, strange_headers),
            st.binary(max_size=5),
        )
    )
)
def test_any_headers(records: list[SequencedRecord]) -> None:
    compare([encode(records)] * 2)


def test_headers_of_a_known_layout_in_another_order_or_twice() -> None:
    frame_records, frame_bytes = make_frame_headers(1, 1)
    seq, writer = numbered(3, "a")
    variants = [
        (frame_bytes, frame_records, seq, writer),
        (frame_records, frame_bytes, writer, seq),
        (frame_records, frame_bytes, seq, writer, (b"k", b"v")),
        ((b"k", b"v"), frame_records, frame_bytes, seq, writer),
        (frame_records, frame_bytes, seq, seq, writer),
        (frame_records, frame_bytes, seq, writer, (WRITER_ID, b"b")),
        (frame_records, frame_bytes, seq, writer, (DEDUPE_SEQ, encode_u64(9))),
        (frame_records, frame_bytes, seq, (WRITER_ID, b"\xff")),
        (frame_records, frame_bytes, seq, (WRITER_ID, b"")),
        (frame_records, frame_bytes, seq),
        (*make_frame_headers(2, 1), seq, writer),
        (*make_frame_headers(1, 2), seq, writer),
        (*make_frame_headers(0, 1), seq, writer),
    ]
    known = SequencedRecord(5, 7, (frame_records, frame_bytes, seq, writer), b"x")
    for i, headers in enumerate(variants):
        other = SequencedRecord(6 + i, 7, headers, b"x")
        compare([encode([known]), encode([other]), encode([known, other, known, other])])


def test_the_tail_is_that_of_the_last_batch() -> None:
    scanner = BatchScanner()
    assert scan(scanner, encode([], 7))[2] == StreamPosition(7, 0)
    records = scanner.scan(encode(place([head(b"x")]), 9))
    next(records)
    assert scanner.tail is None
    assert list(records) == []
    assert scanner.tail == StreamPosition(9, 0)
    assert scan(scanner, encode([]))[2] is None


def test_a_large_body_is_a_view_only_where_it_is_nearly_all_of_the_batch() -> None:
    def body_type(sizes: list[int], index: int) -> type:
        bodies = [head(bytes(size), seq=i, writer="a") for i, size in enumerate(sizes)]
        records = list(BatchScanner().scan(encode(place(bodies))))
        assert [bytes(record[8]) for record in records] == [bytes(size) for size in sizes]
        return type(records[index][8])

    assert body_type([64 * 1024], 0) is memoryview
    assert body_type([64 * 1024 - 1], 0) is bytes
    assert body_type([64 * 1024, 100], 0) is memoryview
    assert body_type([64 * 1024, 1024], 0) is bytes
    assert body_type([1_000_000, 1_000], 0) is memoryview
    assert body_type([1_000_000, 1_000], 1) is bytes
    assert body_type([500_000, 500_000], 0) is bytes


def test_what_a_scanner_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2frames.framed_wire._MAX_LEARNED", 64)
    scanner = BatchScanner()
    # Few sizes of many writers, then many sizes of one: every record is one to learn from.
    records = [head(b"x" * (1 + i % 2), seq=i, writer=f"{i:0>200}") for i in range(2000)]
    records += [head(b"x" * (1 + i), seq=i, writer="w") for i in range(2000)]
    batches = cut(place(records, 20_000), 100)
    scan(scanner, batches[0])
    tracemalloc.start()
    try:
        for data in batches:
            for _ in scanner.scan(data):
                pass
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 200 * 1024
    compare([batches[0], batches[-1], batches[0]], scanner)


# Encoding


def plain_records(payload: bytes, chunk_size: int, writer_id: str | None, seq: int) -> list[Record]:
    records = frame_chunks_to_records(chunk_bytes(payload, chunk_size))
    if writer_id is not None:
        inject_dedupe_headers(records, writer_id, seq)
    return records


@given(
    st.none() | writer_ids,
    st.sampled_from([1, 2, 54, 55, 56, 120, 127, 128, 200, 16_300, 16_384, 70_000]),
    st.integers(0, 2**53 - 1),
)
def test_a_frame_of_one_record_is_encoded_as_by_the_plain_path(
    writer_id: str | None, size: int, seq: int
) -> None:
    encoder = RecordEncoder(writer_id)
    for body in (bytes(size), b"\xff" * size):
        [record] = plain_records(body, size, writer_id, seq)
        for _ in range(2):
            before, after = encoder.single(size)
            encoded = before + encoder.encode_seq(seq) + after + body
            assert encoded == encode_append_input(AppendInput([record]))
        assert encoder.head_overhead + size == record.metered_bytes


@given(
    st.none() | writer_ids,
    st.binary(min_size=2, max_size=300),
    st.integers(1, 299),
    any_headers,
    st.none() | u64s,
    st.integers(0, 2**53 - 300),
)
def test_a_frame_is_encoded_as_by_the_plain_path(
    writer_id: str | None,
    payload: bytes,
    chunk_size: int,
    own: tuple[tuple[bytes, bytes], ...],
    timestamp: int | None,
    seq: int,
) -> None:
    encoder = RecordEncoder(writer_id)
    records = plain_records(payload, chunk_size, writer_id, seq)
    for i, record in enumerate(records):
        body = record.body
        if i:
            before, after = encoder.chunk(len(body), timestamp)
            expected = Record(body, record.headers, timestamp)
            assert encoder.chunk_overhead + len(body) == expected.metered_bytes
        else:
            before, after = encoder.head(len(payload), len(records), len(body), own, timestamp)
            expected = Record(body, (*record.headers, *own), timestamp)
            own_bytes = metered_bytes(own, 0) - metered_bytes((), 0)
            assert encoder.head_overhead + own_bytes + len(body) == expected.metered_bytes
        encoded = before + encoder.encode_seq(seq + i) + after + body
        assert encoded == encode_append_input(AppendInput([expected]))


@pytest.mark.parametrize("timestamp", [None, 0, 9])
def test_an_empty_body_is_left_out(timestamp: int | None) -> None:
    encoder = RecordEncoder("w")
    [first, further] = frame([b"", b"x"], seq=3, writer="w")
    for (before, after), record, seq in (
        (encoder.head(1, 2, 0, (), timestamp), first, 3),
        (encoder.chunk(0, timestamp), further, 4),
    ):
        expected = Record(b"", record.headers, timestamp)
        encoded = before + encoder.encode_seq(seq) + after
        assert encoded == encode_append_input(AppendInput([expected]))


def test_prepared_sizes_are_bounded_and_stay_right() -> None:
    encoder = RecordEncoder("w")
    tracemalloc.start()
    try:
        for size in range(1, 20_000):
            encoder.single(size)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 3 * 1024 * 1024
    before, after = encoder.single(3)
    [record] = frame([b"abc"], seq=9, writer="w")
    encoded = before + encoder.encode_seq(9) + after + b"abc"
    assert encoded == encode_append_input(AppendInput([record]))


def test_a_scanner_reads_what_an_encoder_wrote() -> None:
    # The two sides of the fast path, joined by nothing but the header bytes they share.
    [record] = frame([b"abc"], seq=9, writer="w")
    [scanned] = BatchScanner().scan(encode(place([record], 4)))
    assert scanned == (RecordKind.HEAD, 4, 1_700_000_000_000, 1, 3, 9, b"w", (), b"abc")


# Runs


def run_of(count: int, first: int, *, seq: int = 0, writer: str = "w") -> list[SequencedRecord]:
    """Records that look alike."""
    records = [head(b"%06d" % i, seq=seq + i, writer=writer) for i in range(count)]
    return [evolve(record, timestamp=77) for record in place_at(records, first)]


def runs_in(scanner: BatchScanner, data: bytes) -> list[int]:
    """How many records each run has."""
    return [len(item.bodies) for item in scanner.scan_runs(data) if isinstance(item, Run)]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 15, 16, 17, 80, 81, 1000])
@pytest.mark.parametrize("first", [1, 100, 2**7 - 4, 2**14 - 4, 2**21 - 9, 2**63])
def test_records_that_look_alike(count: int, first: int) -> None:
    scanner = BatchScanner()
    data = encode(run_of(count, first), tail=first + count)
    compare([data] * 2, scanner)
    assert scanner.tail is not None
    # As many as there are, but for those before the layout is known or where it changes.
    assert sum(runs_in(scanner, data)) >= count - 24


def test_runs_grow() -> None:
    scanner = BatchScanner()
    data = encode(run_of(1000, 2**15))
    compare([data], scanner)
    assert runs_in(scanner, data) == [16, 64, 256, 664]


CHANGES: dict[str, Callable[[SequencedRecord], SequencedRecord]] = {
    "number": lambda r: evolve(r, seq_num=r.seq_num + 1),
    "time": lambda r: evolve(r, timestamp=78),
    "dedupe": lambda r: evolve(r, headers=(*r.headers[:2], (DEDUPE_SEQ, bytes(8)), r.headers[3])),
    "writer": lambda r: evolve(r, headers=(*r.headers[:3], (WRITER_ID, b"v"))),
    "name": lambda r: evolve(r, headers=((b"_frame_recordx", bytes(8)), *r.headers[1:])),
    "declared": lambda r: evolve(r, headers=(*make_frame_headers(6, 2), *r.headers[2:])),
    "size": lambda r: evolve(r, body=b"1234567"),
    "smaller": lambda r: evolve(r, body=b"12345"),
    "plain": lambda r: evolve(r, headers=()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("places", [{0}, {7}, {8}, {15, 16}, {20}, {39}, set(range(0, 40, 2))])
def test_a_record_that_does_not_look_alike(
    change: Callable[[SequencedRecord], SequencedRecord], places: set[int]
) -> None:
    records = run_of(40, 1000)
    changed = [change(r) if i in places else r for i, r in enumerate(records)]
    scanner = BatchScanner()
    compare([encode(records), encode(changed), encode(changed)], scanner)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["u", "v"]), st.integers(0, 2))))
def test_runs_that_take_turns(parts: list[tuple[int, str, int]]) -> None:
    records: list[SequencedRecord] = []
    seqs = {"u": 0, "v": 0}
    for count, writer, gap in parts:
        start = 300 + len(records)
        records += run_of(count, start, seq=seqs[writer] + gap, writer=writer)
        seqs[writer] += count + gap
    if records:
        compare([encode(records)] * 3)


def test_what_is_read_in_vain_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    read_run = BatchScanner._read_run

    def count_tries(self: BatchScanner, layout: Any, data: bytes, at: int, count: int) -> Any:
        tried.append(count)
        return read_run(self, layout, data, at, count)

    monkeypatch.setattr(BatchScanner, "_read_run", count_tries)
    # Two writers take turns, in records of one size.
    records = [
        record
        for i in range(500)
        for record in (
            *run_of(1, 300 + 2 * i, seq=i, writer="u"),
            *run_of(1, 301 + 2 * i, seq=i, writer="v"),
        )
    ]
    compare([encode(records)] * 2)
    assert len(tried) < 40
    assert max(tried) == 16
