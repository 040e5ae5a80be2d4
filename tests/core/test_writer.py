from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from frames import Log, make_ack, own_headers, payloads, read, writer_ids
from framing_vectors import VECTORS, headers, payload
from s2frames.chunking import MAX_CHUNK_BODY_BYTES, chunk_bytes
from s2frames.dedupe import (
    DEDUPE_SEQ,
    MAX_DEDUPE_SEQ,
    RESERVED_HEADERS,
    WRITER_ID,
    extract_dedupe_seq,
    inject_dedupe_headers,
)
from s2frames.errors import FrameSizeError, LocalProtocolError, RemoteProtocolError, S2FramesError
from s2frames.events import Appended
from s2frames.framing import DEFAULT_MAX_FRAME_BYTES, frame_chunks_to_records
from s2frames.reader import FrameReader
from s2frames.records import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    MAX_RECORD_BYTES,
    AppendAck,
    Header,
    Record,
    StreamPosition,
)
from s2frames.u64 import U64_MAX
from s2frames.wire import AppendInput, decode_append_input, encode_append_input
from s2frames.writer import (
    DEFAULT_MAX_INFLIGHT_BATCHES,
    DEFAULT_MAX_INFLIGHT_BYTES,
    Batch,
    FrameWriter,
)

# A window that holds everything.
WIDE: dict[str, Any] = {"max_inflight_batches": 10**6, "max_inflight_bytes": 10**12}

# Metered bytes of the only record of an empty frame of writer "w".
OVERHEAD = 8 + 4 * 2 + (14 + 8) + (12 + 8) + (11 + 8) + (10 + 1)


def state(writer: FrameWriter) -> tuple[Any, ...]:
    """All that a writer shows of itself."""
    return (
        writer.next_frame,
        writer.next_dedupe_seq,
        writer.queued_bytes,
        writer.inflight_bytes,
        writer.unacked_batches,
        writer.is_idle,
    )


def send_any(writer: FrameWriter, payloads_to_send: list[bytes], way: str) -> None:
    if way == "send":
        for one in payloads_to_send:
            writer.send(one)
    else:
        writer.send_many(payloads_to_send)


# What is on the wire


@pytest.mark.parametrize("way", ["send", "send_many"])
@pytest.mark.parametrize(
    "case",
    VECTORS["encode"],
    ids=lambda case: f"{case['payload_len']}-{case['chunk_size']}-{case['writer_id']}",
)
def test_records_are_those_of_the_npm_package(case: dict[str, Any], way: str) -> None:
    size = {} if case["chunk_size"] is None else {"chunk_size": case["chunk_size"]}
    first = case["first_dedupe_seq"] or 0
    writer = FrameWriter(case["writer_id"], first_dedupe_seq=first, **size, **WIDE)
    send_any(writer, [payload(case["payload_len"])], way)
    if case["writer_id"] is not None:
        assert writer.next_dedupe_seq == case["next_dedupe_seq"]
    batches = writer.batches_to_send(flush=True)
    records = [record for batch in batches for record in batch.records]
    assert len(records) == len(case["records"])
    for record, expected in zip(records, case["records"], strict=True):
        assert record.headers == headers(expected["headers"])
        assert len(record.body) == expected["body_len"]
        assert sha256(record.body).hexdigest() == expected["body_sha256"]
        assert record.metered_bytes == expected["metered_bytes"]
        assert record.timestamp is None


Message = tuple[bytes, tuple[Header, ...], int | None]

messages: st.SearchStrategy[list[Message]] = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=200)
        | st.integers(980, 1020).map(bytes)
        | st.just(b"x" * 2500),
        st.just(()) | own_headers,
        st.none() | st.integers(0, U64_MAX),
    ),
    min_size=1,
    max_size=5,
)


def plain_records(
    sent: Iterable[Message], chunk_size: int, writer_id: str | None, seq: int
) -> list[Record]:
    """The records by way of `chunking`, `framing` and `dedupe`."""
    records: list[Record] = []
    for body, own, timestamp in sent:
        made = frame_chunks_to_records(chunk_bytes(body, chunk_size))
        if writer_id is not None:
            seq = inject_dedupe_headers(made, writer_id, seq)
        made = [evolve(record, timestamp=timestamp) for record in made]
        made[0] = evolve(made[0], headers=made[0].headers + own)
        records += made
    return records


@settings(max_examples=60)
@given(
    messages,
    st.none() | writer_ids,
    st.sampled_from([1, 3, 7, 100, 1000, MAX_CHUNK_BODY_BYTES]),
    st.integers(0, 5) | st.just(MAX_DEDUPE_SEQ - 200_000),
    st.none() | st.integers(0, 2**60),
    st.none() | st.sampled_from(["", "token", "é" * 18]),
)
def test_batches_equal_the_plain_path(
    sent: list[Message],
    writer_id: str | None,
    chunk_size: int,
    first_seq: int,
    match: int | None,
    token: str | None,
) -> None:
    writer = FrameWriter(
        writer_id,
        first_dedupe_seq=first_seq,
        chunk_size=chunk_size,
        match_seq_num=match,
        fencing_token=token,
        **WIDE,
    )
    for body, own, timestamp in sent:
        writer.send(body, own, timestamp)
    left = iter(plain_records(sent, chunk_size, writer_id, first_seq))
    for batch in writer.batches_to_send(flush=True):
        records = list(itertools.islice(left, batch.num_records))
        assert batch.wire == encode_append_input(AppendInput(records, match, token))
        assert list(batch.records) == records
        assert batch.metered_bytes == sum(record.metered_bytes for record in records)
        assert (batch.match_seq_num, batch.fencing_token) == (match, token)
        match = None if match is None else match + batch.num_records
    assert list(left) == []


def test_headers_that_take_the_room_of_the_first_record_move_bytes_to_the_next() -> None:
    own = ((b"k", bytes(1_000_000)),)
    writer = FrameWriter("w", **WIDE)
    body = bytes(range(256)) * 1000
    writer.send(body, own)
    records = [record for batch in writer.batches_to_send(flush=True) for record in batch.records]
    assert len(records) == 2
    assert records[0].metered_bytes == MAX_RECORD_BYTES
    assert payloads(read_back(records)) == [body]


def read_back(records: Iterable[Record]) -> list[Any]:
    log = Log()
    log.append(records)
    return read(FrameReader(), log.records)


