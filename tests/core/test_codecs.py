"""Codecs: round trips, and everything that can go wrong in one."""

from __future__ import annotations

import json
import math
import sys
from array import array
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec, module_from_spec
from typing import Any, assert_type

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from s2frames.brief import brief
from s2frames.codecs import BYTES, JSON, MSGPACK, TEXT, Codec, check_codec
from s2frames.errors import CodecError, FrameSizeError, LocalProtocolError

SECRET = "the-secret-word"

utf8_text = st.text(st.characters(codec="utf-8"))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | utf8_text,
    lambda below: st.lists(below) | st.dictionaries(utf8_text, below),
    max_leaves=20,
)
msgpack_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | utf8_text
    | st.binary(),
    lambda below: st.lists(below) | st.dictionaries(utf8_text | st.integers(-9, 9), below),
    max_leaves=20,
)


@frozen
class Point:
    x: int

    def to_bytes(self) -> bytes:
        return b"%d" % self.x

    @classmethod
    def from_bytes(cls, payload: bytes) -> Point:
        return cls(int(payload))


POINT = Codec(Point.to_bytes, Point.from_bytes)


# Round trips


@given(json_values)
def test_json_round_trip(message: object) -> None:
    payload = JSON.encode(message)
    assert JSON.decode(payload) == message
    assert json.loads(payload.decode()) == message


@given(utf8_text.filter(bool))
def test_text_round_trip(message: str) -> None:
    assert TEXT.decode(TEXT.encode(message)) == message


@given(st.binary(min_size=1))
def test_bytes_round_trip(message: bytes) -> None:
    assert BYTES.decode(BYTES.encode(message)) == BYTES.encode(message) == message


@given(msgpack_values)
def test_msgpack_round_trip(message: object) -> None:
    payload = MSGPACK.encode(message)
    assert MSGPACK.decode(payload) == message


@given(st.integers())
def test_any_pair_round_trip(x: int) -> None:
    assert POINT.decode(POINT.encode(Point(x))) == Point(x)


def test_codecs_say_what_they_carry() -> None:
    # For the type checker: these lines fail there if a codec's type is another one.
    assert_type(JSON, Codec[Any])
    assert_type(MSGPACK, Codec[Any])
    assert_type(TEXT, Codec[str])
    assert_type(BYTES, Codec[bytes])
    assert_type(POINT, Codec[Point])
    assert assert_type(TEXT.decode(b"a"), str) == "a"
    assert assert_type(POINT.decode(b"1"), Point) == Point(1)


@pytest.mark.parametrize(
    ("codec", "message", "payload"),
    [
        (JSON, {"b": [1, 2.5], "a": None}, b'{"b":[1,2.5],"a":null}'),
        (JSON, "ü☃", '"ü☃"'.encode()),
        (JSON, "", b'""'),
        (TEXT, "ü☃\x00", "ü☃\x00".encode()),
        (BYTES, b"\x00\xff", b"\x00\xff"),
        (MSGPACK, "a", b"\xa1a"),
        (MSGPACK, b"a", b"\xc4\x01a"),
        (MSGPACK, {1: b""}, b"\x81\x01\xc4\x00"),
    ],
)
def test_payload_is_pinned(codec: Codec[Any], message: object, payload: bytes) -> None:
    assert codec.encode(message) == payload
    assert codec.decode(payload) == message


# What callables give


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_becomes_bytes(kind: Callable[[bytes], Any]) -> None:
    codec: Codec[object] = Codec(lambda _: kind(b"abc"), bytes)
    assert type(codec.encode(None)) is bytes
    assert codec.encode(None) == b"abc"
    assert BYTES.encode(kind(b"abc")) == b"abc"
    assert type(BYTES.encode(kind(b"abc"))) is bytes


def test_bytes_are_not_copied() -> None:
    message = b"x" * 1000
    assert BYTES.encode(message) is message
    assert BYTES.decode(message) is message


def test_payload_is_a_copy_of_a_buffer_that_may_change() -> None:
    buffer: Any = bytearray(b"abc")
    payload = BYTES.encode(buffer)
    buffer[0] = 0
    assert payload == b"abc"


