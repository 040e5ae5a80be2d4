"""Connections by origin: as many as the streams need, and no more.

A stream goes to the connection with the fewest. When all are full, those who come first are served
first, and another connection is made, in the background, so that a caller who gives up takes
nothing from the others who wait. Why none could be made is told to those for whom nothing else can
come; the others have until their own deadline. A connection ends by itself: idle, broken, or sent
away; and when it is left for its silence again and again, after its last stream.
"""

from __future__ import annotations

import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from operator import attrgetter
from urllib.parse import urlsplit

import trio
from attrs import define, field
from h2.exceptions import ProtocolError
from hpack.struct import HeaderTuple, NeverIndexedHeaderTuple

from s2frames.errors import (
    ConnectError,
    LocalProtocolError,
    S2FramesError,
    TransportError,
    copied,
)
from s2frames.home import Home
from s2frames.http import SECRET_HEADERS, Request
from s2frames.interrupts import plain_interrupts
from s2frames.system.process import THIS_PROCESS
from s2frames_trio.connect import Origin, check_context, connect, connecting
from s2frames_trio.connection_state import ConnectionState
from s2frames_trio.dialing import Dialing
from s2frames_trio.h2_connection import Http2Connection
from s2frames_trio.h2_stream import Http2Stream
from s2frames_trio.interrupts import protected, whole_block
from s2frames_trio.mapping import another

__all__ = ["Connect", "Opening", "Pool", "open_pool"]

#: Makes a transport to an origin by a deadline.
Connect = Callable[[Origin, float], Awaitable[trio.abc.Stream]]

#: Seconds to connect, TLS and the first HTTP/2 frames included; the official clients' value.
DEFAULT_CONNECT_TIMEOUT = 3.0

#: Seconds to wait for a stream in all: another connection may have to be made for it.
DEFAULT_OPEN_TIMEOUT = 8.0

# Connections to one origin, at 100 streams each with s2.dev.
_MAX_CONNECTIONS = 100

# So often in a row a connection is left for what came of a stream, with no answer in between, until
# it takes no more: once may be the stream's fault.
_MAX_TIMES_LEFT = 3

_CLOSED = "the client is closed"

