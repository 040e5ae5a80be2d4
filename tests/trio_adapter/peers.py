"""An HTTP/2 server that says exactly what a test wants it to, and lets it look at every frame."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import h2.config
import h2.connection
import trio
import trio.testing
from attrs import define, field
from h2.events import Event, RequestReceived
from h2.settings import SettingCodes, Settings
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from s2frames_trio.connect import Origin
from s2frames_trio.h2_connection import Http2Connection
from s2frames_trio.h2_stream import Http2Stream
from s2frames_trio.pool import Connect

__all__ = [
    "HEADERS",
    "PREFACE",
    "CancelAt",
    "DeafTransport",
    "Peer",
    "cancelled_at",
    "connected",
    "deaf_transports",
    "dialer",
    "open_peer",
    "open_stream",
]

HEADERS = [(":method", "POST"), (":scheme", "http"), (":authority", "peer"), (":path", "/")]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

E = TypeVar("E")

# What the peer lets itself be sent, unless a test says otherwise.
_AMPLE = 2**30


@define(eq=False)
class Peer:
    """A server's side of a connection. h2 keeps its state; frames may be sent past it."""

    stream: trio.abc.Stream
    h2: h2.connection.H2Connection
    #: Every frame that came, and every event that no test has taken.
    frames: list[Frame] = field(factory=list)
    events: list[Event] = field(factory=list)
    #: Bytes that came and make no whole frame.
    rest: bytearray = field(factory=bytearray)
    is_eof: bool = False
    _preface: int = len(PREFACE)
    _sending: trio.Lock = field(factory=trio.Lock)

    async def send(self, *frames: Frame) -> None:
        """Send frames that h2 knows nothing of."""
        await self.send_bytes(b"".join(frame.serialize() for frame in frames))

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes that h2 knows nothing of."""
        async with self._sending:
            await self.stream.send_all(data)

    async def flush(self) -> None:
        """Send what h2 has to say."""
        async with self._sending:
            await self.stream.send_all(self.h2.data_to_send())

    async def receive(self) -> bool:
        """Receive whatever comes next; False at the end."""
        data = await self.stream.receive_some()
        if not data:
            self.is_eof = True
            return False
        self._cut(data)
        self.events += self.h2.receive_data(bytes(data))
        try:
            await self.flush()
        except trio.BrokenResourceError:
            """It has left; what it said before is still to be read."""
        return True

    async def next(self, kind: type[E]) -> E:
        """The next event of a kind; what came before it is dropped."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if isinstance(event, kind):
                    return event
            assert await self.receive(), f"the client left before a {kind.__name__}"

    async def serve(self) -> None:
        """Receive, and answer as h2 does, until the client leaves."""
        try:
            while await self.receive():
                """h2 answers by itself."""
        except trio.ClosedResourceError:
            """This peer has left."""

    async def answer(self, stream_id: int, status: str = "200", *, end: bool = False) -> None:
        """Begin an answer."""
        self.h2.send_headers(stream_id, [(":status", status)], end_stream=end)
        await self.flush()

    async def data(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Send part of an answer's body."""
        self.h2.send_data(stream_id, data, end_stream=end)
        await self.flush()

    async def change_settings(self, **values: int) -> None:
        """Send SETTINGS."""
        self.h2.update_settings(
            {SettingCodes[name.upper()]: value for name, value in values.items()}
        )
        await self.flush()

    def data_of(self, stream_id: int) -> bytes:
        """The body of a request, as far as it came."""
        frames = [f for f in self.frames if isinstance(f, DataFrame) and f.stream_id == stream_id]
        return b"".join(frame.data for frame in frames)

    def resets(self) -> dict[int, int]:
        """Which streams the client reset, and why."""
        return {f.stream_id: f.error_code for f in self.frames if isinstance(f, RstStreamFrame)}

    def goaways(self) -> list[int]:
        """The errors with which the client left."""
        return [frame.error_code for frame in self.frames if isinstance(frame, GoAwayFrame)]

    def window_updates(self, stream_id: int) -> int:
        """How many bytes more the client asked for, on a stream or, with 0, on all."""
        return sum(
            frame.window_increment
            for frame in self.frames
            if isinstance(frame, WindowUpdateFrame) and frame.stream_id == stream_id
        )

    def settings_acks(self) -> int:
        """How many SETTINGS the client has acknowledged."""
        return sum(isinstance(f, SettingsFrame) and "ACK" in f.flags for f in self.frames)

    def _cut(self, data: bytes | bytearray) -> None:
        skipped = min(self._preface, len(data))
        self._preface -= skipped
        self.rest += data[skipped:]
        while len(self.rest) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(bytes(self.rest[:9])))
            if len(self.rest) < 9 + length:
                return
            frame.parse_body(memoryview(bytes(self.rest[9 : 9 + length])))
            del self.rest[: 9 + length]
            self.frames.append(frame)


