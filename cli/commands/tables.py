"""The tables: fold them anew, compare them with the log, look at them as they were."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cli.options import EXIT_FAILED, AsJson, DataDir, servers
from runtime.settings import DEFAULT_DATA_DIR

LIMIT_DEFAULT = 5
LIMIT_MAX = 1_000

Models = Annotated[
    list[str] | None, typer.Argument(metavar="MODEL", help="Only these tables, as builds.  [default: all]")
]
Rate = Annotated[
    float | None,
    typer.Option(
        min=1, metavar="N", help="At most so many deliveries per second, where the servers are to be spared."
    ),
]
Limit = Annotated[
    int, typer.Option(min=0, max=LIMIT_MAX, help="How many differing rows of each table are shown.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("rebuild")(rebuild_command)
    app.command("verify")(verify_command)


def rebuild_command(
    context: typer.Context,
    models: Models = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", help="Replace differing rows where they are: no old tables, nothing is moved."
        ),
    ] = False,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Only drop the old tables that earlier rebuilds have kept.")
    ] = False,
    rollback: Annotated[
        bool,
        typer.Option("--rollback", help="Only put the newest old tables back, with all that has come since."),
    ] = False,
    rate: Rate = None,
    limit: Limit = LIMIT_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Fold the log anew and put the result in the place of the tables.

    Everything goes on meanwhile, and readers notice nothing. Interrupted at any point, the tables are as they were.
    The old ones are kept in a schema ops_before_<time>.
    """
    from cli import rebuild

    if dry_run + in_place + drop_old + rollback > 1:
        raise typer.BadParameter("choose one of --dry-run, --in-place, --drop-old and --rollback")
    if models and (drop_old or rollback):
        raise typer.BadParameter("old tables are dropped or put back as they were kept: name no table")
    reached = servers(context, data_dir)
    if drop_old:
        asyncio.run(rebuild.drop_old(reached, as_json))
    elif rollback:
        asyncio.run(rebuild.rollback(reached, rate, as_json))
    else:
        wanted = rebuild.Wanted(tuple(models or ()), rate, limit, dry_run, in_place)
        asyncio.run(rebuild.rebuild(reached, wanted, as_json))


def verify_command(
    context: typer.Context,
    models: Models = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    rate: Rate = None,
    limit: Limit = LIMIT_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Fold the log anew beside the tables, and name each row that is not what the log says.

    The exit code is 1 where there is one.
    """
    from cli import rebuild

    wanted = rebuild.Wanted(tuple(models or ()), rate, limit, dry_run=True)
    if not asyncio.run(rebuild.verify(servers(context, data_dir), wanted, as_json)):
        raise typer.Exit(EXIT_FAILED)
