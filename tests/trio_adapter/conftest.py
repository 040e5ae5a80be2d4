"""Tests of the trio adapter: async functions, on a clock that only moves when all tasks wait."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import trio
import trio.testing


@pytest.fixture
def real_clock() -> None:
    """For tests with sockets: waiting for those is no reason for the clock to move."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run async tests."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    is_real = "real_clock" in pyfuncitem.fixturenames
    clock = None if is_real else trio.testing.MockClock(autojump_threshold=0)
    trio.run(partial(pyfuncitem.obj, **arguments), clock=clock)
    return True
