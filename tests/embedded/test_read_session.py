from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from attrs import evolve

from s2frames.embedded.config import DEFAULT_STREAM_CONFIG, BasinConfig
from s2frames.embedded.read_request import ReadRequest
from s2frames.embedded.read_session import ReadSession
from s2frames.embedded.request import RequestHead
from s2frames.embedded.store import Basin, MemoryStore, StreamInfo
from s2frames.embedded.stream import Stream
from s2frames.errors import RangeNotSatisfiable, ServiceError
from s2frames.records import Record, StreamPosition, trim
from s2frames.u64 import U64_MAX
from s2frames.wire import AppendInput, ReadBatch

KEY = ("basin-one", "stream")


def make_stream(*records: Record) -> Stream:
    """A stream that takes timestamps as they are."""
    store = MemoryStore()
    store.put_basin(Basin(KEY[0], BasinConfig(), 1.0))
    info = StreamInfo(KEY, evolve(DEFAULT_STREAM_CONFIG, uncapped_timestamps=True), 1.0)
    store.put_stream(info)
    stream = Stream(store, info)
    if records:
        append(stream, *records)
    return stream


def append(stream: Stream, *records: Record, now: float = 0.0) -> None:
    stream.append(AppendInput(records), now)


def at(*timestamps: int) -> list[Record]:
    return [Record(timestamp=timestamp) for timestamp in timestamps]


def open_session(stream: Stream, query: str, random: float = 0.5) -> ReadSession:
    request = ReadRequest.parse(RequestHead.parse("GET", f"/?{query}", {}))
    return ReadSession(stream, request, lambda: random)


#: A batch in short: the sequence numbers, and the tail's.
Short = tuple[list[int], int | None]


def short(batch: ReadBatch | None) -> Short | None:
    if batch is None:
        return None
    tail = None if batch.tail is None else batch.tail.seq_num
    return [record.seq_num for record in batch.records], tail


def take(session: ReadSession, now: float = 0.0) -> list[Short]:
    """All batches that there are now."""
    batches: list[Short] = []
    while (batch := short(session.next_batch(now))) is not None:
        batches.append(batch)
    return batches


STARTS: list[tuple[str, list[int] | None]] = [
    ("seq_num=0", [0, 1, 2, 3]),
    ("seq_num=3", [3]),
    ("seq_num=4", None),
    ("seq_num=5", None),
    ("seq_num=5&clamp=true", None),
    (f"seq_num={U64_MAX}&clamp=true", None),
    ("tail_offset=1", [3]),
    ("tail_offset=4", [0, 1, 2, 3]),
    (f"tail_offset={U64_MAX}", [0, 1, 2, 3]),
    ("tail_offset=0", None),
    ("", None),
    ("timestamp=0", [0, 1, 2, 3]),
    ("timestamp=10", [0, 1, 2, 3]),
    ("timestamp=11", [2, 3]),
    ("timestamp=30", [3]),
    ("timestamp=31", None),
    ("timestamp=31&clamp=true", None),
]


@pytest.mark.parametrize(("query", "expected"), STARTS)
def test_where_a_bounded_read_starts(query: str, expected: list[int] | None) -> None:
    stream = make_stream(*at(10, 10, 20, 30))
    query += "&count=100"
    if expected is None:
        with pytest.raises(RangeNotSatisfiable) as raised:
            open_session(stream, query)
        assert raised.value.tail == StreamPosition(4, 30)
        return
    session = open_session(stream, query)
    assert short(session.next_batch(0.0)) == (expected, None)
    assert session.ended
    assert session.next_batch(0.0) is None


@pytest.mark.parametrize(
    ("query", "is_beyond"),
    [
        ("seq_num=4", False),
        ("seq_num=5", True),
        ("seq_num=5&clamp=true", False),
        ("timestamp=30", False),
        ("timestamp=31", True),
        ("timestamp=31&clamp=true", False),
        ("tail_offset=0", False),
    ],
)
def test_where_a_following_read_starts(query: str, is_beyond: bool) -> None:
    stream = make_stream(*at(10, 10, 20, 30))
    if is_beyond:
        with pytest.raises(RangeNotSatisfiable):
            open_session(stream, query)
    else:
        assert take(open_session(stream, query))[-1] == ([], 4)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("count=2", [0, 1]),
        ("count=4", [0, 1, 2, 3]),
        ("bytes=8", [0]),
        ("bytes=15", [0]),
        ("bytes=16", [0, 1]),
        ("count=3&bytes=8", [0]),
        ("until=11", [0, 1]),
        ("until=30", [0, 1, 2]),
        ("until=31", [0, 1, 2, 3]),
        (f"until={U64_MAX}", [0, 1, 2, 3]),
        ("count=1&until=20", [0]),
        ("count=2&wait=5", [0, 1]),
        ("until=20&wait=5", [0, 1]),
    ],
)
def test_limits_end_a_read_with_its_last_batch(query: str, expected: list[int]) -> None:
    session = open_session(make_stream(*at(10, 10, 20, 30)), "seq_num=0&" + query)
    assert short(session.next_batch(0.0)) == (expected, None)
    assert session.ended


