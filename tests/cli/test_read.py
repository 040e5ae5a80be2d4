from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from cli.shell import (
    ADDRESS,
    BASIN,
    PATIENCE,
    append_broken_frame,
    append_record,
    at,
    error_of,
    opened_stream,
    process,
    run,
)
from live_service import LiveService, canned_service, refused_url
from s2frames.checkpoint import Checkpoint
from s2frames.cli import read as read_module
from s2frames.cli.address import StreamAddress
from s2frames.cli.checkpoint_file import CheckpointFile
from s2frames.cli.failures import Failure
from s2frames.cli.outputs import Directory
from s2frames.errors import TransportError
from s2frames.inbox import ReceivedMessage
from s2frames.reader import ReaderStats
from s2frames.records import Record, trim
from s2frames_httpx import Stream


def append(stream: Stream, *messages: bytes) -> None:
    with stream.append_session() as session:
        session.append_many(messages)


def files(folder: Path) -> dict[int, bytes]:
    return {int(path.name): path.read_bytes() for path in folder.iterdir()}


def test_payloads_come_out_as_they_are(url: str, stream: Stream) -> None:
    large = os.urandom(3_000_000)
    append(stream, b"one", large, b"\x00\xff\r\n")
    result = run("read", ADDRESS, env=at(url))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout_bytes == b"one\n" + large + b"\n\x00\xff\r\n\n"


def test_an_empty_stream_is_nothing(url: str, stream: Stream) -> None:
    result = run("read", ADDRESS, "--endpoint", url)
    assert (result.exit_code, result.output) == (0, "")
    assert stream.check_tail().seq_num == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--start", "0"], "0 1 2 3 4"),
        (["--start", "3"], "3 4"),
        (["--start", "00000000000000000003"], "3 4"),
        (["--start", "5"], ""),
        (["--limit", "2"], "0 1"),
        (["--start", "1", "--limit", "2"], "1 2"),
        (["--limit", "100"], "0 1 2 3 4"),
        (["--timestamp", "0"], "0 1 2 3 4"),
        (["--timestamp", "2000"], "2 3 4"),
        (["--timestamp", "2001", "--limit", "1"], "3"),
        (["--follow", "--limit", "3"], "0 1 2"),
        (["--last", "2"], "3 4"),
        (["--last", "100"], "0 1 2 3 4"),
        (["--last", "3", "--limit", "2"], "2 3"),
        (["--last", "1", "--follow", "--limit", "1"], "4"),
    ],
)
def test_where_to_begin_and_to_end(
    url: str, stream: Stream, options: list[str], expected: str
) -> None:
    with stream.append_session() as session:
        for number in range(5):
            session.append(b"%d" % number, timestamp=number * 1000)
    result = run("read", ADDRESS, *options, env=at(url))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.split() == expected.split()


def test_messages_become_files(url: str, stream: Stream, tmp_path: Path) -> None:
    large = os.urandom(2_500_000)
    append(stream, b"one", large, b"\n")
    folder = tmp_path / "new" / "folder"
    result = run("read", ADDRESS, "--output", str(folder), env=at(url))
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"3 messages in {folder}\n"
    assert files(folder) == {0: b"one", 1: large, 4: b"\n"}
    assert {len(path.name) for path in folder.iterdir()} == {20}


def test_a_file_that_exists_ends_the_reading(url: str, stream: Stream, tmp_path: Path) -> None:
    append(stream, b"0", b"1", b"2")
    precious = tmp_path / f"{1:020}"
    precious.write_bytes(b"precious")
    result = run("read", ADDRESS, "--output", str(tmp_path), env=at(url))
    assert result.exit_code == 1
    assert error_of(result).startswith(f"{precious}: it exists already")
    assert files(tmp_path) == {0: b"0", 1: b"precious"}


def test_a_directory_that_cannot_be_made(url: str, stream: Stream, tmp_path: Path) -> None:
    append(stream, b"0")
    (tmp_path / "file").touch()
    result = run("read", ADDRESS, "--output", str(tmp_path / "file"), env=at(url))
    assert result.exit_code == 1
    assert error_of(result) == f"{tmp_path}/file: File exists"


def test_a_lost_message_is_told_and_passed_over(url: str, stream: Stream) -> None:
    append(stream, b"before")
    append_broken_frame(url, stream)
    append(stream, b"between")
    append_broken_frame(url, stream)
    append(stream, b"after")
    result = run("read", ADDRESS, env=at(url))
    assert result.exit_code == 1
    assert result.stdout == "before\nbetween\nafter\n"
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error: {ADDRESS}: the frame at 1 is lost")
    assert second.startswith(f"error: {ADDRESS}: the frame at 3 is lost")


