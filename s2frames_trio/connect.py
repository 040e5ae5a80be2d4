"""Transports to where HTTP/2 is spoken: TCP, and TLS with ALPN for https.

Plain http means HTTP/2 with prior knowledge (RFC 9113, 3.3): nothing is negotiated.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import trio
from attrs import frozen

from s2frames.errors import ConnectError, LocalProtocolError
from s2frames.system.socket_options import bound_unsent
from s2frames_trio.interrupts import passing_interrupts_on
from s2frames_trio.mapping import FOREIGN_ERRORS, to_our_error
from s2frames_trio.tls import TlsStream

__all__ = ["Origin", "check_context", "connect", "connecting"]

_DEFAULT_PORTS = {"http": 80, "https": 443}

_ALPN = "h2"

# RFC 9113, 9.2. By value, since naming them is deprecated.
_OLD_VERSIONS = [version for version in ssl.TLSVersion if 0 < version < ssl.TLSVersion.TLSv1_2]


@frozen
class Origin:
    """Where connections go to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of a URL. Raises `LocalProtocolError` for one that has none."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise LocalProtocolError(f"the URL cannot be used: {error}") from None
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise LocalProtocolError(
                f"a URL has http or https and a host, not {parts.scheme!r} and {parts.hostname!r}"
            )
        return cls(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme])

    @property
    def authority(self) -> str:
        """Host and port as in a URL; the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@contextmanager
def connecting(origin: Origin, what: str, deadline: float) -> Iterator[None]:
    """A step of making a connection: it has time until `deadline`, and its errors are ours."""
    try:
        with trio.fail_at(deadline):
            yield
    except trio.TooSlowError:
        raise ConnectError(f"cannot connect: {origin}: {what} took too long") from None
    except FOREIGN_ERRORS as error:
        raise to_our_error(error, str(origin), is_connecting=True) from error


def check_context(context: ssl.SSLContext) -> None:
    """Raise `LocalProtocolError` for a context with which no HTTP/2 server can be spoken to."""
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise LocalProtocolError("the ssl_context is one for servers, not for clients")
    if context.maximum_version in _OLD_VERSIONS:
        raise LocalProtocolError(
            f"HTTP/2 needs TLS 1.2 at least, but the ssl_context allows at most "
            f"{context.maximum_version.name}"
        )
    if not ssl.HAS_ALPN:
        raise LocalProtocolError("HTTP/2 needs ALPN, which this Python's OpenSSL lacks")


async def connect(
    origin: Origin, deadline: float, ssl_context: ssl.SSLContext | None = None
) -> trio.abc.Stream:
    """A transport to `origin`, ready for HTTP/2, by `deadline` on trio's clock.

    With https, `ssl_context` (by default the system's certificates) is told to offer HTTP/2 alone,
    and stays so. Raises `CertificateError`, and `ConnectError` for all else that is in the way.
    """
    with connecting(origin, "reaching it", deadline):
        tcp = await _reach(origin)
    bound_unsent(tcp.socket)
    if origin.scheme == "http":
        return tcp
    try:
        with connecting(origin, "the TLS handshake", deadline):
            return await _start_tls(tcp, origin, ssl_context or ssl.create_default_context())
    except BaseException:
        await trio.aclose_forcefully(tcp)
        raise


async def _reach(origin: Origin) -> trio.SocketStream:
    while True:
        # It tries several addresses (RFC 6555), in tasks of its own, and sets TCP_NODELAY.
        with passing_interrupts_on():
            return await trio.open_tcp_stream(origin.host, origin.port)


async def _start_tls(tcp: trio.SocketStream, origin: Origin, context: ssl.SSLContext) -> TlsStream:
    context.set_alpn_protocols([_ALPN])
    tls = TlsStream(tcp, context, origin.host)
    await tls.do_handshake()
    chosen = tls.selected_alpn_protocol()
    if chosen != _ALPN:
        raise ConnectError(
            f"cannot connect: {origin}: it does not speak HTTP/2 (ALPN chose {chosen or 'nothing'})"
            "; the clients of s2frames_httpx speak HTTP/1"
        )
    return tls
