"""How far a peer may be ahead of those who take what it sends (RFC 9113, 5.2).

A stream starts with a small window, which doubles while its consumer takes all that comes, so that
nobody's speed is bound by it. What a connection's streams got beyond their start is bounded, and so
is memory: 64 MiB and 512 KiB a stream, 114 MiB at the 100 streams that s2.dev allows. A consumer
that takes nothing fills its own window and holds nobody else back: the window of the connection is
credited as bytes arrive.
"""

from __future__ import annotations

from attrs import define

__all__ = ["GRANTS", "MAX_STREAM_WINDOW", "STREAM_WINDOW", "Grants", "ReceiveWindow"]

#: Bytes of a stream's window at its start, and at most.
STREAM_WINDOW = 512 * 1024
MAX_STREAM_WINDOW = 16 * 1024 * 1024

#: Bytes that the streams of a connection may be granted in all, beyond what each starts with.
GRANTS = 64 * 1024 * 1024

# Half a window that takes longer to use is large enough: the way to the peer and back is shorter.
_GROWTH_SECONDS = 1.0


@define(eq=False)
class Grants:
    """What the streams of a connection may still be granted."""

    left: int = GRANTS


@define(eq=False)
class ReceiveWindow:
    """A stream's window: what was taken, and what the peer is to be told of it."""

    _grants: Grants
    size: int = STREAM_WINDOW
    # Bytes that were taken, which the peer does not know yet.
    _taken: int = 0
    _told_at: float = float("-inf")
    _is_closed: bool = False

    def take(self, num_bytes: int, *, buffered: int, now: float) -> int:
        """Take note of bytes taken, with so many left; how many more the peer may send, often 0."""
        self._taken += num_bytes
        # As often as h2 does: seldom, yet in time for the peer never to wait.
        if self._is_closed or 2 * self._taken < self.size:
            return 0
        credit, self._taken = self._taken, 0
        if now < self._told_at + _GROWTH_SECONDS and 4 * buffered <= self.size:
            credit += self._grow()
        self._told_at = now
        return credit

    def _grow(self) -> int:
        growth = min(self.size, MAX_STREAM_WINDOW - self.size, self._grants.left)
        self._grants.left -= growth
        self.size += growth
        return growth

    def close(self) -> None:
        """Give back what was granted. Idempotent."""
        self._is_closed = True
        self._grants.left += self.size - STREAM_WINDOW
        self.size = STREAM_WINDOW
