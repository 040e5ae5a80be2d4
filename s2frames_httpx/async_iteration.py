"""Reading an answer's body, and leaving it before its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import httpx

__all__ = ["close_answer", "reading"]


@asynccontextmanager
async def reading(response: httpx.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """The pieces of an answer's body, in a block that closes it."""
    chunks = response.aiter_raw()
    try:
        yield chunks
    finally:
        await close_answer(response, chunks)


async def close_answer(response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
    """Close an answer, read to its end or not, in a cancelled task too."""
    with anyio.CancelScope(shield=True):
        await response.aclose()
        # httpx reads through generators inside each other. Each that is left where it waits is a
        # ResourceWarning on trio; those of a closed answer end when they are asked for more. That
        # is a RuntimeError where reading has not begun, or where another task is at it.
        with suppress(httpx.HTTPError, RuntimeError):
            async for _ in chunks:
                """What had arrived already is of no interest."""
