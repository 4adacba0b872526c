"""DigitalOcean, which sends no webhooks: its API is read. What we rely on: contracts/upstream/digitalocean.md."""

from providers.digitalocean.items import items, total
from providers.digitalocean.normalize import normalize
from providers.digitalocean.polling import POLLING
from providers.port import Provider

PROVIDER = Provider(
    name="digitalocean",
    verify=None,
    normalize=normalize,
    compose=None,
    items=items,
    total=total,
    polling=POLLING,
)
