"""`odooops demo`: everything up, the samples sent, and what became of them."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cli import reach, samples, terminal, trace, up
from cli.database import READER, reading
from cli.reach import Servers, Trouble
from cli.samples import Sample, Sent
from runtime import streams
from runtime.state import State

SETTLE_S_MAX = 30.0
"""How long the samples may take from the last answer to the last row."""
LOOK_EVERY_S = 0.1
ROWS_SHOWN_MAX = 8
CELL_CHARS_MAX = 48
MESSAGE_CHARS_MAX = 72
STATEMENT_MS_MAX = 10_000
COMMIT = "8d1f6c0"
"""The commit that the story is about."""
TO_SIGN = "github/04-issues.labeled.json"
"""The sample that a person may send by hand."""

TABLES = {
    "ops.builds": """
SELECT repository, workflow, branch, env, status, duration_s, left(commit_sha, 7) AS commit
FROM ops.builds ORDER BY created_at DESC""",
    "ops.deployments_now": """
SELECT source, COALESCE(project, repository) AS what, environment, env, status, superseded, live,
    left(commit_sha, 7) AS commit, replace(same_as, 'vercel:url/', '') AS same_as
FROM ops.deployments_now ORDER BY created_at DESC, source""",
    "ops.work_items_now": """
SELECT work_item_ref, kind, status, title, labels, deleted
FROM ops.work_items_now ORDER BY updated_at DESC NULLS LAST, work_item_ref""",
    "ops.mail_events": """
SELECT stamp, domain, event, env, transport, code, message_id
FROM ops.mail_events ORDER BY stamp""",
    "ops.do_droplets_now and do_databases_now": """
SELECT 'droplet' AS kind, name, env, status, region, size_slug, gone FROM ops.do_droplets_now
UNION ALL SELECT 'database', name, env, status, region, size_slug, gone FROM ops.do_databases_now
ORDER BY kind DESC, name""",
    "ops.policy_gate_runs, backups and healthcheck_runs": """
SELECT 'gate' AS kind, gate AS name, env, status, left(correlation_id, 7) AS commit, last_run_at AS at
    FROM ops.policy_gate_runs
UNION ALL SELECT 'backup', backup_id, env, status, left(correlation_id, 7), finished_at FROM ops.backups
UNION ALL SELECT 'healthcheck', target, env, status, NULL, checked_at FROM ops.healthcheck_runs
ORDER BY at""",
    "ops.integrations_view": """
SELECT key, category, declared_status, observed_status, status, gone
FROM ops.integrations_view ORDER BY observed_status IS NULL, status, key""",
    "ops.platform_events, of senders without a table": """
