from __future__ import annotations

from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from s2frames.brief import brief
from s2frames.errors import (
    CertificateError,
    CodecError,
    ConnectError,
    FencingTokenMismatch,
    LocalProtocolError,
    RangeNotSatisfiable,
    RemoteProtocolError,
    S2FramesError,
    ScanLimitExceeded,
    SeqNumMismatch,
    ServiceError,
    TransportError,
    WriterConflict,
)
from s2frames.records import StreamPosition
from s2frames.retry import (
    Retry,
    RetryBudget,
    backoff,
    is_definite,
    is_effect_free,
    is_retryable,
)

# Every code of the service, its status, whether it may pass, whether it is promised that then
# nothing was done, and whether it is known to have had no effect.
CODES = [
    (400, "bad_frame", True, False, True),
    (400, "bad_header", False, False, True),
    (400, "bad_json", False, False, True),
    (400, "bad_path", False, False, True),
    (400, "bad_proto", True, False, True),
    (400, "bad_query", False, False, True),
    (400, "decryption_failed", False, False, True),
    (401, "authn", False, False, True),
    (403, "permission_denied", False, False, True),
    (403, "quota_exhausted", False, False, True),
    (404, "access_token_not_found", False, False, True),
    (404, "basin_not_found", False, False, True),
    (404, "stream_not_found", False, False, True),
    (408, "request_timeout", True, False, False),
    (409, "basin_deletion_pending", False, False, True),
    (409, "resource_already_exists", False, False, True),
    (409, "stream_deletion_pending", False, False, True),
    (409, "transaction_conflict", True, True, True),
    (422, "invalid", False, False, True),
    (429, "rate_limited", True, True, True),
    (499, "client_hangup", False, False, False),
    (500, "other", True, False, False),
    (500, "storage", True, False, False),
    (501, "not_implemented", False, False, False),
    (502, "hot_server", True, True, True),
    (503, "server_draining", True, True, True),
    (503, "unavailable", True, False, False),
    (504, "upstream_timeout", True, False, False),
]


@pytest.mark.parametrize(("status", "code", "passes", "is_free", "is_sure"), CODES)
def test_every_code_of_the_service(
    status: int, code: str, passes: bool, is_free: bool, is_sure: bool
) -> None:
    error = ServiceError(status, code, "no")
    assert is_retryable(error) is passes
    assert is_effect_free(error) is is_free
    assert is_definite(error) is is_sure


def broken_off(error: ServiceError) -> ServiceError:
    error.is_incomplete = True
    return error


@pytest.mark.parametrize(
    "status", [302, 400, 401, 403, 404, 408, 409, 412, 413, 416, 422, 429, 500]
)
def test_what_only_a_body_can_tell_is_asked_again(status: int) -> None:
    error = broken_off(ServiceError(status, None, ""))
    needs_body = status in (400, 409, 412, 416)
    assert is_retryable(error) is (needs_body or status in PASSING_STATUSES)
    assert is_effect_free(error) is needs_body
    assert is_definite(error) is (400 <= status < 500 and status != 408)
    # It was told.
    told = broken_off(ServiceError(status, "bad_query", "no"))
    assert not is_retryable(told)
    assert not is_effect_free(told)


@pytest.mark.parametrize(
    "error",
    [SeqNumMismatch(3), FencingTokenMismatch("t"), RangeNotSatisfiable(StreamPosition(1, 2))],
)
def test_what_did_not_hold_was_told(error: ServiceError) -> None:
    assert not is_retryable(broken_off(error))


STATUSES = sorted({200, 301, 400, 404, 408, 409, 412, 425, 429, 500, 501, 502, 503, 504, 599})
PASSING_STATUSES = {408, 429, 500, 502, 503, 504}


@pytest.mark.parametrize(("right", "code", "_passes", "_is_free", "_is_sure"), CODES)
@pytest.mark.parametrize("status", STATUSES)
def test_a_code_with_a_status_that_is_not_its_own(
    status: int, right: int, code: str, _passes: bool, _is_free: bool, _is_sure: bool
) -> None:
    if status != right:
        error = ServiceError(status, code, "no")
        assert not is_retryable(error)
        assert not is_effect_free(error)


