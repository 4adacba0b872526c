"""`odooops rebuild` and `odooops verify` on real servers, and what `status` says of them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.main import main
from runtime import postgres
from tests.conftest import Broker
from tests.processes import forked
from tests.servers import Database
from tests.services.projector.rebuilding import mixed, schemas
from tests.services.projector.running import project_all, store_batch, until
from tests.tables import count, snapshot

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def folded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    monkeypatch.delenv("ODOOOPS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    for user in ("reader", "operator"):
        monkeypatch.setenv(f"NATS_URL_{user.upper()}", broker.url(user))
        monkeypatch.setenv(f"DATABASE_URL_{user.upper()}", database.url(user))
    await store_batch(broker, list(mixed())[:60])
    await project_all(broker, engine)


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = postgres.make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


class Terminal:
    """Runs commands beside the test's event loop."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.code, self.said = 0, ""

    async def __call__(self, *arguments: str) -> str:
        """What the command printed; `code` and `said` hold the rest."""
        self.code = await asyncio.to_thread(main, arguments)
        told = self.capsys.readouterr()
        self.said = told.err
        return told.out

    async def json(self, *arguments: str) -> Any:
        printed = await self(*arguments, "--json")
        assert printed, self.said
        return json.loads(printed)


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


def checks(told: Any, part: str) -> list[tuple[str, str]]:
    return [(each["state"], each["text"]) for each in told["checks"] if each["part"] == part]


async def test_a_row_changed_by_hand_is_found_mended_and_brought_back(
    terminal: Terminal, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE ops.work_items SET title = 'by \x1b[2J hand' WHERE title IS NOT NULL")
        )
    changed = await count(engine, "work_items", "title LIKE 'by %'")

    printed = await terminal("verify", "work_items", "builds", "--limit", "2")
    assert (terminal.code, "\x1b" in printed) == (1, False)
    assert "odooops rebuild work_items makes the rows what the log says" in printed
    assert r"title: live 'by \x1b[2J hand', by the log " in printed
    assert "made by older code or SSOT, as far as was known: builds, work_items" in printed

    told = await terminal.json("rebuild", "--dry-run")
    assert terminal.code == 0
    assert [changed] == [each["changed"] for each in told["compared"] if each["changed"]]
    assert changed == await count(engine, "work_items", "title LIKE 'by %'")

    printed = await terminal("rebuild", "work_items")
    assert terminal.code == 0, terminal.said
    (kept,) = await schemas(engine)
    assert printed.index("by the log") < printed.index(f"the tables before it are kept in {kept}")
    assert 0 == await count(engine, "work_items", "title LIKE 'by %'")
    assert (await terminal.json("verify"))["equal"]
    assert terminal.code == 0

    told = await terminal.json("status")
    assert [("ok", "all made by today's code and SSOT")] == checks(told, "rows")
    ((state, said),) = checks(told, "old tables")
    assert (state, said.startswith(f"{kept} of ")) == ("ok", True)
    assert told["old_tables"][kept]["bytes"] > 0

    assert "put back" in await terminal("rebuild", "--rollback")
    assert changed == await count(engine, "work_items", "title LIKE 'by %'")
    told = await terminal.json("status")
    assert ["work_items"] == told["older_models"]
    assert "warning" == checks(told, "rows")[0][0]
    (kept,) = await schemas(engine)
    assert {"dropped": [kept]} == await terminal.json("rebuild", "--drop-old")
    assert {} == await schemas(engine)


async def test_what_cannot_be_done_is_one_sentence(terminal: Terminal, database: Database) -> None:
    await terminal("rebuild", "nothing")
    assert terminal.code == 1
    assert terminal.said.startswith("odooops: no table is called nothing: known are advisor_dismissals, ")
    await terminal("rebuild", "--rollback")
    assert (terminal.code, terminal.said.startswith("odooops: there are no old tables to put back")) == (
        1,
        True,
    )
    await terminal("rebuild", "--rollback", "--dry-run")
    assert (terminal.code, terminal.said.count("\n")) == (2, 1)
    admin = await asyncpg.connect(database.url("admin"))
    await admin.execute("CREATE VIEW public.mine AS SELECT title FROM ops.work_items")
    await terminal("rebuild")
    assert (terminal.code, terminal.said.count("\n")) == (1, 1)
    assert terminal.said.startswith(
        "odooops: view mine (on ops.work_items): it would stay with the old rows."
    )
    assert "odooops rebuild --in-place" in terminal.said
    await terminal("rebuild", "--in-place")
    assert terminal.code == 0
    await admin.execute("UPDATE public.alembic_version SET version_num = '0000'")
    await admin.close()
    await terminal("rebuild")
    assert (terminal.code, "run python -m migrations" in terminal.said) == (1, True)


async def test_whoever_is_killed_leaves_the_tables_and_the_next_run_clears_up(
    terminal: Terminal, engine: AsyncEngine, tmp_path: Path
) -> None:
    before = await snapshot(engine)
    async with engine.begin() as folding:  # it cannot end before this does
        await postgres.share_fold_lock(folding)
        with forked(["-m", "cli", "rebuild"], os.environ, tmp_path / "rebuild"):  # killed at its end

            async def waits() -> bool:
                locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                return bool((await folding.execute(text(locks))).scalar_one())

            await until(waits, "the rebuild waits for the fold lock")
            (left,) = await schemas(engine)
            told = await terminal.json("status")
            assert told["rebuild"] == {"running": True, "left_behind": []}
            assert "archive or backup runs, into " + left in checks(told, "rebuild")[0][1]
            await terminal("verify")
            assert (terminal.code, "archive or backup runs since" in terminal.said) == (1, True)

    async def noticed() -> bool:
        return not (await terminal.json("status"))["rebuild"]["running"]

    await until(noticed, "the database has noticed")
    assert before == await snapshot(engine)
    told = await terminal.json("status")
    assert told["rebuild"] == {"running": False, "left_behind": [left]}
    ((state, said),) = checks(told, "rebuild")
    assert (state, said.startswith(f"{left} (")) == ("warning", True)
    await terminal("verify")
    assert (terminal.code, {}) == (0, await schemas(engine))
