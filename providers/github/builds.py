"""Workflow runs and jobs as build events. One build is one run *attempt*: a re-run keeps the run's id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from contracts.builds import (
    STEP_NAME_CHARS_MAX,
    STEPS_COUNT_MAX,
    BuildEvent,
    BuildFinished,
    BuildJobEvent,
    BuildJobFinished,
    BuildJobQueued,
    BuildJobStarted,
    BuildQueued,
    BuildStarted,
    BuildStatus,
    BuildStep,
)
from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.version import from_micros, micros, moment
from providers.github.payloads import (
    Commit,
    Home,
    JobItem,
    Named,
    Repository,
    RunId,
    RunItem,
    Step,
    WorkflowJob,
    WorkflowJobPayload,
    WorkflowRun,
    WorkflowRunPayload,
)
from providers.port import Ignored, Source

FIRST_ATTEMPT = 1
FIRST_LINE_CHARS_MAX = 500

QUEUED, RUNNING, FINISHED = 0, 1, 2
ACTION_RANKS: Mapping[str, int] = {
    "requested": QUEUED,
    "queued": QUEUED,
    "waiting": QUEUED,
    "pending": QUEUED,
    "action_required": QUEUED,
    "in_progress": RUNNING,
    "completed": FINISHED,
}
"""The action decides how far a build is; its status may lag behind (`completed` with status `queued`)."""

STATUS_RANKS: Mapping[str | None, int] = {
    None: QUEUED,
    "queued": QUEUED,
    "requested": QUEUED,
    "waiting": QUEUED,
    "pending": QUEUED,
    "in_progress": RUNNING,
    "completed": FINISHED,
}
"""Where no action is shown, to a poll above all, the status decides. A word that we do not know is queued."""

ACTION_REQUIRED = "action_required"
CONCLUSIONS: Mapping[str, BuildStatus] = {
    "success": "success",
    "failure": "failed",
    "timed_out": "failed",
    "startup_failure": "failed",
    "cancelled": "cancelled",
    "skipped": "skipped",
    "neutral": "neutral",
    "stale": "neutral",
    ACTION_REQUIRED: "action_required",
}

UNEVENTFUL = (None, "success", "skipped")
"""The conclusions of a step that explain nothing."""

BUILD_EVENTS: tuple[type[BuildEvent], ...] = (BuildQueued, BuildStarted, BuildFinished)
JOB_EVENTS: tuple[type[BuildJobEvent], ...] = (BuildJobQueued, BuildJobStarted, BuildJobFinished)


def workflow_run(payload: WorkflowRunPayload, delivery: Delivery, source: Source) -> list[Event]:
    """A run attempt that was queued, started or has finished."""
    run, action = payload.workflow_run, payload.action
    rank = _action_rank(action, run.conclusion)
    build = _build(run, payload.repository, rank, action, delivery, source, payload.actor, payload.workflow)
    return [build]


def observed_run(run: RunItem, home: Home, delivery: Delivery, source: Source) -> list[Event]:
    """A run attempt as a poll sees it: the same fact as its webhook's, in the same words."""
    rank = _rank_of_status(run.status, run.conclusion)
    return [_build(run, run.repository, rank, "", delivery, source)]


def workflow_job(payload: WorkflowJobPayload, delivery: Delivery, source: Source) -> list[Event]:
    """A job of a run attempt that was queued, started or has finished."""
    job, action = payload.workflow_job, payload.action
    rank = _action_rank(action, job.conclusion)
    return [_job(job, payload.repository, rank, action, delivery, source, payload.actor)]


def observed_job(job: JobItem, home: Home, delivery: Delivery, source: Source) -> list[Event]:
    """A job as a poll sees it."""
    rank = _rank_of_status(job.status, job.conclusion)
    return [_job(job, home, rank, "", delivery, source)]


def _build(
    run: WorkflowRun,
    home: Repository,
    rank: int,
    action: str,
    delivery: Delivery,
    source: Source,
    sender: str | None = None,
    workflow: Named | None = None,
) -> BuildEvent:
    # Not who ended it: a poll does not see that, and one fact has one set of words.
    who = run.triggering_actor or run.actor
    at = run.updated_at or run.run_started_at or run.created_at or delivery.received_at
    pull_requests = run.pull_requests or []
    return BUILD_EVENTS[rank](
        source=delivery.source,
        ref=build_ref(run),
        moment=moment(at, 0, major=rank),
        fact=state_words(run.status, run.conclusion),
        occurred_at=at,
        actor=who.login if who else sender,
        env=source.environments.of(repository=home.full_name, branch=_own_branch(run, home)),
        repository=home.full_name,
        repository_id=home.id,
        run_id=run.id,
        run_attempt=run.run_attempt or FIRST_ATTEMPT,
        number=run.run_number,
        workflow=(workflow.name if workflow else None) or run.name or None,
        title=run.display_title or None,
        branch=run.head_branch,
        commit_sha=run.head_sha,
        commit_message=first_line(run.head_commit),
        trigger=run.event,
        pull_request=pull_requests[0].number if pull_requests else None,
        status=_status(rank, action, run.status, run.conclusion),
        provider_status=run.status,
        provider_conclusion=run.conclusion,
        url=run.html_url,
        created_at=run.created_at,
        started_at=run.run_started_at,
        finished_at=run.updated_at if rank == FINISHED else None,
    )


