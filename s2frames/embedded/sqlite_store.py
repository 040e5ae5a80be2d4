"""A store in one SQLite file: what was committed survives the process, also a killed one.

An append is one row, which holds its records as a `ReadBatch`. Appends join one transaction until
`commit`; every other change is committed at once. The file belongs to one process at a time.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Any, TypeVar

from s2frames.embedded.config import BasinConfig, StreamConfig
from s2frames.embedded.store import Basin, StoreError, StreamInfo, StreamKey, StreamState
from s2frames.errors import RemoteProtocolError
from s2frames.records import SequencedRecord, StreamPosition
from s2frames.wire import ReadBatch, decode_read_batch, encode_read_batch

__all__ = ["FORMAT_VERSION", "SqliteStore"]

T = TypeVar("T")

#: The format of the files that this release reads and writes.
FORMAT_VERSION = 1

# "S2FS", where SQLite keeps what kind of file it is.
_APPLICATION_ID = 0x53324653

# Names are blobs, so that they sort as bytes. SQLite's integers are signed, and a timestamp is not:
# it is stored less 2^63, which keeps the order.
_SCHEMA = """
CREATE TABLE basins (
    name BLOB PRIMARY KEY, config TEXT NOT NULL, created_at REAL NOT NULL, creation_key TEXT
);
CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    basin BLOB NOT NULL REFERENCES basins ON DELETE CASCADE,
    name BLOB NOT NULL, config TEXT NOT NULL, created_at REAL NOT NULL, creation_key TEXT,
    next_seq_num INTEGER NOT NULL DEFAULT 0, last_timestamp INTEGER NOT NULL,
    fencing_token TEXT NOT NULL DEFAULT '', trim_point INTEGER NOT NULL DEFAULT 0,
    UNIQUE (basin, name)
);
CREATE TABLE appends (
    stream INTEGER NOT NULL REFERENCES streams ON DELETE CASCADE,
    end INTEGER NOT NULL, last_timestamp INTEGER NOT NULL, records BLOB NOT NULL,
    PRIMARY KEY (stream, end)
);
CREATE INDEX appends_by_time ON appends (stream, last_timestamp);
"""
_TIMESTAMP_OFFSET = 2**63


class SqliteStore:
    """A `Store` in a file, which is created if it is missing.

    To be closed, or used under ``with``: that ends its hold on the file. For one thread at a time.

    Args:
        path: where the file is; SQLite keeps another one next to it, named with "-wal" at the end.

    Raises `StoreError`, here and in every method, naming the file: it is no such file, has a
    format that this release does not know, is in use, or cannot be read or written. After a write
    that failed the store is closed, since nobody knows what the service has told already.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        with self._explained():
            # Absolute: no name is a special one. Transactions are begun here, not by the module.
            self._database = sqlite3.connect(
                os.path.abspath(self._path),
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            self._open()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. What was not committed is gone. May be called again."""
        self._database.close()

    # Basins

    def basin(self, name: str) -> Basin | None:
        """See `Store.basin`."""
        row = self._one("SELECT * FROM basins WHERE name = ?", _to_blob(name))
        return None if row is None else _read_basin(row)

    def put_basin(self, basin: Basin) -> None:
        """See `Store.put_basin`."""
        with self._change():
            self._database.execute(
                "INSERT INTO basins VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                " config = excluded.config, created_at = excluded.created_at,"
                " creation_key = excluded.creation_key",
                (
                    _to_blob(basin.name),
                    json.dumps(basin.config.to_json()),
                    basin.created_at,
                    basin.creation_key,
                ),
            )

    def delete_basin(self, name: str) -> None:
        """See `Store.delete_basin`."""
        with self._change():
            self._database.execute("DELETE FROM basins WHERE name = ?", (_to_blob(name),))

    def basins(self, prefix: str, start_after: str) -> Iterator[Basin]:
        """See `Store.basins`."""
        return self._select("SELECT * FROM basins WHERE true", (), prefix, start_after, _read_basin)

    # Streams

    def stream(self, key: StreamKey) -> StreamInfo | None:
        """See `Store.stream`."""
        query = (
            "SELECT basin, name, config, created_at, creation_key FROM streams"
            " WHERE basin = ? AND name = ?"
        )
        row = self._one(query, *_to_blobs(key))
        return None if row is None else _read_info(row)

    def put_stream(self, info: StreamInfo) -> None:
        """See `Store.put_stream`."""
        config = json.dumps(info.config.to_json())
        with self._change():
            self._database.execute(
                "INSERT INTO streams"
                " (basin, name, config, created_at, creation_key, last_timestamp)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (basin, name) DO UPDATE SET"
                " config = excluded.config, created_at = excluded.created_at,"
                " creation_key = excluded.creation_key",
                (
                    *_to_blobs(info.key),
                    config,
                    info.created_at,
                    info.creation_key,
                    -_TIMESTAMP_OFFSET,
                ),
            )

    def delete_stream(self, key: StreamKey) -> None:
        """See `Store.delete_stream`."""
        with self._change():
            self._database.execute(
                "DELETE FROM streams WHERE basin = ? AND name = ?", _to_blobs(key)
            )

    def streams(self, basin: str, prefix: str, start_after: str) -> Iterator[StreamInfo]:
        """See `Store.streams`."""
        query = "SELECT basin, name, config, created_at, creation_key FROM streams WHERE basin = ?3"
        return self._select(query, (_to_blob(basin),), prefix, start_after, _read_info)

    # Records

    def state(self, key: StreamKey) -> StreamState:
        """See `Store.state`."""
        return self._stored(key)[1]

    def append(
        self, key: StreamKey, records: Sequence[SequencedRecord], state: StreamState
    ) -> None:
        """See `Store.append`."""
        stream, before = self._stored(key)
        tail = state.tail
        timestamp = tail.timestamp - _TIMESTAMP_OFFSET
        with self._transaction():
            self._database.execute(
                "INSERT INTO appends VALUES (?, ?, ?, ?)",
                (stream, tail.seq_num, timestamp, encode_read_batch(ReadBatch(records))),
            )
            self._database.execute(
                "UPDATE streams SET next_seq_num = ?, last_timestamp = ?, fencing_token = ?,"
                " trim_point = ? WHERE id = ?",
                (tail.seq_num, timestamp, state.fencing_token, state.trim_point, stream),
            )
            if state.trim_point > before.trim_point:
                self._database.execute(
                    "DELETE FROM appends WHERE stream = ? AND end <= ?", (stream, state.trim_point)
                )

    def commit(self) -> None:
        """See `Store.commit`."""
        if self._database.in_transaction:
            with self._writing():
                self._database.execute("COMMIT")

    def read(self, key: StreamKey, start: int, end: int) -> Iterator[SequencedRecord]:
        """See `Store.read`."""
        stream, state = self._stored(key)
        start = max(start, state.trim_point)
        query = "SELECT records FROM appends WHERE stream = ? AND end > ? ORDER BY end"
        for record in self._records(query, stream, start):
            if record.seq_num >= end:
                return
            if record.seq_num >= start:
                yield record

    def find_timestamp(self, key: StreamKey, timestamp: int) -> int | None:
        """See `Store.find_timestamp`."""
        stream, state = self._stored(key)
        query = (
            "SELECT records FROM appends WHERE stream = ? AND last_timestamp >= ?"
            " ORDER BY last_timestamp, end"
        )
        found = (
            record.seq_num
            for record in self._records(query, stream, timestamp - _TIMESTAMP_OFFSET)
            if record.seq_num >= state.trim_point and record.timestamp >= timestamp
        )
        return next(found, None)

    def _stored(self, key: StreamKey) -> tuple[int, StreamState]:
        row = self._one(
            "SELECT id, next_seq_num, last_timestamp, fencing_token, trim_point FROM streams"
            " WHERE basin = ? AND name = ?",
            *_to_blobs(key),
        )
        if row is None:
            raise KeyError(key)
        stream, seq_num, timestamp, token, trim_point = row
        tail = StreamPosition(seq_num, timestamp + _TIMESTAMP_OFFSET)
        return stream, StreamState(tail, token, trim_point)

    def _records(self, query: str, *values: int) -> Iterator[SequencedRecord]:
        for (encoded,) in self._rows(query, values):
            yield from self._decode(encoded)

    def _decode(self, encoded: bytes) -> Sequence[SequencedRecord]:
        try:
            return decode_read_batch(encoded).records
        except RemoteProtocolError as error:
            raise StoreError(f"{self._path}: it is damaged: {error}") from error

    # The file

    def _open(self) -> None:
        with self._explained():
            # Set before the file is looked at: whoever looks first holds it until it is closed.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            is_new = self._check_format()
            # A commit appends to a log and waits until that is on the disk, so that a power cut
            # takes nothing that was acked either.
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA foreign_keys = ON")
            self._database.execute("BEGIN EXCLUSIVE")
            if is_new:
                for statement in _SCHEMA.split(";"):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._database.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            self._database.execute("COMMIT")

    def _check_format(self) -> bool:
        """Whether the file is new. Raises `StoreError` for one that is not ours."""
        application, version, num_tables = (
            self._database.execute(query).fetchone()[0]
            for query in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_schema",
            )
        )
        if (application, version, num_tables) == (0, 0, 0):
            return True
        if application != _APPLICATION_ID:
            raise StoreError(f"{self._path}: this is no file of the embedded service")
        if version != FORMAT_VERSION:
            raise StoreError(
                f"{self._path}: it has format {version}, and this release reads {FORMAT_VERSION}"
            )
        return False

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {_explain(error)}") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._explained():
            try:
                yield
            except sqlite3.Error:
                self.close()
                raise

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Part of the transaction under way, or of a new one."""
        with self._writing():
            if not self._database.in_transaction:
                self._database.execute("BEGIN")
            yield

    @contextmanager
    def _change(self) -> Iterator[None]:
        """A change that is committed at once, with what waited for that."""
        with self._transaction():
            yield
        self.commit()

    def _one(self, query: str, *values: bytes) -> tuple[Any, ...] | None:
        return next(self._rows(query, values), None)

    def _rows(self, query: str, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        # Closed with the iterator, also by those who do not take every row.
        with self._explained(), closing(self._database.execute(query, values)) as rows:
            yield from rows

    def _select(
        self,
        query: str,
        values: tuple[bytes, ...],
        prefix: str,
        start_after: str,
        read: Callable[[tuple[Any, ...]], T],
    ) -> Iterator[T]:
        """What the query has of these names, in their order."""
        start = _to_blob(prefix), _to_blob(start_after)
        query += " AND name >= ?1 AND name > ?2 AND substr(name, 1, length(?1)) = ?1 ORDER BY name"
        return map(read, self._rows(query, (*start, *values)))


def _explain(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_BUSY:
        return "another process is using it"
    if code == sqlite3.SQLITE_NOTADB:
        return "this is no file of the embedded service"
    return str(error)


def _to_blob(name: str) -> bytes:
    # What is looked for may be no possible name.
    return name.encode(errors="surrogatepass")


def _to_blobs(key: StreamKey) -> tuple[bytes, bytes]:
    return _to_blob(key[0]), _to_blob(key[1])


def _read_basin(row: tuple[Any, ...]) -> Basin:
    name, config, created_at, creation_key = row
    config = BasinConfig().reconfigured(json.loads(config))
    return Basin(name.decode(), config, created_at, creation_key)


def _read_info(row: tuple[Any, ...]) -> StreamInfo:
    basin, name, config, created_at, creation_key = row
    config = StreamConfig().reconfigured(json.loads(config))
    return StreamInfo((basin.decode(), name.decode()), config, created_at, creation_key)
