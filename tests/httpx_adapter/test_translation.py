from __future__ import annotations

import inspect
import ssl

import httpx
import pytest

from s2frames_httpx.library import httpcore
from s2frames_httpx.mapping import ClientClosed, to_our_error
from s2frames_httpx.translation import (
    CORE_ERRORS,
    has_bytes_left,
    pool_options,
    to_core_request,
    to_httpx_error,
)

# All that httpcore has, but what never leaves its pool.
THEIRS = [
    kind
    for _, kind in inspect.getmembers(httpcore, inspect.isclass)
    if issubclass(kind, Exception) and kind is not httpcore.ConnectionNotAvailable
]

PROXY = httpx.Proxy("http://name:secret@proxy.example:3128")


def test_httpcore_has_the_errors_that_are_looked_for() -> None:
    assert {httpcore.ReadError, httpcore.ConnectTimeout, httpcore.ProxyError} < set(THEIRS)
    assert set(CORE_ERRORS) <= set(THEIRS)


@pytest.mark.parametrize("theirs", THEIRS)
def test_every_error_of_httpcore_has_a_namesake(theirs: type[Exception]) -> None:
    assert issubclass(theirs, CORE_ERRORS)
    error = to_httpx_error(theirs("it broke"), None, is_closed=False)
    assert (type(error).__name__, str(error)) == (theirs.__name__, "it broke")


def test_an_error_without_words_is_named_after_its_type() -> None:
    assert str(to_httpx_error(httpcore.PoolTimeout(), None, is_closed=False)) == "PoolTimeout"


def test_the_proxy_is_named_without_its_password() -> None:
    error = to_httpx_error(httpcore.ConnectError("refused"), PROXY, is_closed=False)
    assert str(error) == "through the proxy http://proxy.example:3128: refused"


@pytest.mark.parametrize(
    ("words", "root", "expected"),
    [
        ("refused", None, "cannot connect: https://a.example: through the proxy {}: refused"),
        ("it broke", ssl.SSLError(1, "bad"), "TLS failed: https://a.example, through the proxy {}"),
        (
            "Server disconnected without sending a response.",
            None,
            "the connection to https://a.example, through the proxy {} was closed early",
        ),
    ],
)
def test_whatever_went_wrong_the_proxy_is_named(
    words: str, root: Exception | None, expected: str
) -> None:
    error = to_httpx_error(httpcore.ConnectError(words), PROXY, is_closed=False)
    error.__cause__ = root
    said = str(to_our_error(error, "https://a.example/v1/basins"))
    assert said.startswith(expected.format("http://proxy.example:3128"))
    assert "secret" not in said


def test_of_a_closed_client_nothing_else_is_said() -> None:
    error = to_httpx_error(httpcore.ReadError("it broke"), PROXY, is_closed=True)
    assert (type(error), str(error)) == (ClientClosed, "the client is closed")


def test_a_request_is_the_same_one() -> None:
    request = httpx.Request(
        "POST", "http://example.com:8080/a?b=c", headers={"X": "y"}, content=b"z"
    )
    request.extensions["timeout"] = {"read": 1.0}
    core = to_core_request(request)
    assert (core.method, bytes(core.url)) == (b"POST", b"http://example.com:8080/a?b=c")
    assert (b"X", b"y") in core.headers
    assert core.stream is request.stream
    assert core.extensions["timeout"] == {"read": 1.0}


def test_a_pool_allows_any_number_of_connections() -> None:
    options = pool_options(None, None)
    assert options["max_connections"] is None
    assert (options["http1"], options["http2"]) == (True, False)
    assert options["proxy"] is None


def test_a_pool_takes_the_proxy_with_its_password() -> None:
    proxy = pool_options(None, PROXY)["proxy"]
    assert proxy is not None
    assert bytes(proxy.url.origin.host) == b"proxy.example"
    assert proxy.auth == (b"name", b"secret")


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        (None, b"2001:db8::1"),
        ("http://proxy.example", b"[2001:db8::1]"),
        ("https://proxy.example", b"[2001:db8::1]"),
        ("socks5://proxy.example", b"2001:db8::1"),
    ],
)
def test_an_address_is_in_brackets_where_a_proxy_reads_it(
    proxy: str | None, expected: bytes
) -> None:
    request = httpx.Request("GET", "https://[2001:db8::1]:8443")
    core = to_core_request(request, None if proxy is None else httpx.Proxy(proxy))
    assert core.url.host == expected


def test_what_httpcore_logs_of_a_proxy_has_no_password() -> None:
    proxy = pool_options(None, httpx.Proxy("socks5://name:secret@proxy.example"))["proxy"]
    assert proxy is not None
    assert proxy.auth == (b"name", b"secret")
    assert repr(proxy.auth) == "('[secret]', '[secret]')"


def test_a_proxy_is_trusted_as_the_service_is_unless_it_has_its_own_context() -> None:
    theirs, own = (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(2))
    for proxy, expected in (
        (httpx.Proxy("https://proxy.example"), theirs),
        (httpx.Proxy("https://proxy.example", ssl_context=own), own),
    ):
        core = pool_options(theirs, proxy)["proxy"]
        assert core is not None
        assert core.ssl_context is expected


def test_where_httpcore_shows_nothing_no_connection_is_used_again() -> None:
    assert has_bytes_left(object())
