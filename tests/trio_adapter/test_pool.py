from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import h2.events
import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from hpack.hpack import Decoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
)

from s2frames import LocalProtocolError, S2FramesError, TransportError
from s2frames.errors import ConnectError
from s2frames.http import Request
from s2frames.system.process import THIS_PROCESS
from s2frames_trio.connect import Origin
from s2frames_trio.flood import FLOOD_FRAMES
from s2frames_trio.h2_connection import IDLE_SECONDS, PING_SECONDS, PONG_SECONDS
from s2frames_trio.pool import (
    DEFAULT_CONNECT_TIMEOUT,
    DEFAULT_OPEN_TIMEOUT,
    Connect,
    Pool,
    open_pool,
)
from trio_adapter.peers import Peer, cancelled_at, dialer, open_peer

# Whatever hangs, ends.
pytestmark = pytest.mark.timeout(60)

REQUEST = Request("GET", "http://peer/a/b?c=d", {"x-a": "1"})


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def answer_all(peer: Peer) -> None:
    """Answer each request as soon as it is complete."""
    while await peer.receive():
        for event in peer.events:
            # The reset may have come with the end.
            if isinstance(event, h2.events.StreamEnded) and event.stream_id not in peer.resets():
                peer.h2.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
        peer.events.clear()
        await peer.flush()


def connections(pool: Pool) -> list[int]:
    """How many streams each connection has."""
    return [c.num_streams for place in pool._places.values() for c in place.connections]


async def ask(pool: Pool, request: Request = REQUEST) -> int:
    async with await pool.open_stream(request, end=True) as stream:
        return (await stream.receive_response()).status


# Requests


async def test_requests_share_a_connection() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, answer_all)
        async with open_pool(connect_with=connect) as pool:
            for _ in range(3):
                assert await ask(pool) == 200
            assert connections(pool) == [0]
    assert len(peers) == 1
    assert peers[0].goaways() == [ErrorCodes.NO_ERROR]
    assert peers[0].rest == b""


async def test_each_origin_has_its_own() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, answer_all)
        async with open_pool(connect_with=connect) as pool:
            for url in ("http://a/", "http://a:81/", "http://b/", "https://a/", "http://A/x"):
                await ask(pool, Request("GET", url))
            assert len(peers) == 4


async def test_what_a_request_says() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)
        headers = {"authorization": "Bearer secret", "s2-encryption-key": "key", "x-a": "b"}
        async with open_pool(connect_with=connect) as pool:
            stream = await pool.open_stream(Request("POST", "http://peer:8080/p?q=1", headers))
            assert stream.connection_number == 1
            await settled()
            (frame,) = (f for f in peers[0].frames if isinstance(f, HeadersFrame))
    decoded = list(Decoder().decode(frame.data))
    assert {str(name): str(value) for name, value in decoded} == {
        ":method": "POST",
        ":scheme": "http",
        ":authority": "peer:8080",
        ":path": "/p?q=1",
        "user-agent": "s2frames",
        "authorization": "Bearer secret",
        "s2-encryption-key": "key",
        "x-a": "b",
    }
    secret = {str(header[0]) for header in decoded if not header.indexable}
    assert secret == {"authorization", "s2-encryption-key", ":path"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Upper": "x"},
        {"a b": "x"},
        {"": "x"},
        {"a": "secret\r\nb: c"},
        {"a": " secret"},
        {"a": "secret "},
        {"a": "sécret"},
        {"a": "secret\0"},
        {"a:b": "secret"},
    ],
)
async def test_headers_that_cannot_be_sent(headers: dict[str, str]) -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, answer_all)
        async with open_pool(connect_with=connect) as pool:
            with pytest.raises(LocalProtocolError, match="header") as raised:
                await pool.open_stream(Request("GET", "http://peer/", headers))
            assert "secret" not in str(raised.value)
            with pytest.raises(LocalProtocolError, match="header"):
                await pool.open_stream(Request("GET", "http://peer/a b"))
    assert peers == []


# As many connections as are needed


async def test_a_limit_of_two_and_fifty_requests() -> None:
    most = 0

    async def count(peer: Peer) -> None:
        nonlocal most
        while await peer.receive():
            most = max(most, peer.h2.open_inbound_streams)
            done = [e for e in peer.events if isinstance(e, h2.events.StreamEnded)]
            peer.events.clear()
            await trio.sleep(0.1)
            for event in done:
                peer.h2.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
            await peer.flush()

    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, count, max_concurrent_streams=2)
        async with open_pool(connect_with=connect) as pool:
            async with trio.open_nursery() as requests:
                for _ in range(50):
                    requests.start_soon(ask, pool)
            assert sum(connections(pool)) == 0
    assert most == 2
    assert 1 < len(peers) <= 25


async def test_long_streams_open_more_connections_and_spread() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve, max_concurrent_streams=10)
        async with open_pool(connect_with=connect) as pool:
            streams = [await pool.open_stream(REQUEST) for _ in range(25)]
            assert sorted(connections(pool)) == [5, 10, 10]
            for stream in streams[:20]:
                stream.reset()
            await settled()
            # New ones go where there is most room.
            for _ in range(9):
                await pool.open_stream(REQUEST)
            assert max(connections(pool)) - min(connections(pool)) <= 1
            assert len(peers) == 3


