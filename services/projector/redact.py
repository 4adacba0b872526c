"""Erasing what deliveries said, wherever we keep it. That they came stays in the ledger, by a delivery that says so.

First the word is stored, then everything that came of the bodies goes, the bodies last: from them follows what else
has to go. So whoever is interrupted on the way does all of it again, by the same selection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from nats.aio.msg import Msg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts import delivery as wire
from contracts.delivery import Delivery, UnreadableDelivery
from contracts.drift import DriftFound
from contracts.envelope import header_value
from contracts.ledger import (
    DeliveryDiscarded,
    DeliveryRedacted,
    SecretExcluded,
    kept_refs,
    redaction_identity,
)
from contracts.own import SOURCE, delivery_of
from contracts.polls import ListingCompleted
from read_models.registry import LEDGER, READ_MODELS
from read_models.table import SCHEMA
from runtime import bus, streams
from runtime.bus import LogTrimmed, Message
from runtime.erase import erase_body, erase_message
from runtime.postgres import own_fold_lock
from runtime.reading import Reading
from services.projector import drift as outbox
from services.projector import replaying, retry, shadow
from services.projector.shadow import About
from services.projector.sql import ALWAYS
from services.projector.understand import Understood, understand
from services.projector.work import Progress, Work, alone

ERASED = "[redacted]"
CLOCKS_APART_MAX = timedelta(hours=1)
"""By how much the clock that wrote a time of receipt may be ahead of the broker's."""
WORDS_FOLDED_AT_ONCE = 500

_OPERATORS_WORDS = tuple(event.type for event in (DeliveryDiscarded, DeliveryRedacted, SecretExcluded))

Key = tuple[str, str, str]
"""Source, identity and hash of a body."""


class Disagreement(Exception):
    """the log is not what the ledger, or this process, takes it for: nothing may be erased by that"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which deliveries: a condition on the ledger. All bodies of an identity are erased together."""

    where: str
    values: Mapping[str, Any]
    ref: str | None = None


def of_ref(ref: str) -> Selection:
    """Every delivery that said something about `ref`; of those that were not understood the ledger cannot know it.

    Listings are left: they hold nothing but refs.
    """
    where = f"refs @> ARRAY[CAST(:ref AS text)] AND NOT (source = '{SOURCE}' AND kind = '{ListingCompleted.type}')"
    return Selection(where, {"ref": ref}, ref)


def of_sequence(seq: int) -> Selection:
    """The delivery whose body first or last stands at `seq` of the log."""
    return Selection("stream_seq = :seq OR last_seq = :seq", {"seq": seq})


def of_delivery(source: str, identity: str) -> Selection:
    """The delivery of that name, whatever became of it."""
    return Selection("source = :source AND identity = :identity", {"source": source, "identity": identity})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A body to erase, as the ledger knows it."""

    source: str
    identity: str
    body_sha256: str
    kind: str | None
    via: str | None
    verified_by: str | None
    body_bytes: int | None
    received_at: datetime
    stream_seq: int
    last_seq: int
    status: str
    refs: list[str]

    @property
    def key(self) -> Key:
        return (self.source, self.identity, self.body_sha256)

    @property
    def name(self) -> str:
        """`source:identity`, what answers and logs call it."""
        return f"{self.source}:{self.identity}"


@dataclass(frozen=True, slots=True)
class Shared:
    """A ref that is folded anew: from how many deliveries, and how many of those the log no longer holds."""

    ref: str
    others: int
    trimmed: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A message of the notifier's."""

    destination: str
    ref: str
    kind: str
    status: str
    channel: str | None
    slack_ts: str | None


@dataclass(slots=True)
class Plan:
    """What would be erased."""

    selection: Selection
    targets: list[Target]
    copies: dict[Key, dict[int, datetime]] = field(default_factory=dict)
    """Where each body stands in the log, and when it was received there."""
    shared: list[Shared] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    """Sequences in EVENTS."""
    event_ids: set[str] = field(default_factory=set)
    notices: list[Notice] = field(default_factory=list)
    events_upto: int = 0
    """How far EVENTS was looked through."""

    @property
    def sequences(self) -> list[int]:
        """Every place in the log."""
        return sorted(seq for found in self.copies.values() for seq in found)


