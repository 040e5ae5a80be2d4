"""What can go wrong between a client and the service, chosen at random.

Most of it is a number in a `ConnectionPlan`; an answer that fails is an exchange of its own, put
between the connection and the service's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from math import inf
from random import Random
from typing import Protocol

from attrs import define, field, frozen

from s2frames.embedded import Exchange
from s2frames.embedded.error_bodies import error_body
from s2frames.embedded.exchange import Response, answer
from s2frames.errors import ServiceError
from s2frames.http import Request
from s2frames.s2s import encode_terminal
from s2frames.target import SESSION_CONTENT_TYPE

__all__ = ["Connect", "ConnectionPlan", "Faults", "Line"]

# Bytes of the length and flags of a session's message, and the flag that advises to reconnect.
_PREFIX_BYTES = 4
_RECONNECT_ADVISED = 0x10


class Connect(enum.Enum):
    """What comes of connecting."""

    MADE = enum.auto()
    REFUSED = enum.auto()
    #: Nobody answers.
    TIMES_OUT = enum.auto()


class Grain(enum.Enum):
    """How a line cuts what it carries."""

    WHOLE = enum.auto()
    PIECES = enum.auto()
    CRUMBS = enum.auto()


@define(eq=False)
class Line:
    """One direction of a connection."""

    _random: Random
    #: Seconds that a piece is on its way, at most.
    max_latency: float = 0.01
    grain: Grain = Grain.WHOLE
    #: After so many bytes the connection breaks.
    cut_at: int | None = None
    #: After so many bytes it stalls, and for so long.
    stall_at: int | None = None
    stall_seconds: float = inf

    def latency(self) -> float:
        """Seconds until the next piece arrives, without a stall."""
        return self._random.random() * self.max_latency

    def delay(self, moved: int) -> float:
        """Seconds until the next piece arrives, when `moved` bytes have arrived before."""
        if self.stall_at is not None and moved >= self.stall_at:
            self.stall_at = None
            return self.stall_seconds
        return self.latency()

    def is_cut(self, moved: int) -> bool:
        """Whether nothing moves after `moved` bytes."""
        return self.cut_at is not None and moved >= self.cut_at

    def take(self, waiting: int, moved: int) -> int:
        """How many of the waiting bytes move now."""
        for stop in (self.cut_at, self.stall_at):
            if stop is not None and stop > moved:
                waiting = min(waiting, stop - moved)
        if waiting <= 1 or self.grain is Grain.WHOLE:
            return waiting
        if self.grain is Grain.PIECES:
            return self._random.randint(1, waiting)
        # A large message has crumbs of a size that keeps their number small.
        return min(waiting, self._random.randint(1, 5 + waiting // 32))


Interpose = Callable[[Exchange], Exchange]


def _as_it_is(exchange: Exchange) -> Exchange:
    return exchange


@define(eq=False)
class ConnectionPlan:
    """What becomes of a connection."""

    up: Line
    down: Line
    connect: Connect = Connect.MADE
    #: Bytes of the body that the transport takes before they arrive.
    buffer_bytes: int = 65536
    #: Seconds after which the client learns that the connection broke; None: it never does.
    notice: float | None = 0.0
    #: Seconds after which the service gets what was on its way when the client went; None: never.
    drain: float | None = None
    #: Whether the client still hands in what comes after it closed.
    is_late: bool = False
    #: What the service's answer becomes.
    interpose: Interpose = _as_it_is


@frozen
class Failure:
    """An answer that the service gives instead of the one it should."""

    status: int
    #: None: the words of a proxy.
    code: str | None
    #: Whether what failed so may have taken effect.
    is_ambiguous: bool
    retry_after: str = ""

    def body(self) -> bytes:
        """The body that says so."""
        if self.code is None:
            return b"<html>no service here</html>"
        return error_body(ServiceError(self.status, self.code, "as it happens"))

    def head(self) -> Exchange:
        """The exchange that is answered so at once."""
        headers = {"retry-after-ms": self.retry_after} if self.retry_after else {}
        return answer(Response(self.status, self.body(), headers), None, 0.0)


#: The answers of S2, and of what stands before it, that may pass.
FAILURES = (
    Failure(429, "rate_limited", is_ambiguous=False),
    Failure(429, "rate_limited", is_ambiguous=False, retry_after="1500"),
    Failure(502, "hot_server", is_ambiguous=False),
    Failure(503, "server_draining", is_ambiguous=False),
    Failure(503, "unavailable", is_ambiguous=True),
    Failure(500, "storage", is_ambiguous=True),
    Failure(500, "other", is_ambiguous=True),
    Failure(504, "upstream_timeout", is_ambiguous=True),
    Failure(408, "request_timeout", is_ambiguous=True),
    Failure(502, None, is_ambiguous=True),
    Failure(503, None, is_ambiguous=True),
)


class _Interposed(Exchange):
    """An exchange before another one: what is not changed here is as there."""

    def __init__(self, inner: Exchange) -> None:
        super().__init__(0.0, lambda: None)
        self._inner = inner
        self.response = inner.response

    def receive_data(self, data: bytes, now: float) -> None:
        self._inner.receive_data(data, now)
        self.response = self._inner.response

    def receive_eof(self, now: float) -> None:
        self._inner.receive_eof(now)
        self.response = self._inner.response

    def connection_lost(self, now: float) -> None:
        super().connection_lost(now)
        self._inner.connection_lost(now)

    def next_timeout(self) -> float | None:
        return None if self._ended else self._inner.next_timeout()

    def handle_timeout(self, now: float) -> None:
        self._inner.handle_timeout(now)

    @property
    def finished(self) -> bool:
        return super().finished or (not self._output and self._inner.finished)


class FailingAppend(_Interposed):
    """An append session that answers so many batches and fails at the next one.

    `applied` batches take effect, also those that come after it failed: the service that failed
    goes on with what it has. Without a failure it ends without a word.
    """

    def __init__(self, inner: Exchange, failure: Failure | None, acks: int, applied: int) -> None:
        super().__init__(inner)
        self._failure = failure
        self._acks = acks
        self._applied = max(applied, acks)
        self._taken = 0
        self._body = bytearray()

    def receive_data(self, data: bytes, now: float) -> None:
        self._body += data
        while (size := _message_bytes(self._body)) is not None:
            message = bytes(self._body[:size])
            del self._body[:size]
            self._take(message, now)

    def receive_eof(self, now: float) -> None:
        self._inner.receive_eof(now)

    def _take(self, message: bytes, now: float) -> None:
        if self._taken < self._applied:
            self._inner.receive_data(message, now)
        self._taken += 1
        if self._taken <= self._acks:
            self._output += self._inner.data_to_send()
            return
        self._inner.data_to_send()
        if not self._ended:
            self._ended = True
            if self._failure is not None:
                self._output.append(encode_terminal(self._failure.status, self._failure.body()))


class FailingUnary(_Interposed):
    """A request that takes effect, or not, and is answered with a failure."""

    def __init__(self, inner: Exchange, failure: Failure) -> None:
        super().__init__(inner)
        self._failure = failure
        self.response = None

    def receive_data(self, data: bytes, now: float) -> None:
        self._inner.receive_data(data, now)

    def receive_eof(self, now: float) -> None:
        if self._failure.is_ambiguous:
            self._inner.receive_eof(now)
        self._inner = self._failure.head()
        self.response = self._inner.response

    def data_to_send(self) -> list[bytes]:
        return self._inner.data_to_send()


class FailingRead(_Interposed):
    """A read that fails after so many batches."""

    def __init__(self, inner: Exchange, failure: Failure, batches: int) -> None:
        super().__init__(inner)
        self._failure = failure
        self._batches = batches

    def data_to_send(self) -> list[bytes]:
        if self._ended:
            return super().data_to_send()
        if not self._batches:
            self._ended = True
            return [encode_terminal(self._failure.status, self._failure.body())]
        data = self._inner.data_to_send()
        self._batches -= bool(data)
        return data


class Advising(_Interposed):
    """A session whose messages advise to reconnect, after so many without the advice."""

    def __init__(self, inner: Exchange, messages: int) -> None:
        super().__init__(inner)
        self._messages = messages

    def data_to_send(self) -> list[bytes]:
        data = self._inner.data_to_send()
        if not data:
            return data
        self._messages -= 1
        if self._messages < 0 and len(data[0]) == _PREFIX_BYTES:
            data[0] = data[0][:3] + bytes([data[0][3] | _RECONNECT_ADVISED])
        return data


def _message_bytes(data: bytearray) -> int | None:
    """The size of the first session message, if all of it is there."""
    if len(data) < _PREFIX_BYTES:
        return None
    size = int.from_bytes(data[:3], "big") + 3
    return size if size <= len(data) else None


class _Kind(enum.Enum):
    APPEND = enum.auto()
    READ = enum.auto()
    UNARY = enum.auto()


def _kind_of(request: Request) -> _Kind:
    if request.headers.get("content-type") != SESSION_CONTENT_TYPE:
        return _Kind.UNARY
    return _Kind.APPEND if request.method == "POST" else _Kind.READ


class _Spoil(Protocol):
    def __call__(self, plan: ConnectionPlan, kind: _Kind, /) -> None:
        """Let something go wrong with a connection."""


@define(eq=False)
class Faults:
    """Chooses what becomes of each connection."""

    _random: Random
    #: How many connections of a hundred have something wrong with them.
    percent: int
    #: Whether lines cut what they carry, and how long it may be on its way.
    cuts: bool = True
    max_latency: float = 0.02
    #: Nothing goes wrong any more.
    is_healed: bool = False
    _spoilers: tuple[_Spoil, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._spoilers = (
            self._cut_upload,
            self._cut_upload,
            self._cut_download,
            self._cut_download,
            self._stall,
            self._stall,
            self._spoil_connecting,
            self._answer_with_failure,
            self._fail_within,
            self._fail_within,
            self._advise,
        )

    def plan(self, request: Request) -> ConnectionPlan:
        """What becomes of the connection for `request`."""
        random = self._random
        plan = ConnectionPlan(self._line(), self._line())
        plan.buffer_bytes = random.choice((0, 1, 100, 4096, 65536, 2**22)) or 2**30
        plan.is_late = random.random() < 0.2
        if self.is_healed:
            plan.buffer_bytes = 2**30
            return plan
        plan.drain = random.choice((None, 0.0, 0.2, 3.0, random.random() * 80))
        if random.randrange(100) < self.percent:
            random.choice(self._spoilers)(plan, _kind_of(request))
        return plan

    def _line(self) -> Line:
        grain = Grain.WHOLE
        if self.cuts:
            grain = self._random.choice((Grain.WHOLE, Grain.PIECES, Grain.PIECES, Grain.CRUMBS))
        latency = 0.01 if self.is_healed else self.max_latency
        # Crumbs come quickly, or there would be no end to them.
        return Line(self._random, 0.01 if grain is Grain.CRUMBS else latency, grain)

    def _notice(self) -> float | None:
        return self._random.choice((0.0, 0.05, 2.0, None))

    def _some_byte(self) -> int:
        # Most requests and answers here are that small; what is larger breaks in its beginning.
        span = self._random.choice((2, 100, 800))
        return self._random.choice((0, 1, 3, 4)) + self._random.randrange(span)

    def _cut_upload(self, plan: ConnectionPlan, _kind: _Kind, /) -> None:
        plan.up.cut_at = self._some_byte()
        plan.notice = self._notice()

    def _cut_download(self, plan: ConnectionPlan, _kind: _Kind, /) -> None:
        plan.down.cut_at = self._some_byte()
        plan.notice = self._notice()

    def _stall(self, plan: ConnectionPlan, _kind: _Kind, /) -> None:
        line = self._random.choice((plan.up, plan.down))
        line.stall_at = self._some_byte()
        line.stall_seconds = self._random.choice((0.5, 4.9, 6.0, 19.0, 25.0, inf))

    def _spoil_connecting(self, plan: ConnectionPlan, _kind: _Kind, /) -> None:
        plan.connect = self._random.choice((Connect.REFUSED, Connect.TIMES_OUT))

    def _answer_with_failure(self, plan: ConnectionPlan, _kind: _Kind, /) -> None:
        failure = self._random.choice(FAILURES)

        def interpose(exchange: Exchange) -> Exchange:
            exchange.connection_lost(0.0)
            return failure.head()

        plan.interpose = interpose

    def _fail_within(self, plan: ConnectionPlan, kind: _Kind, /) -> None:
        random = self._random
        failure = random.choice(FAILURES)
        after = random.randrange(4)
        if kind is _Kind.UNARY:
            plan.interpose = lambda exchange: FailingUnary(exchange, failure)
        elif kind is _Kind.READ:
            plan.interpose = lambda exchange: FailingRead(exchange, failure, after)
        else:
            applied = after + (random.randrange(4) if failure.is_ambiguous else 0)
            ending = None if failure.is_ambiguous and random.randrange(3) == 0 else failure
            plan.interpose = lambda exchange: FailingAppend(exchange, ending, after, applied)

    def _advise(self, plan: ConnectionPlan, kind: _Kind, /) -> None:
        if kind is not _Kind.UNARY:
            after = self._random.randrange(3)
            plan.interpose = lambda exchange: Advising(exchange, after)
