"""Servers on loopback for the tests: the embedded service, and one that always answers the same.

They have a port of their own, and are gone, threads included, when the block is left. They speak
HTTP/1.1; `served_service` and a `LiveService` that is told so speak HTTP/2 too.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from logging.handlers import BufferingHandler
from typing import Any

import trio
from attrs import define, field

from s2frames.embedded import Exchange, ResponseHead, Service
from s2frames.embedded.serving import serving

__all__ = ["LiveService", "canned_service", "live_service", "refused_url", "served_service"]

# As much of a request's body as is handed on at once.
_PIECE_BYTES = 64 * 1024


@contextmanager
def live_service(service: Service | None = None) -> Iterator[str]:
    """Serve the embedded service; gives its URL. By default it is a new one, in memory.

    As with `s2 lite`, the answer to a session begins before the request is complete.
    """
    host = _Host(Service(random=lambda: 0.5) if service is None else service)
    with _serving(_handler(host)) as url:
        try:
            yield url
        finally:
            host.close()


@contextmanager
def served_service(service: Service | None = None, port: int = 0) -> Iterator[str]:
    """Serve the embedded service as `s2frames serve` does, in a thread; gives its URL.

    No connection may fail in a way that is only logged.
    """
    service = Service(random=lambda: 0.5) if service is None else service
    started: Future[tuple[str, Callable[[], object]]] = Future()

    async def serve() -> None:
        async with serving(service, port=port) as url:
            stopped, token = trio.Event(), trio.lowlevel.current_trio_token()
            started.set_result((url, lambda: token.run_sync_soon(stopped.set)))
            await stopped.wait()

    def run() -> None:
        try:
            trio.run(serve)
        except BaseException as error:  # noqa: BLE001  # raised where the thread was started
            started.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    with _logged("s2frames.embedded") as records:
        thread.start()
        try:
            url, stop = started.result()
            try:
                yield url
            finally:
                stop()
        finally:
            thread.join()
    assert not records, [record.exc_info for record in records]


@contextmanager
def _logged(name: str) -> Iterator[list[logging.LogRecord]]:
    """What a logger is told meanwhile."""
    handler = BufferingHandler(sys.maxsize)
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield handler.buffer
    finally:
        logger.removeHandler(handler)


class LiveService:
    """The embedded service on a port of its own, where it can be gone for a while.

    Use it in a `with` block. It keeps what it stores, and the port.
    """

    def __init__(self, *, speaks_http2: bool = False) -> None:
        self._speaks_http2 = speaks_http2
        self._service = Service(random=lambda: 0.5)
        self._running = ExitStack()
        # Keeps the port while nobody listens on it: connections are refused.
        self._port = _reserve(0)
        self._address = self._port.getsockname()
        self._back: threading.Timer | None = None

    @property
    def url(self) -> str:
        """Where it is, or will be again."""
        return f"http://127.0.0.1:{self._address[1]}"

    def start(self) -> None:
        """Listen."""
        self._port.close()
        if self._speaks_http2:
            self._running.enter_context(served_service(self._service, self._address[1]))
            return
        host = _Host(self._service)
        self._running.enter_context(_serving(_handler(host), self._address))
        self._running.callback(host.close)

    def stop(self) -> None:
        """Be gone: end every connection, and refuse new ones."""
        self._running.close()
        self._port = _reserve(self._address[1])

    def be_gone_for(self, seconds: float) -> None:
        """Be gone from now on, and back after so many seconds."""
        self.stop()
        self._back = threading.Timer(seconds, self.start)
        self._back.start()

    def __enter__(self) -> LiveService:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._back is not None:
            self._back.cancel()
            self._back.join()
        self._running.close()
        self._port.close()


def _reserve(port: int) -> socket.socket:
    """Bind a port, 0 for any, without listening on it."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", port))
    return reserved


def _handler(served: _Host) -> type[_ServiceHandler]:
    class Handler(_ServiceHandler):
        host = served

    return Handler


