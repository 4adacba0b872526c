"""Folding the whole log anew, beside the live tables: to put the result in their place, or only to compare it.

The shadow is made by the code that serves live, in the order of the log, by one writer. Until the swap, which is one
transaction, nothing live is touched; whoever is killed before leaves a schema that `status` names and the next run
removes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamState
from nats.js.errors import APIError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts import delivery as wire
from contracts.delivery import Delivery, UnreadableDelivery
from contracts.ledger import DeliveryDiscarded, DeliveryRedacted, SecretExcluded
from contracts.own import SOURCE
from providers.port import Source
from read_models.deliveries import SET_ASIDE
from read_models.registry import LEDGER
from read_models.table import SCHEMA
from runtime import bus, streams
from runtime.bus import BrokerAway, LogTrimmed
from runtime.garbage import seldom_collected
from runtime.postgres import REBUILD_LOCK, is_outage, own_fold_lock
from runtime.reading import AWAY_S_MAX, Reading
from services.projector import seed, shadow
from services.projector.fingerprint import fingerprints, record, recorded
from services.projector.shadow import About, Compared, Scope
from services.projector.sql import ALWAYS, Sql
from services.projector.understand import Understood, understand, unreadable
from services.projector.write import Writer, refused

SHADOW = "ops_rebuild"
KEPT = "ops_before_"
WORD_KINDS = [event.type for event in (DeliveryDiscarded, DeliveryRedacted, SecretExcluded)]
OPERATORS_WORDS = tuple(f"{wire.SUBJECT_ROOT}.{SOURCE}.{kind}" for kind in WORD_KINDS)
BATCH_COUNT = 1_000
"""Deliveries folded in one transaction."""
YIELD_EVERY = 16
"""Deliveries understood in one go: between, Postgres is given its next statement."""
SWAP_LOCK_S_MAX = 0.2
"""How long the swap waits for a lock, and holds up everybody behind it, before it lets them pass and tries again."""
SWAP_S_MAX = 300.0
SWAP_AGAIN_S = 0.5
TAIL_COUNT_MAX = 2_000
"""Deliveries that may be left to fold while the projectors are held up."""
UNHEARD_COUNT_MAX = 1_000
"""Parked deliveries that are named where today's code understands them."""
BEHIND_COUNT_MAX = 20_000
"""Deliveries in hand, and those that share an identity with one, whose rows are left out of a comparison."""
BEHIND_TRIES = 5
BEHIND_AGAIN_S = 0.3
KEEP_ALIVE_S = 60


class RebuildRunning(Exception):
    """another rebuild or verification runs; the message says which"""


class Busy(Exception):
    """the tables could not be had for long enough"""


class AnotherLog(Exception):
    """the log is not the one of which the tables were made, or a part of it that is needed is gone"""


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
    proven_from: int = 1
    """The sequence from which on the log proves the tables, which is above 1 where it was trimmed."""
    taken_over: Mapping[str, int] = field(default_factory=dict)
    """Rows that rest on what was trimmed, by model: they are as they were live."""
    unheard: tuple[int, ...] = ()
    """Parked deliveries that today's code understands, by sequence: their events were never published."""
    older: tuple[str, ...] = ()
    """Models of which it was not known that all their rows were made by today's code and SSOT."""


