"""Arguments: refused with their name, what they are and what is allowed."""

from __future__ import annotations

from s2frames.brief import brief
from s2frames.errors import LocalProtocolError
from s2frames.u64 import U64_MAX, is_u64

__all__ = ["as_bytes", "check_callable", "check_int", "check_seconds", "check_type"]


def check_int(name: str, value: object, low: int = 0, high: int = U64_MAX) -> None:
    """Raise `LocalProtocolError` unless `value` is an int from `low` to `high`."""
    if not is_u64(value, low, high):
        raise LocalProtocolError(f"{name} must be an int from {low} to {high}, not {brief(value)}")


def check_seconds(name: str, value: object, *, may_be_zero: bool = False) -> None:
    """Raise `LocalProtocolError` unless `value` is a number of seconds that can be waited."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # A NaN is neither below nor above.
    if not (is_number and (value > 0 or (may_be_zero and value == 0))):  # type: ignore[operator]
        least = "at least" if may_be_zero else "above"
        raise LocalProtocolError(
            f"{name} must be a number of seconds {least} 0, not {brief(value)}"
        )


def check_type(name: str, value: object, kind: type) -> None:
    """Raise `LocalProtocolError` unless `value` is a `kind`. The value is not shown."""
    if not isinstance(value, kind):
        raise LocalProtocolError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")


def check_callable(name: str, value: object) -> None:
    """Raise `LocalProtocolError` unless `value` can be called."""
    if not callable(value):
        raise LocalProtocolError(f"{name} must be a callable, not {type(value).__name__}")


def as_bytes(what: str, value: object) -> bytes:
    """`value` as bytes, if it is bytes, bytearray or memoryview; else a `LocalProtocolError`."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise LocalProtocolError(
        f"{what} is bytes, bytearray or memoryview, not {type(value).__name__}"
    )
