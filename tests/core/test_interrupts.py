"""Ctrl-C out of a group of tasks."""

from __future__ import annotations

import pytest

from s2frames.interrupts import plain_interrupts


def test_an_interrupt_leaves_its_group() -> None:
    inner = BaseExceptionGroup("inner", [KeyboardInterrupt(), KeyError("a bug")])
    group = BaseExceptionGroup("outer", [inner])
    with pytest.raises(KeyboardInterrupt) as raised, plain_interrupts():
        raise group
    # What else was wrong is not lost.
    assert raised.value.__cause__ is group


@pytest.mark.parametrize(
    "error", [KeyError("a bug"), ExceptionGroup("bugs", [KeyError("a bug")]), KeyboardInterrupt()]
)
def test_anything_else_stays_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, plain_interrupts():
        raise error
    assert raised.value is error
