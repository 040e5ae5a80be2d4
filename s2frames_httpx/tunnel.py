"""What goes wrong while a proxy is asked for a way on: then nothing has reached the service."""

from __future__ import annotations

import httpx

from s2frames_httpx.library import httpcore

__all__ = ["bare_host", "check_tunnel", "num_tls", "read_error", "read_timeout"]


def num_tls(url: httpx.URL, proxy: httpx.Proxy | None) -> int:
    """How often TLS is begun on a connection until it leads to `url`."""
    schemes = (url.scheme, "" if proxy is None else proxy.url.scheme)
    return schemes.count("https")


def bare_host(host: str | None) -> str | None:
    """The host whose certificate is looked for: an IPv6 address without brackets."""
    return None if host is None else host.strip("[]")


def check_tunnel(data: bytes) -> None:
    """Raise an OSError where a proxy leaves instead of saying something."""
    if not data:
        raise OSError("it closed the connection without an answer")


def read_timeout(*, is_connecting: bool) -> Exception:
    """The error of a wait for bytes that did not come in time."""
    if is_connecting:
        return httpcore.ConnectTimeout("it did not answer in time")
    return httpcore.ReadTimeout("timed out")


def read_error(error: OSError, *, is_connecting: bool) -> Exception:
    """The error of a wait for bytes that broke."""
    return (httpcore.ConnectError if is_connecting else httpcore.ReadError)(str(error))
