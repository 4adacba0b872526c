"""The advisor: scans of the platform, what they found, and what somebody decided not to mind."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from contracts.envelope import Level
from contracts.own import (
    RUNNING,
    Concluded,
    Name,
    OwnEvent,
    OwnRun,
    Sentence,
    Slug,
    Vocabulary,
    own_ref,
    vocabulary,
    without_default,
)
from contracts.version import Int64, Moment, moment

Severity = Literal["critical", "high", "medium", "low", "info", "unknown"]
Pillar = Literal[
    "security", "cost", "reliability", "performance", "operational_excellence", "other", "unknown"
]

FINGERPRINT_CHARS = 16
Fingerprint = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]

_LEVELS: Mapping[str, Level] = {"critical": "error", "high": "error", "medium": "warn", "unknown": "warn"}


def fingerprint_of(rule: str, resource_ref: str) -> str:
    """What names a finding in every run: 16 hex digits of the SHA-256 of rule and resource."""
    return hashlib.sha256(f"{rule}::{resource_ref}".encode()).hexdigest()[:FINGERPRINT_CHARS]


class AdvisorRunEvent(OwnRun):
    """One scan. `ref` is it: `odooops:advisor_run/<run id>`."""

    service: ClassVar[str] = "advisor"

    run_id: Name
    advisor: Slug
    """Which scan it is: all its runs look at the same things. One that looks at less is another advisor."""
    triggered_by: str | None = None
    """`cron`, `manual`, `api`."""

    def named(self) -> str:
        return own_ref("advisor_run", self.run_id)

    @property
    def summary(self) -> str:
        return f"advisor {self.advisor}: scan {self.outcome}"


class AdvisorRunStarted(AdvisorRunEvent):
    """A scan began."""

    type: ClassVar[str] = "advisor_run.started"
    stage: ClassVar[int] = RUNNING
    state: ClassVar[str] = "running"


class AdvisorRunFinished(AdvisorRunEvent, Concluded):
    """A scan has ended. A success with all its findings at hand is complete: what it did not find is resolved."""

    type: ClassVar[str] = "advisor_run.finished"

    finding_count: Annotated[Int64, Field(ge=0)] | None = None
    """How many findings it stated. Without it, or with fewer at hand, nothing counts as resolved by it."""


class AdvisorFindingFound(OwnEvent):
    """A scan found something. `ref` is the finding in every run: `odooops:advisor_finding/<advisor>/<fingerprint>`."""

    type: ClassVar[str] = "advisor_finding.found"
    service: ClassVar[str] = "advisor"
    words: ClassVar[Mapping[str, Vocabulary]] = {
        "severity": vocabulary(Severity, {"informational": "info", "moderate": "medium"}),
        "pillar": vocabulary(
            Pillar, {"ops_excellence": "operational_excellence", "operations": "operational_excellence"}
        ),
    }

    run_id: Name
    advisor: Slug
    rule: str = Field(min_length=1)
    resource_ref: str = Field(min_length=1)
    """The thing that it is about: `digitalocean:droplet/123`."""
    fingerprint: Fingerprint = Field(default="", json_schema_extra=without_default)
    """What names the finding in every run; made of rule and resource where the scanner has none of its own."""
    pillar: Pillar
    stated_pillar: str | None = None
    """The scanner's own word."""
    severity: Severity
    stated_severity: str | None = None
    """The scanner's own word."""
    title: str
    remediation: str | None = None
    evidence: dict[str, JsonValue] = {}
    """What was seen, without secrets."""
    url: str | None = None

    def named(self) -> str:
        if not self.fingerprint:
            self._set("fingerprint", fingerprint_of(self.rule, self.resource_ref))
        return own_ref("advisor_finding", self.advisor, self.fingerprint)

    def told(self) -> str:
        return self.run_id

    @property
    def level(self) -> Level:
        return _LEVELS.get(self.severity, "info")

    @property
    def summary(self) -> str:
        return f"advisor {self.advisor}: {self.title} ({self.severity}, {self.resource_ref})"


class AdvisorDecision(OwnEvent):
    """What somebody decided about a finding, in whichever run it is seen. `actor` is who did."""

    service: ClassVar[str] = "advisor"
    rank: ClassVar[int]
    dismissed: ClassVar[bool]

    advisor: Slug
    fingerprint: Fingerprint
    reason: Sentence | None = None

    def named(self) -> str:
        return own_ref("advisor_finding", self.advisor, self.fingerprint)

    def placed(self) -> Moment:
        return moment(self.occurred_at, self.rank)

    @property
    def summary(self) -> str:
        word = "dismissed" if self.dismissed else "minded again"
        return f"advisor {self.advisor}: finding {self.fingerprint} {word}"


class AdvisorFindingDismissed(AdvisorDecision):
    """A finding shall count no more."""

    type: ClassVar[str] = "advisor_finding.dismissed"
    rank: ClassVar[int] = 0
    dismissed: ClassVar[bool] = True


class AdvisorFindingReopened(AdvisorDecision):
    """A dismissed finding counts again. Of two decisions of one time this one stands: it hides nothing."""

    type: ClassVar[str] = "advisor_finding.reopened"
    rank: ClassVar[int] = 1
    dismissed: ClassVar[bool] = False
