"""A server that says exactly what a test wants it to, bytes on a socket and no HTTP library.

A script is a function of a `Connection`. Each connection runs it once, in a thread of its own;
when it returns the connection is closed.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from s2frames.s2s import encode_message, encode_terminal

__all__ = [
    "Connection",
    "Script",
    "ScriptedServer",
    "answer",
    "chunked",
    "content_length",
    "head",
    "message",
    "scripted_server",
    "session",
    "terminal",
]

# Seconds; a hang becomes a failure. Nothing is expected to take long.
_PATIENCE = 60


@define
class Connection:
    """A client's connection, as a script sees it."""

    _socket: socket.socket
    #: What was received and not taken.
    _received: bytearray = field(factory=bytearray)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def receive_head(self) -> bytes:
        """Receive a request's head."""
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            self._receive()
        head = bytes(self._received[: end + 4])
        del self._received[: end + 4]
        return head

    def receive_request(self) -> bytes:
        """Receive a request, body included; gives its head."""
        head = self.receive_head()
        self.skip(content_length(head))
        return head

    def wait_until_closed(self) -> None:
        """Receive whatever comes until the client leaves."""
        while self._socket.recv(65536):
            """Of no interest."""

    def receive_exactly(self, size: int) -> bytes:
        """Receive so many bytes."""
        while len(self._received) < size:
            self._receive()
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def skip(self, size: int) -> None:
        """Receive so many bytes, and keep none."""
        while len(self._received) < size:
            size -= len(self._received)
            self._received.clear()
            self._receive()
        del self._received[:size]

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("the client has left")
        self._received += data


Script = Callable[[Connection], None]


@define
class ScriptedServer:
    """The server as a test sees it."""

    url: str
    #: How many connections there were.
    connections: int = 0
    _errors: list[Exception] = field(factory=list)

    def run(self, script: Script, accepted: socket.socket) -> None:
        """Run a script, in the connection's thread."""
        with accepted:
            accepted.settimeout(_PATIENCE)
            try:
                script(Connection(accepted))
            except ConnectionError:
                """The client may leave when it likes."""
            except Exception as error:  # noqa: BLE001  # raised in the test's own thread
                self._errors.append(error)

    def check(self) -> None:
        """Raise what went wrong in a script."""
        if self._errors:
            raise self._errors[0]


@contextmanager
def scripted_server(script: Script) -> Iterator[ScriptedServer]:
    """Run a script for each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ScriptedServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
        threads: list[threading.Thread] = []

        def accept() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                server.connections += 1
                thread = threading.Thread(target=server.run, args=(script, accepted), daemon=True)
                thread.start()
                threads.append(thread)

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield server
        finally:
            # Ends the wait for a connection; closing alone would not.
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for thread in threads:
                thread.join()
    server.check()


def content_length(head: bytes) -> int:
    """How long the body of a request with this head is."""
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0


# What servers say


def head(status: str, *headers: str) -> bytes:
    """The head of an answer."""
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode()


def answer(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    """A whole answer."""
    length = f"content-length: {len(body)}"
    return head(status, f"content-type: {content_type}", length) + body


def chunked(*pieces: bytes) -> bytes:
    """Pieces of a chunked body, without its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def session(*messages: bytes, end: bool = True) -> bytes:
    """The answer to a session, with these bytes in it; without `end` it breaks off."""
    start = head("200 OK", "content-type: s2s/proto", "transfer-encoding: chunked")
    return start + chunked(*messages) + (b"0\r\n\r\n" if end else b"")


def message(body: bytes) -> bytes:
    """A message of a session."""
    return b"".join(encode_message(body))


def terminal(status: int, body: bytes) -> bytes:
    """The message that ends a session."""
    return encode_terminal(status, body)
