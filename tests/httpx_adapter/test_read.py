from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from attrs import define

from httpx_adapter.gates import Counter, Gate, Recorder
from live_service import live_service
from s2frames import Endpoints, LocalProtocolError, ServiceError, Settings, TransportError
from s2frames.retry import Retry
from s2frames.settings import LIVENESS_TIMEOUT
from s2frames_httpx import Client, EmbeddedTransport, Stream
from s2frames_httpx.embedded import EMBEDDED_SETTINGS
from scripted_server import Connection, head, scripted_server

MESSAGES = [b"%d" % n for n in range(5)]


def fill(client: Client) -> Stream:
    """A stream with five messages."""
    client.create_basin("test-basin")
    stream = client.stream("test-basin", "room/1")
    stream.create()
    with stream.append_session() as session:
        session.append_many(MESSAGES)
    return stream


@pytest.fixture
def inner() -> EmbeddedTransport:
    """A service whose stream has five messages."""
    transport = EmbeddedTransport()
    with Client(EMBEDDED_SETTINGS, transport=transport) as client:
        fill(client)
    return transport


def stream_over(transport: httpx.BaseTransport) -> Stream:
    return Client(EMBEDDED_SETTINGS, transport=transport).stream("test-basin", "room/1")


# Bare loops


def test_a_bare_loop_reads_to_the_end(inner: EmbeddedTransport) -> None:
    counter = Counter(inner)
    assert list(stream_over(counter).read_session()) == MESSAGES
    assert counter.num_open == 0


def test_a_bare_loop_that_is_left_closes_the_answer(inner: EmbeddedTransport) -> None:
    counter = Counter(inner)
    for message in stream_over(counter).read_session(follow=True):
        assert message == b"0"
        assert counter.num_open == 1
        break
    gc.collect()
    assert counter.num_open == 0


def test_a_bare_loop_over_frames_that_is_left_closes_the_answer(inner: EmbeddedTransport) -> None:
    counter = Counter(inner)
    for frame in stream_over(counter).read_session(follow=True).frames():
        assert frame.start == 0
        break
    gc.collect()
    assert counter.num_open == 0


def test_a_session_that_is_kept_goes_on_after_break(inner: EmbeddedTransport) -> None:
    counter = Counter(inner)
    session = stream_over(counter).read_session(follow=True, limit=5)
    for _ in session:
        break
    assert counter.num_open == 1
    assert list(session) == MESSAGES[1:]
    assert counter.num_open == 0


def test_leaving_loops_over_sockets_leaves_nothing_to_warn_of() -> None:
    with live_service() as url, Client(Settings(endpoints=Endpoints.at(url))) as client:
        stream = fill(client)
        for _ in range(20):
            for message in stream.read_session(follow=True):
                assert message == b"0"
                break
        assert list(stream.read_session()) == MESSAGES
    # Whatever was forgotten open would warn, and that is an error.
    gc.collect()


def test_a_block_closes_the_answer(inner: EmbeddedTransport) -> None:
    counter = Counter(inner)
    with stream_over(counter).read_session(follow=True) as messages:
        assert next(messages) == b"0"
    assert counter.num_open == 0
    assert list(messages) == []


def test_an_answer_that_is_an_error_is_closed() -> None:
    counter = Counter(EmbeddedTransport())
    session = stream_over(counter).read_session()
    with pytest.raises(Exception, match="basin_not_found"):
        next(session)
    assert counter.num_open == 0


# Threads


def test_two_threads_on_one_session(inner: EmbeddedTransport) -> None:
    gate = Gate(inner)
    session = stream_over(gate).read_session()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(next, session)
        gate.reached.wait()
        for call in (lambda: next(session), lambda: next(session.frames()), session.close):
            with pytest.raises(LocalProtocolError, match="one thread at a time"):
                call()
        gate.opened.set()
        assert first.result() == b"0"
    assert list(session) == MESSAGES[1:]


# Interruptions


