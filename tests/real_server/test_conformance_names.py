"""Names of basins and streams: what they may be, and how they travel."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from real_server.places import every_transport
from real_server.raw_http import Address
from real_server.streams import PROTOBUF, Basin, Stream, unique_name
from s2_bodies import bodies

GOOD_STREAMS = [
    "a",
    "a/b",
    "/",
    "//",
    "/a/",
    "a b",
    " ",
    "a+b",
    "a%2Fb",
    "%",
    "?",
    "a?b=c&d",
    "#",
    "a#b",
    "...",
    "./a",
    "../a",
    "a/..",
    "\u00e9",
    "\u65e5\u672c/\U0001f600",
    "e\u0301",
    "A",
    "\t\n\r",
    "\x7f",
    '"\\',
    "records",
    "a/records",
    "x" * 512,
    "\u00e9" * 256,
]


@every_transport
@pytest.mark.parametrize("name", GOOD_STREAMS)
def test_names_of_streams(own_basin: Basin, name: str) -> None:
    stream = own_basin.make_stream(name)
    stream.append_ok(*bodies(name))
    assert stream.bodies() == [name.encode()]
    assert own_basin.send("GET", "/v1/streams").json["streams"][0]["name"] == name
    reply = own_basin.send("GET", f"/v1/streams?prefix={quote(name, safe='')}")
    assert [found["name"] for found in reply.json["streams"]] == [name]


@pytest.mark.parametrize("name", GOOD_STREAMS)
def test_names_of_streams_in_bodies(own_basin: Basin, name: str) -> None:
    reply = own_basin.send_json("POST", "/v1/streams", {"stream": name})
    assert (reply.status, reply.json["name"]) == (201, name)
    assert own_basin.send("GET", own_basin.stream(name).path).status == 200


BAD_STREAMS = ["", ".", "..", "x" * 513, "\u00e9" * 256 + "x", "a\0b"]


@pytest.mark.parametrize("name", BAD_STREAMS)
def test_names_that_no_stream_has(basin: Basin, name: str) -> None:
    assert basin.send_json("POST", "/v1/streams", {"stream": name}).error == (400, "bad_json")


@pytest.mark.parametrize(
    "segment",
    [".", "..", "%2E", "%2E%2e", "%ff", "%ED%A0%80", "x" * 513, "%C3%A9" * 256 + "x", "a%00b"],
)
@every_transport
@pytest.mark.parametrize(("method", "end"), [("PUT", ""), ("POST", "/records")])
def test_paths_that_name_no_stream(basin: Basin, segment: str, method: str, end: str) -> None:
    reply = basin.send(method, f"/v1/streams/{segment}{end}", PROTOBUF, b"\x0a\x00")
    assert reply.error == (400, "bad_path")


@pytest.mark.parametrize("end", ["records", "records/tail"])
def test_an_empty_name_in_a_path(basin: Basin, end: str) -> None:
    assert basin.send("GET", f"/v1/streams//{end}").error == (400, "bad_path")


# The same stream in other spellings of its path.
@every_transport
@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("room%2f1", "room/1"),
        ("%72oom%2F1", "room/1"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("a%2Bb", "a+b"),
        ("a%252Fb", "a%2Fb"),
        ("a%2", "a%2"),
        ("a%zz", "a%zz"),
        ("a:b@c!$&'()*,;=", "a:b@c!$&'()*,;="),
        ("a%C3%A9", "a\u00e9"),
    ],
)
def test_spellings_of_a_path(own_basin: Basin, segment: str, name: str) -> None:
    assert own_basin.send_json("POST", "/v1/streams", {"stream": name}).status == 201
    reply = own_basin.send("POST", f"/v1/streams/{segment}/records", PROTOBUF, b"\x0a\x00")
    assert reply.status == 200, reply
    assert own_basin.stream(name).tail() == 1


def test_names_are_not_normalized(own_basin: Basin) -> None:
    for name in ("\u00e9", "e\u0301", "A", "a", "a/", "/a"):
        own_basin.make_stream(name)
    assert len(own_basin.send("GET", "/v1/streams").json["streams"]) == 6


def test_a_slash_is_not_a_way_into_another_stream(own_basin: Basin) -> None:
    own_basin.make_stream("a/records")
    assert own_basin.send("GET", "/v1/streams/a/records/tail").error == (404, "stream_not_found")
    assert own_basin.stream("a/records").tail() == 0


BAD_BASINS = [
    "",
    "a" * 7,
    "a" * 49,
    "Uppercase-basin",
    "-leading-dash",
    "trailing-dash-",
    "under_score",
    "with.dot-basin",
    "with space",
    "basin/one",
    "b\u00e4sin-one",
]


@pytest.mark.parametrize("name", BAD_BASINS)
def test_names_that_no_basin_has(address: Address, name: str) -> None:
    anywhere = Basin(address, "basin-one")
    assert anywhere.send_json("POST", "/v1/basins", {"basin": name}).error == (400, "bad_json")
    if name:
        path = f"/v1/basins/{quote(name, safe='')}"
        assert address.request("PUT", path, {}).error == (400, "bad_path")
        assert address.request("GET", path, {}).error == (400, "bad_path")
    if name.isascii():
        reply = address.request("GET", "/v1/streams", {"s2-basin": name})
        assert reply.error == (400, "bad_header")


@pytest.mark.parametrize("size", [24, 48])
def test_names_of_basins(address: Address, size: int) -> None:
    name = unique_name("a--0").ljust(size, "9")
    basin = Basin(address, name)
    reply = address.request("PUT", basin.path, {})
    assert (reply.status, reply.json["name"]) == (201, name)
    basin.make_stream("a").append_ok(*bodies("a"))
    assert basin.stream("a").tail() == 1


def test_the_shortest_name_of_a_basin(address: Address) -> None:
    assert address.request("PUT", "/v1/basins/abc-1234", {}).status in (200, 201)
    assert address.request("GET", "/v1/basins/%61bc-1234", {}).status == 200


def test_the_same_name_in_two_basins(address: Address, stream: Stream) -> None:
    other = Basin.make(address).make_stream()
    stream.append_ok(*bodies("a"))
    assert (stream.tail(), other.tail()) == (1, 0)
