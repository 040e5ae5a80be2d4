"""One request and its answer, as a stream of an HTTP/2 connection.

Sending and receiving are independent: two tasks may do one each at the same time. Whatever ends the
stream, be it the peer, the connection or an error, is told by the receiving side, after all that
had arrived; the sending side only says that no more is taken. So an answer that comes while the
request is still being sent is never lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Protocol

import trio
from attrs import define, field, frozen

from s2frames.errors import LocalProtocolError, S2FramesError, copied
from s2frames_trio.interrupts import protected
from s2frames_trio.outgoing import Upload
from s2frames_trio.receive_window import ReceiveWindow
from s2frames_trio.stream_rules import join_fields

__all__ = ["Http2Stream", "Response"]

# Smaller pieces are joined as they arrive: a peer that sends single bytes must not make us hold an
# object for each.
_SMALL_BYTES = 4096


@frozen
class Response:
    """The head of an answer."""

    status: int
    #: Names in lower case; repeated ones are joined by commas (RFC 9110, 5.3).
    headers: Mapping[str, str] = field(repr=lambda headers: f"<{len(headers)} headers>")

    @classmethod
    def parse(cls, headers: Iterable[tuple[bytes, bytes]]) -> Response:
        """The head as it is decoded. Raises h2's `ProtocolError` for what is none."""
        fields = join_fields(headers)
        return cls(int(fields.pop(":status")), fields)

    @property
    def is_interim(self) -> bool:
        """Whether another head follows, which counts (RFC 9110, 15.2)."""
        return 100 <= self.status < 200


class Http2StreamOwner(Protocol):
    """What a stream needs of its connection."""

    def send(self, upload: Upload) -> None:
        """Put an upload in line."""

    def seconds_behind(self, num_bytes: int) -> float:
        """In how many seconds all that was written is across, but for `num_bytes`."""

    def credit(self, stream_id: int, num_bytes: int) -> None:
        """Let the peer send so many bytes more on a stream."""

    def reset(self, stream_id: int) -> None:
        """End a stream at once; nothing happens if it is over."""


