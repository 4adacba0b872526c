"""An honest sender at a fixed rate, from a process of its own: `python -m bench.honest <port> <per second> <address>`.

Requests are due by the clock, not by the last answer: one that has to wait counts from when it was due. It goes on
until standard input ends, and prints what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter

import uvloop

from bench.load import REAL, bodies
from tests.services.ingest.door import Line, head, line_to

PATH = "/webhooks/github"
CONNECTIONS = 32
ANSWER_S_MAX = 15.0


class Sender:
    """Requests that are due, and the answers to them."""

    def __init__(self, per_s: float, address: str) -> None:
        self.wait_s = 1 / per_s
        self.due: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        self.latencies: list[float] = []
        self.answers: Counter[int] = Counter()
        self._address = address
        self._bodies = itertools.cycle(bodies(REAL))

    def request(self, n: int) -> bytes:
        body, signed = next(self._bodies)
        headers = {
            **signed,
            "x-github-delivery": f"honest-{n}",
            "x-forwarded-for": self._address,
            "content-length": str(len(body)),
        }
        return head("POST", PATH, headers) + body

    async def keep_time(self, until: asyncio.Future[object]) -> None:
        """Put a request in line each time one is due."""
        at = time.perf_counter()
        for n in itertools.count():
            if until.done():
                break
            self.due.put_nowait((at, self.request(n)))
            at += self.wait_s
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
        for _ in range(CONNECTIONS):
            self.due.put_nowait(None)

    async def send(self, port: int) -> None:
        """Send what is due on one connection, and on a new one when the door has closed it."""
        following = await self.due.get()
        while following is not None:
            async with line_to(port) as line:
                while following is not None and await self._taken(line, *following):
                    following = await self.due.get()

    async def _taken(self, line: Line, at: float, said: bytes) -> bool:
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await line.send(said)
                reply = await line.reply()
        except (asyncio.IncompleteReadError, ConnectionError):
            return False  # an idle connection was closed meanwhile: once more on a new one
        self.latencies.append(time.perf_counter() - at)
        self.answers[reply.status] += 1
        return True


async def main(port: str, per_s: str, address: str) -> None:
    sender = Sender(float(per_s), address)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.gather(sender.keep_time(ended), *(sender.send(int(port)) for _ in range(CONNECTIONS)))
    ordered = sorted(sender.latencies)
    print(
        json.dumps(
            {
                "answers": sender.answers,
                "p50_ms": 1000 * ordered[len(ordered) // 2],
                "p99_ms": 1000 * ordered[len(ordered) * 99 // 100],
                "max_ms": 1000 * ordered[-1],
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
