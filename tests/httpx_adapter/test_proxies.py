from __future__ import annotations

import sys
from typing import Any

import httpx
import pytest

from s2frames import LocalProtocolError
from s2frames_httpx import proxies
from s2frames_httpx.proxies import Bypass, Proxies, check_proxy

SECRET = "http://name:pass-word@"

PROXY = "http://proxy.example:3128"
OTHER = "http://other.example:3128"

# What is asked for, if a test does not say.
URL = "https://a.s2.dev/v1/basins"


def chosen(environ: dict[str, str], url: str = URL) -> str | None:
    proxy = Proxies.from_environ(environ, [url]).choose(httpx.URL(url))
    return None if proxy is None else str(proxy.url)


# Which variable counts


@pytest.mark.parametrize(
    ("environ", "url", "expected"),
    [
        ({}, URL, None),
        ({"HTTPS_PROXY": PROXY}, URL, PROXY),
        ({"https_proxy": PROXY}, URL, PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": OTHER}, URL, PROXY),
        ({"HTTPS_PROXY": PROXY, "ALL_PROXY": OTHER}, URL, PROXY),
        ({"ALL_PROXY": PROXY}, URL, PROXY),
        ({"all_proxy": PROXY, "ALL_PROXY": OTHER}, URL, PROXY),
        ({"HTTP_PROXY": PROXY}, URL, None),
        ({"HTTP_PROXY": PROXY}, "http://example.com", PROXY),
        ({"ALL_PROXY": PROXY}, "http://example.com", PROXY),
        # Set to nothing is not set; a name in lower case hides the other.
        ({"HTTPS_PROXY": ""}, URL, None),
        ({"https_proxy": "", "HTTPS_PROXY": PROXY}, URL, None),
        ({"https_proxy": "", "ALL_PROXY": PROXY}, URL, PROXY),
        # In a CGI script it is a header of the request.
        ({"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, "http://example.com", None),
        ({"http_proxy": PROXY, "REQUEST_METHOD": "GET"}, "http://example.com", PROXY),
        # Without a scheme it is http.
        ({"HTTPS_PROXY": "proxy.example:3128"}, URL, PROXY),
    ],
)
def test_which_variable_counts(environ: dict[str, str], url: str, expected: str | None) -> None:
    assert chosen(environ, url) == expected


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost", "https://[::1]", "http://x.localhost"]
)
def test_this_machine_needs_no_proxy(url: str) -> None:
    environ = {"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, "ALL_PROXY": PROXY}
    assert chosen(environ, url) is None


def test_names_and_passwords_are_taken() -> None:
    environ = {"HTTPS_PROXY": f"{SECRET}proxy.example:3128"}
    proxy = Proxies.from_environ(environ, [URL]).choose(httpx.URL(URL))
    assert proxy is not None
    assert (str(proxy.url), proxy.auth) == (PROXY, ("name", "pass-word"))


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_where_the_system_has_settings_they_count_last(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(proxies, "getproxies", lambda: {"https": PROXY})
    assert chosen({}) == PROXY
    assert chosen({"ALL_PROXY": OTHER}) == OTHER
    monkeypatch.setattr(proxies, "getproxies", lambda: {"https": "nonsense://x"})
    with pytest.raises(LocalProtocolError, match=r"^the system's proxy settings: "):
        chosen({})


# What needs none


@pytest.mark.parametrize(
    ("no_proxy", "url", "expected"),
    [
        ("*", URL, True),
        ("example.com, *", URL, True),
        ("s2.dev", URL, True),
        (".s2.dev", URL, True),
        ("*.s2.dev", URL, True),
        ("a.s2.dev", URL, True),
        ("A.S2.DEV", URL, True),
        ("s2.dev", "https://s2.dev", True),
        (".s2.dev", "https://s2.dev", True),
        ("2.dev", URL, False),
        ("b.s2.dev", URL, False),
        ("example.com a.s2.dev", URL, True),
        ("example.com,,a.s2.dev", URL, True),
        ("a.s2.dev:443", URL, True),
        ("a.s2.dev:8443", URL, False),
        ("a.s2.dev:8443", "https://a.s2.dev:8443", True),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.1.2.4/8", "https://10.1.2.3", True),
        ("11.0.0.0/8", "https://10.1.2.3", False),
        ("10.0.0.0/8", "https://ten.example", False),
        ("fe11::/16", "https://[fe11::5]", True),
        ("fe11::/16", "https://[fe12::5]", False),
        ("fe11::5", "https://[fe11::5]:8443", True),
        ("[fe11::5]", "https://[fe11::5]", True),
        ("[fe11::5]:8443", "https://[fe11::5]:8443", True),
        ("[fe11::5]:8443", "https://[fe11::5]", False),
        ("fe11:0::5", "https://[fe11::5]", True),
        ("s2.dev.", URL, True),
        ("s2.dev", "https://a.s2.dev.", True),
        ("xn--bcher-kva.example", "https://a.bücher.example", True),
        ("bücher.example", "https://xn--bcher-kva.example", True),
        ("xn--bcher-kva.example:8443", "https://bücher.example:8443", True),
        ("xn--bcher-kva.example:8443", "https://bücher.example", False),
        (".", URL, False),
        ("", URL, False),
        ("://,[,]:::,%", URL, False),
    ],
)
def test_what_needs_no_proxy(no_proxy: str, url: str, expected: bool) -> None:
    assert Bypass.parse(no_proxy).covers(httpx.URL(url)) is expected
    for name in ("NO_PROXY", "no_proxy"):
        environ = {"ALL_PROXY": PROXY, name: no_proxy}
        assert chosen(environ, url) == (None if expected else PROXY)


# Values that cannot be taken

UNUSABLE = [
    "socks://127.0.0.1:7890",
    "socks4://127.0.0.1:7890",
    "ftp://proxy.example",
    "127.0.0.1:99999",
    f"{SECRET}proxy.example:80a",
    f"{SECRET}[::1",
    "http://",
    "://",
]


@pytest.mark.parametrize("value", UNUSABLE)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_the_variable_is_named_and_its_value_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"^{name}: ") as raised:
        chosen({name: value})
    said = str(raised.value)
    assert "\n" not in said
    assert "pass-word" not in said
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("value", UNUSABLE)
@pytest.mark.parametrize(
    ("name", "more", "url"),
    [
        ("HTTP_PROXY", {}, URL),
        ("HTTPS_PROXY", {}, "http://example.com"),
        ("HTTPS_PROXY", {"NO_PROXY": "s2.dev"}, URL),
        ("ALL_PROXY", {}, "http://127.0.0.1:8080"),
        ("ALL_PROXY", {"https_proxy": PROXY}, URL),
    ],
)
def test_one_that_is_not_needed_harms_nobody(
    name: str, value: str, more: dict[str, str], url: str
) -> None:
    chosen({name: value, **more}, url)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_needs_more(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(proxies, "find_spec", lambda _name: None)
    with pytest.raises(LocalProtocolError, match=r"^ALL_PROXY: .* pip install 'httpx\[socks\]'"):
        chosen({"ALL_PROXY": f"{scheme}://127.0.0.1:1080"})
    monkeypatch.setattr(proxies, "find_spec", lambda _name: object())
    assert chosen({"ALL_PROXY": f"{scheme}://127.0.0.1:1080"}) == f"{scheme}://127.0.0.1:1080"


# A proxy that is given


@pytest.mark.parametrize("proxy", [PROXY, httpx.URL(PROXY), httpx.Proxy(PROXY)])
def test_a_given_one_is_for_everything(proxy: Any) -> None:
    given = Proxies.at(proxy)
    for url in (URL, "http://127.0.0.1:8080", "http://example.com"):
        found = given.choose(httpx.URL(url))
        assert found is not None
        assert str(found.url) == PROXY


@pytest.mark.parametrize("value", ["proxy.example:3128", *UNUSABLE])
def test_a_given_one_is_checked(value: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"^proxy: ") as raised:
        check_proxy("proxy", value)
    assert "pass-word" not in str(raised.value)


def test_a_given_one_is_a_url() -> None:
    with pytest.raises(LocalProtocolError, match=r"^proxy must be a URL .* not int$"):
        check_proxy("proxy", 8080)  # type: ignore[arg-type]  # what is tested


def test_no_repr_shows_a_password() -> None:
    shown = repr(Proxies.from_environ({"HTTPS_PROXY": f"{SECRET}proxy.example"}, [URL]))
    assert "pass-word" not in shown
    assert "proxy.example" in shown
    given = Proxies.at(httpx.Proxy(PROXY, headers={"Proxy-Authorization": "Bearer pass-word"}))
    assert "pass-word" not in repr(given)
    assert PROXY in repr(given)
