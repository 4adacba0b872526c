"""`odooops doctor` on a real broker and a real database given by settings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from runtime import streams
from runtime.audit.finding import LEVELS
from tests.conftest import Broker
from tests.servers import Database, in_thread

pytestmark = pytest.mark.anyio

UNSEEN = ("unknown", "disk of the database")
"""Nothing tells how much disk Postgres has."""
UNSYNCED = ("error", "database")
"""The tests' own Postgres runs without fsync."""


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker: Broker, database: Database) -> None:
    monkeypatch.delenv("ODOOOPS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    for user in ("reader", "operator"):
        monkeypatch.setenv(f"NATS_URL_{user.upper()}", broker.url(user))
        monkeypatch.setenv(f"DATABASE_URL_{user.upper()}", database.url(user))


async def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """The exit code, and what was printed as JSON."""
    code = await asyncio.to_thread(main, ["doctor", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def parts(said: Any) -> list[tuple[str, str]]:
    return [(each["level"], each["part"]) for each in said["findings"]]


async def test_an_error_is_exit_code_1_and_comes_first_with_its_mend(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, said = await told(capsys)
    assert code == 1
    assert not said["ok"]
    assert parts(said) == [UNSYNCED, UNSEEN]
    unsynced = said["findings"][0]
    assert unsynced["says"] == "fsync is off"
    assert "power cut" in unsynced["could_lose"]
    assert unsynced["mend"].startswith("ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();")


async def test_what_is_no_error_is_exit_code_0(
    capsys: pytest.CaptureFixture[str], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.audit.postgres._server", lambda facts: [])
    info = await broker.js.stream_info(streams.EVENTS)
    await broker.js.update_stream(info.config, max_age=3600.0, duplicate_window=3600.0)
    code, said = await told(capsys)
    assert code == 0
    assert parts(said) == [UNSEEN, ("warning", "stream EVENTS"), ("warning", "stream EVENTS")]


async def test_mend_sets_back_what_drifted_and_says_so(
    capsys: pytest.CaptureFixture[str], broker: Broker
) -> None:
    info = await broker.js.stream_info(streams.EVENTS)
    await broker.js.update_stream(info.config, duplicate_window=60.0)
    await broker.js.delete_consumer(streams.DELIVERIES, streams.PROJECTOR)
    _, before = await told(capsys)
    assert ("error", "consumer projector") in parts(before)
    assert ("warning", "stream EVENTS") in parts(before)
    assert {each["mend"] for each in before["findings"] if "EVENTS" in each["part"]} == {
        "odooops doctor --mend"
    }
    _, after = await told(capsys, "--mend")
    assert after["mended"] == ["stream EVENTS: duplicate_window is 60.0, expected 7200"]
    assert after["not_mended"] == []
    assert parts(after) == [UNSYNCED, UNSEEN]


async def test_a_log_that_lost_deliveries_is_found_by_the_ledger(
    capsys: pytest.CaptureFixture[str], broker: Broker, database: Database
) -> None:
    for n in range(3):
        await broker.js.publish("deliveries.github.issues", b"1", headers={"Nats-Msg-Id": f"{n}"})
    await broker.js.purge_stream(streams.DELIVERIES, seq=3)
    in_thread(
        lambda statement: database.server.execute(statement, database=database.name),
        "INSERT INTO ops.deliveries (source, identity, body_sha256, last_seq) VALUES ('s', 'i', 'b', 1)",
    )
    _, said = await told(capsys)
    lost = next(each for each in said["findings"] if each["part"] == "stream DELIVERIES")
    assert lost["level"] == "error"
    assert lost["could_lose"] == "the deliveries from 2 to 2 left the log before they were projected"


async def test_a_server_that_is_away_is_an_error_and_the_other_is_asked_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    monkeypatch.setenv("DATABASE_URL_READER", "postgresql://reader:x@127.0.0.1:1/x")
    code, said = await told(capsys)
    assert code == 1
    assert parts(said) == [UNSYNCED, UNSEEN]
    assert "127.0.0.1:1 does not answer" in said["findings"][0]["says"]
    monkeypatch.setenv("DATABASE_URL_READER", database.url("reader"))
    monkeypatch.setenv("NATS_URL_READER", "nats://reader:x@127.0.0.1:1")
    code, said = await told(capsys)
    assert code == 1
    assert parts(said) == [("error", "database"), ("error", "broker"), UNSEEN]


async def test_the_spool_is_looked_at_where_it_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ODOOOPS_SPOOL_DIR", str(tmp_path / "none"))
    _, said = await told(capsys)
    assert ("error", "spool") in parts(said)


async def test_names_that_act_on_a_terminal_are_escaped(
    capsys: pytest.CaptureFixture[str], broker: Broker
) -> None:
    info = await broker.js.stream_info(streams.DELIVERIES)
    await broker.js.update_stream(info.config, subjects=["deliveries.>", "deliver\x1b[2J"])
    code = await asyncio.to_thread(main, ["doctor"])
    printed = capsys.readouterr().out
    assert code == 1
    assert "\x1b" not in printed
    assert "deliver\\x1b[2J" in printed
    assert [line.split()[0] for line in printed.splitlines() if line.split()[0] in LEVELS] == [
        "error",
        "error",
        "unknown",
    ]
