"""ops.deployment_targets: which deployment serves a target of a project, one row per target.

Polls look at a target again and again, and each look says what it serves, and nothing of when and by whom that was
changed. So what was told of a change is a group of its own: no look wipes it out, or makes the change younger.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from contracts.deployments import DeploymentTargetChanged
from contracts.record import record
from contracts.version import NOTHING_STATED, Version
from read_models.port import FACT, GREATEST, KEY, LATEST, SIGHT, VERSION, ReadModel, Statement, latest

TOLD = latest("told_version")


@record
class DeploymentTarget:
    """A target: what it serves, and the change that was told last, which is how it came to that where `told_ref` is
    `deployment_ref`. `previous_ref` is what it served before, where the provider says so.
    """

    target_ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    project_id: Annotated[str | None, FACT] = None
    target: Annotated[str | None, FACT] = None
    env: Annotated[str | None, FACT] = None
    name_version: Annotated[Version, VERSION] = ()
    project: Annotated[str | None, latest("name_version")] = None
    version: Annotated[Version, VERSION] = ()
    deployment_ref: Annotated[str | None, LATEST] = None
    confirmed: Annotated[bool | None, LATEST, SIGHT] = None
    """False where a change was accepted and nobody tells when it takes effect: a look that finds it so is no drift."""
    told_version: Annotated[Version, VERSION] = ()
    told_ref: Annotated[str | None, TOLD] = None
    """The deployment that it was to serve by the change."""
    previous_ref: Annotated[str | None, TOLD] = None
    change: Annotated[str | None, TOLD] = None
    actor: Annotated[str | None, TOLD] = None
    changed_at: Annotated[datetime | None, TOLD] = None
    last_event_at: Annotated[datetime | None, GREATEST, SIGHT] = None


def _row(statement: Statement[DeploymentTargetChanged]) -> DeploymentTarget:
    event = statement.event
    told: dict[str, Any] = {}
    if not statement.observed:
        told = {
            "told_version": statement.version,
            "told_ref": event.deployment_ref,
            "previous_ref": event.previous_ref,
            "change": event.change,
            "actor": event.actor,
            "changed_at": event.occurred_at,
        }
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
        confirmed=event.confirmed,
        last_event_at=event.occurred_at,
        **told,
    )


READ_MODEL = ReadModel(
    name="deployment_targets",
    row=DeploymentTarget,
    folds={DeploymentTargetChanged: _row},
    ref_column="target_ref",
)
