"""`Patience`: a time-out of httpx that says how much time there is each time that it is asked."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Patience", "seconds_in"]


class Patience(float):
    """The seconds that httpx takes for one time-out of a request, whatever happens meanwhile.

    A network backend that knows better asks before each of its waits.

    Args:
        longest: the most that there may be.
        left: asked for how long there is now; None means that there is no end.
    """

    _left: Callable[[], float | None]

    def __new__(cls, longest: float, left: Callable[[], float | None]) -> Patience:
        """For who asks once, a number of seconds."""
        self = super().__new__(cls, longest)
        self._left = left
        return self

    def left(self) -> float:
        """Seconds that the next wait may take."""
        left = self._left()
        return float(self) if left is None else left


def seconds_in(timeout: float) -> float:
    """How long the next wait may take, by what httpx was given as its time-out."""
    return timeout.left() if isinstance(timeout, Patience) else timeout
