"""Polls of Vercel: what has not ended is read again, what is live is looked at, and what was told is no drift."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.delivery import Delivery
from providers.polling import Allowance, Ask, Reply
from providers.port import Source
from providers.vercel import PROVIDER
from providers.vercel.options import VercelOptions
from providers.vercel.polling import DEPLOYMENTS, OPEN, POLLING, TARGETS, WINDOW
from read_models import deployment_targets, deployments
from tests.providers.drifting import drift
from tests.providers.driving import NOW, source_of
from tests.providers.polled import Polled, look, polled, reply
from tests.providers.vercel.deliveries import Body, delivery, listed, observation, page, webhook
from tests.providers.vercel.test_poll import SECRETS
from tests.read_models.test_deployments import rows
from tests.samples import SOURCES

TEAM, PROJECT = "team_9dLw2sKd7fGh5jRb4cpV3nXq", "prj_6yRbTn3kQ9wMx2vLz8hFcJ5dGs4p"
ACCOUNT = source_of(PROVIDER)
NAMED = source_of(PROVIDER, options={"team_id": TEAM, "projects": [PROJECT]})


def millis(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def deployment(uid: str, state: str = "READY", age: timedelta = timedelta(hours=1)) -> Body:
    return listed("READY") | {"uid": uid, "readyState": state, "state": state, "created": millis(NOW - age)}


def serving(*pages: Sequence[Body], name: str = DEPLOYMENTS) -> Any:
    """Vercel's answers: each page says before which time the next one begins, the last one null."""

    def answer(asked: Ask) -> Reply:
        n = int(asked.params.get("until", "0"))
        following = n + 1 if n + 1 < len(pages) else None
        return reply({name: pages[n] if pages else [], "pagination": {"next": following}})

    return answer


def serving_bytes(body: bytes) -> Any:
    """One answer, as it is."""
    return lambda asked: reply(body)


def poll(source: Source, part: str, answer: Any, **told: Any) -> Polled:
    [scope] = POLLING.scopes(source)
    return polled(scope.parts[part], look(source, scope.name, **told), answer)


def since(seen: Polled) -> datetime:
    return datetime.fromtimestamp(int(seen.asks[0].params["since"]) / 1000, UTC)


def test_each_project_that_is_named_is_a_scope_and_else_the_account_is_one() -> None:
    team = source_of(PROVIDER, options={"team_id": TEAM})
    many = source_of(PROVIDER, options={"projects": ["prj_b", "prj_a", "prj_b"]})

    assert [
        ["account"],
        [f"teams/{TEAM}"],
        [f"projects/{PROJECT}"],
        ["projects/prj_a", "projects/prj_b"],
    ] == [[scope.name for scope in POLLING.scopes(source)] for source in (ACCOUNT, team, NAMED, many)]
    for wrong in ({"projects": ["../teams"]}, {"team_id": "example-org"}):
        with pytest.raises(ValidationError):
            VercelOptions.model_validate(wrong)


def test_pages_are_followed_until_the_last_and_each_deployment_is_shown() -> None:
    seen = poll(
        ACCOUNT, DEPLOYMENTS, serving([deployment("dpl_3"), deployment("dpl_2")], [deployment("dpl_1")])
    )

    assert ["vercel:dpl_3", "vercel:dpl_2", "vercel:dpl_1"] == seen.refs
    assert [None, "1"] == [asked.params.get("until") for asked in seen.asks]
    assert {"/v6/deployments"} == {asked.path for asked in seen.asks}
    assert not seen.failed and not seen.listings


def test_team_and_project_are_asked_for_where_they_are_named() -> None:
    [asked] = poll(NAMED, DEPLOYMENTS, serving()).asks
    assert (TEAM, PROJECT) == (asked.params["teamId"], asked.params["projectId"])

    [asked] = poll(ACCOUNT, DEPLOYMENTS, serving()).asks
    assert not asked.params.keys() & {"teamId", "projectId"}


def test_the_last_days_are_read_each_time() -> None:
    first = poll(ACCOUNT, DEPLOYMENTS, serving([deployment("dpl_1")]))
    again = poll(ACCOUNT, DEPLOYMENTS, serving(), state=first.keeps[-1])

    assert NOW - WINDOW == since(first) == since(again)


@pytest.mark.parametrize("state", ["QUEUED", "INITIALIZING", "BUILDING", "BLOCKED"])
def test_one_that_has_not_ended_is_read_until_it_has(state: str) -> None:
    made = NOW - timedelta(hours=1)
    first = poll(ACCOUNT, DEPLOYMENTS, serving([deployment("dpl_2"), deployment("dpl_1", state)]))
    late = {"started_at": NOW + timedelta(days=9), "state": first.keeps[-1]}
    again = poll(ACCOUNT, DEPLOYMENTS, serving([deployment("dpl_1")]), **late)
    after = poll(ACCOUNT, DEPLOYMENTS, serving(), started_at=NOW + timedelta(days=9), state=again.keeps[-1])

    assert made - timedelta(milliseconds=1) == since(again)
    assert NOW + timedelta(days=9) - WINDOW == since(after)


def test_one_that_never_ends_is_waited_for_a_month_only() -> None:
    kept = poll(ACCOUNT, DEPLOYMENTS, serving([deployment("dpl_1", "QUEUED")])).keeps[-1]
    later = NOW + timedelta(days=99)

    assert later - OPEN == since(poll(ACCOUNT, DEPLOYMENTS, serving(), started_at=later, state=kept))


def test_what_was_made_while_nothing_was_polled_is_read() -> None:
    kept = poll(ACCOUNT, DEPLOYMENTS, serving([deployment("dpl_1")])).keeps[-1]
    later = NOW + timedelta(days=5)

    assert NOW - timedelta(milliseconds=1) == since(
        poll(ACCOUNT, DEPLOYMENTS, serving(), started_at=later, state=kept)
    )


