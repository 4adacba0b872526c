"""`odooops doctor` on a real broker and a real database given by settings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from runtime import streams
from tests.conftest import Broker
from tests.servers import Database, in_thread

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("logins")]

UNSEEN = (("unknown", "disk of the database"), ("unknown", "spool"))
"""Nothing tells how much disk Postgres and another machine's ingest have."""
UNSYNCED = ("error", "database")
"""The tests' own Postgres runs without fsync."""


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
    assert parts(said) == [UNSYNCED, *UNSEEN]
    unsynced = said["findings"][0]
    assert unsynced["says"] == "fsync is off"
    assert "power cut" in unsynced["could_lose"]
    assert unsynced["mend"].startswith("take `-c fsync=…` out of the command that starts Postgres")


async def test_what_is_no_error_is_exit_code_0(
    capsys: pytest.CaptureFixture[str], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.audit.postgres._server", lambda facts: [])
    info = await broker.js.stream_info(streams.EVENTS)
    await broker.js.update_stream(info.config, max_age=3600.0, duplicate_window=3600.0)
    code, said = await told(capsys)
    assert code == 0
    assert parts(said) == [*UNSEEN, ("warning", "stream EVENTS"), ("warning", "stream EVENTS")]


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
    assert after["mended"] == [
        "set back: stream EVENTS: duplicate_window is 60.0, expected 7200",
        "made: consumer projector is missing",
    ]
    assert after["not_mended"] == []
    assert parts(after) == [UNSYNCED, *UNSEEN]


def know(database: Database, last_seq: int) -> None:
    """Let the ledger know a delivery."""
    in_thread(
        lambda statement: database.server.execute(statement, database=database.name),
        "INSERT INTO ops.deliveries (source, identity, body_sha256, last_seq)"
        f" VALUES ('s', 'i', 'b', {last_seq})",
    )


async def test_a_log_that_lost_deliveries_is_found_by_the_ledger(
    capsys: pytest.CaptureFixture[str], broker: Broker, database: Database
) -> None:
    for n in range(3):
        await broker.js.publish("deliveries.github.issues", b"1", headers={"Nats-Msg-Id": f"{n}"})
    await broker.js.purge_stream(streams.DELIVERIES, seq=3)
    know(database, 1)
    _, said = await told(capsys)
    lost = next(each for each in said["findings"] if each["part"] == "stream DELIVERIES")
    assert lost["level"] == "error"
    assert lost["could_lose"] == "the deliveries from 2 to 2 left the log before they were projected"


async def test_a_log_that_is_lost_is_never_made_anew_beside_a_ledger_that_knows_it(
    capsys: pytest.CaptureFixture[str],
    broker: Broker,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await broker.js.delete_stream(streams.DELIVERIES)
    with monkeypatch.context() as away:
        away.setenv("DATABASE_URL_READER", NOBODY)
        _, said = await told(capsys, "--mend")
    assert said["mended"] == []
    assert ["the ledger may know deliveries" in each for each in said["not_mended"]] == [True]
    know(database, 1)
    code, said = await told(capsys, "--mend")
    assert code == 1
    assert said["mended"] == []
    assert ["restore it from a backup" in each for each in said["not_mended"]] == [True]
    missing = next(each for each in said["findings"] if each["part"] == "stream DELIVERIES")
    assert missing["mend"].startswith("odooops restore FILE ")
    in_thread(lambda s: database.server.execute(s, database=database.name), "DELETE FROM ops.deliveries")
    _, said = await told(capsys, "--mend")
    assert said["mended"] == ["made: stream DELIVERIES is missing", "made: consumer projector is missing"]


NOBODY = "postgresql://reader:hush@127.0.0.1:1/x"


async def test_a_server_that_is_away_is_an_error_and_the_other_is_asked_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    monkeypatch.setattr("cli.reach.REACH_S_MAX", 0.3)
    monkeypatch.setenv("DATABASE_URL_READER", NOBODY)
    code, said = await told(capsys)
    assert code == 1
    assert parts(said) == [UNSYNCED, *UNSEEN]
    assert "127.0.0.1:1 does not answer" in said["findings"][0]["says"]
    assert "hush" not in json.dumps(said)
    monkeypatch.setenv("DATABASE_URL_READER", database.url("reader"))
    for user in ("READER", "OPERATOR"):
        monkeypatch.setenv(f"NATS_URL_{user}", "nats://reader:hush@127.0.0.1:1")
    code, said = await told(capsys, "--mend")
    assert code == 1
    assert parts(said) == [("error", "database"), ("error", "broker"), *UNSEEN]
    assert ["127.0.0.1:1 does not answer" in each for each in said["not_mended"]] == [True]
    assert "hush" not in json.dumps(said)


async def test_a_server_that_stops_answering_in_between_holds_up_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*given: Any, **words: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("cli.doctor.SERVER_S_MAX", 0.3)
    monkeypatch.setattr("runtime.audit.catalog.ledger_seq", never)
    monkeypatch.setattr("runtime.audit.asking.ask", never)
    code, said = await told(capsys, "--mend")
    assert code == 1
    away = [each["part"] for each in said["findings"] if each["says"].endswith("and then no longer")]
    assert away == ["database", "broker"]
    assert UNSYNCED in parts(said)  # what was said before that stays


async def test_limits_are_taken_back_by_the_command_that_a_finding_names(
    capsys: pytest.CaptureFixture[str], broker: Broker
) -> None:
    info = await broker.js.stream_info(streams.EVENTS)
    await broker.js.update_stream(info.config, max_age=3600.0, duplicate_window=3600.0)
    _, before = await told(capsys)
    mends = {each["mend"] for each in before["findings"] if each["part"] == "stream EVENTS"}
    assert mends == {"odooops doctor --mend", "odooops doctor --mend --limits"}
    _, after = await told(capsys, "--mend", "--limits")
    assert parts(after) == [UNSYNCED, *UNSEEN]
    assert (await broker.js.stream_info(streams.EVENTS)).config.max_age == 30 * streams.DAY_S


async def test_a_stream_that_was_made_wrong_is_right_once_it_is_restored(
    capsys: pytest.CaptureFixture[str],
    broker: Broker,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url("admin"))
    config = (await broker.js.stream_info(streams.DELIVERIES)).config
    await broker.js.delete_stream(streams.DELIVERIES)
    await broker.js.add_stream(config.evolve(storage="memory", deny_delete=True, deny_purge=True))
    await broker.js.publish("deliveries.github.issues", b"1", headers={"Nats-Msg-Id": "1"})
    _, said = await told(capsys)
    (mend,) = {each["mend"] for each in said["findings"] if each["part"] == "stream DELIVERIES"}
    assert mend.startswith("odooops backup FILE && odooops restore FILE ")
    backup = str(tmp_path / "b.tar")
    assert await asyncio.to_thread(main, ["backup", backup]) == 0
    for info in await broker.js.streams_info():
        await broker.js.delete_stream(str(info.config.name))
    assert await asyncio.to_thread(main, ["restore", backup]) == 0
    capsys.readouterr()
    _, said = await told(capsys)
    assert parts(said) == [UNSYNCED, *UNSEEN]
    assert (await broker.js.get_msg(streams.DELIVERIES, 1)).data == b"1"


async def test_the_spool_is_looked_at_where_it_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ODOOOPS_SPOOL_DIR", str(tmp_path / "none"))
    _, said = await told(capsys)
    assert ("error", "spool") in parts(said)
    assert ("unknown", "spool") not in parts(said)


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
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [
        "error",
        "error",
        "unknown",
        "unknown",
    ]


async def test_a_mend_stands_on_one_line_uncut_however_long_it_is(
    capsys: pytest.CaptureFixture[str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    in_thread(
        lambda statement: database.server.execute(statement, database=database.name),
        "GRANT INSERT ON ALL TABLES IN SCHEMA ops TO odooops_notifier",
    )
    _, said = await told(capsys)
    (mend,) = [each["mend"] for each in said["findings"] if each["part"] == "role odooops_notifier"]
    assert len(mend) > 600
    await asyncio.to_thread(main, ["doctor"])
    assert f"    mend: {mend}" in capsys.readouterr().out.splitlines()
