"""Read sessions for threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

import httpx

from s2frames.checkpoint import Checkpoint
from s2frames.errors import LocalProtocolError, TransportError
from s2frames.inbox import Inbox, ReceivedMessage
from s2frames.read import LIVENESS_TIMEOUT, ReadProtocol
from s2frames.reader import ReaderStats
from s2frames.records import StreamPosition
from s2frames.session import CloseRequest, OpenRequest
from s2frames_httpx.alone import Alone
from s2frames_httpx.mapping import (
    FOREIGN_ERRORS,
    lower_headers,
    set_read_timeout,
    to_our_error,
)

__all__ = ["ReadSession"]

T = TypeVar("T")


class ReadSession(Generic[T]):
    """The messages of a stream: iterate over it, bare or in a `with` block.

    Bare, it is closed when the loop is left; in a `with` block, when the block is. After a
    `FrameLost` or a `CodecError` iteration may go on. A session belongs to one thread at a time.
    """

    def __init__(self, http: httpx.Client, protocol: ReadProtocol, inbox: Inbox[T]) -> None:
        self._http = http
        self._protocol = protocol
        self._inbox = inbox
        self._alone = Alone(
            "a read session belongs to one thread at a time, and this one is in use"
        )
        self._request_id = 0
        self._url = ""
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

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

    def frames(self) -> Iterator[ReceivedMessage[T]]:
        """The messages with their positions, timestamps, writers and headers."""
        return _Messages(self._next)

    def close(self) -> None:
        """Stop reading. Idempotent."""
        with self._alone:
            self._protocol.close()
            self._close_response()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self._next().message

    def __enter__(self) -> ReadSession[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A loop that was left with `break` forgets its session without closing it.
        self._close_response()

    def _next(self) -> ReceivedMessage[T]:
        with self._alone:
            return self._take_next()

    def _take_next(self) -> ReceivedMessage[T]:
        protocol = self._protocol
        while True:
            for event in protocol.events_received():
                if protocol.is_over:
                    self._close_response()
                message = self._inbox.take(event)
                if message is not None:
                    return message
            if protocol.is_over:
                raise StopIteration
            self._pump()

    def _pump(self) -> None:
        """Do what the session asks for, then let it have the next bytes."""
        try:
            for action in self._protocol.data_to_send(time.monotonic()):
                if isinstance(action, OpenRequest):
                    self._open(action)
                elif isinstance(action, CloseRequest):
                    self._close_response()
            if self._response is not None:
                self._receive()
        except FOREIGN_ERRORS as error:
            ours = to_our_error(error, self._url)
            self._protocol.connection_lost(self._request_id, ours, time.monotonic())
        except BaseException:
            self._close_response()
            self._protocol.connection_lost(
                self._request_id, TransportError("the read was interrupted"), time.monotonic()
            )
            raise

    def _open(self, action: OpenRequest) -> None:
        self._request_id, self._url = action.request_id, action.request.url
        if self._http.is_closed:
            raise LocalProtocolError("the client is closed")
        request = self._http.build_request(
            action.request.method, self._url, headers=action.request.headers
        )
        response = self._http.send(request, stream=True)
        self._response, self._chunks = response, response.iter_raw()
        set_read_timeout(request, LIVENESS_TIMEOUT)
        head = lower_headers(response.headers)
        now = time.monotonic()
        self._protocol.receive_response(self._request_id, response.status_code, head, now)

    def _receive(self) -> None:
        data = next(self._chunks, None)
        if data is None:
            self._protocol.receive_eof(self._request_id, time.monotonic())
        else:
            self._protocol.receive_data(self._request_id, data, time.monotonic())
            self._protocol.handle_timeout(time.monotonic())

    def _close_response(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()


class _Messages(Generic[T]):
    """The messages of a session with all that is known of each."""

    def __init__(self, take_next: Callable[[], ReceivedMessage[T]]) -> None:
        self._take_next = take_next

    def __iter__(self) -> Iterator[ReceivedMessage[T]]:
        return self

    def __next__(self) -> ReceivedMessage[T]:
        return self._take_next()
