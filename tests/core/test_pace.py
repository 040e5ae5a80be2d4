from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s2frames.chunking import MAX_CHUNK_BODY_BYTES
from s2frames.pace import MAX_HELD_BYTES, MIN_RATE, Pace, answer_deadline
from slow_line import Line, Upload

MIB = 2**20

# What `Settings` give by default.
CONNECT, TIMEOUT = 3.0, 5.0


# Whole sessions over lines

lines = st.builds(
    Line,
    rate=st.floats(4.302, 9.0).map(lambda power: 10**power),
    buffer=st.integers(0, 4_000_000),
    wakes_at=st.sampled_from([0.0, 1 / 3]),
    round_trip=st.floats(0.001, 0.3),
    piece=st.sampled_from([16_384, 65_536]),
)
sizes = st.one_of(st.integers(1, 2_000), st.integers(1, MAX_CHUNK_BODY_BYTES))
loads = st.lists(
    st.tuples(st.floats(0, 30), st.lists(sizes, min_size=1, max_size=6)), min_size=1, max_size=3
)
options = st.fixed_dictionaries(
    {
        "burst_batches": st.sampled_from([None, None, 2, 64]),
        "max_inflight_batches": st.sampled_from([1, 4, 64]),
    }
)

SLOWEST = Line(20_000, 4_000_000, 1 / 3, 0.3)
MILLION = [MAX_CHUNK_BODY_BYTES]


def append(line: Line, load: list[tuple[float, list[int]]], **options: Any) -> Upload:
    upload = Upload.over(line, **options)
    for at, messages in load:
        upload.send(at, messages)
    upload.run()
    return upload


@given(lines, loads, options)
@example(SLOWEST, [(0.0, MILLION * 10)], {"burst_batches": None})
@example(SLOWEST, [(0.0, MILLION * 10)], {"burst_batches": 64, "max_inflight_batches": 64})
@example(SLOWEST, [(0.0, MILLION), (60.0, [1]), (70.0, MILLION * 3)], {"burst_batches": 2})
@example(Line(20_000, 0, 0.0, 0.08), [(0.0, MILLION)], {"burst_batches": None})
@example(Line(125_000, 4_000_000, 1 / 3, 0.08), [(0.0, MILLION * 20)], {"burst_batches": 64})
@settings(max_examples=200, deadline=None)
def test_no_line_is_too_slow(
    line: Line, load: list[tuple[float, list[int]]], options: dict[str, Any]
) -> None:
    upload = append(line, load, **options)
    assert upload.retries == []
    assert upload.machine.is_durable


@given(lines, loads, options, st.floats(0, 200))
@example(SLOWEST, [(0.0, MILLION * 10)], {"burst_batches": 64, "max_inflight_batches": 64}, 0.5)
@settings(max_examples=200, deadline=None)
def test_a_line_that_stops_is_noticed(
    line: Line, load: list[tuple[float, list[int]]], options: dict[str, Any], stops_at: float
) -> None:
    upload = append(evolve(line, stops_at=stops_at), load, **options)
    assert bool(upload.retries) is not upload.machine.is_durable
    # A line that was seen to be fast is noticed sooner.
    num_bytes = sum(1000 + size for _, messages in load for size in messages)
    longest = CONNECT + TIMEOUT + min(num_bytes, MAX_HELD_BYTES) / MIN_RATE
    assert upload.now - upload.waits_since <= longest


@given(lines, loads, options)
@settings(max_examples=100, deadline=None)
def test_what_is_seen_is_never_more_than_the_line_carries(
    line: Line, load: list[tuple[float, list[int]]], options: dict[str, Any]
) -> None:
    upload = append(line, load, **options)
    assert upload.machine._pace.seen <= line.rate * 1.000_001


@pytest.mark.parametrize("burst_batches", [None, 64])
@pytest.mark.parametrize("rate", [50_000, 1e6, 20e6])
@pytest.mark.parametrize("buffer", [0, 200_000, 4_000_000])
def test_most_of_what_a_line_carries_is_seen(
    rate: float, buffer: int, burst_batches: int | None
) -> None:
    line = Line(rate, buffer, 1 / 3, 0.08)
    upload = append(line, [(0.0, MILLION * 16)], burst_batches=burst_batches)
    assert upload.machine._pace.seen >= rate / 3


