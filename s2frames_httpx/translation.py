"""Between httpx's words and those of httpcore, the library under it. Nothing here waits."""

from __future__ import annotations

import ssl
from typing import Any, TypedDict

import httpx

from s2frames_httpx.library import httpcore
from s2frames_httpx.mapping import client_closed, through_proxy

__all__ = [
    "CORE_ERRORS",
    "has_bytes_left",
    "pool_options",
    "stream_below",
    "to_core_request",
    "to_httpx_error",
]

#: What httpcore raises for a request. Each has a namesake in httpx.
CORE_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
)

# Connections that rest, and for how many seconds; httpx's defaults.
_MAX_RESTING = 20
_REST_SECONDS = 5.0


class PoolOptions(TypedDict):
    """Arguments of a pool."""

    ssl_context: ssl.SSLContext | None
    proxy: httpcore.Proxy | None
    max_connections: None
    max_keepalive_connections: int
    keepalive_expiry: float
    http1: bool
    http2: bool


def pool_options(ssl_context: ssl.SSLContext | None, proxy: httpx.Proxy | None) -> PoolOptions:
    """How to make a pool.

    HTTP/1.1 only: over HTTP/2 httpcore loses an answer that comes while the body is being sent. No
    limit on connections, since a session keeps one for as long as it lasts.
    """
    return {
        "ssl_context": ssl_context,
        "proxy": None if proxy is None else _to_core_proxy(proxy, ssl_context),
        "max_connections": None,
        "max_keepalive_connections": _MAX_RESTING,
        "keepalive_expiry": _REST_SECONDS,
        "http1": True,
        "http2": False,
    }


class _Secret(bytes):
    """Bytes that nothing shows: httpcore logs what it logs in to a SOCKS proxy with."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'[secret]'"


def _to_core_proxy(proxy: httpx.Proxy, ssl_context: ssl.SSLContext | None) -> httpcore.Proxy:
    """A proxy is trusted as the service is, unless it has a context of its own."""
    auth = proxy.raw_auth
    return httpcore.Proxy(
        _to_core_url(proxy.url),
        auth=None if auth is None else (_Secret(auth[0]), _Secret(auth[1])),
        headers=proxy.headers.raw,
        ssl_context=proxy.ssl_context or ssl_context,
    )


def _to_core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


def _to_proxied_url(url: httpx.URL) -> httpcore.URL:
    """As it stands in what a proxy of HTTP is asked: httpcore puts no brackets there.

    An IPv6 address has them (RFC 9110, 4.2 and 9.3.6). See `tunnel.bare_host` for TLS.
    """
    core = _to_core_url(url)
    if b":" in core.host:
        core.host = b"[%b]" % core.host
    return core


def to_core_request(request: httpx.Request, proxy: httpx.Proxy | None = None) -> httpcore.Request:
    """The same request, directly or through a proxy."""
    asks_proxy = proxy is not None and proxy.url.scheme in ("http", "https")
    return httpcore.Request(
        method=request.method,
        url=(_to_proxied_url if asks_proxy else _to_core_url)(request.url),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


def to_httpx_error(
    error: Exception, proxy: httpx.Proxy | None, *, is_closed: bool
) -> httpx.TransportError:
    """What httpx calls one of `CORE_ERRORS`; of what went through a proxy it says so."""
    if is_closed:
        return client_closed()
    kind: type[httpx.TransportError] = getattr(httpx, type(error).__name__)
    words = str(error) or type(error).__name__
    # The URL has no credentials: httpx keeps them elsewhere.
    return kind(words if proxy is None else through_proxy(proxy.url, words))


def has_bytes_left(answer: Any) -> bool:
    """Whether bytes came behind an answer of httpcore's that has ended.

    They would be taken for the answer to the next request. httpcore tells nobody but itself; where
    it keeps them is looked up here alone. If they are not there, it counts as true: then no
    connection is used twice.
    """
    connection = getattr(getattr(answer, "_stream", None), "_connection", None)
    state = getattr(connection, "_h11_state", None)
    return state is None or bool(state.trailing_data[0])


def stream_below(connection: Any) -> Any:
    """The network stream of one of a pool's connections; None where there is none yet.

    httpcore counts a tunnel whose TLS has failed as busy for ever, and keeps it. Where it has the
    stream, by which that is seen, is looked up here alone.
    """
    while (below := getattr(connection, "_connection", None)) is not None:
        connection = below
    return getattr(connection, "_network_stream", None)
