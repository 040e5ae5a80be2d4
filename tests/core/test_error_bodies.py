"""What the body of any bad answer becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.error_bodies import excerpt, parse_error, parse_position
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


def test_error_shows_the_beginning_of_a_page() -> None:
    error = parse_error(502, b"<h1>oops</h1>" + b"x" * 10_000)
    assert "<h1>oops</h1>" in str(error)
    assert len(str(error)) < 300


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
        (b"", ""),
        (b"a" * 200, "a" * 200),
        (b"a" * 201, "a" * 200),
        (memoryview(b"a" * 201), "a" * 200),
        ("é".encode() * 101, "é" * 100),
        (b"a\xff\x00", "a\ufffd\x00"),
        (b"a" * 199 + "é".encode(), "a" * 199 + "\ufffd"),
    ],
)
def test_excerpt(body: bytes, expected: str) -> None:
    assert excerpt(body) == expected


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