@pytest.mark.parametrize("code", [None, "something_new", "", "RATE_LIMITED"])
@pytest.mark.parametrize("status", STATUSES)
def test_a_code_that_is_not_known_leaves_the_status(status: int, code: str | None) -> None:
    error = ServiceError(status, code, "no")
    assert is_retryable(error) is (status in PASSING_STATUSES)
    assert not is_effect_free(error)
    assert is_definite(error) is (400 <= status < 500 and status != 408)


@pytest.mark.parametrize(
    ("error", "passes", "is_free", "is_sure"),
    [
        (TransportError("lost"), True, False, False),
        (ConnectError("refused"), True, True, True),
        (CertificateError("self-signed"), False, False, True),
        (SeqNumMismatch(3), False, False, True),
        (FencingTokenMismatch("t"), False, False, True),
        (RangeNotSatisfiable(StreamPosition(1, 2)), False, False, True),
        (RemoteProtocolError("garbage"), False, False, False),
        (LocalProtocolError("closed"), False, False, False),
        (CodecError("no JSON"), False, False, False),
        (WriterConflict("two"), False, False, False),
        (ScanLimitExceeded(1, 2, 3), False, False, False),
        (S2FramesError("no"), False, False, False),
        # Not S2's words.
        (ServiceError(0, None, ""), False, False, False),
        (ServiceError(413, None, "<html>"), False, False, True),
        (ServiceError(502, None, "<html>"), True, False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_every_kind_of_error(
    error: S2FramesError, passes: bool, is_free: bool, is_sure: bool
) -> None:
    assert is_retryable(error) is passes
    assert is_effect_free(error) is is_free
    assert is_definite(error) is is_sure


@given(st.integers(0, 999), st.none() | st.sampled_from([code for _, code, *_ in CODES]))
def test_what_is_promised_to_have_had_no_effect_is_known_to_have_had_none(
    status: int, code: str | None
) -> None:
    error = ServiceError(status, code, "no")
    if is_effect_free(error):
        assert is_retryable(error)
        assert is_definite(error)


# Settings


def test_defaults() -> None:
    retry = Retry()
    assert (retry.max_seconds, retry.connect_seconds, retry.max_attempts) == (60.0, 3.0, None)
    # Those of the official clients.
    assert (retry.min_delay, retry.max_delay) == (0.1, 1.0)


@pytest.mark.parametrize("name", ["max_seconds", "connect_seconds", "min_delay", "max_delay"])
@pytest.mark.parametrize("value", [-1, -0.001, float("nan"), None, "1", True])
def test_refuses_what_is_no_time(name: str, value: Any) -> None:
    chosen: dict[str, Any] = {name: value}
    with pytest.raises(LocalProtocolError, match=f"{name} must be a number of seconds at least 0"):
        Retry(**chosen)


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True])
def test_refuses_a_number_of_attempts_below_1(value: Any) -> None:
    with pytest.raises(LocalProtocolError, match="max_attempts must be an int from 1"):
        Retry(max_attempts=value)


def test_refuses_a_least_delay_above_the_longest() -> None:
    with pytest.raises(LocalProtocolError, match=r"min_delay \(2 s\) .* max_delay \(1 s\)"):
        Retry(min_delay=2)
    assert Retry(min_delay=1).min_delay == 1


def test_retry_is_frozen_and_named() -> None:
    retry: Any = Retry(max_seconds=0, connect_seconds=0, min_delay=0, max_delay=0, max_attempts=1)
    with pytest.raises(FrozenInstanceError):
        retry.max_attempts = 2
    with pytest.raises(TypeError):
        Retry(60.0)  # type: ignore[call-arg]  # on purpose


# Delays


@pytest.mark.parametrize(
    ("failures", "delay"), [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.0), (6, 1.0), (9999, 1.0)]
)
def test_delays_double_up_to_the_longest(failures: int, delay: float) -> None:
    assert backoff(failures, Retry(), lambda: 0.0) == delay
    assert backoff(failures, Retry(), lambda: 0.5) == delay * 1.5


delays = st.floats(0, 1e6)
luck = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10**9), st.tuples(delays, delays), luck)
def test_delays_are_between_the_least_and_twice_the_longest(
    failures: int, bounds: tuple[float, float], random: float
) -> None:
    low, high = sorted(bounds)
    retry = Retry(min_delay=low, max_delay=high)
    delay = backoff(failures, retry, lambda: random)
    assert low <= delay <= 2 * high
    assert delay <= backoff(failures + 1, retry, lambda: random)
    assert delay >= backoff(failures, retry, lambda: 0.0)


