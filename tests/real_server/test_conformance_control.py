"""Basins and streams: creating, ensuring, configuring, deleting and listing them."""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from real_server.places import every_transport
from real_server.raw_http import Address, Reply
from real_server.streams import JSON, S2S, Basin, Stream, eventually, next_messages, unique_name
from s2_bodies import bodies
from s2frames.s2s import Message, Terminal


def provision(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.headers["s2-provision-result"]


def test_a_new_basin(address: Address) -> None:
    basin = Basin(address, unique_name())
    reply = basin.send_json("POST", "/v1/basins", {"basin": basin.name})
    assert provision(reply) == (201, "created")
    value = reply.json
    assert datetime.fromisoformat(value.pop("created_at")).tzinfo
    assert value == {"name": basin.name, "location": None, "deleted_at": None, "state": "active"}
    again = basin.send_json("POST", "/v1/basins", {"basin": basin.name, "config": None})
    assert again.error == (409, "resource_already_exists")


def test_a_new_stream(own_basin: Basin) -> None:
    reply = own_basin.send_json("POST", "/v1/streams", {"stream": "a/b"})
    assert provision(reply) == (201, "created")
    value = reply.json
    assert datetime.fromisoformat(value.pop("created_at")).tzinfo
    assert value == {"name": "a/b", "deleted_at": None, "cipher": None}
    again = own_basin.send_json("POST", "/v1/streams", {"stream": "a/b"})
    assert again.error == (409, "resource_already_exists")


@pytest.mark.parametrize(("path", "key"), [("/v1/basins", "basin"), ("/v1/streams", "stream")])
def test_a_repeated_create(basin: Basin, path: str, key: str) -> None:
    token = {"s2-request-token": "t" * 36}
    value = {key: unique_name(), "config": {}}
    assert basin.send_json("POST", path, value, token).status == 201
    assert provision(basin.send_json("POST", path, value, token)) == (201, "noop")
    conflict = (409, "resource_already_exists")
    assert basin.send_json("POST", path, value, {"s2-request-token": "u"}).error == conflict
    assert basin.send_json("POST", path, value).error == conflict
    changed = {**value, "config": CHANGES[key]}
    assert basin.send_json("POST", path, changed, token).error == conflict
    too_long = {"s2-request-token": "t" * 37}
    assert basin.send_json("POST", path, value, too_long).error == (400, "bad_header")


CHANGES: dict[str, Any] = {
    "basin": {"create_stream_on_read": True},
    "stream": {"timestamping": {"mode": "arrival"}},
}


@every_transport
@pytest.mark.parametrize("kind", ["basin", "stream"])
def test_ensuring(address: Address, kind: str) -> None:
    basin = Basin.make(address)
    path = "/v1/streams/new" if kind == "stream" else f"/v1/basins/{unique_name()}"

    def ensure(config: dict[str, Any]) -> tuple[int, str]:
        value = config if kind == "stream" else {"config": config}
        return provision(basin.send_json("PUT", path, value))

    assert ensure(CHANGES[kind]) == (201, "created")
    assert ensure(CHANGES[kind]) == (200, "noop")
    assert ensure({}) == (200, "updated")
    assert ensure({}) == (200, "noop")
    assert ensure(CHANGES[kind]) == (200, "updated")
    # No body is the default configuration.
    assert provision(basin.send("PUT", path)) == (200, "updated")
    assert provision(basin.send("PUT", path, JSON)) == (200, "noop")


DEFAULT_STREAM = {
    "storage_class": "express",
    "retention_policy": {"age": 604800},
    "timestamping": {"mode": "client-prefer", "uncapped": False},
    "delete_on_empty": {"min_age_secs": 0},
}
DEFAULT_BASIN = {
    "default_stream_config": None,
    "stream_cipher": None,
    "create_stream_on_append": False,
    "create_stream_on_read": False,
}


def test_default_configurations(own_basin: Basin) -> None:
    assert own_basin.send("GET", own_basin.path).json == DEFAULT_BASIN
    assert own_basin.send("GET", own_basin.make_stream("new").path).json == DEFAULT_STREAM


# What a configuration becomes by a change, and by a second one.
STREAM_CHANGES: list[tuple[Any, Any, dict[str, Any]]] = [
    ({}, {}, {}),
    (
        {"retention_policy": {"infinite": {}}},
        {"timestamping": {"mode": "arrival"}},
        {
            "retention_policy": {"infinite": {}},
            "timestamping": {"mode": "arrival", "uncapped": False},
        },
    ),
    ({"retention_policy": {"age": 5}}, {"retention_policy": None}, {}),
    (
        {"timestamping": {"mode": "arrival", "uncapped": True}},
        {"timestamping": {"mode": None}},
        {"timestamping": {"mode": "client-prefer", "uncapped": True}},
    ),
    ({"timestamping": {"uncapped": True}}, {"timestamping": None}, {}),
    (
        {"delete_on_empty": {"min_age_secs": 7}},
        {"storage_class": "standard"},
        {"delete_on_empty": {"min_age_secs": 7}, "storage_class": "standard"},
    ),
    ({"delete_on_empty": {"min_age_secs": 7}}, {"delete_on_empty": None}, {}),
    ({"unknown": 1}, {"storage_class": None}, {}),
]


@pytest.mark.parametrize(
    ("first", "second", "expected"), STREAM_CHANGES, ids=range(len(STREAM_CHANGES))
)
def test_changing_a_stream(
    stream: Stream, first: Any, second: Any, expected: dict[str, Any]
) -> None:
    assert stream.basin.send_json("PATCH", stream.path, first).status == 200
    reply = stream.basin.send_json("PATCH", stream.path, second)
    assert (reply.status, reply.json) == (200, {**DEFAULT_STREAM, **expected})
    assert stream.basin.send("GET", stream.path).json == reply.json


def test_changing_a_basin(own_basin: Basin) -> None:
    default = {"retention_policy": {"age": 5}}
    change = {"create_stream_on_append": True, "default_stream_config": default}
    assert own_basin.send_json("PATCH", own_basin.path, change).status == 200
    reply = own_basin.send_json("PATCH", own_basin.path, {"create_stream_on_read": True})
    full_default = {
        "storage_class": None,
        "retention_policy": {"age": 5},
        "timestamping": None,
        "delete_on_empty": None,
    }
    assert reply.json == {
        "default_stream_config": full_default,
        "stream_cipher": None,
        "create_stream_on_append": True,
        "create_stream_on_read": True,
    }
    assert own_basin.send("GET", own_basin.path).json == reply.json
    created = own_basin.make_stream("new")
    assert own_basin.send("GET", created.path).json == {
        **DEFAULT_STREAM,
        "retention_policy": {"age": 5},
    }


BAD_BODIES = [
    ("POST", "/v1/basins", b"{}", "bad_json"),
    ("POST", "/v1/basins", b"[]", "bad_json"),
    ("POST", "/v1/basins", b"null", "bad_json"),
    ("POST", "/v1/basins", b"", "bad_json"),
    ("POST", "/v1/basins", b"{", "bad_json"),
    ("POST", "/v1/basins", b'{"basin":5}', "bad_json"),
    ("POST", "/v1/basins", b'{"basin":"basin-two","config":[]}', "bad_json"),
    ("POST", "/v1/streams", b"{}", "bad_json"),
    ("POST", "/v1/streams", b'{"stream":"\\ud800"}', "bad_json"),
    ("PUT", "/v1/basins/basin-two", b"[]", "bad_json"),
    ("PUT", "/v1/streams/new", b'{"timestamping":5}', "bad_json"),
    ("PUT", "/v1/streams/new", b'{"timestamping":{"mode":"never"}}', "bad_json"),
    ("PUT", "/v1/streams/new", b'{"retention_policy":{"age":-1}}', "bad_json"),
    ("PUT", "/v1/streams/new", b'{"retention_policy":{}}', "bad_json"),
    ("PUT", "/v1/streams/new", b'{"delete_on_empty":{"min_age_secs":null}}', "bad_json"),
    ("PUT", "/v1/streams/new", b'{"retention_policy":{"age":0}}', "invalid"),
    ("PATCH", "/v1/streams/new", b"", "bad_json"),
    ("PATCH", "/v1/streams/new", b"null", "bad_json"),
]


@pytest.mark.parametrize(
    ("method", "target", "body", "code"), BAD_BODIES, ids=range(len(BAD_BODIES))
)
def test_bodies_that_cannot_be(
    basin: Basin, method: str, target: str, body: bytes, code: str
) -> None:
    status = 422 if code == "invalid" else 400
    assert basin.send(method, target, JSON, body).error == (status, code)
    assert basin.send("GET", "/v1/streams/new").error == (404, "stream_not_found")


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/basins"), ("POST", "/v1/streams"), ("PATCH", "")]
)
def test_json_must_be_called_json(
    basin: Basin, headers: dict[str, str], method: str, path: str
) -> None:
    reply = basin.send(method, path or basin.path, headers, b'{"basin":"basin-two"}')
    assert reply.error == (400, "bad_json")


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_missing_streams_and_basins(basin: Basin, method: str) -> None:
    headers, body = (JSON, b"{}") if method == "PATCH" else ({}, b"")
    missing = f"/v1/basins/{unique_name()}"
    assert basin.send(method, missing, headers, body).error == (404, "basin_not_found")
    reply = basin.send(method, "/v1/streams/missing", headers, body)
    assert reply.error == (404, "stream_not_found")
    # Where there is no basin there may be no stream either.
    elsewhere = {**headers, "s2-basin": "no-such-basin"}
    code = basin.send(method, "/v1/streams/missing", elsewhere, body).error[1]
    assert code in ("basin_not_found", "stream_not_found")


