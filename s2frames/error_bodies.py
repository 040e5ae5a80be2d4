"""The bodies of S2's errors: a `ServiceError` from whatever came with a bad status.

What is none of S2's is what something on the way says, or another server: of that only short plain
text is quoted, never a page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from s2frames.errors import (
    FencingTokenMismatch,
    RangeNotSatisfiable,
    SeqNumMismatch,
    ServiceError,
)
from s2frames.peer_json import is_utf8
from s2frames.records import StreamPosition
from s2frames.u64 import is_u64

__all__ = ["describe_body", "media_type", "parse_error", "parse_position"]

# The longest body that is none of S2's and is quoted: some words.
_MAX_QUOTED_BYTES = 200

# A media type, as RFC 6838 (4.2) restricts its names, shorter than it allows.
_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,40}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,40}"
)

# The longest host name there is (RFC 1035, 2.3.4).
_MAX_HOST_CHARS = 253

# A longer wait than these milliseconds (16 weeks) is none.
_MAX_RETRY_AFTER_DIGITS = 10


def parse_error(
    status: int, body: bytes | memoryview, headers: Mapping[str, str] | None = None
) -> ServiceError:
    """The error in an unary response or in a terminal message (the bodies are the same).

    A body that is none of S2's shapes (a proxy's page, say) still gives a `ServiceError`. Header
    names are in lower case.
    """
    headers = {} if headers is None else headers
    error = _parse_body(status, body, headers)
    retry_after = _parse_retry_after(headers.get("retry-after-ms", ""))
    if retry_after is not None:
        error.retry_after = retry_after
    return error


def _parse_retry_after(value: str) -> float | None:
    """The seconds in a header of milliseconds; None for anything else."""
    is_number = value.isascii() and value.isdigit() and len(value) <= _MAX_RETRY_AFTER_DIGITS
    return int(value) / 1000 if is_number else None


def _parse_body(status: int, body: bytes | memoryview, headers: Mapping[str, str]) -> ServiceError:
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
    if 300 <= status <= 399:
        return ServiceError(status, None, _redirected(status, headers.get("location", "")))
    said = describe_body(body, headers)
    hint = _BODY_LIMIT if status == 413 else ""
    return ServiceError(status, None, f"status {status}, not in S2's words: {said}{hint}")


# S2 takes whatever fits a batch.
_BODY_LIMIT = (
    "; something on the way, a proxy say, limits how large a request may be: let it allow 2 MiB at "
    "least, since a batch has up to 1 MiB; where it does not allow more than that, burst_batches=1 "
    "makes every batch a request of its own"
)


def _redirected(status: int, location: str) -> str:
    return (
        f"status {status}, a redirect to {_origin(location)}, which is not followed: it would get "
        "the token and the messages; if S2 is there, make that the endpoint"
    )


def _origin(location: str) -> str:
    """Where a redirect leads to, without what may be secret in it."""
    try:
        parts = urlsplit(location)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "what is no URL"
    if not location:
        return "another place, which it does not name"
    if not (location.isascii() and location.isprintable()):
        return "what is no URL"
    if not parts.netloc:
        return "another path there"
    if parts.scheme not in ("", "http", "https") or not host or len(host) > _MAX_HOST_CHARS:
        return "what is no URL"
    shown = f"[{host}]" if ":" in host else host
    scheme = f"{parts.scheme}:" if parts.scheme else ""
    return f"{scheme}//{shown}" + ("" if port is None else f":{port}")


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


def describe_body(body: bytes | memoryview, headers: Mapping[str, str] | None = None) -> str:
    """A body that is none of S2's, for a message: what it says, or what and how long it is."""
    if not len(body):
        return "nothing"
    text = _quotable(bytes(body[: _MAX_QUOTED_BYTES + 1]))
    return f"{media_type(headers or {})}, {len(body)} bytes" if text is None else repr(text)


def _quotable(body: bytes) -> str | None:
    """The text in a body that may be quoted; None for what is long, markup or binary.

    What may repeat the request's headers, the token among them, is not quoted either.
    """
    try:
        text = body.decode().strip()
    except UnicodeDecodeError:
        return None
    is_plain = " ".join(text.split()).isprintable()
    is_page = "<" in text or "bearer" in text.lower()
    return text if len(body) <= _MAX_QUOTED_BYTES and is_plain and not is_page else None


def media_type(headers: Mapping[str, str]) -> str:
    """The media type of an answer, for a message. Header names are in lower case."""
    found = _MEDIA_TYPE.match(headers.get("content-type", ""))
    return found[0] if found else "of no known type"
