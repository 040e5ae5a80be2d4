from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import s2frames.embedded
from embedded.host import BASIN, EPOCH, PROTOBUF, RECORDS, Host, drain, drain_batches, make_host
from s2_bodies import bodies, encode_batch
from s2frames.embedded import Exchange, MemoryStore, Service
from s2frames.records import Record, SequencedRecord, StreamPosition, fence, trim
from s2frames.u64 import U64_MAX
from s2frames.wire import decode_append_ack, decode_read_batch


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_health(path: str) -> None:
    reply = Host().send("GET", path)
    assert (reply.status, reply.body) == (200, b"OK")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "*",
        "/v1",
        "/v2/basins",
        "/v1/basins/",
        "/v1/basins/basin-one/more",
        "/v1/streams/",
        "/v1/streams/a/b",
        "/v1/streams/a/records/",
        "/v1/streams/a/records/head",
        "/v1/stre%61ms",
        "/V1/streams",
        "//v1/streams",
        "/v1/locations",
        "http://host/v1/streams",
    ],
)
def test_unknown_paths(path: str) -> None:
    assert make_host().send("GET", path).status == 404


@pytest.mark.parametrize("end", ["records", "records/tail"])
def test_an_empty_name_is_a_bad_one(end: str) -> None:
    assert make_host().send("GET", f"/v1/streams//{end}").error == (400, "bad_path")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/health", "GET"),
        ("DELETE", "/v1/basins", "GET, POST"),
        ("POST", f"/v1/basins/{BASIN}", "GET, PUT, PATCH, DELETE"),
        ("PUT", RECORDS, "GET, POST"),
        ("POST", f"{RECORDS}/tail", "GET"),
        ("get", "/health", "GET"),
        ("", "/health", "GET"),
    ],
)
def test_methods_that_a_path_does_not_have(method: str, path: str, allow: str) -> None:
    reply = make_host().send(method, path)
    assert (reply.status, reply.headers["allow"]) == (405, allow)


@pytest.mark.parametrize(
    "path", ["/v1/streams", "/v1/streams/a", "/v1/streams/a/records", "/v1/streams/a/records/tail"]
)
def test_streams_need_a_basin(path: str) -> None:
    exchange = Service(random=lambda: 0.5).open("GET", path, {}, EPOCH)
    body = json.loads(b"".join(drain(exchange)))
    assert exchange.response is not None
    assert (exchange.response.status, body["code"]) == (400, "bad_header")


def test_access_tokens_are_ignored() -> None:
    assert make_host().send("GET", "/v1/streams", {"authorization": "Bearer x"}).status == 200


def test_a_service_goes_on_from_its_store() -> None:
    store = MemoryStore()
    host = Host(Service(store, random=lambda: 0.5))
    host.send("PUT", f"/v1/basins/{BASIN}")
    host.send("PUT", "/v1/streams/room%2F1")
    host.append_ok(*bodies("a"), fence("token"))
    again = Host(Service(store, random=lambda: 0.5))
    assert again.append([Record()], fencing_token="").json == {"fencing_token_mismatch": "token"}
    assert again.send("GET", f"{RECORDS}?seq_num=0&count=1").json["records"][0]["body"] == "a"


def test_what_the_package_exports() -> None:
    for name in s2frames.embedded.__all__:
        assert hasattr(s2frames.embedded, name)


# Hostile input

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "get", ""]
SEGMENTS = st.sampled_from(
    ["v1", "basins", "streams", "records", "tail", "room%2F1", BASIN, "..", "%ff", "%", ""]
) | st.text(max_size=5)
PARAMETERS = st.sampled_from(
    ["seq_num", "timestamp", "tail_offset", "clamp", "count", "bytes", "until", "wait"]
) | st.sampled_from(["limit", "prefix", "start_after"])
VALUES = st.sampled_from(["0", "1", "2", "true", "", "-1", "9" * 30, str(U64_MAX)]) | st.text(
    max_size=5
)
QUERIES = st.lists(st.tuples(PARAMETERS, VALUES), max_size=3).map(
    lambda pairs: "?" + "&".join(f"{name}={value}" for name, value in pairs)
)
TARGETS = (
    st.lists(SEGMENTS, max_size=6).map(lambda segments: "/" + "/".join(segments))
    | st.sampled_from([RECORDS, f"{RECORDS}/tail", "/v1/streams", f"/v1/basins/{BASIN}"])
    | st.sampled_from(["/v1/basins", "/v1/streams/room%2F1", "/v1/streams/new"])
    | st.text(max_size=20)
)
MEDIA_TYPES = ["application/json", "application/protobuf", "s2s/proto", "text/event-stream"]
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "Accept", "accept-encoding", "content-encoding"])
    | st.sampled_from(["s2-basin", "s2-format", "s2-request-token", "s2-encryption-key"])
    | st.just("last-event-id"),
    st.sampled_from([*MEDIA_TYPES, BASIN, "gzip", "zstd", "base64", "0,0,0", ""])
    | st.text(max_size=8),
    max_size=5,
)
GOOD_BODIES = [
    b'{"records":[{"body":"x","headers":[["a","b"]],"timestamp":5}],"match_seq_num":0}',
    b'{"basin":"basin-two","config":{"create_stream_on_append":true}}',
    b'{"stream":"new","config":{"timestamping":{"mode":"arrival"}}}',
    b'{"retention_policy":{"age":5},"delete_on_empty":{"min_age_secs":7}}',
    b"\x0a\x05\x1a\x03abc\x10\x00\x1a\x01t",
    encode_batch(bodies("a", "b")) * 2,
    encode_batch([fence("t"), trim(3)], 0, ""),
]


