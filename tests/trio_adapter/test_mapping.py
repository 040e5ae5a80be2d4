from __future__ import annotations

import socket
import ssl
from types import SimpleNamespace
from typing import Any

import h2.exceptions
import pytest
import trio
from h2.errors import ErrorCodes
from hpack.exceptions import HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import GoAwayFrame

from s2frames import (
    LocalProtocolError,
    Outcome,
    RemoteProtocolError,
    S2FramesError,
    TransportError,
)
from s2frames.errors import CertificateError, ConnectError
from s2frames_trio.mapping import (
    FOREIGN_ERRORS,
    another,
    breach_error,
    code_name,
    reset_error,
    to_our_error,
    unprocessed_error,
)

WHERE = "https://example.com"


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


BROKEN = trio.BrokenResourceError
UNTRUSTED = ssl.SSLCertVerificationError(1, "self-signed certificate")

# Theirs, what it is while connecting and afterwards, and what is said while connecting.
ERRORS: list[tuple[BaseException, type[S2FramesError], type[S2FramesError], str]] = [
    (UNTRUSTED, CertificateError, CertificateError, "not to be trusted"),
    (caused(BROKEN(), UNTRUSTED), CertificateError, CertificateError, "self-signed"),
    (ssl.SSLError(1, "no alpn"), ConnectError, TransportError, "TLS failed"),
    (caused(BROKEN(), ssl.SSLError(1, "x")), ConnectError, TransportError, "TLS failed"),
    (socket.gaierror(-2, "unknown"), ConnectError, TransportError, "cannot be resolved"),
    (ConnectionRefusedError(111, "no"), ConnectError, TransportError, "refused"),
    (
        caused(OSError("all"), ExceptionGroup("all", [ConnectionRefusedError(111, "no")])),
        ConnectError,
        TransportError,
        "refused",
    ),
    (OSError("unreachable"), ConnectError, TransportError, "unreachable"),
    (UnicodeError("label"), LocalProtocolError, LocalProtocolError, "URL cannot be used"),
    (h2.exceptions.ProtocolError("odd"), ConnectError, TransportError, "odd"),
    (h2.exceptions.DenialOfServiceError("much"), ConnectError, TransportError, "much"),
    (HPACKError("odd"), ConnectError, TransportError, "odd"),
    (HyperframeError("odd"), ConnectError, TransportError, "odd"),
    (BROKEN("gone"), ConnectError, TransportError, "gone"),
    (trio.ClosedResourceError("closed"), ConnectError, TransportError, "closed"),
    (trio.TooSlowError("slow"), ConnectError, TransportError, "slow"),
    (trio.TooSlowError(), ConnectError, TransportError, "TooSlowError"),
]


@pytest.mark.parametrize(("theirs", "connecting", "connected", "words"), ERRORS)
def test_every_error_becomes_one_of_ours(
    theirs: BaseException,
    connecting: type[S2FramesError],
    connected: type[S2FramesError],
    words: str,
) -> None:
    assert isinstance(theirs, FOREIGN_ERRORS)
    before = to_our_error(theirs, WHERE, is_connecting=True)
    after = to_our_error(theirs, WHERE)
    assert (type(before), type(after)) == (connecting, connected)
    assert words in str(before)
    for ours in (before, after):
        assert WHERE in str(ours)
        assert ours.__cause__ is theirs


@pytest.mark.parametrize("kind", [KeyError, ValueError, RuntimeError, AssertionError])
def test_bugs_are_not_ours_to_map(kind: type[Exception]) -> None:
    assert not isinstance(kind(), FOREIGN_ERRORS)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (ErrorCodes.REFUSED_STREAM, ConnectError, "REFUSED_STREAM"),
        (ErrorCodes.CANCEL, TransportError, "CANCEL"),
        (None, TransportError, "NO_ERROR"),
        (99, TransportError, "error 99"),
    ],
)
def test_streams_that_are_reset(code: Any, kind: type[S2FramesError], words: str) -> None:
    event: Any = SimpleNamespace(error_code=code)
    error = reset_error(event, WHERE)
    assert type(error) is kind
    assert error.outcome is (Outcome.NOT_APPLIED if kind is ConnectError else None)
    assert words in str(error)
    assert WHERE in str(error)


def test_the_stream_that_is_to_blame() -> None:
    theirs = h2.exceptions.ProtocolError("odd")
    error = breach_error(theirs, WHERE)
    assert type(error) is RemoteProtocolError
    assert str(error) == "the peer broke HTTP/2: https://example.com: odd"
    assert error.__cause__ is theirs


def test_requests_that_a_leaving_peer_did_not_look_at() -> None:
    error = unprocessed_error(GoAwayFrame(0, error_code=11), WHERE)
    assert type(error) is ConnectError
    assert error.outcome is Outcome.NOT_APPLIED
    assert "ENHANCE_YOUR_CALM" in str(error)


def test_another_of_the_same() -> None:
    error = to_our_error(UNTRUSTED, WHERE)
    error.outcome = Outcome.UNKNOWN
    twin = another(error)
    assert twin is not error
    assert (type(twin), str(twin)) == (type(error), str(error))
    assert twin.outcome is Outcome.UNKNOWN
    assert twin.__cause__ is UNTRUSTED
    twin.durable_messages = 3
    assert error.durable_messages is None


def test_names_of_errors() -> None:
    assert code_name(0) == "NO_ERROR"
    assert code_name(2**32 - 1) == "error 4294967295"
