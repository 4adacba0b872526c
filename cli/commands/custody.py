"""The log itself: erasing from it, taking old parts out of it, no longer believing a secret."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
