"""Of the clock that tests with time-outs go by."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from scenes import ASYNC_FLAVOURS, Flavour, run

on_both = pytest.mark.parametrize("how", ASYNC_FLAVOURS, ids=lambda how: str(how.value))

# Seconds; longer than a test may take.
LONG = 10_000.1


@on_both
def test_a_wait_takes_its_time_on_the_clock_alone(how: Flavour) -> None:
    async def main() -> None:
        for seconds in (LONG, 0.1, 0.3, 1e-6, 0.0):
            began = anyio.current_time()
            await anyio.sleep(seconds)
            assert seconds <= anyio.current_time() - began + 1e-9 <= seconds + 1e-8

    run(how, main, in_virtual_time=True)


@on_both
def test_waits_end_in_order(how: Flavour) -> None:
    ended: list[float] = []

    async def sleep(seconds: float) -> None:
        await anyio.sleep(seconds)
        ended.append(seconds)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for seconds in (LONG, 0.2, 7.0, 0.1):
                group.start_soon(sleep, seconds)

    run(how, main, in_virtual_time=True)
    assert ended == [0.1, 0.2, 7, LONG]


@on_both
def test_no_time_out_ends_while_there_is_something_to_do(how: Flavour) -> None:
    async def main() -> None:
        with anyio.fail_after(0.001):
            for _ in range(100):
                time.sleep(0.0001)  # noqa: ASYNC251  # as on a slow machine
                await anyio.lowlevel.checkpoint()
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            await anyio.sleep_forever()

    run(how, main, in_virtual_time=True)


def test_a_loop_that_nothing_can_wake_fails() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="for ever"):
        run(Flavour.ASYNCIO, main, in_virtual_time=True)
