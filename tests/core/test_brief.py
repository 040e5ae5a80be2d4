from __future__ import annotations

from typing import Any

import pytest

from s2frames.brief import brief


@pytest.mark.parametrize("value", [7, 2**64, -1, True, None, 1.5, "text", b"bytes", [1], (1,), {}])
def test_what_is_short_is_shown_as_it_is(value: Any) -> None:
    assert brief(value) == repr(value)


@pytest.mark.parametrize(
    "value", ["x" * 10**6, b"x" * 10**6, [0] * 10**6, {"x" * 10**6: 1}, 10**4000, object]
)
def test_what_is_long_is_cut(value: Any) -> None:
    assert len(brief(value)) < 200


def test_an_int_that_python_does_not_write() -> None:
    assert brief(10**5000) == "an int that is too long to show"
