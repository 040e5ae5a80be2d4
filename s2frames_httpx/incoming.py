"""What arrives on a connection, some of it while a request is still being written.

A server may answer before it has the whole request: to refuse it, perhaps without ever reading the
rest. Whoever only writes would wait for it for ever, and whoever gives up would lose the answer
(RFC 9112, 9.5: a client monitors the connection for an error response while it sends).
"""

from __future__ import annotations

import re

from s2frames_httpx.channel import Channel

__all__ = ["Incoming"]

# Bytes that are received while writing at most: the rest waits in the system. Acks of a whole burst
# are some kilobytes.
_MAX_AHEAD_BYTES = 64 * 1024

# The start of an answer that is no success and not merely interim (RFC 9110, 15).
_REFUSAL = re.compile(rb"HTTP/1\.[01] [345]")


class Incoming:
    """Hands out what a channel receives, first what was received ahead of its time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ahead = bytearray()
        # Whether the end, or an error, was met ahead of its time.
        self._has_ended = False
        self._error: OSError | None = None

    def receive(self, max_bytes: int) -> bytes | None:
        """Up to so many bytes, none at the end; None when nothing is there."""
        if self._ahead:
            data = bytes(self._ahead[:max_bytes])
            del self._ahead[:max_bytes]
            return data
        if self._error is not None:
            raise self._error
        return b"" if self._has_ended else self._channel.receive(max_bytes)

    def look(self) -> None:
        """Receive what is there, ahead of its time.

        Raises an OSError once there is an answer that says no: what else is wrong is for whoever
        reads.
        """
        try:
            while self.may_look and (data := self._receive_more()) is not None:
                self._ahead += data
                self._has_ended = not data
        except OSError as error:
            self._error = error
        if _REFUSAL.match(self._ahead):
            raise OSError("the peer has refused the request")

    def stalled(self) -> OSError:
        """The error of a peer that takes no more: no time-out if it has begun to answer."""
        if self._ahead:
            return OSError("the peer takes no more, and has answered")
        return TimeoutError("timed out")

    def _receive_more(self) -> bytes | None:
        return self._channel.receive(_MAX_AHEAD_BYTES - len(self._ahead))

    @property
    def may_look(self) -> bool:
        """Whether there is anything to receive ahead of its time, and room for it."""
        is_open = not self._has_ended and self._error is None
        return is_open and len(self._ahead) < _MAX_AHEAD_BYTES

    @property
    def is_dirty(self) -> bool:
        """Whether something is here that no request asked for."""
        is_over = self._has_ended or self._error is not None
        return bool(self._ahead) or is_over or self._channel.has_received
