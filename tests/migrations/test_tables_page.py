"""What docs/tables.md tells readers is so: every table and view, what they may not see, and statements that run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from read_models.registry import READ_MODELS
from tests.servers import Database

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")


async def asked(database: Database, statement: str) -> list[Any]:
    """What the plain reader is answered."""
    connection = await asyncpg.connect(database.url("reader"))
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def test_each_table_and_view_stands_on_the_page_once(database: Database) -> None:
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    there = await asked(
        database,
        "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'ops'::regnamespace AND c.relkind IN ('r', 'v')",
    )
    assert sorted(row[0] for row in there) == sorted(re.findall(r"`([a-z_]+)`", " ".join(cells)))


@pytest.mark.parametrize("statement", re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
async def test_the_reader_may_ask_what_the_page_asks(database: Database, statement: str) -> None:
    await asked(database, statement)  # raises for what is not there, or not to be seen


def test_what_the_plain_reader_does_not_see_is_named() -> None:
    section = PAGE.partition("## What the plain reader does not see")[2]
    hidden = {
        name
        for model in READ_MODELS
        for column in model.columns
        if column.personal
        for name in (model.name, column.name)
    }
    assert hidden == set(re.findall(r"`([a-z_]+)`", section)) - {"odooops_reader_pii"}
