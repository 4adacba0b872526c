"""Load from a process of its own: `python -m bench.load http|nats <address> <bodies> <senders>`.

Each line on standard input is a window in seconds; each line on standard output is what was acknowledged in
it, as JSON. Requests are signed and serialised before the first window; only the id is new in each.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import cast
from urllib.parse import urlsplit

import nats
import uvloop

from bench import corpus
from runtime import streams
from runtime.permissions import inbox_prefix

REAL = "real"
SMALL = "5kb"
POOL_COUNT = 2000
SMALL_BODY = json.dumps({"zen": "x" * 4984, "hook_id": 1}).encode()
ANSWER_S_MAX = 15.0

Window = Callable[[float], Awaitable[dict[str, object]]]


def bodies(kind: str) -> list[tuple[bytes, dict[str, str]]]:
    """The requests that a window goes through in turn."""
    return list(corpus.requests(POOL_COUNT, SMALL_BODY if kind == SMALL else None))


def ids() -> Iterator[bytes]:
    """Delivery ids, new in each process."""
    return (b"%d-%d" % (os.getpid(), n) for n in itertools.count())


class Tally:
    """What one window saw."""

    def __init__(self, seconds: float) -> None:
        self.start = time.perf_counter()
        self.end = self.start + seconds
        self.latencies: list[float] = []
        self.refused = 0

    def answered(self, sent_at: float, ok: bool) -> bool:
        """Count one answer; whether there is time for another request."""
        now = time.perf_counter()
        if now > self.end:
            return False
        if ok:
            self.latencies.append(now - sent_at)
        else:
            self.refused += 1
        return True

    def result(self) -> dict[str, object]:
        ordered = sorted(self.latencies) or [0.0]
        return {
            "rate": len(self.latencies) / (self.end - self.start),
            "count": len(self.latencies),
            "refused": self.refused,
            "p50_ms": 1000 * ordered[len(ordered) // 2],
            "p99_ms": 1000 * ordered[len(ordered) * 99 // 100],
        }


class Sender(asyncio.Protocol):
    """One keep-alive connection that sends the next request when the last is answered."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self.requests = requests
        self.tally = Tally(0)
        self.idle = asyncio.Event()
        self.answer = b""
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def begin(self, tally: Tally) -> None:
        """Take part in a window."""
        self.tally = tally
        self.idle.clear()
        self._send()

    def _send(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        self.answer += data
        if not self.answer.endswith(b"}"):
            return
        ok = self.answer.startswith(b"HTTP/1.1 200")
        self.answer = b""
        if self.tally.answered(self.sent_at, ok):
            self._send()
        else:
            self.idle.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.idle.set()


async def http(address: str, kind: str, count: int) -> Window:
    """Senders of webhooks to the ingest at `address`."""
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or 0
    pool = []
    for body, headers in bodies(kind):
        lines = [f"{name}: {value}" for name, value in headers.items() if name != "x-github-delivery"]
        head = [
            "POST /webhooks/github HTTP/1.1",
            f"host: {parts.netloc}",
            f"content-length: {len(body)}",
            *lines,
        ]
        pool.append(("\r\n".join(head).encode() + b"\r\nx-github-delivery: ", b"\r\n\r\n" + body))
    requests = (b"".join((a, id_, b)) for (a, b), id_ in zip(itertools.cycle(pool), ids(), strict=False))
    loop = asyncio.get_running_loop()
    senders = [(await loop.create_connection(lambda: Sender(requests), host, port))[1] for _ in range(count)]

    async def window(seconds: float) -> dict[str, object]:
        for n, sender in enumerate(senders):
            if sender.transport.is_closing():  # the server closes a connection that idled
                senders[n] = (await loop.create_connection(lambda: Sender(requests), host, port))[1]
        tally = Tally(seconds)
        for sender in senders:
            sender.begin(tally)
        await asyncio.wait_for(asyncio.gather(*(s.idle.wait() for s in senders)), seconds + ANSWER_S_MAX)
        return tally.result()

    return window


async def bare(address: str, kind: str, count: int) -> Window:
    """Publishers with nats-py and nothing around it, of the same bodies to the same stream."""
    pool = [(f"deliveries.bench.{headers['x-github-event']}", body) for body, headers in bodies(kind)]
    nc = await nats.connect(address, inbox_prefix=inbox_prefix("operator"))
    js = nc.jetstream()
    requests = zip(itertools.cycle(pool), ids(), strict=False)

    async def publish(tally: Tally) -> None:
        more = True
        while more:
            (subject, body), id_ = next(requests)
            sent_at = time.perf_counter()
            await js.publish(
                subject, body, stream=streams.DELIVERIES, headers={"Nats-Msg-Id": f"github:{id_.decode()}"}
            )
            more = tally.answered(sent_at, ok=True)

    async def window(seconds: float) -> dict[str, object]:
        tally = Tally(seconds)
        await asyncio.gather(*(publish(tally) for _ in range(count)))
        return tally.result()

    return window


async def main(protocol: str, address: str, kind: str, count: str) -> None:
    """Serve windows until standard input ends."""
    window = await {"http": http, "nats": bare}[protocol](address, kind, int(count))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await window(float(line))), flush=True)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