def _job(
    job: WorkflowJob,
    home: Home,
    rank: int,
    action: str,
    delivery: Delivery,
    source: Source,
    actor: str | None = None,
) -> BuildJobEvent:
    at = job.completed_at or job.started_at or job.created_at or delivery.received_at
    attempt = job.run_attempt or FIRST_ATTEMPT
    return JOB_EVENTS[rank](
        source=delivery.source,
        ref=f"github:job/{job.id}",
        moment=moment(at, 0, major=rank),
        fact=state_words(job.status, job.conclusion),
        occurred_at=at,
        actor=actor,
        env=source.environments.of(repository=home.full_name, branch=job.head_branch),
        build_ref=f"github:run/{job.run_id}/{attempt}",
        repository=home.full_name,
        repository_id=home.id,
        run_id=job.run_id,
        run_attempt=attempt,
        job_id=job.id,
        name=job.name,
        workflow=job.workflow_name,
        branch=job.head_branch,
        commit_sha=job.head_sha,
        status=_status(rank, action, job.status, job.conclusion),
        provider_status=job.status,
        provider_conclusion=job.conclusion,
        runner=job.runner_name or None,
        # No runner has the id 0: like an empty name it says that none took the job.
        runner_id=job.runner_id or None,
        runner_group=job.runner_group_name or None,
        labels=job.labels or [],
        steps=steps_of(job.steps or []),
        steps_shown=len(job.steps or []),
        url=job.html_url,
        created_at=job.created_at,
        # GitHub fills it with the time of queueing before a runner has begun.
        started_at=None if rank == QUEUED else job.started_at,
        finished_at=job.completed_at if rank == FINISHED else None,
    )


def steps_of(steps: Sequence[Step]) -> list[BuildStep]:
    """The steps that an event carries, by number; of too many, those that explain most."""
    kept = steps
    if len(steps) > STEPS_COUNT_MAX:
        kept = sorted(steps, key=lambda step: (not _explains(step), step.number))[:STEPS_COUNT_MAX]
    return [
        BuildStep(
            number=step.number,
            name=step.name[:STEP_NAME_CHARS_MAX],
            status=step.status,
            conclusion=step.conclusion,
            started_at=_utc(step.started_at),
            finished_at=_utc(step.completed_at),
        )
        for step in sorted(kept, key=lambda step: step.number)
    ]


def _explains(step: Step) -> bool:
    """Whether a step tells why its job is where it is: it is being worked on, or did not end well."""
    return step.status == "in_progress" or step.conclusion not in UNEVENTFUL


def _utc(at: datetime | None) -> datetime | None:
    """The same time as everybody writes it: the API's lists have zones that webhooks have not."""
    return from_micros(micros(at)) if at and at.utcoffset() else at


def _own_branch(run: WorkflowRun, home: Repository) -> str | None:
    """The run's branch, if it is one of the repository's own."""
    if run.head_repository is None:
        # Null where a fork is gone; captures that lack it are from before it was shown.
        return None if "head_repository" in run.model_fields_set else run.head_branch
    return run.head_branch if run.head_repository.id == home.id else None


def build_ref(run: RunId) -> str:
    """The ref of a run attempt."""
    return f"github:run/{run.id}/{run.run_attempt or FIRST_ATTEMPT}"


def state_words(status: str | None, conclusion: str | None) -> str:
    """GitHub's own words for a state, `completed:success`: they tell apart facts of one moment.

    Nothing but the state goes in, so that a poll, which sees no action, gives the same fact the same id.
    """
    return f"{status or ''}:{conclusion}" if conclusion else status or ""


def first_line(commit: Commit | None) -> str | None:
    """The first line of a commit's message; None where there is no commit or no message."""
    if commit is None or not commit.message:
        return None
    return commit.message.partition("\n")[0].rstrip("\r")[:FIRST_LINE_CHARS_MAX]


def _action_rank(action: str, conclusion: str | None) -> int:
    if action not in ACTION_RANKS:
        raise Ignored("no_such_action")
    return _rank(ACTION_RANKS[action], conclusion)


def _rank_of_status(status: str | None, conclusion: str | None) -> int:
    return _rank(STATUS_RANKS.get(status, QUEUED), conclusion)


def _rank(rank: int, conclusion: str | None) -> int:
    # A run that waits for an approval is `completed` on paper; the same attempt goes on once it is given.
    return QUEUED if conclusion == ACTION_REQUIRED else rank


def _status(rank: int, action: str, status: str | None, conclusion: str | None) -> BuildStatus:
    if rank == QUEUED:
        if ACTION_REQUIRED in (action, status, conclusion):
            return "action_required"
        return "queued" if action or status in STATUS_RANKS else "unknown"
    if rank == RUNNING:
        return "running"
    return CONCLUSIONS.get(conclusion or "", "unknown")