@pytest.mark.parametrize("burst_batches", [None, 64])
def test_a_fast_line_that_stops_is_noticed_soon(burst_batches: int | None) -> None:
    # 16 MiB take 1.7 s: the line stops among the second ones.
    line = Line(1e7, 4_000_000, 1 / 3, 0.08, stops_at=11.0)
    load = [(0.0, MILLION * 16), (10.0, MILLION * 16)]
    upload = append(line, load, burst_batches=burst_batches)
    assert len(upload.retries) == 1
    assert upload.now - upload.waits_since <= TIMEOUT + MAX_HELD_BYTES / (1e7 / 2 / 4)


# One body


def paced(*steps: tuple[str, int, float]) -> Pace:
    pace = Pace()
    pace.begin()
    for step, num_bytes, now in steps:
        getattr(pace, step)(num_bytes, now)
    return pace


@pytest.mark.parametrize(
    ("steps", "held", "rate", "crossing"),
    [
        # Nothing was taken yet: nothing may be on the line.
        ([("give", 16_000, 0.0)], 0, MIN_RATE, 0.0),
        ([("give", 16_000, 0.0), ("take", 0, 1.0)], 0, MIN_RATE, 0.0),
        ([("give", 16_000, 0.0), ("take", 8_000, 1.0)], 8_000, MIN_RATE, 1.0),
        # The line has been busy since the first byte was taken.
        (
            [("give", 32_000, 0.0), ("take", 8_000, 9.0), ("take", 24_000, 9.5)],
            32_000,
            MIN_RATE,
            1.5,
        ),
        # Late is late.
        (
            [("give", 32_000, 0.0), ("take", 8_000, 1.0), ("take", 24_000, 9.5)],
            32_000,
            MIN_RATE,
            0.0,
        ),
        # With what is left after an ack it begins then.
        (
            [("give", 32_000, 0.0), ("take", 32_000, 0.0), ("ack", 16_000, 9.0)],
            16_000,
            MIN_RATE,
            1.0,
        ),
        # After a pause with the first byte.
        (
            [
                ("give", 16_000, 0.0),
                ("take", 16_000, 0.0),
                ("ack", 16_000, 9.0),
                ("give", 16_000, 50.0),
                ("take", 16_000, 60.0),
            ],
            16_000,
            MIN_RATE,
            1.0,
        ),
        # No more can be held than buffers have.
        (
            [("give", 10**7, 0.0), ("take", MAX_HELD_BYTES + 1, 1000.0)],
            MAX_HELD_BYTES,
            MIN_RATE,
            10**7 / MIN_RATE,
        ),
        # What was taken before so much is across: here 1,000,000 bytes, since they were given.
        (
            [("give", 8 * 10**6, 0.0), ("take", MAX_HELD_BYTES + 10**6, 10.0)],
            MAX_HELD_BYTES,
            25_000,
            8 * 10**6 / 25_000,
        ),
        # An ack shows what has crossed, since it was given.
        (
            [("give", 2 * 10**6, 0.0), ("take", 2 * 10**6, 4.0), ("ack", 10**6, 5.0)],
            10**6,
            50_000,
            20.0,
        ),
        # Of bytes that were taken late, the time that they waited for it.
        (
            [("give", 2 * 10**6, 0.0), ("take", 10**6, 4.0), ("ack", 10**6, 5.0)],
            0,
            50_000,
            0.0,
        ),
        # An ack of bytes of which nobody has told yet that they were taken.
        ([("give", 16_000, 0.0), ("ack", 16_000, 1.0)], 0, MIN_RATE, 0.0),
        ([("give", 16_000, 0.0), ("ack", 16_000, 1.0), ("take", 16_000, 1.0)], 0, MIN_RATE, 0.0),
        # A transport that tells of more than it was given.
        ([("give", 16_000, 0.0), ("take", 99_000, 1.0)], 16_000, MIN_RATE, 1.0),
    ],
)
def test_paces(
    steps: list[tuple[str, int, float]], held: int, rate: float, crossing: float
) -> None:
    pace = paced(*steps)
    assert pace.held_bytes == held
    assert pace.rate == rate
    assert pace.held_seconds(steps[-1][2]) == held / rate
    assert pace.seconds_to_cross(pace.given, steps[-1][2]) == pytest.approx(crossing)


FAST: tuple[tuple[str, int, float], ...] = (
    ("give", 10**6, 0.0),
    ("take", 10**6, 0.5),
    ("ack", 10**6, 1.0),
)


def test_a_line_may_become_four_times_slower_at_once() -> None:
    assert paced(*FAST).rate == 250_000


