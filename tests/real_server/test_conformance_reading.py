"""Reads: where they start, where they end, and what they say while there is nothing."""

from __future__ import annotations

import gzip
import json
from contextlib import ExitStack
from typing import Any

import pytest

from real_server.places import address_of, every_transport, needs_lite
from real_server.streams import EVENTS, PROTOBUF, S2S, Basin, Stream, batches_in, batches_of
from s2_bodies import bodies
from s2frames.records import Record, StreamPosition
from s2frames.wire import ReadBatch

SESSION_HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}

# Records 0 to 5: two for each of these timestamps. Each is metered with 9 bytes.
TIMES = (1000, 1000, 2000, 2000, 3000, 3000)


@pytest.fixture
def room(stream: Stream) -> Stream:
    """A stream with records "0" to "5"."""
    stream.append_ok(*(Record(b"%d" % i, (), time) for i, time in enumerate(TIMES)))
    return stream


# Query, and the records that it gives. None of these follows.
BOUNDED = [
    ("seq_num=0&count=9", "012345"),
    ("seq_num=2&count=2", "23"),
    ("seq_num=5&count=1", "5"),
    ("seq_num=0&count=0", ""),
    # A read of nothing starts nowhere.
    ("count=0", ""),
    ("seq_num=9&count=0", ""),
    ("seq_num=6&bytes=0", ""),
    ("timestamp=9999&count=0&wait=1", ""),
    ("seq_num=0&bytes=27", "012"),
    ("seq_num=0&bytes=35", "012"),
    ("seq_num=0&bytes=9", "0"),
    ("seq_num=0&bytes=8", ""),
    ("seq_num=0&bytes=0", ""),
    ("seq_num=0&until=2000", "01"),
    ("seq_num=0&until=2001", "0123"),
    ("seq_num=0&until=1000", ""),
    ("seq_num=0&until=9999", "012345"),
    ("seq_num=1&count=4&bytes=27&until=9999", "123"),
    ("seq_num=1&count=2&bytes=27&until=2001", "12"),
    ("seq_num=4&until=1", ""),
    ("timestamp=0&count=1", "0"),
    ("timestamp=1000&count=1", "0"),
    ("timestamp=1001&count=3", "234"),
    ("timestamp=3000&count=9", "45"),
    ("timestamp=1001&until=3000", "23"),
    ("tail_offset=1&count=9", "5"),
    ("tail_offset=6&count=9", "012345"),
    ("tail_offset=7&count=9", "012345"),
    ("tail_offset=18446744073709551615&count=1", "0"),
    ("seq_num=5&clamp=true&count=1", "5"),
    ("seq_num=0&wait=0&count=9", "012345"),
    ("seq_num=0&wait=0", "012345"),
    ("seq_num=%2B5&count=1", "5"),
]


@every_transport
@pytest.mark.parametrize(("query", "expected"), BOUNDED)
def test_bounds(room: Stream, query: str, expected: str) -> None:
    assert b"".join(room.bodies(query)).decode() == expected
    found = [r.body for batch in room.read_batches(query) for r in batch.records]
    assert b"".join(found).decode() == expected
    *batches, done = events_in(room.read(query, EVENTS).body)
    assert "".join(body for batch in batches for body in bodies_of(batch)) == expected
    assert done == {"data": "[DONE]"}


# A heartbeat at the end of the room.
AT_TAIL = ReadBatch([], StreamPosition(6, 3000))
TAIL = {"tail": {"seq_num": 6, "timestamp": 3000}}


@pytest.mark.parametrize("headers", [{}, PROTOBUF, S2S, EVENTS], ids=range(4))
@pytest.mark.parametrize(
    "query",
    [
        "seq_num=7&count=1",
        "seq_num=7",
        "seq_num=18446744073709551615",
        "seq_num=7&wait=1",
        "timestamp=3001",
        "timestamp=3001&wait=1",
        # At the tail, with nothing to wait for.
        "seq_num=6&count=1",
        "seq_num=6&count=1&wait=0",
        "seq_num=6&until=9999",
        "seq_num=6&bytes=100",
        "seq_num=7&clamp=true&count=1",
        "timestamp=3001&clamp=true&count=1",
        "tail_offset=0&count=1",
        "count=1",
    ],
)
def test_starts_that_cannot_be(room: Stream, headers: dict[str, str], query: str) -> None:
    reply = room.read(query, headers)
    assert (reply.status, reply.json) == (416, TAIL)
    assert reply.headers["content-type"] == "application/json"


