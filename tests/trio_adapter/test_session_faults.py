"""Sessions and calls where the peer or the user does what is rare, at the worst moment.

The peers here never lie: what they say was not looked at, the service has not seen.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define
from h2.errors import ErrorCodes
from h2.events import RequestReceived
from h2.exceptions import ProtocolError
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from s2frames import (
    LocalProtocolError,
    RemoteProtocolError,
    S2FramesError,
    ServiceError,
    TransportError,
)
from s2frames.embedded import Exchange
from s2frames.errors import ConnectError, Outcome
from s2frames.events import Appended
from s2frames.records import MAX_BATCH_RECORDS
from s2frames.retry import Retry
from s2frames.s2s import encode_terminal
from s2frames.session import Retrying
from s2frames.writes import MAX_WRITE_BYTES
from s2frames_trio import AppendTicket, Stream
from s2frames_trio.connect import Origin, connecting
from trio_adapter.host import Host, numbers, opened
from trio_adapter.peers import DeafTransport, Peer, deaf_transports, dialer, open_peer
from trio_adapter.scripts import Script, answer_some, client_of, prepared, scripted

ONCE = Retry(max_attempts=1)


async def stored(host: Host) -> list[bytes]:
    """Every message as often as it is in the stream."""
    async with scripted(host) as stream, stream.read_session(dedupe=False) as messages:
        return [message async for message in messages]


Spoil = Callable[[Peer, int], Awaitable[bool]]


# Leaving a block while its stream is being opened


@define
class Opening:
    """A client whose next stream has to wait."""

    stream: Stream
    #: Lets it have one.
    let_go: Callable[[], Awaitable[None]]


@asynccontextmanager
async def without_a_connection(host: Host) -> AsyncIterator[Opening]:
    """The connection takes its time."""
    is_there = trio.Event()

    async with trio.open_nursery() as nursery:
        connect_at_once, _ = dialer(nursery, host.serve)

        async def connect(origin: Origin, deadline: float) -> trio.abc.Stream:
            with connecting(origin, "reaching it", deadline):
                await is_there.wait()
            return await connect_at_once(origin, deadline)

        async def let_go() -> None:
            is_there.set()
            await trio.lowlevel.checkpoint()

        async with client_of(connect, retry=Retry()) as stream:
            yield Opening(stream, let_go)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def without_room(host: Host) -> AsyncIterator[Opening]:
    """The connection is there, and its peer allows no stream on it."""
    async with scripted(host, retry=Retry()) as stream:
        await stream.check_tail()
        peer = host.peers[-1]
        await peer.change_settings(max_concurrent_streams=0)
        await trio.testing.wait_all_tasks_blocked()
        let_go = partial(peer.change_settings, max_concurrent_streams=100)
        yield Opening(stream, let_go)


async def leave_by_an_error(opening: Opening) -> None:
    async def leave() -> None:
        async with opening.stream.append_session() as session:
            await session.submit(b"never sent")
            await trio.sleep(0.1)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await leave()


async def leave_by_cancelling(opening: Opening) -> None:
    with trio.move_on_after(0.1) as scope:
        async with opening.stream.append_session() as session:
            await session.append(b"never sent")
    assert scope.cancelled_caught


async def leave_by_cancelling_the_end(opening: Opening) -> None:
    with trio.move_on_after(0.1) as scope:
        async with opening.stream.append_session() as session:
            await session.submit(b"never sent")
    assert scope.cancelled_caught


async def do_nothing(_opening: Opening) -> None:
    await trio.sleep(0.1)


Leave = Callable[[Opening], Awaitable[None]]
Waits = Callable[[Host], Any]

every_wait = pytest.mark.parametrize("waits", [without_a_connection, without_room])


async def traces(waits: Waits, leave: Leave) -> tuple[int, list[tuple[int, int]], float]:
    """The tasks that are left, the streams that the peers saw, and how long it took."""
    host = await prepared()
    async with waits(host) as opening:
        start = trio.current_time()
        await leave(opening)
        took = trio.current_time() - start
        await opening.let_go()
        await opening.stream.check_tail()
        await trio.testing.wait_all_tasks_blocked()
        streams = [
            (number, frame.stream_id)
            for number, peer in enumerate(host.peers)
            for frame in peer.frames
            if isinstance(frame, HeadersFrame)
        ]
        tasks = trio.lowlevel.current_statistics().tasks_living
    assert await stored(host) == []
    return tasks, streams, round(took, 6)


@every_wait
@pytest.mark.parametrize(
    "leave", [leave_by_an_error, leave_by_cancelling, leave_by_cancelling_the_end]
)
async def test_a_block_that_is_left_while_its_stream_is_opened(waits: Waits, leave: Leave) -> None:
    assert await traces(waits, leave) == await traces(waits, do_nothing)


@every_wait
async def test_a_block_that_ends_while_its_stream_is_opened_waits_for_it(waits: Waits) -> None:
    host = await prepared()
    async with waits(host) as opening, trio.open_nursery() as nursery:

        async def let_go() -> None:
            await trio.sleep(1)
            await opening.let_go()

        async with opening.stream.append_session() as session:
            await session.submit(b"a")
            nursery.start_soon(let_go)
        assert session.durable_messages == 1
    assert await stored(host) == [b"a"]


@every_wait
async def test_a_block_that_ends_while_no_stream_is_ever_opened(waits: Waits) -> None:
    async def give_up(opening: Opening) -> None:
        with pytest.raises(TransportError) as caught:
            async with opening.stream.append_session(retry=ONCE) as session:
                await session.submit(b"never sent")
        assert caught.value.outcome is Outcome.NOT_APPLIED
        assert caught.value.durable_messages == 0

    tasks, streams, took = await traces(waits, give_up)
    assert (tasks, streams) == (await traces(waits, do_nothing))[:2]
    # To connect, and as long again as a request may take.
    assert took <= 3 + 10


# A server that is none of HTTP/2


HTTP_1 = b"HTTP/1.1 %s\r\nserver: old\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("status", [b"400 Bad Request", b"505 HTTP Version Not Supported"])
@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("work", ["append", "read", "call"])
async def test_a_server_that_talks_http_1(status: bytes, leaves: bool, work: str) -> None:
    num_connections = 0

    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(HTTP_1 % status)
        if leaves:
            await stream.aclose()

    async with trio.open_nursery() as nursery:

        async def connect(_origin: Origin, _deadline: float) -> trio.abc.Stream:
            nonlocal num_connections
            num_connections += 1
            await trio.lowlevel.checkpoint()
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(serve, theirs)
            return ours

        retry = Retry(connect_seconds=3)
        start = trio.current_time()
        async with client_of(connect, retry=retry) as stream:
            with pytest.raises(ConnectError, match="HTTP/1, not HTTP/2") as caught:
                await do(work, stream)
        assert trio.current_time() - start <= retry.connect_seconds
    assert caught.value.attempts == num_connections > 1


async def do(work: str, stream: Stream, **options: Any) -> None:
    """One of the things that a client does, to the end."""
    if work == "append":
        async with stream.append_session(**options) as session:
            await session.append_many(numbers(3))
    elif work == "read":
        async with stream.read_session(**options) as messages:
            assert [message async for message in messages] == numbers(3)
    else:
        await stream.fence("token")


# Requests that the peer did not look at


async def refuse(_host: Host, peer: Peer) -> None:
    event = await peer.next(RequestReceived)
    peer.h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
    await peer.flush()


async def send_away(_host: Host, peer: Peer) -> None:
    event = await peer.next(RequestReceived)
    await peer.send(GoAwayFrame(last_stream_id=event.stream_id - 1))


async def break_off(_host: Host, peer: Peer) -> None:
    event = await peer.next(RequestReceived)
    peer.h2.reset_stream(event.stream_id, ErrorCodes.INTERNAL_ERROR)
    await peer.flush()


every_refusal = pytest.mark.parametrize("turn_away", [refuse, send_away])

# What would not be tried again if it could have had an effect, with its options.
CAUTIOUS: dict[str, dict[str, Any]] = {"append": {"dedupe": False}, "call": {}}
# The records that each of them makes.
RECORDS = {"append": 3, "call": 1}


@every_refusal
@pytest.mark.parametrize("work", CAUTIOUS)
async def test_what_was_not_looked_at_is_tried_again_even_if_nothing_else_is(
    turn_away: Script, work: str
) -> None:
    host = await prepared()
    async with scripted(host, turn_away, turn_away) as stream:
        await do(work, stream, **CAUTIOUS[work])
        assert host.num_requests == 1
        assert (await stream.check_tail()).seq_num == RECORDS[work]


@pytest.mark.parametrize("work", CAUTIOUS)
async def test_what_may_have_been_looked_at_is_not(work: str) -> None:
    host = await prepared()
    async with scripted(host, break_off) as stream:
        with pytest.raises(TransportError, match="INTERNAL_ERROR") as caught:
            await do(work, stream, **CAUTIOUS[work])
        assert caught.value.outcome is Outcome.UNKNOWN
    assert host.num_requests == 0


async def refuse_all(_host: Host, peer: Peer) -> None:
    while await peer.receive():
        for event in peer.events:
            if isinstance(event, RequestReceived):
                peer.h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
                await peer.flush()
        peer.events.clear()


@pytest.mark.parametrize("turn_away", [refuse_all, send_away])
@pytest.mark.parametrize("work", CAUTIOUS)
async def test_what_is_never_looked_at_is_known_not_to_be_done(
    turn_away: Script, work: str
) -> None:
    host = await prepared()
    async with scripted(host, *[turn_away] * 3, retry=Retry(max_attempts=3)) as stream:
        with pytest.raises(ConnectError, match=r"not looked at|refused to look at") as caught:
            await do(work, stream, **CAUTIOUS[work])
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert caught.value.attempts == 3


# Answers that are none


async def answer_before_the_head(peer: Peer, stream_id: int) -> bool:
    await peer.send(DataFrame(stream_id, b"no head"))
    return True


async def answer_unreadably(peer: Peer, stream_id: int) -> bool:
    await peer.send(HeadersFrame(stream_id, data=b"\xff" * 6, flags=["END_HEADERS"]))
    return True


@pytest.mark.parametrize(
    ("spoil", "num_connections"), [(answer_before_the_head, 1), (answer_unreadably, 2)]
)
async def test_one_bad_answer_ends_no_other_session(spoil: Spoil, num_connections: int) -> None:
    host = await prepared()
    told: list[Retrying] = []

    async def write(stream: Stream) -> None:
        async with stream.append_session(on_retry=told.append) as session:
            for message in numbers(20):
                await session.append(message)
                await trio.sleep(0.01)

    async def follow(stream: Stream) -> None:
        async with stream.read_session(follow=True, on_retry=told.append) as messages:
            read = [await anext(messages) for _ in range(20)]
        assert read == numbers(20)

    async with scripted(host) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(write, stream)
        nursery.start_soon(follow, stream)
        await trio.sleep(0.1)

        async def spoil_next_head(peer: Peer, stream_id: int) -> bool:
            if host._answers[id(peer), stream_id].has_head:
                return False
            host.spoil = None
            return await spoil(peer, stream_id)

        host.spoil = spoil_next_head
        # What it was told makes no sense, and would not the next time.
        with pytest.raises(RemoteProtocolError, match="broke HTTP/2"):
            await stream.check_tail()
    assert len(host.peers) == num_connections
    assert all(type(retrying.error) is TransportError for retrying in told)
    assert bool(told) is (num_connections > 1)
    assert await stored(host) == numbers(20)


async def test_a_peer_that_always_breaks_the_connection_is_left_some_time() -> None:
    num_connections = 0

    async def break_it(_host: Host, peer: Peer) -> None:
        nonlocal num_connections
        num_connections += 1
        await peer.next(RequestReceived)
        await peer.send(WindowUpdateFrame(0, window_increment=2**31 - 1))

    host = await prepared()
    scripts: list[Script] = [break_it] * 1000
    async with scripted(host, *scripts, retry=Retry(max_seconds=10)) as stream:
        start = trio.current_time()
        with pytest.raises(TransportError, match="broke HTTP/2") as caught:
            await stream.check_tail()
        assert trio.current_time() - start <= 10
    assert caught.value.attempts == num_connections
    # With pauses, which get longer.
    assert num_connections < 20


# An answer that comes when nothing can be written any more


async def append_much(stream: Stream) -> None:
    async with stream.append_session() as session:
        await session.append_many([bytes(500_000)] * 3)


async def test_a_refusal_is_heard_though_nobody_takes_the_request() -> None:
    transports: list[DeafTransport] = []

    async def serve(stream: trio.abc.Stream) -> None:
        peer = await open_peer(stream)
        peer.h2.increment_flow_control_window(2**20)
        await peer.flush()
        number = (await peer.next(RequestReceived)).stream_id
        # Later than the write that fails.
        await trio.sleep(0.5)
        peer.h2.send_headers(number, [(":status", "403"), ("content-type", "application/json")])
        await peer.data(number, b'{"code":"permission_denied","message":"no"}', end=True)

    async with trio.open_nursery() as nursery:

        async def connect(_origin: Origin, _deadline: float) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = deaf_transports()
            ours.hears_bytes = 300_000
            transports.append(ours)
            nursery.start_soon(serve, theirs)
            return ours

        async with client_of(connect, retry=ONCE) as stream:
            with pytest.raises(ServiceError, match="permission_denied"):
                await append_much(stream)
    assert len(transports) == 1
    assert transports[0].hears_bytes < 0


# Connections that are to be left


def once(spoil: Spoil) -> Spoil:
    """Spoil the first answer alone."""
    is_spoilt = False

    async def spoil_first(peer: Peer, stream_id: int) -> bool:
        nonlocal is_spoilt
        is_first, is_spoilt = not is_spoilt, True
        return is_first and await spoil(peer, stream_id)

    return spoil_first


async def test_a_goaway_parts_the_streams_of_a_connection() -> None:
    host = Host()
    told_writer: list[Retrying] = []
    told_reader: list[Retrying] = []

    async def send_reader_away(peer: Peer, stream_id: int) -> bool:
        await peer.send(GoAwayFrame(last_stream_id=stream_id - 2))
        return True

    async with opened(host) as (_, stream):
        async with stream.append_session(on_retry=told_writer.append) as session:
            await session.append(b"0")
            host.spoil = once(send_reader_away)
            async with stream.read_session(follow=True, on_retry=told_reader.append) as messages:
                received = aiter(messages)
                assert await anext(received) == b"0"
                for message in numbers(4)[1:]:
                    await session.append(message)
                    assert await anext(received) == message
                assert [peer.is_eof for peer in host.peers] == [False, False]
        await trio.testing.wait_all_tasks_blocked()
        assert [peer.is_eof for peer in host.peers] == [True, False]
    assert told_writer == []
    assert [type(retrying.error) for retrying in told_reader] == [ConnectError]
    assert await stored(host) == numbers(4)


@pytest.mark.parametrize("is_vague", [True, False])
async def test_a_goaway_lets_a_stream_that_was_accepted_go_on(is_vague: bool) -> None:
    host = Host()
    told: list[Retrying] = []

    async def leave_after_this(peer: Peer, stream_id: int) -> bool:
        # The first of two GOAWAYs names the last stream there can be (RFC 9113, 6.8).
        await peer.send(GoAwayFrame(last_stream_id=2**31 - 1 if is_vague else stream_id))
        return False

    async with opened(host) as (_, stream):
        async with stream.append_session(on_retry=told.append) as session:
            await session.append(b"0")
            host.spoil = once(leave_after_this)
            await session.append(b"1")
            await stream.check_tail()
            assert len(host.peers) == 2
            await session.append(b"2")
            assert [peer.is_eof for peer in host.peers] == [False, False]
        await trio.testing.wait_all_tasks_blocked()
        assert [peer.is_eof for peer in host.peers] == [True, False]
    assert told == []
    assert await stored(host) == numbers(3)


async def send_answer(peer: Peer, stream_id: int, exchange: Exchange, data: bytes) -> None:
    """What the service answers so far, with this body. It leaves with the next flush."""
    assert exchange.response is not None
    peer.h2.send_headers(
        stream_id, [(":status", str(exchange.response.status)), *exchange.response.headers]
    )
    for start in range(0, len(data), 16384):
        peer.h2.send_data(stream_id, data[start : start + 16384])


def advise_another(num_records: int) -> Script:
    """The first message of the answer says that another connection would be better."""

    async def advise(host: Host, peer: Peer) -> None:
        stream_id, exchange, _ = await answer_some(host, peer, num_received=num_records)
        if not num_records:
            exchange.receive_eof(trio.current_time())
        data = bytearray(b"".join(exchange.data_to_send()))
        # The flags follow the length (`s2frames.s2s`).
        data[3] |= 0x10
        await send_answer(peer, stream_id, exchange, bytes(data))
        await peer.flush()

    return advise


async def test_a_writer_follows_the_advice_to_go_elsewhere() -> None:
    host = await prepared()
    told: list[Retrying] = []
    messages = numbers(3 * MAX_BATCH_RECORDS)
    async with scripted(host, advise_another(len(messages))) as stream:
        async with stream.append_session(on_retry=told.append) as session:
            await session.append_many(messages)
            assert len(host.peers) == 1
            await session.append(b"last")
        assert len(host.peers) == 2
    assert told == []
    assert await stored(host) == [*messages, b"last"]


async def test_a_reader_follows_the_advice_to_go_elsewhere() -> None:
    host = await prepared()
    told: list[Retrying] = []
    # In two batches, and within the first window.
    messages = numbers(MAX_BATCH_RECORDS + 100)
    async with scripted(host) as stream, stream.append_session() as session:
        await session.append_many(messages)
    host.peers.clear()
    async with scripted(host, advise_another(0)) as stream:
        async with stream.read_session(on_retry=told.append) as reading:
            assert [message async for message in reading] == messages
            assert reading.stats.duplicates == 0
        assert len(host.peers) == 2
    assert told == []


# Acks that come with the end


async def break_it_off(peer: Peer, stream_id: int) -> None:
    peer.h2.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
    await peer.flush()


async def end_it(peer: Peer, stream_id: int) -> None:
    peer.h2.end_stream(stream_id)
    await peer.flush()


async def cut(peer: Peer, _stream_id: int) -> None:
    await peer.flush()
    await peer.stream.aclose()


async def say_goodbye(peer: Peer, stream_id: int) -> None:
    farewell = GoAwayFrame(last_stream_id=stream_id, error_code=ErrorCodes.INTERNAL_ERROR)
    await peer.send_bytes(peer.h2.data_to_send() + farewell.serialize())
    await peer.stream.aclose()


def say(status: int, code: str) -> Callable[[Peer, int], Awaitable[None]]:
    """End with a terminal message."""

    async def end_with_an_error(peer: Peer, stream_id: int) -> None:
        body = b'{"code":"%s","message":"come back later"}' % code.encode()
        peer.h2.send_data(stream_id, encode_terminal(status, body), end_stream=True)
        await peer.flush()

    return end_with_an_error


# What ends the session, and what it says of the batches that are not acked.
ENDS = {
    "reset": (break_it_off, Outcome.UNKNOWN),
    "end": (end_it, Outcome.UNKNOWN),
    "cut": (cut, Outcome.UNKNOWN),
    "goodbye": (say_goodbye, Outcome.UNKNOWN),
    "error": (say(500, "storage"), Outcome.UNKNOWN),
    "harmless error": (say(429, "rate_limited"), Outcome.NOT_APPLIED),
}

# In four batches: the first one is not full, since nothing is in flight when it is made.
MESSAGES = numbers(3 * MAX_BATCH_RECORDS)
every_end = pytest.mark.parametrize("end", ENDS)


@define
class AckSome:
    """Receive all batches, do some, and let the end come with the acks in one write."""

    end: str
    num_batches: int | None
    #: How many messages were acked.
    num_acked: int = 0

    async def __call__(self, host: Host, peer: Peer) -> None:
        stream_id, exchange, self.num_acked = await answer_some(
            host, peer, num_received=len(MESSAGES), num_batches=self.num_batches
        )
        await send_answer(peer, stream_id, exchange, b"".join(exchange.data_to_send()))
        await ENDS[self.end][0](peer, stream_id)


@every_end
@pytest.mark.parametrize("num_batches", [0, 1, 3, None])
async def test_what_is_acked_before_the_end_is_not_sent_again(
    end: str, num_batches: int | None
) -> None:
    host = await prepared()
    ack = AckSome(end, num_batches)
    told: list[Retrying] = []
    durable: list[Appended] = []
    async with (
        scripted(host, ack) as stream,
        stream.append_session(on_retry=told.append) as session,
    ):
        await session.append_many(MESSAGES, on_durable=durable.append)
        assert session.durable_messages == len(MESSAGES)
    # With nothing in flight, nothing has failed.
    assert len(told) == (ack.num_acked < len(MESSAGES)) == (num_batches is not None)
    assert [appended.start for appended in durable] == list(range(len(MESSAGES)))
    assert await stored(host) == MESSAGES


@every_end
@pytest.mark.parametrize("num_batches", [0, 1, 3])
async def test_what_is_acked_before_the_end_counts(end: str, num_batches: int) -> None:
    host = await prepared()
    ack = AckSome(end, num_batches)
    tickets: list[AppendTicket] = []
    async with scripted(host, ack, retry=ONCE) as stream:
        session = stream.append_session()
        with pytest.raises(S2FramesError) as caught:
            async with session:
                tickets += [await session.submit(message) for message in MESSAGES]
        acked = tickets[: ack.num_acked]
        assert [(await ticket).start for ticket in acked] == [*range(ack.num_acked)]
        for ticket in (tickets[ack.num_acked], tickets[-1]):
            with pytest.raises(S2FramesError):
                await ticket
    assert bool(acked) is bool(num_batches)
    assert caught.value.durable_messages == ack.num_acked
    assert caught.value.outcome is ENDS[end][1]
    pending = session.pending().messages
    assert [message.payload for message in pending] == MESSAGES[ack.num_acked :]
    assert await stored(host) == MESSAGES[: ack.num_acked]


# One stream beside a busy one


def others_between(peer: Peer, stream_id: int) -> list[int]:
    """How many bytes of other streams came from one message of a stream to the next."""
    counts = [0]
    for frame in peer.frames:
        # Only the end of a body is empty.
        if isinstance(frame, DataFrame) and frame.data:
            if frame.stream_id == stream_id:
                counts.append(0)
            else:
                counts[-1] += len(frame.data)
    # Before the first and after the last message there may be any number.
    return counts[1:-1]


# How many bytes of the others a message may have to wait for: what is being written when the one
# before it is sent, as much that is cut before the session has made the next one, and, in the
# write which that is in, one turn of each of the others.
MOST_BETWEEN = 4 * MAX_WRITE_BYTES


@pytest.mark.parametrize("window", [65535, 2**30])
async def test_a_backlog_starves_nobody(window: int) -> None:
    """A writer and a follower get on beside four that have all to send that there is room for."""
    host = Host()
    messages = [b"small %d" % n for n in range(400)]
    async with opened(host) as (client, stream), trio.open_nursery() as nursery:
        bulk = client.stream("test-basin", "bulk")
        await bulk.ensure()
        (peer,) = host.peers
        if window > 65535:
            peer.h2.increment_flow_control_window(window - 65535)
            await peer.flush()

        async def send_backlog() -> None:
            async with bulk.append_session() as session:
                await session.append_many([bytes(1024 * 1024)] * 1000)

        for _ in range(4):
            nursery.start_soon(send_backlog)
        await bulk.check_tail()
        while (await bulk.check_tail()).seq_num < 4:
            """All are sending."""
        session = stream.append_session(linger=0, max_inflight_batches=1000)
        async with session, stream.read_session(follow=True) as reading:
            for message in messages:
                await session.submit(message)
                # A batch, and so a frame, for each.
                await trio.lowlevel.checkpoint()
            received = aiter(reading)
            assert [await anext(received) for _ in messages] == messages
        nursery.cancel_scope.cancel()
    (small,) = {
        frame.stream_id
        for frame in peer.frames
        if isinstance(frame, DataFrame) and messages[-1] in frame.data
    }
    between = others_between(peer, small)
    assert len(between) >= 5
    assert max(between) <= MOST_BETWEEN
    # There was a backlog all the time.
    assert sorted(between)[len(between) // 2] > 0


# A client that is closed


async def append(stream: Stream, told: list[Retrying]) -> None:
    async with stream.append_session(on_retry=told.append) as session:
        await session.append(b"never acked")


async def follow(stream: Stream, told: list[Retrying]) -> None:
    async with stream.read_session(follow=True, on_retry=told.append) as messages:
        await anext(aiter(messages))


async def be_mute(host: Host) -> None:
    host.is_mute = True


async def break_answers_off(host: Host) -> None:
    async def reset(peer: Peer, stream_id: int) -> bool:
        peer.h2.reset_stream(stream_id)
        await peer.flush()
        return True

    host.spoil = reset


async def have_no_room(host: Host) -> None:
    await host.peers[0].change_settings(max_concurrent_streams=0)


@pytest.mark.parametrize("work", [append, follow])
@pytest.mark.parametrize("hinder", [be_mute, break_answers_off, have_no_room])
async def test_no_attempt_is_told_of_after_the_client_is_closed(
    work: Callable[[Stream, list[Retrying]], Awaitable[None]],
    hinder: Callable[[Host], Awaitable[None]],
) -> None:
    host = await prepared()
    told: list[Retrying] = []

    async def run(stream: Stream) -> None:
        with pytest.raises(LocalProtocolError, match="the client is closed"):
            await work(stream, told)

    async with (
        trio.open_nursery() as nursery,
        scripted(host, retry=Retry(min_delay=1)) as stream,
    ):
        await stream.check_tail()
        await hinder(host)
        nursery.start_soon(run, stream)
        await trio.sleep(0.1)
        told_before = len(told)
        assert told_before == (hinder is break_answers_off)
    assert len(told) == told_before


@pytest.mark.parametrize(
    "frame", [SettingsFrame(settings={3: 50}), PingFrame(opaque_data=b"8 bytes."), GoAwayFrame()]
)
async def test_a_frame_that_comes_as_the_client_is_closed(frame: Frame) -> None:
    # It takes the frame some steps to arrive; tasks of one moment run in any order.
    for num_steps in [*range(8)] * 10:
        host = Host()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery, opened(host):
                nursery.start_soon(host.peers[0].send, frame)
                for _ in range(num_steps):
                    await trio.lowlevel.checkpoint()


# A transport whose TLS fails


class Garbled(trio.abc.Stream):
    """A transport on which nothing more can be decrypted once it is told so."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self.is_garbled = False

    async def send_all(self, data: Any) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> Any:
        data = await self._inner.receive_some(max_bytes)
        if self.is_garbled:
            raise ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] bad record mac")
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_tls_that_fails_in_mid_session_is_a_lost_connection() -> None:
    host, transports, retries = await prepared(), list[Garbled](), list[Retrying]()

    async def serve(peer: Peer) -> None:
        try:
            await host.serve(peer)
        except ProtocolError:
            # h2 says no more after the client's GOAWAY.
            assert peer.goaways()

    async with trio.open_nursery() as nursery:
        connect_plainly, _ = dialer(nursery, serve)

        async def connect(origin: Origin, deadline: float) -> trio.abc.Stream:
            transports.append(Garbled(await connect_plainly(origin, deadline)))
            return transports[-1]

        async with client_of(connect) as stream:
            async with stream.append_session(on_retry=retries.append) as session:
                await session.append(b"0")
                transports[0].is_garbled = True
                await session.append(b"1")
            transports[1].is_garbled = True
            async with stream.read_session(on_retry=retries.append) as messages:
                assert [message async for message in messages] == numbers(2)
    assert len(transports) == 3
    assert [type(retrying.error) for retrying in retries] == [TransportError] * 2
    assert all("TLS failed: http://peer: [SSL: DEC" in str(r.error) for r in retries)
