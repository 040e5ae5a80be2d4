"""Nothing acknowledged is lost when `s2 lite` is killed and comes back, and nothing comes twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from real_server.crash import run_crashes
from real_server.places import needs_lite

pytestmark = needs_lite

KILLS = 10


# The server is killed ten times.
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [1])
def test_clients_outlive_a_server_that_is_killed(
    seed: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    report = run_crashes(tmp_path, seed, KILLS)
    record_property("figures", str(report))
    summary = report.summary
    assert (summary.lost, summary.doubled) == (0, 0), f"seed {seed}: {report}"
    assert report.kills == KILLS
    # Else nothing was shown: some of what landed was sent again.
    assert summary.repeats, f"seed {seed}: {report}"
    # A restart is no event for the user.
    assert summary.given_up == 0, f"seed {seed}: {report}"
    assert summary.read.messages
