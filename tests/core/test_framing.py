from __future__ import annotations

import tracemalloc
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framing_vectors import VECTORS, headers, payload, reserved_cases
from s2frames.chunking import chunk_bytes
from s2frames.dedupe import DedupeFilter, inject_dedupe_headers
from s2frames.errors import FrameSizeError, LocalProtocolError, RemoteProtocolError
from s2frames.framing import (
    DEFAULT_MAX_FRAME_BYTES,
    FRAME_BYTES,
    FRAME_RECORDS,
    CompletedFrame,
    FrameAssembler,
    FrameMeta,
    frame_chunks_to_records,
    make_frame_headers,
    parse_frame_headers,
)
from s2frames.records import Header, Record, SequencedRecord
from s2frames.u64 import U64_MAX, encode_u64


def head(num_records: int, total_bytes: int, body: bytes = b"") -> Record:
    """A first record that declares what it is told to."""
    return Record(body, make_frame_headers(total_bytes, num_records))


def test_default_limit_is_that_of_the_npm_package() -> None:
    assert VECTORS["default_max_frame_bytes"] == DEFAULT_MAX_FRAME_BYTES


# Encoding


def encode_name(case: dict[str, Any]) -> str:
    return f"{case['payload_len']} bytes, chunks of {case['chunk_size']}, {case['writer_id']}"


@pytest.mark.parametrize("case", VECTORS["encode"], ids=encode_name)
def test_encode_vectors(case: dict[str, Any]) -> None:
    size = {} if case["chunk_size"] is None else {"max_chunk_size": case["chunk_size"]}
    records = frame_chunks_to_records(chunk_bytes(payload(case["payload_len"]), **size))
    if case["writer_id"] is not None:
        next_seq = inject_dedupe_headers(records, case["writer_id"], case["first_dedupe_seq"])
        assert next_seq == case["next_dedupe_seq"]
    assert len(records) == len(case["records"])
    for record, expected in zip(records, case["records"], strict=True):
        assert record.headers == headers(expected["headers"])
        assert len(record.body) == expected["body_len"]
        assert sha256(record.body).hexdigest() == expected["body_sha256"]
        assert record.body.hex() == expected.get("body", record.body.hex())
        assert record.metered_bytes == expected["metered_bytes"]


def test_headers_stand_in_the_order_of_the_npm_package() -> None:
    assert make_frame_headers(7, 2) == (
        (b"_frame_records", encode_u64(2)),
        (b"_frame_bytes", encode_u64(7)),
    )


def test_no_chunk_no_record() -> None:
    assert frame_chunks_to_records([]) == []


def test_chunks_become_bytes_of_their_own() -> None:
    data = bytearray(b"abcd")
    records = frame_chunks_to_records(chunk_bytes(data, 2))
    data[:] = b"XXXX"
    assert [record.body for record in records] == [b"ab", b"cd"]
    assert all(type(record.body) is bytes for record in records)


@given(st.binary(min_size=1, max_size=300), st.integers(1, 50))
def test_round_trip(data: bytes, max_chunk_size: int) -> None:
    assembler = FrameAssembler()
    records = frame_chunks_to_records(chunk_bytes(data, max_chunk_size))
    frames = [assembler.push(record) for record in records]
    assert frames[:-1] == [None] * (len(records) - 1)
    assert frames[-1] == CompletedFrame(data, FrameMeta(len(data), len(records)))


# Parsing heads


@pytest.mark.parametrize(
    ("parsed", "meta"),
    [
        ([], None),
        ([(FRAME_RECORDS, encode_u64(1))], None),
        ([(FRAME_BYTES, encode_u64(1))], None),
        ([(b"_frame_byte", encode_u64(1)), (FRAME_RECORDS, encode_u64(1))], None),
        ([(FRAME_RECORDS, encode_u64(2)), (FRAME_BYTES, encode_u64(9))], FrameMeta(9, 2)),
        ([(FRAME_BYTES, encode_u64(9)), (FRAME_RECORDS, encode_u64(2))], FrameMeta(9, 2)),
        ([*make_frame_headers(1, 1), *make_frame_headers(9, 2)], FrameMeta(9, 2)),
        ([(b"", b"fence"), *make_frame_headers(9, 2), (b"x", b"")], FrameMeta(9, 2)),
        (list(make_frame_headers(0, 0)), FrameMeta(0, 0)),
        (list(make_frame_headers(U64_MAX, U64_MAX)), FrameMeta(U64_MAX, U64_MAX)),
    ],
)
def test_parse_frame_headers(parsed: list[Header], meta: FrameMeta | None) -> None:
    assert parse_frame_headers(parsed) == meta


@pytest.mark.parametrize("name", [FRAME_RECORDS, FRAME_BYTES])
@pytest.mark.parametrize("value", [b"", b"1", b"\0" * 7, b"\0" * 9])
def test_refuses_a_number_of_another_length(name: bytes, value: bytes) -> None:
    named = f"^{name.decode()} has {len(value)} bytes instead of 8$"
    with pytest.raises(RemoteProtocolError, match=named):
        parse_frame_headers([*make_frame_headers(1, 1), (name, value)])
    # Even if another one counts.
    with pytest.raises(RemoteProtocolError, match=named):
        parse_frame_headers([(name, value), *make_frame_headers(1, 1)])


def test_repeated_frame_headers_are_read_as_the_npm_package_reads_them() -> None:
    for parsed, result in reserved_cases("frame"):
        if result == "error":
            with pytest.raises(RemoteProtocolError):
                parse_frame_headers(parsed)
            continue
        meta = None if result is None else FrameMeta(int(result[1]), int(result[0]))
        assert parse_frame_headers(parsed) == meta, parsed


