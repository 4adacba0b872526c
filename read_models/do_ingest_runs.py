"""ops.do_ingest_runs: one row per poll of DigitalOcean's API over one scope, whichever account it is."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

from contracts.polls import PollEvent, PollFinished, PollStarted
from contracts.record import record
from contracts.version import Version
from read_models.port import FACT, KEY, LATEST, VERSION, Index, ReadModel, Statement

PROVIDER = "digitalocean"


@record
class Run:
    """A poll. One that was cut off stays `running` until somebody closes it as failed; its own end outranks that."""

    ref: Annotated[str, KEY]
    run_id: Annotated[str | None, FACT] = None
    scope: Annotated[str | None, FACT] = None
    triggered_by: Annotated[str | None, FACT] = None
    started_at: Annotated[datetime | None, FACT] = None
    version: Annotated[Version, VERSION] = ()
    status: Annotated[str | None, LATEST] = None
    finished_at: Annotated[datetime | None, LATEST] = None
    counts: Annotated[bytes | None, LATEST] = None
    """A JSON object: things seen, by kind."""
    last_error: Annotated[str | None, LATEST] = None


def _started(statement: Statement[PollStarted]) -> Run | None:
    return _run(statement, None, None, None)


def _finished(statement: Statement[PollFinished]) -> Run | None:
    event = statement.event
    counts = json.dumps(event.counts, sort_keys=True).encode()
    return _run(statement, event.finished_at, counts, event.error)


def _run(
    statement: Statement[Any],
    finished_at: datetime | None,
    counts: bytes | None,
    error: str | None,
) -> Run | None:
    event: PollEvent = statement.event
    if event.provider_name != PROVIDER:
        return None
    return Run(
        ref=event.ref,
        run_id=event.run_id,
        scope=event.scope,
        triggered_by=event.triggered_by,
        started_at=event.started_at,
        version=statement.version,
        status=event.status,
        finished_at=finished_at,
        counts=counts,
        last_error=error,
    )


READ_MODEL = ReadModel(
    name="do_ingest_runs",
    row=Run,
    folds={PollStarted: _started, PollFinished: _finished},
    ref_column="ref",
    indexes=(Index("do_ingest_runs_started_at", ("started_at",)),),
)
