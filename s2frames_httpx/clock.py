"""The clock of the event loop that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["running_clock"]


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
