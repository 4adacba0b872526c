"""Check runs and suites as reported runs: what other systems say about a commit.

The status decides how far a run is: a check may be `created` when it has ended already.
"""

from __future__ import annotations

from contracts.builds import BuildStatus
from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.runs import ReportedRun, RunFinished, RunQueued, RunStarted
from contracts.version import moment
from providers.github.builds import CONCLUSIONS, FINISHED, QUEUED, RUNNING, STATUS_RANKS, state_words
from providers.github.payloads import (
    CheckRun,
    CheckRunItem,
    CheckRunPayload,
    CheckSuite,
    CheckSuiteItem,
    CheckSuitePayload,
    Home,
    Named,
)
from providers.port import Source

REREQUESTED = "rerequested"
"""Somebody wants it again. What the body shows is the old result, which must not count as a new one."""

RUN_EVENTS: tuple[type[ReportedRun], ...] = (RunQueued, RunStarted, RunFinished)


def check_run(payload: CheckRunPayload, delivery: Delivery, source: Source) -> list[Event]:
    """One check of a commit."""
    return [_run(payload.check_run, payload.repository, payload.action, delivery, source, payload.actor)]


def check_suite(payload: CheckSuitePayload, delivery: Delivery, source: Source) -> list[Event]:
    """All checks of one application on a commit."""
    return [_suite(payload.check_suite, payload.repository, payload.action, delivery, source, payload.actor)]


def observed_check_run(run: CheckRunItem, home: Home, delivery: Delivery, source: Source) -> list[Event]:
    """One check as a poll sees it."""
    return [_run(run, home, "", delivery, source)]


def observed_check_suite(
    suite: CheckSuiteItem, home: Home, delivery: Delivery, source: Source
) -> list[Event]:
    """A suite as a poll sees it."""
    return [_suite(suite, home, "", delivery, source)]


def _run(
    run: CheckRun, home: Home, action: str, delivery: Delivery, source: Source, actor: str | None = None
) -> ReportedRun:
    rank = _rank(action, run.status)
    at = run.completed_at or run.started_at or delivery.received_at
    branch = run.check_suite.head_branch if run.check_suite else None
    return RUN_EVENTS[rank](
        source=delivery.source,
        ref=f"github:check_run/{run.id}",
        moment=moment(at, 0, major=rank),
        fact=_fact(action, run.status, run.conclusion),
        occurred_at=at,
        actor=actor,
        env=source.environments.of(repository=home.full_name, branch=branch),
        kind="check_run",
        name=run.name,
        reporter=_reporter(run.app),
        repository=home.full_name,
        repository_id=home.id,
        branch=branch,
        commit_sha=run.head_sha,
        status=_status(rank, action, run.status, run.conclusion),
        provider_status=run.status,
        provider_conclusion=run.conclusion,
        url=run.html_url,
        started_at=None if rank == QUEUED else run.started_at,
        finished_at=run.completed_at if rank == FINISHED else None,
    )


def _suite(
    suite: CheckSuite, home: Home, action: str, delivery: Delivery, source: Source, actor: str | None = None
) -> ReportedRun:
    """A suite has no name but its application's."""
    rank = _rank(action, suite.status)
    at = suite.updated_at or suite.created_at or delivery.received_at
    reporter = _reporter(suite.app)
    return RUN_EVENTS[rank](
        source=delivery.source,
        ref=f"github:check_suite/{suite.id}",
        moment=moment(at, 0, major=rank),
        fact=_fact(action, suite.status, suite.conclusion),
        occurred_at=at,
        actor=actor,
        env=source.environments.of(repository=home.full_name, branch=suite.head_branch),
        kind="check_suite",
        name=reporter or "check suite",
        reporter=reporter,
        repository=home.full_name,
        repository_id=home.id,
        branch=suite.head_branch,
        commit_sha=suite.head_sha,
        status=_status(rank, action, suite.status, suite.conclusion),
        provider_status=suite.status,
        provider_conclusion=suite.conclusion,
        finished_at=suite.updated_at if rank == FINISHED else None,
    )


def _rank(action: str, status: str | None) -> int:
    if action == REREQUESTED:
        return QUEUED
    return STATUS_RANKS.get(status, FINISHED if action == "completed" else QUEUED)


def _status(rank: int, action: str, status: str | None, conclusion: str | None) -> BuildStatus:
    if rank == FINISHED:
        return CONCLUSIONS.get(conclusion or "", "unknown")
    if rank == RUNNING:
        return "running"
    return "queued" if action == REREQUESTED or status in STATUS_RANKS else "unknown"


def _fact(action: str, status: str | None, conclusion: str | None) -> str:
    return REREQUESTED if action == REREQUESTED else state_words(status, conclusion)


def _reporter(app: Named | None) -> str | None:
    return (app.name or app.slug or None) if app else None