async def test_many_at_once_dial_as_many_as_needed() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve, max_concurrent_streams=100)
        async with open_pool(connect_with=connect) as pool:
            async with trio.open_nursery() as requests:
                for _ in range(1000):
                    requests.start_soon(pool.open_stream, REQUEST)
            assert sum(connections(pool)) == 1000
            assert len(peers) == 10


async def test_settings_that_come_late() -> None:
    async def late(peer: Peer) -> None:
        await peer.serve()

    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, late)

        async def connect_late(origin: Origin, deadline: float) -> trio.abc.Stream:
            await trio.sleep(2)
            return await connect(origin, deadline)

        async with open_pool(connect_with=connect_late) as pool:
            start = trio.current_time()
            await pool.open_stream(REQUEST)
            assert trio.current_time() == start + 2


async def test_a_limit_that_changes_in_flight() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve, max_concurrent_streams=1)
        async with open_pool(connect_with=connect) as pool:
            await pool.open_stream(REQUEST)
            await peers[0].change_settings(max_concurrent_streams=3)
            await settled()
            for _ in range(2):
                await pool.open_stream(REQUEST)
            assert connections(pool) == [3]
            await peers[0].change_settings(max_concurrent_streams=1)
            await settled()
            await pool.open_stream(REQUEST)
            assert sorted(connections(pool)) == [1, 3]


async def test_a_peer_that_allows_no_stream() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve, max_concurrent_streams=0)
        async with open_pool(connect_with=connect) as pool:
            start = trio.current_time()
            with pytest.raises(ConnectError, match="no room for another stream within 8 s"):
                await pool.open_stream(REQUEST)
            assert trio.current_time() == start + DEFAULT_OPEN_TIMEOUT
            assert len(peers) == 1
            await peers[0].change_settings(max_concurrent_streams=1)
            await pool.open_stream(REQUEST)
            assert len(peers) == 1


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2frames_trio.pool._MAX_CONNECTIONS", 3)
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve, max_concurrent_streams=1)
        async with open_pool(connect_with=connect) as pool:
            streams = [await pool.open_stream(REQUEST) for _ in range(3)]
            with pytest.raises(ConnectError, match="on 3 connections"):
                await pool.open_stream(REQUEST)
            async with trio.open_nursery() as requests:
                requests.start_soon(pool.open_stream, REQUEST)
                await settled()
                streams[0].reset()
            assert connections(pool) == [1, 1, 1]
            assert len(peers) == 3


async def test_who_leaves_a_connection_gets_a_later_one() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)
        async with open_pool(connect_with=connect) as pool:
            numbers = [
                (await pool.open_stream(REQUEST, after=after)).connection_number
                for after in (0, 0, 1, 1, 2, 0, 1)
            ]
            # Those who leave the same one share the next. One that was left is chosen last.
            assert numbers == [1, 1, 2, 2, 3, 3, 3]
            assert len(peers) == 3


async def test_many_who_leave_at_once_share_what_is_made_for_them() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)
        async with open_pool(connect_with=connect) as pool:
            first = [await pool.open_stream(REQUEST) for _ in range(150)]
            assert connections(pool) == [100, 50]
            async with trio.open_nursery() as requests:
                for stream in first:
                    stream.reset()
                    requests.start_soon(
                        partial(pool.open_stream, REQUEST, after=stream.connection_number)
                    )
            assert len(peers) <= 4
            assert sum(connections(pool)) == 150


async def test_where_there_can_be_no_later_connection_another_will_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("s2frames_trio.pool._MAX_CONNECTIONS", 2)
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)
        async with open_pool(connect_with=connect) as pool:
            numbers = [
                (await pool.open_stream(REQUEST, after=after)).connection_number
                for after in (0, 1, 2)
            ]
            assert numbers[:2] == [1, 2]
            assert len(peers) == 2


async def test_a_connection_that_leaves_as_soon_as_it_is_open() -> None:
    goaway = GoAwayFrame(0, last_stream_id=0, error_code=0)

    async def connect(_origin: Origin, _deadline: float) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = trio.testing.memory_stream_pair()
        # In one piece, so that nobody can come in between.
        await theirs.send_all(SettingsFrame(0).serialize() + goaway.serialize())
        return ours

    async with open_pool(connect_with=connect) as pool:
        # Nothing can have been sent on it: `ConnectError` says so.
        with pytest.raises(ConnectError, match=r"cannot connect: .* was closed"):
            await pool.open_stream(REQUEST)


async def test_who_waits_shows_no_token() -> None:
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, Peer.serve, max_concurrent_streams=0)
        async with open_pool(connect_with=connect) as pool:
            request = Request("GET", "http://peer/", {"authorization": "Bearer the-secret"})
            opening = pool.begin_stream(request, on_settled=list)
            assert "the-secret" not in repr(opening) + repr(vars(pool))
            opening.cancel()


# Whose turn it is


