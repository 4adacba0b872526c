"""Parked deliveries: what could not be understood or written."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
