"""Runs operations against the embedded service, with a clock of its own and faults to order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from attrs import define, field, frozen

from embedded.host import BASIN, STREAM, Host, finish
from s2frames.errors import ConnectError, S2FramesError, TransportError
from s2frames.http import Request
from s2frames.operation import Operation, Plan
from s2frames.retry import Retry
from s2frames.session import OpenRequest, Retrying
from s2frames.settings import Endpoints, Settings
from s2frames.target import StreamTarget

T = TypeVar("T")

SETTINGS = Settings(endpoints=Endpoints.at("http://localhost"))
TARGET = StreamTarget(SETTINGS, BASIN, STREAM)


@frozen
class Fault:
    """What befalls one request; as it is, nothing."""

    #: Whether the service gets it.
    is_sent: bool = True
    #: Answered in the service's place.
    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(factory=dict)
    #: Bytes of the answer that arrive before the connection breaks.
    keep: int | None = None
    error: S2FramesError | None = None


def refused() -> Fault:
    """Nobody is there."""
    return Fault(is_sent=False, keep=-1, error=ConnectError("connection refused"))


def lost(keep: int = -1) -> Fault:
    """The service acts, and of its answer only `keep` bytes arrive; -1: not even the head."""
    return Fault(keep=keep, error=TransportError("the connection broke"))


def answered(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Something answers in the service's place."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(is_sent=False, status=status, body=body, headers=named)


@define(eq=False)
class Run(Generic[T]):
    """An operation that is over, and how it went."""

    operation: Operation[T]
    requests: list[Request] = field(factory=list)
    events: list[Retrying] = field(factory=list)
    started_at: float = 0.0
    ended_at: float = 0.0

    def result(self) -> T:
        """See `Operation.result`."""
        return self.operation.result()


def run(
    plan: Plan[T],
    host: Host,
    faults: Iterable[Fault] = (),
    *,
    piece: int = 1 << 20,
    retry: Retry | None = None,
    settings: Settings = SETTINGS,
    before_request: Callable[[int], object] = lambda _number: None,
) -> Run[T]:
    """Carry out `plan`; answers arrive in pieces of so many bytes.

    `before_request` is called with 1 before the first request, and so on.
    """
    operation = Operation(plan, settings, random=lambda: 0.0, retry=retry)
    done = Run(operation, started_at=host.now)
    left = iter(faults)
    while not operation.is_over:
        opened = [a for a in operation.data_to_send(host.now) if isinstance(a, OpenRequest)]
        assert len(opened) <= 1
        for action in opened:
            done.requests.append(action.request)
            before_request(len(done.requests))
            _answer(operation, action, host, next(left, Fault()), piece)
        done.events += operation.events_received()
        if not opened and not operation.is_over:
            deadline = operation.next_timeout()
            assert deadline is not None, "nobody waits for anything: this is a hang"
            host.now = max(host.now, deadline)
            operation.handle_timeout(host.now)
    done.ended_at = host.now
    assert list(left) == []
    return done


def _answer(
    operation: Operation[T], action: OpenRequest, host: Host, fault: Fault, piece: int
) -> None:
    number, now = action.request_id, host.now
    status, headers, body = fault.status or 0, fault.headers, fault.body
    if fault.is_sent:
        status, headers, body = serve(host, action.request)
    if fault.keep is not None:
        body = body[: max(fault.keep, 0)]
    if fault.keep != -1:
        operation.receive_response(number, status, headers, now)
    for at in range(0, len(body), piece):
        operation.receive_data(number, body[at : at + piece], now)
    if fault.error is not None:
        operation.connection_lost(number, fault.error, now)
    else:
        operation.receive_eof(number, now)


def serve(host: Host, request: Request) -> tuple[int, Mapping[str, str], bytes]:
    """What the service answers: status, headers and body."""
    url = urlsplit(request.url)
    target = f"{url.path}?{url.query}" if url.query else url.path
    exchange = host.service.open(request.method, target, dict(request.headers), host.now)
    exchange.receive_data(request.body, host.now)
    exchange.receive_eof(host.now)
    reply = finish(exchange)
    return reply.status, reply.headers, reply.body
