"""Reading a peer's JSON: what passes, and that nothing else does."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.errors import RemoteProtocolError
from s2frames.peer_json import (
    as_object,
    is_utf8,
    optional,
    refuse_constant,
    required,
    take,
    take_choice,
    take_u64,
)
from s2frames.u64 import U64_MAX
from strategies import u64s

KINDS = (bool, int, float, str, list, dict)


class Fruit(enum.Enum):
    APPLE = "apple"
    PEAR = "pear"


# Objects and their members


def test_an_object_is_given_as_it_is() -> None:
    value = {"a": 1}
    assert as_object(value, "a thing") is value


@pytest.mark.parametrize("value", [None, True, 7, 1.5, "secret", ["secret"]])
def test_no_object(value: object) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        as_object(value, "a thing")
    assert str(caught.value) == f"a thing is a JSON {type(value).__name__}, not an object"


@pytest.mark.parametrize("read", [required, optional, take])
@pytest.mark.parametrize("value", [False, True, 0, 7, 0.0, "", "é", [], [1], {}, {"b": 2}])
def test_member_of_its_kind(read: Callable[..., object], value: object) -> None:
    assert read({"a": value}, "a thing", "a", type(value)) is value


@pytest.mark.parametrize("value", [{}, {"a": None}, {"A": 1}])
def test_missing_and_null(value: dict[str, Any]) -> None:
    assert optional(value, "a thing", "a", int) is None
    with pytest.raises(RemoteProtocolError, match=r"^a thing has no 'a'$"):
        required(value, "a thing", "a", int)
    assert take(value, "a thing", "a", int) is None
    assert "a" not in value


@pytest.mark.parametrize("read", [required, optional, take])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [True, 7, 1.5, "secret", ["secret"], {"secret": 1}])
def test_member_of_another_kind(
    read: Callable[..., object], kind: type[Any], value: object
) -> None:
    if type(value) is kind:
        assert read({"a": value}, "a thing", "a", kind) == value
        return
    with pytest.raises(RemoteProtocolError) as caught:
        read({"a": value}, "a thing", "a", kind)
    assert str(caught.value) == (
        f"'a' of a thing is a JSON {type(value).__name__}, not a {kind.__name__}"
    )


@pytest.mark.parametrize("read", [required, optional, take])
@pytest.mark.parametrize("text", ["\ud800", "secret\udfff", "\udc00\ud800"])
def test_text_that_utf8_cannot_carry(read: Callable[..., object], text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="'a' of a thing has half of a surrogate"):
        read({"a": text}, "a thing", "a", str)


def test_the_two_halves_of_a_pair_are_one_character() -> None:
    value = json.loads('{"a":"\\ud83d\\ude00"}')
    assert required(value, "a thing", "a", str) == "\N{GRINNING FACE}"


# Taking


def test_what_is_taken_is_gone() -> None:
    rest = {"a": 1, "b": 2}
    assert take(rest, "a thing", "a", int) == 1
    assert rest == {"b": 2}


@pytest.mark.parametrize(
    ("rest", "expected", "left"),
    [
        ({}, None, {}),
        ({"a": None}, None, {}),
        ({"a": "apple", "b": 1}, Fruit.APPLE, {"b": 1}),
        ({"a": "APPLE"}, None, {"a": "APPLE"}),
        ({"a": ""}, None, {"a": ""}),
    ],
)
def test_take_choice(rest: dict[str, Any], expected: Fruit | None, left: dict[str, Any]) -> None:
    assert take_choice(rest, "a thing", "a", Fruit) is expected
    assert rest == left


@pytest.mark.parametrize("value", [True, 1, [], {}, "\ud800"])
def test_choice_that_is_no_text(value: object) -> None:
    with pytest.raises(RemoteProtocolError, match="'a' of a thing"):
        take_choice({"a": value}, "a thing", "a", Fruit)


@given(u64s, u64s)
def test_take_u64(number: int, minimum: int) -> None:
    rest = {"a": number, "b": 1}
    if number >= minimum:
        assert take_u64(rest, "a thing", "a", minimum) == number
        assert rest == {"b": 1}
        return
    with pytest.raises(RemoteProtocolError, match=f"outside {minimum} to {U64_MAX}"):
        take_u64(rest, "a thing", "a", minimum)


@pytest.mark.parametrize("value", [-1, U64_MAX + 1, 10**4000, True, 1.0, "1", [], {}])
def test_no_number(value: object) -> None:
    with pytest.raises(RemoteProtocolError, match="'a' of a thing"):
        take_u64({"a": value}, "a thing", "a", 0)


@pytest.mark.parametrize("rest", [{}, {"a": None}])
def test_no_number_there(rest: dict[str, Any]) -> None:
    assert take_u64(rest, "a thing", "a", 1) is None


# Values


@given(st.text(st.characters(codec="utf-8")))
def test_text_is_utf8(text: str) -> None:
    assert is_utf8(text)
    assert not is_utf8(text + "\ud800")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_are_refused(constant: str) -> None:
    with pytest.raises(ValueError, match=f"^{constant} is not JSON$"):
        json.loads(f"[{constant}]", parse_constant=refuse_constant)
    assert json.loads("[1.5e300]", parse_constant=refuse_constant) == [1.5e300]
