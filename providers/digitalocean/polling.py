"""How DigitalOcean's API is polled: what is there, what was done, and how those that are there fare."""

from __future__ import annotations

from collections.abc import Sequence

from providers.digitalocean.actions import ACTIONS, actions
from providers.digitalocean.listings import LISTINGS, listing
from providers.digitalocean.monitoring import databases, droplets
from providers.polling import Polling, Scope, rate_limit
from providers.port import Source


def scopes(source: Source) -> Sequence[Scope]:
    """All that the token may see: each listing, the actions, and the health of what is there."""
    return [
        *(Scope(name=kind, parts={kind: listing(kind)}) for kind in LISTINGS),
        Scope(name=ACTIONS, parts={ACTIONS: actions}),
        Scope(name="monitoring", parts={"droplets": droplets, "databases": databases}),
    ]


POLLING = Polling(scopes=scopes, allowance=rate_limit("ratelimit"))
