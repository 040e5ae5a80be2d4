from __future__ import annotations

import threading

import anyio
import pytest

from s2frames_httpx.closing import AsyncClosing, Closing
from scenes import ASYNC_FLAVOURS

on_both = pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True, ids=str)


def test_closing_wakes_whoever_waits() -> None:
    closing = Closing()
    woken: list[str] = []
    closing.wake_by(lambda: woken.append("another lock"))
    threads = [threading.Thread(target=closing.wait, args=(3600,), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert not closing.is_set
    closing.set()
    for thread in threads:
        thread.join()
    assert closing.is_set
    assert woken == ["another lock"]
    # Nobody waits any more.
    closing.wait(3600)


def test_a_waker_that_is_given_often_is_called_once() -> None:
    closing = Closing()
    woken: list[int] = []

    def wake() -> None:
        woken.append(1)

    for _ in range(3):
        closing.wake_by(wake)
    closing.set()
    assert woken == [1]


@on_both
@pytest.mark.usefixtures("flavour")
async def test_closing_cancels_the_scopes_that_are_watched() -> None:
    closing = AsyncClosing()
    ended: list[bool] = []

    async def wait(*, is_left: bool) -> None:
        with anyio.CancelScope() as scope:
            closing.watch(scope)
            if is_left:
                closing.leave(scope)
                await anyio.lowlevel.checkpoint()
            else:
                await anyio.sleep_forever()
        ended.append(scope.cancelled_caught)

    async with anyio.create_task_group() as group:
        for is_left in (True, False, False):

            async def run(is_left: bool = is_left) -> None:
                await wait(is_left=is_left)

            group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        assert not closing.is_set
        closing.set()
    assert closing.is_set
    assert ended == [False, True, True]


@on_both
@pytest.mark.usefixtures("flavour")
async def test_a_scope_that_comes_after_the_end_is_cancelled_at_once() -> None:
    closing = AsyncClosing()
    closing.set()
    with anyio.CancelScope() as scope:
        closing.watch(scope)
        await anyio.sleep_forever()
    assert scope.cancelled_caught
