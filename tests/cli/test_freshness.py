"""What `status` says of polls, of webhooks that fail and of drift, on a real database."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cli import freshness
from cli.main import main
from providers.polling import Polling, Scope
from providers.registry import PROVIDERS, sources
from runtime import ssot
from tests.conftest import Broker
from tests.servers import Database

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
SHOPS = [f"repos/org/shop{n}" for n in range(14)]
GITHUB = """\
name: github
endpoint: /webhooks/github
secrets: [GITHUB_WEBHOOK_SECRET]
api: {base_url: "https://api.github.com", auth: bearer, secret: GITHUB_TOKEN}
poll_interval_s: 900
"""


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker: Broker, database: Database) -> None:
    folder = tmp_path / "ssot" / "providers"
    folder.mkdir(parents=True)
    (folder / "github.yaml").write_text(GITHUB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODOOOPS_DATA_DIR", raising=False)
    monkeypatch.setenv("ODOOOPS_SSOT_DIR", str(tmp_path / "ssot"))
    monkeypatch.setenv("NATS_URL_READER", broker.url("reader"))
    monkeypatch.setenv("DATABASE_URL_READER", database.url("reader"))
    polled(monkeypatch, SHOPS)


def polled(monkeypatch: pytest.MonkeyPatch, scopes: list[str]) -> None:
    """Let GitHub's options name these to poll."""
    polling = Polling(scopes=lambda source: [Scope(name=name, parts={}) for name in scopes])
    monkeypatch.setitem(PROVIDERS, "github", replace(PROVIDERS["github"], polling=polling))


async def enter(database: Database, table: str, *rows: dict[str, Any]) -> None:
    connection = await asyncpg.connect(database.url("admin"))
    try:
        for row in rows:
            places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
            await connection.execute(
                f"INSERT INTO ops.{table} ({', '.join(row)}) VALUES ({places})", *row.values()
            )
    finally:
        await connection.close()


def poll(
    scope: str, complete_h: float | None = None, failed_h: float | None = None, **more: Any
) -> dict[str, Any]:
    """A scope: how many hours ago its newest polls began."""
    ages = {"last_complete_poll_at": complete_h, "last_failed_poll_at": failed_h}
    times = {name: None if age is None else NOW - timedelta(hours=age) for name, age in ages.items()}
    return {"source": "github", "scope": scope, "stale_after_s": 3_000, **times, **more}


