"""The log itself: erasing from it, taking old parts out of it, no longer believing a secret."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir, servers
from runtime.settings import DEFAULT_DATA_DIR


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("archive")(_archive)


def _archive(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, as deliveries-2026.jsonl.gz.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    until_seq: Annotated[int | None, typer.Option(min=1, metavar="N", help="The last of them.")] = None,
    before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Those stored before: an age like 90d, or an ISO time."),
    ] = None,
    from_seq: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first of them.  [default: the log's]")
    ] = None,
    trim: Annotated[bool, typer.Option("--trim", help="Then take them out of the log.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: read FILE, and say whether it is whole.")
    ] = False,
) -> None:
    """Write old deliveries to a file, and perhaps take them out of the log.

    Every byte of them, each with a hash; the file has its name once it was read back. Only deliveries that the
    projector has done, and that are not parked, are taken out, and only from the beginning on. What stands in the
    tables stays there: rebuild takes it over as it is, and verify says from which sequence on it proves.
    """
    from cli import archive
    from cli.deliveries import since

    if check:
        if until_seq or before or from_seq:
            raise typer.BadParameter("--check reads all of FILE: leave the range out")
        asyncio.run(archive.check(servers(context, data_dir), file, trim))
        return
    if (until_seq is None) == (before is None):
        raise typer.BadParameter("give either --until-seq or --before")
    moment = None if before is None else since(before, datetime.now(UTC), "--before")
    wanted = archive.Range(from_seq=from_seq, until_seq=until_seq, before=moment)
    asyncio.run(archive.run(servers(context, data_dir), file, wanted, trim))