SELECT occurred_at, source, event_type, level, message
FROM ops.platform_events WHERE service IN ('external', 'data') ORDER BY occurred_at, message""",
}
"""What is shown, by its title. The other tables are left to `odooops sql`."""

_ENDS = """
SELECT source, via, status, count(*) AS n FROM ops.deliveries WHERE stream_seq > :before GROUP BY 1, 2, 3
"""
_PARKED = """
SELECT source, kind, reason, stream_seq FROM ops.deliveries
WHERE stream_seq > :before AND status = 'parked' ORDER BY stream_seq LIMIT 1
"""
_MESSAGES = "SELECT status, text, occurred_at FROM notify.messages ORDER BY occurred_at, ref, kind LIMIT :limit"


class DemoFailed(Trouble):
    """the samples did not come through"""


def run(data_dir: Path, port: int | None) -> None:
    """Like `up`, with the samples."""
    story = samples.load()
    servers = Servers(data_dir.resolve(), named=True)

    async def then(running: State) -> None:
        await _tell(servers, running, story)

    up.run(data_dir, port, then)


async def _tell(servers: Servers, running: State, story: Sequence[Sample]) -> None:
    before = await _last_seq(servers)
    sent = await samples.send_all(servers, running, story)
    await _settled(servers, running)
    async with reading(servers, STATEMENT_MS_MAX) as connection:
        await _print_sent(connection, sent, before)
        for title, statement in TABLES.items():
            await _print_table(connection, title, statement)
        await _print_messages(connection)
    await _print_trace(servers)
    _print_next(servers, running)


async def _last_seq(servers: Servers) -> int:
    async with reach.broker(servers.nats(READER), READER) as client:
        return (await client.jetstream().stream_info(streams.DELIVERIES)).state.last_seq


async def _settled(servers: Servers, running: State) -> None:
    """Wait until nobody has work left; consumers give no signal.

    The projector publishes before it acknowledges: once it has none left, all that the notifier will get is there.
    """
    deadline = time.monotonic() + SETTLE_S_MAX
    async with reach.broker(servers.nats(READER), READER) as client:
        js = client.jetstream()
        for stream, config in streams.consumer_configs():
            name = str(config.durable_name)
            while (left := await js.consumer_info(stream, name)).num_pending or left.num_ack_pending:
                if time.monotonic() > deadline:
                    count = (left.num_pending or 0) + (left.num_ack_pending or 0)
                    raise DemoFailed(
                        f"after {SETTLE_S_MAX:.0f} s the {name} still has {count} of {stream} to do: "
                        f"see {running.log_dir}/{name}.log"
                    )
                await asyncio.sleep(LOOK_EVERY_S)


async def _print_sent(connection: AsyncConnection, sent: Sent, before: int) -> None:
    """One line for each way in; raises DemoFailed where a sample was not understood."""
    parked = (await connection.execute(text(_PARKED), {"before": before})).first()
    if parked is not None:
        raise DemoFailed(
            f"a {parked.kind} of {parked.source} was parked ({parked.reason}): "
            f"see `{terminal.own_command()} deliveries show {parked.stream_seq}`"
        )
    ends = (await connection.execute(text(_ENDS), {"before": before})).all()
    lines = []
    for way, count in sent.counts.items():
        became = Counter[str]()
        for end in ends:
            if end.source == way.source and end.via in way.vias:
                became[end.status] += end.n
        became["duplicate"] = count - became.total()
        words = [f"{n} {word}" for word, n in became.items() if n > 0]
        lines.append((way.source, way.words, count, ", ".join(words) or "nothing to say"))
    lines += [(name, "", 0, f"left out, {why}") for name, why in sent.left_out.items()]
    columns = ("source", "came by", "sent", "became")
    terminal.console().print()
    terminal.console().print(terminal.table(columns, lines, title="Deliveries"))


async def _print_table(connection: AsyncConnection, title: str, statement: str) -> None:
    found = await connection.execute(text(f"{statement} LIMIT :limit"), {"limit": ROWS_SHOWN_MAX + 1})
    rows = [tuple(row) for row in found]
    shown = rows[:ROWS_SHOWN_MAX]
    if len(rows) > len(shown):
        title += f" (the first {ROWS_SHOWN_MAX})"
    terminal.console().print()
    terminal.console().print(
        terminal.table(list(found.keys()), shown, title=title, cell_chars_max=CELL_CHARS_MAX)
    )


async def _print_messages(connection: AsyncConnection) -> None:
    out = terminal.console()
    out.print("\nSlack messages", style="italic")
    messages = (await connection.execute(text(_MESSAGES), {"limit": ROWS_SHOWN_MAX})).all()
    if not messages:
        out.print("  none")
    too_old = datetime.now(UTC) - timedelta(seconds=streams.NOTIFY_AGE_S_MAX)
    for status, said, occurred_at in messages:
        word = status
        if status == "dry_run":
            then = "too old, only recorded" if occurred_at < too_old else "posted"
            word = f"dry run; with credentials: {then}"
        indented = terminal.clean(said, keep_lines=True).strip().replace("\n", "\n  │ ")
        out.print(f"  ({word})\n  │ {indented}")


async def _print_trace(servers: Servers) -> None:
    rows, _ = await trace.timeline(servers, COMMIT)
    shown = [tuple(_brief(row, name) for name in ("occurred_at", "what", "env", "message")) for row in rows]
    terminal.console().print()
    terminal.console().print(
        terminal.table(
            ("at", "what", "env", "message"),
            shown,
            title=f"odooops trace {COMMIT}: one commit, whoever spoke of it",
            cell_chars_max=MESSAGE_CHARS_MAX,
        )
    )


def _brief(row: dict[str, Any], name: str) -> object:
    value = row[name]
    return value.partition("\n")[0] if isinstance(value, str) else value


def _print_next(servers: Servers, running: State) -> None:
    command = terminal.own_command()
    here = (
        ""
        if servers.data_dir == Path(".odooops").resolve()
        else f" --data-dir {shlex.quote(str(servers.data_dir))}"
    )
    file = running.secret_files.get("GITHUB_WEBHOOK_SECRET")
    sample = shlex.quote(os.path.relpath(samples.FOLDER / TO_SIGN))
    droplets = shlex.quote(os.path.relpath(samples.FOLDER / "digitalocean/01-droplets.json"))
    secret = f"$(cat {shlex.quote(file)})" if file else "$GITHUB_WEBHOOK_SECRET"
    sys.stdout.write(
        f"""
What to try next, in another terminal:

  {command} status{here}
  {command} deliveries list{here} --source mailgun
  {command} trace{here} {COMMIT}
  {command} sql{here} "SELECT * FROM ops.freshness_now"
  {command} check{here}
  {command} ssot apply{here} --dry-run
  {command} observe{here} digitalocean droplets {droplets} --complete
  {command} contracts check

  file={sample}
  curl -s {running.http_url}/webhooks/github --data-binary "@$file" \\
    -H 'Content-Type: application/json' -H 'X-GitHub-Event: issues' -H "X-GitHub-Delivery: mine-$(date +%s)" \\
    -H "X-Hub-Signature-256: sha256=$(openssl dgst -sha256 -hmac "{secret}" "$file" | sed 's/.* //')"

README.md says how to point a real GitHub webhook here. Ctrl-C stops everything and keeps the data.
"""  # noqa: S608  # printed, not asked
    )
    sys.stdout.flush()
