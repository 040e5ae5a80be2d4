"""What sessions hold, and give back: memory, connections, file descriptors."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from live_service import live_service
from s2frames import Endpoints, RemoteProtocolError, Settings
from s2frames.records import AppendAck, StreamPosition
from s2frames.wire import encode_append_ack
from scenes import Flavour, open_client, run
from scripted_server import (
    Connection,
    answer,
    content_length,
    message,
    scripted_server,
    session,
)

DESCRIPTORS = Path("/proc/self/fd")


def descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir()))


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="this system does not list descriptors")
def test_sessions_leave_no_descriptors(flavour: Flavour) -> None:
    async def use(num_rounds: int) -> None:
        before = descriptors()
        with live_service() as url:
            settings = Settings(endpoints=Endpoints.at(url))
            async with open_client(flavour, settings) as client:
                await client.create_basin("test-basin")
                stream = client.stream("test-basin", "room/1")
                await stream.create()
                async with stream.append_session() as appending:
                    await appending.append_many([b"x" * 10_000] * 200)
                for _ in range(num_rounds):
                    async with stream.append_session() as appending:
                        await appending.append(b"x")
                    # Left in the middle, so that its connection can be of no further use.
                    async with stream.read_session() as messages:
                        async for _message in messages:
                            break
                # The service's own ends of closed connections may take a while to go.
                assert descriptors() - before < 100

    # What is opened once and for all, is.
    run(flavour, partial(use, 1))
    before = descriptors()
    run(flavour, partial(use, 100))
    assert descriptors() == before


# Two do not fit a batch of 1 MiB, so that each message is a batch.
MESSAGE_BYTES = 1_000_000
NUM_MESSAGES = 300

# In flight 32 MiB by default, in the queue as many, and what is being encoded and sent.
MAX_PEAK = 150 * 1024 * 1024


def swallow(connection: Connection) -> None:
    """Take in session after session of messages of one batch each, keep nothing, ack all."""
    tail = 0
    while True:
        left = content_length(connection.receive_head())
        acks = []
        while left:
            size = int.from_bytes(connection.receive_exactly(3), "big")
            connection.skip(size)
            left -= 3 + size
            start, tail = tail, tail + 1
            end = StreamPosition(tail, 0)
            ack = AppendAck(StreamPosition(start, 0), end, end)
            acks.append(message(encode_append_ack(ack)))
        connection.send(session(*acks))


async def test_append_many_needs_memory_for_its_window_only(flavour: Flavour) -> None:
    def messages() -> Iterator[bytes]:
        for n in range(NUM_MESSAGES):
            yield bytes([n % 256]) * MESSAGE_BYTES

    with scripted_server(swallow) as server:
        settings = Settings(endpoints=Endpoints.at(server.url))
        async with open_client(flavour, settings) as client:
            stream = client.stream("test-basin", "room/1")
            async with stream.append_session() as appending:
                tracemalloc.start()
                try:
                    await appending.append_many(messages())
                    _, peak = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
                assert appending.durable_messages == NUM_MESSAGES
    assert MESSAGE_BYTES < peak < MAX_PEAK


async def test_an_endless_answer_to_a_control_call_ends(flavour: Flavour) -> None:
    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(answer("200 OK", b"").replace(b"length: 0", b"length: 9999999999"))
        while True:
            connection.send(b" " * 65536)

    with scripted_server(script) as server:
        settings = Settings(endpoints=Endpoints.at(server.url))
        async with open_client(flavour, settings) as client:
            with pytest.raises(RemoteProtocolError, match="at most"):
                await client.basin_config("test-basin")
