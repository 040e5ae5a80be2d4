"""The embedded service behind scripted connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from attrs import define, field
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset

from s2frames import Endpoints, Settings
from s2frames.embedded import Exchange, Service
from s2frames.retry import Retry
from s2frames_trio import Client, Stream
from s2frames_trio.pool import open_pool
from trio_adapter.peers import Peer, dialer

__all__ = ["Host", "numbers", "opened", "read_all"]

# Tries again at once.
FAST = Retry(min_delay=0, max_delay=0)


@define(eq=False)
class _Answer:
    """A request that a host has, and what it says to it."""

    peer: Peer
    stream_id: int
    exchange: Exchange
    has_head: bool = False
    #: What the client's windows have no room for yet.
    unsent: bytearray = field(factory=bytearray)


@define(eq=False)
class Host:
    """The embedded service behind scripted connections."""

    service: Service = field(factory=lambda: Service(random=lambda: 0.5))
    peers: list[Peer] = field(factory=list)
    #: Whether clients may send more than the first window.
    takes_more: bool = True
    #: Whether what the service says is held back.
    is_mute: bool = False
    #: Asked before anything of an answer is sent; True: it is not.
    spoil: Callable[[Peer, int], Awaitable[bool]] | None = None
    #: Bytes of the largest frame of an answer.
    frame_bytes: int = 16384
    num_requests: int = 0
    _answers: dict[tuple[int, int], _Answer] = field(factory=dict)
    _pumping: trio.Lock = field(factory=trio.Lock)

    async def serve(self, peer: Peer) -> None:
        """Answer on one connection."""
        self.peers.append(peer)
        try:
            while await peer.receive():
                events, peer.events = peer.events, []
                for event in events:
                    self._take(peer, event)
                await self.pump()
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            """One of the two has left."""
        for key in [key for key in self._answers if key[0] == id(peer)]:
            self._answers.pop(key).exchange.connection_lost(trio.current_time())

    def _take(self, peer: Peer, event: Event) -> None:
        now = trio.current_time()
        stream_id = getattr(event, "stream_id", 0)
        answer = self._answers.get((id(peer), stream_id))
        if isinstance(event, RequestReceived):
            self.num_requests += 1
            headers = [(name.decode(), value.decode()) for name, value in event.headers]
            pseudo = dict(headers)
            exchange = self.service.open(
                pseudo[":method"],
                pseudo[":path"],
                [(name, value) for name, value in headers if not name.startswith(":")],
                now,
                lambda: None,
            )
            self._answers[id(peer), stream_id] = _Answer(peer, stream_id, exchange)
        elif answer is None:
            return
        elif isinstance(event, DataReceived):
            answer.exchange.receive_data(event.data, now)
            if self.takes_more:
                peer.h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
        elif isinstance(event, StreamEnded):
            answer.exchange.receive_eof(now)
        elif isinstance(event, StreamReset):
            self._answers.pop((id(peer), stream_id)).exchange.connection_lost(now)

    async def pump(self) -> None:
        """Say what there is to say, on all connections."""
        async with self._pumping:
            for key, answer in list(self._answers.items()):
                if self.is_mute or self._answers.get(key) is not answer:
                    continue
                answer.exchange.handle_timeout(trio.current_time())
                data = b"".join(answer.exchange.data_to_send())
                if answer.exchange.response is not None:
                    await self._send(key, answer, data)

    async def _send(self, key: tuple[int, int], answer: _Answer, data: bytes) -> None:
        peer, stream_id, response = answer.peer, answer.stream_id, answer.exchange.response
        assert response is not None
        if (data or not answer.has_head) and self.spoil and await self.spoil(peer, stream_id):
            self._answers.pop(key, None)
            return
        if not answer.has_head:
            answer.has_head = True
            peer.h2.send_headers(stream_id, [(":status", str(response.status)), *response.headers])
        answer.unsent += data
        while size := min(
            len(answer.unsent), peer.h2.local_flow_control_window(stream_id), self.frame_bytes
        ):
            peer.h2.send_data(stream_id, bytes(answer.unsent[:size]))
            del answer.unsent[:size]
        if answer.exchange.finished and not answer.unsent:
            self._answers.pop(key, None)
            peer.h2.end_stream(stream_id)
        await peer.flush()

    @property
    def num_open(self) -> int:
        """Requests that are not over."""
        return len(self._answers)


@asynccontextmanager
async def opened(
    host: Host, *, limits: dict[str, int] | None = None, **changes: Any
) -> AsyncIterator[tuple[Client, Stream]]:
    """A client of the host, and a stream that is there and empty."""
    settings = Settings(endpoints=Endpoints.at("http://peer"), **{"retry": FAST, **changes})
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, host.serve, **(limits or {}))
        async with open_pool(connect_with=connect) as pool:
            client = Client(settings, pool)
            await client.create_basin("test-basin")
            stream = client.stream("test-basin", "room/1")
            await stream.create()
            yield client, stream
        nursery.cancel_scope.cancel()


async def read_all(stream: Stream) -> list[bytes]:
    async with stream.read_session() as messages:
        return [message async for message in messages]


def numbers(count: int) -> list[bytes]:
    return [b"%d" % n for n in range(count)]
