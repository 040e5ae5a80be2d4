"""Connections between a machine's requests and the service's exchanges.

A connection moves bytes both ways a piece at a time. What can go wrong on it is settled when it is
opened, in its `ConnectionPlan`. It may outlive its client: what the transport had taken of a
request still arrives at the service, also long after the client went on with another connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Protocol
from urllib.parse import urlsplit

from attrs import define, field

from s2frames.embedded import Exchange, Service
from s2frames.errors import ConnectError, S2FramesError, TransportError
from s2frames.http import Request
from simulation.faults import Connect, ConnectionPlan, Line
from simulation.world import World

__all__ = ["Connection", "Network", "Peer"]

# Seconds after which a transport gives up on connecting, and on bytes that do not leave; the
# defaults of `Settings`.
_CONNECT_TIMEOUT = 3.0
_WRITE_TIMEOUT = 5.0


class Peer(Protocol):
    """The client's end of a connection."""

    def accepted(self, connection: Connection, num_bytes: int) -> None:
        """The transport took so many bytes more."""

    def answered(self, connection: Connection, status: int, headers: Mapping[str, str]) -> None:
        """The answer has begun."""

    def received(self, connection: Connection, data: bytes) -> None:
        """Bytes of the answer."""

    def ended(self, connection: Connection) -> None:
        """The answer is complete."""

    def lost(self, connection: Connection, error: S2FramesError) -> None:
        """The connection broke."""


@define(eq=False)
class Network:
    """Everything between the clients and the service, which may be down."""

    world: World
    service: Service
    choose_plan: Callable[[Request], ConnectionPlan]
    #: Those on which something may still move, in the order in which they were opened.
    connections: dict[Connection, None] = field(factory=dict)
    _down_until: float = 0.0

    def open(self, request_id: int, request: Request, peer: Peer, *, is_duplex: bool) -> Connection:
        """Connect, send the head of a request and what it has of a body."""
        connection = Connection(
            self, request_id, request, self.choose_plan(request), peer, is_duplex
        )
        self.connections[connection] = None
        connection.start()
        return connection

    @property
    def is_down(self) -> bool:
        """Whether the service is not there."""
        return self.world.now < self._down_until

    @property
    def is_quiet(self) -> bool:
        """Whether nothing moves that nobody waits for."""
        return not any(connection.is_orphan for connection in self.connections)

    def cut(self, method: str) -> None:
        """The connections of requests with this method break, with all that is on its way."""
        for connection in tuple(self.connections):
            if connection.method == method:
                connection.break_at_service()

    def go_down(self, seconds: float) -> None:
        """The service stops, with every connection, and comes back with what it had stored."""
        self.world.note("service", "is down for", seconds)
        self._down_until = max(self._down_until, self.world.now + seconds)
        for connection in tuple(self.connections):
            connection.break_at_service()


