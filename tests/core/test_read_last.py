"""Read sessions that start with the last messages."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from drive import EPOCH, Client, World, random_cut
from frames import chunk, frame, head, interleaved, lane_frames
from reading import (
    JSON,
    SESSION,
    append,
    batch,
    error_in,
    events_of,
    make,
    numbered_world,
    opened_by,
    outage,
    pass_time,
    payloads,
    query_of,
    read_to_the_end,
    wait,
)
from s2frames.checkpoint import Checkpoint
from s2frames.errors import (
    ConnectError,
    LocalProtocolError,
    ScanLimitExceeded,
    ServiceError,
    TransportError,
)
from s2frames.events import CaughtUp
from s2frames.read import ReadProtocol, ReadState
from s2frames.records import Record, StreamPosition, fence, trim
from s2frames.retry import Retry
from s2frames.session import CloseRequest, OpenRequest, Retrying, SessionEnded


def lost() -> TransportError:
    return TransportError("lost")


def step_until_reading(client: Client[ReadProtocol]) -> None:
    """Up to where the search is over and nothing of what it found has come."""
    while client.machine.state is not ReadState.READING:
        assert client.step()


def test_a_search_leaves_a_connection_that_answers_nothing() -> None:
    machine = make(last=2)
    assert not opened_by(machine).on_new_connection
    # Nothing comes of it.
    wait(machine)
    assert opened_by(machine, wait(machine)).on_new_connection


@pytest.mark.parametrize("count", [0, 1, 2, 5, 100])
@pytest.mark.parametrize("last", [1, 2, 5, 6, 1000])
def test_the_last_messages_of_a_stream(count: int, last: int) -> None:
    client = read_to_the_end(numbered_world(count), make(last=last))
    assert payloads(client.events) == [b"%d" % i for i in range(count)][-last:]
    assert client.events[-1] == SessionEnded(None)
    assert client.machine.state is ReadState.ENDED
    checkpoint = client.machine.checkpoint()
    assert (checkpoint.read_from, checkpoint.seen_through, checkpoint.lanes) == (count, count, ())


def test_an_empty_stream_is_not_read() -> None:
    client = read_to_the_end(World(), make(last=3))
    assert client.events == [SessionEnded(None)]
    assert [request.url.partition("?")[0][-13:] for request in client.requests] == ["/records/tail"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_follower_goes_on_from_there(count: int) -> None:
    world = numbered_world(count)
    client = world.join_read(make(last=2, follow=True))
    pass_time(client, 1.0)
    expected = [b"%d" % i for i in range(count)][-2:]
    assert payloads(client.events) == expected
    assert isinstance(client.events[-1], CaughtUp)
    append(world, head(b"x"), head(b"y"))
    pass_time(client, 1.0)
    assert payloads(client.events) == [*expected, b"x", b"y"]
    assert not client.machine.is_over


def test_what_is_appended_after_the_tail_was_seen_is_not_among_the_last() -> None:
    world = numbered_world()
    client = world.join_read(make(last=2))
    step_until_reading(client)
    append(world, head(b"x"))
    world.run(lambda: client.machine.is_over)
    assert payloads(client.events) == [b"3", b"4"]
    assert client.machine.checkpoint().read_from == 5


@pytest.mark.parametrize(("limit", "expected"), [(1, [b"2"]), (3, [b"2", b"3", b"4"]), (9, None)])
def test_a_limit_counts_from_the_first_of_them(limit: int, expected: list[bytes] | None) -> None:
    client = read_to_the_end(numbered_world(), make(last=3, limit=limit))
    assert payloads(client.events) == (expected or [b"2", b"3", b"4"])


def test_wait() -> None:
    world = numbered_world()
    client = world.join_read(make(last=1, wait=30))
    pass_time(client, 10)
    append(world, head(b"x"))
    world.run(lambda: client.machine.is_over)
    assert payloads(client.events) == [b"4", b"x"]
    assert world.now == EPOCH + 40


@pytest.mark.parametrize("end", [0, 2, 4, 9])
def test_an_end_below_the_tail(end: int) -> None:
    client = read_to_the_end(numbered_world(), make(last=2, end=end))
    assert payloads(client.events) == [b"%d" % i for i in range(min(end, 5))][-2:]
    assert client.events[-1] == SessionEnded(None)


def test_messages_count_in_the_order_in_which_they_complete() -> None:
    world = World()
    append(
        world,
        head(b"a", records=2, size=2, seq=0, writer="v"),
        *(head(b"%d" % i) for i in range(3)),
        chunk(b"b", seq=1, writer="v"),
        head(b"z"),
    )
    client = read_to_the_end(world, make(last=2))
    # What lies between the first record of the one and its last is not told.
    assert payloads(client.events) == [b"ab", b"z"]
    assert client.machine.stats.frames == 5


def test_of_repeats_the_first_one_counts() -> None:
    world = World()
    append(
        world,
        *(head(b"%d" % i, seq=i, writer="w") for i in range(3)),
        *(head(b"%d" % i, seq=i, writer="w") for i in range(1, 3)),
    )
    assert payloads(read_to_the_end(world, make(last=2)).events) == [b"1", b"2"]
    world.now += 1
    assert payloads(read_to_the_end(world, make(last=2, dedupe=False)).events) == [b"1", b"2"]


def test_what_is_no_message_does_not_count() -> None:
    world = numbered_world(3)
    append(world, fence("t"), Record(b"raw", ((b"own", b"1"),)), chunk(b"x", seq=7, writer="w"))
    assert payloads(read_to_the_end(world, make(last=2)).events) == [b"1", b"2"]


def test_settings_reach_the_search() -> None:
    world = World()
    append(world, head(b"a"), head(b"b" * 99), head(b"c"))
    client = read_to_the_end(world, make(last=2, max_frame_bytes=50))
    assert payloads(client.events) == [b"a", b"c"]


# The scan's limit


def test_messages_beyond_the_scan_limit() -> None:
    world = numbered_world(50)
    machine = make(last=40, max_scan_bytes=500)
    client = read_to_the_end(world, machine)
    last = client.events[-1]
    assert isinstance(last, SessionEnded)
    assert isinstance(last.error, ScanLimitExceeded)
    assert last.error.wanted == 40
    assert 0 < last.error.found < 40
    assert machine.state is ReadState.FAILED
    assert payloads(client.events) == []
    assert client.next_timeout() is None


# Losses


def test_searching_goes_on_after_losses() -> None:
    for turns in range(1, 40):
        world = numbered_world(40)
        client = world.join_read(make(last=20))
        for _ in range(turns):
            if not client.machine.is_over:
                client.step()
        if client.machine.is_over:
            break
        client.lose(lost())
        world.run(lambda c=client: c.machine.is_over)  # type: ignore[misc]  # as it is now
        assert payloads(client.events) == [b"%d" % i for i in range(20, 40)]
        assert client.events[-1] == SessionEnded(None)
    else:
        pytest.fail("a session that never ends")


def test_a_loss_during_the_search_is_told() -> None:
    machine = make(last=1)
    number = opened_by(machine).request_id
    machine.connection_lost(number, lost(), 0.0)
    (again,) = events_of(machine)
    assert isinstance(again, Retrying)
    assert (again.attempts, again.delay) == (1, 0.1)
    assert machine.state is ReadState.PREPARING
    assert machine.next_timeout() == 0.1


def test_a_search_that_fails() -> None:
    machine = make(last=1, retry=Retry(max_attempts=3))
    assert len(outage(machine, lost)) == 3
    assert machine.state is ReadState.FAILED
    assert machine.next_timeout() is None


def test_a_search_where_nobody_ever_answered_is_given_three_seconds() -> None:
    assert outage(make(last=1), lambda: ConnectError("refused"))[-1] <= 3


def test_after_a_search_somebody_has_answered() -> None:
    machine = make(last=1, follow=True)
    number = opened_by(machine).request_id
    machine.receive_response(number, 200, JSON, 0.0)
    machine.receive_data(number, b'{"tail":{"seq_num":0,"timestamp":0}}', 0.0)
    machine.receive_eof(number, 0.0)
    assert outage(machine, lambda: ConnectError("refused"))[-1] >= 59


def test_a_search_that_is_refused() -> None:
    machine = make(last=1)
    number = opened_by(machine).request_id
    machine.receive_response(number, 404, JSON, 0.0)
    machine.receive_data(number, b'{"code":"stream_not_found","message":"no"}', 0.0)
    machine.receive_eof(number, 0.0)
    error = error_in(machine)
    assert isinstance(error, ServiceError)
    assert error.attempts == 1
    assert machine.next_timeout() is None


def test_the_requests_of_the_search_are_closed_before_the_next() -> None:
    machine = make(last=1)
    number = opened_by(machine).request_id
    machine.receive_response(number, 200, JSON, 0.0)
    machine.receive_data(number, b'{"tail":{"seq_num":1,"timestamp":0}}', 0.0)
    machine.receive_eof(number, 0.0)
    searching = next(a for a in machine.data_to_send(0.0) if isinstance(a, OpenRequest))
    assert query_of(searching) == {"seq_num": "0", "count": "1"}
    machine.receive_response(searching.request_id, 200, SESSION, 0.0)
    machine.receive_data(searching.request_id, batch([head(b"a")]), 0.0)
    closed, opened, _ = [
        action for action in machine.data_to_send(0.0) if action != CloseRequest(number)
    ]
    assert closed == CloseRequest(searching.request_id)
    assert isinstance(opened, OpenRequest)
    assert opened.request_id == searching.request_id + 1
    assert query_of(opened) == {"seq_num": "0", "wait": "0", "count": "1"}


@pytest.mark.parametrize("steps", range(1, 12))
def test_close_during_the_search(steps: int) -> None:
    client = numbered_world().join_read(make(last=2))
    for _ in range(steps):
        client.step()
    client.machine.close()
    while client.step():
        pass
    assert client.next_timeout() is None
    assert client.machine.is_over


# Checkpoints


def test_there_is_no_checkpoint_during_the_search() -> None:
    machine = make(last=1)
    with pytest.raises(LocalProtocolError, match="no checkpoint"):
        machine.checkpoint()
    opened_by(machine)
    with pytest.raises(LocalProtocolError, match="no checkpoint"):
        machine.checkpoint()


@pytest.mark.parametrize("taken", range(1, 4))
def test_a_checkpoint_goes_on_after_the_last_message_taken(taken: int) -> None:
    world = numbered_world()
    client = read_to_the_end(world, make(last=3, limit=taken))
    assert payloads(client.events) == [b"2", b"3", b"4"][:taken]
    checkpoint = Checkpoint.from_json(client.machine.checkpoint().to_json())
    rest = read_to_the_end(world, make(start=checkpoint))
    assert payloads(rest.events) == [b"2", b"3", b"4"][taken:]


def test_a_stream_that_is_trimmed_after_the_search() -> None:
    world = numbered_world()
    client = world.join_read(make(last=3, follow=True))
    step_until_reading(client)
    client.lose(lost())
    append(world, trim(4))
    pass_time(client, 1.0)
    assert payloads(client.events) == [b"4"]
    assert client.machine.stats.gaps == 1


def test_the_tail_is_told_to_a_follower() -> None:
    client = numbered_world().join_read(make(last=1, follow=True))
    pass_time(client, 1.0)
    assert client.machine.caught_up == StreamPosition(5, int(EPOCH * 1000))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.randoms(use_true_random=True), st.integers(1, 8), st.booleans())
def test_the_last_messages_are_the_end_of_all_messages(
    data: st.DataObject, random: Random, last: int, follow: bool
) -> None:
    lanes = [data.draw(lane_frames(w, is_numbered=True)) for w in ("a", "b")]
    records = data.draw(interleaved(lanes))
    # Beyond what the first look covers, a repeat may be taken for the message: of the copies in
    # the range the first one counts.
    assume(len(records) <= 16)
    world = World(random_cut(random))
    if records:
        append(world, *records)
    everything = payloads(read_to_the_end(world, make()).events)
    world = World(random_cut(random))
    if records:
        append(world, *records)
    client: Client[ReadProtocol] = world.join_read(make(last=last, follow=follow))
    machine = client.machine
    for _ in range(data.draw(st.integers(0, 3))):
        for _ in range(data.draw(st.integers(0, 20))):
            if not machine.is_over and machine.caught_up is None:
                world.turn()
        if not machine.is_over:
            client.lose(lost())
            while client.step():
                pass
    world.run(lambda: machine.is_over or machine.caught_up is not None)
    assert payloads(client.events) == everything[-last:]


def test_a_long_message_is_found_from_its_middle() -> None:
    world = World()
    append(world, head(b"first"))
    append(world, *frame([b"%03d" % i for i in range(200)], seq=0, writer="w"))
    client = read_to_the_end(world, make(last=1))
    assert payloads(client.events) == [b"".join(b"%03d" % i for i in range(200))]
    # It waited for nothing.
    assert world.now == EPOCH


def test_a_search_waits_as_any_request_does() -> None:
    machine = make(last=1)
    opened_by(machine)
    assert machine.next_timeout() == 8.0
    assert wait(machine) == 8.0
    (again,) = events_of(machine)
    assert isinstance(again, Retrying)
