"""Hostile requests of every kind get their right answer, while honest ones are taken. `make abuse` sends 10,000."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY

from providers.github import PROVIDER as GITHUB
from providers.mailgun import PROVIDER as MAILGUN
from providers.port import Secret
from providers.slack import PROVIDER as SLACK
from runtime import process, streams
from services.ingest.receive import Endpoint
from tests.providers.driving import source_of
from tests.services.ingest import hostile
from tests.services.ingest.door import SECRET, Door, Reply, open_door, request
from tests.services.ingest.hostile import Attempt, Recorded, Verdict

if TYPE_CHECKING:
    from tests.conftest import Broker

pytestmark = pytest.mark.anyio

SEED = 7
USUAL_COUNT = 300
KNOWN = Recorded(
    SECRET, Secret("MAILGUN_SIGNING_KEY", b"a signing key"), Secret("SLACK_SIGNING_SECRET", 32 * b"a")
)
ENDPOINTS = [
    Endpoint(source_of(provider), lambda secret=secret: [secret])  # type: ignore[misc]
    for provider, secret in ((GITHUB, KNOWN.github), (MAILGUN, KNOWN.mailgun), (SLACK, KNOWN.slack))
]
AT_ONCE = 16


@pytest.fixture
async def door(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    """A door that does not wait long for a head."""
    monkeypatch.setattr(process, "HEAD_READ_MS_MAX", 1_500)
    async with open_door(broker.url, broker.js, ENDPOINTS) as opened:
        yield opened


def counted() -> Counter[Verdict]:
    """The requests that the metrics have counted."""
    found: Counter[Verdict] = Counter()
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name == "odooops_ingest_requests_total":
                found[int(sample.labels["status"]), sample.labels["reason"]] += int(sample.value)
    return found


async def test_each_kind_gets_its_right_answer_and_is_counted_and_honest_requests_are_taken(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = counted()
    answers: Counter[Verdict] = Counter()
    wrong: list[tuple[str, Verdict]] = []
    at_once = asyncio.Semaphore(AT_ONCE)

    async def send(attempt: Attempt) -> None:
        async with at_once, door.line() as line:
            verdict = await hostile.answered(line, attempt)
        answers[verdict] += 1
        if verdict not in attempt.right:
            wrong.append((attempt.kind, verdict))

    async def honest(n: int) -> int:
        async with at_once, door.line() as line:
            await line.send(request(delivery=f"honest-{n}"))
            reply: Reply = await line.reply()
            return reply.status

    usual = islice(hostile.attempts(SEED, KNOWN), USUAL_COUNT)
    _, taken = await asyncio.gather(
        asyncio.gather(*map(send, usual)), asyncio.gather(*map(honest, range(50)))
    )
    # Only now: what is quick on a busy machine may take longer than this.
    monkeypatch.setattr(streams, "BODY_GRACE_S", 1.0)
    monkeypatch.setattr(streams, "BODY_BYTES_PER_S_MIN", 1_000_000)
    slow = (*islice(hostile.slow(SEED, KNOWN), 8), *islice(hostile.floods(SEED, KNOWN), 2))
    await asyncio.gather(*map(send, slow))
    assert wrong == []
    assert taken == 50 * [200]
    stored = {each.identity for each in await door.stored()}
    assert stored == {"a-recorded-token", *(f"honest-{n}" for n in range(50))}

    refused = {verdict: count for verdict, count in answers.items() if verdict[0] >= 400 and verdict[1]}
    assert refused == {verdict: n for verdict, n in (counted() - before).items() if verdict[0] >= 400}
    lines = Counter((line["status"], line["reason"]) for line in door.said("refused"))
    assert set(lines) == set(refused)
    for each in ("a-recorded-token", "d-1", "sha256=", "v0=", KNOWN.mailgun.value.decode(), "%2Fdeploy"):
        assert each not in door.written.getvalue()
