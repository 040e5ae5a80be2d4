"""What OpenSSL's names for a failure mean to who wants to connect."""

from __future__ import annotations

from attrs import frozen

from s2frames.errors import CertificateError, ConnectError, TransportError

__all__ = ["tls_error"]


@frozen
class _Fault:
    """What is wrong, in words that help."""

    words: str
    #: Whether a certificate is missing or refused: another attempt would end the same way.
    is_about_certificate: bool = False


_WANTED = _Fault("the service wants a client certificate, which the ssl_context lacks", True)
_REFUSED = _Fault("the service refuses the client certificate of the ssl_context", True)
_NO_TLS = _Fault("no TLS is spoken there; is it an address for http?")
_NO_HTTP = _Fault(
    "it speaks another HTTP; the clients of s2frames_httpx speak HTTP/1.1, s2frames_trio HTTP/2"
)
_VERSIONS = _Fault("it speaks other versions of TLS")
_NO_AGREEMENT = _Fault("it agrees to no TLS of ours, or wants a client certificate")
_CUT_OFF = _Fault("the connection was closed in the TLS handshake; is it an address for http?")

# By the names in OpenSSL's sslerr.h. Those with ALERT the peer has said (RFC 8446, 6.2); a client
# hears of its own certificate there, in TLS 1.3 only after the handshake.
_FAULTS: dict[str, _Fault] = {
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
    # The same where Python has OpenSSL ignore it (3.11.2, say): a class, and no reason.
    "SSLZeroReturnError": _CUT_OFF,
}


def tls_error(error: OSError, where: str, *, is_connecting: bool) -> TransportError | None:
    """The error of ours for an `ssl.SSLError`; None for what its own words say best.

    What is said of addresses and versions holds while a connection is made; of certificates always.
    """
    # Those that Python's own code raises have no reason.
    name = getattr(error, "reason", None) or type(error).__name__
    fault = _FAULTS.get(name)
    if fault is None or not (is_connecting or fault.is_about_certificate):
        return None
    kind = CertificateError if fault.is_about_certificate else ConnectError
    return kind(f"TLS failed: {where}: {fault.words} ({name})")
