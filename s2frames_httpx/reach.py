"""How a client reaches the service: whom it trusts, and through which proxy. Checked when made."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from typing import TypeVar

import httpx
from attrs import frozen

from s2frames.errors import LocalProtocolError
from s2frames.settings import Settings
from s2frames_httpx.certificates import check_context, default_context
from s2frames_httpx.proxies import Proxies

__all__ = ["Reach", "check_own_transport"]

T = TypeVar("T", httpx.BaseTransport, httpx.AsyncBaseTransport)

# In place of a basin's name in an endpoint.
_SOME_BASIN = "some-basin"


@frozen
class Reach:
    """What a transport needs to know."""

    #: How to speak TLS; None when nothing asks for it.
    ssl_context: ssl.SSLContext | None
    proxies: Proxies
    #: Seconds.
    connect_timeout: float

    @classmethod
    def make(
        cls,
        settings: Settings,
        ssl_context: ssl.SSLContext | None,
        proxy: httpx.Proxy | httpx.URL | str | None,
        environ: Mapping[str, str] | None = None,
    ) -> Reach:
        """What was given, and for the rest what the environment says, as far as it is needed.

        Raises `LocalProtocolError`.
        """
        environ = os.environ if environ is None else environ
        endpoints = settings.endpoints
        urls = (endpoints.account_url(), endpoints.basin_url(_SOME_BASIN))
        is_tls = any(url.lower().startswith("https:") for url in urls)
        if proxy is None:
            proxies = Proxies.from_environ(environ, urls)
        else:
            proxies = Proxies.at(proxy)
            _check_privacy(settings, urls)
        if ssl_context is not None:
            check_context(ssl_context)
        elif is_tls or proxies.has_tls:
            ssl_context = default_context(environ)
        return cls(ssl_context, proxies, settings.connect_timeout)


def _check_privacy(settings: Settings, urls: tuple[str, ...]) -> None:
    is_plain = any(url.lower().startswith("http:") for url in urls)
    if settings.access_token and is_plain and not settings.allow_insecure:
        raise LocalProtocolError(
            "a proxy reads an access token that goes over plain http: use an https endpoint, or "
            "pass allow_insecure=True"
        )


def check_own_transport(
    transport: T,
    kind: type[T],
    ssl_context: ssl.SSLContext | None,
    proxy: httpx.Proxy | httpx.URL | str | None,
) -> T:
    """Raise `LocalProtocolError` for a transport of the user's that no client can work with."""
    if not isinstance(transport, kind):
        raise LocalProtocolError(
            f"transport must be an httpx.{kind.__name__}, not {type(transport).__name__}"
        )
    for name, value in (("ssl_context", ssl_context), ("proxy", proxy)):
        if value is not None:
            raise LocalProtocolError(
                f"{name} is for a client without a transport of your own: give it to that one"
            )
    limit = _connection_limit(transport)
    if limit is not None:
        raise LocalProtocolError(
            f"each session has a connection for as long as it lasts, and this transport allows "
            f"{limit}: make it with limits=httpx.Limits(max_connections=None), or leave it out "
            f"and use ssl_context= and proxy="
        )
    return transport


def _connection_limit(transport: httpx.BaseTransport | httpx.AsyncBaseTransport) -> int | None:
    """How many connections one of httpx's transports allows at most; None for any number.

    It tells nobody but itself, so that this is the one place that looks inside. A transport of
    another kind is taken to know what it does.
    """
    pool = getattr(transport, "_pool", None)
    limit = getattr(pool, "_max_connections", sys.maxsize)
    return limit if isinstance(limit, int) and limit < sys.maxsize else None