async def open_peer(stream: trio.abc.Stream, **settings: int) -> Peer:
    """A peer that has sent its SETTINGS, and takes much unless they say otherwise."""
    config = h2.config.H2Configuration(client_side=False)
    connection = h2.connection.H2Connection(config)
    connection.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.INITIAL_WINDOW_SIZE: _AMPLE,
            SettingCodes.MAX_CONCURRENT_STREAMS: 100,
            **{SettingCodes[name.upper()]: value for name, value in settings.items()},
        },
    )
    connection.max_inbound_frame_size = connection.local_settings.max_frame_size
    connection.initiate_connection()
    peer = Peer(stream, connection)
    await peer.flush()
    return peer


Transports = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]


@asynccontextmanager
async def connected(
    transports: Transports = trio.testing.memory_stream_pair,
    *,
    connection_window: int = _AMPLE,
    **settings: int,
) -> AsyncIterator[tuple[Http2Connection, Peer]]:
    """A connection that is open, and its peer, who has yet to look at what came."""
    ours, theirs = transports()
    async with trio.open_nursery() as nursery:
        connection = Http2Connection(ours, "http://peer")
        nursery.start_soon(connection.run)
        peer = await open_peer(theirs, **settings)
        if connection_window > 65535:
            peer.h2.increment_flow_control_window(connection_window - 65535)
        await peer.flush()
        await connection.wait_open()
        await trio.testing.wait_all_tasks_blocked()
        yield connection, peer
        connection.close()


async def open_stream(
    connection: Http2Connection, peer: Peer, *, end: bool = False
) -> tuple[Http2Stream, int]:
    """A stream whose request the peer has seen."""
    stream = connection.open_stream(HEADERS, end=end)
    event = await peer.next(RequestReceived)
    assert event.stream_id == stream.stream_id
    return stream, stream.stream_id


def dialer(
    nursery: trio.Nursery, serve: Callable[[Peer], Awaitable[object]], **settings: int
) -> tuple[Connect, list[Peer]]:
    """A way to make transports: each has a peer of its own, which is served in `nursery`."""
    peers: list[Peer] = []

    async def connect(_origin: Origin, _deadline: float) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = trio.testing.memory_stream_pair()
        peer = await open_peer(theirs, **settings)
        peers.append(peer)
        nursery.start_soon(serve, peer)
        return ours

    return connect, peers


class DeafTransport(trio.abc.Stream):
    """A client's transport, whose other side takes nothing from some time on."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        #: Bytes that the other side still takes.
        self.hears_bytes = math.inf
        self.received_bytes = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, while the other side takes it."""
        await trio.lowlevel.checkpoint()
        self.hears_bytes -= len(data)
        if self.hears_bytes < 0:
            raise trio.BrokenResourceError("nobody takes it")
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """It never blocks."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive what comes all the same."""
        data = await self._stream.receive_some(max_bytes)
        self.received_bytes += len(data)
        return data

    async def aclose(self) -> None:
        """Close both ways."""
        await self._stream.aclose()


def deaf_transports() -> tuple[DeafTransport, trio.abc.Stream]:
    """A client's transport that may be made deaf, and its other side."""
    ours, theirs = trio.testing.memory_stream_pair()
    return DeafTransport(ours), theirs


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when a task waits at its n-th checkpoint, counted from 1."""

    def __init__(self, task: trio.lowlevel.Task, number: int, scope: trio.CancelScope) -> None:
        self._task = task
        self._number = number
        self._scope = scope
        self.seen = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task has come to a checkpoint."""
        if task is self._task:
            self.seen += 1
            if self.seen == self._number:
                self._scope.cancel()


async def cancelled_at(number: int, work: Callable[[], Awaitable[Any]]) -> bool:
    """Do `work`, cancelled at its n-th checkpoint; False when it has fewer."""
    with trio.CancelScope() as scope:
        instrument = CancelAt(trio.lowlevel.current_task(), number, scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            await work()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.seen >= number
