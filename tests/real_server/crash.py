"""Clients that append and follow while their server is killed and comes back, again and again."""

from __future__ import annotations

import threading
from pathlib import Path
from random import Random

from attrs import define, field, frozen

from real_server.actors import Follower, Writer
from real_server.killable import KillableServer, killable_server
from real_server.ledger import Chain
from real_server.watched_stream import Summary, WatchedStream, make_streams, summarize
from s2frames.retry import Retry
from s2frames.settings import Endpoints, Settings
from scenes import Flavour, run, together

__all__ = ["CrashReport", "run_crashes"]

# Between two kills, at most. In this time all writers together append some dozens of batches.
_MAX_ACKS = 400

# Small messages, over and over, and now and then one of two records.
_SIZES = [*range(0, 2000, 20), 1_200_000, *range(3000, 6000, 30)]

# A server is back after some seconds: no session gives up. The delays are short, so that the
# clients are there as soon as the server is.
_RETRY = Retry(max_seconds=60.0, connect_seconds=60.0, min_delay=0.01, max_delay=0.1)


@frozen
class CrashReport:
    """What happened in a run, or in some."""

    kills: int = 0
    summary: Summary = field(factory=Summary)

    def __add__(self, other: CrashReport) -> CrashReport:
        return CrashReport(self.kills + other.kills, self.summary + other.summary)

    def __str__(self) -> str:
        return f"kills {self.kills}; {self.summary}"


@define(eq=False)
class _Killer:
    """Kills the server in the middle of appends: after a number of acks by chance."""

    _server: KillableServer
    _random: Random
    _acks: int = field(default=0, init=False)
    _is_over: bool = field(default=False, init=False)
    _news: threading.Condition = field(factory=threading.Condition, init=False)

    def note_acks(self, num: int) -> None:
        """More messages are durable."""
        with self._news:
            self._acks += num
            self._news.notify()

    def has_message(self, _index: int) -> bool:
        """Whether writers are to go on."""
        return not self._is_over

    def stop(self) -> None:
        """No more kills, and no more messages."""
        with self._news:
            self._is_over = True
            self._news.notify()

    def run(self, num_kills: int) -> None:
        """Kill and start so many times, and let the writers go on for a while after the last."""
        try:
            for _ in range(num_kills):
                if not self._wait_for_acks():
                    return
                self._server.kill()
                self._server.start()
            self._wait_for_acks()
        finally:
            self.stop()

    def _wait_for_acks(self) -> bool:
        """Wait for some more acks; whether they came, and not a failure."""
        with self._news:
            goal = self._acks + self._random.randint(1, _MAX_ACKS)
            self._news.wait_for(lambda: self._is_over or self._acks >= goal)
            return not self._is_over


def _stream(flavour: Flavour, killer: _Killer, url: str, seed: int, number: int) -> WatchedStream:
    """A stream with a writer and a follower of that flavour; every second one is exclusive."""
    name = f"crash/{number}"
    settings = Settings(endpoints=Endpoints.at(url), retry=_RETRY)
    random = Random(f"{seed}/{name}")
    writer = Writer(
        flavour=flavour,
        settings=settings,
        stream_name=name,
        chain=Chain(number, seed, _SIZES),
        random=random,
        has_message=killer.has_message,
        is_exclusive=number % 2 == 1,
        on_durable=killer.note_acks,
    )
    follower = Follower(
        flavour=flavour,
        settings=settings,
        stream_name=name,
        random=Random(f"{seed}/{name}/follower"),
    )
    return WatchedStream(
        name=name, is_exclusive=writer.is_exclusive, writers=[writer], followers=[follower]
    )


def run_crashes(directory: Path, seed: int, num_kills: int = 10) -> CrashReport:
    """Append and follow with every flavour while the server is killed, then compare."""
    with killable_server(directory) as server:
        url = server.url
        killer = _Killer(server, Random(f"{seed}/killer"))
        by_flavour = {
            flavour: [_stream(flavour, killer, url, seed, 2 * place + n) for n in range(2)]
            for place, flavour in enumerate(Flavour)
        }
        streams = [stream for some in by_flavour.values() for stream in some]
        make_streams(url, [stream.name for stream in streams])
        _act(by_flavour, killer, url, num_kills)
        return CrashReport(server.kills, summarize(streams, url))


def _act(
    by_flavour: dict[Flavour, list[WatchedStream]], killer: _Killer, url: str, num_kills: int
) -> None:
    """Let the killer work while each flavour does its part, in a thread of its own."""
    errors: list[BaseException] = []

    def act(flavour: Flavour) -> None:
        steps = [step for stream in by_flavour[flavour] for step in stream.steps(url)]
        try:
            run(flavour, lambda: together(flavour, *steps))
        except BaseException as error:  # noqa: BLE001  # raised where the threads are joined
            errors.append(error)
            killer.stop()

    threads = [threading.Thread(target=act, args=(flavour,)) for flavour in by_flavour]
    for thread in threads:
        thread.start()
    try:
        killer.run(num_kills)
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
