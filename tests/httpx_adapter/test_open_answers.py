from __future__ import annotations

import gc

from s2frames_httpx.open_answers import OpenAnswers


class Owner:
    """What may be forgotten."""

    me: Owner


def test_what_is_open_is_kept_while_its_owner_lives() -> None:
    answers: OpenAnswers[str] = OpenAnswers()
    owner = Owner()
    answers.add("one", owner)
    assert answers.has_any
    assert answers.take_forgotten() is None


def test_what_was_forgotten_is_taken_once() -> None:
    answers: OpenAnswers[str] = OpenAnswers()
    answers.add("one", Owner())
    answers.add("two", Owner())
    assert [answers.take_forgotten() for _ in range(3)] == ["one", "two", None]


def test_an_owner_in_a_circle_counts_once_it_is_collected() -> None:
    answers: OpenAnswers[str] = OpenAnswers()
    owner = Owner()
    owner.me = owner
    answers.add("one", owner)
    del owner
    gc.collect()
    assert answers.take_forgotten() == "one"


def test_what_was_closed_is_not_forgotten() -> None:
    answers: OpenAnswers[str] = OpenAnswers()
    owner = Owner()
    answers.add("one", owner)
    answers.discard("one")
    answers.discard("one")
    del owner
    assert not answers.has_any
    assert answers.take_forgotten() is None
