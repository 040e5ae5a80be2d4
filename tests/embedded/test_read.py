from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from embedded.host import (
    BASIN,
    EPOCH,
    EVENTS,
    PROTOBUF,
    RECORDS,
    S2S,
    Host,
    drain,
    drain_batches,
    drain_messages,
    finish,
    make_host,
    seq_nums,
)
from s2_bodies import bodies
from s2frames.embedded import Exchange
from s2frames.records import Record, SequencedRecord, StreamPosition
from s2frames.s2s import Message, Terminal
from s2frames.wire import ReadBatch, decode_read_batch

NOW = int(EPOCH * 1000)


def host_with(*texts: str) -> Host:
    host = make_host()
    if texts:
        host.append_ok(*bodies(*texts))
    return host


# One batch


def test_one_batch_in_json() -> None:
    host = host_with("a", "b")
    reply = host.send("GET", f"{RECORDS}?seq_num=0")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {
        "records": [
            {"seq_num": 0, "timestamp": NOW, "body": "a"},
            {"seq_num": 1, "timestamp": NOW, "body": "b"},
        ]
    }


def test_one_batch_in_protobuf() -> None:
    host = host_with("a")
    reply = host.send("GET", f"{RECORDS}?seq_num=0", PROTOBUF)
    assert reply.headers["content-type"] == "application/protobuf"
    expected = ReadBatch([SequencedRecord(0, NOW, (), b"a")])
    assert decode_read_batch(reply.body) == expected


def test_one_batch_is_bounded() -> None:
    host = host_with(*["x"] * 1000)
    host.append_ok(*bodies("y"))
    assert len(host.send("GET", f"{RECORDS}?seq_num=0").json["records"]) == 1000
    assert len(host.send("GET", f"{RECORDS}?seq_num=0&bytes=100").json["records"]) == 11


def test_a_bound_that_allows_nothing_gives_nothing() -> None:
    host = host_with("a")
    for query in ("bytes=8", "until=5", "count=0"):
        assert host.send("GET", f"{RECORDS}?seq_num=0&{query}").json == {"records": []}


def test_a_large_answer_is_compressed() -> None:
    host = host_with("x" * 5000)
    reply = host.send("GET", f"{RECORDS}?seq_num=0", {"accept-encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(reply.body))["records"][0]["body"] == "x" * 5000


@pytest.mark.parametrize("query", ["count=0", "seq_num=9&count=0", "timestamp=9&bytes=0&wait=1"])
def test_a_read_of_nothing_starts_nowhere(query: str) -> None:
    host = host_with("a")
    assert host.send("GET", f"{RECORDS}?{query}").json == {"records": []}
    session = host.read_s2s(query)
    assert (drain_batches(session), session.finished) == ([], True)


@pytest.mark.parametrize("headers", [{}, PROTOBUF, S2S, EVENTS])
@pytest.mark.parametrize("query", ["seq_num=2&count=1", "seq_num=1&count=1", "seq_num=2"])
def test_a_start_beyond_the_tail(headers: dict[str, str], query: str) -> None:
    reply = host_with("a").send("GET", f"{RECORDS}?{query}", headers)
    assert reply.status == 416
    assert reply.json == {"tail": {"seq_num": 1, "timestamp": NOW}}
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize("headers", [{}, S2S, EVENTS])
@pytest.mark.parametrize(
    ("target", "basin", "expected"),
    [
        ("/v1/streams/missing/records", BASIN, (404, "stream_not_found")),
        (RECORDS, "no-such-basin", (404, "basin_not_found")),
        (f"{RECORDS}?seq_num=0&timestamp=0", BASIN, (422, "invalid")),
        (f"{RECORDS}?timestamp=5&until=5", BASIN, (422, "invalid")),
        (f"{RECORDS}?seq_num=x", BASIN, (400, "bad_query")),
    ],
)
def test_errors_before_a_read_are_ordinary_answers(
    headers: dict[str, str], target: str, basin: str, expected: tuple[int, str]
) -> None:
    assert finish(make_host().open("GET", target, headers, basin)).error == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"s2-format": "hex"},
        {"s2-format": "hex", **EVENTS},
        {"last-event-id": "x", **EVENTS},
        {"s2-encryption-key": "", **S2S},
    ],
)
def test_bad_headers(headers: dict[str, str]) -> None:
    assert host_with("a").send("GET", f"{RECORDS}?seq_num=0", headers).error == (400, "bad_header")


