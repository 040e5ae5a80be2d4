"""A clock that jumps, and what is to happen when."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from attrs import define, field

from simulation.trace import Trace

__all__ = ["Hang", "World"]

#: When a world begins, in seconds since the Unix epoch.
EPOCH = 1_000_000.0

# Ten times as many steps as the longest run takes.
_MAX_STEPS = 300_000


class Hang(AssertionError):
    """Somebody waits for what will not come, or works without getting anywhere."""


def _nothing() -> None:
    """No check."""


@define(eq=False)
class World:
    """Time, chance and order. All that is random in a run comes from `random`."""

    random: Random
    trace: Trace = field(factory=Trace)
    now: float = EPOCH
    #: Called after every step: raises when something is not as it must be.
    check: Callable[[], None] = _nothing
    steps: int = 0
    _queue: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _scheduled: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the world began."""
        return self.now - EPOCH

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Call `do` at `when`, or now if that is over; calls of one time keep their order."""
        self._scheduled += 1
        heappush(self._queue, (max(when, self.now), self._scheduled, do))

    def after(self, delay: float, do: Callable[[], None]) -> None:
        """Call `do` in `delay` seconds."""
        self.at(self.now + delay, do)

    def note(self, who: str, what: str, detail: object = "") -> None:
        """Add to the trace."""
        self.trace.note(self.elapsed, who, what, detail)

    def step(self) -> bool:
        """Let the next thing happen; False when nothing is left to happen."""
        if not self._queue:
            return False
        self.now, _, do = heappop(self._queue)
        self.steps += 1
        do()
        self.check()
        return True

    def run(self, is_done: Callable[[], bool], lifetime: float) -> None:
        """Let things happen until `is_done`, `lifetime` seconds after the beginning at most."""
        while not is_done():
            if not self.step():
                raise Hang("nobody waits for anything, and not everything is done")
            if self.steps > _MAX_STEPS:
                raise Hang(f"not everything is done after {self.steps} steps")
            if self.elapsed > lifetime:
                raise Hang(f"not everything is done after {lifetime:g} s")

    def pass_time(self, seconds: float) -> None:
        """Let everything happen that is due within `seconds`."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.step()
        self.now = end
