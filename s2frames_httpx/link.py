"""One socket of a transport, which others than its user may have to let go of."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from contextlib import suppress
from typing import Any

from s2frames.system.process import THIS_PROCESS
from s2frames.system.socket_options import bound_unsent

__all__ = ["CLOSED", "Link", "check_connected", "open_socket", "stream_info"]

#: What is said of a connection that this side has closed.
CLOSED = "the connection was closed"


def open_socket(family: int) -> socket.socket:
    """A TCP socket that does not block, sends at once what it is given and holds little of it."""
    tcp = socket.socket(family, socket.SOCK_STREAM)
    try:
        tcp.setblocking(False)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound_unsent(tcp)
    except BaseException:
        tcp.close()
        raise
    return tcp


def check_connected(tcp: socket.socket) -> None:
    """Raise the OSError in which an attempt to connect has ended, if it has failed."""
    code = tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


class Link:
    """A socket, for one thread at a time; any thread, and a child process, may close it.

    There is no lock: a fork may find one taken, and so may a finalizer. Who enters says so first
    and looks then whether it is closed; who closes says so first and looks then whether somebody
    is in it. So one of the two sees the other, and the descriptor is closed once nobody waits on
    it: else another file could have its number meanwhile.

    Args:
        tcp: the socket.
        links: where the link is while it is open.
    """

    def __init__(self, tcp: socket.socket, links: set[Link]) -> None:
        self.socket = tcp
        self.is_closed = False
        self._pid = THIS_PROCESS.number
        self._user: int | None = None
        self._links = links
        links.add(self)

    def enter(self) -> None:
        """Begin to use it. Raises an OSError when it is closed. Leave it in any case."""
        self._user = threading.get_ident()
        if self.is_closed:
            raise OSError(CLOSED)

    def leave(self) -> None:
        """Stop using it."""
        self._user = None
        if self.is_closed:
            self.close()

    def close(self) -> None:
        """Close it: at once if nobody else uses it, else who does is woken and closes it."""
        self.is_closed = True
        if THIS_PROCESS.number == self._pid and self._user not in (None, threading.get_ident()):
            # Where there is no connection yet, there is nothing to shut down.
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        else:
            # In a child process this is a copy: nothing is sent, and the parent's remains.
            self._links.discard(self)
            self.socket.close()


def stream_info(info: str, tcp: socket.socket, tls: ssl.SSLObject | None, *, is_dirty: bool) -> Any:
    """What httpcore asks a stream for; None for what there is not."""
    if info == "is_readable":
        # Of a connection that rests: then nothing may come, and it is not used again.
        return is_dirty or _is_readable(tcp)
    if info == "ssl_object":
        return tls
    return tcp if info == "socket" else None


def _is_readable(tcp: socket.socket) -> bool:
    """Whether something has arrived, or the connection has ended."""
    try:
        tcp.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        """It is closed, or has broken."""
    return True
