"""Commands that ask, on a real broker and a real database given by settings."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cli import sql, status
from cli.main import main
from contracts.delivery import Delivery, body_sha256
from runtime import bus, streams
from tests.conftest import Broker
from tests.servers import Database

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker: Broker, database: Database) -> None:
    monkeypatch.delenv("ODOOOPS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NATS_URL_READER", broker.url("reader"))
    monkeypatch.setenv("DATABASE_URL_READER", database.url("reader"))


class Terminal:
    """Runs commands beside the test's event loop."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.code = 0

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


async def log(broker: Broker, identity: str, body: bytes = b"{}", kind: str = "issues") -> Delivery:
    """Store a delivery as ingest does."""
    made = Delivery(
        source="github",
        identity=identity,
        kind=kind,
        via="webhook",
        received_at=NOW,
        body=body,
        body_sha256=body_sha256(body),
        verified_by="GITHUB_WEBHOOK_SECRET",
        headers={"x-github-event": kind},
    )
    await bus.store_delivery(broker.js, made)
    return made


async def enter(database: Database, rows: Sequence[dict[str, Any]]) -> None:
    """Write ledger rows as the projector would."""
    connection = await asyncpg.connect(database.url("admin"))
    try:
        for row in rows:
            columns = ", ".join(row)
            places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
            await connection.execute(
                f"INSERT INTO ops.deliveries ({columns}) VALUES ({places})", *row.values()
            )
    finally:
        await connection.close()


def ledger(identity: str, seq: int, **more: Any) -> dict[str, Any]:
    return {
        "source": "github",
        "identity": identity,
        "body_sha256": body_sha256(b"{}"),
        "kind": "issues",
        "status": "projected",
        "received_at": NOW - timedelta(hours=10 - seq),
        "stream_seq": seq,
        "last_seq": seq,
        **more,
    }


async def test_a_list_is_filtered_and_newest_first(terminal: Terminal, database: Database) -> None:
    await enter(
        database,
        [
            ledger("a", 1, refs=["github:o/r#1", "github:o/r#2"]),
            ledger("b", 2, status="parked", reason="shape_mismatch"),
            ledger("c", 3, source="plane", refs=["plane:x"]),
        ],
    )

    async def found(*filters: str) -> list[str]:
        return [row["identity"] for row in await terminal.json("deliveries", "list", *filters)]

    assert await found() == ["c", "b", "a"]
    assert await found("--source", "github") == ["b", "a"]
    assert await found("--status", "parked") == ["b"]
    assert await found("--ref", "github:o/r#2") == ["a"]
    assert await found("--since", (NOW - timedelta(hours=8.5)).isoformat()) == ["c", "b"]
    assert await found("--limit", "1") == ["c"]
    assert "there are more than 1" in terminal.said
    printed = await terminal("deliveries", "list")
    assert "shape_mismatch" in printed
    assert "(3 deliveries)" in printed


async def test_a_delivery_is_shown_with_what_became_of_it(
    terminal: Terminal, broker: Broker, database: Database
) -> None:
    body = json.dumps({"title": "\x1b[2Jgone \u202e[red]"}).encode()
    await log(broker, "a", body)
    await enter(database, [ledger("a", 1, last_error="\x1b]0;x\x07", attempts=2)])
    for name in ("github:a", "1"):
        printed = await terminal("deliveries", "show", name)
        assert terminal.code == 0
        for expected in (
            "github:a",
            "projected",
            "x-github-event",
            "GITHUB_WEBHOOK_SECRET",
            r"\\u001b[2Jgone",
        ):
            assert expected.replace(r"\\u", "\\u") in printed
        assert "\x1b" not in printed
        assert "\u202e" not in printed
    (shown,) = await terminal.json("deliveries", "show", "github:a")
    assert shown["ledger"]["attempts"] == 2
    assert shown["stored"]["body"] == body.decode()


async def test_a_body_can_be_had_byte_for_byte(broker: Broker, capfdbinary: Any) -> None:
    body = bytes(range(256)) * 500
    await log(broker, "large", body)
    assert await asyncio.to_thread(main, ["deliveries", "show", "1", "--raw"]) == 0
    assert capfdbinary.readouterr().out == body