# The budget

LOST = TransportError("lost")
REFUSED = ConnectError("refused")
DRAINING = ServiceError(503, "server_draining", "bye")


def make(random: float = 0.0, **options: Any) -> RetryBudget:
    return RetryBudget(Retry(**options), lambda: random)


def attempts_at(
    budget: RetryBudget, error: S2FramesError, start: float = 0.0, takes: float = 0.0
) -> list[float]:
    """When attempts begin that all fail with `error`, each after so many seconds."""
    times = [start]
    while (delay := budget.next_delay(error, times[-1] + takes)) is not None:
        times.append(times[-1] + takes + delay)
    return times


def test_a_minute_without_progress() -> None:
    budget = make()
    times = attempts_at(budget, LOST, 1000.0)
    assert times[:6] == pytest.approx([1000, 1000.1, 1000.3, 1000.7, 1001.5, 1002.5])
    assert 1059 < times[-1] <= 1060
    assert budget.failures == len(times) - 1
    assert budget.attempts == len(times)


def test_the_minute_counts_from_the_first_failure_not_from_the_first_attempt() -> None:
    times = attempts_at(make(), LOST, takes=8.0)
    assert 8 + 60 - 9 <= times[-1] <= 8 + 60


def test_the_last_attempt_may_be_at_the_limit_and_not_after_it() -> None:
    assert make(max_seconds=0.1).next_delay(LOST, 0.0) == 0.1
    assert make(max_seconds=0.0999).next_delay(LOST, 0.0) is None
    assert make(max_seconds=0).next_delay(LOST, 0.0) is None
    assert make(max_seconds=0, min_delay=0).next_delay(LOST, 5.0) == 0


@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_attempts(most: int) -> None:
    budget = make(max_attempts=most)
    assert len(attempts_at(budget, LOST)) == most
    assert budget.attempts == most


def test_nobody_there_is_given_three_seconds() -> None:
    assert attempts_at(make(), REFUSED) == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 2.5])
    # A connection that was made and lost is something else.
    assert attempts_at(make(), LOST)[-1] > 59


# What a wrong address, port or scheme ends in, and what does not; how long each is tried before
# the service has answered once, and afterwards. None: it is not tried again.
TROUBLE: list[tuple[S2FramesError, float | None, float | None]] = [
    (ConnectError("refused"), 3, 60),
    (TransportError.broken_off("reset"), 3, 60),
    # A service may be slow, and a batch on a slow line.
    (TransportError("no answer in time"), 60, 60),
    (CertificateError("self-signed"), None, None),
    (RemoteProtocolError("the answer is not HTTP"), None, None),
    # Pages of another server, or of a proxy that has none behind it.
    (ServiceError(301, None, ""), None, None),
    (ServiceError(400, None, ""), None, None),
    (ServiceError(404, None, ""), None, None),
    (ServiceError(405, None, ""), None, None),
    (ServiceError(413, None, ""), None, None),
    (ServiceError(502, None, ""), 60, 60),
    (ServiceError(503, None, ""), 60, 60),
    (ServiceError(504, None, ""), 60, 60),
    (ServiceError(503, "unavailable", ""), 60, 60),
]


@pytest.mark.parametrize(("error", "before", "after"), TROUBLE, ids=lambda value: brief(value)[:40])
def test_how_long_each_kind_of_trouble_is_tried(
    error: S2FramesError, before: float | None, after: float | None
) -> None:
    for seconds, has_answered in ((before, False), (after, True)):
        assert is_retryable(error) is (seconds is not None)
        if seconds is not None:
            budget = make()
            if has_answered:
                budget.note_answer()
            last = attempts_at(budget, error)[-1]
            assert seconds - 2 < last <= seconds


def test_once_somebody_answered_it_is_given_a_minute() -> None:
    for note in (RetryBudget.note_answer, RetryBudget.note_progress):
        budget = make()
        note(budget)
        assert attempts_at(budget, REFUSED)[-1] > 59