async def test_those_who_come_first_are_served_first() -> None:
    served: list[tuple[int, int]] = []
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, Peer.serve, max_concurrent_streams=3)

        async def take(pool: Pool, number: int) -> None:
            async with await pool.open_stream(REQUEST) as stream:
                # The order in which they have run since says nothing.
                served.append((stream.stream_id, number))
                await trio.sleep(0.01)

        async with open_pool(connect_with=connect) as pool:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("s2frames_trio.pool._MAX_CONNECTIONS", 1)
                async with trio.open_nursery() as requests:
                    for number in range(40):
                        requests.start_soon(take, pool, number)
                        await settled()
                    # In the middle of it, more come, just when a place is free.
                    for number in range(40, 80):
                        await trio.sleep(0.003)
                        requests.start_soon(take, pool, number)
    assert [number for _, number in sorted(served)] == list(range(80))


async def test_a_newcomer_does_not_overtake() -> None:
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, Peer.serve, max_concurrent_streams=1)
        order: list[str] = []

        async def take(pool: Pool, name: str) -> None:
            await pool.open_stream(REQUEST)
            order.append(name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("s2frames_trio.pool._MAX_CONNECTIONS", 1)
            async with open_pool(connect_with=connect, open_timeout=5) as pool:
                first = await pool.open_stream(REQUEST)
                async with trio.open_nursery() as requests:
                    requests.start_soon(take, pool, "waits")
                    await settled()
                    # The place is free, and the one who waits for it has not run since.
                    first.reset()
                    with pytest.raises(ConnectError, match="no room"):
                        await take(pool, "newcomer")
                assert order == ["waits"]


async def test_who_leaves_the_only_connection_there_can_be_waits_in_line() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve, max_concurrent_streams=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("s2frames_trio.pool._MAX_CONNECTIONS", 1)
            async with open_pool(connect_with=connect) as pool:
                first = await pool.open_stream(REQUEST)
                order: list[str] = []

                async def take(name: str, after: int) -> None:
                    async with await pool.open_stream(REQUEST, after=after):
                        order.append(name)

                async with trio.open_nursery() as requests:
                    requests.start_soon(take, "leaves it", 1)
                    await settled()
                    requests.start_soon(take, "comes later", 0)
                    await settled()
                    assert order == []
                    first.reset()
                assert order == ["leaves it", "comes later"]
        assert len(peers) == 1


async def test_a_place_on_a_connection_that_is_sent_away_goes_to_nobody() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve, max_concurrent_streams=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("s2frames_trio.pool._MAX_CONNECTIONS", 1)
            async with open_pool(connect_with=connect) as pool:
                old = await pool.open_stream(REQUEST)
                async with trio.open_nursery() as requests:
                    requests.start_soon(ask_for_nothing, pool)
                    await settled()
                    # It looks at no request: the one who waits goes elsewhere.
                    await peers[0].send(GoAwayFrame(0, last_stream_id=0))
                    with pytest.raises(ConnectError):
                        await old.receive_response()
                await settled()
                assert connections(pool) == [1]
    assert [len(requests_of(peer)) for peer in peers] == [1, 1]


async def ask_for_nothing(pool: Pool) -> None:
    await pool.open_stream(REQUEST)


def requests_of(peer: Peer) -> list[HeadersFrame]:
    return [frame for frame in peer.frames if isinstance(frame, HeadersFrame)]


@pytest.mark.parametrize("name", ["connection", "host", "te", "transfer-encoding", "upgrade"])
async def test_a_header_that_http_2_does_not_have(name: str) -> None:
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, answer_all)
        async with open_pool(connect_with=connect) as pool:
            request = Request("GET", "http://peer/", {name: "x"})
            for _ in range(2):
                with pytest.raises(LocalProtocolError, match="cannot be sent"):
                    await pool.open_stream(request)
                assert await ask(pool) == 200
            assert connections(pool) == [0]


async def test_a_pool_that_is_cancelled_tries_no_more() -> None:
    dialed = 0

    async def connect(_origin: Origin, _deadline: float) -> trio.abc.Stream:
        nonlocal dialed
        dialed += 1
        await trio.sleep_forever()
        raise AssertionError("it sleeps forever")

    with trio.CancelScope() as scope:
        async with open_pool(connect_with=connect) as pool:

            async def wait_stubbornly() -> None:
                with trio.CancelScope(shield=True), pytest.raises(LocalProtocolError):
                    await pool.open_stream(REQUEST)

            async with trio.open_nursery() as requests:
                requests.start_soon(wait_stubbornly)
                await settled()
                scope.cancel()
    assert dialed == 1


# Connections that end


async def test_a_connection_that_is_sent_away_is_replaced() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)
        async with open_pool(connect_with=connect) as pool:
            old = await pool.open_stream(REQUEST)
            await settled()
            await peers[0].send(GoAwayFrame(0, last_stream_id=old.stream_id))
            await settled()
            new = await pool.open_stream(REQUEST)
            assert new.connection_number != old.connection_number
            assert connections(pool) == [1, 1]
            old.reset()
            await settled()
            assert connections(pool) == [1]


