"""The traps of workflow runs, workflow jobs and checks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from contracts.builds import STEP_NAME_CHARS_MAX, STEPS_COUNT_MAX
from contracts.version import micros
from runtime.streams import EVENT_BYTES_MAX
from tests.providers.github.deliveries import RECEIVED_AT, only, parked, sample


@pytest.mark.parametrize(
    ("conclusion", "status"),
    [
        ("success", "success"),
        ("failure", "failed"),
        ("timed_out", "failed"),
        ("startup_failure", "failed"),
        ("cancelled", "cancelled"),
        ("skipped", "skipped"),
        ("neutral", "neutral"),
        ("stale", "neutral"),
        (None, "unknown"),
        ("", "unknown"),
        ("invented", "unknown"),
    ],
)
@pytest.mark.parametrize("event", ["workflow_run", "workflow_job", "check_run", "check_suite"])
def test_a_conclusion_has_one_normalised_word(event: str, conclusion: str | None, status: str) -> None:
    name = {
        "workflow_run": "workflow_run.completed.01",
        "workflow_job": "workflow_job.completed.01",
        "check_run": "check_run.completed.01",
        "check_suite": "check_suite.completed.00",
    }[event]
    body = sample(name)
    body[event]["conclusion"] = conclusion
    finished = only(event, body)
    assert (status, 2, conclusion) == (finished.status, finished.moment[0], finished.provider_conclusion)
    assert finished.type.endswith(".finished")


@pytest.mark.parametrize(
    ("action", "type_name", "major", "status"),
    [
        ("requested", "build.queued", 0, "queued"),
        ("queued", "build.queued", 0, "queued"),
        ("waiting", "build.queued", 0, "queued"),
        ("pending", "build.queued", 0, "queued"),
        ("action_required", "build.queued", 0, "action_required"),
        ("in_progress", "build.started", 1, "running"),
        ("completed", "build.finished", 2, "success"),
    ],
)
def test_the_action_of_a_run_decides_how_far_it_is(
    action: str, type_name: str, major: int, status: str
) -> None:
    build = only("workflow_run", sample("workflow_run.completed.01") | {"action": action})
    assert (type_name, major, status) == (build.type, build.moment[0], build.status)


def test_a_completed_run_with_status_queued_is_finished_and_how_is_unknown() -> None:
    build = only("workflow_run", sample("workflow_run.completed.00"))
    assert ("build.finished", "unknown", "queued") == (build.type, build.status, build.provider_status)
    assert build.finished_at is not None


@pytest.mark.parametrize("action", ["requested", "completed"])
def test_a_run_that_waits_for_an_approval_has_not_ended_though_it_is_completed(action: str) -> None:
    body = sample("workflow_run.requested.03") | {"action": action}
    body["workflow_run"] |= {"status": "completed", "conclusion": "action_required"}
    build = only("workflow_run", body)
    assert ("build.queued", 0, "action_required") == (build.type, build.moment[0], build.status)
    assert build.finished_at is None


def test_a_run_that_was_requested_and_is_already_completed_is_queued() -> None:
    body = sample("workflow_run.requested.03")
    body["workflow_run"] |= {"status": "completed", "conclusion": "success"}
    build = only("workflow_run", body)
    assert ("build.queued", "queued", "success") == (build.type, build.status, build.provider_conclusion)


def test_a_re_run_is_a_build_of_its_own() -> None:
    body = sample("workflow_run.requested.03")
    body["workflow_run"]["run_attempt"] = 2
    assert ("github:run/289782451/2", 2) == (
        only("workflow_run", body).ref,
        only("workflow_run", body).run_attempt,
    )


@pytest.mark.parametrize("how", ["absent", "null"])
def test_a_run_from_before_re_runs_is_its_first_attempt(how: str) -> None:
    body = sample("workflow_run.completed.01")
    body["workflow_run"].pop("run_attempt")
    if how == "null":
        body["workflow_run"]["run_attempt"] = None
    build = only("workflow_run", body)
    assert ("github:run/289782451/1", 1) == (build.ref, build.run_attempt)


def test_a_job_from_before_re_runs_belongs_to_the_first_attempt() -> None:
    job = only("workflow_job", sample("workflow_job.in_progress.00"))
    assert ("github:run/940463255/1", 1) == (job.build_ref, job.run_attempt)


def test_a_run_without_updated_at_is_dated_by_its_start() -> None:
    body = sample("workflow_run.completed.01")
    del body["workflow_run"]["updated_at"]
    build = only("workflow_run", body)
    assert micros(datetime(2020, 10, 5, 16, 33, 49, tzinfo=UTC)) == build.moment[1]
    assert build.finished_at is None


def test_a_run_names_its_first_pull_request_and_its_commits_first_line() -> None:
    body = sample("workflow_run.completed.01")
    body["workflow_run"]["pull_requests"] = [{"number": 7}, {"number": 8}]
    body["workflow_run"]["head_commit"]["message"] = "fix: one line\r\n\r\nand a long story"
    build = only("workflow_run", body)
    assert (7, "fix: one line") == (build.pull_request, build.commit_message)


def test_a_run_without_head_commit_and_workflow_has_neither_message_nor_name() -> None:
    body = sample("workflow_run.completed.01") | {"workflow": None}
    body["workflow_run"] |= {"head_commit": None, "pull_requests": None}
    build = only("workflow_run", body)
    assert (None, None, None) == (build.commit_message, build.workflow, build.pull_request)


def test_two_states_of_one_second_are_two_facts() -> None:
    body = sample("workflow_run.requested.03")
    requested = only("workflow_run", body)
    body["action"] = "waiting"
    body["workflow_run"]["status"] = "waiting"
    waiting = only("workflow_run", body)
    assert requested.moment == waiting.moment
    assert requested.id != waiting.id


@pytest.mark.parametrize("name", ["workflow_job.queued.05", "workflow_job.waiting.07"])
def test_a_waiting_job_is_queued_and_has_not_started_though_github_says_when(name: str) -> None:
    body = sample(name)
    job = only("workflow_job", body)
    assert body["workflow_job"]["started_at"] is not None
    assert ("build_job.queued", 0, "queued", None) == (job.type, job.moment[0], job.status, job.started_at)


def test_a_queued_action_with_status_waiting_is_queued() -> None:
    body = sample("workflow_job.waiting.07") | {"action": "queued"}
    job = only("workflow_job", body)
    assert ("build_job.queued", "queued", "waiting") == (job.type, job.status, job.provider_status)


@pytest.mark.parametrize("missing", [[], ["completed_at"], ["completed_at", "started_at"]])
def test_a_job_is_dated_by_the_first_of_completed_started_created(missing: list[str]) -> None:
    body = sample("workflow_job.completed.01")
    for field in missing:
        del body["workflow_job"][field]
    field = ["completed_at", "started_at", "created_at"][len(missing)]
    job = only("workflow_job", body)
    assert micros(datetime.fromisoformat(body["workflow_job"][field])) == job.moment[1]


def test_a_job_without_any_time_is_dated_by_its_receipt() -> None:
    body = sample("workflow_job.in_progress.00")
    del body["workflow_job"]["started_at"]
    assert micros(RECEIVED_AT) == only("workflow_job", body).moment[1]


@pytest.mark.parametrize(
    ("word", "type_name", "status"),
    [
        ("queued", "run.queued", "queued"),
        ("requested", "run.queued", "queued"),
        ("waiting", "run.queued", "queued"),
        ("pending", "run.queued", "queued"),
        (None, "run.queued", "queued"),
        ("in_progress", "run.started", "running"),
        ("completed", "run.finished", "unknown"),
        ("invented", "run.queued", "unknown"),
    ],
)
@pytest.mark.parametrize("name", ["check_run.created.00", "check_suite.requested.04"])
def test_the_status_of_a_check_decides_how_far_it_is(
    name: str, word: str | None, type_name: str, status: str
) -> None:
    event = name.partition(".")[0]
    body = sample(name)
    body[event]["status"] = word
    run = only(event, body)
    assert (type_name, status, word) == (run.type, run.status, run.provider_status)


def test_a_check_that_is_completed_has_ended_whatever_its_status_says() -> None:
    body = sample("check_run.completed.01")
    body["check_run"]["status"] = "invented"
    run = only("check_run", body)
    assert ("run.finished", "failed") == (run.type, run.status)


@pytest.mark.parametrize("name", ["check_run.rerequested.07", "check_suite.rerequested.07"])
def test_a_check_that_is_wanted_again_does_not_finish_again(name: str) -> None:
    run = only(name.partition(".")[0], sample(name))
    assert ("run.queued", 0, "queued", "completed") == (
        run.type,
        run.moment[0],
        run.status,
        run.provider_status,
    )
    assert run.finished_at is None


def test_a_check_run_without_times_is_dated_by_its_receipt() -> None:
    body = sample("check_run.created.00")
    body["check_run"] |= {"started_at": None, "completed_at": None}
    assert micros(RECEIVED_AT) == only("check_run", body).moment[1]


@pytest.mark.parametrize(
    ("branch", "env"), [("main", "prod"), ("staging-2", "stage"), ("feature/x", "unknown")]
)
@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("workflow_run.completed.01", ["workflow_run"]),
        ("workflow_job.completed.01", ["workflow_job"]),
        ("check_run.completed.01", ["check_run", "check_suite"]),
        ("check_suite.completed.00", ["check_suite"]),
    ],
)
def test_the_branch_says_which_environment_a_run_is_about(
    name: str, where: list[str], branch: str, env: str
) -> None:
    body = sample(name)
    inner = body
    for key in where:
        inner = inner[key]
    inner["head_branch"] = branch
    assert env == only(name.partition(".")[0], body).env


@pytest.mark.parametrize(
    ("head", "env"),
    [({"id": 186853002}, "prod"), ({"id": 1}, "unknown"), (None, "unknown"), ("absent", "prod")],
)
def test_a_forks_main_is_not_our_main(head: object, env: str) -> None:
    body = sample("workflow_run.completed.01")
    body["repository"]["id"] = 186853002
    body["workflow_run"] |= {"head_branch": "main", "head_repository": head}
    if head == "absent":
        del body["workflow_run"]["head_repository"]
    assert env == only("workflow_run", body).env


def test_a_job_shows_its_runner_and_its_steps() -> None:
    job = only("workflow_job", sample("workflow_job.completed.01"))
    assert ("GitHub Actions 5", 5, "GitHub Actions") == (job.runner, job.runner_id, job.runner_group)
    assert 12 == job.steps_shown == len(job.steps)
    failed = [(step.number, step.name) for step in job.steps if step.conclusion == "failure"]
    assert [(8, "Run yarn run format-check")] == failed


@pytest.mark.parametrize("steps", [None, []])
def test_a_job_that_shows_no_steps_has_none(steps: object) -> None:
    body = sample("workflow_job.completed.01")
    body["workflow_job"]["steps"] = steps
    job = only("workflow_job", body)
    assert ([], 0) == (job.steps, job.steps_shown)


def steps(count: int, **unlike: dict[str, object]) -> list[dict[str, object]]:
    """Steps that went well, but for some by number: `n250={...}`."""
    well = {
        "status": "completed",
        "conclusion": "success",
        "started_at": "2026-03-04T09:00:00Z",
        "completed_at": "2026-03-04T09:00:01Z",
    }
    return [{"number": n, "name": "步" * 500, **well, **unlike.get(f"n{n}", {})} for n in range(1, count + 1)]


def test_of_very_many_steps_those_stay_that_say_why_and_the_event_stays_small() -> None:
    body = sample("workflow_job.completed.01")
    body["workflow_job"]["steps"] = steps(
        900,
        n250={"conclusion": "failure"},
        n251={"status": "in_progress", "conclusion": None},
        n252={"status": "queued", "conclusion": None},
        n900={"conclusion": "cancelled"},
    )
    job = only("workflow_job", body)
    numbers = [step.number for step in job.steps]
    assert (900, STEPS_COUNT_MAX) == (job.steps_shown, len(numbers))
    assert [*range(1, STEPS_COUNT_MAX - 2), 250, 251, 900] == numbers
    assert {STEP_NAME_CHARS_MAX} == {len(step.name) for step in job.steps}
    assert len(job.model_dump_json().encode()) < EVENT_BYTES_MAX


def test_a_thousand_wrong_steps_make_one_complaint() -> None:
    body = sample("workflow_job.completed.01")
    body["workflow_job"]["steps"] = [0] * 1_000
    assert "more" not in str(parked("workflow_job", body))


def test_a_step_keeps_the_order_of_its_number() -> None:
    body = sample("workflow_job.completed.01")
    body["workflow_job"]["steps"].reverse()
    assert sorted(numbers := [step.number for step in only("workflow_job", body).steps]) == numbers
