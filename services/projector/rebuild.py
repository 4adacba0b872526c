"""Folding the whole log anew, beside the live tables: to put the result in their place, or only to compare it.

The shadow is made by the code that serves live, in the order of the log, by one writer. Until the swap, which is one
transaction, nothing live is touched; whoever is killed before leaves a schema that `status` names and the next run
removes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts import delivery as wire
from contracts.delivery import UnreadableDelivery
from contracts.ledger import DeliveryDiscarded, DeliveryRedacted, SecretExcluded
from contracts.own import SOURCE
from providers.port import Source
from read_models.registry import LEDGER
from read_models.table import SCHEMA
from runtime import bus, streams
from runtime.garbage import seldom_collected
from runtime.postgres import REBUILD_LOCK, own_fold_lock
from runtime.reading import Reading
from services.projector import shadow
from services.projector.shadow import About, Compared, Scope
from services.projector.sql import ALWAYS, Sql
from services.projector.understand import Understood, understand, unreadable
from services.projector.write import Writer

SHADOW = "ops_rebuild"
KEPT = "ops_before_"
OPERATORS_WORDS = tuple(
    f"{wire.SUBJECT_ROOT}.{SOURCE}.{event.type}"
    for event in (DeliveryDiscarded, DeliveryRedacted, SecretExcluded)
)
BATCH_COUNT = 1_000
"""Deliveries folded in one transaction."""
YIELD_EVERY = 16
"""Deliveries understood in one go: between, Postgres is given its next statement."""
SWAP_LOCK_S_MAX = 0.2
"""How long the swap waits for a lock, and holds up everybody behind it, before it lets them pass and tries again."""
SWAP_S_MAX = 60.0
SWAP_AGAIN_S = 0.2
TAIL_COUNT_MAX = 2_000
"""Deliveries that may be left to fold while the projectors are held up."""
BEHIND_TRIES = 5
BEHIND_AGAIN_S = 0.3


class RebuildRunning(Exception):
    """another rebuild or verification runs; the message says which"""


class Busy(Exception):
    """the tables could not be had for long enough"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is: deliveries done of `total`, by the second, and seconds left where that is known."""

    phase: str
    done: int
    total: int
    rate: float
    left_s: float | None


Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class Work:
    """What every operation on a whole log needs."""

    nc: Client
    engine: AsyncEngine
    sources: Mapping[str, Source]
    tell: Tell
    rate_max: float | None = None
    """Deliveries per second, where it is to spare the servers."""

    def writer(self, schema: str, models: Collection[str] = ()) -> Writer:
        """What writes into `schema`."""
        js = self.nc.jetstream()
        return Writer(
            self.engine, Sql.of(schema, models), self.sources, lambda seq: bus.read_delivery(js, seq)
        )


@dataclass(frozen=True, slots=True)
class Until:
    """Where a replay ends: deliveries received later are left out, those after a sequence are not even read."""

    received_at: datetime | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to."""

    models: tuple[str, ...]
    deliveries: int
    seconds: float
    first_seq: int
    """Where the log begins, which is above 1 where it was trimmed."""
    compared: tuple[Compared, ...] = ()
    behind: int = 0
    """Deliveries that the live side had yet to fold, whose rows were not compared."""
    kept: str | None = None
    """The schema with the old tables."""


@asynccontextmanager
async def alone(engine: AsyncEngine) -> AsyncIterator[None]:
    """While the block runs, no other rebuild does. Raises RebuildRunning."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        if not (await connection.execute(_TRY_LOCK, {"key": REBUILD_LOCK})).scalar_one():
            other = (await connection.execute(_WHO, {"key": REBUILD_LOCK})).first()
            since = (
                f" since {other.backend_start:%Y-%m-%d %H:%M:%S} UTC, database process {other.pid}"
                if other
                else ""
            )
            raise RebuildRunning(f"another rebuild or verification runs{since}: wait for it, or stop it")
        try:
            yield
        finally:
            await connection.execute(_UNLOCK, {"key": REBUILD_LOCK})