def test_an_empty_stream(stream: Stream) -> None:
    nothing = {"tail": {"seq_num": 0, "timestamp": 0}}
    for query in ("", "seq_num=0", "timestamp=0&clamp=true", "tail_offset=5"):
        reply = stream.read(query)
        assert (reply.status, reply.json) == (416, nothing)
    assert stream.basin.send("GET", f"{stream.records}/tail").json == nothing


# A read of one batch is bounded, whatever it says; a session may go on.
@pytest.mark.parametrize("query", ["", "seq_num=6", "seq_num=9&clamp=true", "tail_offset=0"])
def test_the_tail_without_bounds(room: Stream, query: str) -> None:
    assert room.read(query).status == 416
    with room.open_read(query, S2S) as session:
        assert next(batches_of(session)) == AT_TAIL


@pytest.mark.parametrize("query", ["seq_num=6&wait=0", "seq_num=9&clamp=true&wait=0"])
def test_a_session_at_the_tail_that_does_not_wait(room: Stream, query: str) -> None:
    assert room.read_batches(query) == []


def test_the_form_of_one_batch(room: Stream) -> None:
    reply = room.read("seq_num=4")
    assert reply.headers["content-type"] == "application/json"
    records = [
        {"seq_num": 4, "timestamp": 3000, "body": "4"},
        {"seq_num": 5, "timestamp": 3000, "body": "5"},
    ]
    assert reply.json == {"records": records}
    reply = room.read("seq_num=0&count=1", PROTOBUF)
    assert reply.headers["content-type"] == "application/protobuf"
    # Sequence number 0 is left out.
    assert reply.body == b"\x0a\x06\x10\xe8\x07\x22\x010"


@pytest.mark.parametrize("headers", [{}, {"s2-format": "raw"}, {"s2-format": "base64"}])
def test_bytes_in_json(stream: Stream, headers: dict[str, str]) -> None:
    stream.append_ok(Record(b"\xffa", ((b"n\xff", b"\xfe"),)), Record())
    first, second = stream.read("seq_num=0", headers).json["records"]
    if headers.get("s2-format") == "base64":
        assert (first["headers"], first["body"]) == ([["bv8=", "/g=="]], "/2E=")
    else:
        assert (first["headers"], first["body"]) == ([["n\ufffd", "\ufffd"]], "\ufffda")
    assert set(second) == {"seq_num", "timestamp"}


def test_the_bytes_of_a_session(room: Stream) -> None:
    reply = room.read("seq_num=1&count=1", {**S2S, "accept-encoding": "identity"})
    assert reply.body == b"\0\0\x0b\x00\x0a\x08\x08\x01\x10\xe8\x07\x22\x011"
    assert reply.headers["content-type"] == "s2s/proto"
    assert {name: reply.headers[name] for name in SESSION_HEADERS} == SESSION_HEADERS
    assert "content-encoding" not in reply.headers


def test_one_batch_has_a_thousand_records_at_most(stream: Stream) -> None:
    stream.append_ok(*[Record(b"x")] * 1000)
    stream.append_ok(*bodies("y"))
    assert len(stream.bodies("seq_num=0&count=5000")) == 1000
    batches = stream.read_batches("seq_num=0&count=1001")
    assert [len(batch.records) for batch in batches] == [1000, 1]
    assert len(stream.bodies("seq_num=0&bytes=100")) == 11


def test_one_batch_has_a_mebibyte_at_most(stream: Stream) -> None:
    record = Record(bytes(400_000))
    for _ in range(3):
        stream.append_ok(record)
    assert len(stream.bodies("seq_num=0&bytes=9999999")) == 2
    batches = stream.read_batches("seq_num=0&count=3")
    assert [len(batch.records) for batch in batches] == [2, 1]


