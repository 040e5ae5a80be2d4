"""The head of a request, taken apart: path, query, headers.

What cannot be read raises the `ServiceError` that the service answers with.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import parse_qsl, unquote_to_bytes

from attrs import field, frozen

from s2frames.embedded.error_bodies import service_error
from s2frames.errors import LocalProtocolError
from s2frames.http import shown_headers
from s2frames.records import check_basin_name, check_stream_name
from s2frames.u64 import U64_MAX

__all__ = ["MediaType", "RequestHead"]

# Header values of these limits: `common/src/resources.rs` and `common/src/encryption.rs`.
_MAX_REQUEST_TOKEN_BYTES = 36
_MAX_ENCRYPTION_KEY_CHARS = 44

# Paths are /v1/basins/{basin} and /v1/streams/{stream} and longer.
_NAME_SEGMENT = 2

# Digits of 2**64 - 1.
_U64_DIGITS = 20


class MediaType(enum.Enum):
    """The media types that the service tells apart."""

    JSON = "application/json"
    PROTOBUF = "application/protobuf"
    S2S = "s2s/proto"
    EVENT_STREAM = "text/event-stream"


@frozen
class RequestHead:
    """A request without its body."""

    method: str
    #: The path's segments, still percent-encoded.
    segments: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    #: Names in lower case. Of a repeated header the first counts, but Accept-Encoding is a list.
    headers: Mapping[str, str] = field(repr=shown_headers)

    @classmethod
    def parse(
        cls, method: str, target: str, headers: Mapping[str, str] | Sequence[tuple[str, str]]
    ) -> RequestHead:
        """The head of `method target` with `headers`."""
        path, _, query = target.partition("?")
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        return cls(
            method,
            tuple(path.split("/")[1:]),
            tuple(parse_qsl(query, keep_blank_values=True)),
            _join_headers(pairs),
        )

    # Path

    def basin_in_path(self) -> str:
        """The basin that the path names."""
        return _path_name(self.segments[_NAME_SEGMENT], check_basin_name)

    def stream_key(self) -> tuple[str, str]:
        """The basin that the header names, and the stream that the path names."""
        return self.basin(), _path_name(self.segments[_NAME_SEGMENT], check_stream_name)

    # Headers

    def content_type(self) -> MediaType | None:
        """What the body is, or None when the header is missing or names something else."""
        return _parse_media_type(self.headers.get("content-type"))

    def accept(self) -> MediaType | None:
        """The first media type that the client takes."""
        return _parse_media_type(self.headers.get("accept"))

    def basin(self) -> str:
        """The basin that the `s2-basin` header names."""
        name = self.headers.get("s2-basin")
        if name is None:
            raise service_error("bad_header", "the header s2-basin is missing")
        return _checked(check_basin_name, name, "bad_header")

    def request_token(self) -> str | None:
        """The token that makes a repeated create the same create."""
        token = self.headers.get("s2-request-token")
        if token is not None and not (token.isascii() and len(token) <= _MAX_REQUEST_TOKEN_BYTES):
            raise service_error(
                "bad_header", f"s2-request-token has at most {_MAX_REQUEST_TOKEN_BYTES} bytes"
            )
        return token

    def is_base64(self) -> bool:
        """Whether names, values and bodies in JSON are base64; else they are text."""
        value = self.headers.get("s2-format", "raw")
        if value not in ("raw", "json", "base64", "json-binsafe"):
            raise service_error("bad_header", f"s2-format is raw or base64, not {value!r}")
        return value in ("base64", "json-binsafe")

    def check_encryption_key(self) -> None:
        """Refuse a key that cannot be one; it is not used. The message keeps it secret."""
        key = self.headers.get("s2-encryption-key")
        if key is not None and not 1 <= len(key) <= _MAX_ENCRYPTION_KEY_CHARS:
            raise service_error(
                "bad_header",
                f"s2-encryption-key has 1 to {_MAX_ENCRYPTION_KEY_CHARS} characters",
            )

    # Query

    def parameter(self, name: str) -> str | None:
        """The parameter's value; None when it is not there."""
        values = [value for key, value in self.query if key == name]
        if len(values) > 1:
            raise service_error("bad_query", f"{name} is there {len(values)} times")
        return values[0] if values else None

    def number(self, name: str, maximum: int = U64_MAX) -> int | None:
        """The parameter's value as a whole number."""
        text = self.parameter(name)
        if text is None:
            return None
        digits = text.removeprefix("+")
        is_number = digits.isascii() and digits.isdigit() and len(digits) <= _U64_DIGITS
        if not is_number or int(digits) > maximum:
            raise service_error("bad_query", f"{name} is a number from 0 to {maximum}")
        return int(digits)

    def flag(self, name: str) -> bool:
        """The parameter's value as a truth value; false when it is not there."""
        text = self.parameter(name)
        if text not in (None, "true", "false"):
            raise service_error("bad_query", f"{name} is true or false")
        return text == "true"


def _path_name(segment: str, check: Callable[[str], str]) -> str:
    """The name in a path segment, if `check` accepts it."""
    try:
        name = unquote_to_bytes(segment).decode()
    except UnicodeError:
        raise service_error("bad_path", "a name in the path is not UTF-8") from None
    return _checked(check, name, "bad_path")


def _checked(check: Callable[[str], str], name: str, code: str) -> str:
    try:
        return check(name)
    except LocalProtocolError as error:
        raise service_error(code, str(error)) from None


def _join_headers(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    joined: dict[str, str] = {}
    for cased_name, value in pairs:
        name = cased_name.lower()
        if name not in joined:
            joined[name] = value.strip()
        elif name == "accept-encoding":
            joined[name] += "," + value
    return joined


def _parse_media_type(value: str | None) -> MediaType | None:
    """The first media type in a header; its parameters do not matter."""
    if value is None:
        return None
    name = value.partition(",")[0].partition(";")[0].strip().lower()
    if name == "application/x-protobuf":
        return MediaType.PROTOBUF
    if name.startswith("application/") and name.endswith("+json"):
        return MediaType.JSON
    return next((known for known in MediaType if known.value == name), None)
