from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.host import Host, make_host
from frames import chunk, frame, frames_in, interleaved, place, read, resent, small_bodies
from run_operation import SETTINGS, TARGET, Fault, Run, answered, lost, run
from s2frames import last
from s2frames.errors import LocalProtocolError, RemoteProtocolError, ScanLimitExceeded
from s2frames.last import LastFrames, find_last
from s2frames.operation import Operation
from s2frames.reader import FrameReader
from s2frames.records import Record, SequencedRecord, StreamPosition, fence, trim
from s2frames.s2s import encode_message
from s2frames.session import CloseRequest, OpenRequest
from s2frames.u64 import U64_MAX
from s2frames.wire import ReadBatch, encode_read_batch

PLENTY = 1 << 30


def reader_from(start: int) -> FrameReader:
    return FrameReader(start=start)


def fill(records: Sequence[Record], trim_before: int = 0) -> Host:
    host = make_host()
    for at in range(0, len(records), 1000):
        host.append_ok(*records[at : at + 1000])
    if trim_before:
        host.append_ok(trim(trim_before))
    return host


def look(host: Host, count: int, limit: int = PLENTY) -> Run[LastFrames]:
    return run(find_last(TARGET, count, limit, reader_from), host)


def starts(records: Sequence[Record], count: int, trim_before: int = 0) -> list[int]:
    found = look(fill(records, trim_before), count).result()
    assert found.read_from == min(found.starts, default=found.tail.seq_num)
    return sorted(found.starts)


def singles(number: int, size: int = 1) -> list[Record]:
    return [record for _ in range(number) for record in frame([b"x" * size])]


# Arguments


