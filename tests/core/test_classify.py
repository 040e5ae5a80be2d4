from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frames import encode, head, payloads, place, read, read_batches, strange_headers
from framing_vectors import RESERVED, reserved_cases
from reader_model import parse
from s2frames.checkpoint import Checkpoint
from s2frames.classify import (
    MAX_LANE_BYTES,
    NO_WRITER,
    UNNUMBERED,
    RecordKind,
    classify,
    classify_headers,
    find_problem,
    lane_of,
)
from s2frames.dedupe import DEDUPE_SEQ, RESERVED_HEADERS, WRITER_ID
from s2frames.framing import FRAME_BYTES, FRAME_RECORDS, make_frame_headers
from s2frames.reader import FrameReader
from s2frames.records import Header, Record, SequencedRecord, fence, trim
from s2frames.u64 import U64_MAX, encode_u64

HEAD, CHUNK, COMMAND, FOREIGN, BAD = RecordKind

TWO = encode_u64(2)
META = make_frame_headers(9, 3)
SEQ = (DEDUPE_SEQ, encode_u64(5))
ZERO = (DEDUPE_SEQ, encode_u64(0))
WRITER = (WRITER_ID, b"w")
OWN = (b"own", b"value")

# Headers, and what they make of a record: kind, declared records and bytes, dedupe sequence, lane,
# headers of its own.
CASES: list[tuple[tuple[Header, ...], tuple[object, ...]]] = [
    ((), (CHUNK, 0, 0, -1, UNNUMBERED, ())),
    (META, (HEAD, 3, 9, -1, UNNUMBERED, ())),
    (META[::-1], (HEAD, 3, 9, -1, UNNUMBERED, ())),
    ((*META, SEQ), (HEAD, 3, 9, 5, NO_WRITER, ())),
    ((*META, SEQ, WRITER), (HEAD, 3, 9, 5, b"w", ())),
    ((WRITER, SEQ, *META), (HEAD, 3, 9, 5, b"w", ())),
    ((OWN, *META, (b"", b""), SEQ, WRITER, OWN), (HEAD, 3, 9, 5, b"w", (OWN, (b"", b""), OWN))),
    ((SEQ,), (CHUNK, 0, 0, 5, NO_WRITER, ())),
    ((SEQ, WRITER), (CHUNK, 0, 0, 5, b"w", ())),
    ((SEQ, OWN, WRITER), (CHUNK, 0, 0, 5, b"w", (OWN,))),
    ((SEQ, (WRITER_ID, b"w" * 256)), (CHUNK, 0, 0, 5, b"w" * 256, ())),
    ((SEQ, (WRITER_ID, "é".encode())), (CHUNK, 0, 0, 5, "é".encode(), ())),
    # What the npm package's bare helper writes.
    ((SEQ, (WRITER_ID, b"")), (CHUNK, 0, 0, 5, b"", ())),
    ((SEQ, (WRITER_ID, b"\xff\x00")), (CHUNK, 0, 0, 5, b"\xff\x00", ())),
    ((SEQ, (WRITER_ID, b"\xed\xa0\x80")), (CHUNK, 0, 0, 5, b"\xed\xa0\x80", ())),
    ((SEQ, (WRITER_ID, b"\xef\xbb\xbfw")), (CHUNK, 0, 0, 5, b"\xef\xbb\xbfw", ())),
    ((SEQ, (WRITER_ID, b"__legacy__")), (CHUNK, 0, 0, 5, NO_WRITER, ())),
    ((SEQ, (WRITER_ID, b"w" * 257)), (CHUNK, 0, 0, 5, lane_of(b"w" * 257), ())),
    # Of dedupe headers the first of a name counts, of frame headers the last.
    ((SEQ, (DEDUPE_SEQ, TWO), WRITER, (WRITER_ID, b"x")), (CHUNK, 0, 0, 5, b"w", ())),
    ((SEQ, (DEDUPE_SEQ, b"short")), (CHUNK, 0, 0, 5, NO_WRITER, ())),
    ((SEQ, WRITER, (WRITER_ID, b"\xff")), (CHUNK, 0, 0, 5, b"w", ())),
    ((*META, *make_frame_headers(8, 2)), (HEAD, 2, 8, -1, UNNUMBERED, ())),
    # But a number of 0 and an empty writer id give way, until both are known.
    ((ZERO, SEQ), (CHUNK, 0, 0, 5, NO_WRITER, ())),
    ((ZERO, SEQ, WRITER), (CHUNK, 0, 0, 5, b"w", ())),
    ((ZERO, WRITER, SEQ), (CHUNK, 0, 0, 0, b"w", ())),
    (((WRITER_ID, b""), WRITER, SEQ), (CHUNK, 0, 0, 5, b"w", ())),
    (((WRITER_ID, b"\xef\xbb\xbf"), WRITER, SEQ), (CHUNK, 0, 0, 5, b"w", ())),
    ((SEQ, (WRITER_ID, b""), WRITER), (CHUNK, 0, 0, 5, b"", ())),
    (make_frame_headers(U64_MAX, U64_MAX), (HEAD, U64_MAX, U64_MAX, -1, UNNUMBERED, ())),
    (((DEDUPE_SEQ, encode_u64(U64_MAX)),), (CHUNK, 0, 0, U64_MAX, NO_WRITER, ())),
    (((DEDUPE_SEQ, encode_u64(0)),), (CHUNK, 0, 0, 0, NO_WRITER, ())),
    # Commands: one header, its name empty.
    (fence("t").headers, (COMMAND, 0, 0, -1, UNNUMBERED, ((b"", b"fence"),))),
    (trim(5).headers, (COMMAND, 0, 0, -1, UNNUMBERED, ((b"", b"trim"),))),
    (((b"", b""),), (COMMAND, 0, 0, -1, UNNUMBERED, ((b"", b""),))),
    (((b"", b"fence"), SEQ), (CHUNK, 0, 0, 5, NO_WRITER, ((b"", b"fence"),))),
    (((b"", b"fence"), OWN), (FOREIGN, 0, 0, -1, UNNUMBERED, ((b"", b"fence"), OWN))),
    ((OWN,), (FOREIGN, 0, 0, -1, UNNUMBERED, (OWN,))),
    (((b"_dedupe_se", b""),), (FOREIGN, 0, 0, -1, UNNUMBERED, ((b"_dedupe_se", b""),))),
    (((b"_DEDUPE_SEQ", b""),), (FOREIGN, 0, 0, -1, UNNUMBERED, ((b"_DEDUPE_SEQ", b""),))),
]


