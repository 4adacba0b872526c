"""`odooops parked` on real servers: what an operator reads, is asked and is refused."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.up import SERVER_ADDRESSES, SERVICES, Start
from contracts.delivery import Delivery
from runtime import settings as settings_module
from runtime.postgres import make_engine
from services.projector.understand import understand
from tests.cli.test_asking import Terminal
from tests.conftest import Broker
from tests.samples import SOURCES, at, body, delivery
from tests.servers import Database
from tests.services.projector.running import event_ids, park_all, project_all, store, store_batch
from tests.tables import count, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("logins")]

OPENED = delivery("issues", body("issues.opened.15"), 0, "opened")
POISON = delivery("issues", b'{"action": "opened", "issue": 7}', 0, "poison")
(REF,) = understand(SOURCES, OPENED).refs


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


@pytest.fixture
async def engine(database: Database, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    made = make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


async def park(broker: Broker, engine: AsyncEngine, *entries: Delivery) -> None:
    """Let older code park `entries`."""
    await store(broker, entries)
    await park_all(broker, engine)


async def test_a_list_is_newest_first_and_filtered(
    terminal: Terminal, broker: Broker, engine: AsyncEngine
) -> None:
    pushed = delivery("push", body("push.00"), 0, "pushed")
    await project_all(broker, engine)
    await store(broker, [POISON])
    await project_all(broker, engine)
    await park(broker, engine, OPENED, pushed)

    async def found(*filters: str) -> list[str]:
        told = await terminal.json("parked", "list", *filters)
        return [row["identity"] for row in told["deliveries"]]

    assert ["pushed", "opened", "poison"] == await found()
    assert ["poison"] == await found("--reason", "shape_mismatch")
    assert ["pushed"] == await found("--kind", "push")
    assert [] == await found("--source", "plane")
    assert [] == await found("--since", "2027-01-01")
    assert ["opened"] == await found("--ref", REF)

    told = await terminal.json("parked", "list", "--limit", "1")
    assert (3, 1) == (told["total"], len(told["deliveries"]))
    assert {"source": "github", "reason": "older_code", "count": 2} in told["by"]
    printed = await terminal("parked", "list", "--limit", "1")
    assert "older_code" in printed
    assert "shape_mismatch" in printed  # of the summary: the list ends before it
    assert "there are more than 1" in terminal.said


async def test_one_is_shown_with_what_todays_code_would_make_of_it_and_nothing_is_written(
    terminal: Terminal, broker: Broker, engine: AsyncEngine
) -> None:
    acting = OPENED.body.replace(b'"title": "', b'"title": "\\u001b[2J')
    await park(broker, engine, delivery("issues", acting, 0, "opened"), POISON)
    before = await snapshot(engine)

    printed = await terminal("parked", "show", "github:opened")
    (shown,) = await terminal.json("parked", "show", "1")
    (still,) = await terminal.json("parked", "show", "2")

    assert (0, "older_code") == (terminal.code, shown["ledger"]["reason"])
    for expected in ("this code cannot read it", "by today's code", "projected", "work_item.opened", REF):
        assert expected in printed
    assert "\x1b" not in printed
    assert ("projected", [REF]) == (shown["today"]["status"], shown["today"]["refs"])
    assert 1 == shown["today"]["rows"]["work_items"]
    assert ("parked", "shape_mismatch") == (still["today"]["status"], still["today"]["reason"])
    assert before == await snapshot(engine)


async def test_a_dry_run_over_thousands_says_what_would_become_of_them_and_writes_nothing(
    terminal: Terminal, broker: Broker, engine: AsyncEngine
) -> None:
    good = delivery("push", body("push.00"), 0)
    entries = [replace(POISON if n % 4 == 0 else good, identity=f"guid-{n}") for n in range(2_000)]
    await store_batch(broker, entries)
    await park_all(broker, engine)
    before, events = await _all(engine), await broker.js.stream_info("EVENTS")

    told = await terminal.json("parked", "retry", "--source", "github", "--dry-run")

    ends = {(each["status"], each["reason"]): each["count"] for each in told["ends"]}
    assert {("projected", None): 1_500, ("parked", "shape_mismatch"): 500} == ends
    assert (True, 2_000) == (told["dry_run"], told["deliveries"])
    assert "500 would be discarded" not in await terminal(
        "parked", "discard", "--all", "--why", "x", "--dry-run"
    )
    assert before == await _all(engine)
    assert events.state.messages == (await broker.js.stream_info("EVENTS")).state.messages


async def _all(engine: AsyncEngine) -> list[tuple[object, ...]]:
    """The whole ledger, with what counts work."""
    async with engine.connect() as connection:
        return [
            tuple(row)
            for row in await connection.execute(text("SELECT * FROM ops.deliveries ORDER BY stream_seq"))
        ]


async def test_a_retry_says_what_became_of_all_and_that_some_stay_is_no_failure(
    terminal: Terminal, broker: Broker, engine: AsyncEngine
) -> None:
    await park(broker, engine, OPENED, POISON)
    silent = len(await event_ids(broker))

    printed = await terminal("parked", "retry", "--all", "--yes")

    published = len(await event_ids(broker)) - silent
    assert 0 == terminal.code
    assert f"projected 1, ignored 0, still parked 1, events published {published}" in printed
    assert "shape_mismatch" in printed
    assert 1 == await count(engine, "work_items")


class Typed(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True


async def test_a_retry_has_to_be_told_of_what_and_asks_before_it_takes_many(
    terminal: Terminal, broker: Broker, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await park(broker, engine, OPENED, POISON)
    await terminal("parked", "retry")
    assert (1, True) == (terminal.code, "a filter, or --all" in terminal.said)
    await terminal("parked", "retry", "--all")
    assert (1, True) == (terminal.code, "to retry 2 deliveries" in terminal.said and "--yes" in terminal.said)
    assert 2 == await count(engine, "deliveries", "attempts = 1")

    monkeypatch.setattr(sys, "stdin", Typed("n\n"))
    assert "retry 2 deliveries?" in await terminal("parked", "retry", "--all")
    assert 2 == await count(engine, "deliveries", "attempts = 1")

    await terminal("parked", "retry", "1", "github:poison")
    assert (0, 2) == (terminal.code, await count(engine, "deliveries", "attempts = 2"))


async def test_what_is_not_parked_is_refused_by_name(
    terminal: Terminal, broker: Broker, engine: AsyncEngine
) -> None:
    await store(broker, [OPENED])
    await project_all(broker, engine)

    await terminal("parked", "retry", "github:opened")
    assert (1, "odooops: github:opened is projected, not parked: it cannot be retried\n") == (
        terminal.code,
        terminal.said,
    )
    await terminal("parked", "discard", "1", "--why", "a test")
    assert 1 == terminal.code
    assert "github:opened is in the tables: only a parked or conflicting delivery" in terminal.said
    await terminal("parked", "retry", "github:nobody")
    assert "the ledger has no delivery github:nobody" in terminal.said
    assert 1 == await count(engine, "deliveries", "status = 'projected'")


async def test_a_discard_keeps_the_row_with_who_and_why(
    terminal: Terminal, broker: Broker, engine: AsyncEngine
) -> None:
    await park(broker, engine, POISON, replace(POISON, identity="other"))
    await terminal("parked", "discard", "github:poison", "--why", " ")
    assert "--why" in terminal.said

    assert "discarded 1" in await terminal("parked", "discard", "github:poison", "--why", "a test of theirs")

    where = "identity = 'poison' AND status = 'discarded' AND reason = 'by_an_operator'"
    assert 1 == await count(engine, "deliveries", f"{where} AND last_error = 'a test of theirs'")
    assert 1 == await count(engine, "deliveries", "status = 'parked'")
    assert 1 == await count(
        engine, "platform_events", "event_type = 'delivery.discarded' AND actor IS NOT NULL"
    )
    await terminal("parked", "discard", "github:poison", "--why", "again")
    assert "github:poison is discarded, not parked" in terminal.said
    assert "a test of theirs" in "".join(
        line for line in (await terminal("deliveries", "show", "github:poison")).splitlines() if "why" in line
    )
    left = ("parked", "discard", "--all", "--why", "x")
    assert {"dry_run": True, "deliveries": 1} == await terminal.json(*left, "--dry-run")
    assert {"dry_run": False, "deliveries": 1} == await terminal.json(*left, "--yes")


async def test_a_conflict_is_discarded_by_its_name_and_never_by_a_filter(
    terminal: Terminal, broker: Broker, engine: AsyncEngine
) -> None:
    other = at(delivery("issues", body("issues.transferred.21"), 0), 0, "opened")
    await store(broker, [OPENED, other])
    await project_all(broker, engine)
    before = (await snapshot(engine))["work_items"]

    assert "discarded 0" in await terminal("parked", "discard", "--all", "--yes", "--why", "seen")
    assert "discarded 1" in await terminal("parked", "discard", "github:opened", "--why", "seen")

    assert 1 == await count(engine, "deliveries", "stream_seq = 2 AND status = 'discarded'")
    assert before == (await snapshot(engine))["work_items"]


async def test_up_passes_unpark_on_to_the_projector_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(SERVER_ADDRESSES)]:
        monkeypatch.delenv(name)
    with ExitStack() as held:
        start = Start(tmp_path, settings_module.load(), None, held, 0, unpark=True)
        flags = {name: start._service(name, {}).argv[-1] for name in SERVICES}

    assert {"ingest": "services.ingest", "projector": "--unpark", "notifier": "services.notifier"} == flags
