from __future__ import annotations

import pytest

from s2frames.cli.tables import figures_table, print_tables


def test_names_stand_left_and_figures_right(capsys: pytest.CaptureFixture[str]) -> None:
    table = figures_table()
    table.add_row("messages", "1")
    table.add_row("bytes", "1,000")
    print_tables(table, "[green]done")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["messages      1", "bytes     1,000", "done"]
