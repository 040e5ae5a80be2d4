from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx
import pytest

from s2frames import (
    LocalProtocolError,
    RemoteProtocolError,
    S2FramesError,
    Settings,
    TransportError,
)
from s2frames.errors import CertificateError, ConnectError
from s2frames.retry import Retry, RetryBudget, is_retryable
from s2frames_httpx.mapping import (
    ClientClosed,
    client_closed,
    client_options,
    httpx_timeout,
    lower_headers,
    set_timeout,
    to_our_error,
)

URL = "http://example.com:8080/v1/basins?prefix=x"


def and_subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from and_subclasses(subclass)


# What each of httpx's errors is to us. All others are errors of the connection.
OURS: dict[type[Exception], type[S2FramesError]] = {
    httpx.ConnectError: ConnectError,
    httpx.ConnectTimeout: ConnectError,
    httpx.PoolTimeout: ConnectError,
    httpx.ProxyError: ConnectError,
    httpx.RemoteProtocolError: RemoteProtocolError,
    httpx.LocalProtocolError: LocalProtocolError,
    httpx.UnsupportedProtocol: LocalProtocolError,
    httpx.InvalidURL: LocalProtocolError,
}

THEIRS = [*dict.fromkeys(and_subclasses(httpx.HTTPError)), httpx.InvalidURL]
THEIRS.remove(ClientClosed)


@pytest.mark.parametrize("theirs", THEIRS, ids=lambda kind: str(kind.__name__))
def test_every_error_of_httpx_becomes_one_of_ours(theirs: type[Exception]) -> None:
    error = make(theirs)
    ours = to_our_error(error, URL)
    assert type(ours) is OURS.get(theirs, TransportError)
    assert ours.__cause__ is error
    # A header that cannot be sent may be a secret: those words are not repeated.
    said = "LocalProtocolError" if theirs is httpx.LocalProtocolError else "it broke"
    assert str(ours).endswith(f"http://example.com:8080: {said}")
    # Neither the path nor the query, which name what the user has.
    assert "basins" not in str(ours)


# The errors of a connection that was ended, and not by us. A wrong port or scheme ends in one.
BROKEN_OFF = {httpx.NetworkError, httpx.ReadError, httpx.WriteError, httpx.CloseError}


@pytest.mark.parametrize("theirs", THEIRS, ids=lambda kind: str(kind.__name__))
def test_which_errors_are_given_the_time_of_a_typo(theirs: type[Exception]) -> None:
    ours = to_our_error(make(theirs), URL)
    if isinstance(ours, TransportError):
        assert ours.was_broken_off is (theirs in BROKEN_OFF or theirs is httpx.ConnectError)
    if not is_retryable(ours):
        assert isinstance(ours, (LocalProtocolError, RemoteProtocolError))
        return
    for has_answered in (False, True):
        budget = RetryBudget(Retry(), lambda: 0.0)
        if has_answered:
            budget.note_answer()
        now = 0.0
        while (delay := budget.next_delay(ours, now)) is not None:
            now += delay
        is_typo = theirs in BROKEN_OFF or isinstance(ours, ConnectError)
        limit = 3 if is_typo and not has_answered else 60
        assert limit - 2 < now <= limit


def make(kind: type[Exception]) -> Exception:
    if kind is httpx.HTTPStatusError:
        request = httpx.Request("GET", URL)
        return httpx.HTTPStatusError("it broke", request=request, response=httpx.Response(500))
    return kind("it broke")


def test_the_list_of_httpx_errors_is_not_empty() -> None:
    assert {httpx.ConnectError, httpx.ReadTimeout, httpx.DecodingError} < set(THEIRS)


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (httpx.ConnectError, "cannot connect"),
        (httpx.ConnectTimeout, "cannot connect"),
        (httpx.ReadTimeout, "no answer in time"),
        (httpx.WriteTimeout, "no answer in time"),
        (httpx.PoolTimeout, "no connection became free"),
        (httpx.ReadError, "the connection broke"),
        (httpx.WriteError, "the connection broke"),
        (httpx.ProxyError, "the proxy refuses"),
        (httpx.RemoteProtocolError, "the answer is not HTTP"),
        (httpx.TooManyRedirects, "the request failed"),
        (httpx.InvalidURL, "the URL cannot be used"),
    ],
)
def test_errors_say_what_happened(theirs: type[Exception], words: str) -> None:
    assert str(to_our_error(make(theirs), URL)) == f"{words}: http://example.com:8080: it broke"


def test_an_error_without_words_is_named_after_its_type() -> None:
    assert str(to_our_error(httpx.ReadTimeout(""), URL)).endswith(": ReadTimeout")


