from __future__ import annotations

from typing import Any

import pytest

from embedded.host import BASIN, Host, make_host
from s2_bodies import bodies

JSON = {"content-type": "application/json"}
CREATED_AT = "1970-01-12T13:46:40Z"


def test_a_new_basin() -> None:
    host = Host()
    reply = host.send_json("POST", "/v1/basins", {"basin": "basin-one"})
    assert reply.status == 201
    assert reply.headers["s2-provision-result"] == "created"
    assert reply.json == {
        "name": "basin-one",
        "location": None,
        "created_at": CREATED_AT,
        "deleted_at": None,
        "state": "active",
    }
    again = host.send_json("POST", "/v1/basins", {"basin": "basin-one", "config": None})
    assert again.error == (409, "resource_already_exists")


def test_a_new_stream() -> None:
    host = make_host()
    reply = host.send_json("POST", "/v1/streams", {"stream": "a/b"})
    assert reply.status == 201
    assert reply.headers["s2-provision-result"] == "created"
    assert reply.json == {
        "name": "a/b",
        "created_at": CREATED_AT,
        "deleted_at": None,
        "cipher": None,
    }
    assert host.send_json("POST", "/v1/streams", {"stream": "a/b"}).error[0] == 409


@pytest.mark.parametrize(("path", "key"), [("/v1/basins", "basin"), ("/v1/streams", "stream")])
def test_a_repeated_create(path: str, key: str) -> None:
    host = make_host()
    token = {"s2-request-token": "t"}
    assert host.send_json("POST", path, {key: "name-two"}, token).status == 201
    again = host.send_json("POST", path, {key: "name-two"}, token)
    assert (again.status, again.headers["s2-provision-result"]) == (201, "noop")
    too_long = host.send_json("POST", path, {key: "name-two"}, {"s2-request-token": "t" * 37})
    assert too_long.error == (400, "bad_header")


@pytest.mark.parametrize(
    ("path", "config", "other"),
    [
        (
            "/v1/basins/basin-two",
            {"config": {"create_stream_on_read": True}},
            {"config": {"create_stream_on_append": True}},
        ),
        (
            "/v1/streams/a%2Fb",
            {"timestamping": {"mode": "arrival"}},
            {"timestamping": {"mode": "client-require"}},
        ),
    ],
)
def test_ensuring(path: str, config: Any, other: Any) -> None:
    host = make_host()
    results = [
        (reply.status, reply.headers["s2-provision-result"])
        for reply in (
            host.send_json("PUT", path, config),
            host.send_json("PUT", path, config),
            host.send_json("PUT", path, other),
            host.send("PUT", path),
            host.send("PUT", path, JSON),
            host.send_json("PUT", path, {}),
        )
    ]
    assert results == [
        (201, "created"),
        (200, "noop"),
        (200, "updated"),
        (200, "updated"),  # no body is the default configuration
        (200, "noop"),
        (200, "noop"),
    ]


def test_reading_and_changing_configurations() -> None:
    host = make_host()
    basin, stream = f"/v1/basins/{BASIN}", "/v1/streams/room%2F1"
    assert host.send("GET", basin).json["create_stream_on_read"] is False
    changed = host.send_json("PATCH", basin, {"create_stream_on_read": True})
    assert changed.status == 200
    assert changed.json == host.send("GET", basin).json
    assert changed.json["create_stream_on_read"] is True
    changed = host.send_json("PATCH", stream, {"retention_policy": {"infinite": {}}})
    assert changed.json == host.send("GET", stream).json
    assert changed.json["retention_policy"] == {"infinite": {}}


def test_deleting() -> None:
    host = make_host()
    host.append_ok(*bodies("a"))
    gone = host.send("DELETE", "/v1/streams/room%2F1")
    assert (gone.status, gone.body, gone.headers["content-length"]) == (202, b"", "0")
    assert host.send("GET", "/v1/streams/room%2F1").error == (404, "stream_not_found")
    assert host.send("DELETE", f"/v1/basins/{BASIN}").status == 202
    assert host.send("GET", f"/v1/basins/{BASIN}").error == (404, "basin_not_found")


def test_the_tail() -> None:
    host = make_host()
    path = "/v1/streams/room%2F1/records/tail"
    assert host.send("GET", path).json == {"tail": {"seq_num": 0, "timestamp": 0}}
    host.append_ok(*bodies("a", "b"))
    assert host.send("GET", path).json == {"tail": {"seq_num": 2, "timestamp": 1_000_000_000}}


