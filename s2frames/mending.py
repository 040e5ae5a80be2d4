"""Calls that are cut off: a signal, a cancellation or a callback may raise between any two lines.

A machine notes that a call is under way, and that it came to its end. A call that finds the one
before cut off has the machine mended first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from s2frames.errors import S2FramesError

__all__ = ["Mendable", "whole"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Mendable(ABC):
    """A machine whose calls may be cut off."""

    #: Whether a call is under way, or was cut off.
    _is_cut_off: bool = False

    @abstractmethod
    def _mend(self) -> None:
        """Go on from what is certain, and note that nothing is cut off. May be cut off itself."""


_Self = TypeVar("_Self", bound=Mendable)


def whole(
    method: Callable[Concatenate[_Self, _P], _T],
) -> Callable[Concatenate[_Self, _P], _T]:
    """A method of which the next call finds out when it did not come to its end.

    It may end in an error of s2frames, too.
    """

    @wraps(method)
    def call(self: _Self, /, *args: _P.args, **options: _P.kwargs) -> _T:
        if self._is_cut_off:
            self._mend()
        self._is_cut_off = True
        try:
            result = method(self, *args, **options)
        except S2FramesError:
            self._is_cut_off = False
            raise
        self._is_cut_off = False
        return result

    return call
