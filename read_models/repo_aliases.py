"""ops.repo_aliases: one row per name that a repository has or had. Refs hold names, and names change.

Fed by what is rare: a repository's own events, which say both names of a change, and pushes, which heal a change
that was not heard of. Were it fed by every event, each batch of the projector would wait for the one before it at
the same few rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.audit import CodePushed, RepositoryChanged
from contracts.record import record
from contracts.version import from_micros
from read_models.port import EARLIEST, FACT, GREATEST, KEY, Index, ReadModel, Statement

DELETED = "deleted"


@record
class RepoAlias:
    """A name of a repository. Which name is today's is said by the view repositories_now."""

    ref: Annotated[str, KEY]
    """The repository by its id, which stays: `github:repository/<id>`."""
    full_name: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    repository_id: Annotated[int | None, FACT] = None
    first_seen_at: Annotated[datetime | None, EARLIEST] = None
    """The first time known at which it was called so."""
    named_at: Annotated[datetime | None, GREATEST] = None
    """The last time known at which it was called so; NULL where only its end was heard of."""
    left_at: Annotated[datetime | None, GREATEST] = None
    """The last time at which it gave this name up; it may have taken it again."""
    deleted_at: Annotated[datetime | None, GREATEST] = None
    """When the repository was deleted; it may have been restored."""


def _changed(statement: Statement[RepositoryChanged]) -> list[RepoAlias]:
    event = statement.event
    at = from_micros(event.moment[1])
    deleted = event.change == DELETED
    named = RepoAlias(
        ref=event.ref,
        full_name=event.repository,
        source=event.source,
        repository_id=event.repository_id,
        first_seen_at=at,
        named_at=at,
        deleted_at=event.occurred_at if deleted else None,
    )
    if event.previous_name in (None, event.repository):
        return [named]
    left = RepoAlias(
        ref=event.ref,
        full_name=event.previous_name or "",
        source=event.source,
        repository_id=event.repository_id,
        left_at=at,
    )
    return [named, left]


def _pushed(statement: Statement[CodePushed]) -> RepoAlias:
    event = statement.event
    return RepoAlias(
        ref=f"{event.ref.partition(':')[0]}:repository/{event.repository_id}",
        full_name=event.repository,
        source=event.source,
        repository_id=event.repository_id,
        first_seen_at=event.occurred_at,
        named_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="repo_aliases",
    row=RepoAlias,
    folds={RepositoryChanged: _changed, CodePushed: _pushed},
    ref_column="ref",
    indexes=(
        Index("repo_aliases_full_name", ("full_name",)),
        Index("repo_aliases_repository_id", ("repository_id",)),
    ),
)
