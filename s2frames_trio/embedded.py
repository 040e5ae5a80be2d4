"""`open_embedded_client`: a client, and a service of its own for it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from s2frames.embedded import Service
from s2frames.settings import Endpoints, Settings
from s2frames_trio.client import Client, open_client
from s2frames_trio.interrupts import whole_block

__all__ = ["open_embedded_client"]


@whole_block
@asynccontextmanager
async def open_embedded_client(
    service: Service | None = None, **changes: Any
) -> AsyncIterator[Client]:
    """A client of the embedded service, which is served on loopback while the block runs.

    For trying and for tests; it needs the extra `serve`. When the store fails, the block is
    cancelled, and `StoreError` raised in an exception group.

    Args:
        service: the service, for this block alone; by default a new one, in memory.
        changes: arguments of `Settings`; it knows where the service is.
    """
    from s2frames.embedded.serving import serving

    # It only spreads heartbeats.
    service = Service(random=random.random) if service is None else service
    async with serving(service) as url:
        settings = Settings(endpoints=Endpoints.at(url), **changes)
        async with open_client(settings) as client:
            yield client
