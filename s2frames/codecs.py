"""Codecs: how an application's messages become payloads, and payloads messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, NoReturn, TypeVar

from attrs import field, frozen

from s2frames.brief import brief
from s2frames.checks import check_type
from s2frames.errors import CodecError, FrameSizeError, LocalProtocolError

__all__ = ["BYTES", "JSON", "MSGPACK", "TEXT", "Codec", "check_codec"]

_T = TypeVar("_T")

_BYTES_LIKE = (bytes, bytearray, memoryview)


class _Refusal(ValueError):
    """A codec of this module refuses something; the text holds nothing of the message."""


class _MissingExtra(ImportError):
    """An import of an extra failed: no fault of the message, so it passes as it is."""


def _check_callable(_instance: object, _attribute: object, value: Any) -> None:
    if not callable(value):
        raise LocalProtocolError(
            f"a codec is made of two callables, not of a {type(value).__name__}"
        )


# Type checkers infer the message from the arguments of an `__init__` that is written out.
@frozen(init=False)
class Codec(Generic[_T]):
    """A pair of callables: messages to payloads, and payloads to messages.

    ``Codec(encode, decode)`` makes one of any pair; `name` is what errors call it. The text of an
    error never holds anything of a message; the callable's own exception is its ``__cause__``.
    """

    _encode: Callable[[_T], bytes | bytearray | memoryview] = field(
        validator=_check_callable, repr=False
    )
    _decode: Callable[[bytes], _T] = field(validator=_check_callable, repr=False)
    name: str

    def __init__(
        self,
        encode: Callable[[_T], bytes | bytearray | memoryview],
        decode: Callable[[bytes], _T],
        *,
        name: str | None = None,
    ) -> None:
        if name is None:
            name = str(getattr(encode, "__qualname__", type(encode).__name__))
        check_type("name", name, str)
        self.__attrs_init__(encode, decode, name)

    def encode(self, message: _T) -> bytes:
        """The payload for `message`.

        Raises `CodecError` when the callable raises or returns anything but bytes, and
        `FrameSizeError` when it returns none: a frame cannot carry an empty payload.
        """
        # Runs for every message: what most codecs give, bytes, comes without a call more.
        try:
            payload = self._encode(message)
            if type(payload) is not bytes:
                payload = _to_bytes(payload)
        except _MissingExtra:
            raise
        except Exception as error:
            raise CodecError(
                f"the codec {self.name} cannot encode a {type(message).__name__}: {_reason(error)}"
            ) from error
        if not payload:
            raise FrameSizeError(
                f"the codec {self.name} encodes this {type(message).__name__} to 0 bytes; "
                "a payload has at least 1"
            )
        return payload

    def decode(self, payload: bytes) -> _T:
        """The message in `payload`. Raises `CodecError` when the callable raises."""
        try:
            return self._decode(payload)
        except _MissingExtra:
            raise
        except Exception as error:
            raise CodecError(
                f"the codec {self.name} cannot decode a payload of {len(payload)} bytes: "
                f"{_reason(error)}"
            ) from error


def check_codec(codec: object) -> None:
    """Raise `LocalProtocolError` unless `codec` is a `Codec`."""
    if not isinstance(codec, Codec):
        raise LocalProtocolError(
            "codec must be JSON, TEXT, BYTES or MSGPACK of s2frames, or a Codec(encode, decode) of "
            f"your own, not {brief(codec)}"
        )


def _to_bytes(encoded: object) -> bytes:
    if isinstance(encoded, _BYTES_LIKE):
        return bytes(encoded)
    raise _Refusal(f"it gave a {type(encoded).__name__}, not bytes, bytearray or memoryview")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _Refusal) else type(error).__name__


# JSON


def _refuse_constant(_name: str) -> NoReturn:
    raise _Refusal("NaN and infinities are not JSON")


_JSON_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_JSON_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _encode_json(message: Any) -> bytes:
    payload = _dump_json(message)
    if type(message) not in _JSON_SCALARS:
        _check_keys(message)
    return payload


def _dump_json(message: Any) -> bytes:
    try:
        return _JSON_ENCODER.encode(message).encode()
    except UnicodeEncodeError as error:
        raise _Refusal("it has text that UTF-8 cannot carry (half of a surrogate pair)") from error
    except ValueError as error:
        raise _Refusal(
            "it has a value that JSON cannot carry: NaN, an infinity, a cycle, or an int of "
            "thousands of digits"
        ) from error
    except TypeError as error:
        raise _Refusal("it has an object or a key of a type that JSON does not know") from error


_JSON_SCALARS = frozenset((str, int, float, bool, type(None)))


def _check_keys(message: Any) -> None:
    """Refuse a dict in which keys would become one. `message` is one that could be encoded."""
    # Runs for every message. Only where a key is no text are the keys looked at.
    left = [message]
    for value in left:
        if isinstance(value, dict):
            is_text = True
            for key, below in value.items():
                if type(key) is not str:
                    is_text = False
                if type(below) not in _JSON_SCALARS:
                    left.append(below)
            if not is_text and len(set(map(_spell, value))) < len(value):
                raise _Refusal(
                    "it has a dict with keys that are the same in JSON, as 1 and '1' are"
                )
        elif isinstance(value, (list, tuple)) and not _JSON_SCALARS.issuperset(map(type, value)):
            left += [below for below in value if type(below) not in _JSON_SCALARS]


def _spell(key: Any) -> str:
    """A dict's key as it stands in JSON."""
    return str.__str__(key) if isinstance(key, str) else _JSON_ENCODER.encode(key)


