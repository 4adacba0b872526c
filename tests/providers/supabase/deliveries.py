"""The samples as deliveries, and the written form of what each must become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contracts.delivery import Delivery
from providers.port import Ignored, Secret, Unintelligible
from providers.supabase import PROVIDER
from tests.providers.case import Sample
from tests.providers.driving import delivery_of, events_of, source_of

FIXTURES = Path(__file__).with_name("fixtures")
EXPECTED = Path(__file__).with_name("expected")

SOURCE = source_of(PROVIDER)
TOKEN = Secret("SUPABASE_WEBHOOK_TOKEN", b"a-long-random-text")
SAMPLES = [
    Sample(path.name.split(".")[1], path.read_bytes(), path.name.split(".")[1])
    for path in sorted(FIXTURES.glob("*.json"))
]


def change(kind: str, record: Any = None, old_record: Any = None, **fields: Any) -> Delivery:
    """A delivery of a change that a test makes up."""
    body = {
        "type": kind,
        "table": "t",
        "schema": "public",
        "record": record,
        "old_record": old_record,
        **fields,
    }
    return delivery_of(SOURCE, kind.lower(), json.dumps(body).encode())


def only(delivery: Delivery, **options: Any) -> Any:
    """The one event that a delivery means."""
    (event,) = events_of(source_of(PROVIDER, options=options), delivery)
    return event


def ended(delivery: Delivery, **options: Any) -> str:
    """The reason for which a delivery has no event."""
    try:
        event = only(delivery, **options)
    except (Ignored, Unintelligible) as error:
        return error.reason
    raise AssertionError(f"it means {event}")


def expected_path(sample: Sample) -> Path:
    """Where the outcome of a sample is written."""
    return EXPECTED / f"{sample.name}.json"


def outcome(sample: Sample) -> dict[str, Any]:
    """What a sample becomes, as JSON, with its type and id."""
    event = only(delivery_of(SOURCE, sample.event, sample.body))
    return {"type": event.type, "id": event.id, **event.model_dump(mode="json", exclude_none=True)}
