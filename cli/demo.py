"""`odooops demo`: everything up, the samples sent, and what became of them."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo
from nats.js.errors import NotFoundError
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
CELL_CHARS_MAX = 66
"""With the longest of them a line of the timeline fits 120 columns."""
LINE_CHARS_MAX = 116
STATEMENT_MS_MAX = 10_000
COMMIT = "8d1f6c0"
"""The commit that the story is about."""
LEGEND = """
duplicate: known already, and folded once     conflict: a known id with another body, which changes nothing
ignored: kept, and no table shows it yet      Each by itself: odooops deliveries list"""
TO_SIGN = "github/04-issues.labeled.json"
"""The sample that a person may send by hand."""

TABLES = {
    "ops.builds": """
SELECT repository, workflow, branch, env, status, duration_s, left(commit_sha, 7) AS commit
FROM ops.builds ORDER BY created_at DESC NULLS LAST""",
    "ops.deployments_now: one deployment may have two reporters, and same_as links them": """
SELECT source, split_part(repository, '/', 2) AS repository, environment, env, status, superseded, live,
    left(commit_sha, 7) AS commit, split_part(replace(same_as, 'vercel:url/', ''), '.', 1) AS same_as
FROM ops.deployments_now ORDER BY created_at DESC, source""",
    "ops.work_items_now": """
SELECT regexp_replace(work_item_ref, '^(plane:.{8}).*', '\\1…') AS work_item_ref, kind, status, title, labels, deleted
FROM ops.work_items_now ORDER BY updated_at DESC NULLS LAST, work_item_ref""",
    "ops.mail_events": """
SELECT stamp, domain, event, env, transport, code, tags FROM ops.mail_events ORDER BY stamp""",
    "ops.do_droplets_now, ops.do_databases_now": """
SELECT 'droplet' AS kind, name, env, status, region, size_slug, gone FROM ops.do_droplets_now
UNION ALL SELECT 'database', name, env, status, region, size_slug, gone FROM ops.do_databases_now
ORDER BY kind DESC, name""",
    "ops.policy_gate_runs, ops.backups, ops.healthcheck_runs": """
SELECT 'gate' AS kind, gate AS name, env, status, left(correlation_id, 7) AS commit, last_run_at AS at
    FROM ops.policy_gate_runs
UNION ALL SELECT 'backup', backup_id, env, status, left(correlation_id, 7), finished_at FROM ops.backups
UNION ALL SELECT 'healthcheck', target, env, status, NULL, checked_at FROM ops.healthcheck_runs
ORDER BY at""",
    "ops.integrations_view: what was observed counts more than what SSOT declares": """
SELECT key, category, provider, declared_status, observed_status, status, gone
FROM ops.integrations_view WHERE key IN ('sentry', 'stripe', 'supabase') ORDER BY key""",
    "ops.platform_events: everything is here, these have no table of their own": """
