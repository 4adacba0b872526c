"""`odooops redact`: asks before it erases, tells what it did, and names what it cannot reach."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import pytest
import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.main import main
from runtime import postgres
from runtime.streams import DELIVERIES
from tests.conftest import Broker
from tests.servers import Database
from tests.services.projector.running import project_all
from tests.services.projector.test_redact import REF, issue, notified, places_of, stored
from tests.tables import count

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("logins")]

WHY = ("--why", "a request to erase")


@pytest.fixture
async def engine(broker: Broker, database: Database) -> AsyncIterator[AsyncEngine]:
    """The tables, with one delivery folded and the notifier's message of it."""
    made = postgres.make_engine(database.url("admin"), "test")
    await stored(broker, issue("sent"))
    await project_all(broker, made)
    await notified(made, "any", REF)
    yield made
    await made.dispose()


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(main, arguments)


def at_a_terminal(patch: pytest.MonkeyPatch, agrees: bool) -> None:
    patch.setattr(sys.stdin, "isatty", lambda: True)
    patch.setattr(typer, "confirm", lambda *_, **__: agrees)


async def test_a_dry_run_shows_all_of_it_and_writes_nothing(
    broker: Broker, engine: AsyncEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    before = await places_of(broker, engine)
    assert 0 == await run("redact", "--ref", REF, *WHY, "--dry-run")
    printed = capsys.readouterr()
    for shown in (
        "github:sent",
        "bodies: 1, places in the log: 1, events: 1, the notifier's messages: 1",
        REF,
    ):
        assert shown in printed.out
    assert "not known by what they were about" in printed.err
    assert before == await places_of(broker, engine)
    assert 1 == (await broker.js.stream_info(DELIVERIES)).state.last_seq


async def test_it_says_what_it_erased_and_what_is_out_of_its_reach(
    broker: Broker, engine: AsyncEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == await run("redact", "--ref", REF, *WHY, "--yes", "--json")
    told = json.loads(capsys.readouterr().out)
    expected = {
        "ops": 1,
        "kept tables": 0,
        "notify.messages": 1,
        "EVENTS": 1,
        "OBJ_DELIVERY_BODIES": 0,
        DELIVERIES: 1,
    }
    assert expected == told["counts"]
    assert ("C1", "17.1") == (told["messages"][0]["channel"], told["messages"][0]["slack_ts"])
    assert any("backups" in place for place in told["out_of_reach"])
    assert set() == await places_of(broker, engine)
    assert 1 == await count(engine, "deliveries", f"identity = 'sent' AND last_error = '{WHY[1]}'")


@pytest.mark.parametrize("agrees", [True, False])
async def test_it_asks_a_person(
    broker: Broker, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, agrees: bool
) -> None:
    at_a_terminal(monkeypatch, agrees)
    assert (not agrees) == await run("redact", "--delivery", "1", *WHY)
    assert agrees == (DELIVERIES not in await places_of(broker, engine))


async def test_what_cannot_be_is_a_sentence(
    broker: Broker, engine: AsyncEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    yes = (*WHY, "--yes")
    for arguments, code, says in (
        (("--ref", REF, *WHY), 1, "erasing cannot be undone and nobody can be asked here"),
        (("--ref", REF, "--delivery", "1", *yes), 2, "give either --ref or --delivery"),
        (yes, 2, "give either --ref or --delivery"),
        (("--ref", REF, "--yes"), 2, "--why"),
        (("--ref", REF, "--why", " ", "--yes"), 2, "--why is empty"),
        (("--delivery", "sent", *yes), 1, "try github:sent"),
        (("--delivery", "github:none", *yes), 1, "has no delivery github:none"),
        (("--ref", "github:none#1", *yes), 1, "no delivery about github:none#1: deliveries that were parked"),
    ):
        assert code == await run("redact", *arguments)
        assert says in capsys.readouterr().err
    assert DELIVERIES in await places_of(broker, engine)


async def test_status_names_one_that_came_again(
    broker: Broker, engine: AsyncEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    async def redacted_again() -> int:
        await run("status", "--json")
        found: int = json.loads(capsys.readouterr().out)["redacted_again"]
        return found

    assert 0 == await run("redact", "--ref", REF, *WHY, "--yes")
    capsys.readouterr()
    assert 0 == await redacted_again()
    await stored(broker, issue("sent"))
    await project_all(broker, engine)
    assert 1 == await redacted_again()
    assert 0 == await run("redact", "--ref", REF, *WHY, "--yes")
    capsys.readouterr()
    assert 0 == await redacted_again()
    assert set() == await places_of(broker, engine)
