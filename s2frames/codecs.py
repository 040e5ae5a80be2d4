"""Codecs: how an application's messages become payloads, and payloads messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, NoReturn, TypeVar

from attrs import field, frozen

from s2frames.errors import CodecError, FrameSizeError, LocalProtocolError

__all__ = ["BYTES", "JSON", "MSGPACK", "TEXT", "Codec"]

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


@frozen
class Codec(Generic[_T]):
    """A pair of callables: messages to payloads, and payloads to messages.

    ``Codec(encode, decode)`` makes one of any pair; `name` is what errors call it. The text of an
    error never holds anything of a message; the callable's own exception is its ``__cause__``.
    """

    _encode: Callable[[_T], bytes | bytearray | memoryview] = field(
        validator=_check_callable, repr=False
    )
    _decode: Callable[[bytes], _T] = field(validator=_check_callable, repr=False)
    name: str = field(kw_only=True)

    @name.default
    def _name_of_encode(self) -> str:
        return str(getattr(self._encode, "__qualname__", type(self._encode).__name__))

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
    return _msgpack().unpackb(payload, raw=False, strict_map_key=False)


#: Any JSON value, as compact UTF-8. NaN and infinities are refused, both ways.
JSON: Codec[Any] = Codec(_encode_json, _decode_json, name="JSON")

#: Text, as UTF-8.
TEXT: Codec[str] = Codec(_encode_text, bytes.decode, name="TEXT")

#: Bytes as they are.
BYTES: Codec[bytes] = Codec(_encode_bytes, bytes, name="BYTES")

#: MessagePack, with text and bytes kept apart. Needs the extra `msgpack`: without it the first use
#: is an ImportError.
MSGPACK: Codec[Any] = Codec(_encode_msgpack, _decode_msgpack, name="MSGPACK")
