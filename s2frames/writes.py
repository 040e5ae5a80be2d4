"""How much to write to a connection at once, and when an answer to what was written can come.

A write is told of when the transport has taken all of it, and what comes after has to wait for
that. So on a slow line writes are small, and on a fast one they are large, since each costs the
same. They grow from the smallest on, each by as much as was written before: however much a buffer
takes at once, a write is never much larger than what went into it.
"""

from __future__ import annotations

from attrs import define, field

from s2frames.pace import MAX_HELD_BYTES, MIN_RATE, Pace

__all__ = ["MAX_WRITE_BYTES", "MIN_WRITE_BYTES", "Writes"]

#: Bytes of the smallest write: the slowest line takes a second for them.
MIN_WRITE_BYTES = 16 * 1024

#: Bytes of the largest write. Larger ones gain nothing: of 1 MB messages over HTTP/1.1, 128 to 512
#: KiB took 0.9 s of processor time a GB, 64 KiB took 1.1 s.
MAX_WRITE_BYTES = 256 * 1024

# Seconds that a write may take without the next one being smaller.
_WRITE_SECONDS = 0.25


@define(eq=False)
class Writes:
    """The writes to a connection, one after the other."""

    #: Bytes of the next one, at most.
    size: int = MIN_WRITE_BYTES
    _num_begun: int = 0
    _began_at: float = 0.0
    # By when all that was written is across the line, at the least rate that one has.
    _across_by: float = 0.0
    # Of what was written, bodies: the peer claims more of them when it has taken some.
    _bodies: Pace = field(factory=Pace)
    _body_bytes: int = 0
    # Which write holds what is to be answered, and from when on the answer can come.
    _asking: int = 0
    _answered_from: float = 0.0

    def begin(self, now: float, *, body_bytes: int = 0, unclaimed: int = 0) -> None:
        """A write begins, with so many bytes of bodies.

        Of those before all but `unclaimed` are known to be across.
        """
        self._num_begun += 1
        self._began_at = now
        self._note_claims(unclaimed, now)
        self._body_bytes = body_bytes
        self._bodies.give(body_bytes, now)

    def end(self, num_bytes: int, now: float) -> None:
        """The transport has taken the bytes of the write."""
        self._bodies.take(self._body_bytes, now)
        seconds = now - self._began_at
        if num_bytes * _WRITE_SECONDS < self.size * seconds:
            self.size = max(MIN_WRITE_BYTES, int(num_bytes * _WRITE_SECONDS / seconds))
        elif num_bytes >= self.size:
            self.size = min(MAX_WRITE_BYTES, 2 * self.size)
        if self._num_begun == self._asking:
            # It comes first in its write.
            self._answered_from = max(now, self._across_by)
        crossing = max(self._across_by, self._began_at) + num_bytes / MIN_RATE
        self._across_by = max(now, min(crossing, now + MAX_HELD_BYTES / MIN_RATE))
        if self._num_begun < self._asking:
            self._answered_from = self._across_by

    def ask(self, now: float, unclaimed: int) -> None:
        """The next write holds what is to be answered.

        Of what was written before, all but `unclaimed` bytes of bodies are known to be across.
        """
        self._asking = self._num_begun + 1
        self._note_claims(unclaimed, now)
        self._across_by = now + self.seconds_behind(0, now)
        self._answered_from = self._across_by

    def seconds_behind(self, num_bytes: int, now: float) -> float:
        """In how many seconds what was written is across, but for `num_bytes` of who asks."""
        held = min(self._bodies.held_bytes, int((self._across_by - now) * MIN_RATE))
        return max(0, held - num_bytes) / self._bodies.rate

    def _note_claims(self, unclaimed: int, now: float) -> None:
        end = self._bodies.taken - unclaimed
        if end > self._bodies.acked:
            self._bodies.ack(end, now)

    @property
    def answered_from(self) -> float:
        """From when on an answer can come: what was written before the question crosses first.

        As long as the question waits to be written, when the next write can be done.
        """
        return self._answered_from
