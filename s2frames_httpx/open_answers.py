"""Answers that are open, kept where no garbage collector comes.

httpcore reads bodies in generators, and a generator that is collected before its end closes its
connection: with a lock, which the very thread may have that the collector runs in. So they are
referred to from here as long as they are open, and whoever forgets to close one leaves it to the
next call.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Generic, TypeVar

__all__ = ["OpenAnswers"]

T = TypeVar("T")


class OpenAnswers(Generic[T]):
    """What is open, by its owner. No method takes a lock or does any I/O."""

    def __init__(self) -> None:
        self._open: dict[T, weakref.ref[object]] = {}
        self._forgotten: deque[T] = deque()

    def add(self, answer: T, owner: object) -> None:
        """Keep `answer` until it is discarded, or taken after its owner has gone."""
        forgotten = self._forgotten
        self._open[answer] = weakref.ref(owner, lambda _: forgotten.append(answer))

    def discard(self, answer: T) -> None:
        """It is closed."""
        self._open.pop(answer, None)

    @property
    def has_any(self) -> bool:
        """Whether anything is open."""
        return bool(self._open)

    def take_forgotten(self) -> T | None:
        """One whose owner has gone without closing it; None if there is none."""
        return self._forgotten.popleft() if self._forgotten else None
