"""ops.deployment_targets: which deployment serves a target of a project, one row per target."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.deployments import DeploymentTargetChanged
from contracts.record import record
from contracts.version import NOTHING_STATED, Version
from read_models.port import FACT, GREATEST, KEY, LATEST, SIGHT, VERSION, ReadModel, Statement, latest


@record
class DeploymentTarget:
    """A target. `previous_ref` is what the provider says that it served before: NULL where it does not say."""

    target_ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    project_id: Annotated[str | None, FACT] = None
    target: Annotated[str | None, FACT] = None
    env: Annotated[str | None, FACT] = None
    name_version: Annotated[Version, VERSION] = ()
    project: Annotated[str | None, latest("name_version")] = None
    version: Annotated[Version, VERSION] = ()
    deployment_ref: Annotated[str | None, LATEST] = None
    previous_ref: Annotated[str | None, LATEST] = None
    change: Annotated[str | None, LATEST] = None
    confirmed: Annotated[bool | None, LATEST] = None
    """False where the change was accepted and nobody tells when it takes effect."""
    actor: Annotated[str | None, LATEST] = None
    changed_at: Annotated[datetime | None, LATEST] = None
    last_event_at: Annotated[datetime | None, GREATEST, SIGHT] = None


def _row(statement: Statement[DeploymentTargetChanged]) -> DeploymentTarget:
    event = statement.event
    return DeploymentTarget(
        target_ref=event.ref,
        source=event.source,
        project_id=event.project_id,
        target=event.target,
        # A rollback shows no repository, so the rules may know less of it. A known word is before `unknown`.
        env=event.env,
        name_version=NOTHING_STATED if event.project is None else statement.version,
        project=event.project,
        version=statement.version,
        deployment_ref=event.deployment_ref,
        previous_ref=event.previous_ref,
        change=event.change,
        confirmed=event.confirmed,
        actor=event.actor,
        changed_at=event.occurred_at,
        last_event_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="deployment_targets",
    row=DeploymentTarget,
    folds={DeploymentTargetChanged: _row},
    ref_column="target_ref",
)
