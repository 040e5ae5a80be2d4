"""`Duplex`: drives an append session that sends and is answered at the same time.

One task sends, one receives while a request is open, one watches the clock. What each of them tells
the session may give the others something to do: `_follow` passes that on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

import trio

from s2frames.append import AppendProtocol
from s2frames.errors import S2FramesError
from s2frames.session import Action, CloseRequest, EndData, OpenRequest, SendData
from s2frames_trio.h2_stream import Http2Stream
from s2frames_trio.pool import Pool

__all__ = ["Duplex"]


class Duplex:
    """Does what an append session asks for, until it is over.

    Args:
        pool: where streams come from.
        protocol: the session.
        on_progress: called whenever the session may have events, or take more messages.
    """

    def __init__(
        self, pool: Pool, protocol: AppendProtocol, on_progress: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._protocol = protocol
        self._on_progress = on_progress
        self._actions: deque[Action] = deque()
        self._has_work = trio.lowlevel.ParkingLot()
        self._is_parked = False
        # The request that is open or being opened.
        self._request_id = 0
        self._stream: Http2Stream | None = None
        self._opening = trio.CancelScope()
        self._clock = trio.CancelScope()
        #: Set when everything is over.
        self.finished = trio.Event()

    def wake(self) -> None:
        """There may be something to send."""
        if self._is_parked:
            self._has_work.unpark_all()

    def abort(self) -> None:
        """The session was aborted: stop now."""
        self._follow()

    async def run(self) -> None:
        """Drive the session until it is over."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_clock)
                await self._send(nursery)
                nursery.cancel_scope.cancel()
        finally:
            # Only a client that ends takes its sessions along. Who waits for them is to know.
            self._protocol.abort("the client is closed")
            self._drop_stream()
            self._on_progress()
            self.finished.set()

    # Sending

    async def _send(self, nursery: trio.Nursery) -> None:
        while not self._protocol.is_over:
            self._ask()
            if self._actions:
                await self._do_all(nursery)
            elif not self._protocol.is_over:
                self._is_parked = True
                await self._has_work.park()
                self._is_parked = False

    async def _do_all(self, nursery: trio.Nursery) -> None:
        while self._actions:
            action = self._actions.popleft()
            if isinstance(action, OpenRequest):
                await self._open(action, nursery)
            else:
                await self._do(action)

    async def _do(self, action: Action) -> None:
        stream = self._stream
        if stream is None or action.request_id != self._request_id:
            return
        if isinstance(action, SendData):
            if await stream.send_data(action.data):
                num_bytes = sum(map(len, action.data))
                self._protocol.bytes_accepted(action.request_id, num_bytes, trio.current_time())
                self._set_clock()
        elif isinstance(action, EndData):
            await stream.end_data()

    async def _open(self, action: OpenRequest, nursery: trio.Nursery) -> None:
        self._request_id = action.request_id
        stream: Http2Stream | None = None
        try:
            with trio.CancelScope() as self._opening:
                stream = await self._pool.open_stream(
                    action.request, new_connection=action.on_new_connection
                )
        except S2FramesError as error:
            self._lose(action.request_id, error)
        if stream is None:
            return
        if self._opening.cancel_called:
            # It was to be closed when it was all but open.
            stream.reset()
            return
        self._stream = stream
        nursery.start_soon(self._receive, stream, action.request_id)

    # Receiving

    async def _receive(self, stream: Http2Stream, request_id: int) -> None:
        protocol = self._protocol
        try:
            response = await stream.receive_response()
            protocol.receive_response(
                request_id, response.status, response.headers, trio.current_time()
            )
            self._follow()
            while (data := await stream.receive_data()) is not None:
                protocol.receive_data(request_id, data, trio.current_time())
                self._follow()
                if self._stream is not stream:
                    return
            self._drop_stream()
            protocol.receive_eof(request_id, trio.current_time())
        except S2FramesError as error:
            if self._stream is stream:
                self._lose(request_id, error)
            return
        self._follow()

    def _lose(self, request_id: int, error: S2FramesError) -> None:
        self._drop_stream()
        self._protocol.connection_lost(request_id, error, trio.current_time())
        self._follow()

    def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset()

    # Time

    async def _watch_clock(self) -> None:
        while True:
            with trio.CancelScope() as self._clock:
                self._set_clock()
                await trio.sleep_forever()
            self._protocol.handle_timeout(trio.current_time())
            self._follow()

    def _set_clock(self) -> None:
        deadline = self._protocol.next_timeout()
        deadline = inf if deadline is None else deadline
        # Told the same, trio would still sort all its deadlines anew.
        if deadline != self._clock.deadline:
            self._clock.deadline = deadline

    # Between the tasks

    def _follow(self) -> None:
        """The session was told something: pass on what follows from it."""
        self._ask()
        if self._actions or self._protocol.is_over:
            self.wake()

    def _ask(self) -> None:
        """Take what the session has to say. Closing a request does not wait for its turn."""
        for action in self._protocol.data_to_send(trio.current_time()):
            if isinstance(action, CloseRequest):
                self._close(action.request_id)
            else:
                self._actions.append(action)
        self._set_clock()
        self._on_progress()

    def _close(self, request_id: int) -> None:
        # It may still be waiting to be opened.
        left = [action for action in self._actions if action.request_id != request_id]
        self._actions = deque(left)
        if request_id == self._request_id:
            self._opening.cancel()
            self._drop_stream()
