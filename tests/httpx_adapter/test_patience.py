from __future__ import annotations

import pytest

from s2frames_httpx.patience import Patience, seconds_in


def test_patience_is_the_longest_time_for_who_asks_once() -> None:
    patience = Patience(66.5, lambda: 5.0)
    assert patience == 66.5
    assert float(patience) == 66.5


@pytest.mark.parametrize(("left", "seconds"), [(5.0, 5.0), (0.0, 0.0), (90.0, 90.0), (None, 66.5)])
def test_who_asks_again_hears_what_is_left(left: float | None, seconds: float) -> None:
    assert seconds_in(Patience(66.5, lambda: left)) == seconds


def test_it_changes_while_it_is_asked() -> None:
    answers = [5.0, 4.0]
    patience = Patience(66.5, lambda: answers.pop(0))
    assert [patience.left(), patience.left()] == [5.0, 4.0]


def test_any_other_time_out_is_what_it_is() -> None:
    assert seconds_in(5.0) == 5.0
