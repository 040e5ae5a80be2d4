"""Messages many at a time, with every adapter and in every place."""

from __future__ import annotations

import pytest

from s2frames import JSON, CodecError, LocalProtocolError, ServiceError
from scenes import World


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


async def test_no_stream(s2: World) -> None:
    async with s2.client.stream(s2.basin, "missing").read_session() as session:
        with pytest.raises(ServiceError, match="stream_not_found"):
            await anext(aiter(session.batches()))


async def test_batches_need_a_block(s2: World) -> None:
    if not s2.flavour.is_async:
        return
    with pytest.raises(LocalProtocolError, match="read inside a block"):
        await anext(s2.stream.read_session().batches())
