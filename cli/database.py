"""A connection to the database that only reads, and its errors as sentences."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from cli.reach import REACH_S_MAX, Servers, Trouble, place
from runtime import postgres

READER = "reader"


class DatabaseAway(Trouble):
    """the database does not answer"""


class DatabaseRefused(Trouble):
    """the database answers, and not with what was asked for"""


@asynccontextmanager
async def reading(
    servers: Servers, statement_ms_max: int, user: str = READER
) -> AsyncIterator[AsyncConnection]:
    """A read-only session of the reader's or another's login.

    Raises DatabaseAway, and DatabaseRefused for the block.
    """
    address = servers.database(user)
    engine = postgres.make_engine(address, "cli")
    try:
        try:
            async with asyncio.timeout(REACH_S_MAX):
                connection = await engine.connect()
        except (OSError, TimeoutError, SQLAlchemyError) as error:
            raise DatabaseAway(f"the database at {place(address)} does not answer: {reason(error)}") from None
        try:
            await connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
            await connection.execute(text(f"SET statement_timeout = {statement_ms_max}"))
            await connection.commit()  # else a rollback would take the settings back
            yield connection
        except SQLAlchemyError as error:
            raise DatabaseRefused(f"the database says: {reason(error)}") from None
        finally:
            await connection.close()
    finally:
        await engine.dispose()


def reason(error: BaseException) -> str:
    """The first line of what a server or the driver said."""
    origin = getattr(error, "orig", None) or error
    if isinstance(origin, TimeoutError):
        return f"no answer within {REACH_S_MAX:g} s"
    text_ = str(origin.__cause__ or origin).strip() or type(origin).__name__
    return text_.splitlines()[0]
