"""What Vercel's deliveries mean: every sample against its reviewed outcome, and what cannot be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.vercel.normalize import WEBHOOKS
from tests.providers.case import Sample
from tests.providers.vercel.deliveries import (
    EXPECTED,
    SAMPLES,
    expected_path,
    ignored,
    normalized,
    outcome,
    parked,
    webhook,
)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_sample_becomes_what_was_reviewed(sample: Sample) -> None:
    assert json.loads(expected_path(sample).read_bytes()) == outcome(sample)


def test_there_is_an_outcome_for_each_sample_and_no_other() -> None:
    assert sorted(map(expected_path, SAMPLES)) == sorted(EXPECTED.glob("*/*.json"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("deployment", "deployment.created"),
        ("deployment-ready", "deployment.ready"),
        ("deployment-error", "deployment.error"),
        ("deployment-canceled", "deployment.canceled"),
        ("deployment-prepared", "deployment.succeeded"),
    ],
)
def test_an_old_name_means_what_the_new_one_means(old: str, new: str) -> None:
    body = webhook(new)
    named, renamed = normalized(body), normalized({**body, "type": old})
    assert named == renamed
    assert [event.id for event in named] == [event.id for event in renamed]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("project.created", "project_event"),
        ("project.env-variable.created", "project_event"),
        ("project-removed", "project_event"),
        ("domain.created", "domain_event"),
        ("domain-created", "domain_event"),
        ("alerts.triggered", "alert_event"),
        ("deployment.checks.failed", "deployment_check_or_action"),
        ("deployment.check-rerequested", "deployment_check_or_action"),
        ("deployment.integration.action.start", "deployment_check_or_action"),
        ("deployment.invented", "deployment_check_or_action"),
        ("deployment-checks-completed", "deployment_check_or_action"),
        ("integration-configuration.removed", "integration_event"),
        ("integration-resource.project-connected", "integration_event"),
        ("marketplace.invoice.paid", "marketplace_event"),
        ("observability.anomaly", "observability_event"),
        ("firewall.attack", "firewall_event"),
        ("test-webhook", "test_webhook"),
        ("budget.reached", "no_such_event"),
        ("ä", "no_such_event"),
    ],
)
def test_what_is_not_about_the_state_of_a_deployment_is_ignored_by_its_family(kind: str, reason: str) -> None:
    assert reason == ignored({"id": "1", "type": kind, "createdAt": 1, "payload": {}})


@pytest.mark.parametrize("name", sorted(WEBHOOKS))
@pytest.mark.parametrize("payload", [None, {}, [], {"deployment": None, "project": None}])
def test_a_webhook_without_what_it_is_about_parks(name: str, payload: Any) -> None:
    problem = parked({"id": "1", "type": name, "createdAt": 1, "payload": payload})
    assert "shape_mismatch" == problem.reason
    assert "payload" in str(problem)


@pytest.mark.parametrize("time", [None, -1, 10**400, "soon", 253_402_300_800_000, 1.5])
def test_a_time_that_is_none_parks(time: Any) -> None:
    assert "createdAt" in str(parked({**webhook("deployment.ready"), "createdAt": time}))


def test_why_a_body_parks_never_shows_what_is_in_it() -> None:
    body = webhook("deployment.ready")
    body["payload"]["deployment"] |= {"id": {"hunter2": 1}, "url": ["hunter2"]}
    assert "hunter2" not in str(parked(body))


@pytest.mark.parametrize("body", [b"", b"Hello, World!", b'{"type": ', b"\xff\xfe"])
def test_a_body_that_is_no_json_parks(body: bytes) -> None:
    assert "not_json" == parked(body).reason


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"{}"])
def test_json_that_is_no_event_parks(body: bytes) -> None:
    assert "shape_mismatch" == parked(body).reason
