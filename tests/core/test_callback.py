from __future__ import annotations

from collections import deque
from itertools import count
from typing import Any

import pytest

from interruption import Interruption
from s2frames.callback import Callback, add_note_of
from s2frames.errors import LocalProtocolError


class Refusing:
    """A callback that raises for some of what it is told."""

    def __init__(self, *refused: int, kind: type[BaseException] = KeyError) -> None:
        self.told: list[int] = []
        self._refused = refused
        self._kind = kind

    def __call__(self, number: int) -> None:
        self.told.append(number)
        if number in self._refused:
            raise self._kind(number)


def make(function: Any, *numbers: int) -> Callback[int]:
    callback: Callback[int] = Callback("on_number", function)
    left = deque(numbers)
    while left:
        callback.take_first(left)
    callback.tell()
    return callback


def test_everything_is_told_in_order() -> None:
    refusing = Refusing()
    callback = make(refusing, 1, 2, 3)
    assert refusing.told == [1, 2, 3]
    assert not callback.has_raised
    callback.check()


def test_what_is_raised_comes_out_once_and_the_rest_is_told_after_it() -> None:
    refusing = Refusing(1, 3)
    callback = make(refusing, 1, 2, 3, 4)
    for told, number in (([1], 1), ([1, 2, 3], 3)):
        assert refusing.told == told
        assert callback.has_raised
        assert not callback.is_urgent
        callback.tell()
        assert refusing.told == told
        with pytest.raises(KeyError, match=rf"^{number}$"):
            callback.check()
        callback.check()
        callback.tell()
    assert refusing.told == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_is_urgent(kind: type[BaseException]) -> None:
    callback = make(Refusing(1, kind=kind), 1)
    assert callback.is_urgent
    with pytest.raises(kind):
        callback.check()
    assert not callback.is_urgent


def test_what_comes_out_instead_has_a_note() -> None:
    callback = make(Refusing(1), 1)
    error = ValueError("instead")
    callback.leave_to(error)
    callback.leave_to(error)
    assert error.__notes__ == ["on_number has raised KeyError: '1'"]
    assert not callback.has_raised


def test_a_note_is_short() -> None:
    error = ValueError("instead")
    add_note_of(error, "on_number", KeyError("x" * 10**6))
    assert len(error.__notes__[0]) < 200


def test_nobody_has_to_be_told() -> None:
    callback = make(None, 1, 2)
    callback.check()
    assert not callback.has_raised


def test_what_cannot_be_called() -> None:
    with pytest.raises(LocalProtocolError, match=r"^on_number must be a callable, not int$"):
        make(7)


def test_ctrl_c_at_any_line_tells_everything_once() -> None:
    for k in count(1):
        refusing = Refusing()
        left = deque([1, 2])
        callback: Callback[int] = Callback("on_number", refusing)
        with Interruption(k) as interruption:
            while left:
                callback.take_first(left)
                callback.tell()
        while left:
            callback.take_first(left)
        callback.tell()
        callback.check()
        assert refusing.told == [1, 2], interruption.where
        assert interruption.came_out or interruption.where is None
        if interruption.where is None:
            break
    assert k > 10
