"""Fencing, trimming and going on as the same writer, with every adapter and in every place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from s2frames import FencingTokenMismatch, LocalProtocolError, SeqNumMismatch
from s2frames.errors import WriterNotFound
from s2frames.writer_state import WriterState
from scenes import EMBEDDED_SCENES, World


async def append(s2: World, *messages: bytes, **options: Any) -> str | None:
    """Append messages; gives who wrote them."""
    async with s2.stream.append_session(**options) as session:
        await session.append_many(messages)
        return session.writer_id


async def read_all(s2: World, **options: Any) -> list[bytes]:
    async with s2.stream.read_session(**options) as messages:
        return [message async for message in messages]


# Fencing


async def test_a_fence_keeps_others_out(s2: World) -> None:
    assert await s2.stream.fencing_token() == ""
    await s2.stream.fence("mine")
    assert await s2.stream.fencing_token() == "mine"
    with pytest.raises(FencingTokenMismatch) as raised:
        await append(s2, b"theirs", fencing_token="theirs")
    assert raised.value.expected == "mine"
    await append(s2, b"mine", fencing_token="mine")
    # Fencing is cooperative.
    await append(s2, b"careless")
    await s2.stream.fence("")
    assert await s2.stream.fencing_token() == ""
    assert await read_all(s2) == [b"mine", b"careless"]


async def test_a_fence_that_expects_another_token(s2: World) -> None:
    await s2.stream.fence("first", expect="")
    with pytest.raises(FencingTokenMismatch) as raised:
        await s2.stream.fence("second", expect="")
    assert raised.value.expected == "first"
    await s2.stream.fence("second", expect="first")
    # As after a lost answer.
    await s2.stream.fence("second", expect="first")
    assert await s2.stream.fencing_token() == "second"


async def test_a_fence_with_a_trim_is_both_or_neither(s2: World) -> None:
    await append(s2, b"a", b"b")
    with pytest.raises(FencingTokenMismatch):
        await s2.stream.fence("mine", expect="not so", trim=1)
    assert await read_all(s2) == [b"a", b"b"]
    await s2.stream.fence("mine", expect="", trim=1)
    assert await s2.stream.fencing_token() == "mine"
    assert (await s2.stream.check_tail()).seq_num == 4


async def test_asking_for_the_token_appends_nothing(s2: World) -> None:
    for token in ("", "x" * 36, "ä"):
        await s2.stream.fence(token)
        before = await s2.stream.check_tail()
        assert await s2.stream.fencing_token() == token
        assert await s2.stream.check_tail() == before


# Trimming. Where the service takes its time, what is gone is not told here.


async def test_a_trim_is_a_record(s2: World) -> None:
    await append(s2, b"a", b"b", b"c")
    await s2.stream.trim(2)
    assert (await s2.stream.check_tail()).seq_num == 4
    assert await read_all(s2, start=2) == [b"c"]


@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_what_was_trimmed_is_gone(s2: World) -> None:
    await append(s2, b"a", b"b", b"c")
    await s2.stream.trim(2)
    assert await read_all(s2) == [b"c"]


@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_a_trim_to_a_checkpoint_leaves_what_is_needed(s2: World) -> None:
    await append(s2, b"a", b"b", b"c")
    async with s2.stream.read_session(limit=1) as messages:
        assert [message async for message in messages] == [b"a"]
        checkpoint = messages.checkpoint()
    await s2.stream.trim(checkpoint)
    assert await read_all(s2) == [b"b", b"c"]
    assert await read_all(s2, start=checkpoint) == [b"b", b"c"]


# Writers


async def test_an_exclusive_writer_goes_on_after_a_crash(s2: World) -> None:
    writer_id = await append(s2, b"a", b"b" * 2_500_000, exclusive=True)
    assert writer_id is not None
    state = await s2.stream.recover_writer(writer_id)
    assert state == WriterState(
        writer_id=writer_id, next_dedupe_seq=4, is_exclusive=True, match_seq_num=5
    )
    # What the dead process had on its way cannot land any more.
    with pytest.raises(SeqNumMismatch):
        await append(s2, b"late", match_seq_num=4)
    assert await append(s2, b"c", exclusive=True, resume=state) == writer_id
    async with s2.stream.read_session() as messages:
        frames = [frame async for frame in messages.frames()]
        assert messages.stats.duplicates == 0
    assert [frame.message for frame in frames] == [b"a", b"b" * 2_500_000, b"c"]
    assert {frame.writer_id for frame in frames} == {writer_id}


async def test_a_writer_that_never_wrote(s2: World) -> None:
    state = await s2.stream.recover_writer("newcomer")
    assert (state.next_dedupe_seq, state.match_seq_num) == (0, 1)
    assert await append(s2, b"a", resume=state) == "newcomer"
    with pytest.raises(WriterNotFound, match=r"'stranger' .* pass may_be_new=True"):
        await s2.stream.recover_writer("stranger", search_from=2)


async def test_a_writer_that_begins_on_a_trimmed_stream(s2: World) -> None:
    await append(s2, b"a", b"b")
    await s2.stream.trim(1)
    with pytest.raises(WriterNotFound, match=r"'newcomer' .* pass may_be_new=True"):
        await s2.stream.recover_writer("newcomer")
    state = await s2.stream.recover_writer("newcomer", may_be_new=True)
    assert (state.next_dedupe_seq, state.match_seq_num) == (5, 5)
    assert await append(s2, b"c", resume=state) == "newcomer"
    # From then on it is found.
    state = await s2.stream.recover_writer("newcomer")
    assert (state.next_dedupe_seq, state.match_seq_num) == (6, 7)
    assert await read_all(s2) == [b"b", b"c"]


# Bad input


@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_bad_input_appends_nothing(s2: World) -> None:
    stream: Any = s2.stream
    works: list[Callable[[], Awaitable[object]]] = [
        lambda: stream.fence("x" * 37),
        lambda: stream.fence(None),
        lambda: stream.fence("a", expect="x" * 37),
        lambda: stream.fence("a", trim=-1),
        lambda: stream.trim(-1),
        lambda: stream.trim(2**64),
        lambda: stream.trim("1"),
        lambda: stream.recover_writer(""),
        lambda: stream.recover_writer("a", search_from=-1),
        lambda: stream.recover_writer("a", may_be_new=1),
    ]
    for work in works:
        with pytest.raises(LocalProtocolError):
            await work()
    assert (await s2.stream.check_tail()).seq_num == 0
