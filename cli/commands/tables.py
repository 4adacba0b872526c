"""The tables: fold them anew, compare them with the log, look at them as they were."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.options import EXIT_FAILED, AsJson, DataDir, servers
from runtime.settings import DEFAULT_DATA_DIR

DIFFERENCES_SHOWN = 10
DIFFERENCES_SHOWN_MAX = 1_000
NEWEST_COUNT = 1_000
NEWEST_COUNT_MAX = 20_000

Shown = Annotated[
    int,
    typer.Option(
        "--limit", min=0, max=DIFFERENCES_SHOWN_MAX, help="Show so many differing rows of each table."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("replay")(replay_command)
    app.command("diff")(diff_command)


def replay_command(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="SEQ|SOURCE:IDENTITY", help="Only these deliveries.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    source: Annotated[str | None, typer.Option(help="Only of this source, as github.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Only of this kind, or of those that begin so: deployment, or observed.droplet."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only received since: an age like 90m or 2d, or an ISO time.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only received before, said in the same way.")] = None,
    ref: Annotated[str | None, typer.Option(help="Only about this, as github:org/repo#7.")] = None,
    after_seq: Annotated[
        int, typer.Option(min=0, help="Go on after this sequence, where an earlier run has stopped.")
    ] = 0,
    publish: Annotated[
        bool, typer.Option("--publish", help="Send the events of these deliveries again, marked ce-replayed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show which rows would change, and change nothing.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(min=1, help="Deliveries per second at most, to spare the servers.")
    ] = None,
    limit: Shown = DIFFERENCES_SHOWN,
    as_json: AsJson = False,
) -> None:
    """Fold anew, by today's code, whatever some deliveries are about.

    Takes deliveries that were projected or ignored; parked ones are for `odooops parked retry`. Publishes nothing
    without --publish, not even what is understood only now.
    """
    from cli import replay
    from cli.deliveries import since as moment

    now = datetime.now(UTC)
    wanted = replay.selection(
        source=source,
        kind=kind,
        since=moment(since, now) if since else None,
        until=moment(until, now, "--until") if until else None,
        ref=ref,
        names=names or (),
    )
    how = replay.How(after_seq, publish, dry_run, rate, limit, as_json)
    asyncio.run(replay.run(servers(context, data_dir), wanted, how))


def diff_command(
    context: typer.Context,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    code: Annotated[
        bool, typer.Option("--code", help="Compare what this code makes of the log with the live tables.")
    ] = False,
    last: Annotated[
        int, typer.Option(min=1, max=NEWEST_COUNT_MAX, help="Look at so many of the newest deliveries.")
    ] = NEWEST_COUNT,
    limit: Shown = DIFFERENCES_SHOWN,
    as_json: AsJson = False,
) -> None:
    """Show which rows would change if this code were deployed.

    Reads the newest deliveries and whatever else is about the same things, and writes nothing. The exit code is 1
    where a row differs.
    """
    from cli import diff

    if not code:
        raise typer.BadParameter("say what to compare: --code")
    if not asyncio.run(diff.run(servers(context, data_dir), last, limit, as_json)):
        raise typer.Exit(EXIT_FAILED)