@pytest.mark.parametrize("writer_id", [None, "w", "a" * 256])
def test_a_record_is_filled_to_the_last_byte(writer_id: str | None) -> None:
    writer = FrameWriter(writer_id, chunk_size=MAX_RECORD_BYTES, **WIDE)
    overhead = 8 + 4 + 22 + 20 if writer_id is None else OVERHEAD - 1 + len(writer_id)
    size = MAX_RECORD_BYTES - overhead
    writer.send(bytes(size))
    writer.send(bytes(size + 1))
    first, second, third = writer.batches_to_send(flush=True)
    assert (first.num_records, first.metered_bytes) == (1, MAX_RECORD_BYTES)
    assert (second.num_records, second.metered_bytes) == (1, MAX_RECORD_BYTES)
    assert third.num_records == 1


@pytest.mark.parametrize("kind", [bytearray, memoryview])
@pytest.mark.parametrize("way", ["send", "send_many"])
@pytest.mark.parametrize("chunk_size", [2, 100])
def test_what_may_change_is_copied(kind: Callable[[Any], Any], way: str, chunk_size: int) -> None:
    buffer = bytearray(b"abcde")
    writer = FrameWriter("w", chunk_size=chunk_size)
    send_any(writer, [kind(buffer)], way)
    buffer[:] = b"XXXXX"
    [batch] = writer.batches_to_send()
    assert payloads(read_back(batch.records)) == [b"abcde"]


def test_a_batch_shows_no_payload() -> None:
    writer = FrameWriter("w")
    writer.send(b"secret")
    [batch] = writer.batches_to_send()
    assert "secret" not in repr(batch)


# How batches are cut


def cut_all(writer: FrameWriter) -> list[Batch]:
    return writer.batches_to_send(flush=True)


HALF = MAX_BATCH_BYTES // 2 - OVERHEAD

# Metered bytes of a further record of writer "w", without its body.
FURTHER = 8 + 2 * 2 + (11 + 8) + (10 + 1)

# A payload in two records that fills a batch together with one of 500,000 bytes in two records.
REST = MAX_BATCH_BYTES - 500_000 - 2 * (OVERHEAD + FURTHER)


@pytest.mark.parametrize("way", ["send", "send_many"])
@pytest.mark.parametrize(
    ("chunk_size", "sizes", "counts"),
    [
        pytest.param(10**6, [1], [1], id="one"),
        pytest.param(10**6, [1] * 1000, [1000], id="a full batch of records"),
        pytest.param(10**6, [1] * 1001, [1000, 1], id="one more"),
        pytest.param(10**6, [1] * 2000, [1000, 1000], id="two full"),
        pytest.param(10**6, [HALF, HALF], [2], id="a full batch of bytes"),
        pytest.param(10**6, [HALF, HALF + 1], [1, 1], id="one byte more"),
        pytest.param(10**6, [700_000, 700_000], [1, 1], id="the next does not fit"),
        pytest.param(10**6, [HALF, HALF, 1], [2, 1], id="nothing fits after"),
        pytest.param(1, [1000], [1000], id="a frame that fills a batch"),
        pytest.param(1, [1, 1000, 1], [1, 1000, 1], id="a full frame waits for a batch"),
        pytest.param(1, [1] * 999 + [2], [999, 2], id="a small frame is not cut in two"),
        pytest.param(1, [1] * 998 + [2], [1000], id="a small frame that just fits"),
        pytest.param(1, [1001], [1000, 1], id="a frame too large for a batch"),
        pytest.param(1, [1, 1001, 1], [1, 1000, 2], id="a large one begins its own batch"),
        pytest.param(1, [2500, 1, 3], [1000, 1000, 504], id="others follow its end"),
        pytest.param(1, [1500, 500], [1000, 1000], id="a frame that just fits its end"),
        pytest.param(1, [1500, 501], [1000, 500, 501], id="a frame that does not"),
        pytest.param(10**6, [10**6 + 1, 100], [3], id="two records that fit"),
        pytest.param(10**6, [1_200_000, 100], [1, 2], id="others share its end"),
        pytest.param(10**6, [100, 2 * 10**6, 100], [1, 1, 2], id="but not its start"),
        pytest.param(10**6, [50_000] * 41, [20, 20, 1], id="by bytes"),
        pytest.param(400_000, [500_000, REST], [4], id="a frame that fits to the last byte"),
        pytest.param(400_000, [500_000, REST + 1], [2, 2], id="a frame of one byte more"),
    ],
)
def test_where_batches_are_cut(
    chunk_size: int, sizes: list[int], counts: list[int], way: str
) -> None:
    writer = FrameWriter("w", chunk_size=chunk_size, **WIDE)
    send_any(writer, [bytes(size) for size in sizes], way)
    batches = cut_all(writer)
    assert [batch.num_records for batch in batches] == counts
    records = [record for batch in batches for record in batch.records]
    assert payloads(read_back(records)) == [bytes(size) for size in sizes]


@st.composite
def sized(draw: st.DrawFn) -> tuple[int, list[int]]:
    """A chunk size, and sizes of payloads about where limits are."""
    chunk_size = draw(st.sampled_from([1, 3, 1000, 400_000]))
    small, large = {
        1: (400, 2100),
        3: (1500, 6100),
        1000: (200_000, 950_000),
        400_000: (500_000, 2_500_000),
    }[chunk_size]
    sizes = st.integers(1, small) | st.integers(small, large) | st.just(chunk_size)
    return chunk_size, draw(st.lists(sizes, min_size=1, max_size=9))