# Timestamps


def test_timestamps_never_go_back(stream: Stream) -> None:
    ack = stream.append_ok(*(Record(b"", (), time) for time in (500, 400, 600)))
    assert (ack.start.timestamp, ack.end.timestamp, ack.tail.timestamp) == (500, 600, 600)
    (batch,) = stream.read_batches("seq_num=0&count=3")
    assert [record.timestamp for record in batch.records] == [500, 500, 600]


@pytest.mark.parametrize("uncapped", [False, True])
def test_timestamps_of_the_future(basin: Basin, uncapped: bool) -> None:
    future = 10**15
    stream = basin.make_stream(timestamping={"uncapped": uncapped})
    ack = stream.append_ok(Record(b"", (), future))
    assert (ack.tail.timestamp == future) is uncapped
    assert ack.tail.timestamp <= future


def test_timestamps_that_are_required(basin: Basin) -> None:
    stream = basin.make_stream(timestamping={"mode": "client-require"})
    assert stream.append([Record(b"", (), 5), Record()]).error == (422, "invalid")
    assert stream.append_ok(Record(b"", (), 5)).tail == StreamPosition(1, 5)


def test_timestamps_of_arrival(basin: Basin) -> None:
    stream = basin.make_stream(timestamping={"mode": "arrival"})
    assert stream.append_ok(Record(b"", (), 5)).tail.timestamp > 5


# Waiting


@every_transport
def test_a_session_catches_up_and_follows(room: Stream) -> None:
    with room.open_read("seq_num=4", S2S) as session:
        batches = batches_of(session)
        caught_up = next(batches)
        assert ([r.body for r in caught_up.records], caught_up.tail) == ([b"4", b"5"], None)
        assert next(batches) == AT_TAIL
        ack = room.append_ok(*bodies("6", "7"))
        live = next(batches)
        assert ([r.seq_num for r in live.records], live.tail) == ([6, 7], ack.tail)


@pytest.mark.parametrize("bound", ["count=2", "bytes=18", "until=3001"])
def test_a_follower_ends_at_its_bound(room: Stream, bound: str) -> None:
    with room.open_read(f"seq_num=5&{bound}&wait=60", S2S) as session:
        batches = batches_of(session)
        assert [record.body for record in next(batches).records] == [b"5"]
        assert next(batches) == AT_TAIL
        room.append_ok(*(Record(body, (), time) for body, time in ((b"6", 3000), (b"7", 3001))))
        (last,) = batches
        assert [record.body for record in last.records] == [b"6"]


def test_a_long_poll_is_answered_by_the_next_append(room: Stream) -> None:
    with room.open_read("seq_num=6&wait=60", {}) as poll:
        ack = room.append_ok(*bodies("6", "7"))
        reply = poll.receive_all()
    assert [record["body"] for record in reply.json["records"]] == ["6", "7"]
    # An append that came before the poll is read as any other record, without the tail.
    if "tail" in reply.json:
        assert reply.json["tail"] == {"seq_num": 8, "timestamp": ack.tail.timestamp}


def test_a_poll_does_not_wait_when_there_are_records(room: Stream) -> None:
    reply = room.read("seq_num=5&wait=60")
    assert [record["body"] for record in reply.json["records"]] == ["5"]
    assert "tail" not in reply.json


@pytest.mark.parametrize(
    ("query", "headers", "body"),
    [
        ("seq_num=6&wait=1", {}, b'{"records":[]}'),
        ("seq_num=6&wait=1", PROTOBUF, b""),
    ],
)
def test_a_poll_gives_up(room: Stream, query: str, headers: dict[str, str], body: bytes) -> None:
    reply = room.read(query, headers)
    assert (reply.status, reply.body) == (200, body)


@pytest.mark.parametrize("query", ["wait=1", "seq_num=6&count=5&wait=1"])
def test_a_session_waits_and_ends(room: Stream, query: str) -> None:
    assert room.read_batches(query) == [AT_TAIL]


