"""ops.do_firewalls: one row per cloud firewall at DigitalOcean, with its rules.

Nothing removes a row: ops.do_firewalls_now says which are gone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from contracts.infrastructure import FirewallObserved, FirewallRule
from contracts.polls import ListingCompleted
from contracts.record import record
from contracts.version import Version
from read_models.port import FACT, GREATEST, KEY, LATEST, SIGHT, VERSION, ReadModel, Statement, listed


@record
class Firewall:
    """A firewall. One that only a listing named has an empty `version`: nothing else is known of it."""

    ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    scope: Annotated[str | None, FACT, SIGHT] = None
    """The listing in which its absence means that it is gone."""
    do_id: Annotated[str | None, FACT] = None
    created_at: Annotated[datetime | None, FACT] = None
    version: Annotated[Version, VERSION] = ()
    name: Annotated[str | None, LATEST] = None
    status: Annotated[str | None, LATEST] = None
    provider_status: Annotated[str | None, LATEST] = None
    inbound_rules: Annotated[bytes | None, LATEST] = None
    """A JSON array of rules, each as contracts.infrastructure.FirewallRule."""
    outbound_rules: Annotated[bytes | None, LATEST] = None
    droplet_ids: Annotated[list[int] | None, LATEST] = None
    tags: Annotated[list[str] | None, LATEST] = None
    last_observed_at: Annotated[datetime | None, GREATEST, SIGHT] = None
    """When the newest of its different contents was fetched."""
    last_seen_at: Annotated[datetime | None, GREATEST, SIGHT] = None
    """When the newest whole listing that showed it began."""


def _observed(statement: Statement[FirewallObserved]) -> Firewall:
    event = statement.event
    return Firewall(
        ref=event.ref,
        source=event.source,
        scope=event.scope,
        do_id=event.firewall_id,
        created_at=event.created_at,
        version=statement.version,
        name=event.name,
        status=event.status,
        provider_status=event.provider_status,
        inbound_rules=_json(event.inbound_rules),
        outbound_rules=_json(event.outbound_rules),
        droplet_ids=event.droplet_ids,
        tags=event.tags,
        last_observed_at=event.occurred_at,
    )


def _json(rules: Sequence[FirewallRule]) -> bytes:
    return json.dumps([rule.model_dump() for rule in rules]).encode()


READ_MODEL = ReadModel(
    name="do_firewalls",
    row=Firewall,
    folds={FirewallObserved: _observed, ListingCompleted: listed(Firewall, "firewall")},
    ref_column="ref",
    presence=("last_seen_at", "last_observed_at"),
)
