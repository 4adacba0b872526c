"""The traps of issues, pull requests and comments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.version import micros
from contracts.work_items import WorkItemDeleted, WorkItemEvent, WorkItemOpened
from tests.providers.github.deliveries import RECEIVED_AT, normalized, only, parked, sample


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("completed", "done"),
        (None, "done"),
        ("not_planned", "cancelled"),
        ("duplicate", "cancelled"),
        ("new", "done"),
    ],
)
def test_why_an_issue_was_closed_says_whether_it_is_done(reason: str | None, status: str) -> None:
    body = sample("issues.opened.15") | {"action": "closed"}
    body["issue"] |= {"state": "closed", "state_reason": reason, "closed_at": "2019-05-15T15:20:18Z"}
    closed = only("issues", body)
    assert ("work_item.closed", status, "closed") == (closed.type, closed.status, closed.provider_status)


def merged_pull_request() -> dict[str, Any]:
    body = sample("pull_request.closed.03")
    body["pull_request"] |= {"merged": True, "merged_at": "2019-05-15T15:21:18Z"}
    return body


def test_a_closed_pull_request_is_done_if_it_was_merged_and_cancelled_if_not() -> None:
    merged, given_up = (
        only("pull_request", merged_pull_request()),
        only("pull_request", sample("pull_request.closed.03")),
    )
    assert ("done", "merged") == (merged.status, merged.provider_status)
    assert ("cancelled", "closed") == (given_up.status, given_up.provider_status)


def test_actions_of_one_second_go_opened_others_closed_merged() -> None:
    body = sample("pull_request.closed.03")
    ranks = [
        only("pull_request", body | {"action": action}).moment[2]
        for action in ("opened", "labeled", "closed")
    ]
    assert [0, 1, 2, 3] == [*ranks, only("pull_request", merged_pull_request()).moment[2]]


def seen_through_a_comment(link: dict[str, Any]) -> WorkItemEvent:
    """A closed pull request as the comment on it shows it."""
    body = sample("issue_comment.created.00")
    body["issue"] |= {
        "number": 2,
        "state": "closed",
        "closed_at": "2019-05-15T15:21:18Z",
        "pull_request": link,
    }
    event: WorkItemEvent = only("issue_comment", body)
    return event


def test_a_closed_pull_request_seen_through_a_comment_is_merged_alike() -> None:
    direct = only("pull_request", merged_pull_request())
    seen = seen_through_a_comment({"url": "…", "merged_at": "2019-05-15T15:21:18Z"})
    assert (direct.ref, direct.status, direct.provider_status, direct.merged_at) == (
        seen.ref,
        seen.status,
        seen.provider_status,
        seen.merged_at,
    )
    assert ("pull_request", True, False) == (seen.kind, seen.stated, seen.pull_request_stated)


def test_a_closed_pull_request_seen_through_a_comment_is_given_up_if_the_comment_says_so() -> None:
    seen = seen_through_a_comment({"url": "…", "merged_at": None})
    assert (True, "cancelled", "closed") == (seen.stated, seen.status, seen.provider_status)


def test_a_closed_pull_request_of_which_a_comment_does_not_say_whether_it_was_merged_is_not_stated() -> None:
    seen = seen_through_a_comment({"url": "…"})
    assert (False, None, None, "pull_request") == (seen.stated, seen.status, seen.title, seen.kind)


def test_an_open_pull_request_seen_from_its_issue_side_is_stated_without_a_merge_time() -> None:
    seen = only("issues", sample("issues.milestoned.13"))
    assert ("pull_request", True, "open", False) == (
        seen.kind,
        seen.stated,
        seen.status,
        seen.pull_request_stated,
    )


def test_only_a_pull_request_payload_states_draft_and_branches() -> None:
    seen = only("pull_request", sample("pull_request.converted_to_draft.05"))
    assert (True, True, "changes", "master") == (
        seen.pull_request_stated,
        seen.draft,
        seen.head_ref,
        seen.base_ref,
    )


@pytest.mark.parametrize("name", ["issues.pinned.19", "issues.unpinned.28"])
def test_a_pinned_issue_without_state_states_nothing(name: str) -> None:
    seen = only("issues", sample(name))
    assert ("work_item.updated", False, None, None, []) == (
        seen.type,
        seen.stated,
        seen.status,
        seen.title,
        seen.labels,
    )


@pytest.mark.parametrize("field", ["title", "state", "labels", "assignees", "milestone", "closed_at"])
def test_an_issue_that_is_not_shown_in_full_states_nothing(field: str) -> None:
    body = sample("issues.opened.15")
    assert only("issues", body).stated
    del body["issue"][field]
    assert not only("issues", body).stated


def test_a_closed_pull_request_that_says_nothing_of_a_merge_states_nothing() -> None:
    body = sample("pull_request.closed.03")
    del body["pull_request"]["merged"]
    assert only("pull_request", body).stated
    del body["pull_request"]["merged_at"]
    assert not only("pull_request", body).stated


def test_a_merge_without_its_time_is_a_merge() -> None:
    body = sample("pull_request.closed.03")
    body["pull_request"] |= {"merged": True, "merged_at": None}
    merged = only("pull_request", body)
    assert ("done", "merged", 3, None) == (
        merged.status,
        merged.provider_status,
        merged.moment[2],
        merged.merged_at,
    )


@pytest.mark.parametrize("foreign", ["comment", "review", "thread"])
def test_the_body_of_a_review_is_no_pull_request_event(foreign: str) -> None:
    body = sample("pull_request.opened.13") | {foreign: {"id": 1}}
    assert foreign in str(parked("pull_request", body))


def test_an_issue_in_a_state_that_we_do_not_know_is_in_none() -> None:
    body = sample("issues.opened.15")
    body["issue"]["state"] = "limbo"
    seen = only("issues", body)
    assert (True, None, "limbo") == (seen.stated, seen.status, seen.provider_status)


def test_an_issue_without_updated_at_is_dated_by_its_receipt() -> None:
    body = sample("issues.opened.15")
    del body["issue"]["updated_at"]
    seen = only("issues", body)
    assert (micros(RECEIVED_AT), RECEIVED_AT, None) == (seen.moment[1], seen.occurred_at, seen.updated_at)


def test_a_transferred_issue_is_gone_here_and_opened_there() -> None:
    gone, there = normalized("issues", sample("issues.transferred.21"))
    assert isinstance(gone, WorkItemDeleted)
    assert isinstance(there, WorkItemOpened)
    assert ("github:octo-org/octo-repo#1", there.ref) == (gone.ref, gone.moved_to)
    assert ("github:Codertocat/Hello-World#1", 186853002) == (there.ref, there.project_id)
    assert datetime(2019, 10, 25, 22, 46, 30, tzinfo=UTC) == gone.deleted_at


def test_the_new_repositorys_own_opened_is_the_same_fact() -> None:
    _, there = normalized("issues", sample("issues.transferred.21"))
    opened = sample("issues.opened.15") | {
        "changes": {
            "old_issue": {"number": 1},
            "old_repository": {"id": 17273051, "full_name": "octo-org/octo-repo"},
        }
    }
    assert there == only("issues", opened)


def test_a_transfer_that_does_not_show_where_to_is_only_a_departure() -> None:
    body = sample("issues.transferred.21")
    del body["changes"]
    gone = only("issues", body)
    assert ("work_item.deleted", None) == (gone.type, gone.moved_to)


def test_a_deleted_issue_is_deleted_as_of_its_last_change() -> None:
    gone = only("issues", sample("issues.deleted.04"))
    assert ("work_item.deleted", gone.updated_at, 2) == (gone.type, gone.deleted_at, gone.moment[2])


def test_a_deleted_comment_looks_like_an_edit_but_for_its_action() -> None:
    deleted, edited = (
        only("issue_comment", sample(name))
        for name in ("issue_comment.deleted.05", "issue_comment.edited.07")
    )
    assert ("deleted", "edited") == (deleted.change, edited.change)
    assert (deleted.moment, deleted.comment_id) == (edited.moment, edited.comment_id)
    assert deleted.id != edited.id


def test_a_comment_happens_at_its_own_time_and_states_the_issue_at_the_issues() -> None:
    body = sample("issue_comment.created.01")
    seen = only("issue_comment", body)
    assert datetime.fromisoformat(body["comment"]["updated_at"]) == seen.occurred_at
    assert (0, micros(datetime.fromisoformat(body["issue"]["updated_at"])), 1) == seen.moment


def test_two_labels_of_one_second_are_two_facts() -> None:
    body = sample("issues.labeled.09")
    bug = only("issues", body)
    body["label"]["name"] = "urgent"
    urgent = only("issues", body)
    assert ("labeled:bug", "labeled:urgent") == (bug.fact, urgent.fact)
    assert (bug.moment, bug.detail) == (urgent.moment, "bug")
    assert bug.id != urgent.id


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("issues.unassigned.22", "unassigned:Codertocat"),
        ("issues.milestoned.13", "milestoned:v1.0"),
        ("pull_request.review_requested.21", "review_requested:octocat"),
        ("pull_request.synchronize.22", "synchronize:ec26c3e57ca3a959ca5aad62de7213c562f8c821"),
        ("pull_request.locked.10", "locked"),
    ],
)
def test_a_fact_says_what_the_action_was_about(name: str, fact: str) -> None:
    assert fact == only(name.partition(".")[0], sample(name)).fact


def test_a_review_asked_of_a_team_is_about_the_team() -> None:
    body = sample("pull_request.review_requested.21") | {"requested_team": {"name": "reviewers"}}
    del body["requested_reviewer"]
    assert "reviewers" == only("pull_request", body).detail


def test_opened_labeled_and_assigned_share_a_second_and_stay_three_facts_in_order() -> None:
    opened, labeled, assigned = (
        only("issues", sample(name))
        for name in ("issues.opened.15", "issues.labeled.09", "issues.assigned.01")
    )
    assert opened.moment[:2] == labeled.moment[:2] == assigned.moment[:2]
    assert opened.moment < labeled.moment == assigned.moment
    assert 3 == len({opened.id, labeled.id, assigned.id})


def test_the_only_assignee_may_stand_in_the_list_alone() -> None:
    body = sample("issues.assigned.01")
    del body["issue"]["assignee"]
    assert "Codertocat" == only("issues", body).assignee
    body["issue"]["assignees"] = []
    assert None is only("issues", body).assignee
