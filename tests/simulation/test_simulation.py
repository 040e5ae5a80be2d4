"""The simulation in CI: seeds that are always the same, and proof that it would notice."""

from __future__ import annotations

from random import Random

import pytest

from s2frames import FrameWriter, Outcome, Record, SequencedRecord, StreamPosition, trim
from s2frames.embedded.config import DEFAULT_STREAM_CONFIG, BasinConfig
from s2frames.embedded.store import Basin, StreamInfo, StreamState
from s2frames.events import Appended
from s2frames.settings import Endpoints, Settings
from simulation.commander import Commander
from simulation.faults import Faults
from simulation.invariants import Broken, Delivery, Lane, Oracle, RecordingStore
from simulation.scenario import Failure, Scenario, build_stage, run_seed
from simulation.world import Hang

# 2000 seeds in parts, so that a hang names its part.
_PARTS, _SEEDS_A_PART = 40, 50

KEY = ("test-basin", "room")
PAYLOADS = [b"one", b"two has several", b"three"]


@pytest.mark.parametrize("part", range(_PARTS))
def test_invariants_hold_whatever_goes_wrong(part: int) -> None:
    for seed in range(part * _SEEDS_A_PART, (part + 1) * _SEEDS_A_PART):
        run_seed(seed)


@pytest.mark.parametrize("seed", range(20))
def test_the_same_seed_gives_the_same_trace(seed: int) -> None:
    first, second = run_seed(seed).trace, run_seed(seed).trace
    assert len(first) > 10
    assert first.digest() == second.digest()
    assert str(first) == str(second)


def test_different_seeds_give_different_traces() -> None:
    assert len({run_seed(seed).trace.digest() for seed in range(10)}) == 10


def test_seeds_cover_what_can_happen() -> None:
    told = "\n".join(str(run_seed(seed).trace) for seed in range(150))
    for words in (
        "has durable",
        "tries again",
        "crashes",
        "an old connection delivers",
        "is down for",
        "the connection was refused",
        "connecting took too long",
        "gets the answer 412",
        "gets the answer 429",
        "gets the answer 504",
        "sign of life",
        "no ack came",
        "misses",
        "fences",
        "trims before",
        "more may be",
        "falls silent",
        "is interrupted",
        "after it had been given up",
    ):
        assert words in told, words


# What fails is told


@pytest.mark.parametrize("seed", range(5))
def test_a_token_is_used_once(seed: int) -> None:
    random, faults = Random(seed), Faults(Random(seed), 0, True, 0.05)
    stage = build_stage(random, faults, Settings(endpoints=Endpoints.at("http://localhost")))
    commander = Commander(stage, "commander", random, 0, 1.0, trims=False, fences=True)
    # Before anything else happens, too.
    for _ in range(5):
        commander.fence()
    stage.world.pass_time(60.0)
    tokens = [record.body for record in stage.oracle.store.history]
    assert tokens
    assert len(set(tokens)) == len(tokens)
    commander._num_tokens = int(bytes(tokens[-1]).removeprefix(b"commander-")) - 1
    with pytest.raises(Broken, match=r"^commander uses the token commander-\d twice$"):
        commander.fence()


def test_a_failure_says_how_to_replay_it() -> None:
    scenario = Scenario(7)
    scenario.stage.world.check = lambda: _fail("as it happens")
    with pytest.raises(Failure, match="as it happens") as caught:
        scenario.run()
    assert "nox -s simulate -- --seed 7 --trace" in str(caught.value)


def _fail(words: str) -> None:
    raise Broken(words)


def test_a_hang_is_a_failure() -> None:
    scenario = Scenario(7)
    world = scenario.stage.world
    with pytest.raises(Hang, match="nobody waits"):
        world.run(lambda: False, 100.0)
    world.after(1000.0, lambda: None)
    with pytest.raises(Hang, match="after 100 s"):
        world.run(lambda: False, 100.0)


