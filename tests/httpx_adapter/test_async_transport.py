"""One client in event loops one after the other."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any

import anyio
import pytest

from httpx_adapter.wires import OK, fetch
from s2frames import Endpoints, Retry, Settings
from s2frames_httpx import AsyncClient
from scripted_server import Connection, chunked, head, scripted_server


def serve(connection: Connection) -> None:
    while True:
        if b"/follow" in connection.receive_request():
            connection.send(head("200 OK", "transfer-encoding: chunked") + chunked(b"x"))
        else:
            connection.send(OK)


def run_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def run_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    pytest.importorskip("uvloop").run(main())


def run_trio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    anyio.run(main, backend="trio")


needs_uvloop = pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed")

RUNNERS = [run_asyncio, run_trio, pytest.param(run_uvloop, marks=needs_uvloop)]


@pytest.mark.parametrize("second", RUNNERS)
@pytest.mark.parametrize("first", RUNNERS)
def test_each_loop_has_connections_of_its_own(
    first: Callable[..., None], second: Callable[..., None]
) -> None:
    got: list[bytes] = []
    with scripted_server(serve) as server:
        settings = Settings(endpoints=Endpoints.at(server.url), retry=Retry(max_attempts=1))
        client = AsyncClient(settings)

        async def call() -> None:
            for _ in range(2):
                response = await fetch(client, server.url)
                got.append(response.content)

        first(call)
        second(call)
        run_asyncio(client.close)
        assert server.connections == 2
    assert got == [b"{}"] * 4


def test_an_answer_that_a_loop_left_open_is_let_go_of() -> None:
    """The warnings of sockets that are left are errors here."""
    with scripted_server(serve) as server:
        settings = Settings(endpoints=Endpoints.at(server.url), retry=Retry(max_attempts=1))
        client = AsyncClient(settings)
        kept: list[Any] = []

        async def leave() -> None:
            request = client.http.build_request("GET", f"{server.url}/follow")
            kept.append(await client.http.send(request, stream=True))

        async def call() -> None:
            assert (await fetch(client, server.url)).content == b"{}"

        for _ in range(3):
            asyncio.run(leave())
            asyncio.run(call())
            kept.clear()
            gc.collect()
        asyncio.run(client.close())
        assert server.connections == 6


def test_closing_in_another_loop() -> None:
    with scripted_server(serve) as server:
        client = AsyncClient(Settings(endpoints=Endpoints.at(server.url)))

        async def call() -> None:
            assert (await fetch(client, server.url)).content == b"{}"

        asyncio.run(call())
        run_trio(client.close)
