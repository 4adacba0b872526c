"""What is left of a thing's life, in whichever order it is heard of: every permutation, and everything twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import permutations
from typing import Any

import pytest

from contracts.delivery import Delivery
from contracts.envelope import Event
from read_models.merge import join_all
from read_models.registry import READ_MODELS
from services.projector.understand import Understood, understand
from tests.providers.github import histories
from tests.providers.github.deliveries import SOURCE
from tests.providers.github.histories import HISTORIES, NOON

MODELS = {model.name: model for model in READ_MODELS}


def understood(told: Sequence[Delivery]) -> list[Understood]:
    found = [understand({"github": SOURCE}, each) for each in told]
    assert {"projected"} == {each.status for each in found}, [each.error for each in found]
    return found


def events(told: Sequence[Delivery]) -> list[Event]:
    return [statement.event for each in understood(told) for statement in each.statements]


def rows(table: str, told: Sequence[Delivery]) -> dict[str, Any]:
    """The rows of a table by key, after the one thing that matters: every order gives them."""
    stated = [[row for name, row in each.rows if name == table] for each in understood(told)]
    results = [
        join_all(MODELS[table], [row for part in order for row in part]) for order in permutations([*stated])
    ]
    twice = join_all(MODELS[table], [row for part in [*reversed(stated), *stated] for row in part])
    assert all(result == twice for result in results)
    return {"/".join(key): row for key, row in twice.items()}


def life(name: str) -> Sequence[Delivery]:
    return HISTORIES[name]()


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_gives_the_same_rows_in_any_order(name: str) -> None:
    for table in MODELS.keys() - {"deliveries"}:
        rows(table, life(name))


def test_a_re_run_is_a_row_of_its_own_and_leaves_the_first_attempt_failed() -> None:
    found = rows("builds", life("re-run"))

    assert {"github:run/289782451/1": "failed", "github:run/289782451/2": "success"} == {
        ref: build.status for ref, build in found.items()
    }


def test_a_re_run_that_waits_does_not_touch_the_attempt_before() -> None:
    found = rows("builds", life("re-run")[:3])

    assert ["failed", "queued"] == [build.status for _, build in sorted(found.items())]


def test_an_attempt_goes_on_after_its_approval_though_it_was_completed_before() -> None:
    waiting, going_on, ended = (
        rows("builds", life("approval that continues an attempt")[:told]) for told in (2, 3, 4)
    )

    for found, status in ((waiting, "action_required"), (going_on, "running"), (ended, "success")):
        assert [status] == [build.status for build in found.values()]
    assert [None] == [build.finished_at for build in going_on.values()]


def test_a_run_that_completed_with_status_queued_has_ended_though_its_clock_is_behind() -> None:
    [build] = rows("builds", life("completed with status queued")).values()

    assert ("unknown", "queued", None) == (build.status, build.provider_status, build.provider_conclusion)
    assert build.finished_at is not None


def test_a_job_has_started_only_when_a_runner_began() -> None:
    told = life("job whose start is filled while it queues")
    [queued] = rows("build_jobs", told[:2]).values()
    [running] = rows("build_jobs", told[:3]).values()
    [failed] = rows("build_jobs", told).values()

    assert ("queued", None, None) == (queued.status, queued.started_at, queued.queued_s)
    assert ("running", 20, None) == (running.status, running.queued_s, running.duration_s)
    assert ("failed", 20, 60, 12) == (failed.status, failed.queued_s, failed.duration_s, failed.steps_shown)
    assert b'"name":"Run yarn run format-check","status":"completed","conclusion":"failure"' in failed.steps


def test_a_deployment_that_was_live_becomes_inactive_in_the_same_second() -> None:
    [deployment] = rows("deployments", life("success to inactive")).values()

    assert ("inactive", "inactive") == (deployment.status, deployment.provider_status)
    assert NOON.replace(second=2) == deployment.deployed_at


def test_a_pin_says_nothing_about_the_state_of_an_issue() -> None:
    [item] = rows("work_items", life("pinned without state")).values()

    assert ("done", "closed", NOON.replace(second=5)) == (item.status, item.provider_status, item.closed_at)
    assert NOON.replace(second=9) == item.last_event_at


def test_a_transferred_issue_is_gone_here_and_open_there() -> None:
    found = rows("work_items", life("transferred"))
    gone, there = found["github:octo-org/octo-repo#1"], found["github:Codertocat/Hello-World#7"]

    assert ("github:Codertocat/Hello-World#7", gone.last_event_at) == (gone.moved_to, gone.deleted_at)
    assert (None, "open") == (there.deleted_at, there.status)


def test_an_issue_that_is_deleted_in_the_second_of_a_reopen_is_deleted() -> None:
    [item] = rows("work_items", life("deleted in the second of a reopen")).values()

    assert NOON.replace(second=9) == item.deleted_at == item.last_event_at
    assert "open" == item.status


def test_a_renamed_repository_has_both_names_under_one_id() -> None:
    found = rows("repo_aliases", life("renamed"))
    old = found["github:repository/186853002/Codertocat/Hello-World"]
    new = found["github:repository/186853002/Codertocat/Hello"]

    assert (NOON.replace(second=2), NOON.replace(second=5)) == (old.named_at, old.left_at)
    assert (NOON.replace(second=5), None) == (new.named_at, new.left_at)


def test_a_push_alone_tells_a_new_name() -> None:
    found = rows("repo_aliases", life("renamed unheard"))

    assert {histories.OLD: None, histories.NEWEST: None} == {
        alias.full_name: alias.left_at for alias in found.values()
    }


def test_a_poll_of_an_older_state_loses() -> None:
    told = life("webhook, then a poll of an older state")
    [build] = rows("builds", told[:3]).values()
    [item] = rows("work_items", told[3:]).values()

    # The poll's clock is ahead of the webhook's: how far the run is decides.
    assert ("success", "completed") == (build.status, build.provider_status)
    assert ("done", "closed") == (item.status, item.provider_status)


def test_a_poll_of_the_same_state_is_the_same_fact_and_changes_nothing() -> None:
    told = life("webhook, then a poll of the same state")
    queued, queued_seen, finished, finished_seen = events(told)

    assert (queued.id, finished.id) == (queued_seen.id, finished_seen.id)
    assert 2 == len(rows("run_events", told)) == len(rows("platform_events", told))
    [heard] = rows("builds", [told[0], told[2]]).values()
    [seen] = rows("builds", told).values()
    assert {**asdict(heard), "version": None} == {**asdict(seen), "version": None}


def test_an_observation_that_saw_the_whole_second_outranks_what_the_webhooks_of_that_second_say() -> None:
    told = life("poll before its webhook")
    [item] = rows("work_items", told).values()
    without_the_last = rows("work_items", told[:3]).values()

    assert ("done", ["wontfix"]) == (item.status, item.labels)
    assert ["done"] == [seen.status for seen in without_the_last]
    assert 4 == item.version[2]


def test_a_permission_that_was_lost_and_regained_was_lost_twice() -> None:
    told = life("permission lost and regained")
    found = events(told)

    assert 5 == len({event.id for event in found}) == len(rows("platform_events", told))
    in_order = sorted(found, key=lambda event: event.moment)
    assert [event.change for event in found] == [event.change for event in in_order]  # type: ignore[attr-defined]
    assert {"issues": "read", "checks": "read"} == in_order[-1].permissions  # type: ignore[attr-defined]


def test_the_end_of_a_suspension_is_later_than_its_beginning_which_is_all_the_time_that_it_shows() -> None:
    suspended, free = events(life("permission lost and regained"))[1:3]

    assert suspended.moment[:2] == free.moment[:2]
    assert suspended.moment < free.moment
