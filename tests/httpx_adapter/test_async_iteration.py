from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from itertools import count

import anyio
import httpx
import pytest

from s2frames_httpx.async_iteration import close_answer, iterate, reading
from scenes import ASYNC_FLAVOURS

pytestmark = [
    pytest.mark.usefixtures("flavour"),
    pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True, ids=str),
]


async def three() -> AsyncIterator[int]:
    for n in range(3):
        yield n


@pytest.mark.parametrize("kind", [list, tuple, iter])
async def test_a_plain_iterable(kind: Callable[[Iterable[int]], Iterable[int]]) -> None:
    assert [item async for item in iterate(kind(range(3)))] == [0, 1, 2]


async def test_an_async_iterable() -> None:
    items: AsyncIterable[int] = three()
    assert [item async for item in iterate(items)] == [0, 1, 2]


async def test_what_cannot_be_iterated() -> None:
    with pytest.raises(TypeError):
        await anext(iterate(5))  # type: ignore[arg-type]


async def test_an_endless_iterable_lets_other_tasks_run() -> None:
    has_run = anyio.Event()

    async def other() -> None:
        has_run.set()

    async with anyio.create_task_group() as group, aclosing(iterate(count())) as items:
        group.start_soon(other)
        async for _ in items:
            if has_run.is_set():
                break


async def test_an_endless_iterable_can_be_cancelled() -> None:
    with anyio.CancelScope() as scope:
        async with aclosing(iterate(count())) as items:
            async for item in items:
                if item == 10:
                    scope.cancel()
    assert scope.cancelled_caught


class Body(httpx.AsyncByteStream):
    """A body of three pieces, in a generator inside another one as httpx has them."""

    def __init__(self) -> None:
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self.pieces():
            yield piece

    async def pieces(self) -> AsyncIterator[bytes]:
        for n in range(3):
            if self.is_closed:
                raise httpx.ReadError("closed")
            yield b"%d" % n

    async def aclose(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_an_answer_may_be_left_anywhere(number: int) -> None:
    body = Body()
    async with reading(httpx.Response(200, stream=body)) as chunks:
        received = [await anext(chunks) for _ in range(number)]
    assert received == [b"0", b"1", b"2"][:number]
    assert body.is_closed


async def test_an_answer_is_closed_in_a_cancelled_task() -> None:
    body = Body()
    response = httpx.Response(200, stream=body)
    chunks = response.aiter_raw()
    await anext(chunks)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await close_answer(response, chunks)
    assert body.is_closed
