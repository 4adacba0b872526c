"""What `options` in the SSOT file of a Mailgun source may say."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from contracts.ssot import Strict

DOMAIN_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}$"
ACCEPTED_AGE_S = 9 * 3600
"""Mailgun tries again for about 8 h, perhaps with the first signature."""
ACCEPTED_AGE_S_MAX = 7 * 24 * 3600


class MailgunOptions(Strict):
    """How old a signature may be, which domain is meant where a body names none, and whose events are polled."""

    accepted_age_s: int = Field(default=ACCEPTED_AGE_S, ge=1, le=ACCEPTED_AGE_S_MAX)
    domain: str | None = Field(default=None, pattern=DOMAIN_PATTERN)
    domains: list[Annotated[str, StringConstraints(to_lower=True, pattern=DOMAIN_PATTERN)]] = Field(
        default=[], description="the sending domains whose events are polled"
    )
