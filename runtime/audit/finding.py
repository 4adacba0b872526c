"""What an audit says: one finding for each thing that could lose data, with the way to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["info", "warning", "unknown", "error"]
LEVELS: tuple[Level, ...] = ("info", "warning", "unknown", "error")
"""From harmless to harmful. Unknown is what was asked and cannot be told from here."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding, in sentences. `part` is what it is about."""

    level: Level
    part: str
    says: str
    could_lose: str
    mend: str
    """A command, or what to do by hand; of what is unknown, how to look."""


def not_asked(part: str, why: Exception | str) -> Finding:
    """What did not answer: nobody knows how it is set."""
    said = str(why).partition("\n")[0] or type(why).__name__
    return Finding(
        "unknown",
        part,
        f"its settings could not be asked for: {said}",
        "not known",
        "odooops doctor   # once it answers",
    )


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """In the order in which they are to be read."""
    return sorted(findings, key=lambda each: -LEVELS.index(each.level))


def tell(log: Any, findings: Iterable[Finding]) -> None:
    """One line of a service's log for each finding that matters."""
    for each in worst_first(findings):
        if each.level != "info":
            words = asdict(each)
            log.warning("settings", severity=words.pop("level"), **words)
