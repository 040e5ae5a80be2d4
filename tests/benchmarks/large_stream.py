"""How much memory a client takes for a stream that is larger than the memory: append it, read it.

Prints a JSON object for each, with its rate and the most memory of a process that does nothing
else. A server that keeps its streams in memory needs about twice the stream's size:

    s2 lite --port 8080
    python tests/benchmarks/large_stream.py http://localhost:8080 --gib 2
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import trio
from attrs import frozen

from s2frames import Endpoints, Settings
from s2frames_httpx import Client
from s2frames_trio import open_client

BASIN = "benchmarks"
MIB = 2**20

# Of `ru_maxrss`: bytes on macOS, KiB elsewhere (getrusage(2)).
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@frozen
class Job:
    """A stream, and what it is to hold."""

    url: str
    stream: str
    num_messages: int
    message_bytes: int

    @property
    def settings(self) -> Settings:
        """Where the service is."""
        return Settings(endpoints=Endpoints.at(self.url))

    def messages(self) -> Iterator[bytes]:
        """Messages that are all different, made one by one."""
        rest = random.Random(0).randbytes(self.message_bytes - 8)
        return (index.to_bytes(8) + rest for index in range(self.num_messages))


def main() -> None:
    """Append and read with each client."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--transports", nargs="+", default=["trio", "httpx"], choices=WORK)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--size", type=int, default=1_000_000, help="bytes of each message")
    arguments = parser.parse_args()
    count = max(1, int(arguments.gib * 2**30) // arguments.size)
    with Client(Settings(endpoints=Endpoints.at(arguments.url))) as client:
        client.ensure_basin(BASIN)
        for transport in arguments.transports:
            name = f"large/{transport}/{time.time_ns()}"
            stream = client.stream(BASIN, name)
            stream.create()
            job = Job(arguments.url, name, count, arguments.size)
            for work in WORK[transport]:
                figures = measure_alone(work, job)
                print(json.dumps({"transport": transport, "work": work.__name__, **figures}))
            stream.delete()


def measure_alone(work: Callable[[Job], None], job: Job) -> dict[str, float]:
    """Take the figures in a process of its own, whose memory is then its own, too."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(measure, work, job).result()


def measure(work: Callable[[Job], None], job: Job) -> dict[str, float]:
    """Do it; gives the rate, and the most memory before and after."""
    before = _peak_mib()
    start = time.perf_counter()
    work(job)
    seconds = time.perf_counter() - start
    mib = job.num_messages * job.message_bytes / MIB
    return {
        "message_bytes": job.message_bytes,
        "mib": round(mib, 1),
        "seconds": round(seconds, 2),
        "mib_per_second": round(mib / seconds, 1),
        "peak_rss_mib_before": before,
        "peak_rss_mib": _peak_mib(),
    }


def _peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / MIB, 1)


def append_trio(job: Job) -> None:
    """Append all messages, over HTTP/2."""

    async def append() -> None:
        async with open_client(job.settings) as client:
            stream = client.stream(BASIN, job.stream)
            async with stream.append_session() as session:
                await session.append_many(job.messages())

    trio.run(append)


def read_trio(job: Job) -> None:
    """Read all messages, over HTTP/2."""

    async def read() -> None:
        expected = job.messages()
        async with open_client(job.settings) as client:
            stream = client.stream(BASIN, job.stream)
            async with stream.read_session() as messages:
                async for message in messages:
                    check(message, next(expected, None))
        check(None, next(expected, None))

    trio.run(read)


def append_httpx(job: Job) -> None:
    """Append all messages, over HTTP/1.1."""
    with Client(job.settings) as client:
        stream = client.stream(BASIN, job.stream)
        with stream.append_session() as session:
            session.append_many(job.messages())


def read_httpx(job: Job) -> None:
    """Read all messages, over HTTP/1.1."""
    expected = job.messages()
    with Client(job.settings) as client:
        stream = client.stream(BASIN, job.stream)
        with stream.read_session() as messages:
            for message in messages:
                check(message, next(expected, None))
    check(None, next(expected, None))


def check(message: bytes | None, expected: bytes | None) -> None:
    """Stop where the stream is not what was appended."""
    if message != expected:
        raise SystemExit("the stream does not hold what was appended")


#: What each client does, in this order.
WORK: dict[str, list[Callable[[Job], None]]] = {
    "trio": [append_trio, read_trio],
    "httpx": [append_httpx, read_httpx],
}


if __name__ == "__main__":
    main()
