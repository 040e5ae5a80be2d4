"""Append sessions: messages, tickets, and how a block is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from interruption import SPARED, Interruption, sampled
from s2frames import Codec, LocalProtocolError, S2FramesError, TransportError
from s2frames.errors import SeqNumMismatch
from s2frames.session import Retrying
from s2frames_trio import AppendTicket, Stream
from trio_adapter.host import Host, numbers, opened, read_all
from trio_adapter.peers import Peer


async def test_tickets_are_settled_in_order() -> None:
    async with opened(Host()) as (_, stream), stream.append_session() as session:
        tickets = [await session.submit(b"%d" % n) for n in range(200)]
        assert [(await ticket).start for ticket in tickets] == list(range(200))
        # Again, and from another task.
        assert (await tickets[7]).end == 8


async def test_cancelling_a_wait_for_a_ticket_drops_only_the_wait() -> None:
    host = Host()
    async with opened(host) as (_, stream):
        async with stream.append_session() as session:
            host.is_mute = True
            ticket = await session.submit(b"a")
            with trio.move_on_after(1) as scope:
                await ticket
            assert scope.cancelled_caught
            host.is_mute = False
            await host.pump()
            assert (await ticket).start == 0
        assert await read_all(stream) == [b"a"]


async def test_cancelling_a_submit_that_waits_for_room_sends_nothing_of_it() -> None:
    host = Host()
    async with opened(host, request_timeout=3600.0) as (_, stream):
        options: Any = {"max_inflight_bytes": 1024 * 1024, "max_inflight_batches": 1}
        async with stream.append_session(**options) as session:
            host.is_mute = True
            accepted: list[AppendTicket] = []
            with trio.move_on_after(1) as scope:
                while True:
                    accepted.append(await session.submit(bytes([len(accepted)]) * 500_000))
            assert scope.cancelled_caught
            assert 2 <= len(accepted) < 10
            host.is_mute = False
            await host.pump()
        assert [message[0] for message in await read_all(stream)] == list(range(len(accepted)))


async def test_tasks_share_a_session() -> None:
    async with opened(Host()) as (_, stream):
        async with stream.append_session() as session, trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(session.append_many, [b"%d/%d" % (n, m) for m in range(100)])
        received = await read_all(stream)
    assert len(received) == 2000
    for n in range(20):
        mine = [message for message in received if message.startswith(b"%d/" % n)]
        assert mine == [b"%d/%d" % (n, m) for m in range(100)]


async def test_append_many_holds_no_more_than_its_window() -> None:
    host = Host()
    taken = 0

    def messages() -> Iterator[bytes]:
        nonlocal taken
        while taken < 100:
            taken += 1
            yield b"x" * 500_000

    options: Any = {"max_inflight_bytes": 1024 * 1024, "max_inflight_batches": 1}
    async with (
        opened(host, request_timeout=3600.0) as (_, stream),
        stream.append_session(**options) as session,
        trio.open_nursery() as nursery,
    ):
        host.is_mute = True
        nursery.start_soon(session.append_many, messages())
        await trio.sleep(10)
        assert taken < 12
        host.is_mute = False
        await host.pump()
    assert (taken, session.durable_messages) == (100, 100)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("number", [0, 1, 499, 500, 501, 1700])
async def test_an_iterable_that_raises_in_the_middle(is_async: bool, number: int) -> None:
    def messages() -> Iterator[bytes]:
        yield from numbers(number)
        raise KeyError("mine")

    async def messages_async() -> AsyncIterator[bytes]:
        for message in messages():
            yield message

    async with opened(Host()) as (_, stream):
        async with stream.append_session() as session:
            with pytest.raises(KeyError, match="mine"):
                await session.append_many(messages_async() if is_async else messages())
            await session.flush()
            assert session.durable_messages == number
        assert await read_all(stream) == numbers(number)


async def test_flush_does_not_wait_for_what_comes_after_it() -> None:
    async with (
        opened(Host()) as (_, stream),
        stream.append_session() as session,
        trio.open_nursery() as nursery,
    ):

        async def go_on() -> None:
            while True:
                await session.append(b"x")

        nursery.start_soon(go_on)
        await session.submit(b"y")
        # As long as this takes, somebody appends.
        await session.flush()
        nursery.cancel_scope.cancel()


async def test_leaving_by_an_exception_sends_nothing_more() -> None:
    tickets: list[AppendTicket] = []

    async def leave(stream: Stream) -> None:
        async with stream.append_session() as session:
            tickets.append(await session.submit(b"never sent"))
            raise KeyError("mine")

    async with opened(Host()) as (_, stream):
        with pytest.raises(KeyError, match="mine"):
            await leave(stream)
        with pytest.raises(LocalProtocolError, match="aborted"):
            await tickets[0]
        assert await read_all(stream) == []


async def test_what_on_retry_raises_comes_out_of_the_block_as_it_is() -> None:
    host = Host()

    def refuse(_retrying: Retrying) -> None:
        raise KeyError("mine")

    async def reset(peer: Peer, stream_id: int) -> bool:
        peer.h2.reset_stream(stream_id)
        await peer.flush()
        return True

    async with opened(host) as (_, stream):
        host.spoil = reset
        with pytest.raises(KeyError, match="mine"):
            async with stream.append_session(on_retry=refuse) as session:
                await session.submit(b"a")
        host.spoil = None
        await stream.check_tail()


async def reset_once(peer: Peer, stream_id: int, host: Host) -> bool:
    host.spoil = None
    peer.h2.reset_stream(stream_id)
    await peer.flush()
    return True


# What may be waiting when `on_retry` raises, or come next.
NEXT: dict[str, Callable[[Any, AppendTicket], Awaitable[object]]] = {
    "ticket": lambda _, ticket: ticket._wait(),
    "append": lambda session, _: session.append(b"b"),
    "submit": lambda session, _: session.submit(b"b"),
    "append_many": lambda session, _: session.append_many([b"b"]),
    "flush": lambda session, _: session.flush(),
    "close": lambda session, _: session.close(),
}


@pytest.mark.parametrize("is_waiting", [True, False])
@pytest.mark.parametrize("call", list(NEXT))
async def test_what_on_retry_raises_is_raised_once_and_the_session_goes_on(
    call: str, is_waiting: bool
) -> None:
    host = Host()

    def refuse(_retrying: Retrying) -> None:
        raise KeyError("mine")

    async with opened(host) as (_, stream):
        async with stream.append_session(on_retry=refuse) as session:
            host.spoil = partial(reset_once, host=host)
            ticket = await session.submit(b"a")
            if not is_waiting or call == "submit":
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(KeyError, match=r"^'mine'$"):
                await NEXT[call](session, ticket)
            await ticket
            if call != "close":
                await session.append(b"c")
        messages = await read_all(stream)
    others = [b"b"] * messages.count(b"b") if call not in ("ticket", "flush", "close") else []
    assert messages == [b"a", *others, *([] if call == "close" else [b"c"])]


async def test_what_on_retry_raises_comes_out_of_the_block_if_nobody_was_told() -> None:
    host = Host()

    def refuse(_retrying: Retrying) -> None:
        raise KeyError("mine")

    async def append(stream: Stream) -> None:
        async with stream.append_session(on_retry=refuse) as session:
            host.spoil = partial(reset_once, host=host)
            await session.submit(b"a")
            await trio.testing.wait_all_tasks_blocked()

    async with opened(host) as (_, stream):
        with pytest.raises(KeyError, match=r"^'mine'$"):
            await append(stream)
        assert await read_all(stream) == [b"a"]


async def test_what_on_retry_raises_is_no_group_whatever_it_is() -> None:
    host = Host()

    def leave(_retrying: Retrying) -> None:
        raise SystemExit("mine")

    async with opened(host) as (_, stream):
        async with stream.append_session(on_retry=leave) as session:
            host.spoil = partial(reset_once, host=host)
            ticket = await session.submit(b"a")
            with pytest.raises(SystemExit, match=r"^mine$"):
                await ticket
            await ticket
        # The client goes on, too.
        assert await read_all(stream) == [b"a"]


async def test_every_attempt_that_failed_is_told_of_though_nobody_calls() -> None:
    host = Host()
    told: list[int] = []
    num_left = 3

    def refuse(retrying: Retrying) -> None:
        told.append(retrying.attempts)
        raise KeyError(retrying.attempts)

    async def reset(peer: Peer, stream_id: int) -> bool:
        nonlocal num_left
        num_left -= 1
        if num_left == 0:
            host.spoil = None
        peer.h2.reset_stream(stream_id)
        await peer.flush()
        return True

    async with opened(host) as (_, stream):
        async with stream.append_session(on_retry=refuse) as session:
            host.spoil = reset
            ticket = await session.submit(b"a")
            await trio.testing.wait_all_tasks_blocked()
            # It is durable by now; the second one is told of once the first has come out.
            assert told == [1]
            for attempts in (1, 2, 3):
                with pytest.raises(KeyError, match=rf"^{attempts}$"):
                    await session.flush()
                assert told == list(range(1, attempts + 1))
                session._duplex.wake()
                await trio.testing.wait_all_tasks_blocked()
            await ticket
        assert told == [1, 2, 3]
        assert await read_all(stream) == [b"a"]


async def test_leaving_by_another_exception_notes_what_on_retry_raised() -> None:
    host = Host()

    def refuse(_retrying: Retrying) -> None:
        raise KeyError("mine")

    async def leave(stream: Stream) -> None:
        async with stream.append_session(on_retry=refuse) as session:
            host.spoil = partial(reset_once, host=host)
            await session.submit(b"a")
            await trio.testing.wait_all_tasks_blocked()
            raise ValueError("of the block")

    async with opened(host) as (_, stream):
        with pytest.raises(ValueError, match="of the block") as raised:
            await leave(stream)
        assert raised.value.__notes__ == ["on_retry has raised KeyError: \"'mine'\""]


async def append_and_be_gone(k: int, call: str) -> Interruption:
    """A task is cut off at its `k`-th line and ends; another one appends."""
    gone: list[trio.lowlevel.Task] = []

    def is_the_one() -> bool:
        is_deaf = trio.lowlevel.currently_ki_protected()
        return trio.lowlevel.current_task() in gone and not is_deaf

    interruption = Interruption(k, only_if=is_the_one)

    async def be_gone(session: Any) -> None:
        gone.append(trio.lowlevel.current_task())
        with interruption:
            await (session.append_many([b"a"]) if call == "append_many" else session.submit(b"a"))

    async with opened(Host()) as (_, stream), stream.append_session() as session:
        # The next one is the one that lets others have their turn.
        session._num_submitted = 49
        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_gone, session)
        with trio.fail_after(50):
            await session.append_many([b"b"])
    return interruption


@pytest.mark.parametrize("call", ["append_many", "submit"])
async def test_a_task_that_is_cut_off_and_gone_keeps_nobody_waiting(call: str) -> None:
    places = (await append_and_be_gone(10**9, call)).places
    assert len(places) > 20
    for k in sampled(places):
        await append_and_be_gone(k, call)


async def cut_off(k: int) -> Interruption:
    """Append while the task that drives is cut off at its `k`-th line."""

    def is_driving() -> bool:
        return trio.lowlevel.current_task().name.endswith("Duplex.run")

    interruption = Interruption(k, spared=(*SPARED, "/pool.py", "/h2_"), only_if=is_driving)
    try:
        async with opened(Host()) as (_, stream):
            with interruption:
                async with stream.append_session() as session:
                    ticket = await session.submit(b"a")
                    await session.append_many([b"b", b"c"])
                    await ticket
    except BaseExceptionGroup as group:
        _, others = group.split(KeyboardInterrupt)
        assert others is None, interruption.where
    return interruption


async def test_when_the_task_that_drives_is_cut_off_nobody_waits_for_ever() -> None:
    """Ctrl-C does not come there; whatever else does is the client's end."""
    await cut_off(10**9)
    places = (await cut_off(10**9)).places
    assert len(places) > 200
    start = trio.current_time()
    # The last ones depend on what comes together, and not every run has them.
    found = [(await cut_off(k)).where for k in sampled(places, with_last=False)]
    assert len([where for where in found if where]) > len(found) / 2
    # At two of them, one second is given to a task that is gone.
    assert trio.current_time() <= start + 3


