"""Session machines and the embedded service, joined without I/O, under a clock of their own.

A `World` has one service, one clock and any number of clients, each of which does what its machine
asks for. A turn moves what is on its way a bit further, cut where `cut` says; when nothing is, the
clock jumps to the next time that anybody waits for. When nobody waits for anything, that is a hang
and an AssertionError.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from attrs import define, field

from s2frames.append import AppendProtocol
from s2frames.embedded import Exchange, Service
from s2frames.errors import S2FramesError
from s2frames.http import Request
from s2frames.read import ReadProtocol
from s2frames.records import Record
from s2frames.session import Action, CloseRequest, EndData, OpenRequest, SendData
from s2frames.settings import Endpoints, Settings
from s2frames.target import StreamTarget
from s2frames.wire import AppendInput, encode_append_input

BASIN = "test-basin"
STREAM = "room/1"
TARGET = StreamTarget(Settings(endpoints=Endpoints.at("http://localhost")), BASIN, STREAM)

#: When a world begins, in seconds since the Unix epoch.
EPOCH = 1_000_000.0

# Seconds that a world may last: a follower's heartbeats go on for ever.
_LIFETIME = 3600.0

#: How many of so many bytes move now.
Cut = Callable[[int], int]

Machine = TypeVar("Machine", AppendProtocol, ReadProtocol)


def whole(size: int) -> int:
    """Everything moves at once."""
    return size


def random_cut(random: Random) -> Cut:
    """Pieces of any size, and now and then nothing for a while."""

    def cut(size: int) -> int:
        kind = random.randrange(8)
        if kind == 0:
            return 0
        if kind < 4:
            return min(size, random.randrange(1, 6))
        return size if kind == 7 else random.randint(1, size)

    return cut


@define(eq=False)
class Wire:
    """One request and its answer, and the bytes of both that are on their way."""

    number: int
    exchange: Exchange
    upload: bytearray = field(factory=bytearray)
    download: bytearray = field(factory=bytearray)
    is_body_complete: bool = False
    is_body_received: bool = False
    is_answered: bool = False


@define(eq=False)
class Client(Generic[Machine]):
    """Does what a machine asks for.

    One that does not read while it sends takes nothing of an answer before its request is out.
    """

    world: World
    machine: Machine
    reads_while_sending: bool = True
    #: Of the machine's own kind.
    events: list[Any] = field(factory=list)
    requests: list[Request] = field(factory=list)
    _wire: Wire | None = None
    # Of connections that the client gave up and the service did not: they still bring in bytes.
    _draining: list[Wire] = field(factory=list)

    def step(self) -> bool:
        """Move everything a bit further; tells whether anything was on its way."""
        was_busy = self._do_what_is_asked()
        if self._wire is not None:
            was_busy |= self._upload(self._wire)
            was_busy |= self._download(self._wire)
        for wire in self._draining:
            was_busy |= self._upload(wire)
        return self._take_events() or was_busy

    def next_timeout(self) -> float | None:
        """When the machine or the service has something to do by itself."""
        waits = [self.machine.next_timeout()]
        if self._wire is not None:
            waits.append(self._wire.exchange.next_timeout())
        return min((wait for wait in waits if wait is not None), default=None)

    def handle_timeout(self) -> None:
        """Tell both sides what time it is."""
        if self._wire is not None:
            self._wire.exchange.handle_timeout(self.world.now)
        self.machine.handle_timeout(self.world.now)

    def lose(self, error: S2FramesError, *, drains: bool = False) -> None:
        """The connection breaks, and what was on its way is gone.

        With `drains` only the answer is: the rest of the request comes in bit by bit.
        """
        if self._wire is not None:
            wire, self._wire = self._wire, None
            if drains:
                self._draining.append(wire)
            else:
                wire.exchange.connection_lost(self.world.now)
            self.machine.connection_lost(wire.number, error, self.world.now)

    def _do_what_is_asked(self) -> bool:
        actions = self.machine.data_to_send(self.world.now)
        for action in actions:
            self._do(action)
        return bool(actions)

    def _do(self, action: Action) -> None:
        if isinstance(action, OpenRequest):
            assert self._wire is None, "a request is open already"
            self.requests.append(action.request)
            self._wire = Wire(action.request_id, self.world.open(action.request))
            return
        if self._wire is None or self._wire.number != action.request_id:
            # The answer is complete, so that nobody wants the rest of the request.
            assert action.request_id == len(self.requests)
            return
        match action:
            case SendData(data=data):
                self._wire.upload += b"".join(data)
            case EndData():
                self._wire.is_body_complete = True
            case CloseRequest():
                self._wire.exchange.connection_lost(self.world.now)
                self._wire = None

    def _upload(self, wire: Wire) -> bool:
        if wire.upload:
            count = self.world.cut(len(wire.upload))
            wire.exchange.receive_data(bytes(wire.upload[:count]), self.world.now)
            del wire.upload[:count]
            if isinstance(self.machine, AppendProtocol) and wire is self._wire:
                self.machine.bytes_accepted(wire.number, count, self.world.now)
            return True
        if wire.is_body_complete and not wire.is_body_received:
            wire.is_body_received = True
            wire.exchange.receive_eof(self.world.now)
            return True
        return False

    def _download(self, wire: Wire) -> bool:
        if not (self.reads_while_sending or wire.is_body_received):
            return False
        head = wire.exchange.response
        if head is None:
            return False
        if not wire.is_answered:
            wire.is_answered = True
            self.machine.receive_response(
                wire.number, head.status, dict(head.headers), self.world.now
            )
            return True
        if not wire.download:
            wire.download += b"".join(wire.exchange.data_to_send())
        if wire.download:
            count = self.world.cut(len(wire.download))
            data = bytes(wire.download[:count])
            del wire.download[:count]
            self.machine.receive_data(wire.number, data, self.world.now)
            return True
        if wire.exchange.finished:
            self._wire = None
            self.machine.receive_eof(wire.number, self.world.now)
            return True
        return False

    def _take_events(self) -> bool:
        before = len(self.events)
        self.events += self.machine.events_received()
        return len(self.events) > before


@define(eq=False)
class World:
    """A service, a clock, and clients."""

    cut: Cut = whole
    service: Service = field(factory=lambda: Service(random=lambda: 0.5))
    now: float = EPOCH
    _clients: list[Client[AppendProtocol] | Client[ReadProtocol]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self._put(f"/v1/basins/{BASIN}")
        self._put("/v1/streams/room%2F1")

    def join_append(
        self, machine: AppendProtocol, *, reads_while_sending: bool = True
    ) -> Client[AppendProtocol]:
        """Let an append session take part."""
        client = Client(self, machine, reads_while_sending)
        self._clients.append(client)
        return client

    def join_read(self, machine: ReadProtocol) -> Client[ReadProtocol]:
        """Let a read session take part."""
        client = Client(self, machine)
        self._clients.append(client)
        return client

    def open(self, request: Request) -> Exchange:
        """Start a request."""
        url = urlsplit(request.url)
        path = f"{url.path}?{url.query}" if url.query else url.path
        return self.service.open(request.method, path, dict(request.headers), self.now)

    def append(self, *records: Record, fencing_token: str | None = None) -> None:
        """Somebody else appends these."""
        headers = {"s2-basin": BASIN, "content-type": "application/protobuf"}
        exchange = self.service.open("POST", "/v1/streams/room%2F1/records", headers, self.now)
        batch = AppendInput(records, fencing_token=fencing_token)
        exchange.receive_data(encode_append_input(batch), self.now)
        exchange.receive_eof(self.now)
        assert exchange.response is not None
        assert exchange.response.status == 200

    def turn(self) -> None:
        """Move everything a bit further, or the clock if there is nothing to move."""
        was_busy = [client.step() for client in self._clients]
        if any(was_busy):
            return
        waits = [wait for c in self._clients if (wait := c.next_timeout()) is not None]
        assert waits, "nobody waits for anything: this is a hang"
        self.now = max(self.now, min(waits))
        assert self.now < EPOCH + _LIFETIME, "this goes on for ever"
        for client in self._clients:
            client.handle_timeout()

    def run(self, is_done: Callable[[], bool]) -> None:
        """Take turns until `is_done`."""
        while not is_done():
            self.turn()

    def _put(self, path: str) -> None:
        headers = {"s2-basin": BASIN, "content-type": "application/json"}
        exchange = self.service.open("PUT", path, headers, self.now)
        exchange.receive_data(json.dumps({}).encode(), self.now)
        exchange.receive_eof(self.now)
        assert exchange.response is not None
        assert exchange.response.status == 201
