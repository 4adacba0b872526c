"""The database: engines, which errors are outages, and the lock that a swap of tables waits for."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from asyncpg import exceptions as pg
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runtime.settings import BadSettings

POOL_CONNECTIONS_MAX = 6
CONNECT_S_MAX = 5
STATEMENT_S_MAX = 60
CLOSE_S_MAX = 1.5

FOLD_LOCK = 0x0D00_0095
"""Key of the advisory lock that every transaction writing `ops.*` takes shared before it names a table."""
REBUILD_LOCK = 0x0D00_0096
"""Key of the advisory lock that a rebuild holds for as long as it lives: one at a time."""
RETRY_LOCK = 0x0D00_0097
"""Key of the advisory lock that a retry of parked deliveries holds for as long as it lives."""
OWNER = "odooops_owner"
"""The role that owns `ops` and what is in it."""

_OUTAGE_CLASSES = (
    "08",  # connection
    "40",  # serialisation failure, deadlock
    "53",  # out of disk, memory or connections
    "55",  # lock not available, object in use
    "57",  # shut down, cancelled
    "58",  # I/O error of the server
    "28",  # login refused
    "42",  # a table, column or right is missing: code and migrations differ, which is not the data's fault
    "0A",  # a cached plan outlived a migration
    "25006",  # read-only
    "25P03",  # this process was stopped, or not heard of, within a transaction
)


def make_engine(url: str, application: str, statement_s_max: float = STATEMENT_S_MAX) -> AsyncEngine:
    """An engine for a `postgresql://` address; connections are made when first needed."""
    try:
        address = _address(url)
    except (ArgumentError, ValueError):
        # Said without the error, which may quote a part of the password.
        raise BadSettings(
            f"the database address of {application} is none like postgresql://user:password@host:5432/name"
        ) from None
    return create_async_engine(
        address,
        pool_size=POOL_CONNECTIONS_MAX,
        max_overflow=0,
        pool_pre_ping=False,
        hide_parameters=True,
        connect_args={
            "timeout": CONNECT_S_MAX,
            "command_timeout": statement_s_max,
            "server_settings": {
                "application_name": f"odooops-{application}",
                "jit": "off",
                # Else the locks of a connection that was silently lost are kept until TCP finds out, hours later.
                "idle_in_transaction_session_timeout": str(int(statement_s_max * 1000)),
            },
        },
    )


async def close_engine(engine: AsyncEngine) -> None:
    """Close its connections; those on which nobody answers are left after CLOSE_S_MAX."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_S_MAX):
            await engine.dispose()


def _address(url: str) -> URL:
    address = make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+asyncpg")
    # libpq's name for it, which every provider prints in its addresses; asyncpg calls it otherwise.
    if (mode := address.query.get("sslmode")) is not None:
        address = address.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return address


def is_outage(error: BaseException) -> bool:
    """Whether `error` says that the database is away or busy, rather than that the data is wrong."""
    if isinstance(error, (OSError, TimeoutError, InterfaceError)):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        state = getattr(error.orig, "sqlstate", None) or ""
        return not state or state.startswith(_OUTAGE_CLASSES)
    return isinstance(error, (pg.PostgresConnectionError, pg.InterfaceError))


def _joins_of_whole_tables(allowed: str) -> str:
    names = ("enable_hashjoin", "enable_mergejoin")
    return ", ".join(f"set_config('{name}', '{allowed}', true)" for name in names)


_SHARE = text(f"SELECT pg_advisory_xact_lock_shared(:key), {_joins_of_whole_tables('off')}").bindparams(
    key=FOLD_LOCK
)
_PLAN_FREELY = text(f"SELECT {_joins_of_whole_tables('on')}")
_OWN = text("SELECT pg_advisory_xact_lock(:key)").bindparams(key=FOLD_LOCK)


async def share_fold_lock(connection: AsyncConnection) -> None:
    """Take the fold lock shared until the transaction ends: others may fold beside, nobody may swap.

    Until then, or `plan_freely`, rows are found by index. A plan that is made while a table is small is kept until
    Postgres analyzes the table, up to a minute later: by hash, each batch would read all of the ledger meanwhile
    (measured at 500 deliveries a second: 37 ms to the visible row instead of 23 after 15 s, and ever more).
    """
    await connection.execute(_SHARE)


async def plan_freely(connection: AsyncConnection) -> None:
    """Let Postgres join as it likes again in a transaction that has shared the fold lock."""
    await connection.execute(_PLAN_FREELY)


async def own_fold_lock(connection: AsyncConnection) -> None:
    """Take the fold lock alone until the transaction ends: nobody else folds meanwhile."""
    await connection.execute(_OWN)
