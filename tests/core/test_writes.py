from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.pace import MAX_HELD_BYTES, MIN_RATE
from s2frames.writes import MAX_WRITE_BYTES, MIN_WRITE_BYTES, Writes

KIB = 1024


def written(*writes: tuple[int, float], start: float = 0.0) -> tuple[Writes, float]:
    """Writes of so many bytes that took so long, one after the other; and the time after them."""
    result, now = Writes(), start
    for num_bytes, seconds in writes:
        result.begin(now)
        now += seconds
        result.end(num_bytes, now)
    return result, now


# Sizes


def test_full_writes_grow() -> None:
    writes = Writes()
    sizes = []
    for _ in range(7):
        sizes.append(writes.size)
        writes.begin(1.0)
        writes.end(writes.size, 1.0)
    assert sizes == [size * KIB for size in (16, 32, 64, 128, 256, 256, 256)]


@pytest.mark.parametrize(
    ("num_bytes", "seconds", "size"),
    [
        # It was full, and took no time.
        (64 * KIB, 0.001, 128 * KIB),
        # It was not full.
        (64 * KIB - 1, 0.001, 64 * KIB),
        (64 * KIB, 0.2, 128 * KIB),
        (64 * KIB, 0.25, 128 * KIB),
        (32 * KIB, 0.25, 32 * KIB),
        # It took too long.
        (64 * KIB, 0.5, 32 * KIB),
        (64 * KIB, 3.2, MIN_WRITE_BYTES),
        (100, 0.25, MIN_WRITE_BYTES),
    ],
)
def test_a_write_says_how_large_the_next_one_is(num_bytes: int, seconds: float, size: int) -> None:
    growing = [(16 * KIB, 0.0), (32 * KIB, 0.0)]
    assert written(*growing)[0].size == 64 * KIB
    assert written(*growing, (num_bytes, seconds))[0].size == size


@given(st.lists(st.floats(0, 100)))
def test_sizes_have_bounds(durations: list[float]) -> None:
    writes, now = Writes(), 0.0
    total = 0
    for seconds in durations:
        assert MIN_WRITE_BYTES <= writes.size <= MAX_WRITE_BYTES
        assert writes.size <= total + MIN_WRITE_BYTES
        total += writes.size
        writes.begin(now)
        now += seconds
        writes.end(writes.size, now)


# What is on the line


def bodies(*writes: tuple[int, float, int]) -> Writes:
    """Writes of bodies at such times, with what is unclaimed of those before."""
    result = Writes()
    for num_bytes, now, unclaimed in writes:
        result.begin(now, body_bytes=num_bytes, unclaimed=unclaimed)
        result.end(num_bytes, now)
    return result


@pytest.mark.parametrize(
    ("writes", "own", "now", "seconds"),
    [
        ([], 0, 5.0, 0.0),
        ([(160_000, 5.0, 0)], 0, 5.0, 10.0),
        # The slowest line has carried some meanwhile.
        ([(160_000, 5.0, 0)], 0, 9.0, 6.0),
        ([(160_000, 5.0, 0)], 0, 99.0, 0.0),
        # One's own bytes are not before oneself.
        ([(160_000, 5.0, 0)], 80_000, 5.0, 5.0),
        ([(160_000, 5.0, 0)], 999_999, 5.0, 0.0),
        # What was claimed is across: 150,000 bytes in two seconds, and they may take four times
        # as long now.
        ([(160_000, 5.0, 0), (20_000, 7.0, 10_000)], 0, 7.0, 30_000 / 18_750),
        # No more than buffers hold.
        ([(10**7, 5.0, 0)], 0, 5.0, MAX_HELD_BYTES / ((10**7 - MAX_HELD_BYTES) / 0.001 / 4)),
    ],
)
def test_what_was_written_is_before_what_comes(
    writes: list[tuple[int, float, int]], own: int, now: float, seconds: float
) -> None:
    assert bodies(*writes).seconds_behind(own, now) == pytest.approx(seconds)


# Answers


def written_bodies(*sizes: int, at: float) -> Writes:
    unclaimed, writes = 0, []
    for size in sizes:
        writes.append((size, at, unclaimed))
        unclaimed += size
    return bodies(*writes)


def test_an_answer_can_come_as_soon_as_its_question_was_written() -> None:
    writes, _ = written((100, 0.0), start=1.0)
    writes.ask(50.0, 0)
    assert writes.answered_from == 50.0
    writes.begin(50.0)
    writes.end(160, 57.0)
    # The write may have taken so long because the line did.
    assert writes.answered_from == 57.0
    # What is written later is no matter.
    writes.begin(57.0)
    writes.end(MAX_WRITE_BYTES, 58.0)
    assert writes.answered_from == 57.0


def test_what_was_written_before_a_question_crosses_first() -> None:
    writes = written_bodies(160_000, 160_000, at=100.0)
    writes.ask(105.0, 320_000)
    assert writes.answered_from == 120.0
    writes.begin(105.0)
    # It comes first in its own write.
    writes.end(1_600, 105.0)
    assert writes.answered_from == 120.0


def test_a_question_waits_for_the_write_that_is_under_way() -> None:
    writes = Writes()
    writes.begin(10.0)
    writes.ask(11.0, 0)
    assert writes.answered_from == 11.0
    # Each write is a sign that the next one can be done.
    writes.end(16_000, 30.0)
    assert writes.answered_from == 30.0
    writes.begin(30.0)
    writes.end(16_000, 32.0)
    assert writes.answered_from == 32.0
    writes.begin(32.0)
    writes.end(16_000, 40.0)
    assert writes.answered_from == 32.0


def test_no_more_is_before_a_question_than_buffers_hold() -> None:
    writes = written_bodies(MAX_HELD_BYTES, at=100.0)
    writes.ask(100.0, 10**9)
    assert writes.answered_from == 100.0 + MAX_HELD_BYTES / MIN_RATE


def test_what_is_known_to_be_across_needs_no_time() -> None:
    writes = written_bodies(160_000, at=100.0)
    writes.ask(108.0, 32_000)
    # 128,000 bytes in 8 s, and perhaps four times slower now.
    assert writes.answered_from == 110.0
    writes.begin(108.0)
    writes.end(16, 108.0)
    assert writes.answered_from == 110.0
    writes = written_bodies(160_000, at=100.0)
    writes.ask(101.0, 0)
    assert writes.answered_from == 101.0
