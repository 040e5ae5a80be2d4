"""What a piece of work costs, in steps and bytes: the same on every machine."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

from attrs import frozen

__all__ = ["Cost", "TooMuchWork", "measured"]


class TooMuchWork(BaseException):
    """The limit was passed. No code that catches exceptions catches this one."""


@frozen
class Cost:
    """What something took."""

    #: Calls of functions, and generators taken up again.
    steps: int
    #: The most memory held at once, beyond what was held before. Python's own: what zstandard
    #: allocates by itself is not seen.
    peak_bytes: int


def measured(work: Callable[[], object], max_steps: int) -> Cost:
    """Do `work` in this thread. Raises `TooMuchWork` after `max_steps`, so that no loop is endless.

    Tracing of memory must be on.
    """
    steps = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal steps
        if event in ("call", "c_call"):
            steps += 1
            if steps > max_steps:
                sys.setprofile(None)
                raise TooMuchWork(f"more than {max_steps} steps")

    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    _, peak = tracemalloc.get_traced_memory()
    return Cost(steps, peak - before)
