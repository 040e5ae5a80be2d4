"""Where basins, streams and records are kept.

A store keeps what it is told and knows no rule: limits, conditions, timestamps and commands are
settled before it is called. So another store (a file, say) is the same few methods again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from attrs import define, field, frozen

from s2frames.embedded.config import BasinConfig, StreamConfig
from s2frames.errors import S2FramesError
from s2frames.records import SequencedRecord, StreamPosition

__all__ = [
    "Basin",
    "MemoryStore",
    "Store",
    "StoreError",
    "StreamInfo",
    "StreamKey",
    "StreamState",
]

#: A basin's name and a stream's name.
StreamKey = tuple[str, str]


@frozen
class Basin:
    """A basin."""

    name: str
    config: BasinConfig
    #: Seconds since the Unix epoch.
    created_at: float
    #: Tells a repeated create from another one; None when it came without a request token.
    creation_key: str | None = None


@frozen
class StreamInfo:
    """A stream, without its records. Its configuration is complete."""

    key: StreamKey
    config: StreamConfig
    #: Seconds since the Unix epoch.
    created_at: float
    creation_key: str | None = None


@frozen
class StreamState:
    """What a stream's records have added up to."""

    #: The next record's sequence number, and the last record's timestamp.
    tail: StreamPosition = field(default=StreamPosition(0, 0))
    fencing_token: str = ""
    #: Records below this sequence number are gone.
    trim_point: int = 0


class StoreError(S2FramesError):
    """The store cannot be opened, read or written. No client is told: the service has to end."""


class Store(Protocol):
    """What the service needs of a store.

    Each method takes effect as a whole or not at all. What it wrote is durable, as far as the store
    is, when it returns; appends are when `commit` returns. Names are listed in the order of their
    UTF-8 bytes. The methods of a stream are called only while it exists. All raise `StoreError`.
    """

    def basin(self, name: str) -> Basin | None:
        """The basin of this name."""

    def put_basin(self, basin: Basin) -> None:
        """Create or replace a basin."""

    def delete_basin(self, name: str) -> None:
        """Remove a basin and its streams."""

    def basins(self, prefix: str, start_after: str) -> Iterator[Basin]:
        """The basins whose names start with `prefix` and come after `start_after`."""

    def stream(self, key: StreamKey) -> StreamInfo | None:
        """The stream of this name."""

    def put_stream(self, info: StreamInfo) -> None:
        """Create a stream without records, or replace an existing one's configuration."""

    def delete_stream(self, key: StreamKey) -> None:
        """Remove a stream and its records."""

    def streams(self, basin: str, prefix: str, start_after: str) -> Iterator[StreamInfo]:
        """The basin's streams whose names start with `prefix` and come after `start_after`."""

    def state(self, key: StreamKey) -> StreamState:
        """What the stream's records have added up to."""

    def append(
        self, key: StreamKey, records: Sequence[SequencedRecord], state: StreamState
    ) -> None:
        """Add records that follow the stream's last one, and replace its state.

        The records below the new state's trim point are gone then.
        """

    def commit(self) -> None:
        """Make what was appended since the last commit durable."""

    def read(self, key: StreamKey, start: int, end: int) -> Iterator[SequencedRecord]:
        """The records with sequence numbers from `start` to below `end`, as they are asked for.

        The iterator is used up before the next append.
        """

    def find_timestamp(self, key: StreamKey, timestamp: int) -> int | None:
        """The sequence number of the first record that is not before `timestamp`."""


@define
class _StoredStream:
    info: StreamInfo
    state: StreamState = field(factory=StreamState)
    #: Without a gap: trimming takes from the front only.
    records: list[SequencedRecord] = field(factory=list)


class MemoryStore:
    """A `Store` that forgets everything with the process."""

    def __init__(self) -> None:
        self._basins: dict[str, Basin] = {}
        self._streams: dict[str, dict[str, _StoredStream]] = {}

    def basin(self, name: str) -> Basin | None:
        """See `Store.basin`."""
        return self._basins.get(name)

    def put_basin(self, basin: Basin) -> None:
        """See `Store.put_basin`."""
        self._basins[basin.name] = basin
        self._streams.setdefault(basin.name, {})

    def delete_basin(self, name: str) -> None:
        """See `Store.delete_basin`."""
        del self._basins[name], self._streams[name]

    def basins(self, prefix: str, start_after: str) -> Iterator[Basin]:
        """See `Store.basins`."""
        names = _select(self._basins, prefix, start_after)
        return (self._basins[name] for name in names)

    def stream(self, key: StreamKey) -> StreamInfo | None:
        """See `Store.stream`."""
        stored = self._streams.get(key[0], {}).get(key[1])
        return stored.info if stored else None

    def put_stream(self, info: StreamInfo) -> None:
        """See `Store.put_stream`."""
        basin, name = info.key
        stored = self._streams[basin].setdefault(name, _StoredStream(info))
        stored.info = info

    def delete_stream(self, key: StreamKey) -> None:
        """See `Store.delete_stream`."""
        del self._streams[key[0]][key[1]]

    def streams(self, basin: str, prefix: str, start_after: str) -> Iterator[StreamInfo]:
        """See `Store.streams`."""
        streams = self._streams.get(basin, {})
        return (streams[name].info for name in _select(streams, prefix, start_after))

    def state(self, key: StreamKey) -> StreamState:
        """See `Store.state`."""
        return self._stored(key).state

    def append(
        self, key: StreamKey, records: Sequence[SequencedRecord], state: StreamState
    ) -> None:
        """See `Store.append`."""
        stored = self._stored(key)
        stored.records += records
        stored.state = state
        del stored.records[: max(0, state.trim_point - stored.records[0].seq_num)]

    def commit(self) -> None:
        """See `Store.commit`."""

    def read(self, key: StreamKey, start: int, end: int) -> Iterator[SequencedRecord]:
        """See `Store.read`."""
        records = self._stored(key).records
        if not records:
            return
        first = records[0].seq_num
        for index in range(max(0, start - first), min(len(records), end - first)):
            yield records[index]

    def find_timestamp(self, key: StreamKey, timestamp: int) -> int | None:
        """See `Store.find_timestamp`."""
        records = self._stored(key).records
        index = bisect_left(records, timestamp, key=lambda record: record.timestamp)
        return records[index].seq_num if index < len(records) else None

    def _stored(self, key: StreamKey) -> _StoredStream:
        return self._streams[key[0]][key[1]]


def _select(names: Iterable[str], prefix: str, start_after: str) -> list[str]:
    # Code points sort as UTF-8 bytes do.
    return sorted(n for n in names if n.startswith(prefix) and n > start_after)
