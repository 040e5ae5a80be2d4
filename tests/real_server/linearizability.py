"""Whether a history of one stream is linearizable.

It is if each operation can be thought to have happened at one moment between its start and its end,
so that all of them, one after the other, make sense. The search is that of Wing and Gong, with the
memory that Lowe added to it: no state is visited twice with the same operations done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf

from attrs import define, evolve, field, frozen

from real_server.history import Append, Event, Finish, Outcome, Query, hash_stream

__all__ = ["Operation", "State", "find_order", "operations"]


@frozen
class State:
    """All that matters of a stream."""

    tail: int = 0
    stream_hash: int = 0
    fencing_token: str = ""


@frozen
class Operation:
    """What was asked, what came of it, and when: places in the history."""

    op_id: int
    what: Append | Query
    finish: Finish
    start: int
    #: Infinite for what may still take effect.
    end: float

    @property
    def is_optional(self) -> bool:
        """Whether it may as well never have happened."""
        return self.finish.outcome is Outcome.APPEND_INDEFINITE_FAILURE

    @property
    def latest_tail(self) -> float:
        """The tail before it at most, as far as that is known."""
        if self.finish.tail is None:
            return inf
        num_records = len(self.what.record_hashes) if isinstance(self.what, Append) else 0
        return self.finish.tail - num_records

    def apply(self, state: State) -> State | None:
        """The stream after this happened; None where it cannot have happened."""
        if isinstance(self.what, Query):
            return state if _is_seen(state, self.finish) else None
        after = _append(state, self.what)
        is_told = self.finish.tail is not None
        if after is None or (is_told and after.tail != self.finish.tail):
            return None
        return after


def operations(events: Sequence[Event]) -> list[Operation]:
    """The operations of a history that say anything, by their starts.

    What certainly had no effect, and what was asked and not answered, fits everywhere.
    """
    finishes = {
        event.op_id: (index, event.what)
        for index, event in enumerate(events)
        if isinstance(event.what, Finish)
    }
    found = []
    for index, event in enumerate(events):
        if isinstance(event.what, Finish):
            continue
        end, finish = finishes[event.op_id]
        is_open = finish.outcome is Outcome.APPEND_INDEFINITE_FAILURE
        if finish.tail is not None or is_open:
            ends = inf if is_open else end
            found.append(Operation(event.op_id, event.what, finish, index, ends))
    return found


def find_order(events: Sequence[Event], reads: Iterable[Sequence[int]] = ()) -> list[int] | None:
    """An order in which the history makes sense, by op ids; None if there is none.

    Appends that failed indefinitely are in it if they happened. `reads` are the records that reads
    of the history found, as far as they are known: they spare much of the search, since what was
    appended before a read is in it. They do not change whether there is an order.
    """
    found = operations(events)
    seen = {(one.finish.tail, one.finish.stream_hash) for one in found}
    known = [tuple(read) for read in reads if (len(read), hash_stream(read)) in seen]
    return _Search(found, max(known, key=len, default=())).run()


def _append(state: State, batch: Append) -> State | None:
    if batch.fencing_token not in (None, state.fencing_token):
        return None
    if batch.match_seq_num not in (None, state.tail):
        return None
    after = State(
        state.tail + len(batch.record_hashes),
        hash_stream(batch.record_hashes, state.stream_hash),
        state.fencing_token,
    )
    if batch.set_fencing_token is None:
        return after
    return evolve(after, fencing_token=batch.set_fencing_token)


def _is_seen(state: State, finish: Finish) -> bool:
    return finish.tail == state.tail and finish.stream_hash in (None, state.stream_hash)


@define
class _Search:
    """A search, depth first. What was done is a set of bits, by place in the list."""

    _operations: list[Operation]
    # The records that the stream begins with, as far as they are known.
    _known: tuple[int, ...]
    _seen: set[tuple[int, State]] = field(factory=set)

    def run(self) -> list[int] | None:
        """An order of all that must have happened."""
        wanted = sum(1 << i for i, one in enumerate(self._operations) if not one.is_optional)
        path: list[int] = []
        branches = [self._branches(0, State())]
        if not wanted:
            return path
        while branches:
            step = next(branches[-1], None)
            if step is None:
                branches.pop()
                if path:
                    path.pop()
                continue
            index, done, after = step
            path.append(index)
            if done & wanted == wanted:
                return [self._operations[i].op_id for i in path]
            branches.append(self._branches(done, after))
        return None

    def _branches(self, done: int, state: State) -> Iterator[tuple[int, int, State]]:
        """What can have happened next: its place, what is done then, and the stream after it."""
        candidates = self._candidates(done)
        if any(self._operations[i].latest_tail < state.tail for i in candidates):
            # One of them comes too late: without this look all that is in doubt would be tried.
            return
        for index in candidates:
            operation = self._operations[index]
            after = operation.apply(state) if self._is_known_there(operation, state) else None
            if after is None:
                continue
            now_done = done | 1 << index
            if (now_done, after) not in self._seen:
                self._seen.add((now_done, after))
                yield index, now_done, after
            if isinstance(operation.what, Query):
                # It fits here and changes nothing, so that it need not be tried later.
                return

    def _is_known_there(self, operation: Operation, state: State) -> bool:
        """Whether the records that are known at this place, if any are, are those it appends."""
        if isinstance(operation.what, Query) or state.tail >= len(self._known):
            return True
        hashes = operation.what.record_hashes
        return self._known[state.tail : state.tail + len(hashes)] == hashes

    def _candidates(self, done: int) -> list[int]:
        """What started before anything that is not done ended, the cheapest to try first."""
        candidates: list[int] = []
        first_end = inf
        # The lowest bit that is not set.
        for index in range((~done & done + 1).bit_length() - 1, len(self._operations)):
            operation = self._operations[index]
            if operation.start > first_end:
                break
            if not done >> index & 1:
                candidates.append(index)
                first_end = min(first_end, operation.end)
        return sorted(candidates, key=self._cost)

    def _cost(self, index: int) -> tuple[bool, bool]:
        operation = self._operations[index]
        return isinstance(operation.what, Append), operation.is_optional
