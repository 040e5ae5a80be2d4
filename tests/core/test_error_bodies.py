"""What the body of any bad answer becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.error_bodies import describe_body, media_type, parse_error, parse_position
from s2frames.errors import (
    FencingTokenMismatch,
    RangeNotSatisfiable,
    SeqNumMismatch,
    ServiceError,
)
from s2frames.records import StreamPosition
from s2frames.u64 import U64_MAX
from strategies import any_json, positions

statuses = st.sampled_from([0, 400, 404, 412, 416, 500, 502, 999])


@pytest.mark.parametrize("make", [bytes, memoryview])
@pytest.mark.parametrize("status", [404, 409, 412, 416, 503])
def test_code_and_message(status: int, make: type[bytes]) -> None:
    error = parse_error(status, make(b'{"message":"words of S2","code":"a_code","more":[1]}'))
    assert type(error) is ServiceError
    assert (error.status, error.code, error.message) == (status, "a_code", "words of S2")


def test_conditions_that_failed() -> None:
    seq_num = parse_error(412, b'{"seq_num_mismatch":18446744073709551615}')
    assert isinstance(seq_num, SeqNumMismatch)
    assert seq_num.expected == U64_MAX
    token = parse_error(412, memoryview(b'{"fencing_token_mismatch":""}'))
    assert isinstance(token, FencingTokenMismatch)
    assert token.expected == ""
    assert seq_num.status == token.status == 412
    assert seq_num.code is token.code is None


def test_range_beyond_the_tail() -> None:
    error = parse_error(416, b'{"tail":{"seq_num":7,"timestamp":8}}')
    assert isinstance(error, RangeNotSatisfiable)
    assert error.tail == StreamPosition(7, 8)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (412, b'{"seq_num_mismatch":-1}'),
        (412, b'{"seq_num_mismatch":18446744073709551616}'),
        (412, b'{"seq_num_mismatch":true}'),
        (412, b'{"seq_num_mismatch":"7"}'),
        (412, b'{"fencing_token_mismatch":7}'),
        (416, b'{"tail":{"seq_num":7}}'),
        (416, b'{"tail":[7,8]}'),
        (500, b'{"seq_num_mismatch":7}'),
        (500, b'{"tail":{"seq_num":7,"timestamp":8}}'),
        (404, b""),
        (404, b'{"code":"basin_not_found"}'),
        (404, b'{"code":7,"message":"m"}'),
        (502, b"<html>bad gateway</html>"),
        (502, b"\xff\xfe\x00"),
        (502, b"[" * 100_000),
    ],
)
def test_error_not_in_the_words_of_s2(status: int, body: bytes) -> None:
    error = parse_error(status, body)
    assert type(error) is ServiceError
    assert (error.status, error.code) == (status, None)
    assert f"status {status}, not in S2's words" in str(error)


HTML = {"content-type": "text/html; charset=utf-8"}


@pytest.mark.parametrize("status", [400, 404, 405, 413, 502])
def test_a_page_is_never_quoted(status: int) -> None:
    for body in (b"<h1>oops</h1>", b"oops <b>", b"x" * 10_000, b"\n<!DOCTYPE html>"):
        for headers in (HTML, {}, {"content-type": "text/plain"}):
            said = str(parse_error(status, body, headers))
            assert "oops" not in said
            assert "<" not in said
            assert "xxx" not in said
            assert f"{len(body)} bytes" in said
            assert len(said) < 400
    assert f"status {status}, not in S2's words: text/html, 5 bytes" in str(
        parse_error(status, b"<p />", HTML)
    )


@pytest.mark.parametrize(
    ("location", "origin"),
    [
        ("https://example.com/a/b?token=secret#secret", "https://example.com"),
        ("http://user:secret@example.com:8080/", "http://example.com:8080"),
        ("https://[::1]:443/x", "https://[::1]:443"),
        ("//example.com/secret", "//example.com"),
        ("HTTPS://EXAMPLE.com", "https://example.com"),
        ("/login?next=secret", "another path there"),
        ("login", "another path there"),
        ("", "another place, which it does not name"),
        ("ftp://secret/", "what is no URL"),
        ("http://secret:99999/", "what is no URL"),
        ("http://[secret", "what is no URL"),
        ("http://" + "secret" * 1000, "what is no URL"),
        ("http://s\u00e9cret/", "what is no URL"),
        ("http://secret\x1b[2J/", "what is no URL"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_says_where_to(status: int, location: str, origin: str) -> None:
    error = parse_error(status, b"<html>", {**HTML, "location": location})
    assert (error.status, error.code) == (status, None)
    assert str(error).startswith(f"status {status}, a redirect to {origin}, which is not followed")
    assert "secret" not in str(error)
    assert len(str(error)) < 250


def test_a_body_that_is_too_large_for_a_proxy() -> None:
    said = str(parse_error(413, b"<html>", HTML))
    assert "limits how large a request may be" in said
    assert "burst_batches=1" in said
    # What S2 itself says is said as it is.
    told = parse_error(413, b'{"code":"too_large","message":"words of S2"}')
    assert str(told) == "words of S2 (too_large, status 413)"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("1", 0.001),
        ("2500", 2.5),
        ("9999999999", 9_999_999.999),
        # Anything else is none.
        ("10000000000", None),
        ("", None),
        (" 5", None),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("\u0665", None),
        ("\xb2", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("9" * 10_000, None),
    ],
)
@pytest.mark.parametrize(
    ("status", "body"), [(429, b"{}"), (412, b'{"seq_num_mismatch":1}'), (503, b"<html>")]
)
def test_the_wait_that_is_asked_for(
    status: int, body: bytes, value: str, seconds: float | None
) -> None:
    error = parse_error(status, body, {"retry-after-ms": value, "retry-after": "77"})
    assert error.retry_after == seconds


def test_a_wait_that_is_not_asked_for() -> None:
    assert parse_error(429, b"{}", {"retry-after": "5"}).retry_after is None
    assert parse_error(429, b"{}", {}).retry_after is None
    assert parse_error(429, b"{}").retry_after is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "nothing"),
        (b"no healthy upstream\n", "'no healthy upstream'"),
        (b'{"error": 7}', "'{\"error\": 7}'"),
        (b"a" * 200, repr("a" * 200)),
        (b"a" * 201, "text/plain, 201 bytes"),
        (memoryview(b"a" * 201), "text/plain, 201 bytes"),
        ("é".encode(), "'é'"),
        (b"a\xff\x00", "text/plain, 3 bytes"),
        (b"a\x00", "text/plain, 2 bytes"),
        (b"a\x1b[2J", "text/plain, 5 bytes"),
        (b"a<b", "text/plain, 3 bytes"),
        (b"authorization: Bearer tok", "text/plain, 25 bytes"),
    ],
)
def test_what_is_said_of_a_body(body: bytes | memoryview, expected: str) -> None:
    assert describe_body(body, {"content-type": "text/plain"}) == expected
    if expected.startswith("text/plain"):
        assert describe_body(body) == expected.replace("text/plain", "of no known type")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text/html", "text/html"),
        ("text/html; charset=utf-8", "text/html"),
        ("application/problem+json", "application/problem+json"),
        ("a" * 10_000, "of no known type"),
        ("a/" + "b" * 10_000, "a/" + "b" * 41),
        ("<b>/x", "of no known type"),
        ("", "of no known type"),
    ],
)
def test_a_media_type(value: str, expected: str) -> None:
    assert media_type({"content-type": value}) == expected


# Positions


@given(positions)
def test_any_position(position: StreamPosition) -> None:
    value = {"seq_num": position.seq_num, "timestamp": position.timestamp, "new": None}
    assert parse_position(value) == position


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        [7, 8],
        {},
        {"seq_num": 1},
        {"timestamp": 1},
        {"seq_num": 1, "timestamp": None},
        {"seq_num": -1, "timestamp": 0},
        {"seq_num": 0, "timestamp": U64_MAX + 1},
        {"seq_num": True, "timestamp": 0},
        {"seq_num": 0, "timestamp": 1.0},
        {"seq_num": "0", "timestamp": 1},
    ],
)
def test_no_position(value: object) -> None:
    assert parse_position(value) is None


# Whatever comes


def check_error(status: int, body: bytes) -> None:
    error = parse_error(status, body)
    assert error.status == status
    assert isinstance(error, ServiceError)


@given(statuses, st.binary())
def test_any_bytes(status: int, body: bytes) -> None:
    check_error(status, body)


@given(statuses, any_json)
def test_any_json(status: int, value: Any) -> None:
    check_error(status, json.dumps(value).encode())


names = ("code", "message", "seq_num_mismatch", "fencing_token_mismatch", "tail")


@given(statuses, st.dictionaries(st.sampled_from(names), any_json))
def test_known_names_with_any_values(status: int, value: Any) -> None:
    check_error(status, json.dumps(value).encode())
