"""The ways to reach a service that can be measured: each appends to a stream, and reads it."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from attrs import define, field, frozen

from s2frames.cli.address import StreamAddress
from s2frames.options import ReadOptions
from s2frames.records import StreamPosition
from s2frames.session import Retrying
from s2frames.settings import Settings
from s2frames_httpx import AsyncClient, Client

if TYPE_CHECKING:
    import s2frames_trio

__all__ = ["TRANSPORTS", "Appending", "Transport"]

T = TypeVar("T")


@frozen
class Appending:
    """When messages were appended: seconds of `perf_counter`, which processes share."""

    #: Of each message that was appended alone: when it was handed in, and when it was durable.
    sent: list[float]
    acked: list[float]
    #: The same of all the others together.
    began: float
    ended: float


@define
class Transport(abc.ABC):
    """Appends to one stream and reads it. Each call makes a connection of its own.

    What is measured begins when there is a connection.
    """

    #: What must be there to be imported.
    package: ClassVar[str] = "s2frames_httpx"

    settings: Settings
    address: StreamAddress
    on_retry: Callable[[Retrying], None] | None = None
    #: How many messages are known to be durable.
    num_durable: Callable[[], int] = field(default=lambda: 0, init=False)

    @abc.abstractmethod
    def append(self, alone: Iterable[bytes], together: Iterable[bytes]) -> Appending:
        """Append the messages `alone`, each when the one before is durable; then the others."""

    @abc.abstractmethod
    def read(
        self,
        take: Callable[[list[bytes]], None],
        options: ReadOptions,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
    ) -> float:
        """Hand what is read to `take`, many messages at a time; returns the seconds it took."""


class _Sync(Transport):
    """`s2frames_httpx.Client`."""

    def append(self, alone: Iterable[bytes], together: Iterable[bytes]) -> Appending:
        sent, acked = [], []
        with Client(self.settings) as client:
            stream = client.stream(self.address.basin, self.address.stream)
            stream.check_tail()
            with stream.append_session(on_retry=self.on_retry) as session:
                self.num_durable = lambda: session.durable_messages
                for message in alone:
                    sent.append(perf_counter())
                    session.append(message)
                    acked.append(perf_counter())
                began = perf_counter()
                session.append_many(together)
                return Appending(sent, acked, began, perf_counter())

    def read(
        self,
        take: Callable[[list[bytes]], None],
        options: ReadOptions,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
    ) -> float:
        with Client(self.settings) as client:
            stream = client.stream(self.address.basin, self.address.stream)
            stream.check_tail()
            began = perf_counter()
            with stream.read_session(
                on_retry=self.on_retry, on_caught_up=on_caught_up, **options
            ) as session:
                for messages in session.batches():
                    take(messages)
            return perf_counter() - began


class _Async(Transport):
    """What asynchronous clients have in common."""

    @abc.abstractmethod
    def _run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `function` in a loop of its own."""

    @abc.abstractmethod
    def _open(self) -> AbstractAsyncContextManager[AsyncClient | s2frames_trio.Client]:
        """A client."""

    def append(self, alone: Iterable[bytes], together: Iterable[bytes]) -> Appending:
        return self._run(lambda: self._append(alone, together))

    async def _append(self, alone: Iterable[bytes], together: Iterable[bytes]) -> Appending:
        sent, acked = [], []
        async with self._open() as client:
            stream = client.stream(self.address.basin, self.address.stream)
            await stream.check_tail()
            async with stream.append_session(on_retry=self.on_retry) as session:
                self.num_durable = lambda: session.durable_messages
                for message in alone:
                    sent.append(perf_counter())
                    await session.append(message)
                    acked.append(perf_counter())
                began = perf_counter()
                await session.append_many(together)
                return Appending(sent, acked, began, perf_counter())

    def read(
        self,
        take: Callable[[list[bytes]], None],
        options: ReadOptions,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
    ) -> float:
        return self._run(lambda: self._read(take, options, on_caught_up))

    async def _read(
        self,
        take: Callable[[list[bytes]], None],
        options: ReadOptions,
        on_caught_up: Callable[[StreamPosition], None] | None,
    ) -> float:
        async with self._open() as client:
            stream = client.stream(self.address.basin, self.address.stream)
            await stream.check_tail()
            began = perf_counter()
            async with stream.read_session(
                on_retry=self.on_retry, on_caught_up=on_caught_up, **options
            ) as session:
                async for messages in session.batches():
                    take(messages)
            return perf_counter() - began


class _Asyncio(_Async):
    """`s2frames_httpx.AsyncClient`, on asyncio."""

    def _run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run(function())

    def _open(self) -> AbstractAsyncContextManager[AsyncClient]:
        return AsyncClient(self.settings)


class _Trio(_Async):
    """`s2frames_trio`."""

    package = "s2frames_trio"

    def _run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        import trio

        # Else Ctrl-C might hit a task of the session, and come out in groups of exceptions.
        return trio.run(function, restrict_keyboard_interrupt_to_checkpoints=True)

    def _open(self) -> AbstractAsyncContextManager[s2frames_trio.Client]:
        from s2frames_trio import open_client

        return open_client(self.settings)


#: By the names that users give them.
TRANSPORTS: Mapping[str, type[Transport]] = {
    "trio": _Trio,
    "httpx": _Sync,
    "httpx-async": _Asyncio,
}
