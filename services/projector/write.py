"""The projector's transactions: fold a batch of deliveries. The schema is an argument.

Order of locks, the same for every writer: the fold lock, the identities (sorted), the tables in the
registry's order, the rows of a table by key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts.delivery import Delivery, UnreadableDelivery
from contracts.ledger import DeliveryDiscarded, DeliveryRedacted, SecretExcluded, SetAside
from contracts.observation import is_observed
from contracts.polls import WEBHOOKS, ListingCompleted
from providers.port import Source
from read_models.deliveries import DeliveryRow
from read_models.freshness import Freshness, heard
from read_models.merge import join_all, join_into, joiner
from read_models.registry import AUDIT, FRESHNESS, LEDGER, READ_MODELS
from runtime.bus import LogTrimmed
from runtime.postgres import own_fold_lock, plan_freely, share_fold_lock
from services.projector import drift
from services.projector.drift import Change, Consequence, Overtaken, Sights
from services.projector.exclusions import Exclusion, believed
from services.projector.settle import Identity, Known, Settled, identity_of, settle
from services.projector.sql import Sql, as_json
from services.projector.understand import REFOLD_IMPOSSIBLE, Understood, ledger_row, parked, understand

REFOLD_REFS_MAX = 1_000
REFOLD_ROUNDS_MAX = 10
READ_AT_ONCE = 16
"""Deliveries read from the log at the same time: one by one, their way there and back would be most of the time."""
PART_COUNT = 1_000
"""Deliveries of which the ledger is asked in one statement."""
REFOLD_DELIVERIES_MAX = 200_000
"""Deliveries that one refold reads: what they come to is in memory until it is written."""
READY_WITHIN = 200
"""Deliveries that a refold may have to read while it keeps everybody else from folding."""
READY_ROUNDS_MAX = 5
OVERTAKEN_MAX = 5
"""Tries of a transaction that others keep overtaking, each by another row: then it is done with the lock alone."""

ReadLog = Callable[[int], Awaitable[Delivery]]
"""From a sequence to its delivery, read from the log."""


class RefoldTooWide(Exception):
    """more belongs together than one refold takes: rebuild instead"""


CANNOT_BE_WRITTEN = (DBAPIError, LogTrimmed, RefoldTooWide, UnreadableDelivery, TypeError)
"""What folding a batch raises where a delivery of it cannot be written: it is parked by what `refused` says."""


class _NeedsTheLockAlone(Exception):
    """the batch needs a refold, hence the fold lock alone"""


@dataclass(frozen=True, slots=True)
class Folded:
    """What a committed batch leaves to do: publish the events of `deliveries`; those in `new` were never published."""

    deliveries: Sequence[Understood]
    new: frozenset[str]
    found: Sequence[Consequence] = ()
    """What followed from observations: it is in the outbox, to be published from there."""
    verdicts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How many deliveries the ledger was told of, by source and status; `copy` where it has a verdict already."""


class Turn(Protocol):
    """When a part of the log may be settled: after all earlier ones."""

    async def come(self) -> None:
        """Return when it may; at once where it has been said before."""

    def pass_on(self) -> None:
        """Let the next part be settled."""


Publish = Callable[[Folded], Awaitable[None]]
"""Publishes the events of deliveries and returns when all are stored."""


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
    read: int = 0
    events: int = 0
    """Events that the deliveries which were asked for by name state."""
    told: Counter[str] = field(default_factory=Counter)
    """How many of the deliveries are about each of the refs."""
    taken: dict[int, int] = field(default_factory=dict)
    """The deliveries that are in it, by sequence, each with a mark of what the ledger said of it."""

    def stands(self, refs: Collection[str], marks: Mapping[int, int]) -> bool:
        """Whether it is of all `refs`, and the ledger still says the same of all that is in it; more may have come."""
        return self.refs.issuperset(refs) and all(marks.get(seq) == mark for seq, mark in self.taken.items())