async def test_a_delivery_that_the_projector_has_not_come_to_is_shown(
    terminal: Terminal, broker: Broker
) -> None:
    await log(broker, "a")
    assert "the projector has not come to it yet" in await terminal("deliveries", "show", "1")


async def test_a_delivery_that_is_nowhere_is_a_sentence(terminal: Terminal) -> None:
    await terminal("deliveries", "show", "99")
    assert (terminal.code, terminal.said) == (
        1,
        "odooops: the ledger has no delivery 99; of the log: it is not there: erased, trimmed, or never stored\n",
    )
    await terminal("deliveries", "show", "github:none")
    assert terminal.said.startswith("odooops: the ledger has no delivery github:none")
    assert "the projector has not come to it yet (`odooops status` shows the lag)" in terminal.said


async def test_a_source_that_nobody_knows_is_refused(terminal: Terminal, database: Database) -> None:
    assert await terminal.json("deliveries", "list", "--source", "github") == []
    await enter(database, [ledger("a", 1, source="odooops.backfill")])
    assert len(await terminal.json("deliveries", "list", "--source", "odooops.backfill")) == 1
    for source in ("GitHub", "nope"):
        assert await terminal("deliveries", "list", "--source", source) == ""
        assert terminal.code == 1
        assert terminal.said.startswith(f"odooops: no source is called {source}: known are ")
        assert " github, " in terminal.said
        assert " odooops.backfill" in terminal.said


async def test_sql_answers_in_three_forms(terminal: Terminal) -> None:
    statement = (
        "SELECT 1 AS n, 'a:b, \"c\"' AS t, NULL AS nothing, '{\"k\": [1]}'::jsonb AS j, ARRAY['x'] AS l"
    )
    row = {"n": 1, "t": 'a:b, "c"', "nothing": None, "j": {"k": [1]}, "l": ["x"]}
    assert await terminal.json("sql", statement) == [row]
    ((n, t, nothing, j, l_),) = list(csv.reader(io.StringIO(await terminal("sql", statement, "--csv"))))[1:]
    assert (n, t, nothing, json.loads(j), json.loads(l_)) == ("1", 'a:b, "c"', "", {"k": [1]}, ["x"])
    printed = await terminal("sql", statement)
    assert 'a:b, "c"' in printed
    assert "(1 row)" in printed


async def test_sql_prints_numbers_that_json_has_not_as_strings(terminal: Terminal) -> None:
    statement = "SELECT 'NaN'::float8 AS n, 'NaN'::numeric AS d, ARRAY['-Infinity'::float8, 1] AS l"
    printed = await terminal("sql", statement, "--json")
    assert json.loads(printed, parse_constant=pytest.fail) == [
        {"n": "NaN", "d": "NaN", "l": ["-Infinity", 1.0]}
    ]


async def test_sql_says_when_it_cut_a_cell(terminal: Terminal) -> None:
    statement = "SELECT repeat('x', 121) AS long"
    assert "…" in await terminal("sql", statement)
    assert terminal.said == "odooops: cells were cut after 120 characters: --csv gives them whole\n"
    assert "x" * 121 in await terminal("sql", statement, "--csv")
    assert terminal.said == ""
    assert "…" not in await terminal("sql", "SELECT repeat('x', 120) AS long")
    assert terminal.said == ""


