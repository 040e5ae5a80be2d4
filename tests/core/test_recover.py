from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from embedded.host import Host, make_host
from frames import (
    chunk,
    frame,
    head,
    interleaved,
    make_ack,
    payloads,
    place,
    read,
    resent,
    small_bodies,
)
from reader_model import parse
from run_operation import TARGET, Fault, answered, lost, refused, run
from s2frames.dedupe import DEDUPE_SEQ, MAX_DEDUPE_SEQ, WRITER_ID
from s2frames.errors import (
    LocalProtocolError,
    Outcome,
    RemoteProtocolError,
    S2FramesError,
    SeqNumMismatch,
    TransportError,
    WriterExhausted,
    WriterNotFound,
)
from s2frames.operation import Plan
from s2frames.reader import FrameReader
from s2frames.records import Record, SequencedRecord, fence, trim
from s2frames.recover import recover_writer
from s2frames.s2s import encode_message
from s2frames.u64 import U64_MAX
from s2frames.wire import ReadBatch, encode_append_ack, encode_read_batch
from s2frames.writer_state import WriterState


def recover(
    records: Sequence[Record],
    writer: str = "w",
    search_from: int = 0,
    trim_before: int = 0,
    *,
    may_be_new: bool = False,
) -> WriterState:
    host = make_host()
    for at in range(0, len(records), 1000):
        host.append_ok(*records[at : at + 1000])
    if trim_before:
        host.append_ok(trim(trim_before))
    plan = recover_writer(TARGET, writer, search_from, may_be_new=may_be_new)
    return run(plan, host).result()


def w(*bodies: bytes, seq: int) -> list[Record]:
    return frame(bodies, seq=seq, writer="w")


# Arguments


@pytest.mark.parametrize(
    ("writer_id", "search_from"),
    [
        ("", 0),
        ("w" * 257, 0),
        ("\ud800", 0),
        (b"w", 0),
        (None, 0),
        ("w", -1),
        ("w", U64_MAX + 1),
        ("w", 1.5),
        ("w", True),
        ("w", None),
    ],
)
def test_bad_arguments_are_refused_at_the_call(writer_id: str, search_from: int) -> None:
    with pytest.raises(LocalProtocolError):
        recover_writer(TARGET, writer_id, search_from)


@pytest.mark.parametrize("value", [1, 0, None, "yes"])
def test_may_be_new_is_a_flag(value: Any) -> None:
    with pytest.raises(
        LocalProtocolError, match=r"^may_be_new must be a bool, not (int|NoneType|str)$"
    ):
        recover_writer(TARGET, "w", may_be_new=value)


# What the stream holds


def test_an_empty_stream() -> None:
    state = recover([])
    assert state == WriterState(
        writer_id="w", next_dedupe_seq=0, is_exclusive=True, match_seq_num=1
    )
    assert state.last_frame_is_whole


