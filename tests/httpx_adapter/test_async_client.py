from __future__ import annotations

import anyio
import pytest

from s2frames import Endpoints, LocalProtocolError, Settings
from s2frames_httpx import AsyncClient
from scenes import ASYNC_FLAVOURS

ENVIRONMENT = {
    "S2_ACCESS_TOKEN": "secret",
    "S2_ACCOUNT_ENDPOINT": "https://account.example.com",
    "S2_BASIN_ENDPOINT": "https://{basin}.example.com",
}
ENDPOINTS = Endpoints("https://account.example.com", "https://{basin}.example.com")

pytestmark = [
    pytest.mark.usefixtures("flavour"),
    pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True, ids=str),
]


async def test_from_a_mapping() -> None:
    async with AsyncClient.from_env(ENVIRONMENT, request_timeout=7.0) as client:
        assert client.settings == Settings(
            access_token="secret", endpoints=ENDPOINTS, request_timeout=7.0
        )


async def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    async with AsyncClient.from_env() as client:
        assert client.settings == Settings(access_token="secret", endpoints=ENDPOINTS)


async def test_a_token_in_the_clear_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="allow_insecure"):
        AsyncClient.from_env({**ENVIRONMENT, "S2_BASIN_ENDPOINT": "http://example.com"})


async def test_a_client_may_be_made_before_the_loop_uses_it() -> None:
    client = AsyncClient.embedded()
    await client.create_basin("test-basin")
    await client.close()


async def test_tasks_share_a_client() -> None:
    names = [f"s{n:03}" for n in range(100)]
    async with AsyncClient.embedded() as client:
        await client.create_basin("test-basin")
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(client.stream("test-basin", name).create)
        listed = [info.name async for info in client.list_streams("test-basin")]
    assert listed == names


async def test_a_cancelled_call_leaves_the_client_usable() -> None:
    async with AsyncClient.embedded() as client:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await client.create_basin("test-basin")
        assert scope.cancelled_caught
        await client.ensure_basin("test-basin")
        assert [info.name async for info in client.list_basins()] == ["test-basin"]


async def test_a_stream_says_which_it_is() -> None:
    async with AsyncClient.embedded() as client:
        stream = client.stream("test-basin", "room/1", encryption_key=b"k" * 32)
    assert repr(stream) == "AsyncStream('s2://test-basin/room/1')"
    assert (stream.target.basin, stream.target.stream) == ("test-basin", "room/1")


async def test_a_closed_client_says_so() -> None:
    client = AsyncClient.embedded()
    async with client as entered:
        assert entered is client
    await client.close()
    with pytest.raises(LocalProtocolError, match="client is closed"):
        await client.create_basin("test-basin")
