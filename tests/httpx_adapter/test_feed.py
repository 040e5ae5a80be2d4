from __future__ import annotations

import time

import httpx
import pytest
from attrs import define

from httpx_adapter.machine import URL, ScriptedMachine, opening
from s2frames import LocalProtocolError
from s2frames.errors import ConnectError
from s2frames.pace import MAX_HELD_BYTES, MIN_RATE
from s2frames.writes import MAX_WRITE_BYTES
from s2frames_httpx.feed import Feed
from s2frames_httpx.outgoing import Outgoing
from s2frames_httpx.patience import seconds_in

# Seconds that httpx lets a read take in these tests.
USUAL = 5.0

# Far enough away for tests that do not care.
LATER = 3600.0


def feed_for(machine: ScriptedMachine) -> Feed:
    return Feed(machine, time.monotonic)


@define
class Clock:
    """A clock that a test moves."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def begin(feed: Feed) -> tuple[httpx.Request, Outgoing]:
    """Begin with what the machine asks for."""
    asked = feed.asked()
    assert asked is not None
    assert asked.request is not None
    feed.begin(asked.request)
    with httpx.Client(timeout=USUAL) as client:
        return feed.build(client, asked.request), asked.request


def read_timeout(request: httpx.Request) -> float:
    seconds: float = request.extensions["timeout"]["read"]
    return seconds


def body_of(request: httpx.Request) -> bytes:
    assert isinstance(request.stream, httpx.SyncByteStream)
    return b"".join(request.stream)


def test_nothing_asked_is_none() -> None:
    assert feed_for(ScriptedMachine([])).asked() is None


def test_the_machine_is_told_what_is_taken_and_that_the_head_is_awaited() -> None:
    machine = ScriptedMachine([opening(1, b"x" * 40_000)])
    feed = feed_for(machine)
    request, _ = begin(feed)
    assert machine.told == []
    assert body_of(request) == b"x" * 40_000
    assert machine.told == [(1, "accepted", 16384), (1, "accepted", 23616), "waiting"]


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [
        (0.0, [16, 32, 64, 128, 256, 256, 256, 16]),
        # 32 kB/s: the pieces take half a second each.
        (1.0, [16] * 64),
    ],
)
def test_pieces_are_as_large_as_the_line_is_fast(seconds: float, sizes: list[int]) -> None:
    kib = 1024
    clock = Clock()
    machine = ScriptedMachine([opening(1, bytes(2**20))])
    feed = Feed(machine, clock)
    request, _ = begin(feed)
    assert isinstance(request.stream, httpx.SyncByteStream)
    for piece in request.stream:
        clock.now += seconds * len(piece) / (32 * kib)
    taken = [told[2] // kib for told in machine.told if told[1] == "accepted"]
    assert taken == sizes


# The time-out of a read


@pytest.mark.parametrize(
    ("left", "expected"),
    [(LATER, LATER), (2.0, 2.0), (0.0, 0.005), (-5.0, 0.005), (None, USUAL)],
)
def test_the_head_may_take_as_long_as_the_machine_would_wait(
    left: float | None, expected: float
) -> None:
    machine = ScriptedMachine([opening(1, b"x")])
    request, _ = begin(feed_for(machine))
    machine.timeout = None if left is None else time.monotonic() + left
    body_of(request)
    assert read_timeout(request) == pytest.approx(expected, abs=0.5 if expected > 1 else 0)


@pytest.mark.parametrize(
    ("left", "expected"), [(LATER, LATER), (2.0, USUAL), (0.0, USUAL), (None, USUAL)]
)
def test_the_body_of_an_answer_has_its_time_even_when_the_head_was_late(
    left: float | None, expected: float
) -> None:
    machine = ScriptedMachine([opening(1)])
    feed = feed_for(machine)
    request, _ = begin(feed)
    machine.timeout = time.monotonic()
    body_of(request)
    assert read_timeout(request) == 0.005
    machine.timeout = None if left is None else time.monotonic() + left
    feed.wait_for_data(request)
    if left is not None:
        assert read_timeout(request) == pytest.approx(expected, abs=0.5)
    assert machine.told == ["waiting", "waiting"]


# The time-out of a write


@pytest.mark.parametrize(
    ("size", "seconds"),
    [
        (0, 0),
        (1, 1 / MIN_RATE),
        (160_000, 10.0),
        # No more is before the line than buffers hold, and a piece that is being written.
        (5 * 2**20, (MAX_HELD_BYTES + MAX_WRITE_BYTES) / MIN_RATE),
    ],
)
def test_a_write_may_take_as_long_as_what_is_before_it_takes_to_cross(
    size: int, seconds: float
) -> None:
    request, _ = begin(feed_for(ScriptedMachine([opening(1, bytes(size))])))
    timeout = request.extensions["timeout"]
    assert timeout["write"] == pytest.approx(USUAL + seconds)
    assert timeout["read"] == USUAL


@pytest.mark.parametrize(
    ("size", "seconds"), [(0, 0), (160_000, 10.0), (5 * 2**20, (2**20 + 65_536) / MIN_RATE)]
)
def test_an_ack_may_take_as_long_as_a_batch_takes_to_cross(size: int, seconds: float) -> None:
    machine = ScriptedMachine([opening(1, bytes(size))])
    feed = feed_for(machine)
    request, _ = begin(feed)
    machine.timeout = time.monotonic() + 1
    feed.wait_for_data(request)
    assert read_timeout(request) == pytest.approx(USUAL + seconds)


def test_who_asks_again_hears_what_the_machine_would_wait() -> None:
    clock = Clock()
    machine = ScriptedMachine([opening(1, b"x" * 100)])
    feed = Feed(machine, clock)
    request, _ = begin(feed)
    writing = request.extensions["timeout"]["write"]
    machine.timeout = clock.now + 7.0
    body_of(request)
    reading = request.extensions["timeout"]["read"]
    for patience in (writing, reading):
        assert seconds_in(patience) == 7.0
        clock.now += 2.0
        assert seconds_in(patience) == 5.0
        clock.now -= 2.0


# The answer


def test_an_answer_that_trickles_meets_its_deadline() -> None:
    machine = ScriptedMachine([opening(1)])
    feed = feed_for(machine)
    begin(feed)
    machine.timeout = time.monotonic() + LATER
    feed.head(httpx.Response(200, headers={"Content-Type": "x"}))
    feed.data(b"a")
    machine.timeout = time.monotonic()
    feed.data(b"b")
    feed.data(None)
    assert machine.told == [(1, 200, "x"), (1, b"a"), (1, b"b"), "timeout", (1, "eof")]


# Failures


@pytest.mark.parametrize("kind", [httpx.ReadTimeout, httpx.WriteTimeout])
def test_the_machine_may_act_on_a_time_out_before_it_hears_of_it(
    kind: type[httpx.HTTPError],
) -> None:
    machine = ScriptedMachine([opening(1)], timeout=0.0)
    feed = feed_for(machine)
    begin(feed)
    feed.failed(kind("slow"))
    assert machine.told == ["timeout", (1, "lost")]


@pytest.mark.parametrize("kind", [httpx.ConnectTimeout, httpx.WriteError, httpx.ReadError])
def test_the_machine_hears_of_other_failures_as_they_are(kind: type[httpx.HTTPError]) -> None:
    machine = ScriptedMachine([opening(1)], timeout=0.0)
    feed = feed_for(machine)
    begin(feed)
    feed.failed(kind("broken"))
    assert machine.told == [(1, "lost")]
    (error,) = machine.errors
    assert URL in str(error)
    assert isinstance(error, ConnectError) == (kind is httpx.ConnectTimeout)


def test_a_closed_client_is_the_users_own_doing() -> None:
    machine = ScriptedMachine([opening(1)])
    feed = feed_for(machine)
    begin(feed)
    feed.closed()
    assert [type(error) for error in machine.errors] == [LocalProtocolError]


def test_an_interruption_is_told_as_one() -> None:
    machine = ScriptedMachine([opening(1)])
    feed = feed_for(machine)
    begin(feed)
    feed.interrupted()
    assert machine.told == ["interrupted"]
    assert machine.errors == []


def test_how_long_there_is() -> None:
    machine = ScriptedMachine([])
    feed = feed_for(machine)
    assert feed.seconds_left() is None
    machine.timeout = time.monotonic() - 1
    assert feed.seconds_left() == 0.0
    machine.timeout = time.monotonic() + LATER
    assert feed.seconds_left() == pytest.approx(LATER, abs=60)
