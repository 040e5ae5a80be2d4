"""HTTP as it travels: any method, path and header, and a body that goes on while the answer comes.

Each exchange has a connection of its own, so that none is troubled by the end of another.
"""

from __future__ import annotations

import enum
import json
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import h2.config
import h2.connection
import h2.events
import h11
from attrs import frozen

__all__ = ["Address", "Exchange", "Http", "Reply"]

# Seconds until a silent server is a failure. Heartbeats come every 5 to 15 s.
_PATIENCE = 60
_READ_BYTES = 64 * 1024


class Http(enum.Enum):
    """A version, with the name that TLS negotiates."""

    HTTP1 = "http/1.1"
    HTTP2 = "h2"


@frozen
class Reply:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Status and error code of an error with a message."""
        error = self.json
        assert set(error) == {"code", "message"}, error
        assert error["message"], error
        assert self.headers["content-type"] == "application/json"
        return self.status, error["code"]


class Exchange(ABC):
    """A request and its response."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._head: tuple[int, dict[str, str]] | None = None

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Send a piece of the body; a server that has answered may not take it."""

    @abstractmethod
    def send_eof(self) -> None:
        """End the body."""

    def receive_head(self) -> tuple[int, dict[str, str]]:
        """Status and headers."""
        while self._head is None:
            self._receive_event()
        return self._head

    @abstractmethod
    def receive(self) -> bytes:
        """The next piece of the response's body; empty at its end."""

    @abstractmethod
    def _receive_event(self) -> None:
        """Take in what comes next; at first the head."""

    def receive_all(self) -> Reply:
        """The response, from where it was received to so far."""
        status, headers = self.receive_head()
        return Reply(status, headers, b"".join(iter(self.receive, b"")))

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def _send_bytes(self, data: bytes) -> bool:
        try:
            self._socket.sendall(data)
        except ConnectionError:
            # It has answered and hung up: the answer can still be read.
            return False
        return True


@frozen
class Address:
    """Where a server listens, and what to speak there."""

    port: int
    http: Http
    #: What trusts the server, if it speaks TLS.
    tls: ssl.SSLContext | None = None

    def open(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Exchange:
        """Start a request, with its whole body unless that is None."""
        connection = self._connect()
        kind = _Http1 if self.http is Http.HTTP1 else _Http2
        exchange = kind(connection, method, target, headers, None if body is None else len(body))
        if body is not None:
            exchange.send(body)
            exchange.send_eof()
        return exchange

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Reply:
        """A whole request and its whole response."""
        with self.open(method, target, headers, body) as exchange:
            return exchange.receive_all()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), _PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is None:
            return connection
        secure = self.tls.wrap_socket(connection, server_hostname="127.0.0.1")
        assert secure.selected_alpn_protocol() == self.http.value
        return secure


class _Http1(Exchange):
    def __init__(
        self,
        connection: socket.socket,
        method: str,
        target: str,
        headers: Mapping[str, str],
        size: int | None,
    ) -> None:
        super().__init__(connection)
        self._h11 = h11.Connection(h11.CLIENT)
        framing = {"transfer-encoding": "chunked"} if size is None else {}
        if size or (size == 0 and method not in ("GET", "HEAD", "DELETE")):
            framing = {"content-length": str(size)}
        fields = {"host": "127.0.0.1", **headers, **framing}
        request = h11.Request(method=method, target=target, headers=list(fields.items()))
        self._send_event(request)

    def send(self, data: bytes) -> None:
        if data:
            self._send_event(h11.Data(data))

    def send_eof(self) -> None:
        self._send_event(h11.EndOfMessage())

    def receive(self) -> bytes:
        self.receive_head()
        event = self._next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event
        return b""

    def _receive_event(self) -> None:
        response = self._next_event()
        assert isinstance(response, h11.Response), response
        fields = {name.decode(): value.decode() for name, value in response.headers}
        self._head = response.status_code, fields

    def _send_event(self, event: h11.Event) -> None:
        if self._h11.our_state is h11.ERROR:
            return
        if not self._send_bytes(self._h11.send(event) or b""):
            self._h11.send_failed()

    def _next_event(self) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(self._socket.recv(_READ_BYTES))
        return event


class _Http2(Exchange):
    _ID = 1

    def __init__(
        self,
        connection: socket.socket,
        method: str,
        target: str,
        headers: Mapping[str, str],
        _size: int | None,
    ) -> None:
        super().__init__(connection)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        scheme = "https" if isinstance(connection, ssl.SSLSocket) else "http"
        pseudo = {":method": method, ":path": target, ":scheme": scheme, ":authority": "127.0.0.1"}
        self._h2.send_headers(self._ID, [*pseudo.items(), *headers.items()])
        self._body: list[bytes] = []
        self._ended = False
        self._flush()

    def send(self, data: bytes) -> None:
        while data and not self._ended:
            room = min(
                self._h2.local_flow_control_window(self._ID), self._h2.max_outbound_frame_size
            )
            if not room:
                self._receive_event()
                continue
            self._h2.send_data(self._ID, data[:room])
            data = data[room:]
            self._flush()

    def send_eof(self) -> None:
        if not self._ended:
            self._h2.end_stream(self._ID)
            self._flush()

    def receive(self) -> bytes:
        while not self._body and not self._ended:
            self._receive_event()
        return self._body.pop(0) if self._body else b""

    def _receive_event(self) -> None:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the server hung up before the end of its answer")
        for event in self._h2.receive_data(data):
            self._handle(event)
        self._flush()

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            fields = {str(name): str(value) for name, value in event.headers or ()}
            self._head = int(fields.pop(":status")), fields
        elif isinstance(event, h2.events.DataReceived):
            self._body.append(event.data or b"")
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, self._ID)
        elif isinstance(event, h2.events.StreamEnded):
            self._ended = True
        elif isinstance(event, h2.events.StreamReset) and not self._ended:
            raise ConnectionResetError(f"the server reset the stream: {event.error_code}")

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._send_bytes(data)
