"""Polls of Plane: newest changes and whole lists, what left a list is asked for by name, and whether the hook is on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.delivery import Delivery
from contracts.health import HealthcheckCompleted
from contracts.observation import observed_body
from contracts.webhooks import WebhookFailing, WebhookMended
from contracts.work_items import WorkItemDeleted
from providers.plane import PROVIDER
from providers.plane.options import PlaneOptions
from providers.plane.polling import (
    ASKED_COUNT,
    OVERLAP,
    POLLING,
    PROJECTS_COUNT_MAX,
    REMEMBERED_COUNT_MAX,
    WHOLE_EVERY,
)
from providers.polling import Allowance, Ask, Reply
from providers.port import Source
from read_models import work_items
from tests.providers.drifting import drift
from tests.providers.driving import NOW, delivery_of, events_of, source_of
from tests.providers.plane.deliveries import delivery, sample
from tests.providers.polled import Polled, look, polled, reply

OPTIONS = {"base_url": "https://plane.example.org/", "workspace": "acme"}
ALL = source_of(PROVIDER, options=OPTIONS)
SCOPE, ROOT = "workspaces/acme", "/api/v1/workspaces/acme"
P, Q = "3b9b7a52-33a7-4a2b-8a35-7c5e5dd3f0b1", "3b9b7a52-33a7-4a2b-8a35-7c5e5dd3f0b2"
ONE = source_of(PROVIDER, options={**OPTIONS, "projects": [P]})
LISTING = f"projects/{P}/work-items"
ITEMS = f"{ROOT}/{LISTING}/"
Body = dict[str, Any]
Answer = Callable[[Ask], Reply]


def uuid(n: int) -> str:
    return f"a0a1a2a3-0000-4000-8000-{n:012d}"


def ref(n: int) -> str:
    return f"plane:{uuid(n)}"


def item(n: int, minutes_ago: float = 600, **fields: Any) -> Body:
    shown: Body = sample("rest/list-work-items.constructed")["results"][0]
    at = (NOW - timedelta(minutes=minutes_ago)).astimezone().isoformat()
    return {**shown, "id": uuid(n), "project": P, "updated_at": at, **fields}


def page(results: Sequence[Body], following: int | None = None, total: int | None = None) -> Body:
    return {
        "results": list(results),
        "total_results": len(results) if total is None else total,
        "next_cursor": f"100:{following}:0",
        "next_page_results": following is not None,
    }


def pages(*shown: Sequence[Body]) -> Answer:
    """A list of several pages."""
    total = sum(map(len, shown))

    def answer(asked: Ask) -> Reply:
        n = int(asked.params.get("cursor", "100:0:0").split(":")[1])
        return reply(page(shown[n], n + 1 if n + 1 < len(shown) else None, total))

    return answer


def routes(**answers: Answer | Reply | Body | int) -> Answer:
    """Plane's answers by what a path ends with; the rest is not found."""

    def answer(asked: Ask) -> Reply:
        given = answers.get(_route(asked.path), 404)
        if isinstance(given, int):
            return reply({"error": "the answer of a test"}, given)
        if isinstance(given, Mapping):
            return reply(given)
        return given if isinstance(given, Reply) else given(asked)

    return answer


def _route(path: str) -> str:
    known = {f"{ROOT}/projects/": "projects", f"{ROOT}/projects/{P}/": "project", ITEMS: "items"}
    if path in known:
        return known[path]
    last = path.removeprefix(ITEMS)
    return f"log_{int(last[24:36])}" if last.endswith("activities/") else f"item_{int(last[24:36])}"


def poll(answer: Answer, source: Source = ONE, known: Sequence[int] = (), **told: Any) -> Polled:
    part = POLLING.scopes(source)[0].parts["work_items"]
    return polled(part, look(source, SCOPE, **told), answer, {LISTING: frozenset(map(ref, known))})


def again(last: Polled, minutes: float = 15) -> dict[str, Any]:
    """What the next run is told."""
    return {"state": last.keeps[-1], "started_at": NOW + timedelta(minutes=minutes)}


