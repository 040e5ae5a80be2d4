from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from s2_sdk._generated.s2.v1 import s2_pb2

from s2frames.errors import LocalProtocolError, RemoteProtocolError
from s2frames.records import AppendAck, Header, Record, SequencedRecord, StreamPosition
from s2frames.u64 import U64_MAX
from s2frames.wire import (
    AppendInput,
    ReadBatch,
    decode_append_ack,
    decode_append_input,
    decode_position,
    decode_read_batch,
    decode_sequenced_record,
    decode_varint,
    encode_append_ack,
    encode_append_input,
    encode_read_batch,
    encode_varint,
)
from strategies import headers, positions, records, sequenced_records, u64s

# The same messages, as the protobuf classes of PyPI's s2-sdk have them.


def to_peer_headers(values: tuple[Header, ...]) -> list[s2_pb2.Header]:
    return [s2_pb2.Header(name=name, value=value) for name, value in values]


def from_peer_headers(values: Any) -> tuple[Header, ...]:
    return tuple((header.name, header.value) for header in values)


def to_peer_position(position: StreamPosition) -> s2_pb2.StreamPosition:
    return s2_pb2.StreamPosition(seq_num=position.seq_num, timestamp=position.timestamp)


def from_peer_position(position: s2_pb2.StreamPosition) -> StreamPosition:
    return StreamPosition(position.seq_num, position.timestamp)


def to_peer_input(batch: AppendInput) -> s2_pb2.AppendInput:
    return s2_pb2.AppendInput(
        records=[
            s2_pb2.AppendRecord(
                timestamp=record.timestamp,
                headers=to_peer_headers(record.headers),
                body=record.body,
            )
            for record in batch.records
        ],
        match_seq_num=batch.match_seq_num,
        fencing_token=batch.fencing_token,
    )


def from_peer_input(batch: s2_pb2.AppendInput) -> AppendInput:
    return AppendInput(
        [
            Record(
                record.body,
                from_peer_headers(record.headers),
                record.timestamp if record.HasField("timestamp") else None,
            )
            for record in batch.records
        ],
        batch.match_seq_num if batch.HasField("match_seq_num") else None,
        batch.fencing_token if batch.HasField("fencing_token") else None,
    )


def to_peer_ack(ack: AppendAck) -> s2_pb2.AppendAck:
    return s2_pb2.AppendAck(
        start=to_peer_position(ack.start),
        end=to_peer_position(ack.end),
        tail=to_peer_position(ack.tail),
    )


def from_peer_ack(ack: s2_pb2.AppendAck) -> AppendAck:
    return AppendAck(
        from_peer_position(ack.start), from_peer_position(ack.end), from_peer_position(ack.tail)
    )


def to_peer_batch(batch: ReadBatch) -> s2_pb2.ReadBatch:
    return s2_pb2.ReadBatch(
        records=[
            s2_pb2.SequencedRecord(
                seq_num=record.seq_num,
                timestamp=record.timestamp,
                headers=to_peer_headers(record.headers),
                body=bytes(record.body),
            )
            for record in batch.records
        ],
        tail=None if batch.tail is None else to_peer_position(batch.tail),
    )


def from_peer_batch(batch: s2_pb2.ReadBatch) -> ReadBatch:
    return ReadBatch(
        [
            SequencedRecord(
                record.seq_num, record.timestamp, from_peer_headers(record.headers), record.body
            )
            for record in batch.records
        ],
        from_peer_position(batch.tail) if batch.HasField("tail") else None,
    )


