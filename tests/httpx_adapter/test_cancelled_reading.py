"""Reads that are given up while they wait, in every way that a user has, and then go on.

Where a transport may wait is numbered. In one run after the other it waits at one of these points
until the user gives up. What comes then is exact, and the service is not to blame: no attempt is
counted.

Time passes only when all tasks wait, which they do at that point alone: a user's time-out ends
there and nowhere else, however slow the machine is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count
from typing import Any

import anyio
import httpx
import pytest
import trio
from attrs import define, field

from frames import chunk, head
from s2frames import Checkpoint, Retry
from s2frames.commands import append_batch
from s2frames.session import Retrying
from s2frames.wire import AppendInput
from s2frames_httpx import AsyncClient, AsyncEmbeddedTransport, AsyncReadSession, AsyncStream
from s2frames_httpx.embedded import EMBEDDED_SETTINGS
from scenes import Flavour

MESSAGES = [b"a", b"long", b"b", b"c"]
RECORDS = [head(b"a"), head(b"lo", records=2, size=4), chunk(b"ng"), head(b"b"), head(b"c")]

# An attempt that is counted ends the session.
ONE_ATTEMPT = Retry(max_attempts=1)

# Bytes: an answer comes in several of these pieces.
PIECE = 50

# Seconds that a user waits; no time passes but while all tasks wait.
PATIENCE = 1.0


# Where a transport may wait


@define(eq=False)
class Points:
    """The points that a transport comes to, of which it waits at one."""

    #: Which one, counted from 1.
    number: int = 0
    #: What it came to, in order.
    seen: list[str] = field(factory=list)
    #: Called when it waits.
    on_wait: Callable[[], object] = lambda: None
    #: Seconds that it waits when an answer is closed, which may be shielded; None: for ever.
    close_seconds: float | None = None

    @property
    def is_reached(self) -> bool:
        return len(self.seen) >= self.number

    async def come_to(self, what: str) -> None:
        self.seen.append(what)
        if len(self.seen) != self.number:
            return
        self.on_wait()
        if what == "close" and self.close_seconds is not None:
            await anyio.sleep(self.close_seconds)
        else:
            await anyio.sleep_forever()


@define(eq=False)
class Waiting(httpx.AsyncBaseTransport):
    """Comes to a point before each answer, before each piece of it, and when it is closed."""

    inner: httpx.AsyncBaseTransport
    points: Points

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self.points.come_to("answer")
        response = await self.inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        body = b"".join([data async for data in response.stream])
        await response.stream.aclose()
        response.stream = _Pieces(body, self.points)
        return response


@define(eq=False)
class _Pieces(httpx.AsyncByteStream):
    body: bytes
    points: Points
    is_closed: bool = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self.is_closed:
            await self.points.come_to("piece" if self.body else "end")
        if self.is_closed or not self.body:
            raise StopAsyncIteration
        piece, self.body = self.body[:PIECE], self.body[PIECE:]
        return piece

    async def aclose(self) -> None:
        self.is_closed = True
        await self.points.come_to("close")


# How a user gives up


class GivenUp(Exception):
    """The user has waited for long enough."""


#: Waits for what a function gives, for `PATIENCE` or until the point is reached.
Wait = Callable[[Callable[[], Awaitable[Any]], Points], Awaitable[Any]]


async def asyncio_timeout(take: Callable[[], Awaitable[Any]], _: Points) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await take()


async def asyncio_wait_for(take: Callable[[], Awaitable[Any]], _: Points) -> Any:
    return await asyncio.wait_for(take(), PATIENCE)


async def cancelled_soon(take: Callable[[], Awaitable[Any]], points: Points) -> Any:
    """The task is cancelled as soon as it waits."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    points.on_wait = lambda: loop.call_soon(task.cancel)
    try:
        return await take()
    except asyncio.CancelledError:
        task.uncancel()
        raise GivenUp from None


async def cancelled_at_once(take: Callable[[], Awaitable[Any]], points: Points) -> Any:
    """The task is cancelled before it waits, and notices when it does."""
    task = asyncio.current_task()
    assert task is not None
    points.on_wait = task.cancel
    try:
        return await take()
    except asyncio.CancelledError:
        task.uncancel()
        raise GivenUp from None


async def cancelled_by_another(take: Callable[[], Awaitable[Any]], points: Points) -> Any:
    """A task of its own is cancelled by this one."""
    waits = asyncio.Event()
    points.on_wait = waits.set

    async def run() -> Any:
        return await take()

    async def cancel() -> None:
        await waits.wait()
        task.cancel()

    task = asyncio.create_task(run())
    other = asyncio.create_task(cancel())
    # An exception that ends an iteration cannot leave a task.
    await asyncio.wait([task])
    other.cancel()
    await asyncio.wait([other])
    if task.cancelled():
        raise GivenUp
    return task.result()


async def anyio_fail_after(take: Callable[[], Awaitable[Any]], _: Points) -> Any:
    with anyio.fail_after(PATIENCE):
        return await take()


