"""Where a reader stopped, and all it needs to go on without repeating or missing a message.

Format 2 of the JSON text, with a lane a writer:

    {"s2frames_checkpoint": 2, "basin": "...", "stream": "...", "begun": true,
     "read_from": 3, "seen_through": 9,
     "lanes": [[writer, last_dedupe_seq, head, last_seen_seq, given_up]]}

A writer is the text of its lane, which is mostly its id; ``{"hex": "ff"}`` where that is no UTF-8;
null in the lane without numbers. Format 1 had neither names nor `begun`, and of a lane the first
three only.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve, field, frozen

from s2frames.brief import brief
from s2frames.checks import check_type
from s2frames.classify import MAX_LANE_BYTES, NO_WRITER, UNNUMBERED
from s2frames.errors import LocalProtocolError
from s2frames.records import check_basin_name, check_stream_name
from s2frames.u64 import is_u64

__all__ = ["Checkpoint", "LaneCheckpoint", "check_checkpoint", "check_stream", "lane_writer_id"]

_VERSION_KEY = "s2frames_checkpoint"
_VERSION = 2
# How many values a lane has, by format.
_LANE_SIZES = {1: 3, 2: 5}


@frozen
class LaneCheckpoint:
    """What a reader knows of one writer."""

    #: The writer id, cut if it is long; `NO_WRITER` and `UNNUMBERED` are the lanes of records
    #: without one.
    lane: bytes | None
    #: The dedupe sequence of the last record delivered, or None.
    last_dedupe_seq: int | None
    #: The sequence number of the first record of the frame that is open, or None.
    head: int | None
    #: The last dedupe sequence looked at, whatever became of its record; None: `last_dedupe_seq`.
    seen: int | None = None
    #: The sequence number of the first record of a frame that was given up, or None.
    given_up: int | None = None


@frozen
class Checkpoint:
    """Where to go on reading. Make one with `FrameReader.checkpoint` or `from_json`."""

    #: The sequence number to read from.
    read_from: int
    #: Records below this one were looked at; only those of open frames are needed once more.
    seen_through: int
    #: The lanes, the one longest unused first.
    lanes: tuple[LaneCheckpoint, ...] = ()
    #: Whether anything of the stream was seen yet.
    is_begun: bool = field(default=True, kw_only=True)
    #: The stream it is of; None where the reader was not told.
    basin: str | None = field(default=None, kw_only=True)
    stream: str | None = field(default=None, kw_only=True)

    def to_json(self) -> str:
        """The checkpoint as JSON text, to be kept anywhere.

        Raises `LocalProtocolError` for one that no reader made.
        """
        check_checkpoint(self)
        return json.dumps(
            {
                _VERSION_KEY: _VERSION,
                "basin": self.basin,
                "stream": self.stream,
                "begun": self.is_begun,
                "read_from": self.read_from,
                "seen_through": self.seen_through,
                "lanes": [
                    [
                        _encode_lane(lane.lane),
                        lane.last_dedupe_seq,
                        lane.head,
                        lane.seen,
                        lane.given_up,
                    ]
                    for lane in self.lanes
                ],
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Checkpoint:
        """The checkpoint in JSON text.

        Raises `LocalProtocolError` for another version's format and for anything damaged.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError, TypeError):
            raise LocalProtocolError("a checkpoint is JSON text, and this is not") from None
        if not isinstance(value, dict) or _VERSION_KEY not in value:
            raise LocalProtocolError(f"a checkpoint is a JSON object with the key {_VERSION_KEY!r}")
        version = value[_VERSION_KEY]
        if type(version) is not int or version not in _LANE_SIZES:
            raise LocalProtocolError(
                f"the checkpoint has format {brief(version)}; "
                f"this version of s2frames reads formats 1 and {_VERSION}"
            )
        checkpoint = cls(
            value.get("read_from"),  # type: ignore[arg-type]  # checked below
            value.get("seen_through"),  # type: ignore[arg-type]  # checked below
            tuple(_decode_lane(lane, version) for lane in _as_list(value.get("lanes"))),
        )
        if version == 1:
            return check_checkpoint(evolve(checkpoint, is_begun=checkpoint.seen_through != 0))
        is_begun: Any = value.get("begun")
        basin, stream = value.get("basin"), value.get("stream")
        return check_checkpoint(evolve(checkpoint, is_begun=is_begun, basin=basin, stream=stream))


# JSON


def _encode_lane(lane: bytes | None) -> str | dict[str, str] | None:
    if lane is UNNUMBERED:
        return None
    try:
        return lane.decode()
    except UnicodeDecodeError:
        return {"hex": lane.hex()}


def _as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _damaged("lanes is not a list")
    return value