def _decode_json(payload: bytes) -> Any:
    return _JSON_DECODER.decode(payload.decode())


# Text and bytes


def _encode_text(message: str) -> bytes:
    if not isinstance(message, str):
        raise _Refusal("it takes str")
    return message.encode()


def _encode_bytes(message: bytes) -> bytes:
    if not isinstance(message, _BYTES_LIKE):
        raise _Refusal("it takes bytes, bytearray and memoryview")
    return message


# MessagePack


def _msgpack() -> Any:
    try:
        return import_module("msgpack")
    except ImportError as error:
        raise _MissingExtra(
            "MessagePack needs an extra: pip install 's2frames[msgpack]'"
        ) from error


def _encode_msgpack(message: Any) -> bytes:
    packed: bytes = _msgpack().packb(message, use_bin_type=True)
    return packed


def _decode_msgpack(payload: bytes) -> Any:
    # Refuses bytes after the message, and any length that the payload itself could not hold.
    unpack = _msgpack().unpackb
    try:
        return unpack(payload, raw=False, strict_map_key=False)
    except TypeError:
        # An array as a key was a tuple.
        return unpack(
            payload, raw=False, strict_map_key=False, object_pairs_hook=_with_tuples_as_keys
        )


def _with_tuples_as_keys(pairs: Any) -> dict[Any, Any]:
    return {_as_key(key): value for key, value in pairs}


def _as_key(value: Any) -> Any:
    return tuple(map(_as_key, value)) if isinstance(value, list) else value


#: Any JSON value, as compact UTF-8. NaN and infinities are refused, both ways. Keys that are
#: numbers, booleans or None become text, as JSON wants it; a dict in which two keys would become
#: the same text is refused. Of a name that stands twice in a payload the last one counts.
JSON: Codec[Any] = Codec(_encode_json, _decode_json, name="JSON")

#: Text, as UTF-8.
TEXT: Codec[str] = Codec(_encode_text, bytes.decode, name="TEXT")

#: Bytes as they are.
BYTES: Codec[bytes] = Codec(_encode_bytes, bytes, name="BYTES")

#: MessagePack, with text and bytes kept apart; an array is read as a list, as a key as a tuple.
#: Needs the extra `msgpack`: without it the first use is an ImportError.
MSGPACK: Codec[Any] = Codec(_encode_msgpack, _decode_msgpack, name="MSGPACK")