def frame_cost(size: int, chunk_size: int) -> tuple[int, int]:
    """Records and metered bytes of a frame of writer "w"."""
    records = -(-size // chunk_size)
    return records, OVERHEAD + (records - 1) * FURTHER + size


def fits(cost: tuple[int, int]) -> bool:
    return cost[0] <= MAX_BATCH_RECORDS and cost[1] <= MAX_BATCH_BYTES


@given(sized())
def test_batches_keep_limits_and_small_frames_whole(drawn: tuple[int, list[int]]) -> None:
    chunk_size, sizes = drawn
    writer = FrameWriter("w", chunk_size=chunk_size, **WIDE)
    writer.send_many([bytes(size) for size in sizes])
    costs = [frame_cost(size, chunk_size) for size in sizes]
    assert writer.queued_bytes == sum(metered for _, metered in costs)
    batches = cut_all(writer)
    ends = list(itertools.accumulate(records for records, _ in costs))
    edges = set(itertools.accumulate(batch.num_records for batch in batches))
    for batch in batches:
        assert 1 <= batch.num_records <= MAX_BATCH_RECORDS
        assert batch.metered_bytes <= MAX_BATCH_BYTES
        assert batch.metered_bytes == sum(record.metered_bytes for record in batch.records)
    for end, cost in zip(ends, costs, strict=True):
        if fits(cost):
            assert not edges & set(range(end - cost[0] + 1, end))
        elif end - cost[0]:
            assert end - cost[0] in edges
    # No batch is cut before it must be: what follows would not have fitted.
    starts = [end - cost[0] for end, cost in zip(ends, costs, strict=True)]
    at = 0
    for batch in batches[:-1]:
        at += batch.num_records
        if at in starts:
            records, metered = costs[starts.index(at)]
            assert not fits((batch.num_records + records, batch.metered_bytes + metered))
    assert writer.queued_bytes == 0
    assert writer.inflight_bytes == sum(metered for _, metered in costs)


# When batches are cut


def test_a_partial_batch_goes_at_once_when_nothing_is_unacked() -> None:
    writer = FrameWriter("w")
    assert writer.batches_to_send() == []
    assert writer.batches_to_send(flush=True) == []
    writer.send(b"a")
    [batch] = writer.batches_to_send()
    assert batch.num_records == 1
    assert writer.batches_to_send() == []


def test_a_partial_batch_waits_until_nothing_is_unacked() -> None:
    writer = FrameWriter("w")
    writer.send(b"a")
    writer.batches_to_send()
    writer.send_many([b"b"] * 999)
    assert writer.batches_to_send() == []
    writer.receive_ack(make_ack(0, 1))
    [batch] = writer.batches_to_send()
    assert batch.num_records == 999


def test_flush_cuts_a_partial_batch() -> None:
    writer = FrameWriter("w")
    writer.send(b"a")
    writer.batches_to_send()
    writer.send_many([b"b"] * 1500)
    batches = writer.batches_to_send(flush=True)
    assert [batch.num_records for batch in batches] == [1000, 500]


def test_full_batches_go_and_the_rest_waits() -> None:
    writer = FrameWriter("w")
    writer.send_many([b"a"] * 2500)
    assert [batch.num_records for batch in writer.batches_to_send()] == [1000, 1000]
    assert writer.queued_bytes == 500 * (OVERHEAD + 1)
    writer.send_many([b"b"] * 500)
    assert [batch.num_records for batch in writer.batches_to_send()] == [1000]


def test_a_batch_is_full_when_the_next_frame_does_not_fit() -> None:
    writer = FrameWriter("w")
    writer.send(b"a")
    writer.batches_to_send()
    writer.send(bytes(700_000))
    assert writer.batches_to_send() == []
    writer.send(bytes(700_000))
    assert [batch.num_records for batch in writer.batches_to_send()] == [1]
    assert writer.batches_to_send() == []


@pytest.mark.parametrize("flush", [False, True])
def test_the_window_in_batches(flush: bool) -> None:
    writer = FrameWriter("w", max_inflight_batches=3)
    writer.send_many([b"a"] * 5000)
    assert len(writer.batches_to_send(flush=flush)) == 3
    assert writer.batches_to_send(flush=flush) == []
    writer.receive_ack(make_ack(0, 1000))
    assert len(writer.batches_to_send(flush=flush)) == 1
    assert writer.batches_to_send(flush=flush) == []
    assert writer.unacked_batches == 3


@pytest.mark.parametrize("flush", [False, True])
def test_the_window_in_bytes(flush: bool) -> None:
    writer = FrameWriter("w", chunk_size=MAX_RECORD_BYTES, max_inflight_bytes=2 * MAX_BATCH_BYTES)
    full = MAX_BATCH_BYTES - OVERHEAD
    writer.send_many([bytes(full)] * 4)
    assert len(writer.batches_to_send(flush=flush)) == 2
    assert writer.inflight_bytes == 2 * MAX_BATCH_BYTES
    assert writer.batches_to_send(flush=flush) == []
    writer.receive_ack(make_ack(0, 1))
    assert writer.inflight_bytes == MAX_BATCH_BYTES
    assert len(writer.batches_to_send(flush=flush)) == 1


def test_the_window_in_bytes_takes_a_small_batch_where_a_large_one_has_no_room() -> None:
    writer = FrameWriter("w", max_inflight_bytes=MAX_BATCH_BYTES)
    writer.send(bytes(MAX_BATCH_BYTES - 2 * OVERHEAD - 1))
    writer.batches_to_send()
    writer.send(b"a")
    [batch] = writer.batches_to_send(flush=True)
    assert writer.inflight_bytes == MAX_BATCH_BYTES
    assert batch.num_records == 1
    writer.send(b"b")
    assert writer.batches_to_send(flush=True) == []


def test_the_window_holds_for_what_is_sent_again() -> None:
    writer = FrameWriter("w", max_inflight_batches=4)
    writer.send_many([b"a"] * 4000)
    sent = writer.batches_to_send()
    writer.connection_lost()
    assert (writer.inflight_bytes, writer.unacked_batches) == (0, 4)
    writer.send_many([b"b"] * 1000)
    again = writer.batches_to_send(flush=True)
    assert again == sent
    assert writer.batches_to_send(flush=True) == []
    for i in range(4):
        writer.receive_ack(make_ack(1000 * i, 1000))
    [last] = writer.batches_to_send()
    assert last.records[0].body == b"b"


def test_nothing_new_overtakes_what_is_to_be_sent_again() -> None:
    writer = FrameWriter("w")
    writer.send_many([bytes(700_000), bytes(700_000)])
    sent = writer.batches_to_send(flush=True)
    writer.send_many([b"small"] * 1000)
    writer.connection_lost()
    again = writer.batches_to_send(flush=True)
    assert again[:2] == sent
    assert [batch.first_frame for batch in again] == [0, 1, 2]


def test_defaults_of_the_window() -> None:
    assert DEFAULT_MAX_INFLIGHT_BATCHES == 16
    assert DEFAULT_MAX_INFLIGHT_BYTES == 16 * MAX_BATCH_BYTES
    writer = FrameWriter(None)
    writer.send_many([b"a"] * 20_000)
    assert len(writer.batches_to_send()) == 16


# Conditions


def test_match_seq_num_counts_the_records_of_each_batch() -> None:
    writer = FrameWriter("w", match_seq_num=0, **WIDE)
    writer.send_many([b"a"] * 1500)
    assert [batch.match_seq_num for batch in cut_all(writer)] == [0, 1000]
    writer.send_many([b"a"] * 2)
    writer.connection_lost()
    assert [batch.match_seq_num for batch in cut_all(writer)] == [0, 1000, 1500]
    assert decode_append_input(cut_one(writer).wire).match_seq_num == 1502


def cut_one(writer: FrameWriter) -> Batch:
    writer.send(b"one")
    [batch] = cut_all(writer)
    return batch


@pytest.mark.parametrize("token", [None, "", "token"])
def test_the_token_is_on_every_batch(token: str | None) -> None:
    writer = FrameWriter("w", fencing_token=token, **WIDE)
    writer.send_many([b"a"] * 1500)
    for batch in cut_all(writer):
        assert batch.fencing_token == token
        assert decode_append_input(batch.wire).fencing_token == token


# Acks


def test_ranges_of_frames_that_end_in_a_batch() -> None:
    writer = FrameWriter("w", chunk_size=2, **WIDE)
    writer.send_many([b"a", b"bbbbb", b"cc"])
    writer.batches_to_send()
    event = writer.receive_ack(make_ack(100, 5))
    assert (event.first_frame, event.num_frames, event.ack) == (0, 3, make_ack(100, 5))
    assert event.all_appended() == [Appended(100, 101), Appended(101, 104), Appended(104, 105)]
    assert event.appended(1) == Appended(101, 104)
    for frame in (-1, 3):
        with pytest.raises(LocalProtocolError, match=f"frame {frame} .*3 frames from 0"):
            event.appended(frame)


def test_ranges_of_frames_that_span_batches() -> None:
    writer = FrameWriter("w", chunk_size=1, **WIDE)
    writer.send_many([b"x", bytes(2500), b"y", bytes(1500), b"z"])
    counts = [batch.num_records for batch in cut_all(writer)]
    assert counts == [1, 1000, 1000, 501, 1000, 501]
    starts = [10, 20, 2000, 4000, 5000, 6000]
    events = [
        writer.receive_ack(make_ack(start, number))
        for start, number in zip(starts, counts, strict=True)
    ]
    assert [event.num_frames for event in events] == [1, 0, 0, 2, 0, 2]
    assert [event.first_frame for event in events] == [0, 1, 1, 1, 3, 3]
    assert [event.all_appended() for event in events] == [
        [Appended(10, 11)],
        [],
        [],
        [Appended(20, 4500), Appended(4500, 4501)],
        [],
        [Appended(5000, 6500), Appended(6500, 6501)],
    ]
    assert writer.is_idle


def test_a_frame_may_share_the_batch_in_which_a_long_one_ends() -> None:
    writer = FrameWriter("w", chunk_size=1, **WIDE)
    writer.send_many([bytes(1001), bytes(999), bytes(2)])
    counts = [batch.num_records for batch in cut_all(writer)]
    assert counts == [1000, 1000, 2]
    events = [writer.receive_ack(make_ack(i * 2000, n)) for i, n in enumerate(counts)]
    assert [event.all_appended() for event in events] == [
        [],
        [Appended(0, 2001), Appended(2001, 3000)],
        [Appended(4000, 4002)],
    ]


BAD_ACKS = [
    (make_ack(10, 1), "1 records, and the batch has 2"),
    (make_ack(10, 3), "3 records, and the batch has 2"),
    (make_ack(10, 0), "0 records"),
    (make_ack(10, -2, 10), "-2 records"),
    (make_ack(6, 2, 20), "starts at 6, and the one before ended at 7"),
    (make_ack(0, 2, 20), "starts at 0, and the one before ended at 7"),
    (make_ack(10, 2, 11), "ends at 12, beyond its tail 11"),
    (make_ack(10, 2, 0), "beyond its tail 0"),
]


@pytest.mark.parametrize(("ack", "named"), BAD_ACKS)
def test_a_wrong_ack_changes_nothing(ack: AppendAck, named: str) -> None:
    writer = FrameWriter("w")
    writer.send(b"first")
    writer.batches_to_send()
    writer.receive_ack(make_ack(6, 1))
    writer.send_many([b"a", b"b"])
    writer.batches_to_send()
    before = state(writer)
    with pytest.raises(RemoteProtocolError, match=named):
        writer.receive_ack(ack)
    assert state(writer) == before
    assert writer.receive_ack(make_ack(7, 2)).all_appended() == [Appended(7, 8), Appended(8, 9)]


@pytest.mark.parametrize("start", [0, 41, 43])
def test_an_ack_against_its_condition_changes_nothing(start: int) -> None:
    writer = FrameWriter("w", match_seq_num=42)
    writer.send(b"a")
    writer.batches_to_send()
    with pytest.raises(RemoteProtocolError, match=f"starts at {start} .*conditioned on 42"):
        writer.receive_ack(make_ack(start, 1))
    assert writer.receive_ack(make_ack(42, 1)).num_frames == 1


def test_acks_that_nobody_waits_for_change_nothing() -> None:
    writer = FrameWriter("w")
    with pytest.raises(RemoteProtocolError, match="0 to 1, and no batch is unacked"):
        writer.receive_ack(make_ack(0, 1))
    writer.send(b"a")
    with pytest.raises(RemoteProtocolError, match="no batch"):
        writer.receive_ack(make_ack(0, 1))
    writer.batches_to_send()
    writer.connection_lost()
    before = state(writer)
    with pytest.raises(RemoteProtocolError, match="no batch"):
        writer.receive_ack(make_ack(0, 1))
    assert state(writer) == before
    writer.batches_to_send()
    writer.receive_ack(make_ack(0, 1))
    with pytest.raises(RemoteProtocolError, match="no batch"):
        writer.receive_ack(make_ack(1, 1))


def test_acks_come_first_in_first_out() -> None:
    writer = FrameWriter("w", **WIDE)
    writer.send_many([b"a"] * 1001)
    cut_all(writer)
    with pytest.raises(RemoteProtocolError, match="1 records, and the batch has 1000"):
        writer.receive_ack(make_ack(1000, 1))
    writer.receive_ack(make_ack(0, 1000))
    writer.receive_ack(make_ack(1000, 1))


def test_acks_go_on_growing_over_connections() -> None:
    writer = FrameWriter("w")
    writer.send(b"a")
    writer.batches_to_send()
    writer.receive_ack(make_ack(5, 1))
    writer.send(b"b")
    writer.batches_to_send()
    writer.connection_lost()
    writer.batches_to_send()
    with pytest.raises(RemoteProtocolError, match="starts at 5, and the one before ended at 6"):
        writer.receive_ack(make_ack(5, 1))
    writer.receive_ack(make_ack(6, 1))


# Lost connections


def test_what_is_sent_again_is_the_same_and_in_order() -> None:
    writer = FrameWriter("w", chunk_size=1, match_seq_num=7, max_inflight_batches=3)
    writer.send_many([bytes(1500), b"a", bytes(3000)])
    first = cut_all(writer)
    wires = [batch.wire for batch in first]
    writer.receive_ack(make_ack(7, first[0].num_records))
    writer.connection_lost()
    [again] = [writer.batches_to_send()]
    assert [batch.wire for batch in again[:2]] == wires[1:]
    # Lost once more while some batches were not sent again yet.
    writer.connection_lost()
    writer.connection_lost()
    assert [batch.wire for batch in writer.batches_to_send()][:2] == wires[1:]


def test_a_loss_with_nothing_sent_changes_nothing() -> None:
    writer = FrameWriter("w")
    writer.connection_lost()
    writer.send(b"a")
    before = state(writer)
    writer.connection_lost()
    assert state(writer) == before
    assert len(writer.batches_to_send()) == 1


# A writer against a stream, with losses at any point


class WriterMachine(RuleBasedStateMachine):
    """Messages go through a writer, lossy connections and a stream that others write to as well."""

    @initialize(
        chunk_size=st.sampled_from([1, 3, 50]),
        window=st.integers(1, 4),
        writer_id=st.sampled_from(["w", "é" * 128]),
    )
    def start(self, chunk_size: int, window: int, writer_id: str) -> None:
        self.writer = FrameWriter(writer_id, chunk_size=chunk_size, max_inflight_batches=window)
        self.window, self.chunk_size = window, chunk_size
        self.log = Log()
        self.sent: list[bytes] = []
        # Of each message, the dedupe sequence after its last record; before them all, the first.
        self.ends = [0]
        self.cut: list[bytes] = []
        # On the present connection: batches on their way there, acks on their way back.
        self.there: deque[bytes] = deque()
        self.back: deque[AppendAck] = deque()
        # What is expected to be handed out next.
        self.to_resend: deque[bytes] = deque()
        self.unacked: deque[bytes] = deque()
        self.appended: dict[int, Appended] = {}
        self.other_seq = 0

    def make_payload(self, size: int) -> bytes:
        text = f"{len(self.sent)}:".encode()
        return (text * (size // len(text) + 1))[:size]

    @rule(size=st.integers(1, 20) | st.integers(900, 2200))
    def send(self, size: int) -> None:
        message = self.make_payload(size)
        assert self.writer.send(message) == len(self.sent)
        self.sent.append(message)
        self.ends.append(self.writer.next_dedupe_seq)

    @rule(sizes=st.lists(st.integers(1, 60), max_size=30), own=st.booleans())
    def send_many(self, sizes: list[int], own: bool) -> None:
        if own:
            self.sent.append(self.make_payload(7))
            self.writer.send(self.sent[-1], ((b"k", b"v"),), 9)
            self.ends.append(self.writer.next_dedupe_seq)
        first = len(self.sent)
        many = [self.make_payload(size) for size in sizes]
        for size in sizes:
            self.ends.append(self.ends[-1] + -(-size // self.chunk_size))
        assert self.writer.send_many(many) == range(first, first + len(many))
        self.sent += many
        assert self.writer.next_dedupe_seq == self.ends[-1]

    @rule(flush=st.booleans())
    def pump(self, flush: bool) -> None:
        for batch in self.writer.batches_to_send(flush=flush):
            if self.to_resend:
                assert batch.wire == self.to_resend.popleft()
            else:
                self.cut.append(batch.wire)
            self.there.append(batch.wire)
            self.unacked.append(batch.wire)

    @precondition(lambda self: self.there)
    @rule()
    def deliver(self) -> None:
        self.back.append(self.log.append_wire(self.there.popleft()))

    @rule()
    def another_writes(self) -> None:
        other = FrameWriter("other", first_dedupe_seq=self.other_seq)
        other.send(b"other")
        self.other_seq = other.next_dedupe_seq
        self.log.append_wire(other.batches_to_send()[0].wire)

    @precondition(lambda self: self.back)
    @rule()
    def ack(self) -> None:
        event = self.writer.receive_ack(self.back.popleft())
        self.unacked.popleft()
        assert event.first_frame == len(self.appended)
        for i, appended in enumerate(event.all_appended()):
            self.appended[event.first_frame + i] = appended

    @precondition(lambda self: self.unacked)
    @rule(change=st.sampled_from([-1, 1]))
    def wrong_ack(self, change: int) -> None:
        number = len(decode_append_input(self.unacked[0]).records)
        before = state(self.writer)
        with pytest.raises(RemoteProtocolError):
            self.writer.receive_ack(make_ack(len(self.log.records), number + change))
        assert state(self.writer) == before

    @rule(landed=st.integers(0, 3))
    def lose(self, landed: int) -> None:
        for _ in range(min(landed, len(self.there))):
            self.log.append_wire(self.there.popleft())
        self.there.clear()
        self.back.clear()
        self.to_resend = self.unacked + self.to_resend
        self.unacked = deque()
        self.writer.connection_lost()

    @invariant()
    def window_is_kept(self) -> None:
        assert len(self.unacked) <= self.window
        assert self.writer.unacked_batches == len(self.unacked) + len(self.to_resend)
        is_idle = len(self.appended) == len(self.sent)
        assert self.writer.is_idle == is_idle

    def teardown(self) -> None:
        if not hasattr(self, "writer"):
            return
        while not self.writer.is_idle:
            self.pump(flush=True)
            while self.there:
                self.deliver()
            while self.back:
                self.ack()
        events = read(FrameReader(start=0), self.log.records)
        mine = [event for event in events if getattr(event, "writer_id", "") != "other"]
        assert payloads(mine) == self.sent
        assert sorted(self.appended) == list(range(len(self.sent)))
        for number, appended in self.appended.items():
            self.check_range(number, appended)

    def check_range(self, number: int, appended: Appended) -> None:
        """The range holds every record of the message, from its first to its last one."""
        bodies: dict[int, bytes] = {}
        seqs = []
        for record in self.log.records[appended.start : appended.end]:
            extracted = extract_dedupe_seq(record.headers)
            assert extracted is not None
            if extracted[0] != "other":
                bodies[extracted[1]] = bytes(record.body)
                seqs.append(extracted[1])
        first, end = self.ends[number], self.ends[number + 1]
        assert (seqs[0], seqs[-1]) == (first, end - 1)
        assert b"".join(bodies[seq] for seq in range(first, end)) == self.sent[number]


WriterMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
test_writer_over_lossy_connections = WriterMachine.TestCase


# What is refused


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"writer_id": ""}, "1 to 256 UTF-8 bytes, not 0"),
        ({"writer_id": "a" * 257}, "1 to 256 UTF-8 bytes, not 257"),
        ({"writer_id": "é" * 129}, "not 258"),
        ({"writer_id": "\ud800"}, "UTF-8"),
        ({"writer_id": b"w"}, "not b'w'"),
        ({"writer_id": 7}, "not 7"),
        ({"first_dedupe_seq": -1}, f"first_dedupe_seq .*0 to {MAX_DEDUPE_SEQ}, not -1"),
        ({"first_dedupe_seq": 2**53}, f"first_dedupe_seq .*not {2**53}"),
        ({"first_dedupe_seq": None}, "first_dedupe_seq .*not None"),
        ({"chunk_size": 0}, f"chunk_size .*1 to {MAX_RECORD_BYTES}, not 0"),
        ({"chunk_size": MAX_RECORD_BYTES + 1}, f"chunk_size .*not {MAX_RECORD_BYTES + 1}"),
        ({"chunk_size": 1.0}, "chunk_size .*not 1.0"),
        ({"max_frame_bytes": 0}, "max_frame_bytes .*not 0"),
        ({"max_frame_bytes": 2**64}, f"max_frame_bytes .*not {2**64}"),
        ({"max_inflight_batches": 0}, "max_inflight_batches .*not 0"),
        ({"max_inflight_batches": True}, "max_inflight_batches .*not True"),
        ({"max_inflight_bytes": MAX_BATCH_BYTES - 1}, f"{MAX_BATCH_BYTES} to"),
        ({"match_seq_num": -1}, "match_seq_num .*not -1"),
        ({"match_seq_num": 2**64}, "match_seq_num .*not"),
        ({"match_seq_num": "0"}, "match_seq_num .*not '0'"),
        ({"fencing_token": "a" * 37}, "36 UTF-8 bytes, not 37"),
        ({"fencing_token": "é" * 19}, "not 38"),
        ({"fencing_token": b"t"}, "bytes"),
    ],
)
def test_refuses_arguments(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named):
        FrameWriter(**{"writer_id": "w", **arguments})


def test_the_ends_of_what_is_allowed() -> None:
    FrameWriter(
        "é" * 128,
        first_dedupe_seq=MAX_DEDUPE_SEQ,
        chunk_size=MAX_RECORD_BYTES,
        max_frame_bytes=U64_MAX,
        match_seq_num=U64_MAX,
        fencing_token="é" * 18,
        max_inflight_batches=1,
        max_inflight_bytes=MAX_BATCH_BYTES,
    )


BAD_PAYLOADS: list[tuple[Any, type[S2FramesError], str]] = [
    (b"", FrameSizeError, r"1 to 100 bytes \(max_frame_bytes\), not 0"),
    (bytearray(), FrameSizeError, "not 0"),
    (memoryview(b""), FrameSizeError, "not 0"),
    (bytes(101), FrameSizeError, r"1 to 100 bytes \(max_frame_bytes\), not 101"),
    (bytearray(101), FrameSizeError, "not 101"),
    ("text", LocalProtocolError, "not str"),
    (None, LocalProtocolError, "not NoneType"),
    (7, LocalProtocolError, "not int"),
    ([b"a"], LocalProtocolError, "not list"),
]


def refusing_writer() -> FrameWriter:
    """A writer with something queued and something unacked."""
    writer = FrameWriter("w", max_frame_bytes=100, chunk_size=7)
    writer.send(b"unacked")
    writer.batches_to_send()
    writer.send(b"queued")
    return writer


def check_untouched(writer: FrameWriter, before: tuple[Any, ...]) -> None:
    """Nothing changed, and what comes next is numbered as if nothing had happened."""
    assert state(writer) == before
    assert writer.send(b"good") == 2
    [batch] = writer.batches_to_send(flush=True)
    seqs = [extract_dedupe_seq(record.headers) for record in batch.records]
    assert seqs == [("w", 1), ("w", 2)]
    assert [record.body for record in batch.records] == [b"queued", b"good"]


@pytest.mark.parametrize(("bad", "error", "named"), BAD_PAYLOADS)
def test_a_bad_payload_changes_nothing(bad: Any, error: type[S2FramesError], named: str) -> None:
    writer = refusing_writer()
    before = state(writer)
    with pytest.raises(error, match=named):
        writer.send(bad)
    check_untouched(writer, before)


@pytest.mark.parametrize("make", [list, iter, tuple, deque])
@pytest.mark.parametrize("good", [[], [b"good"], [b"good" * 5], [bytearray(b"good")]])
@pytest.mark.parametrize(("bad", "error", "named"), BAD_PAYLOADS)
def test_send_many_takes_all_or_none(
    bad: Any,
    error: type[S2FramesError],
    named: str,
    good: list[Any],
    make: Callable[[list[Any]], Iterable[Any]],
) -> None:
    for many in ([*good, bad], [bad, *good], [*good, bad, *good]):
        writer = refusing_writer()
        before = state(writer)
        with pytest.raises(error, match=named):
            writer.send_many(make(many))
        check_untouched(writer, before)


def test_send_many_of_one_payload_is_refused() -> None:
    writer = refusing_writer()
    before = state(writer)
    with pytest.raises(LocalProtocolError, match="not int"):
        writer.send_many(b"abc")  # type: ignore[arg-type]
    check_untouched(writer, before)


@pytest.mark.parametrize("bad", [None, 7, b"abc".__len__])
def test_send_many_of_what_is_no_iterable_is_refused(bad: Any) -> None:
    writer = refusing_writer()
    before = state(writer)
    with pytest.raises(LocalProtocolError, match=f"not {type(bad).__name__}"):
        writer.send_many(bad)
    check_untouched(writer, before)


def test_send_many_passes_on_what_its_iterable_raises() -> None:
    def broken() -> Iterable[bytes]:
        yield b"a"
        raise KeyError("of the caller")

    writer = refusing_writer()
    before = state(writer)
    with pytest.raises(KeyError, match="of the caller"):
        writer.send_many(broken())
    check_untouched(writer, before)


def test_send_many_of_nothing() -> None:
    writer = refusing_writer()
    before = state(writer)
    assert writer.send_many([]) == range(2, 2)
    check_untouched(writer, before)


def test_a_list_given_to_send_many_stays_the_callers() -> None:
    many = [b"a", b"b"]
    writer = FrameWriter("w")
    writer.send_many(many)
    many.append(b"c")
    [batch] = writer.batches_to_send()
    assert batch.num_records == 2
    assert many == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        *[(((name, b"v"),), f"{name!r} is reserved") for name in sorted(RESERVED_HEADERS)],
        (((b"k", b"v"), (DEDUPE_SEQ, b"")), "reserved"),
        (((b"", b"v"),), "empty"),
        (((b"", b"fence"),), "empty"),
        ((("k", b"v"),), "bytes"),
        (((b"k", "v"),), "bytes"),
        (((b"k",),), "tuple"),
        (((b"k", b"v", b"w"),), "tuple"),
        ((b"kv",), "tuple"),
        (([b"k", b"v"],), "tuple"),
        ((None,), "tuple"),
        (None, "NoneType"),
        (7, "int"),
        (((b"k", bytes(MAX_RECORD_BYTES)),), f"first record's {MAX_RECORD_BYTES}"),
        (((b"k", bytes(MAX_RECORD_BYTES - OVERHEAD - 3)),), "leave no room"),
    ],
)
def test_bad_headers_change_nothing(bad: Any, named: str) -> None:
    writer = refusing_writer()
    before = state(writer)
    with pytest.raises(LocalProtocolError, match=named):
        writer.send(b"payload", bad)
    check_untouched(writer, before)


