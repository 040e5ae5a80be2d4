from __future__ import annotations

import ssl
from functools import partial
from typing import Any

import httpx
import pytest

from s2frames import Endpoints, LocalProtocolError, Settings
from s2frames_httpx import AsyncClient, AsyncEmbeddedTransport, Client, EmbeddedTransport
from s2frames_httpx.reach import Reach, check_own_transport

PROXY = "http://proxy.example:3128"
LOCAL = Settings(endpoints=Endpoints.at("http://127.0.0.1:8080"))
BROKEN = {
    "HTTP_PROXY": "nonsense://x",
    "HTTPS_PROXY": "127.0.0.1:99999",
    "ALL_PROXY": "socks://127.0.0.1:7890",
    "NO_PROXY": "localhost,127.0.0.1,[::1]",
    "SSL_CERT_FILE": "/nonexistent.pem",
    "SSL_CERT_DIR": "/nonexistent",
}


def test_what_is_not_needed_is_not_looked_at() -> None:
    reach = Reach.make(LOCAL, None, None, BROKEN)
    assert reach.ssl_context is None
    assert reach.proxies.choose(httpx.URL("http://127.0.0.1:8080/v1/basins")) is None
    assert reach.connect_timeout == LOCAL.connect_timeout


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_what_is_needed_is(name: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"^{name}: "):
        Reach.make(Settings(), None, None, {name: BROKEN[name]})


@pytest.mark.parametrize(
    "endpoints",
    [
        Endpoints("http://127.0.0.1:8080", "https://{basin}.b.s2.dev"),
        Endpoints("HTTPS://A.S2.DEV", "http://127.0.0.1:8080"),
    ],
)
def test_either_endpoint_may_need_it(endpoints: Endpoints) -> None:
    settings = Settings(endpoints=endpoints)
    reach = Reach.make(settings, None, None, {"HTTPS_PROXY": PROXY})
    assert reach.ssl_context is not None
    for name in ("HTTPS_PROXY", "SSL_CERT_FILE"):
        with pytest.raises(LocalProtocolError, match=f"^{name}: "):
            Reach.make(settings, None, None, {name: BROKEN[name]})


def test_what_is_given_needs_no_environment() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    reach = Reach.make(Settings(), context, PROXY, BROKEN)
    assert reach.ssl_context is context
    proxy = reach.proxies.choose(httpx.URL("https://a.s2.dev"))
    assert proxy is not None
    assert str(proxy.url) == PROXY


def test_a_proxy_in_tls_needs_certificates_too() -> None:
    plain = Settings(endpoints=Endpoints.at("http://example.com"))
    trust = {"SSL_CERT_FILE": BROKEN["SSL_CERT_FILE"]}
    for proxy, environ in (("https://p.example", {}), (None, {"HTTP_PROXY": "https://p.example"})):
        assert Reach.make(plain, None, proxy, environ).ssl_context is not None
        with pytest.raises(LocalProtocolError, match=r"^SSL_CERT_FILE: "):
            Reach.make(plain, None, proxy, {**environ, **trust})
    assert Reach.make(plain, None, PROXY, trust).ssl_context is None


def test_a_given_proxy_reads_no_token() -> None:
    settings = Settings(access_token="secret", endpoints=LOCAL.endpoints)
    with pytest.raises(LocalProtocolError, match="allow_insecure"):
        Reach.make(settings, None, PROXY, {})
    Reach.make(Settings(access_token="secret"), None, PROXY, {})
    insecure = Settings(access_token="secret", endpoints=LOCAL.endpoints, allow_insecure=True)
    Reach.make(insecure, None, PROXY, {})


# Through the clients

CLIENTS: list[Any] = [Client, AsyncClient]


@pytest.mark.parametrize("client", CLIENTS)
def test_clients_check_what_they_are_given(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for make in (client, partial(client.from_env, {})):
        with pytest.raises(LocalProtocolError, match="one for servers"):
            make(ssl_context=server_context)
        with pytest.raises(LocalProtocolError, match=r"^proxy: "):
            make(proxy="nonsense://x")
    monkeypatch.setenv("https_proxy", BROKEN["HTTPS_PROXY"])
    with pytest.raises(LocalProtocolError, match=r"^https_proxy: "):
        client()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", BROKEN)
def test_an_embedded_service_needs_no_environment(
    client: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, BROKEN[name])
    client.embedded()
    client(LOCAL)


# Transports of the user's own


@pytest.mark.parametrize(
    ("client", "transport"),
    [(Client, EmbeddedTransport()), (AsyncClient, AsyncEmbeddedTransport())],
)
def test_a_transport_speaks_for_itself(client: Any, transport: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(LocalProtocolError, match=r"^ssl_context is for a client without"):
        client(LOCAL, transport=transport, ssl_context=context)
    with pytest.raises(LocalProtocolError, match=r"^proxy is for a client without"):
        client(LOCAL, transport=transport, proxy=PROXY)


@pytest.mark.parametrize(
    ("client", "transport"), [(Client, AsyncEmbeddedTransport()), (AsyncClient, object())]
)
def test_a_transport_is_of_the_right_kind(client: Any, transport: Any) -> None:
    with pytest.raises(
        LocalProtocolError, match=r"^transport must be an httpx.*BaseTransport, not"
    ):
        client(LOCAL, transport=transport)


@pytest.mark.parametrize(
    ("client", "make"), [(Client, httpx.HTTPTransport), (AsyncClient, httpx.AsyncHTTPTransport)]
)
def test_a_transport_allows_any_number_of_connections(client: Any, make: Any) -> None:
    """Fails too when httpx or httpcore keeps the limit elsewhere."""
    for limits, number in ((httpx.Limits(max_connections=7), 7), (None, 100)):
        options = {} if limits is None else {"limits": limits}
        with pytest.raises(LocalProtocolError, match=f"allows {number}: .*max_connections=None"):
            client(LOCAL, transport=make(verify=False, **options))
    unlimited = make(verify=False, limits=httpx.Limits(max_connections=None))
    assert client(LOCAL, transport=unlimited).http._transport is unlimited


def test_transports_of_other_kinds_know_what_they_do() -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(200))
    assert check_own_transport(transport, httpx.BaseTransport, None, None) is transport
