"""How long bytes may take to cross a line: slow ones are waited for, dead ones are left.

The rules, for what is sent:

1. Every byte that the transport takes is progress, and so is every ack. While there is none, the
   line is taken for dead.
2. What was taken need not be across: buffers on this side of the line, the kernel's above all, take
   more at once than the line carries in a minute. They hold no more than what is unacked, and no
   more than `MAX_HELD_BYTES`. Until that has crossed the transport may take nothing.
3. An ack is due when its bytes can have crossed: counted from when the line began with them, which
   is when the first one was taken or when what was before them was acked.
4. A line carries `MIN_RATE` at least. One that was seen to be faster is expected to stay so, but
   for `_SLOWDOWN`; what was seen is forgotten when an attempt fails.
5. What others have sent on the same connection before crosses first; while it does, and while they
   have their turn, nothing has stopped.
6. What was seen is never more than what the line carries. Bytes have crossed when they are acked,
   or when so many were taken after them that no buffer holds them. They were under way since they
   were given to the transport, not since it took them.

For what is received, each byte is progress too; but a peer that sends one now and then would be
waited for without end, so that an answer has to come at `MIN_ANSWER_RATE` on the whole.

All of it comes on top of the time that the peer and the way there and back may take.
"""

from __future__ import annotations

from attrs import define, field

__all__ = ["MAX_HELD_BYTES", "MIN_RATE", "Pace", "answer_deadline"]

#: Bytes a second of the slowest line: 20 kB/s, of which a fifth goes into headers and into what is
#: sent again.
MIN_RATE = 16_000.0

#: Bytes a second of the slowest answer: sixteen of them may share the slowest line.
MIN_ANSWER_RATE = MIN_RATE / 16

#: Bytes that buffers before a line hold at most: the largest send buffer that Linux gives a socket
#: by itself (tcp_wmem).
MAX_HELD_BYTES = 4 * 1024 * 1024

# How many times slower than it was seen a line may become unnoticed.
_SLOWDOWN = 4.0

# Bytes that must have crossed before a line is taken for slower than it was seen: with fewer it is
# the way there and back that is seen.
_SAMPLE_BYTES = 64 * 1024

# Seconds that are measured at least: less says more of the clock than of the line.
_MIN_SECONDS = 0.001


@define(eq=False)
class Pace:
    """The pace of a request's body, and, over the requests of a session, that of its line.

    Places are counted in bytes from the start of the body.
    """

    #: Bytes given to the transport, taken by it, and acked.
    given: int = 0
    taken: int = 0
    acked: int = 0
    #: Bytes a second that were seen to cross; 0 when nothing was seen.
    seen: float = 0.0
    # Since when the transport has had the next byte to take.
    _offered_at: float = 0.0
    # Until when others' bytes may be under way that were there before the last ones taken.
    _others_until: float = 0.0
    # Since when the line may have been carrying the first byte that is not acked; None when that
    # is not taken yet.
    _carried_at: float | None = None
    _sample: _Sample = field(factory=lambda: _Sample(0.0, 0, 0))

    def begin(self) -> None:
        """A request is opened; the line is the one that it was."""
        self.given = self.taken = self.acked = 0
        self._carried_at = None

    def forget(self) -> None:
        """An attempt has failed: the next one's line may be another."""
        self.seen = 0.0

    def give(self, num_bytes: int, now: float) -> None:
        """So many bytes more are there for the transport."""
        if self.taken == self.given:
            self._offered_at = now
        self.given += num_bytes

    def take(self, num_bytes: int, now: float, behind: float = 0.0) -> None:
        """The transport took so many of them, which others' are before for `behind` seconds."""
        self._others_until = now + behind
        if num_bytes <= 0:
            return
        if self.taken <= self.acked or self._sample.is_ripe:
            self._begin_sample()
        self.taken = min(self.taken + num_bytes, self.given)
        self._offered_at = now
        if self._carried_at is None and self.taken > self.acked:
            self._carried_at = now
        self._measure(now)

    def ack(self, end: int, now: float) -> None:
        """Everything before `end` is acked."""
        self.acked = end
        self._carried_at = now if self.taken > end else None
        self._measure(now)

    @property
    def is_taken(self) -> bool:
        """Whether the transport has taken all that it was given."""
        return self.taken >= self.given

    @property
    def held_bytes(self) -> int:
        """How many of the bytes that were taken may be on this side of the line."""
        return max(0, min(self.taken - self.acked, MAX_HELD_BYTES))

    @property
    def rate(self) -> float:
        """Bytes a second that are expected at least."""
        return max(MIN_RATE, self.seen / _SLOWDOWN)

    def held_seconds(self, now: float) -> float:
        """How long the transport may take nothing: what it holds has to cross first."""
        return max(self.held_bytes / self.rate, self._others_until - now)

    def seconds_to_cross(self, end: int, now: float) -> float:
        """In how many seconds all before `end` must be across, of which all is taken."""
        across_at = self._others_until
        if self._carried_at is not None:
            across_at = max(across_at, self._carried_at + (end - self.acked) / self.rate)
        return max(0.0, across_at - now)

    def _begin_sample(self) -> None:
        self._sample = _Sample(self._offered_at, self.taken, self.held_bytes)

    def _measure(self, now: float) -> None:
        across = max(self.acked, self.taken - MAX_HELD_BYTES)
        self.seen = self._sample.measure(across, now, self.seen)


@define(eq=False)
class _Sample:
    """Some bytes that cross."""

    #: When the first of them was given to the transport, and its place.
    began_at: float
    start: int
    #: Bytes that were to cross before them, so that these took part of the time.
    before: int
    #: The best rate so far, and whether it says when the line is slower than it was.
    best: float = 0.0
    is_ripe: bool = False

    def measure(self, across: int, now: float, seen: float) -> float:
        """The rate that was seen by now, `seen` before; all before `across` has crossed."""
        count = across - self.start
        if count <= 0:
            return seen
        self.best = max(self.best, count / max(now - self.began_at, _MIN_SECONDS))
        self.is_ripe = count >= max(_SAMPLE_BYTES, self.before)
        return self.best if self.is_ripe else max(seen, self.best)


def answer_deadline(begun_at: float, num_bytes: int, now: float, timeout: float) -> float:
    """Until when more of an answer must have come; of it there are `num_bytes` `now`."""
    return min(now, begun_at + num_bytes / MIN_ANSWER_RATE) + timeout
