"""Values in error messages: short, whatever they are."""

from __future__ import annotations

from reprlib import Repr

__all__ = ["brief"]

_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 80


def brief(value: object) -> str:
    """`value` as Python writes it, cut where that is long."""
    try:
        return _REPR.repr(value)
    except ValueError:
        # Python writes no int of thousands of digits.
        return f"an {type(value).__name__} that is too long to show"