@pytest.mark.parametrize(
    ("records", "next_dedupe_seq", "is_whole"),
    [
        # Nothing of this writer.
        ([Record(b"raw"), *frame([b"x"], seq=7, writer="other"), fence("t")], 0, True),
        (frame([b"x"], seq=7), 0, True),
        (frame([b"x"]), 0, True),
        # Whole frames.
        (w(b"a", seq=0), 1, True),
        (w(b"a", b"b", b"c", seq=4), 7, True),
        ([*w(b"a", seq=0), *w(b"b", b"c", seq=1), Record(b"raw")], 3, True),
        # A frame that was not finished, and one after it.
        (w(b"a", b"b", b"c", seq=0)[:1], 1, False),
        (w(b"a", b"b", b"c", seq=0)[:2], 2, False),
        ([*w(b"a", b"b", seq=0)[:1], *w(b"c", seq=1)], 2, True),
        ([*w(b"c", seq=0), *w(b"a", b"b", seq=1)[:1]], 2, False),
        # Repeats.
        (w(b"a", b"b", seq=0) * 2, 2, True),
        ([*w(b"a", seq=0), *w(b"b", seq=1), *w(b"a", seq=0)], 2, True),
        ([*w(b"a", b"b", b"c", seq=0)[:2], *w(b"a", b"b", b"c", seq=0)], 3, True),
        ([*w(b"a", b"b", b"c", seq=0)[:2], *w(b"a", b"b", b"c", seq=0)[:2]], 2, False),
        # Others in between.
        (
            [
                w(b"a", b"b", seq=0)[0],
                trim(0),
                *frame([b"x", b"y"], seq=9, writer="v"),
                Record(b"raw"),
                Record(b"own", ((b"k", b"v"),)),
                w(b"a", b"b", seq=0)[1],
            ],
            2,
            True,
        ),
        # Frames that no reader delivers: too few bytes, too many, a number that is missing.
        ([head(b"ab", size=3, seq=0, writer="w")], 1, False),
        ([head(b"ab", size=1, seq=0, writer="w")], 1, False),
        (
            [head(b"a", records=2, size=3, seq=0, writer="w"), chunk(b"b", seq=1, writer="w")],
            2,
            False,
        ),
        (
            [head(b"a", records=2, size=2, seq=0, writer="w"), chunk(b"bc", seq=1, writer="w")],
            2,
            False,
        ),
        ([*w(b"a", b"b", b"c", seq=0)[:1], w(b"a", b"b", b"c", seq=0)[2]], 3, False),
        ([head(b"a", size=3, seq=0, writer="w"), chunk(b"xx", seq=0, writer="w")], 1, False),
        # A whole copy behind a broken one.
        ([*w(b"a", b"b", b"c", seq=0)[::2], *w(b"a", b"b", b"c", seq=0)], 3, True),
        ([head(b"abc", records=2, size=2, seq=0, writer="w"), *w(b"a", b"b", seq=0)], 2, True),
        # Another frame under the number of a broken one, whose records were more.
        ([*w(b"a", b"b", b"c", seq=0)[::2], *w(b"x", seq=0)], 3, False),
        # An earlier frame behind a broken one.
        ([*w(b"a", b"b", b"c", seq=10)[::2], *w(b"x", seq=6)], 13, False),
        # A record that claims to be the writer's and makes no sense.
        ([*w(b"a", seq=0), Record(b"", ((WRITER_ID, b"w"), (DEDUPE_SEQ, b"short")))], 1, True),
        ([*w(b"a", seq=0), Record(b"", ((WRITER_ID, b"w"),))], 1, True),
    ],
)
def test_where_a_writer_goes_on(
    records: list[Record], next_dedupe_seq: int, is_whole: bool
) -> None:
    state = recover(records)
    assert state == WriterState(
        writer_id="w",
        next_dedupe_seq=next_dedupe_seq,
        is_exclusive=True,
        match_seq_num=len(records) + 1,
        last_frame_is_whole=is_whole,
    )


def test_a_writer_id_that_is_not_ascii() -> None:
    assert recover(frame([b"a"], seq=3, writer="é"), "é").next_dedupe_seq == 4


# Numbers that end


def test_the_last_numbers() -> None:
    assert recover(w(b"a", seq=MAX_DEDUPE_SEQ - 1)).next_dedupe_seq == MAX_DEDUPE_SEQ


