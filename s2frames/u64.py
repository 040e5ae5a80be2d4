"""Unsigned 64-bit numbers as header values: eight bytes, big-endian."""

from __future__ import annotations

from struct import Struct
from typing import TypeGuard

from s2frames.brief import brief
from s2frames.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["U64_MAX", "decode_u64", "encode_u64", "is_u64"]

U64_MAX = 2**64 - 1

_U64 = Struct(">Q")


def is_u64(value: object, low: int = 0, high: int = U64_MAX) -> TypeGuard[int]:
    """Whether `value` is a whole number from `low` to `high`; True and False are none.

    The rule for every number that is an argument, a field or a peer's.
    """
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def encode_u64(value: int) -> bytes:
    """`value` (0 to 2**64 - 1) as eight bytes, big-endian.

    Raises `LocalProtocolError` for anything else.
    """
    if not is_u64(value):
        raise LocalProtocolError(f"a u64 is an int from 0 to {U64_MAX}, not {brief(value)}")
    return _U64.pack(value)


def decode_u64(data: bytes | bytearray | memoryview) -> int:
    """The number in exactly eight big-endian bytes.

    Raises `RemoteProtocolError` for any other length, `LocalProtocolError` for what is no bytes.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise LocalProtocolError(
            f"a u64 is read from bytes, bytearray or memoryview, not {type(data).__name__}"
        )
    encoded = bytes(data)
    if len(encoded) != 8:
        raise RemoteProtocolError(f"a u64 takes 8 bytes, not {len(encoded)}")
    value: int = _U64.unpack(encoded)[0]
    return value