async def test_a_connection_that_broke_is_replaced() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)
        async with open_pool(connect_with=connect) as pool:
            old = await pool.open_stream(REQUEST)
            await settled()
            await peers[0].stream.aclose()
            with pytest.raises(TransportError):
                await old.receive_data()
            await pool.open_stream(REQUEST)
            assert connections(pool) == [1]
            assert len(peers) == 2


async def test_idle_connections_are_retired() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve, max_concurrent_streams=1)
        async with open_pool(connect_with=connect) as pool:
            streams = [await pool.open_stream(REQUEST) for _ in range(3)]
            for stream in streams[1:]:
                stream.reset()
            await trio.sleep(IDLE_SECONDS + PONG_SECONDS + 1)
            assert connections(pool) == [1]
            assert [peer.goaways() for peer in peers[1:]] == [[0], [0]]


async def test_nothing_is_kept_of_origins_that_nobody_asks_any_more() -> None:
    async with trio.open_nursery() as nursery:
        good, peers = dialer(nursery, answer_all)

        async def connect(origin: Origin, deadline: float) -> trio.abc.Stream:
            if origin.host.startswith("bad"):
                raise ConnectError("no")
            return await good(origin, deadline)

        async with open_pool(connect_with=connect) as pool:
            for number in range(10):
                assert await ask(pool, Request("GET", f"http://basin-{number}/")) == 200
                with pytest.raises(ConnectError):
                    await ask(pool, Request("GET", f"http://bad-{number}/"))
            assert len(pool._places) == 10
            stream = await pool.open_stream(Request("GET", "http://basin-3/"))
            await trio.sleep(IDLE_SECONDS + PONG_SECONDS + 1)
            assert [origin.host for origin in pool._places] == ["basin-3"]
            # It is known as before.
            stream.reset()
            assert await ask(pool, Request("GET", "http://basin-3/")) == 200
            assert await ask(pool, Request("GET", "http://basin-4/")) == 200
            assert len(peers) == 11


# Connections that cannot be made


async def test_all_who_wait_are_told_that_it_failed() -> None:
    async def connect(_origin: Origin, _deadline: float) -> trio.abc.Stream:
        await trio.sleep(1)
        raise ConnectError("no way")

    errors: list[S2FramesError] = []

    async def fail(pool: Pool) -> None:
        with pytest.raises(ConnectError, match="no way") as raised:
            await pool.open_stream(REQUEST)
        errors.append(raised.value)

    async with open_pool(connect_with=connect) as pool:
        async with trio.open_nursery() as requests:
            for _ in range(5):
                requests.start_soon(fail, pool)
        assert len(set(map(id, errors))) == 5
        # Those who come later try again.
        start = trio.current_time()
        await fail(pool)
        assert trio.current_time() == start + 1


async def test_a_handshake_that_stalls() -> None:
    streams = []

    async def connect(_origin: Origin, _deadline: float) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        streams.append(theirs)
        await trio.sleep(1)
        return ours

    async with open_pool(connect_with=connect) as pool:
        start = trio.current_time()
        with pytest.raises(ConnectError, match="the HTTP/2 handshake took too long"):
            await pool.open_stream(REQUEST)
        assert trio.current_time() == start + 3
        await settled()
        # Nothing is left of it.
        assert connections(pool) == []
        while await streams[0].receive_some():
            """What it had said."""


async def test_a_bug_in_a_connection_is_no_silence() -> None:
    async def connect(_origin: Origin, _deadline: float) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise KeyError("a bug")

    with pytest.RaisesGroup(KeyError):
        async with open_pool(connect_with=connect) as pool:
            await pool.open_stream(REQUEST)


class Dialer:
    """A way to make transports, one by one: each time as the next of the scripts has it."""

    def __init__(self, nursery: trio.Nursery, *scripts: Dial, repeat: bool = False) -> None:
        self._nursery = nursery
        self._scripts = list(scripts)
        self._repeat = repeat
        #: When each dial began.
        self.times: list[float] = []
        self.peers: list[Peer] = []

    async def __call__(self, _origin: Origin, _deadline: float) -> trio.abc.Stream:
        self.times.append(trio.current_time())
        script = self._scripts[0] if self._repeat else self._scripts.pop(0)
        await trio.lowlevel.checkpoint()
        return await script(self)

    async def succeed(self, serve: Callable[[Peer], Awaitable[object]], **settings: int) -> Any:
        ours, theirs = trio.testing.memory_stream_pair()
        peer = await open_peer(theirs, **settings)
        self.peers.append(peer)
        self._nursery.start_soon(serve, peer)
        return ours


Dial = Callable[[Dialer], Awaitable[trio.abc.Stream]]


def failing(delay: float) -> Dial:
    """It fails after so long."""

    async def dial(_dialer: Dialer) -> trio.abc.Stream:
        await trio.sleep(delay)
        raise ConnectError(f"failed after {delay:g} s")

    return dial


def reaching(
    delay: float, serve: Callable[[Peer], Awaitable[object]] = Peer.serve, **settings: int
) -> Dial:
    """It reaches a peer after so long."""

    async def dial(dialer: Dialer) -> trio.abc.Stream:
        await trio.sleep(delay)
        stream: trio.abc.Stream = await dialer.succeed(serve, **settings)
        return stream

    return dial