async def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `status` says, and its lines about what belongs here."""
    await asyncio.to_thread(main, ["status", "--json"])
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    said["lines"] = [
        (each["part"], each["state"], each["text"])
        for each in said["checks"]
        if each["part"].startswith(("github", "poll", "webhook", "drift"))
        and not each["part"].endswith("door")
    ]
    return said


async def test_polls_in_trouble_come_first_and_few_of_them(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    await enter(
        database,
        "freshness",
        *(poll(scope, complete_h=n) for n, scope in enumerate(SHOPS[:11])),
        poll(SHOPS[11], complete_h=5, failed_h=1, last_error="http_403: it is not for us"),
        poll(SHOPS[12], failed_h=1, last_error="timeout"),
        poll("repos/org/given-up", complete_h=9_000),
        {"source": "github", "scope": f"{SHOPS[0]}/issues", "last_listing_at": NOW},
    )
    said = await told(capsys)
    parts = [part.removeprefix("github poll ") for part, _, _ in said["lines"]]
    assert parts[:4] == [SHOPS[12], SHOPS[11], SHOPS[10], SHOPS[9]]
    assert parts[freshness.POLLS_SHOWN_MAX :] == ["polls", "github polls"]
    texts = [text for _, _, text in said["lines"]]
    assert texts[0] == "failing: timeout; none was complete yet"
    assert texts[1].startswith("failing: http_403: it is not for us; the last complete one began ")
    assert texts[2].startswith("stale; the last complete one began ")
    assert texts[2].endswith("10 hours ago")
    assert texts[-2] == "2 more are failing or stale: see ops.freshness_now"
    assert texts[-1].startswith(
        "2 failing, 10 stale, 1 not polled yet, 1 fresh; the oldest complete one began "
    )
    assert {"warning"} == {state for _, state, _ in said["lines"]}
    assert sorted(SHOPS) == sorted(each["scope"] for each in said["polls"])


async def test_a_source_that_is_well_is_one_line(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    await enter(database, "freshness", *(poll(scope, complete_h=0) for scope in SHOPS))
    ((part, state, text),) = (await told(capsys))["lines"]
    assert (part, state) == ("github polls", "ok")
    assert text.startswith("14 fresh; ")


async def test_a_source_that_is_not_polled_is_named_with_the_fix_and_troubles_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unset = "no poll of it is known: where the poller runs, set GITHUB_TOKEN (or …_FILE)"
    said = await told(capsys)
    assert [("github polls", "not asked", unset)] == said["lines"]
    assert ({"github": unset}, True) == (said["not_polled"], said["ok"])
    polled(monkeypatch, [])
    ((_, _, text),) = (await told(capsys))["lines"]
    assert text == "not polled: name what to poll in the options of ssot/providers/github.yaml"


async def test_a_source_that_fell_silent_is_a_warning(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = {"last_webhook_at": NOW - timedelta(days=4), "stale_after_s": 259_200}
    await enter(database, "freshness", {"source": "github", "scope": "webhooks", **silent})
    (line, _) = (await told(capsys))["lines"]
    assert line[:2] == ("github webhooks", "warning")
    assert "4 days ago, and 72 h are the longest to expect" in line[2]


async def test_a_webhook_that_fails_is_bad_until_it_is_found_well(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(n: int, status: str, target: str = "github:hook/7") -> dict[str, Any]:
        return {
            "event_id": f"e{n}",
            "target": target,
            "check_name": "webhook",
            "status": status,
            "detail": "it is switched off",
            "checked_at": NOW - timedelta(minutes=10 - n),
        }

    await enter(
        database, "healthcheck_runs", check(0, "ok"), check(1, "failing"), check(2, "failing", "mended")
    )
    await enter(database, "healthcheck_runs", check(3, "ok", "mended"))
    said = await told(capsys)
    (line, _) = sorted(said["lines"], reverse=True)
    assert line[:2] == ("webhook github:hook/7", "bad")
    assert line[2].startswith("it is switched off (checked ")
    assert ("bad", False) == (said["state"], said["ok"])


async def test_the_drift_of_a_day_is_counted_by_source_and_cause(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(n: int, source: str, kind: str, hours: float) -> dict[str, Any]:
        at = NOW - timedelta(hours=hours)
        return {"event_id": f"e{n}", "source": source, "ref": f"r{n}", "kind": kind, "observed_at": at}

    causes = (
        ("github", "different", 1),
        ("github", "missing", 2),
        ("plane", "gone", 3),
        ("plane", "gone", 25),
    )
    await enter(database, "drift", *(found(n, *each) for n, each in enumerate(causes)))
    (line,) = (each for each in (await told(capsys))["lines"] if each[0] == "drift")
    assert line[1:] == (
        "ok",
        "3 healed in the last 24 h: github 2 missed; plane 1 gone. See `odooops drift list`",
    )


async def test_what_up_said_of_a_secret_counts_until_it_is_polled_all_the_same() -> None:
    """A file of secrets is read again: what was not set at the start may be set since."""
    source = sources(ssot.load(Path("ssot")))["github"]
    started = {"github": "not polled: set GITHUB_TOKEN"}
    assert "not polled: set GITHUB_TOKEN, then restart `odooops up`" == freshness._why_not(
        source, started, set()
    )
    assert freshness._why_not(source, started, {"stale"}) is not None
    assert freshness._why_not(source, started, {"stale", "fresh"}) is None
