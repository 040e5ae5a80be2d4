"""Iterating where that may have to wait, and leaving an iteration before its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import anyio
import httpx

__all__ = ["close_answer", "iterate", "reading"]

T = TypeVar("T")

# Between two waits no other task runs; so many messages are encoded in a few milliseconds.
_MESSAGES_PER_TURN = 1000


async def iterate(items: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T, None]:
    """The items; of a plain iterable too, without keeping other tasks from running."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for count, item in enumerate(items, 1):
        yield item
        if count % _MESSAGES_PER_TURN == 0:
            await anyio.lowlevel.checkpoint()


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
