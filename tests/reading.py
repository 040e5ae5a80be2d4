"""Read sessions driven by hand, and what is needed to drive them with a service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from drive import BASIN, TARGET, Client, World
from embedded.host import PROTOBUF, RECORDS
from frames import encode, head, place
from s2_bodies import encode_input
from s2frames.errors import S2FramesError, TransportError
from s2frames.events import FrameReceived, FramesReceived
from s2frames.read import ReadEvent, ReadProtocol, ReadState
from s2frames.records import Record
from s2frames.retry import Retry
from s2frames.s2s import encode_message
from s2frames.session import CloseRequest, EndData, OpenRequest, Retrying, SessionEnded
from s2frames.settings import ReadSettings
from s2frames.target import StreamTarget

SESSION = {"content-type": "s2s/proto"}
JSON = {"content-type": "application/json"}
LOST = TransportError("the cable was cut")

#: For sessions that fail at the first mishap.
ONCE = Retry(max_attempts=1)

A, B, C = [head(b"a")], [head(b"b")], [head(b"c")]


def make(target: StreamTarget = TARGET, **options: Any) -> ReadProtocol:
    """A session without luck: nothing is added to its delays."""
    return ReadProtocol(target, ReadSettings(**options), random=lambda: 0.0)


def batch(records: Sequence[Record], start: int = 0, tail: int | None = None) -> bytes:
    """Records as a message of the answer."""
    return b"".join(encode_message(encode(place(records, start), tail)))


def heartbeat(tail: int) -> bytes:
    """A message that tells of the tail only."""
    return batch([], tail=tail)


def advised(message: bytes) -> bytes:
    """The message, with the wish for another connection."""
    return message[:3] + bytes([message[3] | 0x10]) + message[4:]


def opened_by(machine: ReadProtocol, now: float = 0.0) -> OpenRequest:
    """The request that the session makes, when it has closed the one before."""
    *closed, opened, complete = machine.data_to_send(now)
    assert all(isinstance(action, CloseRequest) for action in closed)
    assert isinstance(opened, OpenRequest)
    assert complete == EndData(opened.request_id)
    return opened


def query_of(opened: OpenRequest) -> dict[str, str]:
    """What is asked for."""
    return dict(parse_qsl(urlsplit(opened.request.url).query))


def answer(machine: ReadProtocol, *data: bytes, now: float = 0.0) -> OpenRequest:
    """Let the session ask, and begin to answer."""
    opened = opened_by(machine, now)
    machine.receive_response(opened.request_id, 200, SESSION, now)
    for piece in data:
        machine.receive_data(opened.request_id, piece, now)
    return opened


def opening(**options: Any) -> ReadProtocol:
    """A session that has asked and was not answered yet."""
    machine = make(**options)
    opened_by(machine)
    return machine


def reading(*data: bytes, **options: Any) -> ReadProtocol:
    """A session whose answer is arriving."""
    machine = make(**options)
    answer(machine, *data)
    return machine


def events_of(machine: ReadProtocol) -> list[ReadEvent]:
    """All events that there are."""
    return list(machine.events_received())


def singly(events: Iterable[ReadEvent | FramesReceived]) -> list[ReadEvent]:
    """The events, messages that came together one by one."""
    found: list[ReadEvent] = []
    for event in events:
        found += event.singly() if isinstance(event, FramesReceived) else [event]
    return found


def payloads(events: Iterable[ReadEvent]) -> list[bytes]:
    """Of the messages among the events."""
    return [event.payload for event in events if isinstance(event, FrameReceived)]


def error_in(machine: ReadProtocol) -> S2FramesError:
    """The error that ended the session, which must be the last event."""
    last = events_of(machine)[-1]
    assert isinstance(last, SessionEnded)
    assert last.error is not None
    assert machine.state is ReadState.FAILED
    assert machine.is_over
    return last.error


def retry_in(machine: ReadProtocol) -> Retrying:
    """Another attempt is announced, which must be the last event."""
    last = events_of(machine)[-1]
    assert isinstance(last, Retrying)
    assert machine.state is ReadState.WAITING
    return last


def wait(machine: ReadProtocol) -> float:
    """Let the time pass that the session waits for; tells what time it is then."""
    now = machine.next_timeout()
    assert now is not None
    machine.handle_timeout(now)
    return now


def outage(
    machine: ReadProtocol, make_error: Callable[[], S2FramesError], now: float = 0.0
) -> list[float]:
    """Let attempt after attempt fail until the session gives up; the times of the attempts."""
    times = []
    while True:
        opened = opened_by(machine, now)
        times.append(now)
        machine.connection_lost(opened.request_id, make_error(), now)
        events = events_of(machine)
        if machine.is_over:
            return times
        assert [type(event) for event in events] == [Retrying]
        now = wait(machine)


# With a service


def append(world: World, *records: Record) -> None:
    """Put records into the stream."""
    exchange = world.service.open("POST", RECORDS, {"s2-basin": BASIN, **PROTOBUF}, world.now)
    exchange.receive_data(encode_input(records, None, None), world.now)
    exchange.receive_eof(world.now)
    assert exchange.response is not None
    assert exchange.response.status == 200


def numbered_world(count: int = 5) -> World:
    """A stream with the messages `0`, `1` and so on."""
    world = World()
    if count:
        append(world, *(head(b"%d" % i) for i in range(count)))
    return world


def read_to_the_end(world: World, machine: ReadProtocol) -> Client[ReadProtocol]:
    """Run a session until it is over."""
    client = world.join_read(machine)
    world.run(lambda: machine.is_over)
    return client


def pass_time(client: Client[ReadProtocol], seconds: float) -> None:
    """Let so much time pass for a session that is alone in its world."""
    world = client.world
    end = world.now + seconds
    while True:
        while client.step():
            pass
        at = client.next_timeout()
        if at is None or at > end:
            world.now = end
            return
        world.now = max(world.now, at)
        client.handle_timeout()
