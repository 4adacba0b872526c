"""Folding the whole log anew, beside the live tables: to put the result in their place, or only to compare it.

The shadow is made by the code that serves live, in the order of the log. Until the swap, which is one transaction,
nothing live is touched; whoever is killed before leaves a schema that `status` names and the next run removes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncEngine

from services.projector import shadow
from services.projector.comparing import compare
from services.projector.fingerprint import fingerprints, record, recorded
from services.projector.replaying import replaying
from services.projector.shadow import Compared
from services.projector.swap import mend_in_place, put_in_place
from services.projector.work import Work, alone, same_log


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to."""

    models: tuple[str, ...]
    deliveries: int
    seconds: float
    first_seq: int
    """Where the log begins, which is above 1 where it was trimmed."""
    compared: tuple[Compared, ...] = ()
    behind: int = 0
    """Deliveries that the live side had yet to fold, whose rows were not compared."""
    kept: str | None = None
    """The schema with the old tables."""
    proven_from: int = 1
    """The sequence from which on the log proves the tables, which is above 1 where it was trimmed."""
    taken_over: Mapping[str, int] = field(default_factory=dict)
    """Rows that rest on what was trimmed, by model: they are as they were live."""
    unheard: tuple[int, ...] = ()
    """Parked deliveries that today's code understands, by sequence: their events were never published."""
    older: tuple[str, ...] = ()
    """Models of which it was not known that all their rows were made by today's code and SSOT."""


def _unread(compared: Sequence[Compared], behind: int) -> None:
    """Nobody wants to know before the end."""


async def rebuild(
    work: Work,
    models: Collection[str] = (),
    *,
    limit: int,
    dry_run: bool,
    in_place: bool = False,
    found: Callable[[Sequence[Compared], int], None] = _unread,
) -> Replayed:
    """Fold the log anew and put the result in the place of the live tables, of `models` or of all.

    The result names differing rows, `limit` of each model at most; `found` is told of them, and how many deliveries
    the live side had yet to fold, before anything is changed. A dry run only compares: that is `verify`. With
    `in_place` the differing rows are replaced where they are, and no old tables are kept.

    Raises RebuildRunning, AnotherLog, InTheWay, Busy, and BrokerAway.
    """
    started = monotonic()
    today = fingerprints(work.sources)
    names = tuple(model.name for model in shadow.chosen(models))
    async with alone(work.engine) as process:
        await same_log(work)
        async with work.engine.connect() as connection:
            known = await recorded(connection)
            if not dry_run and not in_place:
                await shadow.check_swap(connection, names)
        async with replaying(work, models, process) as replay:
            await replay.run()
            await replay.index()
            compared, behind, unheard = await compare(work, replay, limit)
            found(compared, behind)
            kept = None
            made_by = {name: today[name] for name in names}
            if dry_run:
                equal = {each.model for each in compared if each.equal and not behind}
                await _record(work.engine, {name: today[name] for name in names if name in equal})
            elif in_place:
                await mend_in_place(work, replay, made_by)
            else:
                kept = await put_in_place(work, replay, made_by)
    return Replayed(
        names,
        replay.done,
        monotonic() - started,
        replay.first_seq,
        tuple(compared),
        behind,
        kept,
        replay.proven_from,
        replay.taken_over,
        tuple(unheard),
        tuple(name for name in names if known.get(name) != today[name]),
    )


async def _record(engine: AsyncEngine, made_by: Mapping[str, str]) -> None:
    async with engine.begin() as connection:
        await record(connection, made_by)