@contextmanager
def canned_service(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Serve one answer to every request; gives the URL."""

    class Handler(_CannedHandler):
        canned = _Canned(status, body, {"content-type": "application/json", **(headers or {})})

    with _serving(Handler) as url:
        yield url


@contextmanager
def refused_url() -> Iterator[str]:
    """A URL that refuses connections: its port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def _serving(
    handler: type[BaseHTTPRequestHandler], address: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[str]:
    with _Server(address, handler) as server:
        # Polls that often whether to stop.
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            server.hang_up()


class _Server(ThreadingHTTPServer):
    """A server whose threads end with it: closing it waits for all of them."""

    daemon_threads = False
    block_on_close = True
    # To be started again on a port where connections were ended a moment ago.
    allow_reuse_address = True
    # The default, 5, refuses a crowd of clients that connect at once.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End every connection, so that nobody waits for its next request."""
        with self._lock:
            for connection in self._connections:
                with _ignoring_lost_connection():
                    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def _ignoring_lost_connection() -> Iterator[None]:
    try:
        yield
    except OSError:
        # The client has left: there is nobody to tell.
        return


class _Handler(BaseHTTPRequestHandler):
    """What the handlers share: the request's body, and silence."""

    protocol_version = "HTTP/1.1"
    # Acks are small, and the next request waits for them.
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with _ignoring_lost_connection():
            super().handle()

    def finish(self) -> None:
        with _ignoring_lost_connection():
            super().finish()

    def answer(self) -> None:
        raise NotImplementedError

    # The base class calls a method named after the request's.

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def do_PATCH(self) -> None:
        self.answer()

    def do_DELETE(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""

    def body(self) -> Iterator[bytes]:
        """The request's body, in pieces."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                """Trailers are of no interest."""
            return
        left = int(self.headers.get("content-length", 0))
        while left:
            piece = self.rfile.read(min(left, _PIECE_BYTES))
            if not piece:
                raise ConnectionResetError("the body ended too early")
            left -= len(piece)
            yield piece


# The embedded service


@define(eq=False)
class _Host:
    """A service, and what guards it: it takes one call at a time."""

    service: Service
    #: Held for each call; notified when an exchange may have output.
    changed: threading.Condition = field(factory=threading.Condition)
    is_closed: bool = False

    def wake(self) -> None:
        """An exchange has output because of another one. The lock is held."""
        self.changed.notify_all()

    def close(self) -> None:
        """End those who wait."""
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()

    def wait(self, exchange: Exchange) -> None:
        """Wait until something happened or the exchange's time has come. The lock is held."""
        if self.is_closed:
            raise ConnectionResetError("the service is closed")
        deadline = exchange.next_timeout()
        self.changed.wait(None if deadline is None else max(0.0, deadline - time.time()))
        exchange.handle_timeout(time.time())


class _ServiceHandler(_Handler):
    """Moves bytes between a connection and an exchange."""

    host: _Host
    _exchange: Exchange
    _head_is_sent: bool
    _is_chunked: bool

    def answer(self) -> None:
        host = self.host
        self._head_is_sent = self._is_chunked = False
        with host.changed:
            self._exchange = host.service.open(
                self.command, self.path, list(self.headers.items()), time.time(), host.wake
            )
        try:
            self._receive()
            self._send_rest()
        finally:
            with host.changed:
                self._exchange.connection_lost(time.time())

    def _receive(self) -> None:
        """Take in the request's body, and send what it brings about meanwhile."""
        for piece in self.body():
            with self.host.changed:
                self._exchange.receive_data(piece, time.time())
                output = self._exchange.data_to_send()
            self._send(output)
        with self.host.changed:
            self._exchange.receive_eof(time.time())

    def _send_rest(self) -> None:
        while (output := self._next_output()) is not None:
            self._send(output)
        self._send([])
        if self._is_chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _next_output(self) -> list[bytes] | None:
        """What comes next, nothing but the head at first; None when the answer is complete."""
        exchange = self._exchange
        with self.host.changed:
            exchange.handle_timeout(time.time())
            while not (output := exchange.data_to_send()):
                if exchange.finished:
                    return None
                if exchange.response is not None and not self._head_is_sent:
                    break
                self.host.wait(exchange)
            return output

    def _send(self, output: list[bytes]) -> None:
        head = self._exchange.response
        if head is not None and not self._head_is_sent:
            self._send_head(head)
        if output:
            data = b"".join(output)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def _send_head(self, head: ResponseHead) -> None:
        self._head_is_sent = True
        self._is_chunked = "content-length" not in dict(head.headers)
        self.send_response(head.status)
        for name, value in head.headers:
            self.send_header(name, value)
        if self._is_chunked:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()


# Canned answers


@define
class _Canned:
    status: int
    body: bytes
    headers: Mapping[str, str]


class _CannedHandler(_Handler):
    """Answers always the same."""

    canned: _Canned

    def answer(self) -> None:
        for _ in self.body():
            """The whole request comes before the answer."""
        canned = self.canned
        self.send_response(canned.status, _phrase(canned.status))
        for name, value in canned.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(canned.body)))
        self.end_headers()
        self.wfile.write(canned.body)


def _phrase(status: int) -> str:
    return next((known.phrase for known in HTTPStatus if known == status), "Unknown")
