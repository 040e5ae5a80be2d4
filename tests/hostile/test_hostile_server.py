"""Clients of a server that says anything: each call ends soon, in a result or an error of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import anyio
import pytest

import s2frames.operation
import s2frames.read
from hostile.servers import HEALTHY_NAME, HostileServer, serve_http1, serve_http2
from s2frames import Endpoints, Settings
from s2frames.errors import (
    RemoteProtocolError,
    S2FramesError,
    ServiceError,
    TransportError,
)
from s2frames.retry import Retry
from s2frames_httpx import AsyncClient, AsyncStream
from scenes import EVERY_FLAVOUR, Flavour, open_client, run
from scripted_server import ScriptedServer, scripted_server

# Calls and sessions of each kind of client.
_ROUNDS = 20

# Seconds. Every deadline below is far shorter, so that what takes this long hangs.
_PATIENCE = 30


async def read(stream: AsyncStream) -> object:
    async with stream.read_session(max_frame_bytes=10_000) as messages:
        return [message async for message in messages]


async def read_last(stream: AsyncStream) -> object:
    async with stream.read_session(last=2, on_corrupt="skip") as messages:
        return [message async for message in messages]


async def append(stream: AsyncStream) -> object:
    async with stream.append_session() as session:
        return await session.append(b"message")


async def append_exclusively(stream: AsyncStream) -> object:
    async with stream.append_session(exclusive=True) as session:
        return await session.append_many([b"a", b"b", b"c"])


async def check_tail(stream: AsyncStream) -> object:
    return await stream.check_tail()


async def config(stream: AsyncStream) -> object:
    return await stream.config()


async def fencing_token(stream: AsyncStream) -> object:
    return await stream.fencing_token()


async def recover_writer(stream: AsyncStream) -> object:
    return await stream.recover_writer("left")


Work = Callable[[AsyncStream], Awaitable[object]]
WORKS: list[Work] = [
    *(read, read_last, append, append_exclusively),
    *(check_tail, config, fencing_token, recover_writer),
]


async def attack(how: Flavour, good: ScriptedServer, bad: ScriptedServer) -> Counter[str]:
    """Let the client work, again and again; how it ended, by the kind of error."""
    settings = Settings(
        endpoints=Endpoints(good.url, bad.url),
        connect_timeout=0.2,
        request_timeout=0.3,
        retry=Retry(max_attempts=2, max_seconds=1, connect_seconds=1, min_delay=0, max_delay=0),
    )
    ends: Counter[str] = Counter()
    async with open_client(how, settings) as client:
        for _ in range(_ROUNDS):
            for work in WORKS:
                ends[await end_of(how, work, client)] += 1
                # The other server has nothing to do with it.
                names = [basin.name async for basin in client.list_basins()]
                assert names == [HEALTHY_NAME]
    return ends


async def end_of(how: Flavour, work: Work, client: AsyncClient) -> str:
    try:
        if not how.is_async:
            await work(client.stream("test-basin", "room/1"))
        else:
            with anyio.fail_after(_PATIENCE):
                await work(client.stream("test-basin", "room/1"))
    except S2FramesError as error:
        # What cannot be printed is of no use.
        str(error).encode()
        kinds = (RemoteProtocolError, ServiceError, TransportError)
        return next((kind.__name__ for kind in kinds if isinstance(error, kind)), "other")
    return "result"


# The watchdog of the synchronous client, whose calls nothing else interrupts.
@pytest.mark.timeout(_PATIENCE * 3)
@pytest.mark.parametrize("how", EVERY_FLAVOUR, ids=lambda how: how.value)
def test_a_hostile_server(how: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (s2frames.read, s2frames.operation):
        monkeypatch.setattr(module, "LIVENESS_TIMEOUT", 0.1)
    hostile = HostileServer(f"hostile {how.value}")
    healthy, script = (
        (serve_http1, hostile.http1) if how.uses_httpx else (serve_http2, hostile.http2)
    )
    ends: list[Counter[str]] = []
    with scripted_server(healthy) as good, scripted_server(script) as bad:

        async def main() -> None:
            ends.append(await attack(how, good, bad))

        run(how, main)
    assert sum(ends[0].values()) == _ROUNDS * len(WORKS)
    # It went through every gate.
    for kind in ("result", "RemoteProtocolError", "ServiceError", "TransportError"):
        assert ends[0][kind] >= 1, ends
