"""ops.starters: one row per template that SSOT declares, or once did."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.catalogue import StarterDeclared, StarterObserved, scope_of
from contracts.own import SOURCE
from contracts.polls import ListingCompleted, scope_ref
from contracts.record import record
from contracts.version import Version
from read_models.port import FACT, GREATEST, KEY, VERSION, ReadModel, Statement, latest, listed_in, on

DECLARED = latest("declared_version")
OBSERVED = latest("observed_version")
SCOPE = scope_ref(SOURCE, scope_of("starter"))


@record
class StarterRow:
    """A starter: what SSOT declares, and whether its collection was found to hold it."""

    ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    slug: Annotated[str | None, FACT] = None
    declared_version: Annotated[Version, VERSION] = ()
    title: Annotated[str | None, DECLARED] = None
    description: Annotated[str | None, DECLARED] = None
    framework: Annotated[str | None, DECLARED] = None
    tags: Annotated[list[str] | None, DECLARED] = None
    deploy_url: Annotated[str | None, DECLARED] = None
    demo_url: Annotated[str | None, DECLARED] = None
    repo_path: Annotated[str | None, DECLARED] = None
    observed_version: Annotated[Version, VERSION] = ()
    available: Annotated[bool | None, OBSERVED] = None
    content_sha256: Annotated[str | None, OBSERVED] = None
    last_checked_at: Annotated[datetime | None, OBSERVED] = None
    declared_at: Annotated[datetime | None, GREATEST] = None
    last_seen_at: Annotated[datetime | None, GREATEST] = None


def _declared(statement: Statement[StarterDeclared]) -> StarterRow:
    event = statement.event
    return StarterRow(
        ref=event.ref,
        source=event.starter_source,
        slug=event.slug,
        declared_version=statement.version,
        title=event.title,
        description=event.description,
        framework=event.framework,
        tags=event.tags,
        deploy_url=event.deploy_url,
        demo_url=event.demo_url,
        repo_path=event.repo_path,
        declared_at=event.occurred_at,
    )


def _observed(statement: Statement[StarterObserved]) -> StarterRow:
    event = statement.event
    return StarterRow(
        ref=event.ref,
        source=event.starter_source,
        slug=event.slug,
        observed_version=statement.version,
        available=event.available,
        content_sha256=event.content_sha256,
        last_checked_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="starters",
    row=StarterRow,
    folds={
        **on(StarterDeclared, fold=_declared),
        **on(StarterObserved, fold=_observed),
        **on(ListingCompleted, fold=listed_in(SCOPE, StarterRow)),
    },
    ref_column="ref",
)
