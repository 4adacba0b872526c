"""A rebuild or verification as a process of its own: `python -m bench.rebuilding rebuild|verify NATS_URL DATABASE_URL`.

It does what `odooops rebuild` does, and prints a line of JSON: deliveries, seconds, deliveries per second while it
replayed, CPU seconds, peak RSS in bytes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import uvloop

from runtime import bus, postgres
from services.projector.rebuild import Progress, Work, rebuild
from tests.samples import SOURCES

STATEMENT_S_MAX = 3_600
DIFFERENCES = 10


async def main(what: str, nats_url: str, database_url: str) -> None:
    nc = await bus.connect(nats_url, "operator")
    engine = postgres.make_engine(database_url, "bench", STATEMENT_S_MAX)
    told: list[Progress] = []
    work = Work(nc, engine, SOURCES, told.append)
    done = await rebuild(work, limit=DIFFERENCES, dry_run=what == "verify")
    await engine.dispose()
    await nc.close()
    rate = [each.rate for each in told if each.phase == "replaying"][-1]
    print(json.dumps([done.deliveries, done.seconds, rate, time.process_time(), _peak_bytes()]))


def _peak_bytes() -> int:
    """Of this program: what getrusage says may be the peak of the process that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not say how much memory the process took")


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
