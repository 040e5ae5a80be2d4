"""The control calls as values: a request to send, and how to read its answer.

An adapter sends `call.request` and gives the answer to `call.parse`; every decision is here.
Paths, bodies and limits are those of the server's `lite/src/handlers/v1` and `api/src/v1`.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote, urlencode

from attrs import field, frozen

from s2frames.checks import check_int
from s2frames.config import BasinConfig, StreamConfig
from s2frames.error_bodies import describe_body, parse_error, parse_position
from s2frames.errors import LocalProtocolError, RemoteProtocolError
from s2frames.http import Request, path_segment
from s2frames.peer_json import as_object, is_utf8, optional, refuse_constant, required
from s2frames.records import StreamPosition, check_basin_name, check_stream_name
from s2frames.settings import Settings
from s2frames.u64 import U64_MAX

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_PAGE_ITEMS",
    "MAX_REQUEST_TOKEN_BYTES",
    "BasinInfo",
    "Call",
    "Named",
    "Page",
    "Provisioned",
    "StreamInfo",
    "check_tail",
    "create_basin",
    "create_stream",
    "delete_basin",
    "delete_stream",
    "ensure_basin",
    "ensure_stream",
    "get_basin_config",
    "get_stream_config",
    "list_basins",
    "list_streams",
    "stream_url",
]

#: Bytes of the largest answer that is read. The largest that S2 sends is a page of 1000 names of
#: 512 bytes, each of them six in JSON (`\u0001`): about 3 MiB.
MAX_ANSWER_BYTES = 8 * 1024 * 1024

#: Items of the largest page (`common/src/resources.rs`).
MAX_PAGE_ITEMS = 1000

#: Bytes of the longest request token (`common/src/resources.rs`).
MAX_REQUEST_TOKEN_BYTES = 36

# Bytes of the longest names, so of what they can begin with or come after (`common/src/caps.rs`).
_MAX_BASIN_NAME_BYTES = 48
_MAX_STREAM_NAME_BYTES = 512

_T = TypeVar("_T")


# Values


class Provisioned(enum.Enum):
    """What ensuring that a basin or stream exists did."""

    CREATED = "created"
    #: It was there, and its config was as asked for.
    NOOP = "noop"
    #: It was there, and its config is now as asked for.
    UPDATED = "updated"


@frozen
class BasinInfo:
    """A basin as S2 lists it."""

    name: str
    #: RFC 3339, as S2 sends it.
    created_at: str
    #: RFC 3339; not None while the basin is being deleted.
    deleted_at: str | None = None
    #: Where the basin is, if S2 says so.
    location: str | None = None

    @classmethod
    def from_json(cls, value: object) -> BasinInfo:
        """The basin in S2's JSON object. Raises `RemoteProtocolError` for anything else."""
        what = "a basin"
        item = as_object(value, what)
        return cls(
            required(item, what, "name", str),
            required(item, what, "created_at", str),
            optional(item, what, "deleted_at", str),
            optional(item, what, "location", str),
        )


@frozen
class StreamInfo:
    """A stream as S2 lists it."""

    name: str
    #: RFC 3339, as S2 sends it.
    created_at: str
    #: RFC 3339; not None while the stream is being deleted.
    deleted_at: str | None = None
    #: How its records are encrypted, in S2's words; None if they are not.
    cipher: str | None = None

    @classmethod
    def from_json(cls, value: object) -> StreamInfo:
        """The stream in S2's JSON object. Raises `RemoteProtocolError` for anything else."""
        what = "a stream"
        item = as_object(value, what)
        return cls(
            required(item, what, "name", str),
            required(item, what, "created_at", str),
            optional(item, what, "deleted_at", str),
            optional(item, what, "cipher", str),
        )


class Named(Protocol):
    """What lists are sorted by."""

    @property
    def name(self) -> str:
        """The name."""


_N = TypeVar("_N", bound=Named)


@frozen
class Page(Generic[_N]):
    """Some items of a list, in the order of their names."""

    items: tuple[_N, ...]
    has_more: bool

    @property
    def next_start_after(self) -> str | None:
        """The `start_after` that gives the next page; None after the last one."""
        return self.items[-1].name if self.has_more else None


@frozen
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers.items() if n.lower() == name), None)

    def json(self) -> object:
        try:
            return json.loads(self.body, parse_constant=refuse_constant)
        except (ValueError, RecursionError):
            headers = {name.lower(): value for name, value in self.headers.items()}
            raise RemoteProtocolError(
                f"an answer with status {self.status} is not JSON: "
                f"{describe_body(self.body, headers)}: is the endpoint S2's?"
            ) from None


@frozen
class Call(Generic[_T]):
    """One control call."""

    #: Absolute, with the headers that the settings ask for.
    request: Request
    _read: Callable[[_Answer], _T] = field(repr=False, eq=False)

    def parse(self, status: int, headers: Mapping[str, str], body: bytes) -> _T:
        """What the answer says.

        Raises `ServiceError` for any status but 200 to 299, and `RemoteProtocolError` for a success
        whose body is not what S2 sends, and for any body over `MAX_ANSWER_BYTES`.
        """
        if len(body) > MAX_ANSWER_BYTES:
            raise RemoteProtocolError(
                f"an answer of {len(body)} bytes with status {status}; "
                f"at most {MAX_ANSWER_BYTES} are read"
            )
        if not 200 <= status <= 299:
            raise parse_error(status, body, {n.lower(): v for n, v in headers.items()})
        return self._read(_Answer(status, headers, bytes(body)))


