"""Somebody who fences and trims the stream."""

from __future__ import annotations

from functools import partial
from random import Random

from attrs import define

from s2frames.commands import fence_stream, trim_stream
from s2frames.errors import (
    FencingTokenMismatch,
    Outcome,
    S2FramesError,
)
from s2frames.operation import Operation, Plan
from s2frames.retry import is_retryable
from simulation.driver import Stage, run_plan
from simulation.invariants import Broken

__all__ = ["Commander"]


@define(eq=False)
class Commander:
    """Somebody who fences and trims the stream while others use it."""

    stage: Stage
    name: str
    random: Random
    commands: int
    #: Seconds between two commands, at most.
    max_pause: float
    trims: bool
    fences: bool
    is_done: bool = False
    _token: str = ""

    def start(self) -> None:
        """Begin."""
        self._command_later()

    def cancel(self) -> None:
        """Give no further command."""
        self.commands = 0

    def _command_later(self) -> None:
        if self.commands <= 0 or not (self.trims or self.fences):
            self.is_done = True
            return
        self.commands -= 1
        self.stage.world.after(self.random.random() * self.max_pause, self.command)

    def command(self) -> None:
        """Give a command."""
        if self.trims and (not self.fences or self.random.randrange(2)):
            self.trim()
        else:
            self.fence()

    def trim(self) -> None:
        """Remove records, from the beginning up to anywhere."""
        tail = len(self.stage.oracle.store.history)
        before = self.random.randint(0, tail + 1)
        self._carry_out("trims before", before, trim_stream(self.stage.target, before), None)

    def fence(self) -> None:
        """Set another fencing token."""
        token = f"{self.name}-{self.stage.world.steps}"
        expect = self._token if self.random.randrange(2) else None
        plan = fence_stream(self.stage.target, token, expect=expect)
        self._carry_out("fences", token, plan, token.encode())

    def _carry_out(self, what: str, detail: object, plan: Plan[None], body: bytes | None) -> None:
        self.stage.world.note(self.name, what, detail)
        run_plan(self.stage, self.name, plan, partial(self._take_result, body))

    def _take_result(self, body: bytes | None, operation: Operation[None]) -> None:
        history = self.stage.oracle.store.history
        is_there = any(record.body == body for record in history)
        try:
            operation.result()
        except FencingTokenMismatch as error:
            self._token = error.expected
            self._check(is_there=False, found=is_there)
        except S2FramesError as error:
            if error.outcome is Outcome.NOT_APPLIED:
                self._check(is_there=False, found=is_there)
            elif not is_retryable(error):
                raise Broken(f"{self.name} ended in {error!r}: {error}") from error
        else:
            if body is not None:
                self._token = body.decode()
                self._check(is_there=True, found=is_there)
        self._command_later()

    def _check(self, *, is_there: bool, found: bool) -> None:
        if found != is_there:
            raise Broken(f"{self.name}: the fence is in the stream: {found}, it said otherwise")
