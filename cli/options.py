"""What several commands take, and how a command finds the servers by it. Loaded at every start: it imports little."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.reach import Servers

EXIT_FAILED = 1

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="ODOOOPS_DATA_DIR",
        metavar="DIR",
        help="The folder of the servers' data, logs and secrets.",
        file_okay=False,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(min=1, max=65_535, help="Port of ingest.  [default: 8420, or the next free one]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
OfSource = Annotated[str | None, typer.Option(help="Only of this source, as github.")]
Since = Annotated[
    str | None, typer.Option(help="Only received since: an age like 90m or 2d, or an ISO time.")
]
SsotDir = Annotated[
    Path | None,
    typer.Option(
        "--ssot",
        metavar="DIR",
        help="The folder of the YAML, if not ODOOOPS_SSOT_DIR.",
        exists=True,
        file_okay=False,
    ),
]


def servers(context: typer.Context, data_dir: Path) -> Servers:
    """The servers that a command is for; a data folder that its line names comes before settings."""
    source = context.get_parameter_source("data_dir")
    return Servers(data_dir.resolve(), named=source is not None and source.name == "COMMANDLINE")
