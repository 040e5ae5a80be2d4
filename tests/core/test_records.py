from __future__ import annotations

from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from framing_vectors import VECTORS
from s2frames.dedupe import RESERVED_HEADERS
from s2frames.errors import LocalProtocolError
from s2frames.records import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    MAX_FENCING_TOKEN_BYTES,
    MAX_RECORD_BYTES,
    AppendAck,
    Header,
    Record,
    SequencedRecord,
    StreamPosition,
    check_basin_name,
    check_fencing_token,
    check_headers,
    check_stream_name,
    fence,
    is_command,
    metered_bytes,
    trim,
)
from s2frames.u64 import U64_MAX, encode_u64
from strategies import records


def test_limits_are_those_of_the_service() -> None:
    assert VECTORS["max_record_bytes"] == MAX_RECORD_BYTES
    assert (MAX_RECORD_BYTES, MAX_BATCH_BYTES, MAX_BATCH_RECORDS) == (2**20, 2**20, 1000)
    assert MAX_FENCING_TOKEN_BYTES == 36


# Records


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_body_is_kept_as_bytes(make: type[bytes]) -> None:
    record = Record(make(b"abc"))
    assert record.body == b"abc"
    assert type(record.body) is bytes


def test_body_is_not_that_of_the_caller() -> None:
    body = bytearray(b"abc")
    record = Record(body)
    body[0] = 0
    assert record.body == b"abc"


def test_headers_become_a_tuple() -> None:
    headers: Any = [(b"a", b"1")]
    record = Record(headers=headers)
    headers.append((b"b", b"2"))
    assert record.headers == ((b"a", b"1"),)


@pytest.mark.parametrize("body", ["abc", 3, None, [1, 2]])
def test_refuses_another_body(body: Any) -> None:
    with pytest.raises(LocalProtocolError, match=f"body is bytes.* not {type(body).__name__}"):
        Record(body)


@pytest.mark.parametrize(
    "header", [("a", b""), (b"a", "1"), (b"a",), (b"a", b"b", b"c"), [b"a", b"b"], b"ab", None]
)
def test_refuses_another_header(header: Any) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Record(headers=[(b"fine", b""), header])
    assert repr(header) in str(caught.value)


@pytest.mark.parametrize("timestamp", [0, 1, U64_MAX, None])
def test_timestamps(timestamp: int | None) -> None:
    assert Record(timestamp=timestamp).timestamp == timestamp


@pytest.mark.parametrize("timestamp", [-1, U64_MAX + 1, 1.5, "1"])
def test_refuses_other_timestamps(timestamp: Any) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Record(timestamp=timestamp)
    assert repr(timestamp) in str(caught.value)
    assert str(U64_MAX) in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        Record(b"a"),
        SequencedRecord(1, 2),
        StreamPosition(1, 2),
        AppendAck(StreamPosition(1, 2), StreamPosition(2, 2), StreamPosition(2, 2)),
    ],
)
def test_values_are_frozen_and_hashable(value: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        value.seq_num = 3
    assert hash(value) == hash(value)


# Sizes


@pytest.mark.parametrize(
    ("headers", "body_bytes", "expected"),
    [
        ((), 0, 8),
        ((), 5, 13),
        (((b"", b""),), 0, 10),
        (((b"ab", b"cde"),), 7, 22),
        (((b"ab", b"cde"), (b"f", b"")), 0, 18),
        (((b"", b"trim"),), 8, 22),
    ],
)
def test_metered_bytes(headers: tuple[Header, ...], body_bytes: int, expected: int) -> None:
    assert metered_bytes(headers, body_bytes) == expected
    assert Record(b"x" * body_bytes, headers).metered_bytes == expected
    assert SequencedRecord(0, 0, headers, memoryview(b"x" * body_bytes)).metered_bytes == expected


@given(records, st.binary(), st.binary())
def test_a_header_adds_two_bytes_and_its_own(record: Record, name: bytes, value: bytes) -> None:
    longer = Record(record.body, (*record.headers, (name, value)))
    assert longer.metered_bytes == record.metered_bytes + 2 + len(name) + len(value)


# Commands


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), False),
        (((b"", b"trim"),), True),
        (((b"", b"unknown"),), True),
        (((b"a", b"trim"),), False),
        (((b"", b"trim"), (b"a", b"")), False),
        (((b"a", b""), (b"", b"trim")), False),
    ],
)
def test_is_command(headers: tuple[Header, ...], expected: bool) -> None:
    assert is_command(headers) is expected


