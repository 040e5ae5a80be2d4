"""What a writer needs to go on as the same writer, and what it still had to send."""

from __future__ import annotations

from attrs import Attribute, field, frozen

from s2frames.checks import check_int, check_type
from s2frames.dedupe import MAX_DEDUPE_SEQ, check_writer_id
from s2frames.records import Header
from s2frames.u64 import U64_MAX

__all__ = ["Pending", "PendingMessage", "WriterState"]


def _writer_id(_instance: object, _attribute: object, value: str) -> None:
    check_writer_id(value)


def _dedupe_seq(_instance: object, attribute: Attribute[int], value: int) -> None:
    # One more than the last: of a writer that has used them all.
    check_int(attribute.name, value, 0, MAX_DEDUPE_SEQ + 1)


def _flag(_instance: object, attribute: Attribute[bool], value: bool) -> None:
    check_type(attribute.name, value, bool)


def _seq_num(_instance: object, attribute: Attribute[int | None], value: int | None) -> None:
    if value is not None:
        check_int(attribute.name, value, 0, U64_MAX)


@frozen(kw_only=True)
class WriterState:
    """Where a writer goes on: `append_session(resume=...)` takes it."""

    writer_id: str = field(validator=_writer_id)
    #: The dedupe sequence of the next record.
    next_dedupe_seq: int = field(validator=_dedupe_seq)
    #: Whether the writer appends only where it left off; so it is with `match_seq_num`.
    is_exclusive: bool = field(default=False, validator=_flag)
    #: The sequence number that the next record of an exclusive writer must get; None: at the tail.
    match_seq_num: int | None = field(default=None, validator=_seq_num)
    #: Whether the writer's last message is in the stream to its end. If not, it is to be sent
    #: again, as a new one.
    last_frame_is_whole: bool = field(default=True, validator=_flag)
    #: Records below this dedupe sequence may be in the stream already, or get there: what is
    #: appended instead of them is not known to be new.
    in_doubt_until: int = field(default=0, validator=_dedupe_seq)


@frozen
class PendingMessage:
    """A message that is not known to be durable."""

    payload: bytes = field(repr=lambda payload: f"<{len(payload)} bytes>")
    headers: tuple[Header, ...]
    timestamp: int | None
    #: The dedupe sequences of its records, the end exclusive.
    first_dedupe_seq: int
    end_dedupe_seq: int


@frozen
class Pending:
    """What an append session had accepted and does not know to be durable, in order.

    Sending it again as another writer would double what landed after all. `state` is for going on
    as the same writer: `append_session(resume=pending.state)`, then these messages, the same and
    in order; readers drop what they have. It is None without dedupe, and where only the stream
    knows: ask `recover_writer`, then send `after` what it returns.
    """

    messages: tuple[PendingMessage, ...]
    state: WriterState | None

    def after(self, state: WriterState) -> tuple[PendingMessage, ...]:
        """The messages that are not in the stream to their end, by a state read from it."""
        check_type("state", state, WriterState)
        return tuple(m for m in self.messages if m.end_dedupe_seq > state.next_dedupe_seq)
