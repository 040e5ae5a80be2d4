"""A real server for the tests: `s2 lite`, in memory, on a port of its own."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

__all__ = ["BINARY_VARIABLE", "MISSING", "find_binary", "s2_lite"]

#: Where the binary `s2` is, if it is not on PATH.
BINARY_VARIABLE = "S2_BINARY"

#: Why tests are skipped where there is none.
MISSING = (
    f"no binary `s2` on PATH or in {BINARY_VARIABLE}; get it by: cargo install --locked s2-cli"
)

# So often, and with so many seconds in between, a server that starts is asked whether it is ready.
_ATTEMPTS = 600
_PAUSE = 0.05


def find_binary() -> str | None:
    """The binary `s2`, if there is one."""
    return os.environ.get(BINARY_VARIABLE) or shutil.which("s2")


@contextmanager
def s2_lite(*arguments: str) -> Iterator[str]:
    """Run a server with these arguments; gives its URL, of https if they ask for TLS."""
    binary = find_binary()
    assert binary is not None, MISSING
    port = _free_port()
    process = subprocess.Popen(
        [binary, "lite", "--port", str(port), *arguments],
        env={**os.environ, "RUST_LOG": "error"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            speaks_tls = any(argument.startswith("--tls-") for argument in arguments)
            url = f"{'https' if speaks_tls else 'http'}://127.0.0.1:{port}"
            _wait_until_ready(process, url)
            yield url
        finally:
            # It keeps nothing, so that there is nothing to end in order.
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    for _ in range(_ATTEMPTS):
        if _is_ready(url):
            return
        try:
            status = process.wait(_PAUSE)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"s2 lite ended with status {status}")
    raise AssertionError("s2 lite did not become ready")


def _is_ready(url: str) -> bool:
    parts = httpx.URL(url)
    try:
        if parts.scheme == "https":
            # Whether to trust the certificate is for the tests to say; that there is one will do.
            return bool(ssl.get_server_certificate((parts.host, parts.port or 443)))
        return httpx.get(f"{url}/health").status_code == 200
    except (OSError, httpx.TransportError):
        # It does not listen yet.
        return False