async def test_sql_says_when_it_cut(terminal: Terminal) -> None:
    assert len(await terminal.json("sql", "SELECT generate_series(1, 9)", "--limit", "4")) == 4
    assert "cut after 4 rows" in terminal.said
    assert len(await terminal.json("sql", "SELECT generate_series(1, 4)", "--limit", "4")) == 4
    assert terminal.said == ""


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM ops.builds", "read-only|gives no rows|permission denied"),
        ("INSERT INTO ops.builds (ref) VALUES ('x') RETURNING ref", "read-only"),
        ("COMMIT", "gives no rows"),
        ("", "gives no rows"),
        ("SELECT 1; SELECT 2", "multiple commands"),
        ("SELEC", "syntax error"),
        ("SELECT * FROM builds", r"tables are in the schemas ops and notify, as in ops\.builds"),
        ("SELECT 1 / 0", "division by zero"),
        ("SELECT * FROM pg_authid", "pg_authid: the reader's login has no right to it"),
        ("SELECT 1 AS a, 2 AS a", "two columns are called a"),
    ],
)
async def test_sql_refuses_in_one_sentence(terminal: Terminal, statement: str, says: str) -> None:
    assert await terminal("sql", statement, "--json") == ""
    assert terminal.code == 1
    assert terminal.said.count("\n") == 1
    assert re.search(says, terminal.said)


async def test_a_column_that_the_reader_may_not_see_is_named_with_the_way_round(terminal: Terminal) -> None:
    await terminal("sql", "SELECT * FROM ops.platform_events")
    assert terminal.code == 1
    assert (
        "may not see payload of ops.platform_events: name the columns that you want, out of" in terminal.said
    )
    columns = terminal.said.strip().rpartition("out of ")[2]
    assert await terminal.json("sql", f"SELECT {columns} FROM ops.platform_events") == []


async def test_a_statement_that_takes_too_long_is_stopped(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "STATEMENT_MS_MAX", 1000)
    await terminal("sql", "SELECT pg_sleep(30)")
    assert (terminal.code, terminal.said) == (
        1,
        "odooops: the statement took longer than 1 s and was stopped\n",
    )


async def test_status_tells_what_is_there(terminal: Terminal, broker: Broker, database: Database) -> None:
    await log(broker, "a")
    await log(broker, "b", b"[]")
    await enter(database, [ledger("a", 1), ledger("b", 2, status="parked")])
    told = await terminal.json("status")
    assert terminal.code == 0
    assert (told["state"], told["ok"], told["services"]) == ("warning", True, None)
    assert told["ledger"] == {"projected": 1, "parked": 1}
    assert told["sources"]["github"]["deliveries"] == 2
    assert told["streams"]["DELIVERIES"]["messages"] == 2
    assert told["streams"]["DELIVERIES"]["limit_bytes"] is None
    assert told["consumers"]["projector"]["num_pending"] == 2
    assert told["consumers"]["projector"]["num_ack_pending"] == 0
    assert told["settings_drift"] == []
    assert told["migrations"]["revision"] == told["migrations"]["head"]
    states = {check["part"]: check["state"] for check in told["checks"]}
    assert states["services"] == "not asked"
    assert states["DELIVERIES"] == "not asked"  # of the broker's disk nothing is known, and no limit is set
    assert states["ledger"] == "warning"


@pytest.mark.parametrize(
    ("end", "where"),
    [("parked", "odooops parked list"), ("conflict", "odooops deliveries list --status conflict")],
)
async def test_status_warns_of_what_waits_for_the_operator(
    terminal: Terminal, database: Database, broker: Broker, end: str, where: str
) -> None:
    await log(broker, "a")
    await enter(database, [ledger("a", 1, status=end)])
    (line,) = (check for check in (await terminal.json("status"))["checks"] if check["part"] == "ledger")
    assert line["state"] == "warning"
    assert line["text"].endswith(f"1 {end}: see `{where}`")


