"""Between httpx's words and the core's: errors, time-outs, headers. One table each."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TypedDict
from urllib.parse import urlsplit

import httpx

from s2frames.errors import (
    CertificateError,
    ConnectError,
    LocalProtocolError,
    RemoteProtocolError,
    S2FramesError,
    TransportError,
)
from s2frames.settings import Settings
from s2frames.tls_faults import tls_error

__all__ = [
    "FOREIGN_ERRORS",
    "ClientClosed",
    "client_closed",
    "client_options",
    "httpx_timeout",
    "lower_headers",
    "set_timeout",
    "through_proxy",
    "to_our_error",
]


class ClientClosed(httpx.TransportError):
    """The client was closed while a request was under way, by another thread or task."""


def client_closed() -> ClientClosed:
    """The error of a request whose client was closed."""
    return ClientClosed("the client is closed")


#: What httpx raises for a request. A UnicodeError is a host name that no DNS name can be.
FOREIGN_ERRORS = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)

# The first match counts. What is said of the error comes before httpx's own words.
_ERRORS: tuple[tuple[type[Exception], type[S2FramesError], str], ...] = (
    (httpx.ConnectTimeout, ConnectError, "cannot connect"),
    (httpx.ConnectError, ConnectError, "cannot connect"),
    (httpx.PoolTimeout, ConnectError, "no connection became free"),
    (httpx.TimeoutException, TransportError, "no answer in time"),
    (httpx.ProxyError, ConnectError, "the proxy refuses"),
    (httpx.RemoteProtocolError, RemoteProtocolError, "the answer is not HTTP"),
    (httpx.UnsupportedProtocol, LocalProtocolError, "the URL cannot be used"),
    (httpx.LocalProtocolError, LocalProtocolError, "the request cannot be sent"),
    (httpx.InvalidURL, LocalProtocolError, "the URL cannot be used"),
    (UnicodeError, LocalProtocolError, "the URL cannot be used"),
    (httpx.TransportError, TransportError, "the connection broke"),
    (httpx.HTTPError, TransportError, "the request failed"),
)

# httpx tells a connection that ended too early (before, in and after an answer's head) from garbage
# by words alone, some of them h11's.
_DISCONNECTED = ("disconnected", "peer unexpectedly closed connection", "peer closed connection")


_THROUGH = "through the proxy "


def through_proxy(proxy_url: httpx.URL, words: str) -> str:
    """The words of an error of what went through a proxy. The URL has no credentials."""
    return f"{_THROUGH}{proxy_url}: {words}"


def _proxied(where: str, error: Exception) -> str:
    """`where`, with the proxy that `error` names: for words of ours that repeat none of its own."""
    proxy, colon, _ = str(error).partition(": ")
    return f"{where}, {proxy}" if colon and proxy.startswith(_THROUGH) else where


def to_our_error(error: Exception, url: str) -> S2FramesError:
    """The error of ours for one of httpx's; `url` says where it happened."""
    if isinstance(error, ClientClosed):
        return LocalProtocolError(str(error))
    origin = urlsplit(url)
    where = f"{origin.scheme}://{origin.netloc}"
    tls_error = _tls_error_behind(error)
    if any(words in str(error) for words in _DISCONNECTED):
        ours: S2FramesError = TransportError.broken_off(
            f"the connection to {_proxied(where, error)} was closed early"
        )
    elif tls_error is not None:
        is_connecting = isinstance(error, httpx.ConnectError)
        ours = _from_tls(tls_error, _proxied(where, error), is_connecting=is_connecting)
    else:
        kind, words = next(
            (ours, words) for theirs, ours, words in _ERRORS if isinstance(error, theirs)
        )
        # What httpx refuses to send may be a header, and that a secret: it is not repeated.
        is_shown = str(error) and not isinstance(error, httpx.LocalProtocolError)
        ours = kind(f"{words}: {where}: {error if is_shown else type(error).__name__}")
        if isinstance(ours, TransportError):
            ours.was_broken_off = isinstance(error, httpx.NetworkError)
    ours.__cause__ = error
    return ours


def _tls_error_behind(error: BaseException | None) -> ssl.SSLError | None:
    """What went wrong in TLS and brought `error` about, if that is what did."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def _from_tls(error: ssl.SSLError, where: str, *, is_connecting: bool) -> S2FramesError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateError(f"the certificate is not to be trusted: {where}: {error}")
    told = tls_error(error, where, is_connecting=is_connecting)
    if told is not None:
        return told
    kind = ConnectError if is_connecting else TransportError
    return kind(f"TLS failed: {where}: {error}")


def httpx_timeout(settings: Settings) -> httpx.Timeout:
    """Deadlines of a request."""
    return httpx.Timeout(
        connect=settings.connect_timeout,
        read=settings.request_timeout,
        write=settings.request_timeout,
        pool=settings.connect_timeout,
    )


def set_timeout(request: httpx.Request, what: str, seconds: float) -> None:
    """Let a `read` be silent, or a `write` take nothing, for so long.

    httpx looks them up in the request when it begins to send or to wait for a head or a body.
    """
    request.extensions["timeout"][what] = seconds


def lower_headers(headers: httpx.Headers) -> Mapping[str, str]:
    """The headers as the core wants them: names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


class ClientOptions(TypedDict):
    """Arguments of an httpx client."""

    follow_redirects: bool
    headers: dict[str, str]
    timeout: httpx.Timeout
    trust_env: bool


def client_options(settings: Settings) -> ClientOptions:
    """How to make an httpx client for S2, beside its transport.

    No redirects: they would carry the access token to another place. What the environment says is
    the transport's business.
    """
    return {
        "follow_redirects": False,
        "headers": {"user-agent": "s2frames", "accept-encoding": "identity"},
        "timeout": httpx_timeout(settings),
        "trust_env": False,
    }
