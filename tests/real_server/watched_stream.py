"""Streams with their writers and followers, and what came of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial

from attrs import define, field, frozen

from real_server.actors import BASIN, END, Follower, Writer, append_end
from real_server.ledger import Figures, Read, compare, parse
from real_server.raw_records import read_records
from s2frames.records import SequencedRecord
from s2frames.settings import Endpoints, Settings
from s2frames_httpx import Client

__all__ = ["Summary", "WatchedStream", "count_repeats", "make_streams", "summarize"]


@frozen
class Summary:
    """What came of some streams."""

    #: What was read directly afterwards, and what followers read meanwhile.
    read: Figures = field(factory=Figures)
    followed: Figures = field(factory=Figures)
    #: Sessions, and those that gave up.
    sessions: int = 0
    given_up: int = 0
    #: Records in all, and those that are there a second time.
    records: int = 0
    repeats: int = 0

    def __add__(self, other: Summary) -> Summary:
        return Summary(
            self.read + other.read,
            self.followed + other.followed,
            self.sessions + other.sessions,
            self.given_up + other.given_up,
            self.records + other.records,
            self.repeats + other.repeats,
        )

    @property
    def lost(self) -> int:
        """Messages that were acknowledged, and not read directly or not followed."""
        return self.read.lost + self.followed.lost

    @property
    def doubled(self) -> int:
        """Messages that somebody read more than once."""
        return self.read.doubled + self.followed.doubled

    def __str__(self) -> str:
        return (
            f"sessions {self.sessions}, given up {self.given_up}; records {self.records}, "
            f"repeats {self.repeats}; messages {self.read.messages}, lost {self.lost}, "
            f"doubled {self.doubled}"
        )


@define(eq=False, kw_only=True)
class WatchedStream:
    """A stream, its writers and its follower."""

    name: str
    is_exclusive: bool
    writers: list[Writer] = field(factory=list)
    followers: list[Follower] = field(factory=list)
    _done: int = 0

    def steps(self, url: str) -> Iterator[Callable[[], Awaitable[object]]]:
        """What is to be done at the same time; the server is at `url`."""
        for writer in self.writers:
            yield partial(self._write, writer, url)
        for follower in self.followers:
            yield follower.run

    async def _write(self, writer: Writer, url: str) -> None:
        try:
            await writer.run()
        finally:
            # Also after a failure: in a thread, a follower ends at nothing else.
            self._done += 1
            if self._done == len(self.writers):
                append_end(url, self.name)

    def compare(self, reads: list[Read]) -> Figures:
        """Compare what was read here with what was written."""
        chains = [writer.chain for writer in self.writers]
        return compare(chains, reads, is_exclusive=self.is_exclusive)

    def check(self, url: str) -> Summary:
        """Read directly, and compare with what was written and with what was followed."""
        reads = _read_directly(url, self.name)
        for follower in self.followers:
            # Past the end there may only be what arrived late.
            assert len(follower.reads) <= len(reads)
            assert all(map(Read.agrees, follower.reads, reads))
        records = read_records(url, BASIN, self.name)
        repeats = count_repeats(records)
        assert not (self.is_exclusive and repeats), f"{repeats} repeats in {self.name}"
        actors: list[Writer | Follower] = [*self.writers, *self.followers]
        return Summary(
            read=self.compare(reads),
            followed=sum((self.compare(each.reads) for each in self.followers), Figures()),
            sessions=sum(actor.sessions for actor in actors),
            given_up=sum(actor.given_up for actor in actors),
            records=len(records),
            repeats=repeats,
        )


def make_streams(url: str, names: Iterable[str]) -> None:
    """Make streams of these names."""
    with Client(Settings(endpoints=Endpoints.at(url))) as client:
        client.ensure_basin(BASIN)
        for name in names:
            client.stream(BASIN, name).create()


def summarize(streams: Iterable[WatchedStream], url: str) -> Summary:
    """Check each stream and add up."""
    return sum((stream.check(url) for stream in streams), Summary())


def count_repeats(records: list[SequencedRecord]) -> int:
    """How many records have the writer and the dedupe sequence of an earlier one."""
    keys = [record.headers[-2:] for record in records if len(record.headers) >= 2]
    return len(keys) - len(set(keys))


def _read_directly(url: str, stream: str) -> list[Read]:
    """All messages of a stream, past the faults."""
    with (
        Client(Settings(endpoints=Endpoints.at(url))) as client,
        client.stream(BASIN, stream).read_session() as session,
    ):
        return [
            Read(parse(received.message), (received.start, received.end))
            for received in session.frames()
            if received.message != END
        ]
