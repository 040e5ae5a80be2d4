"""Control calls that survive a lost answer: each as a plan for an `Operation`."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_letters, digits
from typing import Any, TypeVar

from s2frames.errors import Outcome, ServiceError
from s2frames.operation import Effect, Plan, ask
from s2frames.rest import Call

__all__ = ["call_plan", "make_request_token"]

_T = TypeVar("_T")

# 62 characters, 22 of them: 130 bits, as many as a UUID has.
_TOKEN_ALPHABET = ascii_letters + digits
_TOKEN_CHARS = 22

# What S2 says of what was to be deleted and is not there.
_GONE = ("basin_not_found", "stream_not_found")


def make_request_token(random: Callable[[], float]) -> str:
    """A new token for a call that makes something, so that a repeat of the call makes one thing.

    `random` gives floats from 0 up to, not including, 1.
    """
    alphabet = _TOKEN_ALPHABET
    return "".join(alphabet[int(random() * len(alphabet))] for _ in range(_TOKEN_CHARS))


def call_plan(call: Call[_T]) -> Plan[_T]:
    """A plan that makes a control call, again and again where that is safe."""
    effect = _effect(call)
    try:
        return (yield from ask(call, effect))
    except ServiceError as error:
        # An attempt whose answer was lost has deleted it.
        is_done = error.code in _GONE and error.outcome is Outcome.UNKNOWN
        if call.request.method == "DELETE" and is_done:
            return None  # type: ignore[return-value]  # what the call answers
        raise


def _effect(call: Call[Any]) -> Effect:
    """What making the call twice amounts to (RFC 9110, 9.2; the token is S2's own)."""
    method, headers = call.request.method, call.request.headers
    if method == "GET":
        return Effect.NONE
    if method in ("PUT", "DELETE") or "s2-request-token" in headers:
        return Effect.IDEMPOTENT
    return Effect.ONCE
