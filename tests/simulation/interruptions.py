"""Users who are cut off: by Control-C inside a machine, or between two calls of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

from attrs import define, field

from interruption import Interruption
from simulation.invariants import Broken

__all__ = ["CutOff", "Interruptions"]

_T = TypeVar("_T")


class CutOff(Exception):  # it is no error of anybody's
    """The call was cut off; what came of it is lost."""


@define(eq=False)
class Interruptions:
    """Chooses when users are cut off."""

    random: Random
    #: How many more of them are there.
    left: int
    #: Calls between two of them, at most.
    max_pause: int
    _calls_left: int = field(init=False)
    _interruption: Interruption | None = None

    def __attrs_post_init__(self) -> None:
        self._calls_left = self.random.randint(1, self.max_pause)

    def call(self, call: Callable[[], _T]) -> _T:
        """Call a machine. Raises `CutOff` when it was cut off at some line."""
        if self._interruption is None and not self._is_time():
            return call()
        if self._interruption is None:
            # Tracing is slow: only from here up to that line, over several calls if need be.
            line = self.random.randint(1, self.random.choice((10, 50, 250)))
            self._interruption = Interruption(line)
        with self._interruption as interruption:
            result = call()
            if interruption.where is not None:
                raise Broken(f"an interruption at {interruption.where} was swallowed")
            return result
        self._interruption = None
        raise CutOff(interruption.where)

    def cuts_here(self) -> bool:
        """Whether the user is cut off between two calls."""
        return self._interruption is None and self._is_time()

    def _is_time(self) -> bool:
        if self.left <= 0:
            return False
        self._calls_left -= 1
        if self._calls_left > 0:
            return False
        self._calls_left = self.random.randint(1, self.max_pause)
        self.left -= 1
        return True
