"""The process that the code runs in, known without a system call for each message."""

from __future__ import annotations

import os

from s2frames.home import Process

__all__ = ["THIS_PROCESS"]

THIS_PROCESS = Process(os.getpid())


def _note_fork() -> None:
    THIS_PROCESS.number = os.getpid()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