@pytest.mark.parametrize(
    ("records", "at"),
    [
        (w(b"a", seq=MAX_DEDUPE_SEQ), 0),
        ([Record(b"raw"), *w(b"a", b"b", seq=MAX_DEDUPE_SEQ - 1), *w(b"a", seq=0)], 2),
        # The number is used up whatever became of the frame.
        ([chunk(b"b", seq=MAX_DEDUPE_SEQ, writer="w")], 0),
        ([*w(b"a", seq=MAX_DEDUPE_SEQ), *w(b"a", seq=MAX_DEDUPE_SEQ)], 0),
    ],
)
@pytest.mark.parametrize("may_be_new", [False, True])
def test_a_writer_that_has_used_up_its_numbers(
    records: list[Record], at: int, may_be_new: bool
) -> None:
    message = (
        f"the dedupe sequences of writer 'w' are used up: record {at} has the last one, "
        "9007199254740991 (2^53 - 1); use another writer id"
    )
    with pytest.raises(WriterExhausted, match=f"^{re.escape(message)}$"):
        recover(records, may_be_new=may_be_new)


@pytest.mark.parametrize("number", [MAX_DEDUPE_SEQ + 1, U64_MAX])
@pytest.mark.parametrize("make", [head, chunk])
def test_a_number_that_no_writer_has(number: int, make: Callable[..., Record]) -> None:
    records = [*w(b"a", seq=0), make(b"b", seq=number, writer="w"), *w(b"c", seq=1)]
    message = (
        f"record 1 of writer 'w' has the dedupe sequence {number}, above the last one, "
        "9007199254740991 (2^53 - 1): nothing can go on after it; use another writer id"
    )
    with pytest.raises(RemoteProtocolError, match=f"^{re.escape(message)}$"):
        recover(records)
    # Others are not concerned.
    assert recover(records, "v").next_dedupe_seq == 0


# Where it was searched


NOT_FOUND = "no record of writer 'w' was found in"
NO_HEAD = "the last message of writer 'w' does not begin in"
TRIMMED = "; some of them were trimmed"
NEW = "pass may_be_new=True if it may be a new writer"
FURTHER = "search from further back (search_from), or "
OTHER = "use another writer id"


@pytest.mark.parametrize(
    ("records", "search_from", "trim_before", "message"),
    [
        ([Record(b"raw")], 1, 0, f"{NOT_FOUND} records 1 to 1: {FURTHER}{NEW}"),
        ([*w(b"a", seq=0), Record(b"raw")], 1, 0, f"{NOT_FOUND} records 1 to 2: {FURTHER}{NEW}"),
        ([], 1, 0, f"{NOT_FOUND} record 1: {FURTHER}{NEW}"),
        ([], U64_MAX, 0, f"{NOT_FOUND} record {U64_MAX}: {FURTHER}{NEW}"),
        ([Record(b"raw")] * 3, 0, 2, f"{NOT_FOUND} records 0 to 4{TRIMMED}: {NEW}"),
        ([Record(b"raw")] * 3, 1, 2, f"{NOT_FOUND} records 1 to 4{TRIMMED}: {FURTHER}{NEW}"),
        (w(b"a", b"b", seq=0), 1, 0, f"{NO_HEAD} records 1 to 2: {FURTHER}{OTHER}"),
        (w(b"a", b"b", b"c", seq=0)[:2], 1, 0, f"{NO_HEAD} records 1 to 2: {FURTHER}{OTHER}"),
        (w(b"a", b"b", seq=0), 0, 1, f"{NO_HEAD} records 0 to 3{TRIMMED}: {OTHER}"),
        # The head that was read is that of an earlier frame.
        (
            [head(b"a", records=2, size=2, seq=0, writer="w"), chunk(b"b", seq=2, writer="w")],
            0,
            0,
            f"{NO_HEAD} records 0 to 2: {OTHER}",
        ),
        ([*w(b"a", seq=0), w(b"b", b"c", seq=1)[1]], 0, 0, f"{NO_HEAD} records 0 to 2: {OTHER}"),
    ],
)
def test_what_was_searched_in_vain(
    records: list[Record], search_from: int, trim_before: int, message: str
) -> None:
    with pytest.raises(WriterNotFound, match=f"^{re.escape(message)}$"):
        recover(records, "w", search_from, trim_before)


# The first start


def w_is_new_at(number: int, end: int) -> WriterState:
    return WriterState(writer_id="w", next_dedupe_seq=number, is_exclusive=True, match_seq_num=end)


