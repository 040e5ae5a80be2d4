"""When another connection is made."""

from __future__ import annotations

import pytest

from s2frames_trio.dialing import MAX_PAUSE, MIN_PAUSE, Dialing


def no_chance() -> float:
    return 0.0


def test_the_first_dial_may_begin_at_any_time() -> None:
    for now in (-5.0, 0.0, 1e9):
        assert Dialing(no_chance).may_begin(now)


def test_pauses_grow_up_to_a_bound() -> None:
    dialing, now, pauses = Dialing(no_chance), 100.0, list[float]()
    for number in range(1, 2000):
        dialing.begin(number)
        dialing.fail(number, now)
        pauses.append(dialing.not_before - now)
        assert not dialing.may_begin(dialing.not_before - 0.01)
        now = dialing.not_before
        assert dialing.may_begin(now)
    assert pauses[:8] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2, 3.2])
    assert (pauses[0], max(pauses)) == pytest.approx((MIN_PAUSE, MAX_PAUSE))


def test_dials_side_by_side_are_one_try() -> None:
    dialing = Dialing(no_chance)
    for number in range(1, 51):
        dialing.begin(number)
    for number in range(1, 51):
        dialing.fail(number, 10.0)
    assert dialing.not_before == pytest.approx(10.1)
    for number in (51, 52):
        dialing.begin(number)
    dialing.fail(52, 11.0)
    dialing.fail(51, 11.1)
    assert dialing.not_before == pytest.approx(11.2)


def test_after_one_in_vain_they_are_made_singly() -> None:
    dialing = Dialing(no_chance)
    for number in (1, 2, 3):
        dialing.begin(number)
    dialing.fail(1, 0.0)
    # Those that are under way come first.
    assert dialing.is_coming(0, 1000)
    assert dialing.is_coming(2, 1000)
    assert not dialing.is_coming(3, 1)
    dialing.succeed(2, 1)
    dialing.note_use(2)
    assert not dialing.is_coming(0, 1000)


def test_chance_adds_up_to_as_much_again() -> None:
    for chance, pause in ((0.0, 0.1), (0.5, 0.15), (0.999, 0.1999)):
        dialing = Dialing(lambda: chance)  # noqa: B023  # used at once
        dialing.begin(1)
        dialing.fail(1, 0.0)
        assert dialing.not_before == pytest.approx(pause)


def test_a_connection_that_ends_unused_is_one_in_vain() -> None:
    dialing = Dialing(no_chance)
    for number, pause in ((1, 0.1), (2, 0.2), (3, 0.4)):
        dialing.begin(number)
        dialing.succeed(number, 0)
        assert dialing.end(number, 10.0)
        assert dialing.not_before == pytest.approx(10.0 + pause)


def test_a_connection_that_carried_a_stream_is_not() -> None:
    dialing = Dialing(no_chance)
    for number in (1, 2):
        dialing.begin(number)
    dialing.fail(1, 10.0)
    dialing.succeed(2, 100)
    dialing.note_use(2)
    assert dialing.may_begin(10.0)
    assert not dialing.end(2, 10.0)
    assert dialing.may_begin(10.0)
    # The next failure is a first one.
    dialing.begin(3)
    dialing.fail(3, 10.0)
    assert dialing.not_before == pytest.approx(10.1)


def test_an_old_connection_says_nothing_of_new_ones() -> None:
    dialing = Dialing(no_chance)
    dialing.begin(1)
    dialing.succeed(1, 100)
    assert dialing.note_use(1)
    dialing.begin(2)
    dialing.fail(2, 10.0)
    assert not dialing.note_use(1)
    assert not dialing.may_begin(10.0)


def test_those_who_were_told_pause_by_themselves() -> None:
    dialing = Dialing(no_chance)
    dialing.begin(1)
    dialing.fail(1, 0.0)
    dialing.begin_anew()
    assert dialing.may_begin(0.0)


@pytest.mark.parametrize(
    ("max_streams", "num_waiting", "is_coming"),
    [
        # Before the peer has said anything, it is 100.
        (None, 100, True),
        (None, 101, False),
        (2, 2, True),
        (2, 3, False),
        # What allows none is expected to take one.
        (0, 1, True),
        (0, 2, False),
        (10**6, 100, True),
        (10**6, 101, False),
    ],
)
def test_how_many_are_needed(max_streams: int | None, num_waiting: int, is_coming: bool) -> None:
    dialing = Dialing(no_chance)
    if max_streams is not None:
        dialing.begin(1)
        dialing.succeed(1, max_streams)
    assert dialing.is_coming(0, num_waiting) is False
    dialing.begin(2)
    assert dialing.is_coming(0, num_waiting) is is_coming
    assert dialing.is_coming(1, num_waiting) is is_coming
    # It is too old for those who leave it.
    assert dialing.is_coming(2, num_waiting) is False
    assert dialing.is_coming(2, 0)


def test_a_dial_is_under_way_until_it_has_come_to_something() -> None:
    dialing = Dialing(no_chance)
    for number in (1, 2, 3):
        dialing.begin(number)
    dialing.succeed(1, 100)
    dialing.fail(2, 0.0)
    assert dialing.under_way == {3}
