"""Workflow runs and jobs as build events. One build is one run *attempt*: a re-run keeps the run's id."""

from __future__ import annotations

from collections.abc import Mapping

from contracts.builds import (
    BuildEvent,
    BuildFinished,
    BuildJobEvent,
    BuildJobFinished,
    BuildJobQueued,
    BuildJobStarted,
    BuildQueued,
    BuildStarted,
    BuildStatus,
)
from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.version import moment
from providers.github.payloads import Commit, RunId, WorkflowJobPayload, WorkflowRunPayload
from providers.port import Ignored

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

BUILD_EVENTS: tuple[type[BuildEvent], ...] = (BuildQueued, BuildStarted, BuildFinished)
JOB_EVENTS: tuple[type[BuildJobEvent], ...] = (BuildJobQueued, BuildJobStarted, BuildJobFinished)


def workflow_run(payload: WorkflowRunPayload, delivery: Delivery) -> list[Event]:
    """A run attempt that was queued, started or has finished."""
    run = payload.workflow_run
    rank = _rank(payload.action, run.conclusion)
    at = run.updated_at or run.run_started_at or run.created_at or delivery.received_at
    pull_requests = run.pull_requests or []
    return [
        BUILD_EVENTS[rank](
            source=delivery.source,
            ref=build_ref(run),
            moment=moment(at, 0, major=rank),
            fact=state_words(run.status, run.conclusion),
            occurred_at=at,
            actor=payload.actor,
            repository=payload.repository.full_name,
            repository_id=payload.repository.id,
            run_id=run.id,
            run_attempt=run.run_attempt or FIRST_ATTEMPT,
            number=run.run_number,
            workflow=(payload.workflow.name if payload.workflow else None) or run.name or None,
            title=run.display_title or None,
            branch=run.head_branch,
            commit_sha=run.head_sha,
            commit_message=first_line(run.head_commit),
            trigger=run.event,
            pull_request=pull_requests[0].number if pull_requests else None,
            status=_status(rank, payload.action, run.status, run.conclusion),
            provider_status=run.status,
            provider_conclusion=run.conclusion,
            url=run.html_url,
            created_at=run.created_at,
            started_at=run.run_started_at,
            finished_at=run.updated_at if rank == FINISHED else None,
        )
    ]


def workflow_job(payload: WorkflowJobPayload, delivery: Delivery) -> list[Event]:
    """A job of a run attempt that was queued, started or has finished."""
    job = payload.workflow_job
    rank = _rank(payload.action, job.conclusion)
    at = job.completed_at or job.started_at or job.created_at or delivery.received_at
    attempt = job.run_attempt or FIRST_ATTEMPT
    return [
        JOB_EVENTS[rank](
            source=delivery.source,
            ref=f"github:job/{job.id}",
            moment=moment(at, 0, major=rank),
            fact=state_words(job.status, job.conclusion),
            occurred_at=at,
            actor=payload.actor,
            build_ref=f"github:run/{job.run_id}/{attempt}",
            repository=payload.repository.full_name,
            repository_id=payload.repository.id,
            run_id=job.run_id,
            run_attempt=attempt,
            job_id=job.id,
            name=job.name,
            workflow=job.workflow_name,
            branch=job.head_branch,
            commit_sha=job.head_sha,
            status=_status(rank, payload.action, job.status, job.conclusion),
            provider_status=job.status,
            provider_conclusion=job.conclusion,
            runner=job.runner_name or None,
            labels=job.labels or [],
            url=job.html_url,
            created_at=job.created_at,
            # GitHub fills it with the time of queueing before a runner has begun.
            started_at=None if rank == QUEUED else job.started_at,
            finished_at=job.completed_at if rank == FINISHED else None,
        )
    ]


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


def _rank(action: str, conclusion: str | None) -> int:
    if action not in ACTION_RANKS:
        raise Ignored("no_such_action")
    # A run that waits for an approval is `completed` on paper; the same attempt goes on once it is given.
    return QUEUED if conclusion == ACTION_REQUIRED else ACTION_RANKS[action]


def _status(rank: int, action: str, status: str | None, conclusion: str | None) -> BuildStatus:
    if rank == QUEUED:
        return "action_required" if ACTION_REQUIRED in (action, status, conclusion) else "queued"
    if rank == RUNNING:
        return "running"
    return CONCLUSIONS.get(conclusion or "", "unknown")