def _decode_lane(value: Any, version: int) -> LaneCheckpoint:
    if not isinstance(value, list) or len(value) != _LANE_SIZES[version]:
        raise _damaged(f"a lane is {brief(value)}")
    name = NO_WRITER if version == 1 and value[0] == "" else _decode_writer(value[0])
    return LaneCheckpoint(name, *value[1:])


def _decode_writer(value: Any) -> bytes | None:
    if value is None:
        return UNNUMBERED
    try:
        if isinstance(value, dict) and set(value) == {"hex"}:
            return bytes.fromhex(value["hex"])
        lane: bytes = value.encode()
    except (AttributeError, TypeError, ValueError):
        raise _damaged(f"a writer is {brief(value)}") from None
    return lane


# Checks


def check_checkpoint(checkpoint: Checkpoint) -> Checkpoint:
    """`checkpoint`, if a reader could have made it; else a `LocalProtocolError`."""
    check_type("the checkpoint", checkpoint, Checkpoint)
    _check_u64(checkpoint.read_from, "read_from")
    _check_u64(checkpoint.seen_through, "seen_through")
    _check_names(checkpoint.basin, checkpoint.stream)
    if not isinstance(checkpoint.is_begun, bool):
        raise _damaged(f"begun is {brief(checkpoint.is_begun)}")
    if not isinstance(checkpoint.lanes, tuple):
        raise _damaged(f"lanes is {brief(checkpoint.lanes)}")
    for lane in checkpoint.lanes:
        _check_lane(lane, checkpoint.seen_through)
    if checkpoint.lanes and not checkpoint.is_begun:
        raise _damaged("it knows writers though nothing was seen")
    names = [lane.lane for lane in checkpoint.lanes]
    heads = [lane.head for lane in checkpoint.lanes if lane.head is not None]
    given_up = [lane.given_up for lane in checkpoint.lanes if lane.given_up is not None]
    if checkpoint.read_from != min(heads, default=checkpoint.seen_through):
        raise _damaged("read_from is not where it must be")
    # Every record is of one lane.
    if len(set(names)) != len(names) or len({*heads, *given_up}) != len(heads) + len(given_up):
        raise _damaged("a lane or head stands twice")
    return checkpoint


def _check_lane(lane: LaneCheckpoint, seen_through: int) -> None:
    if not isinstance(lane, LaneCheckpoint):
        raise _damaged(f"a lane is {brief(lane)}")
    if lane.lane is not UNNUMBERED:
        if not isinstance(lane.lane, bytes):
            raise _damaged(f"a writer is {brief(lane.lane)}")
        if len(lane.lane) > MAX_LANE_BYTES:
            raise _damaged("a writer id is too long")
    for value, what in (
        (lane.last_dedupe_seq, "a dedupe sequence"),
        (lane.head, "a head"),
        (lane.seen, "a dedupe sequence"),
        (lane.given_up, "a head"),
    ):
        if value is not None:
            _check_u64(value, what)
    if lane.head is not None and lane.given_up is not None:
        raise _damaged("a lane has a frame that is open and one that was given up")
    first = lane.given_up if lane.head is None else lane.head
    if first is not None and first >= seen_through:
        raise _damaged("a head is not below seen_through")


def _check_u64(value: object, what: str) -> None:
    if not is_u64(value):
        raise _damaged(f"{what} is {brief(value)}")


def _check_names(basin: object, stream: object) -> None:
    if basin is None and stream is None:
        return
    try:
        check_basin_name(basin)  # type: ignore[arg-type]  # that is what it checks
        check_stream_name(stream)  # type: ignore[arg-type]  # that is what it checks
    except LocalProtocolError:
        raise _damaged(f"its stream is {brief(basin)} / {brief(stream)}") from None


def check_stream(checkpoint: Checkpoint, basin: str, stream: str) -> None:
    """Raise `LocalProtocolError` if `checkpoint` names another stream than this one.

    One that names none, as a bare `FrameReader` makes it, is taken.
    """
    if checkpoint.stream is None or (checkpoint.basin, checkpoint.stream) == (basin, stream):
        return
    raise LocalProtocolError(
        f"the checkpoint is of the stream {checkpoint.stream!r} of the basin "
        f"{checkpoint.basin!r}, not of the stream {stream!r} of the basin {basin!r}"
    )


def _damaged(how: str) -> LocalProtocolError:
    return LocalProtocolError(f"the checkpoint is damaged: {how}")


def lane_writer_id(lane: bytes | None) -> str | None:
    """The writer id of a lane, or None for the lanes that have none.

    What is no UTF-8 in it is shown as U+FFFD.
    """
    return None if lane is UNNUMBERED or lane == NO_WRITER else lane.decode(errors="replace")
