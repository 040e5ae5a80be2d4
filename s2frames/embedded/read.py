"""Reads over HTTP: one batch, an S2S session, or server-sent events.

Each is a `ReadSession` and a way to write its batches. Followers are woken when their stream has
more and fetch it when the host asks for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from s2frames.embedded.append import SESSION_HEADERS
from s2frames.embedded.compression import choose_compression
from s2frames.embedded.error_bodies import error_body, position_json
from s2frames.embedded.exchange import (
    Exchange,
    Response,
    ResponseHead,
    error_response,
    json_response,
)
from s2frames.embedded.json_records import read_batch_json
from s2frames.embedded.json_values import dump_json
from s2frames.embedded.read_request import ReadRequest, parse_last_event_id
from s2frames.embedded.read_session import ReadSession
from s2frames.embedded.request import MediaType, RequestHead
from s2frames.embedded.stream import Stream
from s2frames.errors import ServiceError
from s2frames.records import SequencedRecord, StreamPosition, metered_bytes
from s2frames.s2s import encode_message, encode_terminal
from s2frames.wire import ReadBatch, encode_read_batch

__all__ = ["open_read"]


def open_read(
    head: RequestHead,
    open_stream: Callable[[float], Stream],
    random: Callable[[], float],
    now: float,
    on_output: Callable[[], None],
) -> Exchange:
    """The exchange for a read, in the form that the head asks for. Raises `ServiceError`.

    `open_stream` is called when the request proved to be one.
    """
    request = ReadRequest.parse(head)
    head.check_encryption_key()
    if head.content_type() is MediaType.S2S:
        request.check()
        stream = open_stream(now)
        session = ReadSession(stream, request, random)
        return _StreamedRead(stream, session, _S2SWriter(head), now, on_output)
    is_base64 = head.is_base64()
    if head.accept() is MediaType.EVENT_STREAM:
        delivered = parse_last_event_id(head)
        if delivered is not None:
            request = request.resumed_after(*delivered)
        request.check()
        stream = open_stream(now)
        session = ReadSession(stream, request, random)
        writer = _EventWriter(is_base64, delivered)
        return _StreamedRead(stream, session, writer, now, on_output)
    request = request.for_one_batch()
    request.check()
    stream = open_stream(now)
    session = ReadSession(stream, request, random)
    return _UnaryRead(stream, session, head, now, on_output)


class _ReadExchange(Exchange, ABC):
    """What all reads have in common: a session that their stream wakes."""

    def __init__(
        self, stream: Stream, session: ReadSession, now: float, on_output: Callable[[], None]
    ) -> None:
        super().__init__(now, on_output)
        self._stream = stream
        self._session = session
        stream.follow(self._wake)

    def connection_lost(self, now: float) -> None:
        super().connection_lost(now)
        self._end()

    def next_timeout(self) -> float | None:
        return None if self._ended else self._session.next_timeout()

    def _end(self) -> None:
        self._ended = True
        self._stream.unfollow(self._wake)

    @abstractmethod
    def _wake(self, now: float) -> None:
        """The stream has more, or is gone."""


class _Writer(Protocol):
    """How a streamed read writes what it sends."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Of the response."""

    def write_batch(self, batch: ReadBatch, now: float, /) -> list[bytes]:
        """Records, or a heartbeat."""

    def write_error(self, error: ServiceError) -> list[bytes]:
        """The end, by an error."""

    def write_end(self) -> list[bytes]:
        """The end, as it should be."""


class _StreamedRead(_ReadExchange):
    """A read whose response goes on: each call of `data_to_send` gives one batch."""

    def __init__(
        self,
        stream: Stream,
        session: ReadSession,
        writer: _Writer,
        now: float,
        on_output: Callable[[], None],
    ) -> None:
        super().__init__(stream, session, now, on_output)
        self._writer = writer
        self.response = ResponseHead(200, writer.headers)
        self._end_with_session()

    def data_to_send(self) -> list[bytes]:
        if not self._output and not self._ended:
            self._produce()
        return super().data_to_send()

    def handle_timeout(self, now: float) -> None:
        self._now = now
        if not self._ended:
            self._session.handle_timeout(now)
            self._end_with_session()

    def _produce(self) -> None:
        try:
            batch = self._session.next_batch(self._now)
        except ServiceError as error:
            self._output += self._writer.write_error(error)
            self._end()
            return
        if batch is not None:
            self._output += self._writer.write_batch(batch, self._now)
        self._end_with_session()

    def _end_with_session(self) -> None:
        if self._session.ended:
            self._output += self._writer.write_end()
            self._end()

    def _wake(self, now: float) -> None:
        self._now = now
        self._on_output()


