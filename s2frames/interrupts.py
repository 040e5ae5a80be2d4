"""Ctrl-C that finds one of several tasks: to the user it is a plain `KeyboardInterrupt`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["plain_interrupts"]


@contextmanager
def plain_interrupts() -> Iterator[None]:
    """Around a group of tasks: what that makes a group of comes out as it was raised."""
    try:
        yield
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from group
