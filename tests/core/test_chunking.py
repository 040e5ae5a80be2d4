from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framing_vectors import VECTORS
from s2frames.chunking import MAX_CHUNK_BODY_BYTES, chunk_bytes
from s2frames.dedupe import inject_dedupe_headers
from s2frames.errors import LocalProtocolError
from s2frames.framing import frame_chunks_to_records
from s2frames.records import MAX_RECORD_BYTES


def test_constant_is_that_of_the_npm_package() -> None:
    assert VECTORS["max_chunk_body_bytes"] == MAX_CHUNK_BODY_BYTES


def test_largest_chunk_fills_a_first_record() -> None:
    records = frame_chunks_to_records([b"x" * MAX_CHUNK_BODY_BYTES])
    inject_dedupe_headers(records, "w" * 12, 0)
    assert records[0].metered_bytes == MAX_RECORD_BYTES


@pytest.mark.parametrize(
    ("size", "max_chunk_size", "sizes"),
    [
        (0, 1, []),
        (1, 1, [1]),
        (3, 1, [1, 1, 1]),
        (9, 10, [9]),
        (10, 10, [10]),
        (11, 10, [10, 1]),
        (20, 10, [10, 10]),
        (1, 2**64 - 1, [1]),
    ],
)
def test_sizes(size: int, max_chunk_size: int, sizes: list[int]) -> None:
    assert [len(chunk) for chunk in chunk_bytes(b"x" * size, max_chunk_size)] == sizes


def test_default_size_is_the_largest_chunk() -> None:
    chunks = chunk_bytes(bytes(MAX_CHUNK_BODY_BYTES + 1))
    assert [len(chunk) for chunk in chunks] == [MAX_CHUNK_BODY_BYTES, 1]


@given(st.binary(max_size=500), st.integers(1, 100))
def test_chunks_are_full_but_the_last_and_add_up(data: bytes, max_chunk_size: int) -> None:
    chunks = chunk_bytes(data, max_chunk_size)
    assert b"".join(chunks) == data
    assert all(len(chunk) == max_chunk_size for chunk in chunks[:-1])
    assert all(1 <= len(chunk) <= max_chunk_size for chunk in chunks[-1:])


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_cuts_every_kind_of_buffer(make: type[bytes]) -> None:
    assert [bytes(chunk) for chunk in chunk_bytes(make(b"abcde"), 2)] == [b"ab", b"cd", b"e"]


def test_counts_bytes_not_items() -> None:
    numbers = memoryview(array("H", [1, 2, 3]))
    assert [len(chunk) for chunk in chunk_bytes(numbers, 4)] == [4, 2]


def test_copies_nothing() -> None:
    data = bytearray(b"abcd")
    _, last = chunk_bytes(data, 2)
    data[3:4] = b"X"
    assert bytes(last) == b"cX"


@pytest.mark.parametrize("max_chunk_size", [0, -1])
def test_refuses_a_size_below_one(max_chunk_size: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"max_chunk_size .* not {max_chunk_size}"):
        chunk_bytes(b"abc", max_chunk_size)