def orders(seen: Polled) -> list[str]:
    return [asked.params["order_by"] for asked in seen.asks if asked.path == ITEMS]


def reasons(seen: Polled) -> list[str]:
    return [warning.reason for warning in seen.warns]


def tombstones(seen: Polled) -> list[str]:
    return [
        each.ref for show in seen.shows for each in show.items if json.loads(each.body)["item"].get("deleted")
    ]


DAY = WHOLE_EVERY / timedelta(minutes=1)


def test_the_workspace_is_one_scope_with_its_work_items_and_its_webhooks() -> None:
    [scope] = POLLING.scopes(ALL)

    assert (SCOPE, ["work_items", "webhooks"]) == (scope.name, list(scope.parts))
    with pytest.raises(ValidationError):
        PlaneOptions.model_validate({**OPTIONS, "projects": ["../webhooks"]})


def test_the_first_time_a_project_is_read_whole_in_a_stable_order_with_names() -> None:
    seen = poll(routes(items=pages([item(1), item(2)], [item(3)])))

    assert [ref(1), ref(2), ref(3)] == seen.refs
    assert ["created_at", "created_at"] == orders(seen)
    assert {"state,labels,assignees"} == {asked.params["expand"] for asked in seen.asks}
    assert [None, "100:1:0"] == [asked.params.get("cursor") for asked in seen.asks]
    [listing] = seen.listings
    assert (LISTING, {"work_item": [ref(1), ref(2), ref(3)]}, NOW) == (
        listing.scope,
        listing.shown,
        listing.began_at,
    )
    assert {LISTING} == {json.loads(each.body)["scope"] for show in seen.shows for each in show.items}
    assert not seen.warns and not seen.failed


def test_later_only_what_changed_is_read_newest_first_until_something_known() -> None:
    first = poll(routes(items=pages([item(1, 600), item(2, 60)])))
    old = OVERLAP / timedelta(minutes=1) + 61
    seen = poll(
        routes(items=pages([item(3, 1)], [item(2, 60), item(1, old)], [item(9, 9999)])), **again(first)
    )

    assert ["-updated_at"] * 2 == orders(seen)
    assert [ref(3), ref(2), ref(1)] == seen.refs
    assert not seen.listings and not seen.warns


def test_times_are_compared_as_times_whatever_their_zone() -> None:
    first = poll(routes(items=pages([item(1, updated_at="2026-11-01T11:00:00+00:00")])))
    known = item(1, updated_at="2026-11-01T16:24:00+05:30")
    newer = item(2, updated_at="2026-11-01T04:58:00-07:00")
    seen = poll(routes(items=pages([newer], [known], [item(9)])), **again(first))

    assert [ref(2), ref(1)] == seen.refs


def test_a_project_is_read_whole_once_a_day() -> None:
    first = poll(routes(items=pages([item(1)])))

    assert ["-updated_at"] == orders(poll(routes(items=pages([item(1)])), **again(first, DAY - 1)))
    assert ["created_at"] == orders(poll(routes(items=pages([item(1)])), **again(first, DAY)))


def test_what_an_operator_wants_again_is_read_from_then_on() -> None:
    since = NOW - timedelta(minutes=90)
    seen = poll(routes(items=pages([item(1, 60)], [item(2, 100)], [item(3, 200)])), since=since)

    assert ["-updated_at", "-updated_at"] == orders(seen)


def changing(*readings: Answer) -> Answer:
    """A list that is another one at each reading."""
    left = list(readings)
    current: list[Answer] = []

    def answer(asked: Ask) -> Reply:
        if "cursor" not in asked.params:
            current[:] = [left.pop(0)]
        return current[0](asked)

    return answer


def shrinking(asked: Ask) -> Reply:
    first = "cursor" not in asked.params
    return reply(page([item(1)], 1, 3) if first else page([item(3)], None, 2))


def repeating(asked: Ask) -> Reply:
    first = "cursor" not in asked.params
    return reply(page([item(1), item(2)], 1, 4) if first else page([item(2), item(3)], None, 4))


