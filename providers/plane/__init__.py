"""Plane: work items, their comments, projects; by webhook in both of its formats, and by its API.

Webhooks: https://developers.plane.so/dev-tools/intro-webhooks
What we rely on, and the traps: contracts/upstream/plane.md
"""

from providers.plane.normalize import normalize
from providers.plane.options import PlaneOptions
from providers.plane.poll import items
from providers.plane.polling import POLLING
from providers.plane.verify import KEPT_HEADERS, compose, new_secret, open_verification
from providers.port import Provider

PROVIDER = Provider(
    name="plane",
    headers=KEPT_HEADERS,
    verify=open_verification,
    normalize=normalize,
    compose=compose,
    new_secret=new_secret,
    options=PlaneOptions,
    items=items,
    polling=POLLING,
)
