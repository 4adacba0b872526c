"""Ten thousand hostile requests against the real ingest, and honest ones beside them: `python -m bench.abuse [seed]`.

Each kind of request gets its right answer, memory stays under its bound, and honest traffic is served in its time. One
line for each of these; exit code 1 where one fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import uvloop

from bench import corpus
from bench.ingest import broker
from bench.servers import POLL_S, START_S_MAX, running
from providers.port import Secret
from runtime import bus, embedded, ports, streams
from tests.services.ingest import hostile
from tests.services.ingest.door import line_to
from tests.services.ingest.hostile import HUNG_UP, Attempt, Recorded, Verdict

HONEST_PER_S = 200
HONEST_P99_MS_MAX = 250
HONEST_ADDRESS = "9.9.9.9"
COUNT, SLOW_COUNT, ONE_ADDRESS_COUNT = 10_000, 1_500, 1_500
FLOODS_COUNT, HOARDS_COUNT, PIPELINES_COUNT = 40, 60, 30
TAKES_S = 35
AT_ONCE, FLOODS_AT_ONCE = 32, 12
LOG_LINES_MAX = 500
KNOWN = Recorded(
    Secret("GITHUB_WEBHOOK_SECRET", corpus.SECRET),
    Secret("MAILGUN_SIGNING_KEY", b"a signing key"),
    Secret("SLACK_SIGNING_SECRET", 32 * b"a"),
)
SECRETS = (KNOWN.github, KNOWN.mailgun, KNOWN.slack)
LIMITED: Verdict = (429, "rate_limited")

Answers = dict[str, Counter[Verdict]]


class Attackers:
    """Senders of hostile requests, and what they were answered."""

    def __init__(self, port: int, seed: int) -> None:
        self.answers: Answers = defaultdict(Counter)
        self.wrong: Answers = defaultdict(Counter)
        self._port = port
        self._rng = random.Random(seed)

    async def send(
        self, attempts: Iterable[Attempt], per_s: float, at_once: int, addresses: list[str]
    ) -> None:
        """Send all, so many each second and at most so many at the same time, each from one of the addresses."""
        began = time.perf_counter()
        waiting = enumerate(attempts)

        async def one_after_the_other() -> None:
            for n, attempt in waiting:
                await asyncio.sleep(max(0.0, began + n / per_s - time.perf_counter()))
                address = self._rng.choice(addresses).encode()
                said = attempt.says.replace(b"host:", b"x-forwarded-for: %s\r\nhost:" % address, 1)
                try:
                    async with line_to(self._port) as line:
                        verdict = await hostile.answered(line, replace(attempt, says=said))
                except ConnectionError:
                    verdict = HUNG_UP
                self.answers[attempt.kind][verdict] += 1
                if verdict not in attempt.right:
                    self.wrong[attempt.kind][verdict] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(one_after_the_other())


def addresses(first: int, count: int) -> list[str]:
    return [f"45.{first}.{n // 250}.{n % 250 + 1}" for n in range(count)]


def from_one_address(seed: int) -> Iterator[Attempt]:
    """Wrong signatures, more than an address may send."""
    found = (each for each in hostile.attempts(seed, KNOWN) if each.kind == "wrong signature")
    for each in found:
        yield replace(each, kind="flood of one address", right=each.right | {LIMITED})


async def run(seed: int) -> list[tuple[bool, str]]:
    """What was found: whether it is as it should be, and the figures."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="odooops-abuse-"))
        stack.callback(shutil.rmtree, folder)
        urls = await stack.enter_async_context(broker(folder))
        nc = await bus.connect(urls["operator"], "operator")
        stack.push_async_callback(nc.close)
        await streams.provision(nc.jetstream())
        port, ops_port = embedded.free_port(), embedded.free_port()
        settings = {
            "NATS_URL_INGEST": urls["ingest"],
            "ODOOOPS_PORT": str(port),
            "ODOOOPS_OPS_PORT": str(ops_port),
            "ODOOOPS_TRUSTED_PROXIES": "127.0.0.0/8",
            **{secret.name: secret.value.decode() for secret in SECRETS},
        }
        log = folder / "ingest.log"
        ingest = await stack.enter_async_context(
            running(
                [sys.executable, "-m", "services.ingest"],
                env={**os.environ, **settings},
                stderr=stack.enter_context(log.open("wb")),
            )
        )
        async with asyncio.timeout(START_S_MAX):
            while await ports.problems_at(embedded.LOOPBACK, ops_port) != {}:
                await asyncio.sleep(POLL_S)
        honest = await stack.enter_async_context(
            running(
                [sys.executable, "-m", "bench.honest", str(port), str(HONEST_PER_S), HONEST_ADDRESS],
                stdin=PIPE,
                stdout=PIPE,
                stderr=None,
            )
        )
        attackers = Attackers(port, seed)
        began = time.perf_counter()
        usual = COUNT - SLOW_COUNT - ONE_ADDRESS_COUNT - FLOODS_COUNT - HOARDS_COUNT - PIPELINES_COUNT
        async with asyncio.TaskGroup() as group:
            for attempts, count, per_s, at_once, of in (
                (hostile.slow(seed, KNOWN), SLOW_COUNT, 300, SLOW_COUNT, addresses(1, 10)),
                (hostile.attempts(seed, KNOWN), usual, usual / TAKES_S, AT_ONCE, addresses(2, 100)),
                (from_one_address(seed), ONE_ADDRESS_COUNT, 50, AT_ONCE, addresses(3, 1)),
                (hostile.floods(seed, KNOWN), FLOODS_COUNT, 1.2, FLOODS_AT_ONCE, addresses(4, 10)),
                (hostile.hoards(seed, KNOWN), HOARDS_COUNT, 4, HOARDS_COUNT, addresses(5, 2)),
                (hostile.pipelines(seed, KNOWN), PIPELINES_COUNT, 1, 1, addresses(6, 100)),
            ):
                group.create_task(attackers.send(islice(attempts, count), per_s, at_once, of))
        took_s = time.perf_counter() - began
        said, _ = await asyncio.wait_for(honest.communicate(b""), START_S_MAX)
        stored = await nc.jetstream().stream_info(streams.DELIVERIES, subjects_filter="deliveries.github.>")
        in_log = sum((stored.state.subjects or {}).values())
        return [
            _answered(attackers, took_s),
            _limited(attackers.answers["flood of one address"]),
            _memory(ingest.pid),
            *_served(json.loads(said), in_log),
            _logged(log.read_text()),
        ]


