"""ops.drift: one row for each thing that a poll found to be other than its table said. Keyed by event id: a log.

What is here is healed: the table was put right when this was written. The view ops.drift_now adds the cause.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.drift import DriftFound
from contracts.record import record
from contracts.version import Version
from read_models.port import KEY, LATEST, PERSONAL, VERSION, Index, ReadModel, Statement, as_json


@record
class Drift:
    """One difference. What was and is may be text that people wrote, so the plain reader does not see it."""

    event_id: Annotated[str, KEY]
    version: Annotated[Version, VERSION] = ()
    source: Annotated[str | None, LATEST] = None
    ref: Annotated[str | None, LATEST] = None
    model: Annotated[str | None, LATEST] = None
    """The table that was wrong."""
    kind: Annotated[str | None, LATEST] = None
    """missing, different, gone."""
    columns: Annotated[list[str] | None, LATEST] = None
    was: Annotated[bytes | None, LATEST, PERSONAL] = None
    """A JSON object: what the table said, by column."""
    found: Annotated[bytes | None, LATEST, PERSONAL] = None
    """A JSON object: what it says since."""
    missed: Annotated[list[str] | None, LATEST] = None
    """Ids of the events that became known by it."""
    delivery: Annotated[str | None, LATEST] = None
    """The observation or the listing that showed it."""
    changed_at: Annotated[datetime | None, LATEST] = None
    observed_at: Annotated[datetime | None, LATEST] = None


def _found(statement: Statement[DriftFound]) -> Drift:
    event = statement.event
    return Drift(
        event_id=event.id,
        version=statement.first,
        source=event.source,
        ref=event.ref,
        model=event.model,
        kind=event.kind,
        columns=event.columns,
        was=as_json(event.was),
        found=as_json(event.found),
        missed=event.missed,
        delivery=event.delivery,
        changed_at=event.changed_at,
        observed_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="drift",
    row=Drift,
    folds={DriftFound: _found},
    ref_column="ref",
    indexes=(
        Index("drift_ref", ("ref",)),
        Index("drift_observed_at", ("observed_at",)),
    ),
)