@pytest.mark.parametrize("query", ["count=0", "bytes=0", "bytes=7", "until=10", "until=0"])
@pytest.mark.parametrize("wait", ["", "&wait=5"])
def test_limits_that_allow_no_record(query: str, wait: str) -> None:
    session = open_session(make_stream(*at(10, 20)), "seq_num=0&" + query + wait)
    assert session.next_batch(0.0) is None
    assert session.ended


def test_batches_have_a_thousand_records_or_a_mebibyte() -> None:
    stream = make_stream(*at(*[1] * 1000))
    append(stream, *at(*[1] * 500))
    append(stream, Record(bytes(1_048_568)))
    append(stream, Record(bytes(524_280)), Record(bytes(524_280)))
    append(stream, Record(b"x"))
    found = [batch[0] for batch in take(open_session(stream, "seq_num=0&count=5000"))]
    assert [len(batch) for batch in found] == [1000, 500, 1, 2, 1]
    assert list(chain.from_iterable(found)) == list(range(1504))


def test_a_batch_has_no_more_headers_than_a_message_can_hold() -> None:
    many = Record(b"", ((b"n", b""),) * 40_000)
    stream = make_stream(many, Record())
    append(stream, many)
    assert take(open_session(stream, "seq_num=0&count=9")) == [([0, 1], None), ([2], None)]


def test_a_bounded_read_ends_where_the_tail_was() -> None:
    stream = make_stream(*at(1, 1))
    session = open_session(stream, "seq_num=0&count=100")
    append(stream, *at(2))
    assert take(session) == [([0, 1], None)]
    assert session.ended


def test_catching_up_then_following() -> None:
    stream = make_stream(*at(1, 1))
    session = open_session(stream, "seq_num=0")
    assert short(session.next_batch(0.0)) == ([0, 1], None)
    append(stream, *at(2))
    # No tail before the session follows; then a heartbeat at once.
    assert take(session) == [([2], None), ([], 3)]
    append(stream, *at(3, 3))
    assert take(session) == [([3, 4], 5)]
    assert take(session) == []
    assert not session.ended


def test_a_follower_that_lags_catches_up_and_follows_again() -> None:
    stream = make_stream()
    session = open_session(stream, "seq_num=0")
    assert take(session) == [([], 0)]
    for _ in range(3):
        append(stream, *at(*[1] * 600))
    found = take(session)
    assert [(len(b[0]), b[1]) for b in found] == [(1000, None), (800, None), (0, 1800)]
    append(stream, *at(2))
    assert take(session) == [([1800], 1801)]


@pytest.mark.parametrize("query", ["count=2&wait=9", "bytes=16&wait=9", "until=2&wait=9"])
def test_limits_end_a_follower(query: str) -> None:
    stream = make_stream()
    session = open_session(stream, "seq_num=0&" + query)
    assert take(session) == [([], 0)]
    append(stream, *at(1))
    assert take(session) == [([0], 1)]
    append(stream, *at(1, 2, 2))
    assert take(session) == [([1], 4)]
    assert session.ended


def test_a_record_that_a_follower_may_not_have_ends_it() -> None:
    stream = make_stream()
    session = open_session(stream, "seq_num=0&until=5&wait=9")
    take(session)
    append(stream, *at(5))
    assert take(session) == []
    assert session.ended


# Time


@pytest.mark.parametrize(("random", "delay"), [(0.0, 5.0), (0.5, 10.0), (0.75, 12.5)])
def test_heartbeats(random: float, delay: float) -> None:
    stream = make_stream(*at(1))
    session = open_session(stream, "", random)
    assert session.next_timeout() is None
    assert take(session, 100.0) == [([], 1)]
    assert session.next_timeout() == 100.0 + delay
    session.handle_timeout(100.0 + delay - 0.001)
    assert take(session, 100.0 + delay) == []
    session.handle_timeout(100.0 + delay)
    assert session.next_timeout() == 100.0 + 2 * delay
    assert take(session, 100.0 + delay) == [([], 1)]
    assert take(session, 100.0 + delay) == []


def test_heartbeats_do_not_pile_up() -> None:
    session = open_session(make_stream(), "")
    take(session, 0.0)
    for now in (20.0, 40.0, 60.0):
        session.handle_timeout(now)
    assert take(session, 60.0) == [([], 0)]


def test_records_put_off_the_heartbeat() -> None:
    stream = make_stream()
    session = open_session(stream, "")
    take(session, 0.0)
    append(stream, *at(1), now=7.0)
    assert session.next_timeout() is None  # there is something to send
    session.handle_timeout(11.0)
    assert take(session, 11.0) == [([0], 1)]
    assert session.next_timeout() == 21.0


