from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from cli.shell import ADDRESS, PATIENCE, error_of, process, python, run
from s2frames.cli import commands as module
from s2frames.cli.commands import commands


def test_these_are_the_commands() -> None:
    assert sorted(commands.commands) == ["bench", "demo", "inspect", "read", "serve", "write"]


def test_help_names_every_command_and_the_environment() -> None:
    for flag in ("-h", "--help"):
        result = run(flag)
        assert (result.exit_code, result.stderr) == (0, "")
        for name in (*commands.commands, "S2_ACCESS_TOKEN", "S2_BASIN_ENDPOINT"):
            assert name in result.stdout


@pytest.mark.parametrize("name", sorted(commands.commands.keys() - {"serve"}))
def test_every_command_explains_itself(name: str) -> None:
    result = run(name, "-h")
    assert (result.exit_code, result.stderr) == (0, "")
    for text in (f"Usage: s2frames {name} ", "s2://BASIN/STREAM", "--endpoint"):
        assert text in result.stdout


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_a_token_is_no_option(name: str) -> None:
    result = run(name, ADDRESS, "--access-token", "made-up-token")
    assert result.exit_code == 2
    assert "No such option '--access-token'" in error_of(result)
    assert "made-up-token" not in result.output


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("s2frames ")


def test_without_a_command_there_is_help() -> None:
    result = run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("--nonsense",),
        ("demo", "--nonsense"),
        ("demo", "not-an-address"),
        ("demo", ADDRESS, "more"),
        ("demo", "--messages", "0"),
        ("demo", "--messages", "1000001"),
        ("demo", "--messages", "many"),
        ("demo", "--seed", "x"),
        ("demo", "--endpoint", "http://127.0.0.1:1"),
        ("demo", "--allow-insecure"),
        ("bench", "not-an-address"),
        ("bench", ADDRESS, "more"),
        ("bench", "--size", "11"),
        ("bench", "--size", str(100 * 2**20 + 1)),
        ("bench", "--count", "0"),
        ("bench", "--transport", "carrier-pigeon"),
        ("bench", "--endpoint", "http://127.0.0.1:1"),
        ("bench", ADDRESS, "--endpoint", "nonsense"),
        ("write",),
        ("write", "s2://test-basin"),
        ("write", ADDRESS, "--endpoint", "nonsense"),
        ("read",),
        ("read", "s2://test-basin/"),
        ("read", ADDRESS, "--start", "-1"),
        ("read", ADDRESS, "--start", str(2**64)),
        ("read", ADDRESS, "--timestamp", "yesterday"),
        ("read", ADDRESS, "--start", "0", "--timestamp", "0"),
        ("read", ADDRESS, "--limit", "0"),
        ("read", ADDRESS, "--endpoint", "ftp://127.0.0.1"),
    ],
)
def test_wrong_usage_is_one_line_that_says_where_help_is(args: tuple[str, ...]) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert error_of(result).endswith("--help)")


def test_a_token_that_could_be_read_on_the_way_is_refused() -> None:
    elsewhere = "http://192.0.2.1"
    env = {
        "S2_ACCESS_TOKEN": "made-up-token",
        "S2_ACCOUNT_ENDPOINT": elsewhere,
        "S2_BASIN_ENDPOINT": elsewhere,
    }
    result = run("read", ADDRESS, env=env)
    assert result.exit_code == 2
    assert "--allow-insecure" in error_of(result)
    assert "made-up-token" not in result.output


@pytest.mark.parametrize("args", [("demo", "--messages", "1"), ("-h",), ("demo", "-h")])
def test_output_that_cannot_be_written_is_one_line(args: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full, process(*args, stdout=full) as running:
        _, errors = running.communicate(timeout=PATIENCE)
    assert (running.returncode, errors) == (1, b"error: No space left on device\n")


def test_output_that_nobody_reads_is_no_error() -> None:
    with process("demo", "--messages", "1") as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        demo.stdout.close()
        errors = demo.stderr.read()
        assert demo.wait(PATIENCE) == 0
    assert errors == b""


@pytest.mark.parametrize("closed", ["stdin", "stdout", "stderr"])
def test_streams_may_be_closed(closed: str) -> None:
    descriptor = ["stdin", "stdout", "stderr"].index(closed)
    run_demo = "import s2frames.cli; s2frames.cli.main()"
    code = f"import os, sys; os.close({descriptor}); sys.{closed} = None; {run_demo}"
    with python("-c", code, "demo", "--messages", "1") as demo:
        output, errors = demo.communicate(timeout=PATIENCE)
    assert (demo.returncode, errors) == (0, b"")
    assert (output == b"") == (closed == "stdout")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(13, "Permission denied", "secret.txt"), 1, "secret.txt: Permission denied"),
        (OSError(13, "Permission denied", b"\xff"), 1, "\\udcff: Permission denied"),
        (OSError("odd"), 1, "odd"),
    ],
)
def test_files_that_fail_are_named(
    monkeypatch: pytest.MonkeyPatch, error: OSError, code: int, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("s2frames.cli.demo.chat", fail)
    result = run("demo")
    assert (result.exit_code, error_of(result)) == (code, said)


def test_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("s2frames.cli.demo.chat", fail)
    with pytest.raises(ZeroDivisionError):
        run("demo")


def test_ctrl_c_anywhere_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("s2frames.cli.demo.Client.embedded", interrupt)
    result = run("demo")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_the_version_of_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(module, "version", missing)
    assert module._version() == "(not installed)"
