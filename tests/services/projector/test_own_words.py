"""What OdooOps itself says, on a real broker and a real Postgres: every table it fills, and the views over them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import ledger
from contracts.advisor import (
    AdvisorFindingDismissed,
    AdvisorFindingFound,
    AdvisorFindingReopened,
    AdvisorRunFinished,
    AdvisorRunStarted,
)
from contracts.backups import BackupExpired, BackupFinished, BackupStarted
from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.exec_sessions import ExecSessionClosed, ExecSessionOpened
from contracts.own import OwnEvent, delivery_of
from contracts.registry import EVENTS
from runtime.postgres import make_engine
from services.projector.understand import understand
from services.projector.write import Writer
from tests.conftest import Broker
from tests.contracts.examples import EXAMPLES, event_of
from tests.read_models.saying import NOON, SAID_AT, after
from tests.samples import SOURCES
from tests.servers import Database
from tests.services.projector.running import event_ids, project_all, store_batch
from tests.tables import SQL, count, empty, snapshot

pytestmark = pytest.mark.anyio

SAID = [
    event
    for event in map(event_of, EXAMPLES)
    if isinstance(event, OwnEvent) and type(event).__module__ != ledger.__name__
]
NINE = datetime(2026, 3, 4, 9, tzinfo=UTC)
SHA = "3484a3fb816e0859fd6e1cea078d76385ff50625"

# What the committed examples of our own events come to: the columns that say it best, of every table they fill.
TOLD: dict[str, list[dict[str, Any]]] = {
    "backups": [
        {
            "ref": "odooops:backup/prod-2026-03-04",
            "env": "prod",
            "backup_type": "daily",
            "status": "expired",
            "stated_status": "Completed",
            "size_bytes": 734003200,
            "postgres_version": "16.4",
            "finished_at": NINE + timedelta(minutes=4),
            "expires_at": NINE + timedelta(days=7),
        }
    ],
    "backup_jobs": [
        {
            "ref": "odooops:backup_job/restore-17",
            "action": "restore",
            "target_env": "stage",
            "actor": "mona",
            "runner": "worker-2",
            "status": "failed",
            "error": "no sign of life for 300 s",
        }
    ],
    "advisor_runs": [
        {
            "ref": "odooops:advisor_run/posture-311",
            "status": "success",
            "finding_count": 1,
            "started_at": NINE,
        }
    ],
    "advisor_findings": [
        {
            "run_ref": "odooops:advisor_run/posture-311",
            "rule": "disk_usage",
            "severity": "high",
            "stated_severity": "HIGH",
            "evidence": {"used_percent": 92.4, "window_s": 300},
        }
    ],
    "advisor_dismissals": [{"dismissed": False, "decided_by": "mona", "reason": "volume was not replaced"}],
    "secret_sync_runs": [
        {
            "status": "partial",
            "pushed": ["GITHUB_WEBHOOK_SECRET", "MAILGUN_SIGNING_KEY"],
            "skipped": {"SLACK_BOT_TOKEN": "not_in_source"},
            "error": "source_incomplete",
        }
    ],
    "policy_gate_runs": [
        {
            "gate": "db_object_count",
            "subject_ref": f"github:example-org/shop@{SHA}",
            "verdict": "fail",
            "observed": {"tables": 9871, "sequences": 411},
            "threshold": {"objects_max": 10000},
            "reasons": ["10282 tables and sequences, at most 10000"],
            "first_run_at": NINE,
            "last_run_at": NINE,
        }
    ],
    "exec_sessions": [
        {"ref": "odooops:exec_session/shell-10", "status": "denied", "approved_by": None},
        {
            "ref": "odooops:exec_session/shell-9",
            "status": "closed",
            "approved_by": "hubot",
            "closed_at": NINE + timedelta(minutes=20),
            "transcript_ref": "odooops:artifact/shell-9-transcript",
        },
    ],
    "jobs": [
        {
            "ref": "odooops:job/job-5001",
            "status": "failed",
            "attempts": 1,
            "max_attempts": 3,
            "timeout_s": 1800,
            "args": {"backup": "odooops:backup/prod-2026-03-04", "neutralise": True},
            "last_error": "no sign of life for 300 s",
        }
    ],
    "runs": [
        {
            "ref": "odooops:run/run-8842",
            "source": "odooops",
            "kind": "backup",
            "job_ref": "odooops:job/job-5001",
            "status": "failed",
            "stated_status": "failure",
            "error": "pg_restore ended with 1",
        }
    ],
    "artifacts": [
        {
            "ref": "odooops:artifact/gate-77-counts",
            "size_bytes": 2048,
            "object_name": "gate-77/object-counts.json",
            "stored_at": NINE,
        }
    ],
    "healthcheck_runs": [
        {
            "ref": "odooops:healthcheck/prod/http/shop.example.org",
            "status": "degraded",
            "stated_status": "slow",
            "latency_ms": 2310.5,
        }
    ],
    "metric_snapshots": [
        {"ref": "digitalocean:droplet/123", "metric": "disk_used_percent", "value": 92.4, "taken_at": NINE}
    ],
}


@pytest.fixture
async def engine(database: Database, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    made = make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


def log(events: Sequence[Event]) -> list[Delivery]:
    """The deliveries that state `events`, as the log would hold them."""
    return [replace(delivery_of(event, "job", SAID_AT), seq=seq) for seq, event in enumerate(events, 1)]


async def fold(engine: AsyncEngine, entries: Sequence[Delivery]) -> Writer:
    """Fold deliveries in this order, each by itself."""
    by_seq = {entry.seq: entry for entry in entries}

    async def read(seq: int) -> Delivery:
        return by_seq[seq]

    writer = Writer(engine, SQL, SOURCES, read)
    for entry in entries:
        await writer.fold([understand(SOURCES, entry)])
    return writer


async def rows_of(engine: AsyncEngine, statement: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(statement))]


async def test_every_table_is_filled_by_deliveries_of_our_own(broker: Broker, engine: AsyncEngine) -> None:
    assert {event.type for event in SAID} == {
        name
        for name, event in EVENTS.items()
        if issubclass(event, OwnEvent) and event.__module__ != ledger.__name__
    }
    await store_batch(broker, [delivery_of(event, "job", SAID_AT) for event in SAID])

    await project_all(broker, engine)

    assert 0 == await count(engine, "deliveries", "status <> 'projected'")
    found = await snapshot(engine)
    for table, told in TOLD.items():
        shown = [
            {name: row[name] for name in expected} for row, expected in zip(found[table], told, strict=True)
        ]
        assert told == shown, table
    steps = [row for row in found["run_events"] if row["step"] == "download"]
    assert [("warn", "the mirror is slow: 3 MB/s", "odooops:run/run-8842")] == [
        (row["level"], row["message"], row["ref"]) for row in steps
    ]
    assert sorted(event.id for event in SAID) == sorted(await event_ids(broker))


async def test_a_refold_of_what_we_said_changes_nothing(engine: AsyncEngine) -> None:
    writer = await fold(engine, log(SAID))
    before = await snapshot(engine)

    await writer.refold({ref for row in before["deliveries"] for ref in row["refs"]})

    assert before == await snapshot(engine)


KNOWN: dict[str, Any] = {"advisor": "posture"}
DISK: dict[str, Any] = {
    **KNOWN,
    "rule": "disk",
    "resource_ref": "digitalocean:droplet/1",
    "pillar": "reliability",
    "severity": "high",
    "title": "Disk is full",
}
DISK_PRINT = AdvisorFindingFound(**DISK, run_id="0", occurred_at=NOON).fingerprint


def scan(run: str, minutes: int, findings: int | None, status: str = "success") -> list[Event]:
    """A scan that begins at `minutes`, takes 9, and ended so."""
    return [
        AdvisorRunStarted(**KNOWN, run_id=run, occurred_at=after(minutes)),
        AdvisorRunFinished(
            **KNOWN, run_id=run, occurred_at=after(minutes + 9), status=status, finding_count=findings
        ),
    ]


def disk(run: str, minutes: int, **other: Any) -> Event:
    return AdvisorFindingFound(**{**DISK, **other}, run_id=run, occurred_at=after(minutes + 5))


def dismissed(minutes: int) -> Event:
    return AdvisorFindingDismissed(
        **KNOWN, fingerprint=DISK_PRINT, actor="mona", occurred_at=after(minutes), reason="known"
    )


def reopened(minutes: int) -> Event:
    return AdvisorFindingReopened(**KNOWN, fingerprint=DISK_PRINT, occurred_at=after(minutes))


SEEN_TWICE = [*scan("1", 0, 1), disk("1", 0), *scan("2", 60, 1), disk("2", 60)]
SCANS: dict[str, tuple[list[Event], tuple[str, bool]]] = {
    "seen in two complete scans": (SEEN_TWICE, ("open", True)),
    "absent from the third": ([*SEEN_TWICE, *scan("3", 120, 0)], ("resolved", False)),
    "absent from a third that failed": ([*SEEN_TWICE, *scan("3", 120, 0, "failed")], ("open", True)),
    "absent from a third that read a part": ([*SEEN_TWICE, *scan("3", 120, 0, "partial")], ("open", True)),
    "absent from a third that has only begun": ([*SEEN_TWICE, *scan("3", 120, 0)[:1]], ("open", True)),
    "absent from a third of which a finding is parked": (
        [*SEEN_TWICE, *scan("3", 120, 1)],
        ("open", True),
    ),
    "absent from a third that does not say how much it found": (
        [*SEEN_TWICE, *scan("3", 120, None)],
        ("open", True),
    ),
    "absent from another advisor's": (
        [
            *SEEN_TWICE,
            AdvisorRunFinished(
                advisor="costs", run_id="9", occurred_at=after(120), status="success", finding_count=0
            ),
        ],
        ("open", True),
    ),
    "resolved and back again": (
        [*scan("1", 0, 1), disk("1", 0), *scan("2", 60, 0), *scan("3", 120, 1), disk("3", 120)],
        ("open", True),
    ),
    "back in a scan that failed": (
        [*scan("1", 0, 1), disk("1", 0), *scan("2", 60, 0), *scan("3", 120, 1, "failed"), disk("3", 120)],
        ("open", True),
    ),
    "found by a scan of which nothing else is known": ([disk("1", 0)], ("open", True)),
    "found by a scan of which only the end is known": ([disk("1", 0), scan("1", 0, 1)[1]], ("open", True)),
    "dismissed and seen again": ([*SEEN_TWICE, dismissed(30)], ("dismissed", True)),
    "dismissed and gone": ([*SEEN_TWICE, dismissed(30), *scan("3", 120, 0)], ("dismissed", False)),
    "dismissed and reopened": ([*SEEN_TWICE, dismissed(30), reopened(31)], ("open", True)),
    "dismissed, reopened and dismissed": (
        [*SEEN_TWICE, dismissed(30), reopened(31), dismissed(32)],
        ("dismissed", True),
    ),
}


@pytest.mark.parametrize(("history", "expected"), SCANS.values(), ids=SCANS)
async def test_a_finding_is_open_resolved_or_dismissed(
    history: list[Event], expected: tuple[str, bool], engine: AsyncEngine
) -> None:
    for order in (history, history[::-1]):
        await empty(engine)
        await fold(engine, log(order))

        assert [expected] == await rows_of(engine, "SELECT status, present FROM ops.advisor_findings_now")


async def test_a_finding_shows_its_newest_sight_and_when_it_was_first_seen(engine: AsyncEngine) -> None:
    await fold(
        engine, log([disk("2", 60, severity="low"), disk("1", 0), *scan("1", 0, 1), *scan("2", 60, 1)])
    )

    statement = "SELECT run_ref, severity, first_found_at, found_at, checked_at FROM ops.advisor_findings_now"
    assert [("odooops:advisor_run/2", "low", after(5), after(65), after(60))] == await rows_of(
        engine, statement
    )


async def test_a_backup_is_restorable_while_it_is_kept(engine: AsyncEngine) -> None:
    """The clock is the database's: all of this lies before today or far beyond it."""
    far = datetime(9999, 1, 1, tzinfo=UTC)
    lives: dict[str, list[Event]] = {
        "kept": [BackupFinished(backup_id="kept", occurred_at=NOON, status="ok", expires_at=far)],
        "manual": [BackupFinished(backup_id="manual", occurred_at=NOON, status="ok")],
        "over": [BackupFinished(backup_id="over", occurred_at=NOON, status="ok", expires_at=after(1))],
        "failed": [BackupFinished(backup_id="failed", occurred_at=NOON, status="failed")],
        "strange": [BackupFinished(backup_id="strange", occurred_at=NOON, status="archived")],
        "running": [BackupStarted(backup_id="running", occurred_at=NOON)],
        "removed": [
            BackupFinished(backup_id="removed", occurred_at=NOON, status="ok", expires_at=far),
            BackupExpired(backup_id="removed", occurred_at=after(1)),
        ],
    }
    await fold(engine, log([event for life in lives.values() for event in life]))

    found = await rows_of(engine, "SELECT backup_id FROM ops.backups_now WHERE restorable ORDER BY 1")
    assert [("kept",), ("manual",)] == found
    assert 0 == await count(engine, "backups_now", "restorable IS NULL")


