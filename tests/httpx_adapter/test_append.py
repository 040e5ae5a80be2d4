from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from httpx_adapter.gates import LOST, Counter, Gate, Losing, Recorder
from live_service import live_service
from s2frames import (
    Appended,
    Endpoints,
    LocalProtocolError,
    Outcome,
    SeqNumMismatch,
    Settings,
    TransportError,
)
from s2frames.session import Retrying
from s2frames_httpx import AppendSession, Client, EmbeddedTransport, Stream
from s2frames_httpx.closing import Closing
from s2frames_httpx.embedded import EMBEDDED_SETTINGS
from s2frames_httpx.exchange import Exchange


@pytest.fixture
def inner() -> EmbeddedTransport:
    """A service with an empty stream."""
    transport = EmbeddedTransport()
    with Client(EMBEDDED_SETTINGS, transport=transport) as client:
        client.create_basin("test-basin")
        client.stream("test-basin", "room/1").create()
    return transport


def stream_over(transport: httpx.BaseTransport) -> Stream:
    return Client(EMBEDDED_SETTINGS, transport=transport).stream("test-basin", "room/1")


def read_all(transport: httpx.BaseTransport) -> list[bytes]:
    return list(stream_over(transport).read_session())


# Threads


def test_two_threads_on_one_session(inner: EmbeddedTransport) -> None:
    gate = Gate(inner)
    session = stream_over(gate).append_session()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(session.append, b"a")
        gate.reached.wait()
        for call in (lambda: session.append(b"b"), session.flush, session.close):
            with pytest.raises(LocalProtocolError, match="one thread at a time"):
                call()
        gate.opened.set()
        assert first.result() == Appended(0, 1)
    # The session goes on.
    assert session.append(b"c") == Appended(1, 2)
    session.close()
    assert read_all(inner) == [b"a", b"c"]


def test_a_session_inside_its_own_iterable(inner: EmbeddedTransport) -> None:
    session = stream_over(inner).append_session()

    def messages() -> Iterator[bytes]:
        yield b"a"
        session.append(b"b")

    with pytest.raises(LocalProtocolError, match="in use"):
        session.append_many(messages())
    session.close()
    assert read_all(inner) == [b"a"]


def test_many_threads_share_a_client_with_a_session_each() -> None:
    expected = {f"writer-{n}": [b"%d/%d" % (n, m) for m in range(20)] for n in range(8)}
    start = threading.Barrier(len(expected))
    with live_service() as url, Client(Settings(endpoints=Endpoints.at(url))) as client:
        client.create_basin("test-basin")
        stream = client.stream("test-basin", "room/1")
        stream.create()

        def write(writer_id: str) -> None:
            start.wait()
            with stream.append_session(writer_id=writer_id, first_dedupe_seq=0) as session:
                for message in expected[writer_id]:
                    session.append(message)

        with ThreadPoolExecutor(len(expected)) as pool:
            list(pool.map(write, expected))
        received: dict[str | None, list[bytes]] = {}
        for frame in stream.read_session().frames():
            received.setdefault(frame.writer_id, []).append(frame.message)
    assert received == expected


# Interruptions


def interrupting(inner: httpx.BaseTransport, times: int) -> Recorder:
    """Plays control-C for the first requests."""
    left = iter(range(times))

    def interrupt(_request: httpx.Request) -> None:
        if next(left, None) is not None:
            raise KeyboardInterrupt

    return Recorder(inner, interrupt)


def test_after_control_c_the_session_goes_on(inner: EmbeddedTransport) -> None:
    session = stream_over(interrupting(inner, 1)).append_session()
    with pytest.raises(KeyboardInterrupt):
        session.append(b"a")
    assert [message.payload for message in session.pending().messages] == [b"a"]
    assert session.append(b"b") == Appended(1, 2)
    session.close()
    assert read_all(inner) == [b"a", b"b"]


@pytest.mark.parametrize("call", ["flush", "close"])
def test_what_control_c_left_behind_is_sent_by_any_call(
    inner: EmbeddedTransport, call: str
) -> None:
    session = stream_over(interrupting(inner, 2)).append_session()
    with pytest.raises(KeyboardInterrupt):
        session.append(b"a")
    with pytest.raises(KeyboardInterrupt):
        getattr(session, call)()
    getattr(session, call)()
    assert read_all(inner) == [b"a"]


def test_control_c_ends_what_must_not_be_sent_twice(inner: EmbeddedTransport) -> None:
    session = stream_over(interrupting(inner, 1)).append_session(dedupe=False)
    with pytest.raises(KeyboardInterrupt):
        session.append(b"a")
    for again in (lambda: session.append(b"b"), session.flush, session.close):
        with pytest.raises(TransportError, match="the append was interrupted") as raised:
            again()
        assert raised.value.outcome is Outcome.UNKNOWN
    assert read_all(inner) == []


