from __future__ import annotations

import pytest
from hyperframe.frame import (
    AltSvcFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from s2frames_trio.flood import FLOOD_FRAMES, FLOOD_SECONDS, FloodError, FloodGuard

SAY_NOTHING: list[Frame] = [
    SettingsFrame(0),
    PingFrame(0),
    PriorityFrame(1),
    ExtensionFrame(0xFA, 0),
    AltSvcFrame(0),
    GoAwayFrame(0),
    DataFrame(1),
]

SAY_SOMETHING: list[Frame] = [
    DataFrame(1, data=b"x"),
    DataFrame(1, flags=["END_STREAM"]),
    HeadersFrame(1),
    RstStreamFrame(1),
    WindowUpdateFrame(1, window_increment=1),
]


@pytest.mark.parametrize("frame", SAY_NOTHING, ids=lambda frame: type(frame).__name__)
def test_so_many_are_a_flood(frame: Frame) -> None:
    guard = FloodGuard()
    for _ in range(FLOOD_FRAMES):
        guard.see(frame, now=5.0)
    with pytest.raises(FloodError, match="1000 frames"):
        guard.see(frame, now=5.0 + FLOOD_SECONDS / 2)


@pytest.mark.parametrize("frame", SAY_SOMETHING, ids=lambda frame: type(frame).__name__)
def test_frames_that_say_something_are_none(frame: Frame) -> None:
    guard = FloodGuard()
    for _ in range(2 * FLOOD_FRAMES):
        guard.see(frame, now=5.0)


def test_the_count_starts_anew() -> None:
    guard = FloodGuard()
    for turn in range(5):
        for _ in range(FLOOD_FRAMES):
            guard.count(turn * FLOOD_SECONDS)
    with pytest.raises(FloodError):
        guard.count(4 * FLOOD_SECONDS)
