"""How DigitalOcean's API is polled: what is there, what was done, and how those that are there fare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from providers.digitalocean.actions import ACTIONS, actions
from providers.digitalocean.listings import LISTINGS, listing
from providers.digitalocean.monitoring import databases, droplets
from providers.polling import Allowance, Polling, Scope
from providers.port import Source


def scopes(source: Source) -> Sequence[Scope]:
    """All that the token may see: each listing, the actions, and the health of what is there."""
    return [
        *(Scope(name=kind, parts={kind: listing(kind)}) for kind in LISTINGS),
        Scope(name=ACTIONS, parts={ACTIONS: actions}),
        Scope(name="monitoring", parts={"droplets": droplets, "databases": databases}),
    ]


def allowance(headers: Mapping[str, str], fetched_at: datetime) -> Allowance | None:
    """What the headers `ratelimit-*` say; their reset is a time in epoch seconds."""
    try:
        left, of = int(headers["ratelimit-remaining"]), int(headers["ratelimit-limit"])
        renewed_in_s = int(headers["ratelimit-reset"]) - fetched_at.timestamp()
    except (KeyError, ValueError):
        return None
    return Allowance(left=left, of=of, renewed_in_s=max(0.0, renewed_in_s))


POLLING = Polling(scopes=scopes, allowance=allowance)
