"""The projector's transactions: fold a batch of deliveries. The schema is an argument.

Order of locks, the same for every writer: the fold lock, the identities (sorted), the tables in the
registry's order, the rows of a table by key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts.delivery import Delivery
from contracts.ledger import DeliveryDiscarded, DeliveryRedacted, SecretExcluded, SetAside
from providers.port import Source
from read_models.deliveries import DeliveryRow
from read_models.freshness import Freshness, heard
from read_models.merge import join_all, join_into, joiner
from read_models.registry import AUDIT, FRESHNESS, LEDGER, READ_MODELS
from runtime.bus import LogTrimmed
from runtime.postgres import own_fold_lock, share_fold_lock
from services.projector.exclusions import Exclusion, believed
from services.projector.settle import Identity, Known, Settled, identity_of, settle
from services.projector.sql import Sql, as_json
from services.projector.understand import Understood, ledger_row, understand

REFOLD_REFS_MAX = 1_000
REFOLD_ROUNDS_MAX = 10
READ_AT_ONCE = 64
"""Deliveries read from the log at the same time: one by one, their way there and back would be most of the time."""
UNDERSTOOD_KEPT_MAX = 10_000
"""Deliveries that a refold has understood before it holds the lock; more than those are read again."""

ReadLog = Callable[[int], Awaitable[Delivery]]
"""From a sequence to its delivery, read from the log."""

Publish = Callable[[Sequence[Understood]], Awaitable[None]]
"""Publishes the events of deliveries and returns when all are stored."""


class RefoldTooWide(Exception):
    """today's code states ever more refs for these deliveries: rebuild instead"""


class _NeedsTheLockAlone(Exception):
    """the batch needs a refold, hence the fold lock alone"""


