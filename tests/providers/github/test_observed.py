"""What a poll of GitHub's API brings: items cut from pages, and the facts that webhooks would have told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.observation import observed_body, observed_kind
from contracts.version import micros
from providers.github import PROVIDER
from providers.github.observed import ITEMLESS, KINDS, LISTINGS
from providers.port import Ignored, Unintelligible
from tests.providers.github.deliveries import (
    ANSWERS,
    LISTED,
    RECEIVED_AT,
    REST,
    SOURCE,
    answer,
    cut,
    expected_path,
    listed,
    observation,
    only,
    only_seen,
    outcome_of_answer,
    sample,
)

each_answer = pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.stem)
SCOPE = "repos/Codertocat/Hello-World"


@each_answer
def test_an_answer_becomes_what_was_reviewed(path: Path) -> None:
    assert json.loads(expected_path(path).read_bytes()) == outcome_of_answer(path)


def test_there_is_an_outcome_for_each_answer_and_no_other() -> None:
    assert sorted(map(expected_path, ANSWERS)) == sorted(REST.glob("expected/*.json"))
    assert set(LISTED) == {path.stem for path in ANSWERS}


def test_there_is_an_answer_of_every_kind_that_is_listed() -> None:
    assert {kind for kind, _ in LISTED.values()} == LISTINGS.keys() | ITEMLESS
    assert set(KINDS) == {observed_kind(listing.kind) for listing in LISTINGS.values()}


@each_answer
def test_an_item_is_cut_the_same_whatever_the_order_of_its_keys(path: Path) -> None:
    shuffled = json.dumps(json.loads(path.read_bytes()), sort_keys=True).encode()
    assert listed(path) == cut(*LISTED[path.stem], shuffled)


@pytest.mark.parametrize("name", ["pulls.list", "checks.list-suites-for-ref"])
def test_the_token_that_clones_a_repository_is_never_stored(name: str) -> None:
    page = answer(name)
    assert "ABTLWHOULUVAXGTRYU7OC2876QJ2O" in json.dumps(page)
    for item in listed(REST / "answers" / f"{name}.json"):
        assert b"temp_clone_token" not in item.body
        assert b"ABTLWHOULUVAXGTRYU7OC2876QJ2O" not in item.body


def test_the_token_is_found_wherever_it_stands() -> None:
    page = answer("issues.list-for-repo")
    page[0]["invented"] = [{"deep": {"temp_clone_token": "hunter2", "kept": 1}}]
    [item] = cut("issues", SCOPE, page)
    assert b"hunter2" not in item.body
    assert [{"deep": {"kept": 1}}] == json.loads(item.body)["item"]["invented"]


def test_a_star_or_a_closed_neighbour_makes_no_new_observation() -> None:
    page = answer("pulls.list")
    before = cut("pulls", SCOPE, page)
    for end in ("head", "base"):
        page[0][end]["repo"]["stargazers_count"] += 1
    page[0]["milestone"]["closed_issues"] += 1
    assert before == cut("pulls", SCOPE, page)
    page[0]["title"] = "Another"
    assert before != cut("pulls", SCOPE, page)


@pytest.mark.parametrize("kind", sorted(ITEMLESS))
@pytest.mark.parametrize("page", [b"{}", b"[]", b"no json"])
def test_an_answer_about_our_own_hooks_and_allowances_has_no_items(kind: str, page: bytes) -> None:
    assert [] == cut(kind, SCOPE, page)


def unintelligible(kind: str, scope: str, page: Any) -> Unintelligible:
    with pytest.raises(Unintelligible) as caught:
        cut(kind, scope, page)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "page", "reason"),
    [
        ("stars", [], "no_such_kind"),
        ("issues", b"<html>", "not_json"),
        ("issues", b"[" * 20_000, "not_json"),
        ("issues", {"message": "Not Found"}, "shape_mismatch"),
        ("runs", [], "shape_mismatch"),
        ("runs", {"workflow_runs": None}, "shape_mismatch"),
        ("issues", [{"url": "https://api.github.com/repos/a/b/issues/1"}], "shape_mismatch"),
        ("issues", [None], "shape_mismatch"),
        ("issues", [{"number": 10**400}], "shape_mismatch"),
    ],
)
def test_a_page_that_is_none_is_refused_by_name(kind: str, page: Any, reason: str) -> None:
    assert reason == unintelligible(kind, SCOPE, page).reason


def test_a_page_of_which_no_repository_is_known_is_refused() -> None:
    assert "repository" in str(unintelligible("issues", "orgs/octocat/issues", [{"number": 1}]))


@pytest.mark.parametrize(
    ("item", "ref"),
    [
        ({"repository_url": "https://api.github.com/repos/a/B"}, "github:a/B#7"),
        ({"url": "https://api.github.com/repos/a/B/issues/7"}, "github:a/B#7"),
        ({"url": "https://github.example.org/api/v3/repos/a/B/issues/7"}, "github:a/B#7"),
        ({"repository": {"id": 1, "full_name": "a/B"}, "url": "https://x/repos/c/d"}, "github:a/B#7"),
        ({"url": "https://api.github.com/repositories/1/issues/7"}, "github:Codertocat/Hello-World#7"),
        ({}, "github:Codertocat/Hello-World#7"),
    ],
)
def test_an_item_names_its_repository_in_its_own_spelling_before_its_scope_does(
    item: dict[str, Any], ref: str
) -> None:
    assert [ref] == [each.ref for each in cut("issues", f"{SCOPE}/issues", [item | {"number": 7}])]


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("deployment_statuses", "repos.list-deployment-statuses", {"id": 2}),
        ("comments", "issues.list-comments-for-repo", {"id": 2}),
    ],
)
def test_two_items_about_one_thing_have_refs_of_their_own(kind: str, first: str, second: Any) -> None:
    page = [answer(first)[0], answer(first)[0] | second]
    assert 2 == len({item.ref for item in cut(kind, SCOPE, page)})


def test_an_attempt_is_an_item_of_its_own() -> None:
    page = answer("actions.list-workflow-runs-for-repo")
    again = page["workflow_runs"][0] | {"run_attempt": 2}
    page["workflow_runs"].append(again)
    refs = [item.ref for item in cut("runs", SCOPE, page)]
    assert ["github:run/30433642/1", "github:run/30433642/2"] == refs


# What a poll sees of a fact is the fact that the webhook told.

SAME_FACTS = {
    "run": ("workflow_run.completed.01", "workflow_run"),
    "job": ("workflow_job.completed.01", "workflow_job"),
    "check_run": ("check_run.completed.01", "check_run"),
    "check_suite": ("check_suite.completed.00", "check_suite"),
    "deployment": ("deployment.created.01", "deployment"),
}


@pytest.mark.parametrize("kind", SAME_FACTS)
def test_a_poll_of_a_fact_gives_the_webhooks_id_and_words(kind: str) -> None:
    name, key = SAME_FACTS[kind]
    body = sample(name)
    heard = only(name.partition(".")[0], body)
    seen = only_seen(kind, {"repository": body["repository"], **body[key]}, scope=SCOPE)

    assert (heard.type, heard.id) == (seen.type, seen.id)
    unseen = {"actor", "workflow", "build_ref", "repository_id"}
    assert heard.model_dump(exclude=unseen) == seen.model_dump(exclude=unseen)


def test_a_polled_status_is_the_webhooks_fact_about_the_deployment_that_its_address_names() -> None:
    body = sample("deployment_status.created.01")
    heard = only("deployment_status", body)
    seen = only_seen("deployment_status", body["deployment_status"], scope=SCOPE)

    assert (heard.type, heard.id, heard.ref) == (seen.type, seen.id, seen.ref)
    for field in ("status", "provider_status", "description", "url", "log_url", "environment"):
        assert getattr(heard, field) == getattr(seen, field)


@pytest.mark.parametrize(
    "address", ["", "https://api.github.com/repos/a/b/deployments/x", "…/deployments/9999999999999999999"]
)
def test_a_status_whose_address_names_no_deployment_parks(address: str) -> None:
    item = answer("repos.list-deployment-statuses")[0] | {"deployment_url": address}
    with pytest.raises(Unintelligible, match="deployment_url"):
        only_seen("deployment_status", item)


def test_a_status_without_its_branch_names_no_environment_that_a_rule_about_branches_might_know() -> None:
    item = answer("repos.list-deployment-statuses")[0]
    assert "prod" == only_seen("deployment_status", item).env
    assert None is only_seen("deployment_status", item | {"environment": "github-pages"}).env


def test_a_polled_comment_is_the_webhooks_fact_where_the_issue_was_last_changed_by_it() -> None:
    body = sample("issue_comment.created.01")
    body["issue"]["updated_at"] = body["comment"]["updated_at"]
    heard, seen = only("issue_comment", body), only_seen("comment", body["comment"], scope=SCOPE)

    assert (heard.id, heard.ref, heard.comment_id) == (seen.id, seen.ref, seen.comment_id)
    assert (False, "created") == (seen.stated, seen.change)


def test_a_polled_comment_that_was_changed_since_is_an_edit() -> None:
    item = answer("issues.list-comments-for-repo")[0] | {"updated_at": "2011-04-15T16:00:49Z"}
    assert "edited" == only_seen("comment", item).change


@pytest.mark.parametrize(("page", "kind"), [("issues", "issue"), ("pull", "pull_request")])
def test_a_polled_comment_says_by_its_page_whether_it_is_about_a_pull_request(page: str, kind: str) -> None:
    item = answer("issues.list-comments-for-repo")[0]
    item["html_url"] = f"https://github.com/octocat/Hello-World/{page}/1347#issuecomment-1"
    assert kind == only_seen("comment", item).kind


@pytest.mark.parametrize(
    ("field", "value"), [("html_url", "https://github.com/"), ("issue_url", "https://api.github.com/")]
)
def test_a_comment_whose_address_names_no_item_parks(field: str, value: str) -> None:
    item = answer("issues.list-comments-for-repo")[0] | {field: value}
    with pytest.raises(Unintelligible, match=field):
        only_seen("comment", item)


def test_what_a_poll_sees_of_an_item_is_what_its_webhook_stated() -> None:
    body = sample("pull_request.closed.03")
    body["pull_request"] |= {"merged": True, "merged_at": "2019-05-15T15:21:18Z"}
    heard = only("pull_request", body)
    # A list of pull requests says `merged_at`, never `merged`; a list of issues says it in `pull_request`.
    pull = {key: value for key, value in body["pull_request"].items() if key != "merged"}
    issue = {key: pull[key] for key in pull if key not in ("head", "base", "draft", "merged_at")}
    issue["pull_request"] = {"merged_at": "2019-05-15T15:21:18Z"}

    differing = {"moment", "fact", "actor", "change", "scope"}
    seen = only_seen("pull_request", pull, scope=SCOPE)
    assert heard.model_dump(exclude=differing) == seen.model_dump(exclude=differing)
    from_issues = only_seen("issue", issue, scope=SCOPE)
    of_pull_requests = {"pull_request_stated", "draft", "head_ref", "head_sha", "base_ref", "project_id"}
    assert heard.model_dump(exclude=differing | of_pull_requests) == from_issues.model_dump(
        exclude=differing | of_pull_requests
    )
    assert (True, False) == (seen.pull_request_stated, from_issues.pull_request_stated)


def test_a_closed_pull_request_in_a_list_of_issues_that_does_not_say_whether_it_was_merged_states_nothing() -> (
    None
):
    item = answer("issues.list-for-repo")[0] | {"state": "closed"}
    assert (False, None, "pull_request") == (
        (seen := only_seen("issue", item)).stated,
        seen.status,
        seen.kind,
    )


def test_the_two_lists_that_show_a_pull_request_state_two_facts() -> None:
    item = answer("pulls.list")[0]
    assert (
        only_seen("pull_request", item).id
        != only_seen("issue", item | {"pull_request": {"merged_at": None}}).id
    )


UPDATED_AT = datetime(2011, 4, 22, 13, 33, 48, tzinfo=UTC)


@pytest.mark.parametrize(("after_s", "rank"), [(0, 1), (1.999, 1), (2, 4), (3600, 4), (-5, 1)])
def test_only_an_observation_that_saw_the_whole_second_outranks_its_webhooks(
    after_s: float, rank: int
) -> None:
    item = answer("issues.list-for-repo")[0]
    seen = only_seen("issue", item, received_at=UPDATED_AT + timedelta(seconds=after_s))
    assert (0, micros(UPDATED_AT), rank) == seen.moment


def test_an_item_without_updated_at_is_dated_by_its_fetching() -> None:
    item = answer("issues.list-for-repo")[0] | {"updated_at": None}
    assert (0, micros(RECEIVED_AT), 1) == only_seen("issue", item).moment


def test_the_type_that_an_organisation_gives_an_issue_is_its_item_type() -> None:
    item = answer("issues.list-for-repo")[0]
    assert (None, None) == ((seen := only_seen("issue", item)).item_type, seen.priority)
    assert "Bug" == only_seen("issue", item | {"type": {"id": 1, "name": "Bug"}}).item_type
    body = sample("issues.opened.15")
    body["issue"]["type"] = {"id": 1, "name": "Feature"}
    assert "Feature" == only("issues", body).item_type


@pytest.mark.parametrize(
    ("status", "conclusion", "type_name", "major", "word"),
    [
        ("queued", None, "queued", 0, "queued"),
        ("requested", None, "queued", 0, "queued"),
        ("waiting", None, "queued", 0, "queued"),
        ("pending", None, "queued", 0, "queued"),
        (None, None, "queued", 0, "queued"),
        ("action_required", None, "queued", 0, "action_required"),
        ("completed", "action_required", "queued", 0, "action_required"),
        ("in_progress", None, "started", 1, "running"),
        ("completed", "success", "finished", 2, "success"),
        ("completed", None, "finished", 2, "unknown"),
        ("invented", None, "queued", 0, "unknown"),
    ],
)
@pytest.mark.parametrize("kind", ["run", "job"])
def test_a_poll_goes_by_the_status_since_it_sees_no_action(
    kind: str, status: str | None, conclusion: str | None, type_name: str, major: int, word: str
) -> None:
    pages = {
        "run": ("actions.list-workflow-runs-for-repo", "workflow_runs"),
        "job": ("actions.list-jobs-for-workflow-run", "jobs"),
    }
    name, field = pages[kind]
    item = answer(name)[field][0] | {"status": status, "conclusion": conclusion}
    seen = only_seen(kind, item)
    assert (type_name, major, word) == (seen.type.partition(".")[2], seen.moment[0], seen.status)


def test_a_polled_attempt_was_asked_for_by_whoever_asked_for_this_attempt() -> None:
    item = answer("actions.list-workflow-runs-for-repo")["workflow_runs"][0]
    item |= {"actor": {"login": "first"}, "triggering_actor": {"login": "second"}}
    assert "second" == only_seen("run", item).actor
    assert "first" == only_seen("run", item | {"triggering_actor": None}).actor
    assert None is only_seen("run", item | {"triggering_actor": None, "actor": None}).actor


def test_the_steps_of_a_polled_job_are_written_in_the_zone_of_its_webhook() -> None:
    body = sample("workflow_job.completed.01")
    heard = only("workflow_job", body)
    for step in body["workflow_job"]["steps"]:
        for field in ("started_at", "completed_at"):
            there = datetime.fromisoformat(step[field]).astimezone(
                datetime.fromisoformat("2020-01-01T00:00:00-08:00").tzinfo
            )
            step[field] = there.isoformat()
    seen = only_seen("job", body["workflow_job"], scope=SCOPE)
    assert [step.model_dump_json() for step in heard.steps] == [step.model_dump_json() for step in seen.steps]


def test_a_webhook_cannot_say_that_it_is_an_observation() -> None:
    stored = observation("issue", observed_body(SCOPE, answer("issues.list-for-repo")[0]))
    assert 1 == len(list(PROVIDER.normalize(stored, SOURCE)))
    sent = replace(stored, headers={"x-github-event": "observed.issue"}, via="webhook")
    with pytest.raises(Ignored):
        PROVIDER.normalize(sent, SOURCE)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"scope": "repos/a/b"}', b'{"scope": 1, "item": {}}'])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_observation_that_is_none_parks(kind: str, body: bytes) -> None:
    with pytest.raises(Unintelligible) as caught:
        PROVIDER.normalize(observation(kind.removeprefix("observed."), body), SOURCE)
    assert caught.value.reason in ("not_json", "shape_mismatch")


def test_an_observation_of_what_we_do_not_know_is_ignored() -> None:
    with pytest.raises(Ignored):
        PROVIDER.normalize(observation("star", b"{}"), SOURCE)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a decoded page with every key or index of it."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


SURPRISES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "\ud800", "\x00", 10**400, "https://[", "repos/a/b", "/deployments/1"]),
    st.lists(st.none(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.none(), max_size=2),
)


@settings(deadline=None, max_examples=150)
@given(path=st.sampled_from(ANSWERS), surprise=SURPRISES, data=st.data())
def test_any_value_anywhere_in_a_page_is_cut_and_understood_or_refused_by_name(
    path: Path, surprise: Any, data: st.DataObject
) -> None:
    page = json.loads(path.read_bytes())
    container, key = data.draw(st.sampled_from(list(places(page))))
    container[key] = surprise
    kind, scope = LISTED[path.stem]
    with suppress(Unintelligible, Ignored):
        for item in cut(kind, scope, page):
            list(PROVIDER.normalize(observation(item.kind, item.body), SOURCE))
