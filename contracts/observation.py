"""What we fetched ourselves: one delivery for each thing that an API's answer shows, and never a whole page.

Such a delivery has the kind `observed.<kind>` and the body below; when it was fetched is its `received_at`. The same
thing with the same content has the same body, so that nothing is stored where nothing has changed.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from contracts.delivery import Delivery, MalformedName, Via, body_sha256, require_identity
from contracts.text import NotJson, clean_value
from contracts.version import micros

OBSERVED = "observed"
WORK_ITEM_KINDS = frozenset(("issue", "pull_request", "work_item"))
PRESENT_KINDS = WORK_ITEM_KINDS | frozenset(("database", "droplet", "firewall"))
"""Kinds of items that are there or are gone: what a whole listing does not show any more."""
RECORD_KINDS = frozenset(
    (
        "action",
        "check_run",
        "check_suite",
        "comment",
        "deployment",
        "deployment_status",
        "event",
        "job",
        "project",
        "run",
    )
)
"""Kinds of items that happened, or are told of in another way: that a listing misses one says nothing."""
SETTLED_S = 2
"""An observation that was fetched this long after the thing's own time has seen the whole second of it."""


def observed_kind(kind: str) -> str:
    """The kind of a delivery that shows a `kind`."""
    return f"{OBSERVED}.{kind}"


def is_observed(kind: str) -> bool:
    """Whether a delivery of this kind shows what we fetched."""
    return kind.startswith(f"{OBSERVED}.")


def observed_body(scope: str, item: Any) -> bytes:
    """The body of a delivery that shows `item`, a decoded JSON value, as found in `scope`.

    Keys are sorted: the order in which an API writes them says nothing. Raises NotJson for a number that JSON cannot
    say: 1e999 is read as infinity.
    """
    shown = {"scope": scope, "item": clean_value(item)}
    try:
        text = json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise NotJson("an item holds a number beyond all bounds") from None
    return text.encode()


def observation(
    *, source: str, ref: str, kind: str, body: bytes, via: Via, run_id: str, fetched_at: datetime
) -> Delivery:
    """The delivery that shows one thing as it was when it was fetched; `body` is an `observed_body`.

    One run may show a thing twice: as two kinds, or again after it has changed.
    """
    return Delivery(
        source=source,
        identity=_identity(run_id, f"{kind}:{ref}@{micros(fetched_at)}"),
        kind=observed_kind(kind),
        via=via,
        received_at=fetched_at,
        body=body,
        body_sha256=body_sha256(body),
    )


def _identity(run_id: str, sight: str) -> str:
    """Run and sight; the sight's hash where an identity cannot hold the sight itself."""
    try:
        return require_identity(f"{run_id}:{sight}")
    except MalformedName:
        return require_identity(f"{run_id}:{hashlib.sha256(sight.encode()).hexdigest()}")
