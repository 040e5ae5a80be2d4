"""JSON in and out, and what a value must be. A value that is not raises `JsonError`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from s2frames.errors import S2FramesError
from s2frames.peer_json import is_utf8
from s2frames.u64 import U64_MAX, is_u64

__all__ = [
    "JsonError",
    "as_bool",
    "as_choice",
    "as_list",
    "as_object",
    "as_text",
    "as_u64",
    "dump_json",
    "load_json",
    "optional",
]

T = TypeVar("T")


class JsonError(S2FramesError):
    """A body is no JSON, or not the JSON that was asked for."""


def dump_json(value: Any) -> bytes:
    """`value` as JSON, without spaces, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def load_json(body: bytes) -> Any:
    """The value that `body` holds."""
    try:
        return json.loads(
            body.decode(), object_pairs_hook=_make_object, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise JsonError("the JSON is nested too deeply") from None
    except ValueError as error:
        raise JsonError(f"the body is not JSON in UTF-8: {error}") from None


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise JsonError("an object has the same key twice")
    return value


def _refuse_constant(name: str) -> Any:
    """Refuse NaN and Infinity, which are no JSON."""
    raise JsonError(f"the body is not JSON: {name}")


def as_object(value: Any, what: str) -> dict[str, Any]:
    """`value`, if it is an object."""
    if not isinstance(value, dict):
        raise JsonError(f"{what} is an object, not {_kind(value)}")
    return value


def as_list(value: Any, what: str) -> list[Any]:
    """`value`, if it is an array."""
    if not isinstance(value, list):
        raise JsonError(f"{what} is an array, not {_kind(value)}")
    return value


def as_text(value: Any, what: str) -> str:
    """`value`, if it is a string that UTF-8 can encode (JSON can spell half a surrogate pair)."""
    if not isinstance(value, str):
        raise JsonError(f"{what} is a string, not {_kind(value)}")
    if not is_utf8(value):
        raise JsonError(f"{what} holds half of a surrogate pair")
    return value


def as_bool(value: Any, what: str) -> bool:
    """`value`, if it is true or false."""
    if not isinstance(value, bool):
        raise JsonError(f"{what} is true or false, not {_kind(value)}")
    return value


def as_u64(value: Any, what: str) -> int:
    """`value`, if it is a whole number from 0 to 2**64 - 1."""
    if not is_u64(value):
        raise JsonError(f"{what} is a whole number from 0 to {U64_MAX}, not {_kind(value)}")
    return value


def as_choice(value: Any, what: str, choices: tuple[str, ...]) -> str:
    """`value`, if it is one of `choices`."""
    if value not in choices:
        raise JsonError(f"{what} is one of {', '.join(choices)}, not {_kind(value)}")
    return str(value)


def optional(value: Any, what: str, parse: Callable[[Any, str], T]) -> T | None:
    """None for null, else what `parse` makes of `value`."""
    return None if value is None else parse(value, what)


def _kind(value: Any) -> str:
    """What a value is, short enough for a message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "..."
