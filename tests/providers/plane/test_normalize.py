"""What deliveries and observations of Plane mean: every sample against its reviewed outcome, every trap by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.version import micros
from contracts.work_items import (
    WorkItemClosed,
    WorkItemCommented,
    WorkItemDeleted,
    WorkItemEvent,
    WorkItemOpened,
    WorkItemReopened,
    WorkItemUpdated,
)
from providers.plane import PROVIDER
from providers.plane.options import PlaneOptions
from providers.plane.poll import WORK_ITEMS, items
from providers.port import Unintelligible
from tests.providers.driving import NOW, source_of
from tests.providers.plane.deliveries import (
    PAGES,
    SCOPE,
    WEBHOOKS,
    expected_path,
    ignored,
    observed,
    only,
    outcome,
    parked,
    sample,
)

V1 = "v1-constructed-from-source"
V2 = "v2-constructed-from-docs"


@pytest.mark.parametrize("path", [*WEBHOOKS, *PAGES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_sample_becomes_what_was_reviewed(path: Path) -> None:
    assert json.loads(expected_path(path).read_bytes()) == outcome(path)


def v1(name: str = "issue.updated.state", /, action: str | None = None, **data: Any) -> dict[str, Any]:
    """A body of v1 with some fields of its data changed."""
    body = sample(f"{V1}/{name}.body")
    body["data"] |= data
    return body if action is None else {**body, "action": action}


def v2(name: str = "workitem.created", /, **data: Any) -> dict[str, Any]:
    """A body of v2 with some fields of its data changed."""
    body = sample(f"{V2}/{name}")
    body["data"] |= data
    return body


def page(**fields: Any) -> dict[str, Any]:
    """A page of the API with one work item, some of its fields changed."""
    body = sample("rest/list-work-items.constructed")
    body["results"][0] |= fields
    return body


@pytest.mark.parametrize(
    ("action", "event"),
    [
        ("created", WorkItemOpened),
        ("create", WorkItemOpened),
        ("updated", WorkItemUpdated),
        ("update", WorkItemUpdated),
        ("deleted", WorkItemDeleted),
        ("delete", WorkItemDeleted),
        ("archived", WorkItemUpdated),
    ],
)
def test_both_spellings_of_an_action_mean_one_thing(action: str, event: type[WorkItemEvent]) -> None:
    found = only(v1(action=action))

    assert type(found) is event
    assert found.change in ("created", "updated", "deleted", "archived")


def test_both_spellings_give_one_id() -> None:
    assert only(v1(action="update")).id == only(v1(action="updated")).id


def test_a_retry_is_the_same_event() -> None:
    assert only(v1("issue.created")).id == only(v1("issue.created.retry")).id


def test_two_fields_of_one_snapshot_are_two_events_of_one_moment() -> None:
    state, priority = only(v1("issue.updated.state")), only(v1("issue.updated.priority"))

    assert state.moment == priority.moment
    assert state.id != priority.id
    assert ("state_id", "priority") == (state.detail, priority.detail)


def test_one_field_changed_twice_within_one_snapshot_is_two_events() -> None:
    there, back = v1("issue.updated.priority"), v1("issue.updated.priority")
    back["activity"] |= {"old_value": "urgent", "new_value": "high"}

    assert only(there).id != only(back).id


@pytest.mark.parametrize(
    ("group", "status"),
    [
        ("backlog", "open"),
        ("unstarted", "open"),
        ("triage", "open"),
        ("started", "in_progress"),
        ("completed", "done"),
        ("cancelled", "cancelled"),
        ("a group of tomorrow", None),
        (None, None),
    ],
)
def test_the_status_comes_from_the_group_and_the_word_from_the_team(group: str | None, status: str) -> None:
    found = only(v1(state={"id": "s-1", "name": "Wird geprüft", "group": group}))

    assert (status, "Wird geprüft") == (found.status, found.provider_status)


def test_a_state_of_an_unknown_group_that_completes_is_done() -> None:
    found = only(v1(state={"id": "s-1", "name": "X", "group": "new"}, completed_at="2026-01-05T09:30:10Z"))

    assert "done" == found.status


def test_a_bare_state_states_its_id_and_no_status() -> None:
    found = only(v1(state="57d81c86-7c3a-4d7e-9a0c-6b6bb2c1f002"))

    assert (True, False) == (found.stated, found.named)
    assert ("57d81c86-7c3a-4d7e-9a0c-6b6bb2c1f002", None, None) == (
        found.state_id,
        found.status,
        found.provider_status,
    )


@pytest.mark.parametrize(
    "bare", [{"labels": ["l-1"]}, {"assignees": ["u-1"]}, {"assignees": [{"id": "u-1", "display_name": ""}]}]
)
def test_bare_labels_and_assignees_are_no_names(bare: dict[str, Any]) -> None:
    assert (True, False) == (only(v1(**bare)).stated, only(v1(**bare)).named)


def test_none_of_any_is_known_in_every_format() -> None:
    found = only(v2(state_id="None", label_ids=[], assignee_ids=[]))

    assert (True, True, None, [], []) == (
        found.stated,
        found.named,
        found.status,
        found.labels,
        found.assignees,
    )


def test_the_text_none_is_null_but_in_a_title() -> None:
    found = only(v2(name="None"))

    assert ("None", None, None, None, None) == (
        found.title,
        found.item_type,
        found.closed_at,
        found.archived_at,
        found.detail,
    )


def test_the_priority_none_is_a_word_of_planes() -> None:
    assert "none" == only(v2(priority="none")).priority


def test_names_are_in_an_order_of_their_own() -> None:
    people = [{"id": "1", "display_name": "grace"}, {"id": "2", "display_name": "ada"}]
    labels = [{"name": "ops"}, {"name": "backup"}]
    one, other = (
        only(v1(assignees=people, labels=labels)),
        only(v1(assignees=people[::-1], labels=labels[::-1])),
    )

    assert (["ada", "grace"], "ada", ["backup", "ops"]) == (one.assignees, one.assignee, one.labels)
    assert (one.assignees, one.labels) == (other.assignees, other.labels)


def test_archived_at_is_a_date_in_v1() -> None:
    assert datetime(2026, 1, 6, tzinfo=UTC) == only(v1(archived_at="2026-01-06")).archived_at


def test_a_restored_item_states_that_it_is_not_archived() -> None:
    found = only(v1(archived_at=None))

    assert found.stated and found.archived_at is None


def test_a_time_of_the_database_has_a_zone_of_hours() -> None:
    found = only(v2(updated_at="2026-06-01 10:00:00.0001+02"))

    assert datetime(2026, 6, 1, 8, 0, 0, 100, tzinfo=UTC) == found.updated_at


def test_a_time_without_a_zone_parks() -> None:
    assert "shape_mismatch" == parked(v1(updated_at="2026-01-06T08:00:00")).reason


def test_a_delete_that_carries_only_an_id_happened_when_it_was_received() -> None:
    found = only(sample("v1-docs/issue.delete.printed"))

    assert isinstance(found, WorkItemDeleted)
    assert (NOW, NOW, micros(NOW)) == (found.deleted_at, found.occurred_at, found.moment[1])
    assert (False, "", None) == (found.stated, found.project, found.url)


def test_a_record_that_shows_its_deletion_is_deleted_then() -> None:
    found = only(v1(deleted_at="2026-01-06T08:00:00Z"))

    assert isinstance(found, WorkItemDeleted)
    assert datetime(2026, 1, 6, 8, tzinfo=UTC) == found.deleted_at


def test_a_deleted_item_of_v2_is_known_by_what_it_was() -> None:
    found = only(v2("workitem.deleted"))

    assert isinstance(found, WorkItemDeleted)
    assert (42, "plane:a0a1a2a3-0002-4000-8000-000000000002") == (found.number, found.ref)
    assert found.url and found.url.endswith("/issues/a0a1a2a3-0002-4000-8000-000000000002/")


def test_v2_says_that_it_is_done_and_that_it_is_reopened() -> None:
    assert WorkItemClosed is type(only(v2("workitem.updated.done")))
    assert WorkItemReopened is type(only(v2("workitem.updated.reopened")))


@pytest.mark.parametrize(("new", "event"), [("s-done", WorkItemClosed), ("s-before", WorkItemUpdated)])
def test_v1_is_closed_where_the_change_and_the_snapshot_name_one_state(new: str, event: type) -> None:
    body = v1(state={"id": "s-done", "name": "Done", "group": "completed"})
    body["activity"] |= {"new_value": new}

    assert event is type(only(body))


def test_an_update_of_a_done_item_is_no_second_end() -> None:
    assert WorkItemUpdated is type(only(v1("issue.updated.unicode")))


def test_the_address_is_built_from_ssot() -> None:
    found = only(v1())

    assert (
        "https://plane.example.org/acme/projects/3b9b7a52-33a7-4a2b-8a35-7c5e5dd3f0b1"
        "/issues/a0a1a2a3-0001-4000-8000-000000000001/" == found.url
    )


@pytest.mark.parametrize("options", [{"base_url": "plane", "workspace": "a"}, {"base_url": "https://p"}, {}])
def test_a_workspace_without_an_address_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        source_of(PROVIDER, options=options)


def test_an_item_of_no_known_project_has_no_address() -> None:
    options = PlaneOptions(base_url="https://plane.example.org", workspace="acme")

    assert None is options.item_url(None, "i-1")


def test_a_comment_names_its_item_and_says_nothing_of_it() -> None:
    first, second = (
        only(v1("issue_comment.created")),
        only(sample("v2-docs/workitem.comment.created.printed")),
    )

    assert "plane:a0a1a2a3-0001-4000-8000-000000000001" == first.ref
    assert "plane:088a83b9-a53f-4dda-b2bc-c860cf455997" == second.ref
    assert "4797f841-c731-4e55-971f-d9cfe1938dfb" == second.comment_id
    assert {WorkItemCommented} == {type(first), type(second)}
    assert not first.stated and not second.stated


def test_the_deletion_of_a_comment_names_no_item_in_v1() -> None:
    body = {**v1("issue_comment.created"), "action": "deleted", "data": {"id": "c-1"}}

    assert "comment_of_unknown_item" == ignored(body)


def test_a_deleted_project_is_worth_a_warning() -> None:
    found = only(v1("project.deleted"))

    assert ("project.changed", "deleted", "warn") == (found.type, found.change, found.level)
    assert NOW == found.occurred_at


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("cycle", "not_followed"),
        ("module_issue", "not_followed"),
        ("cycle.updated", "not_followed"),
        ("page.created", "not_followed"),
        ("workitem.link.created", "not_followed"),
        ("initiative", "no_such_event"),
        ("workitem.reaction.created", "no_such_event"),
        ("customer.created", "no_such_event"),
    ],
)
def test_what_no_table_shows_is_ignored_by_name(event: str, reason: str) -> None:
    assert reason == ignored({"event": event, "action": "created", "data": {"id": "x"}})


@pytest.mark.parametrize(
    "body",
    [
        {"event": "issue", "action": "updated", "data": {}},
        {"event": "issue", "data": {"id": "i-1"}},
        {"event": "issue", "action": "updated", "data": None},
        {"event": "workitem.updated", "version": "v2", "data": {}},
        {"event": "project", "action": "updated", "data": {}},
        {"event": "issue", "action": "updated", "data": {"id": "i-1", "labels": [[]]}},
        {"event": "issue", "action": "updated", "data": {"id": "i-1", "sequence_id": "x"}},
    ],
)
def test_a_body_that_says_not_what_it_is_about_parks(body: dict[str, Any]) -> None:
    assert "shape_mismatch" == parked(body).reason


def test_a_sparse_sight_states_nothing() -> None:
    found = only({"event": "workitem.updated", "version": "v2", "data": {"id": "i-1", "name": "A title"}})

    assert (False, False, None) == (found.stated, found.named, found.title)


@pytest.mark.parametrize(
    "name", ["name", "priority", "state_id", "updated_at", "completed_at", "archived_at"]
)
def test_a_sight_that_lacks_a_key_of_the_shared_group_states_none_of_it(name: str) -> None:
    body = v2("workitem.updated.done")
    assert only(body).stated
    del body["data"][name]
    assert not only(body).stated


def test_the_list_in_print_states_nothing_but_where_the_item_is() -> None:
    (seen,) = observed(sample("rest/list-work-items.printed"))

    assert (False, None, None, False) == (
        seen.stated,
        seen.closed_at,
        seen.archived_at,
        seen.item_type_stated,
    )


def test_a_type_is_stated_where_its_key_is_shown() -> None:
    typed, nameless = v2(type_id="t-1"), v2()
    del nameless["data"]["type_id"]

    assert (True, "t-1") == (only(typed).item_type_stated, only(typed).item_type)
    assert (True, None) == (only(v2(type_id=None)).item_type_stated, only(v2(type_id=None)).item_type)
    assert (True, False) == (only(nameless).stated, only(nameless).item_type_stated)


def test_a_deletion_is_no_older_than_the_last_change_by_planes_clock() -> None:
    body = sample(f"{V2}/workitem.deleted")
    times = []
    for updated_at in (NOW - timedelta(hours=1), NOW + timedelta(seconds=3)):
        body["previous_attributes"] |= {"updated_at": updated_at.isoformat()}
        times.append(only(body).occurred_at)

    assert [NOW, NOW + timedelta(seconds=3)] == times


def test_an_observation_and_a_webhook_of_one_moment_state_one_thing() -> None:
    (seen,) = observed(page())
    heard = only(v2("workitem.updated.done"))

    assert seen.ref == heard.ref
    assert seen.moment[:2] == heard.moment[:2] and seen.moment > heard.moment
    for name in ("title", "state_id", "priority", "closed_at", "archived_at", "updated_at", "item_type"):
        assert getattr(seen, name) == getattr(heard, name), name


def test_times_of_the_api_come_in_the_zone_of_its_user() -> None:
    (seen,) = observed(page())
    (same,) = observed(page(updated_at="2026-06-02T10:00:00.500000Z"))

    assert (seen.id, seen.model_dump_json()) == (same.id, same.model_dump_json())


@pytest.mark.parametrize(("after_s", "rank"), [(0.0, 1), (1.9, 1), (2.0, 4), (900.0, 4)])
def test_an_observation_outranks_what_it_had_time_to_see(after_s: float, rank: int) -> None:
    fetched_at = datetime(2026, 6, 2, 10, 0, 0, 500000, tzinfo=UTC) + timedelta(seconds=after_s)
    (seen,) = observed(page(), fetched_at)

    assert rank == seen.moment[2]


def test_an_observation_without_a_time_of_change_is_as_old_as_its_fetching() -> None:
    (seen,) = observed(page(updated_at=None))

    assert (0, micros(NOW), 4) == seen.moment


def test_a_page_is_cut_into_items() -> None:
    body = sample("rest/list-work-items.constructed")
    body["results"] = [{**body["results"][0], "id": f"i-{n}"} for n in range(3)]
    found = items(WORK_ITEMS, SCOPE, json.dumps(body).encode())

    assert [("plane:i-0", "work_item"), ("plane:i-1", "work_item"), ("plane:i-2", "work_item")] == [
        (item.ref, item.kind) for item in found
    ]
    assert {"scope": SCOPE, "item": body["results"][0]} == json.loads(found[0].body)


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("cycles", b"{}", "no_such_kind"),
        (WORK_ITEMS, b"{", "not_json"),
        (WORK_ITEMS, b"{}", "shape_mismatch"),
        (WORK_ITEMS, b'{"results": {"group": []}}', "shape_mismatch"),
        (WORK_ITEMS, b'{"results": [{}]}', "shape_mismatch"),
        (WORK_ITEMS, b'{"results": [{"id": 1}]}', "shape_mismatch"),
    ],
)
def test_an_answer_that_is_no_list_is_refused(kind: str, body: bytes, reason: str) -> None:
    with pytest.raises(Unintelligible) as caught:
        items(kind, SCOPE, body)
    assert reason == caught.value.reason
