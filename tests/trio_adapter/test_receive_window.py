from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames_trio.receive_window import (
    GRANTS,
    MAX_STREAM_WINDOW,
    STREAM_WINDOW,
    Grants,
    ReceiveWindow,
)

HALF = STREAM_WINDOW // 2


def test_the_figures() -> None:
    assert (STREAM_WINDOW, MAX_STREAM_WINDOW, GRANTS) == (2**19, 2**24, 2**26)


def test_a_peer_is_told_of_half_a_window() -> None:
    window = ReceiveWindow(Grants())
    assert window.take(HALF - 1, buffered=0, now=0) == 0
    assert window.take(1, buffered=0, now=0) == HALF
    assert window.take(HALF - 1, buffered=0, now=9) == 0


def test_a_window_doubles_while_all_is_taken() -> None:
    grants = Grants()
    window = ReceiveWindow(grants)
    assert window.take(HALF, buffered=0, now=0) == HALF
    sizes = []
    for _ in range(7):
        half = window.size // 2
        before = window.size
        assert window.take(half, buffered=0, now=0) == half + window.size - before
        sizes.append(window.size)
    assert sizes == [2**20, 2**21, 2**22, 2**23, 2**24, 2**24, 2**24]
    assert grants.left == GRANTS - MAX_STREAM_WINDOW + STREAM_WINDOW


@pytest.mark.parametrize(
    ("buffered", "seconds", "size"),
    [
        (0, 0.999, 2**20),
        (STREAM_WINDOW // 4, 0.0, 2**20),
        (STREAM_WINDOW // 4 + 1, 0.0, STREAM_WINDOW),
        (0, 1.0, STREAM_WINDOW),
    ],
)
def test_what_makes_a_window_grow(buffered: int, seconds: float, size: int) -> None:
    window = ReceiveWindow(Grants())
    window.take(HALF, buffered=0, now=5)
    window.take(HALF, buffered=buffered, now=5 + seconds)
    assert window.size == size


def test_a_window_grows_by_what_is_left() -> None:
    grants = Grants(left=100)
    window = ReceiveWindow(grants)
    for _ in range(3):
        window.take(STREAM_WINDOW, buffered=0, now=0)
    assert (window.size, grants.left) == (STREAM_WINDOW + 100, 0)
    window.close()
    window.close()
    assert grants.left == 100
    assert window.take(2**24, buffered=0, now=0) == 0


STEPS = st.tuples(
    st.integers(0, 3),  # which stream
    st.floats(0, 1),  # how much of its window the peer uses
    st.floats(0, 1),  # how much of that is taken
    st.sampled_from([0.0, 0.1, 2.0]),
)


@given(st.lists(STEPS, max_size=200), st.integers(0, 2**22))
def test_memory_is_bounded_and_nobody_stalls(
    steps: list[tuple[int, float, float, float]], left: int
) -> None:
    grants, now = Grants(left), 0.0
    windows = [ReceiveWindow(grants) for _ in range(4)]
    allowed, buffered = [STREAM_WINDOW] * 4, [0] * 4
    for number, used, share, pause in steps:
        now += pause
        sent = int(allowed[number] * used)
        allowed[number] -= sent
        buffered[number] += sent
        taken = int(buffered[number] * share)
        buffered[number] -= taken
        allowed[number] += windows[number].take(taken, buffered=buffered[number], now=now)
        # What the peer may send and what is held are within the window.
        assert allowed[number] + buffered[number] <= windows[number].size
        assert buffered[number] or allowed[number] > 0
        assert sum(window.size for window in windows) == left - grants.left + 4 * STREAM_WINDOW
        assert grants.left >= 0
    for window in windows:
        window.close()
    assert grants.left == left
