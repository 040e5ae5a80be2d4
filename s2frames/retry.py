"""What may be tried again, and after how long: pure functions, and the count of what was tried.

The table of codes is that of the server's `api/src/v1/error.rs` (`is_retryable`,
`has_no_side_effects`), the delays are those of the official clients (`sdk/src/retry.rs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import Attribute, define, field, frozen

from s2frames.checks import check_int, check_seconds
from s2frames.errors import (
    CertificateError,
    ConnectError,
    LocalProtocolError,
    S2FramesError,
    ServiceError,
    TransportError,
)

__all__ = [
    "Retry",
    "RetryBudget",
    "backoff",
    "is_definite",
    "is_effect_free",
    "is_retryable",
]

# The codes that S2 sends with each status that may pass. Other codes with these statuses, and
# these codes with another status, do not. The first two are not among the server's own: but what
# left here well is bad there when the way cut it off, and left the way back whole. (JSON is short,
# and may say what the server does not know.)
_PASSING_CODES: Mapping[str, int] = {
    "bad_frame": 400,
    "bad_proto": 400,
    "request_timeout": 408,
    "transaction_conflict": 409,
    "rate_limited": 429,
    "other": 500,
    "storage": 500,
    "hot_server": 502,
    "server_draining": 503,
    "unavailable": 503,
    "upstream_timeout": 504,
}

# Codes that do not pass, whatever the status says. `client_hangup` is told to nobody.
_LASTING_CODES = frozenset(
    (
        "access_token_not_found",
        "authn",
        "bad_header",
        "bad_json",
        "bad_path",
        "bad_query",
        "basin_deletion_pending",
        "basin_not_found",
        "client_hangup",
        "decryption_failed",
        "invalid",
        "not_implemented",
        "permission_denied",
        "quota_exhausted",
        "resource_already_exists",
        "stream_deletion_pending",
        "stream_not_found",
    )
)

# Statuses that may pass when the code is none of S2's: a proxy's, say.
_PASSING_STATUSES = frozenset((408, 429, 500, 502, 503, 504))

# Passing codes that promise that nothing was done.
_EFFECT_FREE_CODES = frozenset(
    ("transaction_conflict", "rate_limited", "hot_server", "server_draining")
)

# Of these refusals only the body says what they mean: whether they may pass (400, 409), and what
# did not hold (412, 416). Without it another attempt has to tell.
_STATUSES_TOLD_IN_BODY = frozenset((400, 409, 412, 416))

# At most so often, in seconds, is the service's wish for another connection free of charge.
_FREE_RECONNECT_INTERVAL = 60.0


def _seconds(_instance: object, attribute: Attribute[float], value: float) -> None:
    check_seconds(attribute.name, value, may_be_zero=True)


def _attempts(_instance: object, attribute: Attribute[int | None], value: int | None) -> None:
    if value is not None:
        check_int(attribute.name, value, 1)


@frozen(kw_only=True)
class Retry:
    """How long to keep trying. `Retry(max_attempts=1)` tries once."""

    #: Seconds without any progress. A restart of `s2 lite` takes longer than the second or so after
    #: which the official clients give up.
    max_seconds: float = field(default=60.0, validator=_seconds)
    #: The same, for connections that cannot be made or are broken off, until the service has
    #: answered once: so that a wrong address, port or scheme is told at once.
    connect_seconds: float = field(default=3.0, validator=_seconds)
    #: Attempts without any progress, the first one included; None: as many as there is time for.
    max_attempts: int | None = field(default=None, validator=_attempts)
    #: Seconds before the second attempt; each further delay is twice the one before, up to
    #: `max_delay`, and up to as much again is added by chance.
    min_delay: float = field(default=0.1, validator=_seconds)
    max_delay: float = field(default=1.0, validator=_seconds)

    def __attrs_post_init__(self) -> None:
        if self.min_delay > self.max_delay:
            raise LocalProtocolError(
                f"min_delay ({self.min_delay:g} s) must not be above max_delay "
                f"({self.max_delay:g} s)"
            )


def is_retryable(error: S2FramesError) -> bool:
    """Whether `error` may pass, so that another attempt makes sense."""
    if isinstance(error, TransportError):
        return not isinstance(error, CertificateError)
    if not isinstance(error, ServiceError):
        return False
    if _is_half_told(error):
        return True
    if error.code is not None and error.code in _PASSING_CODES:
        return error.status == _PASSING_CODES[error.code]
    return error.code not in _LASTING_CODES and error.status in _PASSING_STATUSES


def is_effect_free(error: S2FramesError) -> bool:
    """Whether what failed so cannot have taken effect, and may pass."""
    is_promised = isinstance(error, ServiceError) and (
        error.code in _EFFECT_FREE_CODES or _is_half_told(error)
    )
    return (is_promised or isinstance(error, ConnectError)) and is_retryable(error)


def _is_half_told(error: ServiceError) -> bool:
    """Whether the answer broke off before it said what it means; nothing was done in any case."""
    has_words = error.code is not None or type(error) is not ServiceError
    return error.is_incomplete and not has_words and error.status in _STATUSES_TOLD_IN_BODY


def _may_be_wrong_place(error: S2FramesError) -> bool:
    """Whether `error` is what a wrong address, port or scheme ends in, if it may pass at all.

    Who does not understand a request hangs up. Silence is none: a service may be slow.
    """
    if isinstance(error, ConnectError):
        return True
    return isinstance(error, TransportError) and error.was_broken_off


def is_definite(error: S2FramesError) -> bool:
    """Whether what failed so cannot have taken effect, be it that it may pass or not.

    From 400 to 499 the service refuses, but for its own time-out and a client's hanging up.
    """
    if is_effect_free(error) or isinstance(error, CertificateError):
        return True
    return (
        isinstance(error, ServiceError)
        and 400 <= error.status < 500
        and error.status not in (408, 499)
    )


def backoff(failures: int, retry: Retry, random: Callable[[], float]) -> float:
    """Seconds to wait after so many failures in a row, 1 or more."""
    # Beyond 2^62 it is `max_delay` anyhow, and a float would overflow.
    base = min(retry.min_delay * 2.0 ** min(failures - 1, 62), retry.max_delay)
    return base * (1 + random())


@define(eq=False)
class RetryBudget:
    """What was tried since something last went well, and whether to try again.

    Args:
        retry: how long to keep trying.
        random: floats from 0 up to, not including, 1.
    """

    _retry: Retry
    _random: Callable[[], float]
    #: Failures since something last went well.
    failures: int = 0
    # When the first of them was.
    _failing_since: float = 0.0
    # Whether the service has ever answered.
    _has_answered: bool = False
    # When a connection was last given up because the service wished it.
    _reconnected_at: float | None = None

    @property
    def attempts(self) -> int:
        """Attempts since something last went well, the one that is under way included."""
        return self.failures + 1

    def note_answer(self) -> None:
        """The service has answered."""
        self._has_answered = True

    def note_progress(self) -> None:
        """Something went well: start to count anew."""
        self._has_answered = True
        self.failures = 0

    def may_reconnect(self, now: float) -> bool:
        """Whether to follow the service's wish for another connection; it is free when followed."""
        last = self._reconnected_at
        if last is not None and now < last + _FREE_RECONNECT_INTERVAL:
            return False
        self._reconnected_at = now
        return True

    def next_delay(self, error: S2FramesError, now: float) -> float | None:
        """Seconds to wait before the next attempt; None when `error` is the end.

        An attempt has failed with `error`, which is one that may be retried.
        """
        asked = error.retry_after if isinstance(error, ServiceError) else None
        is_draining = isinstance(error, ServiceError) and error.code == "server_draining"
        if is_draining and (asked or 0) <= self._retry.max_seconds and self.may_reconnect(now):
            return max(backoff(1, self._retry, self._random), asked or 0)
        if not self.failures:
            self._failing_since = now
        if self.attempts == self._retry.max_attempts:
            return None
        delay = max(backoff(self.attempts, self._retry, self._random), asked or 0)
        is_lost_cause = _may_be_wrong_place(error) and not self._has_answered
        limit = self._retry.connect_seconds if is_lost_cause else self._retry.max_seconds
        if now + delay > self._failing_since + limit:
            return None
        self.failures += 1
        return delay
