"""Clients that append and follow through proxies that harm their connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from random import Random

import httpx
from attrs import define, field, frozen

from real_server.actors import Follower, Writer
from real_server.fault_proxy import Direction, Fault, FaultProxy, draw_plan, proxies_in_thread
from real_server.ledger import Chain
from real_server.watched_stream import Summary, WatchedStream, make_streams, summarize
from s2frames.retry import Retry
from s2frames.settings import Endpoints, Settings
from scenes import Flavour, run, together

__all__ = ["FaultsReport", "run_faults"]

# Of each writer.
_NUM_MESSAGES = 100

# Streams of a run: how many writers each has, and whether it is exclusive.
_STREAMS = ((2, False), (1, False), (1, True), (1, True))

# Names of streams: a server is used for many runs.
_runs = count()

# Short, so that sessions give up within a run. A stall is up to 1.4 s, so that some are longer.
_SETTINGS = partial(Settings, connect_timeout=1.0, request_timeout=0.7)
_RETRY = partial(Retry, max_seconds=3.0, min_delay=0.01, max_delay=0.1)


@frozen
class FaultsReport:
    """What happened in a run, or in some."""

    faults: Counter[Fault] = field(factory=Counter)
    summary: Summary = field(factory=Summary)

    def __add__(self, other: FaultsReport) -> FaultsReport:
        return FaultsReport(self.faults + other.faults, self.summary + other.summary)

    def __str__(self) -> str:
        faults = ", ".join(f"{fault.value} {self.faults[fault]}" for fault in Fault)
        return f"faults: {faults}; {self.summary}"


def draw_sizes(random: Random) -> list[int]:
    """Sizes of bodies: none at all, many small ones, and some of several records."""
    sizes = [0, random.randint(2_000_000, 4_000_000)]
    for _ in range(_NUM_MESSAGES - len(sizes)):
        limit = random.choices([200, 10_000, 300_000, 2_000_000], [50, 30, 17, 3])[0]
        sizes.append(random.randint(0, limit))
    random.shuffle(sizes)
    return sizes


@define(eq=False)
class _Run:
    """The parts of a run."""

    _flavour: Flavour
    _url: str
    _seed: int
    proxies: list[FaultProxy] = field(factory=list)
    _ports: Iterator[int] = field(factory=lambda: iter(()))

    @contextmanager
    def proxied(self, directions: Iterable[Direction]) -> Iterator[None]:
        """Run a proxy for each actor, whose messages go in that direction.

        What befalls it depends on the seed and on it alone.
        """
        port = httpx.URL(self._url).port
        assert port is not None
        for actor, messages_go in enumerate(directions):
            random = Random(f"{self._seed}/proxy {actor}")
            self.proxies.append(FaultProxy(port, partial(draw_plan, random, messages_go)))
        with proxies_in_thread(self.proxies) as ports:
            self._ports = iter(ports)
            yield

    def stream(self, name: str, num_writers: int, is_exclusive: bool) -> WatchedStream:
        stream = WatchedStream(name=name, is_exclusive=is_exclusive)
        for number in range(num_writers):
            random = Random(f"{self._seed}/{name}/{number}")
            stream.writers.append(
                Writer(
                    flavour=self._flavour,
                    settings=self._settings(random),
                    stream_name=name,
                    chain=Chain(number, self._seed, draw_sizes(random)),
                    random=random,
                    has_message=_NUM_MESSAGES.__gt__,
                    is_exclusive=is_exclusive,
                )
            )
        random = Random(f"{self._seed}/{name}/follower")
        stream.followers.append(
            Follower(
                flavour=self._flavour,
                settings=self._settings(random),
                stream_name=name,
                random=random,
            )
        )
        return stream

    def _settings(self, random: Random) -> Settings:
        """Some sessions try again themselves, others give up at once."""
        endpoints = Endpoints.at(f"http://127.0.0.1:{next(self._ports)}")
        return _SETTINGS(endpoints=endpoints, retry=_RETRY(max_attempts=random.choice([1, 3])))


def run_faults(flavour: Flavour, url: str, seed: int) -> FaultsReport:
    """Append and follow through faults, then read directly and compare."""
    names = [f"faults/{next(_runs)}" for _ in _STREAMS]
    make_streams(url, names)
    parts = _Run(flavour, url, seed)
    # As `stream` takes them: a stream's writers, then its follower.
    directions = [
        direction
        for num_writers, _ in _STREAMS
        for direction in [Direction.UP] * num_writers + [Direction.DOWN]
    ]
    with parts.proxied(directions):
        streams = [parts.stream(name, *kind) for name, kind in zip(names, _STREAMS, strict=True)]
        steps = [step for stream in streams for step in stream.steps(url)]
        run(flavour, lambda: together(flavour, *steps))
    faults: Counter[Fault] = Counter()
    for proxy in parts.proxies:
        faults += proxy.injected
    return FaultsReport(faults, summarize(streams, url))
