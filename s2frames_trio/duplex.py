"""`Duplex`: drives an append session that sends and is answered at the same time.

One task does it all. It never waits for a stream, for the transport or for an answer: it begins
things, and waits in one place until any of them has news. So a message costs it two turns, one to
be sent and one to be acked, and a session one task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf

import trio

from s2frames.append import AppendProtocol
from s2frames.errors import S2FramesError
from s2frames.session import Action, CloseRequest, EndData, OpenRequest, SendData
from s2frames_trio.h2_stream import Http2Stream
from s2frames_trio.pool import Opening, Pool

__all__ = ["Duplex"]

# Each ack puts the deadline off, by less than this of the 5 s it is away: trio would sort all its
# deadlines anew. One that goes off too early finds nothing to do.
_EARLY_SECONDS = 1.0


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
        # Set when there may be something to do.
        self._news = trio.Event()
        # The request that is open or being opened, and how far it is.
        self._request_id = 0
        self._opening: Opening | None = None
        self._stream: Http2Stream | None = None
        self._has_head = False
        self._is_sending = False
        # Of the last connection; 0 before there was one.
        self._connection_number = 0
        self._clock = trio.CancelScope()
        #: Set when everything is over.
        self.finished = trio.Event()

    def wake(self) -> None:
        """There may be something to do."""
        self._news.set()

    def abort(self) -> None:
        """The session was aborted: stop now."""
        self.wake()
        self._ask()

    # Ctrl-C is for the tasks of the user: it finds one of these soon enough.
    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Drive the session until it is over."""
        try:
            self.wake()
            await self._drive()
        finally:
            self.finished.set()

    async def _drive(self) -> None:
        try:
            while not self._protocol.is_over:
                with trio.CancelScope() as self._clock:
                    self._set_clock()
                    await self._serve()
                self._handle_timeout()
        finally:
            # Only a client that ends takes its sessions along. Who waits for them is to know.
            self._protocol.abort("the client is closed")
            self._drop_stream()
            self._on_progress()

    async def _serve(self) -> None:
        while not self._protocol.is_over:
            await self._news.wait()
            self._news = trio.Event()
            self._take_stream()
            self._receive_all()
            self._ask()
            self._do_all()

    # Opening

    def _open(self, action: OpenRequest) -> None:
        self._request_id, self._has_head = action.request_id, False
        try:
            self._opening = self._pool.begin_stream(
                action.request,
                on_settled=self.wake,
                after=self._connection_number if action.on_new_connection else 0,
            )
        except S2FramesError as error:
            self._lose(error)
        else:
            self._set_clock()

    def _take_stream(self) -> None:
        opening = self._opening
        if opening is None or not opening.is_settled:
            return
        self._opening = None
        try:
            self._stream = opening.result()
        except S2FramesError as error:
            self._lose(error)
        else:
            self._stream.on_news = self.wake
            self._stream.on_arriving = self._note_arriving
            self._connection_number = self._stream.connection_number

    # Sending

    def _do_all(self) -> None:
        """Do what is asked for, in order, until something has to be waited for."""
        while self._actions and not self._is_sending and self._opening is None:
            action = self._actions.popleft()
            if isinstance(action, OpenRequest):
                self._open(action)
            elif self._stream is not None and action.request_id == self._request_id:
                self._send(self._stream, action)

    def _send(self, stream: Http2Stream, action: Action) -> None:
        self._is_sending = True
        if isinstance(action, SendData):
            note_written = partial(self._note_written, action.request_id)
            stream.begin_data(action.data, self._note_sent, note_written)
        elif isinstance(action, EndData):
            stream.begin_end(self._note_sent)

    def _note_written(self, request_id: int, num_bytes: int) -> None:
        if self._stream is None:
            return
        own = self._protocol.held_bytes + num_bytes
        behind = self._stream.seconds_behind(own)
        self._protocol.bytes_accepted(request_id, num_bytes, trio.current_time(), behind=behind)
        self._set_clock()

    def _note_sent(self, _is_sent: bool) -> None:
        self._is_sending = False
        if self._actions:
            self.wake()

    # Receiving

    def _receive_all(self) -> None:
        """Tell the session what has arrived."""
        while (stream := self._stream) is not None:
            if not (stream.has_data if self._has_head else stream.has_response):
                return
            try:
                self._receive(stream)
            except S2FramesError as error:
                self._lose(error)

    def _receive(self, stream: Http2Stream) -> None:
        request_id, now = self._request_id, trio.current_time()
        if not self._has_head:
            response = stream.take_response()
            self._has_head = True
            self._protocol.receive_response(request_id, response.status, response.headers, now)
        elif (data := stream.take_data()) is not None:
            self._protocol.receive_data(request_id, data, now)
        else:
            self._drop_stream()
            self._protocol.receive_eof(request_id, now)

    def _note_arriving(self, num_bytes: int) -> None:
        """Part of what is waited for has come: the rest has its time, a record to be read back."""
        self._protocol.bytes_arriving(self._request_id, num_bytes, trio.current_time())
        self._set_clock()

    def _lose(self, error: S2FramesError) -> None:
        self._drop_stream()
        self._protocol.connection_lost(self._request_id, error, trio.current_time())
        self._ask()

    def _drop_stream(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset()

    # Time

    def _set_clock(self) -> None:
        deadline = self._protocol.next_timeout()
        if self._opening is not None:
            deadline = min(self._opening.deadline, inf if deadline is None else deadline)
        if deadline is None:
            return
        is_early = self._clock.deadline < trio.current_time() + _EARLY_SECONDS
        if deadline < self._clock.deadline or is_early:
            self._clock.deadline = deadline

    def _handle_timeout(self) -> None:
        now = trio.current_time()
        if self._opening is not None:
            self._opening.expire(now)
        self._protocol.handle_timeout(now)
        # At once: until they are, what has expired is still next.
        self._take_stream()
        self._ask()
        self.wake()

    # What the session asks for

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
            self._drop_stream()
