"""A client, its streams, and its end."""

from __future__ import annotations

import pytest
import trio

from s2frames import LocalProtocolError
from s2frames.retry import Retry
from trio_adapter.host import Host, opened
from trio_adapter.peers import Peer


async def test_a_client_that_is_closed_takes_its_sessions_along() -> None:
    host = Host()
    async with opened(host) as (_, stream):
        session = stream.append_session(linger=60)
        await session.__aenter__()
        ticket = await session.submit(b"never sent")
    with pytest.raises(LocalProtocolError, match="client is closed"):
        await ticket
    for call in (session.flush, session.close, lambda: session.submit(b"x")):
        with pytest.raises(LocalProtocolError, match="client is closed"):
            await call()
    # It was told of that.
    await session.__aexit__(None, None, None)
    assert host.num_open == 0


async def test_leaving_a_session_of_a_client_that_was_closed_tells_who_was_not_told() -> None:
    async with opened(Host()) as (_, stream):
        session = stream.append_session(linger=60)
        await session.__aenter__()
        await session.submit(b"never sent")
    with pytest.raises(LocalProtocolError, match=r"^the client is closed; 0 messages durable$"):
        await session.__aexit__(None, None, None)


async def test_a_reader_between_two_attempts_hears_at_once_that_its_client_is_closed() -> None:
    host = Host()
    patient = Retry(min_delay=3600, max_delay=3600, max_seconds=1e6)
    fails = trio.Event()

    async def reset(peer: Peer, stream_id: int) -> bool:
        peer.h2.reset_stream(stream_id)
        await peer.flush()
        return True

    async def read() -> None:
        session = stream.read_session(retry=patient, on_retry=lambda _: fails.set())
        async with session as messages:
            with pytest.raises(LocalProtocolError, match=r"^the client is closed"):
                await anext(messages)

    async with trio.open_nursery() as nursery, opened(host) as (_, stream):
        host.spoil = reset
        nursery.start_soon(read)
        await fails.wait()
        began = trio.current_time()
    assert trio.current_time() - began < 60
