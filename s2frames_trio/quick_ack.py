"""TCP's quick acks for a stream of trio's, where the system has them."""

from __future__ import annotations

from collections.abc import Callable

import trio

from s2frames.system.socket_options import quick_acks as quick_acks_of
from s2frames_trio.tls import TlsStream

__all__ = ["quick_acks"]


def quick_acks(stream: trio.abc.Stream) -> Callable[[], None]:
    """What to call after each receive from `stream`."""
    while isinstance(stream, TlsStream | trio.SSLStream):
        stream = stream.transport_stream
    return quick_acks_of(stream.socket) if isinstance(stream, trio.SocketStream) else _nothing


def _nothing() -> None:
    """There is no socket."""
