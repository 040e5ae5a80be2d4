"""A host for the tests: plays the client and the clock of one service."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from shutil import copyfile
from typing import Any

from attrs import define, field

from s2_bodies import encode_input, messages_in
from s2frames.embedded import Exchange, MemoryStore, Service, Store
from s2frames.embedded.sqlite_store import SqliteStore
from s2frames.records import AppendAck, Record
from s2frames.s2s import Message, Terminal
from s2frames.wire import (
    ReadBatch,
    decode_append_ack,
    decode_read_batch,
)

BASIN = "test-basin"
STREAM = "room/1"
RECORDS = "/v1/streams/room%2F1/records"
S2S = {"content-type": "s2s/proto"}
PROTOBUF = {"content-type": "application/protobuf", "accept": "application/protobuf"}
EVENTS = {"accept": "text/event-stream"}

#: When a test starts, in seconds since the Unix epoch.
EPOCH = 1_000_000.0


class SqliteStores:
    """Makes stores, each in a file of its own in a folder. Only the latest stay open."""

    _MAX_OPEN = 4

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: deque[SqliteStore] = deque()
        self._numbers = count()
        # To copy an empty file costs far less than to make one.
        self._empty = folder / "empty.s2"
        SqliteStore(self._empty).close()

    def __call__(self) -> SqliteStore:
        store = SqliteStore(copyfile(self._empty, self._folder / f"{next(self._numbers)}.s2"))
        self._open.append(store)
        if len(self._open) > self._MAX_OPEN:
            self._open.popleft().close()
        return store

    def close(self) -> None:
        """Close those that are open."""
        while self._open:
            self._open.popleft().close()


class HostStores:
    """What makes the store of a new host, for all tests: a fixture may change it."""

    make: Callable[[], Store] = MemoryStore


@define
class Reply:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Status and error code."""
        return self.status, self.json["code"]


@define
class Host:
    """One service and its clock."""

    service: Service = field(factory=lambda: Service(HostStores.make(), random=lambda: 0.5))
    now: float = EPOCH
    woken: list[Exchange | None] = field(factory=list)

    def open(
        self, method: str, target: str, headers: dict[str, str] | None = None, basin: str = BASIN
    ) -> Exchange:
        """Start a request to a stream of `basin`."""
        opened: list[Exchange] = []

        def on_output() -> None:
            self.woken.append(opened[0] if opened else None)

        exchange = self.service.open(
            method, target, {"s2-basin": basin, **(headers or {})}, self.now, on_output
        )
        opened.append(exchange)
        return exchange

    def send(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        **more: str,
    ) -> Reply:
        """A whole request; its answer must come without waiting."""
        exchange = self.open(method, target, headers, **more)
        if body:
            exchange.receive_data(body, self.now)
        exchange.receive_eof(self.now)
        return finish(exchange)

    def send_json(
        self, method: str, target: str, value: Any, headers: dict[str, str] | None = None
    ) -> Reply:
        """A whole request with a JSON body."""
        headers = {"content-type": "application/json", **(headers or {})}
        return self.send(method, target, headers, json.dumps(value).encode())

    def append(
        self,
        records: Sequence[Record],
        match_seq_num: int | None = None,
        fencing_token: str | None = None,
    ) -> Reply:
        """One batch in protobuf."""
        body = encode_input(records, match_seq_num, fencing_token)
        return self.send("POST", RECORDS, PROTOBUF, body)

    def append_ok(self, *records: Record) -> AppendAck:
        """One batch that must be accepted."""
        reply = self.append(records)
        assert reply.status == 200, reply
        return decode_append_ack(reply.body)

    def read_s2s(self, query: str = "") -> Exchange:
        """Start an S2S read session."""
        return self.open("GET", f"{RECORDS}?{query}", S2S)


def make_host(**basin_config: Any) -> Host:
    """A host whose service has the basin and the stream of the tests."""
    host = Host()
    config = {"config": basin_config}
    assert host.send_json("PUT", f"/v1/basins/{BASIN}", config).status == 201
    assert host.send_json("PUT", "/v1/streams/room%2F1", {}).status == 201
    return host


def drain(exchange: Exchange) -> list[bytes]:
    """Everything that can be sent now."""
    sent = []
    while chunks := exchange.data_to_send():
        sent += chunks
    return sent


def finish(exchange: Exchange) -> Reply:
    """The whole response, which must not need to wait."""
    body = b"".join(drain(exchange))
    assert exchange.finished
    assert exchange.response is not None
    return Reply(exchange.response.status, dict(exchange.response.headers), body)


def drain_messages(exchange: Exchange) -> list[Message | Terminal]:
    """The S2S messages that can be sent now."""
    return messages_in(b"".join(drain(exchange)))


def drain_batches(exchange: Exchange) -> list[ReadBatch]:
    """The read batches that can be sent now; there must be no terminal message."""
    batches = []
    for message in drain_messages(exchange):
        assert isinstance(message, Message), message
        batches.append(decode_read_batch(message.body))
    return batches


def seq_nums(batches: Sequence[ReadBatch]) -> list[int]:
    """Of all records in `batches`."""
    return [record.seq_num for batch in batches for record in batch.records]
