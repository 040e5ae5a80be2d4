from __future__ import annotations

from typing import Any

import pytest

from s2frames.errors import Outcome, S2FramesError, ServiceError, TransportError
from s2frames.http import Request
from s2frames.operation import Operation, Plan
from s2frames.rest import (
    MAX_REQUEST_TOKEN_BYTES,
    Call,
    Provisioned,
    check_tail,
    create_basin,
    create_stream,
    delete_basin,
    delete_stream,
    ensure_stream,
    get_stream_config,
    list_streams,
)
from s2frames.rest_plans import call_plan, make_request_token
from s2frames.retry import Retry
from s2frames.session import OpenRequest
from s2frames.settings import Endpoints, Settings

SETTINGS = Settings(
    endpoints=Endpoints.at("http://localhost"), retry=Retry(min_delay=0, max_delay=0)
)
BASIN, STREAM = "test-basin", "room/1"

LOST = TransportError("the connection broke")

# What an attempt can come to: an error, or status and body.
Result = S2FramesError | tuple[int, bytes]


def failure(status: int, code: str) -> tuple[int, bytes]:
    return status, b'{"code":"%b","message":"so it is"}' % code.encode()


BASIN_GONE = failure(404, "basin_not_found")
STREAM_GONE = failure(404, "stream_not_found")
BUSY = failure(429, "rate_limited")
UNAVAILABLE = failure(503, "unavailable")
EXISTS = failure(409, "resource_already_exists")
INFO = b'{"name":"x","created_at":"2026-01-01T00:00:00Z","deleted_at":null}'
TAIL = b'{"tail":{"seq_num":5,"timestamp":6}}'


def carry_out(plan: Plan[Any], *results: Result) -> tuple[Operation[Any], list[Request]]:
    """Let each attempt end in its result; gives the operation and the requests."""
    operation = Operation(plan, SETTINGS, random=lambda: 0.0)
    requests: list[Request] = []
    left = list(results)
    while not operation.is_over:
        for action in operation.data_to_send(0.0):
            if isinstance(action, OpenRequest):
                requests.append(action.request)
                end_in(operation, action.request_id, left.pop(0))
        operation.handle_timeout(0.0)
    assert not left, "there were fewer attempts"
    return operation, requests


def end_in(operation: Operation[Any], number: int, result: Result) -> None:
    if isinstance(result, S2FramesError):
        operation.connection_lost(number, result, 0.0)
        return
    status, body = result
    operation.receive_response(number, status, {}, 0.0)
    operation.receive_data(number, body, 0.0)
    operation.receive_eof(number, 0.0)


# What is tried again


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (check_tail(SETTINGS, BASIN, STREAM), (200, TAIL)),
        (get_stream_config(SETTINGS, BASIN, STREAM), (200, b"{}")),
        (list_streams(SETTINGS, BASIN), (200, b'{"streams":[],"has_more":false}')),
        (ensure_stream(SETTINGS, BASIN, STREAM), (201, INFO)),
        (create_stream(SETTINGS, BASIN, STREAM, request_token="t"), (201, INFO)),
        (create_basin(SETTINGS, BASIN, request_token="t"), (201, INFO)),
        (delete_stream(SETTINGS, BASIN, STREAM), (202, b"")),
        (delete_basin(SETTINGS, BASIN), (202, b"")),
    ],
    ids=lambda value: value.request.method if isinstance(value, Call) else "",
)
def test_what_may_be_repeated_is(call: Call[Any], answer: Result) -> None:
    operation, requests = carry_out(call_plan(call), LOST, UNAVAILABLE, BUSY, answer)
    assert operation.result() == call.parse(*status_headers_body(answer))
    assert requests == [call.request] * 4


def status_headers_body(result: Result) -> tuple[int, dict[str, str], bytes]:
    assert isinstance(result, tuple)
    return result[0], {}, result[1]


@pytest.mark.parametrize("result", [LOST, UNAVAILABLE])
def test_a_create_without_a_token_is_tried_again_only_where_nothing_was_done(
    result: Result,
) -> None:
    call = create_stream(SETTINGS, BASIN, STREAM)
    operation, _ = carry_out(call_plan(call), BUSY, result)
    with pytest.raises(S2FramesError) as raised:
        operation.result()
    assert raised.value.outcome is Outcome.UNKNOWN


def test_ensure_tells_what_the_last_attempt_did() -> None:
    operation, _ = carry_out(call_plan(ensure_stream(SETTINGS, BASIN, STREAM)), LOST, (201, INFO))
    assert operation.result() is Provisioned.CREATED


# Deleting


@pytest.mark.parametrize(
    ("call", "gone"),
    [
        (delete_stream(SETTINGS, BASIN, STREAM), STREAM_GONE),
        (delete_stream(SETTINGS, BASIN, STREAM), BASIN_GONE),
        (delete_basin(SETTINGS, BASIN), BASIN_GONE),
    ],
)
@pytest.mark.parametrize("before", [(LOST,), (UNAVAILABLE,), (LOST, BUSY), (BUSY, LOST, LOST)])
def test_what_is_gone_after_an_attempt_in_doubt_was_deleted(
    call: Call[None], gone: Result, before: tuple[Result, ...]
) -> None:
    operation, _ = carry_out(call_plan(call), *before, gone)
    assert operation.result() is None


@pytest.mark.parametrize("before", [(), (BUSY,), (BUSY, BUSY)])
def test_what_was_gone_before_was_not_deleted(before: tuple[Result, ...]) -> None:
    operation, _ = carry_out(
        call_plan(delete_stream(SETTINGS, BASIN, STREAM)), *before, STREAM_GONE
    )
    with pytest.raises(ServiceError, match="stream_not_found") as raised:
        operation.result()
    assert raised.value.outcome is Outcome.NOT_APPLIED


def test_a_page_of_a_proxy_does_not_say_that_something_is_gone() -> None:
    plan = call_plan(delete_stream(SETTINGS, BASIN, STREAM))
    operation, _ = carry_out(plan, LOST, (404, b"<html>"))
    with pytest.raises(ServiceError, match="status 404, not in S2's words") as raised:
        operation.result()
    assert raised.value.outcome is Outcome.UNKNOWN


def test_what_is_not_there_to_be_read_is_an_error_after_any_attempt() -> None:
    operation, _ = carry_out(call_plan(check_tail(SETTINGS, BASIN, STREAM)), LOST, STREAM_GONE)
    with pytest.raises(ServiceError, match="stream_not_found"):
        operation.result()


def test_a_create_that_finds_something_else_there_is_an_error() -> None:
    call = create_stream(SETTINGS, BASIN, STREAM, request_token="t")
    operation, _ = carry_out(call_plan(call), LOST, EXISTS)
    with pytest.raises(ServiceError, match="resource_already_exists"):
        operation.result()


# Tokens


def test_request_tokens_are_what_the_calls_take() -> None:
    numbers = iter(n / 1000 for n in range(1000))
    tokens = [make_request_token(lambda: next(numbers)) for _ in range(40)]
    assert len(set(tokens)) == 40
    for token in tokens:
        assert token.isalnum()
        assert token.isascii()
        assert len(token) <= MAX_REQUEST_TOKEN_BYTES
        call = create_stream(SETTINGS, BASIN, STREAM, request_token=token)
        assert call.request.headers["s2-request-token"] == token


def test_the_ends_of_the_random_range_make_tokens() -> None:
    assert make_request_token(lambda: 0.0) == "a" * 22
    assert make_request_token(lambda: 1 - 2**-53) == "9" * 22
