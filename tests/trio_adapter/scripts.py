"""Connections that begin with a script and go on with the embedded service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from h2.events import DataReceived, RequestReceived
from h2.exceptions import ProtocolError

from s2frames import Endpoints, Settings
from s2frames.embedded import Exchange
from s2frames.s2s import Message, MessageDecoder, encode_message
from s2frames.wire import decode_append_input
from s2frames_trio import Client, Stream
from s2frames_trio.pool import Connect, open_pool
from trio_adapter.host import FAST, Host, opened
from trio_adapter.peers import Peer, dialer

__all__ = ["Script", "answer_some", "client_of", "prepared", "scripted"]

#: What happens on a connection before the service has it.
Script = Callable[[Host, Peer], Awaitable[None]]


async def prepared() -> Host:
    """A service that has the stream."""
    host = Host()
    async with opened(host):
        """That made it."""
    host.peers.clear()
    host.num_requests = 0
    return host


@asynccontextmanager
async def client_of(connect: Connect, **changes: Any) -> AsyncIterator[Stream]:
    """The stream, for a client with transports of this kind."""
    settings = Settings(endpoints=Endpoints.at("http://peer"), **{"retry": FAST, **changes})
    async with open_pool(
        connect_with=connect,
        # As `open_client` has it.
        open_timeout=settings.connect_timeout + settings.request_timeout / 2,
    ) as pool:
        yield Client(settings, pool).stream("test-basin", "room/1")


@asynccontextmanager
async def scripted(host: Host, *scripts: Script, **changes: Any) -> AsyncIterator[Stream]:
    """The stream; the first connections begin with these scripts, one each."""
    left = list(scripts)

    async def serve(peer: Peer) -> None:
        if left:
            await left.pop(0)(host, peer)
        try:
            await host.serve(peer)
        except ProtocolError:
            # h2 says no more after the client's GOAWAY.
            assert peer.goaways()

    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, serve)
        async with client_of(connect, **changes) as stream:
            yield stream
        # Here it waits until the client's end has reached every peer.


async def answer_some(
    host: Host, peer: Peer, *, num_received: int, num_batches: int | None = None
) -> tuple[int, Exchange, int]:
    """When so many records have come, let the service see the first batches of them, or all.

    Gives the stream, the exchange, whose answer is still to be sent, and how many records it saw.
    """
    request = await peer.next(RequestReceived)
    headers = [(name.decode(), value.decode()) for name, value in request.headers]
    exchange = host.service.open(
        dict(headers)[":method"],
        dict(headers)[":path"],
        [(name, value) for name, value in headers if not name.startswith(":")],
        trio.current_time(),
    )
    batches = await _receive_batches(peer, request.stream_id, num_received)
    seen = batches[:num_batches]
    for batch in seen:
        exchange.receive_data(b"".join(encode_message(batch)), trio.current_time())
    return request.stream_id, exchange, sum(map(_num_records, seen))


async def _receive_batches(peer: Peer, stream_id: int, num_records: int) -> list[bytes]:
    decoder, batches = MessageDecoder(), list[bytes]()
    while sum(map(_num_records, batches)) < num_records:
        event = await peer.next(DataReceived)
        peer.h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
        await peer.flush()
        decoder.receive_data(event.data)
        while isinstance(message := decoder.next_message(), Message):
            batches.append(message.body)
    return batches


def _num_records(batch: bytes) -> int:
    return len(decode_append_input(batch).records)
