"""What OdooOps itself says, in the histories that break a naive table: any order of arrival gives one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from contracts.advisor import AdvisorFindingDismissed, AdvisorFindingFound, AdvisorFindingReopened
from contracts.backups import (
    BackupExpired,
    BackupFinished,
    BackupJobFinished,
    BackupJobQueued,
    BackupJobStarted,
    BackupStarted,
)
from contracts.envelope import Event
from contracts.exec_sessions import (
    ExecSessionClosed,
    ExecSessionDenied,
    ExecSessionExpired,
    ExecSessionOpened,
    ExecSessionRequested,
)
from contracts.gates import GateEvaluated
from contracts.health import HealthcheckCompleted, MetricRecorded
from contracts.jobs import JobFinished, JobQueued, JobRunFinished, JobRunProgressed, JobRunStarted, JobStarted
from contracts.own import delivery_of
from contracts.runs import RunQueued, RunStarted
from contracts.secret_sync import SecretSyncFinished, SecretSyncStarted
from contracts.version import moment
from services.projector.understand import understand
from tests.contracts.examples import FOLDER, event_of
from tests.read_models.saying import NOON, SAID_AT, after, folded, in_any_order
from tests.samples import SOURCES

BACKUP: dict[str, Any] = {"backup_id": "b-1", "database": "shop"}
BACKUP_JOB: dict[str, Any] = {"backup_job_id": "j-1", "action": "restore"}
SESSION: dict[str, Any] = {"session_id": "s-1", "target": "digitalocean:droplet/1"}
JOB: dict[str, Any] = {"job_id": "j-1", "job_type": "backup"}
RUN: dict[str, Any] = {"run_id": "r-1", "kind": "backup"}
SYNC: dict[str, Any] = {"sync_id": "s-1", "source_store": "vault", "target_store": "github_actions"}
FINDING: dict[str, Any] = {
    "advisor": "posture",
    "rule": "disk",
    "resource_ref": "digitalocean:droplet/1",
    "pillar": "reliability",
    "title": "Disk is full",
}
GATE: dict[str, Any] = {
    "gate": "db_object_count",
    "gate_version": "1",
    "subject_ref": "github:org/repo@sha",
    "input_hash": "ab" * 16,
}

Row = dict[str, Any]
History = tuple[str, Sequence[Event], Row]

LIVES: dict[str, History] = {
    "a backup that is removed keeps how it ended": (
        "backups",
        [
            BackupStarted(**BACKUP, occurred_at=after(0)),
            BackupFinished(**BACKUP, occurred_at=after(5), status="success", expires_at=after(60)),
            BackupExpired(**BACKUP, occurred_at=after(61)),
        ],
        {"status": "expired", "stated_status": "success", "started_at": NOON, "finished_at": after(5)},
    ),
    "a backup whose clock went back has still finished": (
        "backups",
        [
            BackupStarted(**BACKUP, occurred_at=after(9)),
            BackupFinished(**BACKUP, occurred_at=after(5), status="success"),
        ],
        {"status": "success", "finished_at": after(5)},
    ),
    "a backup that was closed for silence counts by its real end, though that is earlier": (
        "backups",
        [
            BackupStarted(**BACKUP, occurred_at=after(0)),
            BackupFinished(
                **BACKUP, occurred_at=after(30), status="failed", error="no sign of life", timed_out=True
            ),
            BackupFinished(**BACKUP, occurred_at=after(20), status="success", size_bytes=7),
        ],
        {"status": "success", "error": None, "finished_at": after(20), "size_bytes": 7},
    ),
    "a restore that finished before it was heard to start": (
        "backup_jobs",
        [
            BackupJobQueued(**BACKUP_JOB, occurred_at=after(0), actor="mona"),
            BackupJobStarted(**BACKUP_JOB, occurred_at=after(1), actor="worker-1"),
            BackupJobFinished(**BACKUP_JOB, occurred_at=after(2), status="success", actor="worker-1"),
        ],
        {"status": "success", "actor": "mona", "queued_at": NOON, "started_at": after(1)},
    ),
    "a run that was closed for silence counts by its real end": (
        "runs",
        [
            JobRunStarted(**RUN, occurred_at=after(0)),
            JobRunProgressed(**RUN, occurred_at=after(1), message="half"),
            JobRunFinished(
                **RUN, occurred_at=after(30), status="failed", error="no sign of life", timed_out=True
            ),
            JobRunFinished(**RUN, occurred_at=after(40), status="success"),
        ],
        {"status": "success", "error": None, "started_at": NOON, "finished_at": after(40)},
    ),
    "a run that was closed for silence stays so when it is only heard of again": (
        "runs",
        [
            JobRunStarted(**RUN, occurred_at=after(0)),
            JobRunFinished(**RUN, occurred_at=after(30), status="failed", timed_out=True),
            JobRunProgressed(**RUN, occurred_at=after(35), message="still here"),
        ],
        {"status": "failed", "finished_at": after(30), "last_event_at": after(35)},
    ),
    "a job that failed once runs again, and its last error stays": (
        "jobs",
        [
            JobQueued(**JOB, occurred_at=after(0), args={"a": 1}, max_attempts=3),
            JobStarted(**JOB, occurred_at=after(1)),
            JobFinished(**JOB, occurred_at=after(2), status="failed", error="away", run_after=after(5)),
            JobStarted(**JOB, occurred_at=after(5), attempt=2),
        ],
        {
            "status": "running",
            "attempts": 2,
            "max_attempts": 3,
            "last_error": "away",
            "last_error_at": after(2),
            "run_after": None,
            "finished_at": None,
            "args": b'{"a":1}',
            "started_at": after(1),
        },
    ),
    "a job's second attempt counts though its worker's clock is behind": (
        "jobs",
        [
            JobFinished(**JOB, occurred_at=after(20), status="failed", error="away"),
            JobStarted(**JOB, occurred_at=after(3), attempt=2),
            JobFinished(**JOB, occurred_at=after(4), attempt=2, status="done"),
        ],
        {"status": "done", "attempts": 2, "finished_at": after(4)},
    ),
    "a dead job that is queued again waits": (
        "jobs",
        [
            JobStarted(**JOB, occurred_at=after(1)),
            JobFinished(**JOB, occurred_at=after(2), status="dead", error="away"),
            JobQueued(**JOB, occurred_at=after(60), attempt=2),
        ],
        {"status": "queued", "attempts": 1, "last_error": "away", "queued_at": after(60)},
    ),
    "a session that expired and was closed after all": (
        "exec_sessions",
        [
            ExecSessionRequested(**SESSION, occurred_at=after(0), requested_by="mona", reason="stuck"),
            ExecSessionOpened(**SESSION, occurred_at=after(1), approved_by="hubot", expires_at=after(61)),
            ExecSessionExpired(**SESSION, occurred_at=after(61)),
            ExecSessionClosed(**SESSION, occurred_at=after(50), transcript_ref="odooops:artifact/t"),
        ],
        {
            "status": "closed",
            "requested_by": "mona",
            "approved_by": "hubot",
            "requested_at": NOON,
            "opened_at": after(1),
            "expires_at": after(61),
            "closed_at": after(50),
            "transcript_ref": "odooops:artifact/t",
        },
    ),
    "a session that was extended": (
        "exec_sessions",
        [
            ExecSessionOpened(**SESSION, occurred_at=after(1), expires_at=after(61)),
            ExecSessionOpened(**SESSION, occurred_at=after(50), expires_at=after(121)),
        ],
        {"status": "open", "opened_at": after(1), "expires_at": after(121)},
    ),
    "a session that was denied": (
        "exec_sessions",
        [
            ExecSessionRequested(**SESSION, occurred_at=after(0)),
            ExecSessionDenied(**SESSION, occurred_at=after(1), detail="frozen"),
        ],
        {"status": "denied", "opened_at": None, "detail": "frozen"},
    ),
    "a sync that finished before it was heard to start": (
        "secret_sync_runs",
        [
            SecretSyncStarted(**SYNC, occurred_at=after(0)),
            SecretSyncFinished(
                **SYNC,
                occurred_at=after(1),
                status="partial",
                pushed=["A_TOKEN"],
                skipped={"B_TOKEN": "not_in_source"},
            ),
        ],
        {
            "status": "partial",
            "started_at": NOON,
            "pushed": ["A_TOKEN"],
            "skipped": b'{"B_TOKEN":"not_in_source"}',
        },
    ),
    "a gate that could not judge and then could": (
        "policy_gate_runs",
        [
            GateEvaluated(**GATE, occurred_at=after(0), status="error", reasons=["database away"]),
            GateEvaluated(**GATE, occurred_at=after(5), status="pass", observed={"objects": 9}),
            GateEvaluated(**GATE, occurred_at=after(9), status="error", reasons=["database away"]),
        ],
        {
            "verdict": "pass",
            "status": "error",
            "reasons": ["database away"],
            "first_run_at": NOON,
            "last_run_at": after(9),
        },
    ),
    "a gate that contradicts itself is not green": (
        "policy_gate_runs",
        [
            GateEvaluated(**GATE, occurred_at=after(0), status="pass"),
            GateEvaluated(**GATE, occurred_at=after(5), status="fail"),
            GateEvaluated(**GATE, occurred_at=after(9), status="pass"),
        ],
        {"verdict": "fail", "status": "pass"},
    ),
    "a word of a gate that nobody knows is no verdict": (
        "policy_gate_runs",
        [GateEvaluated(**GATE, occurred_at=after(0), status="mostly harmless")],
        {"verdict": None, "status": "unknown", "stated_status": "mostly harmless"},
    ),
}


@pytest.mark.parametrize(("table", "history", "expected"), LIVES.values(), ids=LIVES)
def test_a_life_gives_one_row_in_any_order(table: str, history: Sequence[Event], expected: Row) -> None:
    (row,) = in_any_order(table, history)

    assert expected == {name: row[name] for name in expected}


def found(run: str, minutes: float) -> AdvisorFindingFound:
    return AdvisorFindingFound(**FINDING, run_id=run, severity="high", occurred_at=after(minutes))


def test_a_finding_of_two_runs_is_two_rows_of_one_ref() -> None:
    rows = in_any_order("advisor_findings", [found("1", 0), found("2", 60), found("2", 61)])

    assert ["odooops:advisor_run/1", "odooops:advisor_run/2"] == [row["run_ref"] for row in rows]
    assert 1 == len({row["ref"] for row in rows}) == len({row["fingerprint"] for row in rows})
    assert after(61) == rows[1]["found_at"]


def decisions(*minutes: float) -> list[Event]:
    """Dismissed, reopened, dismissed … at these minutes."""
    known = {"advisor": "posture", "fingerprint": found("1", 0).fingerprint, "actor": "mona"}
    kinds = (AdvisorFindingDismissed, AdvisorFindingReopened)
    return [kinds[n % 2](**known, occurred_at=after(at)) for n, at in enumerate(minutes)]


@pytest.mark.parametrize(
    ("dismissed", "minutes"),
    [(True, [0]), (False, [0, 1]), (True, [0, 1, 2]), (False, [5, 5]), (True, [0, 5, 5.1])],
)
def test_the_newest_decision_about_a_finding_stands(dismissed: bool, minutes: list[float]) -> None:
    (row,) = in_any_order("advisor_dismissals", decisions(*minutes))

    assert (dismissed, "mona", after(minutes[-1])) == (row["dismissed"], row["decided_by"], row["decided_at"])


def check(minutes: float, status: str) -> HealthcheckCompleted:
    return HealthcheckCompleted(
        target="shop", check_name="http", env="prod", status=status, occurred_at=after(minutes)
    )


def test_a_check_that_fails_recovers_and_fails_again_is_three_rows() -> None:
    history = [check(0, "down"), check(1, "ok"), check(2, "down")]

    rows = sorted(in_any_order("healthcheck_runs", history), key=lambda row: str(row["checked_at"]))

    assert ["failing", "ok", "failing"] == [row["status"] for row in rows]
    assert {"odooops:healthcheck/prod/http/shop"} == {row["ref"] for row in rows}


def test_a_figure_said_twice_is_one_row_and_another_figure_of_that_time_another() -> None:
    def figure(metric: str) -> MetricRecorded:
        return MetricRecorded(ref="digitalocean:droplet/1", metric=metric, value=0.5, occurred_at=NOON)

    rows = in_any_order("metric_snapshots", [figure("disk"), figure("disk"), figure("memory")])

    assert ["disk", "memory"] == sorted(row["metric"] for row in rows)


def test_messages_of_one_moment_of_a_run_are_all_kept() -> None:
    said = [
        JobRunProgressed(**RUN, occurred_at=NOON, step_name="load", message=text, number=n, log_level="warn")
        for n, text in enumerate(("one", "two"))
    ]

    rows = in_any_order("run_events", said)

    assert {("load", "warn", "one", "running"), ("load", "warn", "two", "running")} == {
        (row["step"], row["level"], row["message"], row["outcome"]) for row in rows
    }
    assert {"odooops:run/r-1"} == {row["ref"] for row in rows}


def test_a_reported_check_is_a_run_too() -> None:
    known = event_of(FOLDER / "examples" / "run.finished.json").model_dump(exclude={"fact"})
    known |= {"provider_conclusion": None, "finished_at": None}
    history: list[Event] = [
        RunQueued.model_validate({**known, "status": "queued", "moment": moment(after(0), 0)}),
        RunStarted.model_validate({**known, "status": "running", "moment": moment(after(1), 0, major=1)}),
        event_of(FOLDER / "examples" / "run.finished.json"),
    ]

    (row,) = in_any_order("runs", history)

    assert ("check_run", "success", "success", "compliance-bot") == (
        row["kind"],
        row["status"],
        row["stated_status"],
        row["runner"],
    )
    assert "3484a3fb816e0859fd6e1cea078d76385ff50625" == row["correlation_id"]


def test_a_word_that_nobody_knows_fails_no_row() -> None:
    (row,) = folded(
        "backups", [BackupFinished(**BACKUP, occurred_at=NOON, status="ARCHIVED", backup_type="lunar")]
    )

    assert ("unknown", "ARCHIVED") == (row["status"], row["stated_status"])
    assert ("other", "lunar") == (row["backup_type"], row["stated_backup_type"])


def test_an_error_of_any_length_ends_its_run() -> None:
    long = JobRunFinished(**RUN, occurred_at=NOON, status="failed", error="x" * 200_000)

    (row,) = folded("runs", [long])

    assert 2_000 == len(row["error"])


def test_text_that_postgres_refuses_is_cleaned_on_its_way() -> None:
    told = JobRunProgressed(**RUN, occurred_at=NOON, message="a\x00b")

    (row,) = folded("run_events", [told])

    assert "a\ufffdb" == row["message"]


def test_an_expiry_may_lie_in_the_future_and_a_start_may_not() -> None:
    kept = BackupFinished(**BACKUP, occurred_at=NOON, status="ok", expires_at=after(1e6))
    mad = BackupStarted(**BACKUP, occurred_at=after(1e6))

    assert "projected" == understand(SOURCES, delivery_of(kept, "job", SAID_AT)).status
    assert "future_time" == understand(SOURCES, delivery_of(mad, "job", SAID_AT)).reason