@frozen
class Kind:
    """One of the messages: ours, and the peer's."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    peer: type[Any]
    to_peer: Callable[[Any], Any]
    from_peer: Callable[[Any], Any]


INPUT = Kind(
    encode_append_input, decode_append_input, s2_pb2.AppendInput, to_peer_input, from_peer_input
)
ACK = Kind(encode_append_ack, decode_append_ack, s2_pb2.AppendAck, to_peer_ack, from_peer_ack)
BATCH = Kind(encode_read_batch, decode_read_batch, s2_pb2.ReadBatch, to_peer_batch, from_peer_batch)
KINDS = {AppendInput: INPUT, AppendAck: ACK, ReadBatch: BATCH}

ZERO = StreamPosition(0, 0)

# Each message and its bytes. Fields that are zero are absent, unless they are optional and set.
CASES: list[tuple[Any, str]] = [
    (AppendInput([]), ""),
    (AppendInput([Record()]), "0a00"),
    (AppendInput([Record(b"hi")]), "0a04 1a026869"),
    (AppendInput([Record(), Record(b"a")]), "0a00 0a03 1a0161"),
    (AppendInput([Record(timestamp=0)]), "0a02 0800"),
    (AppendInput([Record(timestamp=300)]), "0a03 08ac02"),
    (AppendInput([Record(timestamp=U64_MAX)]), "0a0b 08ffffffffffffffffff01"),
    (AppendInput([Record(b"", ((b"n", b"v"),))]), "0a08 1206 0a016e 120176"),
    (AppendInput([Record(b"", ((b"", b"trim"),))]), "0a08 1206 12047472696d"),
    (AppendInput([Record(b"", ((b"n", b""),))]), "0a05 1203 0a016e"),
    (AppendInput([Record(b"", ((b"", b""),))]), "0a02 1200"),
    (AppendInput([Record(b"b", ((b"", b""), (b"n", b"")), 1)]), "0a0c 0801 1200 12030a016e 1a0162"),
    (AppendInput([Record(b"x" * 128)]), "0a8301 1a8001" + "78" * 128),
    (AppendInput([], 0), "1000"),
    (AppendInput([], 128), "108001"),
    (AppendInput([], U64_MAX), "10ffffffffffffffffff01"),
    (AppendInput([], None, ""), "1a00"),
    (AppendInput([], None, "é"), "1a02c3a9"),
    (AppendInput([Record()], 1, "t"), "0a00 1001 1a0174"),
    (AppendAck(ZERO, ZERO, ZERO), "0a00 1200 1a00"),
    (
        AppendAck(StreamPosition(0, 5), StreamPosition(2, 6), StreamPosition(300, 0)),
        "0a021005 120408021006 1a0308ac02",
    ),
    (
        AppendAck(ZERO, StreamPosition(U64_MAX, 0), ZERO),
        "0a00 120b08ffffffffffffffffff01 1a00",
    ),
    (ReadBatch([]), ""),
    (ReadBatch([], ZERO), "1200"),
    (ReadBatch([], StreamPosition(3, 4)), "120408031004"),
    (ReadBatch([SequencedRecord(0, 0)]), "0a00"),
    (ReadBatch([SequencedRecord(1, 0)]), "0a02 0801"),
    (ReadBatch([SequencedRecord(0, 1)]), "0a02 1001"),
    (ReadBatch([SequencedRecord(0, 0, (), b"hi")]), "0a04 22026869"),
    (
        ReadBatch([SequencedRecord(9, 8, ((b"", b"v"), (b"n", b"")), b"b")], StreamPosition(10, 8)),
        "0a11 0809 1008 1a03120176 1a030a016e 220162 1204080a1008",
    ),
    (ReadBatch([SequencedRecord(0, 0), SequencedRecord(1, 0)]), "0a00 0a020801"),
]

appends = st.builds(
    AppendInput,
    st.lists(records, max_size=5),
    st.none() | u64s,
    # At most 36 bytes, four a character.
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
)
acks = st.builds(AppendAck, positions, positions, positions)
batches = st.builds(ReadBatch, st.lists(sequenced_records, max_size=5), st.none() | positions)
messages: st.SearchStrategy[Any] = st.one_of(appends, acks, batches)
kinds = st.sampled_from([INPUT, ACK, BATCH])


def case_name(value: object) -> str:
    return type(value).__name__ if type(value) in KINDS else ""


# Both ways


@pytest.mark.parametrize(("message", "encoded"), CASES, ids=case_name)
def test_encode(message: Any, encoded: str) -> None:
    assert KINDS[type(message)].encode(message).hex() == encoded.replace(" ", "")


@pytest.mark.parametrize(("message", "encoded"), CASES, ids=case_name)
def test_decode(message: Any, encoded: str) -> None:
    assert KINDS[type(message)].decode(bytes.fromhex(encoded)) == message


@pytest.mark.parametrize(("message", "encoded"), CASES, ids=case_name)
def test_the_table_is_right_for_the_peer(message: Any, encoded: str) -> None:
    kind = KINDS[type(message)]
    assert kind.to_peer(message).SerializeToString() == bytes.fromhex(encoded)
    assert kind.from_peer(kind.peer.FromString(bytes.fromhex(encoded))) == message


@given(messages)
def test_the_peer_reads_what_is_encoded(message: Any) -> None:
    kind = KINDS[type(message)]
    encoded = kind.encode(message)
    assert kind.from_peer(kind.peer.FromString(encoded)) == message
    assert encoded == kind.to_peer(message).SerializeToString()


@given(messages)
def test_decodes_what_the_peer_writes(message: Any) -> None:
    kind = KINDS[type(message)]
    assert kind.decode(kind.to_peer(message).SerializeToString()) == message


@given(headers, st.binary(max_size=50), u64s, u64s, st.binary(max_size=9))
def test_a_record_is_found_within_other_bytes(
    record_headers: tuple[Header, ...], body: bytes, seq_num: int, timestamp: int, around: bytes
) -> None:
    encoded = s2_pb2.SequencedRecord(
        seq_num=seq_num, timestamp=timestamp, headers=to_peer_headers(record_headers), body=body
    ).SerializeToString()
    data = around + encoded + around
    end = len(around) + len(encoded)
    *decoded, start, stop = decode_sequenced_record(data, len(around), end)
    assert decoded == [seq_num, timestamp, record_headers]
    assert data[start:stop] == body


@given(positions, st.binary(max_size=9))
def test_a_position_is_found_within_other_bytes(position: StreamPosition, around: bytes) -> None:
    encoded = to_peer_position(position).SerializeToString()
    data = around + encoded + around
    assert decode_position(data, len(around), len(around) + len(encoded)) == position


# Numbers


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (16383, "ff7f"),
        (16384, "808001"),
        (2**32, "8080808010"),
        (2**63, "80808080808080808001"),
        (U64_MAX, "ffffffffffffffffff01"),
    ],
)
def test_varints(number: int, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert encode_varint(number) == data
    assert decode_varint(data, 0, len(data)) == (number, len(data))
    assert decode_varint(b"\xff" + data + b"\xff", 1, len(data) + 2) == (number, len(data) + 1)


@given(u64s)
def test_varints_round_trip(number: int) -> None:
    encoded = encode_varint(number)
    assert decode_varint(encoded, 0, len(encoded)) == (number, len(encoded))


@pytest.mark.parametrize("encoded", ["8000", "80808000", "80808080808080808000"])
def test_a_number_may_be_longer_than_needed(encoded: str) -> None:
    assert decode_read_batch(b"\x12" + field(1, 0, bytes.fromhex(encoded), sized=True)) == (
        ReadBatch([], ZERO)
    )


# What must be skipped


def field(number: int, wire_type: int, value: bytes, *, sized: bool = False) -> bytes:
    """A field; `sized` puts its length before it."""
    encoded = encode_varint(number << 3 | wire_type) + value
    return encode_varint(len(encoded)) + encoded if sized else encoded


UNKNOWN = [
    field(15, 0, b"\x07"),
    field(15, 0, b"\xff" * 9 + b"\x01"),
    field(15, 1, b"8 bytes!"),
    field(15, 2, b"\x00"),
    field(15, 2, b"\x05\x08\xff\xff\xff\xff"),
    field(15, 2, b"\x80\x01" + b"x" * 128),
    field(15, 5, b"four"),
    field(16, 0, b"\x01"),
    field(2**29 - 1, 2, b"\x01x"),
]


@pytest.mark.parametrize("unknown", UNKNOWN, ids=bytes.hex)
@pytest.mark.parametrize(("message", "encoded"), CASES, ids=case_name)
def test_unknown_fields_around_a_message(message: Any, encoded: str, unknown: bytes) -> None:
    decode = KINDS[type(message)].decode
    data = bytes.fromhex(encoded)
    assert decode(unknown + data) == message
    assert decode(data + unknown) == message


@pytest.mark.parametrize("unknown", UNKNOWN, ids=bytes.hex)
def test_unknown_fields_inside(unknown: bytes) -> None:
    def wrap(tag: str, *parts: bytes) -> bytes:
        value = unknown.join((b"", *parts, b""))
        return bytes.fromhex(tag) + encode_varint(len(value)) + value

    position = wrap("12", b"\x08\x03", b"\x10\x04")
    name_and_value = (b"\x0a\x01n", b"\x12\x01v")
    read = wrap("0a", b"\x08\x09", b"\x10\x08", wrap("1a", *name_and_value), b"\x22\x01b")
    assert decode_read_batch(read + position) == ReadBatch(
        [SequencedRecord(9, 8, ((b"n", b"v"),), b"b")], StreamPosition(3, 4)
    )
    append = wrap("0a", b"\x08\x05", wrap("12", *name_and_value), b"\x1a\x01b")
    assert decode_append_input(append) == AppendInput([Record(b"b", ((b"n", b"v"),), 5)])


@pytest.mark.parametrize(
    ("kind", "encoded", "message"),
    [
        (INPUT, "1001 1002", AppendInput([], 2)),
        (INPUT, "1a0161 1a0162", AppendInput([], None, "b")),
        (INPUT, "0a06 1a0161 1a0162", AppendInput([Record(b"b")])),
        (INPUT, "0a04 0801 0802", AppendInput([Record(timestamp=2)])),
        (BATCH, "0a04 0801 0802", ReadBatch([SequencedRecord(2, 0)])),
        (BATCH, "0a06 220161 220162", ReadBatch([SequencedRecord(0, 0, (), b"b")])),
        (BATCH, "1202 0801 1202 0802", ReadBatch([], StreamPosition(2, 0))),
        (BATCH, "1200 0a00", ReadBatch([SequencedRecord(0, 0)], ZERO)),
        (ACK, "1a00 1200 0a00", AppendAck(ZERO, ZERO, ZERO)),
    ],
)
def test_fields_in_any_order_and_the_last_counts(kind: Kind, encoded: str, message: Any) -> None:
    data = bytes.fromhex(encoded)
    assert kind.decode(data) == message
    assert kind.from_peer(kind.peer.FromString(data)) == message


# What must be refused


@pytest.mark.parametrize(
    ("encoded", "named"),
    [
        ("0a", "inside a number"),
        ("0a80", "inside a number"),
        ("0a05", "inside a field"),
        ("0a01", "inside a field"),
        ("0affffffffffffffffff01", "inside a field"),
        ("78", "inside a number"),
        ("79" + "00" * 7, "inside a field"),
        ("7d" + "00" * 3, "inside a field"),
        ("78" + "80" * 10 + "00", "longer than 10 bytes"),
        ("80" * 10 + "00", "longer than 10 bytes"),
        ("78" + "ff" * 9 + "02", r"above 2\^64 - 1"),
        ("ff" * 9 + "7f", r"above 2\^64 - 1"),
        ("78" + "80" * 9 + "02", r"above 2\^64 - 1"),
        ("00", "numbered 0"),
        ("8080808010", "numbered 536870912"),
        ("7b", "unknown type 3"),
        ("7c", "unknown type 4"),
        ("7e", "unknown type 6"),
        ("7f", "unknown type 7"),
    ],
)
@pytest.mark.parametrize("kind", [INPUT, ACK, BATCH], ids=["AppendInput", "AppendAck", "ReadBatch"])
def test_malformed(kind: Kind, encoded: str, named: str) -> None:
    with pytest.raises(RemoteProtocolError, match=named):
        kind.decode(bytes.fromhex(encoded))


@pytest.mark.parametrize(
    ("kind", "encoded", "named"),
    [
        (INPUT, "0801", "AppendInput.records"),
        (INPUT, "1200", "AppendInput.match_seq_num"),
        (INPUT, "1801", "AppendInput.fencing_token"),
        (INPUT, "0a020a00", "AppendRecord.timestamp"),
        (INPUT, "0a021001", "AppendRecord.headers"),
        (INPUT, "0a021801", "AppendRecord.body"),
        (INPUT, "0a0412020801", "Header.name"),
        (INPUT, "0a0412021001", "Header.value"),
        (ACK, "0801", "AppendAck"),
        (ACK, "1001", "AppendAck"),
        (ACK, "1801", "AppendAck"),
        (ACK, "0a020a00", "StreamPosition.seq_num"),
        (ACK, "0a021200", "StreamPosition.timestamp"),
        (BATCH, "0801", "ReadBatch.records"),
        (BATCH, "1001", "ReadBatch.tail"),
        (BATCH, "0a020a00", "SequencedRecord.seq_num"),
        (BATCH, "0a021200", "SequencedRecord.timestamp"),
        (BATCH, "0a021801", "SequencedRecord.headers"),
        (BATCH, "0a022001", "SequencedRecord.body"),
        (BATCH, "0a02250000000000", "inside a field"),
    ],
)
def test_a_known_field_of_another_type(kind: Kind, encoded: str, named: str) -> None:
    with pytest.raises(RemoteProtocolError, match=named):
        kind.decode(bytes.fromhex(encoded))


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        (INPUT, "0a03 1a0461 62636465"),
        (INPUT, "0a04 12020a05 6162636465"),
        (BATCH, "0a02 2204 61626364"),
        (BATCH, "0a01 08 01"),
        (BATCH, "1201 08 01"),
        (ACK, "0a01 08 1200 1a00"),
    ],
)
def test_a_part_cannot_reach_beyond_what_holds_it(kind: Kind, encoded: str) -> None:
    with pytest.raises(RemoteProtocolError, match="ends inside"):
        kind.decode(bytes.fromhex(encoded))


@pytest.mark.parametrize(
    "batch",
    [
        AppendInput([], match_seq_num=-1),
        AppendInput([], match_seq_num=2**64),
        AppendInput([], fencing_token="t" * 37),
        AppendInput([], fencing_token="\ud800"),
    ],
)
def test_conditions_that_no_stream_can_meet_are_not_encoded(batch: AppendInput) -> None:
    with pytest.raises(LocalProtocolError):
        encode_append_input(batch)


def test_a_token_must_be_text() -> None:
    with pytest.raises(RemoteProtocolError, match="UTF-8"):
        decode_append_input(b"\x1a\x01\xff")


@pytest.mark.parametrize(
    ("encoded", "missing"),
    [("", 1), ("0a00", 2), ("12001a00", 1), ("0a001a00", 2), ("0a001200", 3)],
)
def test_an_ack_must_be_whole(encoded: str, missing: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"without its field {missing}"):
        decode_append_ack(bytes.fromhex(encoded))


# Garbage: it decodes to a message, or it is refused as what it is; nothing else.


def decode_or_refuse(kind: Kind, data: bytes) -> None:
    try:
        message = kind.decode(data)
    except RemoteProtocolError:
        return
    assert kind.decode(kind.encode(message)) == message


@pytest.mark.parametrize(("message", "encoded"), CASES, ids=case_name)
def test_truncated_anywhere(message: Any, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    for end in range(len(data)):
        decode_or_refuse(KINDS[type(message)], data[:end])


@given(messages, st.data())
def test_truncated(message: Any, data: st.DataObject) -> None:
    kind = KINDS[type(message)]
    encoded = kind.encode(message)
    decode_or_refuse(kind, encoded[: data.draw(st.integers(0, len(encoded)))])


@given(messages, st.integers(0), st.integers(0, 255))
def test_one_byte_changed(message: Any, at: int, byte: int) -> None:
    kind = KINDS[type(message)]
    encoded = bytearray(kind.encode(message) or b"\0")
    encoded[at % len(encoded)] = byte
    decode_or_refuse(kind, bytes(encoded))


@given(kinds, st.binary(max_size=200))
def test_random_bytes(kind: Kind, data: bytes) -> None:
    decode_or_refuse(kind, data)


@given(kinds, messages)
def test_another_kind_of_message(kind: Kind, message: Any) -> None:
    decode_or_refuse(kind, KINDS[type(message)].encode(message))
