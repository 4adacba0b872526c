"""What the migrations have to amount to: the tables that the code describes, in the schemas that are ours."""

from __future__ import annotations

from typing import Any

from read_models.registry import METADATA as OPS
from services.notifier.memory import METADATA as NOTIFY

METADATA = [OPS, NOTIFY]
SCHEMAS = {"ops", "notify"}


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """Look at our own schemas only."""
    return name in SCHEMAS if kind == "schema" else True


OPTIONS: dict[str, Any] = {
    "target_metadata": METADATA,
    "include_schemas": True,
    "include_name": include_name,
    "compare_type": True,
    "compare_server_default": True,
}
