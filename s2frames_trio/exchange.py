"""`Exchange`: drives a machine whose requests are complete when they are sent."""

from __future__ import annotations

from math import inf

import trio

from s2frames.errors import S2FramesError
from s2frames.home import Home
from s2frames.session import CloseRequest, Machine, OpenRequest
from s2frames.system.process import THIS_PROCESS
from s2frames_trio.h2_stream import Http2Stream
from s2frames_trio.pool import Pool

__all__ = ["Exchange"]


class Exchange:
    """Does what a machine asks for, one request at a time, while its caller waits.

    For read sessions and operations: what they send is there before they wait for an answer.

    Args:
        pool: where streams come from.
        machine: a session or an operation.
        home: the process that it is for; by default this one.
    """

    def __init__(self, pool: Pool, machine: Machine, home: Home | None = None) -> None:
        self._pool = pool
        self._home = Home("a call", THIS_PROCESS) if home is None else home
        self._machine = machine
        self._request_id = 0
        self._stream: Http2Stream | None = None
        # Of the last connection; 0 before there was one.
        self._connection_number = 0
        self._has_head = False
        # Around whatever a step waits for.
        self._waiting = trio.CancelScope()
        # Since when it waits, and how long waits took that were cancelled, since something came.
        self._waits_since = self._waited = 0.0
        # Whether a step is under way, or was cut off, and whether it opens a request.
        self._is_stepping = False
        self._is_opening = False

    async def step(self) -> None:
        """Do what the machine asks for; else wait: for more of the answer, or for its time.

        The machine's events are to be taken after each step. What cancels a step passes; the
        machine may go on.
        """
        self._home.check()
        if self._is_stepping:
            self._recover()
        self._is_stepping = True
        try:
            await self._go_on()
        except trio.Cancelled:
            if self._is_opening:
                # How far it came is unknown. A wait for an answer can be taken up again.
                self._recover()
            else:
                self._waited = trio.current_time() - self._waits_since
            self._is_stepping = False
            raise
        except BaseException:
            self._recover()
            raise
        self._is_stepping = False

    def _recover(self) -> None:
        """A step was cut off, wherever it was."""
        self._machine.interrupted(trio.current_time())
        self._drop()
        self._waited = 0.0
        self._is_stepping = self._is_opening = False

    async def _go_on(self) -> None:
        actions = self._machine.data_to_send(trio.current_time())
        opening: OpenRequest | None = None
        for action in actions:
            if isinstance(action, CloseRequest):
                self._drop()
                opening = None
            elif isinstance(action, OpenRequest):
                opening = action
        if opening is not None or not actions:
            self._is_opening = opening is not None
            await self._wait(opening)
            self._is_opening = False

    def close(self) -> None:
        """Be done with the request that is open, if one is, and wake a task that waits.

        In a copy of the process nothing happens: the connection is the original's.
        """
        if self._home.is_here:
            self._waiting.cancel()
            self._drop()

    async def _wait(self, opening: OpenRequest | None) -> None:
        """Wait for what comes next, until the machine's time has come.

        A wait that was cancelled is taken up where it was: who waits for a second at a time, again
        and again, would never hear of a silence otherwise.
        """
        self._waits_since = trio.current_time() - self._waited
        self._machine.start_waiting(self._waits_since)
        # What came while nobody waited, because a wait was cancelled, has come in time.
        is_there = opening is None and self._has_arrived
        deadline = None if is_there else self._machine.next_timeout()
        with trio.CancelScope(deadline=inf if deadline is None else deadline) as self._waiting:
            if opening is not None:
                await self._open(opening)
            elif self._stream is not None:
                await self._receive(self._stream)
            elif deadline is not None:
                await self._sleep(deadline)
            else:
                await trio.lowlevel.checkpoint()
        self._waited = 0.0
        self._machine.handle_timeout(trio.current_time())

    async def _sleep(self, deadline: float) -> None:
        """Wait for the machine's time, which cancels this, or until the client is closed.

        That is as if it had come: the machine asks for its next request, and hears that it cannot.
        """
        await self._pool.closed.wait()
        self._machine.handle_timeout(deadline)

    @property
    def _has_arrived(self) -> bool:
        """Whether what is waited for next is there."""
        stream = self._stream
        if stream is None:
            return False
        return stream.has_data if self._has_head else stream.has_response

    async def _open(self, action: OpenRequest) -> None:
        self._drop()
        self._request_id, self._has_head = action.request_id, False
        body = action.request.body
        try:
            after = self._connection_number if action.on_new_connection else 0
            self._stream = stream = await self._pool.open_stream(
                action.request, end=not body, after=after
            )
            self._connection_number = stream.connection_number
            stream.on_arriving = self._note_arriving
            # Others' uploads may be on the line already.
            behind = stream.seconds_behind(0)
            if body and await stream.send_data([body]):
                await stream.end_data()
            self._machine.bytes_accepted(
                self._request_id, len(body), trio.current_time(), behind=behind
            )
        except S2FramesError as error:
            self._lose(error)

    def _note_arriving(self, num_bytes: int) -> None:
        """Part of what is waited for has come: the rest has its time."""
        self._waits_since, self._waited = trio.current_time(), 0.0
        self._machine.bytes_arriving(self._request_id, num_bytes, self._waits_since)
        deadline = self._machine.next_timeout()
        self._waiting.deadline = inf if deadline is None else deadline

    async def _receive(self, stream: Http2Stream) -> None:
        machine = self._machine
        try:
            if not self._has_head:
                response = await stream.receive_response()
                self._has_head = True
                machine.receive_response(
                    self._request_id, response.status, response.headers, trio.current_time()
                )
                return
            data = await stream.receive_data()
            if data is None:
                self._drop()
                machine.receive_eof(self._request_id, trio.current_time())
            else:
                machine.receive_data(self._request_id, data, trio.current_time())
        except S2FramesError as error:
            self._lose(error)

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.reset()
            self._stream = None

    def _lose(self, error: S2FramesError) -> None:
        self._drop()
        self._machine.connection_lost(self._request_id, error, trio.current_time())
