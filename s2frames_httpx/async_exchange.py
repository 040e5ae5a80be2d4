"""`AsyncExchange`: drives a machine with an asynchronous httpx client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx

from s2frames.session import Machine
from s2frames_httpx.async_iteration import close_answer
from s2frames_httpx.feed import Feed
from s2frames_httpx.mapping import FOREIGN_ERRORS
from s2frames_httpx.outgoing import Outgoing

__all__ = ["AsyncExchange"]


class AsyncExchange:
    """Does what a machine asks for, one request at a time.

    Args:
        http: the client to send requests with.
        machine: a session or an operation.
    """

    def __init__(self, http: httpx.AsyncClient, machine: Machine) -> None:
        self._http = http
        self._feed = Feed(machine)
        self._answer: tuple[httpx.Response, AsyncIterator[bytes]] | None = None
        # Whether a step is under way, or was cut off.
        self._is_stepping = False
        # Where the task that drives sleeps, while it does.
        self._sleeping: anyio.CancelScope | None = None

    @property
    def is_open(self) -> bool:
        """Whether an answer is arriving."""
        return self._answer is not None

    async def step(self) -> None:
        """Do what the machine asks for; else wait: for more of the answer, or for its time.

        The machine's events are to be taken after each step. What cancels a step passes; the
        machine may go on.
        """
        if self._is_stepping:
            await self._recover()
        self._is_stepping = True
        try:
            await self._go_on()
        except FOREIGN_ERRORS as error:
            await self.close()
            self._feed.failed(error)
        except BaseException:
            await self._recover()
            raise
        self._is_stepping = False

    async def _recover(self) -> None:
        """A step was cut off, wherever it was."""
        self._feed.interrupted()
        await self.close()
        self._is_stepping = False

    async def _go_on(self) -> None:
        if (asked := self._feed.asked()) is not None:
            if asked.closes:
                await self.close()
            if asked.request is not None:
                await self._open(asked.request)
        elif self._answer is not None:
            await self._receive(*self._answer)
        else:
            await self._sleep()

    async def close(self) -> None:
        """Close the answer that is open, if one is, and wake a task that sleeps. Idempotent."""
        if self._sleeping is not None:
            self._sleeping.cancel()
        answer = self._answer
        if answer is not None:
            await close_answer(*answer)
            if self._answer is answer:
                self._answer = None

    async def _open(self, outgoing: Outgoing) -> None:
        self._feed.begin(outgoing)
        if self._http.is_closed:
            self._feed.closed()
            return
        response = await self._http.send(self._feed.build(self._http, outgoing), stream=True)
        self._answer = response, response.aiter_raw()
        self._feed.head(response)

    async def _receive(self, response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
        self._feed.wait_for_data(response.request)
        data = await anext(chunks, None)
        self._feed.data(data)
        if data is None:
            await self.close()

    async def _sleep(self) -> None:
        seconds = self._feed.seconds_left()
        if seconds is None:
            await anyio.lowlevel.checkpoint()
            return
        try:
            with anyio.move_on_after(seconds) as self._sleeping:
                await anyio.sleep_forever()
        finally:
            self._sleeping = None
        self._feed.time_has_come()