def test_a_few_bytes_do_not_make_a_line_slow() -> None:
    few = ("give", 65_000, 10.0), ("take", 65_000, 10.0), ("ack", 1_065_000, 11.0)
    assert paced(*FAST, *few).seen == 10**6


def test_a_line_that_became_slow_is_found_to_be() -> None:
    more = ("give", 70_000, 10.0), ("take", 70_000, 10.0), ("ack", 1_070_000, 11.0)
    assert paced(*FAST, *more).seen == 70_000


def test_what_waited_in_front_does_not_make_a_line_slow() -> None:
    # 100,000 bytes of the second sample cross in a second, after 900,000 that were taken before.
    more = (
        ("give", 10**6, 10.0),
        ("take", 900_000, 10.0),
        ("ack", 1_100_000, 10.1),
        ("take", 100_000, 10.1),
        ("ack", 2_000_000, 11.0),
    )
    assert paced(*FAST, *more).seen == pytest.approx(10**6)


def test_acks_that_were_read_late_tell_no_rate_of_their_own() -> None:
    late = ("give", 10**6, 0.0), ("take", 10**6, 10.0)
    acks = ("ack", 5 * 10**5, 10.0), ("ack", 10**6, 10.0)
    assert paced(*late, *acks).seen == 10**5


def test_a_line_that_became_slow_while_it_was_busy_is_found_to_be() -> None:
    pace = paced(
        ("give", 10**7, 0.0),
        ("take", 2 * 10**6, 0.0),
        ("ack", 10**6, 1.0),
        ("take", 10**6, 1.0),
        ("ack", 2 * 10**6, 11.0),
        ("take", 10**6, 11.0),
        ("ack", 3 * 10**6, 21.0),
    )
    # The third million could be taken since the first two were, and is across.
    assert pace.seen == 10**6 / 21


def test_what_comes_while_something_waits_was_not_offered_later() -> None:
    pace = paced(("give", 10**6, 0.0), ("give", 10**6, 9.0), ("take", 2 * 10**6, 9.5))
    pace.ack(2 * 10**6, 10.0)
    assert pace.seen == 2 * 10**5


def test_what_an_attempt_left_behind_is_not_on_the_line_of_the_next() -> None:
    pace = paced(("give", 16_000, 0.0), ("take", 16_000, 0.0))
    pace.begin()
    pace.give(16_000, 50.0)
    pace.take(16_000, 60.0)
    assert pace.seconds_to_cross(16_000, 60.0) == 1.0


def test_no_time_at_all_is_a_millisecond() -> None:
    assert paced(("give", 100, 1.0), ("take", 100, 1.0), ("ack", 100, 1.0)).seen == 100_000


def test_another_request_has_the_same_line() -> None:
    pace = paced(*FAST)
    pace.begin()
    assert (pace.given, pace.taken, pace.acked, pace.held_bytes) == (0, 0, 0, 0)
    assert pace.seen == 10**6
    pace.give(100_000, 50.0)
    pace.take(100_000, 50.0)
    pace.ack(100_000, 50.5)
    assert pace.seen == 200_000


def test_after_a_failure_nothing_is_known_of_the_line() -> None:
    pace = paced(*FAST)
    pace.forget()
    assert pace.rate == MIN_RATE


@pytest.mark.parametrize(
    ("num_bytes", "seconds"),
    # What the guide and `Settings.request_timeout` say.
    [(2**20, 71), (MAX_HELD_BYTES, 267)],
)
def test_how_long_a_dead_line_is_waited_for(num_bytes: int, seconds: float) -> None:
    assert seconds - 1 < TIMEOUT + num_bytes / MIN_RATE <= seconds + 0.2


# Answers


@pytest.mark.parametrize(
    ("num_bytes", "now", "deadline"),
    [
        # The head has come.
        (0, 10.0, 15.0),
        # Each byte gives it time, as long as there are enough.
        (1_000, 10.5, 15.5),
        (1_000, 11.0, 16.0),
        (8 * 2**20, 400.0, 405.0),
        # One now and then does not.
        (1, 14.0, 15.001),
        (2, 15.0, 15.002),
        (1_000, 12.0, 16.0),
    ],
)
def test_an_answer_is_waited_for_as_long_as_it_comes(
    num_bytes: int, now: float, deadline: float
) -> None:
    assert answer_deadline(10.0, num_bytes, now, 5.0) == deadline