@dataclass(slots=True)
class Done:
    """What was erased: how many things at each place, and sentences on what is special about it."""

    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


_LEDGER_ROWS = (
    "SELECT source, identity, body_sha256, kind, via, verified_by, body_bytes, received_at, stream_seq, last_seq,"
    f" status, COALESCE(refs, CAST(ARRAY[] AS text[])) AS refs FROM {SCHEMA}.{LEDGER.name} WHERE (source, identity) IN"
    f" (SELECT source, identity FROM {SCHEMA}.{LEDGER.name} WHERE {{where}})"
    f" AND NOT (source = '{SOURCE}' AND kind = ANY(CAST(:spared AS text[]))) ORDER BY stream_seq"
)
_DRIFT = f"source = '{SOURCE}' AND kind = '{DriftFound.type}' AND refs && CAST(:refs AS text[])"
_SHARED = text(
    "SELECT r.ref, count(d.source) AS others, count(*) FILTER (WHERE d.stream_seq < :first) AS trimmed"
    f" FROM unnest(CAST(:refs AS text[])) AS r(ref) LEFT JOIN {SCHEMA}.{LEDGER.name} AS d"
    " ON d.refs @> ARRAY[r.ref] AND d.status = 'projected' AND d.stream_seq <> ALL(CAST(:without AS bigint[]))"
    " GROUP BY r.ref ORDER BY r.ref"
)
_NOTICES = text(
    "SELECT destination, ref, kind, status, channel, slack_ts FROM notify.messages"
    " WHERE event_id = ANY(CAST(:ids AS text[])) OR ref = CAST(:ref AS text) ORDER BY occurred_at"
)
_ERASE_NOTICES = text(
    f"UPDATE notify.messages SET text = '{ERASED}', blocks = '[]', last_error = NULL"
    " WHERE (event_id = ANY(CAST(:ids AS text[])) OR ref = CAST(:ref AS text))"
    f" AND (text, blocks, last_error) IS DISTINCT FROM ('{ERASED}', CAST('[]' AS jsonb), CAST(NULL AS text))"
)


async def look(work: Work, selection: Selection) -> Plan:
    """Find everything that came of the selected deliveries. Writes nothing; raises Disagreement."""
    async with work.engine.connect() as connection:
        plan = Plan(selection, await _targets(connection, selection))
        plan.targets += await _drift(connection, plan.targets)
    if plan.targets:
        plan.copies = await _copies(work, plan.targets)
        plan.shared = await _shared(work, plan.targets)
        plan.event_ids |= await _stated_ids(work, plan)
        await _find_events(work, plan)
    async with work.engine.connect() as connection:
        plan.notices = await _notices(connection, plan)
    return plan


async def _targets(connection: AsyncConnection, selection: Selection) -> list[Target]:
    statement = text(_LEDGER_ROWS.format(where=selection.where))
    rows = await connection.execute(statement, {**selection.values, "spared": list(_OPERATORS_WORDS)})
    return [Target(**row) for row in rows.mappings()]


async def _drift(connection: AsyncConnection, targets: Sequence[Target]) -> list[Target]:
    """What polls found about the same things: what a table said before, or says since, is in it, too."""
    refs, known = sorted({ref for target in targets for ref in target.refs}), {each.key for each in targets}
    found = await _targets(connection, Selection(_DRIFT, {"refs": refs}))
    return [each for each in found if each.key not in known]


async def _copies(work: Work, targets: Sequence[Target]) -> dict[Key, dict[int, datetime]]:
    """The first place of a body is known; others lie up to its last one, or were not folded yet."""
    copies = {each.key: {each.stream_seq: each.received_at} for each in targets}
    hashes = {each.body_sha256 for each in targets}
    js = work.nc.jetstream()
    floor = (await js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)).ack_floor
    again = [each.stream_seq for each in targets if each.stream_seq != each.last_seq]
    after = min([floor.stream_seq if floor else 0, *(seq - 1 for seq in again)])
    subjects = [f"{wire.SUBJECT_ROOT}.{source}.>" for source in sorted({each.source for each in targets})]
    async with _headers(work, streams.DELIVERIES, after, subjects=subjects) as reading:
        async for message in _to_the_end(work, streams.DELIVERIES, reading):
            headers, seq = message.headers or {}, bus.sequence_of(message)
            if headers.get(wire.BODY_SHA256) not in hashes:
                continue
            try:
                copy = wire.from_message(message.subject, headers, b"", seq)
            except UnreadableDelivery:
                continue  # the ledger has it under a name of its own
            if (places := copies.get((copy.source, copy.identity, copy.body_sha256))) is not None:
                places[seq] = copy.received_at
    return copies


