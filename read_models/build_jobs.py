"""ops.build_jobs: one row per job of a CI run attempt, with its steps."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import TypeAdapter

from contracts.builds import BuildJobEvent, BuildJobFinished, BuildJobQueued, BuildJobStarted, BuildStep
from contracts.record import record
from contracts.version import Version
from read_models.port import (
    EARLIEST,
    FACT,
    GREATEST,
    KEY,
    LATEST,
    SIGHT,
    VERSION,
    Index,
    ReadModel,
    Statement,
    on,
)

STEPS = TypeAdapter(list[BuildStep])


@record
class BuildJob:
    """A job. It never goes back: a re-run is another job of another attempt."""

    ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    build_ref: Annotated[str | None, FACT] = None
    job_id: Annotated[int | None, FACT] = None
    run_id: Annotated[int | None, FACT] = None
    run_attempt: Annotated[int | None, FACT] = None
    repository_id: Annotated[int | None, FACT] = None
    commit_sha: Annotated[str | None, FACT] = None
    branch: Annotated[str | None, FACT] = None
    workflow: Annotated[str | None, FACT] = None
    created_at: Annotated[datetime | None, EARLIEST] = None
    """When it was queued; old captures and the API's lists may not say."""
    version: Annotated[Version, VERSION] = ()
    repository: Annotated[str | None, LATEST] = None
    name: Annotated[str | None, LATEST] = None
    status: Annotated[str | None, LATEST] = None
    provider_status: Annotated[str | None, LATEST] = None
    provider_conclusion: Annotated[str | None, LATEST] = None
    env: Annotated[str | None, LATEST] = None
    runner: Annotated[str | None, LATEST] = None
    runner_id: Annotated[int | None, LATEST] = None
    runner_group: Annotated[str | None, LATEST] = None
    labels: Annotated[list[str] | None, LATEST] = None
    url: Annotated[str | None, LATEST] = None
    started_at: Annotated[datetime | None, LATEST] = None
    """When a runner began: NULL while it is queued, whatever the provider writes there."""
    finished_at: Annotated[datetime | None, LATEST] = None
    duration_s: Annotated[int | None, LATEST] = None
    queued_s: Annotated[int | None, LATEST] = None
    """How long it waited for a runner."""
    steps: Annotated[bytes | None, LATEST] = None
    """A list of number, name, status, conclusion, started_at, finished_at: see contracts.builds.BuildStep."""
    steps_shown: Annotated[int | None, LATEST] = None
    """How many steps the provider showed; of very many, `steps` holds a part."""
    last_event_at: Annotated[datetime | None, GREATEST, SIGHT] = None


def _job(statement: Statement[BuildJobEvent]) -> BuildJob:
    event = statement.event
    return BuildJob(
        ref=event.ref,
        source=event.source,
        build_ref=event.build_ref,
        job_id=event.job_id,
        run_id=event.run_id,
        run_attempt=event.run_attempt,
        repository_id=event.repository_id,
        commit_sha=event.commit_sha,
        branch=event.branch,
        workflow=event.workflow,
        created_at=event.created_at,
        version=statement.version,
        repository=event.repository,
        name=event.name,
        status=event.status,
        provider_status=event.provider_status,
        provider_conclusion=event.provider_conclusion,
        env=event.env,
        runner=event.runner,
        runner_id=event.runner_id,
        runner_group=event.runner_group,
        labels=event.labels,
        url=event.url,
        started_at=event.started_at,
        finished_at=event.finished_at,
        duration_s=_seconds(event.started_at, event.finished_at),
        queued_s=_seconds(event.created_at, event.started_at),
        steps=STEPS.dump_json(event.steps),
        steps_shown=event.steps_shown,
        last_event_at=event.occurred_at,
    )


def _seconds(since: datetime | None, until: datetime | None) -> int | None:
    """Whole seconds between two times that are known; never less than none, since clocks differ."""
    return max(int((until - since).total_seconds()), 0) if since and until else None


READ_MODEL = ReadModel(
    name="build_jobs",
    row=BuildJob,
    folds=on(BuildJobQueued, BuildJobStarted, BuildJobFinished, fold=_job),
    ref_column="ref",
    indexes=(Index("build_jobs_build_ref", ("build_ref",)), Index("build_jobs_commit_sha", ("commit_sha",))),
)
