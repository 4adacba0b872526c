"""How every service ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runtime.process import EXIT_LOST
from tests.processes import forked
from tests.services.ingest.door import eventually

pytestmark = pytest.mark.anyio

DEAF = """
import asyncio
import sys
from runtime import process

process.END_S_MAX = 0.2

async def main(settings, log, stopping):
    log.info("waiting")
    await asyncio.Event().wait()

sys.exit(process.run("deaf", main))
"""


async def test_a_process_that_waits_for_who_says_nothing_ends_all_the_same(tmp_path: Path) -> None:
    with forked(["-c", DEAF], {"PATH": os.environ["PATH"]}, tmp_path / "deaf") as process:

        async def waits() -> bool:
            return '"event": "waiting"' in process.said()

        await eventually(waits)
        process.signal(signal.SIGTERM)
        assert await process.ended(10.0) == EXIT_LOST
        assert "did not end in time" in process.said()