def test_headers_may_leave_room_for_one_byte() -> None:
    writer = FrameWriter("w", **WIDE)
    writer.send(b"ab", ((b"k", bytes(MAX_RECORD_BYTES - OVERHEAD - 4)),))
    batches = cut_all(writer)
    assert [batch.num_records for batch in batches] == [1, 1]
    assert batches[0].metered_bytes == MAX_RECORD_BYTES
    records = [record for batch in batches for record in batch.records]
    assert payloads(read_back(records)) == [b"ab"]


@pytest.mark.parametrize("timestamp", [-1, 2**64, 1.5, "0", b"0"])
def test_a_bad_timestamp_changes_nothing(timestamp: Any) -> None:
    writer = refusing_writer()
    before = state(writer)
    with pytest.raises(LocalProtocolError, match="timestamp"):
        writer.send(b"payload", (), timestamp)
    check_untouched(writer, before)


def test_dedupe_sequences_end() -> None:
    writer = FrameWriter("w", first_dedupe_seq=MAX_DEDUPE_SEQ - 2, chunk_size=2)
    before = state(writer)
    tries: list[Callable[[], object]] = [
        lambda: writer.send(b"1234567"),
        lambda: writer.send(b"1234567", ((b"k", b"v"),)),
        lambda: writer.send_many([b"a"] * 4),
        lambda: writer.send_many([b"a", b"bbbbb"]),
    ]
    for attempt in tries:
        with pytest.raises(LocalProtocolError, match=f"{MAX_DEDUPE_SEQ}.* {MAX_DEDUPE_SEQ - 2}"):
            attempt()
        assert state(writer) == before
    writer.send(b"12345")
    for attempt in [lambda: writer.send(b"a"), lambda: writer.send_many([b"a"]), *tries]:
        with pytest.raises(LocalProtocolError, match="another writer id"):
            attempt()
    [batch] = writer.batches_to_send()
    assert [extract_dedupe_seq(record.headers) for record in batch.records] == [
        ("w", MAX_DEDUPE_SEQ - 2),
        ("w", MAX_DEDUPE_SEQ - 1),
        ("w", MAX_DEDUPE_SEQ),
    ]


