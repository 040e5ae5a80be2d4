from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.embedded.append_rules import (
    MAX_HEADERS,
    apply_commands,
    check_batch,
    check_conditions,
    sequence,
)
from s2frames.embedded.config import DEFAULT_STREAM_CONFIG, StreamConfig
from s2frames.embedded.store import StreamState
from s2frames.errors import FencingTokenMismatch, SeqNumMismatch, ServiceError
from s2frames.records import (
    MAX_BATCH_BYTES,
    Header,
    Record,
    SequencedRecord,
    StreamPosition,
    fence,
    trim,
)
from s2frames.s2s import MAX_BODY_BYTES
from s2frames.u64 import U64_MAX
from s2frames.wire import AppendInput, ReadBatch, encode_read_batch


def command(name: bytes, payload: bytes = b"") -> Record:
    return Record(payload, ((b"", name),))


@pytest.mark.parametrize(
    "batch",
    [
        [Record()],
        [Record()] * 1000,
        [Record(bytes(MAX_BATCH_BYTES - 8))],
        [Record(bytes(MAX_BATCH_BYTES // 2 - 8))] * 2,
        [Record(b"", ((b"n", bytes(MAX_BATCH_BYTES - 11)),))],
        [Record(b"", ((b"n", b""),) * MAX_HEADERS)],
        [fence(""), fence("t" * 36), trim(0), trim(U64_MAX)],
    ],
    ids=range(7),
)
def test_batches_at_the_limits_are_allowed(batch: list[Record]) -> None:
    check_batch(AppendInput(batch))


@pytest.mark.parametrize(
    "batch",
    [
        [],
        [Record()] * 1001,
        [Record(bytes(MAX_BATCH_BYTES - 7))],
        [Record(bytes(MAX_BATCH_BYTES // 2 - 8)), Record(bytes(MAX_BATCH_BYTES // 2 - 7))],
        [Record(b"", ((b"n", b""),) * (MAX_HEADERS + 1))],
        [Record(b"", ((b"", b""), (b"n", b"")))],
        [Record(b"", ((b"n", b""), (b"", b"fence")))],
        [command(b"")],
        [command(b"Fence")],
        [command(b"fence", b"t" * 37)],
        [command(b"fence", b"\xff")],
        [command(b"trim")],
        [command(b"trim", bytes(7))],
        [command(b"trim", bytes(9))],
        [Record(), command(b"stop")],
    ],
    ids=range(15),
)
def test_batches_beyond_the_limits_are_invalid(batch: list[Record]) -> None:
    with pytest.raises(ServiceError) as raised:
        check_batch(AppendInput(batch))
    assert (raised.value.status, raised.value.code) == (422, "invalid")


def test_a_fencing_token_has_36_bytes_at_most() -> None:
    check_batch(AppendInput([Record()], fencing_token="\u00e9" * 18))
    with pytest.raises(ServiceError) as raised:
        check_batch(AppendInput([Record()], fencing_token="\u00e9" * 18 + "e"))
    assert raised.value.status == 422


def test_the_largest_batch_fits_a_message() -> None:
    # The number of headers is why: each costs protobuf more than it is metered for.
    value = bytes((MAX_BATCH_BYTES - 8) // MAX_HEADERS - 3)
    headers: tuple[Header, ...] = ((b"n", value),) * MAX_HEADERS
    check_batch(AppendInput([Record(b"", headers)]))
    record = SequencedRecord(U64_MAX, U64_MAX, headers)
    assert len(encode_read_batch(ReadBatch([record], StreamPosition(1, 1)))) <= MAX_BODY_BYTES


STATE = StreamState(StreamPosition(5, 100), "token")


@pytest.mark.parametrize(
    ("match_seq_num", "token", "error"),
    [
        (None, None, None),
        (5, None, None),
        (None, "token", None),
        (5, "token", None),
        (4, None, SeqNumMismatch),
        (0, "token", SeqNumMismatch),
        (None, "", FencingTokenMismatch),
        (5, "other", FencingTokenMismatch),
        (U64_MAX, "other", FencingTokenMismatch),
    ],
)
def test_conditions(
    match_seq_num: int | None, token: str | None, error: type[ServiceError] | None
) -> None:
    batch = AppendInput([Record()], match_seq_num, token)
    if error is None:
        check_conditions(batch, STATE)
        return
    with pytest.raises(error) as raised:
        check_conditions(batch, STATE)
    assert raised.value.expected == (5 if error is SeqNumMismatch else "token")  # type: ignore[attr-defined]


def test_an_empty_token_is_a_condition_too() -> None:
    check_conditions(AppendInput([Record()], fencing_token=""), StreamState())


NOW = 1000


@pytest.mark.parametrize(
    ("mode", "uncapped", "given_timestamps", "expected"),
    [
        ("client-prefer", False, [None, 5, 200], [NOW, NOW, NOW]),
        ("client-prefer", False, [200, 150, 300], [200, 200, 300]),
        ("client-prefer", False, [5, 2000], [100, NOW]),
        ("client-prefer", True, [2000, None, 1500], [2000, 2000, 2000]),
        ("client-prefer", True, [U64_MAX], [U64_MAX]),
        ("client-require", False, [200, 2000], [200, NOW]),
        ("client-require", True, [200, 2000], [200, 2000]),
        ("arrival", False, [200, None], [NOW, NOW]),
        ("arrival", True, [2000, None], [NOW, NOW]),
    ],
)
def test_timestamps(
    mode: str, uncapped: bool, given_timestamps: list[int | None], expected: list[int]
) -> None:
    config = StreamConfig(timestamping_mode=mode, uncapped_timestamps=uncapped)
    records = [Record(timestamp=timestamp) for timestamp in given_timestamps]
    sequenced = sequence(records, StreamPosition(7, 100), config, NOW)
    assert [record.timestamp for record in sequenced] == expected
    assert [record.seq_num for record in sequenced] == list(range(7, 7 + len(expected)))


def test_a_required_timestamp_that_is_missing() -> None:
    config = StreamConfig(timestamping_mode="client-require")
    with pytest.raises(ServiceError) as raised:
        sequence([Record(timestamp=1), Record()], StreamPosition(0, 0), config, NOW)
    assert (raised.value.status, raised.value.code) == (422, "invalid")


@given(st.lists(st.none() | st.integers(0, U64_MAX), min_size=1), st.integers(0, U64_MAX))
def test_time_never_goes_back(timestamps: list[int | None], last: int) -> None:
    records = [Record(timestamp=timestamp) for timestamp in timestamps]
    sequenced = sequence(records, StreamPosition(0, last), DEFAULT_STREAM_CONFIG, NOW)
    found = [last] + [record.timestamp for record in sequenced]
    assert found == sorted(found)


def sequenced(*records: Record) -> list[SequencedRecord]:
    return sequence(records, STATE.tail, DEFAULT_STREAM_CONFIG, NOW)


@pytest.mark.parametrize(
    ("records", "token", "trim_point"),
    [
        ([Record()], "token", 0),
        ([fence("new")], "new", 0),
        ([fence("new"), Record(), fence("")], "", 0),
        ([trim(3)], "token", 3),
        ([trim(3), trim(2)], "token", 3),
        ([trim(6)], "token", 6),
        ([trim(7)], "token", 6),
        ([Record(), trim(U64_MAX), Record()], "token", 7),
        ([trim(0)], "token", 0),
    ],
)
def test_commands(records: list[Record], token: str, trim_point: int) -> None:
    state = apply_commands(sequenced(*records), STATE)
    assert state == StreamState(StreamPosition(5 + len(records), NOW), token, trim_point)