async def leave_when_open(peer: Peer) -> None:
    """Wait for the client's first words, and leave."""
    await peer.receive()
    await peer.stream.aclose()


LEAVING = reaching(0, leave_when_open, max_concurrent_streams=0)


def no_chance() -> float:
    return 0.0


async def test_a_peer_that_takes_nothing_and_leaves_is_dialed_a_handful_of_times() -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery, LEAVING, repeat=True)
        async with open_pool(connect_with=dialer, random=no_chance) as pool:
            start = trio.current_time()
            with pytest.raises(ConnectError, match=r"8 s, on 0 .*ended before it took a request"):
                await pool.open_stream(REQUEST)
            assert trio.current_time() == start + DEFAULT_OPEN_TIMEOUT
            times = [round(time - start, 6) for time in dialer.times]
            assert times == [0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3]
            await trio.sleep(60)
            # Nobody waits.
            assert len(dialer.times) == len(times)
            with pytest.raises(ConnectError):
                await pool.open_stream(REQUEST)
            # It has not become better.
            assert len(dialer.times) <= len(times) + 3


async def test_many_who_wait_make_no_more_dials_than_one() -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery, LEAVING, repeat=True)
        async with open_pool(connect_with=dialer, random=no_chance) as pool:
            outcomes = await open_many(pool, 50)
            assert all(outcome.endswith("took a request at 8") for outcome in outcomes)
            assert len(dialer.times) == 7


async def test_a_peer_that_takes_streams_again_is_found() -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery, LEAVING, LEAVING, LEAVING, reaching(0), LEAVING, reaching(0))
        async with open_pool(connect_with=dialer, random=no_chance) as pool:
            start = trio.current_time()
            await pool.open_stream(REQUEST)
            assert trio.current_time() == pytest.approx(start + 0.7)
            # A connection that carried streams has not come to nothing.
            await dialer.peers[-1].stream.aclose()
            await settled()
            start = trio.current_time()
            await pool.open_stream(REQUEST)
            assert trio.current_time() == pytest.approx(start + 0.1)
            assert len(dialer.times) == 6


async def open_many(pool: Pool, number: int) -> list[str]:
    """What becomes of so many requests at once, and when."""
    start, outcomes = trio.current_time(), list[str]()

    async def open_one() -> None:
        try:
            await pool.open_stream(REQUEST)
            outcome = "served"
        except S2FramesError as error:
            outcome = str(error)
        outcomes.append(f"{outcome} at {trio.current_time() - start:g}")

    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(open_one)
    return outcomes


async def test_a_dial_that_fails_refuses_nobody_whom_another_serves() -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery, failing(0.5), reaching(1), reaching(1))
        async with open_pool(connect_with=dialer, random=no_chance) as pool:
            outcomes = await open_many(pool, 150)
            # The one that failed was made again, once another had shown that it makes sense.
            assert Counter(outcomes) == {"served at 1": 100, "served at 2": 50}
            assert len(dialer.times) == 3


async def test_all_are_told_when_the_last_dial_has_failed() -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery, failing(1), failing(1.05), failing(1), failing(1))
        async with open_pool(connect_with=dialer, random=no_chance) as pool:
            outcomes = await open_many(pool, 150)
            assert Counter(outcomes) == {"failed after 1.05 s at 1.05": 150}
            # Whoever tries again pauses by himself.
            outcomes = await open_many(pool, 150)
            assert Counter(outcomes) == {"failed after 1 s at 1": 150}
            assert len(dialer.times) == 4


async def test_a_dial_that_fails_at_once_is_not_made_again_at_once() -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery, reaching(2), *[failing(0)] * 20)
        async with open_pool(connect_with=dialer, random=no_chance) as pool:
            outcomes = await open_many(pool, 120)
            assert outcomes[:100] == ["served at 2"] * 100
            # There is a connection, which may have room in time.
            assert all("no room for another stream within 8 s" in o for o in outcomes[100:])
            assert all("could be made: failed after 0 s at 8" in o for o in outcomes[100:])
            times = [round(time, 6) for time in dialer.times]
            assert times == [0, 0, 2, 2.1, 2.3, 2.7, 3.5, 5.1]


async def test_a_dial_that_fails_leaves_those_in_line_who_wait_for_room() -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery, reaching(0, max_concurrent_streams=1), *[failing(0.1)] * 5)
        async with open_pool(connect_with=dialer, random=no_chance) as pool:
            first = await pool.open_stream(REQUEST)
            async with trio.open_nursery() as requests:
                requests.start_soon(pool.open_stream, REQUEST)
                await trio.sleep(1)
                assert 1 < len(dialer.times) < 6
                first.reset()
            assert connections(pool) == [1]


async def test_a_connection_that_serves_others_makes_no_dial_come_sooner() -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery, reaching(0, max_concurrent_streams=1), *[failing(0)] * 1000)
        async with open_pool(connect_with=dialer, random=no_chance) as pool:

            async def use_shortly() -> None:
                async with await pool.open_stream(REQUEST):
                    await trio.sleep(0.01)

            await use_shortly()
            async with trio.open_nursery() as requests:
                for _ in range(300):
                    requests.start_soon(use_shortly)
            assert trio.current_time() == pytest.approx(3.01)
            times = sorted({round(time, 6) for time in dialer.times[1:]})
            assert times == pytest.approx([0.01, 0.11, 0.31, 0.71, 1.51])


