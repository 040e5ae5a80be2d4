"""Ctrl-C at any line of the packages while a session reads: everything comes, once and in order.

No attempt may fail meanwhile, so that nothing waits for a deadline and nobody else is blamed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, cast

import pytest

from frames import chunk, head
from interruption import PACKAGES, Interruption, Lines, Place, is_exit_of_scope, sampled
from s2frames import BYTES, Checkpoint, LocalProtocolError, Retry, fence
from s2frames.commands import append_batch
from s2frames.wire import AppendInput
from scenes import EMBEDDED_SCENES, Flavour, World

# Below these, lines run in tasks of the client, where a signal ends it.
_OF_CONNECTIONS = tuple(
    f"/s2frames_trio/{name}"
    for name in (
        "connect",
        "connection_state",
        "flood",
        "frame_buffer",
        "h2_connection",
        "h2_setup",
        "h2_stream",
        "incoming",
        "outgoing",
        "pool",
        "quick_ack",
        "receive_window",
        "tls",
    )
)
_OF_SERVICES = ("/s2frames/embedded/", "/s2frames_httpx/embedded", "/s2frames_trio/embedded")

# A deadline that passes, or a peer that is blamed, ends the session.
ONE_ATTEMPT = Retry(max_attempts=1)

MESSAGES = [b"a", b"b", b"c", b"long", b"late", b"d", b"e"]


async def fill(s2: World) -> None:
    """A stream with look-alikes, a repeat, two messages inside each other, and a command."""
    records = [
        *(head(letter, seq=seq, writer="w") for seq, letter in enumerate((b"a", b"b", b"c"))),
        head(b"lo", records=3, size=4, seq=3, writer="w"),
        head(b"la", records=2, size=4, seq=0, writer="v"),
        chunk(b"n", seq=4, writer="w"),
        chunk(b"n", seq=4, writer="w"),
        fence("t"),
        chunk(b"g", seq=5, writer="w"),
        chunk(b"te", seq=1, writer="v"),
        head(b"d", seq=2, writer="v"),
        head(b"e", seq=6, writer="w"),
    ]
    for batch in (records[:5], records[5:]):
        await s2.client.call(append_batch(s2.stream.target, AppendInput(batch)))


# How the messages are iterated over, and what of an item is compared.
FORMS: dict[str, tuple[Callable[[Any], AsyncIterator[Any]], Callable[[Any], list[bytes]]]] = {
    "messages": (lambda session: session.__aiter__(), lambda item: [item]),
    "frames": (lambda session: session.frames(), lambda item: [item.message]),
    "batches": (lambda session: session.batches(), list),
}


async def read_rest(s2: World, checkpoint: Checkpoint) -> list[bytes]:
    async with s2.stream.read_session(start=checkpoint, retry=ONE_ATTEMPT) as session:
        return [message async for message in session]


async def read(s2: World, form: str, lines: Lines, **options: Any) -> list[bytes]:
    """Read all, traced by `lines` until it interrupts, and then the rest."""
    iterate, messages_of = FORMS[form]
    got: list[bytes] = []
    async with s2.stream.read_session(codec=BYTES, retry=ONE_ATTEMPT, **options) as session:
        items = iterate(session)
        with lines:
            async for item in items:
                got += messages_of(item)
        left = await read_rest(s2, checkpoint_of(session, got))
        assert got + left == MESSAGES
        async for item in items:
            got += messages_of(item)
    return got


def checkpoint_of(session: Any, got: list[bytes]) -> Checkpoint:
    """A session's checkpoint, which is as of what was handed out."""
    if not got and session.stats.records == 0:
        # The last messages may still be searched for.
        with suppress(LocalProtocolError):
            return cast("Checkpoint", session.checkpoint())
        return Checkpoint(0, 0)
    return cast("Checkpoint", session.checkpoint())


def spared(flavour: Flavour) -> tuple[str, ...]:
    return _OF_SERVICES if flavour.uses_httpx else (*_OF_SERVICES, *_OF_CONNECTIONS)


def is_chosen(flavour: Flavour, k: int, place: Place) -> bool:
    """Whether to interrupt there: the core's lines are shared out among the flavours."""
    if place[0].startswith("s2frames/"):
        return k % len(Flavour) == list(Flavour).index(flavour)
    return not is_exit_of_scope(place)


@pytest.mark.parametrize(
    ("form", "options"),
    [("messages", {}), ("frames", {"last": 7}), ("batches", {"limit": 5}), ("batches", {})],
    ids=str,
)
@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_reading_goes_on_after_an_interruption_anywhere(
    s2: World, form: str, options: dict[str, Any]
) -> None:
    await fill(s2)
    seen = Lines(PACKAGES, spared(s2.flavour))
    wanted = MESSAGES[: options.get("limit")]
    assert await read(s2, form, seen, **options) == wanted
    assert len(seen.places) > 500
    num_missed = num_hit = 0
    for k in sampled(seen.places):
        if not is_chosen(s2.flavour, k, seen.places[k - 1]):
            continue
        interruption = Interruption(k, PACKAGES, spared(s2.flavour))
        got = await read(s2, form, interruption, **options)
        assert got == wanted, (interruption.where, k)
        # A run may have some lines less than the first one: a wait less, or what is made once.
        num_missed += interruption.where is None
        num_hit += interruption.came_out
        assert interruption.came_out or interruption.where is None, interruption.where
    assert num_hit > 100
    assert num_missed <= num_hit // 10
