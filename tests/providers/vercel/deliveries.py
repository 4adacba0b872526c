"""The samples as deliveries, and the written form of what a delivery must become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.delivery import Delivery, Via
from contracts.envelope import Event
from contracts.observation import observed_body, observed_kind
from providers.port import Ignored, Unintelligible
from tests.providers.case import Sample
from tests.providers.driving import NOW, delivery_of, events_of
from tests.samples import SOURCES

HERE = Path(__file__).parent
FIXTURES = HERE / "fixtures"
EXPECTED = HERE / "expected"
SOURCE = SOURCES["vercel"]
"""As the repository's own SSOT declares it, with its rules of environments."""
PAYLOAD_ONLY = ".payload-only"
SCOPE = "deployments"

Body = dict[str, Any]


def webhook(name: str) -> Body:
    """The decoded body of a sample, free to be changed: `deployment.ready`."""
    body: Body = json.loads((FIXTURES / "webhooks" / f"{name}.json").read_bytes())
    return body


def page(name: str) -> bytes:
    """A sample of an answer of the API: `deployments`."""
    return (FIXTURES / "rest" / f"{name}.json").read_bytes()


def listed(state: str) -> Body:
    """The first deployment of the sample page that is in `state`, free to be changed."""
    items: list[Body] = json.loads(page("deployments"))["deployments"]
    return next(item for item in items if item["readyState"] == state)


def raw(body: Mapping[str, Any] | bytes) -> bytes:
    """A body as bytes."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def delivery(body: Mapping[str, Any] | bytes, seq: int = 1, received_at: datetime = NOW) -> Delivery:
    """A webhook delivery as ingest would store it."""
    kind = "deployment.ready" if isinstance(body, bytes) else str(body["type"])
    return delivery_of(SOURCE, kind, raw(body), identity=f"id-{seq}", seq=seq, received_at=received_at)


def observation(item: Body, seq: int = 1, fetched_at: datetime = NOW, kind: str = "deployment") -> Delivery:
    """What a poll found, as the log would hold it."""
    return delivery_of(
        SOURCE,
        observed_kind(kind),
        observed_body(SCOPE, item),
        identity=f"run-{seq}",
        seq=seq,
        received_at=fetched_at,
        via="poll",
    )


def normalized(body: Mapping[str, Any] | bytes) -> list[Event]:
    """The events that a webhook means."""
    return events_of(SOURCE, delivery(body))


def only(body: Mapping[str, Any] | bytes) -> Any:
    """The one event that a webhook means."""
    [one] = normalized(body)
    return one


def parked(body: Mapping[str, Any] | bytes) -> Unintelligible:
    """Why a delivery is set aside."""
    with pytest.raises(Unintelligible) as caught:
        normalized(body)
    return caught.value


def ignored(body: Mapping[str, Any] | bytes) -> str:
    """The reason for which a delivery means nothing to us."""
    with pytest.raises(Ignored) as caught:
        normalized(body)
    return caught.value.reason


def _samples() -> list[Sample]:
    found = []
    for path in sorted((FIXTURES / "webhooks").glob("*.json")):
        kind, body = path.stem, path.read_bytes()
        if kind.endswith(PAYLOAD_ONLY):
            kind = kind.removesuffix(PAYLOAD_ONLY)
            inner = json.loads(body)
            around = {"id": "made-for-this-test", "type": kind, "createdAt": 1698397685674}
            body = raw({**around, "payload": inner})
        found.append(Sample(name=path.stem, body=body, event=kind))
    for name in ("deployments", "project"):
        assert SOURCE.provider.items is not None
        for item in SOURCE.provider.items(name, SCOPE, page(name)):
            stem = item.ref.replace("/", "-").replace(":", "-")
            kind = observed_kind(item.kind)
            found.append(Sample(name=stem, body=item.body, event=kind, via="poll"))
    return found


SAMPLES = _samples()


def expected_path(sample: Sample) -> Path:
    """Where the outcome of a sample is written."""
    return EXPECTED / sample.event / f"{sample.name}.events.json"


def outcome(sample: Sample) -> dict[str, Any]:
    """What a sample becomes, as JSON: its events with their ids, or why it is ignored."""
    via: Via = sample.via
    try:
        events = events_of(SOURCE, delivery_of(SOURCE, sample.event, sample.body, via=via))
    except Ignored as nothing:
        return {"ignored": nothing.reason}
    return {
        "events": [
            {"type": event.type, "id": event.id, **event.model_dump(mode="json", exclude_none=True)}
            for event in events
        ]
    }
