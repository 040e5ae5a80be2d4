"""Basins and streams on a server, and the requests that the tests make there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any
from urllib.parse import quote

from attrs import frozen

from real_server.raw_http import Address, Exchange, Reply
from s2_bodies import encode_input, messages_in
from s2frames.records import AppendAck, Record
from s2frames.s2s import Message, MessageDecoder, Terminal
from s2frames.wire import ReadBatch, decode_append_ack, decode_read_batch

__all__ = [
    "EVENTS",
    "JSON",
    "PROTOBUF",
    "S2S",
    "Basin",
    "Stream",
    "batches_in",
    "batches_of",
    "eventually",
    "next_messages",
    "unique_name",
]

JSON = {"content-type": "application/json"}
PROTOBUF = {"content-type": "application/protobuf", "accept": "application/protobuf"}
S2S = {"content-type": "s2s/proto"}
EVENTS = {"accept": "text/event-stream"}

_numbers = count()
# Names of basins are kept by a server for a while after they were deleted.
_RUN = os.urandom(4).hex()


def unique_name(prefix: str = "basin") -> str:
    """A name that no other test uses."""
    return f"{prefix}-{_RUN}-{next(_numbers)}"


@frozen
class Basin:
    """A basin."""

    address: Address
    name: str

    @classmethod
    def make(cls, address: Address, **config: Any) -> Basin:
        """A new one with this configuration."""
        basin = cls(address, unique_name())
        reply = basin.send_json("PUT", basin.path, {"config": config})
        assert reply.status == 201, reply
        return basin

    @property
    def path(self) -> str:
        return f"/v1/basins/{self.name}"

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Reply:
        """A whole request to this basin."""
        return self.address.request(method, target, self._fields(headers), body)

    def send_json(
        self, method: str, target: str, value: Any, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """A whole request with a JSON body."""
        body = json.dumps(value).encode()
        return self.send(method, target, {**JSON, **(headers or {})}, body)

    def open(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Exchange:
        """Start a request; its body is to follow if it is None."""
        return self.address.open(method, target, self._fields(headers), body)

    def make_stream(self, name: str | None = None, **config: Any) -> Stream:
        """A new stream with this configuration."""
        stream = self.stream(unique_name("room/1") if name is None else name)
        reply = self.send_json("PUT", stream.path, config)
        assert reply.status == 201, reply
        return stream

    def stream(self, name: str) -> Stream:
        """The stream of this name, whether there is one or not."""
        return Stream(self, f"/v1/streams/{quote(name, safe='')}")

    def _fields(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        return {"s2-basin": self.name, **(headers or {})}


@frozen
class Stream:
    """A stream."""

    basin: Basin
    path: str

    @property
    def records(self) -> str:
        return f"{self.path}/records"

    def append(
        self,
        records: Sequence[Record],
        match_seq_num: int | None = None,
        fencing_token: str | None = None,
    ) -> Reply:
        """One batch in protobuf."""
        return self.post(encode_input(records, match_seq_num, fencing_token), PROTOBUF)

    def append_ok(self, *records: Record) -> AppendAck:
        """One batch that must be accepted."""
        reply = self.append(records)
        assert reply.status == 200, reply
        return decode_append_ack(reply.body)

    def append_json(self, value: Any, **headers: str) -> Reply:
        """One batch in JSON."""
        more = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.post(json.dumps(value).encode(), {**JSON, **more})

    def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Any body, as an append."""
        return self.basin.send("POST", self.records, headers, body)

    def append_session(self, body: bytes, headers: Mapping[str, str] = S2S) -> Reply:
        """A whole append session."""
        return self.post(body, headers)

    def read(self, query: str = "", headers: Mapping[str, str] | None = None) -> Reply:
        """A whole read."""
        return self.basin.send("GET", f"{self.records}?{query}", headers)

    def open_read(self, query: str, headers: Mapping[str, str]) -> Exchange:
        """Start a read."""
        return self.basin.open("GET", f"{self.records}?{query}", headers, b"")

    def read_batches(self, query: str) -> list[ReadBatch]:
        """All batches of a read session that ends."""
        reply = self.read(query, S2S)
        assert reply.status == 200, reply
        return batches_in(reply.body)

    def bodies(self, query: str = "seq_num=0") -> list[bytes]:
        """The bodies of one batch."""
        reply = self.read(query, PROTOBUF)
        assert reply.status == 200, reply
        return [bytes(record.body) for record in decode_read_batch(reply.body).records]

    def tail(self) -> int:
        """The next sequence number."""
        seq_num: int = self.basin.send("GET", f"{self.records}/tail").json["tail"]["seq_num"]
        return seq_num


def batches_of(session: Exchange) -> Iterator[ReadBatch]:
    """The read batches of a session as they come."""
    status, _ = session.receive_head()
    assert status == 200
    return map(_batch_in, next_messages(session))


def next_messages(exchange: Exchange) -> Iterator[Message | Terminal]:
    """The S2S messages of a response as they come."""
    decoder = MessageDecoder()
    while True:
        while (message := decoder.next_message()) is not None:
            yield message
        data = exchange.receive()
        if not data:
            decoder.receive_eof()
            return
        decoder.receive_data(data)


def batches_in(data: bytes) -> list[ReadBatch]:
    """The read batches in `data`; there must be no terminal message."""
    return [_batch_in(message) for message in messages_in(data)]


def _batch_in(message: Message | Terminal) -> ReadBatch:
    assert isinstance(message, Message), message
    return decode_read_batch(message.body)


def eventually(what: Callable[[], object]) -> None:
    """Ask until it is so: a server deletes in the background."""
    # Seconds. The server's own checks for what is to be deleted are far less apart.
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
