"""Every client keeps its word to `s2 lite` on connections that are cut, stalled, reset and slow."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from real_server.fault_proxy import Fault
from real_server.faults import FaultsReport, run_faults
from real_server.places import needs_lite
from s2_lite import s2_lite
from scenes import Flavour

pytestmark = needs_lite


# Dozens of connections are stalled until they are given up.
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [202])
def test_acknowledged_messages_are_read_once_intact_and_in_order(
    seed: int, record_property: Callable[[str, object], None]
) -> None:
    total = FaultsReport()
    # A server of its own: what is stalled here is not to delay other tests.
    with s2_lite() as url:
        for client in Flavour:
            report = run_faults(client, url, seed)
            summary = report.summary
            said = f"{client.value}, seed {seed}: {report}"
            assert (summary.lost, summary.doubled) == (0, 0), said
            assert summary.read.messages, said
            assert summary.followed.messages == summary.read.messages, said
            total += report
    record_property("figures", str(total))
    # Else nothing was shown: every kind of harm was done, sessions went on where others gave up,
    # and what had landed was sent again.
    assert set(total.faults) == set(Fault), f"seed {seed}: {total}"
    assert total.summary.given_up, f"seed {seed}: {total}"
    assert total.summary.repeats, f"seed {seed}: {total}"