async def test_ctrl_c_is_for_the_users_tasks() -> None:
    assert trio.lowlevel.currently_ki_protected() is False
    found: list[bool] = []

    def note(_retrying: Retrying) -> None:
        found.append(trio.lowlevel.currently_ki_protected())

    host = Host()
    async with opened(host) as (_, stream), stream.append_session(on_retry=note) as session:
        host.spoil = partial(reset_once, host=host)
        await session.append(b"a")
    assert found == [True]


async def test_sessions_are_used_in_their_blocks() -> None:
    async with opened(Host()) as (_, stream):
        session = stream.append_session()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: session.append(b"x"),
            lambda: session.submit(b"x"),
            lambda: session.append_many([b"x"]),
            session.flush,
        ]
        for call in calls:
            with pytest.raises(LocalProtocolError, match="inside a block"):
                await call()
        async with session:
            with pytest.raises(LocalProtocolError, match="entered once"):
                await session.__aenter__()
        with pytest.raises(LocalProtocolError, match="inside a block"):
            await anext(aiter(stream.read_session()))


async def test_a_condition_that_fails_is_raised_as_it_is() -> None:
    async with opened(Host()) as (_, stream):
        with pytest.raises(SeqNumMismatch):
            async with stream.append_session(match_seq_num=7) as session:
                await session.submit(b"a")
        with pytest.raises(S2FramesError):
            await session.append(b"b")


