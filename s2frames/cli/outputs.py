"""Where `read` puts payloads: standard output, or a file each."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Protocol

from s2frames.cli.failures import Failure

__all__ = ["Directory", "Output", "Stdout"]

# Digits of 2**64 - 1: with all of them, names sort as the numbers do.
_NAME_DIGITS = 20


class Output(Protocol):
    """Takes payloads, in order."""

    def put(self, start: int, payload: bytes) -> None:
        """Take the message that starts at sequence number `start`."""


class Stdout:
    """Payloads on standard output, a newline after each.

    `is_live` sends each on at once; else they are gathered.
    """

    def __init__(self, *, is_live: bool) -> None:
        if sys.stdout is None:
            raise Failure("standard output is closed")
        self._stream = sys.stdout.buffer
        self._is_live = is_live or self._stream.isatty()

    def put(self, _start: int, payload: bytes) -> None:
        """See `Output.put`."""
        self._stream.write(payload)
        self._stream.write(b"\n")
        if self._is_live:
            self._stream.flush()


class Directory:
    """A file a message, named by its sequence number, and never half of one.

    The directory is made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path

    def put(self, start: int, payload: bytes) -> None:
        """See `Output.put`. Raises `Failure` when there is a file of that name."""
        name = f"{start:0{_NAME_DIGITS}}"
        target = self._path / name
        if os.path.lexists(target):
            raise Failure(f"{target}: it exists already; move it away, or use another directory")
        partial = self._path / f".{name}.{os.getpid()}.partial"
        try:
            partial.write_bytes(payload)
            partial.rename(target)
        except OSError as error:
            raise Failure(f"{target}: {error.strerror or error}") from error
        finally:
            partial.unlink(missing_ok=True)
