from __future__ import annotations

import pytest

from s2frames.errors import LocalProtocolError
from s2frames.home import Home, Process


def test_at_home_nothing_is_refused() -> None:
    process = Process(7)
    home = Home("an append session", process)
    assert home.is_here
    home.check()


def test_elsewhere_it_is_refused_and_says_why_and_what_to_do() -> None:
    process = Process(7)
    home = Home("an append session", process)
    process.number = 8
    assert not home.is_here
    for _ in range(2):
        with pytest.raises(LocalProtocolError) as caught:
            home.check()
        assert str(caught.value) == (
            "an append session belongs to the process that made it, 7, and this is a copy of that, "
            "8: make another one after the fork"
        )


def test_what_is_made_in_a_copy_is_at_home_there() -> None:
    process = Process(7)
    process.number = 8
    assert Home("a read session", process).is_here
