"""Servers that are absent, broken or hostile, with every adapter: a typed error, never a hang."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from live_service import refused_url
from s2frames import (
    Endpoints,
    LocalProtocolError,
    Outcome,
    RemoteProtocolError,
    S2FramesError,
    SeqNumMismatch,
    ServiceError,
    Settings,
    TransportError,
    pace,
)
from s2frames.retry import Retry
from s2frames_httpx import AsyncClient, feed
from scenes import EVERY_FLAVOUR, Flavour, open_client
from scripted_server import (
    Connection,
    Script,
    answer,
    head,
    message,
    scripted_server,
    session,
    terminal,
)

Work = Callable[[AsyncClient], Coroutine[Any, Any, object]]


async def call(client: AsyncClient) -> object:
    return await client.ensure_basin("test-basin")


async def append(client: AsyncClient) -> object:
    async with client.stream("test-basin", "room/1").append_session() as appending:
        return await appending.append(b"x")


async def append_alone(client: AsyncClient) -> object:
    """As a unary append, and so large that much of it is sent after the head."""
    stream = client.stream("test-basin", "room/1")
    async with stream.append_session(burst_batches=1) as appending:
        return await appending.append(b"x" * 1_000_000)


async def read(client: AsyncClient) -> object:
    async with client.stream("test-basin", "room/1").read_session() as reading:
        return [received async for received in reading]


ONCE = Retry(max_attempts=1)

EVERYTHING = [call, append, append_alone, read]
SESSIONS = [append, read]

every_work = pytest.mark.parametrize("work", EVERYTHING)

# Where no server of HTTP/1.1 is needed. Unary appends are for bursts, and those for httpx.
everywhere = pytest.mark.parametrize(
    ("flavour", "work"),
    [
        pytest.param(kind, work, id=f"{kind.value}-{work.__name__}")
        for kind in EVERY_FLAVOUR
        for work in EVERYTHING
        if kind.uses_httpx or work is not append_alone
    ],
    indirect=["flavour"],
)


async def error_at(url: str, flavour: Flavour, work: Work, **changes: Any) -> S2FramesError:
    """The error in which that work at that URL ends, tried once unless `changes` say otherwise."""
    settings = Settings(endpoints=Endpoints.at(url), **{"retry": ONCE, **changes})
    async with open_client(flavour, settings) as client:
        with pytest.raises(S2FramesError) as raised:
            await work(client)
        return raised.value


async def error_with(script: Script, flavour: Flavour, work: Work, **changes: Any) -> S2FramesError:
    """The error in which that work with such a server ends."""
    with scripted_server(script) as server:
        return await error_at(server.url, flavour, work, **changes)


def says(data: bytes) -> Script:
    """A server that takes a request in and says this."""

    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(data)

    return script


# Nobody there


@everywhere
async def test_a_refused_connection(flavour: Flavour, work: Work) -> None:
    with refused_url() as url:
        error = await error_at(url, flavour, work)
    assert isinstance(error, TransportError)
    assert url in str(error)
    assert str(error).startswith(("cannot connect", "the connection was refused"))


@everywhere
async def test_an_unknown_host(flavour: Flavour, work: Work) -> None:
    # RFC 6761, 6.4: no name ends in "invalid".
    error = await error_at("http://no-such-host.invalid", flavour, work)
    assert isinstance(error, TransportError)
    assert "no-such-host.invalid" in str(error)


@everywhere
@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".test", "xn--a"])
async def test_a_host_name_that_is_none(flavour: Flavour, work: Work, host: str) -> None:
    error = await error_at(f"http://{host}", flavour, work)
    # Some resolvers refuse the name, some look for it.
    assert isinstance(error, (LocalProtocolError, TransportError))
    assert host in str(error)


# Not S2


@every_work
async def test_an_endpoint_that_speaks_something_else(flavour: Flavour, work: Work) -> None:
    error = await error_with(says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), flavour, work)
    assert isinstance(error, RemoteProtocolError)
    assert "not HTTP" in str(error)


@every_work
async def test_an_endpoint_that_is_a_web_site(flavour: Flavour, work: Work) -> None:
    page = answer("200 OK", b"<html>Welcome</html>", "text/html")
    assert isinstance(await error_with(says(page), flavour, work), RemoteProtocolError)


@every_work
@pytest.mark.parametrize("status", [404, 500, 302])
async def test_an_error_page(flavour: Flavour, work: Work, status: int) -> None:
    page = answer(f"{status} Status", b"<html>Sorry</html>", "text/html")
    error = await error_with(says(page), flavour, work)
    assert isinstance(error, ServiceError)
    assert (error.status, error.code) == (status, None)
    assert "Sorry" not in str(error)
    what = "a redirect to another place" if status == 302 else "text/html, 18 bytes"
    assert what in str(error)


@every_work
async def test_a_token_that_is_not_accepted(flavour: Flavour, work: Work) -> None:
    body = b'{"code":"authn","message":"who are you?"}'
    error = await error_with(says(answer("401 Unauthorized", body)), flavour, work)
    assert isinstance(error, ServiceError)
    assert (error.status, error.code, error.message) == (401, "authn", "who are you?")


@every_work
async def test_a_redirect_is_not_followed(flavour: Flavour, work: Work) -> None:
    away = head("307 Temporary Redirect", "location: /elsewhere", "content-length: 0")
    with scripted_server(says(away)) as server:
        error = await error_at(server.url, flavour, work)
        assert server.connections == 1
    assert isinstance(error, ServiceError)
    assert error.status == 307


@every_work
async def test_a_huge_error_body(flavour: Flavour, work: Work) -> None:
    page = answer("500 Internal Server Error", b"x" * 20_000_000, "text/html")
    error = await error_with(says(page), flavour, work)
    assert isinstance(error, (ServiceError, RemoteProtocolError))
    assert len(str(error)) < 1000


# Connections that break


@every_work
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        head("200 OK", "content-type: s2s/proto") + b"\x00",
        head("200 OK", "content-length: 100") + b"{",
        head("200 OK", "content-type: s2s/proto", "transfer-encoding: chunked") + b"ff\r\n\x00",
        session(message(b"")[:2], end=False),
    ],
    ids=["nothing", "in the head", "no length", "in the body", "in a chunk", "no end"],
)
async def test_a_connection_that_is_closed_early(flavour: Flavour, work: Work, data: bytes) -> None:
    error = await error_with(says(data), flavour, work)
    assert isinstance(error, (TransportError, RemoteProtocolError))


@every_work
@pytest.mark.parametrize("status", [404, 500])
async def test_an_error_that_breaks_off(flavour: Flavour, work: Work, status: int) -> None:
    data = head(f"{status} No", "content-length: 100") + b"{"
    error = await error_with(says(data), flavour, work)
    assert isinstance(error, ServiceError)
    assert (error.status, error.is_incomplete) == (status, True)
    assert isinstance(error.__cause__, TransportError)


@every_work
async def test_a_connection_that_is_closed_before_the_request(flavour: Flavour, work: Work) -> None:
    error = await error_with(lambda _connection: None, flavour, work)
    assert isinstance(error, TransportError)


# An answer that takes too long. Nothing here depends on how long exactly.

IMPATIENT = {"connect_timeout": 0.2, "request_timeout": 0.2}


@pytest.fixture
def no_slow_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are known to be fast: a minute for each MiB is too long for a test."""
    for module in (pace, feed):
        monkeypatch.setattr(module, "MIN_RATE", 1e9)


