"""How fast each client is against a service: `s2frames bench` for every transport and size.

Prints a JSON object a measurement. Each is on a new stream, which is deleted. Start a fresh server
for each run, since one in memory slows down as it fills:

    s2 lite --port 8080
    python tests/benchmarks/against_service.py http://localhost:8080 --live
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from s2frames import Endpoints, Settings
from s2frames_httpx import Client

BASIN = "benchmarks"
MIB = 2**20


def main() -> None:
    """Measure every combination, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--transports", nargs="+", default=["trio", "httpx", "httpx-async"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 1_000_000])
    parser.add_argument("--mib", type=int, default=50, help="how much is appended each time")
    parser.add_argument("--max-count", type=int, default=200_000)
    parser.add_argument("--live", action="store_true")
    arguments = parser.parse_args()
    with Client(Settings(endpoints=Endpoints.at(arguments.url))) as client:
        client.ensure_basin(BASIN)
    for size in arguments.sizes:
        count = max(1, min(arguments.max_count, arguments.mib * MIB // size))
        for transport in arguments.transports:
            run(arguments.url, transport, size, count, is_live=arguments.live)


def run(url: str, transport: str, size: int, count: int, *, is_live: bool) -> None:
    """Take one measurement, in a process of its own, whose memory is then its own, too."""
    address = f"s2://{BASIN}/{transport}/{time.time_ns()}"
    command = [sys.executable, "-m", "s2frames", "bench", address, "--endpoint", url, "--json"]
    command += ["--transport", transport, "--size", str(size), "--count", str(count)]
    subprocess.run([*command, *(["--live"] if is_live else [])], check=True)


if __name__ == "__main__":
    main()