async def _shared(work: Work, targets: Sequence[Target]) -> list[Shared]:
    refs = {ref for each in targets if each.status != "redacted" for ref in each.refs}
    first = (await work.nc.jetstream().stream_info(streams.DELIVERIES)).state.first_seq
    without = [each.stream_seq for each in targets]
    async with work.engine.connect() as connection:
        rows = await connection.execute(_SHARED, {"refs": sorted(refs), "first": first, "without": without})
        return [Shared(*row) for row in rows]


async def _stated_ids(work: Work, plan: Plan) -> set[str]:
    """The ids of the events that the bodies state by today's code; nothing of those that are erased already."""
    ids: set[str] = set()
    for target in plan.targets:
        for seq in sorted(plan.copies[target.key]):
            try:
                delivery = await bus.read_delivery(work.nc.jetstream(), seq)
            except (LogTrimmed, UnreadableDelivery):
                continue
            if (delivery.source, delivery.identity, delivery.body_sha256) != target.key:
                raise Disagreement(
                    f"at sequence {seq} of {streams.DELIVERIES} stands {delivery.name}, and by the ledger"
                    f" {target.name}: nothing was erased, run `odooops verify`"
                )
            ids.update(statement.event.id for statement in understand(work.sources, delivery).statements)
            break
    return ids


async def _find_events(work: Work, plan: Plan) -> None:
    """What was published of the deliveries and not looked at yet."""
    names = {header_value(each.name) for each in plan.targets}
    since = min(each.received_at for each in plan.targets) - CLOCKS_APART_MAX
    async with _headers(work, streams.EVENTS, plan.events_upto, since=since) as reading:
        async for message in _to_the_end(work, streams.EVENTS, reading):
            headers = message.headers or {}
            if headers.get("ce-delivery") in names:
                plan.events.append(bus.sequence_of(message))
                plan.event_ids.add(headers.get("ce-id", ""))
        plan.events_upto = reading.position


@asynccontextmanager
async def _headers(work: Work, stream: str, after: int, **which: Any) -> AsyncIterator[Reading]:
    reading = Reading(work.nc, stream, after, headers_only=True, **which)
    try:
        yield reading
    finally:
        await reading.close()


async def _to_the_end(work: Work, stream: str, reading: Reading) -> AsyncIterator[Msg]:
    """The messages up to the end that the stream has now; says how far it is."""
    last = (await work.nc.jetstream().stream_info(stream)).state.last_seq
    started, total = monotonic(), last - reading.position
    async for messages in reading.upto(last):
        for message in messages:
            yield message
        done = total - last + reading.position
        rate = done / (monotonic() - started)
        work.tell(
            Progress(f"looking through {stream}", done, total, rate, (total - done) / rate if rate else None)
        )


async def _notices(connection: AsyncConnection, plan: Plan) -> list[Notice]:
    return [Notice(*row) for row in await connection.execute(_NOTICES, _of_notices(plan))]


def _of_notices(plan: Plan) -> dict[str, Any]:
    return {"ids": sorted(plan.event_ids), "ref": plan.selection.ref}


async def redact(work: Work, plan: Plan, who: str, why: str) -> Done:
    """Erase what `plan` found; raises RebuildRunning while one runs: its tables would hold all of it again.

    Raises RetryRunning while a retry or a replay runs, which would publish what it has read, and Disagreement where it
    cannot be said that the bodies are erased.
    """
    async with alone(work.engine), work.engine.connect() as connection, retry.alone(connection):
        done = Done()
        await replaying.sweep(work.engine)
        if await outbox.drain(work.engine, work.nc):
            done.notes.append("what polls had found was published only now: run this once more")
        words = await _say(work, plan, who, why)
        for place, erase in PLACES:
            done.counts[place] = await erase(work, plan, words, done.notes)
        if await _drift(connection, plan.targets):
            done.notes.append(
                "meanwhile polls have found something about the same things: run this once more"
            )
        await connection.rollback()
        done.notes += await _in_hand(work, plan)
        return done


