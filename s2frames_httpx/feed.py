"""What the synchronous and the asynchronous exchange share: what a machine is told, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx

from s2frames.errors import LocalProtocolError
from s2frames.pace import MAX_HELD_BYTES, MIN_RATE
from s2frames.records import MAX_BATCH_BYTES
from s2frames.session import Machine
from s2frames.writes import MAX_WRITE_BYTES, Writes
from s2frames_httpx.mapping import lower_headers, set_timeout, to_our_error
from s2frames_httpx.outgoing import Asked, Body, Outgoing
from s2frames_httpx.patience import Patience

__all__ = ["Feed"]

# Seconds: no time at all would not even let a read take what is there.
_MIN_READ_TIMEOUT = 0.005

# Bytes of the largest batch as it is sent: what is not metered comes on top of that.
_MAX_BATCH_BYTES = MAX_BATCH_BYTES + 64 * 1024


class Feed:
    """Tells a machine what happens to its requests.

    Args:
        machine: a session or an operation.
        clock: gives the seconds by which its waits end.
    """

    def __init__(self, machine: Machine, clock: Callable[[], float]) -> None:
        self._machine = machine
        self._clock = clock
        self._request_id = 0
        self._url = ""
        # Seconds that httpx lets any read take, unless told otherwise.
        self._usual_timeout = 0.0
        # Seconds that an answer may be silent at the most.
        self._longest_silence = 0.0
        self._writes = Writes()

    def asked(self) -> Asked | None:
        """What the machine wants done; None when it wants nothing."""
        actions = self._machine.data_to_send(self._clock())
        return Asked.collect(actions) if actions else None

    def seconds_left(self) -> float | None:
        """How long until the machine has something to do by itself; None when it never has."""
        deadline = self._machine.next_timeout()
        return None if deadline is None else max(0.0, deadline - self._clock())

    def time_has_come(self) -> None:
        """The machine's time may have come."""
        self._machine.handle_timeout(self._clock())

    def hurry(self) -> None:
        """The client is closed while the machine waits for its time.

        As if that had come: the machine asks for its next request, and hears that it cannot be.
        """
        deadline = self._machine.next_timeout()
        if deadline is not None:
            self._machine.handle_timeout(deadline)

    # A request

    def begin(self, outgoing: Outgoing) -> None:
        """`outgoing` is about to be sent."""
        self._request_id = outgoing.opened.request_id
        self._url = outgoing.opened.request.url

    def build(self, http: httpx.Client | httpx.AsyncClient, outgoing: Outgoing) -> httpx.Request:
        """The request for httpx. The machine is told what is taken of its body."""
        request = http.build_request(
            outgoing.opened.request.method, self._url, headers=outgoing.headers()
        )
        self._usual_timeout = request.extensions["timeout"]["read"]
        self._allow_for_crossing(request, outgoing.size)
        request.stream = Body(self._sending(request, outgoing))
        return request

    def _allow_for_crossing(self, request: httpx.Request, size: int) -> None:
        """Let bytes of a body of `size` have the time to cross the slowest line.

        httpx looks its time-outs up once for the whole body. So they allow for the longest wait
        there may be: of a write, for all that buffers hold and the piece itself; of the acks, which
        come one by one, for that of a full batch. See `Patience` for who asks again.
        """
        held = min(size, MAX_HELD_BYTES + MAX_WRITE_BYTES)
        self._patience(request, "write", self._usual_timeout + held / MIN_RATE)
        batch = min(size, _MAX_BATCH_BYTES)
        self._longest_silence = self._usual_timeout + batch / MIN_RATE

    def _patience(self, request: httpx.Request, what: str, seconds: float) -> None:
        set_timeout(request, what, Patience(seconds, self.seconds_left))

    def _sending(self, request: httpx.Request, outgoing: Outgoing) -> Iterator[bytes]:
        """The body's pieces; one was taken when the next one is asked for."""
        number = outgoing.opened.request_id
        for piece in outgoing.pieces(self._writes):
            self._writes.begin(self._clock())
            yield piece
            now = self._clock()
            self._writes.end(len(piece), now)
            self._machine.bytes_accepted(number, len(piece), now)
        # httpx waits for the head next.
        self._wait(request, _MIN_READ_TIMEOUT)

    def _wait(self, request: httpx.Request, min_timeout: float) -> None:
        """The next bytes are waited for, as long as the machine would."""
        self._machine.start_waiting(self._clock())
        left = self.seconds_left()
        if left is not None:
            self._patience(request, "read", max(min_timeout, left))

    # Its answer

    def head(self, response: httpx.Response) -> None:
        """The answer has begun."""
        headers = lower_headers(response.headers)
        self._machine.receive_response(
            self._request_id, response.status_code, headers, self._clock()
        )

    def wait_for_data(self, request: httpx.Request) -> None:
        """The next bytes of the answer are waited for.

        httpx looks the time-out up before the first of them, and uses it for every later read: it
        must not be short because the head was late.
        """
        self._wait(request, self._longest_silence)

    def data(self, data: bytes | None) -> None:
        """Bytes of the answer, or None for its end."""
        now = self._clock()
        if data is None:
            self._machine.receive_eof(self._request_id, now)
        else:
            self._machine.receive_data(self._request_id, data, now)
            # An answer that trickles for ever never makes a read time out.
            self._machine.handle_timeout(now)

    # What can come between

    def failed(self, error: Exception) -> None:
        """httpx has raised `error`, one of `FOREIGN_ERRORS`."""
        now = self._clock()
        if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
            # The machine knows better what did not go on in time.
            self._machine.handle_timeout(now)
        self._machine.connection_lost(self._request_id, to_our_error(error, self._url), now)

    def closed(self, cause: Exception | None = None) -> None:
        """The client is closed, so that nothing can be sent, or what was under way broke."""
        error = LocalProtocolError("the client is closed")
        error.__cause__ = cause
        self._machine.connection_lost(self._request_id, error, self._clock())

    def interrupted(self) -> None:
        """What was under way was cut off: what the service made of the request is unknown."""
        self._machine.interrupted(self._clock())