def test_no_heartbeat_while_catching_up() -> None:
    session = open_session(make_stream(*at(*[1] * 1000)), "seq_num=0")
    session.handle_timeout(100.0)
    assert session.next_timeout() is None
    assert [b[0][:1] for b in take(session, 100.0)] == [[0], []]


def test_a_wait_ends_the_session() -> None:
    session = open_session(make_stream(*at(1)), "wait=3")
    assert take(session, 100.0) == [([], 1)]
    assert session.next_timeout() == 103.0
    session.handle_timeout(102.9)
    assert not session.ended
    session.handle_timeout(103.0)
    assert session.ended
    assert session.next_timeout() is None
    assert take(session, 103.0) == []


def test_only_records_start_the_wait_anew() -> None:
    stream = make_stream()
    session = open_session(stream, "wait=12")
    take(session, 0.0)
    session.handle_timeout(10.0)
    assert take(session, 10.0) == [([], 0)]  # a heartbeat
    assert session.next_timeout() == 12.0
    append(stream, *at(1), now=11.0)
    assert take(session, 11.0) == [([0], 1)]
    session.handle_timeout(22.9)
    assert not session.ended
    session.handle_timeout(23.0)
    assert session.ended


def test_records_that_are_there_come_before_the_end_of_the_wait() -> None:
    stream = make_stream()
    session = open_session(stream, "wait=3")
    take(session, 0.0)
    append(stream, *at(1), now=2.0)
    session.handle_timeout(50.0)
    assert take(session, 50.0) == [([0], 1)]
    assert session.next_timeout() == 53.0


def test_without_a_wait_a_session_ends_at_the_tail() -> None:
    session = open_session(make_stream(*at(1)), "seq_num=0&wait=0")
    assert take(session) == [([0], None)]
    assert session.ended
    session = open_session(make_stream(), "wait=0")
    assert not session.ended
    assert take(session) == []
    assert session.ended


def test_catching_up_counts_towards_the_wait() -> None:
    stream = make_stream(*at(1))
    session = open_session(stream, "seq_num=0&wait=3")
    assert short(session.next_batch(0.0)) == ([0], None)
    assert session.next_batch(3.0) is None
    assert session.ended


# Trimming and deleting


def test_a_read_below_the_trim_point_starts_at_what_is_left() -> None:
    stream = make_stream(*at(1, 1, 1, 2))
    append(stream, trim(2))
    assert take(open_session(stream, "seq_num=0&count=9")) == [([2, 3, 4], None)]
    assert take(open_session(stream, "timestamp=0&count=1")) == [([2], None)]


def test_a_stream_that_was_trimmed_empty() -> None:
    stream = make_stream(*at(1, 1))
    append(stream, trim(U64_MAX))
    assert take(open_session(stream, "seq_num=0&count=9")) == []
    assert open_session(stream, "seq_num=0&count=9").next_batch(0.0) is None
    assert take(open_session(stream, "seq_num=0")) == [([], 3)]
    with pytest.raises(RangeNotSatisfiable):
        open_session(stream, "timestamp=0&count=9")
    assert take(open_session(stream, "timestamp=0")) == [([], 3)]


def test_trimming_while_a_session_catches_up() -> None:
    stream = make_stream(*at(*[1] * 1000))
    append(stream, *at(*[1] * 1000))
    session = open_session(stream, "seq_num=0&count=5000")
    assert short(session.next_batch(0.0)) == (list(range(1000)), None)
    append(stream, trim(1500))
    assert take(session) == [(list(range(1500, 2000)), None)]


def test_a_follower_hears_of_a_tail_whose_records_were_trimmed() -> None:
    stream = make_stream()
    session = open_session(stream, "")
    take(session)
    append(stream, *at(1), trim(U64_MAX))
    assert take(session) == [([], 2)]
    append(stream, *at(2))
    assert take(session) == [([2], 3)]


@pytest.mark.parametrize("query", ["seq_num=0", "seq_num=0&count=9", "tail_offset=0"])
def test_a_deleted_stream_ends_its_readers(query: str) -> None:
    stream = make_stream(*at(1))
    session = open_session(stream, query)
    stream.mark_deleted(1.0)
    with pytest.raises(ServiceError) as raised:
        session.next_batch(1.0)
    assert raised.value.code == "stream_not_found"


def test_a_read_is_lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make_stream(*at(*[1] * 1000))
    seen: list[int] = []
    read: Any = stream.read

    def counted_read(start: int, end: int) -> Any:
        for record in read(start, end):
            seen.append(record.seq_num)
            yield record

    monkeypatch.setattr(stream, "read", counted_read)
    session = open_session(stream, "seq_num=0&count=10")
    assert seen == []
    session.next_batch(0.0)
    assert len(seen) == 11
