from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framing_vectors import RESERVED, reserved_cases
from s2frames.dedupe import (
    DEDUPE_SEQ,
    MAX_DEDUPE_SEQ,
    MAX_WRITER_ID_BYTES,
    RESERVED_HEADERS,
    WRITER_ID,
    DedupeFilter,
    check_writer_id,
    extract_dedupe_seq,
    inject_dedupe_headers,
    make_writer_id,
)
from s2frames.errors import LocalProtocolError, RemoteProtocolError
from s2frames.records import Header, Record
from s2frames.u64 import encode_u64


def numbered(seq: int, writer_id: str = "w") -> tuple[Header, ...]:
    return (DEDUPE_SEQ, encode_u64(seq)), (WRITER_ID, writer_id.encode())


def test_reserved_names_are_those_of_the_npm_package() -> None:
    assert {b"_frame_records", b"_frame_bytes", b"_dedupe_seq", b"_writer_id"} == RESERVED_HEADERS


def test_last_sequence_is_the_largest_safe_integer_of_javascript() -> None:
    assert MAX_DEDUPE_SEQ == 9_007_199_254_740_991


# Writer ids


@pytest.mark.parametrize(
    ("drawn", "expected"), [(0.0, "a" * 12), (1 - 2**-53, "_" * 12), (26 / 64, "A" * 12)]
)
def test_make_writer_id_at_the_ends_of_its_alphabet(drawn: float, expected: str) -> None:
    assert make_writer_id(lambda: drawn) == expected


def test_make_writer_id_uses_64_characters_once_a_draw() -> None:
    draws = iter(i / 64 for i in range(60))
    made = "".join(make_writer_id(lambda: next(draws)) for _ in range(5))
    assert len(set(made)) == len(made) == 60
    assert made.replace("-", "").replace("_", "").isalnum()
    assert made.isascii()


@pytest.mark.parametrize("writer_id", ["w", "é-writer", "a" * 256, "é" * 128, "a b", "\0"])
def test_check_writer_id_accepts(writer_id: str) -> None:
    assert check_writer_id(writer_id) == writer_id


@pytest.mark.parametrize(
    ("writer_id", "named"),
    [
        ("", "not 0"),
        ("a" * 257, "not 257"),
        ("__legacy__", "'__legacy__' is what readers call a writer without an id"),
        ("é" * 129, "not 258"),
        ("\ud800", "UTF-8"),
        (b"abc", "b'abc'"),
        (None, "None"),
    ],
)
def test_check_writer_id_refuses(writer_id: object, named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named):
        check_writer_id(writer_id)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match=named):
        inject_dedupe_headers([], writer_id, 0)  # type: ignore[arg-type]


def test_longest_writer_id_leaves_room_in_its_message() -> None:
    with pytest.raises(LocalProtocolError, match=f"1 to {MAX_WRITER_ID_BYTES} "):
        check_writer_id("a" * (MAX_WRITER_ID_BYTES + 1))


# Numbering


def test_inject_appends_to_each_record_in_place() -> None:
    records = [Record(b"a", ((b"x", b"y"),), 5), Record(b"b")]
    same = records
    assert inject_dedupe_headers(records, "w", 7) == 9
    assert same == [
        Record(b"a", ((b"x", b"y"), *numbered(7)), 5),
        Record(b"b", numbered(8)),
    ]


def test_inject_into_nothing_changes_nothing() -> None:
    assert inject_dedupe_headers([], "w", 7) == 7


@pytest.mark.parametrize("name", [DEDUPE_SEQ, WRITER_ID])
def test_inject_refuses_reserved_headers_before_any_change(name: bytes) -> None:
    records = [Record(b"a"), Record(b"b", ((b"x", b""), (name, b"")))]
    before = list(records)
    with pytest.raises(LocalProtocolError, match=name.decode()):
        inject_dedupe_headers(records, "w", 0)
    assert records == before


@pytest.mark.parametrize(
    ("count", "start"), [(0, MAX_DEDUPE_SEQ + 1), (1, MAX_DEDUPE_SEQ), (2, MAX_DEDUPE_SEQ - 1)]
)
def test_inject_goes_up_to_the_last_sequence(count: int, start: int) -> None:
    records = [Record(b"x")] * count
    assert inject_dedupe_headers(records, "w", start) == MAX_DEDUPE_SEQ + 1


@pytest.mark.parametrize(
    ("count", "start"),
    [(1, MAX_DEDUPE_SEQ + 1), (2, MAX_DEDUPE_SEQ), (0, -1), (1, -1), (1, 2**64), (3, -2)],
)
def test_inject_refuses_sequences_out_of_range_before_any_change(count: int, start: int) -> None:
    records = [Record(b"x")] * count
    last = MAX_DEDUPE_SEQ + 1 - count
    named = f"^start_seq must be an int from 0 to {last}, not {start}$"
    with pytest.raises(LocalProtocolError, match=named):
        inject_dedupe_headers(records, "w", start)
    assert records == [Record(b"x")] * count


