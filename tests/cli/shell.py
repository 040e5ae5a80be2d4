"""Running the command line: in this process, or as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner, Result

import s2frames
from s2frames.cli.commands import commands
from s2frames.framing import make_frame_headers
from s2frames.records import Record
from s2frames.settings import Endpoints
from s2frames.wire import AppendInput, encode_append_input
from s2frames_httpx import Client, Stream

BASIN = "test-basin"
ADDRESS = f"s2://{BASIN}/room/1"

# Seconds; a hang becomes a failure. Nothing is expected to take long.
PATIENCE = 60

# What the environment of whoever runs the tests says of S2 must not matter.
_WITHOUT_S2 = {
    "S2_ACCESS_TOKEN": None,
    "S2_ACCOUNT_ENDPOINT": None,
    "S2_BASIN_ENDPOINT": None,
}


def at(url: str) -> dict[str, str]:
    """The environment that names a service."""
    return {"S2_ACCOUNT_ENDPOINT": url, "S2_BASIN_ENDPOINT": url}


def run(*args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Result:
    """Run a command in this process."""
    result = CliRunner(env={**_WITHOUT_S2, **(env or {})}).invoke(commands, args, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def error_of(result: Result) -> str:
    """The one line on stderr of a command that failed, and wrote nothing else."""
    line, newline, rest = result.stderr.partition("\n")
    assert (newline, rest) == ("\n", ""), result.stderr
    assert line.startswith("error: "), line
    return line.removeprefix("error: ")


def process(
    *args: str, env: Mapping[str, str] | None = None, **options: Any
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Run a command as a process of its own, which is gone when the block is left."""
    return python("-m", "s2frames", *args, env=env, **options)


@contextmanager
def python(
    *args: str, env: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python with these arguments; `options` are those of `Popen`."""
    assert s2frames.__file__ is not None
    environ = {name: value for name, value in os.environ.items() if name not in _WITHOUT_S2}
    # The packages that are under test here, wherever they are.
    environ["PYTHONPATH"] = str(Path(s2frames.__file__).parent.parent)
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-W", "error", *args]
    # A process that was started in the background ignores SIGINT, and so do those it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        started = subprocess.Popen(  # Python itself
            command, env={**environ, **(env or {})}, **{**pipes, **options}
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with started:
        try:
            yield started
        finally:
            started.kill()


def append_broken_frame(url: str, stream: Stream) -> None:
    """Append a record that declares more bytes than it has."""
    append_record(url, stream, Record(b"x", make_frame_headers(2, 1)))


def append_record(url: str, stream: Stream, record: Record) -> None:
    """Append a record as it is."""
    body = encode_append_input(AppendInput([record]))
    headers = stream.target.headers(
        content_type="application/protobuf", accept="application/protobuf"
    )
    assert stream.target.records_url.startswith(url)
    httpx.post(stream.target.records_url, headers=headers, content=body).raise_for_status()


@contextmanager
def opened_stream(url: str, basin: str = BASIN, name: str = "room/1") -> Iterator[Stream]:
    """A new stream in a new basin of the service at `url`."""
    with Client.from_env({}, endpoints=Endpoints.at(url)) as client:
        client.create_basin(basin)
        stream = client.stream(basin, name)
        stream.create()
        yield stream
