"""The embedded service as an ASGI app, for any ASGI server on asyncio or trio.

A request is two tasks: one takes in its body, one sends what comes of it. So the acks of an append
session go out while its body still comes in, as far as the server allows that.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Any, TypeAlias

try:
    import anyio
    import anyio.lowlevel
except ImportError as error:
    raise ImportError(
        "s2frames.embedded.asgi needs an extra: pip install 's2frames[serve]'"
    ) from error

from s2frames.embedded.exchange import Exchange, ResponseHead
from s2frames.embedded.service import Service

__all__ = ["App", "Receive", "Scope", "Send", "make_app"]

Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# Bytes of a body handed to the server at once: it may hold as much for each request.
_PIECE_BYTES = 64 * 1024


def make_app(service: Service) -> App:
    """The service as an ASGI app. It belongs to the loop that runs the app, and to nobody else."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Request(service, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await send({"type": "websocket.close"})

    return app


async def _live(receive: Receive, send: Send) -> None:
    message = await receive()
    await send({"type": f"{message['type']}.complete"})
    if message["type"] == "lifespan.startup":
        await _live(receive, send)


class _Request:
    """One request, from its head to the end of its answer."""

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        # Over HTTP/1.1 a client that still sends may not see an answer after which the connection
        # is closed, and it would have to be. So the end of the answer waits for the request's.
        self._must_wait_for_end = scope["http_version"] < "2"
        self._happened = anyio.Event()
        # Set unless output may wait to be sent that came of the body's last piece.
        self._is_drained = anyio.Event()
        self._is_drained.set()
        self._has_ended = anyio.Event()
        self._is_lost = False
        self._exchange: Exchange = service.open(
            scope["method"], _target(scope), _headers(scope), time.time(), self._wake
        )

    async def run(self) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._receive_body, tasks.cancel_scope)
                await self._answer()
                tasks.cancel_scope.cancel()
        finally:
            self._exchange.connection_lost(time.time())

    def _wake(self) -> None:
        self._happened.set()

    async def _receive_body(self, request: anyio.CancelScope) -> None:
        """Take in the body, not faster than its answers go out, until the client leaves."""
        while (message := await self._receive())["type"] == "http.request":
            if body := message.get("body"):
                if not self._exchange.finished:
                    await self._is_drained.wait()
                    self._is_drained = anyio.Event()
                self._exchange.receive_data(bytes(body), time.time())
            if not message.get("more_body"):
                self._exchange.receive_eof(time.time())
                self._has_ended.set()
            self._wake()
        self._is_lost = True
        self._exchange.connection_lost(time.time())
        request.cancel()

    async def _answer(self) -> None:
        head = None
        while (pieces := await self._next_output(is_head_sent=head is not None)) is not None:
            if head is None and (head := self._exchange.response) is not None:
                await self._send(_start(head))
            output = b"".join(pieces)
            for at in range(0, len(output), _PIECE_BYTES):
                await self._send_body(output[at : at + _PIECE_BYTES], more=True)
        if self._is_lost:
            # The exchange is finished, and its answer is not: there may not even be a head.
            return
        self._is_drained.set()
        if self._must_wait_for_end:
            await self._has_ended.wait()
        await self._send_body(b"", more=False)

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _next_output(self, *, is_head_sent: bool) -> list[bytes] | None:
        """What comes next, nothing but the head at first; None when the answer is complete."""
        exchange = self._exchange
        # Also where nothing has to be waited for: one request must not starve the others.
        await anyio.lowlevel.checkpoint()
        while True:
            exchange.handle_timeout(time.time())
            if pieces := exchange.data_to_send():
                return pieces
            if exchange.response is not None and not is_head_sent:
                return []
            if exchange.finished:
                return None
            self._is_drained.set()
            await self._wait()

    async def _wait(self) -> None:
        deadline = self._exchange.next_timeout()
        with anyio.move_on_after(inf if deadline is None else deadline - time.time()):
            await self._happened.wait()
        self._happened = anyio.Event()


def _start(head: ResponseHead) -> dict[str, Any]:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers]
    return {"type": "http.response.start", "status": head.status, "headers": headers}


def _target(scope: Scope) -> str:
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")


def _headers(scope: Scope) -> list[tuple[str, str]]:
    return [
        (name.decode("latin-1").lower(), value.decode("latin-1"))
        for name, value in scope["headers"]
    ]