def test_what_an_operator_wants_again_is_read_from_then_on() -> None:
    wanted = NOW - timedelta(days=200)
    assert wanted == since(poll(ACCOUNT, DEPLOYMENTS, serving(), since=wanted))


def test_a_reading_that_breaks_off_keeps_nothing() -> None:
    def answer(asked: Ask) -> Reply:
        whole = serving([deployment("dpl_2")], [])
        return reply(status=502) if "until" in asked.params else whole(asked)

    seen = poll(ACCOUNT, DEPLOYMENTS, answer)

    assert (["vercel:dpl_2"], [], 502) == (seen.refs, seen.keeps, seen.failed[0].status)


def test_a_page_that_names_itself_as_the_next_ends() -> None:
    body = {"deployments": [deployment("dpl_1")], "pagination": {"next": 7}}
    [failure] = poll(ACCOUNT, DEPLOYMENTS, lambda asked: reply(body)).failed

    assert failure.reason in {"endless_pages", "repeated_page"}


def test_what_a_named_project_serves_is_looked_at_and_stored_each_time() -> None:
    seen = poll(NAMED, TARGETS, serving_bytes(page("project")))

    assert [Ask(path=f"/v9/projects/{PROJECT}", params={"teamId": TEAM})] == seen.asks
    [item] = seen.shows[0].items
    assert (f"vercel:project/{PROJECT}", True) == (item.ref, item.undated)


def test_where_none_is_named_all_projects_are_looked_at() -> None:
    project = json.loads(page("project"))
    seen = poll(ACCOUNT, TARGETS, serving([project], [project | {"id": "prj_b"}], name="projects"))

    assert [f"vercel:project/{PROJECT}", "vercel:project/prj_b"] == seen.refs
    named = poll(NAMED, TARGETS, serving_bytes(page("project"))).shows[0].items[0]
    assert json.loads(named.body)["item"] == json.loads(seen.shows[0].items[0].body)["item"]
    assert all(item.undated for show in seen.shows for item in show.items)


def test_addresses_of_people_and_settings_are_not_stored() -> None:
    projects = json.dumps({"projects": [json.loads(page("project"))]}).encode()
    for part, body in ((DEPLOYMENTS, page("deployments")), (TARGETS, projects)):
        shows = poll(ACCOUNT, part, serving_bytes(body)).shows
        stored = " ".join(item.body.decode() for show in shows for item in show.items)
        assert stored and [secret for secret in SECRETS if secret in stored] == []


def test_the_headers_say_how_many_requests_are_left() -> None:
    headers = {"x-ratelimit-limit": "500", "x-ratelimit-remaining": "42"}
    renewed = str(int((NOW + timedelta(seconds=30)).timestamp()))

    assert Allowance(42, 500, 30.0) == POLLING.allowance({**headers, "x-ratelimit-reset": renewed}, NOW)
    assert None is POLLING.allowance(headers, NOW)
    assert None is POLLING.allowance({**headers, "x-ratelimit-reset": "soon"}, NOW)


MADE = 1_792_486_800_000
MESSAGE_MS = 250
"""How much later than the thing itself its message is."""


def told(kind: str, at_ms: int, **deployed: Any) -> Body:
    """A webhook about the deployment that the sample page lists as ready in production."""
    item = listed("READY")
    body = webhook("deployment.promoted" if kind == "promoted" else "deployment.ready")
    payload = body["payload"]
    payload["project"], payload["name"] = {"id": item["projectId"]}, item["name"]
    payload["user"] = {"id": item["creator"]["uid"]}
    payload["links"] = {"deployment": item["inspectorUrl"]}
    payload["deployment"] = {
        "id": item["uid"],
        "name": item["name"],
        "url": item["url"],
        "inspectorUrl": item["inspectorUrl"],
        "meta": item["meta"],
    }
    if kind != "promoted":
        payload["target"] = item["target"]
    return {**body, "type": f"deployment.{kind}", "createdAt": at_ms + MESSAGE_MS}


def history() -> list[Delivery]:
    item = listed("READY")
    times = {
        "created": item["created"],
        "succeeded": item["ready"],
        "ready": item["ready"],
        "promoted": item["ready"],
    }
    return [delivery(told(kind, at), received_at=NOW) for kind, at in times.items()]


def test_a_deployment_that_webhooks_told_of_is_no_drift_though_the_api_knows_its_times_better() -> None:
    told, seen = history(), observation(listed("READY"))

    assert {} == drift(deployments.READ_MODEL, SOURCES, told, seen)
    [row] = rows(deployments.READ_MODEL, [*told, seen]).values()
    assert (listed("READY")["created"], listed("READY")["ready"]) == (
        millis(row.created_at),
        millis(row.deployed_at),
    )


def test_a_deployment_whose_creation_was_not_told_differs_by_it() -> None:
    assert {"created_at"} == set(
        drift(deployments.READ_MODEL, SOURCES, history()[1:], observation(listed("READY")))
    )


def test_a_deployment_whose_end_was_not_told_differs_by_its_status() -> None:
    assert "status" in drift(deployments.READ_MODEL, SOURCES, history()[:1], observation(listed("READY")))


def test_a_look_at_a_target_that_webhooks_told_of_finds_what_they_told() -> None:
    item = {"id": PROJECT, "name": "shop", "targets": {"production": {"id": listed("READY")["uid"]}}}
    looks = [
        replace(observation(item, kind="project"), received_at=NOW + timedelta(minutes=minutes))
        for minutes in (15, 30)
    ]
    assert {} == drift(deployment_targets.READ_MODEL, SOURCES, history()[-1:], *looks)
