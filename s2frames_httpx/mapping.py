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

__all__ = [
    "FOREIGN_ERRORS",
    "client_options",
    "httpx_timeout",
    "lower_headers",
    "set_timeout",
    "to_our_error",
]

#: What httpx raises for a request. A UnicodeError is a host name that no DNS name can be.
FOREIGN_ERRORS = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)

# The first match counts. What is said of the error comes before httpx's own words.
_ERRORS: tuple[tuple[type[Exception], type[S2FramesError], str], ...] = (
    (httpx.ConnectTimeout, ConnectError, "cannot connect"),
    (httpx.ConnectError, ConnectError, "cannot connect"),
    (httpx.PoolTimeout, ConnectError, "no connection became free"),
    (httpx.TimeoutException, TransportError, "no answer in time"),
    (httpx.ProxyError, TransportError, "the proxy failed"),
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


def to_our_error(error: Exception, url: str) -> S2FramesError:
    """The error of ours for one of httpx's; `url` says where it happened."""
    origin = urlsplit(url)
    where = f"{origin.scheme}://{origin.netloc}"
    if any(words in str(error) for words in _DISCONNECTED):
        ours: S2FramesError = TransportError(f"the connection to {where} was closed early")
    elif _has_certificate_failure(error):
        ours = CertificateError(f"the certificate is not to be trusted: {where}: {error}")
    else:
        kind, words = next(
            (ours, words) for theirs, ours, words in _ERRORS if isinstance(error, theirs)
        )
        # What httpx refuses to send may be a header, and that a secret: it is not repeated.
        is_shown = str(error) and not isinstance(error, httpx.LocalProtocolError)
        ours = kind(f"{words}: {where}: {error if is_shown else type(error).__name__}")
    ours.__cause__ = error
    return ours


def _has_certificate_failure(error: BaseException | None) -> bool:
    """Whether `error` came about since a certificate was not accepted."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


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

    http1: bool
    http2: bool
    follow_redirects: bool
    limits: httpx.Limits
    headers: dict[str, str]
    timeout: httpx.Timeout
    mounts: dict[str, None]


def client_options(settings: Settings) -> ClientOptions:
    """How to make an httpx client for S2.

    HTTP/1.1 only: over HTTP/2 httpx loses an answer that comes while the body is being sent. No
    limit on connections, since a session keeps one for as long as it lasts. No redirects: they
    would carry the access token to another place. No proxy to a loopback address: it would read the
    token on a way that counts as private.
    """
    return {
        "http1": True,
        "http2": False,
        "follow_redirects": False,
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=20),
        "headers": {"user-agent": "s2frames", "accept-encoding": "identity"},
        "timeout": httpx_timeout(settings),
        "mounts": {"http://": None} if settings.endpoints.is_private else {},
    }
