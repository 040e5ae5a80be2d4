"""Iterating over what is fetched and then handed out."""

from __future__ import annotations

import asyncio

import pytest

from s2frames.items import AsyncItems, Items


class Shelf:
    """Three things; each is fetched before it is handed out."""

    def __init__(self) -> None:
        self.left = [3, 2, 1]
        self.fetched: list[int] = []

    def fetch(self) -> None:
        if not self.left:
            raise StopIteration
        self.fetched.append(self.left[-1])

    async def fetch_later(self) -> None:
        if not self.left:
            raise StopAsyncIteration
        await asyncio.sleep(0)
        self.fetched.append(self.left[-1])

    def hand_out(self) -> int:
        assert self.fetched[-1] == self.left[-1]
        return self.left.pop()


def test_each_is_fetched_and_handed_out() -> None:
    shelf = Shelf()
    items = Items(shelf.fetch, shelf.hand_out)
    assert next(items) == 1
    assert (shelf.fetched, shelf.left) == ([1], [3, 2])
    assert list(items) == [2, 3]
    with pytest.raises(StopIteration):
        next(items)


def test_an_interruption_before_it_is_handed_out_leaves_it_there() -> None:
    shelf = Shelf()

    def interrupt() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(Items(shelf.fetch, interrupt))
    assert list(Items(shelf.fetch, shelf.hand_out)) == [1, 2, 3]


def test_they_are_awaited() -> None:
    shelf = Shelf()

    async def take_all() -> list[int]:
        items = AsyncItems(shelf.fetch_later, shelf.hand_out)
        first = await anext(items)
        assert shelf.fetched == [1]
        return [first, *[item async for item in items]]

    assert asyncio.run(take_all()) == [1, 2, 3]
