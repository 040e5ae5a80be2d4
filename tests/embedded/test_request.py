from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.embedded.error_bodies import error_body
from s2frames.embedded.request import MediaType, RequestHead
from s2frames.errors import ServiceError
from s2frames.http import path_segment
from s2frames.u64 import U64_MAX


def head(target: str = "/", headers: dict[str, str] | None = None) -> RequestHead:
    return RequestHead.parse("GET", target, headers or {})


@pytest.mark.parametrize(
    ("target", "segments", "query"),
    [
        ("/", ("",), ()),
        ("", (), ()),
        ("*", (), ()),
        ("/v1/basins", ("v1", "basins"), ()),
        ("/v1/streams/a%2Fb?x=1&y=%20+z", ("v1", "streams", "a%2Fb"), (("x", "1"), ("y", "  z"))),
        ("/a?", ("a",), ()),
        ("/a?x", ("a",), (("x", ""),)),
        ("/a?x=1?y=2", ("a",), (("x", "1?y=2"),)),
        ("/a/", ("a", ""), ()),
    ],
)
def test_targets(
    target: str, segments: tuple[str, ...], query: tuple[tuple[str, str], ...]
) -> None:
    parsed = head(target)
    assert (parsed.segments, parsed.query) == (segments, query)


def test_header_names_have_no_case_and_the_first_value_counts() -> None:
    pairs = [("S2-Basin", " basin-one "), ("s2-basin", "basin-two")]
    assert RequestHead.parse("GET", "/", pairs).basin() == "basin-one"


def test_secret_headers_are_not_shown() -> None:
    headers = {"Authorization": "Bearer hunter2", "s2-encryption-key": "hunter2", "accept": "*/*"}
    request = RequestHead.parse("GET", "/v1/basins", headers)
    assert "hunter2" not in repr(request)
    assert "'accept': '*/*'" in repr(request)


def test_accept_encoding_is_one_list() -> None:
    pairs = [("accept-encoding", "br"), ("Accept-Encoding", "gzip")]
    assert RequestHead.parse("GET", "/", pairs).headers["accept-encoding"] == "br,gzip"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("*/*", None),
        ("text/plain", None),
        ("application/json", MediaType.JSON),
        ("Application/JSON; charset=utf-8", MediaType.JSON),
        ("application/problem+json", MediaType.JSON),
        ("text/json", None),
        ("application/protobuf", MediaType.PROTOBUF),
        ("application/x-protobuf", MediaType.PROTOBUF),
        ("S2S/proto", MediaType.S2S),
        ("text/event-stream", MediaType.EVENT_STREAM),
        (" application/json , application/protobuf", MediaType.JSON),
        ("text/plain, application/protobuf", None),
    ],
)
def test_the_first_media_type_counts(value: str | None, expected: MediaType | None) -> None:
    headers = {} if value is None else {"content-type": value, "accept": value}
    assert head(headers=headers).content_type() is expected
    assert head(headers=headers).accept() is expected


def refused(error: ServiceError) -> tuple[int, str | None]:
    return error.status, error.code


@pytest.mark.parametrize(
    "name",
    [None, "", "short", "a" * 49, "Uppercase", "-leading", "trailing-", "under_score", "\u00e9"],
)
def test_the_basin_header_must_name_a_basin(name: str | None) -> None:
    with pytest.raises(ServiceError) as raised:
        head(headers={} if name is None else {"s2-basin": name}).basin()
    assert refused(raised.value) == (400, "bad_header")


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
        lambda n: n not in (".", "..")
    )
)
def test_any_stream_name_comes_through_a_path(name: str) -> None:
    if len(name.encode()) > 512:
        return
    target = f"/v1/streams/{path_segment(name)}/records"
    assert head(target, {"s2-basin": "test-basin"}).stream_key() == ("test-basin", name)


@pytest.mark.parametrize(
    "segment",
    [".", "..", "%2E%2e", "%ff", "%ED%A0%80", "\ud800", "a%00", "x" * 513, "%C3%A9" * 257],
)
def test_paths_that_name_no_stream(segment: str) -> None:
    with pytest.raises(ServiceError) as raised:
        head(f"/v1/streams/{segment}", {"s2-basin": "test-basin"}).stream_key()
    assert refused(raised.value) == (400, "bad_path")
    error_body(raised.value)  # also when the name cannot be encoded


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), ("", ""), ("t" * 36, "t" * 36), ("t" * 37, None), ("\u00e9", None)],
)
def test_request_tokens(value: str | None, expected: str | None) -> None:
    request = head(headers={} if value is None else {"s2-request-token": value})
    if value is not None and expected is None:
        with pytest.raises(ServiceError) as raised:
            request.request_token()
        assert refused(raised.value) == (400, "bad_header")
    else:
        assert request.request_token() == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, False), ("raw", False), ("json", False), ("base64", True), ("json-binsafe", True)],
)
def test_formats(value: str | None, expected: bool) -> None:
    assert head(headers={} if value is None else {"s2-format": value}).is_base64() is expected


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ServiceError) as raised:
        head(headers={"s2-format": "hex"}).is_base64()
    assert refused(raised.value) == (400, "bad_header")


@pytest.mark.parametrize("key", ["", "k" * 45])
def test_impossible_encryption_keys_are_refused_and_kept_secret(key: str) -> None:
    with pytest.raises(ServiceError) as raised:
        head(headers={"s2-encryption-key": key}).check_encryption_key()
    assert refused(raised.value) == (400, "bad_header")
    assert not key or key not in str(raised.value)


def test_other_encryption_keys_are_ignored() -> None:
    head(headers={"s2-encryption-key": "k" * 44}).check_encryption_key()
    head().check_encryption_key()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", None),
        ("n=0", 0),
        ("n=007", 7),
        ("n=%2B7", 7),
        ("n=%37", 7),
        ("m=x&n=1", 1),
        (f"n={U64_MAX}", U64_MAX),
    ],
)
def test_numbers(query: str, expected: int | None) -> None:
    assert head(f"/?{query}").number("n") == expected


@pytest.mark.parametrize(
    "query",
    [
        "n=",
        "n=x",
        "n=-1",
        "n=+1",
        "n=1.0",
        "n=%2B%2B1",
        "n=%D9%A1",
        "n=%C2%B2",
        f"n={U64_MAX + 1}",
        "n=" + "9" * 10_000,
        "n=1&n=1",
        "n=%ff",
    ],
)
def test_what_is_no_number(query: str) -> None:
    with pytest.raises(ServiceError) as raised:
        head(f"/?{query}").number("n")
    assert refused(raised.value) == (400, "bad_query")
    assert len(str(raised.value)) < 200


def test_a_number_above_its_own_maximum() -> None:
    assert head("/?n=5").number("n", 5) == 5
    with pytest.raises(ServiceError, match="n is a number from 0 to 4"):
        head("/?n=5").number("n", 4)


def test_flags() -> None:
    assert head("/?f=true").flag("f") is True
    assert head("/?f=false").flag("f") is False
    assert head("/").flag("f") is False
    for query in ("f=", "f=1", "f=True", "f=true&f=true"):
        with pytest.raises(ServiceError) as raised:
            head(f"/?{query}").flag("f")
        assert refused(raised.value) == (400, "bad_query")