async def test_a_session_whose_time_is_over_is_not_live(engine: AsyncEngine) -> None:
    def opened(name: str, until: datetime) -> Event:
        return ExecSessionOpened(session_id=name, target="x", occurred_at=NOON, expires_at=until)

    far = datetime(9999, 1, 1, tzinfo=UTC)
    left = ExecSessionClosed(session_id="left", target="x", occurred_at=after(1))
    await fold(engine, log([opened("live", far), opened("over", after(1)), opened("left", far), left]))

    found = await rows_of(engine, "SELECT ref, status, live FROM ops.exec_sessions_now ORDER BY ref")
    assert [("left", "closed", False), ("live", "open", True), ("over", "open", False)] == [
        (ref.rpartition("/")[2], status, live) for ref, status, live in found
    ]


async def test_any_order_of_a_few_statements_gives_postgres_the_same_findings(engine: AsyncEngine) -> None:
    history = [disk("1", 0), disk("2", 60), scan("2", 60, 1)[1], dismissed(30)]
    found = []
    for order in permutations(history):
        await empty(engine)
        await fold(engine, log(order))
        found.append(
            await rows_of(engine, "SELECT run_ref, status, present, decided_by FROM ops.advisor_findings_now")
        )

    assert [("odooops:advisor_run/2", "dismissed", True, "mona")] == found[0]
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("view", ["backups_now", "exec_sessions_now", "advisor_findings_now"])
async def test_the_reader_sees_a_view_and_cannot_write_through_it(view: str, database: Database) -> None:
    reader = make_engine(database.url("reader"), "test")
    try:
        assert 0 == await count(reader, view)
        async with reader.connect() as connection:
            with pytest.raises(DBAPIError):
                await connection.execute(text(f"DELETE FROM ops.{view}"))
    finally:
        await reader.dispose()
