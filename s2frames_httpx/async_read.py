"""Read sessions for asyncio and trio."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Generic, TypeVar

import anyio
import httpx

from s2frames.checkpoint import Checkpoint
from s2frames.errors import LocalProtocolError, TransportError
from s2frames.inbox import Inbox, ReceivedMessage
from s2frames.read import LIVENESS_TIMEOUT, ReadProtocol
from s2frames.reader import ReaderStats
from s2frames.records import StreamPosition
from s2frames.session import CloseRequest, OpenRequest
from s2frames_httpx.alone import Alone
from s2frames_httpx.async_iteration import close_answer
from s2frames_httpx.mapping import (
    FOREIGN_ERRORS,
    lower_headers,
    set_read_timeout,
    to_our_error,
)

__all__ = ["AsyncReadSession"]

T = TypeVar("T")


class AsyncReadSession(Generic[T]):
    """The messages of a stream: iterate over it inside an `async with` block.

    Leaving the block closes it. After a `FrameLost` or a `CodecError` iteration may go on. A
    session belongs to one task at a time. Cancelling a task that waits for a message takes the
    connection and so ends the session; go on with another one from the checkpoint.
    """

    def __init__(self, http: httpx.AsyncClient, protocol: ReadProtocol, inbox: Inbox[T]) -> None:
        self._http = http
        self._protocol = protocol
        self._inbox = inbox
        self._is_entered = False
        self._alone = Alone("a read session belongs to one task at a time, and this one is in use")
        self._request_id = 0
        self._url = ""
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    @property
    def stats(self) -> ReaderStats:
        """Counters of what was read so far."""
        return self._protocol.stats

    @property
    def caught_up(self) -> StreamPosition | None:
        """The tail, while everything up to it was handed out as far as is known."""
        return self._protocol.caught_up

    def checkpoint(self) -> Checkpoint:
        """Where to go on, as of the last message handed out."""
        return self._protocol.checkpoint()

    def frames(self) -> AsyncIterator[ReceivedMessage[T]]:
        """The messages with their positions, timestamps, writers and headers."""
        return _Messages(self._next)

    async def close(self) -> None:
        """Stop reading. Idempotent."""
        self._protocol.close()
        await self._close_response()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return (await self._next()).message

    async def __aenter__(self) -> AsyncReadSession[T]:
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _next(self) -> ReceivedMessage[T]:
        if not self._is_entered:
            raise LocalProtocolError(
                "read inside a block: async with stream.read_session(...) as messages"
            )
        await anyio.lowlevel.checkpoint_if_cancelled()
        with self._alone:
            return await self._take_next()

    async def _take_next(self) -> ReceivedMessage[T]:
        protocol = self._protocol
        while True:
            for event in protocol.events_received():
                if protocol.is_over:
                    await self._close_response()
                message = self._inbox.take(event)
                if message is not None:
                    return message
            if protocol.is_over:
                raise StopAsyncIteration
            await self._pump()

    async def _pump(self) -> None:
        """Do what the session asks for, then let it have the next bytes."""
        try:
            for action in self._protocol.data_to_send(time.monotonic()):
                if isinstance(action, OpenRequest):
                    await self._open(action)
                elif isinstance(action, CloseRequest):
                    await self._close_response()
            if self._response is not None and self._chunks is not None:
                await self._receive(self._chunks)
        except FOREIGN_ERRORS as error:
            ours = to_our_error(error, self._url)
            self._protocol.connection_lost(self._request_id, ours, time.monotonic())
        except BaseException:
            # A cancelled read takes the connection with it.
            await self._close_response()
            self._protocol.connection_lost(
                self._request_id, TransportError("the read was interrupted"), time.monotonic()
            )
            raise

    async def _open(self, action: OpenRequest) -> None:
        self._request_id, self._url = action.request_id, action.request.url
        if self._http.is_closed:
            raise LocalProtocolError("the client is closed")
        request = self._http.build_request(
            action.request.method, self._url, headers=action.request.headers
        )
        response = await self._http.send(request, stream=True)
        self._response, self._chunks = response, response.aiter_raw()
        set_read_timeout(request, LIVENESS_TIMEOUT)
        head = lower_headers(response.headers)
        now = time.monotonic()
        self._protocol.receive_response(self._request_id, response.status_code, head, now)

    async def _receive(self, chunks: AsyncIterator[bytes]) -> None:
        data = await anext(chunks, None)
        if data is None:
            self._protocol.receive_eof(self._request_id, time.monotonic())
        else:
            self._protocol.receive_data(self._request_id, data, time.monotonic())
            self._protocol.handle_timeout(time.monotonic())

    async def _close_response(self) -> None:
        response, self._response = self._response, None
        chunks, self._chunks = self._chunks, None
        if response is not None and chunks is not None:
            await close_answer(response, chunks)


class _Messages(Generic[T]):
    """The messages of a session with all that is known of each."""

    def __init__(self, take_next: Callable[[], Awaitable[ReceivedMessage[T]]]) -> None:
        self._take_next = take_next

    def __aiter__(self) -> AsyncIterator[ReceivedMessage[T]]:
        return self

    async def __anext__(self) -> ReceivedMessage[T]:
        return await self._take_next()
