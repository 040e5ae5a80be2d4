from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from framing_vectors import VECTORS
from s2frames.errors import LocalProtocolError, RemoteProtocolError
from s2frames.u64 import U64_MAX, decode_u64, encode_u64, is_u64
from strategies import any_json, u64s


@pytest.mark.parametrize(("number", "encoded"), VECTORS["u64"])
def test_vectors(number: str, encoded: str) -> None:
    assert encode_u64(int(number)).hex() == encoded
    assert decode_u64(bytes.fromhex(encoded)) == int(number)


@given(u64s)
def test_round_trip(number: int) -> None:
    assert decode_u64(encode_u64(number)) == number


@given(u64s, u64s)
def test_bytes_sort_as_their_numbers(one: int, other: int) -> None:
    assert (encode_u64(one) < encode_u64(other)) == (one < other)


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_decodes_every_kind_of_buffer(make: type[bytes]) -> None:
    assert decode_u64(make(b"\0\0\0\0\0\0\x01\x02")) == 258


def test_decodes_a_slice_of_a_larger_buffer() -> None:
    assert decode_u64(memoryview(b"\xff\0\0\0\0\0\0\x01\x02\xff")[1:9]) == 258


@pytest.mark.parametrize(
    "value", [-1, U64_MAX + 1, -(2**64), 1.0, "1", b"\0" * 8, None, True, False]
)
def test_refuses_what_is_no_u64(value: object) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        encode_u64(value)  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)
    assert str(U64_MAX) in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 4, 7, 9, 16])
def test_refuses_another_length(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"8 bytes, not {size}"):
        decode_u64(b"\0" * size)


@pytest.mark.parametrize("data", [8, None, "12345678", [0] * 8, range(8)])
def test_refuses_what_is_no_bytes(data: Any) -> None:
    kind = type(data).__name__
    with pytest.raises(LocalProtocolError, match=f"bytearray or memoryview, not {kind}$"):
        decode_u64(data)


@given(any_json)
def test_is_u64(value: Any) -> None:
    assert is_u64(value) is (type(value) is int and 0 <= value < 2**64)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, True), (U64_MAX, True), (-1, False), (U64_MAX + 1, False), (True, False), (1.0, False)],
)
def test_ends_of_the_range(value: object, expected: bool) -> None:
    assert is_u64(value) is expected


@pytest.mark.parametrize(
    ("value", "expected"), [(1, False), (2, True), (5, True), (6, False), (True, False)]
)
def test_a_range_of_its_own(value: object, expected: bool) -> None:
    assert is_u64(value, 2, 5) is expected


def test_a_huge_int_is_refused_without_being_written_out() -> None:
    with pytest.raises(LocalProtocolError, match="not an int that is too long to show"):
        encode_u64(10**5000)
