"""Checked reading of a peer's JSON: the shape is checked, the values stay out of the messages.

`what` says in a message what the value is: "a stream's config".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from s2frames.errors import RemoteProtocolError
from s2frames.u64 import U64_MAX, is_u64

__all__ = [
    "as_object",
    "is_utf8",
    "optional",
    "refuse_constant",
    "required",
    "take",
    "take_choice",
    "take_u64",
]

_T = TypeVar("_T")
_E = TypeVar("_E", bound=enum.Enum)


def as_object(value: object, what: str) -> dict[str, Any]:
    """`value`, if it is an object; else a `RemoteProtocolError`."""
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"{what} is a JSON {type(value).__name__}, not an object")
    return value


def required(value: Mapping[str, Any], what: str, name: str, kind: type[_T]) -> _T:
    """The member `name`, which must be there and of this kind; else a `RemoteProtocolError`."""
    found = optional(value, what, name, kind)
    if found is None:
        raise RemoteProtocolError(f"{what} has no {name!r}")
    return found


def optional(value: Mapping[str, Any], what: str, name: str, kind: type[_T]) -> _T | None:
    """The member `name`; None if it is missing or null.

    Raises `RemoteProtocolError` for another kind, and for text that UTF-8 cannot carry.
    """
    found = value.get(name)
    if found is None:
        return None
    # Not isinstance: True is an int.
    if type(found) is not kind:
        raise RemoteProtocolError(
            f"{name!r} of {what} is a JSON {type(found).__name__}, not a {kind.__name__}"
        )
    if isinstance(found, str) and not is_utf8(found):
        raise RemoteProtocolError(f"{name!r} of {what} has half of a surrogate pair")
    return found


def take(rest: dict[str, Any], what: str, name: str, kind: type[_T]) -> _T | None:
    """Like `optional`, and remove it: what is left in the end is unknown."""
    found = optional(rest, what, name, kind)
    rest.pop(name, None)
    return found


def take_choice(rest: dict[str, Any], what: str, name: str, kind: type[_E]) -> _E | None:
    """The choice that the text `name` names, removed; an unknown one is None and stays."""
    text = take(rest, what, name, str)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError:
        rest[name] = text
        return None


def take_u64(rest: dict[str, Any], what: str, name: str, minimum: int) -> int | None:
    """The number `name`, from `minimum` to 2**64 - 1, removed; else a `RemoteProtocolError`."""
    number = take(rest, what, name, int)
    if number is not None and not is_u64(number, minimum):
        raise RemoteProtocolError(f"{name!r} of {what} is a number outside {minimum} to {U64_MAX}")
    return number


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and infinities: what `json` is to call for them (`parse_constant`)."""
    raise ValueError(f"{name} is not JSON")


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can carry `text`: JSON can spell half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
