from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from io import StringIO

import pytest

from s2frames.drawing import drawing, drawing_async


def leave(messages: Iterator[int], error: BaseException | None = None) -> None:
    """Draw one, and leave."""
    with drawing(messages) as source:
        assert next(source) == 1
        if error is not None:
            raise error


class Log:
    def __init__(self) -> None:
        self.ended = 0

    def generate(self) -> Iterator[int]:
        try:
            yield from (1, 2, 3)
        finally:
            self.ended += 1

    async def generate_async(self) -> AsyncIterator[int]:
        try:
            for number in (1, 2, 3):
                yield number
        finally:
            await asyncio.sleep(0)
            self.ended += 1


def test_a_generator_is_closed_behind_the_block() -> None:
    log = Log()
    generator = log.generate()
    leave(generator)
    assert log.ended == 1
    assert list(generator) == []


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt, SystemExit])
def test_a_generator_is_closed_before_an_error_comes_out(kind: type[BaseException]) -> None:
    log = Log()
    with pytest.raises(kind):
        leave(log.generate(), kind("mine"))
    assert log.ended == 1


def test_what_its_end_raises_comes_out() -> None:
    def messages() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise KeyError("at the end")

    with pytest.raises(KeyError, match="at the end"):
        leave(messages())


def test_nothing_else_is_closed() -> None:
    lines = StringIO("a\nb\n")
    with drawing(lines) as source:
        assert next(source) == "a\n"
    assert list(lines) == ["b\n"]
    numbers = iter([1, 2])
    leave(numbers)
    assert list(numbers) == [2]
    with drawing([1, 2]) as again:
        assert list(again) == [1, 2]


@pytest.mark.parametrize("messages", [5, None])
def test_what_cannot_be_iterated(messages: object) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        leave(messages)  # type: ignore[arg-type]  # on purpose


class Numbers:
    """An asynchronous iterator that is no generator, and can be closed."""

    is_closed = False

    def __aiter__(self) -> Numbers:
        return self

    async def __anext__(self) -> int:
        return 1

    async def aclose(self) -> None:
        self.is_closed = True


async def leave_async(messages: AsyncIterator[int], error: BaseException) -> None:
    async with drawing_async(messages) as source:
        assert await anext(source) == 1
        raise error


def test_asynchronously() -> None:
    async def main() -> None:
        log = Log()
        with pytest.raises(KeyError, match="mine"):
            await leave_async(log.generate_async(), KeyError("mine"))
        assert log.ended == 1
        numbers = Numbers()
        async with drawing_async(numbers) as others:
            assert await anext(others) == 1
        assert not numbers.is_closed

    asyncio.run(main())
