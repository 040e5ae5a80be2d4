"""One at a time: what belongs to one thread or task says so when two use it."""

from __future__ import annotations

import threading

from s2frames.errors import LocalProtocolError

__all__ = ["Alone"]


class Alone:
    """A block for one thread or task at a time; whoever comes second gets an error.

    Args:
        message: what the error says.
    """

    def __init__(self, message: str) -> None:
        self._lock = threading.Lock()
        self._message = message

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise LocalProtocolError(self._message)

    def __exit__(self, *error: object) -> None:
        self._lock.release()