# Reading numbers


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), None),
        (((WRITER_ID, b"w"),), None),
        (((b"_dedupe_se", encode_u64(1)),), None),
        (numbered(3, "é"), ("é", 3)),
        (numbered(3)[::-1], ("w", 3)),
        (((DEDUPE_SEQ, encode_u64(3)),), ("__legacy__", 3)),
        (((DEDUPE_SEQ, encode_u64(3)), (WRITER_ID, b"")), ("", 3)),
        ((*numbered(3, "a"), *numbered(9, "b")), ("a", 3)),
        ((*numbered(3), (DEDUPE_SEQ, b"short"), (WRITER_ID, b"\xff")), ("w", 3)),
        (((b"x", b"y"), *numbered(2**64 - 1)), ("w", 2**64 - 1)),
    ],
)
def test_extract(headers: tuple[Header, ...], expected: tuple[str, int] | None) -> None:
    assert extract_dedupe_seq(headers) == expected


def test_repeated_headers_are_read_as_the_npm_package_reads_them() -> None:
    for headers, result in reserved_cases("dedupe"):
        if result == "error":
            with pytest.raises(RemoteProtocolError):
                extract_dedupe_seq(headers)
            continue
        expected = None if result is None else (result[0], int(result[1]))
        assert extract_dedupe_seq(headers) == expected, headers


@pytest.mark.parametrize("case", RESERVED["writer_ids"], ids=lambda case: str(case["read_as"])[:9])
def test_writer_ids_are_read_as_the_npm_package_reads_them(case: dict[str, Any]) -> None:
    value = case["value"]
    writer = () if value is None else ((WRITER_ID, bytes.fromhex(value)),)
    assert extract_dedupe_seq(((DEDUPE_SEQ, encode_u64(7)), *writer)) == (case["read_as"], 7)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        (((DEDUPE_SEQ, b""),), "^_dedupe_seq has 0 bytes instead of 8$"),
        (((DEDUPE_SEQ, b"\0" * 9),), "^_dedupe_seq has 9 bytes instead of 8$"),
    ],
)
def test_broken_numbers(headers: tuple[Header, ...], named: str) -> None:
    dedupe = DedupeFilter()
    dedupe.should_accept(numbered(1))
    with pytest.raises(RemoteProtocolError, match=named):
        extract_dedupe_seq(headers)
    with pytest.raises(RemoteProtocolError, match=named):
        dedupe.should_accept(headers)
    assert not dedupe.should_accept(numbered(1))
    assert dedupe.should_accept(numbered(2))


@given(st.lists(st.sampled_from([b"a", b"b"]).map(Record), max_size=9), st.integers(0, 2**53 - 9))
def test_what_is_injected_is_extracted(records: list[Record], start: int) -> None:
    inject_dedupe_headers(records, "writer", start)
    assert [extract_dedupe_seq(record.headers) for record in records] == [
        ("writer", start + i) for i in range(len(records))
    ]


# Dropping repeats


@pytest.mark.parametrize(
    ("seen", "accepted"),
    [
        ("a0 a1 a2", "a0 a1 a2"),
        ("a0 a0 a1 a0 a1 a2", "a0 a1 a2"),
        ("a5 a4 a6", "a5 a6"),
        ("a0 a9 a5", "a0 a9"),
        ("a5 b0 b0 b1", "a5 b0 b1"),
        ("a0 b0 a0", "a0 b0 a0"),
    ],
)
def test_one_active_writer(seen: str, accepted: str) -> None:
    dedupe = DedupeFilter()
    kept = [s for s in seen.split() if dedupe.should_accept(numbered(int(s[1:]), s[0]))]
    assert kept == accepted.split()


def test_records_without_a_sequence_pass_and_restart_nothing() -> None:
    dedupe = DedupeFilter()
    assert dedupe.should_accept(numbered(0))
    assert dedupe.should_accept(())
    assert dedupe.should_accept(((WRITER_ID, b"other"),))
    assert not dedupe.should_accept(numbered(0))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_retries_leave_each_record_once_and_in_order(steps: list[tuple[int, int]]) -> None:
    dedupe = DedupeFilter()
    kept: list[int] = []
    appended = 0
    for repeated, fresh in steps:
        first = max(0, appended - repeated)
        appended += fresh
        kept += [seq for seq in range(first, appended) if dedupe.should_accept(numbered(seq))]
    assert kept == list(range(appended))
