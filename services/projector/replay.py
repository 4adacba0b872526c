"""Refolding what a selection of deliveries touches, by today's code, portion by portion of the log.

A portion is one transaction, so whoever is interrupted leaves whole portions done and goes on after the last. Only
deliveries that were folded or ignored are selected: what is parked is retried, what operators have set aside stays so.
Nor are operators' words about other deliveries: what those do to the ledger only a rebuild does anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import to_headers
from contracts.ledger import DeliveryDiscarded, DeliveryRedacted, SecretExcluded
from contracts.own import SOURCE
from read_models.registry import LEDGER
from read_models.table import SCHEMA
from runtime import bus, streams
from runtime.bus import Message
from services.projector import retry
from services.projector.sql import as_json
from services.projector.understand import REFOLD_IMPOSSIBLE
from services.projector.work import Progress, Work
from services.projector.write import Entry, Writer

PORTION_COUNT = 256
"""Deliveries selected for one transaction; what else is about their refs is read with them."""
HUB_COUNT = 64
"""A ref that more deliveries are about is refolded once, not with each portion in which it comes."""

_FOLDED = ("projected", "ignored")
_WORDS = [event.type for event in (DeliveryDiscarded, DeliveryRedacted, SecretExcluded)]
_ENTRY = "source, identity, body_sha256, stream_seq, status, reason, refs, event_count"
_CONDITIONS = {
    "source": "source = :source",
    "kind": "(kind = :kind OR starts_with(kind, :kind || '.'))",
    "since": "received_at >= :since",
    "until": "received_at < :until",
    "ref": "refs @> ARRAY[CAST(:ref AS text)]",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which deliveries: those that fulfil whatever is given. `kind` is one, or how its dotted tokens begin."""

    source: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Not any more received then."""
    ref: str | None = None
    sequences: tuple[int, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    """Source and identity; with `sequences`: any of both."""

    @property
    def everything(self) -> bool:
        """Whether nothing is given."""
        return self == Selection()

    def where(self) -> tuple[str, dict[str, Any]]:
        """The condition in SQL, and its values."""
        given = {name: getattr(self, name) for name in _CONDITIONS if getattr(self, name) is not None}
        conditions = [_CONDITIONS[name] for name in given]
        conditions.append("(source <> :own OR kind <> ALL(CAST(:words AS text[])))")
        values = {**given, "own": SOURCE, "words": _WORDS}
        if self.sequences or self.names:
            conditions.append(
                "(stream_seq = ANY(CAST(:sequences AS bigint[])) OR last_seq = ANY(CAST(:sequences AS bigint[]))"
                " OR (source, identity) IN (SELECT s.source, s.identity FROM"
                " json_to_recordset(CAST(:names AS json)) AS s(source text, identity text)))"
            )
            values["sequences"] = list(self.sequences)
            values["names"] = as_json([{"source": source, "identity": name} for source, name in self.names])
        return " AND ".join(conditions), values


@dataclass(frozen=True, slots=True)
class Selected:
    """How much a selection is, as the ledger stands now."""

    count: int
    parked: int
    """Deliveries that fulfil it too, and are left alone: `odooops parked retry` tries those."""
    last: int
    """The sequence of the last one."""


@dataclass(frozen=True, slots=True)
class Portion:
    """What a portion came to."""

    last: int
    """Every selected delivery up to this sequence is done."""
    count: int
    read: int
    refs: int
    verdicts: int
    """Deliveries that ended otherwise than the ledger said."""
    events: int
    """Events published."""


async def select(connection: AsyncConnection, selection: Selection, after: int = 0) -> Selected:
    """How much `selection` is behind the sequence `after`."""
    where, values = selection.where()
    found = await connection.execute(
        text(
            "SELECT count(*) FILTER (WHERE status = ANY(CAST(:statuses AS text[]))) AS folded,"  # noqa: S608
            " count(*) FILTER (WHERE status = 'parked') AS parked, coalesce(max(stream_seq), 0) AS last"
            f" FROM {SCHEMA}.{LEDGER.name} WHERE stream_seq > :after AND {where}"
        ),
        {**values, "after": after, "statuses": list(_FOLDED)},
    )
    row = found.one()
    return Selected(row.folded, row.parked, row.last)


async def entries(
    connection: AsyncConnection, selection: Selection, after: int, last: int, most: int
) -> list[Entry]:
    """The first `most` deliveries of `selection` behind `after` and up to `last`, in the order of the log."""
    where, values = selection.where()
    rows = await connection.execute(
        text(
            f"SELECT {_ENTRY} FROM {SCHEMA}.{LEDGER.name}"  # noqa: S608
            " WHERE stream_seq > :after AND stream_seq <= :last AND status = ANY(CAST(:statuses AS text[]))"
            f" AND {where} ORDER BY stream_seq LIMIT :most"
        ),
        {**values, "after": after, "last": last, "most": most, "statuses": list(_FOLDED)},
    )
    return [Entry(*row) for row in rows]


async def newest(connection: AsyncConnection, count: int) -> list[Entry]:
    """The last `count` deliveries that were folded, ignored or not understood, in the order of the log."""
    rows = await connection.execute(
        text(
            f"SELECT {_ENTRY} FROM {SCHEMA}.{LEDGER.name}"  # noqa: S608
            " WHERE status = ANY(CAST(:statuses AS text[]))"
            " AND coalesce(reason, '') <> ALL(CAST(:not_written AS text[])) ORDER BY stream_seq DESC LIMIT :most"
        ),
        {
            "statuses": [*_FOLDED, "parked"],
            "not_written": [REFOLD_IMPOSSIBLE, "write_refused"],
            "most": count,
        },
    )
    return [Entry(*row) for row in rows][::-1]


async def replay(
    work: Work, selection: Selection, selected: Selected, *, after: int = 0, publish_as: str | None = None
) -> AsyncGenerator[Portion, None]:
    """Refold what `selection` touches behind the sequence `after`; yields each portion when it is done.

    `publish_as` is the name of this run: then the events of the selected deliveries are sent again, marked with it.
    Raises LogTrimmed and RefoldTooWide for a portion, and BrokerAway where it is unknown whether all was sent; with
    `publish_as` RetryRunning, before anything, where others publish or erase.
    """
    async with AsyncExitStack() as stack:
        if publish_as is not None:
            connection = await stack.enter_async_context(work.engine.connect())
            await stack.enter_async_context(retry.alone(connection))
        writer, hubs = work.writer(SCHEMA), set[str]()
        started, done = monotonic(), 0
        while True:
            async with work.engine.connect() as connection:
                portion = await entries(connection, selection, after, selected.last, PORTION_COUNT)
            if not portion:
                return
            gathered = await writer.refold_at_once((), portion, settled=hubs)
            hubs.update(ref for ref, count in gathered.told.items() if count > HUB_COUNT)
            events = 0 if publish_as is None else await _publish(work, writer, portion, publish_as)
            after, done = portion[-1].stream_seq, done + len(portion)
            yield Portion(
                after, len(portion), gathered.read, len(gathered.refs), len(gathered.verdicts), events
            )
            seconds = monotonic() - started
            rate = done / seconds
            left_s = max(0, selected.count - done) / rate
            work.tell(Progress(f"replayed up to sequence {after}", done, selected.count, rate, left_s))
            if work.rate_max:
                await asyncio.sleep(max(0.0, done / work.rate_max - seconds))


async def _publish(work: Work, writer: Writer, portion: Sequence[Entry], run: str) -> int:
    """Send the events of deliveries that are folded now; how many."""
    async with work.engine.connect() as connection:
        rows = await connection.execute(writer.sql.entries, {"seqs": [entry.stream_seq for entry in portion]})
        folded = [entry for entry in (Entry(*row) for row in rows) if entry.status == "projected"]
    events: dict[str, Message] = {}
    for _, understood in await writer.read_back(folded):
        for statement in understood.statements:
            headers = to_headers(statement.event, statement.delivery, run)
            events.setdefault(statement.event.id, Message(statement.event.subject, statement.data, headers))
    await bus.publish_all(work.nc, streams.EVENTS, list(events.values()))
    return len(events)
