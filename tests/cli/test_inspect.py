from __future__ import annotations

import json
from typing import Any

import pytest

from cli.shell import (
    ADDRESS,
    append_broken_frame,
    append_record,
    at,
    error_of,
    opened_stream,
    run,
)
from live_service import LiveService, refused_url
from s2frames.cli import inspect as inspect_module
from s2frames.events import DropReason
from s2frames.framing import make_frame_headers
from s2frames.records import Record, fence, trim
from s2frames_httpx import Stream


def figures(url: str, *, exit_code: int = 0) -> dict[str, Any]:
    """What `--json` tells."""
    result = run("inspect", ADDRESS, "--json", env=at(url))
    assert result.exit_code == exit_code
    (line,) = result.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def append(stream: Stream, writer_id: str, *messages: bytes, first: int = 0) -> None:
    """Append messages of one writer, whose records are numbered from `first` on."""
    with stream.append_session(writer_id=writer_id, first_dedupe_seq=first) as session:
        session.append_many(messages)


def fill(url: str, stream: Stream) -> None:
    """Some of everything."""
    append(stream, "first", b"one", bytes(2_500_000))
    append(stream, "second", b"three")
    # As a retry does.
    append(stream, "second", b"three")
    append_record(url, stream, fence("mine"))
    append_record(url, stream, trim(0))
    append_record(url, stream, Record(b"plain"))
    append_record(url, stream, Record(b"x", make_frame_headers(2, 2)))


def test_everything_is_told_to_programs(url: str, stream: Stream) -> None:
    fill(url, stream)
    assert figures(url) == {
        "records": 10,
        "messages": 3,
        "bytes": 2_500_008,
        "duplicates": 1,
        "dropped": {reason.value: int(reason is DropReason.INCOMPLETE) for reason in DropReason},
        "gaps": 0,
        "sequence_gaps": 0,
        "commands": 2,
        "other_records": 1,
        "writers": [
            {"writer_id": "first", "messages": 2, "bytes": 2_500_003, "start": 0, "end": 4},
            {"writer_id": "second", "messages": 1, "bytes": 5, "start": 4, "end": 5},
        ],
        "messages_of_other_writers": 0,
    }


def test_everything_is_told_to_people(url: str, stream: Stream) -> None:
    fill(url, stream)
    result = run("inspect", ADDRESS, env=at(url))
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert rows == [
        "records 10",
        "messages 3",
        "bytes 2,500,008",
        "duplicates dropped 1",
        "dropped: incomplete 1",
        "gaps 0",
        "gaps in a writer's numbering 0",
        "commands 2",
        "records of no message 1",
        "",
        "writer messages bytes from to",
        "first 2 2,500,003 0 4",
        "second 1 5 4 5",
    ]


def test_an_empty_stream_holds_nothing(url: str, stream: Stream) -> None:
    assert stream.check_tail().seq_num == 0
    found = figures(url)
    assert (found["records"], found["messages"], found["writers"]) == (0, 0, [])


def test_a_message_that_is_lost_is_told_and_the_rest_is_counted(url: str, stream: Stream) -> None:
    append(stream, "first", b"one")
    append_broken_frame(url, stream)
    append(stream, "first", b"two", first=1)
    result = run("inspect", ADDRESS, "--json", env=at(url))
    assert result.exit_code == 1
    assert "(length mismatch)" in error_of(result)
    found = json.loads(result.stdout)
    assert found["dropped"]["length mismatch"] == 1
    assert found["messages"] == 2


def test_records_that_were_removed_are_no_loss(url: str, stream: Stream) -> None:
    append(stream, "first", b"one", b"two", b"three")
    append_record(url, stream, trim(2))
    found = figures(url)
    assert (found["messages"], found["records"]) == (1, 2)
    assert found["gaps"] == 1


def test_messages_without_a_writer_id(url: str, stream: Stream) -> None:
    with stream.append_session(dedupe=False) as session:
        session.append(b"one")
    assert figures(url)["writers"][0]["writer_id"] is None
    assert "(no writer id)" in run("inspect", ADDRESS, env=at(url)).stdout


def test_a_writer_id_cannot_steer_the_terminal(url: str, stream: Stream) -> None:
    append(stream, "[red]\x1b[2J\nx", b"one")
    output = run("inspect", ADDRESS, env={**at(url), "FORCE_COLOR": "1"}).stdout
    assert "[red]\\x1b[2J\\nx" in output
    assert "\x1b[2J" not in output


def test_a_long_writer_id_is_told_whole(url: str, stream: Stream) -> None:
    append(stream, "Z" * 200, b"one")
    output = run("inspect", ADDRESS, env=at(url)).stdout
    assert output.count("Z") == 200


def test_the_table_has_the_first_writers(
    url: str, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_module, "_MAX_ROWS", 2)
    for writer_id in ("a", "b", "c", "d"):
        append(stream, writer_id, b"one")
    lines = run("inspect", ADDRESS, env=at(url)).stdout.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["a", "b", "and"]
    assert lines[-1] == "and 2 other writers, which --json lists"


def test_writers_without_number_take_no_memory(
    url: str, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_module, "_MAX_WRITERS", 2)
    for writer_id in ("a", "b", "c", "d", "a"):
        append(stream, writer_id, b"one")
    found = figures(url)
    assert [writer["writer_id"] for writer in found["writers"]] == ["a", "b"]
    assert found["messages_of_other_writers"] == 2
    # The second "a" was another one: it began anew, and is dropped as a repeat.
    assert (found["messages"], found["bytes"]) == (4, 12)
    output = run("inspect", ADDRESS, env=at(url)).stdout
    assert output.endswith("and 2 messages of still others\n")


def test_a_service_that_is_gone_for_a_moment_is_no_event() -> None:
    with LiveService() as service, opened_stream(service.url) as stream:
        append(stream, "first", b"0", b"1")
        service.be_gone_for(0.3)
        assert figures(service.url)["messages"] == 2


def test_a_stream_that_is_missing(url: str) -> None:
    result = run("inspect", ADDRESS, env=at(url))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not found" in error_of(result)


def test_a_port_that_nobody_listens_on() -> None:
    with refused_url() as url:
        result = run("inspect", ADDRESS, env=at(url))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is the service running there?" in error_of(result)


def test_an_address_is_needed() -> None:
    result = run("inspect")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "inspect --help" in error_of(result)