async def _say(work: Work, plan: Plan, who: str, why: str) -> list[Understood]:
    """Store for each body the word that it was erased, unless it was said before; all of them as they stand now."""
    said = await _said(work, plan)
    now = datetime.now(UTC)
    new = [
        _word(each, plan.copies[each.key], who, why, now, plan.selection.ref)
        for each in plan.targets
        if each.key not in said
    ]
    messages = [Message(each.subject, each.body, wire.to_headers(each)) for each in new]
    await bus.publish_all(work.nc, streams.DELIVERIES, messages)
    if new:
        said = await _said(work, plan)
    if unsaid := [each.name for each in plan.targets if each.key not in said]:
        raise Disagreement(
            f"that {unsaid[0]} is erased was stored and is not understood: nothing was erased, see what"
            f" ssot/providers/{SOURCE}.yaml says"
        )
    return list(said.values())


def _word(
    target: Target, copies: Mapping[int, datetime], who: str, why: str, now: datetime, asked: str | None
) -> Delivery:
    first, last = _span(target, copies)
    event = DeliveryRedacted(
        occurred_at=now,
        actor=who,
        delivery_source=target.source,
        delivery_identity=target.identity,
        body_sha256=target.body_sha256,
        seq=first,
        why=why,
        kind=target.kind or "unknown",
        via=target.via or "unknown",
        verified_by=target.verified_by,
        received_at=target.received_at,
        body_bytes=target.body_bytes,
        last_seq=last,
        last_received_at=max(copies.values()),
        refs=_kept_refs(target, asked),
    )
    return delivery_of(event, "cli", now, redaction_identity(first, target.body_sha256, last))


def _kept_refs(target: Target, asked: str | None) -> list[str]:
    """Those that the word has room for, and `asked` among them: by it, whoever is interrupted finds the body again."""
    kept = kept_refs(target.refs)
    if asked is None or asked in kept or asked not in target.refs:
        return kept
    return kept_refs([asked, *target.refs])


def _span(target: Target, copies: Collection[int]) -> tuple[int, int]:
    return min(copies), max(target.last_seq, *copies)


async def _said(work: Work, plan: Plan) -> dict[Key, Understood]:
    """The words that stand in the log of these bodies where they stand now; a later copy needs another word."""
    wanted = {}
    for target in plan.targets:
        first, last = _span(target, plan.copies[target.key])
        wanted[redaction_identity(first, target.body_sha256, last)] = target.key
    said: dict[Key, Understood] = {}
    subject = f"{wire.SUBJECT_ROOT}.{SOURCE}.{DeliveryRedacted.type}"
    after = min((each.stream_seq for each in plan.targets), default=0)
    async with _headers(work, streams.DELIVERIES, after, subjects=[subject]) as reading:
        async for message in _to_the_end(work, streams.DELIVERIES, reading):
            key = wanted.get((message.headers or {}).get(wire.IDENTITY, ""))
            if key is None or key in said:
                continue
            word = await bus.read_delivery(work.nc.jetstream(), bus.sequence_of(message))
            understood = understand(work.sources, word)
            if understood.status == "projected":
                said[key] = understood
    return said


async def _fold(work: Work, plan: Plan, words: Sequence[Understood], notes: list[str]) -> int:
    """The rows that came of the bodies; the ledger keeps what the words say."""
    await _fold_into(work, SCHEMA, (), words)
    return len(words)


async def _fold_into(work: Work, schema: str, models: Collection[str], words: Sequence[Understood]) -> None:
    writer = work.writer(schema, models)
    for start in range(0, len(words), WORDS_FOLDED_AT_ONCE):
        await writer.fold(words[start : start + WORDS_FOLDED_AT_ONCE])


async def _kept_tables(work: Work, plan: Plan, words: Sequence[Understood], notes: list[str]) -> int:
    """The tables that a rebuild has put aside, and those as of an earlier time."""
    async with work.engine.connect() as connection:
        kept = {
            name: (about, await _is_like_today(connection, name, about))
            for name, about in (await shadow.ours(connection)).items()
        }
    for schema, (about, foldable) in kept.items():
        if foldable:
            await _fold_into(work, schema, about.models, words)
        else:
            deleted = await _delete_rows(work, schema, plan.targets)
            notes.append(
                f"{schema} has no ledger, or other columns than today: {deleted} rows of the same refs were deleted"
                " from it, those of other deliveries too"
            )
    return len(kept)