def test_without_a_writer_id_nothing_is_numbered_and_nothing_ends() -> None:
    writer = FrameWriter(None, first_dedupe_seq=MAX_DEDUPE_SEQ)
    writer.send_many([b"a", b"b"])
    [batch] = writer.batches_to_send()
    names = {name for record in batch.records for name, _ in record.headers}
    assert not names & {DEDUPE_SEQ, WRITER_ID}


def test_the_largest_frame_by_default() -> None:
    writer = FrameWriter("w")
    with pytest.raises(FrameSizeError, match=f"1 to {DEFAULT_MAX_FRAME_BYTES} bytes"):
        writer.send(bytes(DEFAULT_MAX_FRAME_BYTES + 1))
    assert writer.send(bytes(DEFAULT_MAX_FRAME_BYTES)) == 0


def test_numbers_are_those_that_come_next() -> None:
    writer = FrameWriter("w", first_dedupe_seq=7, chunk_size=2)
    assert (writer.next_frame, writer.next_dedupe_seq) == (0, 7)
    writer.send(b"aaaaa")
    assert (writer.next_frame, writer.next_dedupe_seq) == (1, 10)
    writer.batches_to_send()
    assert (writer.next_frame, writer.next_dedupe_seq) == (1, 10)
    writer.send_many([b"a", b"b"])
    assert (writer.next_frame, writer.next_dedupe_seq) == (3, 12)
    writer.connection_lost()
    assert (writer.next_frame, writer.next_dedupe_seq) == (3, 12)


