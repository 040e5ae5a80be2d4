"""Callbacks of the user's that a session calls between two things of its own, and what they raise.

The rule, for every adapter:

- A callback is called once with each thing that it is to be told, in order. It was told then,
  whatever it raises.
- What it raises changes nothing in the session. It comes out once and as it is, be it an
  `Exception` or not: of the call that runs, else of one that waits, else of the next one.
- Until then the callback is not called: what happens meanwhile it is told afterwards.
- What is raised instead, if something is (the error that ended the session, Ctrl-C), has a note of
  it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from s2frames.brief import brief
from s2frames.checks import check_callable

__all__ = ["Callback", "add_note_of"]

T = TypeVar("T")


class Callback(Generic[T]):
    """A callback, what it was not told yet, and what it has raised.

    Args:
        name: how it is called as an argument.
        function: the callback; None: nobody is told.
    """

    def __init__(self, name: str, function: Callable[[T], object] | None) -> None:
        if function is not None:
            check_callable(name, function)
        self._name = name
        self._function = function
        self._untold: deque[T] = deque()
        self._raised: BaseException | None = None

    @property
    def has_raised(self) -> bool:
        """Whether there is something to come out."""
        return self._raised is not None

    def take_first(self, things: deque[T]) -> None:
        """Take the first one of `things`, to be told."""
        self._untold.append(things.popleft())

    def tell(self) -> None:
        """Tell what is to be told, up to where the callback raises."""
        while self._untold and self._raised is None:
            if self._function is None:
                self._untold.clear()
                return
            num_left = len(self._untold)
            try:
                self._function(self._untold.popleft())
            except BaseException as error:
                # Cut off before the call, it was not told.
                if len(self._untold) == num_left:
                    raise
                self._raised = error

    @property
    def is_urgent(self) -> bool:
        """Whether nothing may come out instead of what was raised: it is no `Exception`."""
        return self._raised is not None and not isinstance(self._raised, Exception)

    def check(self) -> None:
        """Raise what the callback has raised, once."""
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def leave_to(self, error: BaseException) -> None:
        """`error` comes out instead: it gets a note of what the callback has raised."""
        raised, self._raised = self._raised, None
        if raised is not None:
            add_note_of(error, self._name, raised)


def add_note_of(error: BaseException, name: str, raised: BaseException) -> None:
    """Note on `error` what the callback `name` has raised and what does not come out itself."""
    error.add_note(f"{name} has raised {type(raised).__name__}: {brief(str(raised))}")
