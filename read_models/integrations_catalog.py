"""ops.integrations_catalog: one row per integration that SSOT declares, or once did."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.catalogue import IntegrationDeclared, scope_of
from contracts.own import SOURCE
from contracts.polls import ListingCompleted, scope_ref
from contracts.record import record
from contracts.version import Version
from read_models.port import FACT, GREATEST, KEY, VERSION, ReadModel, Statement, latest, listed_in, on

DECLARED = latest("declared_version")
SCOPE = scope_ref(SOURCE, scope_of("integration"))


@record
class CatalogEntry:
    """An integration as SSOT declares it. `last_seen_at` is the last apply that listed it."""

    ref: Annotated[str, KEY]
    key: Annotated[str | None, FACT] = None
    declared_version: Annotated[Version, VERSION] = ()
    name: Annotated[str | None, DECLARED] = None
    category: Annotated[str | None, DECLARED] = None
    provider: Annotated[str | None, DECLARED] = None
    description: Annotated[str | None, DECLARED] = None
    baseline_allowed: Annotated[bool | None, DECLARED] = None
    plan_tier: Annotated[str | None, DECLARED] = None
    cost_band: Annotated[str | None, DECLARED] = None
    vendor_lock_in: Annotated[str | None, DECLARED] = None
    capabilities: Annotated[list[str] | None, DECLARED] = None
    surfaces: Annotated[list[str] | None, DECLARED] = None
    env_keys: Annotated[list[str] | None, DECLARED] = None
    docs_url: Annotated[str | None, DECLARED] = None
    notes: Annotated[str | None, DECLARED] = None
    declared_at: Annotated[datetime | None, GREATEST] = None
    last_seen_at: Annotated[datetime | None, GREATEST] = None


def _declared(statement: Statement[IntegrationDeclared]) -> CatalogEntry:
    event = statement.event
    return CatalogEntry(
        ref=event.ref,
        key=event.key,
        declared_version=statement.version,
        name=event.name,
        category=event.category,
        provider=event.provider,
        description=event.description,
        baseline_allowed=event.baseline_allowed,
        plan_tier=event.plan_tier,
        cost_band=event.cost_band,
        vendor_lock_in=event.vendor_lock_in,
        capabilities=event.capabilities,
        surfaces=event.surfaces,
        env_keys=event.env_keys,
        docs_url=event.docs_url,
        notes=event.notes,
        declared_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="integrations_catalog",
    row=CatalogEntry,
    folds={
        **on(IntegrationDeclared, fold=_declared),
        **on(ListingCompleted, fold=listed_in(SCOPE, CatalogEntry)),
    },
    ref_column="ref",
)
