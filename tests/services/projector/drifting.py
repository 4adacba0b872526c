"""Issues of one repository as GitHub tells of them by webhook, and as its API shows them to a poll."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts import own
from contracts.delivery import Delivery
from contracts.observation import observation
from contracts.polls import listing
from providers.github.observed import items
from tests.samples import body, delivery

SCOPE = "repos/codertocat/hello-world/issues"
PULLS = "repos/codertocat/hello-world/pulls"
REF = "github:Codertocat/Hello-World#"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def minute(n: float) -> datetime:
    """A time so many minutes after noon."""
    return NOON + timedelta(minutes=n)


def issue(number: int, at: datetime, *, closed: bool = False, title: str = "Spelling") -> dict[str, Any]:
    """An issue as it was from `at` on, in GitHub's form."""
    shown: dict[str, Any] = json.loads(body("issues.opened.15"))["issue"]
    return shown | {
        "number": number,
        "id": 1000 + number,
        "title": title,
        "state": "closed" if closed else "open",
        "created_at": minute(-60).isoformat(),
        "updated_at": at.isoformat(),
        "closed_at": at.isoformat() if closed else None,
    }


def webhook(
    action: str, shown: dict[str, Any], received_at: datetime, identity: str | None = None
) -> Delivery:
    """GitHub tells of an issue."""
    said = json.loads(body("issues.opened.15")) | {"action": action, "issue": shown}
    name = identity or f"{action}-{shown['number']}-{shown['updated_at']}"
    return replace(delivery("issues", json.dumps(said).encode(), 0, name), received_at=received_at)


def seen(shown: dict[str, Any], fetched_at: datetime, run: str = "run") -> Delivery:
    """A poll finds the issue."""
    [item] = items("issues", SCOPE, json.dumps([shown]).encode())
    return observation(
        source="github",
        ref=item.ref,
        kind=item.kind,
        body=item.body,
        via="poll",
        run_id=f"{run}-{fetched_at:%H%M%S}",
        fetched_at=fetched_at,
    )


def listed(began: datetime, numbers: Sequence[int]) -> list[Delivery]:
    """A whole listing showed these issues."""
    events = listing("github", SCOPE, began, {"issue": [f"{REF}{number}" for number in numbers]})
    return [own.delivery_of(event, "poll", began) for event in events]
