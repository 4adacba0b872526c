"""ops.do_databases: one row per database cluster at DigitalOcean. No user, no password, no URI.

Nothing removes a row: ops.do_databases_now says which are gone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.infrastructure import DatabaseClusterObserved
from contracts.polls import ListingCompleted
from contracts.record import record
from contracts.version import Version
from read_models.port import FACT, GREATEST, KEY, LATEST, SIGHT, VERSION, ReadModel, Statement, listed


@record
class Database:
    """A cluster. One that only a listing named has an empty `version`: nothing else is known of it."""

    ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    scope: Annotated[str | None, FACT, SIGHT] = None
    """The listing in which its absence means that it is gone."""
    do_id: Annotated[str | None, FACT] = None
    created_at: Annotated[datetime | None, FACT] = None
    version: Annotated[Version, VERSION] = ()
    env: Annotated[str | None, LATEST] = None
    name: Annotated[str | None, LATEST] = None
    engine: Annotated[str | None, LATEST] = None
    provider_engine: Annotated[str | None, LATEST] = None
    engine_version: Annotated[str | None, LATEST] = None
    status: Annotated[str | None, LATEST] = None
    provider_status: Annotated[str | None, LATEST] = None
    region: Annotated[str | None, LATEST] = None
    size_slug: Annotated[str | None, LATEST] = None
    num_nodes: Annotated[int | None, LATEST] = None
    storage_mib: Annotated[int | None, LATEST] = None
    endpoint_host: Annotated[str | None, LATEST] = None
    endpoint_port: Annotated[int | None, LATEST] = None
    ssl_required: Annotated[bool | None, LATEST] = None
    default_database: Annotated[str | None, LATEST] = None
    network_uuid: Annotated[str | None, LATEST] = None
    tags: Annotated[list[str] | None, LATEST] = None
    end_of_life_at: Annotated[datetime | None, LATEST] = None
    last_observed_at: Annotated[datetime | None, GREATEST, SIGHT] = None
    """When the newest of its different contents was fetched."""
    last_seen_at: Annotated[datetime | None, GREATEST, SIGHT] = None
    """When the newest whole listing that showed it began."""


def _observed(statement: Statement[DatabaseClusterObserved]) -> Database:
    event = statement.event
    return Database(
        ref=event.ref,
        source=event.source,
        scope=event.scope,
        do_id=event.cluster_id,
        created_at=event.created_at,
        version=statement.version,
        env=event.env,
        name=event.name,
        engine=event.engine,
        provider_engine=event.provider_engine,
        engine_version=event.engine_version,
        status=event.status,
        provider_status=event.provider_status,
        region=event.region,
        size_slug=event.size_slug,
        num_nodes=event.num_nodes,
        storage_mib=event.storage_mib,
        endpoint_host=event.endpoint_host,
        endpoint_port=event.endpoint_port,
        ssl_required=event.ssl_required,
        default_database=event.default_database,
        network_uuid=event.network_uuid,
        tags=event.tags,
        end_of_life_at=event.end_of_life_at,
        last_observed_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="do_databases",
    row=Database,
    folds={DatabaseClusterObserved: _observed, ListingCompleted: listed(Database, "database")},
    ref_column="ref",
    presence=("last_seen_at", "last_observed_at"),
)
