from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from frames import numbered, place
from s2frames.events import FramesDurable
from s2frames.reconcile import Finding, Reconciliation
from s2frames.records import Record, SequencedRecord, fence, trim
from s2frames.writer import Batch, FrameWriter


def losing(num_batches: int = 3, more: int = 0) -> tuple[FrameWriter, list[Batch]]:
    """An exclusive writer that lost batches of two records; more messages wait."""
    writer = FrameWriter("w", match_seq_num=10)
    batches = []
    for number in range(num_batches):
        writer.send_many([b"%d" % number, b"x"])
        batches += writer.batches_to_send(flush=True)
    writer.send_many([b"more"] * more)
    writer.connection_lost()
    return writer, batches


def records_of(batches: Sequence[Batch], start: int = 10) -> list[SequencedRecord]:
    return place([record for batch in batches for record in batch.records], start, timestamp=5)


def settle(
    writer: FrameWriter, records: Sequence[SequencedRecord], end: int, piece: int = 1000
) -> tuple[Reconciliation, list[FramesDurable]]:
    reconciliation = writer.reconcile()
    for at in range(0, len(records), piece):
        if not reconciliation.take(records[at : at + piece]):
            break
    reconciliation.finish(end)
    return reconciliation, reconciliation.durable()


@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
@pytest.mark.parametrize("num_landed", range(4))
def test_whole_batches_have_landed(num_landed: int, piece: int) -> None:
    writer, batches = losing()
    records = records_of(batches[:num_landed])
    end = 10 + len(records)
    found, durable = settle(writer, records, end, piece)
    assert (found.finding, found.next_seq_num, found.has_moved) == (Finding.OURS, end, False)
    assert [(e.first_frame, e.num_frames) for e in durable] == [
        (2 * n, 2) for n in range(num_landed)
    ]
    assert [e.ack.start.seq_num for e in durable] == [10 + 2 * n for n in range(num_landed)]
    assert [e.ack.end.seq_num for e in durable] == [12 + 2 * n for n in range(num_landed)]
    assert {e.ack.end.timestamp for e in durable} <= {5}
    # It is told once.
    assert found.durable() == []
    left = writer.batches_to_send(flush=True)
    assert all(a is b for a, b in zip(left, batches[num_landed:], strict=True))


@pytest.mark.parametrize("at", [0, 2, 4, 6])
@pytest.mark.parametrize("piece", [1, 1000])
def test_trims_between_batches_move_the_rest(at: int, piece: int) -> None:
    writer, batches = losing(more=1)
    plain: list[Record] = [record for batch in batches for record in batch.records]
    records = place([*plain[:at], trim(1), trim(0)], 10)
    found, durable = settle(writer, records, 12 + at, piece)
    assert (found.finding, found.has_moved) == (Finding.OURS, True)
    assert len(durable) == at // 2
    left = writer.batches_to_send(flush=True)
    places = [batch.match_seq_num for batch in left]
    assert places == [12 + at + 2 * n for n in range(len(left))]
    assert [batch.records for batch in left[:-1]] == [b.records for b in batches[at // 2 :]]
    assert left[-1].records[-1].body == b"more"


def changed(**changes: Any) -> Callable[[SequencedRecord], SequencedRecord]:
    return lambda record: evolve(record, **changes)


CHANGES: list[tuple[Callable[[SequencedRecord], SequencedRecord], Finding]] = [
    (changed(body=b"?"), Finding.CONFLICT),
    (changed(body=b""), Finding.CONFLICT),
    (changed(headers=()), Finding.FOREIGN),
    (changed(headers=numbered(0, "w")), Finding.CONFLICT),
    (changed(headers=numbered(0, "v")), Finding.FOREIGN),
    (changed(headers=((b"", b"fence"),), body=b"t"), Finding.FOREIGN),
    # Not the command, whatever its name.
    (changed(headers=((b"", b"trim"), (b"a", b""))), Finding.FOREIGN),
    (changed(headers=((b"trim", b""),)), Finding.FOREIGN),
]


@pytest.mark.parametrize("piece", [1, 1000])
@pytest.mark.parametrize(("change", "finding"), CHANGES)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_another_record_at_the_start_of_a_batch(
    change: Callable[[SequencedRecord], SequencedRecord], finding: Finding, at: int, piece: int
) -> None:
    writer, batches = losing()
    records = records_of(batches)
    records[at] = change(records[at])
    found, durable = settle(writer, records, 16, piece)
    assert (found.finding, found.next_seq_num) == (finding, 10 + at)
    assert len(durable) == at // 2
    # The places are left as they were.
    assert [b.match_seq_num for b in writer.batches_to_send()] == list(range(10 + at, 16, 2))


@pytest.mark.parametrize(("change", "_finding"), CHANGES)
@pytest.mark.parametrize("command", [None, trim(0), fence("t")])
def test_another_record_inside_a_batch(
    change: Callable[[SequencedRecord], SequencedRecord], _finding: Finding, command: Record | None
) -> None:
    writer, batches = losing()
    records = records_of(batches)
    records[1] = change(records[1]) if command is None else place([command], 11)[0]
    found, durable = settle(writer, records, 16)
    assert (found.finding, durable) == (Finding.CONFLICT, [])


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_part_of_a_batch_at_the_end(at: int) -> None:
    writer, batches = losing()
    found, durable = settle(writer, records_of(batches)[:at], 10 + at)
    assert found.finding is Finding.CONFLICT
    assert len(durable) == at // 2


@pytest.mark.parametrize("missing", range(6))
def test_a_gap(missing: int) -> None:
    writer, batches = losing()
    records = records_of(batches)
    del records[missing]
    found, durable = settle(writer, records, 16)
    assert found.finding is Finding.TRIMMED
    assert len(durable) == missing // 2


@pytest.mark.parametrize("more", [0, 1])
def test_records_after_the_last_batch(more: int) -> None:
    writer, batches = losing(more=more)
    records = [*records_of(batches), *place([Record(b"x")], 16)]
    found, durable = settle(writer, records, 17)
    assert found.finding is (Finding.FOREIGN if more else Finding.OURS)
    assert len(durable) == 3


@given(st.lists(st.integers(0, 3), max_size=4), st.integers(0, 3), st.integers(1, 9))
def test_any_number_of_trims_anywhere(trims: list[int], num_landed: int, piece: int) -> None:
    writer, batches = losing()
    plain: list[Record] = []
    places = []
    for number, batch in enumerate(batches[:num_landed]):
        plain += [trim(0)] * trims.count(number)
        places.append(10 + len(plain))
        plain += batch.records
    plain += [trim(0)] * trims.count(num_landed)
    found, durable = settle(writer, place(plain, 10), 10 + len(plain), piece)
    assert found.finding is Finding.OURS
    assert [event.ack.start.seq_num for event in durable] == places
    assert writer.next_unacked_seq_num == 10 + len(plain)
