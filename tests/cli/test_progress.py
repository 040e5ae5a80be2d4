from __future__ import annotations

import pytest

from s2frames.cli.progress import progress_bar, progress_count, retry_lines
from s2frames.errors import TransportError
from s2frames.session import Retrying


def test_nothing_is_shown_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Makes rich take everything for a terminal.
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar("writing", 2) as step:
        step()
        step()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_that_is_gone_in_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("writing", 2) as step:
        step()
        step()
    output, errors = capsys.readouterr()
    assert output == ""
    assert "writing" in errors
    assert "2/2" in errors
    # The cursor is shown again, and the line erased.
    assert errors.rstrip().endswith("\x1b[2K")
    assert errors.rindex("\x1b[?25h") > errors.rindex("\x1b[?25l")


@pytest.mark.parametrize(
    ("output_is_shared", "ends_before_output", "is_shown"),
    [(False, False, True), (True, True, True), (True, False, False)],
    ids=["output goes elsewhere", "output comes afterwards", "among the output"],
)
def test_where_a_count_is_shown(
    output_is_shared: bool,
    ends_before_output: bool,
    is_shown: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: output_is_shared)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress_count("writing", ends_before_output=ends_before_output) as step:
        step(10)
        step(1)
    output, errors = capsys.readouterr()
    assert output == ""
    assert ("writing" in errors) == ("2 messages" in errors) == is_shown
    assert is_shown or errors == ""


# Retries


def test_retries_are_told_to_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert retry_lines() is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tell = retry_lines()
    assert tell is not None
    error = TransportError("it\nbroke")
    error.attempts = 2
    tell(Retrying(error, 2, 0.26))
    assert capsys.readouterr() == ("", "retrying: it\\nbroke; tried 2 times; again in 0.3 s\n")


def test_retries_are_told_above_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    tell = retry_lines()
    assert tell is not None
    with progress_bar("writing", 1):
        tell(Retrying(TransportError("it broke"), 1, 0.1))
    assert "retrying: it broke; again in 0.1 s\n" in capsys.readouterr().err


def test_the_token_is_not_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S2_ACCESS_TOKEN", "made-up-token")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tell = retry_lines()
    assert tell is not None
    tell(Retrying(TransportError("who is made-up-token?"), 1, 0.1))
    assert "who is [secret]?" in capsys.readouterr().err


def test_who_is_interrupted_is_not_told_of_an_attempt_that_is_not_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tell = retry_lines()
    assert tell is not None
    error = TransportError("the append was interrupted")
    error.__cause__ = KeyboardInterrupt()
    tell(Retrying(error, 1, 0.1))
    assert capsys.readouterr() == ("", "")
