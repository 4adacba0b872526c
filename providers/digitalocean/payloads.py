"""The fields that are used of what was kept of an answer: see kept.py, which drops what is null or of another kind."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts.version import Int64

T = TypeVar("T")

Texts = Annotated[list[str], Field(fail_fast=True)]
Ids = Annotated[list[Int64], Field(fail_fast=True)]


class Part(BaseModel):
    """Any object of an answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Observed(Part, Generic[T]):
    """The body of a delivery that shows one thing: see contracts/observation.py."""

    scope: str
    item: T


class Named(Part):
    """What has a slug and perhaps a name: a region, an image."""

    slug: str | None = None
    name: str | None = None


class Address(Part):
    ip_address: str
    type: str


class Networks(Part):
    v4: Annotated[list[Address], Field(fail_fast=True)] = []
    v6: Annotated[list[Address], Field(fail_fast=True)] = []


class Gpu(Part):
    count: Int64 | None = None
    model: str | None = None


class Size(Part):
    gpu_info: Gpu | None = None


class Droplet(Part):
    id: Int64
    name: str
    status: str
    created_at: AwareDatetime | None = None
    vcpus: Int64 | None = None
    memory: Int64 | None = None
    disk: Int64 | None = None
    size_slug: str | None = None
    region: Named = Named()
    image: Named = Named()
    networks: Networks = Networks()
    gpu_info: Gpu | None = None
    size: Size = Size()
    tags: Texts = []
    vpc_uuid: str | None = None


class Connection(Part):
    host: str | None = None
    port: Int64 | None = None
    ssl: bool | None = None
    database: str | None = None


class Database(Part):
    id: str
    name: str
    engine: str
    status: str
    version: str | None = None
    semantic_version: str | None = None
    created_at: AwareDatetime | None = None
    region: str | None = None
    size: str | None = None
    num_nodes: Int64 | None = None
    storage_size_mib: Int64 | None = None
    tags: Texts = []
    private_network_uuid: str | None = None
    version_end_of_life: AwareDatetime | None = None
    connection: Connection = Connection()


class Peers(Part):
    addresses: Texts = []
    tags: Texts = []
    droplet_ids: Ids = []
    load_balancer_uids: Texts = []
    kubernetes_ids: Texts = []


class Rule(Part):
    """An inbound rule has sources, an outbound one destinations."""

    protocol: str | None = None
    ports: str | None = None
    sources: Peers | None = None
    destinations: Peers | None = None

    @property
    def peers(self) -> Peers:
        return self.sources or self.destinations or Peers()


Rules = Annotated[list[Rule], Field(fail_fast=True)]


class Firewall(Part):
    id: str
    name: str
    status: str
    created_at: AwareDatetime | None = None
    inbound_rules: Rules = []
    outbound_rules: Rules = []
    droplet_ids: Ids = []
    tags: Texts = []


class Action(Part):
    id: Int64
    status: str
    type: str
    started_at: AwareDatetime | None = None
    completed_at: AwareDatetime | None = None
    resource_id: Int64 | None = None
    resource_type: str | None = None
    region_slug: str | None = None
