"""`python -m tests.chaos [--seed N] [--seconds S] [--runs R] [--brokers 1|3]`: the suite, and what held."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from random import SystemRandom

from tests.chaos.plan import COUNTS, brokers_of
from tests.chaos.run import Run, command, never, run, told

SECONDS = 60.0
RUNS = 4
RUNS_MAX = 6
"""Where something that was planned has hit nobody until then."""
SEEDS = 1_000_000


def main() -> int:
    """Run, print and judge; the exit code. So many runs as were asked for need not have met everything."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first run; at random where it is not given")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of load and acts in each run")
    parser.add_argument("--runs", type=int, help=f"each with a seed of its own; {RUNS} or more")
    parser.add_argument("--brokers", type=int, choices=COUNTS, help="by turns where it is not given")
    given = parser.parse_args()
    first = given.seed if given.seed is not None else SystemRandom().randrange(SEEDS)
    results: list[Run] = []
    while _goes_on(results, given.runs):
        n = len(results)
        how = (first + n, given.seconds, given.brokers or brokers_of(n))
        print(f"seed {first + n}: {command(*how)}", flush=True)
        results.append(asyncio.run(run(*how)))
        print(told(results[-1]), flush=True)
    held = sum(result.holds for result in results)
    print(f"{held} of {len(results)} runs held")
    missing = never(results)
    for each in missing:
        print(f"never happened: {each}")
    return 0 if held == len(results) and (given.runs or not missing) else 1


def _goes_on(results: Sequence[Run], runs: int | None) -> bool:
    if runs is not None:
        return len(results) < runs
    return len(results) < RUNS or (len(results) < RUNS_MAX and bool(never(results)))


if __name__ == "__main__":
    sys.exit(main())