def test_creating_a_stream_in_a_missing_basin(address: Address) -> None:
    nowhere = Basin(address, unique_name())
    expected = (404, "basin_not_found")
    assert nowhere.send_json("POST", "/v1/streams", {"stream": "a"}).error == expected
    assert nowhere.send("PUT", "/v1/streams/a").error == expected
    assert nowhere.send("GET", "/v1/streams").error == expected


def test_a_deleted_stream(own_basin: Basin) -> None:
    stream = own_basin.make_stream("new")
    stream.append_ok(*bodies("a"))
    reply = own_basin.send("DELETE", stream.path)
    assert (reply.status, reply.body) == (202, b"")
    # Until it is gone, its deletion is pending.
    for path in (stream.path, stream.records, f"{stream.records}/tail"):
        eventually(partial(is_settled, own_basin, path))
        assert own_basin.send("GET", path).error == (404, "stream_not_found")
    assert own_basin.send("GET", "/v1/streams").json["streams"] == []
    assert provision(own_basin.send("PUT", stream.path)) == (201, "created")
    assert stream.tail() == 0


def is_settled(basin: Basin, path: str) -> bool:
    return basin.send("GET", path).status != 409


def test_a_follower_of_a_deleted_stream(stream: Stream) -> None:
    with stream.open_read("seq_num=0", S2S) as session:
        assert session.receive_head()[0] == 200
        messages = next_messages(session)
        assert isinstance(next(messages), Message)
        assert stream.basin.send("DELETE", stream.path).status == 202
        # The trim that deletes may come first.
        *_, last = messages
        assert isinstance(last, Terminal)
        # A server that loses the stream before it knows why asks to try again.
        error = last.status, json.loads(last.body)["code"]
        assert error in ((404, "stream_not_found"), (503, "unavailable"))