@pytest.mark.parametrize("odd", [shrinking, repeating, pages([item(1)], [item(1, 5)])])
def test_a_list_that_changes_while_it_is_read_is_read_once_more(odd: Answer) -> None:
    seen = poll(routes(items=changing(odd, pages([item(1), item(3)]))))

    assert [{"work_item": [ref(1), ref(3)]}] == [listing.shown for listing in seen.listings]
    assert not seen.warns


@pytest.mark.parametrize("odd", [shrinking, repeating])
def test_a_list_that_changes_twice_completes_nothing_and_asks_for_nothing(odd: Answer) -> None:
    seen = poll(routes(items=changing(odd, odd)), known=[1, 9])

    assert ["listing_changed"] == reasons(seen)
    assert not seen.listings and not tombstones(seen)
    assert {ITEMS} == {asked.path for asked in seen.asks}
    assert ["created_at"] == orders(poll(routes(items=pages([item(1)])), **again(seen)))


def test_of_newest_changes_that_move_while_they_are_read_the_cursor_stays() -> None:
    first = poll(routes(items=pages([item(1, 600)])))

    assert first.keeps[-1] == poll(routes(items=shrinking), **again(first)).keeps[-1]


WHOLE = {"project": {"id": P, "archived_at": None}}


def test_what_left_the_list_and_is_not_found_by_its_name_is_a_deletion() -> None:
    seen = poll(routes(items=pages([item(1)]), **WHOLE), known=[1, 2])

    assert [ref(2)] == tombstones(seen)
    assert [{"work_item": [ref(1)]}] == [listing.shown for listing in seen.listings]
    [gone] = [each for show in seen.shows for each in show.items if each.ref == ref(2)]
    [event] = events_of(ONE, delivery_of(ONE, "observed.work_item", gone.body, via="poll"))
    assert isinstance(event, WorkItemDeleted)
    assert (ref(2), NOW, P, False) == (event.ref, event.deleted_at, event.project, event.stated)


def test_what_left_the_list_and_is_found_by_its_name_is_shown_as_it_is() -> None:
    archived = item(2, archived_at="2026-10-30")
    seen = poll(routes(items=pages([item(1)]), item_2=archived, **WHOLE), known=[1, 2])

    assert [ref(1), ref(2)] == seen.refs and not tombstones(seen)
    assert [{"work_item": [ref(1)]}] == [listing.shown for listing in seen.listings]
    [asked] = [asked for asked in seen.asks if asked.path == f"{ITEMS}{uuid(2)}/"]
    assert {"expand": "state,labels,assignees"} == asked.params
    assert not seen.warns


def change(field: str, value: Any, day: int) -> Body:
    return {"field": field, "new_value": value, "created_at": f"2026-10-{day:02}T10:00:00+02:00"}


@pytest.mark.parametrize(
    ("history", "deleted"),
    [
        ([change("archived_at", "archive", 3), change("state", "Done", 2)], False),
        ([change("archived_at", "manual_archive", 3), change("archived_at", "restore", 2)], False),
        ([change("archived_at", "restore", 3), change("archived_at", "archive", 2)], True),
        ([change("archived_at", "archive", 2), change("archived_at", "restore", 3)], True),
        ([change("state", "Done", 2), change("labels", ["x"], 1)], True),
        ([], True),
    ],
)
def test_an_archived_item_that_its_name_does_not_find_is_no_deletion(
    history: list[Body], deleted: bool
) -> None:
    seen = poll(routes(items=pages([item(1)]), log_2={"results": history}, **WHOLE), known=[1, 2])

    assert ([ref(2)] if deleted else []) == tombstones(seen)
    assert ([] if deleted else ["archived"]) == reasons(seen)
    assert 1 == len(seen.listings)


@pytest.mark.parametrize("answers", [{"item_2": 500}, {"item_2": 403}, {"log_2": 502}, {"project": 404}])
def test_an_item_that_cannot_be_asked_for_is_neither_there_nor_gone(answers: dict[str, int]) -> None:
    seen = poll(routes(**{"items": pages([item(1)]), **WHOLE, **answers}), known=[1, 2])  # type: ignore[arg-type]

    assert [f"http_{next(iter(answers.values()))}"] == reasons(seen)
    assert not tombstones(seen) and not seen.listings
    assert ["created_at"] == orders(poll(routes(items=pages([item(1)])), **again(seen)))


