"""ops.builds: one row per CI run attempt."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.builds import (
    BuildEvent,
    BuildFinished,
    BuildJobEvent,
    BuildJobFinished,
    BuildJobQueued,
    BuildJobStarted,
    BuildQueued,
    BuildStarted,
)
from contracts.record import record
from contracts.version import Version
from read_models.port import FACT, GREATEST, KEY, LATEST, SIGHT, VERSION, Index, ReadModel, Statement, on


@record
class Build:
    """A run attempt. Where only its jobs were heard of, `version` is empty and `status` is NULL: unknown."""

    ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    run_id: Annotated[int | None, FACT] = None
    run_attempt: Annotated[int | None, FACT] = None
    repository_id: Annotated[int | None, FACT] = None
    commit_sha: Annotated[str | None, FACT] = None
    branch: Annotated[str | None, FACT] = None
    workflow: Annotated[str | None, FACT] = None
    version: Annotated[Version, VERSION] = ()
    repository: Annotated[str | None, LATEST] = None
    number: Annotated[int | None, LATEST] = None
    title: Annotated[str | None, LATEST] = None
    commit_message: Annotated[str | None, LATEST] = None
    trigger: Annotated[str | None, LATEST] = None
    pull_request: Annotated[int | None, LATEST] = None
    status: Annotated[str | None, LATEST] = None
    provider_status: Annotated[str | None, LATEST] = None
    provider_conclusion: Annotated[str | None, LATEST] = None
    env: Annotated[str | None, LATEST] = None
    actor: Annotated[str | None, LATEST] = None
    url: Annotated[str | None, LATEST] = None
    created_at: Annotated[datetime | None, LATEST] = None
    started_at: Annotated[datetime | None, LATEST] = None
    finished_at: Annotated[datetime | None, LATEST] = None
    duration_s: Annotated[int | None, LATEST] = None
    last_event_at: Annotated[datetime | None, GREATEST, SIGHT] = None


def _run(statement: Statement[BuildEvent]) -> Build:
    event = statement.event
    duration = event.finished_at - event.started_at if event.finished_at and event.started_at else None
    return Build(
        ref=event.ref,
        source=event.source,
        run_id=event.run_id,
        run_attempt=event.run_attempt,
        repository_id=event.repository_id,
        commit_sha=event.commit_sha,
        branch=event.branch,
        workflow=event.workflow,
        version=statement.version,
        repository=event.repository,
        number=event.number,
        title=event.title,
        commit_message=event.commit_message,
        trigger=event.trigger,
        pull_request=event.pull_request,
        status=event.status,
        provider_status=event.provider_status,
        provider_conclusion=event.provider_conclusion,
        env=event.env,
        actor=event.actor,
        url=event.url,
        created_at=event.created_at,
        started_at=event.started_at,
        finished_at=event.finished_at,
        duration_s=None if duration is None else int(duration.total_seconds()),
        last_event_at=event.occurred_at,
    )


def _job(statement: Statement[BuildJobEvent]) -> Build:
    """A job states only what it knows for certain about its run."""
    event = statement.event
    return Build(
        ref=event.build_ref,
        source=event.source,
        run_id=event.run_id,
        run_attempt=event.run_attempt,
        repository_id=event.repository_id,
        commit_sha=event.commit_sha,
        branch=event.branch,
        workflow=event.workflow,
        last_event_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="builds",
    row=Build,
    folds={
        **on(BuildQueued, BuildStarted, BuildFinished, fold=_run),
        **on(BuildJobQueued, BuildJobStarted, BuildJobFinished, fold=_job),
    },
    ref_column="ref",
    indexes=(Index("builds_commit_sha", ("commit_sha",)),),
)
