"""Asking APIs for what webhooks missed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.options import AsJson, DataDir, servers
from runtime.settings import DEFAULT_DATA_DIR

EXIT_TERMINATED = 143
"""As a shell says of who was ended by SIGTERM."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("poll")(poll_command)


def poll_command(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Whose API is read, as digitalocean.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    scope: Annotated[
        str | None, typer.Option(help="Only this scope, as droplets or repos/org/repo; else all.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Read again from then on, not only what is due: an age like 6h, or an ISO time."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be stored. Nothing is stored or changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read an API now, and store what changed.

    Prints of each scope what was seen, new, changed and gone, and each part that failed with the reason. The exit
    code is 1 where a part failed, and 2 where nothing could be asked: no such source, no secret, or a run in progress.
    """
    from cli import poll
    from cli.deliveries import since as moment

    now = datetime.now(UTC)
    from_when = None if since is None else moment(since, now)
    if from_when is not None and from_when > now:
        raise typer.BadParameter("--since is later than now: nothing could have happened since")
    wanted = poll.Wanted(source=source, scope=scope, since=from_when, dry_run=dry_run)
    try:
        code = asyncio.run(poll.run(servers(context, data_dir), wanted, as_json))
    except asyncio.CancelledError:
        code = EXIT_TERMINATED
    if code:
        raise typer.Exit(code)
