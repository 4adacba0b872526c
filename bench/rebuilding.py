"""A rebuild or verification as a process of its own: `python -m bench.rebuilding rebuild|verify NATS_URL DATABASE_URL`.

It does what `odooops rebuild` does, with all processes that that takes, and prints a line of JSON: deliveries,
seconds, deliveries per second while it replayed, and of all its processes the CPU seconds and the peak RSS in bytes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import uvloop

from runtime import bus, postgres
from services.projector.rebuild import rebuild
from services.projector.work import STATEMENT_S_MAX, Addresses, Progress, Work
from tests.samples import SOURCES

DIFFERENCES = 10
LOOK_EVERY_S = 0.1


async def main(what: str, nats_url: str, database_url: str) -> None:
    nc = await bus.connect(nats_url, "operator")
    engine = postgres.make_engine(database_url, "bench", STATEMENT_S_MAX)
    told: list[Progress] = []
    peaks: dict[str, int] = {}
    looking = asyncio.create_task(_look(peaks))
    work = Work(nc, engine, SOURCES, told.append, addresses=Addresses(nats_url, database_url))
    done = await rebuild(work, limit=DIFFERENCES, dry_run=what == "verify")
    looking.cancel()
    await engine.dispose()
    await nc.close()
    rate = [each.rate for each in told if each.phase == "replaying"][-1]
    used = os.times()
    cpu_s = used.user + used.system + used.children_user + used.children_system
    peaks["self"] = _peak_bytes("self")
    print(json.dumps([done.deliveries, done.seconds, rate, cpu_s, sum(peaks.values())]))


async def _look(peaks: dict[str, int]) -> None:
    """Keep the peaks of the processes that this one has started: a dead one has none."""
    while True:
        for process in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            try:
                peaks[process] = _peak_bytes(process)
            except (FileNotFoundError, ProcessLookupError, RuntimeError):
                continue
        await asyncio.sleep(LOOK_EVERY_S)


def _peak_bytes(process: str) -> int:
    """Of this program: what getrusage says may be the peak of the process that started it."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not say how much memory the process took")


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
