"""`odooops demo`: everything up, the samples sent, and what became of them."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from cli import reach, send, terminal, up
from cli.database import READER, reading
from cli.reach import Servers, Trouble
from cli.send import Parcel
from runtime import streams
from runtime.settings import BadSettings
from runtime.state import State

SAMPLES = reach.ROOT / "samples"
SETTLE_S_MAX = 30.0
"""How long the samples may take from the last answer to the last row."""
LOOK_EVERY_S = 0.1
ROWS_SHOWN_MAX = 20
STATEMENT_MS_MAX = 10_000

TABLES = {
    "builds": ("ops.builds", "repository, workflow, branch, status, duration_s, ref", "ref"),
    "deployments": ("ops.deployments", "repository, environment, status, creator, status_at, ref", "ref"),
    "work_items": (
        "ops.work_items_now",
        "work_item_ref, kind, status, title, labels, deleted",
        "work_item_ref",
    ),
}
"""What is shown: relation, columns, order. The other tables are left to `odooops sql`."""


class DemoFailed(Trouble):
    """the samples did not come through"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of samples/deliveries.json."""

    file: str
    source: str
    event: str
    delivery: str


def run(data_dir: Path, port: int | None) -> None:
    """Like `up`, with the samples."""
    samples = load(SAMPLES)
    servers = Servers(data_dir.resolve(), named=True)

    async def then(running: State) -> None:
        await _tell(servers, running, samples)

    up.run(data_dir, port, then)


def load(folder: Path) -> list[Sample]:
    """The samples in the order in which they are sent."""
    path = folder / "deliveries.json"
    try:
        return [Sample(**line) for line in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        raise BadSettings(
            f"there is no {path}: the demo runs from a working copy of the repository"
        ) from None
    except (ValueError, TypeError) as error:
        raise BadSettings(f"{path}: {error}") from None


async def _tell(servers: Servers, running: State, samples: Sequence[Sample]) -> None:
    out = terminal.console()
    answers = [await asyncio.to_thread(_send, servers, running, sample) for sample in samples]
    out.print()
    out.print(
        terminal.table(
            ("sample", "event", "answer"),
            answers,
            title="Sent to ingest, signed as GitHub signs",
            cell_chars_max=60,
        )
    )
    await _settled(servers, running, samples)
    async with reading(servers, STATEMENT_MS_MAX) as connection:
        for name, (relation, columns, order) in TABLES.items():
            statement = f"SELECT {columns} FROM {relation} ORDER BY {order} LIMIT :limit"  # noqa: S608  # ours
            found = await connection.execute(text(statement), {"limit": ROWS_SHOWN_MAX})
            rows = [tuple(row) for row in found]
            out.print()
            out.print(terminal.table(list(found.keys()), rows, title=f"ops.{name}", cell_chars_max=48))
        messages = await connection.execute(
            text(
                "SELECT status, text, occurred_at FROM notify.messages ORDER BY occurred_at, ref, kind LIMIT :limit"
            ),
            {"limit": ROWS_SHOWN_MAX},
        )
        _print_messages([(row.status, row.text, row.occurred_at) for row in messages])
    _print_next(servers, running)


def _send(servers: Servers, running: State, sample: Sample) -> tuple[str, str, str]:
    """Send one sample; its line of the table."""
    source = send.source_of(servers, sample.source)
    parcel = Parcel(
        source=sample.source,
        event=sample.event,
        delivery=sample.delivery,
        body=(SAMPLES / sample.file).read_bytes(),
    )
    status, answer = send.post(running.http_url, parcel, source, send.secret_for(servers, source, None))
    if status != 200:
        raise DemoFailed(f"{sample.file} was refused with {status}: {answer.get('error', answer)}")
    word = "duplicate of" if answer.get("duplicate") else "stored as"
    return sample.file, sample.event, f"{word} {answer.get('seq')}"


async def _settled(servers: Servers, running: State, samples: Sequence[Sample]) -> None:
    """Wait until the ledger has every sample and nobody has work left; tables change without a signal."""
    deadline = time.monotonic() + SETTLE_S_MAX
    wanted = {(sample.source, sample.delivery) for sample in samples}
    async with (
        reading(servers, STATEMENT_MS_MAX) as connection,
        reach.broker(servers.nats(READER), READER) as client,
    ):
        js = client.jetstream()
        while True:
            found = await connection.execute(
                text("SELECT source, identity FROM ops.deliveries WHERE identity = ANY(:ids)"),
                {"ids": [identity for _, identity in wanted]},
            )
            missing = wanted - {(row.source, row.identity) for row in found}
            await connection.rollback()
            lags = [
                await js.consumer_info(stream, str(c.durable_name))
                for stream, c in streams.consumer_configs()
            ]
            if not missing and not any(lag.num_pending or lag.num_ack_pending for lag in lags):
                return
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"after {SETTLE_S_MAX:.0f} s {len(missing)} of {len(wanted)} samples are not in the ledger: "
                    f"see {running.log_dir}/projector.log"
                )
            await asyncio.sleep(LOOK_EVERY_S)


def _print_messages(messages: Sequence[tuple[str, str, datetime]]) -> None:
    out = terminal.console()
    out.print("\nSlack messages", style="italic")
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


def _print_next(servers: Servers, running: State) -> None:
    command = terminal.own_command()
    here = (
        ""
        if servers.data_dir == Path(".odooops").resolve()
        else f" --data-dir {shlex.quote(str(servers.data_dir))}"
    )
    file = running.secret_files.get("GITHUB_WEBHOOK_SECRET")
    sample = shlex.quote(os.path.relpath(SAMPLES / "04-issues.labeled.json"))
    secret = f"$(cat {shlex.quote(file)})" if file else "$GITHUB_WEBHOOK_SECRET"
    sys.stdout.write(
        f"""
What to try next, in another terminal:

  {command} status{here}
  {command} deliveries list{here}
  {command} sql{here} "SELECT * FROM ops.work_items_now"

  file={sample}
  curl -s {running.http_url}/webhooks/github --data-binary "@$file" \\
    -H 'Content-Type: application/json' -H 'X-GitHub-Event: issues' -H "X-GitHub-Delivery: mine-$(date +%s)" \\
    -H "X-Hub-Signature-256: sha256=$(openssl dgst -sha256 -hmac "{secret}" "$file" | sed 's/.* //')"

README.md says how to point a real GitHub webhook here. Ctrl-C stops everything and keeps the data.
"""  # noqa: S608  # printed, not asked
    )
    sys.stdout.flush()
