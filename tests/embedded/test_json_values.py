from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.embedded.json_values import (
    JsonError,
    as_bool,
    as_choice,
    as_list,
    as_object,
    as_text,
    as_u64,
    dump_json,
    load_json,
    optional,
)
from s2frames.u64 import U64_MAX

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=10,
)


@given(json_values)
def test_round_trip(value: Any) -> None:
    assert load_json(dump_json(value)) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} {}",
        b"\xff",
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b"{\x00}",
        "{}".encode("utf-16"),
        b"[" * 100_000,
        b"1" * 5000,
        b'{"a":1,"a":1}',
        b'[{"b":{"a":1,"a":2}}]',
        b"NaN",
        b'{"a":-Infinity}',
    ],
    ids=range(14),
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(JsonError):
        load_json(body)


@given(st.binary())
def test_any_bytes_are_json_or_an_error(body: bytes) -> None:
    with suppress(JsonError):
        load_json(body)


def choice(value: Any, what: str) -> str:
    return as_choice(value, what, ("a", "b"))


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (as_object, [{}, {"a": 1}], [None, [], "", 1, True]),
        (as_list, [[], [1]], [None, {}, "", 1, True]),
        (as_text, ["", "\u00e9"], [None, [], {}, 1, True, "\ud800"]),
        (as_bool, [True, False], [None, 0, 1, "true", []]),
        (as_u64, [0, U64_MAX], [None, -1, U64_MAX + 1, 1.0, True, "1", []]),
        (choice, ["a", "b"], [None, "", "c", "A", 1, [], {}]),
    ],
)
def test_what_values_must_be(
    parse: Callable[[Any, str], Any], good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        assert parse(value, "it") is value
    for value in bad:
        with pytest.raises(JsonError, match=r"^it "):
            parse(value, "it")


def test_null_is_none_only_where_it_may_be() -> None:
    assert optional(None, "it", as_u64) is None
    assert optional(0, "it", as_u64) == 0
    with pytest.raises(JsonError, match="it is a whole number from 0 to 18446744073709551615"):
        optional("0", "it", as_u64)


def test_a_message_does_not_repeat_a_long_value() -> None:
    with pytest.raises(JsonError) as raised:
        as_u64("x" * 1_000_000, "it")
    assert len(str(raised.value)) < 200
