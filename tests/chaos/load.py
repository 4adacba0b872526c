"""Signed deliveries of many senders, each with an id of its own, at a steady rate, and what was answered to each."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from typing import Any, Literal

import httpx
import orjson

from bench import corpus
from providers.port import Composed, Parcel, Secret, Source
from runtime.embedded import LOOPBACK
from tests.chaos.kept import ROOT
from tests.samples import SOURCES

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
OTHERS_SHARE = 0.3
"""Of deliveries, those of other senders than GitHub."""
LARGE_EVERY = 30
"""Of so many deliveries one is large, the first among them."""
LARGE_BYTES = (100_000, 600_000)
"""Of a large one: too much for a message: the body goes into the object store, mostly in several pieces."""
_TIMES = re.compile(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_TOLD = ("workflow_run", "deployment_status")
"""What Slack is told about, if it is news."""

Answer = Literal["stored", "duplicate", "spooled", "refused", "unknown", "wrong"]
ACKNOWLEDGED: frozenset[Answer] = frozenset({"stored", "duplicate", "spooled"})


@dataclass(frozen=True, slots=True)
class Said:
    """What a sender says: its event's name and the body, before it is signed."""

    source: str
    event: str
    body: bytes = field(repr=False)
    id_at: tuple[str, ...] = ()
    """Where in the body its id stands; nowhere, where a header has it."""
    time_at: tuple[str, ...] = ()
    """Where in the body its time stands as a number."""
    units_per_s: int = 1
    called: str = "{}"
    """The identity that it gets, given its id."""


@dataclass(frozen=True, slots=True)
class Try:
    """One request, and what was answered to it."""

    answer: Answer
    began_at: datetime
    ended_at: datetime


@dataclass(slots=True)
class Sent:
    """A delivery and what became of each try."""

    identity: str
    path: str
    request: Composed
    tries: list[Try] = field(default_factory=list)
    words: str = ""
    """Of an answer that should not be."""

    @property
    def acknowledged(self) -> bool:
        return any(each.answer in ACKNOWLEDGED for each in self.tries)

    @property
    def repaired(self) -> bool:
        """Whether it was acknowledged at a later try than the first."""
        return self.acknowledged and self.tries[0].answer not in ACKNOWLEDGED


@cache
def _others() -> tuple[Said, ...]:
    def said(source: str, event: str, file: str, *where: Any) -> Said:
        return Said(source, event, (ROOT / "samples" / source / file).read_bytes(), *where)

    return (
        said("slack", "event.app_mention", "02-app_mention.json", ("event_id",), ("event_time",)),
        said("plane", "workitem.updated", "03-workitem.updated.json", ("event_id",)),
        said("vercel", "deployment.created", "01-deployment.created.json", ("id",), ("createdAt",), 1000),
        said("mailgun", "delivered", "02-delivered.json", ("event-data", "id"), ("event-data", "timestamp")),
        replace(
            said("cloudevents", "com.example.someevent", "01-structured.json", ("id",)),
            called="/mycontext#{}",
        ),
        said("standard_example", "contact.created", "01-contact.created.json"),
        said("generic_example", "alert.closed", "01-alert.closed.json"),
    )


def secrets() -> dict[str, Secret]:
    """The secret of each source that sends, by the source's name."""
    names = ("github", *(each.source for each in _others()))
    return {name: _secret(SOURCES[name]) for name in names}


def _secret(source: Source) -> Secret:
    return Secret(source.file.secrets[0], source.provider.new_secret(source.name.encode().ljust(32)).encode())


