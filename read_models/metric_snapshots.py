"""ops.metric_snapshots: one row per figure that was measured. Keyed by event id: a log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.health import MetricRecorded
from contracts.record import record
from contracts.version import Version
from read_models.port import KEY, LATEST, VERSION, Index, ReadModel, Statement


@record
class MetricSnapshot:
    """One figure. `ref` is the thing that it is a figure of, `source` who measured it."""

    event_id: Annotated[str, KEY]
    version: Annotated[Version, VERSION] = ()
    source: Annotated[str | None, LATEST] = None
    ref: Annotated[str | None, LATEST] = None
    env: Annotated[str | None, LATEST] = None
    metric: Annotated[str | None, LATEST] = None
    value: Annotated[float | None, LATEST] = None
    unit: Annotated[str | None, LATEST] = None
    taken_at: Annotated[datetime | None, LATEST] = None


def _recorded(statement: Statement[MetricRecorded]) -> MetricSnapshot:
    event = statement.event
    return MetricSnapshot(
        event_id=event.id,
        version=statement.first,
        source=event.source,
        ref=event.ref,
        env=event.env,
        metric=event.metric,
        value=event.value,
        unit=event.unit,
        taken_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="metric_snapshots",
    row=MetricSnapshot,
    folds={MetricRecorded: _recorded},
    ref_column="ref",
    indexes=(
        Index("metric_snapshots_ref", ("ref", "metric", "taken_at")),
        Index("metric_snapshots_taken_at", ("taken_at",), "brin"),
    ),
)