def test_a_writer_that_may_be_new_where_nothing_was_trimmed() -> None:
    assert recover([], may_be_new=True) == w_is_new_at(0, 1)
    assert recover([Record(b"raw")] * 3, may_be_new=True) == w_is_new_at(0, 4)
    # It is not, and goes on.
    assert recover(w(b"a", seq=4), may_be_new=True).next_dedupe_seq == 5


@pytest.mark.parametrize(
    ("records", "search_from", "trim_before", "end"),
    [
        ([Record(b"raw")] * 3, 0, 2, 5),
        ([Record(b"raw")] * 3, 1, 2, 5),
        ([Record(b"raw")] * 3, 2, 0, 4),
        ([], U64_MAX, 0, 1),
        # All that was there of it was trimmed, or is not looked at.
        (w(b"a", seq=0), 0, 1, 3),
        (w(b"a", seq=0), 1, 0, 2),
    ],
)
def test_a_writer_that_may_be_new(
    records: list[Record], search_from: int, trim_before: int, end: int
) -> None:
    # No number of an earlier writer of this id is above the sequence number of its record.
    state = recover(records, "w", search_from, trim_before, may_be_new=True)
    assert state == w_is_new_at(end, end)


def test_readers_that_remember_an_earlier_writer_drop_nothing_of_the_new_one() -> None:
    earlier = [*w(b"a", seq=0), *w(b"b", b"c", seq=1)]
    reader = FrameReader(start=0)
    read(reader, place(earlier))
    state = recover(earlier, trim_before=3, may_be_new=True)
    # The trim and the barrier come, then what is new.
    later = place([trim(3), trim(0), *w(b"d", seq=state.next_dedupe_seq)], 3)
    assert later[-1].seq_num == state.match_seq_num
    assert payloads(read(reader, later)) == [b"d"]


@pytest.mark.parametrize(
    ("records", "search_from", "trim_before"),
    [(w(b"a", b"b", seq=0), 1, 0), (w(b"a", b"b", seq=0), 0, 1)],
)
def test_a_writer_of_which_something_is_left_is_not_new(
    records: list[Record], search_from: int, trim_before: int
) -> None:
    with pytest.raises(WriterNotFound, match=f"^{NO_HEAD} records "):
        recover(records, "w", search_from, trim_before, may_be_new=True)


def test_a_stream_that_is_longer_than_there_are_numbers() -> None:
    acks = [
        answered(200, encode_append_ack(make_ack(end - 1, 1)))
        for end in (MAX_DEDUPE_SEQ, MAX_DEDUPE_SEQ + 1)
    ]
    tail = answered(200, b'{"tail":{"seq_num":0,"timestamp":0}}')

    def plan() -> Plan[WriterState]:
        return recover_writer(TARGET, "w", U64_MAX, may_be_new=True)

    state = run(plan(), make_host(), [tail, acks[0]]).result()
    assert state == w_is_new_at(MAX_DEDUPE_SEQ, MAX_DEDUPE_SEQ)
    with pytest.raises(WriterNotFound):
        run(plan(), make_host(), [tail, acks[1]]).result()


def test_a_search_from_further_on() -> None:
    records = [*w(b"a", b"b", seq=0), *w(b"c", seq=2)]
    assert recover(records, search_from=1).next_dedupe_seq == 3
    assert recover(records, search_from=2).next_dedupe_seq == 3


def test_a_whole_copy_behind_the_rest_of_another() -> None:
    records = w(b"a", b"b", b"c", seq=0) * 2
    assert recover(records, search_from=1) == WriterState(
        writer_id="w", next_dedupe_seq=3, is_exclusive=True, match_seq_num=7
    )


def test_a_trimmed_stream_whose_last_frame_is_left() -> None:
    records = [*w(b"a", b"b", seq=0), *w(b"c", seq=2)]
    assert recover(records, trim_before=1).next_dedupe_seq == 3


