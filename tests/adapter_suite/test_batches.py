"""Messages many at a time, with every adapter and in every place."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from frames import head
from s2frames import (
    BYTES,
    JSON,
    Codec,
    CodecError,
    FrameLost,
    LocalProtocolError,
    Record,
    ServiceError,
    fence,
)
from s2frames.commands import append_batch
from s2frames.wire import AppendInput
from scenes import EMBEDDED_SCENES, World


async def append(s2: World, *messages: bytes) -> None:
    async with s2.stream.append_session() as session:
        await session.append_many(messages)


async def test_batches_are_the_messages(s2: World) -> None:
    messages = [b"%d" % i for i in range(2500)] + [b"x" * 2_000_000, b"last"]
    await append(s2, *messages)
    async with s2.stream.read_session() as session:
        batches = [batch async for batch in session.batches()]
        assert session.stats.frames == len(messages)
        checkpoint = session.checkpoint()
    assert [message for batch in batches for message in batch] == messages
    assert all(batches)
    assert len(batches) < 20
    await append(s2, b"more")
    async with s2.stream.read_session(start=checkpoint) as session:
        assert [batch async for batch in session.batches()] == [[b"more"]]


async def test_a_checkpoint_between_batches(s2: World) -> None:
    await append(s2, *(b"%d" % i for i in range(2000)))
    async with s2.stream.read_session() as session:
        first = await anext(aiter(session.batches()))
        checkpoint = session.checkpoint()
    async with s2.stream.read_session(start=checkpoint) as session:
        rest = [message async for batch in session.batches() for message in batch]
    assert [*first, *rest] == [b"%d" % i for i in range(2000)]


@pytest.mark.parametrize("limit", [1, 3])
async def test_batches_up_to_a_limit(s2: World, limit: int) -> None:
    await append(s2, b"a", b"b", b"c", b"d")
    async with s2.stream.read_session(limit=limit) as session:
        taken = [message async for batch in session.batches() for message in batch]
        assert taken == [b"a", b"b", b"c", b"d"][:limit]
    async with s2.stream.read_session(last=limit) as session:
        taken = [message async for batch in session.batches() for message in batch]
        assert taken == [b"a", b"b", b"c", b"d"][-limit:]


async def test_what_cannot_be_decoded_comes_in_its_turn(s2: World) -> None:
    await append(s2, b"1", b"no json", b"2")
    async with s2.stream.read_session(codec=JSON) as session:
        batches = aiter(session.batches())
        assert await anext(batches) == [1]
        with pytest.raises(CodecError):
            await anext(batches)
        assert await anext(batches) == [2]
        with pytest.raises(StopAsyncIteration):
            await anext(batches)


# A batch of each kind that holds no message: commands, repeats, and records of others.
WITHOUT_MESSAGES = {
    "commands": [fence("t"), fence("u")],
    "repeats": [head(b"1", seq=0, writer="w")],
    "foreign": [Record(b"mine", ((b"kind", b"foreign"),))],
}

# Batches that end in an error, with the codec for it.
ENDINGS: dict[str, tuple[Record, Codec[Any], type[Exception]]] = {
    "lost": (head(b"x", size=2), BYTES, FrameLost),
    "not decoded": (head(b"no json"), JSON, CodecError),
}


async def append_records(s2: World, *records: Record) -> None:
    """Append one batch of records as they are."""
    await s2.client.call(append_batch(s2.stream.target, AppendInput(records)))


@pytest.mark.parametrize("kind", WITHOUT_MESSAGES)
@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_batches_without_a_message_are_passed_over(
    s2: World, kind: str, follow: bool
) -> None:
    await append_records(s2, head(b"1", seq=0, writer="w"))
    async with s2.stream.read_session(follow=follow) as session:
        batches = aiter(session.batches())
        if follow:
            # Each batch that is appended from now on is one that is read.
            assert await anext(batches) == [b"1"]
        await append_records(s2, *WITHOUT_MESSAGES[kind])
        await append_records(s2, head(b"2", seq=1, writer="w"))
        await append_records(s2, *WITHOUT_MESSAGES[kind])
        if follow:
            assert await anext(batches) == [b"2"]
        else:
            lists = [batch async for batch in batches]
            assert all(lists)
            assert [message for batch in lists for message in batch] == [b"1", b"2"]


@pytest.mark.parametrize("kind", WITHOUT_MESSAGES)
@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_a_stream_that_begins_without_a_message(s2: World, kind: str) -> None:
    skipped = WITHOUT_MESSAGES[kind]
    await append_records(s2, head(b"1", seq=0, writer="w"), *skipped, *skipped)
    async with s2.stream.read_session() as session:
        assert await anext(aiter(session)) == b"1"
        checkpoint = session.checkpoint()
    async with s2.stream.read_session(start=checkpoint) as session:
        assert [batch async for batch in session.batches()] == []
    # The next message comes only when the answer's first bytes were read, and held none.
    told = anyio.Event() if s2.flavour.is_async else threading.Event()
    lists: list[list[bytes]] = []

    async def read() -> None:
        session = s2.stream.read_session(
            start=checkpoint, follow=True, on_caught_up=lambda _tail: told.set()
        )
        async with session as messages:
            lists.append(await anext(aiter(messages.batches())))

    async def write() -> None:
        if isinstance(told, threading.Event):
            told.wait()
        else:
            await told.wait()
        async with s2.another_client() as client:
            target = client.stream(s2.basin, "room/1").target
            await client.call(append_batch(target, AppendInput([head(b"2", seq=1, writer="w")])))

    await s2.together(read, write)
    assert lists == [[b"2"]]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_an_error_comes_after_the_messages_before_it(s2: World, ending: str) -> None:
    bad, codec, error = ENDINGS[ending]
    await append_records(s2, head(b"1"), head(b"2"), bad)
    await append_records(s2, bad, head(b"3"))
    met: list[Any] = []
    async with s2.stream.read_session(codec=codec) as session:
        batches = aiter(session.batches())
        while True:
            try:
                batch = await anext(batches, None)
            except error:
                met.append(error)
                continue
            if batch is None:
                break
            assert batch
            met += [codec.encode(message) for message in batch]
    assert met == [b"1", b"2", error, error, b"3"]


class Enough(Exception):
    """A listener of the user has had enough."""


@pytest.mark.parametrize("kind", [Enough, KeyboardInterrupt])
@pytest.mark.parametrize("form", ["messages", "frames", "batches"])
@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_what_a_user_raises_costs_no_message(
    s2: World, form: str, kind: type[BaseException]
) -> None:
    await append(s2, b"1", b"2", b"3")
    failing = [b"1", b"3"]
    told: list[int] = []

    def decode(payload: bytes) -> bytes:
        if payload in failing:
            failing.remove(payload)
            # What else a codec raises says that the message cannot be decoded.
            raise KeyboardInterrupt
        return payload

    def note(tail: Any) -> None:
        told.append(tail.seq_num)
        raise kind

    async def rest() -> list[bytes]:
        async with s2.stream.read_session(start=session.checkpoint()) as others:
            return [message async for message in others]

    got: list[bytes] = []
    num_raised = 0
    codec = Codec(bytes, decode)
    async with s2.stream.read_session(codec=codec, follow=True, on_caught_up=note) as session:
        items: Any = aiter(session if form == "messages" else getattr(session, form)())
        while len(got) < 3 or not told:
            try:
                item: Any = await anext(items)
            except (kind, KeyboardInterrupt):
                num_raised += 1
                assert got + await rest() == [b"1", b"2", b"3"]
                continue
            got += item if form == "batches" else [item if form == "messages" else item.message]
    assert got == [b"1", b"2", b"3"]
    assert failing == []
    assert told == [3]
    assert num_raised == 3


async def test_no_stream(s2: World) -> None:
    async with s2.client.stream(s2.basin, "missing").read_session() as session:
        with pytest.raises(ServiceError, match="stream_not_found"):
            await anext(aiter(session.batches()))


async def test_batches_need_a_block(s2: World) -> None:
    if not s2.flavour.is_async:
        return
    with pytest.raises(LocalProtocolError, match="read inside a block"):
        await anext(s2.stream.read_session().batches())
