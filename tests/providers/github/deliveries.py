"""The sample bodies as deliveries, and the written form of what a delivery must become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.delivery import Delivery, body_sha256
from contracts.envelope import Event
from contracts.ssot import ProviderFile
from providers.github import PROVIDER
from providers.port import Ignored, NoOptions, Source, Unintelligible

FIXTURES = Path(__file__).with_name("fixtures")
EXPECTED = Path(__file__).with_name("expected")
SAMPLES = sorted(FIXTURES.glob("*/*.json"))

SOURCE = Source(
    name="github",
    provider=PROVIDER,
    file=ProviderFile(name="github", endpoint="/webhooks/github"),
    options=NoOptions(),
)
RECEIVED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
IDENTITY = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
JSON_TYPE = "application/json"


def sample(name: str) -> dict[str, Any]:
    """The decoded body of a sample, free to be changed: `issues.pinned.19`."""
    path = FIXTURES / name.partition(".")[0] / f"{name}.json"
    body: dict[str, Any] = json.loads(path.read_bytes())
    return body


def delivery(
    event: str,
    body: Mapping[str, Any] | bytes,
    *,
    received_at: datetime = RECEIVED_AT,
    identity: str = IDENTITY,
    content_type: str = JSON_TYPE,
) -> Delivery:
    """A webhook delivery of `body` as ingest would store it."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(
        source="github",
        identity=identity,
        kind=event,
        via="webhook",
        received_at=received_at,
        body=raw,
        body_sha256=body_sha256(raw),
        verified_by="GITHUB_WEBHOOK_SECRET",
        headers={"x-github-event": event, "content-type": content_type},
    )


def normalized(event: str, body: Mapping[str, Any] | bytes, **how: Any) -> list[Event]:
    """The events that a delivery means."""
    return list(PROVIDER.normalize(delivery(event, body, **how), SOURCE))


def only(event: str, body: Mapping[str, Any] | bytes, **how: Any) -> Any:
    """The one event that a delivery means."""
    [one] = normalized(event, body, **how)
    return one


def parked(event: str, body: Mapping[str, Any] | bytes, **how: Any) -> Unintelligible:
    """Why a delivery is set aside."""
    with pytest.raises(Unintelligible) as caught:
        normalized(event, body, **how)
    return caught.value


def ignored(event: str, body: Mapping[str, Any] | bytes) -> str:
    """The reason for which a delivery means nothing to us."""
    with pytest.raises(Ignored) as caught:
        normalized(event, body)
    return caught.value.reason


def expected_path(path: Path) -> Path:
    """Where the outcome of a sample is written."""
    return EXPECTED / path.parent.name / f"{path.stem}.events.json"


def outcome(path: Path) -> dict[str, Any]:
    """What a sample becomes, as JSON: its events with their ids, or why it is ignored."""
    try:
        events = normalized(path.parent.name, path.read_bytes())
    except Ignored as nothing:
        return {"ignored": nothing.reason}
    return {
        "events": [
            {"type": event.type, "id": event.id, **event.model_dump(mode="json", exclude_none=True)}
            for event in events
        ]
    }
