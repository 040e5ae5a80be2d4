"""The access token and the encryption key are shown to nobody but the service."""

from __future__ import annotations

import gc
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import hpack
import pytest

from hostile.mutate import raw_frame
from s2frames import Endpoints, LocalProtocolError, S2FramesError, Settings
from s2frames.retry import Retry
from s2frames.target import StreamTarget
from s2frames_httpx import AsyncStream
from scenes import EVERY_SCENE, Flavour, Place, World, open_client
from scripted_server import Connection, answer, head, scripted_server
from secret_forms import found_in, hearing_all
from trio_adapter.peers import PREFACE

TOKEN = "token-that-is-secret"
KEY = b"key-that-is-secret-of-32-bytes.."
REFUSAL = answer("401 Unauthorized", b'{"code":"authn","message":"no"}')

SECRETIVE = [pytest.param((scene, {"access_token": TOKEN}), id=str(scene)) for scene in EVERY_SCENE]
# As they are sent, and the key as it is.
SENT = (TOKEN.encode(), b64encode(KEY))
SECRETS = (*SENT, KEY)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What all loggers say, and what a test adds: nothing of it may hold a secret."""
    # What earlier tests have left is not looked at: it may be much.
    gc.collect()
    gc.freeze()
    try:
        with hearing_all() as heard:
            yield heard
        assert found_in(heard, SECRETS) == []
    finally:
        gc.unfreeze()


def ours() -> list[object]:
    """Every object of ours that was made in this test and lives now."""
    names = ("s2frames", "s2frames_httpx", "s2frames_trio")
    # A type made in C may have something else there.
    return [it for it in gc.get_objects() if str(type(it).__module__).split(".")[0] in names]


def story_of(error: BaseException) -> str:
    """All that can be shown of an error."""
    return "".join((repr(error), str(error), *traceback.format_exception(error)))


@pytest.mark.parametrize("s2", SECRETIVE, indirect=True)
async def test_they_are_in_no_repr_no_error_and_no_log(said: list[str], s2: World) -> None:
    stream = s2.client.stream(s2.basin, "room/1", encryption_key=KEY)
    said += [repr(s2.client), repr(s2.client.settings), repr(stream), repr(stream.target)]
    async with stream.append_session() as session:
        for message in (b"x", b"y" * 100_000):
            await session.append(message)
        said.append(repr(session))
        said += map(repr, ours())
    async with stream.read_session() as messages:
        assert [message async for message in messages] == [b"x", b"y" * 100_000]
        said.append(repr(messages))
        said += map(repr, ours())
    said += [story async for story in failures(s2)]
    # The loggers of dependencies do speak of requests; else this test could not fail.
    assert s2.scene.place is Place.EMBEDDED or not s2.flavour.uses_httpx or "POST" in str(said)


async def failures(s2: World) -> AsyncIterator[str]:
    """What is told of calls and sessions that fail, with a key and a token."""
    missing = s2.client.stream(s2.basin, "missing", encryption_key=KEY)
    there = s2.client.stream(s2.basin, "room/1", encryption_key=KEY)

    async def append(stream: AsyncStream) -> None:
        async with stream.append_session(fencing_token="none of ours") as session:
            await session.append(b"x")

    async def read(stream: AsyncStream, **options: Any) -> None:
        async with stream.read_session(**options) as messages:
            [message async for message in messages]

    calls: list[Callable[[], Awaitable[object]]] = [
        missing.check_tail,
        partial(append, missing),
        partial(append, there),
        partial(read, missing),
        partial(read, there, start=10_000),
        partial(s2.client.create_basin, s2.basin),
    ]
    for call in calls:
        with pytest.raises(S2FramesError) as raised:
            await call()
        yield story_of(raised.value)


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"{TOKEN}\x00", f"{TOKEN}ä", f" {TOKEN}"])
def test_a_token_that_cannot_be_sent_is_not_shown(token: str) -> None:
    with pytest.raises(LocalProtocolError, match="access token") as raised:
        Settings(access_token=token)
    assert found_in([story_of(raised.value)], SECRETS) == []


def test_a_key_that_is_none_is_not_shown() -> None:
    with pytest.raises(LocalProtocolError, match="encryption_key") as raised:
        StreamTarget(Settings(), "test-basin", "room/1", encryption_key=KEY + b"more")
    assert found_in([story_of(raised.value)], SECRETS) == []


# What an HTTP/2 server says to a request, in frames on its stream.
FRAMES = {
    "reset": raw_frame(3, 0, 1, bytes(4)),
    "no head": raw_frame(0, 1, 1, b"x"),
    "bad header block": raw_frame(1, 4, 1, b"\xff" * 9),
    "refused": raw_frame(1, 5, 1, b"\x8c"),
    # A head that says what it was asked with.
    "echoed": raw_frame(1, 5, 1, hpack.Encoder().encode([(":status", "200"), ("x", TOKEN)])),
    "echoed badly": raw_frame(1, 5, 1, hpack.Encoder().encode([("X", TOKEN)])),
    "sent away": raw_frame(7, 0, 0, bytes(8)),
    "closed": b"",
    "garbage": b"nonsense" * 4,
}


@pytest.mark.parametrize("flavour", [Flavour.HTTP2], indirect=True)
@pytest.mark.parametrize("reply", FRAMES.values(), ids=FRAMES)
async def test_they_are_in_no_error_over_http_2(
    flavour: Flavour, reply: bytes, said: list[str]
) -> None:
    seen: list[bytes] = []

    def script(connection: Connection) -> None:
        connection.send(raw_frame(4, 0, 0, b""))
        received = connection.receive_exactly(len(PREFACE))
        while True:
            header = connection.receive_exactly(9)
            body = connection.receive_exactly(int.from_bytes(header[:3], "big"))
            received += header + body
            if header[3] == 1:
                break
        seen.append(received)
        connection.send(reply)

    with scripted_server(script) as server:
        settings = Settings(
            access_token=TOKEN, endpoints=Endpoints.at(server.url), retry=Retry(max_attempts=2)
        )
        async with open_client(flavour, settings) as client:
            stream = client.stream("test-basin", "room/1", encryption_key=KEY)

            async def append() -> None:
                async with stream.append_session() as session:
                    said.append(repr(session))
                    await session.append(b"x")

            async def read() -> None:
                async with stream.read_session() as messages:
                    [message async for message in messages]

            for call in (stream.check_tail, append, read):
                with pytest.raises(S2FramesError) as raised:
                    await call()
                said.append(story_of(raised.value))
    # The service was told, Huffman-coded; the key is of no use to check the tail.
    assert all(found_in([repr(request)], [TOKEN.encode()]) for request in seen)
    assert [bool(found_in([repr(request)], SENT[1:])) for request in seen].count(True) >= 2


@pytest.mark.parametrize("secret", [TOKEN.encode(), KEY, bytes(range(0, 64, 2)), b"\xff" * 32])
@pytest.mark.parametrize("around", [b"", b"a", b"ab", b"Bearer "])
def test_a_secret_is_found_in_every_form(secret: bytes, around: bytes) -> None:
    whole = around + secret + around
    block = hpack.Encoder().encode([(b"x-header", whole)])
    for form in (whole, b64encode(whole), urlsafe_b64encode(whole), whole.hex().encode(), block):
        for text in (f"log: {form!r}", f"log: {form + bytes(1)!r} and {[form]}"):
            assert found_in([text], [secret]), (form, text)
    assert found_in(["", "log: b'another'", f"log: {secret[1:-1]!r}"], [secret]) == []


@pytest.mark.parametrize(
    "reply",
    [REFUSAL, b"", b"nonsense\r\n\r\n"],
    ids=["refused", "closed", "garbage"],
)
async def test_they_are_in_no_error(flavour: Flavour, reply: bytes, said: list[str]) -> None:
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
                    said.append(story_of(raised.value))
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
