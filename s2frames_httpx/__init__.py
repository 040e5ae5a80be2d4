"""The httpx adapter: clients for synchronous code, asyncio and trio. So far it holds nothing."""

from __future__ import annotations

__all__: list[str] = []