def bodies(random: Random) -> Iterator[Said]:
    """Real bodies without end; of what Slack hears, none."""
    samples = [each for each in corpus.samples() if each.event not in _TOLD]
    for n in itertools.count():
        is_large = n % LARGE_EVERY == 0
        if not is_large and random.random() < OTHERS_SHARE:
            yield random.choice(_others())
            continue
        sample = random.choice(samples)
        body = sample.copy(random.randrange(THINGS))
        if is_large:
            padding = random.randbytes(random.randint(*LARGE_BYTES) // 2).hex()
            body = b'{"padding":"%b",%b' % (padding.encode(), body.removeprefix(b"{"))
        yield Said("github", sample.event, body)


def runs() -> Iterator[Said]:
    """Ends of runs without end, each of a run of its own."""
    sample = next(
        each
        for each in corpus.samples()
        if each.event == "workflow_run" and b'"action":"completed"' in each.body
    )
    for n in itertools.count(1):
        yield Said("github", sample.event, sample.copy(n))


def sent(said: Said, name: str, random: Random) -> Sent:
    """What is sent now as the delivery `name`, signed, its times moved to now or to somewhere else."""
    now = datetime.now(UTC)
    jump_h = random.uniform(*JUMP_H) * random.choice((-1, 1)) if random.random() < JUMP_SHARE else 0.0
    at = now + timedelta(hours=jump_h)
    body = _TIMES.sub(at.strftime("%Y-%m-%dT%H:%M:%SZ").encode(), said.body)
    if said.id_at or said.time_at:
        parsed = orjson.loads(body)
        _put(parsed, said.id_at, name)
        _put(parsed, said.time_at, int(at.timestamp() * said.units_per_s))
        body = orjson.dumps(parsed)
    source = SOURCES[said.source]
    assert source.provider.compose and source.file.endpoint
    parcel = Parcel(body=body, event=said.event, delivery=name, at=now)
    composed = source.provider.compose(parcel, source, _secret(source))
    return Sent(said.called.format(name), source.file.endpoint, composed)


def _put(parsed: Any, where: tuple[str, ...], value: str | int) -> None:
    if where:
        for key in where[:-1]:
            parsed = parsed[key]
        parsed[where[-1]] = value


class Load:
    """Senders with two doors to knock at, who wait `answer_s` for an answer."""

    def __init__(self, seed: int, doors: Mapping[str, int], answer_s: float) -> None:
        self.sent: list[Sent] = []
        self.refusals: Counter[str] = Counter()
        """How often each reason was given for a 503."""
        self._random = Random(seed)
        self._bodies, self._runs = bodies(self._random), runs()
        self._doors = [f"http://{LOOPBACK}:{port}" for port in doors.values()]
        self._seed = seed
        self._answer_s = answer_s

    async def send(self, seconds: float, per_s: float, runs_per_s: float) -> None:
        """Send for some time, and wait for the last answers."""
        loop = asyncio.get_running_loop()
        end, told_at = loop.time() + seconds, loop.time()
        room = asyncio.Semaphore(UNDER_WAY_MAX)
        limits = httpx.Limits(max_connections=UNDER_WAY_MAX)
        async with (
            httpx.AsyncClient(timeout=self._answer_s, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            while (now := loop.time()) < end:
                is_run = now >= told_at
                if is_run:
                    told_at += 1 / runs_per_s
                made = sent(next(self._runs if is_run else self._bodies), self._name(), self._random)
                self.sent.append(made)
                await room.acquire()
                group.create_task(self._deliver(client, made)).add_done_callback(lambda _: room.release())
                await asyncio.sleep(1 / per_s)

    def _name(self) -> str:
        return f"chaos-{self._seed}-{len(self.sent)}"

    async def _deliver(self, client: httpx.AsyncClient, sent: Sent) -> None:
        random = Random(sent.identity)  # its own, so that it does not matter who comes first
        for _ in range(TRIES_MAX):
            began_at = datetime.now(UTC)
            answer = await self._ask(client, random.choice(self._doors), sent)
            sent.tries.append(Try(answer, began_at, datetime.now(UTC)))
            if answer in ACKNOWLEDGED or answer == "wrong" or random.random() > AGAIN_SHARE:
                return
            await asyncio.sleep(random.uniform(*AGAIN_S))

    async def _ask(self, client: httpx.AsyncClient, door: str, sent: Sent) -> Answer:
        request = sent.request
        try:
            answer = await client.post(
                f"{door}{sent.path}", content=request.body, headers=dict(request.headers)
            )
        except httpx.TransportError:
            return "unknown"
        if answer.status_code == 503 and "retry-after" in answer.headers:
            self.refusals[answer.json()["reason"]] += 1
            return "refused"
        if answer.status_code != 200:
            sent.words = f"{answer.status_code}: {answer.text}"
            return "wrong"
        said = answer.json()
        return "spooled" if said.get("spooled") else "duplicate" if said.get("duplicate") else "stored"

    def tally(self) -> dict[str, int]:
        """How many were sent, how many tries were answered how, and how many of each there were in the end."""
        of_tries = Counter(each.answer for sent in self.sent for each in sent.tries)
        return {
            "sent": len(self.sent),
            "large": sum(len(sent.request.body) >= LARGE_BYTES[0] for sent in self.sent),
            "acknowledged": sum(sent.acknowledged for sent in self.sent),
            **{answer: of_tries[answer] for answer in ("stored", "duplicate", "spooled", "unknown")},
            "repaired": sum(sent.repaired for sent in self.sent),
            **{f"refused ({reason})": count for reason, count in sorted(self.refusals.items())},
        }
