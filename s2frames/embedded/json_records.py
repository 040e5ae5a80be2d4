"""Records in JSON: append inputs in, acks and read batches out.

Names, values and bodies are text (UTF-8; what is not becomes U+FFFD on the way out), or base64
when the request asks for it with `s2-format: base64`.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from s2frames.embedded.error_bodies import position_json, service_error
from s2frames.embedded.json_values import (
    JsonError,
    as_list,
    as_object,
    as_text,
    as_u64,
    load_json,
    optional,
)
from s2frames.errors import LocalProtocolError, ServiceError
from s2frames.records import AppendAck, Header, Record, SequencedRecord, check_fencing_token
from s2frames.wire import AppendInput, ReadBatch

__all__ = ["append_ack_json", "parse_append_input", "read_batch_json"]


def parse_append_input(body: bytes, is_base64: bool) -> AppendInput:
    """The batch in a JSON body. Raises `JsonError`, or `ServiceError` 422 for bad base64."""
    value = as_object(load_json(body), "the body")
    decode = _decode_base64 if is_base64 else str.encode
    records = as_list(value.get("records"), "records")
    return AppendInput(
        [_parse_record(record, decode) for record in records],
        optional(value.get("match_seq_num"), "match_seq_num", as_u64),
        optional(value.get("fencing_token"), "fencing_token", _fencing_token),
    )


def _parse_record(value: Any, decode: Callable[[str], bytes]) -> Record:
    record = as_object(value, "a record")
    headers = as_list(record.get("headers", []), "headers")
    return Record(
        decode(as_text(record.get("body", ""), "body")),
        tuple(_parse_header(header, decode) for header in headers),
        optional(record.get("timestamp"), "timestamp", as_u64),
    )


def _parse_header(value: Any, decode: Callable[[str], bytes]) -> Header:
    parts = as_list(value, "a header")
    if len(parts) != 2:
        raise JsonError(f"a header is [name, value], not an array of {len(parts)}")
    name, text = (as_text(part, "a header's name or value") for part in parts)
    return decode(name), decode(text)


def _decode_base64(text: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _not_base64() from None
    if _encode_base64(data) != text:
        # Bits that belong to no byte are set.
        raise _not_base64()
    return data


def _not_base64() -> ServiceError:
    return service_error("invalid", "a name, value or body is not base64")


def _fencing_token(value: Any, what: str) -> str:
    try:
        return check_fencing_token(as_text(value, what))
    except LocalProtocolError as error:
        raise JsonError(str(error)) from None


def append_ack_json(ack: AppendAck) -> dict[str, Any]:
    """The ack as S2 writes it."""
    return {
        "start": position_json(ack.start),
        "end": position_json(ack.end),
        "tail": position_json(ack.tail),
    }


def read_batch_json(batch: ReadBatch, is_base64: bool) -> dict[str, Any]:
    """The batch as S2 writes it."""
    encode = _encode_base64 if is_base64 else _encode_text
    value: dict[str, Any] = {"records": [_record_json(r, encode) for r in batch.records]}
    if batch.tail is not None:
        value["tail"] = position_json(batch.tail)
    return value


def _record_json(
    record: SequencedRecord, encode: Callable[[bytes | memoryview], str]
) -> dict[str, Any]:
    value: dict[str, Any] = {"seq_num": record.seq_num, "timestamp": record.timestamp}
    if record.headers:
        value["headers"] = [[encode(name), encode(text)] for name, text in record.headers]
    if record.body:
        value["body"] = encode(record.body)
    return value


def _encode_base64(data: bytes | memoryview) -> str:
    return b64encode(data).decode()


def _encode_text(data: bytes | memoryview) -> str:
    return bytes(data).decode(errors="replace")
