from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve

from s2frames.embedded.config import DEFAULT_STREAM_CONFIG, BasinConfig
from s2frames.embedded.store import Basin, Store, StreamInfo, StreamState
from s2frames.records import SequencedRecord, StreamPosition

KEY = ("basin-one", "stream")

MakeStore = Callable[[], Store]


def put_basins(store: Store, *names: str) -> None:
    for name in names:
        store.put_basin(Basin(name, BasinConfig(), 1.0))


def put_stream(store: Store, name: str, basin: str = KEY[0]) -> StreamInfo:
    info = StreamInfo((basin, name), DEFAULT_STREAM_CONFIG, 1.0)
    store.put_stream(info)
    return info


def append(store: Store, *timestamps: int, trim_point: int = 0) -> list[SequencedRecord]:
    state = store.state(KEY)
    first = state.tail.seq_num
    records = [
        SequencedRecord(first + i, timestamp, (), b"body %d" % (first + i))
        for i, timestamp in enumerate(timestamps)
    ]
    tail = StreamPosition(first + len(records), timestamps[-1])
    store.append(KEY, records, StreamState(tail, "token", max(trim_point, state.trim_point)))
    return records


def make_stream(make_store: MakeStore) -> Store:
    store = make_store()
    put_basins(store, KEY[0])
    put_stream(store, KEY[1])
    return store


def test_basins(make_store: MakeStore) -> None:
    store = make_store()
    assert store.basin("basin-one") is None
    put_basins(store, "basin-two", "basin-one", "casino-one")
    basin = store.basin("basin-one")
    assert basin == Basin("basin-one", BasinConfig(), 1.0)
    assert basin is not None
    store.put_basin(evolve(basin, config=BasinConfig(create_stream_on_read=True)))
    changed = store.basin("basin-one")
    assert changed is not None
    assert changed.config.create_stream_on_read
    store.delete_basin("basin-one")
    assert store.basin("basin-one") is None


@pytest.mark.parametrize(
    ("prefix", "start_after", "expected"),
    [
        ("", "", ["", "a", "a/b", "b", "\u00e9", "\uffff", "\U0001f600"]),
        ("a", "", ["a", "a/b"]),
        ("a", "a", ["a/b"]),
        ("b", "a", ["b"]),
        ("a", "b", []),
        ("", "b", ["\u00e9", "\uffff", "\U0001f600"]),
        ("c", "", []),
    ],
)
def test_names_are_listed_as_bytes_sort(
    make_store: MakeStore, prefix: str, start_after: str, expected: list[str]
) -> None:
    store = make_store()
    put_basins(store, "basin-one", "basin-two")
    names = ["\U0001f600", "b", "\uffff", "a/b", "\u00e9", "a"]
    for name in names:
        put_stream(store, name)
    put_stream(store, "elsewhere", "basin-two")
    found = [info.key[1] for info in store.streams("basin-one", prefix, start_after)]
    assert found == [name for name in expected if name]
    assert list(store.streams("no-such-basin", "", "")) == []
    assert [b.name for b in store.basins("basin", "basin-one")] == ["basin-two"]


def test_replacing_a_stream_keeps_its_records(make_store: MakeStore) -> None:
    store = make_stream(make_store)
    records = append(store, 1, 2)
    info = store.stream(KEY)
    assert info is not None
    store.put_stream(evolve(info, creation_key="other"))
    assert list(store.read(KEY, 0, 10)) == records
    store.delete_stream(KEY)
    assert store.stream(KEY) is None
    put_stream(store, KEY[1])
    assert store.state(KEY) == StreamState()
    assert list(store.read(KEY, 0, 10)) == []


def test_deleting_a_basin_deletes_its_streams(make_store: MakeStore) -> None:
    store = make_stream(make_store)
    append(store, 1)
    store.delete_basin(KEY[0])
    assert store.stream(KEY) is None
    put_basins(store, KEY[0])
    assert store.stream(KEY) is None


def test_state_and_records_go_together(make_store: MakeStore) -> None:
    store = make_stream(make_store)
    assert store.state(KEY) == StreamState()
    append(store, 5, 6)
    append(store, 6)
    assert store.state(KEY) == StreamState(StreamPosition(3, 6), "token", 0)
    assert [record.body for record in store.read(KEY, 0, 3)] == [b"body 0", b"body 1", b"body 2"]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 5, [2, 3, 4]),
        (0, 3, [2]),
        (3, 4, [3]),
        (4, 99, [4]),
        (5, 99, []),
        (0, 2, []),
        (3, 3, []),
    ],
)
def test_reading_what_is_left(
    make_store: MakeStore, start: int, end: int, expected: list[int]
) -> None:
    store = make_stream(make_store)
    append(store, 1, 1, 1)
    append(store, 1, 1, trim_point=2)
    assert [record.seq_num for record in store.read(KEY, start, end)] == expected


def test_a_stream_may_be_trimmed_empty_and_go_on(make_store: MakeStore) -> None:
    store = make_stream(make_store)
    append(store, 1, 2, trim_point=2)
    assert list(store.read(KEY, 0, 9)) == []
    assert store.find_timestamp(KEY, 0) is None
    append(store, 3)
    assert [record.seq_num for record in store.read(KEY, 0, 9)] == [2]


@pytest.mark.parametrize(
    ("timestamp", "expected"), [(0, 1), (10, 1), (11, 2), (20, 2), (21, 4), (30, 4), (31, None)]
)
def test_finding_a_timestamp(make_store: MakeStore, timestamp: int, expected: int | None) -> None:
    store = make_stream(make_store)
    append(store, 10, 10, 20, 20, 30, trim_point=1)
    assert store.find_timestamp(KEY, timestamp) == expected


def test_reading_is_lazy(make_store: MakeStore) -> None:
    store = make_stream(make_store)
    append(store, *[1] * 1000)
    assert next(store.read(KEY, 7, 10**9)).seq_num == 7
