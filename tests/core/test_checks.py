from __future__ import annotations

from typing import Any

import pytest

from s2frames.checks import check_int, check_seconds, check_type
from s2frames.errors import LocalProtocolError


@pytest.mark.parametrize("value", [1, 2, 10])
def test_an_int_in_range(value: int) -> None:
    check_int("count", value, 1, 10)


@pytest.mark.parametrize("value", [0, 11, -1, True, 1.5, "5", None, b"", [1]])
def test_anything_else_names_the_value_and_the_limits(value: Any) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        check_int("count", value, 1, 10)
    assert str(caught.value) == f"count must be an int from 1 to 10, not {value!r}"


def test_the_range_is_u64_unless_told() -> None:
    check_int("n", 0)
    check_int("n", 2**64 - 1)
    for value in (-1, 2**64):
        with pytest.raises(LocalProtocolError, match="from 0 to 18446744073709551615"):
            check_int("n", value)


@pytest.mark.parametrize("value", [0.001, 1, float("inf")])
def test_seconds(value: float) -> None:
    check_seconds("linger", value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), "5", None, True])
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(LocalProtocolError, match="linger must be a number of seconds above 0"):
        check_seconds("linger", value)


def test_zero_seconds_where_they_make_sense() -> None:
    check_seconds("linger", 0, may_be_zero=True)
    with pytest.raises(LocalProtocolError, match="at least 0, not -1"):
        check_seconds("linger", -1, may_be_zero=True)


def test_a_type_is_named_and_a_value_is_not() -> None:
    check_type("the access token", "hunter2", str)
    with pytest.raises(LocalProtocolError) as caught:
        check_type("the access token", b"hunter2", str)
    assert str(caught.value) == "the access token must be a str, not bytes"
