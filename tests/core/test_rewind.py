"""A reader that is interrupted, and takes its batch again: as if nothing had happened."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest
from attrs import define, field

import s2frames
from frames import chunk, encode, frame, head, payloads, place
from s2frames.checkpoint import Checkpoint
from s2frames.errors import LocalProtocolError, RemoteProtocolError
from s2frames.events import (
    DropReason,
    FrameDropped,
    FrameReceived,
    FramesReceived,
    ReaderEvent,
)
from s2frames.reader import FrameReader
from s2frames.records import Record, SequencedRecord, fence

# Interrupting

_CORE = f"{Path(s2frames.__file__).parent}/"

# Where all is that a reader remembers.
_READER = (f"{_CORE}reader.py", f"{_CORE}open_frame.py")


class Interruption:
    """Raises `KeyboardInterrupt` inside the block at line number `at` of the code, from 0 on.

    With -1 only the lines are noted. The code is what has these paths.
    """

    def __init__(self, at: int = -1, paths: tuple[str, ...] = _READER) -> None:
        self._at = at
        self._paths = paths
        self._outer: Any = None
        # Kept: CPython 3.11 may call once more what it traced with before.
        self._on_call, self._on_line = self._trace, self._trace_line
        #: The lines that were begun: file and number.
        self.lines: list[tuple[str, int]] = []
        self.was_raised = False

    def __enter__(self) -> Interruption:
        self._outer = sys.gettrace()
        sys.settrace(self._on_call)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        sys.settrace(self._outer)
        return kind is KeyboardInterrupt

    def _trace(self, frame: FrameType, _event: str, _argument: object) -> Any:
        return self._on_line if frame.f_code.co_filename.startswith(self._paths) else None

    def _trace_line(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            self.lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(self.lines) - 1 == self._at:
                self.was_raised = True
                raise KeyboardInterrupt
        return self._on_line


# What a reader makes of a stream


@define
class Story:
    """A stream in batches, and who reads it."""

    batches: list[bytes]
    options: dict[str, Any] = field(factory=dict)
    resumed: Checkpoint | None = None

    def make_reader(self) -> FrameReader:
        if self.resumed is not None:
            return FrameReader.resume(self.resumed, **self.options)
        return FrameReader(start=0, **self.options)

    def reader_before(self, number: int) -> FrameReader:
        """A reader that has taken the batches before that one."""
        reader = self.make_reader()
        for batch in self.batches[:number]:
            list(reader.receive_batch(batch))
            reader.forget_batch()
        return reader


def whereabouts(reader: FrameReader) -> tuple[object, ...]:
    """All that can be seen of a reader."""
    return (
        reader.checkpoint(),
        reader.stats.copy(),
        reader.buffered_bytes,
        reader.caught_up,
        reader.next_seq_num,
        reader.has_reached_end,
    )


def events_in(event: ReaderEvent | FramesReceived) -> Sequence[ReaderEvent]:
    return event.singly() if isinstance(event, FramesReceived) else [event]


@define
class Taker:
    """Takes a batch as a session does: after an interruption from what has arrived on.

    Where the reader is torn it goes back, and also where nobody has got hold of its events; else it
    goes on.
    """

    reader: FrameReader
    batch: bytes
    at_once: bool
    #: The code that is interrupted.
    paths: tuple[str, ...] = _READER
    events: list[ReaderEvent] = field(factory=list)
    #: Where the reader was, by how many events had arrived.
    log: dict[int, tuple[object, ...]] = field(factory=dict)
    #: Where it was interrupted.
    places: list[tuple[str, int]] = field(factory=list)
    _left: Iterator[ReaderEvent | FramesReceived] | None = None

    def take(self) -> None:
        """Take all that is left."""
        while (event := self._next()) is not None:
            self._note(event)

    def take_lines(self, at: int = -1) -> list[tuple[str, int]]:
        """Take events until the `at`-th line of the code; tells the lines."""
        lines: list[tuple[str, int]] = []
        event: ReaderEvent | FramesReceived | None
        while True:
            event = None
            with Interruption(-1 if at < 0 else at - len(lines), self.paths) as interruption:
                event = self._next()
            lines += interruption.lines
            if interruption.was_raised:
                self.places.append(lines[-1])
            if event is None:
                return lines
            self._note(event)

    def _note(self, event: ReaderEvent | FramesReceived) -> None:
        self.events += events_in(event)
        self.log[len(self.events)] = whereabouts(self.reader)

    def _next(self) -> ReaderEvent | FramesReceived | None:
        if self._left is None or self.reader.is_torn:
            self._left = None
            self._left = self._begin()
        return next(self._left, None)

    def _begin(self) -> Iterator[ReaderEvent | FramesReceived]:
        if self.reader.can_rewind:
            return self.reader.rewind(len(self.events))
        if self.at_once:
            return self.reader.receive_batch_at_once(self.batch)
        return self.reader.receive_batch(self.batch)


@define
class Outcome:
    """What came of a batch, and of those that follow."""

    events: list[ReaderEvent]
    end: tuple[object, ...]
    later: list[ReaderEvent]
    last: tuple[object, ...]


def outcome(story: Story, number: int, taker: Taker) -> Outcome:
    reader = taker.reader
    end = whereabouts(reader)
    later: list[ReaderEvent] = []
    for batch in story.batches[number + 1 :]:
        reader.forget_batch()
        later += reader.receive_batch(batch)
    later += reader.receive_eof()
    return Outcome(taker.events, end, later, whereabouts(reader))


def take(
    story: Story,
    number: int,
    *interruptions: int,
    at_once: bool = False,
    paths: tuple[str, ...] = _READER,
) -> Taker:
    """Take that batch; each interruption is so many lines after the one before."""
    taker = Taker(story.reader_before(number), story.batches[number], at_once, paths)
    for at in interruptions:
        taker.take_lines(at)
    taker.take()
    return taker


@define
class Truth:
    """What comes of a batch when nobody interrupts."""

    lines: list[tuple[str, int]]
    log: dict[int, tuple[object, ...]]
    outcome: Outcome


def truth(
    story: Story, number: int, *, at_once: bool = False, paths: tuple[str, ...] = _READER
) -> Truth:
    alone = take(story, number)
    expected = outcome(story, number, alone)
    taker = Taker(story.reader_before(number), story.batches[number], at_once, paths)
    return Truth(taker.take_lines(), alone.log, expected)


def check(story: Story, number: int, taker: Taker, expected: Truth, replay: Sequence[int]) -> None:
    __tracebackhide__ = True
    places = [f"{Path(file).name}:{line}" for file, line in taker.places]
    where = f"take(story, {number}, *{replay}), interrupted at {places}"
    assert len(places) == len(replay), where
    found = outcome(story, number, taker)
    assert found.events == expected.outcome.events, where
    for count, seen in taker.log.items():
        assert seen == expected.log[count], f"{where}; after {count} events"
    assert found == expected.outcome, where


def first_ones(lines: Sequence[tuple[str, int]]) -> list[int]:
    """Each line when it runs for the first time."""
    return sorted({line: at for at, line in reversed([*enumerate(lines)])}.values())


def last_ones(lines: Sequence[tuple[str, int]]) -> list[int]:
    """Each line when it runs for the last time."""
    return sorted({line: at for at, line in enumerate(lines)}.values())


# Streams


def batches(*groups: Sequence[Record], tail: bool = False) -> list[bytes]:
    """Batches that follow one another."""
    start = 0
    encoded = []
    for group in groups:
        end = start + len(group)
        encoded.append(encode(place(group, start, timestamp=7), end if tail else None))
        start = end
    return encoded


def similar(first: int, count: int, writer: str = "w") -> list[Record]:
    return [head(b"%06d" % seq, seq=seq, writer=writer) for seq in range(first, first + count)]


def opened(writer: str | None, seq: int = 0, size: int = 2) -> Record:
    number = None if writer is None else seq
    return head(b"o", records=size, size=size, seq=number, writer=writer)


def more(writer: str, seq: int) -> Record:
    return chunk(b"m", seq=seq, writer=writer)


def runs() -> Story:
    return Story(
        batches(
            similar(0, 6),
            [*similar(6, 12), *similar(12, 12), fence("t"), *similar(24, 10, "v")],
            similar(24, 9),
        )
    )


def long_frames() -> Story:
    a = frame([b"a%d" % i for i in range(9)], seq=0, writer="a")
    b = frame([b"b"] * 5)
    return Story(
        batches(
            [a[0], b[0], a[1], *similar(0, 1)],
            [a[2], b[1], a[3], b[2], b[3], b[4], *a[4:7], b[0], b[1]],
            [*a[7:], b[2], a[8], b[3], b[4], *a],
        )
    )


def large_chunks() -> Story:
    """Views of batches, which are copied when room is scarce, and frames that make room."""
    large = frame([bytes([65 + i]) * 70_000 for i in range(5)], seq=0, writer="a")
    return Story(
        batches(
            [large[0]],
            [large[1]],
            [opened("b"), large[2]],
            [opened("c"), large[3], *similar(0, 2)],
            [large[4], more("b", 1), more("c", 1)],
        ),
        {"max_frame_bytes": 350_000, "max_buffered_bytes": 350_000},
    )


def compacted() -> Story:
    """A frame that holds views until its payload alone fits, and then goes on."""
    large = frame([*(bytes([65 + i]) * 70_000 for i in range(3)), b"z"], seq=0, writer="a")
    return Story(
        batches([large[0]], [large[1]], [large[2], *similar(0, 1)], [large[3]]),
        {"max_frame_bytes": 210_001, "max_buffered_bytes": 210_001},
    )


def many_writers() -> Story:
    return Story(
        batches(
            [*similar(0, 1, "a"), *similar(0, 1, "b")],
            [
                *similar(1, 1, "a"),
                opened("c"),
                *similar(0, 1, "d"),
                opened("e"),
                opened("f"),
                opened(None),
                *similar(0, 1, "a"),
                more("e", 1),
            ],
            [*similar(0, 2, "b"), more("f", 1), *similar(2, 1, "a")],
        ),
        {"max_writers": 2},
    )


def order_of_writers() -> Story:
    """Who is forgotten depends on whose records came last."""
    return Story(
        batches(
            [*similar(0, 1, "a"), *similar(0, 1, "b"), *similar(0, 1, "c")],
            [*similar(1, 1, "b"), *similar(0, 1, "a"), *similar(1, 1, "a")],
            [*similar(2, 1, "a"), *similar(0, 1, "d"), *similar(0, 1, "e")],
        ),
        {"max_writers": 3},
    )


def gaps() -> Story:
    first = place([opened("a"), opened("b"), *similar(0, 2)])
    second = place(
        [more("c", 1), more("a", 1), opened("a", 4), head(b"x", seq=7, writer="a"), opened("w", 5)],
        9,
    )
    third = place([more("w", 7), *similar(8, 1)], 20)
    return Story([encode(first), encode(second), encode(third)])


def given_up() -> Story:
    return Story(
        batches(
            [opened("a", 0, 3), opened(None), opened("b", 0, 4)],
            [*similar(0, 2), more("b", 1), fence("t"), more("a", 1), opened("c"), more("a", 2)],
            [chunk(b"u"), more("b", 2), *similar(2, 3), more("c", 1), opened("b"), more("b", 1)],
        ),
        {"max_reread": 4},
    )


def given_up_later() -> Story:
    """The oldest frame ends in a batch, and the next one is due in the same batch."""
    return Story(
        batches(
            [opened("a"), fence(""), opened("b"), fence("")],
            [more("a", 1), opened("c"), *[fence("")] * 4, opened("a", 2)],
            [fence(""), more("c", 1), more("b", 1), fence("")],
        ),
        {"max_reread": 4},
    )


def awaited() -> Story:
    a, b = (frame([b"1", b"2", b"3", b"4"], seq=0, writer=writer) for writer in "ab")
    records = [a[0], *similar(0, 3), b[0], a[1], fence("t"), b[1]]
    reader = FrameReader(start=0)
    list(reader.receive_records(place(records)))
    rest = [a[2], *similar(3, 1), b[2], b[3], a[3], *similar(3, 1)]
    again = place([*records, *rest])
    cuts = [encode(again[:3]), encode(again[3:7]), encode(again[7:11]), encode(again[11:])]
    return Story(cuts, resumed=reader.checkpoint())


def awaited_and_trimmed() -> Story:
    story = awaited()
    a, b = (frame([b"1", b"2", b"3", b"4"], seq=0, writer=writer) for writer in "ab")
    left = place([b[0], a[1], fence("t"), b[1], a[2], b[2], b[3]], 4)
    return Story([encode(left[:4]), encode(left[4:])], resumed=story.resumed)


def caught_up() -> Story:
    return Story(
        [
            encode([], 0, 1),
            encode([], 0, 2),
            encode(place([opened("a")]), 1),
            encode(place([more("a", 1), *similar(0, 1)], 1), 3),
            encode([], 3, 5),
            encode(place([opened("a", 2)], 3), 9),
            encode([], 20),
            encode(place(similar(1, 2), 20)),
        ]
    )


def trimmed_at_0() -> Story:
    return Story([encode([], 5), encode(place(similar(0, 1), 5), 6), encode([], 9)])


def bounded() -> Story:
    return Story(batches(similar(0, 3), similar(3, 4), similar(7, 2)), {"end": 6})


def without_dedupe() -> Story:
    records = [opened("a", 0, 3), more("a", 1), *similar(0, 2)]
    return Story(
        batches(records, [more("a", 1), more("a", 2), *records, fence("t")], [more("a", 1)]),
        {"dedupe": False, "max_reread": 4},
    )


STORIES = {
    make.__name__: make
    for make in (
        runs,
        long_frames,
        large_chunks,
        compacted,
        many_writers,
        order_of_writers,
        gaps,
        given_up,
        given_up_later,
        awaited,
        awaited_and_trimmed,
        caught_up,
        trimmed_at_0,
        bounded,
        without_dedupe,
    )
}


def random_story(seed: int) -> Story:
    """Writers at once, repeats, jumps, gaps and tails, with narrow limits."""
    random = Random(seed)
    sent: dict[str, list[Record]] = {}
    for writer in "abc":
        records: list[Record] = []
        while len(records) < 12:
            records += frame(
                [b"x" * random.randint(1, 5) for _ in range(random.choice([1, 1, 2, 3]))],
                seq=len(records),
                writer=writer,
            )
        sent[writer] = records
    placed: list[SequencedRecord] = []
    at = dict.fromkeys(sent, 0)
    seq_num = 0
    for _ in range(24):
        writer = random.choice("aabbc")
        # Mostly the next one; sometimes again from further back, or one is left out.
        at[writer] = max(0, at[writer] + random.choice([0] * 8 + [-1, -2, 1]))
        seq_num += random.choice([0] * 20 + [3])
        record = random.choice([sent[writer][min(at[writer], 11)]] * 9 + [fence("t")])
        at[writer] += record in sent[writer]
        placed += place([record], seq_num, timestamp=7)
        seq_num += 1
    cuts = [placed[i : i + 8] for i in range(0, len(placed), 8)]
    tails = [random.choice([None, part[-1].seq_num + 1]) for part in cuts]
    options = {
        "max_writers": random.choice([2, 9]),
        "max_reread": random.choice([3, 9]),
        "max_frame_bytes": 12,
        "max_buffered_bytes": random.choice([12, 99]),
    }
    encoded = [encode(part, tail) for part, tail in zip(cuts, tails, strict=True)]
    return Story(encoded, options)


STORIES |= {f"random {seed}": partial(random_story, seed) for seed in range(2)}


# Interrupted


@pytest.mark.parametrize(
    ("name", "at_once"),
    [*((name, False) for name in STORIES), ("runs", True), ("bounded", True)],
    ids=str,
)
def test_interrupted_at_any_line(name: str, at_once: bool) -> None:
    story = STORIES[name]()
    for number in range(len(story.batches)):
        expected = truth(story, number, at_once=at_once)
        for at in first_ones(expected.lines):
            taker = take(story, number, at, at_once=at_once)
            check(story, number, taker, expected, (at,))


@pytest.mark.parametrize("name", ["runs", "large_chunks", "caught_up", "random 0"])
def test_interrupted_while_a_batch_is_taken_apart(name: str) -> None:
    story = STORIES[name]()
    seen: set[tuple[str, int]] = set()
    for number in range(len(story.batches)):
        expected = truth(story, number, paths=(_CORE,))
        for at in first_ones(expected.lines):
            line = expected.lines[at]
            if line not in seen and not line[0].startswith(_READER):
                seen.add(line)
                taker = take(story, number, at, paths=(_CORE,))
                check(story, number, taker, expected, (at,))
    assert len(seen) > 80


@pytest.mark.parametrize("name", STORIES)
def test_interrupted_again_and_again(name: str) -> None:
    """Going back is interrupted as well, and going back from there."""
    story, random = STORIES[name](), Random(name)
    for number in range(len(story.batches)):
        expected = truth(story, number, at_once=True)
        for at in random.sample(last := last_ones(expected.lines), min(len(last), 9)):
            again = [random.randrange(100), random.randrange(300)]
            taker = take(story, number, at, *again, at_once=True)
            check(story, number, taker, expected, [at, *again][: len(taker.places)])


@pytest.mark.parametrize(
    ("name", "number"),
    [("long_frames", 1), ("large_chunks", 3), ("given_up", 1), ("awaited", 2), ("runs", 1)],
)
def test_interrupted_at_any_line_of_going_back(name: str, number: int) -> None:
    story = STORIES[name]()
    expected = truth(story, number, at_once=True)
    # Near the end of the batch, so that much is to be undone.
    at = last_ones(expected.lines)[-9]
    taker = Taker(story.reader_before(number), story.batches[number], at_once=True)
    taker.take_lines(at)
    for again in first_ones(taker.take_lines()):
        taker = take(story, number, at, again, at_once=True)
        check(story, number, taker, expected, (at, again))


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("name", STORIES)
def test_what_was_taken_and_did_not_arrive_comes_again(name: str, at_once: bool) -> None:
    """Wherever the reader is, and how much of it had arrived: nothing was raised in it."""
    story = STORIES[name]()
    for number in range(len(story.batches)):
        expected = truth(story, number, at_once=False)
        events = expected.outcome.events
        for num_taken in range(len(events) + 2):
            for num_arrived in range(min(num_taken, len(events)) + 1):
                taker = Taker(story.reader_before(number), story.batches[number], at_once)
                left = taker._begin()
                for _ in range(num_taken):
                    next(left, None)
                taker.events = events[:num_arrived]
                taker.take()
                assert taker.log.items() <= expected.log.items(), (number, num_taken, num_arrived)
                assert outcome(story, number, taker) == expected.outcome


# What a reader says when it is interrupted


def torn_reader() -> FrameReader:
    """It has taken the first of five records, and was interrupted in the second."""
    reader = FrameReader(start=0)
    events = reader.receive_batch(encode(place(similar(0, 5)), 5))
    assert isinstance(next(events), FrameReceived)
    with Interruption(3) as interruption:
        next(events)
    assert interruption.was_raised
    assert reader.is_torn
    return reader


@pytest.mark.parametrize(
    "use",
    [
        lambda reader: reader.checkpoint(),
        lambda reader: reader.receive_records([]),
        lambda reader: reader.receive_batch(b""),
        lambda reader: reader.receive_batch_at_once(b""),
        lambda reader: reader.receive_eof(),
        lambda reader: reader.connection_lost(),
    ],
    ids=["checkpoint", "records", "batch", "at once", "eof", "connection lost"],
)
def test_a_torn_reader_goes_back_or_nowhere(use: Callable[[FrameReader], object]) -> None:
    reader = torn_reader()
    message = (
        "^the reader was interrupted in the midst of a record: rewind it, or go on with another "
        "one from an earlier checkpoint$"
    )
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match=message):
            use(reader)
    assert payloads(reader.rewind(1)) == [b"%06d" % i for i in range(1, 5)]
    assert not reader.is_torn
    assert reader.checkpoint().seen_through == 5


def test_a_reader_is_torn_until_it_has_gone_back() -> None:
    reader = torn_reader()
    with Interruption() as whole:
        reader.rewind(1)
    assert not reader.is_torn
    # In the last line it is whole; who did not get hold of its events goes back again.
    for at in range(len(whole.lines) - 1):
        reader = torn_reader()
        with Interruption(at) as interruption:
            reader.rewind(1)
        assert interruption.was_raised
        assert reader.is_torn
        with pytest.raises(LocalProtocolError, match="interrupted"):
            reader.checkpoint()
        assert payloads(reader.rewind(1)) == [b"%06d" % i for i in range(1, 5)]


def test_a_torn_reader_that_forgot_its_batch_does_not_go_back() -> None:
    reader = torn_reader()
    assert reader.can_rewind
    reader.forget_batch()
    assert not reader.can_rewind
    assert reader.is_torn
    with pytest.raises(LocalProtocolError, match=r"^there is no batch to take again$"):
        reader.rewind(0)


def test_records_are_not_taken_again() -> None:
    reader = FrameReader(start=0)
    assert not reader.can_rewind
    list(reader.receive_batch(encode(place(similar(0, 1)))))
    assert reader.can_rewind
    events = reader.receive_records(place(similar(1, 2), 1))
    assert not reader.can_rewind
    with Interruption(3):
        next(events)
    assert reader.is_torn
    with pytest.raises(LocalProtocolError, match="no batch"):
        reader.rewind(0)


def test_events_that_are_given_up_leave_the_reader_torn() -> None:
    reader = FrameReader(start=0)
    events = reader.receive_batch(encode(place(similar(0, 3))))
    next(events)
    assert not reader.is_torn
    assert isinstance(events, Generator)
    events.close()
    assert reader.is_torn
    assert payloads(reader.rewind(1)) == [b"000001", b"000002"]


def test_a_new_connection_takes_nothing_again() -> None:
    reader = FrameReader(start=0)
    next(reader.receive_batch(encode(place(similar(0, 3)))))
    assert reader.can_rewind
    reader.connection_lost()
    assert not reader.can_rewind
    assert payloads(reader.receive_batch(encode(place(similar(1, 2), 1)))) == [b"000001", b"000002"]


def test_another_batch_is_the_one_to_take_again() -> None:
    reader = FrameReader(start=0)
    first, second = encode(place(similar(0, 2))), encode(place(similar(2, 2), 2))
    list(reader.receive_batch(first))
    list(reader.receive_batch(second))
    assert payloads(reader.rewind(0)) == [b"000002", b"000003"]
    assert payloads(reader.rewind(1)) == [b"000003"]


def test_a_batch_that_ends_in_an_error_does_so_again() -> None:
    reader = FrameReader(start=0)
    batch = encode(place(similar(0, 3)))[:-1]
    for _ in range(3):
        found: list[ReaderEvent] = []
        with pytest.raises(RemoteProtocolError):
            found.extend(reader.rewind(1) if reader.can_rewind else reader.receive_batch(batch))
        assert not reader.is_torn
        assert reader.next_seq_num == 2
        assert reader.stats.frames == 2
    assert payloads(found) == [b"000001"]
    # It goes on after the last whole record.
    assert payloads(reader.receive_batch(encode(place(similar(2, 1), 2)))) == [b"000002"]


def test_a_batch_is_taken_again_after_the_end_was_told() -> None:
    reader = FrameReader(start=0)
    list(reader.receive_batch(encode(place([opened("a"), fence("")]))))
    assert len(list(reader.receive_eof())) == 1
    assert len(list(reader.rewind(0))) == 1
    assert reader.stats.dropped[DropReason.INCOMPLETE] == 0
    assert len(list(reader.receive_eof())) == 1
    assert reader.stats.dropped[DropReason.INCOMPLETE] == 1


def test_the_end_is_told_once_whatever_interrupts() -> None:
    def make_reader() -> FrameReader:
        reader = FrameReader(start=0)
        list(reader.receive_records(place([opened("a"), opened("b")])))
        return reader

    with Interruption() as whole:
        make_reader().receive_eof()
    with Interruption() as start:
        make_reader()
    for at in range(len(whole.lines) - len(start.lines)):
        reader = make_reader()
        with Interruption(at) as interruption:
            reader.receive_eof()
        assert interruption.was_raised
        assert [type(event) for event in reader.receive_eof()] == [FrameDropped] * 2
        assert list(reader.receive_eof()) == []
        assert reader.stats.dropped[DropReason.INCOMPLETE] == 2
