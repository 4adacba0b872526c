"""What observations change: drift where the source tells of changes by itself, and else simply news.

An observation is merged after all that was told in the same transaction, and every row that it changes is looked at
before and after. What follows is written into the outbox in that transaction, published from there and then removed,
so that a crash between the two loses nothing. Only live folding comes here: a refold and a rebuild read from the log
what was found once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts import delivery as wire
from contracts.drift import DriftFound, DriftKind, ResourceGone, shown
from contracts.envelope import TRACEPARENT, Event
from contracts.envelope import to_headers as event_headers
from contracts.observation import is_observed
from contracts.own import delivery_of
from contracts.polls import WEBHOOKS, ListingCompleted
from contracts.version import from_micros, micros, moment
from providers.port import Source
from read_models.merge import POSTGRES_TYPES, join_into, joiner, merge_sql
from read_models.port import ReadModel, Rule
from read_models.registry import AUDIT, FRESHNESS, READ_MODELS
from read_models.table import SCHEMA
from runtime import bus, streams
from runtime.bus import BrokerAway, Message
from services.projector.sql import as_json
from services.projector.understand import Understood

OUTBOX_COUNT = 500
"""Messages that are published in one transaction."""
NEVER_TOLD = timedelta(days=1)
"""What changed so long before the first webhook of its source was not missed: nobody was to tell of it."""
GONE_COUNT_MAX = 10_000
"""Things of one listing that are told to be gone; the view says of all."""

Key = tuple[Any, ...]


class Overtaken(Exception):
    """another projector made a row between our look at it and our write: the transaction is to be tried again"""


@dataclass(frozen=True, slots=True)
class Watched:
    """The statements that look at a table while observations are merged into it."""

    model: ReadModel[Any]
    before: TextClause
    merge: TextClause


Round = dict[Key, tuple[Any, Understood]]
"""At most one observation of each row: what it states, and which it is."""
Sights = list[Round]
"""What the observations of a batch state about one table: of two equal ones, the second is seen to change nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row that an observation changed. `was` is None where there was none."""

    model: ReadModel[Any]
    ref: str
    was: Mapping[str, Any] | None
    found: Mapping[str, Any]
    columns: tuple[str, ...]
    by: Understood


@dataclass(frozen=True, slots=True)
class Gone:
    """A thing that a whole listing does not show any more."""

    model: ReadModel[Any]
    ref: str
    seen_at: datetime
    listing: ListingCompleted
    delivery: str


@dataclass(frozen=True, slots=True)
class Consequence:
    """A message that follows from what was found; `drift` is its kind where it is drift of `source`."""

    message: Message
    source: str
    drift: DriftKind | None = None


def watched() -> dict[str, Watched]:
    """The tables that are watched, by name."""
    return {model.name: _watched(model) for model in READ_MODELS if model.watched}


def _watched(model: ReadModel[Any]) -> Watched:
    types = {column.name: POSTGRES_TYPES[column.type] for column in model.columns}
    keys = ", ".join(f"{name} {types[name]}" for name in model.key)
    order = ", ".join(f't.{name} COLLATE "C"' if types[name] == "text" else f"t.{name}" for name in model.key)
    return Watched(
        model,
        before=text(
            f"SELECT CAST(to_jsonb(t) AS text) AS row FROM {SCHEMA}.{model.name} AS t"
            f" JOIN json_to_recordset(CAST(:rows AS json)) AS s({keys}) USING ({', '.join(model.key)})"
            f" ORDER BY {order} FOR UPDATE OF t"
        ),
        merge=text(
            f"{merge_sql(model, SCHEMA)}\nRETURNING CAST(to_jsonb(t) AS text) AS row, t.xmax = 0 AS inserted"
        ),
    )


WATCHED = watched()
_JOINERS = {name: joiner(each.model) for name, each in WATCHED.items()}
_GONE = {
    model.name: text(
        f"SELECT t.{model.ref_column} AS ref, GREATEST({', '.join(f't.{name}' for name in model.presence)}) AS seen_at"
        f" FROM {SCHEMA}.{model.name} AS t JOIN {SCHEMA}.{model.name}_now AS n USING ({model.ref_column})"
        " WHERE t.source = :source AND t.scope = :scope AND n.gone"
        + (" AND NOT n.deleted" if any(column.name == "deleted_at" for column in model.columns) else "")
        + f" AND GREATEST({', '.join(f't.{name}' for name in model.presence)}) < :began"
        f" AND GREATEST({', '.join(f't.{name}' for name in model.presence)}) >= :before"
        f' ORDER BY t.{model.ref_column} COLLATE "C" LIMIT {GONE_COUNT_MAX}'
    )
    for model in READ_MODELS
    if model.presence
}
_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
_PARTS = text(f"SELECT count(*) FROM {SCHEMA}.{AUDIT.name} WHERE event_id = ANY(CAST(:ids AS text[]))")
_TOLD_LAST = text(
    f"SELECT t.occurred_at FROM {SCHEMA}.{AUDIT.name} AS t"
    f" WHERE t.ref = :ref AND t.event_type = '{ListingCompleted.type}' AND t.payload -> 'part' = t.payload -> 'parts'"
    " AND t.occurred_at <> ALL(CAST(:now AS timestamptz[])) AND CAST(t.payload ->> 'parts' AS bigint) ="
    f" (SELECT count(*) FROM {SCHEMA}.{AUDIT.name} AS p WHERE p.ref = t.ref AND p.event_type = t.event_type"
    " AND p.occurred_at = t.occurred_at)"
    " ORDER BY t.occurred_at DESC LIMIT 1"
)
_FIRST_WEBHOOKS = text(
    f"SELECT source, first_webhook_at FROM {SCHEMA}.{FRESHNESS.name} WHERE scope = '{WEBHOOKS}'"
    " AND source = ANY(CAST(:names AS text[])) AND first_webhook_at IS NOT NULL"
)
_PUT = text(
    "INSERT INTO projector.outbox (message_id, subject, headers, data)"
    " SELECT message_id, subject, headers, data FROM json_to_recordset(CAST(:rows AS json))"
    " AS s(message_id text, subject text, headers jsonb, data text) ON CONFLICT (message_id) DO NOTHING"
)
_TAKE = text(
    "SELECT id, subject, CAST(headers AS text) AS headers, data FROM projector.outbox"
    f" WHERE starts_with(subject, :root) ORDER BY id LIMIT {OUTBOX_COUNT} FOR UPDATE SKIP LOCKED"
)
_REMOVE = text("DELETE FROM projector.outbox WHERE id = ANY(CAST(:ids AS bigint[]))")


def sights_of(folded: Iterable[Understood]) -> dict[str, Sights]:
    """What the observations among `folded` state about watched tables, by table."""
    found: dict[str, Sights] = {}
    observed = (each for each in folded if is_observed(each.delivery.kind))
    for understood in sorted(observed, key=lambda each: each.delivery.seq):
        stated: dict[str, dict[Key, Any]] = {}
        for name, row in understood.rows:
            if name in WATCHED:
                join_into(stated.setdefault(name, {}), WATCHED[name].model, _JOINERS[name], row)
        for name, rows in stated.items():
            rounds = found.setdefault(name, [])
            for key, row in rows.items():
                free = next((each for each in rounds if key not in each), None)
                if free is None:
                    rounds.append(free := {})
                free[key] = (row, understood)
    return found


async def merge_sights(connection: AsyncConnection, name: str, sights: Sights) -> list[Change]:
    """Merge what was observed into one table; the rows that changed by it. Raises Overtaken."""
    return [change for each in sights for change in await _merge_round(connection, WATCHED[name], each)]


async def _merge_round(connection: AsyncConnection, watch: Watched, stated: Round) -> list[Change]:
    model, rows = watch.model, as_json([row for row, _ in stated.values()])
    before = {
        _key(model, row): row
        for (said,) in await connection.execute(watch.before, {"rows": rows})
        for row in (orjson.loads(said),)
    }
    changes = []
    for said, inserted in await connection.execute(watch.merge, {"rows": rows}):
        found = orjson.loads(said)
        key = _key(model, found)
        was = before.get(key)
        if was is None and not inserted:
            raise Overtaken
        if was is not None and all(was[name] is None for name in model.watched):
            was = None  # a listing has named it, and nothing more
        columns = model.watched if was is None else model.drifted(was, found)
        if columns:
            changes.append(Change(model, found[model.ref_column or ""], was, found, columns, stated[key][1]))
    return changes


def _key(model: ReadModel[Any], row: Mapping[str, Any]) -> Key:
    return tuple(row[name] for name in model.key)


def listings_of(folded: Iterable[Understood]) -> list[list[tuple[ListingCompleted, str]]]:
    """The listings of which a part is among `folded`, and who said it: by scope, each once and from the oldest on."""
    found: dict[str, dict[datetime, tuple[ListingCompleted, str]]] = {}
    for understood in folded:
        for statement in understood.statements:
            if isinstance(statement.event, ListingCompleted):
                of_scope = found.setdefault(statement.event.ref, {})
                of_scope[statement.event.started_at] = statement.event, statement.delivery
    return [[of_scope[began] for began in sorted(of_scope)] for _, of_scope in sorted(found.items())]


async def gone_by(
    connection: AsyncConnection, listings: Sequence[tuple[ListingCompleted, str]]
) -> list[Gone]:
    """What listings of one scope show to be gone, of which a part was just written.

    The newest that is whole says it for all, and of what was there at the last one that had its say before. One that
    is older than that comes too late: what it does not show was missing from the newer one, too.
    """
    whole = [each for each in listings if await _is_whole(connection, each[0])]
    if not whole:
        return []
    listing, delivery = whole[-1]
    now = [each.started_at for each, _ in whole]
    before = (
        await connection.execute(_TOLD_LAST, {"ref": listing.ref, "now": now})
    ).scalar_one_or_none() or _LONG_AGO
    if before > listing.started_at:
        return []
    asked = {"source": listing.source, "scope": listing.scope, "began": listing.started_at, "before": before}
    return [
        Gone(model, row.ref, row.seen_at, listing, delivery)
        for model in READ_MODELS
        if model.name in _GONE
        for row in await connection.execute(_GONE[model.name], asked)
    ]


async def _is_whole(connection: AsyncConnection, listing: ListingCompleted) -> bool:
    """Whether all parts of a listing are in the tables."""
    parts = [
        listing.model_copy(update={"fact": f"{part}/{listing.parts}"}).id
        for part in range(1, listing.parts + 1)
    ]
    return bool((await connection.execute(_PARTS, {"ids": parts})).scalar_one() == listing.parts)


async def telling(
    connection: AsyncConnection, sources: Mapping[str, Source], names: Collection[str]
) -> dict[str, datetime]:
    """Those of the sources that tell of changes by themselves, with the time of the first webhook."""
    posting = sorted(name for name in names if name in sources and sources[name].file.endpoint is not None)
    rows = await connection.execute(_FIRST_WEBHOOKS, {"names": posting}) if posting else ()
    return {row.source: row.first_webhook_at for row in rows}


def consequences(
    telling: Mapping[str, datetime],
    observed: Sequence[Understood],
    changes: Iterable[Change],
    new: Collection[str],
    gone: Iterable[Gone],
) -> list[Consequence]:
    """What is to be published. `telling` are the sources that tell of changes by themselves, each since when; `new` the
    ids of events that nobody had stated before this transaction.
    """
    found: list[Consequence] = []
    changed: set[int] = set()
    for change in changes:
        changed.add(change.by.delivery.seq)
        was_told = _is_told(telling, change.by.delivery.source, _changed_at(change))
        if was_told and (columns := _untold(change)):
            found.append(_drift(change, columns, new))
    for understood in observed:
        about_things = any(name in WATCHED for name, _ in understood.rows)
        if understood.delivery.seq in changed or not about_things:
            found += (
                Consequence(
                    _event_message(
                        statement.event, statement.data, statement.delivery, understood.delivery.trace
                    ),
                    source,
                )
                for statement in understood.statements
                for source in (understood.delivery.source,)
                if statement.event.id in new
            )
    found += (_gone(each, drift=_is_told(telling, each.listing.source, each.seen_at)) for each in gone)
    return found


def _is_told(telling: Mapping[str, datetime], source: str, at: datetime) -> bool:
    """Whether a source would have told of a change at that time: if it did not, it was missed."""
    return source in telling and at > telling[source] - NEVER_TOLD


def _changed_at(change: Change) -> datetime:
    """The provider's time of what was observed; where it states none, that of the observation."""
    delivery = change.by.delivery
    at = max((statement.event.moment[1] for statement in change.by.statements), default=0)
    return from_micros(at) if 0 < at <= micros(delivery.received_at) else delivery.received_at


