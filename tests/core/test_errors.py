from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from s2frames import errors
from s2frames.errors import (
    AppendConditionFailed,
    CertificateError,
    CodecError,
    ConnectError,
    Ending,
    FencingTokenMismatch,
    FrameLost,
    FrameSizeError,
    LocalProtocolError,
    Outcome,
    RangeNotSatisfiable,
    RemoteProtocolError,
    S2FramesError,
    ScanLimitExceeded,
    SeqNumMismatch,
    ServiceError,
    TransportError,
    WriterConflict,
    WriterExhausted,
    WriterNotFound,
)
from s2frames.events import DropReason, FrameDropped, GapDetected
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
    assert error.attempts is None


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
    (
        ScanLimitExceeded(3, 5, 1000),
        "only 3 of the last 5 messages lie in the stream's last 1000 bytes (max_scan_bytes)",
    ),
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
        (ServiceError(500, None, ""), {"retry_after": None}),
        (ScanLimitExceeded(1, 2, 3), {"found": 1, "wanted": 2, "max_scan_bytes": 3}),
        (CodecError("no"), {"start": None, "end": None, "payload": None}),
        (
            CodecError("no", start=3, end=5, payload=b"{"),
            {"start": 3, "end": 5, "payload": b"{"},
        ),
    ],
)
def test_attributes(error: S2FramesError, attributes: dict[str, Any]) -> None:
    assert {name: getattr(error, name) for name in attributes} == attributes


@pytest.mark.parametrize(
    ("attempts", "durable", "outcome", "words"),
    [
        (None, None, None, "no"),
        (1, None, None, "no"),
        (2, None, None, "no; tried 2 times"),
        (None, 0, Outcome.NOT_APPLIED, "no; 0 messages durable"),
        (None, 1, Outcome.NOT_APPLIED, "no; 1 message durable"),
        (1, 2, Outcome.UNKNOWN, "no; 2 messages durable, more may be"),
        (9, 1, Outcome.UNKNOWN, "no; tried 9 times; 1 message durable, more may be"),
        # A call has no messages.
        (3, None, Outcome.UNKNOWN, "no; tried 3 times"),
    ],
)
@pytest.mark.parametrize(
    "make",
    [lambda: S2FramesError("no"), lambda: ServiceError(500, None, "no"), lambda: CodecError("no")],
)
def test_the_text_says_what_became_of_it(
    make: Callable[[], S2FramesError],
    attempts: int | None,
    durable: int | None,
    outcome: Outcome | None,
    words: str,
) -> None:
    error = make()
    error.attempts, error.durable_messages, error.outcome = attempts, durable, outcome
    assert str(error) == words


def examples() -> list[S2FramesError]:
    """One of each kind."""
    message_only = [
        S2FramesError,
        LocalProtocolError,
        FrameSizeError,
        RemoteProtocolError,
        TransportError,
        ConnectError,
        CertificateError,
        AppendConditionFailed,
        WriterConflict,
        WriterExhausted,
        WriterNotFound,
    ]
    return [
        *(kind("what went wrong") for kind in message_only),
        CodecError("no JSON", start=1, end=2, payload=b"x"),
        ServiceError(503, "unavailable", "later"),
        SeqNumMismatch(42),
        FencingTokenMismatch("t"),
        RangeNotSatisfiable(StreamPosition(7, 9)),
        FrameLost(GapDetected(3, 5)),
        FrameLost(FrameDropped(DropReason.OVERFLOW, "w", 1, 2, "detail")),
        ScanLimitExceeded(1, 2, 3),
    ]


def test_there_is_an_example_of_each() -> None:
    assert {type(error).__name__ for error in examples()} == set(real_tree())


COPIES: dict[str, Callable[[Any], Any]] = {
    "to be raised": errors.copied,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301  # our own
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("error", examples(), ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied_with_all_that_it_says(name: str, error: S2FramesError) -> None:
    error.attempts, error.durable_messages, error.outcome = 3, 7, Outcome.UNKNOWN
    if isinstance(error, ServiceError):
        error.retry_after = 2.5
    copied = COPIES[name](error)
    assert type(copied) is type(error)
    assert vars(copied) == vars(error)
    assert copied.args == error.args
    assert copied.outcome is Outcome.UNKNOWN
    assert str(copied) == str(error)
    assert "tried 3 times; 7 messages durable, more may be" in str(copied)


def num_frames(error: BaseException) -> int:
    traceback, number = error.__traceback__, 0
    while traceback is not None:
        traceback, number = traceback.tb_next, number + 1
    return number


def test_an_error_that_is_kept_is_raised_as_a_copy_that_does_not_grow() -> None:
    cause = OSError("reset")
    ending = Ending()
    ending.check()
    assert not ending.is_told
    ending.error = TransportError("the connection broke")
    ending.error.__cause__ = cause
    raised = []
    for _ in range(100):
        with pytest.raises(TransportError, match=r"^the connection broke$") as caught:
            ending.check()
        raised.append(caught.value)
    assert ending.is_told
    assert len({id(error) for error in (*raised, ending.error)}) == 101
    assert {num_frames(error) for error in raised} == {2}
    assert num_frames(ending.error) == 0
    for error in raised:
        assert error.__cause__ is cause
        assert error.__suppress_context__


def test_a_copy_keeps_what_its_class_would_ask_for_anew() -> None:
    class Strict(TransportError):
        def __init__(self, *, host: str) -> None:
            super().__init__(f"no way to {host}")
            self.host = host

    error = Strict(host="there")
    error.add_note("at noon")
    again = errors.copied(error)
    assert isinstance(again, Strict)
    assert (str(again), again.host, again.__notes__) == ("no way to there", "there", ["at noon"])


def test_who_could_not_connect_sent_nothing_and_is_a_matter_of_transport() -> None:
    assert issubclass(CertificateError, ConnectError)
    assert issubclass(ConnectError, TransportError)


def test_frame_lost_speaks_in_the_words_of_its_event() -> None:
    event: Any = SimpleNamespace(describe=lambda: "the frame at 7 is too large")
    error = FrameLost(event)
    assert str(error) == "the frame at 7 is too large"
    assert error.event is event
