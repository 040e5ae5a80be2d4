from __future__ import annotations

import ssl

import pytest

from s2frames.sockets.alerts import is_about_our_certificate


def error(reason: str | None) -> ssl.SSLError:
    made = ssl.SSLError(1, "it broke")
    made.reason = reason  # type: ignore[assignment]  # None for errors that are not OpenSSL's
    return made


@pytest.mark.parametrize(
    "reason",
    [
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_UNKNOWN_CA",
    ],
)
def test_alerts_about_our_certificate(reason: str) -> None:
    assert is_about_our_certificate(error(reason))


def test_an_error_of_python_itself_has_no_reason() -> None:
    assert not is_about_our_certificate(ssl.SSLError("certificate alert"))


@pytest.mark.parametrize(
    "reason",
    [
        None,
        "CERTIFICATE_VERIFY_FAILED",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_INTERNAL_ERROR",
        "WRONG_VERSION_NUMBER",
    ],
)
def test_what_is_about_something_else(reason: str | None) -> None:
    assert not is_about_our_certificate(error(reason))
