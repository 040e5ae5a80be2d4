"""What was sent, what was acknowledged and what was read: nothing lost, doubled, mixed up."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from random import Random

from attrs import define, field, frozen

__all__ = ["Chain", "Figures", "Link", "Read", "compare", "parse"]

# Writer, index, the digest of the message before, the digest of this one.
_HEAD = struct.Struct(">HI32s32s")


@frozen
class Link:
    """What a message says of itself."""

    writer: int
    index: int
    previous: bytes = field(repr=False)
    digest: bytes = field(repr=False)


def _digest(writer: int, index: int, previous: bytes, body: bytes) -> bytes:
    return sha256(_HEAD.pack(writer, index, previous, b"") + body).digest()


def parse(message: bytes) -> Link:
    """What a message says; it must be as it was made, to the last byte."""
    assert len(message) >= _HEAD.size, f"a message of {len(message)} bytes"
    writer, index, previous, digest = _HEAD.unpack_from(message)
    whole = _digest(writer, index, previous, message[_HEAD.size :])
    assert digest == whole, f"message {index} of writer {writer} is damaged"
    return Link(writer, index, previous, digest)


@define(eq=False)
class Chain:
    """The messages of a writer, each of which names the one before.

    They are made anew each time they are asked for, so that none is kept.
    """

    writer: int
    _seed: int
    #: The sizes of the bodies, over and over.
    _sizes: list[int]
    #: The digests of the messages made so far.
    digests: list[bytes] = field(factory=list)
    #: The messages that are durable, by what their writer was told.
    acked: set[int] = field(factory=set)
    #: Messages that were sent, and left in doubt for good: each may land at any time, or never.
    abandoned: set[int] = field(factory=set)
    #: Where they are, start and end, as far as their writer was told that too.
    places: dict[int, tuple[int, int]] = field(factory=dict)

    def message(self, index: int) -> bytes:
        """A message; those before it were made already."""
        previous = self.digests[index - 1] if index else bytes(32)
        random = Random(f"{self._seed}/{self.writer}/{index}")
        body = random.randbytes(self._sizes[index % len(self._sizes)])
        digest = _digest(self.writer, index, previous, body)
        if index == len(self.digests):
            self.digests.append(digest)
        return _HEAD.pack(self.writer, index, previous, digest) + body


@frozen
class Read:
    """A message that was read, and where: its start and end, unless that was not told."""

    link: Link
    place: tuple[int, int] | None = None

    def agrees(self, other: Read) -> bool:
        """Whether both are the same message, and where it is, as far as both know it."""
        return self.link == other.link and (
            None in (self.place, other.place) or self.place == other.place
        )


@frozen
class Figures:
    """How a comparison came out."""

    #: Messages acknowledged.
    messages: int = 0
    #: Acknowledged and not read.
    lost: int = 0
    #: Read more than once.
    doubled: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.messages + other.messages,
            self.lost + other.lost,
            self.doubled + other.doubled,
        )


def compare(
    chains: Iterable[Chain], reads: Iterable[Read], *, is_exclusive: bool = False
) -> Figures:
    """Compare what was read of a stream with what its writers sent.

    Order and content must be right. A message that was not acknowledged may be there or not. One
    that was is where its writer was told; unless the stream is exclusive, earlier copies of its
    records may have been read.
    """
    by_writer = {chain.writer: chain for chain in chains}
    counts: Counter[tuple[int, int]] = Counter()
    last: dict[int, int] = {}
    for read in reads:
        link = read.link
        assert link.writer in by_writer, f"writer {link.writer} writes elsewhere"
        digests = by_writer[link.writer].digests
        assert link.index < len(digests), f"message {link.index} of {link.writer} was never sent"
        assert link.digest == digests[link.index], f"message {link.index} is another"
        counts[link.writer, link.index] += 1
        is_first = counts[link.writer, link.index] == 1
        if is_first and link.index not in by_writer[link.writer].abandoned:
            before = last.get(link.writer, -1)
            assert link.index > before, f"message {link.index} of {link.writer} after {before}"
            last[link.writer] = link.index
            _check_place(by_writer[link.writer], read, is_exclusive)
    acked = {(chain.writer, index) for chain in by_writer.values() for index in chain.acked}
    return Figures(
        messages=len(acked),
        lost=len(acked - counts.keys()),
        doubled=sum(count - 1 for count in counts.values()),
    )


def _check_place(chain: Chain, read: Read, is_exclusive: bool) -> None:
    told = chain.places.get(read.link.index)
    if told is None or read.place is None:
        return
    is_earlier = read.place[0] <= told[0] and read.place[1] <= told[1]
    is_right = told == read.place or (is_earlier and not is_exclusive)
    assert is_right, f"{read} is not at {told}, as its writer was told"
