"""What deliveries by Standard Webhooks mean."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from contracts.envelope import Event
from contracts.external import ExternalReceived
from contracts.ssot import EnvironmentRule, Environments
from contracts.version import moment
from providers.standard import PROVIDER
from tests.providers.driving import NOW, delivery_of, events_of, source_of
from tests.providers.standard.deliveries import FULL, IDENTITY, SOURCE, THIN

AT = datetime(2022, 11, 3, 20, 26, 10, 344522, tzinfo=UTC)


def only(body: bytes, kind: str = "contact.created") -> Event:
    [event] = events_of(SOURCE, delivery_of(SOURCE, kind, body, identity=IDENTITY))
    return event


@pytest.mark.parametrize("body", [FULL, THIN], ids=["full", "thin"])
def test_both_styles_of_body_mean_that_something_was_said(body: bytes) -> None:
    assert only(body) == ExternalReceived(
        source="shop",
        ref=f"shop:contact.created/{IDENTITY}",
        moment=moment(AT, 0),
        occurred_at=AT,
        env="unknown",
        kind="contact.created",
        external_id=IDENTITY,
    )


def test_nothing_of_the_data_leaves_the_delivery() -> None:
    assert "John Smith" not in only(FULL).model_dump_json()


@pytest.mark.parametrize(
    "timestamp", [b'"yesterday"', b'"2022-11-03T20:26:10"', b'"1667507170"', b"1667507170", b"null", b"{}"]
)
def test_a_time_that_is_none_is_the_time_of_receipt(timestamp: bytes) -> None:
    event = only(b'{"type": "contact.created", "timestamp": ' + timestamp + b"}")
    assert (NOW, moment(NOW, 0)) == (event.occurred_at, event.moment)


@pytest.mark.parametrize("body", [b"plain words", b"[1]", b"", b"\xff"])
def test_a_body_of_any_kind_is_a_message(body: bytes) -> None:
    event = only(body, "message")
    assert isinstance(event, ExternalReceived)
    assert ("message", f"shop:message/{IDENTITY}") == (event.kind, event.ref)
    assert "shop: message" == event.summary


def test_the_environment_is_that_of_the_source() -> None:
    rules = Environments((EnvironmentRule(env="prod", source=["shop"]),))
    source = source_of(PROVIDER, "shop", environments=rules)
    [event] = events_of(source, delivery_of(source, "contact.created", FULL))
    assert "prod" == event.env
