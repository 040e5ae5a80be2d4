"""The checker tells histories that are linearizable from others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from math import inf

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from real_server.history import (
    INDEFINITE,
    Append,
    Event,
    Finish,
    History,
    Outcome,
    Query,
    chain_hash,
    from_jsonl,
    hash_stream,
    to_jsonl,
)
from real_server.linearizability import Operation, find_order, operations

REFUSED = Finish(Outcome.APPEND_DEFINITE_FAILURE)
TAIL, READ = Query.CHECK_TAIL, Query.READ


def acked(tail: int) -> Finish:
    return Finish(Outcome.APPEND_SUCCESS, tail)


def told(tail: int) -> Finish:
    return Finish(Outcome.CHECK_TAIL_SUCCESS, tail)


def read(*hashes: int) -> Finish:
    return Finish(Outcome.READ_SUCCESS, len(hashes), hash_stream(hashes))


def one(record: int, fencing_token: str | None = None, match_seq_num: int | None = None) -> Append:
    return Append((record,), None, fencing_token, match_seq_num)


def fence(record: int, token: str, fencing_token: str | None = None) -> Append:
    return Append((record,), token, fencing_token)


#: An operation, and when it starts and ends.
Timed = tuple[Append | Query, Finish, float, float]


def history(*timed: Timed) -> list[Event]:
    """Each operation has a client of its own; what has no end ends last."""
    moments = [(when, Event(what, i, i)) for i, (what, _, when, _) in enumerate(timed)]
    moments += [(when, Event(finish, i, i)) for i, (_, finish, _, when) in enumerate(timed)]
    return [event for _, event in sorted(moments, key=lambda moment: moment[0])]


LINEARIZABLE: dict[str, list[Timed]] = {
    "nothing": [],
    "an empty stream": [(READ, read(), 1, 2), (TAIL, told(0), 3, 4)],
    "appends one after the other": [
        (one(1), acked(1), 1, 2),
        (Append((2, 3)), acked(3), 3, 4),
        (READ, read(1, 2, 3), 5, 6),
    ],
    "appends at once, in the other order": [
        (one(1), acked(2), 1, 3),
        (one(2), acked(1), 2, 4),
        (READ, read(2, 1), 5, 6),
    ],
    "a read during an append, before it": [(one(1), acked(1), 1, 4), (READ, read(), 2, 3)],
    "a read during an append, after it": [(one(1), acked(1), 1, 4), (READ, read(1), 2, 3)],
    "what was refused is not there": [(one(1), REFUSED, 1, 2), (READ, read(), 3, 4)],
    "in doubt, and there": [(one(1), INDEFINITE, 1, inf), (READ, read(1), 2, 3)],
    "in doubt, and not there": [(one(1), INDEFINITE, 1, inf), (READ, read(), 2, 3)],
    "in doubt, and there later": [
        (one(1), INDEFINITE, 1, inf),
        (one(2), acked(1), 2, 3),
        (READ, read(2), 4, 5),
        (READ, read(2, 1), 6, 7),
    ],
    "in doubt, and there after its client gave up": [
        (one(1), INDEFINITE, 1, 2),
        (READ, read(), 3, 4),
        (READ, read(1), 5, 6),
    ],
    "in doubt, and impossible": [
        (one(1), acked(1), 1, 2),
        (one(2, match_seq_num=0), INDEFINITE, 3, inf),
        (READ, read(1), 4, 5),
    ],
    "a condition that holds": [
        (one(1, match_seq_num=0), acked(1), 1, 2),
        (one(2, match_seq_num=1), acked(2), 3, 4),
    ],
    "the token": [
        (one(1, fencing_token=""), acked(1), 1, 2),
        (fence(2, "a"), acked(2), 3, 4),
        (one(3, fencing_token="a"), acked(3), 5, 6),
        (fence(4, "b", fencing_token="a"), acked(4), 7, 8),
        (one(5), acked(5), 9, 10),
    ],
    "a token in doubt": [
        (fence(1, "a"), INDEFINITE, 1, inf),
        (one(2, fencing_token="a"), acked(2), 2, 3),
    ],
    "a failed question says nothing": [
        (READ, Finish(Outcome.READ_FAILURE), 1, 2),
        (TAIL, Finish(Outcome.CHECK_TAIL_FAILURE), 3, 4),
    ],
}

IMPOSSIBLE: dict[str, list[Timed]] = {
    "an acked append is lost": [(one(1), acked(1), 1, 2), (READ, read(), 3, 4)],
    "an acked append is lost later": [
        (one(1), acked(1), 1, 2),
        (one(2), acked(2), 3, 4),
        (READ, read(2), 5, 6),
    ],
    "a read misses a record": [
        (Append((1, 2, 3)), acked(3), 1, 2),
        (READ, Finish(Outcome.READ_SUCCESS, 3, hash_stream((1, 3))), 3, 4),
    ],
    "a record came twice": [(one(1), acked(1), 1, 2), (READ, read(1, 1), 3, 4)],
    "half a batch": [(Append((1, 2)), acked(2), 1, 4), (READ, read(1), 2, 3)],
    "other bytes": [(one(1), acked(1), 1, 2), (READ, read(2), 3, 4)],
    "another order": [
        (one(1), acked(1), 1, 2),
        (one(2), acked(2), 3, 4),
        (READ, read(2, 1), 5, 6),
    ],
    "reads that go back": [
        (one(1), INDEFINITE, 1, inf),
        (READ, read(1), 2, 3),
        (READ, read(), 4, 5),
    ],
    "a stale tail": [(one(1), acked(1), 1, 2), (TAIL, told(0), 3, 4)],
    "a tail of what is to come": [(TAIL, told(1), 1, 2), (one(1), acked(1), 3, 4)],
    "two at one place": [(one(1), acked(1), 1, 3), (one(2), acked(1), 2, 4)],
    "an ack of another place": [(one(1), acked(2), 1, 2)],
    "what was refused is there": [(one(1), REFUSED, 1, 2), (READ, read(1), 3, 4)],
    "in doubt, and there twice": [(one(1), INDEFINITE, 1, inf), (READ, read(1, 1), 2, 3)],
    "in doubt, and there before": [(READ, read(1), 1, 2), (one(1), INDEFINITE, 3, inf)],
    "in doubt, impossible, and there": [
        (one(1), acked(1), 1, 2),
        (one(2, match_seq_num=0), INDEFINITE, 3, inf),
        (READ, read(1, 2), 4, 5),
    ],
    "a sequence number that did not match": [
        (one(1), acked(1), 1, 2),
        (one(2, match_seq_num=0), acked(2), 3, 4),
    ],
    "a token that did not match": [
        (fence(1, "a"), acked(1), 1, 2),
        (one(2, fencing_token="b"), acked(2), 3, 4),
    ],
    "the old token": [
        (fence(1, "a"), acked(1), 1, 2),
        (fence(2, "b"), acked(2), 3, 4),
        (one(3, fencing_token="a"), acked(3), 5, 6),
    ],
    "a token that nobody set": [(one(1, fencing_token="a"), acked(1), 1, 2)],
}


@pytest.mark.parametrize("timed", LINEARIZABLE.values(), ids=LINEARIZABLE)
def test_what_makes_sense_is_found_an_order(timed: list[Timed]) -> None:
    events = history(*timed)
    order = find_order(events)
    assert order is not None
    assert makes_sense([by_id(events)[i] for i in order])


@pytest.mark.parametrize("timed", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_makes_no_sense_is_refused(timed: list[Timed]) -> None:
    assert find_order(history(*timed)) is None


def by_id(events: Sequence[Event]) -> dict[int, Operation]:
    return {operation.op_id: operation for operation in operations(events)}


# Against brute force


def makes_sense(order: Sequence[Operation]) -> bool:
    """Whether operations can have happened one after the other, so. A model of its own: a list."""
    if any(b.end < a.start for i, a in enumerate(order) for b in order[i:]):
        return False
    records: list[int] = []
    token = ""
    for operation in order:
        what, finish = operation.what, operation.finish
        if isinstance(what, Append):
            if what.match_seq_num is not None and what.match_seq_num != len(records):
                return False
            if what.fencing_token is not None and what.fencing_token != token:
                return False
            records += what.record_hashes
            token = token if what.set_fencing_token is None else what.set_fencing_token
        if not operation.is_optional and finish.tail != len(records):
            return False
        if finish.stream_hash is not None and finish.stream_hash != hash_stream(records):
            return False
    return True


def brute_force(events: Sequence[Event]) -> bool:
    """Whether some order of some operations makes sense, all that must have happened included."""
    every = operations(events)
    must = {operation.op_id for operation in every if not operation.is_optional}
    return any(
        makes_sense(order)
        for size in range(len(must), len(every) + 1)
        for order in permutations(every, size)
        if must <= {operation.op_id for operation in order}
    )


# Few values, so that they meet.
record_hashes = st.integers(1, 2)
tokens = st.sampled_from([None, None, "", "a"])
appends = st.builds(
    Append,
    st.lists(record_hashes, min_size=1, max_size=2).map(tuple),
    tokens,
    tokens,
    st.none() | st.integers(0, 2),
)


@st.composite
def operations_of_any_kind(draw: st.DrawFn) -> tuple[Append | Query, Finish]:
    what: Append | Query = draw(appends | st.sampled_from(Query))
    if what is Query.READ:
        return what, read(*draw(st.lists(record_hashes, max_size=3)))
    if what is Query.CHECK_TAIL:
        return what, told(draw(st.integers(0, 3)))
    tail = draw(st.none() | st.integers(1, 4))
    return what, INDEFINITE if tail is None else acked(tail)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Anything: most are not linearizable."""
    chosen = draw(st.lists(operations_of_any_kind(), max_size=4))
    return interleave(draw, chosen)


