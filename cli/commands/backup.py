"""A backup of everything, and a system made from one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, DataDir, servers
from runtime.settings import DEFAULT_DATA_DIR


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backup")(backup_command)
    app.command("restore")(restore_command)


def backup_command(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE|DIR", help="A new file, as odooops.tar; in DIR its name says when."),
    ],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: read FILE, and say whether it is whole.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the log and the tables to one file, while everything runs.

    Where nothing runs on the data folder, its servers are started for as long as it takes. No password, secret or
    token is in the file, but all that senders said is, in the clear.
    """
    from cli import backup

    if check:
        backup.check(file, as_json)
    else:
        asyncio.run(backup.run(servers(context, data_dir), backup.new_file(file), as_json))


def restore_command(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="What backup wrote.")
    ],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Make an empty system what it was when FILE was written.

    A data folder on which nothing runs, new or empty; else the servers of NATS_URL and DATABASE_URL, with the services
    stopped. One that holds anything is refused. One that broke off goes on when it is run again.
    """
    from cli import restore

    asyncio.run(restore.run(servers(context, data_dir), file, as_json))