# Putting frames together


@pytest.mark.parametrize("case", VECTORS["decode"], ids=lambda case: str(case["name"]))
def test_decode_vectors(case: dict[str, Any]) -> None:
    dedupe = DedupeFilter()
    limit = case["max_frame_bytes"]
    assembler = FrameAssembler() if limit is None else FrameAssembler(limit)
    for pushed, expected in zip(case["records"], case["expected"], strict=True):
        record = Record(bytes.fromhex(pushed["body"]), headers(pushed["headers"]))
        assert dedupe.should_accept(record.headers) is expected["accepted"]
        if not expected["accepted"]:
            continue
        if "error" in expected:
            assert expected["error"] == FrameSizeError.__name__
            with pytest.raises(FrameSizeError):
                assembler.push(record)
            continue
        frame = assembler.push(record)
        assert ([] if frame is None else [frame]) == [
            CompletedFrame(
                bytes.fromhex(completed["payload"]),
                FrameMeta(completed["bytes"], completed["records"]),
            )
            for completed in expected["frames"]
        ]


@pytest.mark.parametrize("limit", [0, -1])
def test_refuses_a_limit_below_one(limit: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"max_frame_bytes .* not {limit}"):
        FrameAssembler(limit)


@pytest.mark.parametrize("declared", [0, 17, U64_MAX])
def test_refuses_a_size_outside_the_limit_and_goes_on(declared: int) -> None:
    assembler = FrameAssembler(16)
    assembler.push(head(2, 2, b"a"))
    with pytest.raises(FrameSizeError, match=f"declares {declared} bytes.* 16 "):
        assembler.push(head(1, declared, b"x"))
    assert assembler.push(Record(b"b")) is None  # neither the old frame nor the refused one
    assert assembler.push(head(1, 16, b"y" * 16)) == CompletedFrame(b"y" * 16, FrameMeta(16, 1))


def test_a_broken_head_changes_nothing() -> None:
    assembler = FrameAssembler()
    assembler.push(head(2, 2, b"a"))
    with pytest.raises(RemoteProtocolError):
        assembler.push(Record(b"x", ((FRAME_RECORDS, b"1"), (FRAME_BYTES, encode_u64(1)))))
    assert assembler.push(Record(b"b")) == CompletedFrame(b"ab", FrameMeta(2, 2))


def test_a_frame_of_no_records_never_completes() -> None:
    assembler = FrameAssembler()
    assert assembler.push(head(0, 2, b"")) is None
    assert [assembler.push(Record(b"a")) for _ in range(3)] == [None] * 3
    assert assembler.push(head(0, 1, b"x")) is None
    assert assembler.push(head(1, 1, b"x")) == CompletedFrame(b"x", FrameMeta(1, 1))


def test_chunks_after_an_overflow_wait_for_the_next_head() -> None:
    assembler = FrameAssembler()
    assert assembler.push(head(3, 3, b"abcd")) is None
    assert [assembler.push(Record(b"")) for _ in range(2)] == [None] * 2
    assert assembler.push(head(1, 1, b"x")) == CompletedFrame(b"x", FrameMeta(1, 1))


def test_takes_records_as_read() -> None:
    assembler = FrameAssembler()
    assembler.push(SequencedRecord(7, 0, make_frame_headers(4, 2), memoryview(b"ab")))
    frame = assembler.push(SequencedRecord(8, 0, (), memoryview(b"cd")))
    assert frame == CompletedFrame(b"abcd", FrameMeta(4, 2))
    assert frame is not None
    assert type(frame.payload) is bytes


@pytest.mark.parametrize(("declared", "chunks"), [(DEFAULT_MAX_FRAME_BYTES, 1), (1, 64)])
def test_memory_follows_what_arrived_up_to_what_was_declared(declared: int, chunks: int) -> None:
    assembler = FrameAssembler()
    first, chunk = head(U64_MAX, declared), Record(b"x" * 64 * 1024)
    tracemalloc.start()
    try:
        assembler.push(first)
        for _ in range(chunks):
            assembler.push(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


heads = st.builds(head, st.integers(0, 4), st.integers(1, 12), st.binary(max_size=4))
chunks = st.builds(Record, st.binary(max_size=4))


@given(st.lists(heads | chunks, max_size=30))
def test_a_frame_is_what_followed_its_head(pushed: list[Record]) -> None:
    assembler = FrameAssembler()
    for at, record in enumerate(pushed):
        frame = assembler.push(record)
        if frame is None:
            continue
        own = pushed[at + 1 - frame.meta.records : at + 1]
        assert parse_frame_headers(own[0].headers) == frame.meta
        assert all(not chunk.headers for chunk in own[1:])
        assert b"".join(chunk.body for chunk in own) == frame.payload
        assert len(frame.payload) == frame.meta.bytes


numbers = st.binary(max_size=9) | st.integers(0, 20).map(encode_u64)
strange_headers = st.lists(
    st.tuples(st.sampled_from([FRAME_BYTES, FRAME_RECORDS, b"", b"x"]), numbers), max_size=4
)


@given(st.lists(st.builds(Record, st.binary(max_size=9), strange_headers), max_size=10))
def test_strange_records_raise_nothing_else_and_do_no_lasting_harm(pushed: list[Record]) -> None:
    assembler = FrameAssembler(16)
    for record in pushed:
        try:
            assembler.push(record)
        except (FrameSizeError, RemoteProtocolError):
            continue
    assert assembler.push(head(1, 1, b"x")) == CompletedFrame(b"x", FrameMeta(1, 1))
