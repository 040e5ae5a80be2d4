"""A service and a stream to use commands on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli.shell import opened_stream
from live_service import live_service
from s2frames_httpx import Stream


@pytest.fixture
def url() -> Iterator[str]:
    """A service."""
    with live_service() as url:
        yield url


@pytest.fixture
def stream(url: str) -> Iterator[Stream]:
    """An empty stream of that service, the one at `ADDRESS`."""
    with opened_stream(url) as stream:
        yield stream
