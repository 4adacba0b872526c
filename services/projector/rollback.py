"""The old tables that a swap has kept: putting them back, with everything that has come since, and dropping them."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.projector import shadow
from services.projector.fingerprint import fingerprints
from services.projector.rebuild import Replayed
from services.projector.replaying import Replay, sweep
from services.projector.shadow import About, InTheWay
from services.projector.swap import put_in_place
from services.projector.work import AnotherLog, Work, alone, same_log


class NothingKept(Exception):
    """there are no old tables"""


async def kept_tables(connection: AsyncConnection) -> dict[str, About]:
    """The schemas with old tables and what is in each, the newest first."""
    kept = {
        name: about for name, about in (await shadow.ours(connection)).items() if about.purpose == "before"
    }
    return dict(sorted(kept.items(), key=lambda item: item[1].made_at, reverse=True))


async def rollback(work: Work) -> Replayed:
    """Put the newest old tables back, with what the log has had since folded into them by today's code.

    What is live now is kept in its turn. Whoever is killed on the way leaves old tables that have a part of that.
    Raises NothingKept, AnotherLog, InTheWay, Busy, RebuildRunning and BrokerAway.
    """
    started = monotonic()
    async with alone(work.engine):
        await sweep(work.engine)
        async with work.engine.connect() as connection:
            kept = await kept_tables(connection)
            if not kept:
                raise NothingKept(
                    "there are no old tables to put back: no rebuild has kept any, or they were dropped"
                )
            schema, about = next(iter(kept.items()))
            if not about.models or len(shadow.chosen(about.models)) < len(about.models):
                raise InTheWay(
                    f"{schema} has tables that today's code does not know: {', '.join(about.models)}"
                )
            await shadow.check_columns(connection, schema, about.models)
            await shadow.check_swap(connection, about.models)
        if (state := await same_log(work)).first_seq > about.after + 1:
            raise AnotherLog(
                f"{schema} has everything up to {about.after}, and the log begins at {state.first_seq}: what came"
                " between could not be folded into it"
            )
        replay = Replay(work, schema, about.models, position=about.after)
        await replay.run()
        now_kept = await put_in_place(work, replay, _made_by(work, about))
    return Replayed(about.models, replay.done, monotonic() - started, replay.first_seq, kept=now_kept)


def _made_by(work: Work, about: About) -> Mapping[str, str]:
    """What made old rows and those of today's code: one hash where that is the same, else nobody knows."""
    today = fingerprints(work.sources)
    return {name: today[name] if about.made_by.get(name) == today[name] else "" for name in about.models}


async def drop_old(engine: AsyncEngine) -> list[str]:
    """Drop all old tables; the schemas' names. Raises InTheWay, before any is dropped, and RebuildRunning."""
    async with alone(engine):
        async with engine.connect() as connection:
            kept = await kept_tables(connection)
            others = [
                other
                for schema, about in kept.items()
                for other in await shadow.in_the_way(connection, about.models, schema)
            ]
        if others:
            raise InTheWay(f"{'; '.join(others)}: it would be dropped with the old tables. Remove it first")
        for schema in kept:
            await shadow.drop(engine, schema)
    return [*kept]