@dataclass(frozen=True, slots=True)
class Folded:
    """What a committed batch leaves to do: publish the events of `deliveries`; those in `new` were never published."""

    deliveries: Sequence[Understood]
    new: frozenset[str]


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger says of a delivery: where it is and what became of it."""

    source: str
    identity: str
    body_sha256: str
    stream_seq: int
    status: str
    reason: str | None
    refs: list[str] | None
    event_count: int | None


@dataclass(slots=True)
class Gathered:
    """What the log says of `refs` by today's code: rows by model and key, and verdicts that are not the ledger's."""

    refs: set[str]
    rows: dict[str, dict[Any, Any]] = field(default_factory=dict)
    verdicts: list[DeliveryRow] = field(default_factory=list)
    understood: dict[int, Understood] = field(default_factory=dict)
    """By sequence, UNDERSTOOD_KEPT_MAX of them at most."""
    read: int = 0


@dataclass(frozen=True)
class Writer:
    """What folding needs: a database, the statements for a schema, today's sources, and the log to read back from."""

    engine: AsyncEngine
    sql: Sql
    sources: Mapping[str, Source]
    read_log: ReadLog

    async def fold(self, batch: Sequence[Understood]) -> Folded:
        """Fold a batch in one transaction."""
        return await self._fold(batch, ledger=True)

    async def retry(self, batch: Sequence[Understood], publish: Publish) -> Folded:
        """Fold deliveries that were parked; `publish` is called before the ledger says that they are no more.

        So whoever dies on the way has left them parked, and the next try does the same again.
        """
        folded = await self._fold(batch, ledger=False)
        await publish(folded.deliveries)
        await self._fold(batch, ledger=True)
        return folded

    async def _fold(self, batch: Sequence[Understood], *, ledger: bool) -> Folded:
        tried_at = datetime.now(UTC)
        try:
            async with self.engine.begin() as connection:
                await share_fold_lock(connection)
                await _lock_identities(connection, batch)
                settled = await self._settle(connection, batch, tried_at)
                if settled.refold or any(_by_will(understood) for understood in settled.fold):
                    raise _NeedsTheLockAlone
                new = await self._merge(connection, batch, settled, ledger=ledger)
        except _NeedsTheLockAlone:
            async with self.engine.begin() as connection:
                await own_fold_lock(connection)
                return await self.fold_alone(connection, batch, tried_at, ledger=ledger)
        return Folded(settled.fold, new)

    async def fold_alone(
        self,
        connection: AsyncConnection,
        batch: Sequence[Understood],
        tried_at: datetime | None = None,
        *,
        ledger: bool = True,
    ) -> Folded:
        """Fold a batch in the caller's transaction, during which nobody else writes the schema.

        Without `tried_at` it does not count as a try.
        """
        settled = await self._settle(connection, batch, tried_at)
        refs = settled.refold | await self._folded_against_will(connection, settled.fold)
        new = await self._merge(connection, batch, settled, ledger=ledger)
        refs |= await self._exclude(connection, settled.fold)
        if refs:
            await self.replace(connection, await self.gather(connection, refs))
        return Folded(settled.fold, new)

    async def refold(
        self, refs: Collection[str], also: Sequence[Entry] = (), *, missing_ok: bool = False
    ) -> int:
        """Replace every row of `refs` by what the log says, folded from nothing by today's code.

        `also` are deliveries whose verdict may have changed, whatever they were about. One transaction per
        REFOLD_REFS_MAX refs, in which nobody else folds; what can be read before is read before. Returns how many
        deliveries were read. Raises LogTrimmed where the log no longer holds one of them and that is not
        `missing_ok`: their rows stay as they are.
        """
        wanted, read = sorted(set(refs)), 0
        for start in range(0, max(1, len(wanted)), REFOLD_REFS_MAX):
            some, entries = wanted[start : start + REFOLD_REFS_MAX], () if start else also
            async with self.engine.connect() as connection:
                ready = await self.gather(connection, some, entries, missing_ok=missing_ok)
            async with self.engine.begin() as connection:
                await own_fold_lock(connection)
                gathered = await self.gather(
                    connection, some, entries, ready.understood, missing_ok=missing_ok
                )
                await self.replace(connection, gathered)
            read += gathered.read
        return read

    async def gather(
        self,
        connection: AsyncConnection,
        refs: Collection[str],
        also: Sequence[Entry] = (),
        ready: Mapping[int, Understood] | None = None,
        *,
        without: Collection[int] = (),
        missing_ok: bool = False,
    ) -> Gathered:
        """What the log says of `refs`, and of whatever else the deliveries `also` were or are about.

        `ready` are deliveries that were understood before, by sequence; those `without` are passed over. Writes
        nothing. Raises LogTrimmed and RefoldTooWide.
        """
        exclusions = await self.known_exclusions(connection)
        wanted = set(refs).union(*(entry.refs or () for entry in also))
        for _ in range(REFOLD_ROUNDS_MAX):
            gathered, grown = Gathered(wanted), set[str]()
            found = await connection.execute(self.sql.of_refs, {"refs": sorted(wanted)})
            entries = {entry.stream_seq: entry for entry in (*also, *(Entry(*row) for row in found))}
            for part in _parts([entries[seq] for seq in sorted(entries) if seq not in without]):
                for entry, understood in await self._read_back(part, ready or {}, missing_ok=missing_ok):
                    understood = believed(understood, exclusions)
                    grown |= _take(gathered, entry, understood)
            if grown <= wanted:
                return gathered
            wanted, ready = wanted | grown, {**(ready or {}), **gathered.understood}
        raise RefoldTooWide(f"{len(wanted)} refs and still growing")

    async def replace(self, connection: AsyncConnection, gathered: Gathered) -> None:
        """Put what was gathered in the place of what is there."""
        for model in self.sql.models:
            if model.name in self.sql.clears:
                await connection.execute(self.sql.clears[model.name], {"refs": sorted(gathered.refs)})
        models = {model.name: model for model in self.sql.models if model.ref_column is not None}
        rows = {name: list(joined.values()) for name, joined in gathered.rows.items() if name in models}
        await self.merge_rows(connection, rows)
        if gathered.verdicts:
            await connection.execute(self.sql.restate, {"rows": as_json(gathered.verdicts)})

    async def _read_back(
        self, entries: Sequence[Entry], ready: Mapping[int, Understood], *, missing_ok: bool
    ) -> list[tuple[Entry, Understood]]:
        async def read(entry: Entry) -> tuple[Entry, Understood] | None:
            if entry.stream_seq in ready:
                return entry, ready[entry.stream_seq]
            try:
                return entry, understand(self.sources, await self.read_log(entry.stream_seq))
            except LogTrimmed:
                if missing_ok:
                    return None
                raise

        return [found for found in await asyncio.gather(*map(read, entries)) if found is not None]

    async def known_exclusions(self, connection: AsyncConnection) -> list[Exclusion]:
        """The leaked secrets and when they are not to be believed."""
        rows = await connection.execute(self.sql.exclusions)
        return [Exclusion(row.secret, row.since, row.until) for row in rows]

    async def _settle(
        self, connection: AsyncConnection, batch: Sequence[Understood], tried_at: datetime | None
    ) -> Settled:
        if exclusions := await self.known_exclusions(connection):
            batch = [believed(understood, exclusions) for understood in batch]
        keys = [
            {"source": source, "identity": name} for source, name in sorted({identity_of(u) for u in batch})
        ]
        found: dict[Identity, list[Known]] = {}
        for row in await connection.execute(self.sql.known, {"keys": as_json(keys)}):
            known = Known(row.body_sha256, row.stream_seq, row.status, tuple(row.refs or ()))
            found.setdefault((row.source, row.identity), []).append(known)
        return settle(batch, found, tried_at)

    async def _folded_against_will(
        self, connection: AsyncConnection, folded: Iterable[Understood]
    ) -> set[str]:
        """The refs of deliveries that are still folded, of which the batch says that they are not to be."""
        keys = [
            {
                "source": event.delivery_source,
                "identity": event.delivery_identity,
                "body_sha256": event.body_sha256,
            }
            for event in _events(folded, DeliveryDiscarded, DeliveryRedacted)
            if isinstance(event, SetAside)
        ]
        if not keys:
            return set()
        rows = await connection.execute(self.sql.still_folded, {"keys": as_json(keys)})
        return {ref for row in rows for ref in row.refs or ()}

    async def _exclude(self, connection: AsyncConnection, folded: Iterable[Understood]) -> set[str]:
        """Discard what the leaked secrets of a batch vouched for; the refs of what was discarded."""
        refs: set[str] = set()
        for event in _events(folded, SecretExcluded):
            assert isinstance(event, SecretExcluded)
            values = {"secret": event.secret, "since": event.since, "until": event.until}
            for row in await connection.execute(self.sql.exclude, values):
                refs.update(row.refs or ())
        return refs

    async def _merge(
        self, connection: AsyncConnection, batch: Iterable[Understood], settled: Settled, *, ledger: bool
    ) -> frozenset[str]:
        rows: dict[str, list[Any]] = {LEDGER.name: [*settled.ledger]} if ledger else {}
        # Whatever becomes of a webhook, its sender was heard.
        if heard_of := [*self._heard(batch), *self._heard_once(settled.fold)]:
            rows[FRESHNESS.name] = heard_of
        for understood in settled.fold:
            for name, row in understood.rows:
                rows.setdefault(name, []).append(row)
        return await self.merge_rows(connection, rows)

    def _heard(self, batch: Iterable[Understood]) -> list[Freshness]:
        deliveries = (understood.delivery for understood in batch)
        webhooks = sorted(
            (each.received_at, each.seq, each.source) for each in deliveries if each.via == "webhook"
        )
        # The newest of each source says all that the others would.
        newest = {source: (source, received_at, seq) for received_at, seq, source in webhooks}
        return [self._hearing(*heard_of) for heard_of in newest.values()]

    def _heard_once(self, folded: Iterable[Understood]) -> list[Freshness]:
        """What an erased webhook still says: that its sender was heard then."""
        return [
            self._hearing(event.delivery_source, event.last_received_at, event.last_seq)
            for event in _events(folded, DeliveryRedacted)
            if isinstance(event, DeliveryRedacted) and event.via == "webhook"
        ]

    def _hearing(self, name: str, received_at: datetime, seq: int) -> Freshness:
        source = self.sources.get(name)
        return heard(name, received_at, seq, source.file.quiet_s_max if source else None)

    async def merge_rows(
        self, connection: AsyncConnection, rows: Mapping[str, Sequence[Any]]
    ) -> frozenset[str]:
        """Merge rows in the registry's order of tables; returns the ids of events that had no row before."""
        new: frozenset[str] = frozenset()
        for model in self.sql.models:
            if model.name in rows:
                joined = join_all(model, rows[model.name])
                merged = await connection.execute(
                    self.sql.merges[model.name], {"rows": as_json(list(joined.values()))}
                )
                if model is AUDIT:
                    new = frozenset(row.event_id for row in merged if row.inserted)
        return new


