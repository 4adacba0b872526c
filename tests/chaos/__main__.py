"""`python -m tests.chaos [--seed N] [--seconds S] [--runs R] [--brokers 1|3]`: the suite, and what held."""

from __future__ import annotations

import argparse
import asyncio
import sys
from random import SystemRandom

from tests.chaos.plan import COUNTS, brokers_of
from tests.chaos.run import command, never, run, told

SECONDS = 60.0
RUNS = 4
SEEDS = 1_000_000


def main() -> int:
    """Run, print and judge; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first run; at random where it is not given")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of load and acts in each run")
    parser.add_argument("--runs", type=int, default=RUNS, help="each with a seed of its own")
    parser.add_argument("--brokers", type=int, choices=COUNTS, help="by turns where it is not given")
    given = parser.parse_args()
    first = given.seed if given.seed is not None else SystemRandom().randrange(SEEDS)
    results = []
    for n in range(given.runs):
        brokers = given.brokers or brokers_of(n)
        how = (first + n, given.seconds, brokers)
        print(f"seed {first + n}: {command(*how)}", flush=True)
        results.append(asyncio.run(run(*how)))
        print(told(results[-1]), flush=True)
    held = sum(result.holds for result in results)
    print(f"{held} of {len(results)} runs held")
    for each in (missing := never(results)):
        print(f"NEVER HAPPENED: {each}")
    return 0 if held == len(results) and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
