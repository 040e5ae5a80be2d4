from __future__ import annotations

from collections.abc import Sequence

import pytest

from embedded.host import Host, make_host
from run_operation import TARGET, Fault, Run, answered, lost, refused, run
from s2frames.errors import (
    AppendConditionFailed,
    FencingTokenMismatch,
    SeqNumMismatch,
    ServiceError,
)
from s2frames.read_back import read_back
from s2frames.reconcile import Finding, Reconciliation
from s2frames.records import Record, fence, trim
from s2frames.writer import FrameWriter

BATCHES = [[b"a", b"b"], [b"c"], [b"d", b"e", b"f"]]


def scene(num_landed: int, *others: Record) -> tuple[Host, FrameWriter]:
    """A stream with a foreign record, batches that landed and other records; and their writer."""
    host = make_host()
    host.append_ok(Record(b"foreign"))
    writer = FrameWriter("w", match_seq_num=1)
    for number, batch in enumerate(BATCHES):
        writer.send_many(batch)
        for cut in writer.batches_to_send(flush=True):
            if number < num_landed:
                host.append_ok(*cut.records)
    for record in others:
        host.append_ok(record)
    writer.connection_lost()
    return host, writer


def settle(
    host: Host,
    writer: FrameWriter,
    refusal: AppendConditionFailed,
    faults: Sequence[Fault] = (),
    piece: int = 1 << 20,
) -> tuple[Run[Finding], Reconciliation]:
    reconciliation = writer.reconcile()
    plan = read_back(TARGET, reconciliation, refusal)
    return run(plan, host, faults, piece=piece), reconciliation


def queries(done: Run[Finding]) -> list[str]:
    return [request.url.rpartition("/")[2] for request in done.requests]


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize(("num_landed", "expected"), [(1, 3), (2, 4), (3, 7)])
def test_what_was_said_to_be_there_is_read(num_landed: int, expected: int, piece: int) -> None:
    host, writer = scene(num_landed)
    done, reconciliation = settle(host, writer, SeqNumMismatch(expected), piece=piece)
    assert done.result() is Finding.OURS
    assert queries(done) == [f"records?seq_num=1&count={expected - 1}"]
    assert len(reconciliation.durable()) == num_landed
    assert writer.unacked_batches == 3 - num_landed


def test_what_came_after_it_was_said_is_not_read() -> None:
    host, writer = scene(3)
    done, reconciliation = settle(host, writer, SeqNumMismatch(3))
    assert done.result() is Finding.OURS
    assert len(reconciliation.durable()) == 1


@pytest.mark.parametrize("num_landed", range(4))
def test_behind_another_token_everything_is_read(num_landed: int) -> None:
    host, writer = scene(num_landed, fence("t"))
    done, reconciliation = settle(host, writer, FencingTokenMismatch("t"))
    assert done.result() is (Finding.OURS if num_landed == 3 else Finding.FOREIGN)
    first, *_ = queries(done)
    assert first == "tail"
    assert len(reconciliation.durable()) == num_landed


def test_behind_another_token_there_may_be_nothing() -> None:
    host, writer = scene(0)
    done, reconciliation = settle(host, writer, FencingTokenMismatch("t"))
    assert done.result() is Finding.OURS
    assert queries(done) == ["tail"]
    assert reconciliation.durable() == []


@pytest.mark.parametrize(("trim_to", "num_durable"), [(1, 3), (2, 0), (8, 0)])
def test_what_was_trimmed(trim_to: int, num_durable: int) -> None:
    host, writer = scene(3, trim(trim_to))
    done, reconciliation = settle(host, writer, SeqNumMismatch(7))
    assert done.result() is (Finding.OURS if num_durable else Finding.TRIMMED)
    assert len(reconciliation.durable()) == num_durable


@pytest.mark.parametrize("keep", [-1, 0, 1, 40, 100, 200, 300])
@pytest.mark.parametrize("refusal", [SeqNumMismatch(7), FencingTokenMismatch("t")])
def test_losses_change_nothing(refusal: AppendConditionFailed, keep: int) -> None:
    host, writer = scene(3)
    unavailable = answered(503, b'{"code":"unavailable","message":"no"}')
    done, reconciliation = settle(
        host, writer, refusal, [lost(keep), refused(), unavailable, lost(keep)], piece=11
    )
    assert done.result() is Finding.OURS
    assert len(reconciliation.durable()) == 3
    assert len(done.events) == 4


def test_an_error_that_does_not_pass_is_told() -> None:
    host, writer = scene(3)
    refused_for_good = answered(403, b'{"code":"permission_denied","message":"no"}')
    done, _ = settle(host, writer, SeqNumMismatch(7), [refused_for_good])
    with pytest.raises(ServiceError, match="permission_denied"):
        done.result()
    assert writer.unacked_batches == 3
