"""The control calls: what is asked, and what any answer to it becomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, assert_type
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames import rest
from s2frames.config import BasinConfig, StorageClass, StreamConfig
from s2frames.errors import LocalProtocolError, RemoteProtocolError, ServiceError
from s2frames.http import Request
from s2frames.records import StreamPosition
from s2frames.rest import BasinInfo, Call, Page, Provisioned, StreamInfo
from s2frames.settings import Endpoints, Settings
from s2frames.u64 import U64_MAX
from strategies import any_json

LOCAL = Settings(endpoints=Endpoints.at("http://localhost:8080/"))
CLOUD = Settings(access_token="hush-hush")

BASIN, STREAM = "my-basin-1", "chat/42 ü?#%"
ESCAPED = "chat%2F42%20%C3%BC%3F%23%25"

NOW = "2026-11-22T13:58:58.440019998Z"
BASIN_JSON = {
    "name": BASIN,
    "location": None,
    "created_at": NOW,
    "deleted_at": None,
    "state": "active",
}
STREAM_JSON = {"name": STREAM, "created_at": NOW, "deleted_at": None, "cipher": None}

CONFIG = StreamConfig(storage_class=StorageClass.EXPRESS, retention=3600, uncapped=True)
CONFIG_JSON = {
    "storage_class": "express",
    "retention_policy": {"age": 3600},
    "timestamping": {"uncapped": True},
}

# Every call, with an answer that S2 gives to it, and what that answer means.
CALLS: dict[str, tuple[Call[Any], str, str, int, object, object]] = {
    "list_basins": (
        rest.list_basins(LOCAL),
        "GET",
        "/v1/basins?limit=1000",
        200,
        {"basins": [BASIN_JSON], "has_more": False},
        Page((BasinInfo(BASIN, NOW),), has_more=False),
    ),
    "create_basin": (
        rest.create_basin(LOCAL, BASIN),
        "POST",
        "/v1/basins",
        201,
        BASIN_JSON,
        BasinInfo(BASIN, NOW),
    ),
    "ensure_basin": (
        rest.ensure_basin(LOCAL, BASIN),
        "PUT",
        f"/v1/basins/{BASIN}",
        201,
        BASIN_JSON,
        Provisioned.CREATED,
    ),
    "get_basin_config": (
        rest.get_basin_config(LOCAL, BASIN),
        "GET",
        f"/v1/basins/{BASIN}",
        200,
        {
            "default_stream_config": None,
            "stream_cipher": None,
            "create_stream_on_append": True,
            "create_stream_on_read": False,
        },
        BasinConfig(create_stream_on_append=True, create_stream_on_read=False),
    ),
    "delete_basin": (
        rest.delete_basin(LOCAL, BASIN),
        "DELETE",
        f"/v1/basins/{BASIN}",
        202,
        b"",
        None,
    ),
    "list_streams": (
        rest.list_streams(LOCAL, BASIN),
        "GET",
        "/v1/streams?limit=1000",
        200,
        {"streams": [{**STREAM_JSON, "deleted_at": NOW, "cipher": "aegis-256"}], "has_more": True},
        Page((StreamInfo(STREAM, NOW, NOW, "aegis-256"),), has_more=True),
    ),
    "create_stream": (
        rest.create_stream(LOCAL, BASIN, STREAM),
        "POST",
        "/v1/streams",
        201,
        STREAM_JSON,
        StreamInfo(STREAM, NOW),
    ),
    "ensure_stream": (
        rest.ensure_stream(LOCAL, BASIN, STREAM),
        "PUT",
        f"/v1/streams/{ESCAPED}",
        200,
        STREAM_JSON,
        Provisioned.NOOP,
    ),
    "get_stream_config": (
        rest.get_stream_config(LOCAL, BASIN, STREAM),
        "GET",
        f"/v1/streams/{ESCAPED}",
        200,
        CONFIG_JSON,
        CONFIG,
    ),
    "delete_stream": (
        rest.delete_stream(LOCAL, BASIN, STREAM),
        "DELETE",
        f"/v1/streams/{ESCAPED}",
        202,
        b"",
        None,
    ),
    "check_tail": (
        rest.check_tail(LOCAL, BASIN, STREAM),
        "GET",
        f"/v1/streams/{ESCAPED}/records/tail",
        200,
        {"tail": {"seq_num": U64_MAX, "timestamp": 0}},
        StreamPosition(U64_MAX, 0),
    ),
}
BASIN_CALLS = [name for name in CALLS if "stream" in name or name == "check_tail"]

any_call = st.sampled_from([case[0] for case in CALLS.values()])


def encode(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


# Requests


@pytest.mark.parametrize("name", CALLS)
def test_call_asks_for_what_s2_routes(name: str) -> None:
    call, method, target, *_ = CALLS[name]
    assert call.request.method == method
    assert call.request.url == f"http://localhost:8080{target}"


@pytest.mark.parametrize("name", CALLS)
def test_call_has_the_headers_of_its_endpoint(name: str) -> None:
    headers = CALLS[name][0].request.headers
    assert headers.get("s2-basin") == (BASIN if name in BASIN_CALLS else None)
    assert headers["accept"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert "authorization" not in headers


def test_cloud_names_the_basin_in_the_host() -> None:
    request = rest.check_tail(CLOUD, BASIN, "s").request
    assert request.url == f"https://{BASIN}.b.s2.dev/v1/streams/s/records/tail"
    assert request.headers["authorization"] == "Bearer hush-hush"
    assert "s2-basin" not in request.headers
    assert rest.delete_basin(CLOUD, BASIN).request.url == f"https://a.s2.dev/v1/basins/{BASIN}"


def test_token_is_in_no_repr() -> None:
    call = rest.create_basin(CLOUD, BASIN, request_token="again-1")
    assert call.request.headers["authorization"] == "Bearer hush-hush"
    assert "hush" not in repr(call)


@pytest.mark.parametrize(
    ("request_", "content"),
    [
        (rest.create_basin(LOCAL, BASIN).request, {"basin": BASIN}),
        (
            rest.create_basin(LOCAL, BASIN, BasinConfig(create_stream_on_read=False)).request,
            {"basin": BASIN, "config": {"create_stream_on_read": False}},
        ),
        (
            rest.ensure_basin(LOCAL, BASIN, BasinConfig(default_stream_config=CONFIG)).request,
            {"config": {"default_stream_config": CONFIG_JSON}},
        ),
        (rest.create_stream(LOCAL, BASIN, STREAM).request, {"stream": STREAM}),
        (
            rest.create_stream(LOCAL, BASIN, STREAM, StreamConfig()).request,
            {"stream": STREAM, "config": {}},
        ),
        (
            rest.ensure_stream(LOCAL, BASIN, STREAM, CONFIG).request,
            CONFIG_JSON,
        ),
    ],
)
def test_body_of_a_request(request_: Request, content: object) -> None:
    assert json.loads(request_.body) == content
    assert request_.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "name", [n for n, (_, method, *_) in CALLS.items() if method in ("GET", "DELETE")]
)
def test_reads_and_deletions_have_no_body(name: str) -> None:
    request = CALLS[name][0].request
    assert request.body == b""
    assert "content-type" not in request.headers


@pytest.mark.parametrize(
    "call", [rest.ensure_basin(LOCAL, BASIN), rest.ensure_stream(LOCAL, BASIN, STREAM)]
)
def test_ensuring_without_a_config_has_no_body(call: Call[Provisioned]) -> None:
    # A content type without a body would be bad JSON to the server.
    assert call.request.body == b""
    assert "content-type" not in call.request.headers


utf8_text = st.text(st.characters(codec="utf-8"))


@given(
    utf8_text.filter(
        lambda t: 1 <= len(t.encode()) <= 512 and t not in (".", "..") and "\0" not in t
    )
)
def test_any_stream_name_is_one_path_segment(name: str) -> None:
    path = urlsplit(rest.check_tail(LOCAL, BASIN, name).request.url).path
    assert path.isascii()
    empty, version, streams, segment, *tail = path.split("/")
    assert (empty, version, streams, tail) == ("", "v1", "streams", ["records", "tail"])
    assert unquote(segment) == name


@given(
    utf8_text.filter(lambda t: len(t.encode()) <= 512),
    utf8_text.filter(lambda t: len(t.encode()) <= 512),
    st.integers(1, 1000),
)
def test_any_filter_is_a_query(prefix: str, start_after: str, limit: int) -> None:
    call = rest.list_streams(LOCAL, BASIN, prefix=prefix, start_after=start_after, limit=limit)
    url = urlsplit(call.request.url)
    assert (url.path, url.fragment) == ("/v1/streams", "")
    expected = {"prefix": prefix, "start_after": start_after, "limit": str(limit)}
    assert dict(parse_qsl(url.query)) == {name: text for name, text in expected.items() if text}


@pytest.mark.parametrize("limit", [0, -1, 1001, True, 1.0, "10", None])
def test_limit_out_of_range(limit: Any) -> None:
    with pytest.raises(
        LocalProtocolError, match=f"limit must be an int from 1 to 1000, not {limit!r}"
    ):
        rest.list_basins(LOCAL, limit=limit)
    with pytest.raises(LocalProtocolError, match="1000"):
        rest.list_streams(LOCAL, BASIN, limit=limit)


@pytest.mark.parametrize("limit", [1, 1000])
def test_limit_at_its_bounds(limit: int) -> None:
    assert rest.list_basins(LOCAL, limit=limit).request.url.endswith(f"?limit={limit}")


@pytest.mark.parametrize("which", ["prefix", "start_after"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is a str, not NoneType"),
        (b"a", "is a str, not bytes"),
        ("\ud800", "must encode as UTF-8"),
        ("ü" * 257, "at most 512 UTF-8 bytes, not 514"),
    ],
)
def test_bad_filter(which: str, text: Any, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"{which} .*{message}"):
        rest.list_streams(LOCAL, BASIN, **{which: text})


def test_bad_filter_of_basins() -> None:
    with pytest.raises(LocalProtocolError, match="prefix has at most 48 UTF-8 bytes, not 49"):
        rest.list_basins(LOCAL, prefix="a" * 49)
    assert "prefix=" + "a" * 48 in rest.list_basins(LOCAL, prefix="a" * 48).request.url


@pytest.mark.parametrize("token", ["", "a" * 37, "ü", "a\nb", "a\x00", 7, b"a"])
def test_bad_request_token(token: Any) -> None:
    with pytest.raises(LocalProtocolError, match="request_token"):
        rest.create_basin(LOCAL, BASIN, request_token=token)
    with pytest.raises(LocalProtocolError, match="request_token"):
        rest.create_stream(LOCAL, BASIN, STREAM, request_token=token)


@pytest.mark.parametrize("token", ["a", "a" * 36])
def test_request_token_is_a_header(token: str) -> None:
    for call in (
        rest.create_basin(LOCAL, BASIN, request_token=token),
        rest.create_stream(LOCAL, BASIN, STREAM, request_token=token),
    ):
        assert call.request.headers["s2-request-token"] == token
    assert "s2-request-token" not in rest.create_basin(LOCAL, BASIN).request.headers


@pytest.mark.parametrize(
    "make",
    [
        rest.create_basin,
        rest.ensure_basin,
        rest.get_basin_config,
        rest.delete_basin,
        rest.list_streams,
    ],
)
@pytest.mark.parametrize("name", ["", "short", "UPPER-CASE", "a" * 49, "-my-basin", "a/../../b", 7])
def test_bad_basin_name(make: Callable[..., Call[Any]], name: Any) -> None:
    with pytest.raises(LocalProtocolError, match="basin name"):
        make(LOCAL, name)


@pytest.mark.parametrize(
    "make",
    [
        rest.create_stream,
        rest.ensure_stream,
        rest.get_stream_config,
        rest.delete_stream,
        rest.check_tail,
    ],
)
@pytest.mark.parametrize("name", ["", ".", "..", "a" * 513, "a\0", "\ud800", None])
def test_bad_stream_name(make: Callable[..., Call[Any]], name: Any) -> None:
    with pytest.raises(LocalProtocolError, match="stream"):
        make(LOCAL, BASIN, name)


@pytest.mark.parametrize("config", [{}, StreamConfig(), "express"])
def test_config_of_another_type(config: Any) -> None:
    with pytest.raises(LocalProtocolError, match="config is a BasinConfig, not"):
        rest.create_basin(LOCAL, BASIN, config)
    with pytest.raises(LocalProtocolError, match="config is a BasinConfig, not"):
        rest.ensure_basin(LOCAL, BASIN, config)


def test_config_of_a_basin_for_a_stream() -> None:
    config: Any = BasinConfig()
    with pytest.raises(LocalProtocolError, match="config is a StreamConfig, not BasinConfig"):
        rest.create_stream(LOCAL, BASIN, STREAM, config)
    with pytest.raises(LocalProtocolError, match="config is a StreamConfig, not BasinConfig"):
        rest.ensure_stream(LOCAL, BASIN, STREAM, config)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", object()])
def test_extra_that_is_not_json(value: object) -> None:
    config = StreamConfig(extra={"new": value})
    with pytest.raises(LocalProtocolError, match="extra is not JSON"):
        rest.ensure_stream(LOCAL, BASIN, STREAM, config)


# Answers


@pytest.mark.parametrize("name", CALLS)
def test_answer_of_s2(name: str) -> None:
    call, _, _, status, body, expected = CALLS[name]
    assert call.parse(status, {}, encode(body)) == expected


def test_calls_say_what_they_give() -> None:
    # For the type checker: these lines fail there if a call's type is another one.
    assert_type(rest.list_basins(LOCAL), Call[Page[BasinInfo]])
    assert_type(rest.list_streams(LOCAL, BASIN), Call[Page[StreamInfo]])
    assert_type(rest.ensure_stream(LOCAL, BASIN, STREAM), Call[Provisioned])
    assert_type(rest.get_stream_config(LOCAL, BASIN, STREAM), Call[StreamConfig])
    tail = rest.check_tail(LOCAL, BASIN, STREAM).parse(
        200, {}, b'{"tail":{"seq_num":1,"timestamp":2}}'
    )
    assert assert_type(tail, StreamPosition) == StreamPosition(1, 2)


@pytest.mark.parametrize("name", ["ensure_basin", "ensure_stream"])
@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (201, {"s2-provision-result": "created"}, Provisioned.CREATED),
        (200, {"s2-provision-result": "noop"}, Provisioned.NOOP),
        (200, {"s2-provision-result": "updated"}, Provisioned.UPDATED),
        (200, {"S2-Provision-Result": "updated"}, Provisioned.UPDATED),
        (200, {"s2-provision-result": "created"}, Provisioned.CREATED),
        (201, {}, Provisioned.CREATED),
        (200, {}, Provisioned.NOOP),
        (200, {"s2-provision-result": ""}, Provisioned.NOOP),
        (201, {"s2-provision-result": "reborn"}, Provisioned.CREATED),
    ],
)
def test_provisioned(
    name: str, status: int, headers: dict[str, str], expected: Provisioned
) -> None:
    call, _, _, _, body, _ = CALLS[name]
    assert call.parse(status, headers, encode(body)) is expected


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("body", [b"<html>Log in to the airport</html>", b"[]", b"7", b"null"])
def test_page_of_a_proxy_is_no_success(name: str, body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        CALLS[name][0].parse(200, {"s2-provision-result": "created"}, body)


@pytest.mark.parametrize("name", [n for n in CALLS if not n.startswith("delete")])
def test_success_needs_a_body(name: str) -> None:
    with pytest.raises(RemoteProtocolError, match="status 204 is not JSON"):
        CALLS[name][0].parse(204, {}, b"")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"deleted_at":"now"}'])
@pytest.mark.parametrize("status", [200, 202, 204])
def test_deletion_needs_none(status: int, body: bytes) -> None:
    rest.delete_basin(LOCAL, BASIN).parse(status, {}, body)
    rest.delete_stream(LOCAL, BASIN, STREAM).parse(status, {}, body)


@pytest.mark.parametrize("name", ["list_basins", "list_streams", "create_basin", "create_stream"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "has no 'name'"),
        ({"name": 7}, "'name' of a .* is a JSON int, not a str"),
        ({"name": "\ud800"}, "'name' .* surrogate"),
        ({"created_at": None}, "has no 'created_at'"),
        ({"created_at": {}}, "'created_at' .* is a JSON dict"),
        ({"deleted_at": False}, "'deleted_at' .* is a JSON bool"),
    ],
)
def test_info_of_another_shape(name: str, change: dict[str, object], message: str) -> None:
    what = name.split("_")[1].removesuffix("s")
    item = {**(BASIN_JSON if what == "basin" else STREAM_JSON), **change}
    body = {f"{what}s": [item], "has_more": False} if name.startswith("list") else item
    with pytest.raises(RemoteProtocolError, match=message):
        CALLS[name][0].parse(200, {}, encode(body))


def test_info_says_where_and_since_when_it_is_deleted() -> None:
    body = encode({**BASIN_JSON, "location": "aws:us-east-1", "deleted_at": NOW, "new": {}})
    info = rest.create_basin(LOCAL, BASIN).parse(201, {}, body)
    assert info == BasinInfo(BASIN, NOW, NOW, "aws:us-east-1")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "has no 'basins'"),
        ({"basins": []}, "has no 'has_more'"),
        ({"basins": {}, "has_more": False}, "'basins' .* is a JSON dict, not a list"),
        ({"basins": [], "has_more": 0}, "'has_more' .* is a JSON int, not a bool"),
        ({"basins": [None], "has_more": False}, "a basin is a JSON NoneType"),
        ({"basins": [BASIN], "has_more": False}, "a basin is a JSON str"),
        ({"basins": [], "has_more": True}, "does not get on"),
    ],
)
def test_page_of_another_shape(body: object, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        rest.list_basins(LOCAL).parse(200, {}, encode(body))


def test_page_after_page_ends() -> None:
    names = [f"basin-{n:04}" for n in range(7)]

    def answer(url: str) -> bytes:
        query = dict(parse_qsl(urlsplit(url).query))
        after = [name for name in names if name > query.get("start_after", "")]
        page, limit = after[: int(query["limit"])], int(query["limit"])
        items = [{**BASIN_JSON, "name": name} for name in page]
        return encode({"basins": items, "has_more": len(after) > limit})

    seen: list[str] = []
    start_after: str | None = ""
    while start_after is not None:
        call = rest.list_basins(LOCAL, start_after=start_after, limit=3)
        page = call.parse(200, {}, answer(call.request.url))
        seen += [info.name for info in page.items]
        start_after = page.next_start_after
    assert seen == names


@pytest.mark.parametrize("start_after", [BASIN, "z"])
def test_page_that_goes_round_in_circles(start_after: str) -> None:
    body = encode({"basins": [BASIN_JSON], "has_more": True})
    with pytest.raises(RemoteProtocolError, match="does not get on"):
        rest.list_basins(LOCAL, start_after=start_after).parse(200, {}, body)
    last = encode({"basins": [BASIN_JSON], "has_more": False})
    page = rest.list_basins(LOCAL, start_after=start_after).parse(200, {}, last)
    assert page.next_start_after is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tail": None},
        {"tail": 7},
        {"tail": {"seq_num": 1}},
        {"tail": {"timestamp": 1}},
        {"tail": {"seq_num": -1, "timestamp": 0}},
        {"tail": {"seq_num": 0, "timestamp": U64_MAX + 1}},
        {"tail": {"seq_num": True, "timestamp": 0}},
        {"tail": {"seq_num": 1.0, "timestamp": 0}},
    ],
)
def test_tail_of_another_shape(body: object) -> None:
    with pytest.raises(RemoteProtocolError, match="'tail' with a 'seq_num' and a 'timestamp'"):
        rest.check_tail(LOCAL, BASIN, STREAM).parse(200, {}, encode(body))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_are_not_json(number: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not JSON"):
        rest.get_stream_config(LOCAL, BASIN, STREAM).parse(200, {}, b'{"new":%s}' % number.encode())


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"new":' * 100_000, b"9" * 100_000, b"\xff"])
@pytest.mark.parametrize("name", CALLS)
def test_json_made_to_hurt(name: str, body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        CALLS[name][0].parse(200, {}, body)
    with pytest.raises(ServiceError):
        CALLS[name][0].parse(500, {}, body)


@pytest.mark.parametrize("status", [200, 202, 404, 500])
def test_answer_over_the_limit(status: int) -> None:
    call = rest.delete_basin(LOCAL, BASIN)
    body = b"{" + b" " * (rest.MAX_ANSWER_BYTES - 1)
    with pytest.raises(RemoteProtocolError, match=r"8388609 bytes .* at most 8388608"):
        call.parse(status, {}, body + b"}")
    whole = body[:-1] + b"}"
    if status < 300:
        call.parse(status, {}, whole)
    else:
        with pytest.raises(ServiceError):
            call.parse(status, {}, whole)


def test_largest_page_of_s2_is_under_the_limit() -> None:
    name = "\x01" * 512
    body = encode({"streams": [{**STREAM_JSON, "name": name}] * 1000, "has_more": False})
    assert len(body) < rest.MAX_ANSWER_BYTES / 2
    assert len(rest.list_streams(LOCAL, BASIN).parse(200, {}, body).items) == 1000


# Errors


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "basin_not_found"),
        (404, "stream_not_found"),
        (409, "resource_already_exists"),
        (403, "permission_denied"),
        (503, "a_code_of_tomorrow"),
    ],
)
def test_error_keeps_code_and_message(name: str, status: int, code: str) -> None:
    body = encode({"code": code, "message": "words of S2"})
    with pytest.raises(ServiceError) as caught:
        CALLS[name][0].parse(status, {}, body)
    error = caught.value
    assert (error.status, error.code, error.message) == (status, code, "words of S2")
    assert str(error) == f"words of S2 ({code}, status {status})"


@pytest.mark.parametrize("status", [0, 100, 199, 300, 301, 304, 400, 999, -1])
def test_any_other_status_is_an_error(status: int) -> None:
    call, _, _, _, body, _ = CALLS["create_basin"]
    with pytest.raises(ServiceError) as caught:
        call.parse(status, {}, encode(body))
    assert caught.value.status == status


# Whatever comes


@given(any_call, st.integers(-1, 1000), st.dictionaries(st.text(), st.text()), st.binary())
def test_any_bytes(call: Call[Any], status: int, headers: dict[str, str], body: bytes) -> None:
    check_answer(call, status, headers, body)


@given(any_call, st.sampled_from([200, 201, 202, 404, 412, 416, 500]), any_json)
def test_any_json(call: Call[Any], status: int, value: object) -> None:
    check_answer(call, status, {}, encode(value))


known_names = st.sampled_from(
    [
        *("name", "created_at", "deleted_at", "location", "cipher"),
        *("basins", "streams", "has_more", "tail", "seq_num", "timestamp", "code", "message"),
        *("storage_class", "retention_policy", "age", "infinite", "timestamping", "mode"),
        *("uncapped", "delete_on_empty", "min_age_secs", "default_stream_config"),
        *("stream_cipher", "create_stream_on_append", "create_stream_on_read"),
        *("seq_num_mismatch", "fencing_token_mismatch"),
    ]
)
known_values = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.sampled_from(["express", "arrival", "aegis-256", "x"])
)
near_json = st.recursive(
    known_values,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(known_names, below),
    max_leaves=30,
)


@given(any_call, st.sampled_from([200, 201, 404, 412, 416]), near_json)
def test_json_that_is_nearly_right(call: Call[Any], status: int, value: object) -> None:
    check_answer(call, status, {}, encode(value))


def check_answer(call: Call[Any], status: int, headers: dict[str, str], body: bytes) -> None:
    """A value or one of our errors, and the one that says who is at fault."""
    if not 200 <= status <= 299:
        with pytest.raises(ServiceError):
            call.parse(status, headers, body)
        return
    with suppress(RemoteProtocolError):
        call.parse(status, headers, body)