def _untold(change: Change) -> tuple[str, ...]:
    """The columns by which something was missed.

    Of a moment that the row knew of already, an API may only show more than was told, which fills a group of columns
    that was behind. A group that was of that very moment and differs is another change in the same second; and one
    that is apart was left behind by what told of the rest, so that its own change may be missed.
    """
    if change.was is None:
        return change.columns
    rules = {column.name: column.rule for column in change.model.columns}
    known = {name: tuple(change.was[name][:2]) for name, rule in rules.items() if rule.name == "version"}
    seen = max(statement.event.moment[:2] for statement in change.by.statements)
    if known and seen > max(known.values()):
        return change.columns

    def is_untold(rule: Rule) -> bool:
        group = known.get(rule.group)
        return group == seen or bool(rule.apart and group and group < tuple(change.found[rule.group][:2]))

    return tuple(name for name in change.columns if is_untold(rules[name]))


def _drift(change: Change, untold: Sequence[str], new: Collection[str]) -> Consequence:
    kind: DriftKind = "missing" if change.was is None else "different"
    columns = () if change.was is None else untold
    delivery, stated = change.by.delivery, change.by.statements
    event = DriftFound(
        source=delivery.source,
        ref=change.ref,
        moment=moment(delivery.received_at, 0),
        occurred_at=delivery.received_at,
        model=change.model.name,
        kind=kind,
        columns=list(columns),
        was=shown({name: change.was[name] for name in columns}) if change.was is not None else {},
        found=shown({name: change.found[name] for name in untold}),
        delivery=delivery.name,
        missed=sorted({statement.event.id for statement in stated} & set(new)),
        changed_at=_changed_at(change),
    )
    message = _delivery_message(event, None, delivery.received_at, delivery.trace)
    return Consequence(message, delivery.source, kind)


