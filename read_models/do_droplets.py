"""ops.do_droplets: one row per virtual machine at DigitalOcean, GPU ones too.

Nothing removes a row: ops.do_droplets_now says which are gone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.infrastructure import DropletObserved
from contracts.polls import ListingCompleted
from contracts.record import record
from contracts.version import Version
from read_models.port import FACT, GREATEST, KEY, LATEST, SIGHT, VERSION, ReadModel, Statement, listed


@record
class Droplet:
    """A machine. One that only a listing named has an empty `version`: nothing else is known of it."""

    ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    scope: Annotated[str | None, FACT, SIGHT] = None
    """The listing in which its absence means that it is gone."""
    do_id: Annotated[int | None, FACT] = None
    created_at: Annotated[datetime | None, FACT] = None
    version: Annotated[Version, VERSION] = ()
    env: Annotated[str | None, LATEST] = None
    name: Annotated[str | None, LATEST] = None
    status: Annotated[str | None, LATEST] = None
    provider_status: Annotated[str | None, LATEST] = None
    region: Annotated[str | None, LATEST] = None
    size_slug: Annotated[str | None, LATEST] = None
    vcpus: Annotated[int | None, LATEST] = None
    memory_mb: Annotated[int | None, LATEST] = None
    disk_gb: Annotated[int | None, LATEST] = None
    gpu: Annotated[bool | None, LATEST] = None
    gpu_model: Annotated[str | None, LATEST] = None
    gpu_count: Annotated[int | None, LATEST] = None
    image_slug: Annotated[str | None, LATEST] = None
    image_name: Annotated[str | None, LATEST] = None
    ipv4_public: Annotated[str | None, LATEST] = None
    ipv4_private: Annotated[str | None, LATEST] = None
    ipv6_public: Annotated[str | None, LATEST] = None
    network_uuid: Annotated[str | None, LATEST] = None
    tags: Annotated[list[str] | None, LATEST] = None
    last_observed_at: Annotated[datetime | None, GREATEST, SIGHT] = None
    """When the newest of its different contents was fetched."""
    last_seen_at: Annotated[datetime | None, GREATEST, SIGHT] = None
    """When the newest whole listing that showed it began."""


def _observed(statement: Statement[DropletObserved]) -> Droplet:
    event = statement.event
    return Droplet(
        ref=event.ref,
        source=event.source,
        scope=event.scope,
        do_id=event.droplet_id,
        created_at=event.created_at,
        version=statement.version,
        env=event.env,
        name=event.name,
        status=event.status,
        provider_status=event.provider_status,
        region=event.region,
        size_slug=event.size_slug,
        vcpus=event.vcpus,
        memory_mb=event.memory_mb,
        disk_gb=event.disk_gb,
        gpu=event.gpu,
        gpu_model=event.gpu_model,
        gpu_count=event.gpu_count,
        image_slug=event.image_slug,
        image_name=event.image_name,
        ipv4_public=event.ipv4_public,
        ipv4_private=event.ipv4_private,
        ipv6_public=event.ipv6_public,
        network_uuid=event.network_uuid,
        tags=event.tags,
        last_observed_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="do_droplets",
    row=Droplet,
    folds={DropletObserved: _observed, ListingCompleted: listed(Droplet, "droplet")},
    ref_column="ref",
    presence=("last_seen_at", "last_observed_at"),
)
