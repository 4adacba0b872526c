"""ops.integrations_installations: how each integration is meant to be installed, and how it was found to be.

Two groups that know nothing of each other: no apply of SSOT overwrites what was observed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.catalogue import IntegrationDeclared, IntegrationObserved
from contracts.record import record
from contracts.version import Version
from read_models.port import FACT, KEY, VERSION, ReadModel, Statement, as_json, latest, on

DECLARED = latest("declared_version")
OBSERVED = latest("observed_version")


@record
class Installation:
    """An integration's installation. `declared_status` NULL: SSOT does not install it."""

    ref: Annotated[str, KEY]
    key: Annotated[str | None, FACT] = None
    declared_version: Annotated[Version, VERSION] = ()
    declared_status: Annotated[str | None, DECLARED] = None
    billing: Annotated[str | None, DECLARED] = None
    observed_version: Annotated[Version, VERSION] = ()
    observed_status: Annotated[str | None, OBSERVED] = None
    provider_status: Annotated[str | None, OBSERVED] = None
    evidence: Annotated[bytes | None, OBSERVED] = None
    last_checked_at: Annotated[datetime | None, OBSERVED] = None


def _declared(statement: Statement[IntegrationDeclared]) -> Installation:
    event = statement.event
    return Installation(
        ref=event.ref,
        key=event.key,
        declared_version=statement.version,
        declared_status=event.installed,
        billing=event.billing,
    )


def _observed(statement: Statement[IntegrationObserved]) -> Installation:
    event = statement.event
    return Installation(
        ref=event.ref,
        key=event.key,
        observed_version=statement.version,
        observed_status=event.status,
        provider_status=event.provider_status,
        evidence=as_json(event.evidence),
        last_checked_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="integrations_installations",
    row=Installation,
    folds={**on(IntegrationDeclared, fold=_declared), **on(IntegrationObserved, fold=_observed)},
    ref_column="ref",
)
