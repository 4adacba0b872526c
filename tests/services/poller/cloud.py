"""DigitalOcean with a handful of droplets that come and go."""

from __future__ import annotations

from dataclasses import replace

from contracts.ssot import Api as DeclaredApi
from providers.port import Source
from tests.api import Api, Call, Reply, by_number
from tests.samples import SOURCES

PAGE = 2
"""Small, so that a handful of droplets has pages."""
DROPLETS = "/v2/droplets"
SCOPE = "droplets"


def digitalocean(api: Api) -> Source:
    declared = DeclaredApi(base_url=api.address, auth="bearer", secret="DIGITALOCEAN_TOKEN")
    source = SOURCES["digitalocean"]
    return replace(source, file=source.file.model_copy(update={"api": declared}))


class Cloud:
    """Droplets by id, as the API lists them in small pages."""

    def __init__(self, api: Api, *ids: int) -> None:
        self.ids = list(ids)
        api.routes[DROPLETS] = self._droplets

    def _droplets(self, call: Call) -> Reply:
        shown = [{"id": each, "name": f"web-{each}", "status": "active", "tags": []} for each in self.ids]
        small = replace(call, query={**call.query, "per_page": str(PAGE)})
        return by_number(shown, "droplets")(small)
