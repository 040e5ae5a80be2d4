from __future__ import annotations

from itertools import count

import pytest
from attrs import define, field

from interruption import Interruption
from s2frames.errors import TransportError
from s2frames.mending import Mendable, whole


@define
class Counter(Mendable):
    """Counts in two places, which are to be the same."""

    first: int = 0
    second: int = 0
    told: list[int] = field(factory=list)

    @whole
    def count(self, step: int = 1) -> int:
        """Count on."""
        self.first += step
        self.second += step
        return self.first

    @whole
    def fail(self) -> None:
        raise TransportError("lost")

    @whole
    def break_down(self) -> None:
        raise KeyError

    def _mend(self) -> None:
        self.second = self.first
        self.told.append(self.first)
        self._is_cut_off = False


def test_a_call_that_comes_to_its_end_needs_no_mending() -> None:
    counter = Counter()
    assert [counter.count(), counter.count(step=2)] == [1, 3]
    with pytest.raises(TransportError, match=r"^lost$"):
        counter.fail()
    counter.count()
    assert counter.told == []


def test_a_call_that_breaks_down_is_mended() -> None:
    counter = Counter()
    with pytest.raises(KeyError):
        counter.break_down()
    counter.count()
    assert counter.told == [0]


def test_a_call_that_is_cut_off_anywhere_is_mended_by_the_next_one() -> None:
    outcomes = set()
    for k in count(1):
        counter = Counter()
        with Interruption(k, [__file__, *_MENDING]) as interruption:
            counter.count()
        if interruption.where is None:
            break
        counted = counter.first
        assert counter.count() == counter.second == counted + 1, interruption.where
        outcomes.add((counted, len(counter.told)))
    # Before it began, in the midst of it, and when it was done.
    assert outcomes >= {(0, 0), (0, 1), (1, 1)}


_MENDING = [whole.__code__.co_filename]
