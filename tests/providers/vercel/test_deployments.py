"""The traps of deployments: what each webhook and each look at the API states, and in which order it counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from contracts.deployments import DeploymentCreated, DeploymentStatusChanged
from contracts.envelope import Event
from contracts.ssot import EnvironmentRule, Environments
from providers.port import Unintelligible
from tests.providers.driving import NOW, events_of
from tests.providers.vercel.deliveries import (
    SOURCE,
    Body,
    delivery,
    listed,
    normalized,
    observation,
    only,
    webhook,
)


def seen(item: Body, **how: Any) -> tuple[Any, Any]:
    """What a poll states: that the deployment was asked for, and its state."""
    asked, state = events_of(SOURCE, observation(item, **how))
    return asked, state


def of_kind(kind: str, **changes: Any) -> Event:
    """The status that a webhook of `kind` states, made of the sample of `deployment.ready`."""
    return next(iter(normalized({**webhook("deployment.ready"), "type": kind, **changes})))


def item_of(name: str, state: str) -> Body:
    """The deployment of a webhook's sample as the API would list it in `state`."""
    body = webhook(name)
    payload, deployment = body["payload"], body["payload"]["deployment"]
    return {
        **listed("BUILDING"),
        "uid": deployment["id"],
        "name": deployment["name"],
        "projectId": payload["project"]["id"],
        "url": deployment["url"],
        "inspectorUrl": deployment["inspectorUrl"],
        "meta": deployment["meta"],
        "creator": {"uid": payload["user"]["id"]},
        "target": payload.get("target"),
        "readyState": state,
        "state": state,
    }


@pytest.mark.parametrize(
    ("kind", "status", "level"),
    [
        ("deployment.build-requested", "deploying", "info"),
        ("deployment.blocked", "awaiting_authorization", "warn"),
        ("deployment.succeeded", "success", "info"),
        ("deployment.error", "failed", "error"),
        ("deployment.canceled", "cancelled", "info"),
        ("deployment.ready", "success", "info"),
        ("deployment.promoted", "success", "info"),
        ("deployment.cleanup", "inactive", "info"),
    ],
)
def test_a_webhook_has_one_normalised_word_and_a_level(kind: str, status: str, level: str) -> None:
    event: Any = of_kind(kind)
    assert (status, level) == (event.status, event.level)
    assert kind == f"deployment.{event.provider_status}"


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("QUEUED", "queued"),
        ("INITIALIZING", "queued"),
        ("BLOCKED", "awaiting_authorization"),
        ("BUILDING", "deploying"),
        ("READY", "success"),
        ("ERROR", "failed"),
        ("CANCELED", "cancelled"),
        ("INVENTED", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_state_of_the_api_has_one_normalised_word(state: str, status: str) -> None:
    asked, event = seen({**listed("BUILDING"), "readyState": state, "state": state})
    assert isinstance(asked, DeploymentCreated)
    assert (status, state.lower()) == (event.status, event.provider_status)


def test_states_come_in_the_order_of_a_deployments_life() -> None:
    """A word that nobody knows counts least. Of two contradicting ends the worse one counts."""
    words = ["blocked", "build-requested", "succeeded", "canceled", "error", "ready", "promoted", "cleanup"]
    moments = [of_kind(f"deployment.{word}").moment for word in words]
    looks = [
        seen({**listed("BUILDING"), "readyState": state})[1].moment
        for state in (
            "INVENTED",
            "QUEUED",
            "INITIALIZING",
            "BLOCKED",
            "BUILDING",
            "CANCELED",
            "ERROR",
            "READY",
        )
    ]
    assert all(earlier < later for earlier, later in pairwise(moments))
    assert all(earlier < later for earlier, later in pairwise(looks))


@pytest.mark.parametrize(
    ("name", "state"),
    [("deployment.ready", "READY"), ("deployment.error", "ERROR"), ("deployment.canceled", "CANCELED")],
)
def test_a_webhook_and_a_look_at_one_state_are_one_fact(name: str, state: str) -> None:
    item = item_of(name, state)
    told, looked = only(webhook(name)), seen(item, fetched_at=NOW + timedelta(days=1))[1]
    assert told.id == looked.id
    assert seen(item)[0].id == normalized(webhook("deployment.created"))[0].id
    different = {
        name for name, value in told.model_dump().items() if value != looked.model_dump()[name]
    }  # what tells the two apart is when, and what only one of them knows
    assert different <= {"occurred_at", "description"}


def test_equal_looks_at_other_times_say_equal_things() -> None:
    item = listed("ERROR")
    assert seen(item) == seen(item, fetched_at=NOW + timedelta(hours=9), seq=4)


def test_a_failure_of_last_month_is_no_news_by_our_look() -> None:
    failed = seen(listed("ERROR"))[1]
    assert "2026-10-20T09:00:01.100000+00:00" == failed.occurred_at.isoformat()
    assert 'Command "npm run build" exited with 1' == failed.description


def test_where_the_api_gives_no_time_at_all_our_look_is_it() -> None:
    bare = {"uid": "dpl_1", "readyState": "ERROR"}
    assert [NOW, NOW] == [event.occurred_at for event in seen(bare)]


def test_an_older_answer_has_its_state_and_time_under_other_names() -> None:
    item = listed("READY")
    del item["readyState"], item["created"]
    assert seen(item) == seen(listed("READY"))


def test_a_target_of_null_is_a_preview_and_a_missing_one_says_nothing() -> None:
    preview = of_kind("deployment.ready")
    promoted = normalized(webhook("deployment.promoted"))[0]
    assert ("preview", False, "stage") == (preview.environment, preview.production, preview.env)  # type: ignore[attr-defined]
    assert (None, None) == (promoted.environment, promoted.production)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("target", "production", "env"),
    [("production", True, "prod"), ("staging", False, "stage"), ("elsewhere", False, "unknown")],
)
def test_a_target_is_an_environment_by_the_rules_of_ssot(target: str, production: bool, env: str) -> None:
    body = webhook("deployment.ready")
    body["payload"]["target"] = target
    event = only(body)
    assert (target, production, env) == (event.environment, event.production, event.env)


