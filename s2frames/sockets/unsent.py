"""How many bytes the kernel holds for a socket, beyond what is on the line."""

from __future__ import annotations

import socket

from s2frames.sockets.options import HasOptions

__all__ = ["UNSENT_BYTES", "bound_unsent"]

#: Bytes that the kernel takes beyond what it has sent. It would take 4 MiB (Linux's tcp_wmem), so
#: that a line which is dead or slow looks as if it were fast for as long as those last. Appending
#: over loopback and over a line of 80 ms is as fast as without a bound, and takes no more processor
#: time.
UNSENT_BYTES = 128 * 1024

# Linux and macOS have it.
_OPTION: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)


def bound_unsent(tcp: HasOptions) -> None:
    """Let the kernel hold little that is not sent yet, where it can be told so."""
    if _OPTION is None:
        return
    try:
        tcp.setsockopt(socket.IPPROTO_TCP, _OPTION, UNSENT_BYTES)
    except OSError:
        """It is not TCP, or the system has only the name of it: deadlines allow for that."""
