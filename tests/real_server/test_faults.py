"""Every client keeps its word to `s2 lite` on connections that are cut, stalled, reset and slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from real_server.faults import run_faults
from real_server.places import needs_lite
from s2_lite import s2_lite
from scenes import EVERY_FLAVOUR, Flavour

pytestmark = needs_lite


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    """A server of its own: what is stalled here is not to delay other tests."""
    with s2_lite() as url:
        yield url


@pytest.mark.parametrize("seed", [202])
@pytest.mark.parametrize("client", EVERY_FLAVOUR, ids=lambda kind: str(kind.value))
def test_acknowledged_messages_are_read_once_intact_and_in_order(
    client: Flavour, seed: int, server_url: str, record_property: Callable[[str, object], None]
) -> None:
    report = run_faults(client, server_url, seed)
    record_property("figures", str(report))
    summary = report.summary
    assert (summary.lost, summary.doubled) == (0, 0), f"seed {seed}: {report}"
    # Else nothing was shown.
    assert report.faults, f"seed {seed}: no fault was injected"
    assert summary.read.messages
    assert summary.followed.messages == summary.read.messages