def test_a_position_of_a_durable_message_is_its_acks() -> None:
    writer = FrameWriter(None)
    writer.send(b"a")
    writer.batches_to_send()
    ack = AppendAck(StreamPosition(8, 5), StreamPosition(9, 6), StreamPosition(20, 7))
    assert writer.receive_ack(ack).ack is ack


def test_the_condition_does_not_count_beyond_the_last_sequence_number() -> None:
    writer = FrameWriter("w", match_seq_num=2**64 - 3)
    writer.send_many([b"a", b"b"])
    with pytest.raises(
        LocalProtocolError, match=f"end at {2**64 - 1}.*next is {2**64 - 1}: 1 more"
    ):
        writer.send(b"c")
    assert [batch.match_seq_num for batch in writer.batches_to_send()] == [2**64 - 3]
    assert writer.next_frame == 2


# What is not known to be durable


def test_only_an_exclusive_writer_that_lost_something_can_be_reconciled() -> None:
    def lost(writer: FrameWriter) -> FrameWriter:
        writer.send(b"a")
        writer.batches_to_send()
        writer.connection_lost()
        return writer

    under_way = lost(FrameWriter("w", match_seq_num=0))
    under_way.batches_to_send()
    for writer in (
        FrameWriter("w", match_seq_num=0),
        lost(FrameWriter("w")),
        lost(FrameWriter(None, match_seq_num=0)),
        under_way,
    ):
        with pytest.raises(LocalProtocolError, match="reconciled"):
            writer.reconcile()
    assert lost(FrameWriter("w", match_seq_num=0)).reconcile().next_seq_num == 0


