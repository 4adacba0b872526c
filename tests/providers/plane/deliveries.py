"""The sample bodies as deliveries, and the written form of what a delivery must become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.delivery import Delivery
from contracts.envelope import Event
from providers.plane import PROVIDER
from providers.plane.normalize import OBSERVED_ITEM
from providers.plane.poll import WORK_ITEMS, items
from providers.plane.verify import kind_of
from providers.port import Ignored, Unintelligible
from tests.providers.driving import NOW, delivery_of, events_of, source_of

FIXTURES = Path(__file__).with_name("fixtures")
EXPECTED = Path(__file__).with_name("expected")
WEBHOOKS = sorted(path for path in FIXTURES.glob("v*/*.json") if not path.name.endswith(".headers.json"))
PAGES = sorted(FIXTURES.glob("rest/*.json"))
SCOPE = "projects/3b9b7a52-33a7-4a2b-8a35-7c5e5dd3f0b1/work-items"

SOURCE = source_of(PROVIDER, options={"base_url": "https://plane.example.org/", "workspace": "acme"})


def path_of(name: str) -> Path:
    """The file of a sample: `v1-docs/issue.delete.printed`."""
    return FIXTURES / f"{name}.json"


def sample(name: str) -> dict[str, Any]:
    """The decoded body of a sample, free to be changed."""
    body: dict[str, Any] = json.loads(path_of(name).read_bytes())
    return body


def delivery(body: Mapping[str, Any] | bytes, **how: Any) -> Delivery:
    """A webhook delivery of `body` as ingest would store it."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return delivery_of(SOURCE, kind_of(json.loads(raw)["event"]), raw, **how)


def normalized(body: Mapping[str, Any] | bytes, **how: Any) -> list[Event]:
    """The events that a delivery means."""
    return events_of(SOURCE, delivery(body, **how))


def only(body: Mapping[str, Any] | bytes, **how: Any) -> Any:
    """The one event that a delivery means."""
    [one] = normalized(body, **how)
    return one


def ignored(body: Mapping[str, Any]) -> str:
    """The reason for which a delivery means nothing to us."""
    with pytest.raises(Ignored) as caught:
        normalized(body)
    return caught.value.reason


def parked(body: Mapping[str, Any] | bytes) -> Unintelligible:
    """Why a delivery is set aside."""
    with pytest.raises(Unintelligible) as caught:
        normalized(body)
    return caught.value


def observations(page: bytes, fetched_at: datetime = NOW) -> list[Delivery]:
    """The deliveries that a page of the API becomes."""
    return [
        delivery_of(
            SOURCE,
            f"observed.{item.kind}",
            item.body,
            identity=f"run-1:{item.ref}",
            received_at=fetched_at,
            via="poll",
        )
        for item in items(WORK_ITEMS, SCOPE, page)
    ]


def observed(page: Mapping[str, Any] | bytes, fetched_at: datetime = NOW) -> list[Any]:
    """The events that a page of the API means."""
    raw = page if isinstance(page, bytes) else json.dumps(page).encode()
    found = observations(raw, fetched_at)
    assert {each.kind for each in found} <= {OBSERVED_ITEM}
    return [event for each in found for event in events_of(SOURCE, each)]


def expected_path(path: Path) -> Path:
    """Where the outcome of a sample is written."""
    return EXPECTED / path.parent.name / f"{path.stem}.events.json"


def outcome(path: Path) -> dict[str, Any]:
    """What a sample becomes, as JSON: its events with their ids, or why it is ignored."""
    raw = path.read_bytes()
    try:
        events = observed(raw) if path in PAGES else normalized(raw)
    except Ignored as nothing:
        return {"ignored": nothing.reason}
    return {
        "events": [
            {"type": event.type, "id": event.id, **event.model_dump(mode="json", exclude_none=True)}
            for event in events
        ]
    }
