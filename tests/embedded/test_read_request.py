from __future__ import annotations

import pytest

from s2frames.embedded.read_request import ReadRequest, StartFrom, parse_last_event_id
from s2frames.embedded.request import RequestHead
from s2frames.errors import ServiceError
from s2frames.u64 import U64_MAX


def parse(query: str) -> ReadRequest:
    request = ReadRequest.parse(RequestHead.parse("GET", f"/?{query}", {}))
    request.check()
    return request


@pytest.mark.parametrize(
    ("query", "start_from", "start", "clamp"),
    [
        ("", StartFrom.TAIL_OFFSET, 0, False),
        ("seq_num=5", StartFrom.SEQ_NUM, 5, False),
        ("timestamp=0&clamp=true", StartFrom.TIMESTAMP, 0, True),
        (f"tail_offset={U64_MAX}&clamp=false", StartFrom.TAIL_OFFSET, U64_MAX, False),
    ],
)
def test_starts(query: str, start_from: StartFrom, start: int, clamp: bool) -> None:
    request = parse(query)
    assert (request.start_from, request.start, request.clamp) == (start_from, start, clamp)


@pytest.mark.parametrize(
    ("query", "may_follow"),
    [
        ("", True),
        ("wait=0", True),
        ("wait=5", True),
        ("count=5", False),
        ("bytes=5", False),
        ("until=5", False),
        ("count=5&wait=0", False),
        ("count=5&wait=1", True),
        ("until=0&wait=1", True),
    ],
)
def test_what_may_follow(query: str, may_follow: bool) -> None:
    assert parse(query).may_follow is may_follow


@pytest.mark.parametrize(
    "query",
    [
        "seq_num=0&timestamp=0",
        "seq_num=0&tail_offset=0",
        "timestamp=0&tail_offset=0",
        "seq_num=0&timestamp=0&tail_offset=0",
        "timestamp=5&until=5",
        "timestamp=5&until=0",
    ],
)
def test_reads_that_make_no_sense(query: str) -> None:
    with pytest.raises(ServiceError) as raised:
        parse(query)
    assert (raised.value.status, raised.value.code) == (422, "invalid")


@pytest.mark.parametrize(
    "query",
    [
        "seq_num=x",
        "seq_num=0&seq_num=0",
        "count=-1",
        "bytes=1.5",
        "until=",
        f"wait={2**32}",
        "clamp=1",
        "seq_num=0&timestamp=x",
    ],
)
def test_queries_that_are_none(query: str) -> None:
    with pytest.raises(ServiceError) as raised:
        parse(query)
    assert (raised.value.status, raised.value.code) == (400, "bad_query")


def test_a_read_of_one_batch_is_bounded() -> None:
    request = parse("seq_num=0").for_one_batch()
    assert (request.count, request.bytes, request.wait) == (1000, 1_048_576, None)
    assert not request.may_follow
    request = parse("count=5&bytes=7&wait=61").for_one_batch()
    assert (request.count, request.bytes, request.wait) == (5, 7, 60)
    assert request.may_follow
    request = parse("count=1001&bytes=1048577&wait=0").for_one_batch()
    assert (request.count, request.bytes, request.wait) == (1000, 1_048_576, 0)


def test_resuming() -> None:
    request = parse("timestamp=5&until=9&count=10&bytes=100&clamp=true").resumed_after(7, 3, 40)
    assert (request.start_from, request.start) == (StartFrom.SEQ_NUM, 8)
    assert (request.count, request.bytes, request.until) == (7, 60, 9)
    request = parse("count=10&bytes=100").resumed_after(U64_MAX, 11, 101)
    assert (request.start, request.count, request.bytes) == (U64_MAX, 0, 0)
    assert not request.may_follow
    assert parse("").resumed_after(7, 3, 40).may_follow


def last_event_id(value: str | None) -> tuple[int, int, int] | None:
    headers = {} if value is None else {"Last-Event-ID": value}
    return parse_last_event_id(RequestHead.parse("GET", "/", headers))


def test_last_event_ids() -> None:
    assert last_event_id(None) is None
    assert last_event_id("7,3,40") == (7, 3, 40)


@pytest.mark.parametrize(
    "value",
    ["", "7", "7,3", "7,3,40,1", "7,3,x", "7,-3,4", "7,,4", "\u0661,1,1", "9" * 21 + ",1,1"],
)
def test_what_is_no_last_event_id(value: str) -> None:
    with pytest.raises(ServiceError) as raised:
        last_event_id(value)
    assert (raised.value.status, raised.value.code) == (400, "bad_header")