# Its parts are nothing to show: they hold what was read.
@define(eq=False, repr=False)
class Http2Stream:
    """A request and its answer. Leave its `async with` block, or call `reset`, to be done with it.

    Cancelling `send_data` or `end_data` resets the stream, since part of the bytes may be sent;
    cancelling a receiving call drops only the wait. The connection goes on in either case.
    """

    stream_id: int
    #: Which of its pool's connections it is on.
    connection_number: int
    _owner: Http2StreamOwner
    _window: ReceiveWindow
    _response: Response | None = None
    _chunks: deque[bytes] = field(factory=deque)
    _buffered_bytes: int = 0
    _is_complete: bool = False
    _error: S2FramesError | None = None
    # Whether the user is done with it.
    _is_closed: bool = False
    # The upload under way, and whether the body's end was asked for.
    _upload: Upload | None = None
    _is_ending: bool = False
    # Whether the peer wants the rest of the body.
    _is_sending: bool = True
    # Set when a task that receives may go on.
    _news: trio.Event = field(factory=trio.Event)
    #: Called when something has arrived, or nothing more will.
    on_news: Callable[[], object] = lambda: None
    #: Told of bytes that have come and can be taken only with what follows them.
    on_arriving: Callable[[int], object] = lambda num_bytes: num_bytes

    # Sending

    def begin_data(
        self,
        buffers: Iterable[bytes | bytearray | memoryview],
        on_settled: Callable[[bool], object],
        on_written: Callable[[int], object] = lambda num_bytes: num_bytes,
    ) -> None:
        """`send_data` for who cannot wait: `on_settled` is told what that returns.

        `on_written` is told of each part that the transport has taken, and of none now and then
        while others have their turn.
        """
        upload = Upload.of(self.stream_id, buffers)
        upload.on_written = on_written
        self._begin(upload, on_settled)

    def begin_end(self, on_settled: Callable[[bool], object]) -> None:
        """`end_data` for who cannot wait."""
        self._begin(Upload(self.stream_id, ends_stream=True), on_settled)

    @protected
    def _begin(self, upload: Upload, on_settled: Callable[[bool], object]) -> None:
        self._check_sending()
        upload.on_settled = on_settled
        if not self._is_sending:
            upload.settle(is_sent=False)
            return
        self._is_ending = upload.ends_stream
        self._upload = upload
        self._owner.send(upload)

    def seconds_behind(self, num_bytes: int) -> float:
        """In how many seconds others' bytes, sent before, are across; `num_bytes` are its own."""
        return self._owner.seconds_behind(num_bytes)

    async def send_data(self, buffers: Iterable[bytes | bytearray | memoryview]) -> bool:
        """Send these bytes of the body; returns when the transport has taken all of them.

        The buffers must not change meanwhile. False when no more is taken: the stream is over, and
        the receiving side tells why. Raises `LocalProtocolError` after `end_data`, and while
        another task is sending.
        """
        return await self._send(Upload.of(self.stream_id, buffers))

    async def end_data(self) -> bool:
        """End the body. As `send_data`."""
        sent = self._send(Upload(self.stream_id, ends_stream=True))
        return await sent

    async def _send(self, upload: Upload) -> bool:
        settled = trio.Event()
        self._begin(upload, lambda _: settled.set())
        try:
            await settled.wait()
        except BaseException:
            # How much of it was sent is unknown.
            self.reset()
            raise
        return upload.is_sent

    def _check_sending(self) -> None:
        self._check_open()
        if self._upload is not None and not self._upload.is_settled:
            raise LocalProtocolError("another task is sending on this stream")
        if self._is_ending:
            raise LocalProtocolError("the body of this request is complete")

    # Receiving

    async def receive_response(self) -> Response:
        """Wait for the answer's status and headers. Raises what ended the stream before."""
        await self._wait(lambda: self.has_response)
        return self.take_response()

    async def receive_data(self) -> bytes | None:
        """Wait for the next bytes of the answer's body; None when it is complete.

        Only taking bytes lets the peer send more. Raises what broke the stream, after everything
        that had arrived was taken.
        """
        await self._wait(lambda: self.has_data)
        return self.take_data()

    @property
    def has_response(self) -> bool:
        """Whether `receive_response` need not wait."""
        return self._response is not None or self._is_over

    @property
    def has_data(self) -> bool:
        """Whether `receive_data` need not wait."""
        return bool(self._chunks) or self._is_over

    @protected
    def take_response(self) -> Response:
        """`receive_response` for when `has_response`."""
        if self._response is None:
            raise self._failure()
        return self._response

    @protected
    def take_data(self) -> bytes | None:
        """`receive_data` for when `has_data`."""
        if self._chunks:
            return self._take()
        if self._error is not None:
            # What a connection was lost by is the error of all its streams.
            raise copied(self._error)
        return None

    async def _wait(self, is_there: Callable[[], bool]) -> None:
        """Wait until something is there or will never be. Always a checkpoint."""
        self._check_open()
        if is_there():
            await trio.lowlevel.checkpoint()
        while not is_there():
            if self._news.is_set():
                self._news = trio.Event()
            await self._news.wait()
        self._check_open()

    def _tell_news(self) -> None:
        self._news.set()
        self.on_news()

    @property
    def _is_over(self) -> bool:
        return self._is_complete or self._error is not None or self._is_closed

    def _take(self) -> bytes:
        data = self._chunks.popleft()
        self._buffered_bytes -= len(data)
        self.note_taken(len(data))
        self._close_window_if_over()
        return data

    def _close_window_if_over(self) -> None:
        # What is still to be taken counts until it is.
        if self._is_over and not self._chunks:
            self._window.close()

    def _failure(self) -> S2FramesError:
        if self._error is None:
            raise AssertionError("an answer is complete only after its head")
        return copied(self._error)

    # Ending

    @protected
    def reset(self) -> None:
        """Be done with the stream: unless it is over, it is reset. Idempotent, and immediate."""
        if self._is_closed:
            return
        self._is_closed = True
        self.stop_sending()
        self._chunks.clear()
        self._buffered_bytes = 0
        # Before the place of this stream goes to another one.
        self._close_window_if_over()
        self._owner.reset(self.stream_id)
        self._tell_news()

    async def aclose(self) -> None:
        """As `reset`."""
        self.reset()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Http2Stream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.reset()

    def _check_open(self) -> None:
        if self._is_closed:
            raise LocalProtocolError("the stream is closed")

    # For the connection

    @property
    def is_complete(self) -> bool:
        """Whether the answer is complete."""
        return self._is_complete

    def note_sent_end(self, *, is_ended: bool) -> None:
        """The request has no body, if `is_ended`."""
        self._is_ending = is_ended

    def stop_sending(self) -> None:
        """No more of the request is taken; who sends is told. Idempotent."""
        self._is_sending = False
        if self._upload is not None:
            self._upload.settle(is_sent=False)

    def receive_head(self, response: Response) -> None:
        """The answer has begun."""
        self._response = response
        self._tell_news()

    def receive_chunk(self, data: bytes) -> None:
        """Part of the answer's body has arrived."""
        if self._chunks and len(self._chunks[-1]) + len(data) <= _SMALL_BYTES:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        self._buffered_bytes += len(data)
        self._tell_news()

    def note_taken(self, num_bytes: int) -> None:
        """Bytes that had arrived have gone."""
        if self._is_over:
            return
        credit = self._window.take(
            num_bytes, buffered=self._buffered_bytes, now=trio.current_time()
        )
        if credit:
            self._owner.credit(self.stream_id, credit)

    def receive_end(self) -> None:
        """The answer is complete; the peer has no use for the rest of the request."""
        self._is_complete = True
        # Also what is being written: the connection does not know this stream any more.
        self.stop_sending()
        self._close_window_if_over()
        self._tell_news()

    def fail(self, error: S2FramesError) -> None:
        """The stream broke. Ignored after a complete answer."""
        if not self._is_complete:
            self._error = error
        self._close_window_if_over()
        self.stop_sending()
        self._tell_news()