def test_a_custom_environment_is_no_preview() -> None:
    body = webhook("deployment.ready")
    body["payload"]["deployment"]["customEnvironmentId"] = "env_8sKd2Lq"
    assert "env_8sKd2Lq" == only(body).environment
    looked = {**listed("READY"), "target": None, "customEnvironment": {"id": "env_8sKd2Lq", "slug": "qa"}}
    assert "env_8sKd2Lq" == seen(looked)[1].environment


def test_a_cleanup_has_its_target_inside_the_deployment() -> None:
    body = {**webhook("deployment.ready"), "type": "deployment.cleanup"}
    del body["payload"]["target"]
    body["payload"]["deployment"]["target"] = "production"
    assert "production" == only(body).environment


def test_a_deployment_by_cli_has_no_git_and_its_user_is_the_creator() -> None:
    body = webhook("deployment.created")
    body["payload"]["deployment"]["meta"] = {}
    made, waiting = normalized(body)
    assert isinstance(made, DeploymentCreated) and isinstance(waiting, DeploymentStatusChanged)
    assert ("queued", "deployment.status_changed") == (waiting.outcome, waiting.type)
    facts = (made.repository, made.repository_id, made.git_ref, made.commit_sha, made.pull_request)
    assert (None,) * 5 == facts
    assert "ZqayS9s1AVuTRjB83vVSA5nd" == made.creator


def test_a_target_does_not_follow_the_branch_of_what_it_serves() -> None:
    rules = Environments(
        (
            EnvironmentRule(env="dev", branch=["fix-*"]),
            EnvironmentRule(env="prod", target=["production"]),
        )
    )
    body = webhook("deployment.promoted")
    body["payload"]["deployment"]["meta"] |= {"githubCommitRef": "fix-17"}
    reached, served = events_of(replace(SOURCE, environments=rules), delivery(body))
    assert ("deployment_target.changed", "dev", "prod") == (served.type, reached.env, served.env)


def test_a_complaint_about_targets_does_not_quote_their_names() -> None:
    looked = observation({"id": "p", "targets": {"hunter2": 7}}, kind="project")
    with pytest.raises(Unintelligible, match="targets") as caught:
        events_of(SOURCE, looked)
    assert "hunter2" not in str(caught.value)


def test_who_promotes_is_not_the_creator() -> None:
    body = webhook("deployment.promoted")
    body["payload"]["deployment"]["meta"] = {}
    promoted: Any = normalized(body)[0]
    assert (None, "f0Ls96Zaxrzu6E6A8gBfE8jW") == (promoted.creator, promoted.actor)


@pytest.mark.parametrize(
    ("text", "number"),
    [("31", 31), (31, 31), ("", None), (None, None), ("31x", None), ("-1", None), ("٣", None), ("9" * 19, None)],
)  # fmt: skip
def test_numbers_come_as_text(text: Any, number: int | None) -> None:
    body = webhook("deployment.ready")
    body["payload"]["deployment"]["meta"] |= {"githubPrId": text, "githubRepoId": text}
    event = only(body)
    assert (number, number) == (event.pull_request, event.repository_id)


def test_a_commit_of_a_fork_belongs_to_the_repository_of_the_project() -> None:
    body = webhook("deployment.ready")
    body["payload"]["deployment"]["meta"] |= {"githubCommitOrg": "stranger", "githubCommitRepoId": "1"}
    event = only(body)
    assert ("rickastley/accordion-component", 690068920) == (event.repository, event.repository_id)


@pytest.mark.parametrize(
    ("url", "same_as"),
    [
        ("shop-1.vercel.app", "vercel:url/shop-1.vercel.app"),
        ("https://Shop-1.vercel.app/", "vercel:url/shop-1.vercel.app"),
        ("", None),
        (None, None),
    ],
)
def test_a_deployment_is_the_same_as_what_answers_at_its_address(
    url: str | None, same_as: str | None
) -> None:
    body = webhook("deployment.ready")
    body["payload"]["deployment"]["url"] = url
    event = only(body)
    assert same_as == event.same_as
    assert (same_as is None) == (event.url is None)


def test_an_id_does_not_depend_on_the_time_of_the_message_but_for_promotions() -> None:
    """A deployment becomes ready once; it may be promoted, rolled back and promoted again."""
    again = 1_737_554_999_000
    assert of_kind("deployment.ready").id == of_kind("deployment.ready", createdAt=again).id
    first = webhook("deployment.promoted")
    ids = {event.id for body in (first, {**first, "createdAt": again}) for event in normalized(body)}
    assert 4 == len(ids)
