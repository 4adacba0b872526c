"""What an operation on the whole log needs: servers, sources, the right to be the only one, and a log that is whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic

import nats.errors
from nats.aio.client import Client
from nats.js.api import StreamState
from nats.js.errors import APIError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from providers.port import Source
from read_models.registry import LEDGER
from read_models.table import SCHEMA
from runtime import bus, streams
from runtime.bus import BrokerAway
from runtime.postgres import REBUILD_LOCK
from runtime.reading import AWAY_S_MAX
from services.projector.sql import Sql
from services.projector.write import Writer

KEEP_ALIVE_S = 60
STATEMENT_S_MAX = 3_600
"""Of a statement over whole tables: indexes, comparisons."""


class RebuildRunning(Exception):
    """another rebuild, or whatever else goes by the whole log, runs; the message says since when"""


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


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where other processes of one operation reach the servers, with the operator's rights."""

    nats: str
    database: str


@dataclass(frozen=True)
class Work:
    """What every operation on a whole log needs."""

    nc: Client
    engine: AsyncEngine
    sources: Mapping[str, Source]
    tell: Tell
    rate_max: float | None = None
    """Deliveries per second, where it is to spare the servers."""
    addresses: Addresses | None = None
    """None: it stays in this process."""

    def writer(self, schema: str, models: Collection[str] = ()) -> Writer:
        """What writes into `schema`."""
        js = self.nc.jetstream()
        return Writer(
            self.engine, Sql.of(schema, models), self.sources, lambda seq: bus.read_delivery(js, seq)
        )


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
            raise RebuildRunning(
                f"another rebuild, verification, redaction, archive or backup runs{since}: wait for it, or stop it"
            )
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
    """Whether a rebuild, or whatever else goes by the whole log, runs now."""
    return (await connection.execute(_WHO, {"key": REBUILD_LOCK})).first() is not None


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
