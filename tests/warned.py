"""A log that keeps its warnings, for what a service says of its settings."""

from __future__ import annotations

from typing import Any


class Warned:
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[dict[str, Any]] = []

    def warning(self, event: str, **words: Any) -> None:
        self.warnings.append({"event": event, **words})

    @property
    def parts(self) -> list[tuple[str, str]]:
        """How severe each is, and what it is about."""
        return [(each["severity"], each["part"]) for each in self.warnings]
