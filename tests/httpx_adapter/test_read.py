from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
from attrs import define, field

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


def leave_messages(stream: Stream) -> None:
    for message in stream.read_session(follow=True):
        assert message == b"0"
        break


def leave_frames(stream: Stream) -> None:
    for frame in stream.read_session(follow=True).frames():
        assert frame.start == 0
        break


def leave_in_a_cycle(stream: Stream) -> None:
    session: Any = stream.read_session(follow=True)
    session.itself = session
    assert next(session) == b"0"


def leave_a_block_in_a_generator(stream: Stream) -> None:
    def messages() -> Iterator[bytes]:
        with stream.read_session(follow=True) as session:
            for message in session:
                yield message + b""

    assert next(messages()) == b"0"


LEAVING = [leave_messages, leave_frames, leave_in_a_cycle, leave_a_block_in_a_generator]


def leave_a_generator_that_closes(stream: Stream) -> None:
    def messages() -> Iterator[bytes]:
        # Left here, it closes what it has its messages from.
        yield from stream.read_session(follow=True)

    generator: Any = messages()
    assert next(generator) == b"0"
    cycle = [generator]
    cycle.append(cycle)


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("then", [lambda stream, _: stream.check_tail(), lambda _, c: c.close()])
def test_what_is_left_open_is_closed_by_the_next_call_or_with_the_client(
    inner: EmbeddedTransport,
    leave: Callable[[Stream], None],
    then: Callable[[Stream, Client], object],
) -> None:
    counter = Counter(inner)
    client = Client(EMBEDDED_SETTINGS, transport=counter)
    stream = client.stream("test-basin", "room/1")
    leave(stream)
    gc.collect()
    # The collector comes anywhere: it closes nothing itself.
    assert counter.num_open == 1
    then(stream, client)
    assert counter.num_open == 0


@define(eq=False)
class Locking(httpx.BaseTransport):
    """Has a lock as a connection pool has one, and is found by the collector while it holds it."""

    inner: httpx.BaseTransport
    lock: threading.Lock = field(factory=threading.Lock)
    num_closed: int = 0
    #: Who would have waited for ever.
    deadlocks: list[str] = field(factory=list)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            gc.collect()
        response = self.inner.handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = LockingBody(self, response.stream)
        return response

    def note(self, what: str) -> None:
        if self.lock.locked():
            self.deadlocks.append(what)


@define(eq=False)
class LockingBody(httpx.SyncByteStream):
    owner: Locking
    inner: httpx.SyncByteStream

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.inner
        finally:
            # httpcore closes here, too.
            self.owner.note("a body that is dropped")

    def close(self) -> None:
        self.owner.note("a body that is closed")
        self.owner.num_closed += 1
        self.inner.close()


@pytest.mark.parametrize("leave", [*LEAVING, leave_a_generator_that_closes])
def test_the_collector_closes_nothing_in_anyones_lock(
    inner: EmbeddedTransport, leave: Callable[[Stream], None]
) -> None:
    locking = Locking(inner)
    with Client(EMBEDDED_SETTINGS, transport=locking) as client:
        stream = client.stream("test-basin", "room/1")
        gc.collect()
        gc.disable()
        try:
            leave(stream)
            # Finds it only now, if it is a cycle.
            stream.check_tail()
            assert locking.deadlocks == []
            stream.check_tail()
        finally:
            gc.enable()
        # The left one, and two calls.
        assert locking.num_closed == 3
    assert locking.deadlocks == []


def test_a_session_collected_in_the_lock_of_the_connection_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_collections = 0
    assign = httpcore.ConnectionPool._assign_requests_to_connections

    def collect(pool: httpcore.ConnectionPool) -> list[httpcore.ConnectionInterface]:
        nonlocal num_collections
        num_collections += 1
        gc.collect()
        return assign(pool)

    monkeypatch.setattr(httpcore.ConnectionPool, "_assign_requests_to_connections", collect)
    with live_service() as url, Client(Settings(endpoints=Endpoints.at(url))) as client:
        stream = fill(client)
        for leave in (*LEAVING, leave_a_generator_that_closes):
            leave(stream)
            assert stream.check_tail().seq_num == len(MESSAGES)
    assert num_collections > 0


def test_a_thousand_forgotten_readers_leave_nothing_open(inner: EmbeddedTransport) -> None:
    counter = Counter(inner)
    with Client(EMBEDDED_SETTINGS, transport=counter) as client:
        stream = client.stream("test-basin", "room/1")
        for n in range(1000):
            LEAVING[n % 2](stream)
            assert counter.num_open == 1
    assert counter.num_open == 0


def test_a_session_that_is_kept_goes_on_after_break(inner: EmbeddedTransport) -> None:
    counter = Counter(inner)
    session = stream_over(counter).read_session(follow=True, limit=5)
    for _ in session:
        break
    assert counter.num_open == 1
    assert list(session) == MESSAGES[1:]
    assert counter.num_open == 0


DESCRIPTORS = Path("/proc/self/fd")


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="this system does not list descriptors")
def test_forgotten_readers_leave_no_descriptors() -> None:
    def use(num_rounds: int) -> None:
        with live_service() as url, Client(Settings(endpoints=Endpoints.at(url))) as client:
            stream = fill(client)
            for n in range(num_rounds):
                LEAVING[n % 2](stream)

    # What is opened once and for all, is.
    use(1)
    before = len(list(DESCRIPTORS.iterdir()))
    use(1000)
    assert len(list(DESCRIPTORS.iterdir())) == before


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
    monkeypatch.setattr("s2frames_httpx.exchange.time", body)
    answer = httpx.MockTransport(lambda _request: httpx.Response(503, stream=body))
    session = stream_over(answer).read_session(retry=Retry(max_attempts=1))
    with pytest.raises(ServiceError, match=r"status 503, .*; the answer broke off$") as caught:
        list(session)
    assert "no sign of life" in str(caught.value.__cause__)
    assert body.is_closed
    assert LIVENESS_TIMEOUT <= body.now < 2 * LIVENESS_TIMEOUT