def _parts(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    return (entries[start : start + READ_AT_ONCE] for start in range(0, len(entries), READ_AT_ONCE))


def _take(gathered: Gathered, entry: Entry, understood: Understood) -> set[str]:
    """Add what a delivery states of the wanted refs; the refs that are concerned where it states others than it did."""
    gathered.read += 1
    if len(gathered.understood) < UNDERSTOOD_KEPT_MAX:
        gathered.understood[entry.stream_seq] = understood
    verdict = ledger_row(understood, None)
    stated = (verdict.status, verdict.reason, verdict.refs, verdict.event_count)
    if stated != (entry.status, entry.reason, entry.refs, entry.event_count):
        gathered.verdicts.append(verdict)
    for name, row in understood.rows:
        model, join = _MODELS[name]
        if model.ref_column is not None and getattr(row, model.ref_column) in gathered.refs:
            join_into(gathered.rows.setdefault(name, {}), model, join, row)
    before, now = set(entry.refs or ()), set(understood.refs)
    folds = understood.status == "projected"
    return set() if folds and before == now else before | (now if folds else set())


_MODELS = {model.name: (model, joiner(model)) for model in READ_MODELS}


def _events(folded: Iterable[Understood], *types: type) -> list[Any]:
    return [
        statement.event
        for understood in folded
        for statement in understood.statements
        if isinstance(statement.event, types)
    ]


def _by_will(understood: Understood) -> bool:
    """Whether it is an operator's word about other deliveries."""
    return any(isinstance(each.event, (SetAside, SecretExcluded)) for each in understood.statements)


async def _lock_identities(connection: AsyncConnection, batch: Iterable[Understood]) -> None:
    """Hold other projectors off the same identities: two bodies of one identity must not be folded side by side."""
    keys = sorted({_lock_key(identity_of(understood)) for understood in batch})
    await connection.execute(
        text("SELECT count(pg_advisory_xact_lock(k)) FROM unnest(CAST(:keys AS bigint[])) AS k"),
        {"keys": keys},
    )


def _lock_key(identity: Identity) -> int:
    digest = hashlib.blake2b("\x1f".join(identity).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
