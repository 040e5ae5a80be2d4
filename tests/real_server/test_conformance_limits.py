"""How much a server takes: records, batches, bodies and messages."""

from __future__ import annotations

import gzip
import json

import pytest

from real_server.places import every_transport
from real_server.streams import JSON, PROTOBUF, S2S, Stream
from s2_bodies import encode_batch, messages_in
from s2frames.records import Record
from s2frames.s2s import Message, Terminal
from s2frames.wire import decode_append_ack

MIB = 1024 * 1024
# A record is metered with 8 bytes more than its body, a header with 2 more than name and value.
LARGEST = bytes(MIB - 8)

ACCEPTED = [
    [Record()],
    [Record()] * 1000,
    [Record(LARGEST)],
    [Record(bytes(MIB // 2 - 8))] * 2,
    [Record(b"", ((b"n", bytes(MIB - 11)),))],
    [Record(b"", ((bytes(MIB - 10), b""),))],
    [Record(b"", ((b"n", b""),) * 20_000)],
    [Record(b"", ((b"\xff", b"\x00"), (b"same", b"1"), (b"same", b"2")))],
]
REFUSED = [
    [],
    [Record()] * 1001,
    [Record(LARGEST + b"x")],
    [Record(bytes(MIB // 2 - 8)), Record(bytes(MIB // 2 - 7))],
    [Record(b"", ((b"n", bytes(MIB - 10)),))],
    [Record(b"", ((b"", b""), (b"n", b"")))],
    [Record(b"", ((b"n", b""), (b"", b"fence")))],
]


@pytest.mark.parametrize("batch", ACCEPTED, ids=range(len(ACCEPTED)))
def test_batches_at_the_limits(stream: Stream, batch: list[Record]) -> None:
    assert stream.append_ok(*batch).end.seq_num == len(batch)
    (message,) = messages_in(stream.append_session(encode_batch(batch)).body)
    assert isinstance(message, Message)
    assert decode_append_ack(message.body).end.seq_num == 2 * len(batch)
    (read,) = stream.read_batches(f"seq_num={len(batch)}&count={len(batch)}")
    assert [record.body for record in read.records] == [record.body for record in batch]
    assert [record.headers for record in read.records] == [record.headers for record in batch]


@pytest.mark.parametrize("batch", REFUSED, ids=range(len(REFUSED)))
def test_batches_beyond_the_limits(stream: Stream, batch: list[Record]) -> None:
    assert stream.append(batch).error == (422, "invalid")
    (message,) = messages_in(stream.append_session(encode_batch(batch)).body)
    assert isinstance(message, Terminal)
    assert (message.status, json.loads(message.body)["code"]) == (422, "invalid")
    assert stream.tail() == 0


@pytest.mark.parametrize(
    ("size", "status", "code"), [(len(LARGEST), 200, None), (len(LARGEST) + 1, 422, "invalid")]
)
@pytest.mark.parametrize("form", ["raw", "base64"])
def test_the_largest_record_in_json(
    stream: Stream, form: str, size: int, status: int, code: str | None
) -> None:
    text = "x" * size if form == "raw" else "eHh4" * (size // 3) + ["", "eA==", "eHg="][size % 3]
    reply = stream.append_json({"records": [{"body": text}]}, s2_format=form)
    assert reply.status == status
    assert reply.json.get("code") == code


@every_transport
# A body of spaces is JSON of nothing; one of zeros is no protobuf.
@pytest.mark.parametrize(
    ("headers", "filler", "code"),
    [(JSON, b" ", "bad_json"), (PROTOBUF, b"\0", "bad_proto")],
    ids=["JSON", "protobuf"],
)
@pytest.mark.parametrize("size", [2 * MIB, 2 * MIB + 1])
def test_bodies_beyond_the_limit(
    stream: Stream, headers: dict[str, str], filler: bytes, code: str, size: int
) -> None:
    assert stream.post(filler * size, headers).error == (400, code)


def padded_json(size: int) -> bytes:
    """One record in a body of exactly this size."""
    return b'{"records":[{}]}'.ljust(size)


@pytest.mark.parametrize(("size", "status"), [(2 * MIB, 200), (2 * MIB + 1, 400)])
def test_the_largest_body(stream: Stream, size: int, status: int) -> None:
    assert stream.post(padded_json(size), JSON).status == status


@pytest.mark.parametrize(("size", "status"), [(2 * MIB, 200), (2 * MIB + 1, 400)])
def test_a_compressed_body_counts_as_what_it_holds(stream: Stream, size: int, status: int) -> None:
    body = gzip.compress(padded_json(size))
    reply = stream.post(body, {**JSON, "content-encoding": "gzip"})
    assert reply.status == status
    if status != 200:
        assert reply.error == (400, "bad_json")


@pytest.mark.parametrize(
    ("token", "status"),
    [("", 200), ("t" * 36, 412), ("\u00e9" * 18, 412), ("t" * 37, 422), ("\u00e9" * 18 + "e", 422)],
)
def test_fencing_tokens_in_protobuf(stream: Stream, token: str, status: int) -> None:
    assert stream.append([Record()], fencing_token=token).status == status


@pytest.mark.parametrize(("token", "expected"), [("t" * 37, (400, "bad_json"))])
def test_fencing_tokens_in_json(stream: Stream, token: str, expected: tuple[int, str]) -> None:
    reply = stream.append_json({"records": [{}], "fencing_token": token})
    assert reply.error == expected


@pytest.mark.parametrize("size", [2 * MIB + 1, 2**24 - 1])
def test_an_s2s_message_that_says_it_is_too_long(stream: Stream, size: int) -> None:
    body = encode_batch([Record()]) + size.to_bytes(3, "big") + bytes(16)
    ack, error = messages_in(stream.append_session(body).body)
    assert isinstance(ack, Message)
    assert isinstance(error, Terminal)
    assert (error.status, json.loads(error.body)["code"]) == (400, "bad_frame")
    assert stream.tail() == 1


def test_a_compressed_s2s_message_that_grows_too_large(stream: Stream) -> None:
    # Flag 0x40 says gzip. 2 MiB of zeros is one byte more than a message may hold.
    bomb = gzip.compress(bytes(2 * MIB))
    body = (len(bomb) + 1).to_bytes(3, "big") + b"\x40" + bomb
    (error,) = messages_in(stream.append_session(body).body)
    assert isinstance(error, Terminal)
    assert (error.status, json.loads(error.body)["code"]) == (400, "bad_frame")


def test_a_session_takes_more_than_one_body_may_hold(stream: Stream) -> None:
    batch = encode_batch([Record(LARGEST)])
    replies = messages_in(stream.append_session(batch * 4, S2S).body)
    assert [decode_append_ack(reply.body).end.seq_num for reply in replies] == [1, 2, 3, 4]
