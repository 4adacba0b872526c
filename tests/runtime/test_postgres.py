"""Addresses of databases, and which errors are outages."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from runtime.postgres import close_engine, is_outage, make_engine
from tests.chaos.proxy import Link
from tests.servers import Database

SOON_S = 5.0


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_an_address_as_providers_print_it_is_taken(scheme: str) -> None:
    url = make_engine(f"{scheme}://user:p%40ss@host:5433/name?sslmode=require", "test").url

    assert ("postgresql+asyncpg", "p@ss", "require") == (url.drivername, url.password, url.query.get("ssl"))
    assert "sslmode" not in url.query


@pytest.mark.anyio
async def test_a_transaction_of_which_nothing_is_heard_is_ended_and_that_is_an_outage(
    database: Database,
) -> None:
    engine = make_engine(database.url("projector"), "test", statement_s_max=0.2)
    with pytest.raises(DBAPIError) as caught:
        async with asyncio.timeout(SOON_S), engine.begin() as connection:
            while True:
                await connection.execute(text("SELECT 1"))
                await asyncio.sleep(0.5)  # as when the process is stopped
    assert is_outage(caught.value)
    await close_engine(engine)


@pytest.mark.anyio
async def test_an_engine_is_closed_although_nobody_answers(database: Database) -> None:
    address = urlsplit(database.url("projector"))
    assert address.port
    link = Link(address.port)
    await link.open()
    engine = make_engine(database.url("projector").replace(str(address.port), str(link.port)), "test")
    async with engine.connect(), engine.connect():
        pass
    link.forget()
    async with asyncio.timeout(SOON_S):
        await close_engine(engine)
    await link.close()