def test_control_c_while_a_read_begins(inner: EmbeddedTransport) -> None:
    left = iter([None])

    def interrupt(_request: httpx.Request) -> None:
        if next(left, ()) is None:
            raise KeyboardInterrupt

    session = stream_over(Recorder(inner, interrupt)).read_session()
    with pytest.raises(KeyboardInterrupt):
        next(session)
    assert list(session) == MESSAGES


@define(eq=False)
class Interrupted(httpx.BaseTransport):
    """Plays control-C after the first byte of the first answer."""

    inner: httpx.BaseTransport
    num_requests: int = 0
    num_closed: int = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self.inner.handle_request(request)
        self.num_requests += 1
        if self.num_requests == 1:
            assert isinstance(response.stream, httpx.SyncByteStream)
            response.stream = InterruptedBody(self, response.stream)
        return response


@define(eq=False)
class InterruptedBody(httpx.SyncByteStream):
    owner: Interrupted
    inner: httpx.SyncByteStream

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.inner:
            yield piece[:1]
            raise KeyboardInterrupt

    def close(self) -> None:
        self.owner.num_closed += 1
        self.inner.close()


def test_after_control_c_inside_a_read_iteration_goes_on(inner: EmbeddedTransport) -> None:
    transport = Interrupted(inner)
    session = stream_over(transport).read_session()
    with pytest.raises(KeyboardInterrupt):
        next(session)
    assert transport.num_closed == 1
    assert list(session) == MESSAGES
    assert transport.num_requests == 2


# Deadlines


def test_an_answer_may_be_silent_for_longer_than_its_head(inner: EmbeddedTransport) -> None:
    timeouts: list[float] = []
    recorder = Recorder(
        inner, lambda request: timeouts.append(request.extensions["timeout"]["read"])
    )
    settings = Settings(endpoints=EMBEDDED_SETTINGS.endpoints, request_timeout=0.5)
    with Client(settings, transport=recorder) as client:
        assert list(client.stream("test-basin", "room/1").read_session()) == MESSAGES
    timeouts += [request.extensions["timeout"]["read"] for request in recorder.requests]
    assert timeouts == [0.5, pytest.approx(LIVENESS_TIMEOUT, abs=0.5)]


def test_a_server_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2frames.read.LIVENESS_TIMEOUT", 0.2)

    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(head("200 OK", "content-type: s2s/proto", "transfer-encoding: chunked"))
        connection.wait_until_closed()

    with scripted_server(script) as server:
        settings = Settings(
            endpoints=Endpoints.at(server.url), request_timeout=0.2, retry=Retry(max_attempts=2)
        )
        with Client(settings) as client:
            session = client.stream("test-basin", "room/1").read_session(follow=True)
            with pytest.raises(TransportError, match=r"no sign of life.*tried 2 times"):
                next(session)
        assert server.connections == 2


# A client that is gone


def test_a_session_of_a_closed_client(inner: EmbeddedTransport) -> None:
    client = Client(EMBEDDED_SETTINGS, transport=inner)
    session = client.stream("test-basin", "room/1").read_session()
    client.close()
    with pytest.raises(LocalProtocolError, match="client is closed"):
        next(session)


# Errors that never end


class Dripping(httpx.SyncByteStream):
    """The body of an answer that has no end; every byte of it takes a second of a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.is_closed = False

    def monotonic(self) -> float:
        return self.now

    def __iter__(self) -> Iterator[bytes]:
        while not self.is_closed and self.now < 3600:
            self.now += 1
            yield b"x"

    def close(self) -> None:
        self.is_closed = True


def test_an_error_whose_body_drips_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    body = Dripping()
    monkeypatch.setattr("s2frames_httpx.feed.time", body)
    answer = httpx.MockTransport(lambda _request: httpx.Response(503, stream=body))
    session = stream_over(answer).read_session(retry=Retry(max_attempts=1))
    with pytest.raises(ServiceError, match=r"status 503, .*; the answer broke off$") as caught:
        list(session)
    assert "no sign of life" in str(caught.value.__cause__)
    assert body.is_closed
    assert LIVENESS_TIMEOUT <= body.now < 2 * LIVENESS_TIMEOUT