# Calls to the account


def list_basins(
    settings: Settings, *, prefix: str = "", start_after: str = "", limit: int = MAX_PAGE_ITEMS
) -> Call[Page[BasinInfo]]:
    """The basins whose names begin with `prefix` and come after `start_after`, 1 to 1000 of them.

    Raises `LocalProtocolError` for a limit out of that range and for what no name begins with.
    """
    query = _page_query(prefix, start_after, limit, _MAX_BASIN_NAME_BYTES)
    request = _request("GET", f"{_basins_url(settings)}?{query}", settings.account_headers())
    return Call(request, lambda a: _read_page(a, "basins", BasinInfo.from_json, start_after))


def create_basin(
    settings: Settings,
    name: str,
    config: BasinConfig | None = None,
    *,
    request_token: str | None = None,
) -> Call[BasinInfo]:
    """Make a basin; a `ServiceError` with code "resource_already_exists" if there is one.

    A repeat with the same `request_token` (1 to 36 characters of ASCII) and config succeeds.
    """
    content = {"basin": check_basin_name(name), **_config_member(config, BasinConfig)}
    headers = settings.account_headers() | _token_headers(request_token)
    request = _request("POST", _basins_url(settings), headers, content)
    return Call(request, lambda a: BasinInfo.from_json(a.json()))


def ensure_basin(
    settings: Settings, name: str, config: BasinConfig | None = None
) -> Call[Provisioned]:
    """See that there is a basin with this config. Safe to repeat.

    S2 replaces the whole config of a basin that exists: what is unset goes back to its default.
    """
    content = _config_member(config, BasinConfig) or None
    request = _request("PUT", _basin_url(settings, name), settings.account_headers(), content)
    return Call(request, lambda a: _read_provisioned(a, BasinInfo.from_json))


def get_basin_config(settings: Settings, name: str) -> Call[BasinConfig]:
    """A basin's config."""
    request = _request("GET", _basin_url(settings, name), settings.account_headers())
    return Call(request, lambda a: BasinConfig.from_json(a.json()))


def delete_basin(settings: Settings, name: str) -> Call[None]:
    """Delete a basin with its streams, some time soon."""
    request = _request("DELETE", _basin_url(settings, name), settings.account_headers())
    return Call(request, _read_nothing)


# Calls to a basin


def list_streams(
    settings: Settings,
    basin: str,
    *,
    prefix: str = "",
    start_after: str = "",
    limit: int = MAX_PAGE_ITEMS,
) -> Call[Page[StreamInfo]]:
    """The streams whose names begin with `prefix` and come after `start_after`, 1 to 1000 of them.

    Raises `LocalProtocolError` for a limit out of that range and for what no name begins with.
    """
    query = _page_query(prefix, start_after, limit, _MAX_STREAM_NAME_BYTES)
    url = f"{_streams_url(settings, basin)}?{query}"
    request = _request("GET", url, settings.basin_headers(basin))
    return Call(request, lambda a: _read_page(a, "streams", StreamInfo.from_json, start_after))


def create_stream(
    settings: Settings,
    basin: str,
    name: str,
    config: StreamConfig | None = None,
    *,
    request_token: str | None = None,
) -> Call[StreamInfo]:
    """Make a stream; a `ServiceError` with code "resource_already_exists" if there is one.

    A repeat with the same `request_token` (1 to 36 characters of ASCII) and config succeeds.
    """
    content = {"stream": check_stream_name(name), **_config_member(config, StreamConfig)}
    headers = settings.basin_headers(basin) | _token_headers(request_token)
    request = _request("POST", _streams_url(settings, basin), headers, content)
    return Call(request, lambda a: StreamInfo.from_json(a.json()))


def ensure_stream(
    settings: Settings, basin: str, name: str, config: StreamConfig | None = None
) -> Call[Provisioned]:
    """See that there is a stream with this config. Safe to repeat.

    S2 replaces the whole config of a stream that exists: what is unset goes back to its default.
    """
    url, content = stream_url(settings, basin, name), _config_to_json(config, StreamConfig)
    request = _request("PUT", url, settings.basin_headers(basin), content)
    return Call(request, lambda a: _read_provisioned(a, StreamInfo.from_json))


def get_stream_config(settings: Settings, basin: str, name: str) -> Call[StreamConfig]:
    """A stream's config, with the basin's and the service's defaults filled in."""
    url = stream_url(settings, basin, name)
    request = _request("GET", url, settings.basin_headers(basin))
    return Call(request, lambda a: StreamConfig.from_json(a.json()))


def delete_stream(settings: Settings, basin: str, name: str) -> Call[None]:
    """Delete a stream with its records, some time soon."""
    url = stream_url(settings, basin, name)
    return Call(_request("DELETE", url, settings.basin_headers(basin)), _read_nothing)


