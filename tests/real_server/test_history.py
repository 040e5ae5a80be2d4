"""What concurrent clients see of one stream is linearizable, also when their connections break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from random import Random

import httpx
import pytest
import trio
from attrs import define, evolve, field, frozen

from live_service import served_service
from real_server.fault_proxy import Direction, Fault, FaultPlan, FaultProxy
from real_server.history import (
    INDEFINITE,
    Append,
    Event,
    Finish,
    History,
    Outcome,
    Query,
    from_jsonl,
    hash_body,
    hash_stream,
    to_jsonl,
)
from real_server.linearizability import find_order
from real_server.places import Place, needs_lite
from s2_lite import s2_lite
from s2frames import errors
from s2frames.commands import append_batch
from s2frames.errors import S2FramesError
from s2frames.operation import Effect, ask
from s2frames.records import StreamPosition, fence
from s2frames.retry import Retry
from s2frames.settings import Endpoints, Settings
from s2frames.wire import AppendInput
from s2frames_trio import Client, Stream, open_client

SEED = 303

_BASIN = "test-basin"

# Clients whose connections are whole, and those whose are not.
_NUM_WHOLE = 2
_NUM_HARMED = 3

# Of each client. The search grows with what is in doubt.
_NUM_OPERATIONS = 50

# Readers do not see what a command holds: in a stream's hash all commands are the same.
_COMMAND = hash_body(b"")

_REFUSED = Finish(Outcome.APPEND_DEFINITE_FAILURE)

# No operation takes long: what breaks, breaks at once.
_RETRY = Retry(max_attempts=3, min_delay=0.001, max_delay=0.01)


@define(eq=False)
class Actor:
    """Appends and asks, and records all of it.

    Nothing here is tried again unless the session knows that its repeats cannot land.
    """

    history: History
    client: Client
    stream: Stream
    random: Random
    name: str
    #: The records that each read found.
    reads: list[list[int]]
    client_id: int = field(init=False)
    # What it believes of the stream.
    tail: int = field(default=0, init=False)
    token: str | None = field(default=None, init=False)
    _numbers: Iterator[int] = field(factory=count, init=False)

    def __attrs_post_init__(self) -> None:
        self.client_id = self.history.new_client()

    async def run(self) -> None:
        """Some operations, one after the other."""
        operations = [self.append, self.append_there, self.append_elsewhere, self.append_fenced]
        operations += [self.cancel_append, self.set_token, self.read, self.check_tail]
        for _ in range(_NUM_OPERATIONS):
            (operation,) = self.random.choices(operations, [3, 3, 1, 2, 2, 3, 3, 3])
            await operation()

    async def run_last(self) -> None:
        """What a client does that is alone."""
        for operation in (self.read, self.append, self.read, self.check_tail):
            await operation()

    async def append(self) -> None:
        """Append at any place."""
        await self._append(self._bodies(), Append(()))

    async def append_there(self) -> None:
        """Append where the tail is believed to be."""
        await self._append(self._bodies(), Append((), match_seq_num=self.tail))

    async def append_elsewhere(self) -> None:
        """Append where the tail has been already."""
        await self._append(self._bodies(), Append((), match_seq_num=max(0, self.tail - 1)))

    async def append_fenced(self) -> None:
        """Append if the token is the one it set last."""
        await self._append(self._bodies(), Append((), fencing_token=self.token))

    async def cancel_append(self) -> None:
        """Append, and give up: at once or later, but without a clock."""
        # An ack takes some hundred turns of the loop.
        turns = int(2 ** self.random.uniform(0, 10)) - 1
        await self._append(self._bodies(), Append(()), turns)

    async def set_token(self) -> None:
        """Set a token that nobody had: where the tail is believed to be, or if it set the last one,
        or anyhow.
        """
        where, before = self.random.choice([(None, None), (self.tail, None), (None, self.token)])
        self.token = f"{self.name}-{next(self._numbers)}"
        await self._append([], Append((), self.token, match_seq_num=where, fencing_token=before))

    async def read(self) -> None:
        """Read all records."""
        op_id = self.history.start(self.client_id, Query.READ)
        finish = Finish(Outcome.READ_FAILURE)
        try:
            records = await read_records(self.stream)
        except S2FramesError as error:
            check_explained(error)
        else:
            self.reads.append(records)
            finish = Finish(Outcome.READ_SUCCESS, len(records), hash_stream(records))
        self._finish(op_id, finish)

    async def check_tail(self) -> None:
        """Ask for the tail."""
        op_id = self.history.start(self.client_id, Query.CHECK_TAIL)
        finish = Finish(Outcome.CHECK_TAIL_FAILURE)
        try:
            finish = Finish(Outcome.CHECK_TAIL_SUCCESS, (await self.stream.check_tail()).seq_num)
        except S2FramesError as error:
            check_explained(error)
        self._finish(op_id, finish)

    def _bodies(self) -> list[bytes]:
        """Some messages that nobody had before."""
        return [
            f"{self.name}-{next(self._numbers)}".encode()
            for _ in range(self.random.choice([1, 1, 2, 5]))
        ]

    async def _append(self, bodies: list[bytes], what: Append, turns: int | None = None) -> None:
        hashes = tuple(map(hash_body, bodies)) or (_COMMAND,)
        what = evolve(what, record_hashes=hashes)
        op_id = self.history.start(self.client_id, what)
        finish = INDEFINITE
        async with trio.open_nursery() as nursery:
            if turns is not None:
                nursery.start_soon(cancel_after, turns, nursery.cancel_scope)
            finish = await self._try(bodies, what)
            nursery.cancel_scope.cancel()
        self._finish(op_id, finish)

    async def _try(self, bodies: list[bytes], what: Append) -> Finish:
        try:
            if what.set_fencing_token is not None:
                return Finish(Outcome.APPEND_SUCCESS, await self._set_token(what))
            return Finish(Outcome.APPEND_SUCCESS, await self._append_messages(bodies, what))
        except S2FramesError as error:
            check_explained(error)
            is_definite = error.outcome is errors.Outcome.NOT_APPLIED
            return _REFUSED if is_definite else INDEFINITE

    async def _set_token(self, what: Append) -> int:
        assert what.set_fencing_token is not None
        batch = AppendInput([fence(what.set_fencing_token)], what.match_seq_num, what.fencing_token)
        call = append_batch(self.stream.target, batch)
        return (await self.client.run(ask(call, Effect.ONCE))).end.seq_num

    async def _append_messages(self, bodies: list[bytes], what: Append) -> int:
        session = self.stream.append_session(
            # Its records are numbered only so that it can tell them when an ack is lost.
            dedupe=what.match_seq_num is not None,
            match_seq_num=what.match_seq_num,
            fencing_token=what.fencing_token,
        )
        async with session:
            appended = await session.append_many(bodies)
        assert appended is not None
        return appended.end

    def _finish(self, op_id: int, finish: Finish) -> None:
        if finish.tail is not None:
            self.tail = finish.tail
        self.client_id = self.history.finish(self.client_id, op_id, finish)


def check_explained(error: S2FramesError) -> None:
    """Raise what neither broken connections nor conditions that do not hold explain.

    A body that ends too early while the way back is whole is bad to the server. And the body of a
    refusal may be what broke off, over and over.
    """
    codes = ("bad_frame", "bad_proto")
    is_cut = isinstance(error, errors.ServiceError) and (error.code in codes or error.is_incomplete)
    expected = (errors.TransportError, errors.AppendConditionFailed)
    if not (is_cut or isinstance(error, expected)):
        raise error


async def cancel_after(turns: int, scope: trio.CancelScope) -> None:
    """Cancel when every other task had so many turns."""
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def read_records(stream: Stream) -> list[int]:
    """The hashes of all records, up to a tail that the service told meanwhile."""
    tails: list[int] = []
    hashes: list[int] = []

    def stop(position: StreamPosition) -> None:
        tails.append(position.seq_num)
        scope.cancel()

    with trio.CancelScope() as scope:
        async with stream.read_session(follow=True, on_caught_up=stop) as messages:
            async for message in messages.frames():
                if tails:
                    # It came after the tail was told, before the loop could stop.
                    break
                hashes += [_COMMAND] * (message.start - len(hashes))
                hashes.append(hash_body(message.message))
    # Commands are no messages.
    return hashes + [_COMMAND] * (tails[0] - len(hashes))


# Recording


@frozen
class Recording:
    """A history, and more of it."""

    events: list[Event]
    #: The records that the reads found, those of the last read last.
    reads: list[list[int]]
    faults: Counter[Fault]

    @property
    def records(self) -> list[int]:
        """All records."""
        return self.reads[-1]


def draw_plan(random: Random) -> FaultPlan:
    """How a connection ends: in every place from its first bytes on."""
    return FaultPlan(
        direction=random.choice(list(Direction)),
        fault=random.choice((Fault.CUT, Fault.RESET)),
        after_bytes=int(2 ** random.uniform(5, 10)),
    )


async def record(url: str, seed: int) -> Recording:
    """Let clients use one stream, all at once, and one more at the end."""
    history = History()
    reads: list[list[int]] = []
    proxies: list[FaultProxy] = []
    name = f"history/{seed}"
    async with open_client(settings_for(url)) as client:
        await client.ensure_basin(_BASIN)
        stream = client.stream(_BASIN, name)
        await stream.create()

        async def act(actor_name: str, own_url: str) -> None:
            async with open_client(settings_for(own_url)) as own:
                random = Random(f"{seed}/{actor_name}")
                actor = Actor(history, own, own.stream(_BASIN, name), random, actor_name, reads)
                await actor.run()

        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as actors:
                for index in range(_NUM_WHOLE):
                    actors.start_soon(act, f"whole {index}", url)
                for index in range(_NUM_HARMED):
                    proxies.append(make_proxy(url, Random(f"{seed}/proxy {index}")))
                    port = await nursery.start(proxies[-1].serve)
                    actors.start_soon(act, f"harmed {index}", f"http://127.0.0.1:{port}")
            nursery.cancel_scope.cancel()
        await Actor(history, client, stream, Random(seed), "last", reads).run_last()
    faults = sum((proxy.injected for proxy in proxies), Counter[Fault]())
    return Recording(history.close(), reads, faults)


def make_proxy(url: str, random: Random) -> FaultProxy:
    port = httpx.URL(url).port
    assert port is not None
    return FaultProxy(port, lambda: draw_plan(random))


def settings_for(url: str) -> Settings:
    return Settings(endpoints=Endpoints.at(url), retry=_RETRY)


PLACES = [
    pytest.param(Place.EMBEDDED, id="embedded"),
    pytest.param(Place.LITE, id="s2 lite", marks=needs_lite),
]


@pytest.fixture(scope="module", params=PLACES)
def recording(request: pytest.FixtureRequest) -> Iterator[Recording]:
    """What happened on a server of its own."""
    with ExitStack() as stack:
        is_lite = request.param is Place.LITE
        url = stack.enter_context(s2_lite() if is_lite else served_service())
        yield trio.run(record, url, SEED)


# Tests


def test_it_is_linearizable(recording: Recording, tmp_path: Path) -> None:
    if find_order(recording.events, recording.reads) is None:
        path = tmp_path / "history.jsonl"
        path.write_text(to_jsonl(recording.events))
        pytest.fail(f"seed {SEED}: not linearizable, see {path}")


def test_it_shows_something(recording: Recording) -> None:
    outcomes = Counter(e.what.outcome for e in recording.events if isinstance(e.what, Finish))
    appends = [e.what for e in recording.events if isinstance(e.what, Append)]
    for outcome in (
        Outcome.APPEND_SUCCESS,
        Outcome.APPEND_DEFINITE_FAILURE,
        Outcome.APPEND_INDEFINITE_FAILURE,
        Outcome.READ_SUCCESS,
        Outcome.CHECK_TAIL_SUCCESS,
    ):
        assert outcomes[outcome], f"seed {SEED}: {outcomes}"
    assert set(recording.faults) == {Fault.CUT, Fault.RESET}
    assert any(append.set_fencing_token for append in appends)
    assert any(append.fencing_token for append in appends)
    assert any(append.set_fencing_token and append.fencing_token for append in appends)


def test_it_is_the_same_from_a_file(recording: Recording) -> None:
    assert from_jsonl(to_jsonl(recording.events)) == recording.events


Mutation = Callable[[Recording], list[Event]]


def drop_last_append(recording: Recording) -> list[Event]:
    """It was acked, and is gone: as if nobody had asked for it."""
    wanted = _last(recording.events, Outcome.APPEND_SUCCESS).op_id
    return [event for event in recording.events if event.op_id != wanted]


def drop_first_append(recording: Recording) -> list[Event]:
    first = next(event for event in recording.events if _is(event, Outcome.APPEND_SUCCESS))
    return [event for event in recording.events if event.op_id != first.op_id]


def miss_last_record(recording: Recording) -> list[Event]:
    return _with_last_read(recording, recording.records[:-1])


def miss_middle_record(recording: Recording) -> list[Event]:
    """The tail is right; one of the records before it was not handed out."""
    records = recording.records
    middle = len(records) // 2
    records = records[:middle] + records[middle + 1 :]
    return _with_last_read(recording, records, len(recording.records))


def repeat_record(recording: Recording) -> list[Event]:
    records = recording.records
    return _with_last_read(recording, [records[0], *records[:-1]])


def tell_stale_tail(recording: Recording) -> list[Event]:
    event = _last(recording.events, Outcome.CHECK_TAIL_SUCCESS)
    finish = Finish(Outcome.CHECK_TAIL_SUCCESS, len(recording.records) - 1)
    return _replace(recording.events, event, finish)


def ack_what_was_refused(recording: Recording) -> list[Event]:
    event = _last(recording.events, Outcome.APPEND_DEFINITE_FAILURE)
    finish = Finish(Outcome.APPEND_SUCCESS, len(recording.records) + 1)
    return _replace(recording.events, event, finish)


@pytest.mark.parametrize(
    "mutate",
    [
        drop_last_append,
        drop_first_append,
        miss_last_record,
        miss_middle_record,
        repeat_record,
        tell_stale_tail,
        ack_what_was_refused,
    ],
)
def test_it_is_not_when_the_server_had_lied(recording: Recording, mutate: Mutation) -> None:
    assert find_order(mutate(recording), recording.reads) is None


def _is(event: Event, outcome: Outcome) -> bool:
    return isinstance(event.what, Finish) and event.what.outcome is outcome


def _last(events: Sequence[Event], outcome: Outcome) -> Event:
    return next(event for event in reversed(events) if _is(event, outcome))


def _replace(events: Sequence[Event], old: Event, finish: Finish) -> list[Event]:
    return [evolve(event, what=finish) if event is old else event for event in events]


def _with_last_read(
    recording: Recording, records: list[int], tail: int | None = None
) -> list[Event]:
    finish = Finish(
        Outcome.READ_SUCCESS, len(records) if tail is None else tail, hash_stream(records)
    )
    return _replace(recording.events, _last(recording.events, Outcome.READ_SUCCESS), finish)
