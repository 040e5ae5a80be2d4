"""What append and read sessions have in common: what they ask of an adapter, and how they end.

An adapter loops: it does what `data_to_send()` asks, in order; feeds what happened, naming the
request and the time; hands out `events_received()`; and calls `handle_timeout` when the time of
`next_timeout()` has come. Whatever concerns a request that is over is ignored. A reader that was
busy with its messages calls `start_waiting` before it waits for more, so that its own slowness is
not taken for the service's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import define, field, frozen

from s2frames.error_bodies import parse_error
from s2frames.errors import RemoteProtocolError, S2FramesError, ServiceError
from s2frames.http import Request
from s2frames.s2s import Message, MessageDecoder, Terminal

__all__ = [
    "Action",
    "CloseRequest",
    "EndData",
    "OpenRequest",
    "SendData",
    "SessionEnded",
]

# What is kept of an answer that is an error; S2's own are far smaller.
_MAX_ERROR_BYTES = 64 * 1024

#: Content types of a session and of a single append.
SESSION_CONTENT_TYPE = "s2s/proto"
PROTOBUF_CONTENT_TYPE = "application/protobuf"


@frozen
class OpenRequest:
    """Send this request. Unless it has a body of its own, `SendData` and `EndData` follow."""

    request_id: int
    request: Request


@frozen
class SendData:
    """Send these bytes of the request's body, one buffer after the other."""

    request_id: int
    data: list[bytes] = field(repr=lambda data: f"<{sum(map(len, data))} bytes>")


@frozen
class EndData:
    """The request's body is complete."""

    request_id: int


@frozen
class CloseRequest:
    """Stop: the rest of the answer is of no interest."""

    request_id: int


Action = OpenRequest | SendData | EndData | CloseRequest


@frozen
class SessionEnded:
    """Nothing more comes. `error` is None when the session ended as it should."""

    error: S2FramesError | None


class Answer(enum.Enum):
    """What an answer turned out to be."""

    UNKNOWN = enum.auto()
    SESSION = enum.auto()
    WHOLE = enum.auto()
    ERROR = enum.auto()


@define(eq=False)
class Response:
    """The answer to one request, as it arrives."""

    #: The content type of the answer that is wanted.
    content_type: str
    kind: Answer = Answer.UNKNOWN
    _status: int = 0
    _decoder: MessageDecoder = field(factory=MessageDecoder)
    _body: bytearray = field(factory=bytearray, repr=False)

    def receive_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Take status and headers (names in lower case)."""
        self._status = status
        if status != 200:
            self.kind = Answer.ERROR
            return
        content_type = headers.get("content-type", self.content_type)
        # A media type may have parameters, and its case does not matter (RFC 9110, 8.3.1).
        if content_type.partition(";")[0].strip().lower() != self.content_type:
            raise RemoteProtocolError(
                f"the answer is {content_type}, not {self.content_type}: is the endpoint S2's?"
            )
        is_session = self.content_type == SESSION_CONTENT_TYPE
        self.kind = Answer.SESSION if is_session else Answer.WHOLE

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the body."""
        if self.kind is Answer.SESSION:
            self._decoder.receive_data(data)
        elif len(self._body) < _MAX_ERROR_BYTES:
            self._body += data[: _MAX_ERROR_BYTES - len(self._body)]

    def receive_eof(self) -> None:
        """The body is complete. Raises the error that it is, or that it ended too early."""
        if self.kind is Answer.ERROR:
            raise parse_error(self._status, bytes(self._body))
        self._decoder.receive_eof()

    def next_message(self) -> Message | None:
        """The next message of a session. Raises the error in a terminal message."""
        message = self._decoder.next_message()
        if isinstance(message, Terminal):
            raise parse_error(message.status, message.body)
        return message

    def whole_body(self) -> bytes:
        """The body of an answer that is no session."""
        return bytes(self._body)


def is_definite(error: S2FramesError) -> bool:
    """Whether `error` is S2's word that nothing more was appended: a refusal, not a mishap.

    From the server's table of codes: all from 400 to 499 but `request_timeout` and `client_hangup`,
    and the two above that are promised to have no effect.
    """
    return isinstance(error, ServiceError) and (
        error.code in ("hot_server", "server_draining")
        or (400 <= error.status < 500 and error.status not in (408, 499))
    )
