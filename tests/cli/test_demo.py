from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence

import pytest

from cli.shell import (
    ADDRESS,
    BASIN,
    PATIENCE,
    append_broken_frame,
    at,
    error_of,
    opened_stream,
    process,
    run,
)
from live_service import live_service, refused_url
from s2frames.cli import demo as demo_module
from s2frames.cli.chat import chat
from s2frames.embedded import MemoryStore, Service
from s2frames.embedded.store import StreamKey, StreamState
from s2frames.records import SequencedRecord
from s2frames_httpx import Client, EmbeddedTransport, Stream
from s2frames_httpx.embedded import EMBEDDED_SETTINGS

LAST_LINE = "every message came back intact, in order"


def table(output: str) -> dict[str, str]:
    rows = (line.rsplit("  ", 1) for line in output.splitlines()[:-1])
    return {name.strip(): value.strip() for name, value in rows}


def test_it_runs_without_a_service() -> None:
    result = run("demo", "--messages", "50")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == LAST_LINE
    rows = table(result.stdout)
    # The image takes six records.
    assert rows["messages"] == "50"
    assert rows["records"] == "55"
    assert rows["duplicates dropped"] == "0"
    num_bytes = sum(len(m.payload) for m in chat(50, 0))
    assert rows["bytes"] == f"{num_bytes:,}"
    assert re.fullmatch(r"[0-9.,]+ MiB/s", rows["written"])
    assert re.fullmatch(r"[0-9.,]+ MiB/s", rows["read"])


def test_a_seed_makes_another_chat() -> None:
    sizes = {table(run("demo", "--messages", "20", "--seed", n).stdout)["bytes"] for n in "112"}
    assert len(sizes) == 2


def test_it_makes_the_stream(url: str, stream: Stream) -> None:
    result = run("demo", f"s2://{BASIN}/new/one", "--messages", "3", env=at(url))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == LAST_LINE
    assert stream.check_tail().seq_num == 0


def test_a_stream_that_exists_keeps_what_it_has(url: str, stream: Stream) -> None:
    with stream.append_session() as session:
        session.append(b"before")
    append_broken_frame(url, stream)
    config = stream.config()
    for _ in range(2):
        result = run("demo", ADDRESS, "--messages", "3", "--endpoint", url)
        assert (result.exit_code, result.stderr) == (0, "")
    assert stream.config() == config
    messages = list(stream.read_session(on_corrupt="skip"))
    expected = [message.payload for message in chat(3, 0)]
    assert messages == [b"before", *expected, *expected]


# Services that lose or change what they are given


class FaultyStore(MemoryStore):
    """Does something to the record at `at`, counted from 0."""

    def __init__(self, fault: str, at: int) -> None:
        super().__init__()
        self.fault = fault
        self.at = at

    def read(self, key: StreamKey, start: int, end: int) -> Iterator[SequencedRecord]:
        """The records, but for the fault."""
        for record in super().read(key, start, end):
            body = bytes(record.body)
            match self.fault if record.seq_num == self.at else "none":
                case "change":
                    body = bytes([body[0] ^ 1]) + body[1:]
                case "cut":
                    body = body[:-1]
                case "lose":
                    continue
            yield SequencedRecord(record.seq_num, record.timestamp, record.headers, body)


@pytest.mark.parametrize(
    ("fault", "at", "said"),
    [
        (
            "change",
            0,
            r"^message 1 of 5 \(text, \d+ bytes\) did not come back intact: .* number 0 ",
        ),
        (
            "change",
            4,
            r"^message \d of 5 \((text|code|image), \d+ bytes\) did not come back intact",
        ),
        ("cut", 1, r"the frame at 1 of writer .* is lost"),
        ("lose", 0, r"^message 1 of 5 .* did not come back intact: at sequence number 1 "),
        ("lose", 9, r"^message 5 of 5 \((text|code), \d+ bytes\) did not come back$"),
    ],
)
def test_what_did_not_come_back_is_named(
    monkeypatch: pytest.MonkeyPatch, fault: str, at: int, said: str
) -> None:
    service = Service(FaultyStore(fault, at), random=lambda: 0.5)
    client = Client(EMBEDDED_SETTINGS, transport=EmbeddedTransport(service))
    monkeypatch.setattr("s2frames.cli.demo.Client.embedded", lambda: client)
    result = run("demo", "--messages", "5", "--seed", "3")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.search(said, error_of(result)), error_of(result)


def test_a_message_too_many_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # The list that is compared loses its last message after all were written.
    real = demo_module.compare
    monkeypatch.setattr(
        demo_module,
        "compare",
        lambda received, messages, digests, step: real(received, messages[:-1], digests[:-1], step),
    )
    result = run("demo", "--messages", "2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert error_of(result).startswith("one message too many came back, at sequence number")


# What the service says


def test_the_basin_is_not_made(url: str) -> None:
    result = run("demo", ADDRESS, env=at(url))
    assert (result.exit_code, result.stdout) == (1, "")
    assert error_of(result).startswith(f"{ADDRESS}: ")
    assert "create the basin" in error_of(result)


def test_a_port_that_nobody_listens_on() -> None:
    with refused_url() as url:
        result = run("demo", ADDRESS, env=at(url))
    assert result.exit_code == 1
    assert "is the service running there?" in error_of(result)


# Live


class StalledStore(MemoryStore):
    """Takes no record until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def append(
        self, key: StreamKey, records: Sequence[SequencedRecord], state: StreamState
    ) -> None:
        """Wait, then append."""
        self.reached.set()
        self.go_on.wait(PATIENCE)
        super().append(key, records, state)


def test_ctrl_c_says_what_is_durable() -> None:
    store = StalledStore()
    with live_service(Service(store, random=lambda: 0.5)) as url, opened_stream(url):
        try:
            with process("demo", ADDRESS, env=at(url)) as demo:
                assert store.reached.wait(PATIENCE)
                demo.send_signal(signal.SIGINT)
                output, errors = demo.communicate(timeout=PATIENCE)
        finally:
            store.go_on.set()
    assert (demo.returncode, output) == (130, b"")
    assert errors == b"interrupted: 0 messages known to be durable\n"


def test_nothing_but_text_goes_into_pipes() -> None:
    with process("demo", "--messages", "5", env={"FORCE_COLOR": ""}) as demo:
        output, errors = demo.communicate(timeout=PATIENCE)
    assert (demo.returncode, errors) == (0, b"")
    assert b"\x1b" not in output
    assert output.endswith(LAST_LINE.encode() + b"\n")


def read_terminal(descriptor: int) -> bytes:
    """Everything that was written to a terminal, until its last writer is gone."""
    shown = b""
    try:
        while data := os.read(descriptor, 4096):
            shown += data
    except OSError:
        # How Linux tells the end.
        return shown
    return shown


def test_a_terminal_gets_a_progress_bar() -> None:
    pty = pytest.importorskip("pty")
    here, there = pty.openpty()
    try:
        with process("demo", "--messages", "20", stderr=there, env={"TERM": "xterm"}) as demo:
            os.close(there)
            shown = read_terminal(here)
            assert demo.stdout is not None
            output = demo.stdout.read()
            assert demo.wait(PATIENCE) == 0
    finally:
        os.close(here)
    assert b"writing" in shown
    assert b"reading" in shown
    assert b"20/20" in shown
    assert b"\x1b" not in output
    assert output.endswith(LAST_LINE.encode() + b"\n")