def _gone(gone: Gone, *, drift: bool) -> Consequence:
    listing = gone.listing
    stated: dict[str, Any] = {
        "source": listing.source,
        "ref": gone.ref,
        "moment": moment(listing.started_at, 0),
        "occurred_at": listing.started_at,
        "model": gone.model.name,
        "delivery": gone.delivery,
    }
    event: Event = (
        DriftFound(**stated, kind="gone", changed_at=None)
        if drift
        else ResourceGone(**stated, scope=listing.scope, last_seen_at=gone.seen_at)
    )
    # Whatever listing says it: a thing that was last seen then is gone once.
    digest = hashlib.sha256(gone.ref.encode()).hexdigest()[:32]
    identity = f"gone:{gone.model.name}:{digest}:{micros(gone.seen_at)}"
    message = _delivery_message(event, identity, listing.started_at)
    return Consequence(message, listing.source, "gone" if drift else None)


def _delivery_message(
    event: Event, identity: str | None, said_at: datetime, trace: str | None = None
) -> Message:
    delivery = replace(delivery_of(event, "poll", said_at, identity), trace=trace)
    return Message(delivery.subject, delivery.body, wire.to_headers(delivery))


def _event_message(event: Event, data: bytes, delivery: str, trace: str | None) -> Message:
    carried = {TRACEPARENT: trace} if trace else {}
    return Message(event.subject, data, event_headers(event, delivery) | carried)


