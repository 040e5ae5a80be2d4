"""Options of TCP sockets, where the system has them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

__all__ = ["UNSENT_BYTES", "HasOptions", "bound_unsent", "quick_acks"]

# Linux alone has it.
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)

#: Bytes that the kernel takes beyond what it has sent. It would take 4 MiB (Linux's tcp_wmem), so
#: that a line which is dead or slow looks as if it were fast for as long as those last. Appending
#: over loopback and over a line of 80 ms is as fast as without a bound, and takes no more processor
#: time.
UNSENT_BYTES = 128 * 1024

# Linux and macOS have it.
_NOT_SENT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class HasOptions(Protocol):
    """A socket, of whatever library."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """Set an option."""


def quick_acks(tcp: HasOptions) -> Callable[[], None]:
    """What to call after each receive from `tcp`, so that it is acked at once.

    A server that uses Nagle's algorithm holds a small frame back until its last one was acked, and
    a receiver that delays its acks waits up to 40 ms with them: 57 MiB/s of appends over HTTP/2
    became 268 without the delay, and 44 ms of one append over HTTP/1.1 became 6. Linux forgets the
    option again and again, so that it is set after each receive.
    """
    return _nothing if _QUICK_ACK is None else _setter(tcp, _QUICK_ACK)


def _setter(tcp: HasOptions, option: int) -> Callable[[], None]:
    def ack_quickly() -> None:
        try:
            tcp.setsockopt(socket.IPPROTO_TCP, option, 1)
        except OSError:
            """The socket is closed, or not TCP; whoever receives next hears what matters."""

    return ack_quickly


def _nothing() -> None:
    """There is nothing to set."""


def bound_unsent(tcp: HasOptions) -> None:
    """Let the kernel hold little that is not sent yet, where it can be told so."""
    if _NOT_SENT is None:
        return
    try:
        tcp.setsockopt(socket.IPPROTO_TCP, _NOT_SENT, UNSENT_BYTES)
    except OSError:
        """It is not TCP, or the system has only the name of it: deadlines allow for that."""
