"""What `status` says of polls, of webhooks that polls found failing, and of drift: the worst first, in few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from cli import reach
from cli.database import reason
from cli.reach import Servers
from cli.report import Report, Word, ago
from contracts.polls import WEBHOOKS
from contracts.ssot import BadSsot
from providers.polling import why_not_polled
from providers.port import Source
from providers.registry import sources
from runtime import ssot
from runtime.settings import BadSettings
from runtime.state import State

ROWS_MAX = 5_000
POLLS_SHOWN_MAX = 10
WEBHOOKS_SHOWN_MAX = 10
DRIFT_COUNTED_MAX = 1_000

UNKNOWN: Mapping[str, None] = {"polls": None, "not_polled": None, "failing_webhooks": None, "drift_24h": None}
"""The facts that the database tells, until it does."""
TROUBLES = ("failing", "stale")
"""States of a poll that wait for somebody, the worst first."""

_FRESHNESS = text(
    """
SELECT source, scope, state, last_complete_poll_at, last_failed_poll_at, last_error, last_webhook_at, stale_after_s
FROM ops.freshness_now
WHERE scope = :webhooks AND state = 'stale'
    OR scope <> :webhooks AND (stale_after_s IS NOT NULL OR last_failed_poll_at IS NOT NULL)
ORDER BY source, scope LIMIT :rows
"""
)
"""Who fell silent, and whatever a poll ended with: a listing alone is a part of one, or was made by hand."""

_WEBHOOKS = text(
    """
SELECT * FROM (
    SELECT DISTINCT ON (target) target, status, detail, checked_at FROM ops.healthcheck_runs
    WHERE check_name = 'webhook' AND checked_at > now() - INTERVAL '7 days' ORDER BY target, checked_at DESC
) AS newest WHERE status = 'failing' ORDER BY target LIMIT :rows
"""
)
_DRIFT = text(
    """
SELECT source, cause, count(*) AS count FROM (
    SELECT source, cause FROM ops.drift_now
    WHERE observed_at > now() - INTERVAL '24 hours' ORDER BY observed_at DESC LIMIT :rows
) AS newest GROUP BY source, cause ORDER BY source, count(*) DESC, cause
"""
)


Rows = Mapping[tuple[str, str], Mapping[str, Any]]
"""By source and scope."""


@dataclass(frozen=True, slots=True)
class Poll:
    """One scope of a source that is polled."""

    source: str
    scope: str
    state: str
    """failing, stale, fresh; `unknown` where it was not polled yet, or its times lie ahead."""
    last_complete_poll_at: datetime | None = None
    last_failed_poll_at: datetime | None = None
    last_error: str | None = None

    @property
    def order(self) -> tuple[int, datetime]:
        """By state, the worst first, and in it by how long it is unread."""
        rank = TROUBLES.index(self.state) if self.state in TROUBLES else len(TROUBLES)
        return rank, self.last_complete_poll_at or datetime.min.replace(tzinfo=UTC)


async def look(servers: Servers, known: State | None, connection: AsyncConnection, report: Report) -> None:
    """Add what is known of polls, webhooks and drift."""
    for part, asking in (
        ("polls", _polls(servers, known, connection, report)),
        ("webhooks", _webhooks(connection, report)),
        ("drift", _drift(connection, report)),
    ):
        try:
            await asking
        except DBAPIError as error:
            await connection.rollback()
            report.add(part, "unknown", reason(error))


async def _polls(servers: Servers, known: State | None, connection: AsyncConnection, report: Report) -> None:
    try:
        declared = sources(ssot.load(reach.ssot_dir(servers.settings)))
    except (BadSettings, BadSsot) as error:
        report.add("polls", "unknown", f"{error}: run `odooops check`")
        return
    found = await connection.execute(_FRESHNESS, {"webhooks": WEBHOOKS, "rows": ROWS_MAX})
    rows: Rows = {(row["source"], row["scope"]): dict(row) for row in found.mappings()}
    _silent(rows, report)
    said = None if known is None else known.not_polled
    polls: list[Poll] = []
    not_polled: dict[str, str] = {}
    for name, source in declared.items():
        why = _why_not(source, said, _states(name, rows))
        if why is None:
            polls += _of(source, rows)
        else:
            not_polled[name] = why
    polls.sort(key=lambda poll: poll.order)
    _worst(polls, report)
    for name in declared:
        if mine := [poll for poll in polls if poll.source == name]:
            _sum_up(name, mine, report)
        elif name in not_polled:
            report.add(f"{name} polls", "not asked", not_polled[name])
    report.facts |= {
        "polls": [{field: getattr(poll, field) for field in Poll.__slots__} for poll in polls],
        "not_polled": not_polled,
    }


def _states(name: str, rows: Rows) -> set[str]:
    """How the polls of a source are, as far as there were any."""
    return {row["state"] for (source, scope), row in rows.items() if source == name and scope != WEBHOOKS}


def _why_not(source: Source, said: Mapping[str, str] | None, states: set[str]) -> str | None:
    """Why a source is not polled. Whether its secret is set only an `up` has `said`, of when it was started."""
    if source.file.api is None:
        return None
    if said is not None:
        why = None if "fresh" in states else said.get(source.name)
        return why and f"{why}, then restart `odooops up`"
    why = why_not_polled(source, secret_set=True)
    if why is None and not states:
        return f"no poll of it is known: where the poller runs, set {source.file.api.secret} (or …_FILE)"
    return why


def _of(source: Source, rows: Rows) -> list[Poll]:
    """What is to be polled of a source, as it stands; a scope that nothing names any more is nobody's trouble."""
    if source.file.api is None or source.provider.polling is None:
        return []
    polls = []
    for scope in source.provider.polling.scopes(source):
        row = rows.get((source.name, scope.name))
        polls.append(
            Poll(source.name, scope.name, "unknown")
            if row is None
            else Poll(**{field: row[field] for field in Poll.__slots__})
        )
    return polls


