"""Runs faults or crashes by hand: `nox -s disturb -- faults --runs 20`."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from real_server.crash import CrashReport, run_crashes
from real_server.faults import FaultsReport, run_faults
from s2_lite import s2_lite
from scenes import Flavour

R = TypeVar("R", FaultsReport, CrashReport)


def crash(seed: int) -> CrashReport:
    """One server that is killed, and clients of every flavour."""
    with TemporaryDirectory() as directory:
        return run_crashes(Path(directory), seed)


def faults(seed: int) -> FaultsReport:
    """Every flavour, one after the other."""
    with s2_lite() as url:
        return sum((run_faults(flavour, url, seed) for flavour in Flavour), FaultsReport())


def main() -> int:
    """Run what is asked for with one seed after the other; 1 when a message was lost or doubled."""
    parser = ArgumentParser(prog="real_server.run", description="Break things around s2 lite.")
    parser.add_argument("what", choices=["faults", "crash"])
    parser.add_argument("--runs", type=int, default=1, help="how many seeds to run")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.runs)
    total: FaultsReport | CrashReport
    if options.what == "faults":
        total = sum((tell(faults, seed) for seed in seeds), FaultsReport())
    else:
        total = sum((tell(crash, seed) for seed in seeds), CrashReport())
    say(f"total: {total}\n")
    return 1 if total.summary.lost or total.summary.doubled else 0


def tell(work: Callable[[int], R], seed: int) -> R:
    """Run one seed. It is named beforehand: a failure ends in a traceback."""
    say(f"seed {seed}: ")
    started = time.perf_counter()
    report = work(seed)
    say(f"{report}; {time.perf_counter() - started:.1f} s\n")
    return report


def say(text: str) -> None:
    """Tell it now: a run may take long."""
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
