from __future__ import annotations

from typing import Any

import pytest

from s2frames.dedupe import MAX_DEDUPE_SEQ
from s2frames.errors import LocalProtocolError
from s2frames.u64 import U64_MAX
from s2frames.writer_state import Pending, PendingMessage, WriterState


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"writer_id": ""}, "writer id"),
        ({"writer_id": "x" * 257}, "writer id"),
        ({"writer_id": b"w"}, "writer id"),
        ({"next_dedupe_seq": -1}, "next_dedupe_seq"),
        ({"next_dedupe_seq": MAX_DEDUPE_SEQ + 2}, "next_dedupe_seq"),
        ({"next_dedupe_seq": 1.0}, "next_dedupe_seq"),
        ({"next_dedupe_seq": True}, "next_dedupe_seq"),
        ({"in_doubt_until": -1}, "in_doubt_until"),
        ({"is_exclusive": 1}, "is_exclusive"),
        ({"match_seq_num": -1}, "match_seq_num"),
        ({"match_seq_num": U64_MAX + 1}, "match_seq_num"),
        ({"match_seq_num": "7"}, "match_seq_num"),
    ],
)
def test_a_state_that_no_writer_has(change: dict[str, Any], named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named.replace(" ", ".")):
        WriterState(**{"writer_id": "w", "next_dedupe_seq": 0, **change})


@pytest.mark.parametrize("next_dedupe_seq", [0, MAX_DEDUPE_SEQ + 1])
@pytest.mark.parametrize("match_seq_num", [None, 0, U64_MAX])
def test_a_state(next_dedupe_seq: int, match_seq_num: int | None) -> None:
    state = WriterState(writer_id="é", next_dedupe_seq=next_dedupe_seq, match_seq_num=match_seq_num)
    assert (state.next_dedupe_seq, state.match_seq_num) == (next_dedupe_seq, match_seq_num)
    assert state.last_frame_is_whole


def message(first: int, end: int) -> PendingMessage:
    return PendingMessage(b"secret-payload", (), None, first, end)


def test_a_payload_is_not_shown() -> None:
    shown = repr(Pending((message(0, 1),), None))
    assert "secret-payload" not in shown
    assert "<14 bytes>" in shown


@pytest.mark.parametrize(
    ("next_dedupe_seq", "is_whole", "left"),
    [
        (10, True, [10, 11, 14]),
        (11, True, [11, 14]),
        # Of the long message a part is there: it is sent again, as a new one.
        (12, False, [11, 14]),
        (13, False, [11, 14]),
        (14, True, [14]),
        (15, True, []),
        (99, True, []),
    ],
)
def test_what_is_left_to_send(next_dedupe_seq: int, is_whole: bool, left: list[int]) -> None:
    pending = Pending((message(10, 11), message(11, 14), message(14, 15)), None)
    state = WriterState(
        writer_id="w", next_dedupe_seq=next_dedupe_seq, last_frame_is_whole=is_whole
    )
    assert [m.first_dedupe_seq for m in pending.after(state)] == left
