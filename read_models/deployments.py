"""ops.deployments: one row per deployment of a commit to an environment."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from contracts.deployments import DeploymentCreated, DeploymentEvent, DeploymentStatusChanged
from contracts.record import record
from contracts.version import Version, micros
from read_models.port import (
    EARLIEST,
    FACT,
    GREATEST,
    KEY,
    KNOWN_BETTER,
    LATEST,
    SIGHT,
    VERSION,
    Index,
    ReadModel,
    Statement,
)


@record
class Deployment:
    """A deployment. Before its first status was heard of, `status` is NULL: unknown.

    `same_as` is equal where two providers report one deployment, each with a row of its own.
    """

    ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    external_id: Annotated[str | None, FACT] = None
    repository_id: Annotated[int | None, FACT] = None
    project: Annotated[str | None, FACT] = None
    project_id: Annotated[str | None, FACT] = None
    env: Annotated[str | None, FACT] = None
    environment: Annotated[str | None, FACT] = None
    production: Annotated[bool | None, FACT] = None
    git_ref: Annotated[str | None, FACT] = None
    commit_sha: Annotated[str | None, FACT] = None
    pull_request: Annotated[int | None, FACT] = None
    task: Annotated[str | None, FACT] = None
    creator: Annotated[str | None, FACT] = None
    build_ref: Annotated[str | None, FACT] = None
    repository: Annotated[str | None, FACT] = None
    same_as: Annotated[str | None, FACT] = None
    created_at: Annotated[datetime | None, EARLIEST, KNOWN_BETTER] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    provider_status: Annotated[str | None, LATEST] = None
    description: Annotated[str | None, LATEST] = None
    url: Annotated[str | None, LATEST] = None
    log_url: Annotated[str | None, LATEST] = None
    status_at: Annotated[datetime | None, LATEST] = None
    deployed_at: Annotated[datetime | None, EARLIEST, KNOWN_BETTER] = None
    """When it first succeeded."""
    last_event_at: Annotated[datetime | None, GREATEST, SIGHT] = None


def _created(statement: Statement[DeploymentEvent]) -> Deployment:
    return Deployment(**_facts(statement.event))


def _status(statement: Statement[DeploymentStatusChanged]) -> Deployment:
    event = statement.event
    return Deployment(
        **_facts(event),
        version=_version(statement),
        status=event.status,
        provider_status=event.provider_status,
        description=event.description,
        url=event.url,
        log_url=event.log_url,
        status_at=event.occurred_at,
        deployed_at=event.occurred_at if event.status == "success" else None,
    )


def _version(statement: Statement[DeploymentStatusChanged]) -> Version:
    """The moment; of two statements of one moment a message of the provider before what was fetched; then the time.

    What is fetched of a state is seen later and less exactly: it must not change a row that the message made.
    """
    event, order = statement.event, len(statement.event.moment)
    told = int(not statement.observed)
    return (*event.moment, told, micros(event.occurred_at), *statement.version[order:])


def _facts(event: DeploymentEvent) -> dict[str, Any]:
    return {
        "ref": event.ref,
        "source": event.source,
        "external_id": str(event.deployment_id),
        "repository_id": event.repository_id,
        "project": event.project,
        "project_id": event.project_id,
        # An event that does not say where the deployment belongs has an environment of its own at best.
        "env": event.env if event.environment is not None else None,
        "environment": event.environment,
        "production": event.production,
        "git_ref": event.git_ref,
        "commit_sha": event.commit_sha,
        "pull_request": event.pull_request,
        "task": event.task,
        "creator": event.creator,
        "build_ref": event.build_ref,
        "repository": event.repository,
        "same_as": event.same_as,
        "created_at": event.created_at,
        "last_event_at": event.occurred_at,
    }


READ_MODEL = ReadModel(
    name="deployments",
    row=Deployment,
    folds={DeploymentCreated: _created, DeploymentStatusChanged: _status},
    ref_column="ref",
    indexes=(
        Index("deployments_commit_sha", ("commit_sha",)),
        Index("deployments_env", ("env", "deployed_at")),
        Index("deployments_environment", ("environment", "created_at")),
        Index("deployments_branch", ("project_id", "environment", "git_ref", "created_at")),
        Index("deployments_same_as", ("same_as",)),
    ),
)
