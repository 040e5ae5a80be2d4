"""The bodies of S2's errors: a `ServiceError` from whatever came with a bad status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from s2frames.errors import (
    FencingTokenMismatch,
    RangeNotSatisfiable,
    SeqNumMismatch,
    ServiceError,
)
from s2frames.peer_json import is_utf8
from s2frames.records import StreamPosition
from s2frames.u64 import is_u64

__all__ = ["excerpt", "parse_error", "parse_position"]

# How much of an answer that is no S2 error body goes into a message.
_EXCERPT_BYTES = 200

# A longer wait than these milliseconds (16 weeks) is none.
_MAX_RETRY_AFTER_DIGITS = 10


def parse_error(
    status: int, body: bytes | memoryview, headers: Mapping[str, str] | None = None
) -> ServiceError:
    """The error in an unary response or in a terminal message (the bodies are the same).

    A body that is none of S2's shapes (a proxy's page, say) still gives a `ServiceError`. Header
    names are in lower case.
    """
    error = _parse_body(status, body)
    retry_after = _parse_retry_after((headers or {}).get("retry-after-ms", ""))
    if retry_after is not None:
        error.retry_after = retry_after
    return error


def _parse_retry_after(value: str) -> float | None:
    """The seconds in a header of milliseconds; None for anything else."""
    is_number = value.isascii() and value.isdigit() and len(value) <= _MAX_RETRY_AFTER_DIGITS
    return int(value) / 1000 if is_number else None


def _parse_body(status: int, body: bytes | memoryview) -> ServiceError:
    value = _parse_object(body)
    if status == 412:
        expected = value.get("seq_num_mismatch")
        if is_u64(expected):
            return SeqNumMismatch(expected)
        token = value.get("fencing_token_mismatch")
        if isinstance(token, str) and is_utf8(token):
            return FencingTokenMismatch(token)
    if status == 416:
        tail = parse_position(value.get("tail"))
        if tail is not None:
            return RangeNotSatisfiable(tail)
    code, message = value.get("code"), value.get("message")
    if isinstance(code, str) and isinstance(message, str) and is_utf8(code + message):
        return ServiceError(status, code, message)
    return ServiceError(status, None, f"status {status}, not in S2's words: {excerpt(body)!r}")


def parse_position(value: Any) -> StreamPosition | None:
    """The position in S2's JSON object; None for anything else."""
    if not isinstance(value, dict):
        return None
    seq_num, timestamp = value.get("seq_num"), value.get("timestamp")
    if not (is_u64(seq_num) and is_u64(timestamp)):
        return None
    return StreamPosition(seq_num, timestamp)


def _parse_object(body: bytes | memoryview) -> dict[str, Any]:
    try:
        value = json.loads(bytes(body))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def excerpt(body: bytes | memoryview) -> str:
    """The beginning of a body that is none of S2's, for a message."""
    return bytes(body[:_EXCERPT_BYTES]).decode(errors="replace")
