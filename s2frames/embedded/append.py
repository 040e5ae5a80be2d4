"""Appends over HTTP: one batch a request, or a session of many.

A session answers each batch as it arrives, so acks come out while the request's body still comes
in. The first batch that fails ends it: its error is the last message, after the acks of all batches
before it, and what follows is ignored.
"""

from __future__ import annotations

from collections.abc import Callable

from s2frames.embedded.append_rules import check_batch
from s2frames.embedded.compression import choose_compression
from s2frames.embedded.control import HandleBody
from s2frames.embedded.error_bodies import error_body, service_error
from s2frames.embedded.exchange import Exchange, Response, ResponseHead, json_response
from s2frames.embedded.json_records import append_ack_json, parse_append_input
from s2frames.embedded.json_values import JsonError
from s2frames.embedded.request import MediaType, RequestHead
from s2frames.embedded.stream import Stream
from s2frames.errors import RemoteProtocolError, ServiceError, TransportError
from s2frames.records import AppendAck
from s2frames.s2s import Message, MessageDecoder, Terminal, encode_message, encode_terminal
from s2frames.wire import AppendInput, decode_append_input, encode_append_ack

__all__ = ["SESSION_HEADERS", "AppendSession", "unary_append"]

#: Headers of every session's response: nobody on the way may keep or hold back its messages.
SESSION_HEADERS = (
    ("content-type", MediaType.S2S.value),
    ("cache-control", "no-cache, no-transform"),
    ("x-accel-buffering", "no"),
)


def unary_append(head: RequestHead, open_stream: Callable[[float], Stream]) -> HandleBody:
    """What answers an append of one batch, in protobuf or JSON as the head says.

    `open_stream` is called when the batch proved to be one.
    """
    head.check_encryption_key()
    is_protobuf = head.content_type() is MediaType.PROTOBUF
    is_base64 = not is_protobuf and head.is_base64()

    def handle(body: bytes, now: float) -> Response:
        if is_protobuf:
            batch = decode_append_input(body)
        elif head.content_type() is MediaType.JSON:
            batch = parse_append_input(body, is_base64)
        else:
            raise JsonError("the request needs the header content-type: application/json")
        check_batch(batch)
        stream = open_stream(now)
        ack = stream.append(batch, now)
        stream.commit()
        return _ack_response(head, ack)

    return handle


def _ack_response(head: RequestHead, ack: AppendAck) -> Response:
    if head.accept() is MediaType.PROTOBUF:
        content_type = {"content-type": MediaType.PROTOBUF.value}
        return Response(200, encode_append_ack(ack), content_type)
    return json_response(append_ack_json(ack))


class AppendSession(Exchange):
    """An S2S append session.

    Acks wait in memory until they are sent: a host that does not get rid of them should not feed
    more batches.
    """

    def __init__(
        self, head: RequestHead, stream: Stream, now: float, on_output: Callable[[], None]
    ) -> None:
        super().__init__(now, on_output)
        self._stream = stream
        self._compression = choose_compression(head.headers.get("accept-encoding", ""))
        self._decoder = MessageDecoder()
        self.response = ResponseHead(200, SESSION_HEADERS)

    def receive_data(self, data: bytes, now: float) -> None:
        """Append the batches that are whole now, and commit them together."""
        self._now = now
        if self._ended:
            return
        try:
            self._decoder.receive_data(data)
            self._append_messages(now)
        except RemoteProtocolError as error:
            self._fail(service_error("bad_frame", str(error)))
        except ServiceError as error:
            self._fail(error)
        self._stream.commit()

    def receive_eof(self, now: float) -> None:
        """End: every batch was answered."""
        self._now = now
        if self._ended:
            return
        try:
            self._decoder.receive_eof()
        except TransportError as error:
            self._fail(service_error("bad_frame", str(error)))
        self._ended = True

    def _append_messages(self, now: float) -> None:
        while (message := self._next_message()) is not None:
            if isinstance(message, Terminal):
                raise RemoteProtocolError("a client ends its session without a terminal message")
            ack = self._stream.append(_decode_batch(message.body), now)
            self._output += encode_message(encode_append_ack(ack), self._compression)

    def _next_message(self) -> Message | Terminal | None:
        try:
            return self._decoder.next_message()
        except ImportError as error:
            raise RemoteProtocolError(f"a message is compressed with zstd: {error}") from error

    def _fail(self, error: ServiceError) -> None:
        self._output.append(encode_terminal(error.status, error_body(error)))
        self._ended = True


def _decode_batch(body: bytes) -> AppendInput:
    batch = decode_append_input(body)
    check_batch(batch)
    return batch
