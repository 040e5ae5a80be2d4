from __future__ import annotations

import pytest
from hypothesis import given

from framing_vectors import VECTORS
from s2frames.errors import LocalProtocolError, RemoteProtocolError
from s2frames.u64 import U64_MAX, decode_u64, encode_u64
from strategies import u64s


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


@pytest.mark.parametrize("value", [-1, U64_MAX + 1, -(2**64), 1.0, "1", b"\0" * 8, None])
def test_refuses_what_is_no_u64(value: object) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        encode_u64(value)  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)
    assert str(U64_MAX) in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 4, 7, 9, 16])
def test_refuses_another_length(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"8 bytes, not {size}"):
        decode_u64(b"\0" * size)