def _answered(attackers: Attackers, took_s: float) -> tuple[bool, str]:
    for kind, answers in sorted(attackers.answers.items()):
        told = ", ".join(
            f"{count} × {status or ''} {reason}" for (status, reason), count in answers.most_common()
        )
        print(f"  {kind}: {' '.join(told.split())}")
    count = sum(answers.total() for answers in attackers.answers.values())
    wrong = {kind: dict(answers) for kind, answers in attackers.wrong.items()}
    return (
        not wrong and count == COUNT,
        f"{count} hostile requests in {took_s:.0f} s, answered wrongly: {wrong or 0}",
    )


def _limited(answers: Counter[Verdict]) -> tuple[bool, str]:
    return answers[LIMITED] > 0, f"{answers[LIMITED]} of {answers.total()} of one address were over its limit"


def _memory(pid: int) -> tuple[bool, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = [1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    most = streams.INGEST_MEMORY_BYTES_MAX
    return peak <= most, f"memory peaked at {peak / 1e6:.0f} MB, bound {most / 1e6:.0f} MB"


def _served(honest: dict[str, float | dict[str, int]], in_log: int) -> list[tuple[bool, str]]:
    answers, p99_ms = honest["answers"], honest["p99_ms"]
    assert isinstance(answers, dict) and isinstance(p99_ms, float)
    times = f"p50 {honest['p50_ms']:.1f} ms, p99 {p99_ms:.1f} ms, longest {honest['max_ms']:.1f} ms"
    in_time = f"honest requests at {HONEST_PER_S}/s: {times}, bound of p99 {HONEST_P99_MS_MAX} ms"
    taken = f"honest requests were answered {answers}, and {in_log} of them are in the log"
    return [
        (p99_ms < HONEST_P99_MS_MAX, in_time),
        (set(answers) == {"200"} and in_log == answers["200"], taken),
    ]


def _logged(log: str) -> tuple[bool, str]:
    lines = log.splitlines()
    shown = [secret.name for secret in SECRETS if secret.value.decode() in log]
    shown += [
        each for each in ("sha256=", "v0=", "a-recorded-token", HONEST_ADDRESS, "Traceback") if each in log
    ]
    said = (
        f"{len(lines)} lines in its log, bound {LOG_LINES_MAX}; secrets in it: {', '.join(shown) or 'none'}"
    )
    return len(lines) <= LOG_LINES_MAX and not shown, said


if __name__ == "__main__":
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(10**6)
    print(f"seed {seed}")
    findings = uvloop.run(run(seed))
    for well, words in findings:
        print(f"{'ok  ' if well else 'FAIL'} {words}")
    sys.exit(not all(well for well, _ in findings))
