"""One stream in use: what is appended to it, and who waits for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from s2frames.embedded.append_rules import (
    apply_commands,
    check_conditions,
    sequence,
)
from s2frames.embedded.error_bodies import service_error
from s2frames.embedded.store import Store, StreamInfo
from s2frames.records import AppendAck, SequencedRecord, StreamPosition
from s2frames.wire import AppendInput

__all__ = ["Follower", "Stream"]

#: Called with the time when the stream has more records, or is deleted.
Follower = Callable[[float], None]


class Stream:
    """A stream of the store, shared by everyone who uses it. Followers get no records from it:
    they are told that there are some, and read them when they can send them."""

    def __init__(self, store: Store, info: StreamInfo) -> None:
        self.info = info
        self._store = store
        self._state = store.state(info.key)
        # A dict keeps the order in which they came, so that runs repeat exactly.
        self._followers: dict[Follower, None] = {}
        self._is_deleted = False

    @property
    def tail(self) -> StreamPosition:
        """The next record's sequence number, and the last record's timestamp."""
        return self._state.tail

    def append(self, batch: AppendInput, now: float) -> AppendAck:
        """Append a batch that passed `check_batch`, all of it or nothing, and wake the followers.

        Followers are not to be fed and nothing is to be acked before `commit`.

        Raises `ServiceError`: 412 for a condition that does not hold, 422 for a timestamp that the
        stream requires, 404 when the stream was deleted.
        """
        self.check_exists()
        check_conditions(batch, self._state)
        records = sequence(batch.records, self.tail, self.info.config, int(now * 1000))
        state = apply_commands(records, self._state)
        self._store.append(self.info.key, records, state)
        self._state = state
        self._wake(now)
        start = StreamPosition(records[0].seq_num, records[0].timestamp)
        return AppendAck(start, state.tail, state.tail)

    def commit(self) -> None:
        """Make what was appended durable."""
        self._store.commit()

    def read(self, start: int, end: int) -> Iterator[SequencedRecord]:
        """The records that are left with sequence numbers from `start` to below `end`."""
        return self._store.read(self.info.key, start, end)

    def find_timestamp(self, timestamp: int) -> int | None:
        """The sequence number of the first record left that is not before `timestamp`."""
        return self._store.find_timestamp(self.info.key, timestamp)

    def check_exists(self) -> None:
        """Raises `ServiceError` 404 when the stream was deleted."""
        if self._is_deleted:
            basin, name = self.info.key
            raise service_error("stream_not_found", f"stream {name!r} of {basin!r} was deleted")

    def follow(self, follower: Follower) -> None:
        """Call `follower` from now on."""
        self._followers[follower] = None

    def unfollow(self, follower: Follower) -> None:
        """Call `follower` no more."""
        self._followers.pop(follower, None)

    def mark_deleted(self, now: float) -> None:
        """The store has this stream no more."""
        self._is_deleted = True
        self._wake(now)

    def _wake(self, now: float) -> None:
        # A follower may make others come and go.
        for follower in tuple(self._followers):
            if follower in self._followers:
                follower(now)
