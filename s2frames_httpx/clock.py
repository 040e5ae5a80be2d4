"""The clocks that waits go by: of the event loop that runs, and of a service in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf

__all__ = ["LONGEST_WAIT", "ServiceClock", "for_system", "running_clock"]

#: Seconds of one wait of a thread at most: poll takes 2^31 - 1 ms, which is 24 days.
LONGEST_WAIT = 1e6


def for_system(seconds: float) -> float:
    """As many seconds, without an end too, as the system can wait for at a time."""
    return min(max(0.0, seconds), LONGEST_WAIT)


def running_clock() -> Callable[[], float]:
    """The clock of the loop that runs, for many looks at it: found once, each is cheap.

    It is the one that the loop's time-outs go by, as `anyio.current_time` tells it.
    """
    try:
        # A loop that only hosts trio runs no task then.
        is_asyncio = asyncio.current_task() is not None
    except RuntimeError:
        is_asyncio = False
    if is_asyncio:
        return asyncio.get_running_loop().time
    import trio

    return trio.current_time


class ServiceClock:
    """The time of a service in this process: of its timestamps, and of its waits.

    It is the system's time, and never goes back. Where that is set back, or a clock of a test runs
    ahead of it, time goes on as fast as it does for who waits.

    Args:
        waiting: the seconds that who waits goes by.
    """

    def __init__(self, waiting: Callable[[], float]) -> None:
        self._waiting = waiting
        # Of this clock, over that one.
        self._ahead = -inf
        self._last = -inf

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        waiting = self._waiting()
        self._ahead = max(self._ahead, time.time() - waiting, self._last - waiting)
        self._last = waiting + self._ahead
        return self._last
