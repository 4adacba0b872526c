"""The door without a log behind it: everything that ingest does but storing. Its rate is ingest's ceiling.

A process of its own, with the settings of ingest: `python -m bench.verify_only`.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import Any

from contracts.delivery import Delivery
from providers.registry import sources
from runtime import process, ssot
from runtime.bus import Ack
from runtime.garbage import seldom_collected
from runtime.settings import Settings
from services.ingest.app import endpoints_of
from services.ingest.receive import Receiver


async def main(given: Settings, log: Any, stopping: asyncio.Event) -> None:
    receiver = Receiver(endpoints_of(sources(ssot.load(given.odooops_ssot_dir)).values(), log), log)
    sequences = itertools.count(1)

    async def forget(delivery: Delivery, wait_s: float) -> Ack:
        return next(sequences), False

    async def no_problems() -> dict[str, str]:
        return {}

    receiver.store = forget
    async with (
        process.serve_http(receiver, given.odooops_host, given.odooops_port),
        process.serve_ops(given, no_problems),
    ):
        await stopping.wait()


if __name__ == "__main__":
    with seldom_collected():
        sys.exit(process.run("ingest", main))