@st.composite
def mutated_bodies(draw: st.DrawFn) -> bytes:
    """A body that was right, with some bytes changed, put in or taken out."""
    body = bytearray(draw(st.sampled_from(GOOD_BODIES)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(body)


def check_answer(host: Host, exchange: Exchange) -> None:
    """Let the exchange come to its end, whatever it is: bounded, and no fault of the service."""
    received = 0
    for _ in range(50):
        received += sum(map(len, drain(exchange)))
        if exchange.finished:
            break
        timeout = exchange.next_timeout()
        if timeout is not None:
            host.now = max(host.now, timeout)
            exchange.handle_timeout(host.now)
    assert exchange.response is not None
    assert 200 <= exchange.response.status < 500
    assert received < 1_000_000
    exchange.connection_lost(host.now)
    assert exchange.finished


@settings(max_examples=400)
@given(
    st.sampled_from(METHODS),
    TARGETS,
    QUERIES,
    HEADERS,
    mutated_bodies() | st.binary(max_size=40),
    st.booleans(),
)
def test_any_request_is_answered(
    method: str, target: str, query: str, headers: dict[str, str], body: bytes, names_basin: bool
) -> None:
    host = make_host()
    host.append_ok(*bodies("a", "b"))
    if names_basin:
        headers = {"s2-basin": BASIN, **headers}
    exchange = host.service.open(method, target + query, headers, host.now)
    exchange.receive_data(body, host.now)
    exchange.receive_eof(host.now)
    check_answer(host, exchange)
    assert host.send("GET", "/health").status == 200


@settings(max_examples=300)
@given(
    body=mutated_bodies(),
    media_type=st.sampled_from(["application/json", "application/protobuf", "s2s/proto"]),
    target=st.sampled_from([("POST", RECORDS), ("POST", "/v1/streams"), ("PUT", "/v1/streams/a")]),
)
def test_mutated_bodies_are_answered(body: bytes, media_type: str, target: tuple[str, str]) -> None:
    host = make_host()
    exchange = host.open(*target, {"content-type": media_type})
    exchange.receive_data(body[:7], host.now)
    exchange.receive_data(body[7:], host.now)
    exchange.receive_eof(host.now)
    check_answer(host, exchange)


# Against a model

SMALL = st.integers(0, 30)
OPTIONAL = st.none() | SMALL


class StreamModel(RuleBasedStateMachine):
    """A stream is a list of records, a trim point and a token; the service must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.host = make_host()
        self.host.send_json("PATCH", "/v1/streams/room%2F1", {"timestamping": {"uncapped": True}})
        self.records: list[SequencedRecord] = []
        self.trim_point = 0
        self.token = ""
        self.follower = self.host.read_s2s("seq_num=0")
        self.followed: list[SequencedRecord] = []
        self.last_tail: StreamPosition | None = None

    def tail(self) -> StreamPosition:
        last = self.records[-1].timestamp if self.records else 0
        return StreamPosition(len(self.records), last)

    def commit(self, batch: list[Record]) -> None:
        for record in batch:
            given_time = record.timestamp
            arrival = int(self.host.now * 1000)
            timestamp = max(self.tail().timestamp, arrival if given_time is None else given_time)
            self.records.append(
                SequencedRecord(len(self.records), timestamp, record.headers, record.body)
            )
            if record.headers == ((b"", b"fence"),):
                self.token = record.body.decode()
            elif record.headers == ((b"", b"trim"),):
                before = min(int.from_bytes(record.body, "big"), len(self.records))
                self.trim_point = max(self.trim_point, before)

    @rule(
        batch=st.lists(
            st.builds(
                Record, st.binary(max_size=5), st.just(()) | st.just(((b"n", b"v"),)), OPTIONAL
            )
            | st.builds(trim, SMALL | st.just(U64_MAX))
            | st.builds(fence, st.sampled_from(["", "a", "b"])),
            min_size=1,
            max_size=4,
        ),
        match=st.none() | st.sampled_from([-1, 0, 1]),
        token=st.none() | st.sampled_from(["", "a", "b"]),
    )
    def append(self, batch: list[Record], match: int | None, token: str | None) -> None:
        expected = None if match is None else max(0, len(self.records) + match)
        reply = self.host.append(batch, expected, token)
        if token not in (None, self.token):
            assert reply.json == {"fencing_token_mismatch": self.token}
        elif expected not in (None, len(self.records)):
            assert reply.json == {"seq_num_mismatch": len(self.records)}
        else:
            start = len(self.records)
            self.commit(batch)
            ack = decode_append_ack(reply.body)
            assert ack.start == StreamPosition(start, self.records[start].timestamp)
            assert ack.end == ack.tail == self.tail()

    @rule(
        kind=st.sampled_from(["seq_num", "timestamp", "tail_offset"]),
        start=SMALL | st.just(U64_MAX) | st.just(int(EPOCH * 1000)),
        clamp=st.booleans(),
        count=OPTIONAL,
        size=st.none() | st.integers(0, 100),
        until=OPTIONAL | st.just(U64_MAX),
    )
    def read(
        self,
        kind: str,
        start: int,
        clamp: bool,
        count: int | None,
        size: int | None,
        until: int | None,
    ) -> None:
        limits = {"count": count, "bytes": size, "until": until}
        query = f"{kind}={start}&clamp={str(clamp).lower()}" + "".join(
            f"&{name}={value}" for name, value in limits.items() if value is not None
        )
        reply = self.host.send("GET", f"{RECORDS}?{query}", PROTOBUF)
        if kind == "timestamp" and until is not None and start >= until:
            assert reply.status == 422
            return
        # A read of nothing starts nowhere.
        expected = [] if 0 in (count, size) else self.expect(kind, start, clamp)
        if expected is None:
            assert reply.status == 416
            assert reply.json["tail"]["seq_num"] == len(self.records)
            return
        batch = decode_read_batch(reply.body)
        assert batch.tail is None
        assert batch.records == self.limit(expected, count, size, until)

    def expect(self, kind: str, start: int, clamp: bool) -> list[SequencedRecord] | None:
        """The records from the start on, or None where there is no such place."""
        left = [record for record in self.records if record.seq_num >= self.trim_point]
        tail = self.tail()
        if kind == "tail_offset":
            start = max(0, tail.seq_num - start)
        if kind == "timestamp":
            found = [record for record in left if record.timestamp >= start]
            return found or None
        if start > tail.seq_num and not clamp:
            return None
        if start >= tail.seq_num:
            return None
        return [record for record in left if record.seq_num >= start]

    def limit(
        self, records: list[SequencedRecord], count: int | None, size: int | None, until: int | None
    ) -> list[SequencedRecord]:
        taken: list[SequencedRecord] = []
        room = 10**9 if size is None else size
        for record in records[: 1000 if count is None else count]:
            room -= record.metered_bytes
            if room < 0 or (until is not None and record.timestamp >= until):
                break
            taken.append(record)
        return taken

    @rule()
    def drain_follower(self) -> None:
        for batch in drain_batches(self.follower):
            self.followed += batch.records
            self.last_tail = batch.tail
        assert self.last_tail == self.tail()
        # Nothing that is left was passed over.
        seen = {record.seq_num for record in self.followed}
        assert seen.issuperset(range(self.trim_point, len(self.records)))

    @rule(seconds=st.integers(1, 20))
    def pass_time(self, seconds: int) -> None:
        self.host.now += seconds
        self.follower.handle_timeout(self.host.now)

    @rule(cut=SMALL)
    def append_in_a_session(self, cut: int) -> None:
        batch = bodies("s", "t")
        data = encode_batch(batch)
        session = self.host.open("POST", RECORDS, {"content-type": "s2s/proto"})
        session.receive_data(data, self.host.now)
        session.receive_data(data[: cut % len(data)], self.host.now)
        session.connection_lost(self.host.now)
        self.commit(batch)

    @invariant()
    def followed_records_are_the_streams(self) -> None:
        assert self.followed == [self.records[record.seq_num] for record in self.followed]
        places = [record.seq_num for record in self.followed]
        assert places == sorted(set(places))

    @invariant()
    def the_tail_is_where_it_should_be(self) -> None:
        tail: Any = self.host.send("GET", f"{RECORDS}/tail").json["tail"]
        assert StreamPosition(tail["seq_num"], tail["timestamp"]) == self.tail()


TestStreamModel = StreamModel.TestCase
