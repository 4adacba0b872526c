"""`odooops sql`: one statement as the reader's login, in a transaction that can change nothing."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cli import terminal
from cli.asked import Form
from cli.database import reading
from cli.reach import Servers, Trouble

STATEMENT_MS_MAX = 30_000
PERMISSION_DENIED = "42501"
NO_SUCH_TABLE = "42P01"
CANCELLED = "57014"
NO_TEXT = "the statement holds a byte that is not UTF-8"

_DENIED_TABLE = re.compile(r"permission denied for (?:table|view|materialized view) (\S+)")
_RIGHTS = """
SELECT n.nspname || '.' || c.relname AS name,
       array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE may.see) AS seen,
       array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE NOT may.see) AS hidden
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN LATERAL (SELECT has_column_privilege(c.oid, a.attnum, 'SELECT') AS see) AS may
WHERE c.relname = :relation AND n.nspname IN ('ops', 'notify')
GROUP BY 1
"""


class QueryRefused(Trouble):
    """the database did not take a statement; the message says why, and where it can, what to write instead"""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows as the database gave them. `cut`: there were more than `rows_max`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    cut: bool


async def run(servers: Servers, statement: str, form: Form, rows_max: int) -> None:
    """Ask, and print the answer in `form`."""
    _require_text(statement)
    async with reading(servers, STATEMENT_MS_MAX) as connection:
        answer = await ask(connection, statement, rows_max)
    printers = {Form.TABLE: _print_table, Form.JSON: _print_json, Form.CSV: _print_csv}
    printers[form](answer)
    if answer.cut:
        terminal.say(f"cut after {rows_max} rows: ask for fewer, or give --limit")


def from_stdin() -> str:
    """The statement on standard input; raises QueryRefused."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise QueryRefused(NO_TEXT) from None


def _require_text(statement: str) -> None:
    """Raise QueryRefused for what no server takes: bytes that Python could not decode, and NUL."""
    try:
        statement.encode()
    except UnicodeEncodeError:
        raise QueryRefused(NO_TEXT) from None
    if "\0" in statement:
        raise QueryRefused("the statement holds a NUL character, which Postgres does not take")


async def ask(connection: AsyncConnection, statement: str, rows_max: int) -> Answer:
    """The first `rows_max` rows; raises QueryRefused."""
    raw: Any = (await connection.get_raw_connection()).driver_connection
    try:
        # The driver itself: text() would take a colon in the statement for a parameter, and only a cursor
        # leaves rows beyond the limit in the database. A prepared statement is one statement.
        async with raw.transaction(readonly=True):
            prepared = await raw.prepare(statement)
            attributes = prepared.get_attributes()
            rows = await (await prepared.cursor()).fetch(rows_max + 1) if attributes else []
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise await _refusal(connection, error) from None
    if not attributes:
        raise QueryRefused("the statement gives no rows: only questions are taken here")
    return Answer(
        [attribute.name for attribute in attributes],
        [tuple(row) for row in rows[:rows_max]],
        len(rows) > rows_max,
    )


async def _refusal(connection: AsyncConnection, error: Exception) -> QueryRefused:
    """What to tell the operator about a statement that failed."""
    said = str(error).splitlines()[0]
    state = getattr(error, "sqlstate", None)
    if state == CANCELLED:
        return QueryRefused(f"the statement took longer than {STATEMENT_MS_MAX // 1000} s and was stopped")
    if state == NO_SUCH_TABLE:
        return QueryRefused(f"{said}: tables are in the schemas ops and notify, as in ops.builds")
    denied = _DENIED_TABLE.search(said)
    if state != PERMISSION_DENIED or denied is None:
        return QueryRefused(said)
    rights = (await connection.execute(text(_RIGHTS), {"relation": denied[1]})).first()
    if rights is None or not rights.seen:
        return QueryRefused(f"{said}: the reader's login has no right to it")
    return QueryRefused(
        f"the reader's login may not see {', '.join(rights.hidden)} of {rights.name}: "
        f"name the columns that you want, out of {', '.join(rights.seen)}"
    )


def _print_table(answer: Answer) -> None:
    cut = terminal.print_rows(answer.columns, [[_text(value) for value in row] for row in answer.rows])
    terminal.console().print(f"({len(answer.rows)} row{'' if len(answer.rows) == 1 else 's'})")
    if cut:
        terminal.say(f"cells were cut after {terminal.CELL_CHARS_MAX} characters: --csv gives them whole")


def _print_json(answer: Answer) -> None:
    twice = {name for name in answer.columns if list(answer.columns).count(name) > 1}
    if twice:
        raise QueryRefused(f"two columns are called {min(twice)}: tell them apart with AS")
    terminal.print_json([dict(zip(answer.columns, row, strict=True)) for row in answer.rows])


def _print_csv(answer: Answer) -> None:
    """For programs: a value comes out as it is, unless a person watches."""
    harmless = terminal.clean if sys.stdout.isatty() else str
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.columns)
    for row in answer.rows:
        writer.writerow("" if value is None else harmless(str(_text(value))) for value in row)


def _text(value: Any) -> Any:
    """A value as a table or a CSV file shows it."""
    match value:
        case bytes() | memoryview():
            return bytes(value).hex()
        case list() | tuple() | dict():
            return json.dumps(value, default=str, ensure_ascii=False)
        case datetime():
            return value.isoformat()
        case _:
            return value
