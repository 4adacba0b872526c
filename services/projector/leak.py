"""A leaked secret: what it vouched for, who was told of that, and no longer believing it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.delivery import Delivery
from contracts.ledger import SecretExcluded
from contracts.own import delivery_of
from read_models.deliveries import SECRET_EXCLUDED
from read_models.table import SCHEMA
from runtime import bus
from services.projector.exclusions import Exclusion
from services.projector.preview import preview
from services.projector.shadow import Compared
from services.projector.understand import REFOLD_IMPOSSIBLE, understand
from services.projector.work import Work
from services.projector.write import Entry

_LINE = re.compile(r"_FILE:[0-9]+$")
_VOUCHED = (
    "(d.verified_by = :secret AND (CAST(:since AS timestamptz) IS NULL OR d.received_at >= :since)"
    " AND (CAST(:until AS timestamptz) IS NULL OR d.received_at < :until))"
)
_FOLDED = (
    "SELECT d.source || ':' || d.identity AS name, d.refs FROM ops.deliveries AS d"
    f" WHERE {_VOUCHED} AND d.status = 'projected'"
)
_EVENTS = (
    f"WITH v AS MATERIALIZED ({_FOLDED}), e AS MATERIALIZED (SELECT DISTINCT p.event_id, p.event_type"
    " FROM v, unnest(v.refs) AS r(ref), ops.platform_events AS p WHERE p.ref = r.ref AND p.delivery = v.name)"
)

_NAMES = text("SELECT DISTINCT verified_by FROM ops.deliveries WHERE verified_by IS NOT NULL")
_FIRST = text("SELECT min(received_at) FROM ops.deliveries WHERE verified_by = :secret")
_COUNTS = text(
    "SELECT d.source, d.kind, d.status, d.reason, count(*) AS deliveries, min(d.received_at) AS first_at,"
    f" max(d.received_at) AS last_at FROM ops.deliveries AS d WHERE {_VOUCHED}"
    " GROUP BY d.source, d.kind, d.status, d.reason ORDER BY d.source, d.kind, d.status, d.reason"
)
_NEWEST = text(
    "SELECT d.stream_seq, d.received_at, d.source, d.identity, d.kind, d.status, d.reason, d.refs"
    f" FROM ops.deliveries AS d WHERE {_VOUCHED} ORDER BY d.received_at DESC, d.stream_seq DESC LIMIT :limit"
)
_REFS = text(
    f"SELECT count(DISTINCT r.ref) FROM ops.deliveries AS d, unnest(d.refs) AS r(ref) WHERE {_VOUCHED}"
)
_ALONE = text(
    f"WITH v AS MATERIALIZED ({_FOLDED}), r AS (SELECT DISTINCT unnest(v.refs) AS ref FROM v)"
    " SELECT r.ref, count(*) OVER () AS all_of_them FROM r WHERE NOT EXISTS (SELECT FROM ops.deliveries AS d"
    f" WHERE d.status = 'projected' AND d.refs @> ARRAY[r.ref] AND {_VOUCHED} IS NOT TRUE)"
    " ORDER BY r.ref LIMIT :limit"
)
_PUBLISHED = text(f"{_EVENTS} SELECT event_type, count(*) AS events FROM e GROUP BY 1 ORDER BY 1")
_POSTED = text(
    f"{_EVENTS} SELECT m.destination, m.channel, m.slack_ts, m.ref, e.event_type, count(*) OVER () AS all_of_them"
    " FROM e JOIN notify.messages AS m USING (event_id) WHERE m.status = 'posted'"
    " ORDER BY m.channel, m.slack_ts, m.ref LIMIT :limit"
)
_EXCLUSIONS = text(
    "SELECT secret, since, until, why, actor, excluded_at FROM ops.secret_exclusions WHERE secret = :secret"
    " ORDER BY excluded_at"
)
_ENTRIES = text(
    "SELECT d.source, d.identity, d.body_sha256, d.stream_seq, d.status, d.reason, d.refs, d.event_count"
    f" FROM ops.deliveries AS d WHERE {_VOUCHED} AND d.status IN ('projected', 'parked', 'ignored')"
    f" AND d.reason IS DISTINCT FROM '{REFOLD_IMPOSSIBLE}' ORDER BY d.stream_seq"
)
_EXCLUDED = text(
    f"SELECT count(*) FROM ops.deliveries AS d WHERE {_VOUCHED} AND d.status = 'discarded'"
    f" AND d.reason = '{SECRET_EXCLUDED}'"
)


class WrongSecret(Exception):
    """no secret goes by a name, or several do; the message says which there are"""


class NotOurs(Exception):
    """an exclusion cannot be folded by this code and SSOT; the message says why"""


@dataclass(frozen=True, slots=True)
class Span:
    """A secret and when what it vouched for was received: from `since` on and before `until`, None is open."""

    secret: str
    since: datetime | None = None
    until: datetime | None = None

    @property
    def values(self) -> dict[str, Any]:
        return {"secret": self.secret, "since": self.since, "until": self.until}


@dataclass(frozen=True, slots=True)
class Told:
    """Who was told of what: events by type, and messages in Slack, of which some are listed."""

    events: dict[str, int]
    messages: int
    posted: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """What a secret vouched for."""

    deliveries: int
    first_at: datetime | None
    last_at: datetime | None
    counts: tuple[dict[str, Any], ...]
    """How many deliveries of each source, kind and status."""
    newest: tuple[dict[str, Any], ...]
    refs: int
    """How many things they are about."""
    alone: int
    """How many of those no other folded delivery is about: their rows stand and fall with these."""
    refs_alone: tuple[str, ...]
    told: Told
    exclusions: tuple[dict[str, Any], ...]
    """Everything that was excluded of this secret so far."""


async def name_of(connection: AsyncConnection, asked: str, declared: Collection[str]) -> str:
    """What the ledger calls the secret `asked`: itself, or `X_FILE:1` where X stands for the lines of a file.

    Raises WrongSecret where SSOT declares no such secret and the ledger knows none, or where it stands for several.
    """
    known: set[str] = {row.verified_by for row in await connection.execute(_NAMES)}
    if asked in known:
        return asked
    lines = sorted(name for name in known if _LINE.sub("", name) == asked)
    if len(lines) > 1:
        raise WrongSecret(f"{asked} stands for several secrets, name one: {', '.join(lines)}")
    if lines:
        return lines[0]
    if _LINE.sub("", asked) in declared:
        return asked
    there = ", ".join(sorted(known | set(declared))) or "none at all"
    raise WrongSecret(
        f"no source declares a secret {asked}, and it has vouched for nothing: known are {there}"
    )


async def first_at(connection: AsyncConnection, secret: str) -> datetime | None:
    """When the first delivery came that the secret vouched for; None where there is none."""
    found: datetime | None = (await connection.execute(_FIRST, {"secret": secret})).scalar_one()
    return found


async def audit(connection: AsyncConnection, span: Span, limit: int) -> Audit:
    """What the secret vouched for in `span`; every list has `limit` entries at most.

    Of an excluded delivery it is no longer known what had been told.
    """
    counts = [dict(row) for row in (await connection.execute(_COUNTS, span.values)).mappings()]
    firsts, lasts = [row.pop("first_at") for row in counts], [row.pop("last_at") for row in counts]
    listed = {**span.values, "limit": limit}
    alone = (await connection.execute(_ALONE, listed)).all()
    return Audit(
        deliveries=sum(row["deliveries"] for row in counts),
        first_at=min(firsts, default=None),
        last_at=max(lasts, default=None),
        counts=tuple(counts),
        newest=tuple(dict(row) for row in (await connection.execute(_NEWEST, listed)).mappings()),
        refs=(await connection.execute(_REFS, span.values)).scalar_one(),
        alone=alone[0].all_of_them if alone else 0,
        refs_alone=tuple(row.ref for row in alone),
        told=await told(connection, span, limit),
        exclusions=tuple(dict(row) for row in await _exclusions(connection, span.secret)),
    )


async def told(connection: AsyncConnection, span: Span, limit: int) -> Told:
    """Who was told of what is still believed in `span`; `limit` messages are listed at most."""
    events = {row.event_type: row.events for row in await connection.execute(_PUBLISHED, span.values)}
    rows = (await connection.execute(_POSTED, {**span.values, "limit": limit})).mappings().all()
    posted = tuple({name: row[name] for name in row if name != "all_of_them"} for row in rows)
    return Told(events, rows[0]["all_of_them"] if rows else 0, posted)


async def already(connection: AsyncConnection, exclusion: Exclusion) -> dict[str, Any] | None:
    """The exclusion that covers all of `exclusion`, if there is one."""
    for row in await _exclusions(connection, exclusion.secret):
        if row["since"] <= exclusion.since and exclusion.until <= row["until"]:
            return dict(row)
    return None


async def _exclusions(connection: AsyncConnection, secret: str) -> Sequence[Any]:
    return (await connection.execute(_EXCLUSIONS, {"secret": secret})).mappings().all()


async def without(work: Work, exclusion: Exclusion, limit: int) -> tuple[int, list[Compared]]:
    """How many deliveries `exclusion` would discard, and how the rows would differ; `limit` rows of each model.

    Raises RefoldTooWide and LogTrimmed where they cannot be folded without them.
    """
    span = Span(exclusion.secret, exclusion.since, exclusion.until)
    async with work.engine.connect() as connection:
        entries = [Entry(*row) for row in await connection.execute(_ENTRIES, span.values)]
    sequences = {entry.stream_seq for entry in entries}
    return len(entries), await preview(work, entries, without=sequences, limit=limit) if entries else []


def said(exclusion: Exclusion, why: str, actor: str, now: datetime) -> SecretExcluded:
    """The word by which an operator no longer believes."""
    return SecretExcluded(
        secret=exclusion.secret,
        since=exclusion.since,
        until=exclusion.until,
        why=why,
        actor=actor,
        occurred_at=now,
    )


async def store(work: Work, event: SecretExcluded) -> Delivery:
    """Put an exclusion into the log, from where every projector takes it. Raises NotOurs."""
    span = f"{event.since.astimezone(UTC).isoformat()}/{event.until.astimezone(UTC).isoformat()}"
    delivery = delivery_of(event, "cli", event.occurred_at, f"excluded/{event.secret}/{span}")
    understood = understand(work.sources, delivery)
    if understood.status != "projected":
        raise NotOurs(f"an exclusion would not be folded: {understood.error or understood.reason}")
    seq, _ = await bus.store_delivery(work.nc.jetstream(), delivery)
    return replace(delivery, seq=seq)


async def fold(work: Work, stored: Delivery) -> bool:
    """Fold an exclusion now; whether it is the first of its secret and times."""
    folded = await work.writer(SCHEMA).fold([understand(work.sources, stored)])
    return bool(folded.deliveries)


async def excluded(connection: AsyncConnection, exclusion: Exclusion) -> int:
    """How many deliveries are discarded because `exclusion`, or another one, covers them."""
    span = Span(exclusion.secret, exclusion.since, exclusion.until)
    return int((await connection.execute(_EXCLUDED, span.values)).scalar_one())
