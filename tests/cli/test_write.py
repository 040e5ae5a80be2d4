from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.shell import ADDRESS, BASIN, PATIENCE, at, error_of, process, run
from live_service import canned_service, refused_url
from s2frames.cli.options import Connection
from s2frames.embedded import MemoryStore, Service
from s2frames.embedded.store import StreamKey, StreamState
from s2frames.framing import DEFAULT_MAX_FRAME_BYTES
from s2frames.records import SequencedRecord
from s2frames_httpx import Client, EmbeddedTransport, Stream
from s2frames_httpx.embedded import EMBEDDED_SETTINGS


def contents(stream: Stream) -> list[bytes]:
    return list(stream.read_session())


def json_lines(text: str | bytes) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_each_file_is_a_message(url: str, stream: Stream, tmp_path: Path) -> None:
    large = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(b"a\nb\n")
    (tmp_path / "b").write_bytes(large)
    names = [str(tmp_path / name) for name in "ab"]
    result = run("write", ADDRESS, *names, env=at(url))
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "2 messages, 3000004 bytes durable\n"
    assert contents(stream) == [b"a\nb\n", large]


@pytest.mark.parametrize("files", [(), ("-",)])
def test_standard_input_is_a_message(url: str, stream: Stream, files: tuple[str, ...]) -> None:
    result = run("write", ADDRESS, *files, "--endpoint", url, stdin=b"one\ntwo\n")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "1 message, 8 bytes durable\n"
    assert contents(stream) == [b"one\ntwo\n"]


def test_each_line_is_a_message(url: str, stream: Stream) -> None:
    result = run("write", ADDRESS, "--lines", env=at(url), stdin=b"one\n\ntwo\n\nthree")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "3 messages, 11 bytes durable; 2 empty lines skipped\n"
    assert contents(stream) == [b"one", b"two", b"three"]


def test_many_lines_go_through_in_order(url: str, stream: Stream) -> None:
    lines = [b"%d" % i * (1 + i % 50) for i in range(20_000)]
    result = run("write", ADDRESS, "--lines", env=at(url), stdin=b"\n".join(lines))
    assert result.exit_code == 0
    assert contents(stream) == lines


def test_json_tells_of_each_message(url: str, stream: Stream) -> None:
    result = run("write", ADDRESS, "--lines", "--json", env=at(url), stdin=b"one\ntwo\n\n3")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        '{"start":0,"end":1,"bytes":3}',
        '{"start":1,"end":2,"bytes":3}',
        '{"start":2,"end":3,"bytes":1}',
    ]
    assert result.stderr == "1 empty line skipped\n"
    large = b"x" * 2_500_000
    result = run("write", ADDRESS, "--json", env=at(url), stdin=large)
    assert json_lines(result.stdout) == [{"start": 3, "end": 6, "bytes": len(large)}]
    assert result.stderr == ""
    assert [f.end - f.start for f in stream.read_session(start=3).frames()] == [3]


def test_no_lines_are_no_messages(url: str, stream: Stream) -> None:
    result = run("write", ADDRESS, "--lines", env=at(url))
    assert (result.exit_code, result.stderr) == (0, "0 messages, 0 bytes durable\n")
    assert contents(stream) == []


def test_names_of_streams_may_be_odd(url: str, stream: Stream) -> None:
    address = f"s2://{BASIN}/chat 42/größer?x=%2F#☕"
    assert run("demo", address, "--messages", "1", env=at(url)).exit_code == 0
    assert run("write", address, env=at(url), stdin=b"hello").exit_code == 0
    assert run("read", address, "--start", "6", env=at(url)).stdout == "hello\n"
    assert contents(stream) == []


# What cannot be sent


