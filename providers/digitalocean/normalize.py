"""What an observed thing of DigitalOcean means: one entry per kind of thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.infrastructure import (
    ActionStatus,
    CloudActionObserved,
    DatabaseClusterObserved,
    DatabaseEngine,
    DatabaseStatus,
    DropletObserved,
    DropletStatus,
    FirewallObserved,
    FirewallRule,
    FirewallStatus,
)
from contracts.observation import observed_kind
from contracts.text import NotJson, parse
from contracts.version import moment
from providers.digitalocean.payloads import Action, Address, Database, Droplet, Firewall, Gpu, Observed, Rule
from providers.port import Ignored, Source, Unintelligible, problems_of

T = TypeVar("T")

UNKNOWN = "unknown"
ENDED = 1
"""The major of an action that has ended: nothing that was seen of it before outranks its end."""
ACTION_STATUSES: Mapping[str, ActionStatus] = {
    "in-progress": "in_progress",
    "completed": "completed",
    "errored": "errored",
}


SCOPES: Mapping[str, str] = {
    "droplet": "droplets",
    "gpu_droplet": "gpu_droplets",
    "database": "databases",
    "firewall": "firewalls",
    "action": "actions",
}
"""The listing that shows a thing for certain, by which its absence is noticed: a filtered one that showed it too says
nothing of what it left out."""


def normalize(delivery: Delivery, source: Source) -> Iterable[Event]:
    """The one event of a delivery that shows a thing. Raises Ignored or Unintelligible."""
    meaning = MEANINGS.get(delivery.kind)
    if meaning is None:
        raise Ignored("no_such_kind")
    return [meaning(delivery, source)]


def _droplet(delivery: Delivery, source: Source) -> Event:
    seen = _parsed(Observed[Droplet], delivery)
    item = seen.item
    gpu = item.gpu_info or item.size.gpu_info
    return DropletObserved(
        **_observed(delivery, f"digitalocean:droplet/{item.id}"),
        env=source.environments.of(source=source.name, tag=item.tags),
        scope=SCOPES["gpu_droplet" if gpu else "droplet"],
        droplet_id=item.id,
        name=item.name,
        status=_known(DropletStatus, item.status),
        provider_status=item.status,
        region=item.region.slug,
        size_slug=item.size_slug,
        vcpus=item.vcpus,
        memory_mb=item.memory,
        disk_gb=item.disk,
        gpu=gpu is not None,
        gpu_model=(gpu or Gpu()).model,
        gpu_count=(gpu or Gpu()).count,
        image_slug=item.image.slug,
        image_name=item.image.name,
        ipv4_public=_address(item.networks.v4, "public"),
        ipv4_private=_address(item.networks.v4, "private"),
        ipv6_public=_address(item.networks.v6, "public"),
        network_uuid=item.vpc_uuid or None,
        tags=item.tags,
        created_at=item.created_at,
    )


def _database(delivery: Delivery, source: Source) -> Event:
    seen = _parsed(Observed[Database], delivery)
    item, connection = seen.item, seen.item.connection
    return DatabaseClusterObserved(
        **_observed(delivery, f"digitalocean:database/{item.id}"),
        env=source.environments.of(source=source.name, tag=item.tags),
        scope=SCOPES["database"],
        cluster_id=item.id,
        name=item.name,
        engine=_known(DatabaseEngine, item.engine),
        provider_engine=item.engine,
        engine_version=item.semantic_version or item.version,
        status=_known(DatabaseStatus, item.status),
        provider_status=item.status,
        region=item.region,
        size_slug=item.size,
        num_nodes=item.num_nodes,
        storage_mib=item.storage_size_mib,
        endpoint_host=connection.host,
        endpoint_port=connection.port,
        ssl_required=connection.ssl,
        default_database=connection.database or None,
        network_uuid=item.private_network_uuid or None,
        tags=item.tags,
        created_at=item.created_at,
        end_of_life_at=item.version_end_of_life,
    )


def _firewall(delivery: Delivery, source: Source) -> Event:
    seen = _parsed(Observed[Firewall], delivery)
    item = seen.item
    return FirewallObserved(
        **_observed(delivery, f"digitalocean:firewall/{item.id}"),
        scope=SCOPES["firewall"],
        firewall_id=item.id,
        name=item.name,
        status=_known(FirewallStatus, item.status),
        provider_status=item.status,
        inbound_rules=[_rule(rule) for rule in item.inbound_rules],
        outbound_rules=[_rule(rule) for rule in item.outbound_rules],
        droplet_ids=item.droplet_ids,
        tags=item.tags,
        created_at=item.created_at,
    )


def _rule(rule: Rule) -> FirewallRule:
    return FirewallRule(
        protocol=rule.protocol,
        ports=rule.ports,
        addresses=rule.peers.addresses,
        tags=rule.peers.tags,
        droplet_ids=rule.peers.droplet_ids,
        load_balancers=rule.peers.load_balancer_uids,
        kubernetes=rule.peers.kubernetes_ids,
    )


def _action(delivery: Delivery, source: Source) -> Event:
    """Actions alone have times of their own."""
    seen = _parsed(Observed[Action], delivery)
    item = seen.item
    status = ACTION_STATUSES.get(item.status, UNKNOWN)
    ended = has_ended(item.status, item.completed_at)
    at = (item.completed_at if ended else None) or item.started_at or delivery.received_at
    droplet = item.resource_type == "droplet" and item.resource_id is not None
    return CloudActionObserved(
        source=delivery.source,
        ref=f"digitalocean:action/{item.id}",
        moment=moment(at, 0, major=ENDED if ended else 0),
        fact=item.status,
        occurred_at=at,
        scope=SCOPES["action"],
        action_id=item.id,
        action=item.type,
        status=status,
        provider_status=item.status,
        resource_type=item.resource_type,
        resource_id=item.resource_id,
        resource_ref=f"digitalocean:droplet/{item.resource_id}" if droplet else None,
        region=item.region_slug,
        started_at=item.started_at,
        completed_at=item.completed_at,
    )


def has_ended(status: str, completed_at: object) -> bool:
    """Whether an action has ended; one with a word that we do not know has if it says when."""
    known = ACTION_STATUSES.get(status, UNKNOWN)
    return known in ("completed", "errored") or (known == UNKNOWN and completed_at is not None)


MEANINGS: Mapping[str, Callable[[Delivery, Source], Event]] = {
    observed_kind("droplet"): _droplet,
    observed_kind("database"): _database,
    observed_kind("firewall"): _firewall,
    observed_kind("action"): _action,
}


def _observed(delivery: Delivery, ref: str) -> dict[str, Any]:
    """What every sight of a thing without a time of its own states: it was so when it was fetched."""
    return {
        "source": delivery.source,
        "ref": ref,
        "moment": moment(delivery.received_at, 0),
        "fact": delivery.body_sha256,
        "occurred_at": delivery.received_at,
    }


def _parsed(shape: type[Observed[T]], delivery: Delivery) -> Observed[T]:
    try:
        return parse(shape, delivery.body)
    except NotJson:
        raise Unintelligible("not_json", "The body is not JSON.") from None
    except ValidationError as error:
        raise Unintelligible("shape_mismatch", f"This is no {delivery.kind}: {problems_of(error)}.") from None


def _known(words: Any, word: str) -> Any:
    """`word` if it is one of the literal `words`, else that it is unknown."""
    return word if word in get_args(words) else UNKNOWN


def _address(addresses: Sequence[Address], kind: str) -> str | None:
    return next((each.ip_address for each in addresses if each.type == kind), None)
