"""Arguments that are numbers: refused with their name, the value and the limits."""

from __future__ import annotations

from s2frames.errors import LocalProtocolError
from s2frames.u64 import U64_MAX

__all__ = ["check_int", "check_seconds", "check_type"]


def check_int(name: str, value: object, low: int = 0, high: int = U64_MAX) -> None:
    """Raise `LocalProtocolError` unless `value` is an int from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise LocalProtocolError(f"{name} must be an int from {low} to {high}, not {value!r}")


def check_seconds(name: str, value: object, *, may_be_zero: bool = False) -> None:
    """Raise `LocalProtocolError` unless `value` is a number of seconds that can be waited."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # A NaN is neither below nor above.
    if not (is_number and (value > 0 or (may_be_zero and value == 0))):  # type: ignore[operator]
        least = "at least" if may_be_zero else "above"
        raise LocalProtocolError(f"{name} must be a number of seconds {least} 0, not {value!r}")


def check_type(name: str, value: object, kind: type) -> None:
    """Raise `LocalProtocolError` unless `value` is a `kind`. The value is not shown."""
    if not isinstance(value, kind):
        raise LocalProtocolError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
