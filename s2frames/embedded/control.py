"""The control calls: basins, streams and tails.

Each call looks at the request's head first. It then answers, or gives the function that answers
once the body is there. They raise `ServiceError`, and `JsonError` for bodies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from s2frames.embedded.catalog import Access, Catalog
from s2frames.embedded.config import BasinConfig, StreamConfig
from s2frames.embedded.error_bodies import position_json, service_error
from s2frames.embedded.exchange import Response, json_response
from s2frames.embedded.json_values import JsonError, as_object, as_text, load_json
from s2frames.embedded.request import MediaType, RequestHead
from s2frames.embedded.store import Basin, StreamInfo
from s2frames.errors import LocalProtocolError
from s2frames.records import check_basin_name, check_stream_name
from s2frames.rest import Provisioned

__all__ = ["Control", "HandleBody"]

T = TypeVar("T")

#: Answers when the body is there: called with it and the time.
HandleBody: TypeAlias = Callable[[bytes, float], Response]

# Most entries of a list; a limit that is not 1 to 1000 means this one (`common/src/resources.rs`).
_MAX_LISTED = 1000
# What names may begin with: those of `s2frames.records`, not complete.
_BASIN_PREFIX = re.compile("(?:[a-z0-9][a-z0-9-]{0,47})?")
_MAX_STREAM_NAME_BYTES = 512


class Control:
    """The control calls on a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def list_basins(self, head: RequestHead, _now: float) -> Response:
        """GET /v1/basins"""
        basins = self._catalog.basins(*_list_range(head, _may_begin_basin))
        found, has_more = _page(basins, head)
        return json_response({"basins": [_basin_json(b) for b in found], "has_more": has_more})

    def create_basin(self, head: RequestHead, _now: float) -> HandleBody:
        """POST /v1/basins"""
        token = head.request_token()

        def handle(body: bytes, now: float) -> Response:
            request = _required_json(head, body)
            name = _name_in_body(request, "basin", check_basin_name)
            config = _basin_config(request.get("config"))
            provision, basin = self._catalog.create_basin(name, config, token, now)
            return _provisioned(provision, _basin_json(basin), 201)

        return handle

    def ensure_basin(self, head: RequestHead, _now: float) -> HandleBody:
        """PUT /v1/basins/{basin}"""
        name = head.basin_in_path()

        def handle(body: bytes, now: float) -> Response:
            config = _basin_config(_optional_json(head, body).get("config"))
            provision, basin = self._catalog.ensure_basin(name, config, now)
            return _ensured(provision, _basin_json(basin))

        return handle

    def get_basin(self, head: RequestHead, _now: float) -> Response:
        """GET /v1/basins/{basin}"""
        return json_response(self._catalog.basin(head.basin_in_path()).config.to_json())

    def reconfigure_basin(self, head: RequestHead, _now: float) -> HandleBody:
        """PATCH /v1/basins/{basin}"""
        name = head.basin_in_path()

        def handle(body: bytes, _now: float) -> Response:
            config = self._catalog.reconfigure_basin(name, _required_json(head, body))
            return json_response(config.to_json())

        return handle

    def delete_basin(self, head: RequestHead, now: float) -> Response:
        """DELETE /v1/basins/{basin}"""
        self._catalog.delete_basin(head.basin_in_path(), now)
        return Response(202)

    def list_streams(self, head: RequestHead, _now: float) -> Response:
        """GET /v1/streams"""
        basin = head.basin()
        streams = self._catalog.streams(basin, *_list_range(head, _may_begin_stream))
        found, has_more = _page(streams, head)
        return json_response({"streams": [_stream_json(s) for s in found], "has_more": has_more})

    def create_stream(self, head: RequestHead, _now: float) -> HandleBody:
        """POST /v1/streams"""
        token, basin = head.request_token(), head.basin()

        def handle(body: bytes, now: float) -> Response:
            request = _required_json(head, body)
            key = basin, _name_in_body(request, "stream", check_stream_name)
            config = StreamConfig().reconfigured(request.get("config"))
            provision, info = self._catalog.create_stream(key, config, token, now)
            return _provisioned(provision, _stream_json(info), 201)

        return handle

    def ensure_stream(self, head: RequestHead, _now: float) -> HandleBody:
        """PUT /v1/streams/{stream}"""
        key = head.stream_key()

        def handle(body: bytes, now: float) -> Response:
            config = StreamConfig().reconfigured(_optional_json(head, body))
            provision, info = self._catalog.ensure_stream(key, config, now)
            return _ensured(provision, _stream_json(info))

        return handle

    def get_stream(self, head: RequestHead, _now: float) -> Response:
        """GET /v1/streams/{stream}"""
        return json_response(self._catalog.stream_info(head.stream_key()).config.to_json())

    def reconfigure_stream(self, head: RequestHead, _now: float) -> HandleBody:
        """PATCH /v1/streams/{stream}"""
        key = head.stream_key()

        def handle(body: bytes, _now: float) -> Response:
            config = self._catalog.reconfigure_stream(key, _required_json(head, body))
            return json_response(config.to_json())

        return handle

    def delete_stream(self, head: RequestHead, now: float) -> Response:
        """DELETE /v1/streams/{stream}"""
        self._catalog.delete_stream(head.stream_key(), now)
        return Response(202)

    def check_tail(self, head: RequestHead, now: float) -> Response:
        """GET /v1/streams/{stream}/records/tail"""
        stream = self._catalog.open_stream(head.stream_key(), Access.READ, now)
        return json_response({"tail": position_json(stream.tail)})