def test_a_writer_without_a_place_gets_one() -> None:
    writer = FrameWriter("w")
    writer.send_many([b"a", b"b"])
    writer.match_from(7)
    [batch] = writer.batches_to_send()
    assert batch.match_seq_num == 7
    writer.send(b"c")
    [batch] = writer.batches_to_send(flush=True)
    assert batch.match_seq_num == 9


def test_places_cannot_change_while_batches_are_under_way() -> None:
    writer = FrameWriter("w", match_seq_num=3)
    writer.send(b"a")
    writer.batches_to_send()
    with pytest.raises(LocalProtocolError, match="1 batches are under way"):
        writer.match_from(7)
    writer.connection_lost()
    with pytest.raises(LocalProtocolError, match="match_seq_num"):
        writer.match_from(-1)
    assert writer.next_unacked_seq_num == 3
    writer.match_from(7)
    assert writer.next_unacked_seq_num == 7


def test_places_end() -> None:
    writer = FrameWriter("w", match_seq_num=0)
    writer.send_many([b"a", b"b"])
    writer.batches_to_send()
    writer.send(b"c")
    writer.connection_lost()
    with pytest.raises(LocalProtocolError, match=f"from {U64_MAX - 2} on 3 records"):
        writer.match_from(U64_MAX - 2)
    assert writer.next_unacked_seq_num == 0
    writer.match_from(U64_MAX - 3)
    assert [b.match_seq_num for b in writer.batches_to_send(flush=True)] == [
        U64_MAX - 3,
        U64_MAX - 1,
    ]


