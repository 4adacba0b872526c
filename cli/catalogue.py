"""`odooops ssot apply`: what the catalogues under ssot/ declare, made deliveries where the tables say otherwise.

Only differences are delivered, so that a second apply moves no row. What the tables hold counts only once the
projector has read the log to its end: an apply that was not folded yet would be taken for one that never was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import APIError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from cli import reach, terminal
from cli.database import READER, reading
from cli.reach import Servers, Trouble
from contracts.catalogue import Declaration, Kind, declarations, scope_of
from contracts.envelope import Event
from contracts.own import SOURCE, delivery_of
from contracts.polls import listing
from contracts.ssot import Ssot
from contracts.version import version
from read_models import capabilities, freshness, integrations_catalog, integrations_installations, starters
from read_models.port import ReadModel, Statement
from read_models.registry import FOLDS, TABLES
from runtime import bus, ssot, streams

OPERATOR = "operator"
STATEMENT_MS_MAX = 10_000
PROJECTOR_S_MAX = 30.0
LOOK_EVERY_S = 0.1
GROUP = "declared_version"
"""The version of what SSOT declares, in each of the tables below."""
LEAST_STEP = timedelta(microseconds=1)

LISTED: Mapping[Kind, ReadModel[Any]] = {
    "integration": integrations_catalog.READ_MODEL,
    "capability": capabilities.READ_MODEL,
    "starter": starters.READ_MODEL,
}
"""The table of each kind whose rows say when an entry was last declared and seen."""
DECLARED = (*LISTED.values(), integrations_installations.READ_MODEL)

Row = Mapping[str, Any]


class ProjectorBehind(Trouble):
    """the tables are older than the log"""


@dataclass(frozen=True, slots=True)
class Tables:
    """What the tables hold of the catalogues: rows by table and ref, newest complete listings by kind."""

    rows: Mapping[str, Mapping[str, Row]]
    listed_at: Mapping[Kind, datetime]

    def present(self, kind: Kind) -> set[str]:
        """The refs that are declared and not gone, as the views see it."""
        began = self.listed_at.get(kind)
        seen = {ref: _last_heard(row) for ref, row in self.rows[LISTED[kind].name].items()}
        return {ref for ref, at in seen.items() if at is not None and (began is None or at >= began)}

    @property
    def newest(self) -> datetime | None:
        """The time of the newest apply."""
        heard = [_last_heard(row) for rows in self.rows.values() for row in rows.values()]
        return max((at for at in (*heard, *self.listed_at.values()) if at is not None), default=None)


@dataclass(frozen=True, slots=True)
class Change:
    """What an apply changes about one entry; `columns` holds what was and what will be."""

    kind: Kind
    ref: str
    change: Literal["new", "changed", "back", "removed"]
    columns: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply has to say, in order, and what that changes."""

    at: datetime
    events: Sequence[Event]
    changes: Sequence[Change]


async def run(servers: Servers, directory: Path, dry_run: bool, as_json: bool) -> None:
    """Compare SSOT with the tables, deliver the differences unless it is a dry run, and print them."""
    _tell(await apply(servers, directory, dry_run), dry_run, as_json)


async def apply(servers: Servers, directory: Path, dry_run: bool = False) -> Plan:
    """Compare SSOT with the tables, and deliver the differences unless it is a dry run."""
    declared = ssot.load(directory)
    await _caught_up(servers.nats(READER))
    async with reading(servers, STATEMENT_MS_MAX) as connection:
        tables = await _tables(connection)
    plan = plan_of(declared, tables, datetime.now(UTC))
    if plan.events and not dry_run:
        await _deliver(servers.nats(OPERATOR), plan)
    return plan


def plan_of(declared: Ssot, tables: Tables, now: datetime) -> Plan:
    """What has to be said so that the tables say what `declared` says."""
    at = apply_time(now, tables.newest)
    said: list[Event] = []
    complete: list[Event] = []
    changes: list[Change] = []
    for kind, entries in declarations(declared, at).items():
        present = tables.present(kind)
        wanted = [entry.ref for entry in entries]
        for entry in entries:
            change = _change(kind, entry, tables, entry.ref in present)
            if change is not None:
                changes.append(change)
                said += [entry] if change.columns else []
        gone = sorted(present - set(wanted))
        changes += [Change(kind, ref, "removed") for ref in gone]
        if kind not in tables.listed_at or present != set(wanted):
            complete += listing(SOURCE, scope_of(kind), at, {kind: wanted})
    return Plan(at, [*said, *complete], changes)


def apply_time(now: datetime, newest: datetime | None) -> datetime:
    """The time of an apply: now, and after every earlier one, whatever the clock says that made it."""
    return now if newest is None else max(now, newest + LEAST_STEP)


