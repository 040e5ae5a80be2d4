"""The httpx adapter: `Client` for synchronous code, `AsyncClient` for asyncio and trio.

Both speak HTTP/1.1. Since httpx sends a whole request before it reads the answer, append sessions
send bursts: many batches in one request, then all their acks.
"""

from __future__ import annotations

try:
    import anyio as _anyio  # noqa: F401
    import httpx as _httpx  # noqa: F401
except ImportError as error:
    raise ImportError("s2frames_httpx needs an extra: pip install 's2frames[httpx]'") from error

from s2frames_httpx.append import AppendSession
from s2frames_httpx.async_append import AsyncAppendSession
from s2frames_httpx.async_client import AsyncClient, AsyncStream
from s2frames_httpx.async_read import AsyncReadSession
from s2frames_httpx.burst import BurstOptions
from s2frames_httpx.client import Client, Stream
from s2frames_httpx.embedded import (
    EMBEDDED_SETTINGS,
    AsyncEmbeddedTransport,
    EmbeddedTransport,
)
from s2frames_httpx.read import ReadSession

__all__ = [
    "EMBEDDED_SETTINGS",
    "AppendSession",
    "AsyncAppendSession",
    "AsyncClient",
    "AsyncEmbeddedTransport",
    "AsyncReadSession",
    "AsyncStream",
    "BurstOptions",
    "Client",
    "EmbeddedTransport",
    "ReadSession",
    "Stream",
]
