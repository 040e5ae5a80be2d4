"""Messages that prove themselves: each carries the hash of the one before."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count, islice
from struct import Struct
from zlib import crc32

from attrs import frozen

from s2frames.cli.failures import Failure

__all__ = ["MIN_MESSAGE_BYTES", "Chain", "ChainCheck"]

# What a message ends with: its number, and the CRC-32 of the message before.
_END = Struct(">QI")

#: The smallest message of a chain.
MIN_MESSAGE_BYTES = _END.size


@frozen
class Chain:
    """So many messages of `size` bytes, the same ones for the same seed.

    A message is the same bytes as every other one, then its number, then the hash of the whole
    message before. The hash of the same bytes is known, so a long message costs no more than a
    short one; what is read is compared byte by byte.
    """

    size: int
    num_messages: int
    seed: int

    def __iter__(self) -> Iterator[bytes]:
        # A seed makes the same bytes everywhere; nothing is secret about them.
        filler = random.Random(self.seed).randbytes(self.size - _END.size)  # noqa: S311
        filler_hash = crc32(filler)
        link = 0
        for number in islice(count(), self.num_messages):
            end = _END.pack(number, link)
            link = crc32(end, filler_hash)
            yield filler + end


class ChainCheck:
    """Compares what is read with a chain."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._expected = iter(chain)
        self._num_checked = 0

    def take(self, messages: Sequence[bytes]) -> None:
        """The next messages. Raises `Failure` for the first one that is another."""
        expected = list(islice(self._expected, len(messages)))
        if expected != messages:
            same = (ours == theirs for ours, theirs in zip(expected, messages, strict=False))
            self._fail(next((at for at, is_same in enumerate(same) if not is_same), len(expected)))
        self._num_checked += len(messages)

    def _fail(self, at: int) -> None:
        number = self._num_checked + at + 1
        raise Failure(
            f"message {number} of {self._chain.num_messages} is not what was appended; "
            "does somebody else append to the stream?"
        )

    def finish(self) -> None:
        """There are no more. Raises `Failure` when some are missing."""
        if self._num_checked < self._chain.num_messages:
            raise Failure(
                f"message {self._num_checked + 1} of {self._chain.num_messages} did not come back"
            )