_TRY_LOCK = text("SELECT pg_try_advisory_lock(:key)")
_UNLOCK = text("SELECT pg_advisory_unlock(:key)")
_WHO = text(
    "SELECT a.pid, a.backend_start AT TIME ZONE 'UTC' AS backend_start FROM pg_locks AS l"
    " JOIN pg_stat_activity AS a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = CAST(:key AS bigint)"
    " AND a.datname = current_database()"
)


async def running(connection: AsyncConnection) -> bool:
    """Whether a rebuild or verification runs now."""
    return (await connection.execute(_WHO, {"key": REBUILD_LOCK})).first() is not None


async def sweep(engine: AsyncEngine) -> list[str]:
    """Remove what a killed rebuild left behind; nobody else may be at it. Returns the schemas' names."""
    async with engine.connect() as connection:
        left = [name for name, about in (await shadow.ours(connection)).items() if about.purpose == "rebuild"]
    for name in left:
        await shadow.drop(engine, name)
    return left


async def rebuild(work: Work, models: Collection[str] = (), *, limit: int, dry_run: bool) -> Replayed:
    """Fold the log anew and put the result in the place of the live tables, of `models` or of all.

    The result names differing rows, `limit` of each model at most. A dry run only compares: that is `verify`.
    """
    started = monotonic()
    async with alone(work.engine), _shadow(work, models) as replay:
        await replay.run()
        await replay.index()
        compared, behind = await _compare(work, replay, limit)
        kept = None if dry_run else await _swap(work, replay)
        return Replayed(
            tuple(model.name for model in shadow.chosen(models)),
            replay.done,
            monotonic() - started,
            replay.first_seq,
            tuple(compared),
            behind,
            kept,
        )


@asynccontextmanager
async def _shadow(work: Work, models: Collection[str]) -> AsyncIterator[Replay]:
    """A shadow schema with empty tables, and what fills it; it is gone after the block."""
    await sweep(work.engine)
    about = About("rebuild", datetime.now(UTC).isoformat(), tuple(sorted(models)))
    await shadow.make(work.engine, SHADOW, about, {*models, *ALWAYS} if models else ())
    replay = Replay(work, SHADOW, models)
    try:
        yield replay
    finally:
        await replay.close()
        await shadow.drop(work.engine, SHADOW)


