"""Comparing what a replay came to with the live tables, both as they are at one moment."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from contracts.own import SOURCE
from read_models.deliveries import SET_ASIDE
from services.projector import shadow
from services.projector.replaying import WORD_KINDS, Replay
from services.projector.shadow import Compared, Scope
from services.projector.swap import held_up, last_folded, surely_folded
from services.projector.work import Busy, Work

UNHEARD_COUNT_MAX = 1_000
"""Parked deliveries that are named where today's code understands them."""
BEHIND_COUNT_MAX = 20_000
"""Deliveries in hand, and those that share an identity with one, whose rows are left out of a comparison."""
BEHIND_TRIES = 5
BEHIND_AGAIN_S = 0.3


async def compare(work: Work, replay: Replay, limit: int) -> tuple[list[Compared], int, list[int]]:
    """Compare shadow and live as they are at one moment, at which both have folded the same.

    The projectors are held up only while the tail is folded and the moment is taken. Deliveries that they have in
    hand then are in the shadow and not yet live: their rows are left out, and they are counted. The third are those
    of which nobody has heard, by sequence.
    """
    for tried in range(1, BEHIND_TRIES + 1):
        await replay.catch_up()
        surely = await surely_folded(work)
        async with work.engine.connect() as snapshot:
            await snapshot.execution_options(isolation_level="REPEATABLE READ")
            async with held_up(work.engine) as connection:
                await replay.upto(await last_folded(work, connection))
                await snapshot.execute(text("SELECT"))  # from here on it sees this moment
            values = {"surely": surely, "words": WORD_KINDS, "own": SOURCE, "aside": sorted(SET_ASIDE)}
            behind = (await snapshot.execute(text(_BEHIND.format(shadow=replay.schema)), values)).all()
            if len(behind) > BEHIND_COUNT_MAX:
                raise Busy(
                    f"the projectors are over {BEHIND_COUNT_MAX:,} deliveries behind: let them catch up first"
                    " (odooops status shows their lag)"
                )
            if behind and tried < BEHIND_TRIES:
                await snapshot.rollback()
                await asyncio.sleep(BEHIND_AGAIN_S)
                continue
            scope = Scope(
                not_refs={ref for row in behind for ref in row.refs or ()},
                not_sequences={row.stream_seq for row in behind},
                not_sources={row.source for row in behind},
            )
            found = [
                await shadow.compare(snapshot, model, replay.schema, scope=scope, limit=limit)
                for model in shadow.chosen(replay.models)
            ]
            unheard = await snapshot.execute(text(_UNHEARD.format(shadow=replay.schema)))
            return found, sum(row.waits for row in behind), [row.stream_seq for row in unheard]
    raise AssertionError  # the last try returns


_UNHEARD = (
    "SELECT l.stream_seq FROM ops.deliveries AS l JOIN {shadow}.deliveries AS s USING (source, identity, body_sha256)"
    f" WHERE l.status = 'parked' AND s.status = 'projected' ORDER BY l.stream_seq LIMIT {UNHEARD_COUNT_MAX}"
)

_BEHIND = (
    "WITH both_sides AS (SELECT s.source, s.identity, s.body_sha256, s.status, l.status AS live_status,"
    " s.source = :own AND s.kind = ANY(CAST(:words AS text[])) AS word,"
    " s.last_seq > :surely AND (l.source IS NULL OR l.last_seq < s.last_seq OR l.stream_seq > s.stream_seq) AS waits"
    " FROM {shadow}.deliveries AS s LEFT JOIN ops.deliveries AS l USING (source, identity, body_sha256)),"
    " behind AS (SELECT DISTINCT source, identity FROM both_sides AS b WHERE waits"
    " OR status = ANY(CAST(:aside AS text[])) AND live_status IS DISTINCT FROM status"
    " AND EXISTS (SELECT FROM both_sides WHERE waits AND word))"
    " SELECT d.source, d.stream_seq, d.refs, COALESCE(b.waits, false) AS waits"
    " FROM behind JOIN {shadow}.deliveries AS d USING (source, identity)"
    " LEFT JOIN both_sides AS b USING (source, identity, body_sha256)"
    " UNION ALL SELECT d.source, d.stream_seq, d.refs, false"
    f" FROM behind JOIN ops.deliveries AS d USING (source, identity) LIMIT {BEHIND_COUNT_MAX + 1}"
)
"""Deliveries, or copies of them, that the shadow has and the live ledger has not yet: what was acknowledged and is
not there is lost, which is a difference. With them go the other bodies of their identities, and where an operator's
word is among them what it may be about."""