def test_of_an_archived_project_nothing_is_gone() -> None:
    archived = {"id": P, "archived_at": "2026-10-30T10:00:00Z"}
    seen = poll(routes(items=pages([]), project=archived), known=[1, 2])

    assert ["project_archived"] == reasons(seen)
    assert not tombstones(seen) and not seen.listings


def test_many_that_left_are_asked_for_in_several_runs_and_only_then_the_list_is_complete() -> None:
    known = range(1, ASKED_COUNT + 4)
    answer = routes(items=pages([item(1)]), **WHOLE)
    first = poll(answer, known=known)
    second = poll(answer, known=known, **again(first))

    assert ["many_missing"] == reasons(first) and not first.listings
    assert [ref(n) for n in range(2, ASKED_COUNT + 2)] == tombstones(first)
    assert [ref(n) for n in range(ASKED_COUNT + 2, ASKED_COUNT + 4)] == tombstones(second)
    assert 1 == len(second.listings) and not second.warns
    assert "asked" not in second.keeps[-1]["projects"][P]


def test_what_is_kept_stays_small() -> None:
    full = {"whole_at": NOW.isoformat(), "changed_at": NOW.isoformat()}
    projects: dict[str, Any] = {f"{n:08x}{P[8:]}": full for n in range(PROJECTS_COUNT_MAX - 1)}
    projects[P] = {**full, "asked": [ref(n) for n in range(REMEMBERED_COUNT_MAX)]}

    assert len(json.dumps({"projects": projects}).encode()) < 65_536

    kept = {"projects": {P: {"asked": projects[P]["asked"]}}}
    seen = poll(routes(items=pages([]), **WHOLE), known=range(REMEMBERED_COUNT_MAX + 1), state=kept)
    assert ["many_missing"] == reasons(seen) and not tombstones(seen)
    assert kept["projects"][P]["asked"] == seen.keeps[-1]["projects"][P]["asked"]


def by_project(**answers: Answer | int) -> Answer:
    def answer(asked: Ask) -> Reply:
        if asked.path == f"{ROOT}/projects/":
            entries: list[Body] = [
                {"id": P},
                {"id": Q, "is_member": True},
                {"id": uuid(7), "is_member": False},
            ]
            return reply(page([*entries, {"id": uuid(8), "archived_at": "2026-10-30T10:00:00Z"}]))
        given = answers["p" if P in asked.path else "q"]
        return reply({}, given) if isinstance(given, int) else given(asked)

    return answer


def test_where_none_is_named_all_projects_are_read_that_the_key_may_read_and_are_not_archived() -> None:
    seen = poll(by_project(p=pages([item(1)]), q=pages([item(2)])), ALL)

    assert [LISTING, f"projects/{Q}/work-items"] == [listing.scope for listing in seen.listings]
    assert {P, Q} == set(seen.keeps[-1]["projects"])


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_project_that_fails_does_not_stop_the_others(status: int) -> None:
    seen = poll(by_project(p=status, q=pages([item(2)])), ALL)

    assert [f"http_{status}"] == reasons(seen) and P in seen.warns[0].sentence
    assert [f"projects/{Q}/work-items"] == [listing.scope for listing in seen.listings]
    assert {Q} == set(seen.keeps[-1]["projects"])


@pytest.mark.parametrize("status", [401, 429])
def test_what_every_project_would_be_answered_ends_the_part(status: int) -> None:
    seen = poll(by_project(p=status, q=pages([item(2)])), ALL)

    assert [status] == [failure.status for failure in seen.failed] and not seen.shows


def test_a_project_that_left_is_said_once_and_its_items_are_not_gone() -> None:
    kept = {"projects": {uuid(8): {"whole_at": NOW.isoformat()}}}
    first = poll(by_project(p=pages([item(1)]), q=pages([])), ALL, state=kept)

    assert ["project_left"] == reasons(first) and not tombstones(first)
    assert [] == reasons(poll(by_project(p=pages([item(1)]), q=pages([])), ALL, **again(first)))