@pytest.mark.parametrize("result", [None, "abc", 3, [97], array("B", b"abc")])
def test_callable_that_gives_no_bytes(result: Any) -> None:
    codec: Codec[object] = Codec(lambda _: result, bytes, name="mine")
    kind = type(result).__name__
    with pytest.raises(
        CodecError, match=f"codec mine cannot encode a Point: it gave a {kind}, not bytes"
    ):
        codec.encode(Point(1))


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (TEXT, ""),
        (BYTES, b""),
        (BYTES, bytearray()),
        (BYTES, memoryview(b"")),
        (Codec(lambda _: b"", bytes, name="mine"), "a"),
    ],
)
def test_empty_payload(codec: Codec[Any], message: object) -> None:
    kind = type(message).__name__
    with pytest.raises(FrameSizeError, match=f"codec {codec.name} encodes this {kind} to 0 bytes"):
        codec.encode(message)


def test_released_buffer() -> None:
    message: Any = memoryview(b"abc")
    message.release()
    with pytest.raises(CodecError, match="BYTES cannot encode a memoryview: ValueError"):
        BYTES.encode(message)


class Boom(Exception):
    """An exception whose text holds a part of the message."""


def fail_with(error: BaseException) -> Callable[[Any], Any]:
    def fail(_: object) -> object:
        raise error

    return fail


errors = st.sampled_from(
    [Boom, ValueError, KeyError, TypeError, RecursionError, MemoryError, StopIteration, ImportError]
)


@given(errors)
def test_any_exception_of_a_callable(kind: type[Exception]) -> None:
    error = kind(SECRET)
    codec = Codec(fail_with(error), fail_with(error), name="mine")
    with pytest.raises(CodecError) as encoding:
        codec.encode(SECRET)
    with pytest.raises(CodecError) as decoding:
        codec.decode(SECRET.encode())
    for caught in (encoding, decoding):
        assert caught.value.__cause__ is error
        assert "codec mine cannot" in str(caught.value)
        assert kind.__name__ in str(caught.value)
        assert SECRET not in str(caught.value)
    assert "encode a str" in str(encoding.value)
    assert f"decode a payload of {len(SECRET)} bytes" in str(decoding.value)


def test_errors_of_ours_in_a_callable_are_wrapped_too() -> None:
    inner = FrameSizeError(SECRET)
    with pytest.raises(CodecError, match="FrameSizeError") as caught:
        Codec(fail_with(inner), bytes).encode("a")
    assert caught.value.__cause__ is inner
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_passes(kind: type[BaseException]) -> None:
    codec = Codec(fail_with(kind()), fail_with(kind()))
    with pytest.raises(kind):
        codec.encode("a")
    with pytest.raises(kind):
        codec.decode(b"a")


def test_error_knows_no_position_and_can_be_given_one() -> None:
    with pytest.raises(CodecError) as caught:
        JSON.decode(b"{")
    error = caught.value
    assert (error.start, error.end, error.payload) == (None, None, None)
    placed = CodecError(str(error), start=1, end=3, payload=b"{")
    assert (placed.start, placed.end, placed.payload) == (1, 3, b"{")


# What the codecs refuse

cycle: list[object] = []
cycle.append(cycle)

deep: list[object] = []
for _ in range(100_000):
    deep = [deep]


