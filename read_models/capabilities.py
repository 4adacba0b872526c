"""ops.capabilities: one row per capability of the platform that SSOT declares, or once did."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.catalogue import CapabilityDeclared, CapabilityObserved, scope_of
from contracts.own import SOURCE
from contracts.polls import ListingCompleted, scope_ref
from contracts.record import record
from contracts.version import Version
from read_models.port import (
    FACT,
    GREATEST,
    KEY,
    VERSION,
    ReadModel,
    Statement,
    as_json,
    latest,
    listed_in,
    on,
)

DECLARED = latest("declared_version")
OBSERVED = latest("observed_version")
SCOPE = scope_ref(SOURCE, scope_of("capability"))


@record
class CapabilityRow:
    """A capability: what SSOT declares, and how mature it was found to be."""

    ref: Annotated[str, KEY]
    key: Annotated[str | None, FACT] = None
    declared_version: Annotated[Version, VERSION] = ()
    name: Annotated[str | None, DECLARED] = None
    category: Annotated[str | None, DECLARED] = None
    declared_maturity: Annotated[str | None, DECLARED] = None
    data_source: Annotated[str | None, DECLARED] = None
    baseline_allowed: Annotated[bool | None, DECLARED] = None
    surfaces: Annotated[list[str] | None, DECLARED] = None
    description: Annotated[str | None, DECLARED] = None
    observed_version: Annotated[Version, VERSION] = ()
    observed_maturity: Annotated[str | None, OBSERVED] = None
    evidence: Annotated[bytes | None, OBSERVED] = None
    last_checked_at: Annotated[datetime | None, OBSERVED] = None
    declared_at: Annotated[datetime | None, GREATEST] = None
    last_seen_at: Annotated[datetime | None, GREATEST] = None


def _declared(statement: Statement[CapabilityDeclared]) -> CapabilityRow:
    event = statement.event
    return CapabilityRow(
        ref=event.ref,
        key=event.key,
        declared_version=statement.version,
        name=event.name,
        category=event.category,
        declared_maturity=event.maturity,
        data_source=event.data_source,
        baseline_allowed=event.baseline_allowed,
        surfaces=event.surfaces,
        description=event.description,
        declared_at=event.occurred_at,
    )


def _observed(statement: Statement[CapabilityObserved]) -> CapabilityRow:
    event = statement.event
    return CapabilityRow(
        ref=event.ref,
        key=event.key,
        observed_version=statement.version,
        observed_maturity=event.maturity,
        evidence=as_json(event.evidence),
        last_checked_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="capabilities",
    row=CapabilityRow,
    folds={
        **on(CapabilityDeclared, fold=_declared),
        **on(CapabilityObserved, fold=_observed),
        **on(ListingCompleted, fold=listed_in(SCOPE, CapabilityRow)),
    },
    ref_column="ref",
)
