from __future__ import annotations

from s2frames.cli.exit_codes import ExitCode


def test_scripts_can_rely_on_the_numbers() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "DONE": 0,
        "FAILED": 1,
        "USAGE": 2,
        "INTERRUPTED": 130,
    }
