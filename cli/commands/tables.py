"""The tables: fold them anew, compare them with the log, look at them as they were."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
