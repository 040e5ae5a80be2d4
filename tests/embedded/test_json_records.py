from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given

from s2frames.embedded.json_records import append_ack_json, parse_append_input, read_batch_json
from s2frames.embedded.json_values import JsonError
from s2frames.errors import ServiceError
from s2frames.records import AppendAck, Record, SequencedRecord, StreamPosition
from s2frames.u64 import U64_MAX
from s2frames.wire import AppendInput, ReadBatch
from strategies import records as record_strategy


def parse(value: Any, is_base64: bool = False) -> AppendInput:
    return parse_append_input(json.dumps(value).encode(), is_base64)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"records": []}, AppendInput([])),
        ({"records": [{}], "more": 1}, AppendInput([Record()])),
        (
            {"records": [{"body": "b\u00e9", "headers": [["n", "v"], ["", ""]], "timestamp": 5}]},
            AppendInput([Record("b\u00e9".encode(), ((b"n", b"v"), (b"", b"")), 5)]),
        ),
        (
            {"records": [{"timestamp": None}], "match_seq_num": None, "fencing_token": None},
            AppendInput([Record()]),
        ),
        (
            {"records": [], "match_seq_num": U64_MAX, "fencing_token": ""},
            AppendInput([], U64_MAX, ""),
        ),
    ],
)
def test_append_inputs(value: Any, expected: AppendInput) -> None:
    assert parse(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"records": None},
        {"records": {}},
        {"records": ["x"]},
        {"records": [{"body": None}]},
        {"records": [{"body": 5}]},
        {"records": [{"body": "\ud800"}]},
        {"records": [{"headers": None}]},
        {"records": [{"headers": {}}]},
        {"records": [{"headers": [["n"]]}]},
        {"records": [{"headers": [["n", "v", "w"]]}]},
        {"records": [{"headers": ["nv"]}]},
        {"records": [{"headers": [["n", None]]}]},
        {"records": [{"headers": [["n", "\udfff"]]}]},
        {"records": [{"timestamp": -1}]},
        {"records": [{"timestamp": 1.0}]},
        {"records": [{"timestamp": U64_MAX + 1}]},
        {"records": [], "match_seq_num": "0"},
        {"records": [], "fencing_token": 0},
        {"records": [], "fencing_token": "t" * 37},
        {"records": [], "fencing_token": "\ud800"},
    ],
)
def test_what_is_no_append_input(value: Any) -> None:
    with pytest.raises(JsonError):
        parse(value)


@pytest.mark.parametrize(
    "text", ["a", "YQ", "YQ=", "Y Q==", "YQ==\n", "YR==", "_w==", "\u00e9", "="]
)
def test_what_is_no_base64(text: str) -> None:
    for record in ({"body": text}, {"headers": [[text, ""]]}, {"headers": [["", text]]}):
        with pytest.raises(ServiceError) as raised:
            parse({"records": [record]}, is_base64=True)
        assert (raised.value.status, raised.value.code) == (422, "invalid")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@given(record_strategy)
def test_base64_carries_any_bytes(record: Record) -> None:
    value = {
        "body": b64(record.body),
        "headers": [[b64(name), b64(text)] for name, text in record.headers],
        "timestamp": record.timestamp,
    }
    assert parse({"records": [value]}, is_base64=True).records == [record]
    sequenced = SequencedRecord(7, 8, record.headers, record.body)
    written = read_batch_json(ReadBatch([sequenced]), is_base64=True)["records"][0]
    assert written.get("body", "") == value["body"]
    assert written.get("headers", []) == value["headers"]


BATCH = ReadBatch(
    [
        SequencedRecord(7, 11, ((b"kind", b"a\xffz"),), b"\xf0\x28\x8c\xbc"),
        SequencedRecord(8, 12, ((b"", b"fence"),), b""),
        SequencedRecord(9, 13, (), memoryview(b"text")),
    ],
    StreamPosition(10, 13),
)


def test_text_replaces_what_is_not_utf_8() -> None:
    assert read_batch_json(BATCH, is_base64=False) == {
        "records": [
            {
                "seq_num": 7,
                "timestamp": 11,
                "headers": [["kind", "a\ufffdz"]],
                "body": "\ufffd(\ufffd\ufffd",
            },
            {"seq_num": 8, "timestamp": 12, "headers": [["", "fence"]]},
            {"seq_num": 9, "timestamp": 13, "body": "text"},
        ],
        "tail": {"seq_num": 10, "timestamp": 13},
    }


def test_a_batch_without_records_or_tail() -> None:
    assert read_batch_json(ReadBatch([]), is_base64=True) == {"records": []}


def test_acks() -> None:
    ack = AppendAck(StreamPosition(1, 2), StreamPosition(3, 4), StreamPosition(5, 6))
    assert append_ack_json(ack) == {
        "start": {"seq_num": 1, "timestamp": 2},
        "end": {"seq_num": 3, "timestamp": 4},
        "tail": {"seq_num": 5, "timestamp": 6},
    }