# Requests


def _required_json(head: RequestHead, body: bytes) -> dict[str, Any]:
    if head.content_type() is not MediaType.JSON:
        raise JsonError("the request needs the header content-type: application/json")
    return as_object(load_json(body), "the body")


def _optional_json(head: RequestHead, body: bytes) -> dict[str, Any]:
    if "content-type" not in head.headers:
        return {}
    if not body and head.content_type() is MediaType.JSON:
        return {}
    return _required_json(head, body)


def _basin_config(value: Any) -> BasinConfig:
    return BasinConfig() if value is None else BasinConfig().reconfigured(value)


def _name_in_body(request: dict[str, Any], key: str, check: Callable[[str], str]) -> str:
    try:
        return check(as_text(request.get(key), key))
    except LocalProtocolError as error:
        raise JsonError(str(error)) from None


def _list_range(head: RequestHead, is_allowed: Callable[[str], bool]) -> tuple[str, str]:
    prefix, start_after = (head.parameter(name) or "" for name in ("prefix", "start_after"))
    if not (is_allowed(prefix) and is_allowed(start_after)):
        raise service_error("bad_query", "prefix or start_after: no name begins so")
    return prefix, start_after


def _may_begin_basin(text: str) -> bool:
    return _BASIN_PREFIX.fullmatch(text) is not None


def _may_begin_stream(text: str) -> bool:
    return "\0" not in text and len(text.encode(errors="replace")) <= _MAX_STREAM_NAME_BYTES


def _page(items: Iterator[T], head: RequestHead) -> tuple[list[T], bool]:
    limit = head.number("limit") or _MAX_LISTED
    limit = min(limit, _MAX_LISTED)
    page = list(islice(items, limit + 1))
    return page[:limit], len(page) > limit


# Responses


def _ensured(provision: Provisioned, value: dict[str, Any]) -> Response:
    return _provisioned(provision, value, 201 if provision is Provisioned.CREATED else 200)


def _provisioned(provision: Provisioned, value: dict[str, Any], status: int) -> Response:
    return json_response(value, status, {"s2-provision-result": provision.value})


def _basin_json(basin: Basin) -> dict[str, Any]:
    return {
        "name": basin.name,
        "location": None,
        "created_at": _rfc3339(basin.created_at),
        "deleted_at": None,
        "state": "active",
    }


def _stream_json(info: StreamInfo) -> dict[str, Any]:
    return {
        "name": info.key[1],
        "created_at": _rfc3339(info.created_at),
        "deleted_at": None,
        "cipher": None,
    }


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