# A session that fails while it is used: nobody spins or waits


@pytest.mark.timeout(60)
@pytest.mark.parametrize("is_async", [False, True])
async def test_append_many_onto_a_stream_that_refuses_while_it_is_still_putting(
    is_async: bool,
) -> None:
    num_drawn = 0

    def messages() -> Iterator[bytes]:
        nonlocal num_drawn
        while True:
            num_drawn += 1
            yield bytes(300_000)

    async def messages_async() -> AsyncIterator[bytes]:
        for message in messages():
            yield message

    async with opened(Host()) as (_, stream):
        session = stream.append_session(match_seq_num=7, max_inflight_bytes=2**20)
        with trio.fail_after(50), pytest.raises(SeqNumMismatch):
            async with session:
                await session.append_many(messages_async() if is_async else messages())
    # One turn is as much as fills the session; what is on its way has its own room.
    assert num_drawn <= 12


async def one_message() -> AsyncIterator[bytes]:
    yield b"a"


CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "append": lambda session: session.append(b"a"),
    "submit": lambda session: session.submit(b"a"),
    "append_many": lambda session: session.append_many([b"a"]),
    "append_many, async": lambda session: session.append_many(one_message()),
    "flush": lambda session: session.flush(),
    "close": lambda session: session.close(),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("call", list(CALLS))
