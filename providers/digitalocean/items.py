"""An answer of DigitalOcean's API, cut into the things that it shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.observation import observed_body
from contracts.text import NotJson, decode
from providers.digitalocean.kept import ACTION, DATABASE, DROPLET, FIREWALL, Shape, kept
from providers.port import Item, Unintelligible

DROPLETS = "droplets"
GPU_DROPLETS = "gpu_droplets"
"""`/v2/droplets` leaves them out unless it is asked with `type=gpus`: a listing, and hence a scope, of their own."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of page: the key that holds its list, the key of an answer about one thing, and what is kept."""

    many: str
    one: str
    shape: Shape


KINDS: Mapping[str, Kind] = {
    DROPLETS: Kind("droplets", "droplet", DROPLET),
    GPU_DROPLETS: Kind("droplets", "droplet", DROPLET),
    "databases": Kind("databases", "database", DATABASE),
    "firewalls": Kind("firewalls", "firewall", FIREWALL),
    "actions": Kind("actions", "action", ACTION),
}
ERRORS: Mapping[str, str] = {
    "unauthorized": "DigitalOcean did not accept the token",
    "forbidden": "the token's scopes do not allow this",
    "not_found": "DigitalOcean knows no such thing",
    "too_many_requests": "DigitalOcean asks for fewer requests",
    "server_error": "DigitalOcean failed to answer",
    "service_unavailable": "DigitalOcean is not available",
}
"""The API's own names of errors: the reason that such an answer is refused with."""

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


def items(kind: str, scope: str, page: bytes) -> list[Item]:
    """The things that a page of `kind` (a key of KINDS) shows, without what must not be stored.

    Takes lists and answers about one thing. Raises Unintelligible, for an answer that is an error too.
    """
    if kind not in KINDS:
        raise Unintelligible("unknown_kind", f"known kinds are {', '.join(KINDS)}")
    page_kind, answer = KINDS[kind], _object(page)
    found = answer.get(page_kind.many, [answer[page_kind.one]] if page_kind.one in answer else None)
    if not isinstance(found, list):
        raise _refusal(answer, page_kind)
    return [_item(page_kind, scope, n, value) for n, value in enumerate(found)]


def total(page: bytes) -> int | None:
    """How many things the listing has that `page` is a part of, if it says so. Raises Unintelligible for no list."""
    answer = _object(page)
    if not any(kind.many in answer for kind in KINDS.values()):
        raise Unintelligible("no_listing", "the answer is about one thing, and no listing")
    meta = answer.get("meta")
    count = meta.get("total") if isinstance(meta, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def _object(page: bytes) -> dict[str, Any]:
    try:
        answer = decode(page)
    except NotJson:
        raise Unintelligible("not_json", "the answer is not JSON") from None
    if not isinstance(answer, dict):
        raise Unintelligible("shape_mismatch", "the answer is not a JSON object")
    return answer


def _refusal(answer: Mapping[str, Any], kind: Kind) -> Unintelligible:
    name = answer.get("id")
    if isinstance(name, str) and isinstance(answer.get("message"), str):
        known = name if name in ERRORS else "error_answer"
        return Unintelligible(known, ERRORS.get(name, "DigitalOcean answered with an error"))
    return Unintelligible(
        "shape_mismatch", f"the answer has neither a list {kind.many} nor an object {kind.one}"
    )


def _item(kind: Kind, scope: str, n: int, value: Any) -> Item:
    item = kept(kind.shape, value)
    name = item.get("id")
    if isinstance(name, bool) or not isinstance(name, (int, str)) or not _ID.fullmatch(str(name)):
        raise Unintelligible("shape_mismatch", f"{kind.many}.{n} has no id")
    if scope in (DROPLETS, GPU_DROPLETS) and kind.shape is DROPLET:
        _require_scope(GPU_DROPLETS if _has_gpu(item) else DROPLETS, scope)
    return Item(ref=f"digitalocean:{kind.one}/{name}", kind=kind.one, body=observed_body(scope, item))


def _require_scope(right: str, given: str) -> None:
    """The absence of a thing can be noticed only in the listing that would show it."""
    if right != given:
        raise Unintelligible("another_scope", f"this shows things of {right}, not of {given}")


def _has_gpu(item: Mapping[str, Any]) -> bool:
    size = item.get("size")
    return bool(item.get("gpu_info") or (isinstance(size, dict) and size.get("gpu_info")))