# The oracle is told lies, and notices


def make_oracle(*, is_exclusive: bool = False) -> tuple[Oracle, Lane]:
    """An oracle with one writer that sends `PAYLOADS`, of which nothing is in the stream."""
    store = RecordingStore()
    store.put_basin(Basin(KEY[0], BasinConfig(), 0.0))
    store.put_stream(StreamInfo(KEY, DEFAULT_STREAM_CONFIG, 0.0))
    oracle = Oracle(store)
    lane = oracle.open_lane("w", is_exclusive=is_exclusive)
    lane.sent += PAYLOADS
    return oracle, lane


def frames() -> list[Record]:
    """The records of `PAYLOADS`: one, three and one."""
    writer = FrameWriter("w", chunk_size=5)
    writer.send_many(PAYLOADS)
    return [record for batch in writer.batches_to_send(flush=True) for record in batch.records]


def put(oracle: Oracle, *records: Record) -> None:
    """Append to the oracle's stream, and let it look."""
    at = len(oracle.store.history)
    placed = [
        SequencedRecord(number, 0, record.headers, record.body)
        for number, record in enumerate(records, at)
    ]
    oracle.store.append(KEY, placed, StreamState(StreamPosition(at + len(records), 0)))
    oracle.check()


def test_what_is_right_passes() -> None:
    oracle, lane = make_oracle()
    records = frames()
    put(oracle, *records[:3], trim(0), *records[1:])
    assert len(lane.frames) == 3
    oracle.note_durable(lane, 0, Appended(0, 1))
    oracle.note_durable(lane, 1, Appended(1, 7))
    delivery = Delivery("reader")
    oracle.note_delivered(delivery, "w", PAYLOADS[0], 0, 1)
    oracle.note_delivered(delivery, "w", PAYLOADS[1], 1, 7)
    oracle.note_delivered(delivery, "w", PAYLOADS[2], 7, 8)
    oracle.note_reached_tail(delivery)


ALL = frames()
OTHER = Record(b"other", ALL[0].headers)
CHUNK = Record(b"x", ((b"_dedupe_seq", bytes(8)), (b"_writer_id", b"w")))


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([ALL[1]], "record 1 is in the stream and 0 is not"),
        ([ALL[0], ALL[2]], "record 2 is in the stream and 1 is not"),
        ([ALL[0], OTHER], "has other bytes"),
        ([OTHER], "frame 0 was not sent so"),
        ([Record(b"two", ALL[0].headers)], "and b'one' was sent"),
        ([Record(b"nobody's")], "sent by nobody"),
        ([Record(b"x", ((b"_dedupe_seq", b"\0" * 8), (b"_writer_id", b"v")))], "nobody knows"),
        ([CHUNK], "belongs to no frame"),
    ],
)
def test_a_wrong_stream_is_noticed(records: list[Record], words: str) -> None:
    oracle, _ = make_oracle()
    with pytest.raises(Broken, match=words):
        put(oracle, *records)


def test_a_repeat_of_an_exclusive_writer_is_noticed() -> None:
    oracle, _ = make_oracle(is_exclusive=True)
    put(oracle, ALL[0])
    with pytest.raises(Broken, match="repeats 0"):
        put(oracle, ALL[0])


def test_a_message_of_two_writers_is_noticed() -> None:
    oracle, _ = make_oracle()
    put(oracle, ALL[0])
    oracle.open_lane("v").sent.append(PAYLOADS[0])
    writer = FrameWriter("v")
    writer.send(PAYLOADS[0])
    with pytest.raises(Broken, match="of w and anew"):
        put(oracle, *writer.batches_to_send(flush=True)[0].records)


