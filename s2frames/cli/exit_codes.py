"""How a command ends."""

from __future__ import annotations

import enum

__all__ = ["ExitCode"]


class ExitCode(enum.IntEnum):
    """What a command tells the shell."""

    DONE = 0
    #: The service or the data said no.
    FAILED = 1
    #: Wrong usage.
    USAGE = 2
    #: Ctrl-C. What shells give a command that it ended: 128 and the number of SIGINT.
    INTERRUPTED = 130
