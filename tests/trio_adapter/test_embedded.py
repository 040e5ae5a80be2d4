"""The embedded service and its client in one block."""

from __future__ import annotations

import pytest
import trio

from s2frames import JSON, ConnectError, LocalProtocolError
from s2frames.embedded import Service
from s2frames.retry import Retry
from s2frames_trio import open_client, open_embedded_client

pytestmark = pytest.mark.usefixtures("real_clock")


async def test_sessions_in_one_block() -> None:
    async with open_embedded_client() as client:
        await client.create_basin("test-basin")
        stream = client.stream("test-basin", "room/1")
        await stream.create()
        async with (
            stream.append_session(codec=JSON) as session,
            stream.read_session(codec=JSON, follow=True, limit=2) as messages,
        ):
            iterator = aiter(messages)
            for n in range(2):
                await session.append({"n": n})
                assert await anext(iterator) == {"n": n}


async def test_a_service_of_ones_own_keeps_what_it_has() -> None:
    service = Service(random=lambda: 0.5)
    async with open_embedded_client(service) as client:
        await client.create_basin("test-basin")
    async with open_embedded_client(service) as client:
        assert [basin.name async for basin in client.list_basins()] == ["test-basin"]


async def test_settings_are_passed_on() -> None:
    async with open_embedded_client(request_timeout=7.0) as client:
        assert client.settings.request_timeout == 7.0
        assert client.settings.endpoints.account.startswith("http://127.0.0.1:")


async def test_leaving_ends_both() -> None:
    async with open_embedded_client(retry=Retry(max_attempts=1)) as client:
        settings = client.settings
        await client.create_basin("test-basin")
    with pytest.raises(LocalProtocolError, match="client is closed"):
        await client.create_basin("another-basin")
    async with open_client(settings) as another:
        with pytest.raises(ConnectError, match="refused"):
            await another.create_basin("another-basin")


async def test_an_exception_comes_out_as_it_is() -> None:
    async def fail() -> None:
        async with open_embedded_client() as client:
            await client.create_basin("test-basin")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()


async def test_cancelling_it_leaves_nothing() -> None:
    with trio.CancelScope() as scope:
        async with open_embedded_client() as client:
            await client.create_basin("test-basin")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
