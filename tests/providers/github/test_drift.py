"""A poll of what webhooks told changes no row of a thing: what it changes is drift, and drift has to be true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.delivery import Delivery
from contracts.observation import observed_body
from contracts.ssot import EnvironmentRule, Environments
from contracts.text import decode
from providers.port import Source
from read_models.merge import join_all
from read_models.registry import READ_MODELS
from services.projector.understand import understand
from tests.providers.github.deliveries import SAMPLES, SOURCE, delivery, observation, sample

TOLD = {
    "issues": ("issue", "issue"),
    "pull_request": ("pull_request", "pull_request"),
    "issue_comment": ("issue", "issue"),
    "workflow_run": ("run", "workflow_run"),
    "workflow_job": ("job", "workflow_job"),
    "deployment": ("deployment", "deployment"),
    "deployment_status": ("deployment_status", "deployment_status"),
}
"""Under which kind a poll shows the thing of an event, and where its body has it."""
THINGS = frozenset(("builds", "build_jobs", "deployments", "work_items"))
"""Tables with a row for each thing. The others are logs of events, where an observation is an event like others."""
SIGHTINGS = frozenset(("last_event_at", "last_observed_at", "last_seen_at", "scope", "source"))
"""When and where a thing was seen: a poll is right to say so."""
LEFT = frozenset(("issues.transferred.21",))
"""What a poll finds in another place."""

Rows = Mapping[tuple[str, ...], Mapping[str, Any]]


def rows(*told: Delivery, source: Source = SOURCE) -> Rows:
    """What tables say of things after these deliveries, by table and key."""
    understood = [understand({"github": source}, replace(each, seq=seq)) for seq, each in enumerate(told, 1)]
    assert {"projected"} == {each.status for each in understood}, [each.error for each in understood]
    return {
        (model.name, *key): {
            column.name: value
            for column in model.columns
            if column.rule.name != "version"
            and column.name not in SIGHTINGS
            and (value := getattr(row, column.name)) is not None
        }
        for model in READ_MODELS
        if model.name in THINGS
        for key, row in join_all(
            model, [row for each in understood for name, row in each.rows if name == model.name]
        ).items()
    }


def as_shown(event: str, body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The kind and item under which the API shows what a webhook's body is about."""
    kind, field = TOLD[event]
    home = body["repository"]
    item = dict(body[field])
    if kind == "run":
        item["repository"] = home
    if kind == "job":
        # The samples' addresses were changed, not the repositories that they are in.
        item["url"] = f"https://api.github.com/repos/{home['full_name']}/actions/jobs/{item['id']}"
    return kind, item


def polled(kind: str, item: Any, home: str) -> Delivery:
    return observation(kind, observed_body(f"repos/{home}/issues", item))


@pytest.mark.parametrize(
    "path",
    [path for path in SAMPLES if path.parent.name in TOLD and path.stem not in LEFT],
    ids=lambda path: path.stem,
)
def test_a_poll_of_what_a_webhook_told_changes_no_row(path: Path) -> None:
    event, body = path.parent.name, decode(path.read_bytes())
    heard = delivery(event, path.read_bytes())
    seen = polled(*as_shown(event, body), body["repository"]["full_name"])

    assert rows(heard) == rows(heard, seen) == rows(heard, seen, heard)


@pytest.mark.parametrize(
    "path", [path for path in SAMPLES if path.parent.name == "pull_request"], ids=lambda path: path.stem
)
def test_a_pull_request_in_the_list_of_issues_changes_no_row(path: Path) -> None:
    body = decode(path.read_bytes())
    pull = body["pull_request"]
    unshown = ("head", "base", "draft", "merged", "merged_at", "url")
    item = {key: value for key, value in pull.items() if key not in unshown}
    item |= {"repository_url": body["repository"]["url"], "type": None, "state_reason": None}
    item["pull_request"] = {"merged_at": pull["merged_at"]}
    heard = delivery("pull_request", body)

    assert rows(heard) == rows(heard, polled("issue", item, body["repository"]["full_name"]))


def test_a_run_that_somebody_else_ended_has_the_actor_who_asked_for_it() -> None:
    body = sample("workflow_run.completed.01") | {"sender": {"login": "octocat"}}
    body["workflow_run"] |= {"actor": {"login": "first"}, "triggering_actor": {"login": "second"}}
    heard = delivery("workflow_run", body)

    seen = polled(*as_shown("workflow_run", body), "Codertocat/Hello-World")
    assert rows(heard) == rows(heard, seen)
    assert ["second"] == [row["actor"] for row in rows(heard).values()]


def test_a_job_that_no_runner_took_has_none_whether_it_is_written_as_null_or_as_0() -> None:
    body = sample("workflow_job.queued.05")
    body["workflow_job"] |= {"runner_id": None, "runner_name": None, "runner_group_name": None}
    heard = delivery("workflow_job", body)
    kind, item = as_shown("workflow_job", body)
    item |= {"runner_id": 0, "runner_name": "", "runner_group_id": 0, "runner_group_name": ""}

    assert rows(heard) == rows(heard, polled(kind, item, "Codertocat/Hello-World"))


def test_a_polled_status_names_no_environment_where_a_rule_about_branches_comes_first() -> None:
    rules = (
        EnvironmentRule(env="stage", branch=["master"]),
        EnvironmentRule(env="prod", target=["production"]),
    )
    source = replace(SOURCE, environments=Environments(rules))
    body = sample("deployment_status.created.00")
    heard = delivery("deployment_status", body)
    seen = polled(*as_shown("deployment_status", body), body["repository"]["full_name"])

    assert rows(heard, source=source) == rows(heard, seen, source=source)
    assert ["stage"] == [row["env"] for row in rows(heard, source=source).values()]