@pytest.mark.parametrize(
    "words",
    [
        "Server disconnected without sending a response.",
        "peer unexpectedly closed connection",
        "peer closed connection without sending complete message body (incomplete chunked read)",
    ],
)
def test_a_connection_that_ended_too_early_is_no_garbage(words: str) -> None:
    ours = to_our_error(httpx.RemoteProtocolError(words), URL)
    assert type(ours) is TransportError
    assert ours.was_broken_off
    assert str(ours) == "the connection to http://example.com:8080 was closed early"


@pytest.mark.parametrize("url", ["http://a..b", "http://xn--a/x", "http://[::1]:80/", URL])
def test_a_host_name_that_is_none(url: str) -> None:
    ours = to_our_error(UnicodeError("label empty or too long"), url)
    assert type(ours) is LocalProtocolError
    assert url.split("/")[2] in str(ours)


# Certificates


def chained(kind: type[Exception], *, is_cause: bool) -> Exception:
    """An error of httpx's that a bad certificate is behind, some levels down."""
    root = ssl.SSLCertVerificationError("self-signed certificate")
    between = OSError("handshake failed")
    error = make(kind)
    if is_cause:
        between.__cause__, error.__cause__ = root, between
    else:
        between.__context__, error.__context__ = root, between
    return error


@pytest.mark.parametrize("is_cause", [True, False])
@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ReadError, httpx.ProxyError])
def test_a_certificate_that_is_not_accepted(kind: type[Exception], is_cause: bool) -> None:
    ours = to_our_error(chained(kind, is_cause=is_cause), URL)
    assert type(ours) is CertificateError
    assert "certificate is not to be trusted: http://example.com:8080" in str(ours)


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ReadError, httpx.WriteError])
def test_a_certificate_of_ours_that_is_wanted(kind: type[Exception]) -> None:
    root = ssl.SSLError(1, "tlsv13 alert certificate required")
    root.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    error = kind("it broke")
    error.__cause__ = root
    ours = to_our_error(error, URL)
    assert type(ours) is CertificateError
    assert "wants a client certificate, which the ssl_context lacks" in str(ours)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (httpx.ConnectError, ConnectError),
        (httpx.ReadError, TransportError),
        (httpx.WriteError, TransportError),
    ],
)
def test_other_failures_of_tls(kind: type[Exception], expected: type[S2FramesError]) -> None:
    error = kind("it broke")
    error.__cause__ = ssl.SSLError("wrong version number")
    ours = to_our_error(error, URL)
    assert type(ours) is expected
    assert str(ours).startswith("TLS failed: http://example.com:8080: ")


def test_a_wrong_port_is_said_in_words_that_help() -> None:
    root = ssl.SSLError(1, "wrong version number")
    root.reason = "WRONG_VERSION_NUMBER"
    error = httpx.ConnectError("it broke")
    error.__cause__ = root
    ours = to_our_error(error, URL)
    assert type(ours) is ConnectError
    assert str(ours) == (
        "TLS failed: http://example.com:8080: no TLS is spoken there; is it an address for http? "
        "(WRONG_VERSION_NUMBER)"
    )


def test_a_client_that_was_closed_is_no_matter_of_the_connection() -> None:
    ours = to_our_error(client_closed(), URL)
    assert type(ours) is LocalProtocolError
    assert str(ours) == "the client is closed"


# Time-outs and headers


def test_timeouts() -> None:
    timeout = httpx_timeout(Settings(connect_timeout=1.5, request_timeout=7))
    assert (timeout.connect, timeout.pool, timeout.read, timeout.write) == (1.5, 1.5, 7, 7)


def test_the_rest_of_an_answer_may_have_another_timeout() -> None:
    with httpx.Client(timeout=5) as client:
        request = client.build_request("GET", URL)
        set_timeout(request, "read", 20.0)
        set_timeout(request, "write", 30.0)
        other = client.build_request("GET", URL)
    assert request.extensions["timeout"] == {"connect": 5, "read": 20.0, "write": 30.0, "pool": 5}
    assert other.extensions["timeout"]["read"] == 5


def test_names_of_headers_are_in_lower_case() -> None:
    assert lower_headers(httpx.Headers({"Content-Type": "A", "X": "b"})) == {
        "content-type": "A",
        "x": "b",
    }


def test_clients_follow_nobody_and_ask_for_plain_bytes() -> None:
    options = client_options(Settings())
    assert (options["follow_redirects"], options["trust_env"]) == (False, False)
    assert options["headers"]["accept-encoding"] == "identity"
    with httpx.Client(**options) as client:
        assert client.headers["user-agent"] == "s2frames"