SELECT occurred_at, event_type, message
FROM ops.platform_events WHERE event_type = 'external.received' OR event_type LIKE 'row.%'
ORDER BY occurred_at, message""",
}
"""What is shown, by its title. The other tables are left to `odooops sql`."""

_SHA = re.compile(r"\b([0-9a-f]{7})[0-9a-f]{33}\b")
_ENDS = """
SELECT source, via, status, count(*) AS n FROM ops.deliveries WHERE stream_seq > :before GROUP BY 1, 2, 3
"""
_PARKED = """
SELECT source, kind, reason, stream_seq FROM ops.deliveries
WHERE stream_seq > :before AND status = 'parked' ORDER BY stream_seq LIMIT 1
"""
_MESSAGES = (
    "SELECT status, text, occurred_at FROM notify.messages ORDER BY occurred_at, ref, kind LIMIT :limit"
)


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
            last = max([await _last_of(js, stream, each) for each in config.filter_subjects or [">"]])
            while count := _undone(await js.consumer_info(stream, name), last):
                if time.monotonic() > deadline:
                    raise DemoFailed(
                        f"after {SETTLE_S_MAX:.0f} s the {name} still has {count} of {stream} to do: "
                        f"see {running.log_dir}/{name}.log"
                    )
                await asyncio.sleep(LOOK_EVERY_S)


async def _last_of(js: JetStreamContext, stream: str, subject: str) -> int:
    """The sequence of the last message; 0 where there is none."""
    try:
        return (await js.get_last_msg(stream, subject)).seq or 0
    except NotFoundError:
        return 0


def _undone(consumer: ConsumerInfo, last: int) -> int:
    """How many messages up to `last` it has not done with: at least 1 where it has not counted that one yet."""
    undone = (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)
    return undone or int(consumer.delivered is None or consumer.delivered.stream_seq < last)


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
        known = count - became.total()
        became["duplicate" if known == 1 else "duplicates"] = known
        words = [f"{n} {word}" for word, n in became.items() if n > 0]
        lines.append((way.source, way.words, count, ", ".join(words) or "nothing changed"))
    lines += [(name, "", 0, f"left out, {why}") for name, why in sent.left_out.items()]
    columns = ("source", "came by", "sent", "became")
    out = terminal.console()
    out.print()
    out.print(terminal.table(columns, lines, title="Deliveries, each as its sender makes and signs it"))
    out.print(LEGEND)


async def _print_table(connection: AsyncConnection, title: str, statement: str) -> None:
    found = await connection.execute(text(f"{statement} LIMIT :limit"), {"limit": ROWS_SHOWN_MAX + 1})
    rows = [tuple(row) for row in found]
    if len(rows) > ROWS_SHOWN_MAX:
        title += f" (the first {ROWS_SHOWN_MAX})"
    out = terminal.console()
    out.print()
    out.print(
        terminal.table(list(found.keys()), rows[:ROWS_SHOWN_MAX], title=title, cell_chars_max=CELL_CHARS_MAX)
    )


async def _print_messages(connection: AsyncConnection) -> None:
    """One line for each message, under what became of it."""
    out = terminal.console()
    too_old = datetime.now(UTC) - timedelta(seconds=streams.NOTIFY_AGE_S_MAX)
    told: dict[str, list[str]] = {}
    for row in await connection.execute(text(_MESSAGES), {"limit": ROWS_SHOWN_MAX}):
        word = row.status
        if word == "dry_run":
            then = "too old, only recorded" if row.occurred_at < too_old else "posted"
            word = f"dry run; with credentials: {then}"
        told.setdefault(word, []).append(_one_line(row.text))
    for word, lines in (told or {"none": []}).items():
        out.print(f"\nSlack messages ({word})", style="italic")
        for line in lines:
            out.print(f"  {_cut(terminal.clean(line))}")


async def _print_trace(servers: Servers) -> None:
    rows, _ = await trace.timeline(servers, COMMIT)
    lines = [
        (f"{row['occurred_at']:%m-%d %H:%M:%S}", row["what"], row["env"], _one_line(row["message"]))
        for row in rows
    ]
    out = terminal.console()
    out.print()
    out.print(
        terminal.table(
            ("at (UTC)", "what", "env", "message"),
            lines,
            title=f"odooops trace {COMMIT}: one commit, whoever speaks of it",
            cell_chars_max=CELL_CHARS_MAX,
        )
    )


def _one_line(said: str) -> str:
    """A message of several lines as one, its commits shortened."""
    return _SHA.sub(r"\1", " · ".join(said.strip().split("\n")))


def _cut(line: str) -> str:
    return line if len(line) <= LINE_CHARS_MAX else f"{line[: LINE_CHARS_MAX - 1]}…"


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
  {command} deliveries list{here} --status conflict
  {command} trace{here} 20260203192638.000be97f99f8cea1@mg.example.com
  {command} sql{here} "SELECT ref, env, url FROM ops.deployments_now WHERE live"
  {command} sql{here} "SELECT name, env, status, gone FROM ops.do_droplets_now"
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
