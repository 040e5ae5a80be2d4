"""Drawing messages out of what the user gave: a generator is closed when nobody goes on with it.

A `for` leaves a generator where it is. Whoever gave one to a session has it no more, so that it
would be closed some time later, by the garbage collector, or, an asynchronous one, by whatever
comes first. Nothing else is closed: a file or a channel is its owner's.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

__all__ = ["drawing", "drawing_async"]

T = TypeVar("T")


@contextmanager
def drawing(messages: Iterable[T]) -> Iterator[Iterator[T]]:
    """An iterator over the messages; if it is a generator, it is closed behind the block."""
    iterator = iter(messages)
    try:
        yield iterator
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


@asynccontextmanager
async def drawing_async(messages: AsyncIterable[T]) -> AsyncIterator[AsyncIterator[T]]:
    """As `drawing`."""
    iterator = aiter(messages)
    try:
        yield iterator
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()
