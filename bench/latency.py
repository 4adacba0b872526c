"""Webhook to visible row: from when a request is due to a reader that sees the ledger's row; and how far folding lags.

The maximum rate is that of the whole path, measured first: ingest, broker, projector and Postgres with all processors
of this machine between them, in a closed loop (see `bench.path`). Latency is measured in open loops below it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import uvloop
from nats.js import JetStreamContext

from bench.ingest import door
from bench.path import SEEN_S_MAX, UNSEEN_MAX
from bench.result import Result, measured
from bench.servers import START_S_MAX, Servers, running, servers, service
from runtime import bus, streams

TARGET_PER_S = 500
PARTS_OF_MAXIMUM = (0.1, 0.5, 0.9)
WINDOWS = 5
WINDOW_S = 2.5
SAMPLE_EVERY_S = 0.05


@dataclass(frozen=True)
class Path:
    """Ingest and projector at work on the same servers, and who sends and looks."""

    generator: Process
    js: JetStreamContext

    async def window(self, rate: float, seconds: float = WINDOW_S) -> dict[str, float]:
        """One window at `rate`, or at the maximum where it is 0: what was seen, and the projector's lag meanwhile."""
        assert self.generator.stdin is not None
        assert self.generator.stdout is not None
        self.generator.stdin.write(f"{rate} {seconds}\n".encode())
        answer = asyncio.create_task(self.generator.stdout.readline())
        behind: list[int] = []
        async with asyncio.timeout(START_S_MAX + seconds + SEEN_S_MAX):
            while not answer.done():
                info = await self.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
                behind.append((info.num_pending or 0) + (info.num_ack_pending or 0))
                await asyncio.wait({answer}, timeout=SAMPLE_EVERY_S)
        found: dict[str, float] = json.loads(answer.result())
        if found["refused"]:
            raise RuntimeError(f"{found['refused']} webhooks were not answered with 200")
        # Before the first and after the last delivery there is nothing to be behind with.
        return found | {
            "lag": statistics.median([each for each in behind if each] or [0]),
            "lag_max": max(behind),
        }


@asynccontextmanager
async def path(given: Servers) -> AsyncIterator[Path]:
    """The whole path on running servers, warm."""
    projector = {
        "NATS_URL_PROJECTOR": given.nats["projector"],
        "DATABASE_URL_PROJECTOR": given.postgres["projector"],
    }
    async with AsyncExitStack() as stack:
        nc = await bus.connect(given.nats["operator"], "operator")
        stack.push_async_callback(nc.close)
        js = nc.jetstream()
        await streams.provision(js)
        address, _ = await stack.enter_async_context(door("services.ingest", given.nats["ingest"]))
        await stack.enter_async_context(service("projector", projector))
        command = [sys.executable, "-m", "bench.path", address, given.postgres["reader"]]
        generator = await stack.enter_async_context(running(command, stdin=PIPE, stdout=PIPE))
        found = Path(generator, js)
        await found.window(0)
        yield found


async def run() -> list[Result]:
    """Measure; everything that is started is ended."""
    async with servers() as given, path(given) as way:
        maxima = [(await way.window(0))["rate"] for _ in range(WINDOWS)]
        most = statistics.median(maxima)
        rates = {f"at {TARGET_PER_S}/s": float(TARGET_PER_S)} | {
            f"at {part:.0%} of the maximum ({part * most:,.0f}/s)": part * most for part in PARTS_OF_MAXIMUM
        }
        runs: dict[tuple[str, str], list[float]] = defaultdict(list)
        for repeat in range(WINDOWS):
            for words, rate in list(rates.items())[:: 1 if repeat % 2 else -1]:
                for figure, value in (await way.window(rate)).items():
                    runs[words, figure].append(value)
    whole = f"whole path, real bodies, at most {UNSEEN_MAX:,} between webhook and visible row"
    return [
        measured(f"{whole}: the maximum", "/s", maxima),
        *(
            measured(f"{what} {words}, {name}", unit, runs[words, figure])
            for words in rates
            for what, figure, name, unit in (
                ("webhook to visible row", "p50_ms", "p50", "ms"),
                ("webhook to visible row", "p99_ms", "p99", "ms"),
                ("webhook to answer", "answer_p50_ms", "p50", "ms"),
                ("webhook to answer", "answer_p99_ms", "p99", "ms"),
                ("deliveries not yet folded and acknowledged", "lag", "median", ""),
                ("deliveries not yet folded and acknowledged", "lag_max", "most", ""),
            )
        ),
    ]


if __name__ == "__main__":
    for result in uvloop.run(run()):
        print(result)
