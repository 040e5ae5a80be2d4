"""What npm's `@s2-dev/streamstore-patterns` 2.1.4 makes of payloads and records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "core" / "vectors"

VECTORS: dict[str, Any] = json.loads((_FOLDER / "framing.json").read_text())

#: What the package reads in reserved headers that are repeated or strange. Under "dedupe" and
#: "frame" stands, by result, which headers give it, each a digit: an index into the parts.
RESERVED: dict[str, Any] = json.loads((_FOLDER / "reserved_headers.json").read_text())

# Byte i is (31 i + 7 (i >> 8)) mod 256, which begins anew after 256 * 256 bytes.
_PERIOD = bytes((i * 31 + (i >> 8) * 7) % 256 for i in range(256 * 256))


def payload(size: int) -> bytes:
    """The payload of `size` bytes that the vectors mean."""
    return (_PERIOD * (size // len(_PERIOD) + 1))[:size]


def headers(pairs: list[list[str]]) -> tuple[tuple[bytes, bytes], ...]:
    """Headers as the vectors write them: the name as text, the value in hexadecimal."""
    return tuple((name.encode(), bytes.fromhex(value)) for name, value in pairs)


def reserved_cases(kind: str) -> list[tuple[tuple[tuple[bytes, bytes], ...], Any]]:
    """Headers of the kind ("dedupe" or "frame"), and what the package reads in them."""
    parts = headers(RESERVED[f"{kind}_parts"])
    return [
        (tuple(parts[int(digit)] for digit in digits), result)
        for result, combinations in RESERVED[kind]
        for digits in combinations.split(" ")
    ]