def test_a_session_needs_no_format() -> None:
    reply = host_with("a").send("GET", f"{RECORDS}?seq_num=0&count=1", {**S2S, "s2-format": "hex"})
    assert reply.status == 200


def test_a_basin_may_create_streams_on_read() -> None:
    host = make_host(create_stream_on_read=True)
    assert host.send("GET", "/v1/streams/new/records").status == 416


# Waiting for one batch


def test_a_long_poll_is_answered_by_the_next_append() -> None:
    host = host_with("a")
    poll = host.open("GET", f"{RECORDS}?seq_num=1&wait=10")
    assert (poll.response, poll.data_to_send(), poll.finished) == (None, [], False)
    host.now += 3
    host.append_ok(*bodies("b", "c"))
    assert host.woken == [poll]
    reply = finish(poll)
    assert [record["seq_num"] for record in reply.json["records"]] == [1, 2]
    assert reply.json["tail"] == {"seq_num": 3, "timestamp": NOW + 3000}
    host.append_ok(*bodies("d"))
    assert host.woken == [poll]


def test_a_long_poll_does_not_wait_when_there_are_records() -> None:
    reply = host_with("a").send("GET", f"{RECORDS}?seq_num=0&wait=10")
    assert reply.json == {"records": [{"seq_num": 0, "timestamp": NOW, "body": "a"}]}


def test_a_long_poll_gives_up() -> None:
    host = host_with("a")
    poll = host.open("GET", f"{RECORDS}?seq_num=1&wait=90")
    while poll.response is None:
        timeout = poll.next_timeout()
        assert timeout is not None
        host.now = timeout
        poll.handle_timeout(host.now)
    assert host.now == EPOCH + 60  # the longest wait
    assert finish(poll).json == {"records": []}
    assert poll.next_timeout() is None
    poll.handle_timeout(host.now + 1)


def test_a_long_poll_ends_with_its_stream() -> None:
    host = host_with()
    poll = host.open("GET", f"{RECORDS}?wait=10")
    host.send("DELETE", "/v1/streams/room%2F1")
    assert host.woken == [poll]
    assert finish(poll).error == (404, "stream_not_found")


def test_a_long_poll_whose_bound_denies_the_next_record() -> None:
    host = host_with()
    poll = host.open("GET", f"{RECORDS}?wait=10&bytes=9")
    host.append_ok(*bodies("too long"))
    assert finish(poll).json == {"records": []}


# S2S


def test_a_session_catches_up_and_follows() -> None:
    host = host_with("a")
    session = host.read_s2s("seq_num=0")
    assert session.response is not None
    assert dict(session.response.headers) == {
        "content-type": "s2s/proto",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
    }
    assert drain_batches(session) == [
        ReadBatch([SequencedRecord(0, NOW, (), b"a")]),
        ReadBatch([], StreamPosition(1, NOW)),
    ]
    host.append_ok(*bodies("b"))
    assert host.woken == [session]
    assert drain_batches(session) == [
        ReadBatch([SequencedRecord(1, NOW, (), b"b")], StreamPosition(2, NOW))
    ]
    assert not session.finished


def test_every_follower_is_woken() -> None:
    host = host_with()
    sessions = [host.read_s2s() for _ in range(3)]
    for session in sessions:
        drain(session)
    host.append_ok(*bodies("a"))
    assert host.woken == sessions
    assert [seq_nums(drain_batches(session)) for session in sessions] == [[0]] * 3


def test_one_batch_is_produced_at_a_time() -> None:
    host = host_with(*["x"] * 1000)
    for _ in range(4):
        host.append_ok(*bodies(*["x"] * 1000))
    session = host.read_s2s("seq_num=0&count=4500")
    sizes = []
    while chunks := session.data_to_send():
        sizes.append(sum(map(len, chunks)))
    assert len(sizes) == 5
    assert max(sizes) < 30_000
    assert session.finished


