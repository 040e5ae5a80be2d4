"""Ctrl-C at every line of an append session: it goes on, and nothing is lost, doubled or blamed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from attrs import define, field

from drive import TARGET, Client, World
from drive import whole as at_once
from frames import numbered
from interruption import Interruption, Place, sampled
from s2frames.append import AppendProtocol, AppendState
from s2frames.errors import LocalProtocolError, Outcome, TransportError, WriterConflict
from s2frames.events import Appended, FrameReceived, FramesDurable
from s2frames.read import ReadProtocol
from s2frames.records import Record
from s2frames.retry import Retry
from s2frames.session import Action, OpenRequest, SessionEnded
from s2frames.settings import AppendSettings, ReadSettings

NEVER = 10**9


@define(eq=False)
class CutClient(Client[AppendProtocol]):
    """A client whose machine is cut off at some line; what it does then an adapter does."""

    interruption: Interruption = field(factory=lambda: Interruption(NEVER))
    #: Whether what was sent comes in all the same, later than all that is sent anew.
    drains: bool = False

    def step(self) -> bool:
        was_cut_off = True
        with self.interruption:
            was_busy = super().step()
            was_cut_off = False
        if was_cut_off:
            self._give_up()
            return True
        return was_busy

    def handle_timeout(self) -> None:
        was_cut_off = True
        with self.interruption:
            super().handle_timeout()
            was_cut_off = False
        if was_cut_off:
            self._give_up()

    def _give_up(self) -> None:
        if self._wire is not None:
            wire, self._wire = self._wire, None
            if self.drains:
                self._draining.append(wire)
            else:
                wire.exchange.connection_lost(self.world.now)
        self.machine.interrupted(self.world.now)

    def _do(self, action: Action) -> None:
        if isinstance(action, OpenRequest) or self._wire is not None:
            super()._do(action)

    def _take_events(self) -> bool:
        before = len(self.events)
        while self.machine.events:
            self.events.append(self.machine.events[0])
            self.machine.events.popleft()
        return len(self.events) > before


class Play:
    """A session over the embedded service, cut off at the `k`-th line."""

    def __init__(self, k: int, *, drains: bool = False, **options: Any) -> None:
        self.world = World()
        self.interruption = Interruption(k)
        machine = AppendProtocol(TARGET, AppendSettings(**options), random=Random(1).random)
        self.client = CutClient(
            self.world,
            machine,
            "burst_batches" not in options,
            drains=drains,
            interruption=self.interruption,
        )
        self.world._clients.append(self.client)
        self.machine = machine
        self.accepted: list[bytes] = []

    def do(self, call: Callable[[], Any]) -> None:
        """A call of the user's. Nobody tells the session that it was cut off."""
        with self.interruption:
            call()

    def send(self, *payloads: bytes) -> None:
        before = self.machine.accepted_messages
        if len(payloads) == 1:
            self.do(lambda: self.machine.send(payloads[0], now=self.world.now))
        else:
            self.do(lambda: self.machine.send_many(list(payloads), now=self.world.now))
        num_new = self.machine.accepted_messages - before
        assert num_new in (0, len(payloads))
        self.accepted += payloads[:num_new]

    def drain(self) -> None:
        self.do(self.machine.flush)
        self.machine.flush()
        self.world.run(lambda: self.machine.is_durable or self.machine.is_over)

    def close(self) -> None:
        self.do(self.machine.close)
        self.machine.close()
        self.world.run(lambda: self.machine.is_over)
        self.client._take_events()

    @property
    def durable(self) -> list[Appended]:
        events = [event for event in self.client.events if isinstance(event, FramesDurable)]
        return [place for event in events for place in event.all_appended()]

    def read(self) -> list[FrameReceived]:
        reader = self.world.join_read(ReadProtocol(TARGET, ReadSettings(), random=Random(2).random))
        self.world.run(lambda: reader.machine.is_over)
        return [event for event in reader.events if isinstance(event, FrameReceived)]


def live(play: Play) -> None:
    play.send(b"a")
    play.send(b"b", b"c")
    play.drain()
    play.send(b"d")
    play.close()


def lose(play: Play) -> None:
    """The connection breaks once, after all was sent."""
    play.send(b"1")
    play.send(b"2")
    play.machine.flush()
    play.world.turn()
    play.client.lose(TransportError("the cable was cut"), drains=True)
    live(play)


