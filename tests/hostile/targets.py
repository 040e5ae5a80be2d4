"""The core's decoders, each with what a hostile peer sends it and what must hold then."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, TypeVar

from attrs import field, frozen

from hostile import corpus
from hostile.machines import feed_append, feed_operation, feed_read, make_answers
from hostile.mutate import Mutator, split
from s2frames import peer_json, rest
from s2frames.checkpoint import Checkpoint
from s2frames.classify import ClassifiedRecord, classify
from s2frames.codecs import BYTES, JSON, MSGPACK, TEXT, Codec
from s2frames.compression import Compression, decompress
from s2frames.config import BasinConfig, StreamConfig
from s2frames.dedupe import DedupeFilter
from s2frames.error_bodies import parse_error
from s2frames.errors import (
    CodecError,
    FrameSizeError,
    LocalProtocolError,
    RemoteProtocolError,
    S2FramesError,
    ServiceError,
    TransportError,
)
from s2frames.events import FramesReceived, ReaderEvent
from s2frames.framed_wire import BatchScanner
from s2frames.framing import FrameAssembler
from s2frames.reader import FrameReader
from s2frames.records import SequencedRecord
from s2frames.s2s import MAX_BODY_BYTES, Message, MessageDecoder, Terminal
from s2frames.settings import Endpoints, Settings
from s2frames.wire import (
    decode_append_ack,
    decode_append_input,
    decode_read_batch,
    encode_append_ack,
    encode_read_batch,
)

__all__ = ["CORE_TARGETS", "Bounds", "Target"]

T = TypeVar("T")

_Errors = type[S2FramesError] | tuple[type[S2FramesError], ...]


@frozen
class Bounds:
    """What an input of so many bytes may cost: a start, and so much a byte.

    The numbers are about three times what the worst input took. What a peer compressed may become
    2 MiB, and is held up to three times; two bytes of protobuf can be an object of 80.
    """

    steps: int
    steps_a_byte: int
    memory: int
    memory_a_byte: int


@frozen
class Target:
    """Something that takes what a peer sends."""

    name: str
    #: An input, and how many bytes it is.
    make: Callable[[Mutator], tuple[Any, int]] = field(repr=False)
    #: Takes it. Raises nothing but for a bug.
    feed: Callable[[Any, Random], object] = field(repr=False)
    bounds: Bounds


def _one(pool: Sequence[bytes]) -> Callable[[Mutator], tuple[bytes, int]]:
    """One of the pool, mutated."""

    def make(mutator: Mutator) -> tuple[bytes, int]:
        data = mutator.mutate(mutator.random.choice(pool), pool)
        return data, len(data)

    return make


def _outcome(errors: _Errors, work: Callable[..., T], *arguments: Any) -> T | str:
    """What `work` gives, or the words of the error that it ends in, which must be one of these."""
    try:
        return work(*arguments)
    except errors as error:
        words = f"{type(error).__name__}: {error}"
        # What cannot be printed is of no use.
        words.encode()
        return words


# S2S


def _make_session(mutator: Mutator) -> tuple[bytes, int]:
    data = corpus.session(mutator, [*corpus.READ_BATCHES, *corpus.ACKS])
    return data, len(data)


def _feed_s2s(data: bytes, random: Random) -> None:
    assert _messages([data]) == _messages(split(random, data))


def _messages(pieces: Iterable[bytes]) -> list[Message | Terminal | str]:
    decoder, found = MessageDecoder(), list[Message | Terminal | str]()

    def take() -> None:
        for piece in pieces:
            decoder.receive_data(piece)
            while (message := decoder.next_message()) is not None:
                assert len(message.body) <= MAX_BODY_BYTES
                found.append(message)
        decoder.receive_eof()

    end = _outcome((RemoteProtocolError, TransportError), take)
    return [*found, str(end)]


def _make_compressed(mutator: Mutator) -> tuple[tuple[Compression, bytes], int]:
    how, data = mutator.random.choice(corpus.COMPRESSED)
    data = mutator.mutate(data)
    return (how, data), len(data)


def _feed_compressed(compressed: tuple[Compression, bytes], random: Random) -> None:
    how, data = compressed
    limit = random.choice((0, 1, 1000, MAX_BODY_BYTES))
    body = _outcome(RemoteProtocolError, decompress, data, how, limit)
    if isinstance(body, bytes) and how is not Compression.NONE:
        assert len(body) <= limit


# Protobuf


def _feed_wire(data: bytes, _random: Random) -> None:
    _outcome(RemoteProtocolError, decode_append_input, data)
    ack = _outcome(RemoteProtocolError, decode_append_ack, data)
    if not isinstance(ack, str):
        assert decode_append_ack(encode_append_ack(ack)) == ack
    batch = _outcome(RemoteProtocolError, decode_read_batch, data)
    if not isinstance(batch, str):
        assert decode_read_batch(encode_read_batch(batch)) == batch


def _make_batches(mutator: Mutator) -> tuple[list[bytes], int]:
    """Batches as one reader gets them: what it learns from one it uses on the next."""
    pool = mutator.random.choices(corpus.READ_BATCHES, k=mutator.random.randint(1, 3))
    batches = [mutator.mutate(data, corpus.READ_BATCHES) for data in pool]
    return batches, sum(map(len, batches))


def _feed_scanner(batches: list[bytes], _random: Random) -> None:
    """The fast path and the plain one tell the same, of garbage too."""
    scanner = BatchScanner()
    for data in batches:
        fast: list[ClassifiedRecord] | str
        fast = _outcome(RemoteProtocolError, list, scanner.scan(data))
        plain = _outcome(RemoteProtocolError, decode_read_batch, data)
        if isinstance(plain, str):
            assert isinstance(fast, str)
        else:
            assert fast == list(classify(plain.records))
            assert scanner.tail == plain.tail


# Frames


def _feed_reader(batches: list[bytes], random: Random) -> None:
    """One by one and all at once tell the same; memory stays within the settings."""
    options: dict[str, Any] = {
        "dedupe": random.random() < 0.8,
        "max_frame_bytes": 500,
        "max_buffered_bytes": random.choice((500, 2000)),
        "max_writers": random.choice((1, 2, 50)),
        "max_reread": random.choice((1, 1_000_000)),
    }
    singly, at_once = FrameReader(**options), FrameReader(**options)
    for data in batches:
        one = _events(singly, singly.receive_batch, data)
        assert one == _events(at_once, at_once.receive_batch_at_once, data)
        assert singly.buffered_bytes <= options["max_buffered_bytes"]
    assert singly.stats == at_once.stats
    if singly.next_seq_num is not None:
        checkpoint = singly.checkpoint()
        assert checkpoint == at_once.checkpoint()
        # The lane without numbers is no writer's.
        writers = [lane for lane in checkpoint.lanes if lane.lane is not None]
        assert len(writers) <= options["max_writers"]
        _go_on(checkpoint, batches[-1], options)
    list(singly.receive_eof())


def _events(
    reader: FrameReader,
    receive: Callable[[bytes], Iterable[ReaderEvent | FramesReceived]],
    data: bytes,
    *errors: type[S2FramesError],
) -> list[ReaderEvent | str]:
    found: list[ReaderEvent | str] = []

    def take() -> None:
        for event in receive(data):
            found.extend(event.singly() if isinstance(event, FramesReceived) else [event])

    end = _outcome((RemoteProtocolError, *errors), take)
    reader.connection_lost()
    return [*found, str(end)]


def _go_on(checkpoint: Checkpoint, data: bytes, options: dict[str, Any]) -> None:
    """A checkpoint survives being stored."""
    assert Checkpoint.from_json(checkpoint.to_json()) == checkpoint
    reader = FrameReader.resume(checkpoint, **options)
    # It is another stream's: a reader may say so.
    _events(reader, reader.receive_batch, data, LocalProtocolError)
    assert reader.buffered_bytes <= options["max_buffered_bytes"]


def _make_records(mutator: Mutator) -> tuple[list[SequencedRecord], int]:
    """What is left of a batch that decodes, so that its headers are all that is wrong."""
    data = mutator.random.choice(corpus.READ_BATCHES)
    for _ in range(20):
        candidate = mutator.mutate(data)
        batch = _outcome(RemoteProtocolError, decode_read_batch, candidate)
        if not isinstance(batch, str):
            return list(batch.records), len(candidate)
    return [], 0


def _feed_assembler(records: list[SequencedRecord], _random: Random) -> None:
    """The helpers for callers with a reading loop of their own."""
    assembler, dedupe = FrameAssembler(max_frame_bytes=500), DedupeFilter()
    for record in records:
        _outcome(RemoteProtocolError, dedupe.should_accept, record.headers)
        frame = _outcome((RemoteProtocolError, FrameSizeError), assembler.push, record)
        if frame is not None and not isinstance(frame, str):
            assert len(frame.payload) == frame.meta.bytes <= 500


# JSON


def _feed_checkpoint(data: bytes, _random: Random) -> None:
    checkpoint = _outcome(LocalProtocolError, Checkpoint.from_json, data)
    if isinstance(checkpoint, str):
        return
    assert Checkpoint.from_json(checkpoint.to_json()) == checkpoint
    again = FrameReader.resume(checkpoint).checkpoint()
    assert (again.read_from, again.seen_through) == (checkpoint.read_from, checkpoint.seen_through)
    assert set(again.lanes) == set(checkpoint.lanes)


def _make_error(mutator: Mutator) -> tuple[tuple[int, bytes, dict[str, str]], int]:
    body = mutator.mutate(mutator.random.choice(corpus.ERROR_BODIES), corpus.JSON_ANSWERS)
    wait = mutator.maybe(b"20").decode("latin-1")
    return (mutator.random.choice(corpus.STATUSES), body, {"retry-after-ms": wait}), len(body)


def _feed_error(answer: tuple[int, bytes, dict[str, str]], _random: Random) -> None:
    error = parse_error(*answer)
    assert isinstance(error, ServiceError)
    assert len(str(error).encode()) < 2 * len(answer[1]) + 1000
    assert error.retry_after is None or 0 <= error.retry_after < 1e8


_SETTINGS = Settings(endpoints=Endpoints.at("http://localhost"))
_CALLS: Sequence[rest.Call[Any]] = (
    rest.list_basins(_SETTINGS),
    rest.create_basin(_SETTINGS, "basin-one"),
    rest.ensure_basin(_SETTINGS, "basin-one"),
    rest.get_basin_config(_SETTINGS, "basin-one"),
    rest.delete_basin(_SETTINGS, "basin-one"),
    rest.list_streams(_SETTINGS, "basin-one"),
    rest.get_stream_config(_SETTINGS, "basin-one", "room/1"),
    rest.ensure_stream(_SETTINGS, "basin-one", "room/1"),
    rest.check_tail(_SETTINGS, "basin-one", "room/1"),
)


def _feed_rest(data: bytes, random: Random) -> None:
    """Each call on the same answer."""
    headers = {"S2-Provision-Result": random.choice(("created", "", "\xff"))}
    for call in _CALLS:
        status = 200 if random.random() < 0.8 else random.choice(corpus.STATUSES)
        found = _outcome((RemoteProtocolError, ServiceError), call.parse, status, headers, data)
        if isinstance(found, StreamConfig | BasinConfig):
            # What a service said can be said back to it.
            assert type(found).from_json(json.loads(json.dumps(found.to_json()))) == found


def _feed_peer_json(data: bytes, _random: Random) -> None:
    try:
        value = json.loads(data, parse_constant=peer_json.refuse_constant)
    except (ValueError, RecursionError):
        return
    rest_of_it = _outcome(RemoteProtocolError, peer_json.as_object, value, "it")
    if isinstance(rest_of_it, str):
        return
    for name in list(rest_of_it):
        for kind in (str, int, bool, list, dict):
            for read in (peer_json.required, peer_json.optional):
                _outcome(RemoteProtocolError, read, value, "it", name, kind)
        _outcome(RemoteProtocolError, peer_json.take_u64, dict(value), "it", name, 1)
        choice = dict(value), "it", name, rest.Provisioned
        _outcome(RemoteProtocolError, peer_json.take_choice, *choice)


_CODECS: tuple[Codec[Any], ...] = (JSON, MSGPACK, TEXT, BYTES)


def _feed_codecs(data: bytes, _random: Random) -> None:
    for codec in _CODECS:
        _outcome(CodecError, codec.decode, data)


CORE_TARGETS: list[Target] = [
    Target("s2s", _make_session, _feed_s2s, Bounds(20_000, 10, 7_000_000, 20)),
    Target("compression", _make_compressed, _feed_compressed, Bounds(200, 0, 7_000_000, 20)),
    Target(
        "wire",
        _one([*corpus.READ_BATCHES, *corpus.APPEND_INPUTS, *corpus.ACKS]),
        _feed_wire,
        Bounds(2_000, 40, 20_000, 120),
    ),
    Target("scanner", _make_batches, _feed_scanner, Bounds(3_000, 15, 50_000, 120)),
    Target("reader", _make_batches, _feed_reader, Bounds(5_000, 10, 60_000, 120)),
    Target("assembler", _make_records, _feed_assembler, Bounds(1_000, 5, 20_000, 10)),
    Target("checkpoint", _one(corpus.CHECKPOINTS), _feed_checkpoint, Bounds(3_000, 5, 100_000, 60)),
    Target("error bodies", _make_error, _feed_error, Bounds(1_000, 1, 100_000, 60)),
    Target("rest", _one(corpus.JSON_ANSWERS), _feed_rest, Bounds(3_000, 5, 50_000, 100)),
    Target(
        "peer json",
        _one([*corpus.JSON_ANSWERS, *corpus.ERROR_BODIES]),
        _feed_peer_json,
        Bounds(3_000, 5, 50_000, 60),
    ),
    Target("codecs", _one(corpus.PAYLOADS), _feed_codecs, Bounds(200, 1, 30_000, 130)),
    Target("read session", make_answers, feed_read, Bounds(20_000, 40, 7_000_000, 150)),
    Target("append session", make_answers, feed_append, Bounds(20_000, 30, 13_000_000, 150)),
    Target("operation", make_answers, feed_operation, Bounds(20_000, 30, 7_000_000, 150)),
]
