"""Putting replayed tables in the place of the live ones, or their rows: in one transaction, in which nobody folds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import nats.errors
from nats.js.errors import APIError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from read_models.registry import LEDGER
from read_models.table import SCHEMA
from runtime import streams
from runtime.postgres import own_fold_lock
from services.projector import shadow
from services.projector.fingerprint import record, recorded
from services.projector.replaying import Replay
from services.projector.shadow import About
from services.projector.work import Busy, Work, state_of_log

KEPT = "ops_before_"
SWAP_LOCK_S_MAX = 0.2
"""How long the swap waits for a lock, and holds up everybody behind it, before it lets them pass and tries again."""
SWAP_S_MAX = 300.0
SWAP_AGAIN_S = 0.5


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
            async with held_up(work.engine, keep_away) as connection:
                after = await surely_folded(work)
                await replay.upto(await last_folded(work, connection))
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
    return {"since": since, "position": replay.position}


@asynccontextmanager
async def held_up(
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


async def last_folded(work: Work, connection: AsyncConnection) -> int:
    """The last delivery of the log that may be in the live tables."""
    read = (await connection.execute(text(f"SELECT max(last_seq) FROM {SCHEMA}.{LEDGER.name}"))).scalar()
    # An operator's word may name a sequence that the log has not reached.
    return min(int(read or 0), (await state_of_log(work.nc)).last_seq)


async def surely_folded(work: Work) -> int:
    """A sequence up to which every delivery is in the live tables: what is acknowledged was committed before."""
    try:
        info = await work.nc.jetstream().consumer_info(streams.DELIVERIES, streams.PROJECTOR)
    except (nats.errors.Error, APIError, OSError):
        return 0  # nothing is sure
    return info.ack_floor.stream_seq if info.ack_floor else 0