def test_a_bad_file_stops_everything_before_it_starts(
    url: str, stream: Stream, tmp_path: Path
) -> None:
    (tmp_path / "good").write_bytes(b"good")
    result = run("write", ADDRESS, str(tmp_path / "good"), str(tmp_path / "bad"), env=at(url))
    assert (result.exit_code, result.stdout) == (1, "")
    said = f"{tmp_path}/bad: No such file or directory; 0 messages durable"
    assert error_of(result) == said
    assert contents(stream) == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("directory", "Is a directory"),
        ("empty", "it is empty, and a message has at least 1 byte"),
        ("large", f"and a message has at most {DEFAULT_MAX_FRAME_BYTES} bytes"),
    ],
)
def test_a_file_that_cannot_be_a_message_is_told_why(
    url: str, stream: Stream, tmp_path: Path, kind: str, said: str
) -> None:
    path = tmp_path / kind
    if kind == "directory":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 0 if kind == "empty" else DEFAULT_MAX_FRAME_BYTES + 1)
    result = run("write", ADDRESS, str(path), env=at(url))
    assert result.exit_code == 1
    assert error_of(result).startswith(f"{path}: ")
    assert said in error_of(result)
    assert contents(stream) == []


def test_what_went_before_a_bad_file_is_durable(url: str, stream: Stream, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"good")
    files = [str(tmp_path / "good"), "-", str(tmp_path / "good")]
    result = run("write", ADDRESS, *files, "--json", env=at(url), stdin=b"")
    assert result.exit_code == 1
    assert error_of(result).startswith("standard input: it is empty")
    assert error_of(result).endswith("; 1 message durable")
    assert json_lines(result.stdout) == [{"start": 0, "end": 1, "bytes": 4}]
    assert contents(stream) == [b"good"]


def test_the_lines_before_a_bad_file_are_durable(url: str, stream: Stream, tmp_path: Path) -> None:
    files = ["-", str(tmp_path / "missing")]
    result = run("write", ADDRESS, "--lines", *files, env=at(url), stdin=b"1\n2\n3")
    assert result.exit_code == 1
    assert error_of(result) == f"{tmp_path}/missing: No such file or directory; 3 messages durable"
    assert contents(stream) == [b"1", b"2", b"3"]


# What the service says