def test_control_c_between_two_attempts(
    inner: EmbeddedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Retrying] = []
    transport = Losing(inner, {0})
    session = stream_over(transport).append_session(on_retry=told.append)
    with monkeypatch.context() as patch:
        patch.setattr(Closing, "wait", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.append(b"a")
    assert [str(event.error) for event in told] == [LOST]
    assert transport.num_requests == 1
    assert session.append(b"b").end == 3
    session.close()
    # The first attempt had landed, and readers drop the repeat.
    assert read_all(inner) == [b"a", b"b"]


def raise_interrupt(_closing: Closing, _seconds: float) -> None:
    raise KeyboardInterrupt


def append_two(session: AppendSession[bytes]) -> None:
    with session:
        session.append(b"a")
        raise KeyboardInterrupt


def test_a_generator_that_the_collector_ends_closes_nothing_of_its_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A session is left with an answer open when Ctrl-C meets its closing, too."""
    counter = Counter(
        httpx.MockTransport(
            lambda _request: httpx.Response(
                200, headers={"content-type": "s2s/proto"}, stream=Interrupted()
            )
        )
    )
    with Client(EMBEDDED_SETTINGS, transport=counter) as client:
        stream = client.stream("test-basin", "room/1")

        def appends() -> Generator[None, None, None]:
            with stream.append_session() as session:
                with monkeypatch.context() as patch:
                    patch.setattr(Exchange, "close", interrupt)
                    with pytest.raises(KeyboardInterrupt):
                        session.append(b"a")
                yield

        generator = appends()
        next(generator)
        assert counter.num_open == 1
        generator.close()
        assert counter.num_open == 1
    assert counter.num_open == 0


def interrupt(_exchange: Exchange) -> None:
    raise KeyboardInterrupt


class Interrupted(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        raise KeyboardInterrupt


def test_leaving_by_control_c_sends_nothing_more(inner: EmbeddedTransport) -> None:
    recorder = Recorder(inner)
    session = stream_over(recorder).append_session()
    with pytest.raises(KeyboardInterrupt):
        append_two(session)
    assert len(recorder.requests) == 1


# A client that is gone


def test_a_session_of_a_closed_client_fails(inner: EmbeddedTransport) -> None:
    client = Client(EMBEDDED_SETTINGS, transport=inner)
    session = client.stream("test-basin", "room/1").append_session()
    session.append(b"a")
    client.close()
    with pytest.raises(LocalProtocolError, match="client is closed") as raised:
        session.append(b"b")
    assert raised.value.durable_messages == 1


def test_a_session_with_nothing_to_send_may_outlive_its_client(inner: EmbeddedTransport) -> None:
    client = Client(EMBEDDED_SETTINGS, transport=inner)
    with client.stream("test-basin", "room/1").append_session() as session:
        session.append(b"a")
        client.close()
    assert session.durable_messages == 1


# Iterables that take their time


def test_what_waited_long_enough_goes_out_before_the_next_message(
    inner: EmbeddedTransport,
) -> None:
    seen: list[list[bytes]] = []

    def messages() -> Iterator[bytes]:
        for n in range(3):
            seen.append(read_all(inner))
            yield b"%d" % n

    # No time at all is long enough.
    with stream_over(inner).append_session(linger=0) as session:
        session.append_many(messages())
    assert seen == [[], [b"0"], [b"0", b"1"]]


def test_what_has_not_waited_is_gathered(inner: EmbeddedTransport) -> None:
    seen: list[list[bytes]] = []

    def messages() -> Iterator[bytes]:
        for n in range(3):
            seen.append(read_all(inner))
            yield b"%d" % n

    with stream_over(inner).append_session(linger=3600) as session:
        assert session.append_many(messages()) == Appended(0, 3)
    assert seen == [[], [], []]


# Callbacks that raise


def refuse(_retrying: Retrying) -> None:
    raise KeyError("mine")


@pytest.mark.parametrize("call", ["append", "append_many", "flush", "close"])
def test_what_on_retry_raises_comes_out_of_the_call_that_runs_and_the_session_goes_on(
    inner: EmbeddedTransport, call: str
) -> None:
    counter = Counter(Losing(inner, {0, 1}))
    session = stream_over(counter).append_session(on_retry=refuse)
    session._outbox.put(b"a", now=0.0)
    calls: dict[str, Callable[[], object]] = {
        "append": lambda: session.append(b"b"),
        "append_many": lambda: session.append_many([b"b"]),
        "flush": session.flush,
        "close": session.close,
    }
    with pytest.raises(KeyError, match=r"^'mine'$"):
        calls[call]()
    with pytest.raises(KeyError, match=r"^'mine'$"):
        session.close()
    session.close()
    assert read_all(inner) == [b"a", b"b"][: 2 if call.startswith("append") else 1]
    assert counter.num_open == 0


@pytest.mark.parametrize("lost", [{0}, {0, 1, 2}])
def test_leaving_the_block_by_what_on_retry_raises_leaves_nothing_open(
    inner: EmbeddedTransport, lost: set[int]
) -> None:
    counter = Counter(Losing(inner, lost, keep_bytes=0))

    def append() -> AppendSession[bytes]:
        with stream_over(counter).append_session(on_retry=refuse) as session:
            session._outbox.put(b"a", now=0.0)
            sessions.append(session)
        return session

    sessions: list[AppendSession[bytes]] = []
    with pytest.raises(KeyError, match=r"^'mine'$"):
        append()
    assert counter.num_open == 0
    assert [message.payload for message in sessions[0].pending().messages] == [b"a"]
    with pytest.raises(LocalProtocolError, match="aborted"):
        sessions[0].flush()


def test_ctrl_c_in_on_retry_comes_out_as_it_is(inner: EmbeddedTransport) -> None:
    def interrupt(_retrying: Retrying) -> None:
        raise KeyboardInterrupt

    session = stream_over(Losing(inner, {0})).append_session(on_retry=interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.append(b"a")
    session.close()
    assert read_all(inner) == [b"a"]


def test_leaving_by_another_exception_notes_what_on_retry_raised(
    inner: EmbeddedTransport,
) -> None:
    def leave() -> None:
        with stream_over(inner).append_session(on_retry=refuse) as session:
            session._outbox.take([Retrying(TransportError("lost"), 1, 0.0)])
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block") as raised:
        leave()
    assert raised.value.__notes__ == ["on_retry has raised KeyError: \"'mine'\""]


def test_leaving_after_the_end_was_told_raises_what_on_retry_raised(
    inner: EmbeddedTransport,
) -> None:
    def leave() -> None:
        with stream_over(inner).append_session(on_retry=refuse) as session:
            session._protocol.abort()
            session._outbox.take_received()
            with pytest.raises(LocalProtocolError, match="aborted"):
                session.flush()
            session._outbox.take([Retrying(TransportError("lost"), 1, 0.0)])

    with pytest.raises(KeyError, match=r"^'mine'$"):
        leave()


# A session that fails while it is used: nobody spins or waits


def refusing(inner: EmbeddedTransport) -> AppendSession[bytes]:
    """A session that the service refuses at its first request."""
    return stream_over(inner).append_session(match_seq_num=7, max_inflight_bytes=2**20)


@pytest.mark.timeout(60)
def test_append_many_onto_a_stream_that_refuses_while_it_is_still_putting(
    inner: EmbeddedTransport,
) -> None:
    num_drawn = 0

    def messages() -> Iterator[bytes]:
        nonlocal num_drawn
        while True:
            num_drawn += 1
            yield bytes(300_000)

    with pytest.raises(SeqNumMismatch):
        refusing(inner).append_many(messages())
    # No more than what fills the session.
    assert num_drawn == 4


CALLS: dict[str, Callable[[AppendSession[bytes]], object]] = {
    "append": lambda session: session.append(b"a"),
    "append_many": lambda session: session.append_many([b"a"]),
    "flush": lambda session: session.flush(),
    "close": lambda session: session.close(),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("call", list(CALLS))
def test_a_stream_that_refuses_ends_every_call(inner: EmbeddedTransport, call: str) -> None:
    session = refusing(inner)
    session._outbox.put(b"before", now=0.0)
    for again in (call, *CALLS):
        with pytest.raises(SeqNumMismatch):
            CALLS[again](session)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("call", list(CALLS))
def test_what_on_retry_raised_before_comes_out_of_any_call(
    inner: EmbeddedTransport, call: str
) -> None:
    session = stream_over(inner).append_session(on_retry=refuse)
    session._outbox.take([Retrying(TransportError("lost"), 1, 0.0)])
    with pytest.raises(KeyError, match=r"^'mine'$"):
        CALLS[call](session)
    session.close()
    assert read_all(inner) == []


@pytest.mark.timeout(60)
def test_a_stream_that_refuses_when_all_is_put(inner: EmbeddedTransport) -> None:
    with pytest.raises(SeqNumMismatch):
        refusing(inner).append_many([b"a"])


@pytest.mark.timeout(60)
def test_on_durable_is_told_request_by_request_when_all_is_put(inner: EmbeddedTransport) -> None:
    recorder = Recorder(inner)
    session = stream_over(recorder).append_session(burst_batches=1, linger=3600)
    told: list[int] = []
    session.append_many(
        [bytes(700_000)] * 3, on_durable=lambda _: told.append(len(recorder.requests))
    )
    assert told == [1, 2, 3]
