from __future__ import annotations

import re
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cli.shell import PATIENCE, error_of, opened_stream, process, python, run
from s2frames.settings import Endpoints
from s2frames_httpx import Client

READY = re.compile(
    r"serving at (http://127\.0\.0\.1:[0-9]+): "
    r"export S2_ACCOUNT_ENDPOINT=\1 S2_BASIN_ENDPOINT=\1\n"
)


@contextmanager
def served(*args: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that serves on a free port, and its URL."""
    with process("serve", "--port", "0", *args) as running:
        assert running.stdout is not None
        ready = READY.fullmatch(running.stdout.readline().decode())
        assert ready is not None
        yield running, ready[1]


def end(running: subprocess.Popen[bytes], number: int) -> None:
    running.send_signal(number)
    output, errors = running.communicate(timeout=PATIENCE)
    assert (running.returncode, output, errors) == (0, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal(number: int) -> None:
    with served() as (running, url):
        for http2 in (False, True):
            with httpx.Client(http1=not http2, http2=http2) as client:
                assert client.get(f"{url}/health").status_code == 200
        end(running, number)


def test_a_follower_does_not_keep_it_from_ending() -> None:
    with served() as (running, url), opened_stream(url) as stream:
        stream.append_session()
        headers = stream.target.headers(content_type="s2s/proto", accept="s2s/proto")
        with httpx.stream("GET", f"{stream.target.records_url}?seq_num=0", headers=headers) as r:
            pieces = r.iter_raw()
            assert next(pieces)
            end(running, signal.SIGINT)
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)


def test_what_was_acked_survives_a_kill(tmp_path: Path) -> None:
    data = str(tmp_path / "data.s2")
    with served("--data", data) as (running, url), opened_stream(url) as stream:
        with stream.append_session() as session:
            session.append_many(b"message %d" % n for n in range(100))
        running.kill()
        running.wait(PATIENCE)
    with served("--data", data) as (running, url):
        with Client.from_env({}, endpoints=Endpoints.at(url)) as client:
            stream = client.stream("test-basin", "room/1")
            found = list(stream.read_session(start=0))
            with stream.append_session() as session:
                assert session.append(b"more").start == 100
        assert found == [b"message %d" % n for n in range(100)]
        end(running, signal.SIGTERM)


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port))
    assert (result.exit_code, result.stdout) == (1, "")
    said = error_of(result)
    assert said.startswith(f"port {port}: ")
    assert "in use" in said
    assert "--port" in said


def test_data_in_use_is_one_line(tmp_path: Path) -> None:
    data = str(tmp_path / "data.s2")
    with served("--data", data):
        result = run("serve", "--port", "0", "--data", data)
    assert (result.exit_code, error_of(result)) == (1, f"{data}: another process is using it")


def test_data_that_is_something_else_is_one_line(tmp_path: Path) -> None:
    data = tmp_path / "letter"
    data.write_text("Dear Sir or Madam, " * 100)
    result = run("serve", "--port", "0", "--data", str(data))
    assert result.exit_code == 1
    assert error_of(result) == f"{data}: this is no file of the embedded service"
    assert data.read_text().startswith("Dear")


@pytest.mark.parametrize(
    "args", [("--port", "65536"), ("--port", "-1"), ("--port", "x"), ("more",), ("--data", "/")]
)
def test_wrong_usage(args: tuple[str, ...]) -> None:
    result = run("serve", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert error_of(result).endswith("--help)")


def test_a_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['hypercorn'] = None; import s2frames.cli; s2frames.cli.main()"
    with python("-c", code, "serve", "--port", "0") as running:
        output, errors = running.communicate(timeout=PATIENCE)
    assert (running.returncode, output) == (1, b"")
    assert errors.endswith(b"needs an extra: pip install 's2frames[serve]'\n")
    assert errors.count(b"\n") == 1


def test_output_that_nobody_reads_ends_it() -> None:
    with process("serve", "--port", "0", stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        assert (running.stderr.read(), running.wait(PATIENCE)) == (b"", 0)


def test_it_explains_itself() -> None:
    result = run("serve", "-h")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Usage: s2frames serve " in result.stdout


def test_a_store_that_fails_is_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data.s2"
    with served("--data", str(data)) as (running, url), opened_stream(url) as stream:
        resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (0, 0))
        with pytest.raises(httpx.HTTPError):
            httpx.post(
                stream.target.records_url,
                headers=stream.target.headers(
                    content_type="application/json", accept="application/json"
                ),
                json={"records": [{"body": "x"}]},
            ).raise_for_status()
        _, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 1
    assert errors.startswith(f"error: {data}: ".encode())
    assert errors.count(b"\n") == 1