def test_a_stream_that_is_missing(url: str, stream: Stream) -> None:
    result = run("write", f"s2://{BASIN}/other", env=at(url), stdin=b"x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert error_of(result).startswith(f"s2://{BASIN}/other: ")
    assert "; 0 messages durable; create the stream, or check its name" in error_of(result)
    assert contents(stream) == []


def test_a_basin_that_is_missing(url: str) -> None:
    result = run("write", ADDRESS, env=at(url), stdin=b"x")
    assert result.exit_code == 1
    assert "create the basin, or check its name and S2_BASIN_ENDPOINT" in error_of(result)


def test_a_port_that_nobody_listens_on() -> None:
    with refused_url() as url:
        result = run("write", ADDRESS, "--lines", env=at(url), stdin=b"x")
    assert result.exit_code == 1
    assert url in error_of(result)
    assert "is the service running there? S2_ACCOUNT_ENDPOINT" in error_of(result)


def test_a_token_that_is_refused() -> None:
    body = b'{"code":"authn","message":"invalid token made-up-token"}'
    with canned_service(401, body) as url:
        env = {**at(url), "S2_ACCESS_TOKEN": "made-up-token"}
        result = run("write", ADDRESS, env=env, stdin=b"x")
    assert result.exit_code == 1
    assert "set S2_ACCESS_TOKEN to a valid access token" in error_of(result)
    assert "made-up-token" not in result.output


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {"content-type": "text/html"}, b"<html>"),
        (200, {"content-type": "s2s/proto"}, b"\x00\x00\x00garbage"),
        (200, {"content-type": "s2s/proto"}, b"\x00\x00\x04\x00\xff\xff\xff"),
        (404, {"content-type": "text/html"}, b"<html>\n<h1>\x1b[31mNot Found"),
        (301, {"location": "https://example.com/"}, b""),
    ],
)
def test_what_is_no_s2(status: int, headers: dict[str, str], body: bytes) -> None:
    with canned_service(status, body, headers) as url:
        result = run("write", ADDRESS, env=at(url), stdin=b"x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is that an S2 endpoint?" in error_of(result)


# Live


def test_a_slow_producers_lines_are_sent_as_they_come(url: str, stream: Stream) -> None:
    with process("write", ADDRESS, "--lines", "--json", env=at(url)) as writing:
        assert writing.stdin is not None
        assert writing.stdout is not None
        for number in range(5):
            writing.stdin.write(b"line %d\nhalf of " % number)
            writing.stdin.flush()
            # Comes only when the line is durable, and the writer is still there.
            told = json.loads(writing.stdout.readline())
            assert (told["start"], told["end"]) == (number, number + 1)
            assert contents(stream)[number].endswith(b"line %d" % number)
        output, errors = writing.communicate(timeout=PATIENCE)
    assert (writing.returncode, errors) == (0, b"")
    assert json.loads(output) == {"start": 5, "end": 6, "bytes": len("half of ")}


def test_ctrl_c_says_what_is_durable(url: str, stream: Stream) -> None:
    with process("write", ADDRESS, "--lines", "--json", env=at(url)) as writing:
        assert writing.stdin is not None
        assert writing.stdout is not None
        writing.stdin.write(b"one\ntwo\nhalf of a line")
        writing.stdin.flush()
        told = [json.loads(writing.stdout.readline()) for _ in range(2)]
        writing.send_signal(signal.SIGINT)
        # Its standard input stays open: the interruption must not wait for it.
        assert writing.wait(PATIENCE) == 130
        output, errors = writing.communicate(timeout=PATIENCE)
    assert [line["bytes"] for line in told] == [3, 3]
    assert (output, errors) == (b"", b"interrupted: 2 messages known to be durable\n")
    assert contents(stream) == [b"one", b"two"]


class InterruptingStore(MemoryStore):
    """Plays Ctrl-C in the middle of an append."""

    def append(
        self, key: StreamKey, records: Sequence[SequencedRecord], state: StreamState
    ) -> None:
        """Interrupt every append but the first."""
        if self.state(key).tail.seq_num:
            raise KeyboardInterrupt
        super().append(key, records, state)


def test_ctrl_c_in_an_append_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service = Service(InterruptingStore(), random=lambda: 0.5)
    with Client(EMBEDDED_SETTINGS, transport=EmbeddedTransport(service)) as client:
        client.create_basin(BASIN)
        client.stream(BASIN, "room/1").create()
        monkeypatch.setattr(Connection, "client", lambda _self: client)
        large = tmp_path / "large"
        large.write_bytes(bytes(1_000_000))
        result = run("write", ADDRESS, str(large), str(large))
    assert (result.exit_code, result.stdout) == (130, "")
    # Both were sent in one request, and its answer was never read.
    assert result.stderr == "interrupted: 0 messages known to be durable\n"


def test_a_report_that_nobody_reads_ends_the_writing(url: str, stream: Stream) -> None:
    with process("write", ADDRESS, "--lines", "--json", env=at(url)) as writing:
        assert writing.stdin is not None
        assert writing.stdout is not None
        writing.stdout.close()
        writing.stdin.write(b"one\n")
        writing.stdin.flush()
        assert writing.wait(PATIENCE) == 1
        assert writing.stderr is not None
        errors = writing.stderr.read()
    assert errors == b"error: standard output: Broken pipe; 1 message known to be durable\n"
    assert contents(stream) == [b"one"]


def test_a_report_that_cannot_be_written_ends_the_writing(url: str, stream: Stream) -> None:
    with (
        open("/dev/full", "wb") as full,
        process("write", ADDRESS, "--json", env=at(url), stdout=full) as writing,
    ):
        _, errors = writing.communicate(b"one", timeout=PATIENCE)
    assert writing.returncode == 1
    assert errors.startswith(b"error: standard output: No space left on device; ")
    assert errors.endswith(b"1 message known to be durable\n")
    assert contents(stream) == [b"one"]


def test_a_stream_that_goes_away(url: str, stream: Stream) -> None:
    with process("write", ADDRESS, "--lines", "--json", env=at(url)) as writing:
        assert writing.stdin is not None
        assert writing.stdout is not None
        writing.stdin.write(b"one\n")
        writing.stdin.flush()
        assert json.loads(writing.stdout.readline())["start"] == 0
        stream.delete()
        output, errors = writing.communicate(b"two\nthree\n", timeout=PATIENCE)
    assert (writing.returncode, output) == (1, b"")
    assert errors.startswith(f"error: {ADDRESS}: ".encode())
    assert b"; 1 message durable; create the stream" in errors
