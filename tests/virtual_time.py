"""Time that passes only when nothing else is left to do: for tests with time-outs, not sockets.

Whoever waits for a time-out gets it at once, but not before all that can be done has been done,
however slow the machine is. No wait is shortened against another one.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import trio.testing

__all__ = ["VirtualTimeLoop", "clock_options"]

# Seconds. A wait ends a little after its time, never before it by a rounding error: doubles are
# more exact than this for the first 48 days (2**22 s).
_LATE = 2.0**-30


class _Jumping(selectors.SelectSelector):
    """Puts its clock forward by what it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise AssertionError("all tasks wait for ever")
        self.now += timeout + _LATE
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """asyncio's part of it; trio has a clock for it."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def clock_options(backend: str) -> dict[str, Any]:
    """What makes `anyio.run` run that backend in virtual time, as its `backend_options`."""
    if backend == "asyncio":
        return {"loop_factory": VirtualTimeLoop}
    return {"clock": trio.testing.MockClock(autojump_threshold=0)}