@dataclass
class Replay:
    """One way of the whole log into `schema`. `position` is the last sequence whose delivery is in its tables."""

    work: Work
    schema: str
    models: Collection[str] = ()
    until: Until = field(default_factory=Until)
    after: int = 0
    done: int = 0
    first_seq: int = 1
    _phase: str = "replaying"
    _total: int = 0
    _started: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self._js = self.work.nc.jetstream()
        self.writer = self.work.writer(self.schema, self.models)
        self.reading = Reading(self.work.nc, streams.DELIVERIES, self.after)

    async def run(self) -> None:
        """Fold what is in the log by now; first what operators have said of it, so that nothing is folded in vain."""
        info = await self.work.nc.jetstream().stream_info(streams.DELIVERIES)
        self.first_seq, self._total = info.state.first_seq, info.state.messages
        words = Reading(self.work.nc, streams.DELIVERIES, self.after, subjects=OPERATORS_WORDS)
        try:
            await self._fold_all(words, self._end(info.state.last_seq), count=False)
        finally:
            await words.close()
        await self.upto(info.state.last_seq)

    async def upto(self, last: int) -> None:
        """Fold what stands between `position` and the sequence `last`."""
        await self._fold_all(self.reading, self._end(last), count=True)

    async def index(self) -> None:
        """Give the full tables their indexes."""
        await shadow.index(self.work.engine, self.schema, {*self.models, *ALWAYS} if self.models else ())

    async def catch_up(self) -> None:
        """Fold what has come meanwhile, until little enough is left for the moment in which all are held up."""
        self._phase = "catching up"
        while True:
            last = (await self.work.nc.jetstream().stream_info(streams.DELIVERIES)).state.last_seq
            if last - self.reading.position <= TAIL_COUNT_MAX:
                return
            self._total += last - self.reading.position
            await self.upto(last)

    async def close(self) -> None:
        """Leave no consumer behind."""
        await self.reading.close()

    def _end(self, last: int) -> int:
        return last if self.until.seq is None else min(last, self.until.seq)

    async def _fold_all(self, reading: Reading, last: int, *, count: bool) -> None:
        """Read and understand a batch while Postgres writes the one before."""
        writing: asyncio.Task[None] | None = None
        batch: list[Understood] = []
        try:
            with seldom_collected():
                async for messages in reading.upto(last):
                    batch += await self._understood(messages)
                    if len(batch) < BATCH_COUNT:
                        continue
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(self._write(batch, count=count))
                    batch = []
                    await self._spare()
                if writing is not None:
                    await writing
                if batch:
                    await self._write(batch, count=count)
        finally:
            if writing is not None and not writing.done():
                writing.cancel()

    async def _understood(self, messages: Sequence[Msg]) -> list[Understood]:
        found = []
        for n, message in enumerate(messages):
            if n % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            seq = bus.sequence_of(message)
            try:
                delivery = await bus.delivery_of(
                    self._js, message.subject, message.headers, message.data, seq
                )
            except UnreadableDelivery as error:
                stored_at, headers = message.metadata.timestamp, message.headers or {}
                found.append(unreadable(message.subject, headers, message.data, stored_at, seq, error))
                continue
            if self.until.received_at is None or delivery.received_at <= self.until.received_at:
                found.append(understand(self.work.sources, delivery))
        return found

    async def _write(self, batch: Sequence[Understood], *, count: bool) -> None:
        async with self.work.engine.begin() as connection:
            # What a crash of the server takes of a shadow is made anew; nobody waits for its disk.
            await connection.execute(text("SET LOCAL synchronous_commit = off"))
            await self.writer.fold_alone(connection, batch)
        if count:
            self.done += len(batch)
            self._tell()

    def _tell(self) -> None:
        seconds = monotonic() - self._started
        rate = self.done / seconds if seconds else 0.0
        left = max(0, self._total - self.done)
        self.work.tell(Progress(self._phase, self.done, self._total, rate, left / rate if rate else None))

    async def _spare(self) -> None:
        """Wait where it goes faster than it may."""
        if self.work.rate_max:
            ahead_s = self.done / self.work.rate_max - (monotonic() - self._started)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)


async def _compare(work: Work, replay: Replay, limit: int) -> tuple[list[Compared], int]:
    """Compare shadow and live as they are at one moment, at which both have folded the same.

    The projectors are held up only while the tail is folded and the moment is taken. Deliveries that they have in
    hand then are in the shadow and not yet live: their rows are left out, and they are counted.
    """
    for tried in range(1, BEHIND_TRIES + 1):
        await replay.catch_up()
        async with work.engine.connect() as snapshot:
            await snapshot.execution_options(isolation_level="REPEATABLE READ")
            async with _held_up(work.engine) as connection:
                await replay.upto(await _last_folded(connection))
                behind = (await snapshot.execute(text(_BEHIND.format(shadow=replay.schema)))).all()
            if behind and tried < BEHIND_TRIES:
                await snapshot.rollback()
                await asyncio.sleep(BEHIND_AGAIN_S)
                continue
            scope = Scope(
                not_refs={ref for row in behind for ref in row.refs or ()},
                not_sequences={row.stream_seq for row in behind},
                not_sources={row.source for row in behind},
            )
            found = [
                await shadow.compare(snapshot, model, replay.schema, scope=scope, limit=limit)
                for model in shadow.chosen(replay.models)
            ]
            return found, len(behind)
    raise AssertionError  # the last try returns


