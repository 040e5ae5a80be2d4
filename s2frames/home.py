"""Where something lives: in the process that made it, and not in copies of it that fork makes.

A copy of a session has the same connection, and the same numbers for its messages: what both write
is mixed up, and what the second one appends passes for repeats of the first one's.
"""

from __future__ import annotations

from attrs import define

from s2frames.errors import LocalProtocolError

__all__ = ["Home", "Process"]


@define(eq=False)
class Process:
    """The process that the code runs in, as an adapter knows it."""

    #: Its number. In a copy of the process the adapter sets it to the copy's.
    number: int


class Home:
    """The process that made something; elsewhere it is refused.

    Args:
        what: what it is, as an error calls it: "an append session".
        process: the process that it is made in.
    """

    def __init__(self, what: str, process: Process) -> None:
        self._what = what
        #: The process that the code runs in, whichever that is.
        self.process = process
        #: The number of the one that this was made in.
        self.number = process.number

    @property
    def is_here(self) -> bool:
        """Whether the code runs in the process that this was made in."""
        return self.process.number == self.number

    def check(self) -> None:
        """Raise `LocalProtocolError` in any other process."""
        if self.process.number != self.number:
            raise LocalProtocolError(
                f"{self._what} belongs to the process that made it, {self.number}, and this is a "
                f"copy of that, {self.process.number}: make another one after the fork"
            )
