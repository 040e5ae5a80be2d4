"""Those who read: from checkpoint to checkpoint, or the last messages."""

from __future__ import annotations

from random import Random

from attrs import define, evolve, field

from s2frames.checkpoint import Checkpoint
from s2frames.events import (
    DropReason,
    FrameDropped,
    FrameReceived,
    GapDetected,
    SequenceGapDetected,
)
from s2frames.read import ReadProtocol
from s2frames.retry import is_retryable
from s2frames.session import (
    Retrying,
    SessionEnded,
)
from s2frames.settings import ReadSettings
from simulation.driver import Driver, Patience, Stage
from simulation.invariants import Broken, Delivery

__all__ = ["Latest", "Reader"]


@define(eq=False)
class Reader:
    """An application that reads the stream, stops and goes on from checkpoints."""

    stage: Stage
    name: str
    random: Random
    settings: ReadSettings
    #: Whether it stops, crashes and is busy now and then.
    is_restless: bool
    delivery: Delivery = field(init=False)
    is_done: bool = False
    _is_last_life: bool = False
    # The checkpoint that was kept, and what had been delivered then.
    _kept: str | None = None
    _kept_delivery: Delivery = field(init=False)
    _driver: Driver[ReadProtocol] | None = None
    _patience: Patience | None = None
    _events_left: int | None = None
    # Of this life: records of frames that were delivered, and whether any frame was dropped.
    _records_delivered: int = 0
    _has_drops: bool = False
    # The last tail that it reached.
    _caught_up_at: int = 0
    # How often it was cut off, as far as was seen.
    _num_cut: int = 0

    def __attrs_post_init__(self) -> None:
        self.delivery = Delivery(self.name)
        self._kept_delivery = self.delivery.copy()

    def start(self) -> None:
        """Begin."""
        self._begin(self.settings)

    def finish(self) -> None:
        """Read what is left, to the tail, and end there."""
        self._is_last_life = True
        if self._driver is not None:
            self.stop()
        else:
            self._begin(self._last_settings())

    def is_caught_up(self) -> bool:
        """Whether it has read all that is there; one that does not follow asks again later."""
        if not self.settings.follow or self._is_last_life:
            return True
        tail = len(self.stage.oracle.store.history)
        if self._driver is not None and self._driver.machine.caught_up is not None:
            self._caught_up_at = self._driver.machine.caught_up.seq_num
        return self._caught_up_at == tail

    def stop(self) -> None:
        """Stop here, and go on from here."""
        if self._driver is not None:
            self._keep(self._driver.machine)
            self._leave()

    def crash(self) -> None:
        """Die, and go on from the checkpoint that was kept last."""
        if self._driver is not None:
            self.stage.world.note(self.name, "crashes")
            self.delivery = self._kept_delivery.copy()
            self._leave()

    def be_busy(self, seconds: float) -> None:
        """Do something else for a while."""
        if self._driver is not None:
            self._driver.be_busy(seconds)

    def _keep(self, machine: ReadProtocol) -> None:
        self._kept = machine.checkpoint().to_json()
        self._kept_delivery = self.delivery.copy()

    def _leave(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.machine.close()
            driver.pump()
            driver.die()
        self.stage.world.after(self.random.random(), self._begin_again)

    def _begin_again(self) -> None:
        settings = self._last_settings() if self._is_last_life else self.settings
        self._begin(settings)

    def _last_settings(self) -> ReadSettings:
        return evolve(self.settings, follow=False, wait=None, limit=None)

    def _begin(self, settings: ReadSettings) -> None:
        if self._driver is not None:
            return
        stage = self.stage
        stage.sessions += 1
        if self._kept is not None:
            settings = evolve(settings, start=Checkpoint.from_json(self._kept))
        self._events_left, self._num_cut = None, 0
        if self.is_restless and not self._is_last_life:
            self._events_left = self.random.randint(0, 12)
        self._records_delivered, self._has_drops = 0, False
        retry = settings.retry or stage.target.settings.retry
        self._patience = Patience(stage, retry, stage.world.now)
        machine = ReadProtocol(stage.target, settings, random=stage.chance.random)
        self._driver = Driver(stage, self.name, machine, self._take_events, may_be_cut=True)
        stage.world.note(self.name, "begins")
        self._driver.pump()

    def _take_events(self) -> bool:
        driver = self._driver
        if driver is None:
            return False
        took = False
        machine = driver.machine
        offered: object = None
        while True:
            event = driver.call(machine.next_event)
            self._check_offer(offered, event)
            if event is None:
                if self._was_cut(driver):
                    continue
                if offered is not None:
                    raise Broken(f"{self.name}: {offered} was offered, and then nothing")
                break
            took = True
            if driver.is_cut_here():
                offered = event
                self._come_back(driver)
                continue
            offered = None
            machine.event_taken()
            if isinstance(event, SessionEnded):
                self._take_end(driver.machine, event)
                return True
            self._take(event)
            if self._events_left is not None and self._interrupt(driver):
                return True
        self._check_memory(driver.machine)
        return took

    def _check_offer(self, offered: object, event: object) -> None:
        """What was not taken must be offered again."""
        if offered is not None and event is not None and event != offered:
            raise Broken(f"{self.name}: {offered} was offered, and then {event}")

    def _come_back(self, driver: Driver[ReadProtocol]) -> None:
        """The user was cut off before the event was taken; a checkpoint is as of before it."""
        self._was_cut(driver)
        if self.random.randrange(2):
            self._keep(driver.machine)

    def _was_cut(self, driver: Driver[ReadProtocol]) -> bool:
        """Whether the user was cut off since this was asked last."""
        was_cut, self._num_cut = driver.num_cut != self._num_cut, driver.num_cut
        return was_cut

    def _interrupt(self, driver: Driver[ReadProtocol]) -> bool:
        """Do something else now and then; tells whether no more events are to be taken."""
        self._events_left = (self._events_left or 0) - 1
        if self._events_left >= 0:
            return False
        self._events_left = self.random.randint(0, 12)
        kind = self.random.randrange(5)
        if kind == 0:
            self.stop()
        elif kind == 1:
            self.crash()
        elif kind == 2:
            driver.be_busy(self.random.choice((0.01, 1.0, 30.0)))
        else:
            self._keep(driver.machine)
            return False
        return True

    def _take(self, event: object) -> None:
        if self._patience is not None and not isinstance(event, Retrying):
            self._patience.since = self.stage.world.now
        if isinstance(event, FrameReceived):
            self.stage.world.note(self.name, "delivers", event.start)
            self.stage.oracle.note_delivered(
                self.delivery, event.writer_id, event.payload, event.start, event.end
            )
            size = dict(self.stage.oracle.store.history[event.start].headers)[b"_frame_records"]
            self._records_delivered += int.from_bytes(size, "big")
        elif isinstance(event, FrameDropped):
            self._has_drops = True
            self._take_drop(event)
        elif isinstance(event, GapDetected):
            self.stage.world.note(self.name, "misses", f"{event.expected} to {event.actual}")
            self.delivery.gaps.append((event.expected, event.actual))
        elif isinstance(event, SequenceGapDetected):
            # Nobody's numbers jump, but where records were removed.
            if not self.delivery.gaps:
                raise Broken(f"{self.name}: {event}")
        elif isinstance(event, Retrying):
            self.stage.world.note(self.name, "tries again", str(event.error))

    def _take_drop(self, event: FrameDropped) -> None:
        self.stage.world.note(self.name, "drops", event.describe())
        if event.reason is DropReason.TRIMMED or (
            event.reason is DropReason.SEQUENCE_GAP and self.delivery.gaps
        ):
            self.delivery.lost.append(event.start)
        elif event.reason is DropReason.GIVEN_UP:
            self.stage.oracle.note_given_up(self.delivery, event.writer_id, event.start)
        elif event.reason.is_loss:
            raise Broken(f"{self.name}: {event.describe()}")

    def _check_memory(self, machine: ReadProtocol) -> None:
        limit = self.settings.max_buffered_bytes
        held = machine._reader.buffered_bytes
        if limit is not None and held > limit:
            raise Broken(f"{self.name} holds {held} bytes, and {limit} are allowed")

    def _take_end(self, machine: ReadProtocol, event: SessionEnded) -> None:
        self.stage.world.note(self.name, "ends", "" if event.error is None else str(event.error))
        self._driver = None
        self._keep(machine)
        if event.error is not None:
            if not is_retryable(event.error):
                raise Broken(f"{self.name} ended in {event.error!r}: {event.error}")
            if self._patience is not None:
                self._patience.check(self.name, event.error)
            self.stage.world.after(self.random.random() * 20, self._begin_again)
            return
        self._check_stats(machine)
        if self._is_last_life:
            self.stage.oracle.note_reached_tail(self.delivery)
            self.is_done = True
            return
        # One that ended at the tail finds little new there if it comes back soon.
        pause = 20.0 if self.settings.limit is None else 0.5
        self.stage.world.after(self.random.random() * pause, self._begin_again)

    def _check_stats(self, machine: ReadProtocol) -> None:
        """Every record is part of what was delivered, or is counted as something else."""
        stats = machine.stats
        rest = stats.records - stats.duplicates - stats.commands - stats.other_records
        checkpoint = machine.checkpoint()
        is_all_told = not self._has_drops and checkpoint.read_from == checkpoint.seen_through
        if rest < self._records_delivered or (is_all_told and rest != self._records_delivered):
            raise Broken(f"{self.name}: {self._records_delivered} records delivered of {stats}")


@define(eq=False)
class Latest:
    """Reads the last messages of the stream, when nothing is appended any more."""

    stage: Stage
    name: str
    count: int
    is_done: bool = False
    _payloads: list[bytes] = field(factory=list)

    def start(self) -> None:
        """Begin."""
        self.stage.sessions += 1
        settings = ReadSettings(last=self.count)
        machine = ReadProtocol(self.stage.target, settings, random=self.stage.chance.random)

        def take_events() -> bool:
            events = list(machine.events_received())
            for event in events:
                self._take(event)
            return bool(events)

        self.stage.world.note(self.name, "begins")
        Driver(self.stage, self.name, machine, take_events).pump()

    def _take(self, event: object) -> None:
        if isinstance(event, FrameReceived):
            self._payloads.append(event.payload)
        elif isinstance(event, SessionEnded):
            self.stage.world.note(self.name, "ends", str(event.error))
            self.is_done = True
            if event.error is None:
                self.stage.oracle.note_latest(self._payloads, self.count)
            elif not is_retryable(event.error):
                raise Broken(f"{self.name} ended in {event.error!r}: {event.error}")
