"""What concurrent clients asked of one stream, and what came of it, in the order it was observed.

Its JSON lines are those of s2-verification, whose checker takes them as they are.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Iterable
from hashlib import blake2b
from itertools import count
from typing import Any

from attrs import asdict, define, field, frozen

__all__ = [
    "INDEFINITE",
    "Append",
    "Event",
    "Finish",
    "History",
    "Outcome",
    "Query",
    "chain_hash",
    "from_jsonl",
    "hash_body",
    "hash_stream",
    "to_jsonl",
]

_U64 = 2**64 - 1

# Of XXH3 (64 bits) for an input of 4 to 8 bytes: its secret's words at 8 and 16, and the factor of
# its last step.
_SECRET = 0x1CAD21F72C81017C ^ 0xDB979083E96DD4DE
_FACTOR = 0x9FB21C651E98DF25


@frozen
class Append:
    """A batch is to be appended: all of it or nothing."""

    record_hashes: tuple[int, ...]
    set_fencing_token: str | None = None
    fencing_token: str | None = None
    match_seq_num: int | None = None


class Query(enum.Enum):
    """A question that changes nothing."""

    #: All records, and the tail after them.
    READ = "Read"
    CHECK_TAIL = "CheckTail"


class Outcome(enum.Enum):
    """How an operation ended."""

    APPEND_SUCCESS = "AppendSuccess"
    #: Nothing was appended, and nothing will be.
    APPEND_DEFINITE_FAILURE = "AppendDefiniteFailure"
    #: It may have been appended, or may be later.
    APPEND_INDEFINITE_FAILURE = "AppendIndefiniteFailure"
    READ_SUCCESS = "ReadSuccess"
    READ_FAILURE = "ReadFailure"
    CHECK_TAIL_SUCCESS = "CheckTailSuccess"
    CHECK_TAIL_FAILURE = "CheckTailFailure"


@frozen
class Finish:
    """The end of an operation."""

    outcome: Outcome
    #: The sequence number that comes next; of an append, right after it. None for a failure.
    tail: int | None = None
    #: Of a read: the hash of all records.
    stream_hash: int | None = None


INDEFINITE = Finish(Outcome.APPEND_INDEFINITE_FAILURE)


@frozen
class Event:
    """An operation starts or ends."""

    what: Append | Query | Finish
    client_id: int
    op_id: int


@define
class History:
    """Records events as they happen."""

    events: list[Event] = field(factory=list)
    _client_ids: count[int] = field(factory=count)
    _op_ids: count[int] = field(factory=count)
    # Ends that nobody can place in time.
    _deferred: list[Event] = field(factory=list)

    def new_client(self) -> int:
        """A client that has no operation under way."""
        return next(self._client_ids)

    def start(self, client_id: int, what: Append | Query) -> int:
        """An operation starts; gives its number."""
        op_id = next(self._op_ids)
        self.events.append(Event(what, client_id, op_id))
        return op_id

    def finish(self, client_id: int, op_id: int, finish: Finish) -> int:
        """An operation ends; gives the id that its client has from now on.

        What failed indefinitely may still take effect, as if its client were still at it.
        """
        event = Event(finish, client_id, op_id)
        if finish != INDEFINITE:
            self.events.append(event)
            return client_id
        self._deferred.append(event)
        return self.new_client()

    def close(self) -> list[Event]:
        """All events; no operation is under way any more."""
        self.events += self._deferred
        self._deferred = []
        return self.events


# Hashes


def hash_body(body: bytes) -> int:
    """The hash of a record. Any 64 bits would do: s2-verification takes them as they are."""
    return int.from_bytes(blake2b(body, digest_size=8).digest())


def chain_hash(stream_hash: int, record_hash: int) -> int:
    """The hash of a stream and one more record: XXH3 of the record's hash, seeded by the stream's.

    s2-verification computes the same (`chainHash` in golang/s2-porcupine/main.go).
    """
    low, high = record_hash & 0xFFFFFFFF, record_hash >> 32
    seed = stream_hash ^ _swap_bytes(stream_hash & 0xFFFFFFFF) << 32
    mixed = (high | low << 32) ^ ((_SECRET - seed) & _U64)
    mixed ^= _rotate_left(mixed, 49) ^ _rotate_left(mixed, 24)
    mixed = mixed * _FACTOR & _U64
    mixed ^= (mixed >> 35) + 8
    mixed = mixed * _FACTOR & _U64
    return mixed ^ mixed >> 28


def hash_stream(record_hashes: Iterable[int], stream_hash: int = 0) -> int:
    """The hash of a stream with these records, after what it held; an empty one has 0."""
    for record_hash in record_hashes:
        stream_hash = chain_hash(stream_hash, record_hash)
    return stream_hash


def _swap_bytes(word: int) -> int:
    return int.from_bytes(struct.pack("<I", word))


def _rotate_left(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _U64


# JSON lines


def to_jsonl(events: Iterable[Event]) -> str:
    """A line for each event."""
    return "".join(json.dumps(_to_json(event), separators=(",", ":")) + "\n" for event in events)


def from_jsonl(text: str) -> list[Event]:
    """The events in these lines."""
    return [_from_json(json.loads(line)) for line in text.splitlines()]


def _to_json(event: Event) -> dict[str, Any]:
    side = "Finish" if isinstance(event.what, Finish) else "Start"
    return {
        "event": {side: _describe(event.what)},
        "client_id": event.client_id,
        "op_id": event.op_id,
    }


def _describe(what: Append | Query | Finish) -> object:
    match what:
        case Append():
            return {"Append": {"num_records": len(what.record_hashes), **asdict(what)}}
        case Query():
            return what.value
        case Finish(outcome, None):
            return outcome.value
        case Finish(outcome, tail, None):
            return {outcome.value: {"tail": tail}}
        case Finish(outcome, tail, stream_hash):
            return {outcome.value: {"tail": tail, "stream_hash": stream_hash}}


def _from_json(value: dict[str, Any]) -> Event:
    ((side, said),) = value["event"].items()
    what = _parse_start(said) if side == "Start" else _parse_finish(said)
    return Event(what, value["client_id"], value["op_id"])


def _parse_start(said: Any) -> Append | Query:
    if isinstance(said, str):
        return Query(said)
    arguments = dict(said["Append"])
    hashes = tuple(arguments.pop("record_hashes"))
    assert arguments.pop("num_records") == len(hashes)
    return Append(hashes, **arguments)


def _parse_finish(said: Any) -> Finish:
    if isinstance(said, str):
        return Finish(Outcome(said))
    ((outcome, results),) = said.items()
    return Finish(Outcome(outcome), **results)
