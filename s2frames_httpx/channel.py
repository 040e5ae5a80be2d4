"""Bytes over a socket that never blocks, bare or in TLS: what both kinds of streams do with one.

Nothing here waits. A channel says that nothing can be received or sent now; its stream waits for
the socket, in its own way, and asks again.
"""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

from s2frames.system.socket_options import quick_acks

__all__ = ["Channel", "TcpChannel", "TlsChannel"]

# Bytes of one receive below TLS; as many as httpcore takes at a time.
_RECEIVE_BYTES = 64 * 1024

# Bytes of the largest record (RFC 8446, 5.1).
_RECORD_BYTES = 16 * 1024

# Bytes that are encrypted at a time. They count as sent when they are encrypted: not more than so
# many are ahead of what the socket took.
_SEND_BYTES = 64 * 1024


class Channel(Protocol):
    """Both directions of a connection."""

    def receive(self, max_bytes: int) -> bytes | None:
        """Up to so many bytes, none at the end; None when nothing is there."""

    def send(self, data: memoryview) -> int:
        """Take some of `data`; gives how many bytes, 0 when nothing can be taken now."""

    def flush(self) -> bool:
        """Send what was taken; gives whether all of it is with the system."""

    @property
    def has_received(self) -> bool:
        """Whether something is here that was received and not handed out."""


class TcpChannel:
    """A socket that is connected and does not block."""

    def __init__(self, tcp: socket.socket) -> None:
        self._socket = tcp
        self._ack_quickly = quick_acks(tcp)

    def receive(self, max_bytes: int) -> bytes | None:
        """See `Channel`."""
        try:
            data = self._socket.recv(max_bytes)
        except BlockingIOError:
            return None
        self._ack_quickly()
        return data

    def send(self, data: memoryview) -> int:
        """See `Channel`."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def flush(self) -> bool:
        """See `Channel`."""
        return True

    @property
    def has_received(self) -> bool:
        """See `Channel`."""
        return False


class TlsChannel:
    """A client's side of TLS over another channel.

    The end of the channel below is the end of this one, with or without TLS's goodbye: what is sent
    must itself say whether it is complete. All records that came with one receive are handed out
    together. Raises `ssl.SSLError`.
    """

    def __init__(self, below: Channel, context: ssl.SSLContext, host: str | None) -> None:
        self._below = below
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        #: The standard library's view of the connection.
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        # What is encrypted and not sent.
        self._unsent = memoryview(b"")
        # What broke the receiving side; OpenSSL says so only once.
        self._error: ssl.SSLError | None = None

    def shake_hands(self) -> bool:
        """Go on agreeing on keys; gives whether it is done."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                if not self.flush() or not self._pull():
                    return False
            else:
                return self.flush()

    def receive(self, max_bytes: int) -> bytes | None:
        """See `Channel`."""
        while (data := self._decrypt(max_bytes)) is None:
            if not self._pull():
                return None
        return data

    def send(self, data: memoryview) -> int:
        """See `Channel`."""
        if not self.flush():
            return 0
        taken = self.tls.write(data[:_SEND_BYTES])
        self.flush()
        return taken

    def flush(self) -> bool:
        """See `Channel`."""
        # Answers to the peer's change of keys go with what is sent next (RFC 8446, 4.6.3).
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            sent = self._below.send(self._unsent)
            if not sent:
                return False
            self._unsent = self._unsent[sent:]
        return self._below.flush()

    @property
    def has_received(self) -> bool:
        """See `Channel`."""
        return bool(self._incoming.pending or self.tls.pending()) or self._below.has_received

    def _pull(self) -> bool:
        """Take what arrived below; gives whether anything did."""
        data = self._below.receive(_RECEIVE_BYTES)
        if data is None:
            return False
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return True

    def _decrypt(self, max_bytes: int) -> bytes | None:
        """All that can be read now; None when nothing can."""
        pieces: list[bytes] = []
        room = max_bytes
        try:
            while room and (piece := self.tls.read(min(room, _RECORD_BYTES))):
                pieces.append(piece)
                room -= len(piece)
        except ssl.SSLWantReadError:
            if not pieces:
                return None
        except ssl.SSLEOFError:
            """What is below has ended."""
        except ssl.SSLError as error:
            # It is told after what was good.
            self._error = error
        if self._error is not None and not pieces:
            raise self._error
        return b"".join(pieces)
