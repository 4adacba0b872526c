"""How far the servers' clocks are from ours, and from each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from runtime.audit.finding import Finding
from runtime.streams import FUTURE_S_MAX

SKEW_S_WARNING = 2.0
"""From here on an answer of an API may count as newer than a webhook that it had not seen."""
SKEW_S_ERROR = 60.0
"""Slack and Standard Webhooks take a signature for 300 s; what they sign has already been on its way."""
SIGNATURE_S = 300


@dataclass(frozen=True, slots=True)
class Reading:
    """What another clock showed, and what ours did before it was asked and after it had answered."""

    theirs: datetime
    asked: datetime
    answered: datetime

    @property
    def ahead_s(self) -> float:
        """How far theirs is ahead of ours, as if the question took as long as the answer."""
        return (self.theirs - self.asked - (self.answered - self.asked) / 2).total_seconds()

    @property
    def uncertain_s(self) -> float:
        """By how much that can be wrong, either way."""
        return (self.answered - self.asked).total_seconds() / 2


def findings(readings: Mapping[str, Reading]) -> list[Finding]:
    """Whose clock is too far from ours, and of all others which two are too far apart.

    What the round trips may explain is no skew.
    """
    found = []
    near = []
    for part, reading in readings.items():
        skewed = _finding(part, "this machine's", reading.ahead_s, reading.uncertain_s)
        if skewed is None:
            near.append((part, reading))
        else:
            found.append(skewed)
    for (one, left), (other, right) in combinations(near, 2):
        apart = _finding(
            one, f"{other}'s", left.ahead_s - right.ahead_s, left.uncertain_s + right.uncertain_s
        )
        if apart is not None:
            found.append(apart)
    return found


def _finding(part: str, than: str, ahead_s: float, uncertain_s: float) -> Finding | None:
    certain_s = abs(ahead_s) - uncertain_s
    if certain_s < SKEW_S_WARNING:
        return None
    where = "ahead of" if ahead_s > 0 else "behind"
    return Finding(
        level="error" if certain_s >= SKEW_S_ERROR else "warning",
        part=f"clock of {part}",
        says=f"{abs(ahead_s):.1f} s {where} {than} (±{uncertain_s:.1f} s)",
        could_lose=(
            f"the order of what a poll and a webhook say; from {SIGNATURE_S} s on at ingest, webhooks of Slack"
            f" and Standard Webhooks are refused; from {FUTURE_S_MAX} s on deliveries are parked (future_time)"
        ),
        mend="timedatectl set-ntp true   # on both machines; `timedatectl` says which of them is wrong",
    )