async def test_status_warns_before_the_log_is_full(
    terminal: Terminal, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = await broker.js.stream_info(streams.DELIVERIES)
    await broker.js.update_stream(info.config, max_bytes=10_000)
    await log(broker, "a", b"x" * 8_200)
    held = (await broker.js.stream_info(streams.DELIVERIES)).state.bytes
    monkeypatch.setattr(status, "STREAM_WARNING_FRACTION", held / 10_000)
    told = await terminal.json("status")
    states = {check["part"]: check["state"] for check in told["checks"]}
    assert told["streams"]["DELIVERIES"]["limit_bytes"] == 10_000
    assert (states["DELIVERIES"], terminal.code) == ("warning", 0)
    monkeypatch.setattr(status, "STREAM_BAD_FRACTION", held / 10_000)
    await terminal("status")
    assert terminal.code == 1


async def test_status_names_settings_that_drifted_and_what_is_missing(
    terminal: Terminal, broker: Broker
) -> None:
    info = await broker.js.stream_info(streams.EVENTS)
    await broker.js.update_stream(info.config, duplicate_window=60.0)
    await broker.js.delete_consumer(streams.DELIVERIES, streams.PROJECTOR)
    told = await terminal.json("status")
    assert terminal.code == 1
    assert told["consumers"]["projector"] is None
    assert any("stream EVENTS: duplicate_window is 60" in each for each in told["settings_drift"])
    assert any(each == "consumer projector is missing" for each in told["settings_drift"])
    await asyncio.to_thread(main, ["status"])
    with pytest.raises(Exception, match="not found"):  # looking made nothing
        await broker.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)


async def test_status_warns_of_each_unsigned_source(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert [] == (await terminal.json("status"))["unsigned_sources"]
    (tmp_path / "ssot" / "providers").mkdir(parents=True)
    file = "name: alarm\nprovider: generic\nendpoint: /webhooks/alarm\nunsigned: true\n"
    (tmp_path / "ssot" / "providers" / "alarm.yaml").write_text(file)
    monkeypatch.setenv("ODOOOPS_SSOT_DIR", str(tmp_path / "ssot"))
    told = await terminal.json("status")
    (line,) = (check for check in told["checks"] if check["part"] == "alarm's door")
    assert (told["unsigned_sources"], terminal.code) == (["alarm"], 0)
    assert (line["state"], line["text"]) == (
        "warning",
        "unsigned: whoever knows the address can write into its log",
    )


async def test_status_says_where_ssot_cannot_be_read(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ODOOOPS_SSOT_DIR", str(tmp_path / "nowhere"))
    told = await terminal.json("status")
    assert (told["unsigned_sources"], terminal.code) == (None, 1)
    assert "run `odooops check`" in next(each["text"] for each in told["checks"] if each["part"] == "ssot")


async def test_status_names_a_schema_that_is_not_the_newest(terminal: Terminal, database: Database) -> None:
    connection = await asyncpg.connect(database.url("admin"))
    await connection.execute("UPDATE public.alembic_version SET version_num = '0000'")
    await connection.close()
    printed = await terminal("status")
    assert terminal.code == 1
    assert "the schema is at 0000, this code at " in printed


async def test_a_ledger_that_cannot_be_read_is_unknown(terminal: Terminal, database: Database) -> None:
    connection = await asyncpg.connect(database.url("admin"))
    await connection.execute("REVOKE SELECT ON ops.deliveries FROM odooops_reader")
    await connection.close()
    told = await terminal.json("status")
    assert terminal.code == 1
    assert told["ledger"] is None
    assert {check["state"] for check in told["checks"] if check["part"] in ("ledger", "sources")} == {
        "unknown"
    }


async def test_a_ledger_of_another_log_is_not_called_well(
    terminal: Terminal, broker: Broker, database: Database
) -> None:
    await log(broker, "a")
    await enter(database, [ledger("a", 1)])
    assert (await terminal.json("status"))["state"] == "ok"
    await enter(database, [ledger("b", 7)])
    printed = await terminal("status")
    assert terminal.code == 1
    assert "the ledger has read up to 7, the log ends at 1" in printed


async def test_a_ledger_that_lacks_what_was_folded_is_not_called_well(
    terminal: Terminal, broker: Broker, database: Database
) -> None:
    await log(broker, "a")
    folding = await broker.js.pull_subscribe_bind(streams.PROJECTOR, streams.DELIVERIES)
    [message] = await folding.fetch(1)
    await message.ack_sync()
    printed = await terminal("status")
    assert terminal.code == 1
    assert "acknowledged up to 1, the ledger ends at 0: rows were lost" in printed
    assert "run `odooops rebuild`" in printed
    await enter(database, [ledger("a", 1)])
    assert (await terminal.json("status"))["state"] == "ok"