@asynccontextmanager
async def alone(engine: AsyncEngine) -> AsyncIterator[int]:
    """While the block runs, no other rebuild does; the database process that says so. Raises RebuildRunning."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        # It is silent for hours, and whoever cuts it gives the lock to the next one.
        await connection.execute(text("SET idle_session_timeout = 0"))
        await connection.execute(text(f"SET tcp_keepalives_idle = {KEEP_ALIVE_S}"))
        if not (await connection.execute(_TRY_LOCK, {"key": REBUILD_LOCK})).scalar_one():
            other = (await connection.execute(_WHO, {"key": REBUILD_LOCK})).first()
            since = (
                f" since {other.backend_start:%Y-%m-%d %H:%M:%S} UTC, database process {other.pid}"
                if other and other.backend_start
                else ""
            )
            raise RebuildRunning(f"another rebuild or verification runs{since}: wait for it, or stop it")
        try:
            yield int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())
        finally:
            with suppress(DBAPIError, OSError):  # a lost connection has given it back
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


def _unread(compared: Sequence[Compared], behind: int) -> None:
    """Nobody wants to know before the end."""


async def rebuild(
    work: Work,
    models: Collection[str] = (),
    *,
    limit: int,
    dry_run: bool,
    in_place: bool = False,
    found: Callable[[Sequence[Compared], int], None] = _unread,
) -> Replayed:
    """Fold the log anew and put the result in the place of the live tables, of `models` or of all.

    The result names differing rows, `limit` of each model at most; `found` is told of them, and how many deliveries
    the live side had yet to fold, before anything is changed. A dry run only compares: that is `verify`. With
    `in_place` the differing rows are replaced where they are, and no old tables are kept.

    Raises RebuildRunning, AnotherLog, InTheWay, Busy, and BrokerAway.
    """
    started = monotonic()
    today = fingerprints(work.sources)
    names = tuple(model.name for model in shadow.chosen(models))
    async with alone(work.engine) as process:
        await same_log(work)
        async with work.engine.connect() as connection:
            known = await recorded(connection)
            if not dry_run and not in_place:
                await shadow.check_swap(connection, names)
        async with replaying(work, models, process) as replay:
            await replay.run()
            await replay.index()
            compared, behind, unheard = await _compare(work, replay, limit)
            found(compared, behind)
            kept = None
            made_by = {name: today[name] for name in names}
            if dry_run:
                equal = {each.model for each in compared if each.equal and not behind}
                await _record(work.engine, {name: today[name] for name in names if name in equal})
            elif in_place:
                await mend_in_place(work, replay, made_by)
            else:
                kept = await put_in_place(work, replay, made_by)
    return Replayed(
        names,
        replay.done,
        monotonic() - started,
        replay.first_seq,
        tuple(compared),
        behind,
        kept,
        replay.proven_from,
        replay.taken_over,
        tuple(unheard),
        tuple(name for name in names if known.get(name) != today[name]),
    )


async def _record(engine: AsyncEngine, made_by: Mapping[str, str]) -> None:
    async with engine.begin() as connection:
        await record(connection, made_by)


async def state_of_log(nc: Client) -> StreamState:
    """Where DELIVERIES begins and ends. Waits for a broker that is away, and raises BrokerAway after AWAY_S_MAX."""
    given_up_at = monotonic() + AWAY_S_MAX
    while True:
        try:
            return (await nc.jetstream().stream_info(streams.DELIVERIES)).state
        except (nats.errors.Error, APIError, OSError) as error:
            if monotonic() > given_up_at:
                said = error or type(error).__name__
                raise BrokerAway(f"{streams.DELIVERIES} cannot be read: {said}") from None
        await asyncio.sleep(streams.RECONNECT_WAIT_S)


_READ = text(
    f"SELECT max(last_seq) FROM {SCHEMA}.{LEDGER.name} WHERE status NOT IN ('discarded', 'redacted')"
)
"""How far the projectors have read; what operators say of a delivery may name any sequence."""


async def same_log(work: Work) -> StreamState:
    """The state of the log; raises AnotherLog where it ends before what the tables have read: it was lost."""
    async with work.engine.connect() as connection:
        read = (await connection.execute(_READ)).scalar()
    state = await state_of_log(work.nc)
    if read is not None and read > state.last_seq:
        raise AnotherLog(
            f"the ledger has read up to {read}, the log ends at {state.last_seq}: it was lost, or this is another one"
        )
    return state


def _with_ledger(models: Collection[str]) -> Collection[str]:
    """`models` and those without which nothing can be settled; none named means all."""
    return {*models, *ALWAYS} if models else ()


@asynccontextmanager
async def replaying(
    work: Work, models: Collection[str], process: int, until: Until | None = None
) -> AsyncIterator[Replay]:
    """A shadow schema with empty tables, and what fills it; it is gone after the block. Call it `alone`.

    Nobody else has a schema of that name: who has lost the lock that keeps others away writes into no other's.
    """
    await sweep(work.engine)
    schema = f"{SHADOW}_{process}"
    about = About("rebuild", datetime.now(UTC).isoformat(), tuple(sorted(models)))
    await shadow.make(work.engine, schema, about, _with_ledger(models))
    replay = Replay(work, schema, models, until or Until())
    try:
        yield replay
    finally:
        with suppress(nats.errors.Error, APIError, OSError):  # the broker forgets its consumer by itself
            await replay.close()
        with suppress(DBAPIError, OSError):  # `status` names it, and the next run removes it
            await shadow.drop(work.engine, schema)


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
    proven_from: int = 1
    taken_over: dict[str, int] = field(default_factory=dict)
    _left_out: int = 0
    _seeded_for: int = 1
    _stuck: frozenset[int] = frozenset()
    _phase: str = "replaying"
    _total: int = 0
    _started: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self._js = self.work.nc.jetstream()
        self.writer = self.work.writer(self.schema, self.models)
        self.reading = Reading(self.work.nc, streams.DELIVERIES, self.after)

    async def run(self) -> None:
        """Fold what is in the log by now; first what operators have said of it, so that nothing is folded in vain."""
        state = await state_of_log(self.work.nc)
        self.first_seq, self._total = state.first_seq, state.messages
        await self._seed()
        words = Reading(self.work.nc, streams.DELIVERIES, self.after, subjects=OPERATORS_WORDS)
        try:
            await self._fold_all(words, self._end(state.last_seq), count=False, spare=True)
        finally:
            await words.close()
        await self._seed()
        await self.upto(state.last_seq)

    async def _seed(self) -> None:
        """Take over what rests on trimmed deliveries; a log with an age limit loses more of them while we look."""
        while self.until == Until():
            self.first_seq = (await state_of_log(self.work.nc)).first_seq
            if self.first_seq <= self._seeded_for:
                return
            self._seeded_for, models = self.first_seq, _with_ledger(self.models)
            if seeded := await seed.seed(self.work.engine, self.schema, models, self.first_seq):
                self.proven_from, self._stuck = self.first_seq, seeded.stuck
                for model, count in seeded.rows.items():
                    self.taken_over[model] = self.taken_over.get(model, 0) + count

    async def upto(self, last: int, *, spare: bool = True) -> None:
        """Fold what stands between `position` and the sequence `last`; where others wait for it, without `spare`."""
        await self._fold_all(self.reading, self._end(last), count=True, spare=spare)

    async def index(self) -> None:
        """Give the full tables their indexes."""
        await shadow.index(self.work.engine, self.schema, _with_ledger(self.models))

    async def catch_up(self) -> None:
        """Fold what has come meanwhile, until little enough is left for the moment in which all are held up."""
        self._phase = "catching up"
        while True:
            last = (await state_of_log(self.work.nc)).last_seq
            if last - self.reading.position <= TAIL_COUNT_MAX:
                return
            self._total += last - self.reading.position
            await self.upto(last)

    async def close(self) -> None:
        """Leave no consumer behind."""
        await self.reading.close()

    def _end(self, last: int) -> int:
        return last if self.until.seq is None else min(last, self.until.seq)

    async def _fold_all(self, reading: Reading, last: int, *, count: bool, spare: bool) -> None:
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
                    if spare:
                        await self._spare()
                if writing is not None:
                    await writing
                if batch:
                    await self._write(batch, count=count)
        finally:
            if writing is not None and not writing.done():
                writing.cancel()
                await asyncio.wait([writing])

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
                made = unreadable(message.subject, headers, message.data, stored_at, seq, error)
                if self._is_wanted(made.delivery):
                    found.append(made)
                continue
            if self._is_wanted(delivery):
                found.append(understand(self.work.sources, delivery))
        if self._left_out:
            self._tell()
        return found

    def _is_wanted(self, delivery: Delivery) -> bool:
        wanted = self.until.received_at is None or delivery.received_at <= self.until.received_at
        self._left_out += not wanted
        return wanted

    async def _write(self, batch: Sequence[Understood], *, count: bool) -> None:
        await self._fold(seed.as_live(batch, self._stuck))
        if count:
            self.done += len(batch)
            self._tell()

    async def _fold(self, batch: Sequence[Understood]) -> None:
        """Fold a batch; a delivery of it whose data Postgres refuses is parked, as the projector does."""
        try:
            async with self.work.engine.begin() as connection:
                # What a crash of the server takes of a shadow is made anew; nobody waits for its disk.
                await connection.execute(text("SET LOCAL synchronous_commit = off"))
                await self.writer.fold_alone(connection, batch)
        except LogTrimmed as error:
            raise Busy(
                "an operator has set deliveries aside, and the rows that they share with trimmed ones are not"
                f" mended yet ({error}): try again when the projector has caught up"
            ) from error
        except (DBAPIError, TypeError) as error:
            half = len(batch) // 2
            if is_outage(error) or (len(batch) == 1 and batch[0].status == "parked"):
                raise
            for part in (batch[:half], batch[half:]) if half else ([refused(batch[0], error)],):
                await self._fold(part)

    def _tell(self) -> None:
        seconds = monotonic() - self._started
        done = self.done + self._left_out
        rate = done / seconds if seconds else 0.0
        left = max(0, self._total - done)
        self.work.tell(Progress(self._phase, done, self._total, rate, left / rate if rate else None))

    async def _spare(self) -> None:
        """Wait where it goes faster than it may."""
        if self.work.rate_max:
            ahead_s = self.done / self.work.rate_max - (monotonic() - self._started)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)


async def _compare(work: Work, replay: Replay, limit: int) -> tuple[list[Compared], int, list[int]]:
    """Compare shadow and live as they are at one moment, at which both have folded the same.

    The projectors are held up only while the tail is folded and the moment is taken. Deliveries that they have in
    hand then are in the shadow and not yet live: their rows are left out, and they are counted. The third are those
    of which nobody has heard, by sequence.
    """
    for tried in range(1, BEHIND_TRIES + 1):
        await replay.catch_up()
        surely = await _surely_folded(work)
        async with work.engine.connect() as snapshot:
            await snapshot.execution_options(isolation_level="REPEATABLE READ")
            async with _held_up(work.engine) as connection:
                await replay.upto(await _last_folded(work, connection), spare=False)
                await snapshot.execute(text("SELECT"))  # from here on it sees this moment
            values = {"surely": surely, "words": WORD_KINDS, "own": SOURCE, "aside": sorted(SET_ASIDE)}
            behind = (await snapshot.execute(text(_BEHIND.format(shadow=replay.schema)), values)).all()
            if len(behind) > BEHIND_COUNT_MAX:
                raise Busy(
                    f"the projectors are over {BEHIND_COUNT_MAX:,} deliveries behind: let them catch up first"
                    " (odooops status shows their lag)"
                )
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
            unheard = await snapshot.execute(text(_UNHEARD.format(shadow=replay.schema)))
            return found, sum(row.waits for row in behind), [row.stream_seq for row in unheard]
    raise AssertionError  # the last try returns


_UNHEARD = (
    "SELECT l.stream_seq FROM ops.deliveries AS l JOIN {shadow}.deliveries AS s USING (source, identity, body_sha256)"
    f" WHERE l.status = 'parked' AND s.status = 'projected' ORDER BY l.stream_seq LIMIT {UNHEARD_COUNT_MAX}"
)

_BEHIND = (
    "WITH both_sides AS (SELECT s.source, s.identity, s.body_sha256, s.status, l.status AS live_status,"
    " s.source = :own AND s.kind = ANY(CAST(:words AS text[])) AS word,"
    " s.last_seq > :surely AND (l.source IS NULL OR l.last_seq < s.last_seq OR l.stream_seq > s.stream_seq) AS waits"
    " FROM {shadow}.deliveries AS s LEFT JOIN ops.deliveries AS l USING (source, identity, body_sha256)),"
    " behind AS (SELECT DISTINCT source, identity FROM both_sides AS b WHERE waits"
    " OR status = ANY(CAST(:aside AS text[])) AND live_status IS DISTINCT FROM status"
    " AND EXISTS (SELECT FROM both_sides WHERE waits AND word))"
    " SELECT d.source, d.stream_seq, d.refs, COALESCE(b.waits, false) AS waits"
    " FROM behind JOIN {shadow}.deliveries AS d USING (source, identity)"
    " LEFT JOIN both_sides AS b USING (source, identity, body_sha256)"
    " UNION ALL SELECT d.source, d.stream_seq, d.refs, false"
    f" FROM behind JOIN ops.deliveries AS d USING (source, identity) LIMIT {BEHIND_COUNT_MAX + 1}"
)
"""Deliveries, or copies of them, that the shadow has and the live ledger has not yet: what was acknowledged and is
not there is lost, which is a difference. With them go the other bodies of their identities, and where an operator's
word is among them what it may be about."""


async def _last_folded(work: Work, connection: AsyncConnection) -> int:
    """The last delivery of the log that may be in the live tables."""
    read = (await connection.execute(text(f"SELECT max(last_seq) FROM {SCHEMA}.{LEDGER.name}"))).scalar()
    # An operator's word may name a sequence that the log has not reached.
    return min(int(read or 0), (await state_of_log(work.nc)).last_seq)


@asynccontextmanager
async def _held_up(
    engine: AsyncEngine, untidied: Callable[[AsyncConnection], Awaitable[None]] | None = None
) -> AsyncIterator[AsyncConnection]:
    """A transaction in which no projector folds. Raises Busy where that cannot be had within SWAP_S_MAX."""
    given_up_at = monotonic() + SWAP_S_MAX
    while True:
        async with engine.connect() as connection:
            try:
                if untidied is not None:
                    await untidied(connection)
                await connection.execute(text(f"SET LOCAL lock_timeout = '{int(SWAP_LOCK_S_MAX * 1000)}ms'"))
                await own_fold_lock(connection)
            except DBAPIError as error:
                if not _is_locked(error):
                    raise
                if monotonic() > given_up_at:
                    raise Busy(
                        f"a transaction that folds has not ended for {SWAP_S_MAX:g} s: see pg_stat_activity"
                    ) from error
            else:
                yield connection
                await connection.commit()
                return
        await asyncio.sleep(SWAP_AGAIN_S)


def _is_locked(error: DBAPIError) -> bool:
    """Whether a lock was not to be had in time."""
    return getattr(error.orig, "sqlstate", None) in ("55P03", "40P01", "57014")


async def put_in_place(work: Work, replay: Replay, made_by: Mapping[str, str]) -> str:
    """Put the replay's tables in the place of the live ones; the schema in which the old ones are kept.

    `made_by` are the fingerprints of what made its rows. Raises InTheWay and Busy.
    """
    names = [model.name for model in shadow.chosen(replay.models)]
    now = datetime.now(UTC)
    kept = await _free_name(work.engine, KEPT + shadow.stamp(now))
    carried_since = await _carry_over(work, replay) if LEDGER.name in names else None

    async def swap(connection: AsyncConnection, after: int) -> None:
        if carried_since is not None:
            for which in (_COME_SINCE, _WRITTEN_SINCE):
                await connection.execute(text(_CARRY.format(shadow=replay.schema) + which), carried_since)
        known = await recorded(connection)
        old = {name: known[name] for name in names if name in known}
        about = About("before", now.isoformat(), tuple(names), after, made_by=old)
        await shadow.swap(connection, replay.schema, kept, names, about)
        await record(connection, made_by)

    await _at_one_moment(work, replay, swap, [SCHEMA, replay.schema])
    return kept


async def _free_name(engine: AsyncEngine, name: str) -> str:
    """`name`, or the first of `<name>_2`, `<name>_3` … that no schema has: two swaps may fall into one second."""
    async with engine.connect() as connection:
        taken = {*await shadow.ours(connection)}
    return next(
        each for each in (name, *(f"{name}_{n}" for n in range(2, len(taken) + 3))) if each not in taken
    )


async def mend_in_place(work: Work, replay: Replay, made_by: Mapping[str, str]) -> None:
    """Make the live rows those of the replay, where they are. Raises Busy."""

    async def mend(connection: AsyncConnection, after: int) -> None:
        await shadow.put_right(connection, replay.schema, made_by)
        await record(connection, made_by)

    await _at_one_moment(work, replay, mend, [])


async def _at_one_moment(
    work: Work,
    replay: Replay,
    change: Callable[[AsyncConnection, int], Awaitable[None]],
    untidied: Sequence[str],
) -> None:
    """In one transaction, in which nobody folds: replay the tail, then `change`; again where a lock is not to be had.

    `change` is given the sequence up to which the live tables surely have everything. Autovacuum is kept from the
    tables in the schemas `untidied`.
    """

    async def keep_away(connection: AsyncConnection) -> None:
        if untidied:
            await shadow.keep_tidying_away(connection, untidied, replay.models)

    given_up_at = monotonic() + SWAP_S_MAX
    while True:
        await replay.catch_up()
        try:
            async with _held_up(work.engine, keep_away) as connection:
                after = await _surely_folded(work)
                await replay.upto(await _last_folded(work, connection), spare=False)
                await change(connection, after)
            return
        except DBAPIError as error:
            if not _is_locked(error):
                raise
            if monotonic() > given_up_at:
                raise Busy(
                    f"somebody has been in the tables for {SWAP_S_MAX:g} s, in one transaction: {await _who(work)}"
                ) from error
        await asyncio.sleep(SWAP_AGAIN_S)


async def _who(work: Work) -> str:
    """Who has locks on tables of ops, in a few words."""
    async with work.engine.connect() as connection:
        rows = (await connection.execute(_HOLDERS, {"schema": SCHEMA})).all()
    return "; ".join(f"{row.usename} {row.application_name}, database process {row.pid}" for row in rows) or (
        "see pg_stat_activity"
    )


HOLDERS_MAX = 5
_HOLDERS = text(
    "SELECT DISTINCT a.usename, a.application_name, a.pid FROM pg_locks AS l"
    " JOIN pg_class AS c ON l.relation = c.oid JOIN pg_stat_activity AS a USING (pid)"
    " WHERE l.granted AND c.relnamespace = to_regnamespace(:schema) AND a.pid <> pg_backend_pid()"
    f" AND a.datname = current_database() ORDER BY a.pid LIMIT {HOLDERS_MAX}"
)
_CARRY = (
    "UPDATE {shadow}.deliveries AS s SET attempts = l.attempts, first_tried_at = l.first_tried_at,"
    " last_error = CASE WHEN (s.status, s.reason) IS NOT DISTINCT FROM (l.status, l.reason)"
    " THEN l.last_error ELSE s.last_error END FROM ops.deliveries AS l"
    " WHERE s.source = l.source AND s.identity = l.identity AND s.body_sha256 = l.body_sha256"
)
# Apart, and by an index or a row's place: joined whole, everybody would be held up ten times as long (measured).
_COME_SINCE = " AND s.stream_seq > :position"
_WRITTEN_SINCE = (
    " AND l.ctid = ANY(ARRAY(SELECT ctid FROM ops.deliveries WHERE age(xmin) <= age(CAST(:since AS xid))))"
)


async def _carry_over(work: Work, replay: Replay) -> dict[str, Any]:
    """Take over what only counts work; the marks by which rows written later, on either side, are known."""
    async with work.engine.begin() as connection:
        found = await connection.execute(text("SELECT CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text)"))
        since = int(found.scalar_one()) % 2**32
        await connection.execute(text(_CARRY.format(shadow=replay.schema)))
    return {"since": since, "position": replay.reading.position}


async def _surely_folded(work: Work) -> int:
    """A sequence up to which every delivery is in the live tables: what is acknowledged was committed before."""
    try:
        info = await work.nc.jetstream().consumer_info(streams.DELIVERIES, streams.PROJECTOR)
    except (nats.errors.Error, APIError, OSError):
        return 0  # nothing is sure
    return info.ack_floor.stream_seq if info.ack_floor else 0
