"""What a read asks for: where it starts, and where it ends."""

from __future__ import annotations

import enum

from attrs import evolve, frozen

from s2frames.embedded.error_bodies import service_error
from s2frames.embedded.request import RequestHead
from s2frames.records import MAX_BATCH_BYTES, MAX_BATCH_RECORDS
from s2frames.u64 import U64_MAX

__all__ = ["ReadRequest", "StartFrom", "parse_last_event_id"]

# A limit that no stream reaches: one more than any count, size or timestamp.
_UNLIMITED = U64_MAX + 1

# Seconds that a read of one batch waits at most; `lite/src/handlers/v1/mod.rs`.
_MAX_UNARY_WAIT = 60
_U32_MAX = 2**32 - 1


class StartFrom(enum.Enum):
    """What a start is counted in; the value is the query parameter."""

    SEQ_NUM = "seq_num"
    TIMESTAMP = "timestamp"
    TAIL_OFFSET = "tail_offset"


@frozen
class ReadRequest:
    """A read: from `start` until a limit is reached, or for as long as it may wait."""

    start_from: StartFrom
    start: int
    #: Start at the tail when the start lies beyond it.
    clamp: bool
    #: Whether count, bytes or until was given.
    is_bounded: bool
    #: Records, metered bytes, and the first timestamp that is too late.
    count: int
    bytes: int
    until: int
    #: Seconds that may pass at the tail without a record; None for ever.
    wait: int | None

    @classmethod
    def parse(cls, head: RequestHead) -> ReadRequest:
        """The read in a request's query. Raises `ServiceError` 400, or 422 for two starts."""
        starts = [
            (kind, number) for kind in StartFrom if (number := head.number(kind.value)) is not None
        ]
        clamp = head.flag("clamp")
        count, size, until = (head.number(name) for name in ("count", "bytes", "until"))
        wait = head.number("wait", _U32_MAX)
        if len(starts) > 1:
            names = " and ".join(kind.value for kind, _ in starts)
            raise service_error("invalid", f"a read starts from one place, not from {names}")
        start_from, start = starts[0] if starts else (StartFrom.TAIL_OFFSET, 0)
        return cls(
            start_from,
            start,
            clamp,
            not count is size is until is None,
            _UNLIMITED if count is None else count,
            _UNLIMITED if size is None else size,
            _UNLIMITED if until is None else until,
            wait,
        )

    @property
    def may_follow(self) -> bool:
        """Whether the read goes on at the tail."""
        return bool(self.wait) or not self.is_bounded

    @property
    def is_empty(self) -> bool:
        """Whether the limits allow nothing."""
        return not (self.count and self.bytes)

    def for_one_batch(self) -> ReadRequest:
        """The same read, answered with at most one batch."""
        return evolve(
            self,
            is_bounded=True,
            count=min(self.count, MAX_BATCH_RECORDS),
            bytes=min(self.bytes, MAX_BATCH_BYTES),
            wait=None if self.wait is None else min(self.wait, _MAX_UNARY_WAIT),
        )

    def resumed_after(self, seq_num: int, count: int, size: int) -> ReadRequest:
        """The rest of the same read, after `seq_num`, with that much already delivered."""
        return evolve(
            self,
            start_from=StartFrom.SEQ_NUM,
            start=min(seq_num + 1, U64_MAX),
            count=max(0, self.count - count),
            bytes=max(0, self.bytes - size),
        )

    def check(self) -> None:
        """Raises `ServiceError` 422 for a read that ends before it starts."""
        if self.start_from is StartFrom.TIMESTAMP and self.start >= self.until:
            raise service_error(
                "invalid", f"the read starts at {self.start}, but is to end before {self.until}"
            )


def parse_last_event_id(head: RequestHead) -> tuple[int, int, int] | None:
    """Last sequence number, count and bytes that an interrupted event stream had delivered."""
    value = head.headers.get("last-event-id")
    if value is None:
        return None
    parts = value.split(",")
    if len(parts) != 3 or not all(map(_is_u64, parts)):
        raise service_error("bad_header", f"last-event-id is seq_num,count,bytes, not {value!r}")
    seq_num, count, size = map(int, parts)
    return seq_num, count, size


def _is_u64(text: str) -> bool:
    digits = text.removeprefix("+")
    # 20 digits, so that a number of any length costs nothing.
    return digits.isascii() and digits.isdigit() and len(digits) <= 20 and int(digits) <= U64_MAX
