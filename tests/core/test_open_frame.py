from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.open_frame import OpenFrame, pinned_bytes
from s2frames.records import Header

KIB = 1024

# A body of this size is kept as it came, a smaller one is copied.
OWN = 64 * KIB


def opened(body: bytes | memoryview, headers: tuple[Header, ...] = ()) -> OpenFrame:
    return OpenFrame.opened(7, 11, 100, 10**9, headers, body)


def view(size: int, waste: int = 0) -> memoryview:
    """A view of the middle of something larger."""
    return memoryview(bytes(waste) + b"v" * size + bytes(waste))[waste : waste + size]


def test_pinned_bytes_of_a_view_are_those_of_all_it_is_cut_from() -> None:
    assert pinned_bytes(b"abc") == 3
    assert pinned_bytes(view(3, waste=10)) == 23
    assert pinned_bytes(view(3, waste=10)[1:2]) == 23


bodies = st.one_of(
    st.binary(max_size=5),
    st.integers(0, 3).map(lambda waste: view(2, waste)),
    st.sampled_from([OWN - 1, OWN, OWN + 1]).map(bytes),
    st.sampled_from([OWN - 1, OWN, OWN + 1]).map(lambda size: view(size, 100)),
)


@given(st.lists(bodies, min_size=1, max_size=12), st.integers(0, 12))
def test_it_holds_what_was_added_and_says_how_much_that_is(
    added: list[bytes | memoryview], compacted: int
) -> None:
    frame = opened(added[0])
    for i, body in enumerate(added[1:], 1):
        if i == compacted:
            frame.compact()
            assert frame.pinned == frame.received_bytes
        before = frame.pinned
        frame.add(body)
        is_kept = i < compacted or compacted == 0 or compacted >= len(added)
        by_view = pinned_bytes(body) if len(body) >= OWN else len(body)
        assert frame.pinned - before == (by_view if is_kept else len(body))
    assert frame.payload() == b"".join(map(bytes, added))
    assert frame.received_records == len(added)
    assert frame.received_bytes == sum(map(len, added))
    frame.compact()
    assert frame.pinned == frame.received_bytes
    assert frame.payload() == b"".join(map(bytes, added))
    assert type(frame.payload()) is bytes


def changes(frame: OpenFrame, steps: list[bytes | memoryview | str]) -> None:
    """Bodies are added, and what else there is to do is done."""
    for step in steps:
        if step == "compact":
            frame.compact()
        elif step == "payload":
            frame.payload()
        else:
            assert not isinstance(step, str)
            frame.add(step)


steps = st.lists(bodies | st.sampled_from(["compact"]), max_size=6)


@given(steps, steps, st.booleans(), steps)
def test_it_goes_back_to_what_had_arrived(
    before: list[bytes | memoryview | str],
    undone: list[bytes | memoryview | str],
    is_whole: bool,
    after: list[bytes | memoryview | str],
) -> None:
    frame, other = (opened(b"abc", ((b"k", b"v"),)) for _ in range(2))
    changes(frame, before)
    changes(other, before)
    arrived = frame.arrived
    assert arrived[:2] == (frame.received_records, frame.received_bytes)
    for _ in range(2):
        changes(frame, [*undone, "payload"] if is_whole else undone)
        frame.go_back(arrived)
        assert frame.arrived == arrived
    # It is as if nothing had been undone, also for what comes then.
    changes(frame, after)
    changes(other, after)
    assert frame.arrived == other.arrived
    assert frame.payload() == other.payload()
    assert frame.pinned == other.pinned


def test_going_back_lets_go_of_what_came_since() -> None:
    frame = opened(b"x" * OWN)
    arrived = frame.arrived
    tracemalloc.start()
    try:
        frame.add(view(10 * OWN))
        frame.payload()
        frame.go_back(arrived)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < OWN + 10 * KIB


def test_going_back_is_finished_when_it_was_cut_off() -> None:
    frame = opened(b"abc")
    arrived = frame.arrived
    # An `add` that got no further than to count.
    frame.received_records += 1
    frame.go_back(arrived)
    assert frame.payload() == b"abc"
    # Nor has one that was counted whole to have taken it.
    frame.received_records, frame.received_bytes = 2, 9
    frame.go_back(arrived)
    assert (frame.payload(), frame.received_records, frame.received_bytes) == (b"abc", 1, 3)


def test_headers_count_and_stay_counted() -> None:
    bare, dressed = opened(b"body"), opened(b"body", ((b"name", b"value"), (b"", b"")))
    extra = dressed.pinned - bare.pinned
    assert bare.pinned == 4
    assert extra >= len(b"namevalue")
    dressed.compact()
    assert dressed.pinned == 4 + extra


def test_what_a_frame_starts_with() -> None:
    frame = opened(b"body", ((b"k", b"v"),))
    assert (frame.head, frame.timestamp) == (7, 11)
    assert (frame.num_records, frame.num_bytes, frame.headers) == (100, 10**9, ((b"k", b"v"),))
    assert (frame.received_records, frame.received_bytes) == (1, 4)
    assert not frame.is_awaited


def test_an_awaited_frame_holds_nothing() -> None:
    frame = OpenFrame.awaited(9)
    assert frame.is_awaited
    assert (frame.head, frame.pinned, frame.received_records) == (9, 0, 0)
    assert frame.payload() == b""


def test_a_small_view_is_copied_out_of_its_batch() -> None:
    tracemalloc.start()
    try:
        frame = opened(view(100, waste=500 * KIB))
        frame.add(view(OWN - 1, waste=500 * KIB))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100 * KIB
    assert frame.pinned == 100 + OWN - 1


def test_a_large_view_is_kept_until_the_frame_is_compact() -> None:
    tracemalloc.start()
    try:
        frame = opened(view(OWN, waste=OWN))
        kept, _ = tracemalloc.get_traced_memory()
        assert frame.pinned == 3 * OWN
        assert kept >= 3 * OWN
        frame.compact()
        frame.add(view(OWN, waste=OWN))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frame.pinned == 2 * OWN
    assert kept < 2 * OWN + 10 * KIB


@pytest.mark.parametrize("body", [b"", b"x"])
def test_many_small_bodies_make_few_objects(body: bytes) -> None:
    frame = opened(b"x")
    tracemalloc.start()
    try:
        for _ in range(10_000):
            frame.add(body)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frame.pinned == 1 + 10_000 * len(body)
    assert kept <= 2 * frame.pinned + KIB


def test_two_frames_share_nothing() -> None:
    first, second = opened(b"a"), opened(b"b")
    first.add(b"c")
    assert (first.payload(), second.payload()) == (b"ac", b"b")
