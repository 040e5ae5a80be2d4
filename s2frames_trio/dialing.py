"""When another connection to an origin is made: decisions without I/O, clock or chance.

- As many dials are under way as those who wait need, by what a connection is expected to take.
- A dial that fails, and a connection that ends before it carried a stream, have come to nothing.
  From then on one is made at a time, whoever waits, and after a pause, which is twice as long after
  each further one; until a new connection carries a stream, or all who waited were told why there
  is none: they pause by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from attrs import define, field

__all__ = ["MAX_PAUSE", "MIN_PAUSE", "Dialing"]

#: Seconds before a dial after one that came to nothing, and at most, after several; up to as much
#: again is added by chance. The first is a session's own, the last lets a peer that takes no stream
#: be dialed a handful of times in the 8 s in which a stream must come.
MIN_PAUSE = 0.1
MAX_PAUSE = 3.2

# Doublings from the first pause to the last one.
_MAX_DOUBLINGS = 5

# Streams that a connection is expected to take before its peer has said so; s2.dev's number.
_EXPECTED_STREAMS = 100


@define(eq=False)
class Dialing:
    """The dials to one origin, by number: a later one has a higher number.

    Args:
        random: floats from 0 up to, not including, 1.
    """

    _random: Callable[[], float]
    #: Those that are under way.
    under_way: set[int] = field(factory=set)
    #: Before this time none is to begin.
    not_before: float = -inf
    _expected_streams: int = _EXPECTED_STREAMS
    # Connections that were made and have carried no stream yet.
    _unused: set[int] = field(factory=set)
    # How often in a row some came to nothing, of all that were begun before the first of them did.
    _num_in_vain: int = 0
    # The latest dial, and the latest one when that was last counted.
    _latest: int = 0
    _counted_through: int = 0

    def may_begin(self, now: float) -> bool:
        """Whether a dial may begin."""
        return now >= self.not_before

    def is_coming(self, after: int, num_waiting: int) -> bool:
        """Whether dials later than `after` are under way for so many streams, or no more may be."""
        coming = sum(number > after for number in self.under_way)
        is_last = self._num_in_vain > 0 and coming > 0
        return is_last or coming * self._expected_streams >= num_waiting

    def begin(self, number: int) -> None:
        """A dial begins."""
        self.under_way.add(number)
        self._latest = max(self._latest, number)

    def succeed(self, number: int, max_streams: int) -> None:
        """There is a connection, whose peer allows so many streams."""
        self.under_way.discard(number)
        self._unused.add(number)
        self._expected_streams = max(1, min(max_streams, _EXPECTED_STREAMS))

    def fail(self, number: int, now: float) -> None:
        """There is none."""
        self.under_way.discard(number)
        self._note_in_vain(number, now)

    def note_use(self, number: int) -> bool:
        """The connection carries a stream; tells whether it is its first one."""
        is_first = number in self._unused
        self._unused.discard(number)
        if is_first:
            # Only then: an old connection may go on while no new one can be made.
            self.begin_anew()
        return is_first

    def end(self, number: int, now: float) -> bool:
        """The connection is over; tells whether it was in vain."""
        is_in_vain = number in self._unused
        self._unused.discard(number)
        if is_in_vain:
            self._note_in_vain(number, now)
        return is_in_vain

    def begin_anew(self) -> None:
        """Nobody waits any more who was there when the last one came to nothing."""
        self._num_in_vain = 0
        self.not_before = -inf

    def _note_in_vain(self, number: int, now: float) -> None:
        if number <= self._counted_through:
            return
        self._counted_through = self._latest
        pause = MIN_PAUSE * 2.0 ** min(self._num_in_vain, _MAX_DOUBLINGS)
        self._num_in_vain += 1
        self.not_before = now + pause * (1 + self._random())
