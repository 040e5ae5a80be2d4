from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from s2frames import errors
from s2frames.errors import (
    AppendConditionFailed,
    CodecError,
    FencingTokenMismatch,
    FrameLost,
    Outcome,
    RangeNotSatisfiable,
    S2FramesError,
    SeqNumMismatch,
    ServiceError,
)
from s2frames.records import StreamPosition


def documented_tree() -> dict[str, str]:
    """Each error in the module's docstring, and the one it is drawn under."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.match(r"    ([ │├└─]*)(\w+)", line)
        if drawn is None:
            continue
        depth, name = len(drawn[1]) // 4, drawn[2]
        above[depth:] = [name]
        parents[name] = above[depth - 1] if depth else "Exception"
    return parents


def real_tree() -> dict[str, str]:
    """Each error in the module, and what it derives from."""
    return {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }


def test_the_documented_tree_is_the_real_one() -> None:
    assert documented_tree() == real_tree()
    assert "S2FramesError" in documented_tree()


def test_every_error_is_exported() -> None:
    assert set(real_tree()) <= set(errors.__all__)


def test_an_error_by_itself_says_nothing_of_an_outcome() -> None:
    error = S2FramesError("no")
    assert error.outcome is None
    assert error.durable_messages is None


def test_outcomes() -> None:
    assert [outcome.value for outcome in Outcome] == ["not_applied", "unknown"]


EXAMPLES = [
    (ServiceError(500, "storage", "disk full"), "disk full (storage, status 500)"),
    (ServiceError(502, None, "a proxy's words"), "a proxy's words"),
    (AppendConditionFailed("no"), "no"),
    (
        SeqNumMismatch(42),
        "match_seq_num does not hold: the next sequence number is 42",
    ),
    (
        FencingTokenMismatch("o'ther"),
        "fencing_token does not hold: the stream's token is \"o'ther\"",
    ),
    (
        RangeNotSatisfiable(StreamPosition(7, 9)),
        "the read starts beyond the tail, which is at sequence number 7",
    ),
    (CodecError("not JSON"), "not JSON"),
]


@pytest.mark.parametrize(("error", "message"), EXAMPLES)
def test_messages(error: S2FramesError, message: str) -> None:
    assert str(error) == message


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (
            ServiceError(500, "storage", "disk full"),
            {"status": 500, "code": "storage", "message": "disk full"},
        ),
        (SeqNumMismatch(42), {"status": 412, "code": None, "expected": 42}),
        (FencingTokenMismatch(""), {"status": 412, "code": None, "expected": ""}),
        (
            RangeNotSatisfiable(StreamPosition(7, 9)),
            {"status": 416, "code": None, "tail": StreamPosition(7, 9)},
        ),
        (CodecError("no"), {"start": None, "end": None, "payload": None}),
        (
            CodecError("no", start=3, end=5, payload=b"{"),
            {"start": 3, "end": 5, "payload": b"{"},
        ),
    ],
)
def test_attributes(error: S2FramesError, attributes: dict[str, Any]) -> None:
    assert {name: getattr(error, name) for name in attributes} == attributes


def test_frame_lost_speaks_in_the_words_of_its_event() -> None:
    event: Any = SimpleNamespace(describe=lambda: "the frame at 7 is too large")
    error = FrameLost(event)
    assert str(error) == "the frame at 7 is too large"
    assert error.event is event
