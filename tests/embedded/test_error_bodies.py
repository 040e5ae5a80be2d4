from __future__ import annotations

import pytest

from s2frames.embedded.error_bodies import error_body, position_json, service_error
from s2frames.error_bodies import parse_error
from s2frames.errors import (
    FencingTokenMismatch,
    RangeNotSatisfiable,
    SeqNumMismatch,
    ServiceError,
)
from s2frames.records import StreamPosition
from s2frames.u64 import U64_MAX


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("bad_frame", 400),
        ("bad_header", 400),
        ("bad_json", 400),
        ("bad_path", 400),
        ("bad_proto", 400),
        ("bad_query", 400),
        ("basin_not_found", 404),
        ("stream_not_found", 404),
        ("resource_already_exists", 409),
        ("invalid", 422),
    ],
)
def test_each_code_has_its_status(code: str, status: int) -> None:
    error = service_error(code, "why")
    assert (error.status, error.code, error.message) == (status, code, "why")
    assert error_body(error) == b'{"code":"%s","message":"why"}' % code.encode()


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (SeqNumMismatch(0), b'{"seq_num_mismatch":0}'),
        (SeqNumMismatch(U64_MAX), b'{"seq_num_mismatch":18446744073709551615}'),
        (FencingTokenMismatch(""), b'{"fencing_token_mismatch":""}'),
        (FencingTokenMismatch('a"\u00e9'), '{"fencing_token_mismatch":"a\\"\u00e9"}'.encode()),
        (
            RangeNotSatisfiable(StreamPosition(3, 4)),
            b'{"tail":{"seq_num":3,"timestamp":4}}',
        ),
    ],
)
def test_errors_with_shapes_of_their_own(error: ServiceError, body: bytes) -> None:
    assert error_body(error) == body
    parsed = parse_error(error.status, body)
    assert type(parsed) is type(error)
    assert vars(parsed) == vars(error)


def test_the_client_reads_what_the_service_writes() -> None:
    error = service_error("stream_not_found", "no 'room/1'")
    parsed = parse_error(error.status, error_body(error))
    assert (parsed.status, parsed.code, parsed.message) == (404, error.code, error.message)


def test_a_position_in_json() -> None:
    assert position_json(StreamPosition(1, 2)) == {"seq_num": 1, "timestamp": 2}
