"""What may be stored of an answer: a list of fields for each kind of thing, and nothing that is not on it.

Answers about database clusters hold users, passwords, certificates and URIs with passwords in them, under keys that
differ by engine and that may become more. So this is a list of what stays, never one of what goes: a key that is not
named here leaves no trace, and neither does an object where a plain value is expected.
Prices, plans, backup windows and the like are not on it either: they change without the thing changing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

Shape = Any
"""VALUE, VALUES, a mapping of keys to shapes, or a list that holds the shape of its elements."""


class Leaf(Enum):
    """Where a shape ends."""

    VALUE = "one text, number, boolean or null"
    VALUES = "a set of such: kept in an order of ours, as theirs says nothing"


VALUE, VALUES = Leaf.VALUE, Leaf.VALUES

_ADDRESS = {"ip_address": VALUE, "type": VALUE}
_GPU = {"count": VALUE, "model": VALUE}
_PEERS = {
    "addresses": VALUES,
    "tags": VALUES,
    "droplet_ids": VALUES,
    "load_balancer_uids": VALUES,
    "kubernetes_ids": VALUES,
}

DROPLET: Shape = {
    "id": VALUE,
    "name": VALUE,
    "status": VALUE,
    "created_at": VALUE,
    "vcpus": VALUE,
    "memory": VALUE,
    "disk": VALUE,
    "size_slug": VALUE,
    "region": {"slug": VALUE},
    "image": {"id": VALUE, "slug": VALUE, "name": VALUE, "distribution": VALUE},
    "networks": {"v4": [_ADDRESS], "v6": [_ADDRESS]},
    "gpu_info": _GPU,
    "size": {"gpu_info": _GPU},
    "features": VALUES,
    "tags": VALUES,
    "vpc_uuid": VALUE,
}
DATABASE: Shape = {
    "id": VALUE,
    "name": VALUE,
    "engine": VALUE,
    "version": VALUE,
    "semantic_version": VALUE,
    "status": VALUE,
    "created_at": VALUE,
    "region": VALUE,
    "size": VALUE,
    "num_nodes": VALUE,
    "storage_size_mib": VALUE,
    "tags": VALUES,
    "private_network_uuid": VALUE,
    "version_end_of_life": VALUE,
    "connection": {"host": VALUE, "port": VALUE, "ssl": VALUE, "database": VALUE},
}
FIREWALL: Shape = {
    "id": VALUE,
    "name": VALUE,
    "status": VALUE,
    "created_at": VALUE,
    "inbound_rules": [{"protocol": VALUE, "ports": VALUE, "sources": _PEERS}],
    "outbound_rules": [{"protocol": VALUE, "ports": VALUE, "destinations": _PEERS}],
    "droplet_ids": VALUES,
    "tags": VALUES,
}
ACTION: Shape = {
    "id": VALUE,
    "status": VALUE,
    "type": VALUE,
    "started_at": VALUE,
    "completed_at": VALUE,
    "resource_id": VALUE,
    "resource_type": VALUE,
    "region_slug": VALUE,
}

_NOTHING = object()


def kept(shape: Shape, value: Any) -> Any:
    """The part of an object, a decoded JSON value, that `shape` names."""
    found = _kept(shape, value)
    return {} if found is _NOTHING else found


def _kept(shape: Shape, value: Any) -> Any:
    if shape is VALUE:
        return value if _is_plain(value) else _NOTHING
    if shape is VALUES:
        return sorted(filter(_is_plain, value), key=json.dumps) if isinstance(value, list) else _NOTHING
    if isinstance(shape, list):
        return _elements(shape[0], value) if isinstance(value, list) else _NOTHING
    return _fields(shape, value) if isinstance(value, dict) else _NOTHING


def _elements(shape: Shape, values: list[Any]) -> list[Any]:
    return [each for each in (_kept(shape, value) for value in values) if each is not _NOTHING]


def _fields(shape: Mapping[str, Shape], value: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: _kept(part, value[key]) for key, part in shape.items() if key in value}
    return {key: each for key, each in found.items() if each is not _NOTHING}


def _is_plain(value: Any) -> bool:
    """Whether this is one value that JSON can say; 1e999 was read as infinity, which it cannot."""
    return (
        value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    )
