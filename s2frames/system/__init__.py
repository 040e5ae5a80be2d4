"""What the adapters share of the operating system. Nothing here waits or does I/O."""

from __future__ import annotations

__all__: list[str] = []