def meet_another(play: Play) -> None:
    """The connection breaks before anything has arrived, and somebody appends as this writer."""
    play.send(b"1")
    play.send(b"2")
    play.machine.flush()
    appending = (AppendState.OPENING, AppendState.STREAMING)
    play.world.cut = lambda size: 0 if play.machine.state in appending else size
    play.world.run(lambda: play.machine.state in appending)
    play.client.lose(TransportError("the cable was cut"))
    play.world.cut = at_once
    play.world.append(Record(b"other", numbered(0, "w")))
    play.world.run(lambda: play.machine.is_over)
    play.client._take_events()


def check(play: Play) -> None:
    """Everything accepted is durable and told of: once, in order, and where it is."""
    where = play.interruption.where
    assert play.client.events[-1] == SessionEnded(None), where
    assert play.client.events.count(SessionEnded(None)) == 1
    assert play.machine.durable_messages == len(play.accepted), where
    frames = play.read()
    assert [frame.payload for frame in frames] == play.accepted, where
    assert len(play.durable) == len(play.accepted), where
    # A copy that was sent anew may be the one that was acked.
    assert all(p.start >= f.start for p, f in zip(play.durable, frames, strict=True)), where


def lived(life: Callable[[Play], None], **options: Any) -> tuple[Play, list[Place]]:
    """What happens when nothing is cut off, and the lines of it."""
    # What is done once for all is done by the first.
    life(Play(NEVER, **options))
    whole = Play(NEVER, **options)
    life(whole)
    places = list(whole.interruption.places)
    check(whole)
    return whole, places


OPTIONS: list[dict[str, Any]] = [
    {},
    {"burst_batches": 16},
    {"burst_batches": 1},
    {"exclusive": True},
    {"exclusive": True, "burst_batches": 4},
    {"dedupe": False, "allow_duplicates": True},
]
LIVES = [(live, options) for options in OPTIONS if not options.get("exclusive")]
LIVES += [(lose, options) for options in OPTIONS if options.get("exclusive") or not options]


@pytest.mark.parametrize(
    ("life", "options"), LIVES, ids=[f"{life.__name__} {options}" for life, options in LIVES]
)
def test_a_session_that_is_cut_off_at_any_line_goes_on(
    life: Callable[[Play], None], options: dict[str, Any]
) -> None:
    whole, places = lived(life, **options)
    # No attempt is counted for an interruption: a second one would be the end.
    retry = Retry(max_attempts=1 if life is live else 2)
    for k in sampled(places, with_last=life is lose):
        play = Play(k, drains=k % 2 == 0, retry=retry, **options)
        life(play)
        where = play.interruption.where
        assert play.interruption.came_out, where
        assert play.world.now < whole.world.now + 1, where
        if options.get("dedupe", True):
            check(play)
        if options.get("exclusive"):
            found = [(frame.start, frame.end) for frame in play.read()]
            assert found == [(place.start, place.end) for place in play.durable], where


def test_what_was_found_in_the_way_is_found_again() -> None:
    options: dict[str, Any] = {"exclusive": True, "writer_id": "w", "first_dedupe_seq": 0}
    meet_another(Play(NEVER, **options))
    first = Play(NEVER, **options)
    meet_another(first)
    num_reads = len(first.client.requests)
    for k in sampled(first.interruption.places):
        play = Play(k, **options)
        meet_another(play)
        where = play.interruption.where
        ended = play.client.events[-1]
        assert isinstance(ended, SessionEnded), where
        assert type(ended.error) is WriterConflict, where
        assert ended.error.outcome is Outcome.NOT_APPLIED, where
        assert len(play.client.requests) <= num_reads + 2, where
        assert play.machine.durable_messages == 0


def test_what_must_not_be_sent_twice_ends_with_an_error_if_something_was_sent() -> None:
    _, places = lived(live, dedupe=False)
    num_ended = 0
    for k in sampled(places):
        play = Play(k, dedupe=False)
        with suppress(LocalProtocolError):
            # It takes nothing more once it has ended.
            live(play)
        play.client._take_events()
        ended = play.client.events[-1]
        assert isinstance(ended, SessionEnded)
        if ended.error is None:
            check(play)
            continue
        num_ended += 1
        assert type(ended.error) is TransportError, play.interruption.where
        assert str(ended.error).startswith("the append was interrupted; ")
        assert ended.error.outcome is Outcome.UNKNOWN
        payloads = [frame.payload for frame in play.read()]
        assert payloads == play.accepted[: len(payloads)], play.interruption.where
        assert len(payloads) >= play.machine.durable_messages
    assert 0 < num_ended < k
