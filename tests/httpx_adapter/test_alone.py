from __future__ import annotations

import threading

import pytest

from s2frames import LocalProtocolError
from s2frames_httpx.alone import Alone


def test_one_after_the_other() -> None:
    alone = Alone("in use")
    for _ in range(3):
        with alone:
            """Whoever is in here is the only one."""


def test_the_second_one_gets_an_error_and_the_first_stays() -> None:
    alone = Alone("in use")
    with alone:
        for _ in range(2):
            with pytest.raises(LocalProtocolError, match="in use"), alone:
                pytest.fail("two are in")


def test_other_threads_count_too() -> None:
    alone = Alone("in use")
    errors: list[LocalProtocolError] = []

    def enter() -> None:
        try:
            with alone:
                pytest.fail("two are in")
        except LocalProtocolError as error:
            errors.append(error)

    with alone:
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert [str(error) for error in errors] == ["in use"]


def leave_by_an_exception(alone: Alone) -> None:
    with alone:
        raise KeyError


def test_an_exception_lets_the_next_one_in() -> None:
    alone = Alone("in use")
    with pytest.raises(KeyError):
        leave_by_an_exception(alone)
    with alone:
        """Nobody else is."""