async def put(connection: AsyncConnection, found: Sequence[Consequence]) -> None:
    """Write messages into the outbox, each id once."""
    if not found:
        return
    rows = [
        {
            "message_id": each.message.headers[wire.MESSAGE_ID],
            "subject": each.message.subject,
            "headers": each.message.headers,
            "data": each.message.data.decode(),
        }
        for each in found
    ]
    await connection.execute(_PUT, {"rows": orjson.dumps(rows).decode()})


async def drain(engine: AsyncEngine, nc: Client) -> int:
    """Publish all that is in the outbox and remove it; how many messages that were.

    Raises BrokerAway, nats errors and DBAPIError: what is not removed is published again, with the same ids.
    """
    # Events first: a log that is full takes no deliveries, and is no reason to keep news back.
    roots = ((streams.EVENTS, "events."), (streams.DELIVERIES, f"{wire.SUBJECT_ROOT}."))
    return sum([await _drain_to(engine, nc, stream, root) for stream, root in roots])


async def _drain_to(engine: AsyncEngine, nc: Client, stream: str, root: str) -> int:
    done = 0
    while True:
        async with engine.begin() as connection:
            rows = (await connection.execute(_TAKE, {"root": root})).all()
            if not rows:
                return done
            messages = [Message(row.subject, row.data.encode(), orjson.loads(row.headers)) for row in rows]
            await _publish(nc, stream, messages)
            await connection.execute(_REMOVE, {"ids": [row.id for row in rows]})
        done += len(rows)


async def _publish(nc: Client, stream: str, messages: Sequence[Message]) -> None:
    try:
        await bus.publish_all(nc, stream, messages)
    except nats.errors.TimeoutError as error:
        raise BrokerAway(f"the broker did not take it: {error}") from None


def told(folded: Iterable[Understood]) -> Iterator[Understood]:
    """Those of `folded` whose events are published as they are: not what was observed."""
    return (understood for understood in folded if not is_observed(understood.delivery.kind))