def check_tail(settings: Settings, basin: str, name: str) -> Call[StreamPosition]:
    """The sequence number that a stream's next record gets, and its last record's timestamp.

    An encrypted stream answers without its key.
    """
    url = f"{stream_url(settings, basin, name)}/records/tail"
    return Call(_request("GET", url, settings.basin_headers(basin)), _read_tail)


def stream_url(settings: Settings, basin: str, name: str) -> str:
    """Where a stream is; its records are under `/records`."""
    return f"{_streams_url(settings, basin)}/{path_segment(check_stream_name(name))}"


# Requests


def _basins_url(settings: Settings) -> str:
    return f"{settings.endpoints.account_url()}/v1/basins"


def _basin_url(settings: Settings, name: str) -> str:
    return f"{_basins_url(settings)}/{path_segment(check_basin_name(name))}"


def _streams_url(settings: Settings, basin: str) -> str:
    return f"{settings.endpoints.basin_url(basin)}/v1/streams"


def _request(method: str, url: str, headers: Mapping[str, str], content: object = None) -> Request:
    # Uncompressed, so that the bound on an answer holds for what it becomes in memory.
    common = {"accept": "application/json", "accept-encoding": "identity", **headers}
    if content is None:
        return Request(method, url, common)
    try:
        body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError("the config's extra is not JSON") from error
    return Request(method, url, {**common, "content-type": "application/json"}, body)


def _page_query(prefix: str, start_after: str, limit: int, max_name_bytes: int) -> str:
    _check_part_of_name("prefix", prefix, max_name_bytes)
    _check_part_of_name("start_after", start_after, max_name_bytes)
    check_int("limit", limit, 1, MAX_PAGE_ITEMS)
    filters = {"prefix": prefix, "start_after": start_after}
    query = {name: text for name, text in filters.items() if text}
    return urlencode({**query, "limit": limit}, quote_via=quote, safe="")


def _check_part_of_name(which: str, text: str, max_bytes: int) -> None:
    if not isinstance(text, str):
        raise LocalProtocolError(f"{which} is a str, not {type(text).__name__}")
    if not is_utf8(text):
        raise LocalProtocolError(f"{which} must encode as UTF-8: {text!r}")
    size = len(text.encode())
    if size > max_bytes:
        raise LocalProtocolError(f"{which} has at most {max_bytes} UTF-8 bytes, not {size}")


def _token_headers(request_token: str | None) -> dict[str, str]:
    if request_token is None:
        return {}
    if not isinstance(request_token, str):
        raise LocalProtocolError(f"request_token is a str, not {type(request_token).__name__}")
    is_visible = request_token.isascii() and request_token.isprintable()
    if not (is_visible and 1 <= len(request_token) <= MAX_REQUEST_TOKEN_BYTES):
        raise LocalProtocolError(
            f"request_token has 1 to {MAX_REQUEST_TOKEN_BYTES} printable ASCII characters: "
            f"{request_token!r}"
        )
    return {"s2-request-token": request_token}


def _config_to_json(
    config: StreamConfig | BasinConfig | None, kind: type[StreamConfig | BasinConfig]
) -> dict[str, Any] | None:
    if config is None:
        return None
    if not isinstance(config, kind):
        raise LocalProtocolError(f"config is a {kind.__name__}, not {type(config).__name__}")
    return config.to_json()


def _config_member(
    config: StreamConfig | BasinConfig | None, kind: type[StreamConfig | BasinConfig]
) -> dict[str, Any]:
    value = _config_to_json(config, kind)
    return {} if value is None else {"config": value}


# Answers


def _read_page(
    answer: _Answer, name: str, read_item: Callable[[object], _N], start_after: str
) -> Page[_N]:
    what = f"a page of {name}"
    value = as_object(answer.json(), what)
    items = tuple(read_item(item) for item in required(value, what, name, list))
    has_more = required(value, what, "has_more", bool)
    # Else whoever asks for page after page would do so forever.
    if has_more and not (items and items[-1].name > start_after):
        raise RemoteProtocolError(f"{what} says that there are more, but does not get on")
    return Page(items, has_more)


def _read_provisioned(answer: _Answer, read_info: Callable[[object], object]) -> Provisioned:
    # The info itself is not needed, but a page of some proxy must not pass for a success.
    read_info(answer.json())
    try:
        return Provisioned(answer.header("s2-provision-result"))
    except ValueError:
        return Provisioned.CREATED if answer.status == 201 else Provisioned.NOOP


def _read_nothing(answer: _Answer) -> None:
    # S2 sends no body; a newer server may send some object, a proxy's page is neither.
    if answer.body:
        as_object(answer.json(), "the answer to a deletion")


def _read_tail(answer: _Answer) -> StreamPosition:
    value = as_object(answer.json(), "the answer to check_tail")
    tail = parse_position(value.get("tail"))
    if tail is None:
        raise RemoteProtocolError(
            "the answer to check_tail has no 'tail' with a 'seq_num' and a 'timestamp' "
            f"from 0 to {U64_MAX}"
        )
    return tail