async def test_who_leaves_the_only_connection_is_told_that_there_is_no_other() -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery, reaching(0), failing(1))
        async with open_pool(connect_with=dialer, random=no_chance) as pool:
            stream = await pool.open_stream(REQUEST)
            start = trio.current_time()
            with pytest.raises(ConnectError, match=r"^failed after 1 s$"):
                await pool.open_stream(REQUEST, after=stream.connection_number)
            assert trio.current_time() == start + 1


async def test_many_waiters_and_few_streams_a_connection() -> None:
    async with trio.open_nursery() as nursery:
        dialer = Dialer(nursery, reaching(1, max_concurrent_streams=2), repeat=True)
        async with open_pool(connect_with=dialer, random=no_chance) as pool:
            outcomes = await open_many(pool, 20)
            # One connection tells how few it takes; the others are made side by side.
            assert Counter(outcomes) == {"served at 1": 2, "served at 2": 18}
            assert connections(pool) == [2] * 10
            assert len(dialer.times) == 10


# Connections that answer nothing


async def test_a_connection_that_was_left_comes_last_until_it_answers() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)
        async with open_pool(connect_with=connect) as pool:
            silent = await pool.open_stream(REQUEST)
            late = await pool.open_stream(REQUEST)
            await settled()
            silent.reset()
            for _ in range(3):
                # The second time, it has more streams than the other.
                after = 1 if len(peers) == 1 else 0
                assert (await pool.open_stream(REQUEST, after=after)).connection_number == 2
            await peers[0].answer(late.stream_id)
            await settled()
            assert (await pool.open_stream(REQUEST)).connection_number == 1


async def test_a_connection_that_was_left_is_better_than_none() -> None:
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, Peer.serve, max_concurrent_streams=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("s2frames_trio.pool._MAX_CONNECTIONS", 2)
            async with open_pool(connect_with=connect) as pool:
                (await pool.open_stream(REQUEST)).reset()
                assert (await pool.open_stream(REQUEST, after=1)).connection_number == 2
                assert (await pool.open_stream(REQUEST)).connection_number == 1


async def test_a_connection_that_is_left_again_and_again_takes_no_more() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve, max_concurrent_streams=4)
        async with open_pool(connect_with=connect) as pool:
            streams = [await pool.open_stream(REQUEST) for _ in range(4)]
            for stream in streams[:3]:
                stream.reset()
                assert (await pool.open_stream(REQUEST, after=1)).connection_number == 2
            await settled()
            # What it has goes on.
            assert connections(pool) == [1, 3]
            numbers = [(await pool.open_stream(REQUEST)).connection_number for _ in range(2)]
            assert numbers == [2, 3]
            streams[3].reset()
            await settled()
            assert peers[0].goaways() == [ErrorCodes.NO_ERROR]


async def test_answers_in_between_keep_a_connection() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)
        async with open_pool(connect_with=connect) as pool:
            streams = [await pool.open_stream(REQUEST) for _ in range(5)]
            for stream in streams:
                assert (await pool.open_stream(REQUEST, after=1)).connection_number == 2
                await peers[0].answer(stream.stream_id)
                await settled()
            streams[0].reset()
            assert (await pool.open_stream(REQUEST)).connection_number == 1


# The pool's end


async def test_a_pool_is_of_the_process_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, answer_all)
        async with open_pool(connect_with=connect) as pool:
            assert await ask(pool) == 200
            with monkeypatch.context() as patch:
                patch.setattr(THIS_PROCESS, "number", 1)
                with pytest.raises(LocalProtocolError, match="belongs to the process that made it"):
                    await pool.open_stream(REQUEST)
                with pytest.raises(LocalProtocolError, match="belongs to the process that made it"):
                    pool.start_soon(settled)
            assert await ask(pool) == 200
            assert len(peers) == 1


async def test_leaving_the_block_ends_everything() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)
        async with open_pool(connect_with=connect) as pool:
            stream = await pool.open_stream(REQUEST)
            await settled()
        with pytest.raises(LocalProtocolError, match="closed"):
            await stream.receive_data()
        assert await stream.send_data([b"x"]) is False
        stream.reset()
        with pytest.raises(LocalProtocolError, match="closed"):
            await pool.open_stream(REQUEST)
        pool.close()
    assert peers[0].goaways() == [ErrorCodes.NO_ERROR]


async def test_those_who_wait_are_told_of_the_end() -> None:
    async def connect(_origin: Origin, _deadline: float) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError("it sleeps forever")

    async def wait(pool: Pool) -> None:
        with pytest.raises(LocalProtocolError, match="closed"):
            await pool.open_stream(REQUEST)

    async with trio.open_nursery() as nursery, open_pool(connect_with=connect) as pool:
        nursery.start_soon(wait, pool)
        await settled()


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
async def test_an_error_leaves_the_block_as_it_is(error: BaseException) -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)

        async def work() -> None:
            async with open_pool(connect_with=connect) as pool:
                await pool.open_stream(REQUEST)
                await settled()
                raise error

        with pytest.raises(type(error)) as raised:
            await work()
        assert raised.value is error
    assert peers[0].goaways() == [ErrorCodes.NO_ERROR]