_BEHIND = (
    "SELECT s.source, s.stream_seq, s.refs FROM {shadow}.deliveries AS s"
    " LEFT JOIN ops.deliveries AS l USING (source, identity, body_sha256)"
    " WHERE l.source IS NULL OR l.last_seq < s.last_seq"
)
"""Deliveries, or copies of them, that the shadow has and the live ledger has not."""


async def _last_folded(connection: AsyncConnection) -> int:
    found = await connection.execute(text(f"SELECT max(last_seq) FROM {SCHEMA}.{LEDGER.name}"))
    return int(found.scalar() or 0)


@asynccontextmanager
async def _held_up(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction in which no projector folds. Raises Busy where that cannot be had within SWAP_S_MAX."""
    given_up_at = monotonic() + SWAP_S_MAX
    while True:
        async with engine.connect() as connection:
            try:
                await connection.execute(text(f"SET LOCAL lock_timeout = '{int(SWAP_LOCK_S_MAX * 1000)}ms'"))
                await own_fold_lock(connection)
            except DBAPIError as error:
                if not _is_locked(error) or monotonic() > given_up_at:
                    raise Busy(
                        "a transaction that folds has not ended for a minute: see pg_stat_activity"
                    ) from error
            else:
                yield connection
                await connection.commit()
                return
        await asyncio.sleep(SWAP_AGAIN_S)


def _is_locked(error: DBAPIError) -> bool:
    """Whether a lock was not to be had in time."""
    return getattr(error.orig, "sqlstate", None) in ("55P03", "40P01")


async def _swap(work: Work, replay: Replay) -> str:
    """Put the shadow in the place of the live tables; the schema in which the old ones are kept."""
    names = [model.name for model in shadow.chosen(replay.models)]
    now = datetime.now(UTC)
    kept = KEPT + shadow.stamp(now)
    given_up_at = monotonic() + SWAP_S_MAX
    carried_since = None
    if LEDGER.name in names:
        carried_since = await _carry_over(work.engine, replay.schema)
    while True:
        await replay.catch_up()
        try:
            async with _held_up(work.engine) as connection:
                after = await _surely_folded(work)
                await replay.upto(await _last_folded(connection))
                if carried_since is not None:
                    await connection.execute(
                        text(_CARRY.format(shadow=replay.schema) + _SINCE), carried_since
                    )
                about = About("before", now.isoformat(), tuple(names), after)
                await shadow.swap(connection, replay.schema, kept, names, about)
            return kept
        except DBAPIError as error:
            if not _is_locked(error):
                raise
            if monotonic() > given_up_at:
                raise Busy(
                    "somebody has been reading the tables in one transaction for a minute: see pg_stat_activity"
                ) from error
        await asyncio.sleep(SWAP_AGAIN_S)


_CARRY = (
    "UPDATE {shadow}.deliveries AS s SET attempts = l.attempts, first_tried_at = l.first_tried_at,"
    " last_error = l.last_error FROM ops.deliveries AS l"
    " WHERE s.source = l.source AND s.identity = l.identity AND s.body_sha256 = l.body_sha256"
)
_SINCE = " AND age(l.xmin) <= age(CAST(:since AS xid))"


async def _carry_over(engine: AsyncEngine, schema: str) -> dict[str, Any]:
    """Take over what only counts work; the mark by which rows written later are known."""
    async with engine.begin() as connection:
        found = await connection.execute(text("SELECT CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text)"))
        since = int(found.scalar_one()) % 2**32
        await connection.execute(text(_CARRY.format(shadow=schema)))
    return {"since": since}


async def _surely_folded(work: Work) -> int:
    """A sequence up to which every delivery is in the live tables: what is acknowledged was committed before."""
    info = await work.nc.jetstream().consumer_info(streams.DELIVERIES, streams.PROJECTOR)
    return info.ack_floor.stream_seq if info.ack_floor else 0