def interleave(draw: st.DrawFn, chosen: Sequence[tuple[Append | Query, Finish]]) -> list[Event]:
    """Operations that start and end in any order, each after its own start."""
    recorded = History()
    moments = draw(st.permutations(sorted([*range(len(chosen))] * 2)))
    under_way: dict[int, tuple[int, int]] = {}
    for index in moments:
        what, finish = chosen[index]
        if index in under_way:
            recorded.finish(*under_way[index], finish)
        else:
            client = recorded.new_client()
            under_way[index] = client, recorded.start(client, what)
    return recorded.close()


@st.composite
def real_histories(draw: st.DrawFn) -> list[Event]:
    """Operations that did happen one after the other, each while it was under way."""
    records: list[int] = []
    token = ""
    timed: list[Timed] = []
    for moment in range(draw(st.integers(1, 5))):
        what: Append | Query = draw(appends | st.sampled_from(Query))
        finish = read(*records) if what is Query.READ else told(len(records))
        if isinstance(what, Append):
            has_place = what.match_seq_num in (None, len(records))
            if has_place and what.fencing_token in (None, token):
                records += what.record_hashes
                token = token if what.set_fencing_token is None else what.set_fencing_token
                finish = draw(st.sampled_from([acked(len(records)), INDEFINITE]))
            else:
                finish = draw(st.sampled_from([REFUSED, INDEFINITE]))
        reach = st.floats(0, 2, exclude_min=True)
        end = inf if finish == INDEFINITE else moment + draw(reach)
        timed.append((what, finish, moment - draw(reach), end))
    return history(*timed)


