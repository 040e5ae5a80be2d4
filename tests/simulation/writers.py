"""Those who append: over sessions that may crash, and past the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random

from attrs import define, evolve, field

from s2frames.append import AppendProtocol, AppendState
from s2frames.errors import (
    FencingTokenMismatch,
    Outcome,
    S2FramesError,
    SeqNumMismatch,
    WriterNotFound,
)
from s2frames.events import (
    FramesDurable,
)
from s2frames.operation import Operation
from s2frames.records import Record
from s2frames.recover import recover_writer
from s2frames.retry import is_definite, is_effect_free, is_retryable
from s2frames.session import (
    Retrying,
    SessionEnded,
)
from s2frames.settings import AppendSettings
from s2frames.target import PROTOBUF_CONTENT_TYPE
from s2frames.wire import AppendInput, encode_append_input
from s2frames.writer import FrameWriter
from s2frames.writer_state import PendingMessage, WriterState
from simulation.driver import Driver, Patience, Stage, run_plan
from simulation.invariants import Broken, Lane

__all__ = ["Neighbour", "Writer", "WriterPlan"]

_UNARY = {
    "s2-basin": "test-basin",
    "content-type": PROTOBUF_CONTENT_TYPE,
    "accept": PROTOBUF_CONTENT_TYPE,
}

# In milliseconds.
_HOUR = 3_600_000


@define(kw_only=True)
class WriterPlan:
    """What a writer does."""

    settings: AppendSettings
    #: The messages, without the words that make each unlike every other.
    sizes: list[int]
    #: Seconds between two calls of `send`, at most.
    max_pause: float
    #: Seconds after which the process crashes, one after the other.
    crashes: list[float]
    #: Whether it goes on, where it can, after a session gave up.
    goes_on: bool = True
    #: Whether some of the messages have timestamps of their own.
    has_own_timestamps: bool = False


@define(eq=False)
class Writer:
    """An application that appends its messages, and keeps them until they are durable."""

    stage: Stage
    name: str
    plan: WriterPlan
    random: Random
    is_done: bool = False
    #: Messages that no session has accepted yet.
    _unsent: deque[bytes] = field(factory=deque)
    _driver: Driver[AppendProtocol] | None = None
    _recovery: Driver[Operation[WriterState]] | None = None
    _lane: Lane | None = None
    # The session's number, the payloads that it accepted, and how many of them are durable.
    _session: int = 0
    _accepted: list[bytes] = field(factory=list)
    _durable: int = 0
    # Where the session's first message is among its lane's, and where the tail was at its begin.
    _base: int = 0
    _first_tail: int = 0
    # Whether an attempt failed since something became durable, so that it may have landed.
    _is_in_doubt: bool = False
    _patience: Patience | None = None
    _messages: int = 0

    @property
    def num_unsent(self) -> int:
        """How many messages no session has accepted yet."""
        return len(self._unsent)

    def start(self) -> None:
        """Begin."""
        for size in self.plan.sizes:
            words = b"%s:%d:" % (self.name.encode(), self._messages)
            self._messages += 1
            self._unsent.append(words + b"x" * size)
        for delay in self.plan.crashes:
            self.stage.world.after(delay, self.crash)
        self._begin(self.plan.settings)

    def cancel(self) -> None:
        """Close the session: what it has is the last."""
        self._unsent.clear()
        if self._driver is not None:
            self._driver.machine.close()
            self._driver.pump()

    def submit(self, count: int = 1) -> None:
        """Let the session accept messages, if it is there and has room."""
        driver = self._driver
        if driver is None or driver.machine.is_full:
            return
        payloads = [self._unsent.popleft() for _ in range(min(count, len(self._unsent)))]
        if len(payloads) == 1:
            self._send(driver.machine, self._message(payloads[0]), driver)
        elif payloads:
            self._insist(driver, payloads, partial(driver.machine.send_many, payloads))
        if self.random.randrange(4) == 0:
            driver.machine.flush()
        if not self._unsent:
            driver.machine.close()
        driver.pump()

    def crash(self) -> None:
        """The process dies and comes back."""
        driver, self._driver = self._driver, None
        if driver is None:
            return
        self.stage.world.note(self.name, "crashes")
        # What an application that wants to go on has written down of its own.
        journal = driver.machine.pending().messages
        writer_id = driver.machine.writer_id
        is_exclusive = self.plan.settings.is_exclusive
        driver.die()
        if is_exclusive and writer_id is not None:
            self._recover(writer_id, journal)
        else:
            self.stage.world.after(self.random.random(), lambda: self._begin(self._fresh()))

    # Sessions

    def _fresh(self) -> AppendSettings:
        return evolve(self.plan.settings, resume=None, match_seq_num=None)

    def _begin(self, settings: AppendSettings, messages: tuple[PendingMessage, ...] = ()) -> None:
        """A session begins, with messages that an earlier one did not bring in."""
        stage = self.stage
        stage.sessions += 1
        self._session = stage.sessions
        place = settings.first_match_seq_num
        self._first_tail = len(stage.oracle.store.history) if place is None else place
        machine = AppendProtocol(stage.target, settings, random=stage.chance.random)
        self._accepted, self._durable, self._is_in_doubt = [], 0, False
        stage.world.note(self.name, "begins as", str(machine.writer_id))
        self._lane = None
        if machine.writer_id is not None:
            is_exclusive = settings.is_exclusive
            self._lane = stage.oracle.open_lane(machine.writer_id, is_exclusive=is_exclusive)
            self._base = self._lane.durable
        self._patience = Patience(
            stage, settings.retry or stage.target.settings.retry, stage.world.now
        )
        driver = Driver(
            stage,
            self.name,
            machine,
            self._take_events,
            settings.burst_batches is None,
            may_be_cut=True,
        )
        self._driver = driver
        for message in messages:
            self._send(machine, message, driver)
        if not self._unsent:
            machine.close()
        driver.pump()
        self._submit_later(driver)

    def _submit_later(self, driver: Driver[AppendProtocol]) -> None:
        def submit() -> None:
            if self._driver is driver and self._unsent:
                self.submit(self.random.randint(1, 6))
                self._submit_later(driver)

        self.stage.world.after(self.random.random() * self.plan.max_pause, submit)

    def _message(self, payload: bytes) -> PendingMessage:
        has_own = self.plan.has_own_timestamps and self.random.randrange(2) == 0
        timestamp = _far_timestamp(self.stage, self.random) if has_own else None
        return PendingMessage(payload, (), timestamp, 0, 0)

    def _send(
        self,
        machine: AppendProtocol,
        message: PendingMessage,
        driver: Driver[AppendProtocol],
    ) -> None:
        self._insist(
            driver,
            [message.payload],
            partial(machine.send, message.payload, message.headers, message.timestamp),
        )

    def _insist(
        self, driver: Driver[AppendProtocol], payloads: list[bytes], send: Callable[..., object]
    ) -> None:
        """Have messages accepted, all or none at a time, however often that is cut off."""
        machine = driver.machine
        before = machine.accepted_messages
        while machine.accepted_messages == before and not machine.is_over:
            driver.call(send, now=self.stage.world.now)
        num_accepted = machine.accepted_messages - before
        if num_accepted not in (0, len(payloads)):
            raise Broken(f"{self.name}: {num_accepted} of {len(payloads)} messages were accepted")
        self._note_accepted(payloads[:num_accepted])
        self._unsent.extendleft(reversed(payloads[num_accepted:]))

    def _note_accepted(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            index = len(self._accepted)
            self._accepted.append(payload)
            if self._lane is None:
                self.stage.oracle.plain.sent[payload] = (self._session, index)
            elif self._base + index == len(self._lane.sent):
                self._lane.sent.append(payload)
            elif self._lane.sent[self._base + index] != payload:
                raise Broken(f"{self.name} goes on with another message than it left off")

    def _take_events(self) -> bool:
        driver = self._driver
        if driver is None:
            return False
        machine, took = driver.machine, False
        # An event is taken once it is dealt with.
        while self._driver is driver and machine.events:
            if driver.is_cut_here():
                continue
            event, took = machine.events[0], True
            if isinstance(event, FramesDurable):
                self._take_durable(event)
            elif isinstance(event, Retrying):
                self.stage.world.note(self.name, "tries again", str(event.error))
                # Else it was no append that failed.
                if driver.machine.state is AppendState.WAITING and not is_definite(event.error):
                    self._is_in_doubt = True
            else:
                self._take_end(driver.machine, event)
            machine.events.popleft()
        self._check_memory(driver.machine)
        return took

    def _take_durable(self, event: FramesDurable) -> None:
        if event.first_frame != self._durable and event.num_frames:
            raise Broken(f"{self.name}: {event.first_frame} is durable, {self._durable} was next")
        if self._patience is not None:
            self._patience.since = self.stage.world.now
        self._is_in_doubt = False
        oracle = self.stage.oracle
        for appended in event.all_appended():
            if self._lane is None:
                oracle.note_plain_durable(self._accepted[self._durable], appended)
            else:
                oracle.note_durable(self._lane, self._base + self._durable, appended)
            self._durable += 1
        self.stage.world.note(self.name, "has durable", self._durable)

    def _check_memory(self, machine: AppendProtocol) -> None:
        writer, settings = machine._writer, self.plan.settings
        largest = max(map(len, self._accepted), default=0) + 1024 * 1024
        if writer.inflight_bytes > settings.max_inflight_bytes:
            raise Broken(f"{self.name} has {writer.inflight_bytes} bytes in flight")
        if writer.queued_bytes > settings.max_inflight_bytes + 6 * largest:
            raise Broken(f"{self.name} has {writer.queued_bytes} bytes queued")

    # Ends

    def _take_end(self, machine: AppendProtocol, event: SessionEnded) -> None:
        self._driver = None
        error = event.error
        self.stage.world.note(self.name, "ends", "" if error is None else repr(str(error)))
        if error is None:
            if self._durable != len(self._accepted) or machine.pending().messages:
                raise Broken(f"{self.name} ended well with {self._durable} durable messages")
            self.is_done = True
            return
        self._check_end(machine, error)
        self.stage.world.after(self.random.random() * 5, lambda: self._go_on(machine, error))

    def _check_end(self, machine: AppendProtocol, error: S2FramesError) -> None:
        if not (is_retryable(error) or isinstance(error, FencingTokenMismatch | SeqNumMismatch)):
            raise Broken(f"{self.name} ended in {error!r}: {error}")
        if isinstance(error, SeqNumMismatch):
            self._check_mismatch(error)
        settings = self.plan.settings
        is_retried = settings.dedupe or settings.allow_duplicates or is_effect_free(error)
        if self._patience is not None and is_retried:
            self._patience.check(self.name, error)
        pending = [message.payload for message in machine.pending().messages]
        if pending != self._accepted[self._durable :]:
            raise Broken(
                f"{self.name} has {len(pending)} messages pending, not what is not durable"
            )
        if error.durable_messages != self._durable or error.outcome is None:
            raise Broken(f"{self.name} ended in {error!r}: {error}")
        if error.outcome is Outcome.NOT_APPLIED:
            if self._lane is not None:
                self.stage.oracle.note_not_applied(self._lane)
            else:
                self.stage.oracle.note_plain_not_applied(self._session, self._durable)

    def _check_mismatch(self, error: SeqNumMismatch) -> None:
        """Somebody else must have appended, and more than a trim that is to be stepped over."""
        writer_id = "" if self._lane is None else self._lane.writer_id
        own = (b"_writer_id", writer_id.encode())
        history = self.stage.oracle.store.history[self._first_tail :]
        others = [record for record in history if own not in record.headers]
        if not others:
            raise Broken(f"{self.name} ended in {error!r}, and nobody else appends")
        is_one_trim = len(others) == 1 and others[0].headers == ((b"", b"trim"),)
        if is_one_trim and self._is_in_doubt and error.outcome is Outcome.NOT_APPLIED:
            raise Broken(f"{self.name} ended in {error!r} at a trim while it was in doubt")

    def _go_on(self, machine: AppendProtocol, error: S2FramesError) -> None:
        pending = machine.pending()
        if not self.plan.goes_on:
            self.is_done = True
            return
        settings = self._fresh()
        if isinstance(error, FencingTokenMismatch):
            settings = evolve(settings, fencing_token=error.expected)
            self.plan.settings = settings
        is_free = error.outcome is Outcome.NOT_APPLIED
        if is_free and self.random.random() < 0.5:
            # None of it is there, so that anybody may send it.
            self._begin(settings, pending.messages)
        elif pending.state is not None:
            self._resume(settings, pending.state, pending.messages)
        elif machine.writer_id is not None:
            self._recover(machine.writer_id, pending.messages)
        else:
            self._begin(settings)

    def _resume(
        self,
        settings: AppendSettings,
        state: WriterState,
        messages: tuple[PendingMessage, ...],
    ) -> None:
        if not state.last_frame_is_whole:
            self.stage.oracle.lanes[state.writer_id].may_supersede = True
        self._begin(evolve(settings, resume=state), messages)

    def _recover(self, writer_id: str, journal: tuple[PendingMessage, ...]) -> None:
        """Go on as the same writer, from what the stream holds."""
        plan = recover_writer(self.stage.target, writer_id)
        self._recovery = run_plan(
            self.stage, self.name, plan, partial(self._take_recovery, writer_id, journal)
        )

    def _take_recovery(
        self,
        writer_id: str,
        journal: tuple[PendingMessage, ...],
        operation: Operation[WriterState],
    ) -> None:
        self._recovery = None
        try:
            state = operation.result()
        except WriterNotFound:
            self.stage.world.note(self.name, "was trimmed")
            self.is_done = True
            return
        except S2FramesError as error:
            if not (is_retryable(error) or isinstance(error, SeqNumMismatch)):
                raise Broken(f"{self.name} cannot be recovered: {error!r}: {error}") from error
            self.stage.world.after(1.0, lambda: self._recover(writer_id, journal))
            return
        lane = self.stage.oracle.lanes[writer_id]
        self._check_recovered(lane, state)
        left = tuple(m for m in journal if m.end_dedupe_seq > state.next_dedupe_seq)
        lane.durable += len(journal) - len(left)
        if lane.durable != len(lane.frames):
            raise Broken(f"{self.name} takes {lane.durable} messages for durable")
        self._resume(self._fresh(), state, left)

    def _check_recovered(self, lane: Lane, state: WriterState) -> None:
        self.stage.oracle.check()
        if state.next_dedupe_seq != len(lane.records):
            raise Broken(f"{self.name} was recovered at {state.next_dedupe_seq}")
        if state.last_frame_is_whole != lane.is_whole:
            raise Broken(f"{self.name} was recovered as whole: {state.last_frame_is_whole}")


def _far_timestamp(stage: Stage, random: Random) -> int:
    """A timestamp far from when its record arrives."""
    arrival = int(stage.world.now * 1000)
    return random.choice((0, 1, arrival - _HOUR, arrival + _HOUR, 2**63))


@define(eq=False)
class Neighbour:
    """A writer that appends records one by one, as other libraries do, past the network.

    Its frames are of many small records, other writers' come in between, and now and then it takes
    its last ones for lost and appends them again, or falls silent inside a frame: for a while, in
    which others go on, or for ever.
    """

    stage: Stage
    name: str
    random: Random
    messages: int
    max_pause: float
    is_done: bool = False
    _records: list[Record] = field(factory=list)
    _next: int = 0

    def start(self) -> None:
        """Begin."""
        writer = FrameWriter(self.name, chunk_size=self.random.randint(1, 9))
        lane = self.stage.oracle.open_lane(self.name)
        for number in range(self.messages):
            payload = b"%s:%d:" % (self.name.encode(), number) + b"y" * self.random.randint(0, 30)
            lane.sent.append(payload)
            is_far = self.random.randrange(4) == 0
            writer.send(payload, (), _far_timestamp(self.stage, self.random) if is_far else None)
        for batch in writer.batches_to_send(flush=True):
            self._records += batch.records
        if self.random.randrange(4) == 0:
            del self._records[self.random.randrange(len(self._records)) :]
        self._append()

    def _append(self) -> None:
        if self._next == len(self._records):
            self.is_done = True
            return
        count = self.random.randint(1, 3)
        records = self._records[self._next : self._next + count]
        stage = self.stage
        exchange = stage.network.service.open(
            "POST", "/v1/streams/room%2F1/records", _UNARY, stage.world.now
        )
        exchange.receive_data(encode_append_input(AppendInput(records)), stage.world.now)
        exchange.receive_eof(stage.world.now)
        self._next += len(records)
        if self.random.randrange(8) == 0:
            self._next = max(0, self._next - self.random.randint(1, 4))
        pause = self.random.random() * self.max_pause
        if self._next < len(self._records) and self.random.randrange(12) == 0:
            pause += self.random.choice((1.0, 5.0, 20.0))
            stage.world.note(self.name, "falls silent", pause)
        stage.world.after(pause, self._append)