def test_a_follower_that_is_not_drained_costs_nothing() -> None:
    host = host_with()
    session = host.read_s2s()
    drain(session)
    for _ in range(5):
        host.append_ok(*[Record(bytes(1000))] * 1000)
    first = session.data_to_send()
    assert sum(map(len, first)) < 1_100_000
    assert seq_nums(drain_batches(session))[-1] == 4999


def test_heartbeats_by_the_clock() -> None:
    host = host_with()
    session = host.read_s2s()
    assert drain_batches(session) == [ReadBatch([], StreamPosition(0, 0))]
    assert session.next_timeout() == EPOCH + 10  # half of 5 to 15 s
    session.handle_timeout(EPOCH + 9)
    assert session.data_to_send() == []
    session.handle_timeout(EPOCH + 10)
    assert drain_batches(session) == [ReadBatch([], StreamPosition(0, 0))]
    assert session.next_timeout() == EPOCH + 20
    assert host.woken == []


def test_a_wait_that_is_over_finishes_the_response() -> None:
    host = host_with()
    session = host.read_s2s("wait=2")
    drain(session)
    session.handle_timeout(EPOCH + 2)
    assert session.finished
    assert session.next_timeout() is None
    session.handle_timeout(EPOCH + 20)
    assert session.data_to_send() == []


def test_a_busy_host_may_say_what_time_it_is() -> None:
    host = host_with("a")
    session = host.read_s2s("seq_num=0&wait=5")
    session.handle_timeout(EPOCH + 100)
    drain(session)
    assert session.next_timeout() == EPOCH + 105
    session.handle_timeout(EPOCH + 104)
    assert not session.finished


@pytest.mark.parametrize("query", ["seq_num=0&count=1", "seq_num=0&wait=0", "seq_num=0&until=2"])
def test_a_session_that_ends_at_the_tail(query: str) -> None:
    session = host_with("a").read_s2s(query)
    drain(session)
    assert session.finished


def test_compressed_messages() -> None:
    host = host_with("x" * 5000)
    session = host.open("GET", f"{RECORDS}?seq_num=0", {**S2S, "accept-encoding": "gzip"})
    data = session.data_to_send()
    assert sum(map(len, data)) < 500
    assert session.response is not None
    assert "content-encoding" not in dict(session.response.headers)


def test_a_session_on_a_deleted_stream_ends_with_a_terminal_message() -> None:
    host = host_with("a")
    session = host.read_s2s("seq_num=0")
    drain(session)
    host.send("DELETE", f"/v1/basins/{BASIN}")
    assert host.woken == [session]
    (message,) = drain_messages(session)
    assert isinstance(message, Terminal)
    assert (message.status, json.loads(message.body)["code"]) == (404, "stream_not_found")
    assert session.finished


def test_a_lost_follower_is_forgotten() -> None:
    host = host_with()
    session = host.read_s2s()
    drain(session)
    session.connection_lost(host.now)
    assert (session.finished, session.next_timeout()) == (True, None)
    host.append_ok(*bodies("a"))
    assert host.woken == []
    session.handle_timeout(host.now + 100)
    assert session.data_to_send() == []


@pytest.mark.parametrize("query", ["seq_num=0&count=1", "wait=2"])
def test_a_reader_that_ended_is_forgotten(query: str) -> None:
    host = host_with("a")
    session = host.read_s2s(query)
    drain(session)
    session.handle_timeout(EPOCH + 2)
    host.append_ok(*bodies("b"))
    assert host.woken == []


def test_the_body_of_a_read_is_ignored() -> None:
    host = host_with("a")
    session = host.read_s2s("seq_num=0&count=1")
    session.receive_data(b"anything", host.now)
    session.receive_eof(host.now)
    assert seq_nums(drain_batches(session)) == [0]


# Server-sent events