@pytest.mark.parametrize(("headers", "expected"), CASES)
def test_parts(headers: tuple[Header, ...], expected: tuple[object, ...]) -> None:
    kind, *rest = expected
    assert classify_headers(8, 6, headers, b"body") == (kind, 8, 6, *rest, b"body")
    assert find_problem(headers) is None


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        (((FRAME_RECORDS, b"1234567"), META[1]), "_frame_records has 7 bytes instead of 8"),
        ((META[0], (FRAME_BYTES, b"")), "_frame_bytes has 0 bytes instead of 8"),
        ((*META, (FRAME_BYTES, b"")), "_frame_bytes has 0 bytes instead of 8"),
        (((FRAME_BYTES, b""), *META), "_frame_bytes has 0 bytes instead of 8"),
        (((DEDUPE_SEQ, b"123456789"),), "_dedupe_seq has 9 bytes instead of 8"),
        (((DEDUPE_SEQ, b""), SEQ), "_dedupe_seq has 0 bytes instead of 8"),
        ((META[0],), "one of _frame_records and _frame_bytes is missing"),
        ((META[1], SEQ, WRITER), "one of _frame_records and _frame_bytes is missing"),
        (make_frame_headers(9, 0), "_frame_records declares no record"),
        (make_frame_headers(0, 3), "_frame_bytes declares no byte"),
        ((*META, *make_frame_headers(0, 3)), "_frame_bytes declares no byte"),
        ((WRITER,), "_writer_id comes without _dedupe_seq"),
        ((*META, WRITER), "_writer_id comes without _dedupe_seq"),
    ],
)
def test_problems(headers: tuple[Header, ...], problem: str) -> None:
    assert find_problem(headers) == problem
    assert find_problem((OWN, *headers, OWN)) == problem
    whole = (BAD, 8, 6, 0, 0, -1, UNNUMBERED, headers, b"body")
    assert classify_headers(8, 6, headers, b"body") == whole


