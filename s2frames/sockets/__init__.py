"""What the adapters share of sockets. Nothing here waits, and only what is given is touched."""

from __future__ import annotations

__all__: list[str] = []