class _S2SWriter:
    """A read as S2S messages."""

    headers = SESSION_HEADERS

    def __init__(self, head: RequestHead) -> None:
        self._compression = choose_compression(head.headers.get("accept-encoding", ""))

    def write_batch(self, batch: ReadBatch, _now: float) -> list[bytes]:
        return encode_message(encode_read_batch(batch), self._compression)

    def write_error(self, error: ServiceError) -> list[bytes]:
        return [encode_terminal(error.status, error_body(error))]

    def write_end(self) -> list[bytes]:
        return []


class _EventWriter:
    """A read as server-sent events. An event's id says where it ends, and how much was delivered
    so far, so that the same request can be resumed after it."""

    headers = (
        ("content-type", MediaType.EVENT_STREAM.value),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
    )

    def __init__(self, is_base64: bool, delivered: tuple[int, int, int] | None) -> None:
        self._is_base64 = is_base64
        _, self._count, self._bytes = delivered or (0, 0, 0)

    def write_batch(self, batch: ReadBatch, now: float) -> list[bytes]:
        if batch.tail is not None and not batch.records:
            return [_ping(batch.tail, now)]
        self._count += len(batch.records)
        self._bytes += sum(metered_bytes(r.headers, len(r.body)) for r in batch.records)
        event_id = f"{batch.records[-1].seq_num},{self._count},{self._bytes}"
        data = dump_json(read_batch_json(batch, self._is_base64))
        return [b"event: batch\nid: %b\ndata: %b\n\n" % (event_id.encode(), data)]

    def write_error(self, error: ServiceError) -> list[bytes]:
        return [b"event: error\ndata: %b\n\n" % error_body(error)]

    def write_end(self) -> list[bytes]:
        return [b"data: [DONE]\n\n"]


def _ping(tail: StreamPosition, now: float) -> bytes:
    ping = {"timestamp": int(now * 1000), "tail": position_json(tail)}
    return b"event: ping\ndata: %b\n\n" % dump_json(ping)


class _UnaryRead(_ReadExchange):
    """A read of at most one batch, which may wait for its first record."""

    def __init__(
        self,
        stream: Stream,
        session: ReadSession,
        head: RequestHead,
        now: float,
        on_output: Callable[[], None],
    ) -> None:
        super().__init__(stream, session, now, on_output)
        self._head = head
        self._records: list[SequencedRecord] = []
        self._tail: StreamPosition | None = None
        self._is_waiting = False
        self._read(now)

    def handle_timeout(self, now: float) -> None:
        if not self._ended:
            self._session.handle_timeout(now)
            self._read(now)

    def _wake(self, now: float) -> None:
        self._read(now)
        if self._ended:
            self._on_output()

    def _read(self, now: float) -> None:
        """Take what there is; answer when there is enough, or no more."""
        try:
            is_done = self._take_batches(now)
        except ServiceError as error:
            self._answer(error_response(error))
            return
        if is_done:
            self._answer(self._batch_response())

    def _take_batches(self, now: float) -> bool:
        while (batch := self._session.next_batch(now)) is not None:
            if batch.records:
                self._records += batch.records
                self._tail = batch.tail
            if self._records and (self._is_waiting or not batch.records):
                return True
            self._is_waiting = not batch.records
        return self._session.ended

    def _batch_response(self) -> Response:
        batch = ReadBatch(self._records, self._tail)
        if self._head.accept() is MediaType.PROTOBUF:
            content_type = {"content-type": MediaType.PROTOBUF.value}
            return Response(200, encode_read_batch(batch), content_type)
        return json_response(read_batch_json(batch, self._head.is_base64()))

    def _answer(self, response: Response) -> None:
        self.respond(response, self._head.headers.get("accept-encoding", ""))
        self._end()
