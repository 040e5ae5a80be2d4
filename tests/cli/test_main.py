"""`main`, the entry of the console script, and `python -m s2frames`."""

from __future__ import annotations

import pytest

import s2frames.cli
from cli.shell import PATIENCE, process, python
from s2frames.cli.commands import commands


def test_main_runs_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/s2frames", "--version"])
    with pytest.raises(SystemExit) as caught:
        s2frames.cli.main()
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("s2frames ")


def test_ctrl_c_while_it_starts_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_module: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("s2frames.cli.import_module", interrupt)
    with pytest.raises(SystemExit) as caught:
        s2frames.cli.main()
    assert caught.value.code == 130


def test_the_module_can_be_run() -> None:
    with process("--help") as running:
        output, errors = running.communicate(timeout=PATIENCE)
    assert (running.returncode, errors) == (0, b"")
    assert output.startswith(b"Usage: s2frames [OPTIONS]")
    assert all(name.encode() in output for name in commands.commands)


@pytest.mark.parametrize("missing", ["click", "rich", "httpx", "anyio"])
def test_a_missing_extra_is_named(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import s2frames.cli; s2frames.cli.main()"
    with python("-c", code, "demo") as running:
        output, errors = running.communicate(timeout=PATIENCE)
    assert (running.returncode, output) == (1, b"")
    assert errors == b"error: the command line needs an extra: pip install 's2frames[cli]'\n"
