"""One at a time: what belongs to one thread or task says so when two use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from s2frames.errors import LocalProtocolError
from s2frames.home import Home

__all__ = ["Alone"]

T = TypeVar("T")

# The one place there is.
_PLACE = 0


class Alone:
    """Something for one call at a time; the call that comes second gets an error.

    A signal may raise at any line, in a `finally` block too. So whoever must not leave the place
    taken ends twice, in blocks inside each other, as `run` does; ending again does nothing.

    Args:
        message: what the error says.
        home: the process that it is for.
    """

    def __init__(self, message: str, home: Home) -> None:
        # A dict takes and gives in one step, whatever other threads do.
        self._turns: dict[int, object] = {}
        self._message = message
        self._home = home

    def begin(self, turn: object) -> None:
        """Take the place.

        Raises `LocalProtocolError` when it is taken, and in another process than its own.
        """
        home = self._home
        # Without a call: this runs for every message.
        if home.process.number != home.number:
            home.check()
        if self._turns.setdefault(_PLACE, turn) is not turn:
            raise LocalProtocolError(self._message)

    def end(self, turn: object) -> None:
        """Give the place back, if `turn` has it."""
        if self._turns.get(_PLACE) is turn:
            del self._turns[_PLACE]

    def run(self, do: Callable[[], T]) -> T:
        """Do something in the place."""
        turn = object()
        try:
            try:
                self.begin(turn)
                return do()
            finally:
                self.end(turn)
        finally:
            self.end(turn)
