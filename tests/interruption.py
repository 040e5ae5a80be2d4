"""Ctrl-C at a chosen line: what a signal does to code of the packages, wherever it finds it.

A real one is delivered between any two lines, so that a test which interrupts at each of them in
turn has seen every place where a user's process can be cut off::

    for k in count(1):
        with Interruption(k) as interruption:
            session.append("b")
        if interruption.where is None:
            break  # there are no more lines
        ...  # and look whether the session goes on
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import s2frames
import s2frames_httpx
import s2frames_trio

__all__ = ["PACKAGES", "Interruption", "Lines", "Place", "sampled"]

#: A file, as its package and name, and a line of it.
Place = tuple[str, int]


def _folder(package: Any) -> str:
    return f"{Path(package.__file__).parent}/"


#: Where the packages' own code lies.
PACKAGES: Sequence[str] = tuple(map(_folder, (s2frames, s2frames_httpx, s2frames_trio)))

# The service that answers is another process in life.
_SPARED = ("/s2frames/embedded/", "/s2frames_httpx/embedded.py", "/s2frames_trio/embedded.py")


class Lines:
    """Traces the lines of the packages that run inside the block, in this thread, in order.

    Args:
        directories: where the code lies that is traced, each with a slash at its end.
        spared: parts of paths whose code is not.
    """

    def __init__(
        self, directories: Sequence[str] = PACKAGES, spared: Sequence[str] = _SPARED
    ) -> None:
        self._directories = tuple(directories)
        self._spared = tuple(spared)
        self._is_traced: dict[str, bool] = {}
        self._outer: Any = None
        #: What was run, in order.
        self.places: list[Place] = []

    def __enter__(self) -> Lines:
        self._outer = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        sys.settrace(self._outer)
        return None

    def _trace(self, frame: FrameType, _event: str, _argument: object) -> Any:
        path = frame.f_code.co_filename
        if path not in self._is_traced:
            is_ours = path.startswith(self._directories)
            self._is_traced[path] = is_ours and not any(part in path for part in self._spared)
        return self._trace_lines if self._is_traced[path] else None

    def _trace_lines(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            path = Path(frame.f_code.co_filename)
            self._reach((f"{path.parent.name}/{path.name}", frame.f_lineno))
        return self._trace_lines

    def _reach(self, place: Place) -> None:
        self.places.append(place)


class Interruption(Lines):
    """Raises `KeyboardInterrupt` at the `k`-th line, counted from 1, and swallows it at the end.

    It is swallowed only where it comes out of the block as it was raised: what the code made of it,
    or raised instead, goes on out. Nothing is traced any more once it was raised.
    """

    def __init__(
        self,
        k: int,
        directories: Sequence[str] = PACKAGES,
        spared: Sequence[str] = _SPARED,
    ) -> None:
        super().__init__(directories, spared)
        self._k = k
        self._num_lines = 0
        self._raised: KeyboardInterrupt | None = None
        #: Where it was raised, as "package/file:line"; None as long as it was not.
        self.where: str | None = None
        #: Whether it came out of the block.
        self.came_out = False

    def __enter__(self) -> Interruption:
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        super().__exit__(kind, error, traceback)
        self.came_out = error is not None and error is self._raised
        return self.came_out

    def _reach(self, place: Place) -> None:
        self._num_lines += 1
        if self._num_lines == self._k:
            self.where = f"{place[0]}:{place[1]}"
            sys.settrace(self._outer)
            self._raised = KeyboardInterrupt()
            raise self._raised


def sampled(places: Sequence[Place], first: int = 0, repeats: int = 1) -> Iterator[int]:
    """The numbers of lines to interrupt at, from the `places` of an uninterrupted run.

    All of the `first` ones; and of every line of code its `repeats` first runs, and its last one.
    """
    seen: Counter[Place] = Counter()
    last = {place: k for k, place in enumerate(places, 1)}
    for k, place in enumerate(places, 1):
        seen[place] += 1
        if k <= first or seen[place] <= repeats or last[place] == k:
            yield k
