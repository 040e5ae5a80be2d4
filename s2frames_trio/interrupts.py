"""Ctrl-C is for the tasks of the user, as a plain `KeyboardInterrupt`.

Trio raises it where the signal finds Python's code, unless that is protected; else in the main
task, once that waits. So everything that runs in tasks of the client is protected, and what the
user's tasks call of the connections, which are everybody's. What trio runs for us in tasks of its
own cannot be: what is raised there is passed on.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import wraps
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

import trio

__all__ = ["passing_interrupts_on", "protected", "whole_block"]

P = ParamSpec("P")
T = TypeVar("T")

#: Of a function: no signal cuts it off, nor what it calls. It costs nothing to call.
protected = trio.lowlevel.enable_ki_protection


def whole_block(
    make: Callable[P, AbstractAsyncContextManager[T]],
) -> Callable[P, AbstractAsyncContextManager[T]]:
    """A context manager that is entered and left whole: a signal waits, or comes in the block."""

    @wraps(make)
    def begin(*args: P.args, **options: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _Whole(make(*args, **options))

    return begin


class _Whole(AbstractAsyncContextManager[T], Generic[T]):
    """Leaves the block of another one as that does."""

    def __init__(self, inner: AbstractAsyncContextManager[T]) -> None:
        self._inner = inner

    @protected
    async def __aenter__(self) -> T:
        return await self._inner.__aenter__()

    @protected
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)


@contextmanager
def passing_interrupts_on() -> Iterator[None]:
    """Around what trio does in tasks of its own, in one of ours, to be done anew when cut off.

    The main task is interrupted in its place.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        # Here it is protected, so that trio takes it to where it belongs.
        signal.raise_signal(signal.SIGINT)
