"""Command records: fence, trim, and what is neither."""

from __future__ import annotations

import json

import pytest

from real_server.places import every_transport
from real_server.streams import Stream, eventually
from s2_bodies import bodies, encode_batch, messages_in
from s2frames.records import Header, Record, fence, trim
from s2frames.s2s import Terminal

U64_MAX = 2**64 - 1


def command(name: bytes, payload: bytes = b"", *more: Header) -> Record:
    return Record(payload, ((b"", name), *more))


MALFORMED = [
    command(b""),
    command(b"stop"),
    command(b"Fence"),
    command(b"fence "),
    command(b"fence", b"t" * 37),
    command(b"fence", b"\xff"),
    command(b"trim"),
    command(b"trim", bytes(7)),
    command(b"trim", bytes(9)),
    command(b"trim", b"AAAAAAAAAAA="),
    command(b"trim", bytes(8), (b"n", b"v")),
]


@every_transport
@pytest.mark.parametrize("record", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_commands(stream: Stream, record: Record) -> None:
    assert stream.append([Record(), record]).error == (422, "invalid")
    (message,) = messages_in(stream.append_session(encode_batch([Record(), record])).body)
    assert isinstance(message, Terminal)
    assert (message.status, json.loads(message.body)["code"]) == (422, "invalid")
    assert stream.tail() == 0


@pytest.mark.parametrize(
    "record",
    [
        fence(""),
        fence("t" * 36),
        fence("\u00e9" * 18),
        command(b"fence", b"\x00"),
        trim(0),
        trim(1),
    ],
    ids=range(6),
)
def test_commands_are_records(stream: Stream, record: Record) -> None:
    stream.append_ok(*bodies("a"))
    assert stream.append_ok(record).start.seq_num == 1
    (batch,) = stream.read_batches("seq_num=1&count=1")
    (read,) = batch.records
    assert (read.seq_num, read.headers, read.body) == (1, record.headers, record.body)


def test_a_command_in_json(stream: Stream) -> None:
    value = {"records": [{"headers": [["", "fence"]], "body": "token"}]}
    assert stream.append_json(value).status == 200
    assert stream.append([Record()], fencing_token="").json == {"fencing_token_mismatch": "token"}
    reply = stream.append_json({"records": [{"headers": [["", "fence"]], "body": "x" * 37}]})
    assert reply.error == (422, "invalid")
    (record,) = stream.read("seq_num=0&count=1").json["records"]
    assert (record["headers"], record["body"]) == ([["", "fence"]], "token")


def test_a_batch_with_a_malformed_command_has_no_effect(stream: Stream) -> None:
    assert stream.append([fence("token"), command(b"stop")]).status == 422
    assert stream.append([Record()], fencing_token="").status == 200


# What is left of records 0 to 4 and the trim, which is number 5.
@pytest.mark.parametrize(
    ("before", "first"),
    [(0, 0), (1, 1), (3, 3), (5, 5), (6, 6), (7, 6), (U64_MAX, 6)],
)
def test_a_trim_removes_what_is_before(stream: Stream, before: int, first: int) -> None:
    stream.append_ok(*bodies("0", "1", "2", "3", "4"))
    stream.append_ok(trim(before))
    stream.append_ok(*bodies("6"))
    for query in ("seq_num=0&count=1", "tail_offset=100&count=1", "timestamp=0&count=1"):
        eventually(lambda: first_record(stream) >= first)
        assert first_record(stream, query) == first
    assert stream.tail() == 7


def first_record(stream: Stream, query: str = "seq_num=0&count=1") -> int:
    """The number of the first record that is left."""
    (batch,) = stream.read_batches(query)
    return batch.records[0].seq_num


def test_a_trim_never_goes_back(stream: Stream) -> None:
    stream.append_ok(*bodies("0", "1", "2"))
    stream.append_ok(trim(2))
    stream.append_ok(trim(1))
    eventually(lambda: first_record(stream) >= 2)
    assert first_record(stream) == 2


def test_a_stream_that_is_trimmed_to_its_tail(stream: Stream) -> None:
    stream.append_ok(*bodies("0", "1"), trim(U64_MAX))
    assert stream.tail() == 3
    eventually(lambda: stream.read("seq_num=0").json == {"records": []})
    assert stream.read_batches("seq_num=0&count=5") == []
    assert stream.append_ok(*bodies("3")).start.seq_num == 3
    assert stream.bodies() == [b"3"]


def test_fence_and_trim_in_one_batch(stream: Stream) -> None:
    stream.append_ok(*bodies("0", "1"), fence("mine"))
    assert stream.append([fence(""), trim(2)], 3, "mine").status == 200
    assert stream.append(bodies("5"), fencing_token="").status == 200
    eventually(lambda: first_record(stream) >= 2)
    (batch,) = stream.read_batches("seq_num=0&count=10")
    assert [record.seq_num for record in batch.records] == [2, 3, 4, 5]