async def _is_like_today(connection: AsyncConnection, schema: str, about: About) -> bool:
    """Whether today's code can fold into the tables of a schema."""
    there, live = await shadow.columns(connection, schema), await shadow.columns(connection, SCHEMA)
    models = {*(about.models or (model.name for model in READ_MODELS)), *ALWAYS}
    return all(there.get(model) == live.get(model) for model in models)


async def _delete_rows(work: Work, schema: str, targets: Sequence[Target]) -> int:
    """Delete the rows of the bodies' refs, and the ledger's rows, where a schema has those."""
    refs = {ref for each in targets for ref in each.refs}
    sources, identities = [each.source for each in targets], [each.identity for each in targets]
    async with work.engine.begin() as connection:
        await own_fold_lock(connection)
        there = await shadow.columns(connection, schema)
        deleted = 0
        if LEDGER.name in there:
            rows = await connection.execute(
                text(
                    f"DELETE FROM {schema}.{LEDGER.name} WHERE (source, identity) IN"
                    " (SELECT * FROM unnest(CAST(:sources AS text[]), CAST(:identities AS text[])))"
                    " RETURNING refs"
                ),
                {"sources": sources, "identities": identities},
            )
            for row in rows:
                refs.update(row.refs or ())
                deleted += 1
        for model in READ_MODELS:
            if model.ref_column is not None and model.ref_column in there.get(model.name, ()):
                statement = (
                    f"DELETE FROM {schema}.{model.name} WHERE {model.ref_column} = ANY(CAST(:refs AS text[]))"
                )
                deleted += (await connection.execute(text(statement), {"refs": sorted(refs)})).rowcount
    return deleted


async def _messages(work: Work, plan: Plan, words: Sequence[Understood], notes: list[str]) -> int:
    """What the notifier remembers of its messages. Which those are has to be known before the events go."""
    if plan.targets:
        await _find_events(work, plan)
    async with work.engine.begin() as connection:
        plan.notices = await _notices(connection, plan)
        return (await connection.execute(_ERASE_NOTICES, _of_notices(plan))).rowcount


async def _events(work: Work, plan: Plan, words: Sequence[Understood], notes: list[str]) -> int:
    js = work.nc.jetstream()
    return sum([await erase_message(js, streams.EVENTS, seq) for seq in plan.events])


async def _large_bodies(work: Work, plan: Plan, words: Sequence[Understood], notes: list[str]) -> int:
    js = work.nc.jetstream()
    return sum([bool(await erase_body(js, bus.body_object_name(each))) for each in plan.targets])


async def _deliveries(work: Work, plan: Plan, words: Sequence[Understood], notes: list[str]) -> int:
    js = work.nc.jetstream()
    return sum([await erase_message(js, streams.DELIVERIES, seq) for seq in plan.sequences])


Erase = Callable[[Work, Plan, Sequence[Understood], list[str]], Awaitable[int]]
"""Erases at one place what a plan names, given the words that say so; returns of how many things. Says what is
special in the notes, and may be called again."""

PLACES: tuple[tuple[str, Erase], ...] = (
    (SCHEMA, _fold),
    ("kept tables", _kept_tables),
    ("notify.messages", _messages),
    (streams.EVENTS, _events),
    # From here on nothing can be found by what the bodies state.
    (streams.BODIES_STREAM, _large_bodies),
    (streams.DELIVERIES, _deliveries),
)
"""Where we keep what a delivery said, in the order in which it goes. A new place is a new line."""


async def _in_hand(work: Work, plan: Plan) -> list[str]:
    """Who may be about to publish or write down something of it, because it was given out before."""
    found = []
    js = work.nc.jetstream()
    for stream, name, last in (
        (streams.DELIVERIES, streams.PROJECTOR, max(plan.sequences, default=0)),
        (streams.EVENTS, streams.NOTIFIER, max(plan.events, default=0)),
    ):
        info = await js.consumer_info(stream, name)
        if info.num_ack_pending and info.ack_floor is not None and info.ack_floor.stream_seq < last:
            found.append(
                f"the {name} has messages in hand that may be among these: run this once more in a minute"
            )
    return found
