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
from collections.abc import Callable, Iterator, Sequence
from linecache import getline
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import s2frames
import s2frames_httpx
import s2frames_trio

__all__ = ["PACKAGES", "SPARED", "Interruption", "Lines", "Place", "is_exit_of_scope", "sampled"]

#: A file, as its package and name, and a line of it.
Place = tuple[str, int]


def _folder(package: Any) -> str:
    return f"{Path(package.__file__).parent}/"


#: Where the packages' own code lies.
PACKAGES: Sequence[str] = tuple(map(_folder, (s2frames, s2frames_httpx, s2frames_trio)))

#: The service that answers is another process in life.
SPARED: Sequence[str] = (
    "/s2frames/embedded/",
    "/s2frames_httpx/embedded.py",
    "/s2frames_trio/embedded.py",
)


# How blocks begin that are, or have, a cancel scope.
_SCOPES = ("CancelScope(", "move_on_after(", "fail_at(", "open_nursery(")


class _Current:
    """Whose block is entered."""

    lines: Lines | None = None


_current = _Current()


# Plain functions, which live as long as the process: CPython 3.11 may call what it traces with once
# more after that was replaced.


def _trace_call(frame: FrameType, _event: str, _argument: object) -> Any:
    return None if _current.lines is None else _current.lines.take_call(frame)


def _trace_line(frame: FrameType, event: str, argument: Any) -> Any:
    if event == "exception" and argument[0] is GeneratorExit:
        # Nobody has it any more: whatever it raises now is ignored.
        return _trace_nothing
    if event == "line" and _current.lines is not None:
        _current.lines.take_line(frame)
    return _trace_line


def _trace_nothing(_frame: FrameType, _event: str, _argument: object) -> Any:
    return _trace_nothing


def _trace_spared(_frame: FrameType, event: str, _argument: object) -> Any:
    if event == "return" and _current.lines is not None:
        _current.lines.leave_spared()
    return _trace_spared


class Lines:
    """Traces the lines of the packages that run inside the block, in this thread, in order.

    Args:
        directories: where the code lies that is traced, each with a slash at its end.
        spared: parts of paths whose code is not, nor what it calls.
        only_if: whether a line counts, if not every one.
    """

    def __init__(
        self,
        directories: Sequence[str] = PACKAGES,
        spared: Sequence[str] = SPARED,
        only_if: Callable[[], bool] = lambda: True,
    ) -> None:
        self._only_if = only_if
        self._directories = tuple(directories)
        self._spared = tuple(spared)
        # What files are called, if they are traced; and how many calls of spared code run.
        self._names: dict[str, str | None] = {}
        self._num_spared = 0
        self._outer: Any = None
        #: What was run, in order.
        self.places: list[Place] = []

    def __enter__(self) -> Lines:
        self._outer = _current.lines, sys.gettrace()
        _current.lines = self
        sys.settrace(_trace_call)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._stop()
        return None

    def _stop(self) -> None:
        outer, self._outer = self._outer, None
        if outer is not None:
            _current.lines, trace = outer
            sys.settrace(trace)

    def take_call(self, frame: FrameType) -> Any:
        """A call of something: what is to be told of its lines."""
        if frame.f_code.co_name == "__del__":
            # It runs whenever the collector does, and what it raises is ignored.
            self._num_spared += 1
            return _trace_spared
        path = frame.f_code.co_filename
        if path not in self._names:
            is_ours = path.startswith(self._directories)
            self._names[path] = "/".join(Path(path).parts[-2:]) if is_ours else None
        if self._names[path] is None:
            return None
        if any(part in path for part in self._spared):
            self._num_spared += 1
            return _trace_spared
        return _trace_line

    def leave_spared(self) -> None:
        """A call of what is spared has returned, or rests."""
        self._num_spared -= 1

    def take_line(self, frame: FrameType) -> None:
        """The next line runs."""
        path = frame.f_code.co_filename
        if self._names.get(path) and not self._num_spared and self._only_if():
            self._reach((self._names[path] or "", frame.f_lineno))

    def _reach(self, place: Place) -> None:
        self.places.append(place)


class Interruption(Lines):
    """Raises `KeyboardInterrupt` at the `k`-th line, counted from 1, and swallows it at the end.

    At the exit of a cancel scope it waits for the next line.

    It is swallowed only where it comes out of the block as it was raised: what the code made of it,
    or raised instead, goes on out. Nothing is traced any more once it was raised. It may be entered
    several times: the lines are counted on.
    """

    def __init__(
        self,
        k: int,
        directories: Sequence[str] = PACKAGES,
        spared: Sequence[str] = SPARED,
        only_if: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(directories, spared, only_if)
        self._k = k
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
        is_mine = error is not None and error is self._raised
        self.came_out = self.came_out or is_mine
        return is_mine

    def _reach(self, place: Place) -> None:
        super()._reach(place)
        is_time = self.where is None and len(self.places) >= self._k
        if is_time and not is_exit_of_scope(place):
            self.where = f"{place[0]}:{place[1]}"
            self._stop()
            self._raised = KeyboardInterrupt()
            raise self._raised


def is_exit_of_scope(place: Place) -> bool:
    """Whether a line may be the exit of a cancel scope.

    CPython looks for signals at calls and at jumps back, so that none comes between a block and the
    exit of its scope; a tracer would.
    """
    name, number = place
    line = getline(str(Path(s2frames.__file__).parents[1] / name), number)
    return any(words in line for words in _SCOPES)


def sampled(
    places: Sequence[Place], first: int = 0, repeats: int = 1, *, with_last: bool = True
) -> Iterator[int]:
    """The numbers of lines to interrupt at, from the `places` of an uninterrupted run.

    All of the `first` ones; and of every line of code its `repeats` first runs, and, with
    `with_last`, its last one.
    """
    assert places, "nothing ran"
    seen: Counter[Place] = Counter()
    last = {place: k for k, place in enumerate(places, 1)}
    for k, place in enumerate(places, 1):
        seen[place] += 1
        if k <= first or seen[place] <= repeats or (with_last and last[place] == k):
            yield k
