"""`python -m tests.chaos [--seed N] [--seconds S] [--runs R]`: the suite, and what held."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from tests.chaos.run import command, run, told

SECONDS = 60.0
RUNS = 4
SEEDS = 1_000_000


def main() -> int:
    """Run, print and judge; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first run; at random where it is not given")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of load and acts in each run")
    parser.add_argument("--runs", type=int, default=RUNS, help="each with a seed of its own")
    given = parser.parse_args()
    first = given.seed if given.seed is not None else SystemRandom().randrange(SEEDS)
    logs = Path(tempfile.mkdtemp(prefix="odooops-chaos-"))
    held = 0
    for seed in range(first, first + given.runs):
        print(f"seed {seed}, {given.seconds:g} s: {command(seed, given.seconds)}", flush=True)
        result = asyncio.run(run(seed, given.seconds, logs))
        held += result.holds
        print(told(result), flush=True)
        if not result.holds:
            print(f"  logs in   {logs / f'seed-{seed}'}", flush=True)
    print(f"{held} of {given.runs} runs held")
    return 0 if held == given.runs else 1


if __name__ == "__main__":
    sys.exit(main())
