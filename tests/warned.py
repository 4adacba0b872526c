"""A log of which only the warnings count."""

from __future__ import annotations

from typing import Any


class Warned:
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[dict[str, Any]] = []

    def warning(self, event: str, **words: Any) -> None:
        """As of structlog."""
        self.warnings.append({"event": event, **words})