# What a header may hold (RFC 9110, 5.5) and ASCII can say.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_VISIBLE = re.compile("[!-~]+")
# What is the connection's and not the request's (RFC 9113, 8.2.2), or said by ":authority".
_CONNECTION_HEADERS = frozenset(
    {"connection", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"}
)
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")


@define(eq=False)
class Opening:
    """A request that waits for a stream."""

    _place: _Place
    # They hold the access token.
    headers: list[HeaderTuple] = field(repr=False)
    end: bool
    # Connections up to this number are too old for it.
    after: int
    timeout: float
    #: When it has waited long enough: `expire` is to be called then.
    deadline: float
    #: Called once, when there is a stream or will be none, unless it was cancelled.
    on_settled: Callable[[], object]
    _outcome: Http2Stream | S2FramesError | None = None

    @property
    def is_settled(self) -> bool:
        """Whether there is a `result`."""
        return self._outcome is not None

    def result(self) -> Http2Stream:
        """The stream, for the one who asked to use and to reset. Raises why there is none."""
        if isinstance(self._outcome, Http2Stream):
            return self._outcome
        if self._outcome is None:
            raise AssertionError("it is still waiting")
        raise copied(self._outcome)

    def cancel(self) -> None:
        """Be done with it: a stream that has come is reset. Idempotent."""
        if isinstance(self._outcome, Http2Stream):
            self._outcome.reset()
        self._leave()

    def expire(self, now: float) -> None:
        """Give up, if it is time."""
        if self._outcome is None and now >= self.deadline:
            self._leave()
            self.settle(self._place.explain_wait(self.timeout))

    def _leave(self) -> None:
        if self in self._place.waiting:
            self._place.waiting.remove(self)

    def settle(self, outcome: Http2Stream | S2FramesError) -> None:
        """Tell what came of it."""
        self._outcome = outcome
        self.on_settled()

    def open_on(self, connection: Http2Connection) -> None:
        """Take the room there: nobody else can come in between."""
        try:
            self.settle(connection.open_stream(self.headers, end=self.end))
        except ProtocolError as error:
            self.settle(LocalProtocolError(f"the request cannot be sent: {error}"))


@define(eq=False)
class _Place:
    """The connections to one origin, and the calls that wait for one, the first to come first."""

    origin: Origin
    dialing: Dialing
    connections: list[Http2Connection] = field(factory=list)
    waiting: list[Opening] = field(factory=list)
    # In which a task waits for the time of the next dial.
    alarm: trio.CancelScope | None = None
    # Why the last dial came to nothing, until a new connection carries a stream or all were told.
    last_failure: S2FramesError | None = None
    # The newest connection that anybody ever found too old.
    newest_after: int = 0

    def is_needed(self, now: float) -> bool:
        """Whether there is anything to remember."""
        has_any = self.connections or self.waiting or self.dialing.under_way or self.alarm
        return bool(has_any) or not self.dialing.may_begin(now)

    def add(self, opening: Opening) -> None:
        """Put a request in line."""
        self.waiting.append(opening)
        self.newest_after = max(self.newest_after, opening.after)

    def hand_out(self) -> None:
        """Give what room there is to those who wait, in their turn."""
        waiting, self.waiting = self.waiting, []
        for index, waiter in enumerate(waiting):
            if not any(connection.has_room for connection in self.connections):
                # Nor will the others find any: there may be a thousand of them.
                self.waiting += waiting[index:]
                return
            connection = self._pick(waiter.after)
            if connection is None:
                self.waiting.append(waiter)
            else:
                if self.dialing.note_use(connection.number):
                    self.last_failure = None
                waiter.open_on(connection)

    def drop_lost(self, now: float) -> None:
        """Forget the connections that are over."""
        for connection in [c for c in self.connections if c.state is ConnectionState.LOST]:
            self.connections.remove(connection)
            if self.dialing.end(connection.number, now):
                self.last_failure = ConnectError(
                    f"{self.origin}: the connection ended before it took a request"
                )

    def refuse_hopeless(self, error: S2FramesError) -> None:
        """Tell `error` to those for whom nothing can come any more."""
        live = (c.number for c in self.connections if c.state is ConnectionState.OPEN)
        newest = max((*self.dialing.under_way, *live), default=0)
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            if waiter.after < newest:
                self.waiting.append(waiter)
            else:
                waiter.settle(another(error))
        if not self.waiting:
            self.last_failure = None
            self.dialing.begin_anew()

    def explain_wait(self, timeout: float) -> ConnectError:
        """Why there was no stream for so long."""
        failure = self.last_failure
        why = "" if failure is None else f", and no other could be made: {failure}"
        error = ConnectError(
            f"{self.origin} had no room for another stream within {timeout:g} s, "
            f"on {len(self.connections)} connections{why}"
        )
        error.__cause__ = failure
        return error

    def note_left(self, number: int) -> None:
        """A connection is left, because a stream had no answer, or because its peer wishes so."""
        for connection in self.connections:
            if connection.number == number:
                connection.times_left += 1
                if connection.times_left >= _MAX_TIMES_LEFT:
                    connection.leave()
                return

    def refuse(self, error: S2FramesError) -> None:
        """Tell all who wait that there will be no stream."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.settle(another(error))

    def _pick(self, after: int) -> Http2Connection | None:
        """The connection with the fewest streams that has room, of those made since `after`.

        One that was left and has not answered since comes last.
        """
        room = [c for c in self.connections if c.has_room]
        fit = [c for c in room if c.number > after]
        is_coming = any(number > after for number in self.dialing.under_way)
        if not fit and self._is_full and not is_coming:
            # There is no newer one, and will be none.
            fit = room
        return min(fit, key=lambda c: (c.times_left > 0, c.num_streams), default=None)

    @property
    def _is_full(self) -> bool:
        return len(self.connections) + len(self.dialing.under_way) >= _MAX_CONNECTIONS

    def needs_another(self) -> bool:
        """Whether to make another connection for those who wait."""
        if not self.waiting or self._is_full:
            return False
        if self.dialing.is_coming(self.newest_after, len(self.waiting)):
            # Found without a look at each who waits: there may be a thousand of them.
            return False
        after: int = max(map(attrgetter("after"), self.waiting))
        live = [c for c in self.connections if c.number > after]
        # A peer that allows no stream at all on a connection would not do so on the next.
        if any(c.state is ConnectionState.OPEN and not c.num_streams for c in live):
            return False
        return not self.dialing.is_coming(after, len(self.waiting))


class Pool:
    """Opens streams; made by `open_pool`.

    Args:
        nursery: where its connections live.
        connect: makes transports.
        connect_timeout: seconds to make a connection, until it can be used.
        open_timeout: seconds to wait for a stream in all.
        random: floats from 0 up to, not including, 1; for pauses between dials.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        connect: Connect,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        open_timeout: float = DEFAULT_OPEN_TIMEOUT,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._nursery = nursery
        self._connect = connect
        self._connect_timeout = connect_timeout
        self._open_timeout = open_timeout
        self._random = random
        self._places: dict[Origin, _Place] = {}
        self._num_dialed = 0
        #: Set when the pool is closed, for those who wait for something else.
        self.closed = trio.Event()
        self._home = Home("a client", THIS_PROCESS)

    @protected
    async def open_stream(
        self, request: Request, *, end: bool = False, after: int = 0
    ) -> Http2Stream:
        """Begin a request, and return once it has a stream; use that in an `async with` block.

        The body is not sent: that is for `send_data` and `end_data`. With `end` there is none. Who
        leaves a connection gives its number as `after`, and gets one that was made later: others
        who leave it have made it already, perhaps. Raises `ConnectError` when no connection can be
        made or none has room in time: nothing was sent then. Raises `LocalProtocolError` for a pool
        that is closed, or was made in another process.
        """
        await trio.lowlevel.checkpoint()
        settled = trio.Event()
        opening = self.begin_stream(request, on_settled=settled.set, end=end, after=after)
        # Not if it is settled: who is cancelled then would have to give the stream back.
        if not opening.is_settled:
            try:
                with trio.move_on_at(opening.deadline):
                    await settled.wait()
            except BaseException:
                opening.cancel()
                raise
            opening.expire(trio.current_time())
        return opening.result()

    def begin_stream(
        self,
        request: Request,
        *,
        on_settled: Callable[[], object],
        end: bool = False,
        after: int = 0,
    ) -> Opening:
        """`open_stream` for who cannot wait: `on_settled` is called when there is a result."""
        origin = Origin.of(request.url)
        headers = _make_headers(request, origin)
        self._check_open()
        place = self._places.setdefault(origin, _Place(origin, Dialing(self._random)))
        if after:
            place.note_left(after)
        opening = Opening(
            place,
            headers,
            end,
            after=after,
            timeout=self._open_timeout,
            deadline=trio.current_time() + self._open_timeout,
            on_settled=on_settled,
        )
        place.add(opening)
        self._advance(place)
        return opening

    def _advance(self, place: _Place) -> None:
        """Something has changed: do what can be done for those who wait."""
        now = trio.current_time()
        place.drop_lost(now)
        place.hand_out()
        while place.needs_another():
            if not place.dialing.may_begin(now):
                self._come_back(place)
                return
            self._dial(place)

    def _come_back(self, place: _Place) -> None:
        """Look again when a dial may begin."""
        if place.alarm is None:
            place.alarm = trio.CancelScope()
            self._nursery.start_soon(self._pause, place, place.alarm)
        place.alarm.deadline = place.dialing.not_before

    @protected
    async def _pause(self, place: _Place, alarm: trio.CancelScope) -> None:
        with alarm:
            await trio.sleep_forever()
        place.alarm = None
        self._advance(place)

    def _dial(self, place: _Place) -> None:
        self._num_dialed += 1
        place.dialing.begin(self._num_dialed)
        self._nursery.start_soon(self._make_connection, place, self._num_dialed)

    @protected
    async def _make_connection(self, place: _Place, number: int) -> None:
        """Make a connection and serve it until it ends."""
        deadline = trio.current_time() + self._connect_timeout
        try:
            transport = await self._connect(place.origin, deadline)
            connection = Http2Connection(
                transport,
                str(place.origin),
                number=number,
                on_change=partial(self._advance, place),
            )
            self._nursery.start_soon(self._serve, place, connection)
            await self._wait_open(place, connection, deadline)
        except S2FramesError as error:
            place.last_failure = error
            place.dialing.fail(number, trio.current_time())
            place.refuse_hopeless(error)
        except BaseException:
            # Only with the pool: whoever waits must not have it try again for ever.
            self.close()
            raise
        self._advance(place)
        self._forget_unless_needed(place)

    async def _wait_open(self, place: _Place, connection: Http2Connection, deadline: float) -> None:
        try:
            with connecting(place.origin, "the HTTP/2 handshake", deadline):
                await connection.wait_open()
        except S2FramesError as error:
            connection.close(error)
            if type(error) is TransportError:
                # It opened and was lost at once: nobody has sent anything on it.
                raise ConnectError(f"cannot connect: {error}") from error
            raise
        place.dialing.succeed(connection.number, connection.max_streams)
        place.connections.append(connection)

    @protected
    async def _serve(self, place: _Place, connection: Http2Connection) -> None:
        try:
            await connection.run()
        finally:
            self._advance(place)
            self._forget_unless_needed(place)

    def _forget_unless_needed(self, place: _Place) -> None:
        """Each basin has an origin of its own, and a client may see a great many in its time."""
        is_there = self._places.get(place.origin) is place
        if is_there and not place.is_needed(trio.current_time()):
            del self._places[place.origin]

    def start_soon(self, task: Callable[[], Awaitable[object]]) -> None:
        """Run a task for as long as the pool lasts. Raises when the pool is closed."""
        self._check_open()
        self._nursery.start_soon(task)

    def close(self) -> None:
        """End all connections: what is open fails. Idempotent."""
        self.closed.set()
        for place in self._places.values():
            # First, or a connection that ends would be replaced for those who wait.
            place.refuse(LocalProtocolError(_CLOSED))
            for connection in list(place.connections):
                connection.close(LocalProtocolError(_CLOSED))

    def _check_open(self) -> None:
        if self.closed.is_set():
            raise LocalProtocolError(_CLOSED)
        self._home.check()


@whole_block
@asynccontextmanager
async def open_pool(
    *,
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
    open_timeout: float = DEFAULT_OPEN_TIMEOUT,
    ssl_context: ssl.SSLContext | None = None,
    connect_with: Connect | None = None,
    random: Callable[[], float] = random.random,
) -> AsyncIterator[Pool]:
    """A pool for as long as the block lasts; leaving it ends all connections.

    `ssl_context` replaces the system's certificates, `connect_with` the way to make transports.
    `random` gives floats from 0 up to, not including, 1, for pauses between dials.
    The context is told to offer HTTP/2 alone (ALPN), and stays so: Python can neither copy one nor
    say it for a single connection. Raises `LocalProtocolError` for one that HTTP/2 cannot use.
    """
    if ssl_context is not None:
        check_context(ssl_context)

    async def connect_directly(origin: Origin, deadline: float) -> trio.abc.Stream:
        nonlocal ssl_context
        if ssl_context is None and origin.scheme == "https":
            # Once: reading the system's certificates takes tens of milliseconds.
            ssl_context = ssl.create_default_context()
        return await connect(origin, deadline, ssl_context)

    failure: BaseException | None = None
    # Leaving is one, but not for who is cancelled.
    await trio.lowlevel.checkpoint()
    with plain_interrupts():
        async with trio.open_nursery() as nursery:
            pool = Pool(
                nursery,
                connect=connect_with or connect_directly,
                connect_timeout=connect_timeout,
                open_timeout=open_timeout,
                random=random,
            )
            try:
                yield pool
            except BaseException as error:  # noqa: BLE001  # raised below, outside of the nursery
                failure = error
            pool.close()
            # Connections that end say so to their peers, in a time of their own.
            nursery.cancel_scope.shield = True
            nursery.cancel_scope.cancel()
    if failure is not None:
        # As it was: the nursery would have made a group of it.
        raise failure


def _make_headers(request: Request, origin: Origin) -> list[HeaderTuple]:
    """The request's headers, secret ones marked never to be remembered on the way."""
    parts = urlsplit(request.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    for name, value in ((":method", request.method), (":path", target)):
        if not _VISIBLE.fullmatch(value):
            raise LocalProtocolError(f"the header {name} cannot be {value[:100]!r}")
    headers = {"user-agent": "s2frames", **request.headers}
    for name, value in headers.items():
        # The value may be a secret: it stays out of the message.
        is_sound = _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)
        if not is_sound or name in _CONNECTION_HEADERS:
            raise LocalProtocolError(f"the header {name!r} has a name or value that cannot be sent")
    return [
        HeaderTuple(":method", request.method),
        HeaderTuple(":scheme", origin.scheme),
        HeaderTuple(":authority", origin.authority),
        # Each stream has its own: remembered, they would push out what all have in common.
        NeverIndexedHeaderTuple(":path", target),
        *(
            (NeverIndexedHeaderTuple if name in SECRET_HEADERS else HeaderTuple)(name, value)
            for name, value in headers.items()
        ),
    ]
