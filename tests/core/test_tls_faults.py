"""What OpenSSL's names mean."""

from __future__ import annotations

import pytest

from s2frames.tls_faults import tls_fault


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
    fault = tls_fault(reason, is_connecting=is_connecting)
    assert fault is not None
    assert fault.is_about_certificate
    assert words in fault.words


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
    fault = tls_fault(reason, is_connecting=True)
    assert fault is not None
    assert not fault.is_about_certificate
    assert words in fault.words
    # Later it is something else: a record that was garbled on the way, say.
    assert tls_fault(reason, is_connecting=False) is None


@pytest.mark.parametrize("reason", [None, "", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"])
@pytest.mark.parametrize("is_connecting", [True, False])
def test_what_says_itself_best(reason: str | None, is_connecting: bool) -> None:
    assert tls_fault(reason, is_connecting=is_connecting) is None