def test_the_headers_say_how_many_requests_are_left() -> None:
    renewed = str(int((NOW + timedelta(seconds=60)).timestamp()))

    assert Allowance(12, 60, 60.0) == POLLING.allowance(
        {"x-ratelimit-remaining": "12", "x-ratelimit-reset": renewed}, NOW
    )
    assert Allowance(299, 299, 60.0) == POLLING.allowance(
        {"x-ratelimit-remaining": "299", "x-ratelimit-reset": renewed}, NOW
    )
    assert None is POLLING.allowance({}, NOW)


SOURCES = {"plane": ONE}
ELSEWHERE = timezone(timedelta(hours=5, minutes=30))
STATES = {
    "57d81c86-7c3a-4d7e-9a0c-6b6bb2c1f001": {"name": "Todo", "group": "unstarted"},
    "57d81c86-7c3a-4d7e-9a0c-6b6bb2c1f002": {"name": "In Progress", "group": "started"},
    "57d81c86-7c3a-4d7e-9a0c-6b6bb2c1f003": {"name": "Done", "group": "completed"},
}


def as_listed(webhook: Body) -> Body:
    """The same work item in a list: times in the user's zone, ids expanded."""
    data: Body = {name: None if value == "None" else value for name, value in webhook["data"].items()}
    shown = data
    if "state_id" in data:
        shown = {name: value for name, value in data.items() if not name.endswith(("_id", "_ids"))} | {
            "sequence_id": data["sequence_id"],
            "project": data["project_id"],
            "created_by": data["created_by_id"],
            "type": data["type_id"],
            "state": {"id": data["state_id"], **STATES[data["state_id"]]},
            "labels": [{"id": each, "name": "ops"} for each in data["label_ids"]],
            "assignees": [],
        }
    for name in ("created_at", "updated_at", "completed_at"):
        if shown[name]:
            shown[name] = datetime.fromisoformat(shown[name]).astimezone(ELSEWHERE).isoformat()
    return shown


def observation(shown: Body, minutes: float = 15) -> Delivery:
    return delivery_of(
        ONE,
        "observed.work_item",
        observed_body(LISTING, shown),
        via="poll",
        received_at=NOW + timedelta(minutes=minutes),
    )


@pytest.mark.parametrize(
    "name", ["issue.created", "issue.updated.state", "issue.updated.priority", "issue.updated.unicode"]
)
def test_an_item_that_a_webhook_of_v1_told_of_is_no_drift(name: str) -> None:
    told = sample(f"v1-constructed-from-source/{name}.body")

    assert {} == drift(work_items.READ_MODEL, SOURCES, [delivery(told)], observation(as_listed(told)))


@pytest.mark.parametrize("name", ["workitem.created", "workitem.updated.done"])
def test_what_a_poll_adds_to_a_webhook_of_v2_is_the_names_of_ids_alone(name: str) -> None:
    told = sample(f"v2-constructed-from-docs/{name}")
    found = drift(work_items.READ_MODEL, SOURCES, [delivery(told)], observation(as_listed(told)))

    assert {"named_state_id", "status", "provider_status", "labels", "assignees"} >= set(found)
    assert "provider_status" in found


def test_a_deletion_that_was_told_is_no_drift() -> None:
    told = [sample(f"v2-constructed-from-docs/workitem.{verb}") for verb in ("created", "deleted")]
    absent = {"id": told[1]["entity_id"], "project": P, "deleted": True}

    assert {} == drift(work_items.READ_MODEL, SOURCES, list(map(delivery, told)), observation(absent))


def test_a_deletion_that_nobody_told_of_is_drift() -> None:
    told = sample("v1-constructed-from-source/issue.created.body")
    absent = {"id": told["data"]["id"], "project": P, "deleted": True}

    assert {"deleted_at"} == set(drift(work_items.READ_MODEL, SOURCES, [delivery(told)], observation(absent)))


HOOK = {"id": uuid(5), "url": "https://ops.example.com/webhooks/plane", "is_active": True}
V1, V2 = f"{ROOT}/webhooks/", "/api/v2/workspaces/acme/webhooks/"


