"""The servers that must behave alike: the embedded service and `s2 lite`, over each transport."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import httpx
import pytest

from live_service import served_service
from real_server.places import HTTP1_SCENES, Place, Scene, address_of
from real_server.raw_http import Address, Http
from real_server.streams import Basin, Stream
from s2_lite import s2_lite
from s2frames.embedded import Service


@pytest.fixture(scope="session")
def embedded_url() -> Iterator[str]:
    """The URL of an embedded service for all tests."""
    # 0: the shortest time between heartbeats.
    with served_service(Service(random=lambda: 0.0)) as url:
        yield url


@pytest.fixture(scope="session")
def lite_url() -> Iterator[str]:
    """The URL of an `s2 lite` for all tests."""
    with s2_lite() as url:
        yield url


@pytest.fixture(scope="session")
def tls_lite_url() -> Iterator[str]:
    """The URL of an `s2 lite` that speaks TLS, for all tests."""
    with s2_lite("--tls-self") as url:
        yield url


@pytest.fixture(scope="session")
def trusting(tls_lite_url: str) -> Callable[[Http], ssl.SSLContext]:
    """Makes what trusts the TLS server: its certificate, and no other.

    The certificate is made at each start and stored nowhere, so that it is asked for.
    """
    url = httpx.URL(tls_lite_url)
    certificate = ssl.get_server_certificate((url.host, url.port or 443))

    def make(http: Http) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=certificate)
        context.set_alpn_protocols([http.value])
        return context

    return make


@pytest.fixture(scope="session", params=HTTP1_SCENES)
def address(request: pytest.FixtureRequest) -> Address:
    """Where the server is."""
    scene: Scene = request.param
    fixtures = {
        Place.EMBEDDED: "embedded_url",
        Place.LITE: "lite_url",
        Place.LITE_TLS: "tls_lite_url",
    }
    url = str(request.getfixturevalue(fixtures[scene.place]))
    if scene.place is not Place.LITE_TLS:
        return address_of(url, scene.http)
    return address_of(url, scene.http, request.getfixturevalue("trusting")(scene.http))


@pytest.fixture(scope="session")
def basin(address: Address) -> Basin:
    """A basin for all tests: they make streams there, and change nothing else."""
    return Basin.make(address)


@pytest.fixture
def own_basin(address: Address) -> Basin:
    """A new basin."""
    return Basin.make(address)


@pytest.fixture
def stream(basin: Basin) -> Stream:
    """A new stream."""
    return basin.make_stream()