@pytest.mark.parametrize(
    ("codec", "message", "reason"),
    [
        (JSON, math.nan, "NaN"),
        (JSON, {SECRET: [math.inf]}, "infinity"),
        (JSON, -math.inf, "infinity"),
        (JSON, cycle, "cycle"),
        (JSON, 10**5000, "int of thousands of digits"),
        (JSON, {SECRET: b"bytes"}, "type that JSON does not know"),
        (JSON, {SECRET: Point(1)}, "type that JSON does not know"),
        (JSON, {(1, 2): SECRET}, "type that JSON does not know"),
        (JSON, SECRET + "\ud800", "surrogate"),
        (JSON, deep, "RecursionError"),
        (TEXT, SECRET.encode(), "it takes str"),
        (TEXT, None, "it takes str"),
        (TEXT, SECRET + "\ud800", "UnicodeEncodeError"),
        (BYTES, SECRET, "it takes bytes"),
        (BYTES, None, "it takes bytes"),
        (BYTES, 3, "it takes bytes"),
        (BYTES, [1, 2], "it takes bytes"),
        (MSGPACK, Point(1), "TypeError"),
        (MSGPACK, 2**64, "OverflowError"),
        (MSGPACK, deep, "ValueError"),
        (MSGPACK, SECRET + "\ud800", "UnicodeEncodeError"),
        (POINT, 7, "Error"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_message_that_a_codec_cannot_encode(
    codec: Codec[Any], message: object, reason: str
) -> None:
    with pytest.raises(CodecError, match=reason) as caught:
        codec.encode(message)
    assert f"codec {codec.name} cannot encode a {type(message).__name__}" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value.__cause__, Exception)


@pytest.mark.parametrize(
    ("codec", "payload", "reason"),
    [
        (JSON, b"", "JSONDecodeError"),
        (JSON, b"{", "JSONDecodeError"),
        (JSON, b'"a" "b"', "JSONDecodeError"),
        (JSON, b'"a"\x00', "JSONDecodeError"),
        (JSON, SECRET.encode(), "JSONDecodeError"),
        (JSON, '"a"'.encode("utf-16"), "UnicodeDecodeError"),
        (JSON, b'"\xff"', "UnicodeDecodeError"),
        (JSON, b"\xef\xbb\xbf1", "JSONDecodeError"),
        (JSON, b"NaN", "NaN and infinities are not JSON"),
        (JSON, b'{"a":[-Infinity]}', "NaN and infinities are not JSON"),
        (JSON, b"[" * 100_000, "RecursionError"),
        (JSON, b"9" * 10_000, "ValueError"),
        (TEXT, b"\xff", "UnicodeDecodeError"),
        (TEXT, b"\xed\xa0\x80", "UnicodeDecodeError"),
        (MSGPACK, b"", "ValueError"),
        (MSGPACK, b"\xa2a", "ValueError"),
        (MSGPACK, b"\x01\x02", "ExtraData"),
        (MSGPACK, b"\xa1\xff", "UnicodeDecodeError"),
        (MSGPACK, b"\xc1", "FormatError"),
        (MSGPACK, b"\x91" * 100_000, "StackError"),
        (MSGPACK, b"\x81\x80\x01", "TypeError"),
        (MSGPACK, b"\x81\x91\x80\x01", "TypeError"),
        (MSGPACK, b"\xc6\xff\xff\xff\xff", "ValueError"),
        (MSGPACK, b"\xdd\xff\xff\xff\xff", "ValueError"),
        (MSGPACK, b"\xdf\xff\xff\xff\xff", "ValueError"),
        (POINT, b"x", "ValueError"),
    ],
)
def test_payload_that_a_codec_cannot_decode(codec: Codec[Any], payload: bytes, reason: str) -> None:
    with pytest.raises(CodecError, match=reason) as caught:
        codec.decode(payload)
    expected = f"codec {codec.name} cannot decode a payload of {len(payload)} bytes"
    assert expected in str(caught.value)
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value.__cause__, Exception)


@given(st.sampled_from([JSON, TEXT, BYTES, MSGPACK]), st.binary())
def test_any_payload(codec: Codec[Any], payload: bytes) -> None:
    with suppress(CodecError):
        codec.decode(payload)


# Keys


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({1: "a"}, {"1": "a"}),
        ({1: "a", 1.5: "b", 2: "c"}, {"1": "a", "1.5": "b", "2": "c"}),
        ({None: 1, False: 2, -3: 3}, {"null": 1, "false": 2, "-3": 3}),
        ([{1: {2: []}}, {"1": 0}], [{"1": {"2": []}}, {"1": 0}]),
    ],
)
def test_json_keys_become_text(message: object, read: object) -> None:
    assert JSON.decode(JSON.encode(message)) == read


