"""S2 for trio: full-duplex sessions over HTTP/2. See `open_client`."""

from __future__ import annotations

try:
    import h2 as _h2  # noqa: F401
    import trio as _trio  # noqa: F401
except ImportError as error:
    raise ImportError("s2frames_trio needs an extra: pip install 's2frames[trio]'") from error

from s2frames_trio.append import AppendSession, AppendTicket
from s2frames_trio.client import Client, Stream, open_client
from s2frames_trio.embedded import open_embedded_client
from s2frames_trio.read import ReadSession

__all__ = [
    "AppendSession",
    "AppendTicket",
    "Client",
    "ReadSession",
    "Stream",
    "open_client",
    "open_embedded_client",
]
