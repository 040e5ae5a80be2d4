"""Bytes that were valid once: seeded changes, small and large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from attrs import define

from s2frames.wire import encode_varint

__all__ = ["MAX_BYTES", "Mutator", "raw_frame", "split"]

#: Nothing grows beyond this by being repeated. Larger inputs take longer and show nothing new.
MAX_BYTES = 64 * 1024

# Where numbers change their length, their sign or their meaning in some format.
_NUMBERS = sorted(
    {
        number
        for bits in (0, 3, 7, 8, 14, 15, 16, 21, 24, 28, 31, 32, 35, 53, 63, 64)
        for number in (2**bits - 1, 2**bits, 2**bits + 1)
    }
)

# The same for numbers in text, and words that JSON knows or just does not.
_WORDS = (
    *(b"%d" % number for number in _NUMBERS),
    *(b"-1", b"-0", b"1e400", b"0.5", b"9" * 5000, b"NaN", b"Infinity", b"null", b"true"),
    *(
        b'""',
        b"[]",
        b"{}",
        b"[[",
        b'{"a":',
        b'"\\ud800"',
        b'"\\u0000"',
        b"\xff\xfe",
        b"\xef\xbb\xbf",
    ),
)

_DIGITS = b"0123456789"

# Of a short input every byte may come alone.
_MAX_PIECES = 100


@define
class Mutator:
    """Changes bytes. The same `random` gives the same changes."""

    random: Random

    def maybe(self, data: bytes, chance: float = 0.5) -> bytes:
        """`data`, which is changed so often."""
        return self.mutate(data) if self.random.random() < chance else data

    def mutate(self, data: bytes, others: Sequence[bytes] = ()) -> bytes:
        """`data` after one to four changes; `others` may be spliced into it."""
        for _ in range(self.random.choice((1, 1, 1, 2, 2, 4))):
            if others and self.random.random() < 0.1:
                data = self._splice(data, self.random.choice(others))
            else:
                data = self.random.choice(_CHANGES)(self, data)
        return data

    def number(self) -> int:
        """A number that somebody may have forgotten."""
        return self.random.choice(_NUMBERS)

    def flip(self, data: bytes) -> bytes:
        """One bit."""
        if not data:
            return data
        changed = bytearray(data)
        changed[self._place(data)] ^= 1 << self.random.randrange(8)
        return bytes(changed)

    def overwrite(self, data: bytes) -> bytes:
        """Some bytes become others."""
        start, end = self._range(data, 8)
        return data[:start] + self._some_bytes(end - start) + data[end:]

    def insert(self, data: bytes) -> bytes:
        """Some bytes come in between."""
        at = self._place(data)
        return data[:at] + self._some_bytes(self.random.randint(1, 16)) + data[at:]

    def delete(self, data: bytes) -> bytes:
        """Some bytes are missing."""
        start, end = self._range(data, 64)
        return data[:start] + data[end:]

    def duplicate(self, data: bytes) -> bytes:
        """Some bytes come twice."""
        start, end = self._range(data, 256)
        return data[:end] + data[start:]

    def repeat(self, data: bytes) -> bytes:
        """Some bytes come again and again."""
        start, end = self._range(data, 64)
        room = max(0, MAX_BYTES - len(data)) // max(1, end - start)
        times = min(room, self.random.choice((2, 10, 100, 2000)))
        return data[:start] + data[start:end] * times + data[start:]

    def truncate(self, data: bytes) -> bytes:
        """The end is missing."""
        return data[: self._place(data)]

    def fixed_number(self, data: bytes) -> bytes:
        """One to eight bytes become a number, most significant byte first."""
        at, size = self._place(data), self.random.choice((1, 2, 3, 4, 8))
        encoded = (self.number() % (1 << 8 * size)).to_bytes(size, "big")
        return data[:at] + encoded + data[at + size :]

    def varint(self, data: bytes) -> bytes:
        """A number in base 128 becomes another one; a negative one takes ten bytes."""
        at = self._place(data)
        end = at
        while end < len(data) and data[end] >= 0x80:
            end += 1
        number = self.random.choice((self.number(), len(data), -1 % 2**64, 2**70))
        return data[:at] + encode_varint(number) + data[end + 1 :]

    def word(self, data: bytes) -> bytes:
        """A number in text, or what is there, becomes another word."""
        at = self._place(data)
        at = next((i for i in range(at, len(data)) if data[i] in _DIGITS), at)
        end = at
        while end < len(data) and data[end] in _DIGITS:
            end += 1
        return data[:at] + self.random.choice(_WORDS) + data[end:]

    def _splice(self, data: bytes, other: bytes) -> bytes:
        return data[: self._place(data)] + other[self._place(other) :][:MAX_BYTES]

    def _place(self, data: bytes) -> int:
        # Lengths and types stand at the beginning.
        last = min(len(data), 16) if self.random.random() < 0.3 else len(data)
        return self.random.randrange(last) if last else 0

    def _range(self, data: bytes, longest: int) -> tuple[int, int]:
        start = self._place(data)
        return start, min(len(data), start + self.random.randint(1, longest))

    def _some_bytes(self, size: int) -> bytes:
        kinds = (self.random.randbytes(size), bytes(size), b"\xff" * size, b"\x80" * size)
        return self.random.choice(kinds)


_CHANGES: tuple[Callable[[Mutator, bytes], bytes], ...] = (
    Mutator.flip,
    Mutator.overwrite,
    Mutator.insert,
    Mutator.delete,
    Mutator.duplicate,
    Mutator.repeat,
    Mutator.truncate,
    Mutator.fixed_number,
    Mutator.varint,
    Mutator.word,
)


def split(random: Random, data: bytes) -> list[bytes]:
    """`data` in pieces, as a network may deliver it."""
    longest = random.choice((1, 7, 100, 5000, max(1, len(data))))
    # A long input byte by byte takes long and shows nothing new.
    longest = max(longest, len(data) // _MAX_PIECES)
    pieces, at = [], 0
    while at < len(data):
        size = random.randint(1, longest)
        pieces.append(data[at : at + size])
        at += size
    return pieces


def raw_frame(
    kind: int, flags: int, stream_id: int, body: bytes, length: int | None = None
) -> bytes:
    """An HTTP/2 frame, right or wrong (RFC 9113, 4.1)."""
    size = len(body) if length is None else length
    header = (size % 2**24).to_bytes(3, "big") + bytes((kind & 0xFF, flags & 0xFF))
    return header + (stream_id % 2**32).to_bytes(4, "big") + body
