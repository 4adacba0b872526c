"""`odooops trace` on a real database: one commit, one pull request, one deployment can be followed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import text

from cli.main import main
from contracts import own
from contracts.builds import BuildFinished
from contracts.delivery import Delivery
from contracts.deployments import DeploymentStatusChanged
from contracts.envelope import Event
from contracts.registry import EVENTS
from contracts.work_items import WorkItemOpened
from runtime.postgres import make_engine
from services.projector.understand import understand
from services.projector.write import Writer
from tests.contracts.examples import FOLDER
from tests.samples import SOURCES
from tests.servers import Database
from tests.tables import SQL

pytestmark = pytest.mark.anyio

SHA, OTHER_SHA = "a" * 39 + "1", "b" * 40
START = datetime(2026, 3, 4, 9, tzinfo=UTC)
MESSAGE = """INSERT INTO notify.messages
(destination, ref, kind, message_id, event_id, status, text, blocks, occurred_at)
VALUES ('dry_run', 'x', 'build', 'm', :event, 'dry_run', 'It failed', '[]', now())"""


def example(name: str, minute: int, ref: str, sha: str | None, **more: Any) -> Event:
    """A published example as another fact, `minute` minutes after the start."""
    at = START + timedelta(minutes=minute)
    stated = json.loads((FOLDER / "examples" / f"{name}.json").read_bytes())
    moment = [0, int(at.timestamp() * 1_000_000), 0]
    told = {**stated, "ref": ref, "occurred_at": at.isoformat(), "moment": moment, **more}
    for field in ("commit_sha", "after_sha", "head_sha"):
        if field in told:
            told[field] = sha
    return EVENTS[name].model_validate_json(json.dumps(told))


async def fold(database: Database, events: Sequence[Event]) -> None:
    """Put events into the tables as the projector does."""

    async def no_log(seq: int) -> NoReturn:
        raise AssertionError("nothing is read back")

    engine = make_engine(database.url("projector"), "test")
    batch: list[Delivery] = [
        replace(own.delivery_of(event, "job", START + timedelta(hours=9)), seq=seq)
        for seq, event in enumerate(events, 1)
    ]
    await Writer(engine, SQL, SOURCES, no_log).fold([understand(SOURCES, each) for each in batch])
    await engine.dispose()


BRANCH = "github:example-org/shop@refs/heads/main"
PULL = "github:example-org/shop#9"
STORY = [
    example("work_item.opened", 0, PULL, SHA, kind="pull_request", pull_request_stated=True),
    example("code.pushed", 1, BRANCH, SHA),
    example("build.queued", 2, "github:run/1/1", SHA),
    example("build_job.finished", 3, "github:job/5", SHA),
    example("build.finished", 4, "github:run/1/1", SHA),
    example("deployment.status_changed", 5, "github:deployment/3", SHA),
    example("work_item.closed", 6, PULL, None, kind="pull_request"),
    example("code.pushed", 7, BRANCH, OTHER_SHA),
    example("build.finished", 8, "github:run/2/1", OTHER_SHA),
]
OF_THE_COMMIT = [event.type for event in STORY[:7]]


@pytest.fixture(autouse=True)
async def story(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: Database, anyio_backend: object
) -> None:
    monkeypatch.delenv("ODOOOPS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL_READER", database.url("reader"))
    await fold(database, STORY)


async def traced(capsys: pytest.CaptureFixture[str], wanted: str) -> list[dict[str, Any]]:
    """The timeline of `wanted`."""
    assert await asyncio.to_thread(main, ["trace", wanted, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


@pytest.mark.parametrize(
    "wanted", [SHA, SHA[:8], SHA.upper(), f" <{PULL}> ", PULL, "github:deployment/3", "github:run/1/1"]
)
async def test_a_commit_is_followed_from_any_of_its_things(
    capsys: pytest.CaptureFixture[str], wanted: str
) -> None:
    assert [row["what"] for row in await traced(capsys, wanted)] == OF_THE_COMMIT


async def test_a_branch_shows_what_came_through_it_and_all_their_things(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = await traced(capsys, BRANCH)
    assert [row["what"] for row in found].count("code.pushed") == 2
    assert {row["correlation_id"] for row in found} >= {SHA, OTHER_SHA}


async def test_a_commit_does_not_lead_to_others_by_its_branch(capsys: pytest.CaptureFixture[str]) -> None:
    found = await traced(capsys, OTHER_SHA)
    assert [row["what"] for row in found] == ["code.pushed", "build.finished"]


async def test_messages_stand_in_the_timeline(capsys: pytest.CaptureFixture[str], database: Database) -> None:
    engine = make_engine(database.url("admin"), "test")
    try:
        async with engine.begin() as connection:
            await connection.execute(text(MESSAGE), {"event": STORY[4].id})
    finally:
        await engine.dispose()

    (message,) = [row for row in await traced(capsys, SHA) if row["service"] == "notify"]
    assert (message["what"], message["message"], message["event_id"]) == ("dry_run", "It failed", STORY[4].id)


async def test_what_a_sender_wrote_cannot_act_on_the_terminal(
    capsys: pytest.CaptureFixture[str], database: Database
) -> None:
    await fold(database, [example("work_item.opened", 20, "github:x/y#1", None, title="\x1b[2J\u202egone")])
    assert await asyncio.to_thread(main, ["trace", "github:x/y#1"]) == 0
    assert "\x1b" not in (shown := capsys.readouterr().out) and "\u202e" not in shown


async def test_nothing_found_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(main, ["trace", "github:nobody/nothing#1"]) == 1
    assert "nothing is known of github:nobody/nothing#1: give a ref" in capsys.readouterr().err


def test_the_story_is_made_of_what_can_be_traced() -> None:
    assert {BuildFinished, DeploymentStatusChanged, WorkItemOpened} <= {type(event) for event in STORY}