@given(histories())
def test_it_agrees_with_brute_force(events: list[Event]) -> None:
    order = find_order(events)
    event(f"linearizable: {order is not None}")
    assert (order is not None) == brute_force(events)
    if order is not None:
        known = by_id(events)
        assert makes_sense([known[i] for i in order])
        assert {i for i in known if not known[i].is_optional} <= set(order)


@given(real_histories())
def test_what_happened_is_linearizable(events: list[Event]) -> None:
    assert find_order(events) is not None


@given(histories() | real_histories())
def test_known_records_change_no_verdict(events: list[Event]) -> None:
    # All that any read of these can have found: the search picks what one did.
    reads = [found for size in range(6) for found in product((1, 2), repeat=size)]
    assert (find_order(events, reads) is None) == (find_order(events) is None)


@given(real_histories(), st.data())
def test_it_agrees_with_brute_force_on_what_nearly_happened(
    events: list[Event], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(events) - 1))
    what = events[place].what
    if isinstance(what, Finish) and what.tail is not None:
        tail = what.tail + data.draw(st.sampled_from([-1, 1]))
        wrong = Finish(what.outcome, tail, what.stream_hash)
        events[place] = Event(wrong, events[place].client_id, events[place].op_id)
    else:
        events = [event for event in events if event.op_id != events[place].op_id]
    event(f"linearizable: {find_order(events) is not None}")
    assert (find_order(events) is not None) == brute_force(events)


