from __future__ import annotations

import pytest

from s2frames.embedded.config import DEFAULT_STREAM_CONFIG, BasinConfig
from s2frames.embedded.store import Basin, MemoryStore, StreamInfo
from s2frames.embedded.stream import Stream
from s2frames.errors import SeqNumMismatch, ServiceError
from s2frames.records import AppendAck, Record, StreamPosition, fence, trim
from s2frames.wire import AppendInput

KEY = ("basin-one", "stream")


def make_stream() -> tuple[MemoryStore, Stream]:
    store = MemoryStore()
    store.put_basin(Basin(KEY[0], BasinConfig(), 1.0))
    info = StreamInfo(KEY, DEFAULT_STREAM_CONFIG, 1.0)
    store.put_stream(info)
    return store, Stream(store, info)


def test_acks_give_positions() -> None:
    _, stream = make_stream()
    start, end = StreamPosition(0, 1500), StreamPosition(2, 1500)
    assert stream.append(AppendInput([Record(b"a"), Record(b"b")]), 1.5) == AppendAck(
        start, end, end
    )
    start, end = StreamPosition(2, 2000), StreamPosition(3, 2000)
    assert stream.append(AppendInput([Record(b"c")]), 2.0) == AppendAck(start, end, end)
    assert stream.tail == end
    assert [(r.seq_num, r.body) for r in stream.read(1, 9)] == [(1, b"b"), (2, b"c")]
    assert stream.find_timestamp(1501) == 2


def test_a_batch_that_fails_changes_nothing() -> None:
    store, stream = make_stream()
    stream.append(AppendInput([Record(b"a")]), 1.0)
    before = store.state(KEY)
    with pytest.raises(SeqNumMismatch):
        stream.append(AppendInput([fence("new"), trim(1)], match_seq_num=7), 2.0)
    assert store.state(KEY) == before
    assert stream.tail == before.tail
    assert len(list(stream.read(0, 9))) == 1


def test_a_stream_goes_on_from_its_store() -> None:
    store, stream = make_stream()
    stream.append(AppendInput([Record(b"a"), fence("token")]), 1.0)
    again = Stream(store, stream.info)
    assert again.tail == StreamPosition(2, 1000)
    with pytest.raises(ServiceError, match="fencing_token"):
        again.append(AppendInput([Record()], fencing_token="other"), 1.0)


def test_followers_are_told_in_the_order_they_came() -> None:
    _, stream = make_stream()
    calls: list[tuple[str, float]] = []

    def first(now: float) -> None:
        calls.append(("first", now))
        stream.unfollow(second)
        stream.follow(third)

    def second(now: float) -> None:
        calls.append(("second", now))

    def third(now: float) -> None:
        calls.append(("third", now))

    stream.follow(first)
    stream.follow(second)
    stream.append(AppendInput([Record()]), 1.0)
    assert calls == [("first", 1.0)]
    stream.append(AppendInput([Record()]), 2.0)
    assert calls[1:] == [("first", 2.0), ("third", 2.0)]
    stream.unfollow(first)
    stream.unfollow(first)
    stream.append(AppendInput([Record()]), 3.0)
    assert calls[3:] == [("third", 3.0)]


def test_followers_see_the_records_when_they_are_told() -> None:
    _, stream = make_stream()
    tails: list[StreamPosition] = []
    stream.follow(lambda _now: tails.append(stream.tail))
    stream.append(AppendInput([Record(), Record()]), 1.0)
    assert tails == [StreamPosition(2, 1000)]


def test_a_deleted_stream_takes_nothing_and_says_so() -> None:
    _, stream = make_stream()
    calls: list[float] = []
    stream.follow(calls.append)
    stream.mark_deleted(3.0)
    assert calls == [3.0]
    for use in (stream.check_exists, lambda: stream.append(AppendInput([Record()]), 4.0)):
        with pytest.raises(ServiceError) as raised:
            use()
        assert (raised.value.status, raised.value.code) == (404, "stream_not_found")
