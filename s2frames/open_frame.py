"""A frame whose records are still arriving, and the memory that it holds."""

from __future__ import annotations

from typing import TypeAlias

from attrs import define, field

from s2frames.records import Header

__all__ = ["Arrived", "OpenFrame", "pinned_bytes"]

# A smaller body is copied into one growing buffer: an object each would cost more than the bytes.
_MIN_OWN_CHUNK_BYTES = 64 * 1024

# What a header costs beside its name and value: a tuple and two bytes objects (CPython 3.11).
_HEADER_OBJECT_BYTES = 56 + 2 * 33

#: How much of a frame has arrived: its records and bytes, the memory that they are counted for, and
#: whether views are kept of what comes next.
Arrived: TypeAlias = tuple[int, int, int, bool]


def pinned_bytes(body: bytes | memoryview) -> int:
    """The memory that keeping `body` keeps alive: all of the batch that a view is cut from."""
    return len(body) if isinstance(body, bytes) else memoryview(body.obj).nbytes


@define(eq=False)
class OpenFrame:
    """What has arrived of a frame. It grows with what arrives, never with what is declared."""

    #: Sequence number of the first record.
    head: int
    #: The first record's timestamp.
    timestamp: int = 0
    #: What the first record declares; 0 records while it is to be read once more.
    num_records: int = 0
    num_bytes: int = 0
    headers: tuple[Header, ...] = ()
    received_records: int = 0
    received_bytes: int = 0
    #: Bytes of memory held.
    pinned: int = 0
    _chunks: list[bytes | bytearray | memoryview] = field(factory=list, repr=False)
    _keeps_views: bool = True

    @classmethod
    def awaited(cls, head: int) -> OpenFrame:
        """A frame known to start at `head`, to be read once more."""
        return cls(head)

    @classmethod
    def opened(
        cls,
        head: int,
        timestamp: int,
        num_records: int,
        num_bytes: int,
        headers: tuple[Header, ...],
        body: bytes | memoryview,
    ) -> OpenFrame:
        """The frame whose first record has just arrived."""
        frame = cls(head, timestamp, num_records, num_bytes, headers)
        frame.pinned = frame._headers_bytes()
        frame.add(body)
        return frame

    @property
    def is_awaited(self) -> bool:
        """Whether the first record has not arrived (again) yet."""
        return not self.num_records

    def add(self, body: bytes | memoryview) -> None:
        """Take the next record's body."""
        self.received_records += 1
        self.received_bytes += len(body)
        if len(body) < _MIN_OWN_CHUNK_BYTES:
            last = self._chunks[-1] if self._chunks else None
            if not isinstance(last, bytearray):
                last = bytearray()
                self._chunks.append(last)
            last += body
            self.pinned += len(body)
            return
        if not self._keeps_views:
            body = bytes(body)
        self._chunks.append(body)
        self.pinned += pinned_bytes(body)

    def compact(self) -> None:
        """Hold nothing but the payload, now and from now on."""
        if self._keeps_views:
            self._keeps_views = False
            self._chunks = [bytes(chunk) for chunk in self._chunks]
            self.pinned = self._headers_bytes() + self.received_bytes

    def payload(self) -> bytes:
        """The bodies, one after the other: kept as one from now on, so that they are held once."""
        payload = b"".join(self._chunks)
        self._chunks = [payload]
        return payload

    @property
    def arrived(self) -> Arrived:
        """What to `go_back` to."""
        return self.received_records, self.received_bytes, self.pinned, self._keeps_views

    def go_back(self, arrived: Arrived) -> None:
        """Be as when so much had arrived, wherever a change since then was cut off.

        It counts for as much memory as it did, whatever it holds: so the same makes room again.
        """
        num_records, num_bytes, pinned, keeps_views = arrived
        if self.received_bytes != num_bytes:
            self._chunks = [b"".join(self._chunks)[:num_bytes]]
        self.received_records, self.received_bytes = num_records, num_bytes
        self.pinned, self._keeps_views = pinned, keeps_views

    def _headers_bytes(self) -> int:
        return sum(len(name) + len(value) + _HEADER_OBJECT_BYTES for name, value in self.headers)
