"""ops.do_actions: one row per thing that DigitalOcean did, or does, to a resource. Its list is never shortened."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.infrastructure import CloudActionObserved
from contracts.record import record
from contracts.version import Version
from read_models.port import FACT, GREATEST, KEY, LATEST, SIGHT, VERSION, Index, ReadModel, Statement


@record
class Action:
    """An action. It ends once: what was seen of it before never outranks its end."""

    ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    do_id: Annotated[int | None, FACT] = None
    kind: Annotated[str | None, FACT] = None
    """The provider's word: create, resize, power_cycle."""
    resource_type: Annotated[str | None, FACT] = None
    resource_id: Annotated[int | None, FACT] = None
    resource_ref: Annotated[str | None, FACT] = None
    region: Annotated[str | None, FACT] = None
    started_at: Annotated[datetime | None, FACT] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    provider_status: Annotated[str | None, LATEST] = None
    completed_at: Annotated[datetime | None, LATEST] = None
    last_observed_at: Annotated[datetime | None, GREATEST, SIGHT] = None


def _observed(statement: Statement[CloudActionObserved]) -> Action:
    event = statement.event
    return Action(
        ref=event.ref,
        source=event.source,
        do_id=event.action_id,
        kind=event.action,
        resource_type=event.resource_type,
        resource_id=event.resource_id,
        resource_ref=event.resource_ref,
        region=event.region,
        started_at=event.started_at,
        version=statement.version,
        status=event.status,
        provider_status=event.provider_status,
        completed_at=event.completed_at,
        last_observed_at=statement.received_at,
    )


READ_MODEL = ReadModel(
    name="do_actions",
    row=Action,
    folds={CloudActionObserved: _observed},
    ref_column="ref",
    indexes=(
        Index("do_actions_resource_ref", ("resource_ref",)),
        Index("do_actions_started_at", ("started_at",)),
    ),
)
