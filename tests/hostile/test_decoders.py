"""Whatever a peer sends gives our errors or a result, and costs no more than what it sent.

Each input has a number, which is its seed: the same one gives the same bytes everywhere.
"""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
import zstandard
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
)

from frames import encode, head, place
from hostile.http2_targets import HTTP2_TARGETS
from hostile.machines import Answer
from hostile.measure import TooMuchWork, measured
from hostile.mutate import MAX_BYTES, Mutator, raw_frame, split
from hostile.targets import CORE_TARGETS, Target
from s2frames.compression import Compression
from s2frames.errors import ServiceError
from s2frames.s2s import encode_message
from s2frames.session import Response
from s2frames.u64 import U64_MAX
from s2frames.wire import encode_varint

TARGETS = {target.name: target for target in [*CORE_TARGETS, *HTTP2_TARGETS]}

# In all, over all targets. `nox -s fuzz` asks for more.
_INPUTS = int(os.environ.get("S2FRAMES_HOSTILE_INPUTS", "6000"))
_INPUTS_A_TARGET = -(-_INPUTS // len(TARGETS))

# Counting steps and bytes takes ten times as long as the work itself.
_MEASURED_EVERY = 10

# What is shown of an input that did harm.
_SHOWN_CHARS = 4000

MIB = 1024 * 1024

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def make(target: Target, number: int) -> tuple[Any, int, Random]:
    """The target's input of this number, its size, and the chance that goes with it."""
    random = Random(f"{target.name} {number}")
    return *target.make(Mutator(random)), random


def note(error: BaseException, target: Target, what: object, hostile: Any) -> None:
    """Say which input it was."""
    error.add_note(f"{target.name}, input {what}: {repr(hostile)[:_SHOWN_CHARS]}")


def check_cost(
    target: Target,
    hostile: Any,
    size: int,
    random: Random,
    max_steps: int = MAX_BYTES**2,
    max_bytes: int = MAX_BYTES**2,
) -> None:
    """Give the target its input, at a price in proportion to its size, and below these limits."""
    bounds = target.bounds
    max_steps = min(max_steps, bounds.steps + bounds.steps_a_byte * size)
    max_bytes = min(max_bytes, bounds.memory + bounds.memory_a_byte * size)
    cost = measured(lambda: target.feed(hostile, random), max_steps)
    assert cost.peak_bytes <= max_bytes, f"{size} bytes of input"


@each_target
def test_mutated_bytes(target: Target) -> None:
    for number in range(_INPUTS_A_TARGET):
        hostile, _, random = make(target, number)
        try:
            target.feed(hostile, random)
        except BaseException as error:
            note(error, target, number, hostile)
            raise


@pytest.mark.usefixtures("traced")
@each_target
def test_mutated_bytes_cost_little(target: Target) -> None:
    # What is made once only counts for nobody.
    hostile, _, random = make(target, 0)
    target.feed(hostile, random)
    for number in range(0, _INPUTS_A_TARGET, _MEASURED_EVERY):
        hostile, size, random = make(target, number)
        try:
            check_cost(target, hostile, size, random)
        except BaseException as error:
            note(error, target, number, hostile)
            raise


# What is made to cost much


def framed(flags: int, body: bytes) -> bytes:
    return (len(body) + 1).to_bytes(3, "big") + bytes((flags,)) + body


def wire(*frames: Frame) -> bytes:
    return b"".join(frame.serialize() for frame in (SettingsFrame(0), *frames))


def answers(*bodies: bytes) -> list[Answer]:
    return [Answer(200, {"content-type": "s2s/proto"}, body, True) for body in bodies]


ZSTD_BOMB = zstandard.ZstdCompressor().compress(bytes(64 * MIB))
GZIP_BOMB = gzip.compress(bytes(64 * MIB), 6)
BOMBED = framed(0x20, ZSTD_BOMB) + framed(0x40, GZIP_BOMB)
GREEDY = encode(
    place([head(b"x", size=499, records=U64_MAX, seq=n, writer=f"w{n}") for n in range(1000)])
)
HEADER_BOMB = Encoder().encode([("big", "x" * 4000)]) + b"\xbe" * 60_000

#: Which target, what it gets, and what that may cost at most, however much it is.
BOMBS: dict[str, tuple[str, Any] | tuple[str, Any, dict[str, int]]] = {
    "64 MiB in zstd": ("compression", (Compression.ZSTD, ZSTD_BOMB)),
    "64 MiB in gzip": ("compression", (Compression.GZIP, GZIP_BOMB)),
    "bombs in S2S": ("s2s", BOMBED),
    "a bomb for a reader": ("read session", answers(framed(0x20, ZSTD_BOMB))),
    "a bomb for an appender": ("append session", answers(framed(0x40, GZIP_BOMB))),
    "a length and nothing": ("s2s", b"\x20\x00\x00\x00"),
    "messages of nothing": ("s2s", framed(0, b"") * 10_000),
    "a field of 2^63 bytes": ("wire", b"\x0a" + encode_varint(2**63)),
    "records of nothing": ("wire", b"\x0a\x00" * 10_000),
    "headers of nothing": ("wire", b"\x0a" + encode_varint(60_000) + b"\x1a\x00" * 30_000),
    "headers in a session": (
        "read session",
        answers(b"".join(encode_message(b"\x0a" + encode_varint(60_000) + b"\x1a\x00" * 30_000))),
    ),
    "writers that begin and never end": ("reader", [GREEDY]),
    "fields that nobody knows": ("scanner", [b"\x78\x00" * 10_000]),
    "deep JSON in a checkpoint": ("checkpoint", b"[" * 100_000),
    "deep JSON in an error": ("error bodies", (400, b'{"a":' * 20_000, {})),
    "deep JSON in an answer": ("rest", b'{"streams":' + b"[" * 60_000),
    "a number of many digits": ("peer json", b'{"n":' + b"9" * 60_000 + b"}"),
    "deep MessagePack": ("codecs", b"\x91" * 60_000),
    "an array of 2^32 items": ("codecs", b"\xdd\xff\xff\xff\xff"),
    "a frame of 16 MiB": ("frame buffer", wire() + raw_frame(0, 0, 1, b"", 2**24 - 1)),
    "CONTINUATION without end": (
        "connection",
        wire(HeadersFrame(1, data=b"\x88"), *[ContinuationFrame(1)] * 40_000),
        # 64 KiB of them are taken, each of 9 bytes.
        {"max_bytes": 8 * MIB},
    ),
    "headers that refer to a large one": (
        "connection",
        wire(HeadersFrame(1, data=b"\x88" + HEADER_BOMB, flags=["END_HEADERS"])),
    ),
    # The first thousand are answered.
    "PING after PING": ("incoming", wire(*[PingFrame(0)] * 20_000), {"max_steps": 300_000}),
    "DATA of nothing": (
        "connection",
        wire(HeadersFrame(1, data=b"\x88", flags=["END_HEADERS"]), *[DataFrame(1)] * 5000),
    ),
}


def size_of(hostile: Any) -> int:
    """Bytes of what a peer sent."""
    if isinstance(hostile, bytes):
        return len(hostile)
    if isinstance(hostile, Answer):
        return len(hostile.body)
    return sum(map(size_of, hostile)) if isinstance(hostile, list | tuple) else 0


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs(bomb: tuple[Any, ...]) -> None:
    name, hostile, *limits = bomb
    check_cost(TARGETS[name], hostile, size_of(hostile), Random(name), **dict(*limits))


@pytest.mark.usefixtures("traced")
def test_an_error_without_end() -> None:
    response = Response("s2s/proto")
    response.receive_head(500, {})

    def receive() -> None:
        for _ in range(1000):
            response.receive_data(bytes(MAX_BYTES))
        with pytest.raises(ServiceError):
            response.receive_eof()

    assert measured(receive, 100_000).peak_bytes < MIB


# The tools


def test_the_same_seed_gives_the_same_bytes() -> None:
    for target in TARGETS.values():
        assert repr(make(target, 7)[0]) == repr(make(target, 7)[0])


def test_mutations_change_much_and_stay_small() -> None:
    valid, mutator = bytes(range(256)), Mutator(Random(0))
    mutated = [mutator.mutate(valid, [valid]) for _ in range(1000)]
    assert len(set(mutated)) > 900
    # Each of four changes may add a word.
    assert max(map(len, mutated)) < MAX_BYTES + 30_000
    assert min(map(len, mutated)) < 10


def test_pieces_make_the_whole() -> None:
    random = Random(0)
    for size in (0, 1, 5, 3000, 100_000):
        data = random.randbytes(size)
        assert all(b"".join(split(random, data)) == data for _ in range(20))


def endless() -> None:
    while True:
        len(())


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("work", "error"), [(endless, TooMuchWork), (lambda: int("x"), ValueError)]
)
def test_measuring_ends_with_the_work(
    work: Callable[[], object], error: type[BaseException]
) -> None:
    with pytest.raises(error):
        measured(work, 1000)
    assert measured(lambda: bytes(MIB), 1000).peak_bytes >= MIB
