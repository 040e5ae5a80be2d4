"""A machine that asks for what a test says, and notes what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field

from s2frames.errors import S2FramesError
from s2frames.http import Request
from s2frames.session import Action, EndData, OpenRequest, SendData

__all__ = ["URL", "ScriptedMachine", "opening"]

URL = "http://test.localhost"


def opening(number: int, *data: bytes) -> list[Action]:
    """A request for that URL, with a body if there is `data`."""
    request = Request("POST" if data else "GET", URL)
    body = [SendData(number, list(data))] if data else []
    return [OpenRequest(number, request), *body, EndData(number)]


@define(eq=False)
class ScriptedMachine:
    """Asks for one list of actions after the other."""

    #: What is left to be asked for.
    actions: list[list[Action]]
    timeout: float | None = None
    #: What happened, in words; times are left out.
    told: list[Any] = field(factory=list)
    errors: list[S2FramesError] = field(factory=list)
    _now: float = 0.0

    def _note(self, what: object, now: float) -> None:
        assert now >= self._now, "time never goes back"
        self._now = now
        self.told.append(what)

    def data_to_send(self, now: float) -> list[Action]:
        self._now = now
        return self.actions.pop(0) if self.actions else []

    def next_timeout(self) -> float | None:
        return self.timeout

    def handle_timeout(self, now: float) -> None:
        if self.timeout is not None and now >= self.timeout:
            self.timeout = None
            self._note("timeout", now)

    def start_waiting(self, now: float) -> None:
        self._note("waiting", now)

    def bytes_accepted(
        self,
        request_id: int,
        num_bytes: int,
        now: float,
        *,
        behind: float | None = None,  # noqa: ARG002  # nobody else is on a connection of httpx's
    ) -> None:
        self._note((request_id, "accepted", num_bytes), now)

    def receive_response(
        self, request_id: int, status: int, headers: Mapping[str, str], now: float
    ) -> None:
        self._note((request_id, status, headers.get("content-type")), now)

    def receive_data(self, request_id: int, data: bytes, now: float) -> None:
        self._note((request_id, data), now)

    def bytes_arriving(self, request_id: int, num_bytes: int, now: float) -> None:
        self._note((request_id, "arriving", num_bytes), now)

    def receive_eof(self, request_id: int, now: float) -> None:
        self._note((request_id, "eof"), now)

    def connection_lost(self, request_id: int, error: S2FramesError, now: float) -> None:
        self._note((request_id, "lost"), now)
        self.errors.append(error)

    def interrupted(self, now: float) -> None:
        self._note("interrupted", now)
