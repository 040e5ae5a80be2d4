"""`AsyncExchange`: drives a machine with an asynchronous httpx client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import httpx

from s2frames.home import Home
from s2frames.session import Machine
from s2frames.system.process import THIS_PROCESS
from s2frames_httpx.closing import AsyncClosing
from s2frames_httpx.feed import Feed
from s2frames_httpx.mapping import FOREIGN_ERRORS
from s2frames_httpx.outgoing import Outgoing

__all__ = ["AsyncExchange", "close_answer"]

# What was open when a process was copied: dropped, it would be closed, and with it what the
# original's event loop knows of the connection.
_left_to_the_original: list[object] = []


class AsyncExchange:
    """Does what a machine asks for, one request at a time.

    Args:
        http: the client to send requests with.
        closing: says when that is closed.
        machine: a session or an operation.
        home: the process that it is for; by default this one.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        closing: AsyncClosing,
        machine: Machine,
        home: Home | None = None,
    ) -> None:
        self._http = http
        self._closing = closing
        self._home = Home("a call", THIS_PROCESS) if home is None else home
        # The loop that waits for the answers has a clock of its own.
        self._feed = Feed(machine, anyio.current_time)
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
        machine may go on. It is always a checkpoint but where the machine only has something
        closed that is not open.
        """
        self._home.check()
        if self._is_stepping:
            await self._recover()
        self._is_stepping = True
        try:
            await self._go_on_unless_closed()
        except FOREIGN_ERRORS as error:
            await self._fail(error)
        except RuntimeError:
            # In a copy of the process asyncio has no loop: what began here says so in our words.
            self._home.check()
            await self._recover()
            raise
        except BaseException:
            await self._recover()
            raise
        self._is_stepping = False

    async def _recover(self) -> None:
        """A step was cut off, wherever it was."""
        self._feed.interrupted()
        await self.close()
        self._is_stepping = False

    async def _fail(self, error: Exception) -> None:
        await self.close()
        if self._is_closed:
            # Whatever broke, broke by that.
            self._feed.closed(error)
        else:
            self._feed.failed(error)

    @property
    def _is_closed(self) -> bool:
        return self._closing.is_set or self._http.is_closed

    async def _go_on_unless_closed(self) -> None:
        """Go on, until the client is closed: then, whatever is waited for, the machine hears it."""
        with anyio.CancelScope() as scope:
            self._closing.watch(scope)
            try:
                await self._go_on()
            finally:
                self._closing.leave(scope)
        if scope.cancelled_caught:
            await self.close()
            self._feed.closed()
            self._feed.hurry()

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
        """Close the answer that is open, if one is, and wake a task that sleeps. Idempotent.

        In a copy of the process nothing happens: the connection is the original's.
        """
        if not self._home.is_here:
            _left_to_the_original.append(self._answer)
            self._answer = None
            return
        if self._sleeping is not None:
            self._sleeping.cancel()
        answer = self._answer
        if answer is not None:
            await close_answer(*answer)
            if self._answer is answer:
                self._answer = None

    async def _open(self, outgoing: Outgoing) -> None:
        self._feed.begin(outgoing)
        if self._is_closed:
            self._feed.closed()
            await anyio.lowlevel.checkpoint()
            return
        try:
            response = await self._http.send(self._feed.build(self._http, outgoing), stream=True)
        except Exception as error:
            self._explain(error)
            raise
        self._answer = response, response.aiter_raw()
        self._feed.head(response)

    async def _receive(self, response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
        self._feed.wait_for_data(response.request)
        try:
            data = await anext(chunks, None)
        except Exception as error:
            self._explain(error)
            raise
        self._feed.data(data)
        if data is None:
            await self.close()

    def _explain(self, error: Exception) -> None:
        """Raise what closing the client has made break, wherever, as an error of httpx's."""
        if self._is_closed:
            raise httpx.CloseError("the client is closed") from error

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


async def close_answer(response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
    """Close an answer, read to its end or not, in a cancelled task too."""
    with anyio.CancelScope(shield=True):
        await response.aclose()
        # httpx reads through generators inside each other. Each that is left where it waits is a
        # ResourceWarning on trio; those of a closed answer end when they are asked for more. That
        # is a RuntimeError where reading has not begun, or where another task is at it.
        with suppress(httpx.HTTPError, RuntimeError):
            async for _ in chunks:
                """What had arrived already is of no interest."""
