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
from s2frames.records import fence
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
    # The stream's token as far as is known, and how many were used: each is used once, so that a
    # token in the stream tells which fence brought it.
    _token: str = ""
    _num_tokens: int = 0

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
        self._num_tokens += 1
        token = f"{self.name}-{self._num_tokens}"
        if self._is_there(token):
            raise Broken(f"{self.name} uses the token {token} twice")
        expect = self._token if self.random.randrange(2) else None
        plan = fence_stream(self.stage.target, token, expect=expect)
        self._carry_out("fences", token, plan, token)

    def _carry_out(self, what: str, detail: object, plan: Plan[None], token: str | None) -> None:
        self.stage.world.note(self.name, what, detail)
        run_plan(self.stage, self.name, plan, partial(self._take_result, token))

    def _take_result(self, token: str | None, operation: Operation[None]) -> None:
        try:
            operation.result()
        except S2FramesError as error:
            if isinstance(error, FencingTokenMismatch):
                self._token = error.expected
            elif error.outcome is not Outcome.NOT_APPLIED and not is_retryable(error):
                raise Broken(f"{self.name} ended in {error!r}: {error}") from error
            if error.outcome is Outcome.NOT_APPLIED and token is not None:
                self._check(token, is_there=False)
        else:
            if token is not None:
                self._token = token
                self._check(token, is_there=True)
        self._command_later()

    def _is_there(self, token: str) -> bool:
        """Whether a fence with this token is in the stream, or was."""
        headers, body = fence(token).headers, token.encode()
        history = self.stage.oracle.store.history
        return any(r.headers == headers and r.body == body for r in history)

    def _check(self, token: str, *, is_there: bool) -> None:
        if self._is_there(token) != is_there:
            raise Broken(f"{self.name}: the fence {token} is in the stream: {not is_there}")
