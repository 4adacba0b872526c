"""How fast, how long and how often an API is asked: decisions without a clock."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from providers.polling import Allowance

SLOW_BELOW = 0.1
"""Of all requests: fewer that are left are spread over the time until all are there again."""
JITTER = 0.1
"""Of an interval: how much longer it is at most, so that not everything is due at once."""
BACK_OFF_S_MAX = 3_600
LATER_S_MAX = 3_600.0
"""No API is believed that it wants to be left alone for longer: it is asked once more, and may say so again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one run."""

    calls_max: int = 1_000
    run_s_max: float = 600.0
    sit_out_s_max: float = 120.0
    """A longer pause that an API asks for ends the run; the next one begins after it."""
    post_pause_s: float = 1.0
    """Between two requests that change something: GitHub asks for it."""


def pause_s(allowance: Allowance | None, left_s: float) -> float | None:
    """How long to wait before the next request of a run that has `left_s` seconds left; None where it has to end."""
    if allowance is None or allowance.left >= SLOW_BELOW * allowance.of:
        return 0.0
    pause = max(0.0, allowance.renewed_in_s) / max(allowance.left, 1)
    return pause if pause < left_s else None


def jitter(source: str, scope: str, every_s: float) -> float:
    """What is added to the interval of a scope, in seconds: always the same for one, spread over all."""
    digest = hashlib.sha256(f"{source}\0{scope}".encode()).digest()
    return every_s * JITTER * int.from_bytes(digest[:4]) / 2**32


def interval_s(source: str, scope: str, every_s: float, failures: int) -> float:
    """From the start of one run to that of the next, after so many failed runs in a row."""
    backed_off = max(every_s, min(every_s * 2.0 ** min(failures, 30), BACK_OFF_S_MAX))
    return backed_off + jitter(source, scope, every_s)


def due_in_s(started_at: datetime, interval: float, not_before: datetime | None, now: datetime) -> float:
    """In how many seconds the next run is due, given when the last one began."""
    if started_at - now > timedelta(seconds=interval):
        # Some machine's clock was far ahead: without this, nothing would be read until then.
        return 0.0
    wait = (started_at - now).total_seconds() + interval
    if not_before is not None:
        wait = max(wait, min((not_before - now).total_seconds(), LATER_S_MAX))
    return max(0.0, wait)
