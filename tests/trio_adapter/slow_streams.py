"""Transports over lines of a rate, with a buffer before them, on trio's clock."""

from __future__ import annotations

from collections import deque

import trio
import trio.testing
from attrs import define, field

__all__ = ["SlowStream", "slow_pair"]

# Seconds that a piece takes which moves at once.
_PIECE_SECONDS = 0.1


@define(eq=False)
class SlowStream(trio.abc.Stream):
    """One end of a connection: what it sends goes into a buffer, and over a line from there."""

    inner: trio.abc.Stream
    #: Bytes a second.
    rate: float
    #: Bytes that are taken before they are across.
    buffer: int = 0
    #: When the line carries nothing any more.
    stops_at: float = float("inf")
    # What is on the line, and when it is across.
    _under_way: deque[tuple[float, bytes]] = field(factory=deque)
    _across_at: float = 0.0
    _has_more: trio.Event = field(factory=trio.Event)

    async def carry(self) -> None:
        """Bring to the other end what is across."""
        while True:
            while self._under_way:
                across_at, piece = self._under_way.popleft()
                await trio.sleep_until(across_at)
                try:
                    await self.inner.send_all(piece)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
            self._has_more = trio.Event()
            await self._has_more.wait()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Wait until the buffer has all of it."""
        await trio.lowlevel.checkpoint()
        size = int(self.rate * _PIECE_SECONDS)
        for start in range(0, len(data), size):
            piece = bytes(data[start : start + size])
            self._across_at = max(self._across_at, trio.current_time()) + len(piece) / self.rate
            if self._across_at > self.stops_at:
                await trio.sleep_forever()
            self._under_way.append((self._across_at, piece))
            self._has_more.set()
            await trio.sleep_until(self._across_at - self.buffer / self.rate)

    async def wait_send_all_might_not_block(self) -> None:
        """Whether it blocks is seen then."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What the other end's line has brought."""
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close both directions, without what is under way."""
        self._under_way.clear()
        await self.inner.aclose()


def slow_pair(
    nursery: trio.Nursery,
    up: float,
    down: float,
    *,
    buffer: int = 0,
    stops_at: float = float("inf"),
) -> tuple[SlowStream, SlowStream]:
    """A client's and a server's end, `up` and `down` bytes a second."""
    ours, theirs = trio.testing.memory_stream_pair()
    ends = SlowStream(ours, up, buffer, stops_at), SlowStream(theirs, down, buffer)
    for end in ends:
        nursery.start_soon(end.carry)
    return ends