async def test_a_stream_that_refuses_ends_every_call(call: str) -> None:
    async with opened(Host()) as (_, stream), stream.append_session(match_seq_num=7) as session:
        ticket = await session.submit(b"before")
        if call == "submit":
            with pytest.raises(SeqNumMismatch):
                await ticket
        for again in (call, *CALLS):
            with trio.fail_after(50), pytest.raises(SeqNumMismatch):
                await CALLS[again](session)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("call", ["append", "submit", "append_many", "append_many, async"])
async def test_what_waits_for_room_ends_with_the_session(call: str) -> None:
    host = Host()
    async with opened(host, request_timeout=3600.0) as (_, stream):
        options: Any = {"max_inflight_bytes": 2**20, "max_inflight_batches": 1}
        async with stream.append_session(match_seq_num=7, **options) as session:
            host.is_mute = True
            while not session._protocol.is_full:
                await session.submit(bytes(500_000))
                # What goes out leaves room behind.
                await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:

                async def fail() -> None:
                    with trio.fail_after(50), pytest.raises(SeqNumMismatch):
                        await CALLS[call](session)

                nursery.start_soon(fail)
                nursery.start_soon(fail)
                await trio.testing.wait_all_tasks_blocked()
                host.is_mute = False
                await host.pump()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("call", list(CALLS))