@define(eq=False)
class Connection:
    """One request on its way to the service, and its answer on its way back."""

    _network: Network
    request_id: int
    _request: Request
    plan: ConnectionPlan
    _peer: Peer | None
    _is_duplex: bool
    _world: World = field(init=False)
    _exchange: Exchange | None = field(default=None, init=False)
    _is_connected: bool = field(default=False, init=False)
    # Bytes of the body that were given, taken by the transport, and delivered; what lies between
    # the first and the last, and whether the body ends there.
    _given: int = field(default=0, init=False)
    _accepted: int = field(default=0, init=False)
    _delivered: int = field(default=0, init=False)
    _upload: bytearray = field(factory=bytearray, init=False)
    _is_complete: bool = field(default=False, init=False)
    _is_upload_over: bool = field(default=False, init=False)
    # Bytes of the answer that are on their way, and how many arrived.
    _download: bytearray = field(factory=bytearray, init=False)
    _received: int = field(default=0, init=False)
    _is_answered: bool = field(default=False, init=False)
    _is_download_over: bool = field(default=False, init=False)
    _is_paused: bool = field(default=False, init=False)
    # Whether its client has nothing more to do with it.
    _is_let_go: bool = field(default=False, init=False)
    # Whether the next move of each direction is scheduled, and when the service is called next.
    _up_is_due: bool = field(default=False, init=False)
    _down_is_due: bool = field(default=False, init=False)
    _service_due: float = field(default=inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._world = self._network.world

    @property
    def method(self) -> str:
        """The request's method."""
        return self._request.method

    @property
    def is_orphan(self) -> bool:
        """Whether its client is gone while the service may still get something."""
        return self._is_let_go and not self._is_upload_over

    # The client's side

    def start(self) -> None:
        """Begin to connect."""
        connect = self.plan.connect
        if self._network.is_down and connect is Connect.MADE:
            connect = Connect.REFUSED
        if connect is Connect.MADE:
            self._world.after(self.plan.up.latency(), self._connected)
            return
        is_refused = connect is Connect.REFUSED
        words = "the connection was refused" if is_refused else "connecting took too long"
        delay = self.plan.up.latency() if is_refused else _CONNECT_TIMEOUT
        self._world.after(delay, lambda: self._fail(ConnectError(words)))

    def send(self, data: bytes) -> None:
        """Take more of the request's body."""
        self._upload += data
        self._given += len(data)
        self._accept()
        self._schedule_up()
        self._watch_writing()

    def end(self) -> None:
        """The request's body is complete."""
        self._is_complete = True
        self._schedule_up()
        self._schedule_down()

    def pause(self) -> None:
        """The client takes nothing of the answer for now."""
        self._is_paused = True

    def resume(self) -> None:
        """The client takes the answer again."""
        self._is_paused = False
        self._schedule_down()

    def close(self) -> None:
        """The client is gone, or has no interest in the rest."""
        if not self.plan.is_late:
            self._peer = None
        self._let_go()

    def die(self) -> None:
        """The client's process is no more."""
        self._peer = None
        self._let_go()

    def _fail(self, error: S2FramesError) -> None:
        """Tell the client that the connection broke."""
        peer, self._peer = self._peer, None
        self._is_download_over = True
        self._let_go()
        if peer is not None:
            peer.lost(self, error)

    def _accept(self) -> None:
        """The transport takes what its buffer holds."""
        if not self._is_connected or self._is_let_go or self._peer is None:
            return
        # A share of a large body, so that it does not go byte by byte.
        room = self.plan.buffer_bytes + len(self._upload) // 8
        taken = min(self._given, self._delivered + room) - self._accepted
        if taken > 0:
            self._accepted += taken
            self._peer.accepted(self, taken)

    def _watch_writing(self) -> None:
        """Give up when bytes do not leave for too long."""
        accepted = self._accepted
        if accepted == self._given or self._peer is None:
            return

        def check() -> None:
            if self._peer is not None and self._accepted == accepted:
                self._fail(TransportError("sending took too long"))
            else:
                self._watch_writing()

        self._world.after(_WRITE_TIMEOUT, check)

    def _let_go(self) -> None:
        """What the transport had taken arrives later, or never."""
        if self._is_let_go:
            return
        self._is_let_go = True
        is_lost = self.plan.drain is None or not self._is_connected or self._network.is_down
        if is_lost or self._is_upload_over or self.plan.up.is_cut(self._delivered):
            self._drop()
            return
        self._is_complete = self._is_complete and self._accepted == self._given
        del self._upload[self._accepted - self._delivered :]
        self._world.after(self.plan.drain or 0.0, self._drain)

    # The way to the service

    def _connected(self) -> None:
        if self._is_upload_over:
            return
        if self._network.is_down:
            self._fail(ConnectError("the connection was refused"))
            return
        self._is_connected = True
        self._open_exchange()
        self._accept()
        self._schedule_up()
        self._after_service()

    def _open_exchange(self) -> None:
        url = urlsplit(self._request.url)
        path = f"{url.path}?{url.query}" if url.query else url.path
        self._exchange = self.plan.interpose(
            self._network.service.open(
                self._request.method,
                path,
                dict(self._request.headers),
                self._world.now,
                self._schedule_down,
            )
        )

    def _schedule_up(self) -> None:
        if self._up_is_due or self._is_upload_over or not self._is_connected:
            return
        has_more = self._accepted > self._delivered
        if has_more or (self._is_complete and self._delivered == self._given):
            self._schedule(self.plan.up, self._delivered, self._move_up)
            self._up_is_due = True

    def _schedule(self, line: Line, moved: int, move: Callable[[], None]) -> None:
        delay = line.delay(moved)
        if delay < inf:
            self._world.after(delay, move)

    def _move_up(self) -> None:
        self._up_is_due = False
        if self._is_upload_over or self._is_let_go or self._exchange is None:
            return
        if self.plan.up.is_cut(self._delivered):
            self._break()
            return
        waiting = self._accepted - self._delivered
        if waiting:
            count = self.plan.up.take(waiting, self._delivered)
            self._deliver(count)
            self._accept()
        elif self._is_complete:
            self._is_upload_over = True
            self._exchange.receive_eof(self._world.now)
        self._after_service()
        self._schedule_up()

    def _deliver(self, count: int) -> None:
        data = bytes(self._upload[:count])
        del self._upload[:count]
        self._delivered += count
        if self._exchange is not None:
            self._exchange.receive_data(data, self._world.now)

    def _drain(self) -> None:
        """Deliver what was left when the client went."""
        if self._is_upload_over or self._exchange is None:
            return
        waiting = self.plan.up.take(len(self._upload), self._delivered)
        if waiting:
            self._world.note("network", "an old connection delivers", waiting)
            self._deliver(waiting)
        if self._upload and not self.plan.up.is_cut(self._delivered):
            self._world.after(self.plan.up.latency(), self._drain)
            return
        if self._is_complete and not self._upload:
            self._exchange.receive_eof(self._world.now)
        self._drop()

    # The way back

    def _after_service(self) -> None:
        """The service was called: it may have something to say, now or later."""
        self._schedule_down()
        self._watch_service()

    def _watch_service(self) -> None:
        """Call the service when it has something to do by itself."""
        due = None if self._exchange is None else self._exchange.next_timeout()
        if due is not None and due < self._service_due:
            self._service_due = due
            self._world.at(due, self._call_service)

    def _call_service(self) -> None:
        if self._exchange is None or self._is_download_over:
            return
        if self._world.now >= self._service_due:
            self._service_due = inf
        self._exchange.handle_timeout(self._world.now)
        self._after_service()

    def _schedule_down(self) -> None:
        if self._down_is_due or self._is_download_over or self._is_paused:
            return
        is_all_sent = self._is_complete and self._accepted == self._given
        if self._is_connected and self._peer is not None and (self._is_duplex or is_all_sent):
            self._schedule(self.plan.down, self._received, self._move_down)
            self._down_is_due = True

    def _move_down(self) -> None:
        self._down_is_due = False
        exchange, peer = self._exchange, self._peer
        if exchange is None or peer is None or self._is_download_over or self._is_paused:
            return
        if exchange.response is None:
            return
        if not self._is_answered:
            self._is_answered = True
            peer.answered(self, exchange.response.status, dict(exchange.response.headers))
            self._schedule_down()
            return
        if not self._download:
            exchange.handle_timeout(self._world.now)
            self._download += b"".join(exchange.data_to_send())
            self._watch_service()
        if self._download:
            self._hand_out(peer)
        elif exchange.finished:
            self._finish(peer)

    def _hand_out(self, peer: Peer) -> None:
        if self.plan.down.is_cut(self._received):
            self._break()
            return
        count = self.plan.down.take(len(self._download), self._received)
        data = bytes(self._download[:count])
        del self._download[:count]
        self._received += count
        peer.received(self, data)
        self._schedule_down()

    def _finish(self, peer: Peer) -> None:
        self._is_download_over = True
        self._peer = None
        peer.ended(self)
        self._let_go()

    # The end

    def break_at_service(self) -> None:
        """The service is gone."""
        if self._is_connected:
            self._drop()
            self._break()

    def _break(self) -> None:
        """Nothing moves any more. The client learns of it later, or never."""
        self._is_download_over = True
        if self.plan.up.is_cut(self._delivered):
            self._drop()
        if self.plan.notice is not None:
            error = TransportError("the connection broke")
            self._world.after(self.plan.notice, lambda: self._fail(error))

    def _drop(self) -> None:
        """The service gets no more of it."""
        self._is_upload_over = True
        self._upload.clear()
        if self._exchange is not None:
            self._exchange.connection_lost(self._world.now)
        self._network.connections.pop(self, None)
