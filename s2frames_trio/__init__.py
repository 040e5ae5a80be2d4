"""The trio adapter, on an HTTP/2 client of its own. So far it holds nothing.

Until it does, `s2frames_httpx.AsyncClient` runs on trio.
"""

from __future__ import annotations

__all__: list[str] = []
