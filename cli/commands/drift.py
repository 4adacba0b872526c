"""Drift: what polls found to be other than the tables said."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.asked import LIST_DEFAULT, LIST_MAX, Cause
from cli.options import AsJson, DataDir, OfSource, servers
from runtime.settings import DEFAULT_DATA_DIR


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="What polls found to be other than the tables said.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(group, name="drift")
    group.command("list")(list_command)


def list_command(
    context: typer.Context,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    source: OfSource = None,
    ref: Annotated[str | None, typer.Option(help="Only of this, as github:org/repo#7.")] = None,
    model: Annotated[str | None, typer.Option(help="Only in this table, as work_items.")] = None,
    cause: Annotated[Cause | None, typer.Option(help="Only what came about so.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only found since: an age like 90m or 2d, or an ISO time.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIST_MAX)] = LIST_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List differences, the newest first: they are healed, and this is what was wrong.

    A webhook that never came is missed; one that came after the poll is late. Needs the operator's login, which may see
    what people wrote.
    """
    from cli import deliveries, drift

    moment = None if since is None else deliveries.since(since, datetime.now(UTC))
    wanted = drift.Wanted(source, ref, model, cause, moment, limit)
    asyncio.run(drift.list_(servers(context, data_dir), wanted, as_json))