@given(strange_headers)
def test_headers_mean_what_framing_and_dedupe_make_of_them(headers: tuple[Header, ...]) -> None:
    kind, _, _, num_records, num_bytes, seq, lane, own, _ = classify_headers(0, 0, headers, b"")
    if kind in (COMMAND, FOREIGN):
        assert not RESERVED_HEADERS.intersection(name for name, _ in headers)
        assert own == headers
        return
    parsed = parse(headers)
    assert (parsed is None) == (kind is BAD) == (find_problem(headers) is not None)
    if parsed is not None:
        assert seq == parsed.seq
        assert lane == parsed.lane.key
        declared = (parsed.meta.records, parsed.meta.bytes) if parsed.meta else (0, 0)
        assert (num_records, num_bytes) == declared
        assert (kind is HEAD) == (parsed.meta is not None)
        assert own == tuple(header for header in headers if header[0] not in RESERVED_HEADERS)


def test_repeated_headers_have_the_place_that_the_npm_package_gives_them() -> None:
    for headers, result in reserved_cases("dedupe"):
        kind, _, _, _, _, seq, lane, _, _ = classify_headers(0, 0, headers, b"")
        if result == "error":
            assert kind is BAD
        elif result is None:
            assert lane is UNNUMBERED
        else:
            assert (lane, seq) == (result[0].encode(), int(result[1])), headers
    for headers, result in reserved_cases("frame"):
        kind, _, _, num_records, num_bytes, _, _, _, _ = classify_headers(0, 0, headers, b"")
        if result == "error":
            assert kind is BAD
        elif result is not None and result[1] != "0":
            assert (num_records, num_bytes) == (int(result[0]), int(result[1])), headers
        else:
            assert kind is not HEAD


@pytest.mark.parametrize("case", RESERVED["writer_ids"], ids=lambda case: str(case["read_as"])[:9])
def test_what_the_npm_package_reads_is_read(case: dict[str, Any]) -> None:
    value = case["value"]
    writer = None if value is None else bytes.fromhex(value)
    records = [
        Record(
            body,
            (
                *make_frame_headers(1, 1),
                (DEDUPE_SEQ, encode_u64(seq)),
                *(() if writer is None else ((WRITER_ID, writer),)),
            ),
        )
        for seq, body in [(0, b"a"), (1, b"b"), (1, b"b"), (2, b"c")]
    ]
    batch, start = place(records), FrameReader(start=0)
    events = read(start, batch)
    assert b"".join(payloads(events)).decode() == case["delivered"] == "abc"
    assert read_batches(FrameReader(start=0), [encode(batch)]) == events
    # Going on in the middle, too.
    first = FrameReader(start=0)
    read(first, batch[:2])
    stored = Checkpoint.from_json(first.checkpoint().to_json())
    assert payloads(read(FrameReader.resume(stored), batch[2:])) == [b"c"]


def test_a_lane_is_bounded() -> None:
    for size in (0, 1, 256):
        assert lane_of(b"w" * size) == b"w" * size
    long = [b"w" * 257, b"w" * 258, b"w" * 2**20, b"v" + b"w" * 256]
    for writer_id in long:
        lane = lane_of(writer_id)
        assert lane[:256] == writer_id[:256]
        assert lane[256:].decode() == "~" + sha256(writer_id).hexdigest()
        assert len(lane) == MAX_LANE_BYTES
    assert len({lane_of(writer_id) for writer_id in long}) == len(long)
    # Nobody can take the lane of a long id by an id that is spelled like it.
    assert lane_of(lane_of(long[0])) != lane_of(long[0])


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=9)), max_size=5).map(tuple))
def test_any_headers_have_a_part(headers: tuple[Header, ...]) -> None:
    assert classify_headers(0, 0, headers, b"")[0] in RecordKind


@pytest.mark.parametrize("body", [b"body", memoryview(b"body")])
def test_records_come_in_order_with_bytes_of_their_own(body: bytes | memoryview) -> None:
    [record] = place([head(b"body")])
    records = [SequencedRecord(i, 2 * i, record.headers, body) for i in range(3)]
    parts = list(classify(records))
    assert [part[1:3] for part in parts] == [(0, 0), (1, 2), (2, 4)]
    assert [part[8] for part in parts] == [b"body"] * 3
    assert {type(part[8]) for part in parts} == {bytes}


def test_records_are_classified_as_they_are_asked_for() -> None:
    records = iter(place([head(b"a"), head(b"b")]))
    parts = classify(records)
    next(parts)
    assert [record.seq_num for record in records] == [1]
