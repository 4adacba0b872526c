"""`odooops trace`: what happened around one commit, pull request, deployment or mail, in the order in which it did."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import text

from cli import terminal
from cli.database import reading
from cli.reach import Servers, Trouble

EVENTS_MAX = 2_000
STATEMENT_MS_MAX = 10_000
LIKE_SHA = re.compile(r"[0-9a-f]{7,39}")
"""The beginning of a commit's sha."""
SHA = re.compile(r"[0-9a-f]{40}")
MEETING_PLACES = ("code.pushed", "listing.completed")
"""Types whose ref is a place that unrelated things pass through: a branch, a scope."""

# First what bears the name itself, then what shares its correlation ids, then all about the things met on the way.
# No further: sooner or later everything knows each other.
_TIMELINE = """
WITH met AS (
    SELECT ref, correlation_id, event_type FROM (
        SELECT ref, correlation_id, event_type, occurred_at FROM ops.platform_events WHERE ref = :wanted
        UNION SELECT ref, correlation_id, event_type, occurred_at FROM ops.platform_events
            WHERE correlation_id = :wanted
        UNION SELECT ref, correlation_id, event_type, occurred_at FROM ops.platform_events
            WHERE :least <> '' AND correlation_id >= :least AND correlation_id < :beyond
    ) AS named ORDER BY occurred_at DESC LIMIT :limit
), related AS (
    SELECT e.event_id, e.ref, e.event_type FROM ops.platform_events AS e
        WHERE e.correlation_id IN (SELECT correlation_id FROM met WHERE correlation_id IS NOT NULL)
), found AS (
    SELECT event_id FROM related
    UNION SELECT e.event_id FROM ops.platform_events AS e WHERE e.ref IN (
        SELECT ref FROM met WHERE event_type <> ALL(:places) OR ref = :wanted
        UNION SELECT ref FROM related WHERE event_type <> ALL(:places)
    )
)
SELECT e.occurred_at, e.service, e.event_type AS what, e.ref, e.env, e.level, e.message, e.actor, e.correlation_id,
    e.delivery, e.event_id
FROM found JOIN ops.platform_events AS e USING (event_id)
ORDER BY e.occurred_at DESC, e.version DESC, e.event_id
LIMIT :limit
"""
_TOLD = """
SELECT COALESCE(m.updated_at, m.created_at) AS occurred_at, 'notify' AS service, m.status AS what, m.ref, NULL AS env,
    CASE WHEN m.status = 'failed' THEN 'error' ELSE 'info' END AS level, m.text AS message, NULL AS actor,
    NULL AS correlation_id, m.destination AS delivery, m.event_id
FROM notify.messages AS m WHERE m.event_id = ANY(:events)
"""
_SHOWN = ("occurred_at", "service", "what", "ref", "env", "level", "message")


class NothingFound(Trouble):
    """nobody has spoken of what was asked for"""


async def run(servers: Servers, wanted: str, as_json: bool) -> None:
    """Print the timeline of a ref, a commit's sha (7 digits or more) or a correlation id; the newest comes last."""
    wanted = _as_stored(wanted)
    rows, more = await timeline(servers, wanted)
    if not rows:
        raise NothingFound(
            f"nothing is known of {wanted}: give a ref as github:org/repo#7, a commit's sha or a correlation id, "
            "as the table ops.platform_events has them"
        )
    if as_json:
        terminal.print_json(rows)
    else:
        events = sum(row["service"] != "notify" for row in rows)
        things = len({row["ref"] for row in rows})
        terminal.print_rows(_SHOWN, [[_first_line(row[name]) for name in _SHOWN] for row in rows])
        terminal.console().print(f"({events} events about {things} things, {len(rows) - events} messages)")
    if more:
        terminal.say(f"only the newest {EVENTS_MAX} events are shown")


async def timeline(servers: Servers, wanted: str) -> tuple[list[dict[str, Any]], bool]:
    """What happened around `wanted`, the newest last, and whether there is more than can be shown."""
    least = wanted if LIKE_SHA.fullmatch(wanted) else ""
    async with reading(servers, STATEMENT_MS_MAX) as connection:
        found = await connection.execute(
            text(_TIMELINE),
            {
                "wanted": wanted,
                "least": least,
                "beyond": least + "g",
                "places": list(MEETING_PLACES),
                "limit": EVENTS_MAX + 1,
            },
        )
        rows = [dict(row) for row in found.mappings()]
        more, rows = len(rows) > EVENTS_MAX, rows[:EVENTS_MAX]
        told = await connection.execute(text(_TOLD), {"events": [row["event_id"] for row in rows]})
        rows += [dict(row) for row in told.mappings()]
    rows.reverse()
    return sorted(rows, key=lambda row: row["occurred_at"]), more


def _as_stored(wanted: str) -> str:
    """What was pasted, in the form in which it stands: a message id without its brackets, a sha in lower case."""
    bare = wanted.strip().removeprefix("<").removesuffix(">")
    if not bare:
        raise NothingFound("what is to be traced is empty: give a ref, a commit's sha or a correlation id")
    return bare.lower() if LIKE_SHA.fullmatch(bare.lower()) or SHA.fullmatch(bare.lower()) else bare


def _first_line(value: object) -> object:
    return value.partition("\n")[0] if isinstance(value, str) else value
