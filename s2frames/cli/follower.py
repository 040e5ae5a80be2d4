"""A second process that follows a stream while this one appends to it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from time import perf_counter
from typing import Any

from attrs import frozen

from s2frames.cli.address import StreamAddress
from s2frames.cli.chain import Chain, ChainCheck
from s2frames.cli.failures import Failure, explain
from s2frames.cli.transports import TRANSPORTS
from s2frames.errors import S2FramesError
from s2frames.settings import Settings

__all__ = ["Arrivals", "Follower", "Following", "following"]

# Seconds without a record after which what is missing will not come.
_PATIENCE = 60


@frozen
class Following:
    """What to follow: a chain that somebody appends at sequence number `start`."""

    transport: str
    settings: Settings
    address: StreamAddress
    start: int
    chain: Chain
    #: Of so many messages at the beginning it is noted when they came.
    num_noted: int


@frozen
class Arrivals:
    """When messages came: seconds of `perf_counter`, which processes share."""

    noted: list[float]
    last: float


@frozen
class _News:
    """The follower has caught up: with what there was, and then with everything."""

    arrivals: Arrivals


@contextmanager
def following(what: Following) -> Iterator[Follower]:
    """Follow in a process of its own, which is gone when the block is left."""
    # Not a fork: this process may have threads.
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    with ours:
        process = context.Process(target=follow, args=(theirs, what), daemon=True)
        with theirs:
            process.start()
        try:
            yield Follower(ours)
        finally:
            process.terminate()
            process.join()
            process.close()


class Follower:
    """The other process, as this one sees it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def wait_until_ready(self) -> None:
        """Wait until it is at the tail. Raises `Failure` when it fails."""
        self._receive()

    def arrivals(self) -> Arrivals:
        """Wait until it has read, and compared, everything. Raises `Failure` when it fails."""
        return self._receive().arrivals

    def _receive(self) -> _News:
        try:
            news: _News | str = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise Failure("the process that follows is gone") from error
        if isinstance(news, str):
            raise Failure(f"the process that follows: {news}")
        return news


def follow(pipe: Any, what: Following) -> None:
    """Follow, and tell through `pipe`. What the other process runs."""
    # Ctrl-C is for the process that started this one, and ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pipe.send(_News(_follow(pipe, what)))
    except Failure as failure:
        pipe.send(failure.message)
    except S2FramesError as error:
        pipe.send(explain(error))


def _follow(pipe: Pipe, what: Following) -> Arrivals:
    check = ChainCheck(what.chain)
    noted: list[float] = []
    last = 0.0
    is_ready = False

    def take(messages: list[bytes]) -> None:
        nonlocal last
        last = perf_counter()
        if (num_left := what.num_noted - len(noted)) > 0:
            noted.extend([last] * min(num_left, len(messages)))
        check.take(messages)

    def tell_ready(_: object) -> None:
        nonlocal is_ready
        if not is_ready:
            is_ready = True
            pipe.send(_News(Arrivals(noted, last)))

    transport = TRANSPORTS[what.transport](what.settings, what.address)
    transport.read(
        take,
        {"start": what.start, "limit": what.chain.num_messages, "wait": _PATIENCE},
        on_caught_up=tell_ready,
    )
    check.finish()
    return Arrivals(noted, last)
