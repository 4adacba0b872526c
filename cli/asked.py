"""What the commands' options may hold, apart from the commands so that asking for help loads nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

LIST_DEFAULT = 50
LIST_MAX = 1_000
ROWS_DEFAULT = 1_000
ROWS_MAX = 1_000_000


class Status(StrEnum):
    """What the ledger calls the ends of a delivery."""

    PROJECTED = "projected"
    IGNORED = "ignored"
    PARKED = "parked"
    CONFLICT = "conflict"
    DISCARDED = "discarded"
    REDACTED = "redacted"


class Cause(StrEnum):
    """Why a table was not as the world is."""

    MISSED = "missed"
    LATE = "late"
    GONE = "gone"
    UNKNOWN = "unknown"


class Form(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which deliveries to list; None is any."""

    source: str | None
    status: Status | None
    since: datetime | None
    ref: str | None
    limit: int
