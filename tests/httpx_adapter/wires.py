"""What tests of the network share: requests in every flavour, servers in TLS, deaf addresses."""

from __future__ import annotations

import inspect
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import anyio
import anyio.to_thread
import httpx

from s2frames_httpx.outgoing import Body
from scenes import Flavour
from scripted_server import Connection, Script, answer

__all__ = [
    "OK",
    "deaf_address",
    "fetch",
    "in_tls",
    "request_of",
    "resolving_to",
    "soon",
    "wait_for",
]

#: An answer to any request.
OK = answer("200 OK", b"{}")

# Seconds; a hang becomes a failure.
_PATIENCE = 60


async def fetch(client: Any, url: str, content: bytes | None = None) -> httpx.Response:
    """Make a request with the httpx client underneath one of ours, of whatever flavour."""
    response: httpx.Response = await soon(client.http.send(request_of(client, url, content)))
    return response


def request_of(client: Any, url: str, content: bytes | None = None) -> httpx.Request:
    """A request, with a body that may be left before its end."""
    if content is None:
        return cast("httpx.Request", client.http.build_request("GET", url))
    headers = {"content-length": str(len(content))}
    request: httpx.Request = client.http.build_request("POST", url, headers=headers)
    request.stream = Body(iter([content]))
    return request


async def soon(result: Any) -> Any:
    """What an asynchronous client gives once it is awaited, a synchronous one at once."""
    return await result if inspect.isawaitable(result) else result


async def wait_for(flavour: Flavour, event: threading.Event) -> None:
    """Wait for an event of a server's thread."""
    if not flavour.is_async:
        assert event.wait(_PATIENCE)
    else:
        wait = partial(event.wait, _PATIENCE)
        assert await anyio.to_thread.run_sync(wait, abandon_on_cancel=True)


def in_tls(context: ssl.SSLContext, script: Script) -> Script:
    """The script over TLS. A client that leaves, or does not like the server, is no failure."""

    def run(connection: Connection) -> None:
        try:
            accepted = connection._socket
            with context.wrap_socket(accepted, server_side=True) as secured:
                script(Connection(secured))
        except ssl.SSLError as error:
            raise ConnectionAbortedError from error

    return run


@contextmanager
def deaf_address() -> Iterator[tuple[str, int]]:
    """An address where no attempt to connect is ever answered: its queue is full.

    On Linux; elsewhere systems refuse, or answer for the server.
    """
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        name: tuple[str, int] = listener.getsockname()
        first.connect(name)
        second.setblocking(False)
        second.connect_ex(name)
        yield name


def resolving_to(*names: tuple[str, int]) -> Callable[..., list[tuple[Any, ...]]]:
    """A getaddrinfo that takes every host for one with these addresses."""

    def getaddrinfo(*_args: Any, flags: int = 0, **_options: Any) -> list[tuple[Any, ...]]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", name) for name in names]

    return getaddrinfo