def test_an_answer_is_no_progress() -> None:
    budget = make(max_attempts=3)
    budget.next_delay(LOST, 0.0)
    budget.note_answer()
    assert (budget.failures, budget.attempts) == (1, 2)
    assert budget.next_delay(LOST, 0.0) == 0.2
    assert budget.next_delay(LOST, 0.0) is None


def test_progress_begins_anew() -> None:
    budget = make(max_attempts=3)
    for now in (0.0, 100.0, 200.0):
        assert budget.next_delay(LOST, now) == 0.1
        assert budget.next_delay(LOST, now + 1) == 0.2
        budget.note_progress()
        assert (budget.failures, budget.attempts) == (0, 1)


def test_the_time_that_the_service_asks_for() -> None:
    error = ServiceError(429, "rate_limited", "slow down")
    error.retry_after = 2.5
    assert make().next_delay(error, 0.0) == 2.5
    # It is the least, and does not count when it would be less.
    error.retry_after = 0.01
    assert make(random=0.5).next_delay(error, 0.0) == pytest.approx(0.15)
    error.retry_after = 61.0
    assert make().next_delay(error, 0.0) is None


def test_a_server_that_is_leaving_is_free_once_a_minute() -> None:
    budget = make(max_attempts=2)
    assert budget.next_delay(DRAINING, 0.0) == 0.1
    assert budget.failures == 0
    assert budget.next_delay(DRAINING, 59.9) == 0.1
    assert budget.failures == 1
    assert budget.next_delay(DRAINING, 59.95) is None
    assert budget.next_delay(DRAINING, 60.0) == 0.1
    # Another one that cannot be reached is not free.
    assert make(max_attempts=1).next_delay(ServiceError(503, "unavailable", ""), 0.0) is None


def test_the_wish_for_another_connection_is_followed_once_a_minute() -> None:
    budget = make()
    follows = [budget.may_reconnect(now) for now in (5.0, 5.0, 64.9, 65.0, 100.0, 125.0)]
    assert follows == [True, False, False, True, False, True]
    # What was not followed does not put the next one off.
    assert budget.failures == 0


def test_both_wishes_share_the_minute() -> None:
    budget = make(max_attempts=1)
    assert budget.may_reconnect(0.0)
    assert budget.next_delay(DRAINING, 30.0) is None
    assert budget.next_delay(DRAINING, 60.0) == 0.1
    assert not budget.may_reconnect(61.0)


errors = st.sampled_from(
    [LOST, REFUSED, DRAINING, ServiceError(500, "other", ""), ServiceError(502, None, "")]
)


@given(
    st.lists(st.tuples(errors, st.floats(0, 30), st.integers(0, 5)), max_size=40),
    st.integers(1, 6),
    luck,
)
def test_whatever_fails_the_bounds_hold(
    failed: list[tuple[S2FramesError, float, int]], most: int, random: float
) -> None:
    budget = make(random, max_attempts=most)
    now, since, attempts = 0.0, None, 0
    for error, takes, progress in failed:
        if not progress:
            budget.note_progress()
            since, attempts = None, 0
        now += takes
        before = budget.failures
        delay = budget.next_delay(error, now)
        if delay is None:
            return
        assert 0.1 <= delay <= 2.0
        now += delay
        if budget.failures > before:
            attempts += 1
            since = now - delay if since is None else since
            assert now <= since + 60
            assert attempts < most
        else:
            assert error is DRAINING


def test_a_service_that_drains_says_when_to_come_back() -> None:
    budget = RetryBudget(Retry(), lambda: 0.0)
    draining = ServiceError(503, "server_draining", "later")
    draining.retry_after = 2.5
    assert budget.next_delay(draining, 0.0) == 2.5
    assert budget.failures == 0
    # Longer than anyone waits: it is not followed, and not free.
    draining.retry_after = 61.0
    assert budget.next_delay(draining, 100.0) is None


def test_a_server_that_drains_may_ask_for_all_the_time_there_is_and_no_more() -> None:
    draining = ServiceError(503, "server_draining", "later")
    draining.retry_after = 5.0
    budget = make(max_seconds=5.0)
    assert budget.next_delay(draining, 0.0) == 5.0
    # It is free: nothing has failed.
    assert (budget.failures, budget.attempts) == (0, 1)
    draining.retry_after = 5.001
    assert make(max_seconds=5.0).next_delay(draining, 0.0) is None