@pytest.mark.parametrize("token", ["", "a", "a" * 36, "é" * 18])
def test_fence(token: str) -> None:
    assert fence(token) == Record(token.encode(), ((b"", b"fence"),))
    assert is_command(fence(token).headers)


@pytest.mark.parametrize(
    ("token", "named"),
    [
        ("a" * 37, "36 .* not 37"),
        ("é" * 19, "36 .* not 38"),
        ("\udfff", "UTF-8"),
        (b"abc", "a str, not bytes"),
        (None, "a str, not NoneType"),
    ],
)
def test_refuses_a_token_that_could_never_match(token: Any, named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named):
        fence(token)
    with pytest.raises(LocalProtocolError, match=named):
        check_fencing_token(token)


@pytest.mark.parametrize("before", [0, 1, U64_MAX])
def test_trim(before: int) -> None:
    assert trim(before) == Record(encode_u64(before), ((b"", b"trim"),))
    assert is_command(trim(before).headers)


@pytest.mark.parametrize("before", [-1, U64_MAX + 1])
def test_refuses_to_trim_elsewhere(before: int) -> None:
    with pytest.raises(LocalProtocolError, match=str(before)):
        trim(before)


# Names


@pytest.mark.parametrize("name", ["a" * 8, "a" * 48, "my-basin-1", "0123456789", "a--------b"])
def test_basin_names(name: str) -> None:
    assert check_basin_name(name) == name


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("", "not 0"),
        ("a" * 7, "not 7"),
        ("a" * 49, "not 49"),
        ("-my-basin", "'-my-basin'"),
        ("my-basin-", "'my-basin-'"),
        ("My-basin", "'My-basin'"),
        ("my_basin", "'my_basin'"),
        ("my.basin", "'my.basin'"),
        ("my-basin\n", "my-basin"),
        ("my-bas\u0131n", "my-bas"),
        ("basin\ud800xx", "UTF-8"),
        (b"my-basin", "a str, not bytes"),
    ],
)
def test_refuses_other_basin_names(name: Any, named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named):
        check_basin_name(name)


@pytest.mark.parametrize("name", ["a", "chat/42", "...", "a" * 512, "é" * 256, "a b?c#d%2F", "\n"])
def test_stream_names(name: str) -> None:
    assert check_stream_name(name) == name


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("", "not 0"),
        ("a" * 513, "not 513"),
        ("é" * 257, "not 514"),
        (".", "'.'"),
        ("..", "'..'"),
        ("\0", r"no NUL character: '\\x00'"),
        ("chat/\0", r"no NUL character: 'chat/\\x00'"),
        ("\ud800", "UTF-8"),
        (7, "a str, not int"),
    ],
)
def test_refuses_other_stream_names(name: Any, named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named):
        check_stream_name(name)


# Users' headers


def test_check_headers_gives_a_tuple() -> None:
    assert check_headers([(b"a", b"1"), (b"a", b"")], RESERVED_HEADERS) == (
        (b"a", b"1"),
        (b"a", b""),
    )


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
def test_check_headers_refuses_reserved_names(name: bytes) -> None:
    with pytest.raises(LocalProtocolError, match=f"{name.decode()}.* reserved"):
        check_headers([(b"a", b""), (name, b"")], RESERVED_HEADERS)


@pytest.mark.parametrize(("header", "named"), [((b"", b"x"), "empty"), (("a", b""), "tuple")])
def test_check_headers_refuses_what_no_record_can_have(header: Any, named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named):
        check_headers([header], frozenset())
