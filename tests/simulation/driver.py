"""What all who use the stream have in common: a machine, driven as an adapter drives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from attrs import define

from s2frames.errors import (
    ConnectError,
    S2FramesError,
)
from s2frames.operation import Operation, Plan
from s2frames.retry import Retry, is_retryable
from s2frames.session import (
    Action,
    CloseRequest,
    EndData,
    Machine,
    OpenRequest,
    SendData,
)
from s2frames.target import StreamTarget
from simulation.interruptions import CutOff, Interruptions
from simulation.invariants import Broken, Oracle
from simulation.network import Connection, Network
from simulation.world import World

__all__ = ["Actor", "Driver", "Patience", "Stage", "run_plan"]

_M = TypeVar("_M", bound=Machine)
_T = TypeVar("_T")

# What a driver's owner does when something may have happened; tells whether anything had.
_OnEvents = Callable[[], bool]


@define(eq=False)
class Stage:
    """What all actors of a run share."""

    world: World
    network: Network
    oracle: Oracle
    target: StreamTarget
    #: What the machines draw from.
    chance: Random
    #: When readers and writers are cut off.
    interruptions: Interruptions
    #: Sessions begun: lives of append and read sessions.
    sessions: int = 0


class Actor(Protocol):
    """Somebody who uses the stream."""

    #: Whether it wants nothing more.
    is_done: bool

    def start(self) -> None:
        """Begin."""


@define(eq=False)
class Driver(Generic[_M]):
    """Does what a machine asks for, as an adapter does."""

    stage: Stage
    name: str
    machine: _M
    on_events: _OnEvents
    is_duplex: bool = True
    #: Whether the user may be cut off.
    may_be_cut: bool = False
    #: Whether the application is busy: nothing is read and no deadline is looked at meanwhile.
    is_busy: bool = False
    is_dead: bool = False
    #: How often the user was cut off.
    num_cut: int = 0
    _connection: Connection | None = None
    _last_id: int = 0
    _due: float | None = None
    _is_pumping: bool = False
    # Whether the user was cut off, and what follows from that was not looked for.
    _must_look: bool = False

    def pump(self) -> None:
        """Do what is asked and hand out what happened, until there is nothing more."""
        if self._is_pumping:
            return
        self._is_pumping = True
        while not self.is_dead:
            actions = self.call(self.machine.data_to_send, self.stage.world.now)
            if actions is None:
                continue
            for action in actions:
                if self.is_cut_here():
                    break
                self._do(action)
            has_events = not self.is_busy and self.on_events()
            if not actions and not has_events:
                if self.is_busy or not self._must_look:
                    break
                # The first look for events after a cut gives up the answer; then it is asked anew.
                self._must_look = False
        self._is_pumping = False
        self._arm()

    def call(self, method: Callable[..., _T], *args: Any, **options: Any) -> _T | None:
        """Call the machine; None when that was cut off."""
        if not self.may_be_cut:
            return method(*args, **options)
        try:
            return self.stage.interruptions.call(partial(method, *args, **options))
        except CutOff as cut:
            self._cut_off(str(cut))
            return None

    def is_cut_here(self) -> bool:
        """Whether the user was cut off between two calls."""
        is_cut = self.may_be_cut and self.stage.interruptions.cuts_here()
        if is_cut:
            self._cut_off("")
        return is_cut

    def _cut_off(self, where: str) -> None:
        """What an adapter does then."""
        # Where it was is no part of the trace: it changes with every line of the code.
        self.stage.world.note(self.name, "is interrupted", "in a call" if where else "")
        self.num_cut += 1
        self._must_look = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self.machine.interrupted(self.stage.world.now)

    def die(self) -> None:
        """The process is no more."""
        self.is_dead = True
        if self._connection is not None:
            self._connection.die()
            self._connection = None

    def be_busy(self, seconds: float) -> None:
        """The application does something else for a while."""
        self.is_busy = True
        if self._connection is not None:
            self._connection.pause()
        self.stage.world.after(seconds, self._be_back)

    def _be_back(self) -> None:
        if self.is_dead:
            return
        self.is_busy = False
        self.machine.start_waiting(self.stage.world.now)
        if self._connection is not None:
            self._connection.resume()
        self.pump()

    def _do(self, action: Action) -> None:
        world = self.stage.world
        if isinstance(action, OpenRequest):
            if self._connection is not None or action.request_id <= self._last_id:
                raise Broken(f"{self.name} opens request {action.request_id} beside another one")
            self._last_id = action.request_id
            world.note(self.name, "opens", action.request.method)
            self._connection = self.stage.network.open(
                action.request_id, action.request, self, is_duplex=self.is_duplex
            )
            if action.request.body:
                self._connection.send(action.request.body)
            return
        connection = self._connection
        if connection is None or connection.request_id != action.request_id:
            # The answer is complete, so that nobody wants the rest of the request.
            return
        match action:
            case SendData(data=data):
                connection.send(b"".join(data))
            case EndData():
                connection.end()
            case CloseRequest():
                self._connection = None
                world.note(self.name, "closes")
                connection.close()

    def _arm(self) -> None:
        due = None if self.is_dead else self.machine.next_timeout()
        if due is not None and (self._due is None or due < self._due):
            self._due = due
            self.stage.world.at(due, partial(self._wake, due))

    def _wake(self, due: float) -> None:
        if self._due == due:
            self._due = None
        if self.is_dead or self.is_busy:
            return
        self.call(self.machine.handle_timeout, self.stage.world.now)
        self.pump()

    # The client's end of a connection

    def accepted(self, connection: Connection, num_bytes: int) -> None:
        """See `Peer`."""
        if not self.is_dead:
            now = self.stage.world.now
            self.call(self.machine.bytes_accepted, connection.request_id, num_bytes, now)
            self._arm()

    def answered(self, connection: Connection, status: int, headers: Mapping[str, str]) -> None:
        """See `Peer`."""
        if not self.is_dead:
            self.stage.world.note(self.name, "gets the answer", status)
            now = self.stage.world.now
            self.call(self.machine.receive_response, connection.request_id, status, headers, now)
            self.pump()

    def received(self, connection: Connection, data: bytes) -> None:
        """See `Peer`."""
        if not self.is_dead:
            self.stage.world.note(self.name, "gets bytes", len(data))
            self.call(self.machine.receive_data, connection.request_id, data, self.stage.world.now)
            self.pump()

    def ended(self, connection: Connection) -> None:
        """See `Peer`."""
        self._forget(connection)
        if not self.is_dead:
            self.stage.world.note(self.name, "gets the end of the answer")
            self.call(self.machine.receive_eof, connection.request_id, self.stage.world.now)
            self.pump()

    def lost(self, connection: Connection, error: S2FramesError) -> None:
        """See `Peer`."""
        self._forget(connection)
        if not self.is_dead:
            self.stage.world.note(self.name, "loses the connection", str(error))
            now = self.stage.world.now
            self.call(self.machine.connection_lost, connection.request_id, error, now)
            self.pump()

    def _forget(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None


@define(eq=False)
class Patience:
    """Whether a session that gives up may: it must have tried for long enough."""

    stage: Stage
    retry: Retry
    #: When something last went well.
    since: float

    def check(self, name: str, error: S2FramesError) -> None:
        """Raise when `error` may pass and was not tried long enough."""
        if not is_retryable(error):
            return
        if self.retry.max_attempts is not None and error.attempts == self.retry.max_attempts:
            return
        limit = self.retry.max_seconds
        if isinstance(error, ConnectError):
            limit = min(limit, self.retry.connect_seconds)
        # The next delay would have ended after the limit.
        longest_delay = max(2 * self.retry.max_delay, getattr(error, "retry_after", None) or 0.0)
        tried_for = self.stage.world.now - self.since
        if tried_for + longest_delay < limit:
            raise Broken(f"{name} gave up after {tried_for:g} s of {limit:g}: {error}")


def run_plan(
    stage: Stage, name: str, plan: Plan[_T], on_over: Callable[[Operation[_T]], None]
) -> Driver[Operation[_T]]:
    """Carry out a plan; `on_over` is told once."""
    settings = stage.target.settings
    operation = Operation(plan, settings, random=stage.chance.random)
    is_told = False

    def on_events() -> bool:
        nonlocal is_told
        events = operation.events_received()
        if operation.is_over and not is_told:
            is_told = True
            stage.world.after(0.0, lambda: None if driver.is_dead else on_over(operation))
        return bool(events)

    driver = Driver(stage, name, operation, on_events)
    driver.pump()
    return driver