def test_records_of_no_message_are_told_of(url: str, stream: Stream) -> None:
    append(stream, b"before")
    append_record(url, stream, Record(b"plain"))
    append_record(url, stream, Record(b"plain", ((b"kind", b"other"),)))
    append_record(url, stream, trim(1))
    result = run("read", ADDRESS, env=at(url))
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "2 records of no message skipped",
        "records were trimmed before they were read, at 1 place",
    ]


@pytest.mark.parametrize(
    "options",
    list(
        combinations(
            [("--start", "0"), ("--timestamp", "0"), ("--last", "1"), ("--checkpoint", "file")], 2
        )
    ),
)
def test_beginnings_exclude_each_other(options: tuple[tuple[str, str], ...]) -> None:
    (first, _), (second, _) = options
    result = run("read", ADDRESS, *(word for option in options for word in option))
    assert result.exit_code == 2
    assert f"{first} and {second} exclude each other" in error_of(result)


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_the_last_are_at_least_one(number: str) -> None:
    assert run("read", ADDRESS, "--last", number).exit_code == 2


# Checkpoints


def test_each_run_goes_on_where_the_last_one_stopped(
    url: str, stream: Stream, tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint"
    args = ("read", ADDRESS, "--checkpoint", str(file))
    assert run(*args, env=at(url)).stdout == ""
    append(stream, b"0", b"1", b"2" * 2_000_000, b"3")
    assert run(*args, "--limit", "1", env=at(url)).stdout == "0\n"
    stopped_at = Checkpoint.from_json(file.read_text())
    assert (stopped_at.read_from, stopped_at.seen_through, len(stopped_at.lanes)) == (1, 1, 1)
    assert run(*args, "--limit", "2", env=at(url)).stdout == "1\n" + "2" * 2_000_000 + "\n"
    assert run(*args, env=at(url)).stdout == "3\n"
    assert run(*args, env=at(url)).stdout == ""
    append(stream, b"4")
    assert run(*args, env=at(url)).stdout == "4\n"
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_a_message_that_could_not_be_stored_is_read_again(
    url: str, stream: Stream, tmp_path: Path
) -> None:
    append(stream, b"0", b"1", b"2")
    folder, file = tmp_path / "out", tmp_path / "checkpoint"
    folder.mkdir()
    in_the_way = folder / f"{1:020}"
    in_the_way.touch()
    args = ("read", ADDRESS, "--checkpoint", str(file), "--output", str(folder))
    assert run(*args, env=at(url)).exit_code == 1
    in_the_way.unlink()
    assert run(*args, env=at(url)).exit_code == 0
    assert files(folder) == {0: b"0", 1: b"1", 2: b"2"}


def test_a_lost_message_is_told_once(url: str, stream: Stream, tmp_path: Path) -> None:
    append(stream, b"before")
    append_broken_frame(url, stream)
    args = ("read", ADDRESS, "--checkpoint", str(tmp_path / "checkpoint"))
    assert run(*args, env=at(url)).exit_code == 1
    append(stream, b"after")
    result = run(*args, env=at(url))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "after\n", "")


def test_what_was_trimmed_since_the_last_run_is_an_error(
    url: str, stream: Stream, tmp_path: Path
) -> None:
    append(stream, b"0", b"1", b"2")
    args = ("read", ADDRESS, "--checkpoint", str(tmp_path / "checkpoint"))
    run(*args, "--limit", "1", env=at(url))
    stream.trim(2)
    result = run(*args, env=at(url))
    assert (result.exit_code, result.stdout) == (1, "2\n")
    assert result.stderr == (
        f"error: {ADDRESS}: records 1 to 1 were removed from the stream before they were read\n"
    )


def test_ctrl_c_notes_where_it_stopped(url: str, stream: Stream, tmp_path: Path) -> None:
    append(stream, b"0", b"1")
    args = ("read", ADDRESS, "--checkpoint", str(tmp_path / "checkpoint"))
    with process(*args, "--follow", env=at(url)) as reading:
        assert reading.stdout is not None
        assert [reading.stdout.readline() for _ in range(2)] == [b"0\n", b"1\n"]
        reading.send_signal(signal.SIGINT)
        _, errors = reading.communicate(timeout=PATIENCE)
    assert (reading.returncode, errors) == (0, b"")
    append(stream, b"2")
    # The last one may have been written and not yet noted.
    assert run(*args, env=at(url)).stdout in ("2\n", "1\n2\n")


