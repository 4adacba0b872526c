"""`odooops drift`: what polls found to be other than the tables said, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB

from cli import deliveries, terminal
from cli.asked import Cause
from cli.database import reading
from cli.reach import Servers
from cli.work import OPERATOR
from read_models.registry import TABLES
from runtime.settings import BadSettings

STATEMENT_MS_MAX = 10_000
VALUE_CHARS_MAX = 40
CHANGE_CHARS_MAX = 300
LISTED = ("found", "thing", "table", "cause", "what was wrong")

_LIST = text(
    """
SELECT v.event_id, v.source, v.ref, v.model, v.kind, v.cause, v.columns, d.was, d.found, v.missed, v.delivery,
    v.changed_at, v.observed_at
FROM ops.drift_now AS v JOIN ops.drift AS d ON d.event_id = v.event_id
WHERE (CAST(:source AS text) IS NULL OR v.source = :source)
  AND (CAST(:ref AS text) IS NULL OR v.ref = :ref)
  AND (CAST(:model AS text) IS NULL OR v.model = :model)
  AND (CAST(:cause AS text) IS NULL OR v.cause = :cause)
  AND (CAST(:since AS timestamptz) IS NULL OR v.observed_at >= :since)
ORDER BY v.observed_at DESC, v.event_id
LIMIT :limit
"""
).columns(was=JSONB, found=JSONB)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which differences to list; None is any."""

    source: str | None
    ref: str | None
    model: str | None
    cause: Cause | None
    since: datetime | None
    limit: int


async def list_(servers: Servers, wanted: Wanted, as_json: bool) -> None:
    """Print the newest differences first."""
    await deliveries.require_source(servers, wanted.source)
    if wanted.model is not None and wanted.model not in TABLES:
        raise BadSettings(f"no table is called {wanted.model}: known are {', '.join(sorted(TABLES))}")
    async with reading(servers, STATEMENT_MS_MAX, OPERATOR) as connection:
        found = await connection.execute(_LIST, {**asdict(wanted), "limit": wanted.limit + 1})
        rows = [dict(row) for row in found.mappings()]
    more, rows = len(rows) > wanted.limit, rows[: wanted.limit]
    if as_json:
        terminal.print_json(rows)
    elif not rows:
        terminal.console().print("no drift")
    else:
        shown = ((row["observed_at"], row["ref"], row["model"], row["cause"], change(row)) for row in rows)
        terminal.console().print(terminal.table(LISTED, shown, cell_chars_max=CHANGE_CHARS_MAX))
        terminal.console().print(f"({len(rows)} difference{'' if len(rows) == 1 else 's'})")
    if more:
        terminal.say(f"there are more than {wanted.limit}: narrow the filters, or give --limit")


def change(row: Mapping[str, Any]) -> str:
    """What was wrong, in a few words: `status: open → done`."""
    if row["kind"] == "missing":
        return "was missing"
    if row["kind"] == "gone":
        return "is gone"
    was, found = row["was"] or {}, row["found"] or {}
    return "; ".join(
        f"{column}: {_short(was.get(column))} → {_short(found.get(column))}"
        for column in row["columns"] or ()
    )


def _short(value: object) -> str:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return said if len(said) <= VALUE_CHARS_MAX else said[: VALUE_CHARS_MAX - 1] + "…"
