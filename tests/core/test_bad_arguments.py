"""Arguments of the wrong type: every public function refuses them, saying what and what is allowed.

What a value is made of (`Settings`, `Record`, ...) has its cases beside that value's other tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import s2frames
from run_operation import TARGET
from s2frames import (
    BYTES,
    JSON,
    AppendInput,
    AppendProtocol,
    AppendSettings,
    Checkpoint,
    DedupeFilter,
    FrameAssembler,
    FrameReader,
    FrameWriter,
    Inbox,
    LaneCheckpoint,
    LocalProtocolError,
    Operation,
    Outbox,
    Pending,
    ReadBatch,
    ReadProtocol,
    ReadSettings,
    Record,
    Retry,
    SequencedRecord,
    Settings,
    StreamTarget,
    WriterState,
    append_batch,
    chunk_bytes,
    decode_append_ack,
    decode_u64,
    encode_u64,
    extract_dedupe_seq,
    fence,
    fence_stream,
    frame_chunks_to_records,
    inject_dedupe_headers,
    make_frame_headers,
    make_writer_id,
    metered_bytes,
    parse_frame_headers,
    probe_fencing_token,
    recover_writer,
    trim,
    trim_stream,
)
from s2frames.wire import decode_read_batch, encode_read_batch

# For calls with arguments that a type checker refuses.
any_: Any = lambda value: value  # noqa: E731

BAD: Any = object()
NONE: Any = None
TEXT: Any = "abc"
TRUE: Any = True
HEADERS: Any = [(b"a", b"b")]
STR_HEADERS: Any = (("a", "b"),)


def luck() -> float:
    return 0.5


def read(record: Any) -> list[Any]:
    return list(FrameReader().receive_records([record]))


def plan() -> Iterator[Any]:
    yield from ()


CASES: dict[str, tuple[Callable[[], object], str]] = {
    # Helpers.
    "chunk_bytes(str)": (lambda: chunk_bytes(TEXT), "data is bytes, .* not str"),
    "chunk_bytes(None)": (lambda: chunk_bytes(NONE), "data is bytes, .* not NoneType"),
    "chunk size": (lambda: chunk_bytes(b"", TEXT), "max_chunk_size must be an int from 1 .*'abc'"),
    "chunk size True": (lambda: chunk_bytes(b"", True), "max_chunk_size .* not True"),
    "chunks None": (lambda: frame_chunks_to_records(NONE), "chunks are a sequence, not NoneType"),
    "chunks bytes": (lambda: frame_chunks_to_records(any_(b"abc")), "a chunk is bytes, .* not int"),
    "chunk str": (lambda: frame_chunks_to_records([TEXT]), "a chunk is bytes, .* not str"),
    "frame headers": (lambda: make_frame_headers(TEXT, 1), "a u64 is an int .* 'abc'"),
    "parse None": (lambda: parse_frame_headers(NONE), "headers are .* not NoneType"),
    "parse str": (lambda: parse_frame_headers(STR_HEADERS), "a header is a tuple"),
    "parse pairs": (lambda: parse_frame_headers(any_([b"ab"])), "a header is a tuple"),
    "extract None": (lambda: extract_dedupe_seq(NONE), "headers are .* not NoneType"),
    "extract str": (lambda: extract_dedupe_seq(STR_HEADERS), "a header is a tuple"),
    "filter": (lambda: DedupeFilter().should_accept(NONE), "headers are .* not NoneType"),
    "inject seq": (
        lambda: inject_dedupe_headers([], "w", TEXT),
        "start_seq must be an int .*'abc'",
    ),
    "inject True": (lambda: inject_dedupe_headers([], "w", True), "start_seq .* not True"),
    "inject records": (lambda: inject_dedupe_headers(NONE, "w", 0), "records must be a list, not "),
    "inject record": (lambda: inject_dedupe_headers([BAD], "w", 0), "a record must be a Record"),
    "writer id": (lambda: make_writer_id(NONE), "random must be a callable, not NoneType"),
    "writer id 1.0": (lambda: make_writer_id(lambda: 1.0), "random must give floats from 0 up to"),
    "writer id str": (lambda: make_writer_id(any_(lambda: "x")), "random must give floats"),
    "assembler": (lambda: FrameAssembler(NONE), "max_frame_bytes must be an int .* not None"),
    "assembler True": (lambda: FrameAssembler(True), "max_frame_bytes .* not True"),
    "push": (lambda: FrameAssembler().push(NONE), "record must be a Record, not NoneType"),
    "push headers": (
        lambda: FrameAssembler().push(SequencedRecord(0, 0, STR_HEADERS)),
        "a header is a tuple",
    ),
    "push body": (
        lambda: FrameAssembler().push(SequencedRecord(0, 0, (), TEXT)),
        "a record's body is bytes, .* not str",
    ),
    "metered headers": (lambda: metered_bytes(NONE, 1), "headers are .* not NoneType"),
    "metered body": (lambda: metered_bytes((), TEXT), "body_bytes must be an int .*'abc'"),
    "metered pairs": (lambda: metered_bytes(any_([(b"a",)]), 0), "a header is a tuple"),
    "fence": (lambda: fence(NONE), "a fencing token is a str, not NoneType"),
    "trim": (lambda: trim(TEXT), "a u64 is an int .* 'abc'"),
    "trim True": (lambda: trim(True), "a u64 is an int .* True"),
    "encode_u64": (lambda: encode_u64(True), "a u64 is an int .* True"),
    "decode_u64": (lambda: decode_u64(any_(8)), "a u64 is read from bytes, .* not int"),
    "ack": (lambda: decode_append_ack(NONE), "an AppendAck is bytes, .* not NoneType"),
    "batch": (lambda: decode_read_batch(TEXT), "a ReadBatch is bytes, .* not str"),
    # Writing.
    "writer None": (lambda: FrameWriter(any_(7)), "a writer id is a str"),
    "writer seq": (lambda: FrameWriter("w", first_dedupe_seq=TRUE), "first_dedupe_seq .* True"),
    "receive_ack": (
        lambda: FrameWriter("w").receive_ack(NONE),
        "ack must be a AppendAck, not None",
    ),
    "send": (lambda: FrameWriter("w").send(TEXT), "a payload is bytes, .* not str"),
    "send headers": (lambda: FrameWriter("w").send(b"x", NONE), "headers are .* not NoneType"),
    "send timestamp": (lambda: FrameWriter("w").send(b"x", (), True), "a timestamp is .* True"),
    "send_many": (lambda: FrameWriter("w").send_many(NONE), "payloads are an iterable, not None"),
    "send_many str": (lambda: FrameWriter("w").send_many(TEXT), "a payload is bytes, .* not str"),
    "max_batches": (
        lambda: FrameWriter("w").batches_to_send(max_batches=TEXT),
        "max_batches must be an int .*'abc'",
    ),
    "after": (lambda: Pending((), None).after(NONE), "state must be a WriterState, not NoneType"),
    # Reading.
    "reader start": (lambda: FrameReader(start=TEXT), "start must be an int .*'abc'"),
    "reader dedupe": (lambda: FrameReader(dedupe=TEXT), "dedupe must be a bool, not str"),
    "reader limit": (lambda: FrameReader(max_writers=NONE), "max_writers must be an int .* None"),
    "receive None": (lambda: FrameReader().receive_records(NONE), "records are an iterable, not "),
    "receive int": (lambda: read(7), "a record that was read must be a SequencedRecord, not int"),
    "receive Record": (lambda: read(Record()), "must be a SequencedRecord, not Record"),
    "receive seq_num": (lambda: read(SequencedRecord(TRUE, 0)), "seq_num must be an int .* True"),
    "receive time": (lambda: read(SequencedRecord(1, NONE)), "timestamp must be an int .* None"),
    "receive headers": (lambda: read(SequencedRecord(1, 1, NONE)), "headers are .* not NoneType"),
    "receive str": (lambda: read(SequencedRecord(1, 1, STR_HEADERS)), "a header is a tuple"),
    "receive body": (lambda: read(SequencedRecord(1, 1, (), TEXT)), "body is bytes, .* not str"),
    "receive_batch": (
        lambda: FrameReader().receive_batch(TEXT),
        "a ReadBatch is bytes, .* not str",
    ),
    "at once": (
        lambda: FrameReader().receive_batch_at_once(NONE),
        "a ReadBatch is bytes, .* not NoneType",
    ),
    "resume": (lambda: FrameReader.resume(NONE), "the checkpoint must be a Checkpoint, not None"),
    "resume lane": (
        lambda: FrameReader.resume(Checkpoint(5, 5, (LaneCheckpoint(TEXT, None, None),))),
        "the checkpoint is damaged: a writer is 'abc'",
    ),
    "to_json": (lambda: Checkpoint(NONE, 5).to_json(), "read_from is None"),
    "from_json": (lambda: Checkpoint.from_json(NONE), "a checkpoint is JSON text"),
    # Sessions.
    "append target": (
        lambda: AppendProtocol(NONE, AppendSettings(), random=luck),
        "target must be a StreamTarget, not NoneType",
    ),
    "append settings": (
        lambda: AppendProtocol(TARGET, any_(ReadSettings()), random=luck),
        "settings must be a AppendSettings, not ReadSettings",
    ),
    "append random": (
        lambda: AppendProtocol(TARGET, AppendSettings(), random=any_(0.5)),
        "random must be a callable, not float",
    ),
    "read target": (
        lambda: ReadProtocol(NONE, ReadSettings(), random=luck),
        "target must be a StreamTarget, not NoneType",
    ),
    "read settings": (
        lambda: ReadProtocol(TARGET, NONE, random=luck),
        "settings must be a ReadSettings, not NoneType",
    ),
    "read random": (
        lambda: ReadProtocol(TARGET, ReadSettings(), random=NONE),
        "random must be a callable, not NoneType",
    ),
    "inbox": (lambda: Inbox(any_("json")), "codec must be JSON, .* not 'json'"),
    "inbox module": (lambda: Inbox(any_(s2frames)), "codec must be JSON, .* not <module"),
    "inbox None": (
        lambda: Inbox(NONE),
        "codec must be JSON, TEXT, BYTES or MSGPACK .* not None",
    ),
    "inbox on_corrupt": (
        lambda: Inbox(JSON, any_(True)),
        "on_corrupt must be 'raise' or 'skip'",
    ),
    "outbox": (
        lambda: Outbox(AppendProtocol(TARGET, AppendSettings(), random=luck), any_("json")),
        "codec must be JSON, .* not 'json'",
    ),
    "operation plan": (
        lambda: Operation(NONE, Settings(), random=luck),
        "plan must be a Generator, not NoneType",
    ),
    "operation settings": (
        lambda: Operation(any_(plan()), NONE, random=luck),
        "settings must be a Settings, not NoneType",
    ),
    "target": (
        lambda: StreamTarget(NONE, "my-basin", "s"),
        "settings must be a Settings, not None",
    ),
    "target basin": (
        lambda: StreamTarget(Settings(), NONE, "s"),
        "a basin name is a str, not None",
    ),
    "target key": (lambda: StreamTarget(Settings(), "my-basin", "s", TEXT), "encryption_key must"),
    # Plans.
    "append_batch target": (lambda: append_batch(NONE, AppendInput([])), "target must be a Stream"),
    "append_batch": (
        lambda: append_batch(TARGET, any_([])),
        "batch must be a AppendInput, not list",
    ),
    "append_batch records": (
        lambda: append_batch(TARGET, AppendInput(NONE)),
        "a batch's records are a sequence, not NoneType",
    ),
    "append_batch record": (
        lambda: append_batch(TARGET, AppendInput(any_([b"x"]))),
        "a record must be a Record, not bytes",
    ),
    "append_batch match": (
        lambda: append_batch(TARGET, AppendInput([Record()], match_seq_num=TRUE)),
        "a u64 is an int .* True",
    ),
    "fence_stream": (lambda: fence_stream(NONE, "t"), "target must be a StreamTarget"),
    "fence_stream trim": (lambda: fence_stream(TARGET, "t", trim=TEXT), "before must be .*'abc'"),
    "trim_stream": (lambda: trim_stream(NONE, 1), "target must be a StreamTarget"),
    "trim_stream before": (lambda: trim_stream(TARGET, NONE), "before must be an int .* None"),
    "trim_stream checkpoint": (
        lambda: trim_stream(TARGET, Checkpoint(TEXT, 5)),
        "a u64 is an int .* 'abc'",
    ),
    "probe": (lambda: probe_fencing_token(NONE, luck), "target must be a StreamTarget"),
    "probe random": (lambda: probe_fencing_token(TARGET, NONE), "random must be a callable"),
    "recover": (lambda: recover_writer(NONE, "w"), "target must be a StreamTarget, not NoneType"),
    "recover writer": (lambda: recover_writer(TARGET, NONE), "a writer id is a str"),
    "recover from": (lambda: recover_writer(TARGET, "w", TRUE), "search_from must be .* True"),
    # Values.
    "Record timestamp": (lambda: Record(timestamp=True), "a timestamp is an int .* not True"),
    "Retry": (lambda: Retry(max_attempts=TRUE), "max_attempts must be an int .* True"),
    "WriterState": (
        lambda: WriterState(writer_id="w", next_dedupe_seq=TRUE),
        "next_dedupe_seq must be an int .* True",
    ),
    "WriterState whole": (
        lambda: WriterState(writer_id="w", next_dedupe_seq=0, last_frame_is_whole=NONE),
        "last_frame_is_whole must be a bool, not NoneType",
    ),
    "from_env": (lambda: Settings.from_env({}, foo=1), "there is no setting 'foo'; .*access_token"),
    "from_env None": (lambda: Settings.from_env(NONE), "environ must be a Mapping, not NoneType"),
    "huge int": (lambda: FrameReader(start=10**5000), "start must be an int .* too long to show"),
}


@pytest.mark.parametrize(("call", "named"), CASES.values(), ids=CASES)
def test_what_is_refused_is_named(call: Callable[[], object], named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named):
        call()


def test_a_refused_batch_or_record_leaves_the_reader_as_it_was() -> None:
    reader = FrameReader(start=3)
    for call in (
        lambda: reader.receive_batch(TEXT),
        lambda: reader.receive_batch_at_once(NONE),
        lambda: reader.receive_records(NONE),
        lambda: list(reader.receive_records([BAD])),
        lambda: list(reader.receive_records([SequencedRecord(TRUE, 0)])),
    ):
        with pytest.raises(LocalProtocolError):
            call()
        assert reader.checkpoint() == FrameReader(start=3).checkpoint()
    assert len(list(reader.receive_records([SequencedRecord(3, 0)]))) == 1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_batch_may_come_in_any_buffer(kind: Callable[[bytes], Any]) -> None:
    records = [
        SequencedRecord(
            i,
            1,
            (
                *make_frame_headers(2, 1),
                (b"_dedupe_seq", encode_u64(i)),
                (b"_writer_id", b"w"),
            ),
            b"%02d" % i,
        )
        for i in range(40)
    ]
    data = encode_read_batch(ReadBatch(records))
    expected = list(FrameReader().receive_batch(data))
    assert len(expected) == 40
    assert list(FrameReader().receive_batch(kind(data))) == expected
    at_once = FrameReader()
    again = [event for _ in range(1) for event in at_once.receive_batch_at_once(kind(data))]
    assert again == list(FrameReader().receive_batch_at_once(data))
    assert decode_read_batch(kind(data)) == ReadBatch(records)


def test_what_was_read_elsewhere_may_have_its_headers_in_a_list() -> None:
    [event] = FrameReader().receive_records([SequencedRecord(1, 1, HEADERS, any_(bytearray(b"x")))])
    assert event == s2frames.RecordReceived(SequencedRecord(1, 1, ((b"a", b"b"),), b"x"))


def test_a_codec_is_checked_before_anything_is_done() -> None:
    protocol = AppendProtocol(TARGET, AppendSettings(), random=luck)
    with pytest.raises(LocalProtocolError, match=r"not 'json'$"):
        Outbox(protocol, any_("json"))
    Outbox(protocol, BYTES)
    Inbox(BYTES)