async def test_an_error_is_not_lost_in_a_cancellation() -> None:
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, Peer.serve)

        async def work(scope: trio.CancelScope) -> None:
            async with open_pool(connect_with=connect) as pool:
                await pool.open_stream(REQUEST)
                scope.cancel()
                raise ValueError("mine")

        is_raised = False
        with trio.CancelScope() as scope:
            with pytest.raises(ValueError, match="mine"):
                await work(scope)
            # A cancellation would not come here.
            is_raised = True
        assert is_raised


# Cancelling


async def test_cancelled_anywhere_a_pool_leaves_nothing() -> None:
    number, is_cancelled = 0, True
    while is_cancelled:
        number += 1
        async with trio.open_nursery() as nursery:
            connect, peers = dialer(nursery, answer_all)

            async def work() -> None:
                async with open_pool(connect_with=connect) as pool:  # noqa: B023
                    assert await ask(pool) == 200

            is_cancelled = await cancelled_at(number, work)
        # The peers' tasks have ended, so their connections have.
        assert all(peer.is_eof for peer in peers)
    assert number > 4


async def test_cancelled_anywhere_a_request_harms_no_other() -> None:
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, answer_all, max_concurrent_streams=1)
        async with open_pool(connect_with=connect) as pool:
            number = 1
            while await cancelled_at(number, lambda: ask(pool)):
                number += 1
                assert sum(connections(pool)) == 0
                assert await ask(pool) == 200
            assert number > 2
            assert all(not place.waiting for place in pool._places.values())
            assert all(not place.dialing.under_way for place in pool._places.values())


async def test_a_request_that_is_given_up_leaves_its_connection_to_others() -> None:
    dialed = 0
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, answer_all)

        async def connect_slowly(origin: Origin, deadline: float) -> trio.abc.Stream:
            nonlocal dialed
            dialed += 1
            await trio.sleep(1)
            return await connect(origin, deadline)

        async with open_pool(connect_with=connect_slowly) as pool:
            with trio.move_on_after(0.5):
                await ask(pool)
            assert await ask(pool) == 200
    assert dialed == 1


# Hostile peers: an error that says what was wrong, by its deadline, and no harm to others


async def answer_then(
    peer: Peer, *frames: Frame, cut: int | None = None, is_leaving: bool = False
) -> None:
    """Accept a request, and then say something else."""
    event = await peer.next(h2.events.RequestReceived)
    await peer.answer(event.stream_id)
    data = b"".join(frame.serialize() for frame in frames)
    await peer.send_bytes(data[:cut])
    if is_leaving:
        await peer.stream.aclose()
    await trio.sleep_forever()


HOSTILE: dict[str, tuple[Callable[[Peer], Awaitable[object]], type[S2FramesError], str, float]] = {
    "stalls inside a frame": (
        lambda peer: answer_then(peer, DataFrame(1, data=bytes(100)), cut=50),
        TransportError,
        "silent inside a frame for 20 s",
        PING_SECONDS + PONG_SECONDS,
    ),
    "stalls": (answer_then, TransportError, "silent for 20 s", PING_SECONDS + PONG_SECONDS),
    "leaves inside a frame": (
        lambda peer: answer_then(peer, DataFrame(1, data=bytes(100)), cut=50, is_leaving=True),
        TransportError,
        "closed the connection inside a frame",
        0,
    ),
    "data of no stream": (
        lambda peer: answer_then(peer, DataFrame(9, data=b"x")),
        TransportError,
        "broke HTTP/2",
        0,
    ),
    "settings": (
        lambda peer: answer_then(peer, *[SettingsFrame(0)] * (FLOOD_FRAMES + 1)),
        TransportError,
        "more than 1000 frames that say nothing",
        0,
    ),
    "pings": (
        lambda peer: answer_then(peer, *[PingFrame(0)] * (FLOOD_FRAMES + 1)),
        TransportError,
        "more than 1000 frames that say nothing",
        0,
    ),
}


@pytest.mark.parametrize(
    ("misbehave", "kind", "words", "seconds"), HOSTILE.values(), ids=HOSTILE.keys()
)
async def test_a_peer_that_misbehaves_harms_no_other(
    misbehave: Callable[[Peer], Awaitable[object]],
    kind: type[S2FramesError],
    words: str,
    seconds: float,
) -> None:
    async with trio.open_nursery() as nursery:

        async def misbehave_if_it_can(peer: Peer) -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await misbehave(peer)

        good, good_peers = dialer(nursery, Peer.serve)
        bad, _ = dialer(nursery, misbehave_if_it_can)
        async with open_pool(connect_with=choosing(good, bad)) as pool:
            follower = await pool.open_stream(Request("GET", "http://good/"))
            await settled()
            await good_peers[0].answer(follower.stream_id)
            start = trio.current_time()
            async with await pool.open_stream(Request("GET", "http://bad/"), end=True) as stream:
                with pytest.raises(kind, match=words) as raised:
                    await stream.receive_data()
            assert type(raised.value) is kind
            assert "http://bad" in str(raised.value)
            assert trio.current_time() == start + seconds
            await settled()
            assert connections(pool) == [1]
            await good_peers[0].data(follower.stream_id, b"unharmed")
            assert await follower.receive_data() == b"unharmed"
            assert len(good_peers) == 1
        nursery.cancel_scope.cancel()