def _change(kind: Kind, entry: Declaration, tables: Tables, present: bool) -> Change | None:
    """What declaring an entry changes; None where the tables say all of it already."""
    statement = Statement(
        event=entry,
        version=version(entry.moment, 0, 0),
        delivery="",
        received_at=entry.occurred_at,
        observed=False,
        data=b"",
    )
    columns: dict[str, tuple[Any, Any]] = {}
    new = False
    for model, fold in FOLDS[type(entry)]:
        if model not in DECLARED:
            continue
        folded, row = fold(statement), tables.rows[model.name].get(entry.ref)
        unheard = row is None or not row[GROUP]
        new = new or unheard
        for column in model.columns:
            if column.rule.group == GROUP:
                was, will = None if row is None else row[column.name], getattr(folded, column.name)
                if was != will or unheard:
                    columns[column.name] = (was, will)
    if not columns and present:
        return None
    return Change(kind, entry.ref, "new" if new else "changed" if present else "back", columns)


async def _caught_up(address: str) -> None:
    """Wait until the projector has read what the log holds now; raises ProjectorBehind."""
    async with reach.broker(address, READER) as client:
        js = client.jetstream()
        try:
            last = (await js.stream_info(streams.DELIVERIES)).state.last_seq
            async with asyncio.timeout(PROJECTOR_S_MAX):
                while not await _has_read(js, last):
                    await asyncio.sleep(LOOK_EVERY_S)  # a consumer gives no signal
        except (nats.errors.Error, APIError) as error:
            raise ProjectorBehind(f"the broker did not say how far the projector is: {error}") from None
        except TimeoutError:
            raise ProjectorBehind(
                f"the projector did not read the log to its end within {PROJECTOR_S_MAX:g} s, so nothing was applied:"
                " see `odooops status`, then apply again"
            ) from None


async def _has_read(js: JetStreamContext, last: int) -> bool:
    info = await js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
    drained = info.num_pending == 0 and info.num_ack_pending == 0
    return drained or (info.ack_floor is not None and info.ack_floor.stream_seq >= last)


async def _tables(connection: AsyncConnection) -> Tables:
    rows: dict[str, dict[str, Row]] = {}
    for model in DECLARED:
        found = await connection.execute(select(TABLES[model.name]))
        rows[model.name] = {row.ref: dict(row._mapping) for row in found}  # noqa: SLF001  # its public name
    table = TABLES[freshness.READ_MODEL.name]
    scopes = {scope_of(kind): kind for kind in LISTED}
    found = await connection.execute(select(table).where(table.c.source == SOURCE, table.c.scope.in_(scopes)))
    return Tables(rows, {scopes[row.scope]: row.last_listing_at for row in found})


async def _deliver(address: str, plan: Plan) -> None:
    async with reach.broker(address, OPERATOR) as client:
        for event in plan.events:
            identity = f"{plan.at.isoformat()}/{event.ref}/{event.fact}"
            await bus.store_delivery(
                client.jetstream(), delivery_of(event, via="ssot", said_at=plan.at, identity=identity)
            )


def _last_heard(row: Row) -> datetime | None:
    times = (row.get("declared_at"), row.get("last_seen_at"))
    return max((at for at in times if at is not None), default=None)


def _tell(plan: Plan, dry_run: bool, as_json: bool) -> None:
    if as_json:
        terminal.print_json(
            {
                "at": plan.at,
                "dry_run": dry_run,
                "changes": [
                    {
                        **asdict(change),
                        "columns": {n: {"was": w, "will": x} for n, (w, x) in change.columns.items()},
                    }
                    for change in plan.changes
                ],
                "deliveries": 0 if dry_run else len(plan.events),
            }
        )
        return
    if plan.changes:
        rows = [(each.kind, each.ref, each.change, _what(each)) for each in plan.changes]
        terminal.console().print(terminal.table(("kind", "ref", "change", "what"), rows, cell_chars_max=400))
    count = _counted(len(plan.changes), "change", "changes")
    if not plan.events:
        terminal.console().print("the tables say what SSOT says: nothing to apply")
    elif dry_run:
        terminal.console().print(f"{count}, nothing delivered: this was a dry run")
    else:
        terminal.console().print(
            f"{count}, {_counted(len(plan.events), 'delivery', 'deliveries')}: the tables follow"
        )


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _what(change: Change) -> str:
    """Old and new values of a changed entry; of a new one there is nothing to compare."""
    if change.change == "new":
        return ""
    pairs = change.columns.items()
    return "; ".join(f"{name}: {terminal.show(was)} → {terminal.show(will)}" for name, (was, will) in pairs)