def test_a_run_that_is_killed_leaves_a_recent_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each message is noted at once when it is time to."""
    monkeypatch.setattr(read_module, "_SAVE_INTERVAL", 0.0)
    file = CheckpointFile(tmp_path / "checkpoint")
    seen: list[int] = []

    class Spy(Directory):
        def put(self, start: int, payload: bytes) -> None:
            noted = file.load()
            seen.append(-1 if noted is None else noted.read_from)
            super().put(start, payload)

    copying = read_module._Copying(StreamAddress(BASIN, "room/1"), Spy(tmp_path / "out"), file)
    session: Any = LostSession(3)
    with pytest.raises(Failure, match=r"it broke; .*run this again to go on"):
        copying.run(session, lambda _num_bytes: None)
    assert seen == [-1, 1, 2]
    assert file.load() == Checkpoint(3, 3, ())


@pytest.mark.parametrize("text", ["", "nonsense", "{}", "[1]", '{"s2frames_checkpoint": 99}'])
def test_a_file_that_is_no_checkpoint(url: str, stream: Stream, tmp_path: Path, text: str) -> None:
    append(stream, b"0")
    file = tmp_path / "precious"
    file.write_text(text)
    result = run("read", ADDRESS, "--checkpoint", str(file), env=at(url))
    assert (result.exit_code, result.stdout) == (1, "")
    assert error_of(result).startswith(f"{file}: ")
    assert "checkpoint" in error_of(result)
    assert file.read_text() == text


# What the service says


def test_a_start_beyond_the_tail_is_told_the_tail(url: str, stream: Stream) -> None:
    append(stream, b"0", b"1")
    result = run("read", ADDRESS, "--start", "3", env=at(url))
    assert result.exit_code == 1
    assert "sequence number 2; start there or before" in error_of(result)


def test_a_stream_that_is_missing(url: str, stream: Stream) -> None:
    result = run("read", f"s2://{BASIN}/other", env=at(url))
    assert result.exit_code == 1
    assert "create the stream, or check its name" in error_of(result)
    assert stream.check_tail().seq_num == 0


def test_a_basin_that_is_missing(url: str) -> None:
    result = run("read", ADDRESS, env=at(url))
    assert result.exit_code == 1
    assert "create the basin, or check its name and S2_BASIN_ENDPOINT" in error_of(result)


def test_a_port_that_nobody_listens_on() -> None:
    with refused_url() as url:
        result = run("read", ADDRESS, env=at(url))
    assert result.exit_code == 1
    assert url in error_of(result)
    assert "is the service running there?" in error_of(result)


@pytest.mark.parametrize(("status", "code"), [(401, "authn"), (403, "permission_denied")])
def test_a_token_that_is_refused(status: int, code: str) -> None:
    body = f'{{"code":"{code}","message":"not with made-up-token"}}'.encode()
    with canned_service(status, body) as url:
        result = run("read", ADDRESS, env={**at(url), "S2_ACCESS_TOKEN": "made-up-token"})
    assert result.exit_code == 1
    assert "set S2_ACCESS_TOKEN" in error_of(result)
    assert "made-up-token" not in result.output


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {"content-type": "text/html"}, b"<html>"),
        (200, {"content-type": "s2s/proto"}, b"garbage"),
        (200, {"content-type": "s2s/proto"}, b"\x00\x00\x04\x00\xff\xff\xff"),
        (404, {"content-type": "text/html"}, b"<html>\n<h1>\x1b[31mNot Found"),
        (204, {}, b""),
    ],
)
def test_what_is_no_s2(status: int, headers: dict[str, str], body: bytes) -> None:
    with canned_service(status, body, headers) as url:
        result = run("read", ADDRESS, env=at(url))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is that an S2 endpoint?" in error_of(result)


def test_a_service_that_is_gone_for_a_moment_is_no_event() -> None:
    with LiveService() as service, opened_stream(service.url) as stream:
        append(stream, b"0", b"1")
        service.be_gone_for(0.3)
        result = run("read", ADDRESS, env=at(service.url))
        assert (result.exit_code, result.stdout, result.stderr) == (0, "0\n1\n", "")
        service.be_gone_for(0.3)
        result = run("write", ADDRESS, env=at(service.url), stdin=b"2")
        assert (result.exit_code, result.stderr) == (0, "1 message, 1 byte durable\n")
        assert list(stream.read_session()) == [b"0", b"1", b"2"]


class LostSession:
    """A session whose connection breaks after some messages."""

    def __init__(self, num_messages: int) -> None:
        self.left = num_messages
        self.stats = ReaderStats()
        self.taken = 0

    def frames(self) -> Iterator[ReceivedMessage[bytes]]:
        """The messages, then the error."""
        for start in range(self.left):
            self.taken = start + 1
            yield ReceivedMessage(b"x", start, start + 1, 0, None, ())
        raise TransportError("it broke")

    def checkpoint(self) -> Checkpoint:
        """Where to go on."""
        return Checkpoint(self.taken, self.taken, ())


@pytest.mark.parametrize("num_messages", [0, 3])
def test_a_connection_that_breaks_says_where_to_go_on(tmp_path: Path, num_messages: int) -> None:
    address = StreamAddress(BASIN, "room/1")
    copying = read_module._Copying(address, Directory(tmp_path))
    session: Any = LostSession(num_messages)
    expected = Failure if num_messages else TransportError
    with pytest.raises(expected) as caught:
        copying.run(session, lambda _num_bytes: None)
    assert "it broke" in str(caught.value)
    assert str(caught.value).endswith("; go on with --start 3 (which may repeat some)") == bool(
        num_messages
    )
    assert len(files(tmp_path)) == num_messages


# Live


def test_following_goes_on_until_ctrl_c(url: str, stream: Stream) -> None:
    append(stream, b"before")
    with process("read", ADDRESS, "--follow", env=at(url)) as reading:
        assert reading.stdout is not None
        assert reading.stdout.readline() == b"before\n"
        for number in range(3):
            append(stream, b"live %d" % number)
            assert reading.stdout.readline() == b"live %d\n" % number
        reading.send_signal(signal.SIGINT)
        output, errors = reading.communicate(timeout=PATIENCE)
    assert (reading.returncode, output, errors) == (0, b"", b"")


def test_following_into_files(url: str, stream: Stream, tmp_path: Path) -> None:
    append(stream, b"before")
    args = ("read", ADDRESS, "--follow", "--limit", "2", "--output", str(tmp_path))
    with process(*args, env=at(url)) as reading:
        append(stream, b"live")
        output, errors = reading.communicate(timeout=PATIENCE)
    assert (reading.returncode, output) == (0, b"")
    assert errors == f"2 messages in {tmp_path}\n".encode()
    assert files(tmp_path) == {0: b"before", 1: b"live"}


@pytest.mark.parametrize("follow", [(), ("--follow",)])
def test_a_reader_that_leaves_is_no_error(
    url: str, stream: Stream, follow: tuple[str, ...]
) -> None:
    append(stream, *[b"x" * 100_000] * 20)
    with process("read", ADDRESS, *follow, env=at(url)) as reading:
        assert reading.stdout is not None
        assert len(reading.stdout.readline()) == 100_001
        reading.stdout.close()
        assert reading.stderr is not None
        errors = reading.stderr.read()
        assert reading.wait(PATIENCE) == 0
    assert errors == b""


def test_a_reader_that_leaves_before_the_last_flush_is_no_error(url: str, stream: Stream) -> None:
    append(stream, b"a little")
    with process("read", ADDRESS, env=at(url)) as reading:
        assert reading.stdout is not None
        reading.stdout.close()
        assert reading.stderr is not None
        errors = reading.stderr.read()
        assert reading.wait(PATIENCE) == 0
    assert errors == b""


def test_ctrl_c_without_following(
    monkeypatch: pytest.MonkeyPatch, url: str, stream: Stream
) -> None:
    append(stream, b"0", b"1")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("s2frames.cli.outputs.Stdout.put", interrupt)
    assert run("read", ADDRESS, env=at(url)).exit_code == 130
    assert run("read", ADDRESS, "--follow", env=at(url)).exit_code == 0


def test_output_that_is_full_is_one_line(url: str, stream: Stream) -> None:
    append(stream, b"x" * 100_000)
    with (
        open("/dev/full", "wb") as full,
        process("read", ADDRESS, env=at(url), stdout=full) as reading,
    ):
        _, errors = reading.communicate(timeout=PATIENCE)
    assert (reading.returncode, errors) == (1, b"error: No space left on device\n")