def _silent(rows: Rows, report: Report) -> None:
    """Whose webhooks have not come for longer than its file calls normal."""
    for (name, scope), row in rows.items():
        if scope == WEBHOOKS:
            hours = row["stale_after_s"] / 3600
            said = f"none since {ago(row['last_webhook_at'])}, and {hours:g} h are the longest to expect: is it on?"
            report.add(f"{name} webhooks", "warning", said)


def _worst(polls: list[Poll], report: Report) -> None:
    """A line for each poll in trouble, the worst first; `polls` are in order."""
    troubled = [poll for poll in polls if poll.state in TROUBLES]
    for poll in troubled[:POLLS_SHOWN_MAX]:
        complete = poll.last_complete_poll_at
        last = "none was complete yet" if complete is None else f"the last complete one began {ago(complete)}"
        why = f": {poll.last_error or 'no reason was given'}" if poll.state == "failing" else ""
        report.add(f"{poll.source} poll {poll.scope}", "warning", f"{poll.state}{why}; {last}")
    if len(troubled) > POLLS_SHOWN_MAX:
        more = len(troubled) - POLLS_SHOWN_MAX
        report.add("polls", "warning", f"{more} more are failing or stale: see ops.freshness_now")


def _sum_up(name: str, polls: list[Poll], report: Report) -> None:
    """One line about a source that is polled."""
    states = Counter(
        "not polled yet" if poll.state == "unknown" and poll.last_complete_poll_at is None else poll.state
        for poll in polls
    )
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    times = [poll.last_complete_poll_at for poll in polls if poll.last_complete_poll_at is not None]
    oldest = f"; the oldest complete one began {ago(min(times))}" if times else ""
    word: Word = "warning" if any(poll.state in TROUBLES for poll in polls) else "ok"
    report.add(f"{name} polls", word, f"{told}{oldest}")


async def _webhooks(connection: AsyncConnection, report: Report) -> None:
    found = await connection.execute(_WEBHOOKS, {"rows": WEBHOOKS_SHOWN_MAX + 1})
    failing = [dict(row) for row in found.mappings()]
    report.facts["failing_webhooks"] = failing
    for row in failing[:WEBHOOKS_SHOWN_MAX]:
        said = f"{row['detail'] or 'it fails'} (checked {ago(row['checked_at'])})"
        report.add(f"webhook {row['target']}", "bad", said)
    if len(failing) > WEBHOOKS_SHOWN_MAX:
        report.add("webhooks", "bad", "more of them are failing: see ops.healthcheck_runs")


async def _drift(connection: AsyncConnection, report: Report) -> None:
    found = await connection.execute(_DRIFT, {"rows": DRIFT_COUNTED_MAX})
    counted = [dict(row) for row in found.mappings()]
    report.facts["drift_24h"] = counted
    if not counted:
        return
    by: dict[str, list[str]] = {}
    for row in counted:
        by.setdefault(row["source"], []).append(f"{row['count']} {row['cause']}")
    total = sum(row["count"] for row in counted)
    many = f"the newest {total:,}" if total == DRIFT_COUNTED_MAX else f"{total:,}"
    told = "; ".join(f"{source} {', '.join(causes)}" for source, causes in by.items())
    report.add("drift", "ok", f"{many} healed in the last 24 h: {told}. See `odooops drift list`")
