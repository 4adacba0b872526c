"""Real deliveries in any number: the GitHub samples of the tests, each copy about a thing of its own."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from contracts.delivery import Delivery, body_sha256

FIXTURES = Path(__file__).parent.parent / "tests" / "providers" / "github" / "fixtures"
SECRET = b"bench-secret"
RECEIVED_AT = datetime(2026, 11, 1, tzinfo=UTC)
SMALLEST_ID = 99_999
"""A smaller number may stand in a body for other things, a year among them."""
_MAIN = {
    "issue_comment": "comment",
    "issues": "issue",
    "installation": "installation",
    "meta": "hook",
    "ping": "hook",
    "push": "repository",
    "repository": "repository",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One recorded body, compact, and the two texts in it that name its thing."""

    event: str
    body: bytes
    entity_id: int
    repository: bytes

    def copy(self, n: int) -> bytes:
        """The body as if it were about the n-th thing of its kind."""
        about = self.body
        if self.entity_id > SMALLEST_ID:
            about = about.replace(str(self.entity_id).encode(), str(self.entity_id + n).encode())
        return about.replace(self.repository, self.repository + b"-%d" % n) if self.repository else about


def samples() -> list[Sample]:
    """Every sample, in a fixed order that mixes the events."""
    found = []
    for path in sorted(FIXTURES.rglob("*.json")):
        event = path.parent.name
        if path.parent.parent != FIXTURES:
            continue
        body = orjson.loads(path.read_bytes())
        main = body.get(_MAIN.get(event, event)) or {}
        repository = (body.get("repository") or {}).get("full_name", "")
        found.append(Sample(event, orjson.dumps(body), int(main.get("id") or 0), repository.encode()))
    return sorted(found, key=lambda sample: hashlib.sha256(sample.body).digest())


def deliveries(count: int) -> Iterator[Delivery]:
    """`count` deliveries, all different, as ingest would store them."""
    mixed = samples()
    for n in range(count):
        sample = mixed[n % len(mixed)]
        body = sample.copy(n)
        yield Delivery(
            source="github",
            identity=f"bench-{n:08d}",
            kind=sample.event,
            via="webhook",
            received_at=RECEIVED_AT,
            body=body,
            body_sha256=body_sha256(body),
            verified_by="BENCH",
            headers={"x-github-event": sample.event, "content-type": "application/json"},
        )


def requests(count: int, body: bytes | None = None) -> Iterator[tuple[bytes, dict[str, str]]]:
    """`count` signed webhook requests (body, headers): real bodies, or all with the given one."""
    mixed = samples()
    for n in range(count):
        sample = mixed[n % len(mixed)]
        raw = sample.copy(n) if body is None else body
        yield (
            raw,
            {
                "content-type": "application/json",
                "x-github-event": sample.event if body is None else "ping",
                "x-github-delivery": f"bench-{n:08d}-{raw[:4].hex()}",
                "x-hub-signature-256": "sha256=" + hmac.new(SECRET, raw, hashlib.sha256).hexdigest(),
            },
        )
