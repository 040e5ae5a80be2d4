"""What a machine asks for, as httpx can do it: a request whose whole body is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator

import httpx
from attrs import define, field

from s2frames.session import Action, CloseRequest, OpenRequest, SendData
from s2frames.writes import Writes

__all__ = ["Asked", "Body", "Outgoing"]

# Requests of these kinds have a body, though it may be empty (RFC 9110, 8.6).
_WITH_BODY = frozenset(("PATCH", "POST", "PUT"))


@define
class Outgoing:
    """A request and its body."""

    opened: OpenRequest
    _buffers: list[bytes] = field(repr=False)

    @classmethod
    def begin(cls, opened: OpenRequest) -> Outgoing:
        """A request as it is opened; more of its body may follow."""
        body = opened.request.body
        return cls(opened, [body] if body else [])

    def extend(self, data: Iterable[bytes]) -> None:
        """Take more of the body."""
        self._buffers += data

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self._buffers))

    def headers(self) -> dict[str, str]:
        """The request's headers. With the length told, httpx puts nothing around the pieces."""
        headers = dict(self.opened.request.headers)
        size = self.size
        if size or self.opened.request.method in _WITH_BODY:
            headers["content-length"] = str(size)
        if self.opened.on_new_connection:
            # httpx cannot be told to make one. A connection from before ends with this request.
            headers["connection"] = "close"
        return headers

    def pieces(self, writes: Writes) -> Iterator[bytes]:
        """The body in pieces as large as `writes` are: small buffers joined, large ones cut.

        httpx copies a piece once to frame it, and the rest of it each time the socket takes a part:
        small pieces cost system calls, large ones copies.
        """
        parts: list[bytes | memoryview] = []
        size = 0
        for buffer in self._buffers:
            view = memoryview(buffer)
            while size + len(view) >= writes.size:
                room = max(0, writes.size - size)
                parts.append(view[:room])
                yield b"".join(parts)
                parts, size, view = [], 0, view[room:]
            if view:
                parts.append(view)
                size += len(view)
        if parts:
            yield b"".join(parts)


@define
class Asked:
    """What is to be done now: close what is open, then open another request."""

    closes: bool = False
    request: Outgoing | None = None

    @classmethod
    def collect(cls, actions: Iterable[Action]) -> Asked:
        """What `actions` amount to. A body comes with its request, never later."""
        asked = cls()
        for action in actions:
            if isinstance(action, OpenRequest):
                asked.request = Outgoing.begin(action)
            elif isinstance(action, CloseRequest):
                asked.closes, asked.request = True, None
            elif isinstance(action, SendData) and asked.request is not None:
                asked.request.extend(action.data)
        return asked


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Pieces of a body that are there already.

    No generator: one that httpx leaves before its end is a ResourceWarning on trio.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            raise StopAsyncIteration from None