def events(exchange: Exchange) -> list[dict[str, Any]]:
    """The events that can be sent now, field by field."""
    data = b"".join(drain(exchange)).decode()
    assert not data or data.endswith("\n\n")
    return [
        dict(line.split(": ", 1) for line in event.split("\n"))
        for event in data.split("\n\n")
        if event
    ]


def open_events(host: Host, query: str, **headers: str) -> Exchange:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return host.open("GET", f"{RECORDS}?{query}", {**EVENTS, **more})


def test_events() -> None:
    host = host_with("a", "b\nc")
    session = open_events(host, "seq_num=0")
    assert session.response is not None
    assert dict(session.response.headers)["content-type"] == "text/event-stream"
    batch, ping = events(session)
    assert (batch["event"], batch["id"]) == ("batch", "1,2,20")
    assert [r["body"] for r in json.loads(batch["data"])["records"]] == ["a", "b\nc"]
    tail = {"seq_num": 2, "timestamp": NOW}
    assert ping["event"] == "ping"
    assert json.loads(ping["data"]) == {"timestamp": NOW, "tail": tail}
    host.now += 1
    host.append_ok(*bodies("d"))
    (batch,) = events(session)
    assert batch["id"] == "2,3,29"
    assert json.loads(batch["data"])["tail"] == {"seq_num": 3, "timestamp": NOW + 1000}


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("seq_num=0&count=2", ["1,2,18"]),
        ("seq_num=0&wait=0", ["2,3,27"]),
        ("seq_num=0&count=0", []),
    ],
)
def test_the_last_event_says_done(query: str, ids: list[str]) -> None:
    session = open_events(host_with("a", "b", "c"), query)
    *batches, done = events(session)
    assert [batch["id"] for batch in batches] == ids
    assert done == {"data": "[DONE]"}
    assert session.finished


def test_a_wait_that_is_over_is_done_too() -> None:
    session = open_events(host_with(), "wait=2")
    assert [event["event"] for event in events(session)] == ["ping"]
    session.handle_timeout(EPOCH + 2)
    assert not session.finished
    assert events(session) == [{"data": "[DONE]"}]
    assert session.finished


def test_an_error_is_the_last_event() -> None:
    host = host_with()
    session = open_events(host, "")
    events(session)
    host.send("DELETE", "/v1/streams/room%2F1")
    (error,) = events(session)
    assert error["event"] == "error"
    assert json.loads(error["data"])["code"] == "stream_not_found"
    assert session.finished


def test_events_are_resumed_after_the_last_one_and_limits_count_on() -> None:
    host = host_with(*"abcdef")
    query = "seq_num=0&count=4"
    first, done = events(open_events(host, query, last_event_id="0,1,9"))
    assert (first["id"], done["data"]) == ("3,4,36", "[DONE]")
    # Resumed twice, the limit still counts from the beginning.
    again = events(open_events(host, query, last_event_id="2,3,27"))
    assert [event.get("id") for event in again] == ["3,4,36", None]
    assert events(open_events(host, query, last_event_id="3,4,36")) == [{"data": "[DONE]"}]


def test_a_resumed_start_counts_instead_of_the_query() -> None:
    host = host_with(*"abc")
    session = open_events(host, "timestamp=5&until=6", last_event_id="1,1,1")
    assert events(session) == [{"data": "[DONE]"}]
    session = open_events(host, "tail_offset=3", last_event_id="1,2,18")
    assert events(session)[0]["id"] == "2,3,27"


def test_events_in_base64() -> None:
    host = make_host()
    host.append_ok(Record(b"\xff"))
    batch, _ = events(open_events(host, "seq_num=0&count=1", s2_format="base64"))
    assert json.loads(batch["data"])["records"][0]["body"] == "/w=="


def test_events_are_not_compressed() -> None:
    session = open_events(host_with("x" * 5000), "seq_num=0&count=1", accept_encoding="gzip")
    assert session.response is not None
    assert "content-encoding" not in dict(session.response.headers)
    assert events(session)[0]["event"] == "batch"


def test_a_message_is_never_terminal_unless_it_fails() -> None:
    session = host_with("a").read_s2s("seq_num=0&count=1")
    assert all(isinstance(message, Message) for message in drain_messages(session))
