"""The runbooks hold: every command in them is run, in their order, on servers in the trouble that they are for."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.main import main
from contracts.delivery import Delivery
from contracts.envelope import Event
from providers.github import PROVIDER
from providers.polling import Ask, Look, Polling, Scope, Show, Steps, ask
from providers.port import Source
from providers.registry import PROVIDERS
from runtime import postgres
from tests.api import Api, Reply
from tests.conftest import Broker
from tests.samples import SOURCES, body, delivery, log, paths
from tests.servers import Database
from tests.services.projector.running import drained, project_all, projecting, store_batch, until
from tests.tables import count

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parents[2] / "docs" / "runbooks"
USERS = ("operator", "reader")
SECRET = "GITHUB_WEBHOOK_SECRET"
BLOCK = re.compile(r"^ *```\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
GOOD = log(paths("issues", "issue_comment", "workflow_run"))


def commands(page: str) -> list[list[str]]:
    """The commands of a runbook in their order, as the words that a shell would make of each."""
    found = "\n".join(BLOCK.findall((FOLDER / f"{page}.md").read_text(encoding="utf-8")))
    return [shlex.split(line) for line in found.splitlines() if line.strip()]


def filled(words: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """A command with its places filled in, without the name of the program."""
    assert words[0] == "odooops", words
    return [re.sub(r"<(\w+)>", lambda place: places[place[1]], word) for word in words[1:]]


async def follow(
    page: str, places: Mapping[str, str], exits: Mapping[str, Sequence[int]] | None = None
) -> None:
    """Run a runbook from top to bottom. `exits` are a command's exit codes, one after another, where not all are 0."""
    expected = {command: iter(codes) for command, codes in (exits or {}).items()}
    for words in commands(page):
        line = filled(words, places)
        code = next(expected[line[0]]) if line[0] in expected else 0
        assert (code, line) == (await asyncio.to_thread(main, line), line)


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = postgres.make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