# The barrier


def test_the_barrier_changes_nothing_but_the_tail() -> None:
    host = make_host()
    host.append_ok(*w(b"a", seq=0))
    state = run(recover_writer(TARGET, "w"), host).result()
    # What the dead process had on its way was conditioned on the old tail.
    assert host.append(w(b"late", seq=1), match_seq_num=1).status == 412
    assert host.append(w(b"b", seq=1), match_seq_num=state.match_seq_num).status == 200


def test_a_batch_that_arrives_before_the_barrier_is_found() -> None:
    host = make_host()

    def arrive(number: int) -> None:
        if number == 2:
            host.append_ok(*w(b"late", seq=0))

    state = run(recover_writer(TARGET, "w"), host, before_request=arrive).result()
    assert state == WriterState(
        writer_id="w", next_dedupe_seq=1, is_exclusive=True, match_seq_num=2
    )


@pytest.mark.parametrize("faults", [[lost()], [refused()], [lost(4), refused(), lost()]])
def test_a_barrier_whose_ack_is_lost_is_sent_again(faults: list[Fault]) -> None:
    host = make_host()
    host.append_ok(*w(b"a", seq=0))
    state = run(recover_writer(TARGET, "w"), host, [Fault(), *faults]).result()
    assert state.next_dedupe_seq == 1
    assert host.append(w(b"b", seq=1), match_seq_num=state.match_seq_num).status == 200


def test_a_stream_that_never_rests() -> None:
    host = make_host()
    done = run(
        recover_writer(TARGET, "w"), host, before_request=lambda _: host.append_ok(Record(b"x"))
    )
    with pytest.raises(SeqNumMismatch) as caught:
        done.result()
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert len(done.requests) == 17


def test_the_stream_is_missing() -> None:
    host = Host()
    with pytest.raises(S2FramesError, match="basin_not_found"):
        run(recover_writer(TARGET, "w"), host).result()


# Reading back


@pytest.mark.parametrize("piece", [997, 1 << 20])
def test_reading_back_goes_on_after_a_break(piece: int) -> None:
    host = make_host()
    for seq in range(0, 3000, 500):
        host.append_ok(*(r for i in range(500) for r in w(b"x", seq=seq + i)))
    # The first answer breaks after its first message, the next one within it.
    faults = [Fault(), Fault(), lost(150_000), lost(50)]
    done = run(recover_writer(TARGET, "w"), host, faults, piece=piece)
    assert done.result().next_dedupe_seq == 3000
    starts = [r.url.split("seq_num=")[1].split("&")[0] for r in done.requests[2:]]
    assert starts[0] == "0"
    assert starts[1] == starts[2] != "0"


def test_nothing_is_concluded_from_an_answer_that_never_comes() -> None:
    host = make_host()
    fault = Fault(status=200, is_sent=False, keep=0, error=TransportError("broke"))
    host.append_ok(*w(b"a", seq=0))
    with pytest.raises(TransportError):
        run(recover_writer(TARGET, "w"), host, [Fault(), Fault(), *[fault] * 63]).result()


def session(records: Sequence[SequencedRecord]) -> Fault:
    body = b"".join(encode_message(encode_read_batch(ReadBatch(records)))) if records else b""
    return answered(200, body)


@pytest.mark.parametrize(
    ("seen", "advice"),
    [
        # The answer ends before the barrier: with nothing, or with the record before it.
        ([], "try again"),
        (place(w(b"a", seq=0)), "try again"),
        (place([*w(b"a", seq=0), *w(b"b", seq=1)]), "try again"),
        # What came after the writer's record was trimmed while it was read.
        ([*place(w(b"a", seq=0)), *place([trim(0)], 2)], OTHER),
    ],
)
@pytest.mark.parametrize("may_be_new", [False, True])
def test_records_that_go_while_they_are_read(
    seen: list[SequencedRecord], advice: str, may_be_new: bool
) -> None:
    host = make_host()
    host.append_ok(*w(b"a", seq=0), *w(b"b", seq=1))
    plan = recover_writer(TARGET, "w", may_be_new=may_be_new)
    done = run(plan, host, [Fault(), Fault(), session(seen)])
    with pytest.raises(WriterNotFound, match=f" records 0 to 2{TRIMMED}: {advice}$"):
        done.result()


