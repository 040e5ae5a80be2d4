from __future__ import annotations

import httpx
import pytest

from s2frames_httpx.library import httpcore
from s2frames_httpx.tunnel import bare_host, check_tunnel, num_tls, read_error, read_timeout


@pytest.mark.parametrize(
    ("url", "proxy", "expected"),
    [
        ("http://example.com", None, 0),
        ("https://example.com", None, 1),
        ("http://example.com", "http://proxy", 0),
        ("https://example.com", "http://proxy", 1),
        ("http://example.com", "https://proxy", 1),
        ("https://example.com", "https://proxy", 2),
        ("https://example.com", "socks5://proxy", 1),
    ],
)
def test_how_often_tls_is_begun(url: str, proxy: str | None, expected: int) -> None:
    through = None if proxy is None else httpx.Proxy(proxy)
    assert num_tls(httpx.URL(url), through) == expected


def test_a_proxy_that_leaves_has_broken_the_connection() -> None:
    check_tunnel(b"HTTP/1.1 200 OK")
    with pytest.raises(OSError, match="closed the connection"):
        check_tunnel(b"")


def test_before_the_service_is_reached_errors_are_those_of_connecting() -> None:
    broken = ConnectionResetError("it broke")
    assert type(read_timeout(is_connecting=True)) is httpcore.ConnectTimeout
    assert type(read_timeout(is_connecting=False)) is httpcore.ReadTimeout
    assert type(read_error(broken, is_connecting=True)) is httpcore.ConnectError
    assert type(read_error(broken, is_connecting=False)) is httpcore.ReadError
    assert str(read_error(broken, is_connecting=True)) == "it broke"


def test_a_certificate_is_for_an_address_without_brackets() -> None:
    hosts = ("[2001:db8::1]", "2001:db8::1", "example.com", None)
    assert list(map(bare_host, hosts)) == ["2001:db8::1", "2001:db8::1", "example.com", None]
