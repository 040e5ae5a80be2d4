"""The items of a list that comes in pages, whatever gets them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Generic, TypeVar

from s2frames.rest import Named, Page

__all__ = ["PagedItems"]

N = TypeVar("N", bound=Named)


class PagedItems(Generic[N]):
    """The items of page after page. No generator: it may be left anywhere.

    Args:
        get_page: gets the page that comes after a name.
    """

    def __init__(self, get_page: Callable[[str], Awaitable[Page[N]]]) -> None:
        self._get_page = get_page
        self._items: Iterator[N] = iter(())
        self._next_start_after: str | None = ""

    def __aiter__(self) -> AsyncIterator[N]:
        return self

    async def __anext__(self) -> N:
        while True:
            for item in self._items:
                return item
            if self._next_start_after is None:
                raise StopAsyncIteration
            page = await self._get_page(self._next_start_after)
            self._items, self._next_start_after = iter(page.items), page.next_start_after
