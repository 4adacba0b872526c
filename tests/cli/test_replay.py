"""`odooops replay` and `odooops diff --code`, on a real broker and a real database given by settings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cli import replay as command
from cli.main import EXIT_USAGE, main
from cli.reach import Servers
from runtime import streams
from services.projector import replay
from services.projector.work import Work
from tests.conftest import Broker
from tests.servers import Database
from tests.services.projector.rebuilding import ISSUE, fold_as, issue, misread, misread_title, working
from tests.services.projector.running import DEADLINE_S, store_batch
from tests.tables import count

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker: Broker, database: Database) -> None:
    monkeypatch.delenv("ODOOOPS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NATS_URL_OPERATOR", broker.url("operator"))
    monkeypatch.setenv("DATABASE_URL_OPERATOR", database.url("operator"))


@pytest.fixture
async def work(broker: Broker, database: Database) -> AsyncIterator[Work]:
    """Three issues in the log, folded by a normaliser that misreads their titles."""
    await store_batch(broker, [issue(1), issue(2), issue(3)])
    async with working(broker, database) as made:
        await fold_as(made, misread(misread_title))
        yield made


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(main, arguments)


async def test_a_diff_names_the_rows_until_a_replay_has_mended_them(
    work: Work, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 1 == await run("diff", "--code")
    shown = capsys.readouterr().out
    assert f"work_items {ISSUE}2" in shown
    assert "title: live 'misread', by the log 'right'" in shown
    assert "payload: live '(personal)', by the log '(personal)'" in shown

    assert 0 == await run("replay", "--source", "github", "--dry-run")
    shown = capsys.readouterr().out
    assert "3 deliveries would be replayed; --publish would send 3 events" in shown
    assert 3 == await count(work.engine, "work_items", "title = 'misread'")

    assert 0 == await run("replay", "--source", "github")
    assert (
        "3 deliveries replayed, 3 read; 3 refs refolded, 0 ended otherwise than before, 0 events published"
        in (capsys.readouterr().out)
    )
    assert 0 == await run("diff", "--code", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (3, 3, []) == (
        told["deliveries"],
        told["read"],
        [each for each in told["compared"] if each["changed"]],
    )
    assert 0 == (await broker.js.stream_info(streams.EVENTS)).state.messages


async def test_only_what_is_named_is_replayed_and_published_where_that_is_asked_for(
    work: Work, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == await run("replay", "2", "github:issue-3", "--publish", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (2, 2, 3, 0) == (told["deliveries"], told["events"], told["last"], told["parked"])
    message = await broker.js.get_msg(streams.EVENTS, 1)
    assert told["run"] == (message.headers or {})["ce-replayed"]
    assert 1 == await count(work.engine, "work_items", "title = 'misread'")


async def test_a_selection_of_everything_or_of_nothing_says_so(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 1 == await run("replay")
    assert "would be a rebuild" in capsys.readouterr().err
    assert 0 == await run("replay", "--kind", "push")
    assert "no delivery that was projected or ignored fits" in capsys.readouterr().err
    assert EXIT_USAGE == await run("diff")
    assert 3 == await count(work.engine, "work_items", "title = 'misread'")


async def test_whoever_interrupts_a_replay_is_told_where_to_go_on(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replay, "PORTION_COUNT", 1)
    wanted: dict[str, Any] = dict.fromkeys(("kind", "since", "until", "ref"))
    selection = command.selection(source="github", names=(), **wanted)
    slowly = command.How(0, publish=False, dry_run=False, rate_max=0.001, limit=0, as_json=False)
    add, counted = command.Summary.add, asyncio.Event()

    def added(summary: command.Summary, portion: replay.Portion) -> None:
        add(summary, portion)
        counted.set()

    monkeypatch.setattr(command.Summary, "add", added)
    going = asyncio.create_task(command.run(Servers(tmp_path, named=False), selection, slowly))
    async with asyncio.timeout(DEADLINE_S):
        await counted.wait()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going

    assert "done up to sequence 1: go on with --after-seq 1" in capsys.readouterr().err
    assert 0 == await run("replay", "--source", "github", "--after-seq", "1", "--json")
    assert 2 == json.loads(capsys.readouterr().out)["deliveries"]
    assert 0 == await count(work.engine, "work_items", "title = 'misread'")
