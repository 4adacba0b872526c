"""The recorded bodies as deliveries, and the written form of what each must become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.observation import observed_body
from contracts.ssot import EnvironmentRule, Environments
from providers.mailgun import PROVIDER
from providers.port import Ignored, Secret, Unintelligible
from tests.providers.case import Sample
from tests.providers.driving import delivery_of, events_of, source_of

FIXTURES = Path(__file__).with_name("fixtures")
EXPECTED = Path(__file__).with_name("expected")

DOMAIN = "mg.example.com"
ENVIRONMENTS = Environments(
    (
        EnvironmentRule(env="prod", tag="env:prod"),
        EnvironmentRule(env="stage", variable="env=stage"),
        EnvironmentRule(env="dev", domain="samples.mailgun.org"),
    )
)
SOURCE = source_of(PROVIDER, options={"domain": DOMAIN}, environments=ENVIRONMENTS)
KEY = Secret("MAILGUN_SIGNING_KEY", b"test-webhook-signing-key")
PARENT_KEY = Secret("MAILGUN_SIGNING_KEY_2", b"test-parent-signing-key")
RECEIVED_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
OBSERVED = "observed.event"


def read(name: str) -> dict[str, Any]:
    """A recorded JSON body, free to be changed: `event-data/opened`."""
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_bytes())
    return found


def _webhook(path: Path) -> Sample:
    body = path.read_bytes()
    event = json.loads(body)["event-data"]["event"]
    return Sample(
        f"{path.parent.name}.{path.name.removesuffix('.signed.json')}",
        body,
        event,
        headers={"content-type": JSON_TYPE},
    )


def _form(path: Path) -> Sample:
    return Sample(f"forms.{path.stem}", path.read_bytes(), path.stem, headers={"content-type": FORM_TYPE})


def _observed(path: Path) -> Sample:
    body = observed_body(f"{DOMAIN}/events", json.loads(path.read_bytes()))
    return Sample(f"event-data.{path.stem}", body, "event", kind=OBSERVED, via="poll")


def _page(path: Path) -> list[Sample]:
    assert PROVIDER.items is not None
    found = PROVIDER.items("events", "samples.mailgun.org/events", path.read_bytes())
    return [
        Sample(f"events-api.{path.stem}.{n}", item.body, item.kind, kind=OBSERVED, via="poll")
        for n, item in enumerate(found)
    ]


SAMPLES = [
    *map(_webhook, sorted(FIXTURES.glob("webhooks/*.json"))),
    *map(_webhook, sorted(FIXTURES.glob("current/*.json"))),
    *map(_form, sorted(FIXTURES.glob("forms/*.txt"))),
    *map(_observed, sorted(FIXTURES.glob("event-data/*.json"))),
    *(sample for path in sorted(FIXTURES.glob("events-api/*.json")) for sample in _page(path)),
]


def webhook(event_data: Mapping[str, Any] | str, **how: Any) -> Delivery:
    """A webhook about an event, given as a mapping or as the JSON text that Mailgun would write."""
    event = event_data if isinstance(event_data, str) else json.dumps(event_data)
    body = f'{{"signature": {{}}, "event-data": {event}}}'.encode()
    return delivery_of(SOURCE, "webhook", body, headers={"content-type": JSON_TYPE}, **how)


def observed(page: str, scope: str = f"{DOMAIN}/events", **how: Any) -> Delivery:
    """The one event of a page of the Events API, as the poller would store it; `page` is the event's JSON text."""
    assert PROVIDER.items is not None
    (item,) = PROVIDER.items("events", scope, f'{{"items": [{page}]}}'.encode())
    return delivery_of(SOURCE, f"observed.{item.kind}", item.body, via="poll", **how)


def only(delivery: Delivery) -> Any:
    """The one event that a delivery means."""
    (event,) = events_of(SOURCE, delivery)
    return event


def ended(delivery: Delivery) -> str:
    """The reason for which a delivery has no event."""
    try:
        events = events_of(SOURCE, delivery)
    except (Ignored, Unintelligible) as error:
        return error.reason
    raise AssertionError(f"it means {events}")


def expected_path(sample: Sample) -> Path:
    """Where the outcome of a sample is written."""
    return EXPECTED / f"{sample.name}.json"


def outcome(sample: Sample) -> dict[str, Any]:
    """What a sample becomes, as JSON, with its type and id. `raw` is left out: it repeats the sample."""
    event: Event = only(
        delivery_of(SOURCE, sample.kind or sample.event, sample.body, headers=sample.headers, via=sample.via)
    )
    return {
        "type": event.type,
        "id": event.id,
        **event.model_dump(mode="json", exclude_none=True, exclude={"raw"}),
    }