def test_a_deleted_basin(own_basin: Basin) -> None:
    own_basin.make_stream("new").append_ok(*bodies("a"))
    reply = own_basin.send("DELETE", own_basin.path)
    assert (reply.status, reply.body) == (202, b"")
    # It is listed as long as it is being deleted, and then its streams are gone too.
    found = own_basin.send("GET", f"/v1/basins?prefix={own_basin.name}").json["basins"]
    assert all(basin["state"] == "deleting" for basin in found)


# Lists

NAMES = ["a/1", "a/2", "b", "b\u00e9", "c"]


@pytest.mark.parametrize(
    ("query", "names", "has_more"),
    [
        ("", NAMES, False),
        ("limit=2", NAMES[:2], True),
        ("limit=5", NAMES, False),
        ("limit=0", NAMES, False),
        ("limit=1001", NAMES, False),
        ("prefix=a%2F", NAMES[:2], False),
        ("prefix=a%2F&limit=1", NAMES[:1], True),
        ("prefix=a%2F&start_after=a%2F1", NAMES[1:2], False),
        ("start_after=a%2F2&limit=1", NAMES[2:3], True),
        ("start_after=a", NAMES, False),
        ("start_after=c", [], False),
        ("start_after=zzz", [], False),
        ("prefix=b&start_after=a", NAMES[2:4], False),
        ("prefix=a&start_after=b", [], False),
        ("prefix=d", [], False),
        ("prefix=&start_after=", NAMES, False),
        ("prefix=%FF", [], False),
        ("prefix=b%C3%A9", NAMES[3:4], False),
    ],
)
def test_listing_streams(listed: Basin, query: str, names: list[str], has_more: bool) -> None:
    reply = listed.send("GET", f"/v1/streams?{query}")
    assert reply.status == 200
    assert [stream["name"] for stream in reply.json["streams"]] == names
    assert reply.json["has_more"] is has_more


@pytest.fixture
def listed(own_basin: Basin) -> Basin:
    """A basin with streams of these names, made in another order."""
    for name in reversed(NAMES):
        own_basin.make_stream(name)
    return own_basin


def test_listing_basins(address: Address) -> None:
    prefix = unique_name("listed")
    names = [f"{prefix}-{letter}" for letter in "abc"]
    for name in reversed(names):
        assert address.request("PUT", f"/v1/basins/{name}", {}).status == 201

    def page(query: str) -> tuple[list[str], bool]:
        reply = address.request("GET", f"/v1/basins?prefix={prefix}{query}", {})
        assert reply.status == 200
        return [basin["name"] for basin in reply.json["basins"]], reply.json["has_more"]

    assert page("") == (names, False)
    assert page("&limit=2") == (names[:2], True)
    assert page(f"&limit=2&start_after={names[1]}") == (names[2:], False)
    assert page("-b") == (names[1:2], False)
    assert page("-x") == ([], False)


@pytest.mark.parametrize(
    "target",
    [
        "/v1/basins?prefix=-",
        "/v1/basins?prefix=A",
        "/v1/basins?start_after=a_b",
        f"/v1/basins?prefix={'a' * 49}",
        "/v1/basins?limit=-1",
        "/v1/basins?limit=",
        "/v1/basins?prefix=a&prefix=b",
        f"/v1/streams?prefix={'a' * 513}",
        "/v1/streams?prefix=%00",
        "/v1/streams?start_after=%00",
        "/v1/streams?limit=x",
    ],
)
def test_lists_that_cannot_be(basin: Basin, target: str) -> None:
    assert basin.send("GET", target).error == (400, "bad_query")
