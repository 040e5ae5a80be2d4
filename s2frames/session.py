"""What append sessions, read sessions and operations have in common: what they ask of an adapter.

An adapter loops: it does what `data_to_send()` asks, in order; feeds what happened, naming the
request and the time; hands out `events_received()`; and calls `handle_timeout` when the time of
`next_timeout()` has come, which may be while no request is open. Whatever concerns a request that
is over is ignored. A reader that was busy with its messages calls `start_waiting` before it waits
for more, so that its own slowness is not taken for the service's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol, TypeVar

from attrs import define, field, frozen

from s2frames.error_bodies import media_type, parse_error
from s2frames.errors import RemoteProtocolError, S2FramesError, ServiceError, TransportError
from s2frames.http import Request
from s2frames.retry import is_retryable
from s2frames.s2s import Message, MessageDecoder, Terminal
from s2frames.target import SESSION_CONTENT_TYPE

__all__ = [
    "Action",
    "CloseRequest",
    "EndData",
    "Machine",
    "OpenRequest",
    "Retrying",
    "SendData",
    "SessionEnded",
    "leaves_connection",
    "transition",
]

# What is kept of an answer that is an error; S2's own are far smaller.
_MAX_ERROR_BYTES = 64 * 1024

# What becomes of an answer on its way, whatever it was.
_OF_THE_WAY = (TransportError, RemoteProtocolError)


@frozen
class OpenRequest:
    """Send this request; the rest of its body follows in `SendData`, up to `EndData`."""

    request_id: int
    request: Request
    #: Whether it should have a connection made after the one of the request before: the service
    #: wishes so, or `leaves_connection` says so of what that came to.
    on_new_connection: bool = False


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


def leaves_connection(error: S2FramesError) -> bool:
    """Whether what follows an attempt that ended in `error` is to have another connection.

    A connection may be open, and answer nothing or only errors, while the service is well. Only an
    answer that would be the same everywhere says nothing against it.
    """
    return not isinstance(error, ServiceError) or is_retryable(error)


@frozen
class SessionEnded:
    """Nothing more comes. `error` is None when the session ended as it should."""

    error: S2FramesError | None


@frozen
class Retrying:
    """An attempt has failed with `error`; another one follows in `delay` seconds."""

    error: S2FramesError
    #: Attempts so far since something last went well.
    attempts: int
    delay: float


class Machine(Protocol):
    """What an adapter drives. Times are seconds on any one clock."""

    def data_to_send(self, now: float) -> list[Action]:
        """What to do next, in this order."""

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`."""

    def handle_timeout(self, now: float) -> None:
        """Act on a deadline, if one has passed."""

    def start_waiting(self, now: float) -> None:
        """The adapter waits for bytes from now on; before, it was busy with the last ones."""

    def bytes_accepted(
        self, request_id: int, num_bytes: int, now: float, *, behind: float | None = None
    ) -> None:
        """The transport took `num_bytes` more of what the request has.

        To be told of each part that it takes: a slow line is told from a dead one by that. Where
        others use the connection too, their bytes from before are across in `behind` seconds; and 0
        bytes mean that it is the turn of others, so that something goes on.
        """

    def receive_response(
        self, request_id: int, status: int, headers: Mapping[str, str], now: float
    ) -> None:
        """The answer to a request has begun. Header names are in lower case."""

    def receive_data(self, request_id: int, data: bytes, now: float) -> None:
        """Bytes of the answer, cut anywhere."""

    def bytes_arriving(self, request_id: int, num_bytes: int, now: float) -> None:
        """Bytes of the answer have come which cannot be handed over yet: part of a frame, say."""

    def receive_eof(self, request_id: int, now: float) -> None:
        """The answer is complete."""

    def connection_lost(self, request_id: int, error: S2FramesError, now: float) -> None:
        """The request came to nothing: `error` says why."""

    def interrupted(self, now: float) -> None:
        """What the adapter did was cut off on this side, by Control-C, say, or a cancellation.

        What is open is given up, and what was asked for and not done is asked for anew.
        """


_State = TypeVar("_State", bound=enum.Enum)
_Input = TypeVar("_Input", bound=enum.Enum)


def transition(
    table: Mapping[tuple[_State, _Input], _State], state: _State, happened: _Input
) -> _State:
    """The state that follows. Raises `RemoteProtocolError` when the table has none."""
    try:
        return table[state, happened]
    except KeyError:
        raise RemoteProtocolError(
            f"{happened.name} cannot happen while the session is {state.name}"
        ) from None


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
    _headers: Mapping[str, str] = field(factory=dict, repr=False)
    _decoder: MessageDecoder = field(factory=MessageDecoder)
    _body: bytearray = field(factory=bytearray, repr=False)

    def receive_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Take status and headers (names in lower case)."""
        self._status = status
        self._headers = headers
        if status != 200:
            self.kind = Answer.ERROR
            return
        content_type = headers.get("content-type", self.content_type)
        # A media type may have parameters, and its case does not matter (RFC 9110, 8.3.1).
        if content_type.partition(";")[0].strip().lower() != self.content_type:
            raise RemoteProtocolError(
                f"the answer is {media_type(headers)}, not {self.content_type}: "
                "is the endpoint S2's?"
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
            raise parse_error(self._status, bytes(self._body), self._headers)
        self._decoder.receive_eof()

    def why_failed(self, error: S2FramesError) -> S2FramesError:
        """What an attempt that came to nothing by `error` failed by.

        Once the head of an answer says that it is an error, it is that one with as much of the body
        as has come, be it that the rest stalls or breaks.
        """
        if self.kind is not Answer.ERROR or not isinstance(error, _OF_THE_WAY):
            return error
        told = parse_error(self._status, bytes(self._body), self._headers)
        told.is_incomplete = True
        told.__cause__ = error
        return told

    def next_message(self) -> Message | None:
        """The next message of a session. Raises the error in a terminal message."""
        message = self._decoder.next_message()
        if isinstance(message, Terminal):
            raise parse_error(message.status, message.body)
        return message

    def whole_body(self) -> bytes:
        """The body of an answer that is no session."""
        return bytes(self._body)
