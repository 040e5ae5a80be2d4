"""What a peer says in TLS's alerts (RFC 8446, 6.2), as OpenSSL's errors tell it."""

from __future__ import annotations

import ssl

__all__ = ["is_about_our_certificate"]

# Parts of the reasons' names: bad_certificate, certificate_expired, certificate_required and so on.
_ALERT = "ALERT"
_ABOUT_CERTIFICATES = ("CERTIFICATE", "UNKNOWN_CA")


def is_about_our_certificate(error: ssl.SSLError) -> bool:
    """Whether the peer wants a certificate of ours, or does not accept the one it got."""
    # Those that Python raises by itself have none.
    reason: str = getattr(error, "reason", None) or ""
    return _ALERT in reason and any(part in reason for part in _ABOUT_CERTIFICATES)
