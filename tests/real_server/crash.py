"""Clients that append and follow while their server is killed and comes back, again and again."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from random import Random

from attrs import define, field, frozen

from real_server.actors import Follower, Writer
from real_server.fault_proxy import Fault, FaultPlan, FaultProxy, proxies_in_thread
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
    _has_failed: bool = field(default=False, init=False)
    _news: threading.Condition = field(factory=threading.Condition, init=False)

    def note_acks(self, num: int) -> None:
        """More messages are durable."""
        with self._news:
            self._acks += num
            self._news.notify()

    def has_message(self, _index: int) -> bool:
        """Whether writers are to go on."""
        return not self._is_over

    def has_server(self) -> bool:
        """Whether followers are to go on: else the end will not come."""
        return not self._has_failed

    def fail(self) -> None:
        """Something went wrong: nobody is to wait for anything."""
        self._has_failed = True
        self.stop()

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
                    break
                self._server.kill()
                self._server.start()
            self._wait_for_acks()
        except BaseException:
            self.fail()
            raise
        self.stop()

    def _wait_for_acks(self) -> bool:
        """Wait for some more acks; whether they came, and not a failure."""
        with self._news:
            goal = self._acks + self._random.randint(1, _MAX_ACKS)
            self._news.wait_for(lambda: self._is_over or self._acks >= goal)
            return not self._is_over


def _draw_cut(random: Random) -> FaultPlan:
    """Half of the connections end at a byte of some ack, which is then lost: what landed is sent
    again. (A server that is killed has mostly told of all that landed.)
    """
    if random.random() < 0.5:
        return FaultPlan()
    return FaultPlan(fault=Fault.CUT, after_bytes=int(2 ** random.uniform(9, 13)))


def _stream(
    flavour: Flavour, killer: _Killer, urls: tuple[str, str], seed: int, number: int
) -> WatchedStream:
    """A stream with a writer and a follower of that flavour; every second one is exclusive.

    `urls` are where the writer and the follower find the server.
    """
    name = f"crash/{number}"
    of_writer, of_follower = (Settings(endpoints=Endpoints.at(url), retry=_RETRY) for url in urls)
    random = Random(f"{seed}/{name}")
    writer = Writer(
        flavour=flavour,
        settings=of_writer,
        stream_name=name,
        chain=Chain(number, seed, _SIZES),
        random=random,
        has_message=killer.has_message,
        is_exclusive=number % 2 == 1,
        on_durable=killer.note_acks,
    )
    follower = Follower(
        flavour=flavour,
        settings=of_follower,
        stream_name=name,
        random=Random(f"{seed}/{name}/follower"),
        goes_on=killer.has_server,
    )
    return WatchedStream(
        name=name, is_exclusive=writer.is_exclusive, writers=[writer], followers=[follower]
    )


def run_crashes(directory: Path, seed: int, num_kills: int = 10) -> CrashReport:
    """Append and follow with every flavour while the server is killed, then compare."""
    draw = partial(_draw_cut, Random(f"{seed}/proxy"))
    with (
        killable_server(directory) as server,
        proxies_in_thread([FaultProxy(server.port, draw)]) as (proxy_port,),
    ):
        url = server.url
        urls = (f"http://127.0.0.1:{proxy_port}", url)
        killer = _Killer(server, Random(f"{seed}/killer"))
        by_flavour = {
            flavour: [_stream(flavour, killer, urls, seed, 2 * place + n) for n in range(2)]
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
            killer.fail()

    threads = [
        # A hang is a failure, and not one of the whole test run.
        threading.Thread(target=act, args=(flavour,), daemon=True)
        for flavour in by_flavour
    ]
    for thread in threads:
        thread.start()
    try:
        killer.run(num_kills)
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
