from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest
from click.testing import Result

from cli.shell import ADDRESS, BASIN, PATIENCE, at, error_of, opened_stream, process, python, run
from cli.test_demo import FaultyStore, StalledStore
from cli.test_serve import served
from live_service import canned_service, live_service, refused_url
from s2frames.cli import bench as module
from s2frames.cli.failures import Failure
from s2frames.cli.transports import TRANSPORTS
from s2frames.embedded import Service
from s2frames.errors import TransportError
from s2frames.settings import Endpoints
from s2frames_httpx import Client, Stream

SMALL = ("--size", "100", "--count", "50", "--transport", "httpx")

each_transport = pytest.mark.parametrize("transport", list(TRANSPORTS))


def figures(result: Result) -> Any:
    """What `--json` printed: one line, and nothing else."""
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def check_figures(found: Any, *, is_live: bool) -> None:
    rates, latency = {"msg_s", "mib_s"}, {"p50_ms", "p99_ms"}
    assert found["append"].keys() == rates | latency
    assert found["read"].keys() == rates
    assert ("live" in found) == is_live
    for row in (found["append"], found["read"], found.get("live", found["append"])):
        # The lowest rate that can be told from none.
        assert row["msg_s"] > 0
        assert row.get("p50_ms", 0) <= row.get("p99_ms", 0)
    assert found["rss_mib"] > 1


@each_transport
def test_it_runs_without_a_service(transport: str) -> None:
    found = figures(run("bench", "--transport", transport, "--count", "300", "--json"))
    assert (found["transport"], found["size"], found["count"]) == (transport, 1000, 300)
    check_figures(found, is_live=False)


@each_transport
def test_a_second_process_follows(transport: str) -> None:
    args = ("--transport", transport, "--count", "300", "--live", "--json")
    with process("bench", *args) as bench:
        output, errors = bench.communicate(timeout=PATIENCE)
    assert (bench.returncode, errors) == (0, b"")
    check_figures(json.loads(output), is_live=True)


def test_trio_is_what_it_takes_by_itself() -> None:
    assert figures(run("bench", "--count", "1", "--json"))["transport"] == "trio"


def test_without_json_it_is_a_table() -> None:
    result = run("bench", *SMALL)
    assert (result.exit_code, result.stderr) == (0, "")
    head, append, read, memory = result.stdout.splitlines()
    assert head.split() == ["messages/s", "MiB/s", "ms", "(median)", "ms", "(99", "%)"]
    assert re.fullmatch(r"append( +[0-9,.]+){4}", append)
    assert re.fullmatch(r"read( +[0-9,.]+){2} *", read)
    assert re.fullmatch(r"memory at most [0-9,.]+ MiB", memory)


@pytest.mark.parametrize(("size", "count"), [("12", "1"), ("2000000", "3"), ("100", "201")])
def test_any_size_and_number(size: str, count: str) -> None:
    args = ("--size", size, "--count", count, "--transport", "httpx", "--json")
    check_figures(figures(run("bench", *args)), is_live=False)


# The stream


@each_transport
def test_a_stream_that_exists_is_kept(transport: str) -> None:
    with served() as (_, url), opened_stream(url) as stream:
        with stream.append_session() as session:
            session.append(b"before")
        config = stream.config()
        for _ in range(2):
            args = ("--count", "10", "--transport", transport, "--json")
            check_figures(figures(run("bench", ADDRESS, *args, env=at(url))), is_live=False)
        assert stream.config() == config
        # Ten together, and as many one at a time; twice.
        assert stream.check_tail().seq_num == 1 + 2 * 20
        assert next(iter(stream.read_session())) == b"before"


def names_of(stream: Stream, url: str) -> set[str]:
    """The streams of its basin that are not being deleted."""
    with Client.from_env({}, endpoints=Endpoints.at(url)) as client:
        found = client.list_streams(stream.target.basin)
        return {info.name for info in found if info.deleted_at is None}


