"""What asynchronous clients can be asked for: each call is one plan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from drive import TARGET
from s2frames.async_calls import AsyncClientCalls, AsyncStreamCalls
from s2frames.errors import ServiceError
from s2frames.operation import Plan

T = TypeVar("T")


class Recorder(AsyncClientCalls):
    """Carries out nothing: counts the plans."""

    def __init__(self) -> None:
        super().__init__(TARGET.settings, lambda: 0.5)
        self.num_plans = 0

    async def run(self, plan: Plan[T]) -> T:
        self.num_plans += 1
        next(plan)
        plan.close()
        raise ServiceError(403, "permission_denied", "no")


def finish(work: Coroutine[Any, Any, object]) -> None:
    """Run what never waits."""
    with pytest.raises(StopIteration):
        work.send(None)


CALLS: list[Callable[[Recorder, AsyncStreamCalls], Awaitable[object]]] = [
    lambda client, _: client.create_basin("test-basin"),
    lambda client, _: client.ensure_basin("test-basin"),
    lambda client, _: client.basin_config("test-basin"),
    lambda client, _: client.delete_basin("test-basin"),
    lambda client, _: anext(aiter(client.list_basins())),
    lambda client, _: anext(aiter(client.list_streams("test-basin"))),
    lambda _, stream: stream.create(),
    lambda _, stream: stream.ensure(),
    lambda _, stream: stream.config(),
    lambda _, stream: stream.delete(),
    lambda _, stream: stream.check_tail(),
    lambda _, stream: stream.fence("token"),
    lambda _, stream: stream.trim(1),
    lambda _, stream: stream.fencing_token(),
    lambda _, stream: stream.recover_writer("someone"),
]


@pytest.mark.parametrize("call", CALLS)
def test_each_call_is_one_plan_and_its_error_comes_out(
    call: Callable[[Recorder, AsyncStreamCalls], Awaitable[object]],
) -> None:
    client = Recorder()

    async def main() -> None:
        with pytest.raises(ServiceError, match="permission_denied"):
            await call(client, AsyncStreamCalls(client, TARGET))

    finish(main())
    assert client.num_plans == 1


def test_a_stream_says_which_it_is() -> None:
    stream = AsyncStreamCalls(Recorder(), TARGET)
    assert stream.target is TARGET
    assert repr(stream) == f"AsyncStreamCalls('s2://{TARGET.basin}/{TARGET.stream}')"