@pytest.fixture(autouse=True)
def at_hand(broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The operator's, the reader's and the migrator's logins, where the command looks for them."""
    monkeypatch.setenv("DATABASE_URL", database.url("admin"))
    for user in USERS:
        monkeypatch.setenv(f"NATS_URL_{user.upper()}", broker.url(user))
        monkeypatch.setenv(f"DATABASE_URL_{user.upper()}", database.url(user))
    monkeypatch.setenv("ODOOOPS_DATA_DIR", str(tmp_path / "none"))


@asynccontextmanager
async def projected(
    broker: Broker, engine: AsyncEngine, sources: Mapping[str, Source], entries: Sequence[Delivery]
) -> AsyncIterator[None]:
    """Deliveries in log and tables as a projector with these sources made them; today's then goes on."""
    await store_batch(broker, entries)
    await project_all(broker, engine, sources=sources)
    async with projecting(broker, engine):
        yield
        await until(lambda: drained(broker), "what the commands said is projected")


def wrong(normalize: Callable[[Delivery, Source], object]) -> Source:
    """GitHub as a normaliser would have it that cuts every title."""
    source = SOURCES["github"]

    def cut(given: Delivery, of: Source) -> list[Event]:
        return [
            event.model_copy(update={"title": "?"}) if getattr(event, "title", None) else event
            for event in normalize(given, of)  # type: ignore[attr-defined]  # events, one after another
        ]

    return replace(source, provider=replace(source.provider, normalize=cut))


def test_each_runbook_is_in_the_list_and_is_run() -> None:
    pages = {path.stem for path in FOLDER.glob("*.md")} - {"README"}
    listed = set(re.findall(r"\(([a-z-]+)\.md\)", (FOLDER / "README.md").read_text(encoding="utf-8")))
    assert pages == listed == set(SCENES)


async def poison(broker: Broker, engine: AsyncEngine, _: Path) -> None:
    unknown = {name: source for name, source in SOURCES.items() if name != "github"}
    broken = delivery("issues", b"{", 0, "torn")
    async with projected(broker, engine, unknown, [*GOOD[:5], broken]):
        await follow("poison-delivery", {"DELIVERY": "github:torn", "REASON": "unknown_source"})
        assert 0 == await count(engine, "deliveries", "status = 'parked'")


async def bad_normaliser(broker: Broker, engine: AsyncEngine, _: Path) -> None:
    mistaken = {**SOURCES, "github": wrong(SOURCES["github"].provider.normalize)}
    async with projected(broker, engine, mistaken, GOOD):
        places = {"SOURCE": "github", "KIND": "issues", "SINCE": "2026-01-01"}
        # Two of the three kinds are still wrong when the first verification and the first dry run are made.
        await follow("bad-normaliser", places, {"diff": [1], "verify": [1, 0]})
        assert 0 == await count(engine, "work_items", "title = '?'")


async def leaked(broker: Broker, engine: AsyncEngine, _: Path) -> None:
    async with projected(broker, engine, SOURCES, GOOD):
        await follow("leaked-secret", {"NAME": SECRET, "SINCE": "2026-01-01"})
        assert len(GOOD) == await count(engine, "deliveries", "status = 'discarded'")


async def erase(broker: Broker, engine: AsyncEngine, _: Path) -> None:
    async with projected(broker, engine, SOURCES, GOOD):
        async with engine.connect() as connection:
            found = await connection.exec_driver_sql(
                "SELECT work_item_ref, max(d.source || ':' || d.identity) FROM ops.work_items"
                " JOIN ops.deliveries AS d ON work_item_ref = ANY(d.refs) GROUP BY 1 ORDER BY 1 LIMIT 2"
            )
            rows: list[tuple[str, str]] = [tuple(row) for row in found]
        ref, name = rows[0][0], rows[1][1]
        await follow("request-to-erase", {"REF": ref, "DELIVERY": name})
        assert 0 == await count(engine, "work_items", f"work_item_ref = '{ref}'")


async def full(broker: Broker, engine: AsyncEngine, folder: Path) -> None:
    async with projected(broker, engine, SOURCES, GOOD):
        before = datetime.now(UTC) + timedelta(minutes=1)
        places = {
            "FILE": str(folder / "one.jsonl.gz"),
            "FILE2": str(folder / "two.jsonl.gz"),
            "TIME": before.isoformat(),
        }
        await follow("full-stream", places)
        assert 0 == (await broker.js.stream_info("DELIVERIES")).state.messages


REPOSITORY = "repos/Codertocat/Hello-World"
POLLED = """\
name: github
endpoint: /webhooks/github
secrets: [GITHUB_WEBHOOK_SECRET]
refs: ["github:<org>/<repo>#<number>"]
feeds: [work_items]
api: {{base_url: "{address}", auth: bearer, secret: GITHUB_TOKEN}}
poll_interval_s: 900
quiet_s_max: 259200
"""


def issues(look: Look) -> Steps:
    """A part of a poll that reads one page of issues."""
    reply = yield from ask(Ask(path=f"/{look.scope}/issues"))
    assert PROVIDER.items is not None
    yield Show(
        items=PROVIDER.items("issues", f"{look.scope}/issues", reply.body), fetched_at=reply.fetched_at
    )


async def lost(broker: Broker, engine: AsyncEngine, folder: Path) -> None:
    """An issue was closed, and nobody told us."""
    polling = Polling(scopes=lambda source: [Scope(name=REPOSITORY, parts={"issues": issues})])
    known = json.loads(body("issues.opened.15"))["issue"]
    closed = {"state": "closed", "updated_at": "2026-11-01T12:30:00Z", "closed_at": "2026-11-01T12:30:00Z"}
    shutil.copytree(FOLDER.parents[1] / "ssot", folder / "ssot")
    with (
        Api() as api,
        mock.patch.dict(PROVIDERS, {"github": replace(PROVIDER, polling=polling)}),
        mock.patch.dict(
            os.environ,
            {
                "ODOOOPS_SSOT_DIR": str(folder / "ssot"),
                "GITHUB_TOKEN": "a-token",
                "NATS_URL_POLLER": broker.url("poller"),
            },
        ),
    ):
        (folder / "ssot" / "providers" / "github.yaml").write_text(POLLED.format(address=api.address))
        api.routes[f"/{REPOSITORY}/issues"] = Reply([{**known, **closed}])
        opened = delivery("issues", body("issues.opened.15"), 0, "opened")
        async with projected(broker, engine, SOURCES, [opened]):
            await follow("lost-webhooks", {"SOURCE": "github", "SINCE": "2019-01-01"})
    assert 1 == await count(engine, "work_items", "status = 'done'")
    assert 1 == await count(engine, "drift_now", "cause = 'missed' AND 'status' = ANY (columns)")


async def server_lost(broker: Broker, engine: AsyncEngine, folder: Path) -> None:
    """Broker and database have nothing any more."""
    file = str(folder / "backup.tar")
    await store_batch(broker, GOOD)
    await project_all(broker, engine)
    assert 0 == await asyncio.to_thread(main, ["backup", file])
    for info in await broker.js.streams_info():
        await broker.js.delete_stream(str(info.config.name))
    migrator = await asyncpg.connect(os.environ["DATABASE_URL"])
    await migrator.execute("DROP SCHEMA ops, projector, notify CASCADE; DROP TABLE alembic_version")
    await migrator.close()
    await follow("lost-server", {"FILE": file})
    assert len(GOOD) == await count(engine, "deliveries")


async def spool(broker: Broker, engine: AsyncEngine, _: Path) -> None:
    await follow("spool", {})


SCENES: dict[str, Callable[[Broker, AsyncEngine, Path], Awaitable[None]]] = {
    "poison-delivery": poison,
    "lost-webhooks": lost,
    "bad-normaliser": bad_normaliser,
    "leaked-secret": leaked,
    "request-to-erase": erase,
    "full-stream": full,
    "spool": spool,
    "lost-server": server_lost,
}


@pytest.mark.parametrize("page", SCENES)
async def test_each_command_of_a_runbook_does_what_it_says(
    page: str, broker: Broker, engine: AsyncEngine, tmp_path: Path
) -> None:
    await SCENES[page](broker, engine, tmp_path)
