"""Infrastructure as a poll sees it: virtual machines, database clusters, firewalls, and what was done to them.

Clouds give no time at which a machine, a cluster or a firewall changed. So such an event's `moment` is when the
thing was fetched, and `fact` the hash of what was shown.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from contracts.envelope import Event, Level, RunEvent, Short
from contracts.version import Int64

DropletStatus = Literal["new", "active", "off", "archive", "unknown"]
DatabaseStatus = Literal[
    "creating", "online", "resizing", "migrating", "forking", "degraded", "error", "unknown"
]
DatabaseEngine = Literal["pg", "mysql", "redis", "valkey", "mongodb", "kafka", "opensearch", "unknown"]
FirewallStatus = Literal["waiting", "succeeded", "failed", "unknown"]
ActionStatus = Literal["in_progress", "completed", "errored", "unknown"]


class DropletObserved(Event):
    """A virtual machine, as its cloud shows it. `ref` is the machine: `digitalocean:droplet/<id>`."""

    type: ClassVar[str] = "droplet.observed"
    service: ClassVar[str] = "runtime"

    scope: str
    """The listing that it belongs to: `droplets`, `gpu_droplets`."""
    droplet_id: Int64
    name: str
    status: DropletStatus
    provider_status: str | None = None
    region: str | None = None
    size_slug: str | None = None
    vcpus: Int64 | None = None
    memory_mb: Int64 | None = None
    disk_gb: Int64 | None = None
    gpu: bool = False
    gpu_model: str | None = None
    gpu_count: Int64 | None = None
    image_slug: str | None = None
    """Null for images of one's own, which have a name only."""
    image_name: str | None = None
    ipv4_public: str | None = None
    ipv4_private: str | None = None
    ipv6_public: str | None = None
    network_uuid: str | None = None
    tags: list[str] = []
    created_at: AwareDatetime | None = None

    @property
    def summary(self) -> str:
        return f"{self.name}: {self.status}"


class DatabaseClusterObserved(Event):
    """A managed database, as its cloud shows it. `ref` is the cluster: `digitalocean:database/<uuid>`.

    Neither users nor passwords nor connection URIs are ever part of it.
    """

    type: ClassVar[str] = "database_cluster.observed"
    service: ClassVar[str] = "db"

    scope: str
    cluster_id: str
    name: str
    engine: DatabaseEngine
    provider_engine: str | None = None
    engine_version: str | None = None
    """The fullest form that is shown: `14.5`, else `14`."""
    status: DatabaseStatus
    provider_status: str | None = None
    region: str | None = None
    size_slug: str | None = None
    num_nodes: Int64 | None = None
    storage_mib: Int64 | None = None
    endpoint_host: str | None = None
    endpoint_port: Int64 | None = None
    ssl_required: bool | None = None
    default_database: str | None = None
    network_uuid: str | None = None
    tags: list[str] = []
    created_at: AwareDatetime | None = None
    end_of_life_at: AwareDatetime | None = None
    """When its engine's version is no longer supported."""

    @property
    def summary(self) -> str:
        return f"{self.name}: {self.engine} {self.status}"


class FirewallRule(BaseModel):
    """Who may send what: `peers` are the senders of an inbound rule, the receivers of an outbound one."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    protocol: str | None = None
    ports: str | None = None
    """`22`, `8000-9000`, `0` for all."""
    addresses: list[str] = []
    tags: list[str] = []
    droplet_ids: list[Int64] = []
    load_balancers: list[str] = []
    kubernetes: list[str] = []


class FirewallObserved(Event):
    """A cloud firewall and all of its rules. `ref` is the firewall: `digitalocean:firewall/<uuid>`."""

    type: ClassVar[str] = "firewall.observed"
    service: ClassVar[str] = "runtime"

    scope: str
    firewall_id: str
    name: str
    status: FirewallStatus
    provider_status: str | None = None
    inbound_rules: list[FirewallRule] = []
    outbound_rules: list[FirewallRule] = []
    droplet_ids: list[Int64] = []
    tags: list[str] = []
    """It protects every machine that has one of them."""
    created_at: AwareDatetime | None = None

    @property
    def summary(self) -> str:
        return (
            f"{self.name}: {len(self.inbound_rules)} rules in, {len(self.outbound_rules)} out, {self.status}"
        )


class CloudActionObserved(RunEvent):
    """What the cloud does to one of its things: create, resize, reboot. `ref`: `digitalocean:action/<id>`.

    It has times of its own, and ends once: `moment` is (0 until its end, then 1; its end or start; 0).
    """

    type: ClassVar[str] = "cloud_action.observed"
    service: ClassVar[str] = "runtime"

    scope: str
    action_id: Int64
    action: str
    """The provider's word: `create`, `power_cycle`, `resize`."""
    status: ActionStatus
    provider_status: str | None = None
    resource_type: str | None = None
    resource_id: Int64 | None = None
    resource_ref: Short | None = None
    """The ref of the thing, where we observe such things."""
    region: str | None = None
    started_at: AwareDatetime | None = None
    completed_at: AwareDatetime | None = None

    @property
    def step(self) -> str:
        return self.action

    @property
    def outcome(self) -> str:
        return self.status

    @property
    def level(self) -> Level:
        return "error" if self.status == "errored" else super().level

    @property
    def summary(self) -> str:
        return f"{self.action} of {self.resource_ref or self.resource_type or 'something'}: {self.status}"
