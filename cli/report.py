"""What `status` found out: one line per finding, and the figures behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from cli import terminal

Word = Literal["not asked", "ok", "warning", "unknown", "bad"]
WORDS: tuple[Word, ...] = ("not asked", "ok", "warning", "unknown", "bad")
"""From best to worst. Unknown, that is asked and not answered, is not well: the exit code says so."""


@dataclass(frozen=True, slots=True)
class Line:
    """One finding. `part` is what it is about."""

    part: str
    state: Word
    text: str


@dataclass(slots=True)
class Report:
    """All findings, and the figures behind them; a figure that could not be had is None."""

    lines: list[Line] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, part: str, state: Word, sentence: str) -> None:
        """One more finding."""
        self.lines.append(Line(part, state, sentence))

    @property
    def worst(self) -> Word:
        """The state of the whole."""
        return max((line.state for line in self.lines), key=WORDS.index, default="not asked")


def ago(at: datetime | None) -> str:
    """A time, and how long it is past."""
    if at is None:
        return "at an unknown time"
    seconds = int((datetime.now(UTC) - at).total_seconds())
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{terminal.moment(at)}, {count} {unit}{'' if count == 1 else 's'} ago"
    return f"{terminal.moment(at)}, {seconds} s ago"