@pytest.mark.usefixtures("no_slow_lines")
@every_work
async def test_a_server_that_never_answers(flavour: Flavour, work: Work) -> None:
    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.wait_until_closed()

    error = await error_with(script, flavour, work, **IMPATIENT)
    assert isinstance(error, TransportError)


@pytest.mark.usefixtures("no_slow_lines")
@pytest.mark.parametrize("work", [call, append, append_alone])
async def test_a_server_that_stops_in_its_answer(flavour: Flavour, work: Work) -> None:
    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(head("200 OK", "content-length: 100") + b"{")
        connection.wait_until_closed()

    error = await error_with(script, flavour, work, **IMPATIENT)
    assert isinstance(error, (TransportError, RemoteProtocolError))


@pytest.mark.usefixtures("no_slow_lines")
@pytest.mark.parametrize("work", [append, append_alone])
async def test_a_server_that_never_reads(flavour: Flavour, work: Work) -> None:
    async def append_much(client: AsyncClient) -> object:
        async with client.stream("test-basin", "room/1").append_session() as appending:
            return await appending.append(b"x" * 20_000_000)

    much = append_much if work is append else append_alone

    is_over = threading.Event()

    def script(connection: Connection) -> None:
        connection.receive_head()
        is_over.wait()

    with scripted_server(script) as server:
        try:
            error = await error_at(server.url, flavour, much, **IMPATIENT)
        finally:
            is_over.set()
    assert isinstance(error, TransportError)
    assert error.outcome is Outcome.UNKNOWN