def choosing(good: Connect, bad: Connect) -> Connect:
    """By name."""

    async def connect(origin: Origin, deadline: float) -> trio.abc.Stream:
        return await (good if origin.host == "good" else bad)(origin, deadline)

    return connect


@pytest.mark.parametrize(
    ("said", "words", "seconds"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1, not HTTP/2", 0),
        (b"\x00\x00\x06\x04", "the HTTP/2 handshake took too long", DEFAULT_CONNECT_TIMEOUT),
        (b"", "the HTTP/2 handshake took too long", DEFAULT_CONNECT_TIMEOUT),
    ],
)
async def test_a_peer_that_is_none_harms_no_other(said: bytes, words: str, seconds: float) -> None:
    async def bad(_origin: Origin, _deadline: float) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(said)
        return ours

    async with trio.open_nursery() as nursery:
        good, good_peers = dialer(nursery, answer_all)
        async with open_pool(connect_with=choosing(good, bad)) as pool:
            follower = await pool.open_stream(Request("GET", "http://good/"))
            start = trio.current_time()
            with pytest.raises(ConnectError, match=words):
                await pool.open_stream(Request("GET", "http://bad/"))
            assert trio.current_time() == start + seconds
            await settled()
            assert connections(pool) == [1]
            await good_peers[0].answer(follower.stream_id)
            assert (await follower.receive_response()).status == 200
            assert len(good_peers) == 1


async def test_data_after_the_end_harms_no_other_stream() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)
        async with open_pool(connect_with=connect) as pool:
            follower = await pool.open_stream(REQUEST)
            ended = await pool.open_stream(REQUEST, end=True)
            await settled()
            await peers[0].answer(ended.stream_id, end=True)
            assert await ended.receive_data() is None
            for _ in range(100):
                await peers[0].send(DataFrame(ended.stream_id, data=bytes(2**20)))
                await settled()
            await peers[0].answer(follower.stream_id)
            assert (await follower.receive_response()).status == 200
            assert await ended.receive_data() is None
            assert connections(pool) == [1]


# Without a wait


async def test_a_stream_that_is_not_waited_for() -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve, max_concurrent_streams=1)
        async with open_pool(connect_with=connect) as pool:
            told: list[int] = []
            opening = pool.begin_stream(REQUEST, on_settled=lambda: told.append(1))
            assert (opening.is_settled, told) == (False, [])
            await settled()
            assert (opening.is_settled, told) == (True, [1])
            assert opening.result().stream_id == 1
            assert len(peers) == 1
            # A second look is the same.
            opening.expire(trio.current_time() + 100)
            assert opening.result().stream_id == 1


@pytest.mark.parametrize("is_there", [False, True])
async def test_a_request_that_is_cancelled_leaves_nothing(is_there: bool) -> None:
    async with trio.open_nursery() as nursery:
        connect, peers = dialer(nursery, Peer.serve)
        async with open_pool(connect_with=connect) as pool:
            told: list[int] = []
            opening = pool.begin_stream(REQUEST, on_settled=lambda: told.append(1))
            if is_there:
                await settled()
            opening.cancel()
            opening.cancel()
            await settled()
            assert connections(pool) == [0]
            assert told == [1] * is_there
        assert set(peers[0].resets().values()) == ({ErrorCodes.CANCEL} if is_there else set())


async def test_a_request_has_its_time() -> None:
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, Peer.serve, max_concurrent_streams=0)
        async with open_pool(connect_with=connect) as pool:
            told: list[int] = []
            opening = pool.begin_stream(REQUEST, on_settled=lambda: told.append(1))
            assert opening.deadline == trio.current_time() + DEFAULT_OPEN_TIMEOUT
            opening.expire(opening.deadline - 0.1)
            assert not opening.is_settled
            opening.expire(opening.deadline)
            with pytest.raises(ConnectError, match="no room for another stream within 8 s"):
                opening.result()
            assert told == [1]
            assert not any(place.waiting for place in pool._places.values())


async def test_a_stream_that_comes_as_its_caller_is_cancelled_is_given_back() -> None:
    async with trio.open_nursery() as nursery:
        connect, _ = dialer(nursery, Peer.serve, max_concurrent_streams=1)
        async with open_pool(connect_with=connect) as pool:
            (place_taker, scope) = (await pool.open_stream(REQUEST), trio.CancelScope())

            async def ask_in_vain() -> None:
                with scope:
                    await pool.open_stream(REQUEST)

            async with trio.open_nursery() as asking:
                asking.start_soon(ask_in_vain)
                # It waits for a connection, which is being made.
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                # Both before the one who waits can run: its turn to go comes first.
                scope.cancel()
                place_taker.reset()
            assert scope.cancelled_caught
            await settled()
            assert sum(connections(pool)) == 0
