"""What deliveries of senders without code mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.external import ExternalReceived
from contracts.ssot import EnvironmentRule, Environments
from contracts.version import moment
from providers.generic import PROVIDER
from providers.port import Unintelligible
from services.projector.understand import understand
from tests.providers.driving import NOW, delivery_of, events_of, source_of

AT = datetime(2026, 10, 31, 8, 0, 0, 250_000, tzinfo=UTC)
FULL = {
    "identity": {"pointer": "/id"},
    "kind": {"pointer": "/event"},
    "time": {"pointer": "/at"},
    "ref": "/thing/name",
    "title": "/text",
}
BODY = {
    "id": "e-1",
    "event": "Disk.Full",
    "at": "2026-10-31T08:00:00.25Z",
    "thing": {"name": "shop-2 /dev/sda"},
    "text": "nearly full",
}


def only(options: Mapping[str, Any], body: Any, **how: Any) -> ExternalReceived:
    """The one event that a body means; its identity is `e-1`, its kind `disk.full`."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    source = source_of(PROVIDER, "acme", {"verify": "none", **options}, unsigned=True)
    delivered = delivery_of(source, "disk.full", raw, identity="e-1", **how)
    [event] = events_of(source, delivered)
    assert isinstance(event, ExternalReceived)
    return event


def test_everything_that_ssot_points_at_is_found() -> None:
    assert only(FULL, BODY) == ExternalReceived(
        source="acme",
        ref="acme:shop-2%20/dev/sda",
        moment=moment(AT, 0),
        fact="e-1",
        occurred_at=AT,
        env="unknown",
        kind="Disk.Full",
        external_id="e-1",
        title="nearly full",
    )


def test_where_ssot_points_at_nothing_the_delivery_speaks_for_itself() -> None:
    assert only({}, BODY) == ExternalReceived(
        source="acme",
        ref="acme:disk.full/e-1",
        moment=moment(NOW, 0),
        fact="e-1",
        occurred_at=NOW,
        env="unknown",
        kind="disk.full",
    )


@pytest.mark.parametrize("body", [b"a=b", b"\xff", b"", b"[]", b"7", b'"x"', b"{}"])
def test_a_body_without_what_is_looked_for_is_no_failure(body: bytes) -> None:
    found = only(FULL, body)
    assert ("disk.full", "acme:disk.full/e-1", NOW, None) == (
        found.kind, found.ref, found.occurred_at, found.title,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("iso", "2026-10-31T08:00:00.25Z"),
        ("iso", "2026-10-31T09:00:00.250+01:00"),
        ("ms", 1793433600250),
        ("ms", "1793433600250"),
        ("s", 1793433600.25),
        ("s", "1793433600.25"),
    ],
)
def test_a_time_is_read_in_the_unit_that_ssot_says(unit: str, value: object) -> None:
    assert AT == only({"time": {"pointer": "/at", "unit": unit}}, {"at": value}).occurred_at


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("iso", 1793433600),
        ("iso", "1793433600"),
        ("iso", "2026-10-31T08:00:00"),
        ("iso", "2026-10-31"),
        ("iso", "yesterday"),
        ("s", "2026-10-31T08:00:00Z"),
        ("s", True),
        ("s", {}),
        ("s", 10**400),
        ("ms", 1e308),
        ("ms", "1e9"),
    ],
)
def test_a_time_in_another_unit_parks_and_is_never_guessed(unit: str, value: object) -> None:
    with pytest.raises(Unintelligible, match=r"mend options\.time in ssot/providers/acme\.yaml") as parked:
        only({"time": {"pointer": "/at", "unit": unit}}, {"at": value})
    assert "unreadable_time" == parked.value.reason


def test_a_time_that_is_null_or_absent_is_that_of_receipt() -> None:
    for body in ({"at": None}, {}):
        assert NOW == only({"time": {"pointer": "/at"}}, body).occurred_at


def test_the_same_words_twice_are_two_events_where_the_sender_has_no_id() -> None:
    source = source_of(PROVIDER, "acme", {"ref": "/thing"}, unsigned=True)
    raw = b'{"thing": "a"}'
    ids = {
        events_of(source, delivery_of(source, "message", raw, identity=identity))[0].id
        for identity in ("r-1", "r-2")
    }
    assert 2 == len(ids)


def test_one_thing_keeps_its_ref_through_all_kinds() -> None:
    source = source_of(PROVIDER, "acme", FULL, unsigned=True)
    refs = {
        events_of(source, delivery_of(source, kind, json.dumps(BODY).encode()))[0].ref
        for kind in ("disk.full", "disk.mended")
    }
    assert {"acme:shop-2%20/dev/sda"} == refs


def test_long_and_strange_text_is_bounded_and_clean() -> None:
    body = {"id": "e-1", "event": "k" * 5_000, "text": "t\x00" * 5_000, "thing": {"name": "\ud800" * 5_000}}
    source = source_of(PROVIDER, "acme", FULL, unsigned=True)
    delivered = delivery_of(source, "message", json.dumps(body).encode())
    understood = understand({"acme": source}, delivered)
    assert "projected" == understood.status
    [statement] = understood.statements
    assert b"\\u0000" not in statement.data and len(statement.data) < 4_000


def test_the_environment_is_that_of_the_source() -> None:
    rules = Environments((EnvironmentRule(env="prod", source=["acme"]),))
    source = source_of(PROVIDER, "acme", {}, rules, unsigned=True)
    [event] = events_of(source, delivery_of(source, "message", b""))
    assert "prod" == event.env


def test_the_summary_says_who_and_what() -> None:
    assert "acme: Disk.Full: nearly full" == only(FULL, BODY).summary