def test_asking_for_the_tail_may_create_the_stream() -> None:
    host = make_host(create_stream_on_read=True)
    assert host.send("GET", "/v1/streams/new/records/tail").status == 200
    assert host.send("GET", "/v1/streams/new").status == 200


def listed(host: Host, query: str) -> tuple[list[str], bool]:
    reply = host.send("GET", f"/v1/streams?{query}")
    assert reply.status == 200
    return [stream["name"] for stream in reply.json["streams"]], reply.json["has_more"]


@pytest.mark.parametrize(
    ("query", "names", "has_more"),
    [
        ("", ["a/1", "a/2", "b", "room/1"], False),
        ("limit=2", ["a/1", "a/2"], True),
        ("limit=4", ["a/1", "a/2", "b", "room/1"], False),
        ("limit=0", ["a/1", "a/2", "b", "room/1"], False),
        ("limit=1001", ["a/1", "a/2", "b", "room/1"], False),
        ("prefix=a%2F", ["a/1", "a/2"], False),
        ("prefix=a%2F&start_after=a%2F1", ["a/2"], False),
        ("start_after=a%2F2&limit=1", ["b"], True),
        ("prefix=c", [], False),
        ("prefix=%FF", [], False),
    ],
)
def test_listing_streams(query: str, names: list[str], has_more: bool) -> None:
    host = make_host()
    for name in ("b", "a/2", "a/1"):
        host.send_json("POST", "/v1/streams", {"stream": name})
    assert listed(host, query) == (names, has_more)


def test_a_list_has_a_thousand_entries_at_most() -> None:
    host = make_host()
    for i in range(1001):
        host.send("PUT", f"/v1/streams/{i}")
    for query in ("", "limit=1000", "limit=5000"):
        names, has_more = listed(host, query)
        assert (len(names), has_more) == (1000, True)


def test_listing_basins() -> None:
    host = make_host()
    for name in ("basin-two", "basin-one"):
        host.send("PUT", f"/v1/basins/{name}")
    reply = host.send("GET", "/v1/basins?prefix=basin&limit=1")
    assert [basin["name"] for basin in reply.json["basins"]] == ["basin-one"]
    assert reply.json["has_more"] is True


@pytest.mark.parametrize(
    "target",
    [
        "/v1/basins?prefix=-",
        "/v1/basins?prefix=A",
        "/v1/basins?start_after=a_b",
        "/v1/basins?prefix=" + "a" * 49,
        "/v1/basins?limit=-1",
        "/v1/basins?limit=",
        "/v1/basins?prefix=a&prefix=b",
        "/v1/streams?prefix=" + "a" * 513,
        "/v1/streams?prefix=%00",
        "/v1/streams?limit=x",
    ],
)
def test_lists_that_cannot_be(target: str) -> None:
    assert make_host().send("GET", target).error == (400, "bad_query")


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/v1/basins", b"{}"),
        ("POST", "/v1/basins", b"[]"),
        ("POST", "/v1/basins", b"null"),
        ("POST", "/v1/basins", b""),
        ("POST", "/v1/basins", b"{"),
        ("POST", "/v1/basins", b'{"basin":"short"}'),
        ("POST", "/v1/basins", b'{"basin":"basin-two","config":[]}'),
        ("POST", "/v1/streams", b"{}"),
        ("POST", "/v1/streams", b'{"stream":""}'),
        ("POST", "/v1/streams", b'{"stream":".."}'),
        ("POST", "/v1/streams", b'{"stream":"\\ud800"}'),
        ("PUT", "/v1/basins/basin-two", b"[]"),
        ("PUT", "/v1/streams/new", b'{"timestamping":5}'),
        ("PATCH", f"/v1/basins/{BASIN}", b""),
        ("PATCH", "/v1/streams/room%2F1", b"null"),
    ],
)
def test_bodies_that_cannot_be(method: str, target: str, body: bytes) -> None:
    host = make_host()
    assert host.send(method, target, JSON, body).error == (400, "bad_json")
    assert host.send("GET", "/v1/basins").json["has_more"] is False


@pytest.mark.parametrize("content_type", [None, "text/plain"])
def test_json_must_be_called_json(content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    for method, path in (("POST", "/v1/basins"), ("PATCH", f"/v1/basins/{BASIN}")):
        reply = make_host().send(method, path, headers, b'{"basin":"basin-two"}')
        assert reply.error == (400, "bad_json")


def test_a_cipher_is_refused() -> None:
    value = {"basin": "basin-two", "config": {"stream_cipher": "aegis-256"}}
    reply = Host().send_json("POST", "/v1/basins", value)
    assert reply.error == (422, "invalid")
    assert "does not encrypt" in reply.json["message"]
