"""The records of a stream as they are stored, by plain requests."""

from __future__ import annotations

from base64 import b64decode
from typing import Any
from urllib.parse import quote

import httpx

from s2frames.records import SequencedRecord

__all__ = ["read_records"]


def read_records(url: str, basin: str, stream: str) -> list[SequencedRecord]:
    """All records from the first to the tail."""
    headers = {"s2-basin": basin, "s2-format": "base64"}
    path = f"{url}/v1/streams/{quote(stream, safe='')}/records"
    records: list[SequencedRecord] = []
    with httpx.Client(headers=headers) as client:
        tail = client.get(f"{path}/tail").raise_for_status().json()["tail"]["seq_num"]
        while len(records) < tail:
            query = {"seq_num": len(records)}
            batch = client.get(path, params=query).raise_for_status().json()["records"]
            assert batch, f"record {len(records)} of {tail} is not there"
            records += map(_decode, batch)
    assert [record.seq_num for record in records] == list(range(len(records)))
    return records


def _decode(record: dict[str, Any]) -> SequencedRecord:
    return SequencedRecord(
        seq_num=record["seq_num"],
        timestamp=record["timestamp"],
        body=b64decode(record.get("body", "")),
        headers=tuple(
            (b64decode(name), b64decode(value)) for name, value in record.get("headers", ())
        ),
    )