@needs_lite
def test_heartbeats_go_on(embedded_url: str, lite_url: str) -> None:
    # They come every 5 to 15 s, so both servers are waited for at once.
    with ExitStack() as running:
        sessions = []
        for url in (embedded_url, lite_url):
            stream = Basin.make(address_of(url)).make_stream()
            sessions.append(batches_of(running.enter_context(stream.open_read("", S2S))))
        for batches in sessions:
            heartbeats = [next(batches), next(batches)]
            assert heartbeats == [ReadBatch([], StreamPosition(0, 0))] * 2


# Compression


@every_transport
@pytest.mark.parametrize(
    ("accepted", "flags"), [("identity", 0), ("gzip", 0x40), ("zstd", 0x20), ("gzip, zstd", 0x20)]
)
def test_sessions_are_compressed_message_by_message(
    stream: Stream, accepted: str, flags: int
) -> None:
    stream.append_ok(Record(bytes(5000)))
    reply = stream.read("seq_num=0&count=1", {**S2S, "accept-encoding": accepted})
    assert reply.body[3] == flags
    assert "content-encoding" not in reply.headers
    (batch,) = batches_in(reply.body)
    assert batch.records[0].body == bytes(5000)


@pytest.mark.parametrize("size", [10, 5000])
def test_one_batch_is_compressed_if_it_is_large(stream: Stream, size: int) -> None:
    stream.append_ok(Record(b"x" * size))
    reply = stream.read("seq_num=0", {"accept-encoding": "gzip"})
    if size < 1024:
        assert "content-encoding" not in reply.headers
        assert len(reply.json["records"][0]["body"]) == size
    else:
        assert reply.headers["content-encoding"] == "gzip"
        assert len(json.loads(gzip.decompress(reply.body))["records"][0]["body"]) == size


# Server-sent events


def events_in(data: bytes) -> list[dict[str, str]]:
    """The events in `data`, field by field."""
    text = data.decode()
    assert text.endswith("\n\n")
    return [
        dict(line.split(": ", 1) for line in event.split("\n")) for event in text[:-2].split("\n\n")
    ]


def bodies_of(event: dict[str, str]) -> list[str]:
    """The bodies of the records in an event."""
    assert event["event"] == "batch"
    records: list[dict[str, Any]] = json.loads(event["data"])["records"]
    return [record["body"] for record in records]


def test_events(room: Stream) -> None:
    reply = room.read("seq_num=4&count=2", EVENTS)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert {name: reply.headers[name] for name in SESSION_HEADERS} == SESSION_HEADERS
    batch, done = events_in(reply.body)
    # The last sequence number, and how many records and bytes there were.
    assert (batch["event"], batch["id"]) == ("batch", "5,2,18")
    assert done == {"data": "[DONE]"}


@pytest.mark.parametrize(
    ("query", "last", "expected"),
    [
        ("seq_num=0&count=4", "0,1,9", "123"),
        ("seq_num=0&count=4", "+2,3,27", "3"),
        ("seq_num=0&count=4", "9,4,27", ""),
        ("seq_num=0&count=4", "3,4,36", ""),
        ("seq_num=0&bytes=27", "1,2,18", "2"),
        ("timestamp=5000&count=9", "4,1,1", "5"),
        ("tail_offset=6&count=9", "1,2,18", "2345"),
    ],
)
def test_events_are_resumed(room: Stream, query: str, last: str, expected: str) -> None:
    reply = room.read(query, {**EVENTS, "last-event-id": last})
    *batches, _ = events_in(reply.body)
    assert "".join(body for batch in batches for body in bodies_of(batch)) == expected


def test_a_ping(room: Stream) -> None:
    with room.open_read("wait=1", EVENTS) as session:
        ping, done = events_in(session.receive_all().body)
    assert ping["event"] == "ping"
    data = json.loads(ping["data"])
    assert data["tail"] == {"seq_num": 6, "timestamp": 3000}
    assert data["timestamp"] > 3000
    assert done == {"data": "[DONE]"}
