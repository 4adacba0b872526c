"""Runs over real sources."""

from __future__ import annotations

from providers.port import Source
from services.poller import turn
from services.poller.run import Report
from tests.services.poller.running import Shop

TOKEN = b"a token"


async def poll(shop: Shop, source: Source, *scopes: str) -> list[Report]:
    """One round: a run over every scope of a source, or over those named."""
    assert source.provider.polling is not None
    reports = []
    for scope in source.provider.polling.scopes(source):
        if scopes and scope.name not in scopes:
            continue
        work = shop.work()
        ordered = turn.order(source, scope, "manual")
        run = turn.prepare(work, ordered, TOKEN)
        held = await turn.begin(work, ordered, await work.leases.look(source.name, scope.name))
        assert held is not None
        reports.append(await turn.carry_out(work, ordered, run, held))
    return reports
