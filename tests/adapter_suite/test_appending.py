"""Appending, with every adapter and in every place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from s2frames import (
    BYTES,
    JSON,
    MAX_CHUNK_BODY_BYTES,
    MSGPACK,
    TEXT,
    Appended,
    Codec,
    CodecError,
    FrameSizeError,
    LocalProtocolError,
    SeqNumMismatch,
)
from s2frames.framing import FRAME_BYTES
from s2frames_httpx import AsyncAppendSession
from scenes import EMBEDDED_SCENES, EVERY_SCENE, World, in_block


async def test_the_example_of_the_guide(s2: World) -> None:
    messages = [{"user": "bob", "n": n} for n in range(5)]
    async with s2.stream.append_session(codec=JSON) as session:
        appended = await session.append({"user": "alice"})
        assert (appended.start, appended.end) == (0, 1)
        assert await session.append_many(messages) == Appended(1, 6)
    async with s2.stream.read_session(codec=JSON, start=0) as received:
        assert [message async for message in received] == [{"user": "alice"}, *messages]


async def read_all(s2: World, codec: Codec[Any] = BYTES, **options: Any) -> list[Any]:
    async with s2.stream.read_session(codec=codec, **options) as messages:
        return [message async for message in messages]


# What can be appended


# A record of a writer with an id of 12 bytes has room for MAX_CHUNK_BODY_BYTES.
@pytest.mark.parametrize(
    ("size", "num_records"),
    [
        (1, 1),
        (MAX_CHUNK_BODY_BYTES - 1, 1),
        (MAX_CHUNK_BODY_BYTES, 1),
        (MAX_CHUNK_BODY_BYTES + 1, 2),
        (5 * 1024 * 1024, 6),
    ],
)
async def test_messages_of_any_size(s2: World, size: int, num_records: int) -> None:
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with s2.stream.append_session() as session:
        assert await session.append(message) == Appended(0, num_records)
        assert await session.append(b"next") == Appended(num_records, num_records + 1)
    assert await read_all(s2) == [message, b"next"]


async def test_headers_and_timestamps_arrive(s2: World) -> None:
    headers = [(b"kind", b"greeting"), (b"empty", b""), (b"kind", b"again")]
    async with s2.stream.append_session(codec=TEXT) as session:
        await session.append("hello", headers, timestamp=1000)
        await session.append("plain", timestamp=2000)
        writer_id = session.writer_id
    async with s2.stream.read_session(codec=TEXT) as messages:
        first, second = [frame async for frame in messages.frames()]
    assert (first.message, first.headers, first.timestamp) == ("hello", tuple(headers), 1000)
    assert (second.message, second.headers, second.timestamp) == ("plain", (), 2000)
    assert (first.start, first.end, second.start, second.end) == (0, 1, 1, 2)
    assert first.writer_id == second.writer_id == writer_id


REVERSED: Codec[str] = Codec(lambda text: text[::-1].encode(), lambda payload: payload.decode())


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (JSON, {"a": [1, None, "ä"], "b": {"c": True}}),
        (TEXT, "Grüße \N{WAVING HAND SIGN}"),
        (BYTES, bytes(range(256))),
        (MSGPACK, {"a": b"bytes", "b": "text", "c": [1, -1, 2**63]}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_codecs(s2: World, codec: Codec[Any], message: Any) -> None:
    async with s2.stream.append_session(codec=codec) as session:
        await session.append(message)
    assert await read_all(s2, codec) == [message]


async def test_a_codec_of_ones_own(s2: World) -> None:
    async with s2.stream.append_session(codec=REVERSED) as session:
        await session.append("abc")
    assert await read_all(s2, REVERSED) == ["cba"]


# Many


def count_up(number: int) -> Iterator[bytes]:
    for n in range(number):
        yield b"%d" % n


# More than the records of one batch, so that several are cut.
@pytest.mark.parametrize("number", [0, 1, 2500])
@pytest.mark.parametrize("kind", [list, iter], ids=["list", "generator"])
async def test_append_many(s2: World, number: int, kind: Any) -> None:
    durable: list[Appended] = []
    async with s2.stream.append_session() as session:
        appended = await session.append_many(kind(count_up(number)), on_durable=durable.append)
        assert session.durable_messages == number
    assert appended == (Appended(0, number) if number else None)
    assert durable == [Appended(n, n + 1) for n in range(number)]
    assert await read_all(s2) == list(count_up(number))


async def test_append_many_of_large_messages_says_where_each_is(s2: World) -> None:
    messages = [b"a" * 3_000_000, b"b", b"c" * 1_500_000]
    durable: list[Appended] = []
    async with s2.stream.append_session() as session:
        assert await session.append_many(messages, durable.append) == Appended(0, 6)
    assert durable == [Appended(0, 3), Appended(3, 4), Appended(4, 6)]
    assert await read_all(s2) == messages


async def count_up_async(number: int) -> AsyncIterator[bytes]:
    for payload in count_up(number):
        yield payload


async def test_append_many_of_an_async_iterable(s2: World) -> None:
    if not s2.flavour.is_async:
        async with s2.stream.append_session() as session:
            with pytest.raises(TypeError, match="not iterable"):
                await session.append_many(count_up_async(3))
            assert await session.append(b"x") == Appended(0, 1)
        return
    async with s2.stream.append_session() as session:
        assert await session.append_many(count_up_async(3)) == Appended(0, 3)
    assert await read_all(s2) == [b"0", b"1", b"2"]


async def test_a_message_that_cannot_be_sent_ends_append_many(s2: World) -> None:
    async with s2.stream.append_session() as session:
        with pytest.raises(FrameSizeError):
            await session.append_many([b"a", b"b", b"", b"never"])
        assert await session.append(b"c") == Appended(2, 3)
    assert await read_all(s2) == [b"a", b"b", b"c"]


async def test_an_iterable_that_raises_ends_append_many(s2: World) -> None:
    def messages() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    async with s2.stream.append_session() as session:
        with pytest.raises(KeyError, match="mine"):
            await session.append_many(messages())
        await session.flush()
        assert session.durable_messages == 1
    assert await read_all(s2) == [b"a"]


class Leaky:
    """Messages without an end, as a generator, that tell whether it was closed."""

    def __init__(self, size: int = 400_000) -> None:
        self._message = b"g" * size
        self.num_drawn = 0
        self.is_closed = False

    def __call__(self) -> Iterator[bytes]:
        try:
            while True:
                self.num_drawn += 1
                yield self._message
        finally:
            self.is_closed = True

    async def awaited(self) -> AsyncIterator[bytes]:
        try:
            while True:
                await anyio.lowlevel.checkpoint()
                self.num_drawn += 1
                yield self._message
        finally:
            self.is_closed = True


def generators_of(s2: World, leaky: Leaky) -> list[Any]:
    return [leaky(), leaky.awaited()] if s2.flavour.is_async else [leaky()]


# It spins where nobody looks whether the session has failed.
@pytest.mark.timeout(60)
async def test_a_generator_is_closed_when_the_session_fails(s2: World) -> None:
    async with s2.stream.append_session() as other:
        await other.append(b"theirs")
    for number in range(2 if s2.flavour.is_async else 1):
        leaky = Leaky()
        generator = generators_of(s2, leaky)[number]
        async with in_block(s2.stream.append_session(match_seq_num=0)) as session:
            with pytest.raises(SeqNumMismatch):
                await session.append_many(generator)
            assert leaky.is_closed
            # It has failed by now, so that nothing is drawn.
            again = Leaky()
            with pytest.raises(SeqNumMismatch):
                await session.append_many(generators_of(s2, again)[number])
            assert again.num_drawn == 0
            # A file, say, is not ours to close.
            kept = iter([b"a"])
            with pytest.raises(SeqNumMismatch):
                await session.append_many(kept)
            assert list(kept) == [b"a"]


@pytest.mark.timeout(60)
async def test_a_generator_is_closed_when_on_durable_raises_and_all_of_it_is_durable(
    s2: World,
) -> None:
    def refuse(_appended: Appended) -> None:
        raise KeyError("mine")

    for number in range(2 if s2.flavour.is_async else 1):
        stream = s2.client.stream(s2.basin, f"closed/{number}")
        await stream.create()
        leaky = Leaky()
        generator = generators_of(s2, leaky)[number]
        async with stream.append_session() as session:
            with pytest.raises(KeyError, match="mine"):
                await session.append_many(generator, refuse)
            assert leaky.is_closed
            await session.flush()
            assert session.durable_messages == leaky.num_drawn > 0


async def test_a_generator_is_closed_when_a_message_cannot_be_sent(s2: World) -> None:
    """Only what cannot be sent is drawn for nothing."""
    is_closed = False
    drawn: list[Any] = []

    def messages(bad: Any) -> Iterator[Any]:
        nonlocal is_closed
        try:
            for message in ("a", "b", bad, "never"):
                drawn.append(message)
                yield message
        finally:
            is_closed = True

    for bad, error in ((7, CodecError), ("", FrameSizeError), ("long" * 3, FrameSizeError)):
        is_closed, drawn = False, []
        async with s2.stream.append_session(codec=TEXT, max_frame_bytes=10) as session:
            with pytest.raises(error):
                await session.append_many(messages(bad))
            assert (is_closed, drawn) == (True, ["a", "b", bad])
            await session.flush()
            assert session.durable_messages == 2


@pytest.mark.parametrize(
    "s2",
    [scene for scene in EVERY_SCENE if scene.flavour.is_async],
    indirect=True,
    ids=str,
)
async def test_cancelling_append_many_loses_nothing_that_was_drawn(s2: World) -> None:
    class Counted:
        """An iterator without an end that cancels after some."""

        def __init__(self, scope: anyio.CancelScope, last: int) -> None:
            self.num_drawn = 0
            self._scope, self._last = scope, last

        def __iter__(self) -> Counted:
            return self

        def __next__(self) -> bytes:
            self.num_drawn += 1
            if self.num_drawn == self._last:
                self._scope.cancel()
            return b"x" * 3000

    # Within the first turn of 500 or 1000, at its end, and where the session is full.
    for last in (1, 400, 500, 501, 1000, 1001):
        stream = s2.client.stream(s2.basin, f"cancelled/{last}")
        await stream.create()
        async with stream.append_session(max_inflight_bytes=2**20) as session:
            with anyio.CancelScope() as scope:
                source = Counted(scope, last)
                await session.append_many(source)
            assert scope.cancelled_caught
            await session.flush()
            assert session.durable_messages == source.num_drawn >= last


@pytest.mark.parametrize(
    "s2",
    [scene for scene in EMBEDDED_SCENES if scene.flavour.is_async],
    indirect=True,
    ids=str,
)
async def test_an_iterable_without_an_end_lets_other_tasks_run(s2: World) -> None:
    num_turns = num_drawn = 0

    def messages() -> Iterator[bytes]:
        nonlocal num_drawn
        while num_turns < 3:
            num_drawn += 1
            yield b"x"

    async def take_turns() -> None:
        nonlocal num_turns
        while num_turns < 3:
            await anyio.lowlevel.checkpoint()
            num_turns += 1

    # Nothing of it is sent before the end, so that nothing else waits.
    async with (
        s2.stream.append_session(linger=3600) as session,
        anyio.create_task_group() as group,
    ):
        group.start_soon(take_turns)
        assert await session.append_many(messages()) is not None
    # They do not have to wait until the session is full.
    assert num_drawn < 10_000


async def test_a_closed_session_draws_nothing(s2: World) -> None:
    async with s2.stream.append_session() as session:
        await session.close()
        left = iter([b"a"])
        with pytest.raises(LocalProtocolError, match="closed"):
            await session.append_many(left)
        assert list(left) == [b"a"]
        for number in range(2 if s2.flavour.is_async else 1):
            leaky = Leaky()
            with pytest.raises(LocalProtocolError, match="closed"):
                await session.append_many(generators_of(s2, leaky)[number])
            assert leaky.num_drawn == 0


@pytest.mark.timeout(60)
async def test_on_durable_is_told_while_more_is_drawn(s2: World) -> None:
    for number in range(2 if s2.flavour.is_async else 1):
        stream = s2.client.stream(s2.basin, f"told/{number}")
        await stream.create()
        told: list[Appended] = []

        def messages(told: list[Appended] = told) -> Iterator[bytes]:
            for _ in range(100):
                if told:
                    return
                yield bytes(400_000)

        async def messages_async(told: list[Appended] = told) -> AsyncIterator[bytes]:
            for message in messages(told):
                yield message

        async with stream.append_session(max_inflight_bytes=2**20) as session:
            source: Any = messages_async() if number else messages()
            await session.append_many(source, told.append)
            assert 0 < session.durable_messages < 100


async def test_an_error_of_on_durable_is_raised_and_the_session_goes_on(s2: World) -> None:
    def refuse(_appended: Appended) -> None:
        raise KeyError("mine")

    async with s2.stream.append_session() as session:
        with pytest.raises(KeyError, match="mine"):
            await session.append_many([b"a", b"b"], refuse)
        await session.append(b"c")
    assert await read_all(s2) == [b"a", b"b", b"c"]


# Small windows


@pytest.mark.parametrize("options", [{"max_inflight_batches": 1}, {"max_inflight_bytes": 1048576}])
async def test_a_small_window_still_lets_all_through(s2: World, options: Any) -> None:
    messages = [bytes([n]) * 700_000 for n in range(6)]
    async with s2.stream.append_session(**options) as session:
        await session.append_many(messages)
    assert await read_all(s2) == messages


# Flush, close, leave


async def test_flush_waits_for_everything(s2: World) -> None:
    async with s2.stream.append_session() as session:
        await session.flush()
        await session.append(b"a")
        await session.flush()
        assert session.durable_messages == 1


async def test_close_is_idempotent_and_final(s2: World) -> None:
    async with s2.stream.append_session() as session:
        await session.append(b"a")
        await session.close()
        await session.close()
        await session.flush()
        with pytest.raises(LocalProtocolError, match="closed"):
            await session.append(b"b")
        with pytest.raises(LocalProtocolError, match="closed"):
            await session.append_many([b"b"])
        assert await session.append_many([]) is None
    assert await read_all(s2) == [b"a"]


async def test_a_session_without_messages_asks_for_nothing(s2: World) -> None:
    stream = s2.client.stream(s2.basin, "no-such-stream")
    async with stream.append_session() as session:
        assert session.durable_messages == 0


async def leave_by_an_exception(session: AsyncAppendSession[bytes]) -> None:
    """Append a message, accept one that is not sent, and leave."""
    async with session:
        await session.append(b"a")
        await session.append_many([b"accepted, and not sent", b""])


async def test_leaving_by_an_exception_sends_nothing_more(s2: World) -> None:
    session = s2.stream.append_session()
    with pytest.raises(FrameSizeError):
        await leave_by_an_exception(session)
    with pytest.raises(LocalProtocolError):
        await session.append(b"b")
    assert await read_all(s2) == [b"a"]


async def test_flush_after_the_session_was_given_up_says_so(s2: World) -> None:
    session = s2.stream.append_session()
    with pytest.raises(FrameSizeError):
        await leave_by_an_exception(session)
    for call in (session.flush, session.close):
        with pytest.raises(LocalProtocolError, match="aborted"):
            await call()


# Bad input leaves the session as it was


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"message": b""}, FrameSizeError, "at least 1"),
        ({"message": b"x" * 1001}, FrameSizeError, "1 to 1000 bytes.*1001"),
        ({"message": "text"}, CodecError, "str"),
        ({"message": None}, CodecError, "NoneType"),
        ({"message": b"x", "headers": [(b"_dedupe_seq", b"")]}, LocalProtocolError, "reserved"),
        ({"message": b"x", "headers": [(FRAME_BYTES, b"")]}, LocalProtocolError, "reserved"),
        ({"message": b"x", "headers": [(b"", b"fence")]}, LocalProtocolError, "empty"),
        ({"message": b"x", "headers": [("a", "b")]}, LocalProtocolError, "bytes"),
        ({"message": b"x", "headers": [b"ab"]}, LocalProtocolError, "tuple"),
        ({"message": b"x", "headers": 5}, LocalProtocolError, "int"),
        ({"message": b"x", "headers": [(b"a", b"x" * 1048576)]}, LocalProtocolError, "no room"),
        ({"message": b"x", "timestamp": -1}, LocalProtocolError, "timestamp.*-1"),
        ({"message": b"x", "timestamp": 2**64}, LocalProtocolError, "timestamp"),
        ({"message": b"x", "timestamp": "now"}, LocalProtocolError, "timestamp.*'now'"),
        ({"message": b"x", "timestamp": 1.5}, LocalProtocolError, "timestamp"),
    ],
)
@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_bad_input(
    s2: World, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    async with s2.stream.append_session(max_frame_bytes=1000) as session:
        await session.append(b"before")
        with pytest.raises(error, match=words):
            await session.append(**arguments)
        assert await session.append(b"after") == Appended(1, 2)
    assert await read_all(s2) == [b"before", b"after"]


@pytest.mark.parametrize(
    "options",
    [
        {"max_inflight_batches": 0},
        {"max_inflight_bytes": 1048575},
        {"max_frame_bytes": 0},
        {"linger": -1},
        {"writer_id": "someone"},
        {"first_dedupe_seq": 5},
        {"match_seq_num": -1},
        {"fencing_token": "x" * 37},
        {"writer_id": "someone", "first_dedupe_seq": 0, "dedupe": False},
        {"exclusive": True, "dedupe": False},
        {"resume": "someone"},
        {"retry": 3},
    ],
)
@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_bad_options(s2: World, options: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        s2.stream.append_session(**options)
    assert await read_all(s2) == []


# Writers and conditions


async def test_a_writer_goes_on_under_its_id(s2: World) -> None:
    async with s2.stream.append_session(writer_id="alice", first_dedupe_seq=0) as session:
        await session.append(b"a")
    async with s2.stream.append_session(writer_id="alice", first_dedupe_seq=1) as session:
        await session.append(b"b")
    # Sent again, as after a crash: a reader drops it.
    async with s2.stream.append_session(writer_id="alice", first_dedupe_seq=1) as session:
        await session.append(b"b")
    async with s2.stream.read_session() as messages:
        assert [message async for message in messages] == [b"a", b"b"]
        assert messages.stats.duplicates == 1


async def test_without_dedupe_there_is_no_writer(s2: World) -> None:
    async with s2.stream.append_session(dedupe=False) as session:
        assert session.writer_id is None
        await session.append_many([b"a", b"b" * 2_000_000])
    async with s2.stream.read_session() as messages:
        assert [frame.writer_id async for frame in messages.frames()] == [None, None]


async def test_match_seq_num_counts_on(s2: World) -> None:
    async with s2.stream.append_session(match_seq_num=0) as session:
        await session.append(b"a")
        await session.append_many(count_up(1500))
    assert (await s2.stream.check_tail()).seq_num == 1501


async def test_a_condition_that_does_not_hold_ends_the_session(s2: World) -> None:
    async with s2.stream.append_session() as other:
        await other.append(b"theirs")
    async with in_block(s2.stream.append_session(match_seq_num=0)) as session:
        with pytest.raises(SeqNumMismatch) as raised:
            await session.append(b"mine")
        assert raised.value.expected == 1
        assert raised.value.durable_messages == 0
        for again in (lambda: session.append(b"more"), session.flush, session.close):
            with pytest.raises(SeqNumMismatch):
                await again()
    assert await read_all(s2) == [b"theirs"]


async def test_several_writers_and_one_reader(s2: World) -> None:
    sizes = [10, 400_000, 1_200_000]
    expected = {f"writer-{w}": [b"%d" % w * size for size in sizes * 3] for w in range(3)}

    async def write(writer_id: str) -> None:
        options: Any = {"writer_id": writer_id, "first_dedupe_seq": 0}
        async with (
            s2.another_client() as client,
            client.stream(s2.basin, "room/1").append_session(**options) as session,
        ):
            for message in expected[writer_id]:
                await session.append(message)

    received: dict[str | None, list[bytes]] = {}

    async def read() -> None:
        async with (
            s2.another_client() as client,
            client.stream(s2.basin, "room/1").read_session(follow=True, limit=27) as messages,
        ):
            async for frame in messages.frames():
                received.setdefault(frame.writer_id, []).append(frame.message)

    await s2.together(read, *(lambda w=w: write(w) for w in expected))
    assert received == expected
