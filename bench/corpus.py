"""Real deliveries in any number: the recorded bodies of the tests, each copy about a thing of its own."""

from __future__ import annotations

import hashlib
import hmac
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import orjson

from contracts.delivery import Delivery, body_sha256
from providers.registry import PROVIDERS

FIXTURES = Path(__file__).parent.parent / "tests" / "providers" / "github" / "fixtures"
SECRET = b"bench-secret"
RECEIVED_AT = datetime(2026, 11, 1, tzinfo=UTC)
SMALLEST_ID = 99_999
"""A smaller number may stand in a body for other things, a year among them."""
_UUID = re.compile(rb"\b([0-9a-f]{8})(-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\b")
_NUMBER = re.compile(rb"(?<=[:\[, ])[1-9][0-9]{5,17}(?=[,}\] \n])")
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


def mixed(count: int) -> Iterator[Delivery]:
    """`count` deliveries of every provider by turns, all different, as the log would hold them."""
    cases = [importlib.import_module(f"tests.providers.{name}.cases").CASE for name in PROVIDERS]
    by_turns = [
        (case, sample)
        for rank in range(max(len(case.samples) for case in cases))
        for case in cases
        if rank < len(case.samples)
        for sample in (case.samples[rank],)
    ]
    github = deliveries(count)
    for n in range(count):
        case, sample = by_turns[n % len(by_turns)]
        if case.source.name == "github":
            yield replace(next(github), identity=f"mixed-{n:08d}")
            continue
        body = _renamed(sample.body, n)
        made = case.delivery(sample, body)
        source = case.source.provider.name
        yield replace(made, source=source, identity=f"mixed-{n:08d}", received_at=RECEIVED_AT)


def _renamed(body: bytes, n: int) -> bytes:
    """A body with every id in it replaced by the n-th of its kind: UUIDs, and numbers that are no times."""
    changed = _UUID.sub(lambda found: b"%08x" % ((int(found[1], 16) + n) % 2**32) + found[2], body)
    return _NUMBER.sub(
        lambda found: found[0] if _is_time(int(found[0])) else b"%d" % (int(found[0]) + n), changed
    )


def _is_time(number: int) -> bool:
    """Whether a number may be seconds or milliseconds since 1970."""
    return 10**9 <= number < 2 * 10**9 or 10**12 <= number < 2 * 10**12


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
