"""What OpenSSL's names mean."""

from __future__ import annotations

import pytest

from s2frames.errors import CertificateError, ConnectError
from s2frames.tls_faults import tls_error


class SSLError(OSError):
    """As Python's, which has no reason where its own code raises it."""

    def __init__(self, reason: str | None) -> None:
        super().__init__(1, "words of OpenSSL")
        self.reason = reason


class SSLZeroReturnError(SSLError):
    """As Python's."""


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "wants a client certificate"),
        ("TLSV1_ALERT_UNKNOWN_CA", "refuses the client certificate"),
        ("SSLV3_ALERT_CERTIFICATE_REVOKED", "refuses the client certificate"),
    ],
)
@pytest.mark.parametrize("is_connecting", [True, False])
def test_certificates(reason: str, words: str, is_connecting: bool) -> None:
    error = tls_error(SSLError(reason), "https://peer", is_connecting=is_connecting)
    assert type(error) is CertificateError
    assert str(error).startswith("TLS failed: https://peer: the service ")
    assert words in str(error)
    assert str(error).endswith(f" ({reason})")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("WRONG_VERSION_NUMBER", "no TLS is spoken there"),
        ("HTTP_REQUEST", "no TLS is spoken there"),
        ("TLSV1_ALERT_NO_APPLICATION_PROTOCOL", "speaks another HTTP"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "other versions of TLS"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "or wants a client certificate"),
        ("UNEXPECTED_EOF_WHILE_READING", "closed in the TLS handshake"),
    ],
)
def test_what_is_wrong_with_an_address(reason: str, words: str) -> None:
    error = tls_error(SSLError(reason), "https://peer", is_connecting=True)
    assert type(error) is ConnectError
    assert words in str(error)
    # Later it is something else: a record that was garbled on the way, say.
    assert tls_error(SSLError(reason), "https://peer", is_connecting=False) is None


def test_an_end_that_some_pythons_give_no_reason_for() -> None:
    error = tls_error(SSLZeroReturnError(None), "https://peer", is_connecting=True)
    assert type(error) is ConnectError
    assert "closed in the TLS handshake" in str(error)


@pytest.mark.parametrize("reason", [None, "", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"])
@pytest.mark.parametrize("is_connecting", [True, False])
def test_what_says_itself_best(reason: str | None, is_connecting: bool) -> None:
    assert tls_error(SSLError(reason), "https://peer", is_connecting=is_connecting) is None
    assert tls_error(OSError("no reason"), "https://peer", is_connecting=is_connecting) is None
