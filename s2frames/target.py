"""Which stream, and how to reach it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import urlencode

from attrs import field, frozen

from s2frames.checks import check_type
from s2frames.errors import LocalProtocolError
from s2frames.http import Request
from s2frames.records import check_basin_name, check_stream_name
from s2frames.rest import stream_url
from s2frames.settings import Settings

__all__ = ["PROTOBUF_CONTENT_TYPE", "SESSION_CONTENT_TYPE", "StreamTarget"]

#: Content types of a session and of a single append.
SESSION_CONTENT_TYPE = "s2s/proto"
PROTOBUF_CONTENT_TYPE = "application/protobuf"

# Every algorithm that S2 offers takes a key of 256 bits.
_ENCRYPTION_KEY_BYTES = 32


def _check_key(_instance: object, _attribute: object, key: bytes | None) -> None:
    # The key itself stays out of the message.
    if key is not None and not (isinstance(key, bytes) and len(key) == _ENCRYPTION_KEY_BYTES):
        raise LocalProtocolError(f"encryption_key must be {_ENCRYPTION_KEY_BYTES} bytes")


def _check_settings(_instance: object, _attribute: object, settings: Settings) -> None:
    check_type("settings", settings, Settings)


@frozen
class StreamTarget:
    """A stream of a basin, with all that a request to it needs."""

    settings: Settings = field(validator=_check_settings)
    basin: str = field(converter=check_basin_name)
    stream: str = field(converter=check_stream_name)
    #: The key to encrypt and decrypt records with: 32 bytes.
    encryption_key: bytes | None = field(default=None, repr=False, validator=_check_key)

    @property
    def records_url(self) -> str:
        """The URL to append to and to read from."""
        return f"{stream_url(self.settings, self.basin, self.stream)}/records"

    def headers(self, **more: str) -> dict[str, str]:
        """The headers of a request for records, and `more` (an underscore stands for a hyphen)."""
        headers = self.settings.basin_headers(self.basin)
        if self.encryption_key is not None:
            headers["s2-encryption-key"] = b64encode(self.encryption_key).decode()
        headers.update((name.replace("_", "-"), value) for name, value in more.items())
        return headers

    def read_request(self, query: Mapping[str, int]) -> Request:
        """A request that reads records in a session."""
        url = f"{self.records_url}?{urlencode(query)}"
        return Request("GET", url, self._session_headers())

    def append_request(self) -> Request:
        """A request that appends batches in a session."""
        return Request("POST", self.records_url, self._session_headers())

    def unary_append_request(self, body: bytes = b"") -> Request:
        """A request that appends one batch."""
        headers = self.headers(
            content_type=PROTOBUF_CONTENT_TYPE,
            accept=PROTOBUF_CONTENT_TYPE,
            accept_encoding="identity",
        )
        return Request("POST", self.records_url, headers, body)

    def _session_headers(self) -> dict[str, str]:
        return self.headers(
            content_type=SESSION_CONTENT_TYPE,
            accept=SESSION_CONTENT_TYPE,
            accept_encoding=self.settings.compression.accept_encoding,
        )
