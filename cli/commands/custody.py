"""The log itself: erasing from it, taking old parts out of it, no longer believing a secret."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cli.options import AsJson, DataDir, servers
from runtime.settings import DEFAULT_DATA_DIR


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("redact")(redact_command)


def redact_command(
    context: typer.Context,
    why: Annotated[str, typer.Option(help="The reason. It is kept: without personal data.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    ref: Annotated[
        str | None, typer.Option(help="Every delivery that said something about this, as github:org/repo#7.")
    ] = None,
    delivery: Annotated[
        str | None, typer.Option(metavar="SOURCE:IDENTITY|SEQ", help="This one, whatever became of it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be erased, and erase nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase what deliveries said, for good.

    Their bodies in the log, and all that came of them; that they came stays in the ledger. May be run again at any
    time: what an interrupted run has left is erased then.
    """
    from cli import redact

    if (ref is None) == (delivery is None):
        raise typer.BadParameter("give either --ref or --delivery")
    if not why.strip():
        raise typer.BadParameter("--why is empty: the ledger keeps why something was erased")
    wanted = redact.Wanted(ref, delivery, why.strip(), dry_run, yes)
    asyncio.run(redact.run(servers(context, data_dir), wanted, as_json))