def test_a_number_seen_before_a_gap_is_not_forgotten() -> None:
    host = make_host()
    host.append_ok(*w(b"a", seq=5), *w(b"b", seq=6), *w(b"a", seq=5))
    seen = [*place(w(b"b", seq=6), 0), *place([*w(b"a", seq=5), trim(0)], 2)]
    done = run(recover_writer(TARGET, "w"), host, [Fault(), Fault(), session(seen)])
    # The last message would be 6, of which nothing came after the gap.
    with pytest.raises(WriterNotFound, match=f"^{NO_HEAD} records 0 to 3{TRIMMED}: {OTHER}$"):
        done.result()


# Against a model


@frozen
class Scene:
    """A stream, and of the writer "w" the dedupe sequence of its last frame's first record."""

    records: list[Record]
    last_head: int


@st.composite
def lives(draw: st.DrawFn, writer: str) -> tuple[list[Record], int]:
    """Frames of a writer that may have stopped in any of them, and where the last one begins."""
    records: list[Record] = []
    last_head = -1
    for bodies in draw(st.lists(small_bodies, max_size=4)):
        whole = frame(bodies, seq=len(records), writer=writer)
        last_head = len(records)
        records += whole[: draw(st.sampled_from([len(whole), 1, max(1, len(whole) - 1)]))]
    return draw(resent(records)), last_head


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    ours, last_head = draw(lives("w"))
    theirs, _ = draw(lives("v"))
    strays = [Record(b"raw"), fence("t"), *frame([b"u", b"n"])]
    others = draw(st.lists(st.sampled_from(strays), max_size=4))
    return Scene(draw(interleaved([ours, theirs, others])), last_head)


def expect(
    scene: Scene, search_from: int, first: int, may_be_new: bool
) -> Callable[[WriterState], bool] | None:
    """What a state must fulfil; None when there must be none. `first` is the first record left."""
    start = max(search_from, first)
    placed = [r for r in place(scene.records) if r.seq_num >= start]
    numbers = [
        parsed.seq
        for record in placed
        if (parsed := parse(record.headers)) is not None and parsed.lane.key == b"w"
    ]
    if not numbers:
        if search_from == 0 and first == 0:
            return lambda state: state.next_dedupe_seq == 0
        end = len(scene.records) + bool(first) + 1
        return (lambda state: state.next_dedupe_seq == end) if may_be_new else None
    if scene.last_head not in numbers:
        return None
    reader = FrameReader()
    read(reader, placed)
    lanes = {lane.lane: lane.last_dedupe_seq for lane in reader.checkpoint().lanes}
    is_whole = lanes.get(b"w") == max(numbers)
    return lambda state: (
        state.next_dedupe_seq == max(numbers) + 1 and state.last_frame_is_whole is is_whole
    )


@given(scenes(), st.integers(0, 12), st.integers(0, 6), st.booleans())
def test_recovering_against_a_model(
    scene: Scene, search_from: int, trim_before: int, may_be_new: bool
) -> None:
    trim_before = min(trim_before, len(scene.records))
    expected = expect(scene, search_from, trim_before, may_be_new)
    try:
        state = recover(scene.records, "w", search_from, trim_before, may_be_new=may_be_new)
    except WriterNotFound:
        assert expected is None
        return
    assert expected is not None
    assert expected(state)
    assert state.match_seq_num == len(scene.records) + bool(trim_before) + 1
