"""A line of a rate, a buffer before it and a way behind it, with an append session at its end.

Times are the test's. The transport takes a piece when the buffer has room for all of it, and is
woken from a full buffer only when a part of it is free, as Linux does; the line carries the bytes
in order; the service acks a batch when all of it is across.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from attrs import define, field, frozen

from drive import TARGET
from frames import make_ack
from s2frames.append import AppendProtocol
from s2frames.s2s import MessageDecoder, encode_message
from s2frames.session import CloseRequest, EndData, OpenRequest, Retrying, SendData
from s2frames.settings import AppendSettings
from s2frames.wire import decode_append_input, encode_append_ack

__all__ = ["Line", "Upload"]


@frozen
class Line:
    """What is between a session and the service."""

    #: Bytes a second.
    rate: float
    #: Bytes of the buffer, and the part of it that must be free before a full one takes more.
    buffer: int = 0
    wakes_at: float = 0.0
    #: Seconds there and back, with what the service takes.
    round_trip: float = 0.1
    #: Bytes that the adapter tells of at once.
    piece: int = 64 * 1024
    #: When it carries nothing any more, and takes nothing.
    stops_at: float = float("inf")


@define(eq=False)
class Upload:
    """A session that appends over a line."""

    line: Line
    machine: AppendProtocol
    is_duplex: bool
    now: float = 0.0
    retries: list[Retrying] = field(factory=list)
    #: Since when nothing has moved that should: bytes, or acks.
    waits_since: float = 0.0
    _due: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _order: count[int] = field(factory=count)
    _request_id: int = 0
    _decoder: MessageDecoder = field(factory=MessageDecoder)
    # When the transport has taken, and the line carried, all that was given.
    _taken_at: float = 0.0
    _across_at: float = 0.0
    _is_blocked: bool = False
    _next_seq_num: int = 0
    _has_head: bool = False
    # Pieces' ends, and when they are across; bytes that are cut into pieces, and given.
    _cut: int = 0
    _given: int = 0
    _unacked: list[tuple[float, int]] = field(factory=list)

    @classmethod
    def over(cls, line: Line, **options: Any) -> Upload:
        """A session with these settings."""
        machine = AppendProtocol(TARGET, AppendSettings(**options), random=lambda: 0.0)
        return cls(line, machine, options.get("burst_batches") is None)

    def send(self, at: float, sizes: Sequence[int]) -> None:
        """Messages of these sizes come at a time."""
        self._at(at, lambda: self._accept(sizes))

    def run(self) -> None:
        """Until everything is durable, or an attempt has failed."""
        while not self.retries and (self._due or not self.machine.is_durable):
            timeout = self.machine.next_timeout()
            if self._due and (timeout is None or self._due[0][0] <= timeout):
                self.now, _, happen = heapq.heappop(self._due)
                happen()
            else:
                assert timeout is not None, "it waits for ever"
                self.now = max(self.now, timeout)
                self.machine.handle_timeout(self.now)
            self._step()

    def _at(self, at: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at, next(self._order), happen))

    def _accept(self, sizes: Sequence[int]) -> None:
        if self.machine.is_durable:
            self.waits_since = self.now
        self.machine.send_many([bytes(size) for size in sizes], now=self.now)

    def _step(self) -> None:
        events = self.machine.events_received()
        self.retries += [event for event in events if isinstance(event, Retrying)]
        data: list[bytes] = []
        is_complete = False
        for action in self.machine.data_to_send(self.now):
            if isinstance(action, OpenRequest):
                self._open(action.request_id)
            elif isinstance(action, SendData):
                data += action.data
            elif isinstance(action, EndData):
                is_complete = True
            elif isinstance(action, CloseRequest):
                self._request_id = 0
        if data:
            self._give(b"".join(data))
        if is_complete:
            self._end()

    def _open(self, request_id: int) -> None:
        self._request_id, self._has_head = request_id, False
        self._decoder = MessageDecoder()
        self._cut = self._given = 0
        self._unacked = []

    def _give(self, data: bytes) -> None:
        """All of it, a piece at a time; and the acks of the batches in it."""
        self._decoder.receive_data(data)
        ends, sizes = [], []
        end = self._given
        while (message := self._decoder.next_message()) is not None:
            end += sum(map(len, encode_message(message.body)))
            ends.append(end)
            sizes.append(len(decode_append_input(message.body).records))
        self._given += len(data)
        crossings = []
        while self._cut < self._given:
            size = min(self.line.piece, self._given - self._cut)
            crossings.append((self._cut + size, self._carry(size)))
        for batch_end, num_records in zip(ends, sizes, strict=True):
            place, across_at = next((p, at) for p, at in crossings if p >= batch_end)
            at = across_at - (place - batch_end) / self.line.rate
            self._unacked.append((at, num_records))
        if self.is_duplex:
            self._send_acks(0.0)

    def _carry(self, size: int) -> float:
        """A piece goes into the buffer and over the line; gives when it is across."""
        line, start = self.line, max(self.now, self._taken_at)
        held = max(0.0, self._across_at - start) * line.rate
        before = self._across_at
        self._across_at = max(start, self._across_at) + size / line.rate
        self._taken_at = start
        if held + size > line.buffer:
            has_room = self._across_at - line.buffer / line.rate
            woken = before - line.buffer * (1 - line.wakes_at) / line.rate
            self._taken_at = max(start, has_room, woken if held else start)
        self._cut += size
        request_id = self._request_id
        self._move(self._taken_at, lambda: self._take(request_id, size))
        return self._across_at

    def _take(self, request_id: int, size: int) -> None:
        self.machine.bytes_accepted(request_id, size, self.now)

    def _move(self, at: float, happen: Callable[[], None]) -> None:
        """Something moves, unless the line has stopped."""
        if at >= self.line.stops_at:
            return

        def moves() -> None:
            self.waits_since = self.now
            happen()

        self._at(at, moves)

    def _send_acks(self, not_before: float) -> None:
        for across_at, num_records in self._unacked:
            if across_at < self.line.stops_at:
                self._send_ack(max(across_at, not_before), num_records)
        self._unacked = []

    def _end(self) -> None:
        """The request is complete: a transport that could not read meanwhile does so now."""
        request_id = self._request_id
        self._send_acks(self._taken_at)
        at = max(self._taken_at, self._across_at) + self.line.round_trip
        self._move(at, lambda: self.machine.receive_eof(request_id, self.now))

    def _send_ack(self, at: float, num_records: int) -> None:
        request_id = self._request_id

        def ack() -> None:
            if not self._has_head:
                self._has_head = True
                headers = {"content-type": "s2s/proto"}
                self.machine.receive_response(request_id, 200, headers, self.now)
            body = encode_append_ack(make_ack(self._next_seq_num, num_records))
            self._next_seq_num += num_records
            self.machine.receive_data(request_id, b"".join(encode_message(body)), self.now)

        self._move(at + self.line.round_trip, ack)