def test_a_stream_that_it_made_is_deleted(url: str, stream: Stream) -> None:
    result = run("bench", f"s2://{BASIN}/new", *SMALL, "--endpoint", url)
    assert (result.exit_code, result.stderr) == (0, "")
    assert names_of(stream, url) == {"room/1"}


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (Failure("made up"), 1, "error: made up\n"),
    ],
)
def test_it_is_deleted_however_it_ends(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    stream: Stream,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(module, "_measure", fail)
    result = run("bench", f"s2://{BASIN}/new", *SMALL, env=at(url))
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", said)
    assert names_of(stream, url) == {"room/1"}


def test_a_stream_that_cannot_be_deleted_is_told(
    monkeypatch: pytest.MonkeyPatch, url: str, stream: Stream
) -> None:
    def fail(_: Stream) -> None:
        raise TransportError("made up")

    monkeypatch.setattr(Stream, "delete", fail)
    result = run("bench", f"s2://{BASIN}/new", *SMALL, "--json", env=at(url))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["count"] == 50
    said = "the stream that was made could not be deleted: made up; try again in a while\n"
    assert result.stderr == said
    assert names_of(stream, url) == {"room/1", "new"}


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "record", "said"),
    [
        ("change", 0, r": message 1 of 100 is not what was appended"),
        ("change", 99, r"message 100 of 100 is not what was appended"),
        ("cut", 60, r"is lost"),
        ("lose", 99, r"message 100 of 100 did not come back"),
    ],
)
def test_what_did_not_come_back_is_named(fault: str, record: int, said: str) -> None:
    service = Service(FaultyStore(fault, record), random=lambda: 0.5)
    with live_service(service) as url, opened_stream(url):
        result = run("bench", ADDRESS, *SMALL, env=at(url))
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.search(said, f": {error_of(result)}"), error_of(result)


def test_the_basin_is_not_made(url: str) -> None:
    result = run("bench", ADDRESS, env=at(url))
    assert (result.exit_code, result.stdout) == (1, "")
    assert error_of(result).startswith(f"{ADDRESS}: ")
    assert "create the basin" in error_of(result)


def test_a_port_that_nobody_listens_on() -> None:
    with refused_url() as url:
        result = run("bench", ADDRESS, env=at(url))
    assert result.exit_code == 1
    assert "is the service running there?" in error_of(result)


def test_what_is_no_s2_is_told() -> None:
    with canned_service(404, b"not found") as url:
        result = run("bench", ADDRESS, env=at(url))
    assert result.exit_code == 1
    assert "is that an S2 endpoint?" in error_of(result)


@pytest.mark.parametrize(
    ("missing", "extra"), [("trio", "trio"), ("h2", "trio"), ("hypercorn", "serve")]
)
def test_a_missing_extra_is_named(missing: str, extra: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import s2frames.cli; s2frames.cli.main()"
    with python("-c", code, "bench") as bench:
        output, errors = bench.communicate(timeout=PATIENCE)
    assert (bench.returncode, output) == (1, b"")
    assert errors.endswith(f"needs an extra: pip install 's2frames[{extra}]'\n".encode())
    assert errors.count(b"\n") == 1


@pytest.mark.parametrize("args", [(), ("--live",)])
def test_ctrl_c_says_what_is_durable(args: tuple[str, ...]) -> None:
    store = StalledStore()
    with live_service(Service(store, random=lambda: 0.5)) as url, opened_stream(url):
        try:
            with process("bench", ADDRESS, *SMALL, *args, env=at(url)) as bench:
                assert store.reached.wait(PATIENCE)
                bench.send_signal(signal.SIGINT)
                output, errors = bench.communicate(timeout=PATIENCE)
        finally:
            store.go_on.set()
    assert (bench.returncode, output) == (130, b"")
    assert errors == b"interrupted: 0 messages known to be durable\n"


def test_ctrl_c_ends_the_service_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_measure", interrupt)
    result = run("bench")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    ("values", "median", "p99"),
    [
        ([5.0], 5.0, 5.0),
        ([1.0, 2.0], 1.0, 2.0),
        ([1.0, 2.0, 3.0], 2.0, 3.0),
        ([float(n) for n in range(1, 101)], 50.0, 99.0),
        ([float(n) for n in range(1, 201)], 100.0, 198.0),
    ],
)
def test_percentiles(values: list[float], median: float, p99: float) -> None:
    assert (module._percentile(values, 50), module._percentile(values, 99)) == (median, p99)
