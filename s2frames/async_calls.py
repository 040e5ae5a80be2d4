"""What asynchronous clients and their streams can be asked for, whatever runs the requests.

Each call is a plan; an adapter's `run` carries plans out. Nothing here waits by itself.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from s2frames import rest
from s2frames.async_pages import PagedItems
from s2frames.checkpoint import Checkpoint
from s2frames.commands import fence_stream, probe_fencing_token, trim_stream
from s2frames.config import BasinConfig, StreamConfig
from s2frames.operation import Plan
from s2frames.records import StreamPosition
from s2frames.recover import recover_writer
from s2frames.rest_plans import call_plan, make_request_token
from s2frames.settings import Settings
from s2frames.target import StreamTarget
from s2frames.writer_state import WriterState

__all__ = ["AsyncClientCalls", "AsyncStreamCalls"]

T = TypeVar("T")


class AsyncClientCalls(abc.ABC):
    """Calls that are about no one stream.

    Args:
        settings: where the service is, and who asks.
        random: floats from 0 up to, not including, 1; for what must never meet, so not guessable.
    """

    def __init__(self, settings: Settings, random: Callable[[], float]) -> None:
        self.settings = settings
        self.random = random

    @abc.abstractmethod
    async def run(self, plan: Plan[T]) -> T:
        """Carry out a plan of requests; see `s2frames.operation`."""

    async def call(self, call: rest.Call[T]) -> T:
        """Make a control call of `s2frames.rest`, again where that is safe and may help."""
        return await self.run(call_plan(call))

    def list_basins(self, prefix: str = "") -> AsyncIterator[rest.BasinInfo]:
        """The basins whose names start with `prefix`, in order."""
        return PagedItems(
            lambda start_after: self.call(
                rest.list_basins(self.settings, prefix=prefix, start_after=start_after)
            )
        )

    async def create_basin(self, name: str, config: BasinConfig | None = None) -> None:
        """Make a basin. Raises `ServiceError` (409) when there is one of that name."""
        token = make_request_token(self.random)
        await self.call(rest.create_basin(self.settings, name, config, request_token=token))

    async def ensure_basin(self, name: str, config: BasinConfig | None = None) -> rest.Provisioned:
        """Make a basin, or give the one there is this config, all of it."""
        return await self.call(rest.ensure_basin(self.settings, name, config))

    async def basin_config(self, name: str) -> BasinConfig:
        """The config of a basin."""
        return await self.call(rest.get_basin_config(self.settings, name))

    async def delete_basin(self, name: str) -> None:
        """Remove a basin and all its streams."""
        await self.call(rest.delete_basin(self.settings, name))

    def list_streams(self, basin: str, prefix: str = "") -> AsyncIterator[rest.StreamInfo]:
        """The streams of a basin whose names start with `prefix`, in order."""
        return PagedItems(
            lambda start_after: self.call(
                rest.list_streams(self.settings, basin, prefix=prefix, start_after=start_after)
            )
        )


class AsyncStreamCalls:
    """Calls that are about one stream.

    Args:
        client: carries them out.
        target: which stream.
    """

    def __init__(self, client: AsyncClientCalls, target: StreamTarget) -> None:
        self._calls = client
        self._target = target

    def __repr__(self) -> str:
        return f"{type(self).__name__}('s2://{self._target.basin}/{self._target.stream}')"

    @property
    def target(self) -> StreamTarget:
        """Which stream this is."""
        return self._target

    async def create(self, config: StreamConfig | None = None) -> None:
        """Make the stream. Raises `ServiceError` (409) when it exists."""
        target, token = self._target, make_request_token(self._calls.random)
        await self._calls.call(
            rest.create_stream(
                target.settings, target.basin, target.stream, config, request_token=token
            )
        )

    async def ensure(self, config: StreamConfig | None = None) -> rest.Provisioned:
        """Make the stream, or give the one there is this config, all of it."""
        target = self._target
        return await self._calls.call(
            rest.ensure_stream(target.settings, target.basin, target.stream, config)
        )

    async def config(self) -> StreamConfig:
        """The config of the stream."""
        target = self._target
        return await self._calls.call(
            rest.get_stream_config(target.settings, target.basin, target.stream)
        )

    async def delete(self) -> None:
        """Remove the stream and all it holds."""
        target = self._target
        await self._calls.call(rest.delete_stream(target.settings, target.basin, target.stream))

    async def check_tail(self) -> StreamPosition:
        """The sequence number that comes next, and the last record's timestamp."""
        target = self._target
        return await self._calls.call(rest.check_tail(target.settings, target.basin, target.stream))

    async def fence(
        self, token: str, *, expect: str | None = None, trim: Checkpoint | int | None = None
    ) -> None:
        """Give the stream a fencing token, "" for none: appends with another one are refused.

        With `expect` only if that is its token now, or if it has the new one already; this alone
        is tried again when its answer is lost. With `trim` the stream is trimmed too, as by `trim`,
        both or neither.
        """
        await self._calls.run(fence_stream(self._target, token, expect=expect, trim=trim))

    async def trim(self, before: Checkpoint | int) -> None:
        """Remove the records before a sequence number, some time soon.

        Before a checkpoint: all that a reader that goes on from there does not need.
        """
        await self._calls.run(trim_stream(self._target, before))

    async def fencing_token(self) -> str:
        """The fencing token of the stream, "" if it has none. Appends nothing."""
        return await self._calls.run(probe_fencing_token(self._target, self._calls.random))

    async def recover_writer(
        self, writer_id: str, *, search_from: int = 0, may_be_new: bool = False
    ) -> WriterState:
        """Where an exclusive writer that is gone left off: `append_session(resume=...)` takes it.

        What it had on its way is kept from landing afterwards. Its records are looked for from
        sequence number `search_from` on; `WriterNotFound` is raised where there may be some before,
        or were before the stream was trimmed. With `may_be_new` a writer of which no record is
        found is taken for a new one also there.
        """
        plan = recover_writer(self._target, writer_id, search_from, may_be_new=may_be_new)
        return await self._calls.run(plan)
