from __future__ import annotations

import pytest
import trio

from s2frames.async_pages import PagedItems
from s2frames.rest import BasinInfo, Page

A, B, C = (BasinInfo(name, "2026-01-01T00:00:00Z") for name in ("basin-aa", "basin-bb", "basin-cc"))


class Pages:
    """Answers by the name that a page comes after."""

    def __init__(self, pages: dict[str, Page[BasinInfo]]) -> None:
        self.pages = pages
        self.asked: list[str] = []

    async def get(self, start_after: str) -> Page[BasinInfo]:
        await trio.lowlevel.checkpoint()
        self.asked.append(start_after)
        return self.pages[start_after]


@pytest.mark.parametrize(
    ("pages", "items", "asked"),
    [
        ({"": Page((), False)}, [], [""]),
        ({"": Page((A, B), False)}, [A, B], [""]),
        ({"": Page((A, B), True), "basin-bb": Page((C,), False)}, [A, B, C], ["", "basin-bb"]),
        ({"": Page((A,), True), "basin-aa": Page((), False)}, [A], ["", "basin-aa"]),
    ],
)
def test_page_after_page(
    pages: dict[str, Page[BasinInfo]], items: list[BasinInfo], asked: list[str]
) -> None:
    source = Pages(pages)

    async def collect() -> list[BasinInfo]:
        return [item async for item in PagedItems(source.get)]

    assert trio.run(collect) == items
    assert source.asked == asked


def test_it_may_be_left_and_taken_up_again() -> None:
    source = Pages({"": Page((A, B), True), "basin-bb": Page((C,), False)})

    async def collect() -> list[BasinInfo]:
        items = PagedItems(source.get)
        async for first in items:
            assert source.asked == [""]
            return [first, *[item async for item in items]]
        return []

    # Warnings are errors: a generator that is left behind would be one.
    assert trio.run(collect) == [A, B, C]
