"""How long `odooops up` takes to its line `ready`: on an empty folder, and on data that is there."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.result import Result, measured
from bench.servers import ROOT

REPEATS = 5
READY_S_MAX = 60.0
STOP_S_MAX = 30.0


async def run() -> list[Result]:
    """Measure; everything that is started is ended."""
    first: list[float] = []
    later: list[float] = []
    for _ in range(REPEATS):
        folder = tempfile.mkdtemp(prefix="odooops-bench-")
        try:
            first.append(await _start(Path(folder)))
            later.append(await _start(Path(folder)))
        finally:
            shutil.rmtree(folder)
    return [
        measured("odooops up to ready, the very first start", "s", first),
        measured("odooops up to ready, later starts", "s", later),
    ]


async def _start(folder: Path) -> float:
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "cli", "up", "--data-dir", str(folder)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_S_MAX):
            line = await process.stdout.readline()
        if not line.startswith(b"ready "):
            raise RuntimeError("odooops up did not become ready")
        return time.perf_counter() - started
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), STOP_S_MAX)


if __name__ == "__main__":
    for result in uvloop.run(run()):
        print(result)
