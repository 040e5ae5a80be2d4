"""Errors as the service answers them: status and JSON body.

The service raises the same types that a client gets; `s2frames.error_bodies.parse_error` reads
what `error_body` writes. Codes and statuses are those of the server's `api/src/v1/error.rs`.
"""

from __future__ import annotations

from typing import Any

from s2frames.embedded.json_values import dump_json
from s2frames.errors import (
    FencingTokenMismatch,
    RangeNotSatisfiable,
    SeqNumMismatch,
    ServiceError,
)
from s2frames.records import StreamPosition

__all__ = ["error_body", "position_json", "service_error"]

_STATUSES = {
    "bad_frame": 400,
    "bad_header": 400,
    "bad_json": 400,
    "bad_path": 400,
    "bad_proto": 400,
    "bad_query": 400,
    "basin_not_found": 404,
    "stream_not_found": 404,
    "resource_already_exists": 409,
    "invalid": 422,
}


def service_error(code: str, message: str) -> ServiceError:
    """The error with this code of S2's, and the status that belongs to it."""
    return ServiceError(_STATUSES[code], code, message)


def error_body(error: ServiceError) -> bytes:
    """The JSON body with which the service answers, in a response or in a terminal message."""
    return dump_json(_error_json(error))


def _error_json(error: ServiceError) -> dict[str, Any]:
    if isinstance(error, SeqNumMismatch):
        return {"seq_num_mismatch": error.expected}
    if isinstance(error, FencingTokenMismatch):
        return {"fencing_token_mismatch": error.expected}
    if isinstance(error, RangeNotSatisfiable):
        return {"tail": position_json(error.tail)}
    return {"code": error.code, "message": error.message}


def position_json(position: StreamPosition) -> dict[str, int]:
    """A position as S2 writes it in JSON."""
    return {"seq_num": position.seq_num, "timestamp": position.timestamp}
