"""An `s2 lite` that keeps its data in a directory, is killed and comes back on the same port."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from attrs import define, field

from s2_lite import MISSING, find_binary

__all__ = ["KillableServer", "killable_server"]

# So often, and with so many seconds in between, a server that starts is asked whether it is ready.
_ATTEMPTS = 600
_PAUSE = 0.05


@define(eq=False)
class KillableServer:
    """A server that runs from `start` to `kill`."""

    _directory: Path
    port: int
    #: How often it was killed.
    kills: int = field(default=0, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Where it is, or will be."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; returns when it answers."""
        binary = find_binary()
        assert binary is not None, MISSING
        assert self._process is None, "the server runs already"
        self._process = subprocess.Popen(
            [binary, "lite", "--port", str(self.port), "--local-root", str(self._directory)],
            env={**os.environ, "RUST_LOG": "error"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(_ATTEMPTS):
            if self._is_ready():
                return
            try:
                status = self._process.wait(_PAUSE)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"s2 lite ended with status {status}")
        raise AssertionError("s2 lite did not become ready")

    def kill(self) -> None:
        """End it by SIGKILL, which it cannot prepare for."""
        process, self._process = self._process, None
        assert process is not None, "the server does not run"
        process.kill()
        process.wait()
        self.kills += 1

    def stop(self) -> None:
        """End it if it runs. What it stores is not needed any more."""
        if self._process is not None:
            self.kill()

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            # It does not listen yet.
            return False


@contextmanager
def killable_server(directory: Path) -> Iterator[KillableServer]:
    """A server that runs; what it stores is in the directory."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = KillableServer(directory, port)
    try:
        server.start()
        yield server
    finally:
        server.stop()
