"""What an observed thing means, and the traps by name. What each recorded thing becomes: see test_items.py."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from contracts.version import micros
from providers.port import Ignored, Unintelligible
from tests.providers.digitalocean.answers import FETCHED_AT, SOURCE, day, only
from tests.providers.driving import delivery_of, events_of

DROPLET: dict[str, Any] = {"id": 1, "name": "web-1", "status": "active"}
DATABASE: dict[str, Any] = {"id": "a-1", "name": "main", "engine": "pg", "status": "online"}
FIREWALL: dict[str, Any] = {"id": "f-1", "name": "web", "status": "succeeded"}
ACTION: dict[str, Any] = {
    "id": 7,
    "status": "in-progress",
    "type": "resize",
    "started_at": "2026-11-01T09:00:00Z",
}
MINIMAL = {"droplet": DROPLET, "database": DATABASE, "firewall": FIREWALL, "action": ACTION}


@pytest.mark.parametrize("kind", MINIMAL)
def test_what_is_not_shown_is_unknown_and_no_reason_to_refuse(kind: str) -> None:
    assert only(kind, MINIMAL[kind]).ref == f"digitalocean:{kind}/{MINIMAL[kind]['id']}"


@pytest.mark.parametrize("kind", ["droplet", "database", "firewall"])
def test_a_thing_without_a_time_of_its_own_is_dated_by_when_it_was_fetched(kind: str) -> None:
    event = only(kind, MINIMAL[kind])

    assert (0, micros(FETCHED_AT), 0) == event.moment
    assert FETCHED_AT == event.occurred_at


@pytest.mark.parametrize("kind", ["droplet", "database", "firewall"])
def test_one_content_fetched_once_is_one_fact_and_another_content_another(kind: str) -> None:
    same = only(kind, MINIMAL[kind], seq=2)
    other = only(kind, {**MINIMAL[kind], "name": "renamed"})
    later = only(kind, MINIMAL[kind], at=FETCHED_AT + timedelta(hours=1))

    assert only(kind, MINIMAL[kind]).id == same.id
    assert 3 == len({same.id, other.id, later.id})


@pytest.mark.parametrize(
    ("kind", "field", "words"),
    [
        ("droplet", "status", ["new", "active", "off", "archive"]),
        (
            "database",
            "status",
            ["creating", "online", "resizing", "migrating", "forking", "degraded", "error"],
        ),
        ("database", "engine", ["pg", "mysql", "redis", "valkey", "mongodb", "kafka", "opensearch"]),
        ("firewall", "status", ["waiting", "succeeded", "failed"]),
    ],
)
def test_a_word_of_tomorrow_is_kept_beside_unknown(kind: str, field: str, words: list[str]) -> None:
    for word in words:
        event = only(kind, {**MINIMAL[kind], field: word})
        assert (word, word) == (getattr(event, field), getattr(event, f"provider_{field}"))

    event = only(kind, {**MINIMAL[kind], field: "hibernating"})
    assert ("unknown", "hibernating") == (getattr(event, field), getattr(event, f"provider_{field}"))


def test_the_status_of_an_action_is_kept_beside_ours() -> None:
    found = {
        word: only("action", {**ACTION, "status": word}) for word in ("in-progress", "errored", "paused")
    }

    assert ["in_progress", "errored", "unknown"] == [event.status for event in found.values()]
    assert ["in-progress", "errored", "paused"] == [event.provider_status for event in found.values()]
    assert ["info", "error", "warn"] == [event.level for event in found.values()]


@pytest.mark.parametrize(
    ("tags", "env"),
    [(["web", "env:prod"], "prod"), (["staging"], "stage"), (["web"], "unknown"), ([], "unknown")],
)
def test_tags_decide_the_environment_by_the_rules_of_ssot(tags: list[str], env: str) -> None:
    assert env == only("droplet", {**DROPLET, "tags": tags}).env
    assert env == only("database", {**DATABASE, "tags": tags}).env


def test_a_name_decides_no_environment() -> None:
    assert "unknown" == only("droplet", {**DROPLET, "name": "odoo-prod-1"}).env


@pytest.mark.parametrize(
    ("written", "fraction"), [("2026-10-01T08:30:00Z", 0), ("2026-10-01T08:30:00.250Z", 250_000)]
)
def test_times_come_with_and_without_milliseconds(written: str, fraction: int) -> None:
    assert fraction == only("droplet", {**DROPLET, "created_at": written}).created_at.microsecond
    done = only("action", {**ACTION, "status": "completed", "completed_at": written})
    assert fraction == done.moment[1] % 1_000_000


@pytest.mark.parametrize("number", [2**31, 2**53 + 1, 2**63 - 1])
def test_ids_beyond_31_bits_are_kept_to_the_last_digit(number: int) -> None:
    assert number == only("droplet", {**DROPLET, "id": number}).droplet_id
    action = only("action", {**ACTION, "id": number, "resource_id": number, "resource_type": "droplet"})
    assert (number, f"digitalocean:droplet/{number}") == (action.action_id, action.resource_ref)


def test_an_id_that_no_table_could_hold_is_refused() -> None:
    with pytest.raises(Unintelligible) as refused:
        only("action", {**ACTION, "id": 2**63})
    assert ("shape_mismatch", False) == (refused.value.reason, str(2**63) in str(refused.value))


def test_an_action_ends_once_and_then_outranks_whatever_was_seen_before() -> None:
    running = only("action", ACTION, at=day(20))
    done = only(
        "action", {**ACTION, "status": "completed", "completed_at": "2026-11-01T09:00:00Z"}, at=day(2)
    )

    assert (0, micros(day(1, 9)), 0) == running.moment
    assert (1, micros(day(1, 9)), 0) == done.moment
    assert done.moment > running.moment


def test_an_end_is_one_fact_whenever_it_is_fetched() -> None:
    ended = {**ACTION, "status": "errored", "completed_at": "2026-11-01T09:10:00Z"}

    assert only("action", ended, at=day(2)).id == only("action", ended, at=day(3)).id


@pytest.mark.parametrize(("completed_at", "major"), [(None, 0), ("2026-11-01T09:10:00Z", 1)])
def test_an_action_in_a_state_of_tomorrow_has_ended_if_it_says_when(
    completed_at: str | None, major: int
) -> None:
    assert major == only("action", {**ACTION, "status": "paused", "completed_at": completed_at}).moment[0]


def test_an_action_that_gives_no_time_is_dated_by_when_it_was_fetched() -> None:
    event = only("action", {"id": 7, "status": "completed", "type": "resize"})
    assert (1, micros(FETCHED_AT), 0) == event.moment


@pytest.mark.parametrize(
    "resource", [{"resource_type": "volume", "resource_id": 9}, {"resource_type": "droplet"}]
)
def test_an_action_names_the_ref_of_what_we_observe_only(resource: dict[str, Any]) -> None:
    assert None is only("action", {**ACTION, **resource}).resource_ref


def test_the_first_address_of_each_kind_counts() -> None:
    networks = {
        "v4": [
            {"ip_address": "10.0.0.1", "type": "private"},
            {"ip_address": "192.0.2.1", "type": "public"},
            {"ip_address": "192.0.2.2", "type": "public"},
        ],
        "v6": [{"ip_address": "2001:db8::1", "type": "public"}],
    }
    event = only("droplet", {**DROPLET, "networks": networks})

    assert ("192.0.2.1", "10.0.0.1", "2001:db8::1") == (
        event.ipv4_public,
        event.ipv4_private,
        event.ipv6_public,
    )


def test_a_gpu_counts_wherever_it_is_shown() -> None:
    gpu = {"count": 8, "model": "nvidia_h100"}
    found = [
        only("droplet", {**DROPLET, **where}, scope="gpu_droplets")
        for where in ({"gpu_info": gpu}, {"size": {"gpu_info": gpu}})
    ]

    assert [(True, 8, "nvidia_h100")] * 2 == [(each.gpu, each.gpu_count, each.gpu_model) for each in found]
    assert (False, None, None) == (
        (plain := only("droplet", DROPLET)).gpu,
        plain.gpu_count,
        plain.gpu_model,
    )


def test_an_image_of_ones_own_has_a_name_and_no_slug() -> None:
    event = only("droplet", {**DROPLET, "image": {"slug": None, "name": "odoo-19"}})
    assert (None, "odoo-19") == (event.image_slug, event.image_name)


def test_a_kind_of_thing_that_we_do_not_know_is_ignored_by_name() -> None:
    with pytest.raises(Ignored, match="no_such_kind"):
        events_of(SOURCE, delivery_of(SOURCE, "observed.volume", b"{}", via="poll"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"[]", "shape_mismatch"),
        (b'{"scope": "droplets"}', "shape_mismatch"),
        (b'{"scope": "droplets", "item": {"id": 1, "name": "n"}}', "shape_mismatch"),
        (
            b'{"scope": "droplets", "item": {"id": 1, "name": "n", "status": "off", "created_at": "then"}}',
            "shape_mismatch",
        ),
    ],
)
def test_what_is_no_such_thing_is_set_aside(body: bytes, reason: str) -> None:
    with pytest.raises(Unintelligible) as refused:
        events_of(SOURCE, delivery_of(SOURCE, "observed.droplet", body, via="poll"))
    assert reason == refused.value.reason