def hooks(answers: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> Polled:
    def answer(asked: Ask) -> Reply:
        given = answers.get(asked.path, 404)
        return reply({}, given) if isinstance(given, int) else reply(given)

    part = POLLING.scopes(ONE)[0].parts["webhooks"]
    return polled(part, look(ONE, SCOPE, state=state or {}), answer)


def said(seen: Polled) -> list[type]:
    return [type(event) for event in seen.says]


@pytest.mark.parametrize("answers", [{V1: [HOOK]}, {V2: {"data": [HOOK]}}])
def test_a_webhook_that_is_on_is_said_to_be_healthy_each_time(answers: dict[str, Any]) -> None:
    seen = hooks(answers)

    [check] = seen.says
    assert isinstance(check, HealthcheckCompleted)
    assert ("webhook", SCOPE, "ok", "plane") == (
        check.check_name,
        check.target,
        check.status,
        check.source,
    )
    assert [HealthcheckCompleted] == said(hooks(answers, seen.keeps[-1]))


@pytest.mark.parametrize(
    "broken",
    [
        [HOOK | {"is_active": False}],
        [HOOK | {"issue": False}],
        [HOOK | {"url": "https://ops.example.com/webhooks/other"}],
        [],
    ],
)
def test_alarm_is_given_once_when_the_webhook_is_not_as_it_should_be_and_once_when_it_is(
    broken: list[Body],
) -> None:
    first = hooks({V1: broken})
    second = hooks({V1: broken}, first.keeps[-1])
    mended = hooks({V1: [HOOK]}, second.keeps[-1])
    after = hooks({V1: [HOOK]}, mended.keeps[-1])

    assert [HealthcheckCompleted, WebhookFailing] == said(first)
    assert [HealthcheckCompleted] == said(second) == said(after)
    assert [HealthcheckCompleted, WebhookMended] == said(mended)
    assert ["failing", "ok"] == [seen.says[0].status for seen in (second, after)]  # type: ignore[attr-defined]
    assert first.says[1].ref == mended.says[1].ref
    assert {SCOPE} == {event.scope for event in (first.says[1], mended.says[1])}  # type: ignore[attr-defined]


def test_another_problem_is_another_alarm() -> None:
    first = hooks({V1: [HOOK | {"is_active": False}]})

    assert [HealthcheckCompleted, WebhookFailing] == said(
        hooks({V1: [HOOK | {"issue": False}]}, first.keeps[-1])
    )
    second = hooks({V1: []}, first.keeps[-1])
    assert [HealthcheckCompleted, WebhookMended, WebhookFailing] == said(second)
    assert [f"plane:hook/{uuid(5)}", f"plane:hook/{SCOPE}"] == [event.ref for event in second.says[1:]]


def test_one_good_webhook_is_enough() -> None:
    old = HOOK | {"id": uuid(4), "is_active": False}
    assert ["ok"] == [event.status for event in hooks({V1: [old, HOOK]}).says]  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [403, 404])
def test_that_webhooks_are_not_shown_is_an_unknown_state_and_no_alarm(status: int) -> None:
    first = hooks({V1: status, V2: status})
    second = hooks({V1: status, V2: status}, first.keeps[-1])

    assert ["unknown"] == [event.status for event in first.says]  # type: ignore[attr-defined]
    assert ["webhooks_hidden"] == reasons(first)
    assert ["unknown"] == [event.status for event in second.says]  # type: ignore[attr-defined]
    assert not second.warns
    assert [HealthcheckCompleted] == said(hooks({V1: [HOOK]}, second.keeps[-1]))


def test_an_alarm_outlasts_a_time_in_which_webhooks_are_not_shown() -> None:
    first = hooks({V1: [HOOK | {"is_active": False}]})
    hidden = hooks({}, first.keeps[-1])

    assert [HealthcheckCompleted, WebhookMended] == said(hooks({V1: [HOOK]}, hidden.keeps[-1]))


def test_a_wrong_key_and_a_server_that_is_away_are_failures() -> None:
    for status in (401, 500):
        seen = hooks({V1: status})
        assert [status] == [failure.status for failure in seen.failed] and not seen.says and not seen.keeps