async def test_what_on_retry_raised_before_comes_out_of_any_call(call: str) -> None:
    def refuse(_retrying: Retrying) -> None:
        raise KeyError("mine")

    async with opened(Host()) as (_, stream):
        async with stream.append_session(on_retry=refuse) as session:
            session._outbox.take([Retrying(TransportError("lost"), 1, 0.0)])
            with pytest.raises(KeyError, match=r"^'mine'$"):
                await CALLS[call](session)
        assert await read_all(stream) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("call", ["nothing", *CALLS])
async def test_every_call_is_a_checkpoint(call: str) -> None:
    async def submit_some(session: Any) -> None:
        # Other tasks get a turn after so many, since a message each would take most of the time.
        for _ in range(50):
            await session.submit(b"a")

    calls: dict[str, Callable[[Any], Awaitable[object]]] = {
        **CALLS,
        "submit": submit_some,
        "nothing": lambda session: session.append_many([]),
    }
    async with opened(Host()) as (_, stream), stream.append_session() as session:
        with trio.testing.assert_checkpoints():
            await calls[call](session)


@pytest.mark.parametrize("call", list(CALLS))
async def test_a_call_in_a_cancelled_task_accepts_nothing(call: str) -> None:
    async with opened(Host()) as (_, stream):
        async with stream.append_session() as session:
            await session.submit(b"before")
            with trio.CancelScope() as scope:
                scope.cancel()
                await CALLS[call](session)
            assert scope.cancelled_caught
        assert await read_all(stream) == [b"before"]


@pytest.mark.timeout(60)
async def test_a_ticket_that_waits_raises_what_on_retry_raised_before_it_is_settled() -> None:
    host = Host()

    def refuse(_retrying: Retrying) -> None:
        host.is_mute = True
        raise KeyError("mine")

    async with (
        opened(host, request_timeout=3600.0) as (_, stream),
        stream.append_session(on_retry=refuse) as session,
    ):
        host.spoil = partial(reset_once, host=host)
        ticket = await session.submit(b"a")
        with trio.fail_after(50), pytest.raises(KeyError, match=r"^'mine'$"):
            await ticket
        assert session.durable_messages == 0
        host.is_mute = False
        await host.pump()
        await ticket


@pytest.mark.timeout(60)
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_was_drawn_and_cut_off_goes_out_without_another_call(is_async: bool) -> None:
    is_cut_off = False

    def encode(message: bytes) -> bytes:
        nonlocal is_cut_off
        if not is_cut_off:
            is_cut_off = True
            raise KeyboardInterrupt
        return message

    codec = Codec(encode, bytes)
    async with opened(Host()) as (_, stream), stream.append_session(codec=codec) as session:
        with pytest.raises(KeyboardInterrupt):
            await session.append_many(one_message() if is_async else [b"a"])
        await trio.testing.wait_all_tasks_blocked()
        assert session.durable_messages == 1


@pytest.mark.timeout(60)
async def test_a_message_that_is_awaited_goes_out_while_the_next_one_is() -> None:
    async with opened(Host()) as (_, stream), stream.append_session() as session:
        num_durable: list[int] = []

        async def messages() -> AsyncIterator[bytes]:
            for _ in range(3):
                await trio.testing.wait_all_tasks_blocked()
                num_durable.append(session.durable_messages)
                yield b"a"

        await session.append_many(messages())
        assert num_durable == [0, 1, 2]
