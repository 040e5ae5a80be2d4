"""Where a reader stopped, and all it needs to go on without repeating or missing a message."""

from __future__ import annotations

import json
from reprlib import repr as brief
from typing import Any

from attrs import frozen

from s2frames.classify import NO_WRITER, UNNUMBERED
from s2frames.dedupe import MAX_WRITER_ID_BYTES
from s2frames.errors import LocalProtocolError
from s2frames.u64 import U64_MAX

__all__ = ["Checkpoint", "LaneCheckpoint"]

_VERSION_KEY = "s2frames_checkpoint"
_VERSION = 1


@frozen
class LaneCheckpoint:
    """What a reader knows of one writer."""

    #: The writer id; `NO_WRITER` and `UNNUMBERED` are the lanes of records without one.
    lane: bytes | None
    #: The dedupe sequence of the last record delivered, or None.
    last_dedupe_seq: int | None
    #: The sequence number of the first record of the frame that is open, or None.
    head: int | None


@frozen
class Checkpoint:
    """Where to go on reading. Make one with `FrameReader.checkpoint` or `from_json`."""

    #: The sequence number to read from.
    read_from: int
    #: Records below this one were looked at; only those of open frames are needed once more.
    seen_through: int
    #: The lanes, the one longest unused first.
    lanes: tuple[LaneCheckpoint, ...] = ()

    def to_json(self) -> str:
        """The checkpoint as JSON text, to be kept anywhere."""
        return json.dumps(
            {
                _VERSION_KEY: _VERSION,
                "read_from": self.read_from,
                "seen_through": self.seen_through,
                "lanes": [
                    [
                        None if lane.lane is None else lane.lane.decode(),
                        lane.last_dedupe_seq,
                        lane.head,
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
        if type(version) is not int or version != _VERSION:
            raise LocalProtocolError(
                f"the checkpoint has format {brief(version)}; "
                f"this version of s2frames reads format {_VERSION}"
            )
        return _check(
            cls(
                _parse_u64(value.get("read_from"), "read_from"),
                _parse_u64(value.get("seen_through"), "seen_through"),
                tuple(_parse_lane(lane) for lane in _parse_list(value.get("lanes"))),
            )
        )


def _parse_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise LocalProtocolError("the checkpoint is damaged: lanes is not a list")
    return value


def _parse_u64(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= U64_MAX:
        raise LocalProtocolError(f"the checkpoint is damaged: {what} is {brief(value)}")
    return value


def _parse_lane(value: Any) -> LaneCheckpoint:
    if not isinstance(value, list) or len(value) != 3:
        raise LocalProtocolError(f"the checkpoint is damaged: a lane is {brief(value)}")
    name, last, head = value
    lane = UNNUMBERED
    if name is not None:
        try:
            lane = name.encode()
        except (AttributeError, UnicodeEncodeError):
            raise LocalProtocolError(
                f"the checkpoint is damaged: a writer is {brief(name)}"
            ) from None
        if len(lane) > MAX_WRITER_ID_BYTES:
            raise LocalProtocolError("the checkpoint is damaged: a writer id is too long")
    return LaneCheckpoint(
        lane,
        None if last is None else _parse_u64(last, "a dedupe sequence"),
        None if head is None else _parse_u64(head, "a head"),
    )


def _check(checkpoint: Checkpoint) -> Checkpoint:
    """`checkpoint`, if a reader could have made it."""
    heads = [lane.head for lane in checkpoint.lanes if lane.head is not None]
    names = [lane.lane for lane in checkpoint.lanes]
    if checkpoint.read_from != min(heads, default=checkpoint.seen_through):
        raise LocalProtocolError("the checkpoint is damaged: read_from is not where it must be")
    if max(heads, default=-1) >= checkpoint.seen_through:
        raise LocalProtocolError("the checkpoint is damaged: a head is not below seen_through")
    if len(set(names)) != len(names) or len(set(heads)) != len(heads):
        raise LocalProtocolError("the checkpoint is damaged: a lane or head stands twice")
    return checkpoint


def lane_writer_id(lane: bytes | None) -> str | None:
    """The writer id of a lane, or None for the lanes that have none."""
    return None if lane is UNNUMBERED or lane == NO_WRITER else lane.decode()
