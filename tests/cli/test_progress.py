from __future__ import annotations

import pytest

from s2frames.cli.progress import progress_bar, progress_count


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


def test_a_count_is_shown_beside_output_that_goes_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress_count("writing") as step:
        step(10)
        step(1)
    output, errors = capsys.readouterr()
    assert output == ""
    assert "writing" in errors
    assert "2 messages" in errors


def test_no_count_is_shown_among_the_messages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_count("reading") as step:
        step(10)
    assert capsys.readouterr() == ("", "")
