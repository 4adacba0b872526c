"""Webhooks sent by a schedule, and when their rows are seen: `python -m bench.path ADDRESS DATABASE_URL`.

Each line on standard input is a window: deliveries per second, or 0 for as many as the whole path takes, and for how
many seconds. What became of it is a line of JSON on standard output.

With a rate, latency counts from when a request was due, not from when there was a free connection for it: what was
held up by others counts in full. Without one, at most `UNSEEN_MAX` deliveries are between their request and their
visible row: a closed loop over ingest, log and projector together.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import hmac
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
import uvloop

from bench import corpus

CONNECTIONS = 64
UNSEEN_MAX = 1_000
CLOSED_LOOP_PER_S_MAX = 4_000
"""As many requests are made ready for a window without a rate."""
LOOK_EVERY_S = 0.005
SEEN_S_MAX = 30.0
SETTLED = 0.25
"""Of a window without a rate: the part that is not counted, while the batches grow."""


@dataclass(slots=True)
class Course:
    """One window under way: what became of each request, by its place."""

    requests: list[bytes]
    due: list[float] = field(default_factory=list)
    answered: dict[int, float] = field(default_factory=dict)
    seen: dict[int, float] = field(default_factory=dict)
    refused: int = 0
    waiting: deque[int] = field(default_factory=deque)


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    def __init__(self, idle: deque[Connection]) -> None:
        self.idle = idle
        self.course: Course | None = None
        self.n = 0
        self.answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.idle.append(self)

    def send(self, course: Course, n: int) -> None:
        """Send the n-th request of a window."""
        self.course, self.n = course, n
        self.transport.write(course.requests[n])

    def data_received(self, data: bytes) -> None:
        self.answer += data
        if not self.answer.endswith(b"}"):
            return
        assert self.course is not None
        self.course.answered[self.n] = time.perf_counter()
        self.course.refused += not self.answer.startswith(b"HTTP/1.1 200")
        self.answer = b""
        if self.course.waiting:
            self.send(self.course, self.course.waiting.popleft())
        else:
            self.idle.append(self)


def requests(netloc: str, first: int, count: int) -> list[bytes]:
    """`count` signed webhooks as bytes; the end of each one's id is its place."""
    mixed = corpus.samples()
    made = []
    for place in range(count):
        sample = mixed[(first + place) % len(mixed)]
        body = sample.copy(first + place)
        signature = hmac.new(corpus.SECRET, body, hashlib.sha256).hexdigest()
        made.append(
            (
                f"POST /webhooks/github HTTP/1.1\r\nhost: {netloc}\r\ncontent-length: {len(body)}\r\n"
                f"content-type: application/json\r\nx-github-event: {sample.event}\r\n"
                f"x-github-delivery: {first}-{place}\r\nx-hub-signature-256: sha256={signature}\r\n\r\n"
            ).encode()
            + body
        )
    return made


async def send_by_rate(course: Course, idle: deque[Connection], rate: float) -> None:
    """Send each request when it is due, or as soon as a connection is free."""
    count, began = len(course.requests), time.perf_counter()
    course.due = [began + n / rate for n in range(count)]
    sent = 0
    while sent < count:
        while sent < count and course.due[sent] <= time.perf_counter():
            if idle:
                idle.popleft().send(course, sent)
            else:
                course.waiting.append(sent)
            sent += 1
        if sent < count:
            await asyncio.sleep(max(0.0, course.due[sent] - time.perf_counter()))


async def send_closed(course: Course, idle: deque[Connection], seconds: float) -> None:
    """Send as long as there is time, whenever a connection is free and few enough are unseen."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and len(course.due) < len(course.requests):
        while (
            idle
            and len(course.due) - len(course.seen) < UNSEEN_MAX
            and len(course.due) < len(course.requests)
        ):
            idle.popleft().send(course, len(course.due))
            course.due.append(time.perf_counter())
        await asyncio.sleep(0.001)


async def look(database: Any, course: Course, first: int, sent: asyncio.Event) -> None:
    """Note when each row is first seen, until all are."""
    low, beyond = first, set[int]()
    while not (
        sent.is_set() and len(course.seen) + course.refused >= len(course.due) == len(course.answered)
    ):
        # By the index, from where all is known: a look must cost next to nothing, or it is what is measured.
        rows = await database.fetch(
            "SELECT stream_seq, identity FROM ops.deliveries WHERE stream_seq > $1", low
        )
        now = time.perf_counter()
        for seq, identity in rows:
            if seq not in beyond:
                beyond.add(seq)
                number, _, place = identity.partition("-")
                if number == str(first):
                    course.seen[int(place)] = now
        while low + 1 in beyond:
            low += 1
            beyond.remove(low)
        await asyncio.sleep(LOOK_EVERY_S)


async def main(address: str, database_url: str) -> None:
    """Serve windows until standard input ends."""
    parts = urlsplit(address)
    loop = asyncio.get_running_loop()
    idle: deque[Connection] = deque()
    database = await asyncpg.connect(database_url)
    await database.execute("SET enable_seqscan = off")
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        rate, seconds = map(float, line.split())
        # Numbered from the end of the log on, no two deliveries of it are about the same thing.
        first = await database.fetchval("SELECT COALESCE(max(stream_seq), 0) FROM ops.deliveries")
        made = requests(parts.netloc, first, int((rate or CLOSED_LOOP_PER_S_MAX) * seconds))
        for connection in idle:
            connection.transport.close()  # the server closes one that idled
        idle.clear()
        for _ in range(CONNECTIONS):
            await loop.create_connection(lambda: Connection(idle), parts.hostname or "", parts.port or 0)
        course, sent = Course(made), asyncio.Event()
        gc.collect()
        gc.disable()
        looking = asyncio.create_task(look(database, course, first, sent))
        await (send_by_rate(course, idle, rate) if rate else send_closed(course, idle, seconds))
        sent.set()
        await asyncio.wait_for(looking, SEEN_S_MAX)
        gc.enable()
        print(json.dumps(result(course, seconds)), flush=True)


def result(course: Course, seconds: float) -> dict[str, float]:
    """Latency in ms, and how many rows came to be seen per second once the window had settled."""
    latencies = sorted(at - course.due[n] for n, at in course.seen.items())
    answers = sorted(at - course.due[n] for n, at in course.answered.items())
    begin, end = course.due[0] + SETTLED * seconds, course.due[0] + seconds
    return {
        "count": len(latencies),
        "refused": course.refused,
        "rate": sum(begin <= at < end for at in course.seen.values()) / (end - begin),
        "p50_ms": 1e3 * latencies[len(latencies) // 2],
        "p99_ms": 1e3 * latencies[len(latencies) * 99 // 100],
        "answer_p50_ms": 1e3 * answers[len(answers) // 2],
        "answer_p99_ms": 1e3 * answers[len(answers) * 99 // 100],
    }


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