async def anyio_move_on(take: Callable[[], Awaitable[Any]], _: Points) -> Any:
    with anyio.move_on_after(PATIENCE):
        return await take()
    raise GivenUp


async def trio_fail_after(take: Callable[[], Awaitable[Any]], _: Points) -> Any:
    with trio.fail_after(PATIENCE):
        return await take()


GAVE_UP = (TimeoutError, trio.TooSlowError, GivenUp)

NATIVE: Sequence[Wait] = (
    asyncio_timeout,
    asyncio_wait_for,
    cancelled_soon,
    cancelled_at_once,
    cancelled_by_another,
)
WAYS = [
    *((Flavour.ASYNCIO, wait) for wait in (*NATIVE, anyio_fail_after, anyio_move_on)),
    *((Flavour.TRIO, wait) for wait in (anyio_fail_after, anyio_move_on, trio_fail_after)),
]

every_way = pytest.mark.parametrize(
    ("flavour", "wait"),
    WAYS,
    indirect=["flavour"],
    ids=lambda value: value.value if isinstance(value, Flavour) else value.__name__,
)

pytestmark = pytest.mark.usefixtures("flavour", "virtual_time")


# Reading


# How the messages are iterated over, and what of an item is compared.
FORMS: dict[str, tuple[Callable[[Any], AsyncIterator[Any]], Callable[[Any], list[bytes]]]] = {
    "messages": (aiter, lambda item: [item]),
    "frames": (lambda session: aiter(session.frames()), lambda item: [item.message]),
    "batches": (lambda session: aiter(session.batches()), list),
}

every_form = pytest.mark.parametrize("form", FORMS)

# For the end of an iteration, which cannot leave a task as it is.
_END = object()


async def filled_service() -> AsyncEmbeddedTransport:
    transport = AsyncEmbeddedTransport()
    async with AsyncClient(EMBEDDED_SETTINGS, transport=transport) as client:
        await client.create_basin("test-basin")
        stream = client.stream("test-basin", "room/1")
        await stream.create()
        for records in (RECORDS[:2], RECORDS[2:]):
            await client.call(append_batch(stream.target, AppendInput(records)))
    return transport


def stream_over(transport: httpx.AsyncBaseTransport) -> AsyncStream:
    return AsyncClient(EMBEDDED_SETTINGS, transport=transport).stream("test-basin", "room/1")


async def rest(service: AsyncEmbeddedTransport, checkpoint: Checkpoint) -> list[bytes]:
    session = stream_over(service).read_session(start=checkpoint, retry=ONE_ATTEMPT)
    async with session as messages:
        return [message async for message in messages]


@define(eq=False)
class Reading:
    """A read to the end by a user who gives up, and goes on."""

    service: AsyncEmbeddedTransport
    points: Points
    wait: Wait
    form: str
    got: list[bytes] = field(factory=list)
    num_given_up: int = 0
    told: list[Retrying] = field(factory=list)

    async def run(self, **options: Any) -> None:
        stream = stream_over(Waiting(self.service, self.points))
        session = stream.read_session(retry=ONE_ATTEMPT, on_retry=self.told.append, **options)
        iterate, messages_of = FORMS[self.form]
        async with session as messages:
            items = iterate(messages)
            while (item := await self._take(items, messages)) is not _END:
                self.got += messages_of(item)
            # It stays at its end.
            assert await anext(items, _END) is _END
            assert self.got + await rest(self.service, messages.checkpoint()) == MESSAGES
        assert self.told == []

    async def _take(self, items: AsyncIterator[Any], session: AsyncReadSession[bytes]) -> Any:
        while True:
            try:
                return await self.wait(lambda: _next(items), self.points)
            except GAVE_UP:
                self.num_given_up += 1
                assert self.got + await rest(self.service, session.checkpoint()) == MESSAGES


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items, _END)


@every_way
@every_form
@pytest.mark.parametrize("limit", [None, 3, 4], ids=lambda limit: f"limit {limit}")
async def test_reading_goes_on_exactly_wherever_it_was_given_up(
    wait: Wait, form: str, limit: int | None
) -> None:
    service = await filled_service()
    expected = MESSAGES[:limit]
    met: set[str] = set()
    for number in count(1):
        # Closing is shielded from scopes, and not from what asyncio has of its own.
        points = Points(number, close_seconds=None if wait in NATIVE else 2 * PATIENCE)
        reading = Reading(service, points, wait, form)
        await reading.run(limit=limit)
        assert reading.got == expected, (number, points.seen)
        if not points.is_reached:
            assert reading.num_given_up == 0
            break
        met.add(points.seen[number - 1])
        # Nobody notices a close that lasts longer where the scope comes to no checkpoint any more.
        is_shielded = points.seen[number - 1] == "close" and wait not in NATIVE
        allowed = (0, 1) if is_shielded else (1,)
        assert reading.num_given_up in allowed, (number, points.seen)
    # Of a bounded read the end is of no interest.
    assert met == {"answer", "piece", "close"} | ({"end"} if limit is None else set())
