"""Iterators over what a read session hands out, message by message or many at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

__all__ = ["AsyncItems", "Items"]

T = TypeVar("T")


class Items(Iterator[T]):
    """Fetches an item and hands it out, which is the last thing that happens; see `Handout`.

    Args:
        fetch: has the next item ready; raises StopIteration when there is none.
        hand_out: gives what is ready.
    """

    def __init__(self, fetch: Callable[[], None], hand_out: Callable[[], T]) -> None:
        self._fetch = fetch
        self._hand_out = hand_out

    def __next__(self) -> T:
        self._fetch()
        return self._hand_out()


class AsyncItems(AsyncIterator[T]):
    """The same for who waits: `fetch` is awaited, and raises StopAsyncIteration."""

    def __init__(self, fetch: Callable[[], Awaitable[None]], hand_out: Callable[[], T]) -> None:
        self._fetch = fetch
        self._hand_out = hand_out

    async def __anext__(self) -> T:
        await self._fetch()
        return self._hand_out()
