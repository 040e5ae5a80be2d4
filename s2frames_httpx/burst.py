"""A burst: one request with many batches in its body, as httpx can send it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import httpx
from attrs import field, frozen

from s2frames.http import Request
from s2frames.options import AppendOptions
from s2frames.records import MAX_BATCH_BYTES
from s2frames.session import Action, OpenRequest, SendData
from s2frames.settings import AppendSettings

__all__ = ["Burst", "BurstOptions", "burst_settings"]

# Batches sent before the first ack is read. On a plain loopback connection 1 batch a request made
# 48 MiB/s, 64 made 275 and 200 made 445.
_DEFAULT_BURST_BATCHES = 64

# Metered bytes of a burst, which memory holds until it is durable, and the queue as many again.
_DEFAULT_BURST_BYTES = 32 * MAX_BATCH_BYTES

# Seconds that a burst gathers messages: some times what the request takes, since nothing else is
# sent meanwhile.
_DEFAULT_LINGER = 0.05

# httpx copies a piece once to frame it, and the rest of it each time the socket takes a part: small
# pieces cost system calls, large ones copies. Measured with 1 MB messages: 128 to 512 KiB took
# 0.9 s of processor time a GB, 64 KiB took 1.1 s.
_PIECE_BYTES = 256 * 1024


class BurstOptions(AppendOptions, total=False):
    """Options of `append_session` with httpx."""

    #: Batches in a burst at most; 1 makes every batch a request of its own, for intermediaries
    #: that dislike an answer before the request is complete.
    burst_batches: int


def burst_settings(options: BurstOptions) -> AppendSettings:
    """The settings of a session that sends bursts."""
    batches = options.get("burst_batches", _DEFAULT_BURST_BATCHES)
    settings: BurstOptions = {
        "burst_batches": batches,
        "max_inflight_batches": batches,
        "max_inflight_bytes": _DEFAULT_BURST_BYTES,
        "linger": _DEFAULT_LINGER,
    }
    settings.update(options)
    return AppendSettings(**settings)


@frozen
class Burst:
    """A request and its whole body."""

    request_id: int
    request: Request
    _buffers: list[bytes] = field(repr=False)

    @classmethod
    def collect(cls, actions: Iterable[Action]) -> Burst | None:
        """The burst that a session asks for, if it asks for one."""
        opened: OpenRequest | None = None
        buffers: list[bytes] = []
        for action in actions:
            if isinstance(action, OpenRequest):
                opened = action
            elif isinstance(action, SendData):
                buffers += action.data
        return None if opened is None else cls(opened.request_id, opened.request, buffers)

    def headers(self) -> dict[str, str]:
        """The request's headers. With the length told, httpx puts nothing around the pieces."""
        return {**self.request.headers, "content-length": str(sum(map(len, self._buffers)))}

    def body(self, accepted: Callable[[int], None]) -> Iterator[bytes]:
        """The body piece by piece; `accepted` is told of each when the next one is asked for."""
        for piece in _pieces(self._buffers):
            yield piece
            accepted(len(piece))

    def async_body(self, accepted: Callable[[int], None]) -> httpx.AsyncByteStream:
        """As `body`."""
        return _AsyncBody(self.body(accepted))


class _AsyncBody(httpx.AsyncByteStream):
    """Pieces of a body that are there already.

    No generator: one that httpx leaves before its end is a ResourceWarning on trio.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            raise StopAsyncIteration from None


def _pieces(buffers: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of one size: small buffers joined, large ones cut."""
    parts: list[bytes | memoryview] = []
    size = 0
    for buffer in buffers:
        view = memoryview(buffer)
        while size + len(view) >= _PIECE_BYTES:
            room = _PIECE_BYTES - size
            parts.append(view[:room])
            yield b"".join(parts)
            parts, size, view = [], 0, view[room:]
        if view:
            parts.append(view)
            size += len(view)
    if parts:
        yield b"".join(parts)
