from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from httpx_adapter.gates import AsyncGate
from s2frames import Endpoints, LocalProtocolError, Settings
from s2frames_httpx import AsyncClient, AsyncEmbeddedTransport
from s2frames_httpx.embedded import EMBEDDED_SETTINGS
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


# Whatever is waited for, and whoever waits


@pytest.fixture
def gate() -> AsyncGate:
    """A transport that never answers, as one that connects and connects."""
    return AsyncGate(AsyncEmbeddedTransport())


async def ask(client: AsyncClient) -> None:
    await client.ensure_basin("test-basin")


async def read(client: AsyncClient) -> None:
    async with client.stream("test-basin", "room/1").read_session() as messages:
        await anext(messages)


async def append_together(client: AsyncClient) -> None:
    errors: list[str] = []

    async def append() -> None:
        with pytest.raises(LocalProtocolError) as caught:
            await session.append(b"x")
        errors.append(str(caught.value))

    async with client.stream("test-basin", "room/1").append_session() as session:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(append)
        assert errors == ["the client is closed; 0 messages durable, more may be"] * 3
        # Whoever comes later hears it as well.
        await session.append(b"x")


@pytest.mark.parametrize("use", [ask, read, append_together])
async def test_closing_wakes_all_who_wait_for_anything(gate: AsyncGate, use: Any) -> None:
    client = AsyncClient(EMBEDDED_SETTINGS, transport=gate)

    async def wait() -> None:
        with pytest.raises(LocalProtocolError, match=r"^the client is closed"):
            await use(client)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await gate.reached.wait()
        await anyio.wait_all_tasks_blocked()
        await client.close()


@pytest.mark.parametrize(
    "failure", [RuntimeError("Event loop is closed"), anyio.ClosedResourceError()]
)
async def test_what_closing_breaks_is_told_in_our_words(failure: Exception) -> None:
    async def close_and_fail(_request: httpx.Request) -> httpx.Response:
        await client.http.aclose()
        raise failure

    client = AsyncClient(EMBEDDED_SETTINGS, transport=httpx.MockTransport(close_and_fail))
    with pytest.raises(LocalProtocolError, match=r"^the client is closed$") as caught:
        await client.ensure_basin("test-basin")
    closing = caught.value.__cause__
    assert closing is not None
    assert closing.__cause__ is failure


async def test_a_follower_in_process_ends_though_its_body_is_read_already() -> None:
    """Closed between two waits: the next one does not begin."""
    client = AsyncClient.embedded()
    await client.create_basin("test-basin")
    stream = client.stream("test-basin", "room/1")
    await stream.create()
    async with stream.append_session() as session:
        await session.append(b"a")
    async with stream.read_session(follow=True) as messages:
        assert await anext(messages) == b"a"
        await client.close()
        with pytest.raises(LocalProtocolError, match=r"^the client is closed$"):
            await anext(messages)
