"""What SSOT may say about a sender of Standard Webhooks."""

from __future__ import annotations

from pydantic import Field

from contracts.ssot import Strict
from contracts.standard_webhooks import TOLERANCE_S

TOLERANCE_S_MAX = 24 * 3600


class Options(Strict):
    """`options` of such a source."""

    tolerance_s: int = Field(default=TOLERANCE_S, ge=1, le=TOLERANCE_S_MAX)
    """How far the time of an attempt may be from ours. A retry has a time of its own, so this need not cover it."""
