"""`odooops drift list` on a real database: newest first, bounded, and nothing in it acts on the terminal."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cli.drift import VALUE_CHARS_MAX, change
from cli.main import main
from tests.servers import Database

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
NO_BROKER = "nats://127.0.0.1:1"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: Database) -> None:
    monkeypatch.delenv("ODOOOPS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    for user in ("reader", "operator"):
        monkeypatch.setenv(f"NATS_URL_{user.upper()}", NO_BROKER)
        monkeypatch.setenv(f"DATABASE_URL_{user.upper()}", database.url(user))


async def enter(database: Database, *rows: dict[str, Any]) -> None:
    """Write rows as the projector would."""
    connection = await asyncpg.connect(database.url("admin"))
    try:
        for n, row in enumerate(rows):
            stated = {
                "event_id": f"e{n}",
                "source": "github",
                "ref": f"github:org/shop#{n}",
                "model": "work_items",
                "kind": "different",
                "columns": ["status"],
                "was": '{"status": "open"}',
                "found": '{"status": "done"}',
                "missed": [],
                "delivery": f"github:poll:{n}",
                "observed_at": NOW - timedelta(hours=n),
                **row,
            }
            places = ", ".join(f"${place}" for place in range(1, len(stated) + 1))
            await connection.execute(
                f"INSERT INTO ops.drift ({', '.join(stated)}) VALUES ({places})", *stated.values()
            )
    finally:
        await connection.close()


async def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert 0 == await asyncio.to_thread(main, ["drift", "list", *arguments])
    printed = capsys.readouterr()
    return printed.out + printed.err


async def test_what_was_wrong_is_said_in_a_few_words_newest_first_and_bounded(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no drift\n" == await told(capsys)
    await enter(database, {}, {"kind": "missing", "columns": []}, {"kind": "gone", "columns": []})
    lines = [line for line in (await told(capsys)).splitlines() if "github:" in line]
    assert ["#0", "#1", "#2"] == [line.split("shop")[1][:2] for line in lines]
    assert ["missed", "missed", "gone"] == [line.split("work_items")[1].split()[0] for line in lines]
    assert ["status: open → done", "was missing", "is gone"] == [
        line.strip().split("  ")[-1].strip() for line in lines
    ]
    cut = await told(capsys, "--limit", "2")
    assert "(2 differences)" in cut
    assert "there are more than 2" in cut


async def test_a_list_is_filtered_and_whole_for_programs(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    await enter(
        database,
        {},
        {"source": "plane", "ref": "plane:7", "kind": "gone"},
        {"model": "builds", "missed": ["m"]},
    )

    async def found(*arguments: str) -> list[str]:
        return [row["event_id"] for row in json.loads(await told(capsys, "--json", *arguments))]

    assert ["e0", "e1", "e2"] == await found()
    assert ["e1"] == await found("--source", "plane")
    assert ["e1"] == await found("--ref", "plane:7")
    assert ["e1"] == await found("--cause", "gone")
    assert ["e2"] == await found("--model", "builds")
    assert ["e0"] == await found("--since", "30m")
    (row,) = json.loads(await told(capsys, "--json", "--model", "builds"))
    assert ({"status": "open"}, {"status": "done"}, ["m"]) == (row["was"], row["found"], row["missed"])


async def test_a_table_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == await asyncio.to_thread(main, ["drift", "list", "--model", "issues"])
    assert "no table is called issues: known are " in capsys.readouterr().err


async def test_what_people_wrote_neither_acts_nor_floods(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    await enter(
        database, {"columns": ["title"], "was": '{"title": "\\u001b[2J"}', "found": '{"title": null}'}
    )
    assert "title: \\x1b[2J → null" in await told(capsys)
    long = {"kind": "different", "columns": ["title"], "was": {"title": "x" * 300}, "found": {}}
    assert len(change(long)) < 2 * VALUE_CHARS_MAX
