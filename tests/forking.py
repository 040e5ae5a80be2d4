"""A copy of the process: what code does in it, told to the test."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

__all__ = ["at_once", "error_of", "hear", "in_copy", "may_fork"]

# Seconds. A copy that hangs is killed, and has said nothing.
_PATIENCE = 30

#: For tests that fork. Others have left threads, or run their service in one, which the copies of
#: these tests never touch.
may_fork = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def in_copy(do: Callable[[], object]) -> str:
    """What `do` gives in a copy of this process, in words; or what it raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        return hear(pid, reader, writer)
    signal.alarm(_PATIENCE)
    try:
        said = str(do())
    except BaseException as error:  # noqa: BLE001  # told to the test
        said = error_of(error)
    os.write(writer, said.encode())
    # Nothing of the test's is cleaned up here.
    os._exit(0)


def hear(pid: int, reader: int, writer: int) -> str:
    """What a copy says through a pipe until it is gone."""
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


def error_of(error: BaseException) -> str:
    """An error in words."""
    return f"{type(error).__name__}: {error}"


def at_once(waiting: Awaitable[Any]) -> Any:
    """What something gives that does not wait, without an event loop."""
    try:
        next(waiting.__await__())
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")
