"""The library under httpx, by the one name that the rest of the package uses."""

from __future__ import annotations

import httpcore

__all__ = ["httpcore"]
