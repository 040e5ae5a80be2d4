from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from embedded.host import Host, make_host
from frames import chunk, frame, head, interleaved, place, read, resent, small_bodies
from reader_model import parse
from run_operation import TARGET, Fault, answered, lost, refused, run
from s2frames.append import AppendProtocol
from s2frames.dedupe import DEDUPE_SEQ, MAX_DEDUPE_SEQ, WRITER_ID
from s2frames.errors import (
    LocalProtocolError,
    Outcome,
    S2FramesError,
    SeqNumMismatch,
    TransportError,
    WriterNotFound,
)
from s2frames.reader import FrameReader
from s2frames.records import Record, SequencedRecord, fence, trim
from s2frames.recover import recover_writer
from s2frames.s2s import encode_message
from s2frames.settings import AppendSettings
from s2frames.u64 import U64_MAX
from s2frames.wire import ReadBatch, encode_read_batch
from s2frames.writer_state import WriterState


def recover(
    records: Sequence[Record], writer: str = "w", search_from: int = 0, trim_before: int = 0
) -> WriterState:
    host = make_host()
    for at in range(0, len(records), 1000):
        host.append_ok(*records[at : at + 1000])
    if trim_before:
        host.append_ok(trim(trim_before))
    return run(recover_writer(TARGET, writer, search_from), host).result()


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
        # A whole copy behind a broken one.
        ([*w(b"a", b"b", b"c", seq=0)[::2], *w(b"a", b"b", b"c", seq=0)], 3, True),
        ([head(b"abc", records=2, size=2, seq=0, writer="w"), *w(b"a", b"b", seq=0)], 2, True),
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


def test_a_writer_that_has_used_up_its_numbers() -> None:
    assert recover(w(b"a", seq=MAX_DEDUPE_SEQ - 1)).next_dedupe_seq == MAX_DEDUPE_SEQ
    # It needs another id: the state says how far it got, and no session takes it.
    state = recover(w(b"a", seq=MAX_DEDUPE_SEQ))
    assert state.next_dedupe_seq == MAX_DEDUPE_SEQ + 1
    with pytest.raises(LocalProtocolError, match="first_dedupe_seq must be"):
        AppendProtocol(TARGET, AppendSettings(resume=state), random=lambda: 0.5)


# Where it was searched


@pytest.mark.parametrize(
    ("records", "search_from", "trim_before", "message"),
    [
        ([Record(b"raw")], 1, 0, "no record of writer 'w' was found in records 1 to 1"),
        ([*w(b"a", seq=0), Record(b"raw")], 1, 0, "no record of writer 'w' .* records 1 to 2"),
        ([], 1, 0, "no record of writer 'w' was found in record 1"),
        ([], U64_MAX, 0, f"no record of writer 'w' was found in record {U64_MAX}"),
        ([Record(b"raw")] * 3, 0, 2, "records 0 to 4; some of them were trimmed"),
        (w(b"a", b"b", seq=0), 1, 0, "the last message of writer 'w' does not begin in records 1"),
        (w(b"a", b"b", b"c", seq=0)[:2], 1, 0, "the last message of writer 'w' does not begin"),
        (w(b"a", b"b", seq=0), 0, 1, "does not begin in records 0 to 3; some of them were trimmed"),
        # The head that was read is that of an earlier frame.
        (
            [head(b"a", records=2, size=2, seq=0, writer="w"), chunk(b"b", seq=2, writer="w")],
            0,
            0,
            "the last message of writer 'w'",
        ),
        ([*w(b"a", seq=0), w(b"b", b"c", seq=1)[1]], 0, 0, "the last message of writer 'w'"),
    ],
)
def test_what_was_searched_in_vain(
    records: list[Record], search_from: int, trim_before: int, message: str
) -> None:
    with pytest.raises(WriterNotFound, match=message):
        recover(records, "w", search_from, trim_before)


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
    "seen",
    [
        # The answer ends before the barrier.
        [],
        place(w(b"a", seq=0)),
        # What came after the writer's record was trimmed while it was read.
        [*place(w(b"a", seq=0)), *place([trim(0)], 2)],
    ],
)
def test_records_that_go_while_they_are_read(seen: list[SequencedRecord]) -> None:
    host = make_host()
    host.append_ok(*w(b"a", seq=0), *w(b"b", seq=1))
    done = run(recover_writer(TARGET, "w"), host, [Fault(), Fault(), session(seen)])
    with pytest.raises(WriterNotFound, match="some of them were trimmed"):
        done.result()


def test_a_number_seen_before_a_gap_is_not_forgotten() -> None:
    host = make_host()
    host.append_ok(*w(b"a", seq=5), *w(b"b", seq=6), *w(b"a", seq=5))
    seen = [*place(w(b"b", seq=6), 0), *place([*w(b"a", seq=5), trim(0)], 2)]
    done = run(recover_writer(TARGET, "w"), host, [Fault(), Fault(), session(seen)])
    # The last message would be 6, of which nothing came after the gap.
    with pytest.raises(WriterNotFound, match="last message"):
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


def expect(scene: Scene, search_from: int, first: int) -> Callable[[WriterState], bool] | None:
    """What a state must fulfil; None when there must be none. `first` is the first record left."""
    start = max(search_from, first)
    placed = [r for r in place(scene.records) if r.seq_num >= start]
    numbers = [
        parsed.seq
        for record in placed
        if (parsed := parse(record.headers)) is not None and parsed.lane == ("w", True)
    ]
    if not numbers:
        is_new = search_from == 0 and first == 0
        return (lambda state: state.next_dedupe_seq == 0) if is_new else None
    if scene.last_head not in numbers:
        return None
    reader = FrameReader()
    read(reader, placed)
    lanes = {lane.lane: lane.last_dedupe_seq for lane in reader.checkpoint().lanes}
    is_whole = lanes.get(b"w") == max(numbers)
    return lambda state: (
        state.next_dedupe_seq == max(numbers) + 1 and state.last_frame_is_whole is is_whole
    )


@given(scenes(), st.integers(0, 12), st.integers(0, 6))
def test_recovering_against_a_model(scene: Scene, search_from: int, trim_before: int) -> None:
    trim_before = min(trim_before, len(scene.records))
    expected = expect(scene, search_from, trim_before)
    try:
        state = recover(scene.records, "w", search_from, trim_before)
    except WriterNotFound:
        assert expected is None
        return
    assert expected is not None
    assert expected(state)
    assert state.match_seq_num == len(scene.records) + bool(trim_before) + 1
