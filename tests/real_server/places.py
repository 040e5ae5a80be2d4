"""Where the tests take place: a server, and what is spoken there."""

from __future__ import annotations

import enum
import ssl

import httpx
import pytest
from attrs import frozen

from real_server.raw_http import Address, Http
from s2_lite import MISSING, find_binary

__all__ = [
    "EVERY_SCENE",
    "HTTP1_SCENES",
    "Place",
    "Scene",
    "address_of",
    "every_transport",
    "needs_lite",
]

needs_lite = pytest.mark.skipif(find_binary() is None, reason=MISSING)


class Place(enum.Enum):
    """A server."""

    EMBEDDED = "embedded"
    LITE = "s2 lite"
    #: The embedded service speaks no TLS.
    LITE_TLS = "s2 lite, TLS"


@frozen
class Scene:
    """A server, and what is spoken there."""

    place: Place
    http: Http


def _scene(place: Place, http: Http) -> object:
    marks = () if place is Place.EMBEDDED else needs_lite
    return pytest.param(Scene(place, http), id=f"{place.value}, {http.value}", marks=marks)


#: For every test.
HTTP1_SCENES = [_scene(place, Http.HTTP1) for place in (Place.EMBEDDED, Place.LITE)]

EVERY_SCENE = [_scene(place, http) for place in Place for http in Http]

#: For tests in which the transport matters more than the service behind it.
every_transport = pytest.mark.parametrize("address", EVERY_SCENE, indirect=True, scope="session")


def address_of(url: str, http: Http = Http.HTTP1, tls: ssl.SSLContext | None = None) -> Address:
    """The address in a URL."""
    port = httpx.URL(url).port
    assert port is not None
    return Address(port, http, tls)