def test_many_appends_in_doubt_do_not_take_forever() -> None:
    timed: list[Timed] = [(one(i), INDEFINITE, 1, inf) for i in range(1, 16)]
    seen: list[int] = []
    for i in range(200):
        seen.append(1000 + i)
        timed.append((one(1000 + i), acked(len(seen)), 2 + 2 * i, 3 + 2 * i))
    timed.append((READ, read(*seen), 500, 501))
    assert find_order(history(*timed)) is not None


# The form of the file


def test_hashes_are_those_of_s2_verification() -> None:
    # Its own vectors; the first hash is that of the record b"foo".
    assert chain_hash(0, 0xAB6E5F64077E7D8A) == 0x4D2B003EE417C3A5
    assert chain_hash(0x4D2B003EE417C3A5, 0) != chain_hash(0x4D2B003EE417C3A5, 1)


def test_lines_are_those_of_s2_verification() -> None:
    events = [
        Event(Append((7, 8), "new", "old", 3), 0, 0),
        Event(acked(5), 0, 0),
        Event(READ, 1, 1),
        Event(Finish(Outcome.READ_SUCCESS, 7, 42), 1, 1),
        Event(TAIL, 1, 2),
        Event(told(5), 1, 2),
        Event(INDEFINITE, 2, 3),
    ]
    lines = [
        (
            '{"event":{"Start":{"Append":{"num_records":2,"record_hashes":[7,8],'
            '"set_fencing_token":"new","fencing_token":"old","match_seq_num":3}}},'
            '"client_id":0,"op_id":0}'
        ),
        '{"event":{"Finish":{"AppendSuccess":{"tail":5}}},"client_id":0,"op_id":0}',
        '{"event":{"Start":"Read"},"client_id":1,"op_id":1}',
        '{"event":{"Finish":{"ReadSuccess":{"tail":7,"stream_hash":42}}},"client_id":1,"op_id":1}',
        '{"event":{"Start":"CheckTail"},"client_id":1,"op_id":2}',
        '{"event":{"Finish":{"CheckTailSuccess":{"tail":5}}},"client_id":1,"op_id":2}',
        '{"event":{"Finish":"AppendIndefiniteFailure"},"client_id":2,"op_id":3}',
    ]
    assert to_jsonl(events).splitlines() == lines
    assert from_jsonl(to_jsonl(events)) == events


@given(histories())
def test_lines_give_the_history_back(events: list[Event]) -> None:
    assert from_jsonl(to_jsonl(events)) == events


def test_after_an_indefinite_failure_a_client_is_another_one() -> None:
    recorded = History()
    client = recorded.new_client()
    in_doubt = recorded.start(client, one(1))
    other = recorded.finish(client, in_doubt, INDEFINITE)
    assert other != client
    asked = recorded.start(other, TAIL)
    assert recorded.finish(other, asked, told(1)) == other
    assert recorded.close()[-1] == Event(INDEFINITE, client, in_doubt)
