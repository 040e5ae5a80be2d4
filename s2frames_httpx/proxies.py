"""Which proxy a request goes through: the one that was given, or what the environment says.

The variables are those that curl and Python's urllib know: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and
NO_PROXY, each first in lower case. Nothing of a value is ever repeated: it may hold a password.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.request import getproxies

import httpx
from attrs import field, frozen

from s2frames.errors import LocalProtocolError

__all__ = ["Bypass", "Proxies", "check_proxy"]

_SCHEMES = ("http", "https", "socks5", "socks5h")
_SOCKS = ("socks5", "socks5h")
_MAX_PORT = 65535

# What the system calls proxies that are in no variable.
_SYSTEM = "the system's proxy settings"


def check_proxy(name: str, proxy: httpx.Proxy | httpx.URL | str) -> httpx.Proxy:
    """The proxy that `proxy` says. Raises `LocalProtocolError`, which calls it `name`."""
    if not isinstance(proxy, httpx.Proxy):
        url = _parse(name, proxy)
        if url.scheme not in _SCHEMES or not url.host or not 0 < (url.port or 1) <= _MAX_PORT:
            raise LocalProtocolError(
                f"{name}: a proxy is a URL with a host, perhaps a port up to {_MAX_PORT}, and one "
                f"of these schemes: {', '.join(_SCHEMES)}"
            )
        proxy = httpx.Proxy(url)
    if proxy.url.scheme in _SOCKS and find_spec("socksio") is None:
        raise LocalProtocolError(f"{name}: a SOCKS proxy needs: pip install 'httpx[socks]'")
    return proxy


def _parse(name: str, text: httpx.URL | str) -> httpx.URL:
    if not isinstance(text, httpx.URL | str):
        raise LocalProtocolError(
            f"{name} must be a URL or an httpx.Proxy, not {type(text).__name__}"
        )
    try:
        return httpx.URL(text)
    except httpx.InvalidURL:
        # Its words may hold some of the value.
        raise LocalProtocolError(f"{name}: that is not a URL") from None


@frozen
class Bypass:
    """What needs no proxy: hosts, domains with their subdomains, addresses, or everything."""

    _hosts: tuple[str, ...] = ()
    _networks: tuple[IPv4Network | IPv6Network, ...] = ()
    _is_everything: bool = False

    @classmethod
    def parse(cls, text: str) -> Bypass:
        """What NO_PROXY says: names, addresses and networks (10.0.0.0/8), after commas or spaces.

        Each may have a port, which counts for nothing without it. An entry that is none of these
        is a name that no host has.
        """
        entries = text.replace(",", " ").lower().split()
        networks = {entry: _network(entry) for entry in entries}
        return cls(
            tuple(entry.removeprefix("*").strip(".") for entry in entries),
            tuple(network for network in networks.values() if network is not None),
            "*" in entries,
        )

    def covers(self, url: httpx.URL) -> bool:
        """Whether `url` needs no proxy."""
        if self._is_everything:
            return True
        host = url.host.lower().rstrip(".")
        address = _address(host)
        if address is not None and any(address in network for network in self._networks):
            return True
        # A name beyond ASCII may be listed as it is read, or as DNS has it.
        names = dict.fromkeys((host, url.raw_host.decode("ascii").lower().rstrip(".")))
        port = url.port or {"http": 80, "https": 443}.get(url.scheme)
        with_port = [f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in names]
        return any(
            entry and f".{candidate}".endswith(f".{entry}")
            for entry in self._hosts
            for candidate in (*names, *with_port)
        )


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_loopback(url: httpx.URL) -> bool:
    """Whether `url` leads to this machine."""
    host = url.host.lower().rstrip(".")
    address = _address(host)
    if address is not None:
        return address.is_loopback
    return host == "localhost" or host.endswith(".localhost")


@frozen
class _Variable:
    """A variable of the environment that is set."""

    name: str
    text: str = field(repr=False)

    def proxy(self) -> httpx.Proxy:
        """The proxy that it says. Raises `LocalProtocolError` for a value that cannot be taken."""
        text = self.text if "://" in self.text else f"http://{self.text}"
        return check_proxy(self.name, text)


def _shown(proxy: httpx.Proxy | None) -> str:
    return "None" if proxy is None else str(proxy.url)


def _all_shown(proxies: Mapping[str, httpx.Proxy]) -> str:
    return ", ".join(map(_shown, proxies.values())) or "none"


@frozen(eq=False)
class Proxies:
    """Chooses the proxy of each URL."""

    # Not shown as they are: httpx shows their headers, which may be a login.
    _given: httpx.Proxy | None = field(default=None, repr=_shown)
    _found: Mapping[str, httpx.Proxy] = field(factory=dict, repr=_all_shown)
    _bypass: Bypass = Bypass()

    @classmethod
    def at(cls, proxy: httpx.Proxy | httpx.URL | str) -> Proxies:
        """One proxy for everything. Raises `LocalProtocolError` for what is none."""
        return cls(given=check_proxy("proxy", proxy))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], urls: Iterable[str]) -> Proxies:
        """What the environment says about requests to `urls`.

        Raises `LocalProtocolError`, which names the variable, for a value that cannot be taken and
        that one of these needs.
        """
        exempt = _variable(environ, "no_proxy", "NO_PROXY")
        bypass = Bypass() if exempt is None else Bypass.parse(exempt.text)
        found: dict[str, httpx.Proxy] = {}
        for url in map(httpx.URL, urls):
            variable = _variable_for(environ, url.scheme)
            if variable is not None and not (is_loopback(url) or bypass.covers(url)):
                found[url.scheme] = found.get(url.scheme) or variable.proxy()
        return cls(found=found, bypass=bypass)

    @property
    def has_tls(self) -> bool:
        """Whether TLS is spoken to a proxy."""
        proxies = (self._given, *self._found.values())
        return any(proxy is not None and proxy.url.scheme == "https" for proxy in proxies)

    def choose(self, url: httpx.URL) -> httpx.Proxy | None:
        """The proxy for `url`.

        To this machine there is none, unless it was given: it would read what counts as private.
        """
        if self._given is not None:
            return self._given
        proxy = self._found.get(url.scheme)
        return None if proxy is None or is_loopback(url) or self._bypass.covers(url) else proxy


def _variable(environ: Mapping[str, str], *names: str) -> _Variable | None:
    """The first of these names that is set; where that is to nothing, there is none."""
    for name in names:
        if name in environ:
            return _Variable(name, environ[name]) if environ[name] else None
    return None


def _variable_for(environ: Mapping[str, str], scheme: str) -> _Variable | None:
    # In a CGI script HTTP_PROXY is what the request's header Proxy says.
    is_header = scheme == "http" and "REQUEST_METHOD" in environ
    upper = () if is_header else (f"{scheme.upper()}_PROXY",)
    found = _variable(environ, f"{scheme}_proxy", *upper)
    found = found or _variable(environ, "all_proxy", "ALL_PROXY")
    if found is None and sys.platform in ("darwin", "win32"):
        text = getproxies().get(scheme)
        return _Variable(_SYSTEM, text) if text else None
    return found
