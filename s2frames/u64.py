"""Unsigned 64-bit numbers as header values: eight bytes, big-endian."""

from __future__ import annotations

from struct import Struct

from s2frames.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["U64_MAX", "decode_u64", "encode_u64"]

U64_MAX = 2**64 - 1

_U64 = Struct(">Q")


def encode_u64(value: int) -> bytes:
    """`value` (0 to 2**64 - 1) as eight bytes, big-endian.

    Raises `LocalProtocolError` for anything else.
    """
    if not isinstance(value, int) or not 0 <= value <= U64_MAX:
        raise LocalProtocolError(f"a u64 is an int from 0 to {U64_MAX}, not {value!r}")
    return _U64.pack(value)


def decode_u64(data: bytes | bytearray | memoryview) -> int:
    """The number in exactly eight big-endian bytes.

    Raises `RemoteProtocolError` for any other length.
    """
    encoded = bytes(data)
    if len(encoded) != 8:
        raise RemoteProtocolError(f"a u64 takes 8 bytes, not {len(encoded)}")
    value: int = _U64.unpack(encoded)[0]
    return value
