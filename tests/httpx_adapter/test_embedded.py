from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import httpx
import pytest

from s2frames import TransportError
from s2frames.embedded import Service
from s2frames_httpx import AsyncClient, AsyncEmbeddedTransport, Client, EmbeddedTransport
from s2frames_httpx.embedded import EMBEDDED_SETTINGS
from scenes import ASYNC_FLAVOURS

URL = "http://embedded.localhost"

on_both = pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True, ids=str)


# Requests


def test_a_request_is_answered() -> None:
    with httpx.Client(transport=EmbeddedTransport()) as client:
        assert client.get(f"{URL}/health").text == "OK"
        assert client.get(f"{URL}/elsewhere").status_code == 404


def test_names_are_passed_on_as_they_are_escaped() -> None:
    with httpx.Client(transport=EmbeddedTransport()) as client:
        client.put(f"{URL}/v1/basins/test-basin", json={}).raise_for_status()
        headers = {"s2-basin": "test-basin"}
        client.put(f"{URL}/v1/streams/a%2Fb", headers=headers, json={}).raise_for_status()
        listed = client.get(f"{URL}/v1/streams?prefix=a%2F", headers=headers).json()
    assert [stream["name"] for stream in listed["streams"]] == ["a/b"]


@on_both
@pytest.mark.usefixtures("flavour")
async def test_a_request_is_answered_asynchronously() -> None:
    async with httpx.AsyncClient(transport=AsyncEmbeddedTransport()) as client:
        assert (await client.get(f"{URL}/health")).text == "OK"


async def no_pieces() -> AsyncIterator[bytes]:
    for piece in (b"",):
        yield piece


def no_plain_pieces() -> Iterator[bytes]:
    yield b""


def test_an_asynchronous_request_on_the_plain_transport() -> None:
    request = httpx.Request("POST", f"{URL}/health", content=no_pieces())
    with pytest.raises(TransportError, match="asynchronous"):
        EmbeddedTransport().handle_request(request)


@on_both
@pytest.mark.usefixtures("flavour")
async def test_a_plain_request_on_the_asynchronous_transport() -> None:
    request = httpx.Request("POST", f"{URL}/health", content=no_plain_pieces())
    with pytest.raises(TransportError, match="synchronous"):
        await AsyncEmbeddedTransport().handle_async_request(request)


# The service


def test_a_service_of_ones_own_outlives_its_transport() -> None:
    service = Service(random=lambda: 0.5)
    for number in range(2):
        with Client(EMBEDDED_SETTINGS, transport=EmbeddedTransport(service)) as client:
            assert len(list(client.list_basins())) == number
            client.create_basin(f"test-basin-{number}")


# Following


def test_an_append_wakes_a_follower_in_another_thread() -> None:
    with Client.embedded() as client:
        client.create_basin("test-basin")
        stream = client.stream("test-basin", "room/1")
        stream.create()
        received: list[bytes] = []
        reader = threading.Thread(
            target=lambda: received.extend(stream.read_session(follow=True, limit=20))
        )
        reader.start()
        with stream.append_session() as session:
            for n in range(20):
                session.append(b"%d" % n)
        reader.join()
    assert received == [b"%d" % n for n in range(20)]


@on_both
@pytest.mark.usefixtures("flavour")
async def test_an_append_wakes_followers_in_other_tasks() -> None:
    received: dict[int, list[bytes]] = {}
    async with AsyncClient.embedded() as client:
        await client.create_basin("test-basin")
        stream = client.stream("test-basin", "room/1")
        await stream.create()

        async def follow(number: int) -> None:
            async with stream.read_session(follow=True, limit=20) as messages:
                received[number] = [message async for message in messages]

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(follow, number)
            await anyio.wait_all_tasks_blocked()
            async with stream.append_session() as session:
                for n in range(20):
                    await session.append(b"%d" % n)
    assert received == {number: [b"%d" % n for n in range(20)] for number in range(5)}


@on_both
@pytest.mark.usefixtures("flavour")
async def test_a_loop_of_requests_lets_other_tasks_run() -> None:
    has_run = anyio.Event()

    async def other() -> None:
        has_run.set()

    async with AsyncClient.embedded() as client, anyio.create_task_group() as group:
        group.start_soon(other)
        while not has_run.is_set():
            await client.ensure_basin("test-basin")