@dataclass(frozen=True, slots=True)
class Ready:
    """What was gathered before the lock: for refs that must be whole, and for those of what is to be erased."""

    kept: Gathered | None
    erased: Gathered


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

        So whoever dies on the way has left them parked, and the next try does the same again. Meanwhile the ledger
        has their refs, by which a discard takes back what is in the tables already.
        """
        await publish(await self._fold(batch, ledger=False))
        return await self._fold(batch, ledger=True)

    async def keep_parked(self, batch: Sequence[Understood]) -> None:
        """Write down that parked deliveries were tried again, and why they stay parked."""
        rows = [ledger_row(understood, None) for understood in batch]
        async with self.engine.begin() as connection:
            await own_fold_lock(connection)
            await connection.execute(self.sql.still_parked, {"rows": as_json(rows)})
            if heard_of := self._heard(batch):
                await self.merge_rows(connection, {FRESHNESS.name: heard_of})

    async def _fold(self, batch: Sequence[Understood], *, ledger: bool) -> Folded:
        tried_at = datetime.now(UTC)
        for _ in range(OVERTAKEN_MAX):
            try:
                async with self.engine.begin() as connection:
                    await share_fold_lock(connection)
                    await _lock_identities(connection, batch)
                    settled = await self._settle(connection, batch, tried_at)
                    if settled.refold or any(_by_will(understood) for understood in settled.fold):
                        raise _NeedsTheLockAlone
                    return await self._merge(connection, batch, settled, ledger=ledger, watch=True)
            except Overtaken:
                continue
            except _NeedsTheLockAlone:
                break
        ready = await self._ahead(batch)
        async with self.engine.begin() as connection:
            await own_fold_lock(connection)
            return await self.fold_alone(connection, batch, tried_at, ready, ledger=ledger, watch=True)

    async def _ahead(self, batch: Sequence[Understood]) -> Ready:
        """What the refolds that `batch` asks for will need, gathered before they hold anybody up."""
        async with self.engine.connect() as connection:
            # As in `refold_at_once`: a swap of tables must not wait for the log to be read.
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            settled = await self._settle(connection, batch, None)
            refs = settled.refold | await self._folded_against_will(
                connection, settled.fold, DeliveryDiscarded
            )
            erased = await self._folded_against_will(connection, settled.fold, DeliveryRedacted)
            out = {event.seq for event in _events(settled.fold, SetAside)}
            for event in _events(settled.fold, SecretExcluded):
                for row in await connection.execute(self.sql.covered, _span(event)):
                    refs.update(row.refs or ())
                    out.add(row.stream_seq)
            try:
                kept = await self.gather(connection, refs, without=out)
            except (LogTrimmed, UnreadableDelivery):
                kept = None  # only with the lock is it known whether that is still asked for
            return Ready(kept, await self.gather(connection, erased - refs, without=out, missing_ok=True))

    async def fold_alone(
        self,
        connection: AsyncConnection,
        batch: Sequence[Understood],
        tried_at: datetime | None = None,
        ready: Ready | None = None,
        *,
        ledger: bool = True,
        watch: bool = False,
    ) -> Folded:
        """Fold a batch in the caller's transaction, during which nobody else writes the schema.

        Without `tried_at` it does not count as a try. `ready` is what was gathered for it before. With `watch`, what
        observations change goes into the outbox.
        """
        settled = await self._settle(connection, batch, tried_at)
        settled.fold = _still_wanted(settled.fold)
        discarded = await self._folded_against_will(connection, settled.fold, DeliveryDiscarded)
        redacted = await self._folded_against_will(connection, settled.fold, DeliveryRedacted)
        merged = await self._merge(connection, batch, settled, ledger=ledger, watch=watch)
        refs = settled.refold | discarded | await self._exclude(connection, settled.fold)
        if refs:
            kept = ready.kept if ready else None
            await self.replace(connection, await self.gather(connection, refs, (), kept))
        if erased := redacted - refs:
            # What is to be erased goes, though other deliveries of the same refs cannot be read any more.
            rest = ready.erased if ready else None
            await self.replace(connection, await self.gather(connection, erased, (), rest, missing_ok=True))
        return merged

    async def fold_unseen(self, batch: Sequence[Understood]) -> None:
        """Fold a batch into a schema that nobody else writes and nobody looks at yet."""
        async with self._unseen() as connection:
            await self.fold_alone(connection, batch)

    async def fold_in_turn(self, batch: Sequence[Understood], turn: Turn) -> None:
        """The same beside others who fold other parts of the log into the schema.

        All are settled in the order of the log, and whoever shares an identity with an earlier part waits until that
        is committed. So each sees what it would see if they came one by one, though their rows are merged at once.
        """
        await turn.come()
        async with self._unseen() as connection:
            await _lock_identities(connection, batch, self.sql.schema)
            settled = await self._settle(connection, batch, None)
            if not settled.refold and not any(_by_will(understood) for understood in settled.fold):
                turn.pass_on()
                await self._merge(connection, batch, settled, ledger=True, watch=False)
                return
        async with self._unseen() as connection:
            await connection.execute(self.sql.alone)  # waits for all who have settled
            await self.fold_alone(connection, batch)

    @asynccontextmanager
    async def _unseen(self) -> AsyncIterator[AsyncConnection]:
        async with self.engine.begin() as connection:
            # What a crash of the server takes of such a schema is made anew; nobody waits for its disk.
            await connection.execute(text("SET LOCAL synchronous_commit = off"))
            yield connection

    async def refold(
        self, refs: Collection[str], also: Sequence[Entry] = (), *, missing_ok: bool = False
    ) -> int:
        """Replace every row of `refs` by what the log says, folded from nothing by today's code.

        `also` are deliveries whose verdict may have changed, whatever they were about. One transaction per
        REFOLD_REFS_MAX refs. Returns how many deliveries were read. Raises LogTrimmed where the log no longer holds
        one of them and that is not `missing_ok`: their rows stay as they are.
        """
        wanted, read = sorted(set(refs)), 0
        for start in range(0, max(1, len(wanted)), REFOLD_REFS_MAX):
            some, entries = wanted[start : start + REFOLD_REFS_MAX], () if start else also
            read += (await self.refold_at_once(some, entries, missing_ok=missing_ok)).read
        return read

    async def refold_at_once(
        self,
        refs: Collection[str],
        also: Sequence[Entry] = (),
        *,
        settled: Collection[str] = (),
        missing_ok: bool = False,
    ) -> Gathered:
        """The same in one transaction, whatever the number of refs; returns what was put in place.

        The log is read before that transaction, in which nobody else folds: in it only what has come since.
        """
        ready, read = None, 0
        for _ in range(READY_ROUNDS_MAX):
            async with self.engine.connect() as connection:
                # Each statement by itself: a swap of tables must not wait for the log to be read.
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                found = await self.gather(
                    connection, refs, also, ready, settled=settled, missing_ok=missing_ok
                )
            came = found.read - (read if found is ready else 0)
            ready, read = found, found.read
            if came <= READY_WITHIN:
                break
        async with self.engine.begin() as connection:
            await own_fold_lock(connection)
            gathered = await self.gather(
                connection, refs, also, ready, settled=settled, missing_ok=missing_ok
            )
            await self.replace(connection, gathered)
        return gathered

    async def gather(
        self,
        connection: AsyncConnection,
        refs: Collection[str],
        also: Sequence[Entry] = (),
        ready: Gathered | None = None,
        *,
        settled: Collection[str] = (),
        without: Collection[int] = (),
        missing_ok: bool = False,
    ) -> Gathered:
        """What the log says of `refs`, and of whatever else the deliveries `also` were or are about.

        `ready` is what was gathered for the same before: what has come since is added to it, and it is made anew
        where the ledger says something else of what is in it. Rows of `settled` refs are right but for what
        deliveries state that were not about them: those are gathered, to be merged into them. Deliveries
        `without`, by sequence, are passed over. Writes nothing. Raises LogTrimmed and RefoldTooWide.
        """
        exclusions = await self.known_exclusions(connection)
        asked = {entry.stream_seq for entry in also}
        wanted = set(refs).union(*(entry.refs or () for entry in also)).difference(settled)
        if ready is not None:
            wanted |= ready.refs
        for _ in range(REFOLD_ROUNDS_MAX):
            marks = await self._marks(connection, wanted, asked, without)
            gathered = ready if ready is not None and ready.stands(wanted, marks) else Gathered(wanted)
            ready, grown = None, set[str]()
            for part in _parts(sorted(marks.keys() - gathered.taken.keys())):
                entries = [Entry(*row) for row in await connection.execute(self.sql.entries, {"seqs": part})]
                for entry, understood in await self.read_back(entries, missing_ok=missing_ok):
                    understood = believed(understood, exclusions)
                    grown |= _take(gathered, entry, understood, settled)
                    gathered.events += len(understood.statements) if entry.stream_seq in asked else 0
                gathered.taken.update((seq, marks[seq]) for seq in part)
            if grown <= gathered.refs:
                return gathered
            wanted = gathered.refs | grown
        raise RefoldTooWide(
            f"today's code states ever more refs for these deliveries, {len(wanted)} by now: rebuild instead"
        )

    async def _marks(
        self,
        connection: AsyncConnection,
        refs: Collection[str],
        asked: Collection[int],
        without: Collection[int],
    ) -> dict[int, int]:
        """Deliveries that are folded for `refs`, and those asked for that may be: by sequence, each with its mark."""
        values = {"refs": sorted(refs), "seqs": sorted(asked), "most": REFOLD_DELIVERIES_MAX + 1}
        found = (await connection.execute(self.sql.marks, values)).all()
        if len(found) > REFOLD_DELIVERIES_MAX:
            raise RefoldTooWide(
                f"more than {REFOLD_DELIVERIES_MAX:,} deliveries are about these {len(refs)} refs: rebuild instead"
            )
        return {row.stream_seq: row.mark for row in found if row.stream_seq not in without}

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

    async def read_back(
        self, entries: Sequence[Entry], *, missing_ok: bool = False
    ) -> list[tuple[Entry, Understood]]:
        """What deliveries mean by today's code, read from the log. Raises LogTrimmed unless that is `missing_ok`."""
        window = asyncio.Semaphore(READ_AT_ONCE)

        async def read(entry: Entry) -> tuple[Entry, Understood] | None:
            try:
                async with window:
                    return entry, understand(self.sources, await self.read_log(entry.stream_seq))
            except (LogTrimmed, UnreadableDelivery) as error:
                # A parked one that cannot be read was parked for that, and stays so.
                if missing_ok or (isinstance(error, UnreadableDelivery) and entry.status == "parked"):
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
            known = Known(row.body_sha256, row.stream_seq, row.status, tuple(row.refs or ()), row.reason)
            found.setdefault((row.source, row.identity), []).append(known)
        return settle(batch, found, tried_at)

    async def _folded_against_will(
        self, connection: AsyncConnection, folded: Iterable[Understood], word: type[SetAside]
    ) -> set[str]:
        """The refs of deliveries that are still folded, of which a `word` in the batch says that they are not to be.

        One whose retry was cut short is folded, too, though the ledger still calls it parked.
        """
        keys = [
            {
                "source": event.delivery_source,
                "identity": event.delivery_identity,
                "body_sha256": event.body_sha256,
            }
            for event in _events(folded, word)
        ]
        if not keys:
            return set()
        rows = await connection.execute(self.sql.still_folded, {"keys": as_json(keys)})
        return {ref for row in rows for ref in row.refs or ()}

    async def _exclude(self, connection: AsyncConnection, folded: Iterable[Understood]) -> set[str]:
        """Discard what the leaked secrets of a batch vouched for; the refs of what was discarded."""
        refs: set[str] = set()
        for event in _events(folded, SecretExcluded):
            for row in await connection.execute(self.sql.exclude, _span(event)):
                refs.update(row.refs or ())
        return refs

    async def _merge(
        self,
        connection: AsyncConnection,
        batch: Iterable[Understood],
        settled: Settled,
        *,
        ledger: bool,
        watch: bool,
    ) -> Folded:
        rows: dict[str, list[Any]] = {LEDGER.name: [*settled.ledger]} if ledger else {}
        # Whatever becomes of a webhook, its sender was heard.
        if heard_of := [*self._heard(batch), *self._heard_once(settled.fold)]:
            rows[FRESHNESS.name] = heard_of
        sights = drift.sights_of(settled.fold) if watch else {}
        for understood in settled.fold:
            apart = sights if is_observed(understood.delivery.kind) else {}
            for name, row in understood.rows:
                if name not in apart:
                    rows.setdefault(name, []).append(row)
        if not ledger:
            intended = [ledger_row(understood, None) for understood in settled.fold]
            await connection.execute(self.sql.intend, {"rows": as_json(intended)})
        new, changes = await self.merge_rows(connection, rows, sights)
        found = await self._found(connection, settled.fold, new, changes) if watch else []
        verdicts = Counter((row.source, row.status or "copy") for row in settled.ledger)
        return Folded(settled.fold, new, found, verdicts)

    async def _found(
        self,
        connection: AsyncConnection,
        folded: Sequence[Understood],
        new: frozenset[str],
        changes: Sequence[Change],
    ) -> list[Consequence]:
        """What follows from the observations and the listings of a batch, put into the outbox."""
        observed = [understood for understood in folded if is_observed(understood.delivery.kind)]
        listings = drift.listings_of(folded)
        if not (observed or listings):
            return []
        if listings:
            await plan_freely(connection)
        gone = [each for of_scope in listings for each in await drift.gone_by(connection, of_scope)]
        by_others = {statement.event.id for each in drift.told(folded) for statement in each.statements}
        asked = {each.delivery.source for each in observed} | {each.listing.source for each in gone}
        telling = await drift.telling(connection, self.sources, asked)
        found = drift.consequences(telling, observed, changes, new - by_others, gone)
        await drift.put(connection, found)
        return found

    def _heard(self, batch: Iterable[Understood]) -> list[Freshness]:
        deliveries = (understood.delivery for understood in batch)
        webhooks = sorted(
            (each.received_at, each.seq, each.source) for each in deliveries if each.via == "webhook"
        )
        # The oldest and the newest of each source say all that the others would.
        oldest = {source: received_at for received_at, _, source in reversed(webhooks)}
        newest = {source: (received_at, seq) for received_at, seq, source in webhooks}
        return [self._hearing(source, oldest[source], *last) for source, last in newest.items()]

    def _heard_once(self, folded: Iterable[Understood]) -> list[Freshness]:
        """What an erased webhook still says: that its sender was heard then."""
        return [
            self._hearing(event.delivery_source, event.received_at, event.last_received_at, event.last_seq)
            for event in _events(folded, DeliveryRedacted)
            if isinstance(event, DeliveryRedacted) and event.via == "webhook"
        ]

    def _hearing(self, name: str, first_at: datetime, received_at: datetime, seq: int) -> Freshness:
        source = self.sources.get(name)
        if source is None:  # what nobody has declared has no limit yet, which is no word against one
            return Freshness(
                source=name, scope=WEBHOOKS, first_webhook_at=first_at, last_webhook_at=received_at
            )
        return heard(name, first_at, received_at, seq, source.file.quiet_s_max)

    async def merge_rows(
        self,
        connection: AsyncConnection,
        rows: Mapping[str, Sequence[Any]],
        sights: Mapping[str, Sights] | None = None,
    ) -> tuple[frozenset[str], list[Change]]:
        """Merge rows in the registry's order of tables, and into each table what was observed last.

        Returns the ids of events that had no row before, and the rows that `sights` changed.
        """
        new: frozenset[str] = frozenset()
        changes: list[Change] = []
        for model in self.sql.models:
            if model.name in rows:
                joined = join_all(model, rows[model.name])
                merged = await connection.execute(
                    self.sql.merges[model.name], {"rows": as_json(list(joined.values()))}
                )
                if model is AUDIT:
                    new = frozenset(row.event_id for row in merged if row.inserted)
            if sights and model.name in sights:
                changes += await drift.merge_sights(connection, model.name, sights[model.name])
        return new, changes


