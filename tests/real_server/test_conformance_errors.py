"""What a server says to requests that cannot be: status, error code, and where it says it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from real_server.places import every_transport
from real_server.raw_http import Address
from real_server.streams import EVENTS, JSON, PROTOBUF, S2S, Basin, Stream
from s2_bodies import bodies, encode_batch, messages_in
from s2frames.s2s import Message, Terminal, encode_terminal

ONE_RECORD = b"\x0a\x00"


def protobuf(**headers: str) -> dict[str, str]:
    return {**PROTOBUF, **{name.replace("_", "-"): value for name, value in headers.items()}}


BAD_APPENDS = [
    (PROTOBUF, b"\xff", 400, "bad_proto"),
    (PROTOBUF, b"\x0a\x05", 400, "bad_proto"),
    (PROTOBUF, b"\x0a\x00\x1a\x01\xff", 400, "bad_proto"),
    (PROTOBUF, b"", 422, "invalid"),
    (PROTOBUF, b"\x10\x00", 422, "invalid"),
    (JSON, b"", 400, "bad_json"),
    (JSON, b"{", 400, "bad_json"),
    (JSON, b"[]", 400, "bad_json"),
    (JSON, b"{}", 400, "bad_json"),
    (JSON, b'{"records":null}', 400, "bad_json"),
    (JSON, b'{"records":[5]}', 400, "bad_json"),
    (JSON, b'{"records":[{"body":5}]}', 400, "bad_json"),
    (JSON, b'{"records":[{"timestamp":-1}]}', 400, "bad_json"),
    (JSON, b'{"records":[{"headers":[["a"]]}]}', 400, "bad_json"),
    (JSON, b'{"records":[{"headers":[["a","b","c"]]}]}', 400, "bad_json"),
    (JSON, b'{"records":[{}],"match_seq_num":1.5}', 400, "bad_json"),
    (JSON, b'{"records":[{}],"match_seq_num":18446744073709551616}', 400, "bad_json"),
    (JSON, b'{"records":[{"body":"\\ud800"}]}', 400, "bad_json"),
    (JSON, b'{"records":[{"body":"\xff"}]}', 400, "bad_json"),
    (JSON, b'{"records":[{}],"records":[{}]}', 400, "bad_json"),
    (JSON, b'{"records":[{"unknown":NaN}]}', 400, "bad_json"),
    (JSON, b'{"records":[]}', 422, "invalid"),
    ({**JSON, "s2-format": "base64"}, b'{"records":[{"body":"YR=="}]}', 422, "invalid"),
    ({**JSON, "s2-format": "base64"}, b'{"records":[{"body":"YQ"}]}', 422, "invalid"),
    ({}, b'{"records":[{}]}', 400, "bad_json"),
    ({"content-type": "text/plain"}, b'{"records":[{}]}', 400, "bad_json"),
    ({**JSON, "s2-format": "hex"}, b'{"records":[{}]}', 400, "bad_header"),
    ({**JSON, "s2-format": "base64"}, b'{"records":[{"body":"?"}]}', 422, "invalid"),
    (protobuf(s2_encryption_key="k" * 45), ONE_RECORD, 400, "bad_header"),
    (protobuf(s2_encryption_key=""), ONE_RECORD, 400, "bad_header"),
    (protobuf(s2_basin="x"), ONE_RECORD, 400, "bad_header"),
    (protobuf(s2_basin="no-such-basin"), ONE_RECORD, 404, "basin_not_found"),
]


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"), BAD_APPENDS, ids=range(len(BAD_APPENDS))
)
def test_what_is_no_append(
    stream: Stream, headers: Mapping[str, str], body: bytes, status: int, code: str
) -> None:
    assert stream.post(body, headers).error == (status, code)
    assert stream.tail() == 0


GOOD_APPENDS = [
    ({**JSON, "s2-format": "raw"}, b'{"records":[{}]}'),
    (JSON, b'{"records":[{"unknown":1}],"unknown":2}'),
    ({"content-type": "application/json; charset=utf-8"}, b' {"records":[{"headers":[]}]}\n'),
    ({"content-type": "application/x-protobuf"}, ONE_RECORD),
    # A format does not matter to protobuf, nor does an unknown field.
    (protobuf(s2_format="hex"), ONE_RECORD),
    (PROTOBUF, ONE_RECORD + b"\x7a\x01x"),
    (protobuf(authorization="Bearer anything"), ONE_RECORD),
]


@pytest.mark.parametrize(("headers", "body"), GOOD_APPENDS, ids=range(len(GOOD_APPENDS)))
def test_what_is_an_append_after_all(
    stream: Stream, headers: Mapping[str, str], body: bytes
) -> None:
    assert stream.post(body, headers).status == 200
    assert stream.tail() == 1


BAD_MESSAGES = [
    (b"\0\0\0", 400, "bad_frame"),
    (b"\0\0\x00\x00", 400, "bad_frame"),
    # Cut off within the length, and within the body.
    (b"\0", 400, "bad_frame"),
    (b"\0\0\x03\x00\x0a", 400, "bad_frame"),
    # An unknown compression, and a body that is not compressed as it says.
    (b"\0\0\x03\x60\x0a\x00", 400, "bad_frame"),
    (b"\0\0\x03\x40\x0a\x00", 400, "bad_frame"),
    # Neither protobuf, nor a batch.
    (b"\0\0\x02\x00\xff", 400, "bad_frame"),
    # A number of a field that is not known: above 2^64 - 1, and as large as can be.
    (b"\0\0\x0c\x00\x78" + b"\x80" * 9 + b"\x02", 400, "bad_frame"),
    (b"\0\0\x0c\x00\x78" + b"\xff" * 9 + b"\x01", 422, "invalid"),
    (b"\0\0\x01\x00", 422, "invalid"),
    (encode_terminal(400, b"{}"), 400, "bad_frame"),
]


@every_transport
@pytest.mark.parametrize(("body", "status", "code"), BAD_MESSAGES, ids=range(len(BAD_MESSAGES)))
def test_bad_messages_end_a_session(stream: Stream, body: bytes, status: int, code: str) -> None:
    reply = stream.append_session(encode_batch(bodies("a")) + body)
    assert reply.status == 200
    ack, error = messages_in(reply.body)
    assert isinstance(ack, Message)
    assert isinstance(error, Terminal)
    assert (error.status, json.loads(error.body)["code"]) == (status, code)
    assert stream.tail() == 1


def test_reserved_flags_are_ignored(stream: Stream) -> None:
    (ack,) = messages_in(stream.append_session(b"\0\0\x03\x1f\x0a\x00").body)
    assert isinstance(ack, Message)


@pytest.mark.parametrize("with_batch", [False, True])
@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ({"s2-basin": "no-such-basin"}, (404, "basin_not_found")),
        ({}, (404, "stream_not_found")),
    ],
)
def test_sessions_on_nothing_are_refused_at_once(
    basin: Basin, missing: dict[str, str], expected: tuple[int, str], with_batch: bool
) -> None:
    target = basin.stream("missing").records
    body = encode_batch(bodies("a")) if with_batch else b""
    assert basin.send("POST", target, {**S2S, **missing}, body).error == expected


@every_transport
def test_a_session_is_refused_while_its_request_goes_on(basin: Basin) -> None:
    with basin.open("POST", basin.stream("missing").records, S2S) as session:
        assert session.receive_all().error == (404, "stream_not_found")


@pytest.mark.parametrize("headers", [{}, PROTOBUF, S2S, EVENTS])
@pytest.mark.parametrize(
    ("missing", "query", "expected"),
    [
        ({"s2-basin": "no-such-basin"}, "", (404, "basin_not_found")),
        ({"s2-basin": "x"}, "", (400, "bad_header")),
        ({}, "", (404, "stream_not_found")),
        ({}, "seq_num=0&timestamp=0", (422, "invalid")),
        ({}, "seq_num=x", (400, "bad_query")),
    ],
)
def test_reads_of_nothing(
    basin: Basin,
    headers: dict[str, str],
    missing: dict[str, str],
    query: str,
    expected: tuple[int, str],
) -> None:
    target = f"{basin.stream('missing').records}?{query}"
    assert basin.send("GET", target, {**headers, **missing}).error == expected


BAD_QUERIES = [
    ("seq_num=-1", 400, "bad_query"),
    ("seq_num=", 400, "bad_query"),
    ("seq_num=1.5", 400, "bad_query"),
    ("seq_num=18446744073709551616", 400, "bad_query"),
    ("seq_num=0&seq_num=0", 400, "bad_query"),
    ("count=x", 400, "bad_query"),
    ("bytes=x", 400, "bad_query"),
    ("until=x", 400, "bad_query"),
    ("wait=x", 400, "bad_query"),
    ("wait=4294967296", 400, "bad_query"),
    ("clamp=1", 400, "bad_query"),
    ("clamp=", 400, "bad_query"),
    ("clamp=True", 400, "bad_query"),
    ("seq_num=0&tail_offset=0", 422, "invalid"),
    ("timestamp=0&tail_offset=0", 422, "invalid"),
    ("timestamp=5&until=5", 422, "invalid"),
]


@pytest.mark.parametrize("headers", [{}, S2S, EVENTS], ids=["unary", "S2S", "events"])
@pytest.mark.parametrize(("query", "status", "code"), BAD_QUERIES)
def test_bad_queries(
    stream: Stream, headers: dict[str, str], query: str, status: int, code: str
) -> None:
    stream.append_ok(*bodies("a"))
    assert stream.read(query, headers).error == (status, code)


@pytest.mark.parametrize(
    "headers",
    [
        {"s2-format": "hex"},
        {"s2-format": "hex", **EVENTS},
        {"last-event-id": "x", **EVENTS},
        {"last-event-id": "1,2", **EVENTS},
        {"last-event-id": "", **EVENTS},
        {"s2-encryption-key": "", **S2S},
        {"s2-encryption-key": "k" * 45, **S2S},
    ],
)
def test_bad_headers_of_reads(stream: Stream, headers: dict[str, str]) -> None:
    stream.append_ok(*bodies("a"))
    assert stream.read("seq_num=0&count=1", headers).error == (400, "bad_header")


@pytest.mark.parametrize("body", [b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"plain"])
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_body_that_is_not_compressed_as_it_says(stream: Stream, coding: str, body: bytes) -> None:
    reply = stream.post(body, {**PROTOBUF, "content-encoding": coding})
    assert reply.status == 400
    assert stream.tail() == 0


@pytest.mark.parametrize("coding", ["lzma", "GZIP", "gzip, gzip", ""])
def test_an_unknown_content_coding(stream: Stream, coding: str) -> None:
    reply = stream.post(ONE_RECORD, {**PROTOBUF, "content-encoding": coding})
    assert reply.status == 415
    assert stream.tail() == 0


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_health(address: Address, path: str) -> None:
    reply = address.request("GET", path, {})
    assert (reply.status, reply.body) == (200, b"OK")


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v2/basins",
        "/v1/basins/",
        "/v1/basins/basin-one/more",
        "/v1/streams/",
        "/v1/streams/a/b",
        "/v1/streams/a/records/",
        "/v1/streams/a/records/head",
        "/V1/streams",
    ],
)
def test_unknown_paths(basin: Basin, path: str) -> None:
    assert basin.send("GET", path).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/health", {"GET"}),
        ("DELETE", "/v1/basins", {"GET", "POST"}),
        ("POST", "/v1/basins/basin-one", {"GET", "PUT", "PATCH", "DELETE"}),
        ("PUT", "/v1/streams/a/records", {"GET", "POST"}),
        ("POST", "/v1/streams/a/records/tail", {"GET"}),
    ],
)
def test_methods_that_a_path_does_not_have(
    basin: Basin, method: str, path: str, allow: set[str]
) -> None:
    reply = basin.send(method, path)
    assert reply.status == 405
    # What answers GET answers HEAD.
    assert {name.strip() for name in reply.headers["allow"].split(",")} - {"HEAD"} == allow


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/streams"),
        ("GET", "/v1/streams/a"),
        ("PUT", "/v1/streams/a"),
        ("DELETE", "/v1/streams/a"),
        ("GET", "/v1/streams/a/records"),
        ("GET", "/v1/streams/a/records/tail"),
        ("POST", "/v1/streams/a/records"),
    ],
)
def test_streams_need_a_basin(address: Address, method: str, path: str) -> None:
    assert address.request(method, path, JSON).error == (400, "bad_header")


@pytest.mark.parametrize("config", ["create_stream_on_append", "create_stream_on_read"])
@pytest.mark.parametrize("request_name", ["append", "session", "read", "tail"])
def test_missing_streams_may_be_created(address: Address, config: str, request_name: str) -> None:
    basin = Basin.make(address, **{config: True})
    stream = basin.stream("a/new one")
    replies = {
        "append": lambda: stream.append(bodies("a")),
        "session": lambda: stream.append_session(encode_batch(bodies("a"))),
        "read": lambda: stream.read("tail_offset=1&wait=0"),
        "tail": lambda: basin.send("GET", f"{stream.records}/tail"),
    }
    reply = replies[request_name]()
    is_append = request_name in ("append", "session")
    if is_append == (config == "create_stream_on_append"):
        assert reply.status == (416 if request_name == "read" else 200)
        assert basin.send("GET", stream.path).status == 200
    else:
        assert reply.error == (404, "stream_not_found")
        assert basin.send("GET", stream.path).error == (404, "stream_not_found")


def test_an_empty_batch_creates_no_stream(address: Address) -> None:
    basin = Basin.make(address, create_stream_on_append=True)
    stream = basin.stream("new")
    assert stream.append([]).error == (422, "invalid")
    assert basin.send("GET", stream.path).error == (404, "stream_not_found")