@pytest.mark.parametrize(
    ("index", "appended", "words"),
    [
        (1, Appended(1, 4), "0 was next"),
        (0, Appended(1, 2), "does not start at 1"),
        (0, Appended(0, 2), "does not end at 2"),
    ],
)
def test_a_wrong_place_is_noticed(index: int, appended: Appended, words: str) -> None:
    oracle, lane = make_oracle()
    put(oracle, *ALL)
    with pytest.raises(Broken, match=words):
        oracle.note_durable(lane, index, appended)


def test_a_durable_message_that_is_not_there_is_noticed() -> None:
    oracle, lane = make_oracle()
    with pytest.raises(Broken, match="not there"):
        oracle.note_durable(lane, 0, Appended(0, 1))


def test_an_outcome_that_is_not_true_is_noticed() -> None:
    oracle, lane = make_oracle()
    oracle.note_not_applied(lane)
    with pytest.raises(Broken, match="said not to be"):
        put(oracle, ALL[0])
    oracle, lane = make_oracle()
    put(oracle, ALL[0])
    with pytest.raises(Broken, match=Outcome.NOT_APPLIED.value.replace("_", " ")):
        oracle.note_not_applied(lane)


@pytest.mark.parametrize(
    ("delivered", "words"),
    [
        ([(0, 0, 1), (0, 0, 1)], "again"),
        ([(1, 1, 4)], "missing without a word"),
        ([(0, 0, 1), (2, 1, 4)], "not as it was sent"),
        ([(0, 0, 1), (1, 1, 3)], "not as it was sent"),
    ],
)
def test_a_wrong_delivery_is_noticed(delivered: list[tuple[int, int, int]], words: str) -> None:
    oracle, _ = make_oracle()
    put(oracle, *ALL)
    delivery = Delivery("reader")
    *before, (index, start, end) = delivered
    for number, first, last in before:
        oracle.note_delivered(delivery, "w", PAYLOADS[number], first, last)
    with pytest.raises(Broken, match=words):
        oracle.note_delivered(delivery, "w", PAYLOADS[index], start, end)


def test_a_message_that_is_never_delivered_is_noticed() -> None:
    oracle, _ = make_oracle()
    put(oracle, *ALL)
    delivery = Delivery("reader")
    with pytest.raises(Broken, match="message 0"):
        oracle.note_reached_tail(delivery)
    delivery.gaps.append((0, 2))
    with pytest.raises(Broken, match="message 2"):
        oracle.note_reached_tail(delivery)
    delivery.gaps.append((4, 5))
    oracle.note_reached_tail(delivery)


def test_a_frame_that_is_lost_to_silence_is_told_of_once() -> None:
    oracle, _ = make_oracle()
    # The second message, its head twice.
    put(oracle, *ALL[:3], *ALL[1:])
    delivery = Delivery("reader")
    oracle.note_delivered(delivery, "w", PAYLOADS[0], 0, 1)
    # Not another's loss explains it.
    delivery.lost.append(0)
    with pytest.raises(Broken, match=r"message 1 .* is missing without a word"):
        oracle.note_delivered(delivery, "w", PAYLOADS[2], 6, 7)
    with pytest.raises(Broken, match="no frame of w starts at 2"):
        oracle.note_given_up(delivery, "w", 2)
    # The copy that was read counts.
    oracle.note_given_up(delivery, "w", 3)
    oracle.note_delivered(delivery, "w", PAYLOADS[2], 6, 7)
    with pytest.raises(Broken, match="the frame at 3 of w is lost again"):
        oracle.note_given_up(delivery, "w", 3)


def test_a_plain_message_out_of_order_or_repeated_is_noticed() -> None:
    oracle, _ = make_oracle()
    oracle.plain.sent.update({b"a": (1, 0), b"b": (1, 1)})
    with pytest.raises(Broken, match="out of its order"):
        put(oracle, Record(b"b"))
    oracle, _ = make_oracle()
    oracle.plain.sent.update({b"a": (1, 0), b"b": (1, 1)})
    put(oracle, Record(b"a"))
    with pytest.raises(Broken, match="without dedupe"):
        put(oracle, Record(b"a"))
