"""How fast the synchronous httpx client is against a service. Prints a JSON object a measurement.

Start a fresh server for each run, since one in memory slows down as it fills:

    s2 lite --port 8080
    python tests/benchmarks/against_service.py http://localhost:8080 --size 1000000 --count 1000
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections.abc import Iterator

from s2frames import Endpoints, Settings
from s2frames_httpx import Client, Stream

MIB = 2**20
BASIN = "benchmarks"


def main() -> None:
    """Append and read back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--burst", type=int, nargs="+", default=[64])
    arguments = parser.parse_args()
    with Client(Settings(endpoints=Endpoints.at(arguments.url))) as client:
        client.ensure_basin(BASIN)
        for burst in arguments.burst:
            stream = client.stream(BASIN, f"httpx/{time.time_ns()}")
            stream.create()
            run(stream, arguments.size, arguments.count, burst)


def run(stream: Stream, size: int, count: int, burst: int) -> None:
    """Take one measurement each way."""
    message = random.Random(0).randbytes(size)
    messages = [message] * count
    started = time.perf_counter()
    with stream.append_session(burst_batches=burst, max_inflight_bytes=burst * MIB) as session:
        session.append_many(messages)
    report("append", size, count, burst, time.perf_counter() - started)
    started = time.perf_counter()
    received = sum(1 for _ in _same(stream.read_session(), message))
    assert received == count
    report("read", size, count, burst, time.perf_counter() - started)


def _same(messages: Iterator[bytes], expected: bytes) -> Iterator[bytes]:
    for message in messages:
        assert message == expected
        yield message


def report(what: str, size: int, count: int, burst: int, seconds: float) -> None:
    """Print a measurement."""
    figures = {
        "httpx": what,
        "size": size,
        "count": count,
        "burst": burst,
        "msg_s": round(count / seconds),
        "mib_s": round(count * size / seconds / MIB, 1),
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
