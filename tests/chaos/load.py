"""Signed deliveries, each with an id of its own, at a steady rate, and what was answered to each."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Literal

import httpx

from bench import corpus
from providers.github.verify import sign
from providers.port import Secret
from runtime.embedded import LOOPBACK

ANSWER_S_MAX = 10.0
"""GitHub waits no longer."""
UNDER_WAY_MAX = 400
TRIES_MAX = 4
AGAIN_SHARE = 0.6
"""Of deliveries that were refused, or whose answer was lost, those that their sender sends again."""
AGAIN_S = (0.2, 2.0)
THINGS = 60
"""Deliveries are about so many things of each kind, so that many say something of the same."""
JUMP_SHARE = 0.3
JUMP_H = (2, 48)
"""How far a provider's clock is off, where it is: what is ahead by so much is parked."""
_TIMES = re.compile(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_TOLD = ("workflow_run", "deployment_status")
"""What Slack is told about, if it is news."""

Answer = Literal["stored", "duplicate", "spooled", "refused", "unknown", "wrong"]
ACKNOWLEDGED: frozenset[Answer] = frozenset({"stored", "duplicate", "spooled"})


@dataclass(slots=True)
class Sent:
    """A delivery and what became of each try."""

    id: str
    event: str
    body: bytes = field(repr=False)
    answers: list[Answer] = field(default_factory=list)
    words: str = ""
    """Of an answer that should not be."""

    @property
    def acknowledged(self) -> bool:
        return not ACKNOWLEDGED.isdisjoint(self.answers)

    @property
    def repaired(self) -> bool:
        """Whether it was acknowledged at a later try than the first."""
        return self.acknowledged and self.answers[0] not in ACKNOWLEDGED


def bodies(random: Random) -> Iterator[tuple[str, bytes]]:
    """Real bodies without end, their times moved to now or to somewhere else; of what Slack hears, old ones only."""
    samples = [each for each in corpus.samples() if each.event not in _TOLD]
    while True:
        sample = random.choice(samples)
        yield sample.event, _moved(sample.copy(random.randrange(THINGS)), random)


def runs(random: Random) -> Iterator[tuple[str, bytes]]:
    """Ends of runs without end, each of a run of its own."""
    sample = next(
        each
        for each in corpus.samples()
        if each.event == "workflow_run" and b'"action":"completed"' in each.body
    )
    n = 0
    while True:
        n += 1
        yield sample.event, _moved(sample.copy(n), random)


def _moved(body: bytes, random: Random) -> bytes:
    jump_h = random.uniform(*JUMP_H) * random.choice((-1, 1)) if random.random() < JUMP_SHARE else 0.0
    at = datetime.now(UTC) + timedelta(hours=jump_h)
    return _TIMES.sub(at.strftime("%Y-%m-%dT%H:%M:%SZ").encode(), body)


class Load:
    """Senders with two doors to knock at."""

    def __init__(self, seed: int, doors: Mapping[str, int], secret: str) -> None:
        self.sent: list[Sent] = []
        self._random = Random(seed)
        self._bodies, self._runs = bodies(self._random), runs(self._random)
        self._secret = Secret("GITHUB_WEBHOOK_SECRET", secret.encode())
        self._urls = [f"http://{LOOPBACK}:{port}/webhooks/github" for port in doors.values()]
        self._seed = seed

    async def send(self, seconds: float, per_s: float, runs_per_s: float) -> None:
        """Send for some time, and wait for the last answers."""
        loop = asyncio.get_running_loop()
        end, told_at = loop.time() + seconds, loop.time()
        room = asyncio.Semaphore(UNDER_WAY_MAX)
        limits = httpx.Limits(max_connections=UNDER_WAY_MAX)
        async with (
            httpx.AsyncClient(timeout=ANSWER_S_MAX, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            while (now := loop.time()) < end:
                is_run = now >= told_at
                if is_run:
                    told_at += 1 / runs_per_s
                event, body = next(self._runs if is_run else self._bodies)
                sent = Sent(f"chaos-{self._seed}-{len(self.sent)}", event, body)
                self.sent.append(sent)
                await room.acquire()
                group.create_task(self._deliver(client, sent)).add_done_callback(lambda _: room.release())
                await asyncio.sleep(1 / per_s)

    async def _deliver(self, client: httpx.AsyncClient, sent: Sent) -> None:
        for _ in range(TRIES_MAX):
            answer = await self._try(client, sent)
            sent.answers.append(answer)
            if answer in ACKNOWLEDGED or answer == "wrong" or self._random.random() > AGAIN_SHARE:
                return
            await asyncio.sleep(self._random.uniform(*AGAIN_S))

    async def _try(self, client: httpx.AsyncClient, sent: Sent) -> Answer:
        headers = {
            "content-type": "application/json",
            "x-github-event": sent.event,
            "x-github-delivery": sent.id,
            **sign(sent.body, self._secret),
        }
        try:
            answer = await client.post(self._random.choice(self._urls), content=sent.body, headers=headers)
        except httpx.TransportError:
            return "unknown"
        if answer.status_code == 503:
            return "refused"
        if answer.status_code != 200:
            sent.words = f"{answer.status_code}: {answer.text}"
            return "wrong"
        said = answer.json()
        return "spooled" if said.get("spooled") else "duplicate" if said["duplicate"] else "stored"

    def tally(self) -> dict[str, int]:
        """How many were answered how, and how many of each there were in the end."""
        of_tries = Counter(answer for sent in self.sent for answer in sent.answers)
        return {
            "sent": len(self.sent),
            "acknowledged": sum(sent.acknowledged for sent in self.sent),
            "spooled": of_tries["spooled"],
            "refused": of_tries["refused"],
            "unknown": of_tries["unknown"],
            "repaired": sum(sent.repaired for sent in self.sent),
        }