@pytest.mark.parametrize(
    ("count", "limit", "name"),
    [
        (0, 1, "last"),
        (-1, 1, "last"),
        (True, 1, "last"),
        (1.0, 1, "last"),
        (None, 1, "last"),
        (U64_MAX + 1, 1, "last"),
        (1, 0, "max_scan_bytes"),
        (1, -5, "max_scan_bytes"),
        (1, None, "max_scan_bytes"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(count: int, limit: int, name: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"^{name} must be an int from 1"):
        find_last(TARGET, count, limit, reader_from)


# Which frames


def test_an_empty_stream() -> None:
    done = look(make_host(), 3)
    assert done.result() == LastFrames(0, frozenset(), StreamPosition(0, 0))
    assert len(done.requests) == 1


@pytest.mark.parametrize(
    ("records", "count", "expected"),
    [
        (singles(5), 1, [4]),
        (singles(5), 2, [3, 4]),
        (singles(5), 5, [0, 1, 2, 3, 4]),
        (singles(5), 6, [0, 1, 2, 3, 4]),
        (singles(5), U64_MAX, [0, 1, 2, 3, 4]),
        ([Record(b"raw")] * 5, 1, []),
        # Frames of several records.
        (frame([b"a", b"b", b"c"]) * 3, 2, [3, 6]),
        # One that is not complete, and records of no frame behind.
        ([*singles(2), *frame([b"a", b"b"])[:1], fence("t")], 1, [1]),
        # The order is that of completion.
        (
            [
                (long := frame([b"a", b"b"], seq=0, writer="w"))[0],
                *singles(3),
                long[1],
            ],
            1,
            [0],
        ),
        ([long[0], *singles(3), long[1], *singles(1)], 2, [0, 5]),
        # Of repeats the first one counts.
        (
            [
                *(a := frame([b"a"], seq=0, writer="w")),
                *(b := frame([b"b"], seq=1, writer="w")),
                *a,
                *b,
            ],
            1,
            [1],
        ),
        ([*a, *b, *a, *b, *a], 3, [0, 1]),
    ],
)
def test_which_frames_are_the_last(records: list[Record], count: int, expected: list[int]) -> None:
    assert starts(records, count) == expected


def test_the_tail_is_that_of_the_beginning() -> None:
    host = fill(singles(3))

    def append(number: int) -> None:
        if number == 2:
            host.append_ok(*singles(2))

    done = run(find_last(TARGET, 1, PLENTY, reader_from), host, before_request=append)
    assert done.result() == LastFrames(2, frozenset([2]), StreamPosition(3, 1_000_000_000))


# How far back


def spans(done: Run[LastFrames]) -> list[int]:
    """Of each look, how many records it was for."""
    return [int(r.url.split("count=")[1]) for r in done.requests[1:]]


def test_most_often_one_short_look_is_enough() -> None:
    host = fill(singles(3000))
    for count, span in [(1, 16), (8, 16), (9, 18), (500, 1000)]:
        done = look(host, count)
        assert sorted(done.result().starts) == list(range(3000 - count, 3000))
        assert spans(done) == [span]


def test_it_looks_further_back_until_it_is_enough() -> None:
    host = fill([*singles(2000), *[Record(b"", ((b"own", b""),))] * 300])
    done = look(host, 1)
    assert done.result().starts == {1999}
    assert spans(done) == [16, 64, 256, 1024]


def test_a_chunk_whose_head_lies_further_back() -> None:
    long = frame([b"a", b"b"], seq=0, writer="w")
    host = fill([long[0], *singles(50), long[1], *singles(2)])
    # The last two complete after it; the third from the end is the one that it completes.
    assert look(host, 2).result().starts == {52, 53}
    assert spans(look(host, 2)) == [16]
    done = look(host, 3)
    assert done.result().starts == {0, 52, 53}
    assert spans(done) == [16, 54]


def test_a_chunk_of_a_frame_that_is_known_to_be_broken() -> None:
    broken = [
        *frame([b"a"], seq=0, writer="w"),
        chunk(b"b", seq=2, writer="w"),
    ]
    done = look(fill([*singles(100), *broken]), 2)
    assert done.result().starts == {99, 100}
    assert spans(done) == [16]


def test_raw_records_may_be_chunks_until_a_head_shows_that_they_are_not() -> None:
    host = fill([*singles(100), *[Record(b"raw")] * 20, *frame([b"a"], seq=0, writer="w")])
    assert spans(look(host, 2)) == [16, 64]
    assert look(host, 2).result().starts == {99, 120}
    # Where the last frame completes after all of them, they do not matter.
    assert spans(look(host, 1)) == [16]


@pytest.mark.parametrize(
    "stray",
    [
        fence("t"),
        Record(b"own", ((b"k", b"v"),)),
        Record(b"bad", ((b"_frame_records", b"short"),)),
    ],
)
def test_records_that_are_no_chunks_belong_to_no_frame_further_back(stray: Record) -> None:
    numbered = [r for seq in range(100) for r in frame([b"a"], seq=seq, writer="w")]
    done = look(fill([*numbered, stray]), 1)
    assert done.result().starts == {99}
    assert spans(done) == [16]


# Trimmed streams


@pytest.mark.parametrize("trim_before", [1, 50, 99, 100])
def test_it_ends_at_the_first_record_that_is_left(trim_before: int) -> None:
    assert starts(singles(100), 200, trim_before) == list(range(trim_before, 100))


def test_a_stream_that_was_trimmed_as_a_whole() -> None:
    host = fill(singles(100))
    host.append_ok(trim(U64_MAX))
    assert look(host, 3).result() == LastFrames(101, frozenset(), StreamPosition(101, 10**9))


def test_a_stream_that_is_trimmed_while_it_is_looked_at() -> None:
    host = fill(singles(100))
    before, after = place(frame([b"x"]), 84), place(singles(5), 95)
    body = b"".join(
        encode_message(encode_read_batch(ReadBatch(b)))[i] for b in (before, after) for i in (0, 1)
    )
    done = run(find_last(TARGET, 6, PLENTY, reader_from), host, [Fault(), answered(200, body)])
    assert done.result().starts == {95, 96, 97, 98, 99}


def test_a_tail_that_is_trimmed_while_it_is_looked_at() -> None:
    body = b"".join(encode_message(encode_read_batch(ReadBatch(place(singles(3), 84)))))
    done = run(
        find_last(TARGET, 6, PLENTY, reader_from),
        fill(singles(100)),
        [Fault(), answered(200, body)],
    )
    found = done.result()
    assert (found.read_from, found.starts) == (100, frozenset())


# The limit


def metered(records: Sequence[Record]) -> int:
    return sum(record.metered_bytes for record in records)


@pytest.mark.parametrize("count", [1, 2, 5, 15, 16, 17, 30, 63, 64, 65, 99, 100])
def test_the_limit_is_exact(count: int) -> None:
    records = singles(100, size=50)
    host = fill(records)
    limit = metered(records[-count:])
    assert look(host, count, limit).result().starts == set(range(100 - count, 100))
    with pytest.raises(ScanLimitExceeded) as caught:
        look(host, count, limit - 1).result()
    assert caught.value.found == count - 1
    assert str(caught.value) == (
        f"only {count - 1} of the last {count} messages lie in the stream's last "
        f"{limit - 1} bytes (max_scan_bytes)"
    )


def test_a_look_ends_at_the_limit() -> None:
    records = singles(64, size=50)
    operation = Operation(find_last(TARGET, 40, 500, reader_from), SETTINGS, random=lambda: 0.0)
    operation.data_to_send(0.0)
    operation.receive_response(1, 200, {}, 0.0)
    operation.receive_data(1, b'{"tail":{"seq_num":64,"timestamp":0}}', 0.0)
    operation.receive_eof(1, 0.0)
    operation.data_to_send(0.0)
    operation.receive_response(2, 200, {"content-type": "s2s/proto"}, 0.0)
    half = encode_read_batch(ReadBatch(place(records[:32])))
    operation.receive_data(2, b"".join(encode_message(half)), 0.0)
    # It has begun with the next one, which is half as long.
    close, opening, _ = operation.data_to_send(0.0)
    assert close == CloseRequest(2)
    assert isinstance(opening, OpenRequest)
    assert opening.request.url.endswith("?seq_num=32&count=32")


@pytest.mark.parametrize(
    ("count", "fitting", "expected"),
    [
        # The whole stream is too much, half of it is too little: what is between is halved.
        (40, 50, [64, 32, 48]),
        (34, 34, [64, 32, 48, 40, 36, 34]),
        # So it is where more than the limit was looked at on the way.
        (16, 30, [32, 16]),
        (20, 20, [40, 20]),
    ],
)
def test_what_is_looked_at_is_halved_where_it_was_too_much(
    count: int, fitting: int, expected: list[int]
) -> None:
    records = singles(64, size=50)
    done = look(fill(records), count, metered(records[-fitting:]))
    assert done.result().starts == set(range(64 - count, 64))
    assert spans(done) == expected


def test_frames_that_may_not_be_the_last_ones_do_not_count() -> None:
    records = [*singles(100), Record(b"raw"), *frame([b"a"], seq=0, writer="w")]
    # Heads of the lane in question lie within reach, or not.
    assert look(fill(records), 2, metered(records[-3:])).result().starts == {99, 101}
    with pytest.raises(ScanLimitExceeded) as caught:
        look(fill(records), 2, metered(records[-3:]) - 1).result()
    assert caught.value.found == 1


def test_the_limit_does_not_matter_when_the_whole_stream_is_below() -> None:
    records = singles(40)
    assert len(look(fill(records), 50, metered(records)).result().starts) == 40
    with pytest.raises(ScanLimitExceeded):
        look(fill(records), 50, metered(records) - 1).result()


def test_one_record_that_is_too_large() -> None:
    with pytest.raises(ScanLimitExceeded) as caught:
        look(fill(singles(1, size=1000)), 1, 10).result()
    assert caught.value.found == 0


# Faults


def test_a_look_goes_on_after_a_break() -> None:
    host = fill(singles(3000))
    done = run(find_last(TARGET, 1000, PLENTY, reader_from), host, [lost(), Fault(), lost(80_000)])
    assert done.result().starts == set(range(2000, 3000))
    assert len(done.events) == 2


@pytest.mark.parametrize("count", [1, 2**63, U64_MAX])
def test_a_tail_beyond_all_bounds(count: int) -> None:
    tail = answered(200, b'{"tail":{"seq_num":%d,"timestamp":0}}' % U64_MAX)
    records = place(singles(1), U64_MAX - 1)
    body = b"".join(encode_message(encode_read_batch(ReadBatch(records))))
    plan = find_last(TARGET, count, PLENTY, reader_from)
    found = run(plan, make_host(), [tail, answered(200, body)]).result()
    assert found.starts == {U64_MAX - 1}


def test_sequence_numbers_that_go_back() -> None:
    records = [SequencedRecord(1, 0), SequencedRecord(0, 0)]
    body = b"".join(encode_message(encode_read_batch(ReadBatch(records))))
    done = run(
        find_last(TARGET, 1, PLENTY, reader_from), fill(singles(3)), [Fault(), answered(200, body)]
    )
    with pytest.raises(RemoteProtocolError, match="record 0 came after record 1"):
        done.result()


# Against a model


@st.composite
def lanes(draw: st.DrawFn, writer: str | None, *, repeats: bool) -> list[Record]:
    """Frames of a writer, the last records of some of them missing."""
    records: list[Record] = []
    for bodies in draw(st.lists(small_bodies, max_size=6)):
        whole = frame(bodies, seq=None if writer is None else len(records), writer=writer)
        records += whole[: draw(st.sampled_from([len(whole), len(whole), 1]))]
    return draw(resent(records)) if repeats and writer else records


@st.composite
def streams(draw: st.DrawFn, *, repeats: bool) -> list[Record]:
    strays = [Record(b"r"), Record(b"own", ((b"k", b""),)), fence("t")]
    parts = [draw(lanes(writer, repeats=repeats)) for writer in (None, "a", "b")]
    parts.append(draw(st.lists(st.sampled_from(strays), max_size=5)))
    return draw(interleaved(parts))


def completed(records: Sequence[SequencedRecord]) -> list[int]:
    """Where the frames start, in the order of their completion."""
    return [received.start for received in frames_in(read(FrameReader(), records))]


def surviving(records: Sequence[Record], trim_before: int) -> list[SequencedRecord]:
    return [record for record in place(records) if record.seq_num >= trim_before]


@given(streams(repeats=False), st.integers(1, 8), st.integers(0, 10), st.integers(1, 16))
def test_the_last_frames_are_those_of_a_reader_of_everything(
    records: list[Record], count: int, trim_before: int, min_span: int
) -> None:
    trim_before = min(trim_before, len(records))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(last, "_MIN_SPAN", min_span)
        found = starts(records, count, trim_before)
    assert found == sorted(completed(surviving(records, trim_before))[-count:])


@given(streams(repeats=True), st.integers(1, 8), st.integers(0, 10), st.integers(1, 16))
@settings(max_examples=200)
def test_the_last_frames_of_a_stream_with_repeats(
    records: list[Record], count: int, trim_before: int, min_span: int
) -> None:
    trim_before = min(trim_before, len(records))
    left = surviving(records, trim_before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(last, "_MIN_SPAN", min_span)
        found = starts(records, count, trim_before)
    # A repeat can be whole where the first copy's beginning was trimmed, so that there are more.
    assert min(count, len(completed(left))) <= len(found) <= count
    # They are the last ones of a reader that began somewhere, and one that begins at the first of
    # them delivers them too.
    assert any(found == sorted(completed(left[at:])[-count:]) for at in range(len(left) + 1))
    if found:
        assert set(found) <= set(completed([r for r in left if r.seq_num >= found[0]]))


@given(streams(repeats=False), st.integers(1, 8), st.integers(1, 600), st.integers(1, 16))
def test_the_limit_never_yields_other_frames(
    records: list[Record], count: int, limit: int, min_span: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(last, "_MIN_SPAN", min_span)
        try:
            found = look(fill(records), count, limit).result()
        except ScanLimitExceeded:
            assert metered(records) > limit
            return
    assert sorted(found.starts) == sorted(completed(place(records))[-count:])