def refused(understood: Understood, error: Exception) -> Understood:
    """A delivery that cannot be written, parked with the reason that follows from the error."""
    reason, sentence = REFOLD_IMPOSSIBLE, f"a later body of it stands and cannot be replaced: {error}"
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None)
        reason, sentence = "write_refused", f"Postgres refused its rows ({state})"
    elif isinstance(error, TypeError):
        reason, sentence = "write_refused", "its rows have no JSON form"
    return replace(parked(understood.delivery, reason, sentence), body_bytes=understood.body_bytes)


def _parts(sequences: Sequence[int]) -> Iterator[Sequence[int]]:
    return (sequences[start : start + PART_COUNT] for start in range(0, len(sequences), PART_COUNT))


def _take(gathered: Gathered, entry: Entry, understood: Understood, settled: Collection[str]) -> set[str]:
    """Add what a delivery states of the wanted refs; the refs that are concerned where it states others than it did."""
    gathered.read += 1
    verdict = ledger_row(understood, None)
    stated = (verdict.status, verdict.reason, verdict.refs, verdict.event_count)
    if stated != (entry.status, entry.reason, entry.refs, entry.event_count):
        gathered.verdicts.append(verdict)
    for name, row in understood.rows:
        model, join = _MODELS[name]
        if model.ref_column is not None:
            ref = getattr(row, model.ref_column)
            if ref in gathered.refs or ref in settled:
                join_into(gathered.rows.setdefault(name, {}), model, join, row)
    before = set(entry.refs or ()) if entry.status == "projected" else set()
    now = set(understood.refs) if understood.status == "projected" else set()
    gathered.told.update(gathered.refs & now)
    return set() if before == now else (before - now) | (before | now).difference(settled)


