"""What OpenSSL's names for a failure mean to who wants to connect."""

from __future__ import annotations

from attrs import frozen

__all__ = ["TlsFault", "tls_fault"]


@frozen
class TlsFault:
    """What is wrong, in words that help."""

    words: str
    #: Whether a certificate is missing or refused: another attempt would end the same way.
    is_about_certificate: bool = False


_WANTED = TlsFault("the service wants a client certificate, which the ssl_context lacks", True)
_REFUSED = TlsFault("the service refuses the client certificate of the ssl_context", True)
_NO_TLS = TlsFault("no TLS is spoken there; is it an address for http?")
_NO_HTTP = TlsFault(
    "it speaks another HTTP; the clients of s2frames_httpx speak HTTP/1.1, s2frames_trio HTTP/2"
)
_VERSIONS = TlsFault("it speaks other versions of TLS")
_NO_AGREEMENT = TlsFault("it agrees to no TLS of ours, or wants a client certificate")
_CUT_OFF = TlsFault("the connection was closed in the TLS handshake; is it an address for http?")

# By the names in OpenSSL's sslerr.h. Those with ALERT the peer has said (RFC 8446, 6.2); a client
# hears of its own certificate there, in TLS 1.3 only after the handshake.
_FAULTS: dict[str, TlsFault] = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _WANTED,
    "SSLV3_ALERT_NO_CERTIFICATE": _WANTED,
    "SSLV3_ALERT_BAD_CERTIFICATE": _REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _REFUSED,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _REFUSED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _REFUSED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _REFUSED,
    "TLSV1_ALERT_UNKNOWN_CA": _REFUSED,
    "TLSV1_ALERT_ACCESS_DENIED": _REFUSED,
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": _NO_HTTP,
    "TLSV1_ALERT_PROTOCOL_VERSION": _VERSIONS,
    "UNSUPPORTED_PROTOCOL": _VERSIONS,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _NO_AGREEMENT,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "UNEXPECTED_EOF_WHILE_READING": _CUT_OFF,
}


def tls_fault(reason: str | None, *, is_connecting: bool) -> TlsFault | None:
    """What a failure of TLS means, by its `ssl.SSLError.reason`; None for what its name says best.

    What is said of addresses and versions holds while a connection is made; of certificates always.
    """
    fault = _FAULTS.get(reason or "")
    is_told = fault is not None and (is_connecting or fault.is_about_certificate)
    return fault if is_told else None