# Sessions


@pytest.mark.parametrize("work", SESSIONS)
@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        message(b"\xff\xff\xff\xff"),
        b"\x00\x00\x05\x60abcd",
        b"\x00\x00\x05\x40abcd",
        b"\x00\x00\x01\x80",
    ],
)
async def test_garbage_in_a_session(flavour: Flavour, work: Work, data: bytes) -> None:
    error = await error_with(says(session(data)), flavour, work)
    assert isinstance(error, RemoteProtocolError)


@pytest.mark.parametrize("work", SESSIONS)
@pytest.mark.parametrize("data", [message(b"")[:3], message(b"abcdefgh")[:7]])
async def test_a_session_that_ends_inside_a_message(
    flavour: Flavour, work: Work, data: bytes
) -> None:
    error = await error_with(says(session(data)), flavour, work)
    assert isinstance(error, TransportError)


@pytest.mark.parametrize("work", SESSIONS)
async def test_an_error_that_ends_a_session(flavour: Flavour, work: Work) -> None:
    body = b'{"code":"unavailable","message":"come back later"}'
    error = await error_with(says(session(terminal(503, body))), flavour, work)
    assert isinstance(error, ServiceError)
    assert (error.status, error.code) == (503, "unavailable")


async def test_an_append_session_without_acks(flavour: Flavour) -> None:
    error = await error_with(says(session()), flavour, append)
    assert isinstance(error, TransportError)
    assert (error.outcome, error.durable_messages) == (Outcome.UNKNOWN, 0)


async def test_a_session_that_is_refused_was_not_applied(flavour: Flavour) -> None:
    body = b'{"code":"permission_denied","message":"no"}'
    error = await error_with(says(answer("403 Forbidden", body)), flavour, append)
    assert (error.outcome, error.durable_messages) == (Outcome.NOT_APPLIED, 0)


# An answer that comes while the request is still being sent

MISMATCH = answer("412 Precondition Failed", b'{"seq_num_mismatch":7}')


async def append_five_mebibytes(client: AsyncClient) -> object:
    stream = client.stream("test-basin", "room/1")
    async with stream.append_session(match_seq_num=0) as appending:
        return await appending.append(b"x" * 5 * 1024 * 1024)


async def test_an_early_answer_of_a_server_that_reads_on(flavour: Flavour) -> None:
    def script(connection: Connection) -> None:
        connection.receive_head()
        connection.send(MISMATCH)
        connection.wait_until_closed()

    error = await error_with(script, flavour, append_five_mebibytes)
    assert isinstance(error, SeqNumMismatch)
    assert (error.expected, error.outcome) == (7, Outcome.NOT_APPLIED)


async def test_an_early_answer_of_a_server_that_hangs_up(flavour: Flavour) -> None:
    def script(connection: Connection) -> None:
        connection.receive_head()
        connection.send(MISMATCH)

    error = await error_with(script, flavour, append_five_mebibytes)
    # The reset may overtake the answer.
    assert isinstance(error, (SeqNumMismatch, TransportError))


# Misuse


@everywhere
async def test_a_client_that_is_closed(flavour: Flavour, work: Work) -> None:
    settings = Settings(endpoints=Endpoints.at("http://localhost:9"))
    async with open_client(flavour, settings) as client:
        assert "localhost" not in repr(client)
    with pytest.raises(LocalProtocolError, match="client is closed"):
        await work(client)
    if flavour.uses_httpx:
        # The other one has its block, and nothing else.
        await client.close()
