"""An S2 service without I/O: requests in, responses out, over a store.

It answers as `s2 lite` does, with these differences: deleting takes effect at once; retention ages
and delete-on-empty are kept and told, but nothing is removed for them; nothing is encrypted, and a
cipher is refused; there is no access control, and access tokens are ignored; locations, metrics and
access tokens have no routes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from s2frames.embedded.append import AppendSession, unary_append
from s2frames.embedded.catalog import Access, Catalog
from s2frames.embedded.control import Control, HandleBody
from s2frames.embedded.exchange import (
    BodyExchange,
    Exchange,
    Response,
    answer,
    error_response,
)
from s2frames.embedded.read import open_read
from s2frames.embedded.request import MediaType, RequestHead
from s2frames.embedded.store import MemoryStore, Store
from s2frames.embedded.stream import Stream
from s2frames.errors import ServiceError

__all__ = ["Service"]

_OnOutput: TypeAlias = Callable[[], None]
_Open: TypeAlias = Callable[[RequestHead, float, _OnOutput], Exchange]

# Any name in a path.
_NAME = "*"
_TEXT = {"content-type": "text/plain; charset=utf-8"}


def _ignore() -> None:
    """Nobody waits for output."""


class Service:
    """An S2 service. Single-threaded: one call at a time, for all its exchanges.

    `store` keeps everything; by default memory does. `random` gives floats from 0 up to, not
    including, 1; it spreads heartbeats.
    """

    def __init__(self, store: Store | None = None, *, random: Callable[[], float]) -> None:
        self._catalog = Catalog(MemoryStore() if store is None else store)
        self._random = random
        self._routes = self._make_routes(Control(self._catalog))

    def open(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | Sequence[tuple[str, str]],
        now: float,
        on_output: Callable[[], None] = _ignore,
    ) -> Exchange:
        """Start a request. `target` is its path and query; `now` is in seconds since the epoch.

        `on_output` is called when the exchange gets output because of another exchange: an append
        wakes those who follow. It is called from inside the other exchange's call.

        Never raises for what a client sent: that is answered, with an error if need be.
        """
        head = None
        try:
            head = RequestHead.parse(method, target, headers)
            return self._open(head, now, on_output)
        except ServiceError as error:
            return answer(error_response(error), head, now)

    def _open(self, head: RequestHead, now: float, on_output: _OnOutput) -> Exchange:
        methods = self._routes.get(_template(head.segments))
        if methods is None:
            return answer(Response(404, b"no such path", _TEXT), head, now)
        if head.method not in methods:
            allow = {**_TEXT, "allow": ", ".join(methods)}
            return answer(Response(405, b"no such method here", allow), head, now)
        return methods[head.method](head, now, on_output)

    def _make_routes(self, control: Control) -> Mapping[tuple[str, ...], Mapping[str, _Open]]:
        basin = ("v1", "basins", _NAME)
        stream = ("v1", "streams", _NAME)
        return {
            ("health",): {"GET": _unary(_health)},
            ("ping",): {"GET": _unary(_health)},
            ("v1", "basins"): {
                "GET": _unary(control.list_basins),
                "POST": _unary(control.create_basin),
            },
            basin: {
                "GET": _unary(control.get_basin),
                "PUT": _unary(control.ensure_basin),
                "PATCH": _unary(control.reconfigure_basin),
                "DELETE": _unary(control.delete_basin),
            },
            ("v1", "streams"): {
                "GET": _unary(control.list_streams),
                "POST": _unary(control.create_stream),
            },
            stream: {
                "GET": _unary(control.get_stream),
                "PUT": _unary(control.ensure_stream),
                "PATCH": _unary(control.reconfigure_stream),
                "DELETE": _unary(control.delete_stream),
            },
            (*stream, "records"): {"GET": self._read, "POST": self._append},
            (*stream, "records", "tail"): {"GET": _unary(control.check_tail)},
        }

    def _append(self, head: RequestHead, now: float, on_output: _OnOutput) -> Exchange:
        open_stream = self._stream_opener(head, Access.APPEND)
        if head.content_type() is MediaType.S2S:
            head.check_encryption_key()
            return AppendSession(head, open_stream(now), now, on_output)
        handle = unary_append(head, open_stream)
        bad_body = "bad_proto" if head.content_type() is MediaType.PROTOBUF else "bad_json"
        return BodyExchange(head, handle, bad_body, now, on_output)

    def _read(self, head: RequestHead, now: float, on_output: _OnOutput) -> Exchange:
        return open_read(head, self._stream_opener(head, Access.READ), self._random, now, on_output)

    def _stream_opener(self, head: RequestHead, access: Access) -> Callable[[float], Stream]:
        return partial(self._catalog.open_stream, head.stream_key(), access)


def _template(segments: tuple[str, ...]) -> tuple[str, ...]:
    """The segments, with the name among them replaced. It may be empty unless it is the last one:
    then that is another path, as the server's router has it."""
    if len(segments) < 3 or segments[2:] == ("",):
        return segments
    return (*segments[:2], _NAME, *segments[3:])


def _unary(call: Callable[[RequestHead, float], Response | HandleBody]) -> _Open:
    """A control call as an exchange."""

    def open_call(head: RequestHead, now: float, on_output: _OnOutput) -> Exchange:
        result = call(head, now)
        if isinstance(result, Response):
            return answer(result, head, now)
        return BodyExchange(head, result, "bad_json", now, on_output)

    return open_call


def _health(_head: RequestHead, _now: float) -> Response:
    return Response(200, b"OK", _TEXT)
