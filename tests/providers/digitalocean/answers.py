"""The recorded answers, cut and understood, and the written form of what each thing in them must become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.observation import observation, observed_body, observed_kind
from providers.digitalocean import PROVIDER
from providers.digitalocean.items import items
from providers.port import Item, Unintelligible
from runtime.ssot import load
from tests.providers.driving import NOW, delivery_of, events_of, source_of

FIXTURES = Path(__file__).with_name("fixtures")
EXPECTED = Path(__file__).with_name("expected")
ANSWERS = sorted(FIXTURES.glob("*.json"))

KINDS: Mapping[str, str] = {
    "action.in-progress.constructed-from-source": "actions",
    "actions.constructed-from-source": "actions",
    "all_droplet_actions": "actions",
    "all_droplets.all_droplets": "droplets",
    "all_droplets.droplets_filtered_by_tag": "droplets",
    "all_droplets.gpu_droplets": "gpu_droplets",
    "database_cluster": "databases",
    "database_clusters": "databases",
    "existing_droplet.single_droplet": "droplets",
    "get_firewall_response": "firewalls",
    "list_firewalls_response": "firewalls",
}
"""What was asked for, by the answer's file."""
REFUSED: Mapping[str, str] = {
    "database_backups": "shape_mismatch",
    "events_logs": "shape_mismatch",
    "firewall_rules": "shape_mismatch",
    "list_alert_policy_response": "shape_mismatch",
    "server_error": "server_error",
    "too_many_requests": "too_many_requests",
    "unauthorized": "unauthorized",
}
"""Answers that show nothing of ours, and the reason with which they are refused whatever was asked for."""

PASSWORD = "SAMPLE-PASSWORD-NOT-REAL"
USER = "doadmin"
SOURCE = source_of(
    PROVIDER, environments=load(Path(__file__).parents[3] / "ssot").environments, poll_interval_s=3600
)
FETCHED_AT = NOW


def answer(name: str) -> bytes:
    """A recorded answer, as it is."""
    return (FIXTURES / f"{name}.json").read_bytes()


def shown(name: str) -> list[Item]:
    """The things that a recorded answer shows, each found in the scope of its kind."""
    return items(KINDS[name], KINDS[name], answer(name))


def refusal(kind: str, page: bytes, scope: str | None = None) -> Unintelligible:
    """Why an answer is not taken."""
    with pytest.raises(Unintelligible) as refused:
        items(kind, scope or kind, page)
    return refused.value


def observed(
    kind: str,
    item: Mapping[str, Any],
    *,
    at: datetime = FETCHED_AT,
    seq: int = 1,
    scope: str | None = None,
) -> Delivery:
    """The delivery of a thing whose content is stated by a test."""
    body = observed_body(scope or f"{kind}s", item)
    return delivery_of(
        SOURCE,
        observed_kind(kind),
        body,
        identity=f"run-{seq}:{kind}/{item.get('id')}",
        received_at=at,
        via="poll",
        seq=seq,
    )


def only(kind: str, item: Mapping[str, Any], **how: Any) -> Any:
    """The one event of a thing whose content is stated by a test."""
    [event] = events_of(SOURCE, observed(kind, item, **how))
    return event


def outcome(path: Path) -> list[dict[str, Any]] | dict[str, str]:
    """What an answer becomes, as JSON: for each thing what is stored of it and its event, or why it is refused."""
    if path.stem in REFUSED:
        return {kind: refusal(kind, path.read_bytes()).reason for kind in sorted(set(KINDS.values()))}
    return [_outcome(item) for item in shown(path.stem)]


def _outcome(item: Item) -> dict[str, Any]:
    delivery = observation(
        source=SOURCE.name,
        ref=item.ref,
        kind=item.kind,
        body=item.body,
        via="poll",
        run_id="run",
        fetched_at=FETCHED_AT,
    )
    return {
        "identity": delivery.identity,
        "kind": delivery.kind,
        "stored": json.loads(item.body),
        "events": [_event(event) for event in events_of(SOURCE, delivery)],
    }


def _event(event: Event) -> dict[str, Any]:
    return {"type": event.type, "id": event.id, **event.model_dump(mode="json", exclude_none=True)}


def expected_path(path: Path) -> Path:
    """Where the outcome of an answer is written."""
    return EXPECTED / path.name


def day(n: int, hour: int = 0) -> datetime:
    """A time in November 2026."""
    return datetime(2026, 11, n, hour, tzinfo=UTC)
