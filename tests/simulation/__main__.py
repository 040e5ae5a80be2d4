"""Plays seeds one after the other: `nox -s simulate -- --seeds 20000`."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser

from simulation.scenario import Failure, run_seed


def main() -> int:
    """Play the seeds that are asked for; 1 when one of them failed."""
    parser = ArgumentParser(prog="simulation", description="Simulate sessions under faults.")
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds to play")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; alone, the only one")
    parser.add_argument("--trace", action="store_true", help="print what happened")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure")
    options = parser.parse_args()
    is_alone = "--seed" in sys.argv and "--seeds" not in sys.argv
    seeds = range(options.seed, options.seed + (1 if is_alone else options.seeds))
    failures = sessions = messages = 0
    started = time.perf_counter()
    for seed in seeds:
        try:
            result = run_seed(seed)
        except Failure as failure:
            failures += 1
            say(f"{failure.trace}\n{failure}" if options.trace else str(failure))
            if not options.keep_going:
                break
            continue
        sessions += result.sessions
        messages += result.messages
        if options.trace:
            say(str(result.trace))
    took = time.perf_counter() - started
    say(
        f"{len(seeds)} seeds, {sessions} append and read sessions, {messages} messages, "
        f"{failures} failures; {took:.1f} s, {sessions / took:.0f} sessions/s"
    )
    return 1 if failures else 0


def say(text: str) -> None:
    """Tell it now: a run may take long."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
