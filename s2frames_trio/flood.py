"""A bound on what a peer may say without saying anything.

Frames that cost the peer nothing and us an answer, or at least time: SETTINGS, PING, GOAWAY,
PRIORITY, unknown and empty ones, interim responses. No flow control holds them back.
"""

from __future__ import annotations

from attrs import define
from h2.exceptions import DenialOfServiceError
from hyperframe.frame import (
    AltSvcFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
)

__all__ = ["FLOOD_FRAMES", "FLOOD_SECONDS", "FloodError", "FloodGuard"]

#: So many such frames within so many seconds are a flood. nghttp2 gives up at 1000 unsent answers;
#: a server that is well sends a PING every few seconds.
FLOOD_FRAMES = 1000
FLOOD_SECONDS = 10.0

_EMPTY_TALK = (SettingsFrame, PingFrame, PriorityFrame, ExtensionFrame, AltSvcFrame, GoAwayFrame)


class FloodError(DenialOfServiceError):
    """The peer says much and means nothing. It is no single frame's fault."""


@define(eq=False)
class FloodGuard:
    """Counts the frames that say nothing."""

    _count: int = 0
    _since: float = float("-inf")

    def see(self, frame: Frame, now: float) -> None:
        """Take note of a frame. Raises `FloodError` when there are too many."""
        is_empty_data = (
            isinstance(frame, DataFrame) and not frame.data and "END_STREAM" not in frame.flags
        )
        if is_empty_data or isinstance(frame, _EMPTY_TALK):
            self.count(now)

    def count(self, now: float) -> None:
        """Take note of something that says nothing."""
        if now >= self._since + FLOOD_SECONDS:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > FLOOD_FRAMES:
            raise FloodError(
                f"more than {FLOOD_FRAMES} frames that say nothing within {FLOOD_SECONDS:g} s"
            )
