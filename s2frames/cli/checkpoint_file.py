"""The file in which `read` keeps where it stopped."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from s2frames.checkpoint import Checkpoint
from s2frames.cli.failures import Failure
from s2frames.errors import LocalProtocolError

__all__ = ["CheckpointFile"]


@frozen
class CheckpointFile:
    """A checkpoint as JSON text, never half of one."""

    path: Path

    def load(self) -> Checkpoint | None:
        """The checkpoint in the file, or None when there is no file.

        Raises `Failure` when it holds something else, or when it could not be written later.
        """
        if not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise Failure(f"{self.path}: its directory is missing, or nobody may write there")
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure(error) from error
        try:
            return Checkpoint.from_json(text)
        except LocalProtocolError as error:
            raise Failure(f"{self.path}: {error}") from error

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace what the file holds, in one step. Raises `Failure`."""
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(f"{checkpoint.to_json()}\n")
                file.flush()
                # Else a power cut might leave an empty file in its place.
                os.fsync(file.fileno())
            partial.replace(self.path)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            partial.unlink(missing_ok=True)

    def _failure(self, error: OSError) -> Failure:
        return Failure(f"{self.path}: {error.strerror or error}")