@pytest.mark.parametrize("token", [None, "", "token"])
@pytest.mark.parametrize(("before", "after"), [(0, 2**40), (2**40, 0), (5, 6)])
def test_a_batch_at_another_place_is_otherwise_the_same(
    token: str | None, before: int, after: int
) -> None:
    writer = FrameWriter("w", match_seq_num=before, fencing_token=token)
    writer.send_many([b"a" * 100, b"b"])
    [batch] = writer.batches_to_send()
    plain = decode_append_input(batch.wire)
    writer.connection_lost()
    writer.match_from(after)
    [moved] = writer.batches_to_send()
    assert decode_append_input(moved.wire) == evolve(plain, match_seq_num=after)
    assert (moved.match_seq_num, moved.fencing_token) == (after, token)


def test_a_batch_whose_place_did_not_move_is_not_copied() -> None:
    writer = FrameWriter("w", match_seq_num=5)
    writer.send(b"a")
    [batch] = writer.batches_to_send()
    wire = batch.wire
    writer.connection_lost()
    writer.match_from(5)
    [again] = writer.batches_to_send()
    assert again is batch
    assert again.wire is wire


def test_a_batch_is_taken_as_landed_only_before_it_is_sent_again() -> None:
    writer = FrameWriter("w", match_seq_num=5)
    writer.send_many([b"a", b"b"])
    with pytest.raises(LocalProtocolError, match="no batch"):
        writer.receive_landed(make_ack(5, 2))
    writer.batches_to_send()
    with pytest.raises(LocalProtocolError, match="under way"):
        writer.receive_landed(make_ack(5, 2))
    writer.connection_lost()
    with pytest.raises(RemoteProtocolError, match="3 records"):
        writer.receive_landed(make_ack(5, 3))
    # It may stand elsewhere than it was to be: a trim may have come between.
    event = writer.receive_landed(make_ack(8, 2))
    assert event.all_appended() == [Appended(8, 9), Appended(9, 10)]
    assert writer.is_idle


def test_at_most_so_many_batches() -> None:
    writer = FrameWriter("w", chunk_size=1, **WIDE)
    writer.send_many([bytes(2500), b"a"])
    assert len(writer.batches_to_send(flush=True, max_batches=1)) == 1
    assert len(writer.batches_to_send(flush=True, max_batches=0)) == 0
    assert len(writer.batches_to_send(flush=True)) == 2


@given(
    st.lists(st.integers(1, 30), max_size=12),
    st.integers(1, 9),
    st.integers(0, 6),
    st.integers(0, 6),
    st.booleans(),
)
def test_what_is_pending_is_what_is_not_durable(
    message_sizes: list[int], chunk_size: int, num_sent: int, num_acked: int, is_lost: bool
) -> None:
    writer = FrameWriter("w", chunk_size=chunk_size, first_dedupe_seq=5, **WIDE)
    payloads_sent, spans, seq = [], [], 5
    batches = []
    for number, size in enumerate(message_sizes):
        payload = bytes([number]) * size
        writer.send(
            payload, ((b"n", b"%d" % number),) * (number % 2), number if number % 3 else None
        )
        payloads_sent.append(payload)
        num_records = -(-size // chunk_size)
        spans.append((seq, seq + num_records))
        seq += num_records
        if number < num_sent:
            batches += writer.batches_to_send(flush=True)
    durable = acked = 0
    for batch in batches[:num_acked]:
        durable += writer.receive_ack(make_ack(acked, batch.num_records)).num_frames
        acked += batch.num_records
    if is_lost:
        writer.connection_lost()
    for pending in (writer.pending(), writer.pending()):
        assert [m.payload for m in pending] == payloads_sent[durable:]
        assert [(m.first_dedupe_seq, m.end_dedupe_seq) for m in pending] == spans[durable:]
        numbers = range(durable, len(message_sizes))
        assert [m.timestamp for m in pending] == [n if n % 3 else None for n in numbers]
        assert [m.headers for m in pending] == [((b"n", b"%d" % n),) * (n % 2) for n in numbers]
    assert writer.next_unacked_dedupe_seq == 5 + acked
    assert writer.is_inside_frame == (durable < len(spans) and spans[durable][0] < 5 + acked)
