from __future__ import annotations

import threading

import pytest

from interruption import Interruption
from s2frames.alone import Alone
from s2frames.errors import LocalProtocolError
from s2frames.home import Home, Process


def test_one_after_the_other() -> None:
    alone = Alone("in use", Home("it", Process(1)))
    assert [alone.run(list) for _ in range(3)] == [[], [], []]


def test_the_second_one_gets_an_error_and_the_first_stays() -> None:
    alone = Alone("in use", Home("it", Process(1)))
    first, second = object(), object()
    alone.begin(first)
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match=r"^in use$"):
            alone.begin(second)
        # It has nothing to give back.
        alone.end(second)
    alone.end(first)
    alone.end(first)
    alone.begin(second)


def test_a_call_inside_is_the_second_one() -> None:
    alone = Alone("in use", Home("it", Process(1)))
    with pytest.raises(LocalProtocolError, match=r"^in use$"):
        alone.run(lambda: alone.run(list))
    assert alone.run(list) == []


def test_other_threads_count_too() -> None:
    alone = Alone("in use", Home("it", Process(1)))
    errors: list[str] = []

    def enter() -> None:
        with pytest.raises(LocalProtocolError) as caught:
            alone.run(list)
        errors.append(str(caught.value))

    def both() -> None:
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()

    alone.run(both)
    assert errors == ["in use"]


def test_an_exception_lets_the_next_one_in() -> None:
    alone = Alone("in use", Home("it", Process(1)))
    with pytest.raises(ZeroDivisionError):
        alone.run(lambda: 1 // 0)
    assert alone.run(list) == []


def test_an_interruption_at_any_line_lets_the_next_one_in() -> None:
    k = 0
    while True:
        k += 1
        alone = Alone("in use", Home("it", Process(1)))
        with Interruption(k) as interruption:
            alone.run(list)
        assert alone.run(list) == [], interruption.where
        if interruption.where is None:
            break
    assert k > 10


def test_in_another_process_the_place_cannot_be_taken() -> None:
    process = Process(1)
    alone = Alone("in use", Home("it", process))
    process.number = 2
    done: list[None] = []
    with pytest.raises(LocalProtocolError, match="it belongs to the process that made it, 1"):
        alone.run(lambda: done.append(None))
    assert done == []
    process.number = 1
    assert alone.run(list) == []
