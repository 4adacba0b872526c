"""`odooops secrets audit`: what a secret vouched for is shown, and no longer believed where the operator says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.main import EXIT_USAGE, main
from runtime import postgres
from tests.cli.catalogues import ROOT
from tests.conftest import Broker
from tests.samples import body, delivery
from tests.servers import Database
from tests.services.projector.running import project_all, store
from tests.tables import count, snapshot

LEAKED, KEPT = "GITHUB_WEBHOOK_SECRET_FILE:1", "GITHUB_WEBHOOK_SECRET_FILE:2"
LOG = [
    replace(delivery(name.split(".")[0], body(name), 0, name), verified_by=secret)
    for name, secret in (
        ("issues.opened.15", KEPT),
        ("issues.edited.00", LEAKED),
        ("pull_request.opened.00", LEAKED),
    )
]
GONE = "github:Codertocat/Hello-World#2"
DISCARDED = "status = 'discarded' AND reason = 'secret_excluded'"
POSTED = """INSERT INTO notify.messages
(destination, ref, kind, message_id, event_id, status, text, blocks, channel, slack_ts, occurred_at)
SELECT 'slack:C1', ref, 'work', 'm', event_id, 'posted', 'opened', '[]', 'C1', '1793.5', now()
FROM ops.platform_events WHERE ref = :ref LIMIT 1"""


class Operator:
    """Runs commands beside the test's event loop; `said` holds what went to standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.code, self.said = capsys, 0, ""

    async def __call__(self, *arguments: str) -> str:
        self.code = await asyncio.to_thread(main, ["secrets", "audit", *arguments])
        told = self.capsys.readouterr()
        self.said = told.err
        return told.out

    async def json(self, *arguments: str) -> dict[str, Any]:
        printed = await self(*arguments, "--json")
        assert printed, self.said
        made: dict[str, Any] = json.loads(printed)
        return made


@pytest.fixture
def operator(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    broker: Broker,
    database: Database,
) -> Operator:
    monkeypatch.delenv("ODOOOPS_DATA_DIR", raising=False)
    monkeypatch.setenv("ODOOOPS_SSOT_DIR", str(ROOT / "ssot"))
    monkeypatch.chdir(tmp_path)
    for user in ("reader", "operator"):
        monkeypatch.setenv(f"NATS_URL_{user.upper()}", broker.url(user))
        monkeypatch.setenv(f"DATABASE_URL_{user.upper()}", database.url(user))
    return Operator(capsys)


@pytest.fixture
async def engine(broker: Broker, database: Database) -> AsyncIterator[AsyncEngine]:
    """A database into which the log was folded, with one message in Slack."""
    made = postgres.make_engine(database.url("projector"), "test")
    await store(broker, LOG)
    await project_all(broker, made)
    admin = postgres.make_engine(database.url("admin"), "test")
    async with admin.begin() as connection:
        await connection.execute(text(POSTED), {"ref": GONE})
    await admin.dispose()
    yield made
    await made.dispose()


@pytest.mark.anyio
async def test_what_a_secret_vouched_for_is_shown(operator: Operator, engine: AsyncEngine) -> None:
    found = await operator.json(LEAKED, "--limit", "1")
    assert (0, LEAKED, 2, 1) == (operator.code, found["secret"], found["deliveries"], len(found["newest"]))
    assert [GONE] == found["refs_alone"]
    assert {"work_item.opened": 1, "work_item.updated": 1} == found["told"]["events"]
    printed = await operator(LEAKED, "--since", "beginning")
    assert f"{LEAKED} vouched for 2 deliveries" in printed
    assert "subscribers were told, we cannot call it back: 1 work_item.opened, 1 work_item.updated" in printed
    assert f"C1/1793.5  work_item.opened {GONE}" in printed
    assert "has vouched for no delivery then" in await operator(LEAKED, "--since", "2026-11-02")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--exclude", "--why", "x"], "--exclude needs --since"),
        (["--exclude", "--since", "beginning"], "--exclude needs --why"),
        (["--why", "x"], "belong to --exclude"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["secrets", "audit", LEAKED, *arguments]) == EXIT_USAGE
    assert said in capsys.readouterr().err


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["GITLAB_SECRET"], "no source declares a secret GITLAB_SECRET"),
        (["GITHUB_WEBHOOK_SECRET"], f"name one: {LEAKED}, {KEPT}"),
        (["PLANE_WEBHOOK_SECRET", "--exclude", "--since", "1h", "--why", "x"], "has vouched for no delivery"),
        ([LEAKED, "--exclude", "--since", "1h", "--until", "2h", "--why", "x"], "is not before --until"),
        ([LEAKED, "--exclude", "--since", "1h", "--until", "2999-01-01", "--why", "x"], "lies ahead"),
    ],
)
async def test_what_cannot_be_is_said_in_a_sentence_and_nothing_is_stored(
    operator: Operator, engine: AsyncEngine, broker: Broker, arguments: list[str], said: str
) -> None:
    assert "" == await operator(*arguments)
    assert operator.code != 0
    assert said in operator.said
    assert len(LOG) == (await broker.js.stream_info("DELIVERIES")).state.messages


@pytest.mark.anyio
async def test_a_dry_run_shows_what_then_changes_and_a_second_time_changes_nothing(
    operator: Operator, engine: AsyncEngine, broker: Broker
) -> None:
    given = (LEAKED, "--exclude", "--since", "beginning", "--until", "2026-11-02", "--why", "in a build log")
    before = await snapshot(engine)
    assert "" == await operator(*given)
    assert "give --yes" in operator.said
    dry = await operator.json(*given, "--dry-run")
    assert before == await snapshot(engine)
    assert len(LOG) == (await broker.js.stream_info("DELIVERIES")).state.messages

    done = await operator.json(*given, "--yes")

    assert (dry["changes"], dry["told"], 2) == (done["changes"], done["told"], done["discarded"])
    assert 0 == await count(engine, "work_items", f"work_item_ref = '{GONE}'")
    assert 2 == await count(engine, "deliveries", f"{DISCARDED} AND cardinality(refs) > 0")
    after = await snapshot(engine)
    again = await operator(*given)
    assert "was excluded already" in again
    assert "in a build log" in again
    await project_all(broker, engine)
    assert after == await snapshot(engine)
    assert len(LOG) + 1 == (await broker.js.stream_info("DELIVERIES")).state.messages


@pytest.mark.anyio
async def test_what_changes_is_printed_with_both_values(operator: Operator, engine: AsyncEngine) -> None:
    printed = await operator(LEAKED, "--exclude", "--since", "beginning", "--why", "in a build log", "--yes")
    assert f"work_items {GONE}" in printed
    assert "only live" in printed
    assert "without them" in printed
    assert "2 deliveries discarded" in printed
    assert "not believed from" in await operator(LEAKED)
