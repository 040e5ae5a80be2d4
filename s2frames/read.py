"""`ReadProtocol`: a read session's whole life, without I/O.

A request to make comes out, the answer goes in, messages and all else that the stream holds come
out. See `session` for how an adapter drives it.

The table below is all there is to know of states. A session that loses its connection hands out
what had arrived and ends; the place where it could go on instead is (DRAINING, REFUSED).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlencode

from s2frames.checkpoint import Checkpoint
from s2frames.errors import RemoteProtocolError, S2FramesError, TransportError
from s2frames.events import FrameReceived, ReaderEvent
from s2frames.http import Request
from s2frames.reader import FrameReader, ReaderStats
from s2frames.records import StreamPosition
from s2frames.session import (
    SESSION_CONTENT_TYPE,
    Action,
    Answer,
    CloseRequest,
    EndData,
    OpenRequest,
    Response,
    SessionEnded,
)
from s2frames.settings import ReadSettings
from s2frames.target import StreamTarget

__all__ = ["LIVENESS_TIMEOUT", "ReadEvent", "ReadProtocol", "ReadState"]

#: Seconds without any byte after which a connection counts as dead. The server sends a heartbeat
#: every 5 to 15 s; the official clients wait as long.
LIVENESS_TIMEOUT = 20.0

ReadEvent = ReaderEvent | SessionEnded


class ReadState(enum.Enum):
    """Where a session is."""

    #: No request was made yet.
    IDLE = enum.auto()
    #: A request is open and its answer has not begun.
    OPENING = enum.auto()
    #: The answer is arriving.
    READING = enum.auto()
    #: The answer is over; events may be left to take.
    DRAINING = enum.auto()
    #: The session ended as it should.
    ENDED = enum.auto()
    #: An error ended the session.
    FAILED = enum.auto()


class ReadInput(enum.Enum):
    """What can happen to a session."""

    #: The session starts.
    START = enum.auto()
    #: The answer has begun.
    ANSWER = enum.auto()
    #: The answer is complete.
    DONE = enum.auto()
    #: The connection is lost: it broke or went silent.
    LOST = enum.auto()
    #: The service refused, or broke the protocol.
    REFUSED = enum.auto()
    #: All that was asked for was taken, or the user stops.
    FINISHED = enum.auto()


_S, _I = ReadState, ReadInput

TRANSITIONS: Mapping[tuple[ReadState, ReadInput], ReadState] = {
    (_S.IDLE, _I.START): _S.OPENING,
    (_S.IDLE, _I.FINISHED): _S.ENDED,
    (_S.OPENING, _I.ANSWER): _S.READING,
    (_S.OPENING, _I.LOST): _S.DRAINING,
    (_S.OPENING, _I.REFUSED): _S.FAILED,
    (_S.OPENING, _I.FINISHED): _S.ENDED,
    (_S.READING, _I.DONE): _S.DRAINING,
    (_S.READING, _I.LOST): _S.DRAINING,
    (_S.READING, _I.REFUSED): _S.FAILED,
    (_S.READING, _I.FINISHED): _S.ENDED,
    (_S.DRAINING, _I.REFUSED): _S.FAILED,
    (_S.DRAINING, _I.FINISHED): _S.ENDED,
}

_OPEN = (ReadState.OPENING, ReadState.READING)
_OVER = (ReadState.ENDED, ReadState.FAILED)


class ReadProtocol:
    """Reads the messages of a stream.

    Args:
        target: the stream.
        settings: what to read, and how.
    """

    def __init__(self, target: StreamTarget, settings: ReadSettings) -> None:
        self._target = target
        self._settings = settings
        self._reader = _make_reader(settings)
        self._state = ReadState.IDLE
        self._request_id = 0
        self._response = Response(SESSION_CONTENT_TYPE)
        self._deadline: float | None = None
        self._messages_left = settings.limit
        self._actions: list[Action] = []
        # Events of the batch that is being taken apart.
        self._batch: Iterator[ReaderEvent] = iter(())
        # Why the connection was lost, and how the session ended: to be told in their turn.
        self._loss: S2FramesError | None = None
        self._end: SessionEnded | None = None

    @property
    def state(self) -> ReadState:
        """Where the session is."""
        return self._state

    @property
    def is_over(self) -> bool:
        """Whether the session has ended; how is the last event."""
        return self._state in _OVER

    @property
    def stats(self) -> ReaderStats:
        """Counters, for people."""
        return self._reader.stats

    @property
    def caught_up(self) -> StreamPosition | None:
        """The tail, while everything up to it was taken as far as is known."""
        return self._reader.caught_up

    def checkpoint(self) -> Checkpoint:
        """Where to go on, as of the last event taken. Raises as `FrameReader.checkpoint`."""
        return self._reader.checkpoint()

    def close(self) -> None:
        """Stop reading; nothing more is handed out. Idempotent."""
        if self._state not in _OVER:
            self._finish(ReadInput.FINISHED, None)
        self._end = None

    # What the adapter is to do

    def data_to_send(self, now: float) -> list[Action]:
        """What to do next, in this order."""
        if self._state is ReadState.IDLE:
            self._open_request(now)
        actions, self._actions = self._actions, []
        return actions

    def events_received(self) -> Iterator[ReadEvent]:
        """What the stream holds, as far as it has arrived.

        The session advances as the iterator is consumed; what is left is in the next iterator.
        """
        while (event := self._next_event()) is not None:
            yield event

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, on the clock of `now`."""
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        """Act on a deadline, if it has passed."""
        if self._deadline is not None and now >= self._deadline:
            what = "answer" if self._state is ReadState.OPENING else "sign of life"
            self._actions.append(CloseRequest(self._request_id))
            self._lose(TransportError(f"no {what} came from the service in time"))

    def _open_request(self, now: float) -> None:
        self._move(ReadInput.START)
        self._request_id += 1
        settings = self._target.settings
        headers = self._target.headers(
            content_type=SESSION_CONTENT_TYPE,
            accept=SESSION_CONTENT_TYPE,
            accept_encoding=settings.compression.accept_encoding,
        )
        url = f"{self._target.records_url}?{urlencode(self._query())}"
        self._actions.append(OpenRequest(self._request_id, Request("GET", url, headers)))
        self._actions.append(EndData(self._request_id))
        self._deadline = now + settings.connect_timeout + settings.request_timeout

    def _query(self) -> dict[str, int]:
        query: dict[str, int] = {}
        if self._settings.timestamp is not None:
            query["timestamp"] = self._settings.timestamp
        else:
            query["seq_num"] = self._reader.next_seq_num or 0
        if not self._settings.follow:
            # Waiting for nothing ends the session at the tail, also when it starts there.
            query["wait"] = 0
        return query

    # What happened

    def receive_response(
        self, request_id: int, status: int, headers: Mapping[str, str], now: float
    ) -> None:
        """The answer to a request has begun. Header names are in lower case."""
        if self._is_current(request_id):
            self._guard(lambda: self._begin_answer(status, headers, now))

    def receive_data(self, request_id: int, data: bytes, now: float) -> None:
        """Bytes of the answer, cut anywhere. Take the events before receiving more."""
        if self._is_current(request_id):
            self._response.receive_data(data)
            self.start_waiting(now)

    def start_waiting(self, now: float) -> None:
        """The adapter waits for bytes from now on; before, it was busy with the last ones.

        The body of an error has the time that its head gave it, however it trickles.
        """
        if self._state is ReadState.READING and self._response.kind is not Answer.ERROR:
            self._deadline = now + LIVENESS_TIMEOUT

    def receive_eof(self, request_id: int, now: float) -> None:
        """The answer is complete."""
        if self._is_current(request_id):
            self._guard(self._end_answer)

    def connection_lost(self, request_id: int, error: S2FramesError, now: float) -> None:
        """The request came to nothing: `error` says why. What had arrived is still handed out."""
        if self._is_current(request_id):
            self._lose(error)

    def _begin_answer(self, status: int, headers: Mapping[str, str], now: float) -> None:
        self._move(ReadInput.ANSWER)
        self.start_waiting(now)
        self._response.receive_head(status, headers)

    def _end_answer(self) -> None:
        self._move(ReadInput.DONE)
        self._deadline = None

    def _is_current(self, request_id: int) -> bool:
        return request_id == self._request_id and self._state in _OPEN

    # Events

    def _next_event(self) -> ReadEvent | None:
        """The next event, or None until more arrives."""
        while self._state not in _OVER:
            try:
                event = next(self._batch, None)
                is_batch_over = event is None and self._state not in _OVER
                if is_batch_over and not self._next_batch():
                    return None
            except S2FramesError as error:
                self._finish(ReadInput.REFUSED, error)
                break
            if event is not None:
                self._count(event)
                return event
        end, self._end = self._end, None
        return end

    def _next_batch(self) -> bool:
        """Begin with the next thing to take events from; False when nothing has arrived."""
        if self._response.kind is Answer.SESSION:
            message = self._response.next_message()
            if message is not None:
                self._batch = self._reader.receive_batch(message.body)
                return True
        if self._state is not ReadState.DRAINING:
            return False
        self._batch = self._end_of_answer()
        return True

    def _end_of_answer(self) -> Iterator[ReaderEvent]:
        """What is left to tell when everything that arrived was taken."""
        if self._loss is not None:
            raise self._loss
        self._response.receive_eof()
        if self._settings.follow:
            raise TransportError("the service ended a session that follows the stream")
        yield from self._reader.receive_eof()
        self._finish(ReadInput.FINISHED, None)

    def _count(self, event: ReadEvent) -> None:
        if isinstance(event, FrameReceived) and self._messages_left is not None:
            self._messages_left -= 1
            if not self._messages_left:
                self._finish(ReadInput.FINISHED, None)

    def _guard(self, step: Callable[[], None]) -> None:
        """Take a step; an error it raises ends the session."""
        try:
            step()
        except S2FramesError as error:
            self._finish(ReadInput.REFUSED, error)

    # States

    def _move(self, happened: ReadInput) -> None:
        try:
            self._state = TRANSITIONS[self._state, happened]
        except KeyError:
            raise RemoteProtocolError(
                f"{happened.name} cannot happen while the session is {self._state.name}"
            ) from None

    def _lose(self, error: S2FramesError) -> None:
        self._deadline = None
        self._loss = error
        self._move(ReadInput.LOST)

    def _finish(self, happened: ReadInput, error: S2FramesError | None) -> None:
        if self._state in _OPEN:
            self._actions.append(CloseRequest(self._request_id))
        self._move(happened)
        self._deadline = None
        self._end = SessionEnded(error)


def _make_reader(settings: ReadSettings) -> FrameReader:
    if isinstance(settings.start, Checkpoint):
        return FrameReader.resume(
            settings.start,
            dedupe=settings.dedupe,
            max_frame_bytes=settings.max_frame_bytes,
            max_writers=settings.max_writers,
            max_buffered_bytes=settings.max_buffered_bytes,
        )
    return FrameReader(
        start=settings.start if settings.timestamp is None else None,
        dedupe=settings.dedupe,
        max_frame_bytes=settings.max_frame_bytes,
        max_writers=settings.max_writers,
        max_buffered_bytes=settings.max_buffered_bytes,
    )
