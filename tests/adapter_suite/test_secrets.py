"""The access token and the encryption key are shown to nobody but the service."""

from __future__ import annotations

import logging
import traceback

import pytest

from s2frames import Endpoints, LocalProtocolError, S2FramesError, Settings
from s2frames.retry import Retry
from scenes import SCENES, Flavour, World, open_client
from scripted_server import Connection, answer, head, scripted_server

TOKEN = "token-that-is-secret"
KEY = b"key-that-is-secret-of-32-bytes.."
REFUSAL = answer("401 Unauthorized", b'{"code":"authn","message":"no"}')

SECRETIVE = [pytest.param((scene, {"access_token": TOKEN}), id=str(scene)) for scene in SCENES]


@pytest.mark.parametrize("s2", SECRETIVE, indirect=True)
async def test_they_are_in_no_repr_and_in_no_log(
    s2: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stream = s2.client.stream(s2.basin, "room/1", encryption_key=KEY)
    shown = [repr(s2.client), repr(s2.client.settings), repr(stream), repr(stream.target)]
    async with stream.append_session() as session:
        await session.append(b"x")
        shown.append(repr(session))
    async with stream.read_session() as messages:
        assert [message async for message in messages] == [b"x"]
        shown.append(repr(messages))
    shown.append(caplog.text)
    assert [text for text in shown if TOKEN in text or "is-secret" in text] == []
    # httpx does log requests; else this test could not fail.
    assert "POST" in caplog.text


@pytest.mark.parametrize(
    "reply",
    [REFUSAL, b"", b"nonsense\r\n\r\n"],
    ids=["refused", "closed", "garbage"],
)
async def test_they_are_in_no_error(flavour: Flavour, reply: bytes) -> None:
    seen: list[bytes] = []

    def script(connection: Connection) -> None:
        while True:
            seen.append(connection.receive_request())
            connection.send(reply)
            if reply != REFUSAL:
                return

    with scripted_server(script) as server:
        settings = Settings(
            access_token=TOKEN, endpoints=Endpoints.at(server.url), retry=Retry(max_attempts=2)
        )
        async with open_client(flavour, settings) as client:
            stream = client.stream("test-basin", "room/1", encryption_key=KEY)
            async with stream.read_session() as messages:
                session = stream.append_session()
                for call in (
                    stream.check_tail,
                    lambda: session.append(b"x"),
                    lambda: anext(aiter(messages)),
                ):
                    with pytest.raises(S2FramesError) as raised:
                        await call()
                    told = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
                    assert "is-secret" not in told
    # The service was told, each time; what may pass was tried again.
    attempts = 2 if reply == b"" else 1
    assert [TOKEN.encode() in request for request in seen] == [True] * 3 * attempts


@pytest.mark.parametrize("host", ["example.com", "10.0.0.1", "localhost.example.com"])
def test_a_token_does_not_travel_in_the_clear(host: str) -> None:
    endpoints = Endpoints.at(f"http://{host}")
    with pytest.raises(LocalProtocolError, match="allow_insecure") as raised:
        Settings(access_token=TOKEN, endpoints=endpoints)
    assert TOKEN not in str(raised.value)
    Settings(access_token=TOKEN, endpoints=endpoints, allow_insecure=True)
    Settings(endpoints=endpoints)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
async def test_a_token_for_this_machine_passes_no_proxy(
    flavour: Flavour, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(REFUSAL)

    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with scripted_server(lambda _connection: None) as proxy, scripted_server(script) as server:
        monkeypatch.setenv(variable.lower(), proxy.url)
        settings = Settings(access_token=TOKEN, endpoints=Endpoints.at(server.url))
        async with open_client(flavour, settings) as client:
            with pytest.raises(S2FramesError, match="authn"):
                await client.basin_config("test-basin")
        assert (proxy.connections, server.connections) == (0, 1)


async def test_a_token_does_not_follow_a_redirect(flavour: Flavour) -> None:
    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(head("302 Found", f"location: {elsewhere.url}", "content-length: 0"))

    with scripted_server(lambda _connection: None) as elsewhere, scripted_server(script) as server:
        settings = Settings(access_token=TOKEN, endpoints=Endpoints.at(server.url))
        async with open_client(flavour, settings) as client:
            with pytest.raises(S2FramesError):
                await client.basin_config("test-basin")
        assert elsewhere.connections == 0