_MODELS = {model.name: (model, joiner(model)) for model in READ_MODELS}


def _events(folded: Iterable[Understood], *types: type) -> list[Any]:
    return [
        statement.event
        for understood in folded
        for statement in understood.statements
        if isinstance(statement.event, types)
    ]


def _span(event: SecretExcluded) -> dict[str, Any]:
    return {"secret": event.secret, "since": event.since, "until": event.until}


def _still_wanted(folded: Sequence[Understood]) -> list[Understood]:
    """Those of a batch that no word in the same batch sets aside."""
    aside = {
        (event.delivery_source, event.delivery_identity, event.body_sha256): event.seq
        for event in _events(folded, DeliveryDiscarded, DeliveryRedacted)
        if isinstance(event, SetAside)
    }
    return [
        each
        for each in folded
        if (seq := aside.get((*identity_of(each), each.delivery.body_sha256))) is None
        or each.delivery.seq < seq
    ]


def _by_will(understood: Understood) -> bool:
    """Whether it is an operator's word about other deliveries."""
    return any(isinstance(each.event, (SetAside, SecretExcluded)) for each in understood.statements)


_LOCK_KEYS = text("SELECT count(pg_advisory_xact_lock(k)) FROM unnest(CAST(:keys AS bigint[])) AS k")


async def _lock_identities(connection: AsyncConnection, batch: Iterable[Understood], *schema: str) -> None:
    """Hold others off the same identities: two bodies of one identity must not be folded side by side.

    And off the same listings: whoever folds the last of its parts has to see all others. Those who write another
    `schema` than the live one are held off among themselves.
    """
    identities = {identity_of(understood) for understood in batch}
    listings = {("listing", event.ref) for event in _events(batch, ListingCompleted)}
    keys = sorted(_lock_key((*schema, *identity)) for identity in identities | listings)
    await connection.execute(_LOCK_KEYS, {"keys": keys})


def _lock_key(identity: tuple[str, ...]) -> int:
    digest = hashlib.blake2b("\x1f".join(identity).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
