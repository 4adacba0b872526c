"""ops.advisor_findings: one row per finding and scan that saw it. Open or resolved: see advisor_findings_now."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.advisor import AdvisorFindingFound
from contracts.own import own_ref
from contracts.record import record
from contracts.version import Version
from read_models.port import FACT, KEY, LATEST, VERSION, Index, ReadModel, Statement, as_json


@record
class AdvisorFinding:
    """What one scan saw of one finding: seen in two scans, it is two rows and one `ref`."""

    ref: Annotated[str, KEY]
    run_ref: Annotated[str, KEY]
    advisor: Annotated[str | None, FACT] = None
    fingerprint: Annotated[str | None, FACT] = None
    version: Annotated[Version, VERSION] = ()
    env: Annotated[str | None, LATEST] = None
    pillar: Annotated[str | None, LATEST] = None
    stated_pillar: Annotated[str | None, LATEST] = None
    severity: Annotated[str | None, LATEST] = None
    stated_severity: Annotated[str | None, LATEST] = None
    rule: Annotated[str | None, LATEST] = None
    title: Annotated[str | None, LATEST] = None
    resource_ref: Annotated[str | None, LATEST] = None
    remediation: Annotated[str | None, LATEST] = None
    evidence: Annotated[bytes | None, LATEST] = None
    url: Annotated[str | None, LATEST] = None
    found_at: Annotated[datetime | None, LATEST] = None


def _found(statement: Statement[AdvisorFindingFound]) -> AdvisorFinding:
    event = statement.event
    return AdvisorFinding(
        ref=event.ref,
        run_ref=own_ref("advisor_run", event.run_id),
        advisor=event.advisor,
        fingerprint=event.fingerprint,
        version=statement.version,
        env=event.env,
        pillar=event.pillar,
        stated_pillar=event.stated_pillar,
        severity=event.severity,
        stated_severity=event.stated_severity,
        rule=event.rule,
        title=event.title,
        resource_ref=event.resource_ref,
        remediation=event.remediation,
        evidence=as_json(event.evidence),
        url=event.url,
        found_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="advisor_findings",
    row=AdvisorFinding,
    folds={AdvisorFindingFound: _found},
    ref_column="ref",
    indexes=(Index("advisor_findings_run_ref", ("run_ref",)),),
)