class Name(str):
    """Text that compares as itself and is another key than its text."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


KEYS_THAT_FALL_TOGETHER: list[dict[Any, Any]] = [
    {1: "a", "1": "b"},
    {"1": "a", 1: "b"},
    {True: SECRET, "true": SECRET},
    {False: 1, "false": 2},
    {None: 1, "null": 2},
    {1.5: 1, "1.5": 2},
    {10**20: 1, str(10**20): 2},
    {SECRET: 1, Name(SECRET): 2},
]


@pytest.mark.parametrize("keys", KEYS_THAT_FALL_TOGETHER, ids=repr)
@pytest.mark.parametrize(
    "around",
    [
        lambda keys: keys,
        lambda keys: [1, "x", keys],
        lambda keys: ({"a": None, "b": (keys,)},),
        lambda keys: {7: keys},
        lambda keys: {"deep": [[[{"deeper": {"a": 1, "b": [{}, keys]}}]]]},
    ],
)
def test_json_refuses_keys_that_fall_together(
    keys: dict[Any, Any], around: Callable[[object], object]
) -> None:
    with pytest.raises(CodecError, match="keys that are the same in JSON") as caught:
        JSON.encode(around(keys))
    assert SECRET not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.integers(0, 3),
        lambda below: (
            st.lists(below)
            | st.dictionaries(
                st.sampled_from([1, 1.5, None, True, "1", "1.5", "null", "true", "a"]), below
            )
        ),
    )
)
def test_json_loses_no_key(message: Any) -> None:
    def size(value: Any) -> int:
        if isinstance(value, dict):
            return len(value) + sum(map(size, value.values()))
        return sum(map(size, value)) if isinstance(value, list) else 0

    try:
        payload = JSON.encode(message)
    except CodecError:
        assert size(json.loads(json.dumps(message))) < size(message)
    else:
        assert size(JSON.decode(payload)) == size(message)


def test_of_a_name_that_stands_twice_the_last_one_counts() -> None:
    assert JSON.decode(b'{"a":1,"b":2,"a":3}') == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    "message", [{(1, 2): 3}, {(): 1}, {((1, "a"), b"b"): [{(0,): 1}]}, [{"a": {(1,): (2,)}}]]
)
def test_msgpack_reads_tuples_as_keys(message: Any) -> None:
    # What could be written must be readable.
    read = MSGPACK.decode(MSGPACK.encode(message))
    assert read == json_like(message)


def json_like(value: Any) -> Any:
    """The value as it is read: tuples are lists, but for keys."""
    if isinstance(value, dict):
        return {key: json_like(below) for key, below in value.items()}
    return list(map(json_like, value)) if isinstance(value, (list, tuple)) else value


# Making one


@pytest.mark.parametrize("codec", ["json", "JSON", None, 7, json, Codec, b"json"])
def test_what_is_no_codec(codec: Any) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        check_codec(codec)
    text = str(caught.value)
    for name in ("codec", "JSON", "TEXT", "BYTES", "MSGPACK", "Codec(encode, decode)"):
        assert name in text
    assert text.endswith(f", not {brief(codec)}")


@pytest.mark.parametrize("codec", [JSON, TEXT, BYTES, MSGPACK, POINT])
def test_what_is_a_codec(codec: Codec[Any]) -> None:
    check_codec(codec)


def test_a_codec_by_keywords() -> None:
    codec = Codec(encode=Point.to_bytes, decode=Point.from_bytes, name="point")
    assert codec == Codec(Point.to_bytes, Point.from_bytes, name="point")
    assert evolve(codec, name="other").name == "other"
    assert codec.decode(codec.encode(Point(7))) == Point(7)
    bad: Any = 7
    with pytest.raises(LocalProtocolError, match="name must be a str, not int"):
        Codec(Point.to_bytes, Point.from_bytes, name=bad)


@pytest.mark.parametrize("value", [None, b"abc", 7])
def test_codec_of_something_else(value: Any) -> None:
    kind = type(value).__name__
    with pytest.raises(LocalProtocolError, match=f"two callables, not of a {kind}"):
        Codec(value, bytes)
    with pytest.raises(LocalProtocolError, match=f"two callables, not of a {kind}"):
        Codec(bytes, value)


def test_name_of_a_codec() -> None:
    class Packer:
        def __call__(self, message: bytes) -> bytes:
            return message

    assert [codec.name for codec in (JSON, TEXT, BYTES, MSGPACK)] == [
        "JSON",
        "TEXT",
        "BYTES",
        "MSGPACK",
    ]
    assert POINT.name == "Point.to_bytes"
    assert Codec(Packer(), bytes).name == "Packer"
    assert repr(Codec(bytes, bytes, name="mine")) == "Codec(name='mine')"


# Without the extra


def test_msgpack_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ImportError, match=r"pip install 's2frames\[msgpack\]'"):
        MSGPACK.encode(1)
    with pytest.raises(ImportError, match=r"pip install 's2frames\[msgpack\]'"):
        MSGPACK.decode(b"\x01")


def test_importing_the_codecs_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    spec = find_spec("s2frames.codecs")
    assert spec is not None
    assert spec.loader is not None
    codecs = module_from_spec(spec)
    spec.loader.exec_module(codecs)
    assert codecs.JSON.decode(codecs.JSON.encode([1])) == [1]
