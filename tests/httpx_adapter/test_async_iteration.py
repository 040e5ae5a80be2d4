from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from s2frames_httpx.async_iteration import close_answer, reading
from scenes import ASYNC_FLAVOURS

pytestmark = [
    pytest.mark.usefixtures("flavour"),
    pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True, ids=str),
]


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
